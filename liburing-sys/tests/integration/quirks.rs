//! What is wrong in shipped versions of liburing is not wrong here.
//!
//! A library that "says it is 2.x" is a stub over the installed one: it has that version's number and, where a test is
//! about a mistake in the library itself, that mistake; everything else is the installed library's.

use std::ffi::c_int;
use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;

use liburing_sys as sys;

/// A ring with this setup; `None` where it is not allowed, or where the kernel does not know the flags.
#[track_caller]
fn ring(entries: u32, flags: u32) -> Option<Ring> {
    let mut ring = Box::new(MaybeUninit::<sys::io_uring>::zeroed());
    // SAFETY: the ring stays in its box until queue_exit.
    let result = unsafe { sys::io_uring_queue_init(entries, ring.as_mut_ptr(), flags) };
    if result < 0 {
        let error = io::Error::from_raw_os_error(-result);
        eprintln!("skipped: a ring with flags {flags:#x} is refused here: {error}");
        return None;
    }
    Some(Ring(ring))
}

struct Ring(Box<MaybeUninit<sys::io_uring>>);

impl Ring {
    fn as_ptr(&mut self) -> *mut sys::io_uring {
        self.0.as_mut_ptr()
    }

    /// Submits one nop: what the submission returned.
    fn nop(&mut self) -> c_int {
        // SAFETY: the ring is initialised and this thread's; a nop names no memory.
        unsafe {
            let sqe = sys::io_uring_get_sqe(self.as_ptr());
            assert!(!sqe.is_null());
            sys::io_uring_prep_nop(sqe);
            sys::io_uring_sqe_set_data64(sqe, 7);
            sys::io_uring_submit(self.as_ptr())
        }
    }

    /// Takes one completion: its result.
    fn complete(&mut self) -> c_int {
        let mut cqe = ptr::null_mut();
        // SAFETY: the ring is initialised and this thread's; the entry is given back once, after the read.
        unsafe {
            assert_eq!(sys::io_uring_wait_cqe(self.as_ptr(), &mut cqe), 0);
            let result = (*cqe).res;
            sys::io_uring_cqe_seen(self.as_ptr(), cqe);
            result
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: initialised, and never used again.
        unsafe { sys::io_uring_queue_exit(self.as_ptr()) };
    }
}

#[test]
fn a_disabled_ring_can_be_enabled() {
    let Some(mut ring) = ring(4, sys::IORING_SETUP_R_DISABLED) else { return };
    assert_eq!(ring.nop(), -libc::EBADFD);
    // SAFETY: an initialised ring.
    assert_eq!(unsafe { sys::io_uring_enable_rings(ring.as_ptr()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { sys::io_uring_enable_rings(ring.as_ptr()) }, -libc::EBADFD, "it is enabled already");
    // SAFETY: as above.
    assert_eq!(unsafe { sys::io_uring_submit(ring.as_ptr()) }, 1);
    assert_eq!(ring.complete(), 0);
}

#[test]
fn a_restricted_ring_refuses_what_is_not_listed() {
    let Some(mut ring) = ring(4, sys::IORING_SETUP_R_DISABLED) else { return };
    // SAFETY: integers, for which zero is a value.
    let mut only_nop: sys::io_uring_restriction = unsafe { mem::zeroed() };
    only_nop.opcode = sys::IORING_RESTRICTION_SQE_OP as u16;
    only_nop.__bindgen_anon_1.sqe_op = sys::IORING_OP_NOP as u8;
    // SAFETY: an initialised ring, and one restriction.
    unsafe {
        assert_eq!(sys::io_uring_register_restrictions(ring.as_ptr(), &mut only_nop, 1), 0);
        assert_eq!(sys::io_uring_register_restrictions(ring.as_ptr(), &mut only_nop, 1), -libc::EBUSY);
        assert_eq!(sys::io_uring_enable_rings(ring.as_ptr()), 0);
    }
    assert_eq!((ring.nop(), ring.complete()), (1, 0));
    // SAFETY: the ring is this thread's; an fsync names no memory.
    unsafe {
        let sqe = sys::io_uring_get_sqe(ring.as_ptr());
        sys::io_uring_prep_fsync(sqe, -1, 0);
        assert_eq!(sys::io_uring_submit(ring.as_ptr()), 1);
    }
    assert_eq!(ring.complete(), -libc::EACCES);
}

#[test]
fn any_free_entry_of_the_file_table_is_taken() {
    let Some(mut ring) = ring(4, 0) else { return };
    // SAFETY: an initialised ring of this thread's; path and `how` outlive the completion.
    unsafe {
        let registered = sys::io_uring_register_files_sparse(ring.as_ptr(), 2);
        if registered == -libc::EINVAL {
            eprintln!("skipped: the kernel has no sparse file tables (before Linux 5.19)");
            return;
        }
        assert_eq!(registered, 0);
        let path = c"/dev/null".as_ptr();
        let mut how: sys::open_how = mem::zeroed();
        how.flags = libc::O_RDWR as u64;
        // The table has two entries, the first of which are 0 and 1; the third finds none.
        for (round, expected) in [0, 1, -libc::ENFILE].into_iter().enumerate() {
            let sqe = sys::io_uring_get_sqe(ring.as_ptr());
            let any = sys::IORING_FILE_INDEX_ALLOC;
            if round == 0 {
                sys::io_uring_prep_openat_direct(sqe, libc::AT_FDCWD, path, libc::O_RDWR, 0, any);
            } else {
                sys::io_uring_prep_openat2_direct(sqe, libc::AT_FDCWD, path, &raw mut how, any);
            }
            assert_eq!(sys::io_uring_submit(ring.as_ptr()), 1);
            assert_eq!(ring.complete(), expected, "entry of the table in round {round}");
        }
    }
}

#[test]
fn entries_of_the_file_table_are_written_as_the_kernel_reads_them() {
    // SAFETY: integers, for which zero is a value; entries of our own, which nobody submits.
    unsafe {
        let mut sqe: sys::io_uring_sqe = mem::zeroed();
        let sqe = &raw mut sqe;
        let index = || sqe.cast::<u8>().add(44).cast::<u32>().read();
        for (given, written) in [(sys::IORING_FILE_INDEX_ALLOC, u32::MAX), (0, 1), (41, 42), (u32::MAX - 1, u32::MAX)] {
            sys::io_uring_prep_accept_direct(sqe, 3, ptr::null_mut(), ptr::null_mut(), 0, given);
            assert_eq!(index(), written, "accept {given}");
            sys::io_uring_prep_openat_direct(sqe, 3, ptr::null(), 0, 0, given);
            assert_eq!(index(), written, "openat {given}");
            sys::io_uring_prep_openat2_direct(sqe, 3, ptr::null(), ptr::null_mut(), given);
            assert_eq!(index(), written, "openat2 {given}");
            sys::io_uring_prep_socket_direct(sqe, 1, 2, 3, given, 4);
            assert_eq!(index(), written, "socket {given}");
        }
    }
}

#[cfg(liburing_2_6)]
#[test]
fn reads_that_go_on_take_buffers_of_their_group() {
    // SAFETY: integers, for which zero is a value; an entry of our own, which nobody submits.
    unsafe {
        let mut sqe: sys::io_uring_sqe = mem::zeroed();
        sys::io_uring_prep_read_multishot(&mut sqe, 3, 0, 0, 41);
        assert_eq!(u32::from(sqe.flags), sys::IOSQE_BUFFER_SELECT);
        let group = (&raw const sqe).cast::<u8>().add(40).cast::<u16>().read();
        assert_eq!(group, 41);
    }
}

#[test]
fn lengths_of_messages_do_not_overflow() {
    // The length of what was received, and whether the buffer holds all that was asked for.
    let validate = |length: c_int, name: u32, control: usize| {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_namelen = name;
        message.msg_controllen = control;
        let mut buffer = [0_u64; 64];
        let buffer = buffer.as_mut_ptr();
        // SAFETY: a message header of ours; the buffer is not read.
        let (out, payload) = unsafe {
            (
                sys::io_uring_recvmsg_validate(buffer.cast(), length, &mut message),
                sys::io_uring_recvmsg_payload_length(buffer.cast(), length, &mut message),
            )
        };
        assert!(out.is_null() || out == buffer.cast());
        if out.is_null() { Err(payload) } else { Ok(payload) }
    };
    assert_eq!(validate(16, 0, 0), Ok(0));
    assert_eq!(validate(100, 16, 24), Ok(44));
    assert_eq!(validate(15, 0, 0), Err(0));
    assert_eq!(validate(100, 60, 60), Err(0));
    assert_eq!(validate(-1, 0, 0), Err(0));
    assert_eq!(validate(c_int::MIN, 0, 0), Err(0));
    // 16 more than this is 0.
    assert_eq!(validate(100, 0, usize::MAX - 15), Err(0));
    assert_eq!(validate(100, u32::MAX, usize::MAX - u32::MAX as usize - 15), Err(0));
}

#[test]
fn operations_outside_of_the_table_are_not_supported() {
    // A table of two operations, with what looks like one in front of it.
    let mut words = [u32::MAX; 12];
    // SAFETY: the probe lies inside of the words.
    unsafe {
        let probe = words.as_mut_ptr().add(2).cast::<sys::io_uring_probe>();
        (*probe).last_op = 1;
        let ops = (&raw mut (*probe).ops).cast::<sys::io_uring_probe_op>();
        assert!(ops.add(2) <= words.as_mut_ptr_range().end.cast());
        let supported = |op| sys::io_uring_opcode_supported(probe, op);
        assert_eq!([-1, c_int::MIN, 2, c_int::MAX].map(supported), [0; 4]);
        (*ops).flags = sys::IO_URING_OP_SUPPORTED as u16;
        (*ops.add(1)).flags = !sys::IO_URING_OP_SUPPORTED as u16;
        assert_eq!([0, 1].map(supported), [1, 0]);
    }
}

/// With a stub, what we do for libraries of 2.9 to 2.14; `alone` in the process, it sees what stays mapped.
#[cfg(liburing_2_9)]
fn a_ring_changes_its_size(alone: bool) {
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("[io_uring]").count();
    let flags = sys::IORING_SETUP_SINGLE_ISSUER | sys::IORING_SETUP_DEFER_TASKRUN;
    for flags in [flags, flags | sys::IORING_SETUP_SQE128] {
        let Some(mut ring) = ring(2, flags) else { return };
        // The resized queues are not mapped in one piece, as they were before.
        let mut mapped = None;
        assert_eq!(ring.nop(), 1);
        for entries in [256, 2, 64, 2] {
            // SAFETY: integers, for which zero is a value.
            let mut params: sys::io_uring_params = unsafe { mem::zeroed() };
            params.sq_entries = entries;
            params.flags = sys::IORING_SETUP_CLAMP;
            // SAFETY: an initialised ring of this thread's; no entry is held.
            let result = unsafe { sys::io_uring_resize_rings(ring.as_ptr(), &mut params) };
            if result == -libc::EINVAL {
                eprintln!("skipped: the kernel does not resize rings (before Linux 6.13)");
                return;
            }
            assert_eq!((result, params.flags), (0, 0));
            if alone {
                assert_eq!(mappings(), *mapped.get_or_insert_with(mappings), "{entries} entries, flags {flags:#x}");
            }
            // SAFETY: an initialised ring.
            assert_eq!(unsafe { (*ring.as_ptr()).sq.ring_entries }, entries);
            assert_eq!(ring.complete(), 0, "the completion of before is still there");
            for _ in 1..entries {
                assert_eq!(ring.nop(), 1);
            }
            for _ in 1..entries {
                assert_eq!(ring.complete(), 0);
            }
            assert_eq!(ring.nop(), 1);
        }
        assert_eq!(ring.complete(), 0);
    }
}

#[cfg(liburing_2_9)]
#[test]
fn rings_change_their_size() {
    a_ring_changes_its_size(false);
}

/// Waits by a registered argument; with a stub, what we do for libraries of 2.9 to 2.14.
#[cfg(liburing_2_9)]
fn a_registered_wait_ends_in_time() {
    const LONG: std::time::Duration = std::time::Duration::from_millis(300);

    let Some(mut ring) = ring(4, sys::IORING_SETUP_R_DISABLED) else { return };
    // SAFETY: a page of our own, which stays mapped until the ring is closed and the process ends.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let page = libc::mmap(ptr::null_mut(), 4096, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        let waits = page.cast::<sys::io_uring_reg_wait>();
        for (index, (seconds, nanoseconds)) in
            [(0, 20_000_000), (0, LONG.as_nanos() as i64), (30, 0)].into_iter().enumerate()
        {
            (*waits.add(index)).ts.tv_sec = seconds;
            (*waits.add(index)).ts.tv_nsec = nanoseconds;
            (*waits.add(index)).flags = sys::IORING_REG_WAIT_TS;
        }
        let mut region: sys::io_uring_region_desc = mem::zeroed();
        region.user_addr = page.expose_provenance() as u64;
        region.size = 4096;
        region.flags = sys::IORING_MEM_REGION_TYPE_USER;
        let mut registration: sys::io_uring_mem_region_reg = mem::zeroed();
        registration.region_uptr = (&raw mut region).expose_provenance() as u64;
        registration.flags = u64::from(sys::IORING_MEM_REGION_REG_WAIT_ARG);
        let result = sys::io_uring_register_region(ring.as_ptr(), &mut registration);
        if result == -libc::EINVAL {
            eprintln!("skipped: the kernel has no registered waits (before Linux 6.13)");
            return;
        }
        assert_eq!(result, 0);

        let mut cqe = ptr::dangling_mut();
        let wait = sys::io_uring_submit_and_wait_reg;
        // A failing submission is told.
        sys::io_uring_prep_nop(sys::io_uring_get_sqe(ring.as_ptr()));
        assert_eq!(wait(ring.as_ptr(), &mut cqe, 1, 0), -libc::EBADFD);
        assert_eq!(sys::io_uring_enable_rings(ring.as_ptr()), 0);
        assert_eq!(wait(ring.as_ptr(), &mut cqe, 1, 0), 1);
        assert!(!cqe.is_null());
        sys::io_uring_cqe_seen(ring.as_ptr(), cqe);

        // Nothing comes.
        for (index, least) in [(0, LONG / 20), (1, LONG)] {
            let start = std::time::Instant::now();
            assert_eq!(wait(ring.as_ptr(), &mut cqe, 1, index), -libc::ETIME);
            assert!(cqe.is_null());
            assert!(start.elapsed() >= least, "argument {index} was not the one");
        }
        // Something is submitted, and does not come.
        let mut pipe = [-1; 2];
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        let sqe = sys::io_uring_get_sqe(ring.as_ptr());
        sys::io_uring_prep_poll_add(sqe, pipe[0], libc::POLLIN as u32);
        assert_eq!(wait(ring.as_ptr(), &mut cqe, 1, 0), 1);
        assert!(cqe.is_null());
        // One is submitted, and a second does not come: what is there is handed out.
        sys::io_uring_prep_nop(sys::io_uring_get_sqe(ring.as_ptr()));
        assert_eq!(wait(ring.as_ptr(), &mut cqe, 2, 0), 1);
        assert_eq!(wait(ring.as_ptr(), &mut cqe, 2, 0), 0);
        assert!(!cqe.is_null());
        sys::io_uring_cqe_seen(ring.as_ptr(), cqe);

        // The kernel stops behind an entry that it refuses, and does not wait: what is left is submitted by the next call.
        for opcode in [sys::IORING_OP_NOP, 255, sys::IORING_OP_NOP] {
            let sqe = sys::io_uring_get_sqe(ring.as_ptr());
            sys::io_uring_prep_nop(sqe);
            (*sqe).opcode = opcode as u8;
        }
        let start = std::time::Instant::now();
        assert_eq!(wait(ring.as_ptr(), &mut cqe, 3, 2), 2);
        assert!(start.elapsed().as_secs() < 30, "it waited for completions that cannot come");
        assert_eq!(sys::io_uring_sq_ready(ring.as_ptr()), 1);
        for expected in [0, -libc::EINVAL] {
            assert_eq!(sys::io_uring_peek_cqe(ring.as_ptr(), &mut cqe), 0);
            assert_eq!((*cqe).res, expected);
            sys::io_uring_cqe_seen(ring.as_ptr(), cqe);
        }
        assert_eq!(wait(ring.as_ptr(), &mut cqe, 1, 0), 1);
        assert!(!cqe.is_null());
        sys::io_uring_cqe_seen(ring.as_ptr(), cqe);

        // Nor without a descriptor, but for the registered one.
        assert_eq!(sys::io_uring_register_ring_fd(ring.as_ptr()), 1);
        assert_eq!(sys::io_uring_close_ring_fd(ring.as_ptr()), 1);
        assert_eq!(wait(ring.as_ptr(), &mut cqe, 1, 0), -libc::ETIME);
        assert_eq!(sys::io_uring_enable_rings(ring.as_ptr()), -libc::EBADFD, "it is enabled already");
    }
}

#[cfg(liburing_2_9)]
#[test]
fn registered_waits_end_in_time() {
    a_registered_wait_ends_in_time();
}

/// Entries of both sizes, and one without meaning, as they lie in a queue.
#[cfg(liburing_2_13)]
fn mixed_entries_are_taken_in_batches() {
    const F_32: u32 = sys::IORING_CQE_F_32;
    const F_SKIP: u32 = sys::IORING_CQE_F_SKIP;

    let mut counters = [u32::MAX - 2, u32::MAX - 2, 0];
    // SAFETY: integers, for which zero is a value.
    let mut cqes: [sys::io_uring_cqe; 8] = unsafe { mem::zeroed() };
    // SAFETY: integers and pointers, for which zero is a value.
    let mut ring: sys::io_uring = unsafe { mem::zeroed() };
    ring.flags = sys::IORING_SETUP_CQE_MIXED;
    ring.ring_fd = -1;
    ring.enter_ring_fd = -1;
    ring.features = sys::IORING_FEAT_EXT_ARG;
    let counter = counters.as_mut_ptr();
    ring.cq.khead = counter;
    ring.cq.ktail = counter.wrapping_add(1);
    ring.sq.kflags = counter.wrapping_add(2);
    ring.cq.cqes = cqes.as_mut_ptr();
    ring.cq.ring_mask = 7;
    ring.cq.ring_entries = 8;
    let mut places = [ptr::null_mut(); 8];
    let mut take = |ring: &mut sys::io_uring, count: u32| {
        // SAFETY: a ring of our own, which is complete for what is read of it.
        let taken = unsafe { sys::io_uring_peek_batch_cqe(ring, places.as_mut_ptr(), count) } as usize;
        // SAFETY: entries of the ring's.
        places[..taken].iter().map(|cqe| unsafe { (**cqe).user_data }).collect::<Vec<_>>()
    };
    assert_eq!(take(&mut ring, 8), []);

    // In eight places: one without meaning, a large entry in two, a small one, a large one in two, a small one.
    let start = u32::MAX - 2;
    for (place, user_data, flags) in [(0, 0, F_SKIP), (1, 1, F_32), (3, 2, 0), (4, 3, F_32), (6, 4, 0)] {
        let index = (start.wrapping_add(place) & 7) as usize;
        // SAFETY: inside of the queue, which nobody reads now.
        unsafe {
            let cqe = ring.cq.cqes.add(index);
            (*cqe).user_data = user_data;
            (*cqe).flags = flags;
        }
    }
    // SAFETY: the counters outlive the ring.
    unsafe { ring.cq.ktail.write(start.wrapping_add(7)) };
    assert_eq!(take(&mut ring, 2), [1, 2]);
    assert_eq!(take(&mut ring, 8), [1, 2, 3, 4]);
    assert_eq!(take(&mut ring, 0), []);
    // SAFETY: as above.
    let head = unsafe { ring.cq.khead.read() };
    assert_eq!(head, start + 1, "the one without meaning was first, and is gone");
}

/// Those of 2.13 and 2.14 have it wrong: only with a stub, or with the library of 2.15, is it ours to say.
#[cfg(liburing_2_13)]
#[test]
fn entries_of_two_sizes_are_taken_in_batches() {
    mixed_entries_are_taken_in_batches();
}

/// Needs to choose the library, which a program that is linked to one cannot.
#[cfg(all(feature = "dlopen", not(feature = "link")))]
mod with_a_stub {
    use std::fmt::Write;
    use std::fs;

    use super::*;
    use crate::{c, library};

    /// Runs `body` in a new process, with a library over the installed one that says it is 2.`minor` and has `mistakes`.
    #[track_caller]
    fn library_says(minor: u32, mistakes: &str, test: &str, body: impl FnOnce()) {
        let test = format!("quirks::with_a_stub::{test}");
        library::in_new_process_for(&test, &minor.to_string(), || {
            let folder = c::folder(&format!("{}-{minor}", test.replace("::", "-")));
            let (source, stub) = (folder.join("stub.c"), folder.join(format!("liburing-2.{minor}.so")));
            let mut text = String::from("#include <errno.h>\n#include <stddef.h>\n");
            writeln!(text, "int io_uring_major_version(void) {{ return 2; }}\n{mistakes}").unwrap();
            writeln!(text, "int io_uring_minor_version(void) {{ return {minor}; }}").unwrap();
            fs::write(&source, text).unwrap();
            let mut command = std::process::Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
            command.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(&stub).arg(&source);
            if let Some(folder) = c::library_folder() {
                command.arg("-L").arg(folder);
            }
            c::run(command.arg("-luring"));
            // SAFETY: the installed library, but for functions of the header's types.
            assert_eq!(unsafe { sys::load_from(&stub) }, Ok(()));
            assert_eq!(sys::library_version(), Some(sys::Version { major: 2, minor }));
            body();
        });
    }

    /// Whether a function is ours or the stub's, by the version of the library.
    #[track_caller]
    fn ours_with(ours: &[u32], others: &[u32], mistakes: &str, test: &str, is_ours: impl Fn() -> bool) {
        for minor in ours.iter().chain(others) {
            library_says(*minor, mistakes, test, || assert_eq!(is_ours(), ours.contains(minor), "with 2.{minor}"));
        }
    }

    fn nothing<T>() -> T {
        // SAFETY: used for the header's structures, which are integers and pointers: zero is a value.
        unsafe { mem::zeroed() }
    }

    #[test]
    fn versions_of_ring_registration() {
        let stub = "int io_uring_register_ring_fd(void *r) { return 1; }";
        ours_with(&[4], &[3, 5, 15], stub, "versions_of_ring_registration", || {
            let mut ring: sys::io_uring = nothing();
            // SAFETY: neither looks at more than the features.
            unsafe { sys::io_uring_register_ring_fd(&mut ring) == -libc::EOPNOTSUPP }
        });
    }

    #[cfg(liburing_2_9)]
    #[test]
    fn versions_of_resizing() {
        let stub = "int io_uring_resize_rings(void *r, void *p) { return -ENOTTY; }";
        ours_with(&[9, 14], &[8, 15, 16], stub, "versions_of_resizing", || {
            let (mut ring, mut params): (sys::io_uring, sys::io_uring_params) = nothing();
            ring.flags = sys::IORING_SETUP_NO_MMAP;
            // SAFETY: neither looks at more than the flags.
            unsafe { sys::io_uring_resize_rings(&mut ring, &mut params) == -libc::EINVAL }
        });
    }

    #[cfg(liburing_2_9)]
    #[test]
    fn versions_of_registered_waits() {
        let stub = "int io_uring_submit_and_wait_reg(void *r, void **c, unsigned n, int i) { return -ENOTTY; }";
        ours_with(&[9, 14], &[8, 15, 16], stub, "versions_of_registered_waits", || {
            let mut ring: sys::io_uring = nothing();
            let mut cqe = ptr::null_mut();
            // SAFETY: neither looks at more than the features.
            unsafe { sys::io_uring_submit_and_wait_reg(&mut ring, &mut cqe, 1, 0) == -libc::EINVAL }
        });
    }

    #[cfg(liburing_2_13)]
    #[test]
    fn versions_of_batches() {
        let stub = "unsigned io_uring_peek_batch_cqe(void *r, void **c, unsigned n) { return 7; }";
        ours_with(&[3, 13, 14], &[15, 16], stub, "versions_of_batches", || {
            let mut counters = [0_u32; 3];
            let counter = counters.as_mut_ptr();
            let mut ring: sys::io_uring = nothing();
            ring.flags = sys::IORING_SETUP_CQE_MIXED;
            (ring.cq.khead, ring.cq.ktail) = (counter, counter.wrapping_add(1));
            ring.sq.kflags = counter.wrapping_add(2);
            // SAFETY: an empty queue of our own.
            unsafe {
                let taken = sys::io_uring_peek_batch_cqe(&mut ring, ptr::null_mut(), 0);
                ring.flags = 0;
                assert_eq!(sys::io_uring_peek_batch_cqe(&mut ring, ptr::null_mut(), 0), 7, "all entries have one size");
                taken == 0
            }
        });
    }

    #[test]
    fn a_ring_is_not_registered_with_2_4_on_an_old_kernel() {
        library_says(4, "", "a_ring_is_not_registered_with_2_4_on_an_old_kernel", || {
            let Some(mut ring) = ring(2, 0) else { return };
            // SAFETY: an initialised ring.
            unsafe {
                let features = (*ring.as_ptr()).features;
                (*ring.as_ptr()).features = features & !(1 << 13);
                assert_eq!(sys::io_uring_register_ring_fd(ring.as_ptr()), -libc::EOPNOTSUPP);
                (*ring.as_ptr()).features = features;
                if features & (1 << 13) == 0 {
                    return;
                }
                assert_eq!(sys::io_uring_register_ring_fd(ring.as_ptr()), 1);
            }
            assert_eq!((ring.nop(), ring.complete()), (1, 0));
        });
    }

    #[test]
    fn a_ring_is_registered_with_others() {
        library_says(5, "", "a_ring_is_registered_with_others", || {
            let Some(mut ring) = ring(2, 0) else { return };
            // SAFETY: an initialised ring, whose features the library reads only here.
            unsafe {
                (*ring.as_ptr()).features &= !(1 << 13);
                assert_eq!(sys::io_uring_register_ring_fd(ring.as_ptr()), 1);
            }
        });
    }

    #[cfg(liburing_2_4)]
    #[test]
    fn a_version_is_not_older_than_itself() {
        let wrong = "_Bool io_uring_check_version(int major, int minor) { return 1; }";
        library_says(5, wrong, "a_version_is_not_older_than_itself", || {
            // SAFETY: asks for nothing.
            unsafe {
                assert_eq!((sys::io_uring_major_version(), sys::io_uring_minor_version()), (2, 5));
                assert!(!sys::io_uring_check_version(2, 5));
                assert!(!sys::io_uring_check_version(2, 4));
                assert!(!sys::io_uring_check_version(-1, 100));
                assert!(sys::io_uring_check_version(2, 6));
                assert!(sys::io_uring_check_version(3, 0));
            }
        });
    }

    #[cfg(liburing_2_5)]
    #[test]
    fn memory_of_a_ring_is_large_enough() {
        let stub = "int io_uring_queue_init_mem(unsigned e, void *r, void *p, void *b, size_t s) { return 1; }";
        ours_with(&[5, 6], &[7, 15], stub, "memory_of_a_ring_is_large_enough", || {
            let init = |flags, cq_entries, size| {
                let (mut ring, mut params): (sys::io_uring, sys::io_uring_params) = nothing();
                (params.flags, params.cq_entries) = (flags, cq_entries);
                // SAFETY: the stub uses none of them.
                unsafe { sys::io_uring_queue_init_mem(64, &mut ring, &mut params, ptr::null_mut(), size) }
            };
            if init(0, 0, 0) == 1 {
                return false;
            }
            // Entries; then, from the next page on, 64 bytes, completions, and 4 bytes for each entry.
            for (flags, cq_entries, needed) in [
                (0, 0, 4096 + 4096),
                (sys::IORING_SETUP_SQE128, 0, 8192 + 4096),
                (sys::IORING_SETUP_CQE32, 0, 4096 + 8192),
                (sys::IORING_SETUP_CQSIZE, 512, 4096 + 12288),
                (sys::IORING_SETUP_CQSIZE, 300, 4096 + 12288),
                (sys::IORING_SETUP_CLAMP, 512, 4096 + 4096),
            ] {
                assert_eq!(init(flags, cq_entries, needed - 1), -libc::ENOMEM, "{flags:#x} {cq_entries}");
                assert_eq!(init(flags, cq_entries, needed), needed as c_int, "{flags:#x} {cq_entries}");
            }
            true
        });
    }

    #[cfg(liburing_2_9)]
    #[test]
    fn rings_change_their_size_with_2_9() {
        let wrong = "int io_uring_resize_rings(void *ring, void *params) { return -ENOTTY; }";
        library_says(9, wrong, "rings_change_their_size_with_2_9", || a_ring_changes_its_size(true));
    }

    #[cfg(liburing_2_9)]
    #[test]
    fn a_ring_that_cannot_be_mapped_keeps_its_queues() {
        let wrong = "int io_uring_queue_mmap(int fd, void *params, void *ring) { return -ENOMEM; }";
        library_says(14, wrong, "a_ring_that_cannot_be_mapped_keeps_its_queues", || {
            let Some(mut ring) = ring(2, sys::IORING_SETUP_SINGLE_ISSUER | sys::IORING_SETUP_DEFER_TASKRUN) else {
                return;
            };
            // SAFETY: an initialised ring of this thread's; integers, for which zero is a value.
            unsafe {
                let mut params: sys::io_uring_params = mem::zeroed();
                params.sq_entries = 16;
                let result = sys::io_uring_resize_rings(ring.as_ptr(), &mut params);
                if result == -libc::EINVAL {
                    eprintln!("skipped: the kernel does not resize rings (before Linux 6.13)");
                    return;
                }
                assert_eq!(result, -libc::ENOMEM);
                assert_eq!((*ring.as_ptr()).sq.ring_entries, 2);
                let mut cqe = ptr::null_mut();
                assert!(!sys::io_uring_get_sqe(ring.as_ptr()).is_null());
                assert_eq!(sys::io_uring_peek_cqe(ring.as_ptr(), &mut cqe), -libc::EAGAIN);
            }
        });
    }

    #[cfg(liburing_2_9)]
    #[test]
    fn registered_waits_end_in_time_with_2_9() {
        let wrong = "int io_uring_submit_and_wait_reg(void *r, void **c, unsigned n, int i) { return *(int *)NULL; }";
        library_says(9, wrong, "registered_waits_end_in_time_with_2_9", a_registered_wait_ends_in_time);
    }

    #[cfg(liburing_2_13)]
    #[test]
    fn entries_of_two_sizes_are_taken_in_batches_with_2_14() {
        let wrong = "unsigned io_uring_peek_batch_cqe(void *r, void **c, unsigned n) { return 0; }";
        library_says(
            14,
            wrong,
            "entries_of_two_sizes_are_taken_in_batches_with_2_14",
            mixed_entries_are_taken_in_batches,
        );
    }

    /// Every call that may hand out an entry leaves one that has been given back, with an error and without one.
    #[test]
    fn no_entry_that_is_gone_comes_back() {
        for stub in ["*c = (void *)16; return -ETIME;", "*c = (void *)16; return 1;"] {
            let stub = format!(
                "int io_uring_wait_cqes(void *r, void **c, unsigned n, void *t, void *s) {{ {stub} }}
                int io_uring_submit_and_wait_timeout(void *r, void **c, unsigned n, void *t, void *s) {{ {stub} }}
                int __io_uring_get_cqe(void *r, void **c, unsigned u, unsigned n, void *s) {{ {stub} }}"
            );
            ours_with(&[13, 14], &[12, 15], &stub, "no_entry_that_is_gone_comes_back", || {
                // Both queues empty, and the kernel has something to do.
                let mut counters = [0, 0, sys::IORING_SQ_TASKRUN];
                let counter = counters.as_mut_ptr();
                let mut ring: sys::io_uring = nothing();
                (ring.cq.khead, ring.cq.ktail) = (counter, counter.wrapping_add(1));
                ring.sq.kflags = counter.wrapping_add(2);
                let (time, mask) = (ptr::null_mut(), ptr::null_mut());
                type Wait<'a> = &'a dyn Fn(*mut sys::io_uring, *mut *mut sys::io_uring_cqe) -> c_int;
                let waits: [Wait<'_>; 6] = [
                    // SAFETY: a ring of our own, which is complete for what is read of it; the stubs look at nothing.
                    &|r, c| unsafe { sys::io_uring_wait_cqes(r, c, 1, time, mask) },
                    // SAFETY: as above.
                    &|r, c| unsafe { sys::io_uring_wait_cqe_timeout(r, c, time) },
                    // SAFETY: as above.
                    &|r, c| unsafe { sys::io_uring_submit_and_wait_timeout(r, c, 1, time, mask) },
                    // SAFETY: as above.
                    &|r, c| unsafe { sys::io_uring_wait_cqe(r, c) },
                    // SAFETY: as above.
                    &|r, c| unsafe { sys::io_uring_wait_cqe_nr(r, c, 2) },
                    // SAFETY: as above.
                    &|r, c| unsafe { sys::io_uring_peek_cqe(r, c) },
                ];
                let mut gone = 0;
                for (index, wait) in waits.into_iter().enumerate() {
                    let mut cqe = ptr::null_mut();
                    let result = wait(&mut ring, &mut cqe);
                    gone += usize::from(cqe.is_null());
                    assert!(index > 1 || !cqe.is_null() || result == -libc::ETIME, "{index}: {result}");

                    ring.features = sys::IORING_FEAT_EXT_ARG;
                    wait(&mut ring, &mut cqe);
                    assert!(!cqe.is_null(), "{index}: the kernel has time limits");
                    ring.features = 0;
                }
                assert!(gone == 0 || gone == 6, "{gone} of 6");
                gone == 6
            });
        }
    }

    #[cfg(liburing_2_8)]
    #[test]
    fn a_minimum_that_the_kernel_does_not_know_is_refused() {
        let stub = "
            int io_uring_wait_cqes_min_timeout(void *r, void **c, unsigned n, void *t, unsigned m, void *s) {
                return -ETIME; }
            int io_uring_submit_and_wait_min_timeout(void *r, void **c, unsigned n, void *t, unsigned m, void *s) {
                return -ETIME; }";
        library_says(9, stub, "a_minimum_that_the_kernel_does_not_know_is_refused", || {
            let mut ring: sys::io_uring = nothing();
            let mut cqe = ptr::null_mut();
            for (features, expected) in [(0, -libc::EINVAL), (sys::IORING_FEAT_MIN_TIMEOUT, -libc::ETIME)] {
                ring.features = features;
                let (time, mask) = (ptr::null_mut(), ptr::null_mut());
                // SAFETY: the stubs look at nothing.
                unsafe {
                    assert_eq!(sys::io_uring_wait_cqes_min_timeout(&mut ring, &mut cqe, 1, time, 1, mask), expected);
                    let result = sys::io_uring_submit_and_wait_min_timeout(&mut ring, &mut cqe, 1, time, 1, mask);
                    assert_eq!(result, expected);
                }
            }
        });
    }
}
