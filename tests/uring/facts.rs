//! What the kernel does, whatever one would expect of it: the facts that the library is built on, each shown with C's own
//! calls on the kernel that runs, and where the library is tried against it.
//!
//! | fact | shown by | what holds in spite of it |
//! |---|---|---|
//! | 1. Closing a ring does not end its operations: those that were started go on to write, by themselves | `closing_a_ring_is_no_barrier` | `drop`, `teardown`, `model` |
//! | 2. Nor does a synchronous cancel of everything, though it says that it worked | `a_synchronous_cancel_is_no_drain` | `teardown`: what is cancelled is waited for as well |
//! | 3. Memory is the kernel's until the completion of its own operation, and not longer | `a_synchronous_cancel_is_no_drain` | `table`, `model` |
//! | 4. While a forked child has the ring's descriptor, closing it in the parent does nothing at all | `a_child_that_has_the_ring_keeps_its_operations_going` | `drop::nothing_is_overwritten_while_a_child_holds_the_ring`, `fork` |
//! | 5. A ring of a single issuer takes nothing from another thread, no cancel either | `a_single_issuer_is_refused_on_another_thread` | `tests/compile-fail` (rings are not `Send`), `setup` |
//! | 6. An operation outlives the thread that submitted it, or is cancelled some time after | `an_operation_outlives_its_thread_or_says_so` | the same, with a lease of a `SharedRing` |
//! | 7. A fixed operation goes to the pages that were registered, not to the address; on files that are read in the old way (inotify, most of /proc) to the address all the same | `a_fixed_read_goes_to_the_pages_that_were_registered`, `a_fixed_read_of_an_old_kind_of_file_goes_to_the_address` | `teardown`: inotify, /dev/kmsg, /proc |
//! | 8. Buffers that are unregistered stay with the operations in flight; kernels before 6.13 wait for those, one of them for ever | `unregistered_buffers_stay_with_their_operations` | `ring::pools_come_and_go_and_are_busy_while_in_flight` |
//! | 9. An entry that was taken and not filled in is executed: as what was in its place one lap before | `an_abandoned_entry_is_executed` | `ring::an_abandoned_entry_is_never_executed` |
//! | 10. A submit that fails leaves its entries where they are, to be executed by the next | `a_submit_that_fails_takes_nothing_back` | `model` (a mutant: `r1_error`), `ring::what_was_never_submitted_comes_back_when_the_ring_is_dropped` |
//! | 11. The number of a file is looked up when the operation starts, which in a chain is late | `the_file_of_a_linked_operation_is_looked_up_late` | `teardown::descriptors_in_flight_…`, `tests/compile-fail`: operations own their descriptor |
//! | 12. The layout of `struct io_uring` is the same in all libraries from 2.3 on; an older one does not fill in `ring_entries` | `the_library_that_runs_fills_in_what_the_header_declares` | `liburing-sys`, `tests/distros/matrix` |
//! | 13. A call for each entry costs several times what it costs inlined | `benches/cost` (`scripts/cost`): a matter of measuring | the same |
//! | 14. Completions that find no room are kept, and come only when the ring is entered for them | `completions_that_overflow_are_kept_until_the_ring_is_entered` | the same, with a `Ring`; `model` |
//! | 15. A thread that polls several rings takes eight entries of each at a time, and a chain that is longer goes on without the first eight | `a_thread_that_polls_two_rings_cuts_a_chain` | `setup::a_kernel_thread_takes_submissions_and_is_woken` |

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::ptr;
use std::time::{Duration, Instant};

use sysuring::{Completion, ErrorKind, Pool, Ring, UserData, sys};

use crate::common::{self, PausedChild};

const FILL: u8 = 0xa5;
/// How long something that the kernel does by itself is looked for before a test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A ring as C has it.
struct CRing(Box<sys::io_uring>);

impl CRing {
    /// A ring of so many entries; `None`, with the reason, where the kernel has no such ring.
    #[track_caller]
    fn new(entries: u32, flags: u32) -> Option<Self> {
        Self::attached(entries, flags, -1)
    }

    /// As [`CRing::new`], with the kernel threads of another ring where the flags say so.
    #[track_caller]
    fn attached(entries: u32, flags: u32, other: RawFd) -> Option<Self> {
        common::ring(1)?;
        // SAFETY: all zeroes is a value of these C structures.
        let (mut ring, mut params) =
            unsafe { (Box::new(std::mem::zeroed()), std::mem::zeroed::<sys::io_uring_params>()) };
        (params.flags, params.wq_fd) = (flags, other as u32);
        // SAFETY: the structure stays at its address until `drop`.
        let returned = unsafe { sys::io_uring_queue_init_params(entries, &raw mut *ring, &raw mut params) };
        if returned == -libc::EINVAL {
            common::skip(format_args!("the kernel has no rings with the flags {flags:#x}"));
            return None;
        }
        assert_eq!(returned, 0);
        Some(Self(ring))
    }

    fn raw(&mut self) -> *mut sys::io_uring {
        &raw mut *self.0
    }

    /// A free entry, as C gets it.
    fn entry(&mut self) -> &mut sys::io_uring_sqe {
        // SAFETY: the ring is set up; there is room in all of these tests, or the pointer is null.
        unsafe { sys::io_uring_get_sqe(self.raw()).as_mut() }.expect("room in the queue")
    }

    /// Puts a read of `length` bytes into the queue.
    ///
    /// # Safety
    ///
    /// The memory, and the descriptor, stay for as long as the kernel uses them.
    unsafe fn read(&mut self, descriptor: RawFd, memory: *mut u8, length: u32, offset: u64, user_data: u64) {
        let entry = &raw mut *self.entry();
        // SAFETY: the entry is free; the caller vouches for the rest.
        unsafe {
            sys::io_uring_prep_read(entry, descriptor, memory.cast(), length, offset);
            sys::io_uring_sqe_set_data64(entry, user_data);
        }
    }

    fn submit(&mut self) -> i32 {
        // SAFETY: the ring is set up, and whoever filled in the entries vouched for them.
        unsafe { sys::io_uring_submit(self.raw()) }
    }

    /// Waits for a completion, and takes it: what it is told apart by, and the result.
    fn wait(&mut self) -> (u64, i32) {
        let mut cqe = ptr::null_mut();
        loop {
            // SAFETY: the ring is set up.
            match unsafe { sys::io_uring_wait_cqe(self.raw(), &raw mut cqe) } {
                0 => break,
                error => assert_eq!(error, -libc::EINTR),
            }
        }
        // SAFETY: the completion is there until it is seen, which is here.
        unsafe {
            let found = ((*cqe).user_data, (*cqe).res);
            sys::io_uring_cqe_seen(self.raw(), cqe);
            found
        }
    }

    /// Completions that can be taken without a system call.
    fn ready(&mut self) -> u32 {
        // SAFETY: the ring is set up.
        unsafe { sys::io_uring_cq_ready(self.raw()) }
    }

    /// Registers one buffer.
    ///
    /// # Safety
    ///
    /// As for [`CRing::read`].
    unsafe fn register(&mut self, memory: *mut u8, length: usize) -> i32 {
        let buffer = libc::iovec { iov_base: memory.cast(), iov_len: length };
        // SAFETY: read during the call; the caller vouches for the memory.
        unsafe { sys::io_uring_register_buffers(self.raw(), &raw const buffer, 1) }
    }
}

impl Drop for CRing {
    fn drop(&mut self) {
        // SAFETY: set up in `new`.
        unsafe { sys::io_uring_queue_exit(self.raw()) };
    }
}

/// Memory that stays mapped for as long as the process lives, so that it may be the kernel's at any time.
#[derive(Clone, Copy)]
struct Memory {
    start: *mut u8,
    length: usize,
}

impl Memory {
    fn new(length: usize) -> Self {
        let memory = Self { start: common::map(ptr::null_mut(), length, 0).expect("memory"), length };
        memory.fill();
        memory
    }

    fn fill(self) {
        // SAFETY: mapped in `new`, for ever.
        unsafe { self.start.write_bytes(FILL, self.length) };
    }

    /// The byte there is not as `fill` left it. The kernel may write it meanwhile.
    fn is_written(self, at: usize) -> bool {
        assert!(at < self.length);
        // SAFETY: within the memory, which is mapped for ever.
        unsafe { self.start.add(at).read_volatile() != FILL }
    }

    /// How many bytes are not as `fill` left them.
    fn damaged(self) -> usize {
        (0..self.length).filter(|at| self.is_written(*at)).count()
    }

    fn starts_with(self, bytes: &[u8]) -> bool {
        // SAFETY: as for `is_written`; nobody writes now.
        unsafe { std::slice::from_raw_parts(self.start, bytes.len()) == bytes }
    }

    /// Puts other memory in its place.
    fn replace(self, protection: libc::c_int) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: replaces a mapping of this test's own, which nobody but the kernel uses.
        let mapped = unsafe { libc::mmap(self.start.cast(), self.length, protection, flags, -1, 0) };
        assert_eq!(mapped, self.start.cast());
        if protection != libc::PROT_NONE {
            self.fill();
        }
    }
}

/// Waits for something that the kernel does by itself.
fn comes_true(mut happened: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !happened() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

const READS: usize = 64;
const READ_SIZE: usize = 1 << 20;

/// How often it is tried to have some in flight: another process may have the processor for as long as they take.
const ATTEMPTS: usize = 10;

/// A file that is read past the page cache, and where to. The file has no name.
fn large_file() -> Option<(OwnedFd, Memory)> {
    common::ring(1)?;
    let directory = common::directory();
    let path = directory.path().join("large");
    let mut file = File::create(&path).unwrap();
    (0..READS).for_each(|_| file.write_all(&[0x11; READ_SIZE]).unwrap());
    file.sync_all().unwrap();
    match File::options().read(true).custom_flags(libc::O_DIRECT).open(&path) {
        Ok(file) => Some((file.into(), Memory::new(READS * READ_SIZE))),
        Err(error) => {
            common::skip(format_args!("no O_DIRECT here: {error}"));
            None
        }
    }
}

/// Submits reads of all of the file.
fn read_all(file: &OwnedFd, memory: Memory) -> Option<CRing> {
    memory.fill();
    let mut ring = CRing::new(READS as u32, 0)?;
    for index in 0..READS {
        let at = index * READ_SIZE;
        // SAFETY: the memory stays mapped; the file is open while entries are submitted, and no longer looked for after.
        unsafe {
            ring.read(file.as_raw_fd(), memory.start.add(at), READ_SIZE as u32, at as u64, index as u64);
        }
    }
    assert_eq!(ring.submit(), READS as i32);
    Some(ring)
}

#[test]
fn closing_a_ring_is_no_barrier() {
    let Some((file, memory)) = large_file() else { return };
    let last = |read: usize| (read + 1) * READ_SIZE - 1;
    let mut were_in_flight = 0;
    for _ in 0..ATTEMPTS {
        let Some(ring) = read_all(&file, memory) else { return };
        drop(ring);
        let in_flight: Vec<usize> = (0..READS).filter(|read| !memory.is_written(last(*read))).collect();
        if in_flight.is_empty() {
            continue;
        }
        if comes_true(|| in_flight.iter().any(|read| memory.is_written(last(*read)))) {
            return;
        }
        // The kernel withdraws what waits for a thread of its own: on a slow machine, all of them.
        were_in_flight += in_flight.len();
    }
    assert_eq!(were_in_flight, 0, "none of the reads in flight wrote anything after");
    common::skip("all reads had ended when the ring was closed: this shows nothing");
}

#[test]
fn a_synchronous_cancel_is_no_drain() {
    let Some((file, memory)) = large_file() else { return };
    let mut why_not = Some("no read was in flight when the cancel returned: this shows nothing");
    for _ in 0..ATTEMPTS {
        let Some(mut ring) = read_all(&file, memory) else { return };
        // SAFETY: all zeroes is a value of this C structure.
        let mut all = unsafe { std::mem::zeroed::<sys::io_uring_sync_cancel_reg>() };
        all.flags = sys::IORING_ASYNC_CANCEL_ALL | sys::IORING_ASYNC_CANCEL_ANY;
        (all.timeout.tv_sec, all.timeout.tv_nsec) = (-1, -1);
        // SAFETY: the structure is read during the call.
        let returned = unsafe { sys::io_uring_register_sync_cancel(ring.raw(), &raw mut all) };
        let ended = ring.ready() as usize;
        let results: Vec<i32> = (0..READS).map(|_| ring.wait().1).collect();
        // Now each has had its completion, and the memory is ours.
        memory.fill();
        drop(ring);
        let is_as_expected = |result: &i32| *result == READ_SIZE as i32 || *result == -libc::ECANCELED;
        assert!(results.iter().all(is_as_expected), "{results:?}");
        if returned == -libc::EINVAL {
            why_not = Some("the kernel has no synchronous cancel (since Linux 6.0)");
            break;
        }
        assert!(returned >= 0 || returned == -libc::ENOENT, "{returned}");
        // Not cancelled, and not over.
        if results[ended..].contains(&(READ_SIZE as i32)) {
            why_not = None;
            break;
        }
    }
    why_not.into_iter().for_each(common::skip);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!(0..READS * READ_SIZE).step_by(512).any(|at| memory.is_written(at)), "a completion came before the end");
}

#[test]
fn a_child_that_has_the_ring_keeps_its_operations_going() {
    let Some(mut ring) = CRing::new(4, 0) else { return };
    let (reader, mut writer) = common::pipe();
    let memory = Memory::new(4096);
    // SAFETY: the memory stays mapped, and the pipe open to the end.
    unsafe { ring.read(reader.as_raw_fd(), memory.start, 64, u64::MAX, 0) };
    assert_eq!(ring.submit(), 1);
    let child = PausedChild::fork();
    drop(ring);
    assert_eq!(memory.damaged(), 0);
    writer.write_all(&[0x11; 64]).unwrap();
    assert!(comes_true(|| memory.is_written(0)), "the read went on though its ring was closed here");
    drop(child);
}

#[test]
fn a_single_issuer_is_refused_on_another_thread() {
    let Some(mut ring) = CRing::new(4, sys::IORING_SETUP_SINGLE_ISSUER) else { return };
    // SAFETY: the entry is free.
    unsafe { sys::io_uring_prep_nop(ring.entry()) };
    let address = ring.raw().expose_provenance();
    let refused = std::thread::spawn(move || {
        let ring = ptr::with_exposed_provenance_mut::<sys::io_uring>(address);
        // SAFETY: all zeroes is a value of this C structure.
        let mut all = unsafe { std::mem::zeroed::<sys::io_uring_sync_cancel_reg>() };
        all.flags = sys::IORING_ASYNC_CANCEL_ALL | sys::IORING_ASYNC_CANCEL_ANY;
        // SAFETY: the other thread waits for this one, and does nothing with the ring meanwhile.
        unsafe {
            [
                sys::io_uring_submit(ring),
                sys::io_uring_register_sync_cancel(ring, &raw mut all),
                sys::io_uring_register_files(ring, &raw const NO_FILE, 1),
            ]
        }
    });
    assert_eq!(refused.join().unwrap(), [-libc::EEXIST; 3]);
    assert_eq!(ring.submit(), 1, "its own thread may");
    assert_eq!(ring.wait().1, 0);
}

static NO_FILE: libc::c_int = -1;

#[test]
fn an_operation_outlives_its_thread_or_says_so() {
    if common::ring(1).is_none() {
        return;
    }
    let ring = Ring::builder(4).build_shared().unwrap();
    let pool = Pool::new(1, 64).unwrap();
    pool.lease().unwrap().fill(FILL);
    let (reader, mut writer) = common::pipe();
    let reader = ring.register_file(&reader).unwrap();
    let ticket = std::thread::scope(|scope| {
        let start = || {
            let ticket = ring.read(&reader, pool.lease().unwrap(), 64, 0).unwrap();
            ring.submit().unwrap();
            ticket
        };
        scope.spawn(start).join().unwrap()
    });
    assert!(pool.lease().is_none(), "the kernel has the lease: nothing was said yet");
    writer.write_all(b"late").unwrap();
    let done = ring.wait(ticket).unwrap();
    match done.result() {
        Ok(read) => assert_eq!((read, &done.into_buf().unwrap()[..4]), (4, &b"late"[..])),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Cancelled);
            assert!(done.into_buf().unwrap().iter().all(|byte| *byte == FILL), "nothing was written");
            println!("the operation was cancelled when its thread had ended");
        }
    }
}

/// Puts a read into the registered buffer into the queue.
fn read_fixed(ring: &mut CRing, descriptor: RawFd, memory: Memory) {
    let entry = &raw mut *ring.entry();
    // SAFETY: the entry is free; the memory stays mapped, and whoever calls waits for the end.
    unsafe { sys::io_uring_prep_read_fixed(entry, descriptor, memory.start.cast(), memory.length as u32, 0, 0) };
}

#[test]
fn a_fixed_read_goes_to_the_pages_that_were_registered() {
    let Some(mut ring) = CRing::new(4, 0) else { return };
    for is_fixed in [true, false] {
        let (reader, mut writer) = common::pipe();
        let memory = Memory::new(4096);
        if is_fixed {
            // SAFETY: the memory stays mapped.
            assert_eq!(unsafe { ring.register(memory.start, memory.length) }, 0);
            read_fixed(&mut ring, reader.as_raw_fd(), memory);
        } else {
            // SAFETY: the memory stays mapped, by one mapping or another.
            unsafe { ring.read(reader.as_raw_fd(), memory.start, 4096, u64::MAX, 0) };
        }
        assert_eq!((ring.submit(), ring.ready()), (1, 0));
        memory.replace(libc::PROT_READ | libc::PROT_WRITE);
        writer.write_all(&[0x11; 64]).unwrap();
        assert_eq!(ring.wait().1, 64);
        assert_eq!(memory.damaged(), if is_fixed { 0 } else { 64 }, "of what is at the address now");
    }
}

#[test]
fn a_fixed_read_of_an_old_kind_of_file_goes_to_the_address() {
    let directory = common::directory();
    let path = std::ffi::CString::new(directory.path().to_str().unwrap()).unwrap();
    for protection in [libc::PROT_READ | libc::PROT_WRITE, libc::PROT_NONE] {
        let Some(mut ring) = CRing::new(4, 0) else { return };
        // SAFETY: makes a descriptor, and reads a path.
        let inotify = unsafe {
            let inotify = libc::inotify_init1(libc::IN_CLOEXEC);
            assert!(libc::inotify_add_watch(inotify, path.as_ptr(), libc::IN_CREATE) >= 0);
            OwnedFd::from_raw_fd(inotify)
        };
        let memory = Memory::new(4096);
        // SAFETY: the memory stays mapped, by one mapping or another.
        assert_eq!(unsafe { ring.register(memory.start, memory.length) }, 0);
        read_fixed(&mut ring, inotify.as_raw_fd(), memory);
        assert_eq!((ring.submit(), ring.ready()), (1, 0));
        memory.replace(protection);
        drop(tempfile::tempfile_in(directory.path()));
        drop(File::create(directory.path().join("new")).unwrap());
        let result = ring.wait().1;
        if protection == libc::PROT_NONE {
            // What the library puts in the place of memory that is retired.
            assert!(result == -libc::EFAULT || result > 0, "{result}");
        } else {
            assert!(result > 0, "{result}");
            if memory.damaged() == 0 {
                common::skip("this kernel reads inotify by its pages");
            }
        }
        let _ = std::fs::remove_file(directory.path().join("new"));
    }
}

#[test]
fn unregistered_buffers_stay_with_their_operations() {
    if !common::is_kernel(6, 13) {
        // It would wait for the read below, for ever.
        return common::skip("before Linux 6.13 unregistering buffers waits for the operations that use them");
    }
    let Some(mut ring) = CRing::new(4, 0) else { return };
    let (reader, mut writer) = common::pipe();
    let memory = Memory::new(4096);
    // SAFETY: the memory stays mapped.
    assert_eq!(unsafe { ring.register(memory.start, memory.length) }, 0);
    read_fixed(&mut ring, reader.as_raw_fd(), memory);
    assert_eq!(ring.submit(), 1);
    // SAFETY: the ring is set up.
    assert_eq!(unsafe { sys::io_uring_unregister_buffers(ring.raw()) }, 0);
    assert_eq!(ring.ready(), 0, "the read is in flight");
    writer.write_all(&[0x11; 64]).unwrap();
    assert_eq!((ring.wait().1, memory.damaged()), (64, 64));
}

#[test]
fn an_abandoned_entry_is_executed() {
    let Some(mut ring) = CRing::new(1, 0) else { return };
    let (reader, mut writer) = common::pipe();
    let memory = Memory::new(4096);
    writer.write_all(b"one, ghost").unwrap();
    // SAFETY: the memory stays mapped, and the pipe open to the end.
    unsafe { ring.read(reader.as_raw_fd(), memory.start, 5, u64::MAX, 77) };
    assert_eq!((ring.submit(), ring.wait()), (1, (77, 5)));
    assert!(memory.starts_with(b"one, "));
    // Taken, and not filled in.
    let _ = ring.entry();
    assert_eq!(ring.submit(), 1);
    assert_eq!(ring.wait(), (77, 5), "the read of the lap before, once more");
    assert!(memory.starts_with(b"ghost"));
}

#[test]
fn a_thread_that_polls_two_rings_cuts_a_chain() {
    let polled = sys::IORING_SETUP_SQPOLL;
    let Some(mut ring) = CRing::new(32, polled) else { return };
    // SAFETY: a plain field of a ring that is set up.
    let descriptor = unsafe { (*ring.raw()).ring_fd };
    let Some(_other) = CRing::attached(4, polled | sys::IORING_SETUP_ATTACH_WQ, descriptor) else { return };
    let (reader, mut writer) = common::pipe();
    let memory = Memory::new(4096);
    // SAFETY: the memory stays mapped, and the pipe open to the end.
    unsafe { ring.read(reader.as_raw_fd(), memory.start, 1, u64::MAX, 0) };
    for place in 1..=16 {
        let entry = ring.entry();
        // SAFETY: the entry is free.
        unsafe { sys::io_uring_prep_nop(entry) };
        entry.user_data = place;
    }
    // SAFETY: the ring is set up, and its first entries are those above.
    let entries = unsafe { std::slice::from_raw_parts_mut((*ring.raw()).sq.sqes, 16) };
    entries.iter_mut().for_each(|entry| entry.flags |= sys::IOSQE_IO_LINK as u8);
    assert_eq!(ring.submit(), 17);
    let early = ring.wait();
    assert!(early.0 >= 8 && early.1 == 0, "{early:?} began without the read that is first");
    writer.write_all(&[0x11]).unwrap();
    let mut places: Vec<u64> = (0..16).map(|_| ring.wait().0).chain([early.0]).collect();
    places.sort_unstable();
    assert!(places.into_iter().eq(0..=16));
}

#[test]
fn a_submit_that_fails_takes_nothing_back() {
    let Some(mut ring) = CRing::new(4, sys::IORING_SETUP_R_DISABLED) else { return };
    let (reader, mut writer) = common::pipe();
    let memory = Memory::new(4096);
    // SAFETY: the memory stays mapped, and the pipe open to the end.
    unsafe { ring.read(reader.as_raw_fd(), memory.start, 64, u64::MAX, 5) };
    assert_eq!(ring.submit(), -libc::EBADFD, "a ring that is disabled takes nothing");
    // SAFETY: the ring is set up.
    assert_eq!(unsafe { sys::io_uring_enable_rings(ring.raw()) }, 0);
    assert_eq!(ring.submit(), 1, "what the submit that failed was to submit");
    writer.write_all(&[0x11; 64]).unwrap();
    assert_eq!((ring.wait(), memory.damaged()), ((5, 64), 64));
}

#[test]
fn the_file_of_a_linked_operation_is_looked_up_late() {
    let Some(mut ring) = CRing::new(4, 0) else { return };
    let (reader, mut writer) = common::pipe();
    let memory = Memory::new(64);
    let directory = common::directory();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    let number = File::create(&first).unwrap().into_raw_fd();
    let other = File::create(&second).unwrap();
    // SAFETY: the memory stays mapped, and the pipe open to the end.
    unsafe {
        ring.read(reader.as_raw_fd(), memory.start, 1, u64::MAX, 0);
        let entry = &raw mut *ring.entry();
        sys::io_uring_prep_write(entry, number, b"late".as_ptr().cast(), 4, 0);
        // The entry before.
        (*entry.sub(1)).flags |= sys::IOSQE_IO_LINK as u8;
    }
    assert_eq!((ring.submit(), ring.ready()), (2, 0));
    // SAFETY: the number is this test's own.
    assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), number) }, number);
    writer.write_all(b"x").unwrap();
    assert_eq!((ring.wait().1, ring.wait().1), (1, 4));
    let written = [first, second].map(|path| std::fs::read(path).unwrap());
    match written.each_ref().map(Vec::as_slice) {
        [b"", b"late"] => {}
        [b"late", b""] => common::skip("this kernel looks the file up when the chain is submitted"),
        other => panic!("{other:?}"),
    }
    // SAFETY: made by this test, and closed once.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

#[test]
fn the_library_that_runs_fills_in_what_the_header_declares() {
    let Some(mut ring) = CRing::new(4, 0) else { return };
    assert!(sys::has("io_uring_register_sync_cancel"), "the function that tells a library from 2.3 on");
    assert_eq!(size_of::<sys::io_uring>(), if cfg!(target_pointer_width = "64") { 216 } else { size_of_val(&*ring.0) });
    assert_eq!((ring.0.sq.ring_entries, ring.0.sq.ring_mask), (4, 3), "what inline functions read since 2.3");
    // SAFETY: the ring is set up.
    assert_eq!(unsafe { sys::io_uring_sq_space_left(ring.raw()) }, 4);
}

#[test]
fn completions_that_overflow_are_kept_until_the_ring_is_entered() {
    let Some(mut ring) = CRing::new(1, 0) else { return };
    assert_ne!(ring.0.features & sys::IORING_FEAT_NODROP, 0, "completions are never dropped (since Linux 5.5)");
    // No more than three: before Linux 5.19 nothing is taken while completions overflow.
    for user_data in 0..3 {
        let entry = &raw mut *ring.entry();
        // SAFETY: the entry is free.
        unsafe {
            sys::io_uring_prep_nop(entry);
            sys::io_uring_sqe_set_data64(entry, user_data);
        }
        assert_eq!(ring.submit(), 1);
    }
    assert_eq!(ring.ready(), 2, "as many as there is room for");
    let mut seen: Vec<u64> = (0..2).map(|_| ring.wait().0).collect();
    assert_eq!(ring.ready(), 0, "another one is kept, and nothing brings it");
    // SAFETY: the ring is set up.
    unsafe {
        assert!(sys::io_uring_cq_has_overflow(ring.raw()));
        assert_eq!(sys::io_uring_get_events(ring.raw()), 0);
    }
    assert_eq!(ring.ready(), 1, "until it is entered for that");
    seen.push(ring.wait().0);
    assert_eq!(seen, [0, 1, 2]);

    // A ring of the library asks for them by itself.
    let mut ring = common::ring(1).unwrap();
    for number in 0..3 {
        ring.get_sqe().unwrap().prep_nop().set_data64(UserData::from(number));
        ring.submit().unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let before = seen.len();
        for completion in ring.completions() {
            let Completion::Raw(cqe) = completion else { panic!("{completion:?}") };
            seen.push(cqe.user_data());
        }
        assert!(seen.len() > before, "{seen:?}, and no others");
    }
    assert_eq!(seen, [0, 1, 2]);
}
