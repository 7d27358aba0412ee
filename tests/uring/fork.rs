//! R12: in the child of a fork the ring is its parent's.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Barrier};

use sysuring::{Completion, ErrorKind, Operations as _, Pool, RejectReason, Ring, ThreadRings};

use crate::common;

/// Runs `child` in a forked child; it fails where that returns false or does not return.
fn in_child(child: impl FnOnce() -> bool) {
    // SAFETY: what the tests here do in the child allocates at most, which glibc supports after fork.
    let id = unsafe { libc::fork() };
    if id == 0 {
        // SAFETY: ends a child that hangs, by a signal.
        unsafe { libc::alarm(30) };
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(i32::from(!passed)) }
    }
    assert!(id > 0);
    let mut status = 0;
    // SAFETY: the child made above, once.
    unsafe { libc::waitpid(id, &raw mut status, 0) };
    assert_eq!(status, 0, "the child failed");
}

#[test]
fn a_parents_ring_is_dead_in_the_child_and_goes_on_in_the_parent() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, _writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(2, 4096).unwrap();
    ring.register_pool(&pool).unwrap();
    let mut kept = pool.lease().unwrap();
    kept.fill(7);
    ring.read_fixed(&file, pool.lease().unwrap(), 4096, 0).unwrap();
    ring.submit().unwrap();

    in_child(|| {
        let dead = ring.nop().is_err_and(|rejected| rejected.reason() == RejectReason::Forked)
            && ring.submit().is_err_and(|error| error.kind() == ErrorKind::Forked)
            && ring.completions().next().is_none()
            && ring.get_sqe().is_none()
            && ring.register_file(&reader).is_err()
            && ring.register_eventfd(&reader).is_err_and(|error| error.kind() == ErrorKind::Forked)
            && ring.register_files(&[]).is_err_and(|error| error.kind() == ErrorKind::Forked)
            && ring.register_ring_fd().is_err_and(|error| error.kind() == ErrorKind::Forked);
        // A lease is still memory, though not the parent's contents.
        let wiped = kept.iter().all(|byte| *byte == 0);
        kept.fill(9);
        let mut own = Ring::with_entries(2).unwrap();
        own.nop().unwrap();
        let works = own.submit_and_wait(1).is_ok() && own.completions().count() == 1;
        drop(ring);
        dead && wiped && works
    });

    // Another pipe: the read in flight on the first ends some time after its ring was closed, and might take what is written.
    let (reader, mut writer) = common::pipe();
    let mut ring = common::ring(8).unwrap();
    let file = ring.register_file(&reader).unwrap();
    ring.read(&file, Pool::new(1, 64).unwrap().lease().unwrap(), 64, 0).unwrap();
    writer.write_all(b"after").unwrap();
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completions().count(), 1);
    assert!(kept.iter().all(|byte| *byte == 7), "the child's writes stay in the child");
}

#[test]
fn what_the_child_does_reaches_nothing_of_the_parents() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, mut writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 4096).unwrap();
    let ticket = ring.read(&file, pool.lease().unwrap(), 4096, 0).unwrap();
    ring.submit().unwrap();
    let parents = &mut ring;
    in_child(move || parents.submit().is_err());
    writer.write_all(b"for the parent").unwrap();
    ring.submit_and_wait(1).unwrap();
    let done = ring.completions().find_map(sysuring::Completion::into_done).unwrap();
    assert_eq!(done.ticket(), ticket);
    assert_eq!(done.result().unwrap(), 14, "what was in flight at the fork arrives in the parent");
    assert_eq!(&done.into_buf().unwrap()[..14], b"for the parent");
}

#[test]
fn a_daemon_that_reused_the_descriptor_keeps_its_file() {
    let Some(ring) = common::ring(8) else { return };
    // SAFETY: reads a plain field of the ring.
    let descriptor = unsafe { (*ring.as_raw()).ring_fd };
    in_child(move || {
        let null = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: what a daemon does that closes all it inherited, and opens something of its own in its place.
        unsafe { libc::dup2(null.as_raw_fd(), descriptor) };
        drop(ring);
        // SAFETY: asks about a descriptor.
        unsafe { libc::fcntl(descriptor, libc::F_GETFD) >= 0 }
    });
}

#[cfg(feature = "block")]
mod device {
    use std::sync::atomic::{AtomicBool, Ordering};

    use sysuring::block::{self, BlockDevice, Options};

    use super::{common, in_child};

    /// Ends a thread's loop when the test fails too: the scope would wait for it forever.
    struct StopsThread<'a>(&'a AtomicBool);

    impl Drop for StopsThread<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_lock_stays_with_the_parent() {
        let Some(_) = common::ring(1) else { return };
        let directory = common::directory();
        let path = directory.path().join("disk");
        let options = Options::new().create(8 * 4096);
        let device = block::open(&path, &options).unwrap();
        device.write_block(1, &[1; 4096]).unwrap();
        let mut device = Some(device);
        in_child(|| {
            let device = device.take().unwrap();
            let mut block = [0; 4096];
            device.read_block(1, &mut block).unwrap();
            device.write_block(2, &[2; 4096]).unwrap();
            drop(device);
            block == [1; 4096]
        });
        assert!(block::open(&path, &options).is_err(), "the child released the parent's lock");
        let mut block = [0; 4096];
        device.as_ref().unwrap().read_block(2, &mut block).unwrap();
        assert_eq!(block, [2; 4096]);
    }

    #[test]
    fn a_child_opens_devices_while_the_parent_does() {
        let Some(_) = common::ring(1) else { return };
        let directory = common::directory();
        let (mine, childs) = (directory.path().join("mine"), directory.path().join("childs"));
        let options = Options::new().create(4096).queue_depth(2).pool_size(4096);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    block::open(&mine, &options).unwrap();
                }
            });
            let _stops = StopsThread(&stop);
            for _ in 0..50 {
                in_child(|| block::open(&childs, &options).unwrap().write_block(0, &[3; 4096]).is_ok());
            }
        });
    }
}

#[test]
fn a_child_that_leaves_a_chain_leaves_the_parents_as_it_was() {
    let Some(mut ring) = common::ring(8) else { return };
    let unreadable = Arc::new(OwnedFd::from(File::options().write(true).open("/dev/null").unwrap()));
    let pool = Pool::new(1, 64).unwrap();
    let mut is_child = false;
    let second = ring.chain(|chain| -> sysuring::Result<_> {
        // What follows ends with ECANCELED, as long as this is linked to it.
        chain.read(&unreadable, pool.lease().unwrap(), 64, 0)?;
        // SAFETY: the child leaves the chain, and ends.
        let id = unsafe { libc::fork() };
        if id == 0 {
            is_child = true;
            return Ok(None);
        }
        assert!(id > 0);
        let mut status = 0;
        // SAFETY: `status` is live.
        assert_eq!(unsafe { libc::waitpid(id, &raw mut status, 0) }, id);
        assert_eq!(status, 0);
        Ok(Some(chain.nop()?))
    });
    if is_child {
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    let second = second.unwrap().unwrap();
    ring.submit_and_wait(2).unwrap();
    let ends: Vec<_> = ring.completions().filter_map(Completion::into_done).collect();
    let result_of = |ticket| ends.iter().find(|done| done.ticket() == ticket).unwrap().raw_result();
    assert_eq!((ends.len(), result_of(second)), (2, -libc::ECANCELED));
}

#[test]
fn rings_of_threads_that_a_child_has_not_got_are_not_counted() {
    let Some(_) = common::ring(1) else { return };
    if !common::is_alone("uring::fork::rings_of_threads_that_a_child_has_not_got_are_not_counted") {
        return;
    }
    ThreadRings::set_limit(2);
    let have_rings = Arc::new(Barrier::new(3));
    for _ in 0..2 {
        let have_rings = Arc::clone(&have_rings);
        std::thread::spawn(move || {
            ThreadRings::with(8, |_| ()).unwrap();
            have_rings.wait();
            // Until the process ends.
            loop {
                std::thread::park();
            }
        });
    }
    have_rings.wait();
    in_child(|| {
        let none = ThreadRings::count();
        let entries = ThreadRings::with(8, |ring| ring.sq_entries());
        (none, entries.ok(), ThreadRings::count()) == (0, Some(8), 1)
    });
    assert_eq!(ThreadRings::count(), 2, "what the child does not count its parent does");
}
