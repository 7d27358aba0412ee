//! Uses a ring by what liburing 2.3 has, and nothing newer.
//!
//! `portable load EXPORTED KNOWN` asks for the library first, `portable first-use EXPORTED KNOWN` begins with a call. The two
//! files list the functions that the library exports, and those that the newest does.

use std::collections::BTreeSet;
use std::env;
use std::ffi::c_void;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;

use liburing_sys as sys;
use sysuring_versions::{Completion, Ring, assert_says, check, load, tell_library};

const BLOCK: usize = 4096;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [how, exported, known] = &arguments[..] else { panic!("usage: portable load|first-use EXPORTED KNOWN") };
    if how == "load" {
        load();
    }
    let mut ring = Ring::new(8);
    tell_library();
    answers_are_true(&names(exported), &names(known));
    nops_come_back_one_by_one(&mut ring);
    nops_come_back_in_batches(&mut ring);
    waits_end_by_time(&mut ring);
    a_file_is_written_and_read(&mut ring);
    registered_buffers_and_files_are_used(&mut ring);
    polls_end(&mut ring);
    the_kernel_picks_a_buffer(&mut ring);
    the_kernel_is_probed(&mut ring);
    completions_are_counted(&mut ring);
    a_ring_starts_later();
    large_entries_are_found();
    println!("passed");
}

fn names(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("cannot read {file}: {error}"));
    text.lines().map(str::to_owned).collect()
}

/// What liburing-sys has written in Rust, and needs no library for.
const WITHOUT_LIBRARY: [&str; 5] = [
    "io_uring_check_version",
    "io_uring_enable_rings",
    "io_uring_major_version",
    "io_uring_minor_version",
    "io_uring_register_restrictions",
];

fn answers_are_true(exported: &BTreeSet<String>, known: &BTreeSet<String>) {
    assert!(exported.len() > 40 && known.len() >= exported.len());
    let library = sys::library_version().expect("a library that runs has a version");
    for name in known {
        let there = exported.contains(name);
        assert_eq!(sys::has(name), there, "{name}");
        let since = sys::since(name).unwrap_or_else(|| panic!("{name} came with some version"));
        let without_library = WITHOUT_LIBRARY.contains(&name.as_str()) && since <= sys::HEADER_VERSION;
        match sys::require(name) {
            Ok(()) => assert!(there || without_library, "{name}"),
            Err(error) => {
                assert!(!there && !without_library, "{error}");
                assert!(since > library, "{error}");
                assert_says(&error.to_string(), name);
            }
        }
    }
}

fn completion(user_data: u64, res: i32) -> Completion {
    Completion { user_data, res, flags: 0 }
}

fn nops_come_back_one_by_one(ring: &mut Ring) {
    ring.assert_works(100);
}

fn nops_come_back_in_batches(ring: &mut Ring) {
    let mut cqes = [ptr::null_mut(); 8];
    for round in 0..30 {
        // SAFETY: nops name no memory; completions are read before they are given back.
        unsafe {
            for number in 0..8 {
                let sqe = ring.entry();
                sys::io_uring_prep_nop(sqe);
                sys::io_uring_sqe_set_data64(sqe, number);
                // A chain, whose order is that of the entries.
                sys::io_uring_sqe_set_flags(sqe, if number < 7 { sys::IOSQE_IO_LINK } else { 0 });
            }
            let ring = ring.as_ptr();
            assert!(sys::io_uring_get_sqe(ring).is_null(), "the queue is full");
            assert_eq!(sys::io_uring_sq_ready(ring), 8);
            match round % 3 {
                0 => assert_eq!(sys::io_uring_submit_and_wait(ring, 8), 8),
                1 => assert_eq!(sys::io_uring_submit_and_get_events(ring), 8),
                _ => {
                    let mut cqe = ptr::null_mut();
                    assert_eq!(sys::io_uring_submit(ring), 8);
                    assert_eq!(sys::io_uring_wait_cqe_nr(ring, &mut cqe, 8), 0);
                }
            }
            assert_eq!(sys::io_uring_sq_space_left(ring), 8);
            assert_eq!(sys::io_uring_cq_ready(ring), 8);
            if round % 2 == 0 {
                assert_eq!(sys::io_uring_peek_batch_cqe(ring, cqes.as_mut_ptr(), 8), 8);
                let got = cqes.map(|cqe| sys::io_uring_cqe_get_data64(cqe));
                assert_eq!(got, [0, 1, 2, 3, 4, 5, 6, 7]);
            } else {
                let got: Vec<u64> = sys::io_uring_for_each_cqe(ring).map(|cqe| (*cqe).user_data).collect();
                assert_eq!(got, [0, 1, 2, 3, 4, 5, 6, 7]);
            }
            sys::io_uring_cq_advance(ring, 8);
            assert_eq!(sys::io_uring_cq_ready(ring), 0);
        }
    }
}

fn milliseconds(count: i64) -> sys::__kernel_timespec {
    sys::__kernel_timespec { tv_sec: 0, tv_nsec: count * 1_000_000 }
}

fn waits_end_by_time(ring: &mut Ring) {
    let mut time = milliseconds(10);
    let mut cqe = ptr::null_mut();
    // SAFETY: the time outlives the operations; a null mask changes nothing; completions are read once.
    unsafe {
        assert_eq!(sys::io_uring_wait_cqe_timeout(ring.as_ptr(), &mut cqe, &mut time), -libc::ETIME);
        assert!(cqe.is_null());
        let result = sys::io_uring_submit_and_wait_timeout(ring.as_ptr(), &mut cqe, 1, &mut time, ptr::null_mut());
        assert_eq!(result, -libc::ETIME);

        let sqe = ring.entry();
        sys::io_uring_prep_timeout(sqe, &raw mut time, 0, 0);
        sys::io_uring_sqe_set_data64(sqe, 20);
        assert_eq!(sys::io_uring_submit(ring.as_ptr()), 1);
        let mut second = milliseconds(5000);
        assert_eq!(sys::io_uring_wait_cqes(ring.as_ptr(), &mut cqe, 1, &mut second, ptr::null_mut()), 0);
        assert_eq!(ring.take(cqe), completion(20, -libc::ETIME));

        let sqe = ring.entry();
        sys::io_uring_prep_nop(sqe);
        sys::io_uring_sqe_set_data64(sqe, 21);
        let result = sys::io_uring_submit_and_wait_timeout(ring.as_ptr(), &mut cqe, 1, &mut second, ptr::null_mut());
        assert_eq!(result, 1);
        assert_eq!(ring.take(cqe), completion(21, 0));
        assert_eq!(sys::io_uring_peek_cqe(ring.as_ptr(), &mut cqe), -libc::EAGAIN);
    }
}

/// A file without a name.
fn file() -> File {
    let mut template = *b"/tmp/sysuring-versions-XXXXXX\0";
    // SAFETY: a path that ends in a zero, in memory of ours.
    let descriptor = unsafe { libc::mkstemp(template.as_mut_ptr().cast()) };
    assert!(descriptor >= 0, "cannot make a file in /tmp: {}", io::Error::last_os_error());
    // SAFETY: the same path; then a descriptor that is ours.
    unsafe {
        libc::unlink(template.as_ptr().cast());
        std::os::fd::FromRawFd::from_raw_fd(descriptor)
    }
}

fn a_file_is_written_and_read(ring: &mut Ring) {
    let file = file();
    let written: Vec<u8> = (0..2 * BLOCK).map(|number| (number % 251) as u8).collect();
    let mut read = vec![0; 2 * BLOCK];
    let fd = file.as_raw_fd();
    // SAFETY: each operation has ended before its memory is used again.
    unsafe {
        let sqe = ring.entry();
        sys::io_uring_prep_write(sqe, fd, written.as_ptr().cast(), written.len() as u32, 0);
        sys::io_uring_sqe_set_data64(sqe, 30);
        sys::io_uring_sqe_set_flags(sqe, sys::IOSQE_IO_LINK);
        let sqe = ring.entry();
        sys::io_uring_prep_fsync(sqe, fd, sys::IORING_FSYNC_DATASYNC);
        sys::io_uring_sqe_set_data64(sqe, 31);
        assert_eq!(sys::io_uring_submit_and_wait(ring.as_ptr(), 2), 2);
        assert_eq!(ring.wait(), completion(30, written.len() as i32));
        assert_eq!(ring.wait(), completion(31, 0));

        let sqe = ring.entry();
        sys::io_uring_prep_read(sqe, fd, read.as_mut_ptr().cast(), BLOCK as u32, BLOCK as u64);
        sys::io_uring_sqe_set_data64(sqe, 32);
        assert_eq!(sys::io_uring_submit(ring.as_ptr()), 1);
        assert_eq!(ring.wait(), completion(32, BLOCK as i32));
        assert_eq!(read[..BLOCK], written[BLOCK..]);

        // Up to the end, and there.
        let (first, second) = read.split_at_mut(BLOCK);
        let parts = [first, second].map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: BLOCK });
        let sqe = ring.entry();
        sys::io_uring_prep_readv(sqe, fd, parts.as_ptr(), 2, 10);
        sys::io_uring_sqe_set_data64(sqe, 33);
        let sqe = ring.entry();
        sys::io_uring_prep_read(sqe, -1, ptr::null_mut(), 1, 0);
        sys::io_uring_sqe_set_data64(sqe, 34);
        assert_eq!(sys::io_uring_submit_and_wait(ring.as_ptr(), 2), 2);
        let mut both = [ring.wait(), ring.wait()];
        both.sort_by_key(|completion| completion.user_data);
        assert_eq!(both, [completion(33, 2 * BLOCK as i32 - 10), completion(34, -libc::EBADF)]);
    }
    assert_eq!(read[..2 * BLOCK - 10], written[10..]);
}

fn registered_buffers_and_files_are_used(ring: &mut Ring) {
    let file = file();
    let mut buffers = [vec![b'x'; BLOCK], vec![0; BLOCK]];
    let iovecs = buffers.each_mut().map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BLOCK });
    let [written, read] = iovecs.map(|iovec| iovec.iov_base);
    // SAFETY: the buffers and the file stay until they are unregistered, and are not touched meanwhile.
    unsafe {
        assert_eq!(sys::io_uring_register_buffers(ring.as_ptr(), iovecs.as_ptr(), 2), 0);
        assert_eq!(sys::io_uring_register_files(ring.as_ptr(), &file.as_raw_fd(), 1), 0);
        let sqe = ring.entry();
        sys::io_uring_prep_write_fixed(sqe, 0, written, BLOCK as u32, 0, 0);
        sys::io_uring_sqe_set_flags(sqe, sys::IOSQE_FIXED_FILE | sys::IOSQE_IO_LINK);
        sys::io_uring_sqe_set_data64(sqe, 40);
        let sqe = ring.entry();
        sys::io_uring_prep_read_fixed(sqe, 0, read, BLOCK as u32, 0, 1);
        sys::io_uring_sqe_set_flags(sqe, sys::IOSQE_FIXED_FILE);
        sys::io_uring_sqe_set_data64(sqe, 41);
        assert_eq!(sys::io_uring_submit_and_wait(ring.as_ptr(), 2), 2);
        assert_eq!(ring.wait(), completion(40, BLOCK as i32));
        assert_eq!(ring.wait(), completion(41, BLOCK as i32));
        // The second buffer only has its own place.
        let sqe = ring.entry();
        sys::io_uring_prep_read_fixed(sqe, 0, written, BLOCK as u32, 0, 1);
        sys::io_uring_sqe_set_flags(sqe, sys::IOSQE_FIXED_FILE);
        sys::io_uring_sqe_set_data64(sqe, 42);
        assert_eq!(sys::io_uring_submit_and_wait(ring.as_ptr(), 1), 1);
        assert_eq!(ring.wait(), completion(42, -libc::EFAULT));
        assert_eq!(sys::io_uring_unregister_files(ring.as_ptr()), 0);
        assert_eq!(sys::io_uring_unregister_buffers(ring.as_ptr()), 0);
    }
    assert!(buffers[1].iter().all(|byte| *byte == b'x'));
}

fn polls_end(ring: &mut Ring) {
    let (reader, mut writer) = UnixStream::pair().expect("two sockets");
    let mut cqe = ptr::null_mut();
    // SAFETY: a poll names no memory; the sockets stay open until it has ended.
    unsafe {
        let poll = |ring: &mut Ring, user_data| {
            let sqe = ring.entry();
            sys::io_uring_prep_poll_add(sqe, reader.as_raw_fd(), libc::POLLIN as u32);
            sys::io_uring_sqe_set_data64(sqe, user_data);
            assert_eq!(sys::io_uring_submit(ring.as_ptr()), 1);
        };
        poll(ring, 50);
        let sqe = ring.entry();
        sys::io_uring_prep_cancel64(sqe, 50, 0);
        sys::io_uring_sqe_set_data64(sqe, 51);
        assert_eq!(sys::io_uring_submit_and_wait(ring.as_ptr(), 2), 1);
        let mut both = [ring.wait(), ring.wait()];
        both.sort_by_key(|completion| completion.user_data);
        assert_eq!(both, [completion(50, -libc::ECANCELED), completion(51, 0)]);

        poll(ring, 52);
        let mut cancel: sys::io_uring_sync_cancel_reg = mem::zeroed();
        cancel.addr = 52;
        cancel.timeout = sys::__kernel_timespec { tv_sec: -1, tv_nsec: -1 };
        match sys::io_uring_register_sync_cancel(ring.as_ptr(), &mut cancel) {
            0 => assert_eq!(ring.wait(), completion(52, -libc::ECANCELED)),
            error if error == -libc::EINVAL => println!("note: the kernel has no IORING_REGISTER_SYNC_CANCEL"),
            error => panic!("io_uring_register_sync_cancel: {error}"),
        }

        poll(ring, 53);
        while sys::io_uring_peek_cqe(ring.as_ptr(), &mut cqe) == 0 {
            assert_eq!((*cqe).user_data, 52);
            sys::io_uring_cqe_seen(ring.as_ptr(), cqe);
        }
        writer.write_all(b"x").expect("room in the socket");
        let ready = loop {
            let completion = ring.wait();
            if completion.user_data == 53 {
                break completion;
            }
        };
        assert_eq!(ready.res & i32::from(libc::POLLIN), i32::from(libc::POLLIN));
    }
}

fn the_kernel_picks_a_buffer(ring: &mut Ring) {
    const GROUP: u16 = 7;
    const COUNT: usize = 4;
    let mut file = file();
    file.write_all(&[b'y'; BLOCK]).expect("room for a file");
    // One page, as the kernel wants it aligned.
    // SAFETY: new memory, which nobody else knows.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            BLOCK,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE,
            -1,
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED);
    let mut memory = vec![0u8; COUNT * BLOCK];
    let buffers = page.cast::<sys::io_uring_buf_ring>();
    // SAFETY: the page and the memory stay until the buffer ring is unregistered.
    unsafe {
        let mut registration: sys::io_uring_buf_reg = mem::zeroed();
        registration.ring_addr = page.addr() as u64;
        registration.ring_entries = COUNT as u32;
        registration.bgid = GROUP;
        let result = sys::io_uring_register_buf_ring(ring.as_ptr(), &mut registration, 0);
        if result == -libc::EINVAL {
            println!("note: the kernel has no IORING_REGISTER_PBUF_RING");
            libc::munmap(page, BLOCK);
            return;
        }
        assert_eq!(result, 0);
        sys::io_uring_buf_ring_init(buffers);
        let mask = sys::io_uring_buf_ring_mask(COUNT as u32);
        for (number, buffer) in memory.chunks_exact_mut(BLOCK).enumerate() {
            let id = 10 + number as u16;
            sys::io_uring_buf_ring_add(buffers, buffer.as_mut_ptr().cast(), BLOCK as u32, id, mask, number as i32);
        }
        sys::io_uring_buf_ring_advance(buffers, COUNT as i32);
        for number in 0..COUNT + 1 {
            let sqe = ring.entry();
            sys::io_uring_prep_read(sqe, file.as_raw_fd(), ptr::null_mut(), BLOCK as u32, 0);
            sys::io_uring_sqe_set_flags(sqe, sys::IOSQE_BUFFER_SELECT);
            set_buffer_group(sqe, GROUP);
            sys::io_uring_sqe_set_data64(sqe, number as u64);
            assert_eq!(sys::io_uring_submit(ring.as_ptr()), 1);
            let completion = ring.wait();
            assert_eq!(completion.user_data, number as u64);
            if number == COUNT {
                assert_eq!(completion.res, -libc::ENOBUFS);
                break;
            }
            assert_eq!(completion.res, BLOCK as i32);
            assert_ne!(completion.flags & sys::IORING_CQE_F_BUFFER, 0);
            assert_eq!(completion.flags >> sys::IORING_CQE_BUFFER_SHIFT, 10 + number as u32);
        }
        assert_eq!(sys::io_uring_unregister_buf_ring(ring.as_ptr(), i32::from(GROUP)), 0);
        libc::munmap(page, BLOCK);
    }
    assert!(memory.iter().all(|byte| *byte == b'y'));
}

/// # Safety
///
/// `sqe` must point to an entry.
unsafe fn set_buffer_group(sqe: *mut sys::io_uring_sqe, group: u16) {
    // SAFETY: the caller's entry; the group is 40 bytes into it in all versions.
    unsafe { sqe.cast::<u8>().add(40).cast::<u16>().write(group) };
}

fn the_kernel_is_probed(ring: &mut Ring) {
    // SAFETY: the probe is freed once.
    unsafe {
        let probe = sys::io_uring_get_probe_ring(ring.as_ptr());
        assert!(!probe.is_null());
        for operation in [sys::IORING_OP_NOP, sys::IORING_OP_READ_FIXED, sys::IORING_OP_ASYNC_CANCEL] {
            assert_ne!(sys::io_uring_opcode_supported(probe, operation as i32), 0, "{operation}");
        }
        assert_eq!(sys::io_uring_opcode_supported(probe, 250), 0);
        sys::io_uring_free_probe(probe);
    }
}

fn completions_are_counted(ring: &mut Ring) {
    // SAFETY: a new descriptor, closed by the file that owns it.
    let mut counter: File = unsafe {
        let descriptor = libc::eventfd(0, 0);
        assert!(descriptor >= 0);
        std::os::fd::FromRawFd::from_raw_fd(descriptor)
    };
    // SAFETY: the descriptor stays open until it is unregistered.
    unsafe { assert_eq!(sys::io_uring_register_eventfd(ring.as_ptr(), counter.as_raw_fd()), 0) };
    ring.assert_works(3);
    let mut count = [0; 8];
    counter.read_exact(&mut count).expect("a number");
    assert_eq!(u64::from_ne_bytes(count), 3);
    // SAFETY: an initialised ring.
    unsafe { assert_eq!(sys::io_uring_unregister_eventfd(ring.as_ptr()), 0) };

    // From here on the ring is entered by its number in the thread's table, where the kernel has that.
    // SAFETY: an initialised ring.
    match unsafe { sys::io_uring_register_ring_fd(ring.as_ptr()) } {
        1 => ring.assert_works(100),
        error if error == -libc::EINVAL => println!("note: the kernel has no IORING_REGISTER_RING_FDS"),
        error => panic!("io_uring_register_ring_fd: {error}"),
    }
}

/// 2.3 declares both functions and exports neither.
fn a_ring_starts_later() {
    let mut ring = Ring::with_flags(8, sys::IORING_SETUP_R_DISABLED).expect("a ring that is not started");
    // SAFETY: a nop names no memory; the restrictions are read during the call.
    unsafe {
        sys::io_uring_prep_nop(ring.entry());
        assert_eq!(sys::io_uring_submit(ring.as_ptr()), -libc::EBADFD);
        // Two words: the kind and the operation.
        let mut only_nops: sys::io_uring_restriction = mem::zeroed();
        only_nops.opcode = sys::IORING_RESTRICTION_SQE_OP as u16;
        (&raw mut only_nops).cast::<u8>().add(2).write(sys::IORING_OP_NOP as u8);
        assert_eq!(sys::io_uring_register_restrictions(ring.as_ptr(), &mut only_nops, 1), 0);
        assert_eq!(sys::io_uring_enable_rings(ring.as_ptr()), 0);
        assert_eq!(sys::io_uring_submit(ring.as_ptr()), 1);
        assert_eq!(ring.wait(), completion(0, 0));
        let sqe = ring.entry();
        sys::io_uring_prep_read(sqe, 0, ptr::null_mut::<c_void>(), 0, 0);
        sys::io_uring_sqe_set_data64(sqe, 60);
        assert_eq!(sys::io_uring_submit(ring.as_ptr()), 1);
        assert_eq!(ring.wait(), completion(60, -libc::EACCES));
    }
}

fn large_entries_are_found() {
    match Ring::with_flags(8, sys::IORING_SETUP_SQE128 | sys::IORING_SETUP_CQE32) {
        Ok(mut ring) => ring.assert_works(100),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => println!("note: the kernel has no large entries"),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(check(-libc::EINVAL).map_err(|error| error.raw_os_error()), Err(Some(libc::EINVAL)));
}
