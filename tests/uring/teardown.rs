//! How a ring ends: what is waited for, what is leaked and counted, and what the kernel can still reach.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sysuring::{
    ErrorKind, FixedFile, OpRing, Operations as _, Pool, Rejected, Ring, StableBuf, Ticket, UserData,
    leaked_operations, sys,
};

use crate::common::{self, PausedChild};

const FILL: u8 = 0x5a;

/// Counts how many of its kind exist.
struct Counted {
    bytes: Box<[u8]>,
    _alive: Arc<()>,
}

// SAFETY: the bytes are on the heap, and only this value has them.
unsafe impl StableBuf for Counted {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        self.bytes.memory()
    }
}

/// A ring with a read in flight that ends only when it is cancelled, or when something is written.
fn with_pending_read(limit: Option<Duration>, alive: &Arc<()>) -> Option<(OpRing<Counted>, File)> {
    common::ring(1)?;
    let mut builder = Ring::builder(8);
    if let Some(limit) = limit {
        builder = builder.drop_limit(limit);
    }
    let mut ring: OpRing<Counted> = builder.build_owned().unwrap();
    let (reader, writer) = common::pipe();
    let reader = Arc::new(OwnedFd::from(reader));
    let buffer = Counted { bytes: vec![FILL; 64].into(), _alive: Arc::clone(alive) };
    ring.read_owned(&reader, buffer, u64::MAX).unwrap_or_else(|_| panic!("rejected"));
    ring.submit().unwrap();
    Some((ring, writer))
}

#[test]
fn buffers_that_were_moved_in_are_waited_for() {
    let alive = Arc::new(());
    let Some((ring, _writer)) = with_pending_read(None, &alive) else { return };
    let start = Instant::now();
    drop(ring);
    assert_eq!(Arc::strong_count(&alive), 1, "the read was cancelled, and its buffer dropped");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn what_is_not_waited_for_is_leaked_and_counted() {
    if !common::is_alone("uring::teardown::what_is_not_waited_for_is_leaked_and_counted") {
        return;
    }
    let alive = Arc::new(());
    let Some((ring, mut writer)) = with_pending_read(Some(Duration::ZERO), &alive) else { return };
    assert_eq!(leaked_operations(), 0);
    drop(ring);
    assert_eq!((leaked_operations(), Arc::strong_count(&alive)), (1, 2), "the buffer is nobody's any more");
    let _ = writer.write_all(b"late");

    // Leases are not leaked: their pool is retired instead.
    let mut ring = common::ring(8).unwrap();
    let (reader, _writer) = common::pipe();
    let reader = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 4096).unwrap();
    ring.read(&reader, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit().unwrap();
    let before = Pool::retired_bytes();
    let start = Instant::now();
    drop((ring, reader, pool));
    assert_eq!((leaked_operations(), Pool::retired_bytes()), (1, before + 4096));
    assert!(start.elapsed() < Duration::from_millis(500), "nothing to wait for");
}

#[test]
fn a_limit_makes_leases_come_back_too() {
    if common::ring(1).is_none() {
        return;
    }
    let mut ring = Ring::builder(8).drop_limit(Duration::from_secs(10)).build().unwrap();
    let (reader, _writer) = common::pipe();
    let reader = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 64).unwrap();
    ring.read(&reader, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit().unwrap();
    drop(ring);
    assert!(pool.lease().is_some());
}

#[test]
fn times_and_paths_in_flight_end_with_their_ring() {
    let Some(mut ring) = common::ring(8) else { return };
    ring.timeout(Duration::from_secs(1000)).unwrap();
    ring.submit().unwrap();
    let start = Instant::now();
    drop(ring);
    assert!(start.elapsed() < Duration::from_secs(5), "a timeout is cancelled, not waited for");
}

#[test]
fn shutdown_says_what_is_left() {
    let alive = Arc::new(());
    let Some((ring, mut writer)) = with_pending_read(None, &alive) else { return };
    let start = Instant::now();
    let error = ring.shutdown(Duration::from_millis(30)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() < Duration::from_millis(900), "dropping it waited as well");
    // Since Linux 6.0 all that can end at once does, and is not leaked.
    let owners = Arc::strong_count(&alive);
    assert!(
        owners == 1 || !common::is_kernel(6, 0),
        "the read on a pipe was not cancelled: {owners} owners of what it had"
    );
    let _ = writer.write_all(b"late");

    let alive = Arc::new(());
    let Some((ring, mut writer)) = with_pending_read(None, &alive) else { return };
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        writer.write_all(b"in time").unwrap();
    });
    ring.shutdown(Duration::from_secs(30)).unwrap();
    thread.join().unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
}

/// Descriptors of this process.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn descriptors_in_flight_and_those_that_are_made_end_with_their_ring() {
    if !common::is_alone("uring::teardown::descriptors_in_flight_and_those_that_are_made_end_with_their_ring") {
        return;
    }
    if common::ring(1).is_none() {
        return;
    }
    let deferred = Ring::builder(8).defer_taskrun(true).fall_back_flags(true);
    for (round, builder) in [Ring::builder(8), deferred].into_iter().cycle().take(20).enumerate() {
        let before = open_descriptors();
        let mut ring = builder.build().unwrap();
        let pool = Pool::new(1, 64).unwrap();
        let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
        let here = Arc::new(OwnedFd::from(here));
        // In flight on a descriptor that only the operation keeps open.
        ring.recv(&here, pool.lease().unwrap(), 64, 0).unwrap();
        // Made by then, or still to be made.
        ring.forced_async().open(None, c"/dev/null", libc::O_RDONLY, 0).unwrap();
        ring.forced_async().socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let listener = Arc::new(OwnedFd::from(listener));
        ring.forced_async().accept(&listener, 0).unwrap();
        ring.submit().unwrap();
        drop((ring, here, listener, _client));
        assert_eq!(std::io::Read::read(&mut there, &mut [0; 8]).unwrap(), 0, "the other end is told");
        drop((there, pool));
        // The kernel gives up the files of a ring some time after it was closed.
        let end = Instant::now() + Duration::from_secs(5);
        while open_descriptors() > before && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(open_descriptors(), before, "round {round}");
    }
    assert_eq!(leaked_operations(), 0);
}

thread_local! {
    static LATE: RefCell<Option<(OpRing<Counted>, File)>> = const { RefCell::new(None) };
}

#[test]
fn a_ring_may_end_in_the_destructor_of_a_thread() {
    let alive = Arc::new(());
    let there = Arc::clone(&alive);
    std::thread::spawn(move || LATE.with(|late| *late.borrow_mut() = with_pending_read(None, &there))).join().unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_disabled_ring_may_end_on_another_thread() {
    if common::ring(1).is_none() {
        return;
    }
    let builder = Ring::builder(8).defer_taskrun(true).fall_back_flags(true);
    let disabled = builder.build_disabled().unwrap();
    std::thread::spawn(move || drop(disabled)).join().unwrap();
    let disabled = builder.build_disabled().unwrap();
    let mut ring = std::thread::spawn(move || disabled).join().unwrap().enable().unwrap();
    ring.nop().unwrap();
    assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
}

/// Drops the ring and the pool while a forked child keeps the ring going, then lets the operation end.
///
/// Operations on these files go through the address of a registered buffer, not to its pages.
fn retired_under(
    file: impl std::os::fd::AsFd,
    start: impl Fn(&mut Ring, &FixedFile, &Pool) -> Result<Ticket, Rejected<sysuring::Buf>>,
    end: impl FnOnce(),
) {
    let Some(mut ring) = common::ring(8) else { return };
    let pool = Pool::new(1, 4096).unwrap();
    if let Err(error) = ring.register_pool(&pool) {
        return common::skip(error);
    }
    let address = pool.lease().unwrap().as_mut_ptr();
    let fixed = ring.register_file(&file).unwrap();
    start(&mut ring, &fixed, &pool).unwrap();
    ring.submit().unwrap();
    let child = PausedChild::fork();
    let is_in_flight = ring.completions().next().is_none();
    drop((ring, fixed, pool));
    let mapped = common::map_at(address, 4096);
    end();
    std::thread::sleep(Duration::from_millis(100));
    drop(child);
    if is_in_flight {
        assert_eq!(mapped, None, "the address was given out again");
    } else {
        common::skip("the operation had ended already");
    }
}

#[test]
fn an_inotify_event_reaches_no_memory_of_anybodys() {
    let directory = common::directory();
    let path = std::ffi::CString::new(directory.path().to_str().unwrap()).unwrap();
    // SAFETY: makes a descriptor, and reads a path.
    let inotify = unsafe {
        let inotify = libc::inotify_init1(libc::IN_CLOEXEC);
        assert!(libc::inotify_add_watch(inotify, path.as_ptr(), libc::IN_CREATE) >= 0);
        OwnedFd::from_raw_fd(inotify)
    };
    let read = |ring: &mut Ring, file: &FixedFile, pool: &Pool| {
        ring.forced_async().read_fixed(file, pool.lease().unwrap(), 4096, 0)
    };
    retired_under(inotify.as_fd(), read, || drop(File::create(directory.path().join("new")).unwrap()));
}

#[test]
fn a_line_of_the_kernels_log_reaches_no_memory_of_anybodys() {
    let Ok(log) = File::options().read(true).write(true).open("/dev/kmsg") else {
        return common::skip("no access to /dev/kmsg");
    };
    // SAFETY: goes to the end of the log.
    unsafe { libc::lseek(std::os::fd::AsRawFd::as_raw_fd(&log), 0, libc::SEEK_END) };
    let read = |ring: &mut Ring, file: &FixedFile, pool: &Pool| {
        ring.forced_async().read_fixed(file, pool.lease().unwrap(), 4096, 0)
    };
    retired_under(log.as_fd(), read, || {
        let _ = (&log).write_all(b"sysuring: a test of what reaches retired memory\n");
    });
}

#[test]
fn files_of_proc_are_read_and_retired_like_others() {
    let Some(mut ring) = common::ring(8) else { return };
    let pool = Pool::new(2, 4096).unwrap();
    if let Err(error) = ring.register_pool(&pool) {
        return common::skip(error);
    }
    let file = ring.register_file(&File::open("/proc/self/status").unwrap()).unwrap();
    ring.read_fixed(&file, pool.lease().unwrap(), 4096, 0).unwrap();
    ring.submit_and_wait(1).unwrap();
    let done = ring.completions().find_map(|completion| completion.into_done()).unwrap();
    assert!(done.into_buf().unwrap().starts_with(b"Name:"));
    for _ in 0..64 {
        // Dropped at once: what is not withdrawn may be running.
        let mut ring = common::ring(8).unwrap();
        let pool = Pool::new(1, 4096).unwrap();
        ring.register_pool(&pool).unwrap();
        let file = ring.register_file(&File::open("/proc/self/smaps").unwrap()).unwrap();
        let mut buf = pool.lease().unwrap();
        let address = buf.as_mut_ptr();
        ring.forced_async().read_fixed(&file, buf, 4096, 0).unwrap();
        ring.submit().unwrap();
        drop((ring, file, pool));
        let mapped = common::map_at(address, 4096);
        let Some(mapped) = mapped else { continue };
        // It had ended: the address is free, and nobody writes there.
        // SAFETY: mapped just now, for this test alone.
        unsafe {
            mapped.write_bytes(FILL, 4096);
            std::thread::yield_now();
            let memory = std::slice::from_raw_parts(mapped, 4096);
            assert!(memory.iter().all(|byte| *byte == FILL));
            libc::munmap(mapped.cast(), 4096);
        }
    }
}

/// A pipe to wait for, that is empty for as long as the second value lives.
fn empty_pipe() -> (Arc<OwnedFd>, File) {
    let (reader, writer) = common::pipe();
    (Arc::new(OwnedFd::from(reader)), writer)
}

#[test]
fn what_begins_when_something_ends_is_ended_as_well() {
    if common::ring(1).is_none() {
        return;
    }
    let deferred = Ring::builder(8).defer_taskrun(true).fall_back_flags(true);
    for (name, builder) in [("plain", Ring::builder(8)), ("deferred", deferred)] {
        let (reader, _writer) = empty_pipe();
        let linked = || {
            let mut ring = builder.build().unwrap();
            let chain = ring.hard_chain(|chain| -> sysuring::Result<()> {
                for _ in 0..6 {
                    chain.poll(&reader, libc::POLLIN as u32)?;
                }
                Ok(())
            });
            chain.unwrap();
            ring.submit().unwrap();
            ring
        };
        let drained = || {
            let mut ring = builder.build().unwrap();
            ring.poll(&reader, libc::POLLIN as u32).unwrap();
            ring.drained().poll(&reader, libc::POLLIN as u32).unwrap();
            ring.submit().unwrap();
            ring
        };
        let both = [&linked as &dyn Fn() -> Ring, &drained];
        // Before Linux 6.0 a cancel is an entry, which waits behind a drained one as everything else does.
        for make in &both[..if common::is_kernel(6, 0) { 2 } else { 1 }] {
            let start = Instant::now();
            drop(make());
            assert_eq!(Arc::strong_count(&reader), 1, "{name}: what was behind a poll leaked");
            assert!(start.elapsed() < Duration::from_millis(900), "{name}: {:?}", start.elapsed());

            let error = make().shutdown(Duration::from_millis(5)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            // Before Linux 6.0 each is asked for by an entry of its own, some milliseconds apart.
            assert!(Arc::strong_count(&reader) == 1 || !common::is_kernel(6, 0), "{name}: {error}");
        }
    }
}

#[test]
fn what_a_polling_thread_takes_late_ends_with_its_ring() {
    if common::ring(1).is_none() {
        return;
    }
    let builder = Ring::builder(8).sqpoll(Duration::from_millis(1));
    let (reader, _writer) = empty_pipe();
    for round in 0..20 {
        let mut ring = match builder.build() {
            Ok(ring) => ring,
            Err(error) => return common::skip(error),
        };
        if round % 2 == 1 {
            // The thread sleeps by then.
            std::thread::sleep(Duration::from_millis(5));
        }
        ring.poll(&reader, libc::POLLIN as u32).unwrap();
        ring.submit().unwrap();
        let start = Instant::now();
        drop(ring);
        assert_eq!(Arc::strong_count(&reader), 1, "round {round}");
        assert!(start.elapsed() < Duration::from_millis(900), "round {round}: {:?}", start.elapsed());
    }
    if !common::is_kernel(6, 0) {
        return common::skip("what a polling thread's workers do can't be ended");
    }
    // Workers of the polling thread are asked by that thread.
    let (_other, writer) = common::pipe();
    let writer = Arc::new(OwnedFd::from(writer));
    for pause in [0, 20] {
        let mut ring = builder.build().unwrap();
        ring.splice((&reader, None), (&writer, None), 100, 0).unwrap();
        ring.submit().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        let start = Instant::now();
        drop(ring);
        assert_eq!((Arc::strong_count(&reader), Arc::strong_count(&writer)), (1, 1), "after {pause} ms");
        assert!(start.elapsed() < Duration::from_millis(900), "after {pause} ms: {:?}", start.elapsed());
    }
}

/// As before Linux 6.0.
#[test]
fn what_begins_later_ends_where_each_is_asked_on_its_own() {
    if !common::is_alone("uring::teardown::what_begins_later_ends_where_each_is_asked_on_its_own")
        || common::ring(1).is_none()
    {
        return;
    }
    common::filter::deny(&[libc::SYS_io_uring_register], libc::EINVAL);
    let (reader, _writer) = empty_pipe();
    for builder in [Ring::builder(8), Ring::builder(8).sqpoll(Duration::from_millis(1))] {
        let mut ring = match builder.build() {
            Ok(ring) => ring,
            Err(error) => return common::skip(error),
        };
        let chain = ring.hard_chain(|chain| -> sysuring::Result<()> {
            for _ in 0..6 {
                chain.poll(&reader, libc::POLLIN as u32)?;
            }
            Ok(())
        });
        chain.unwrap();
        ring.submit().unwrap();
        let start = Instant::now();
        drop(ring);
        assert_eq!((Arc::strong_count(&reader), leaked_operations()), (1, 0));
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    }
}

#[test]
fn shutdown_waits_for_raw_entries() {
    static HOUR: sys::__kernel_timespec = sys::__kernel_timespec { tv_sec: 3600, tv_nsec: 0 };
    static MOMENT: sys::__kernel_timespec = sys::__kernel_timespec { tv_sec: 0, tv_nsec: 50_000_000 };

    for (time, is_in_time) in [(&HOUR, false), (&MOMENT, true)] {
        let Some(mut ring) = common::ring(8) else { return };
        // SAFETY: the time lives for ever.
        unsafe { ring.get_sqe().unwrap().prep_timeout(time, 0, 0) }.set_data64(UserData::from(1));
        ring.submit().unwrap();
        let (start, limit) = (Instant::now(), Duration::from_millis(if is_in_time { 20_000 } else { 30 }));
        let ended = ring.shutdown(limit);
        assert!(start.elapsed() >= Duration::from_millis(30), "{ended:?} after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(15), "{ended:?} after {:?}", start.elapsed());
        match ended {
            Ok(()) => assert!(is_in_time),
            Err(error) => assert!(!is_in_time && error.to_string().contains("in flight: 1"), "{error}"),
        }
    }
}
