//! Queues and futures in the child of a `fork`: no thread of the parent's is there, and what is the parent's stays so.

use std::future::Future;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sysuring::ErrorKind;
use sysuring::block::{self, Backend, BlockDevice, Device, Options, TransferFuture};

use crate::common::{self, backends};

const BLOCK: usize = 4096;

/// Runs `work` in a child, which is killed where it hangs.
#[track_caller]
fn in_child(what: &str, work: impl FnOnce() -> bool) {
    // SAFETY: the child is this one thread; it ends without running anything of the parent's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: passes no memory.
        unsafe { libc::alarm(20) };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: as above.
        unsafe { libc::_exit(if matches!(done, Ok(true)) { 0 } else { 1 }) }
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: `status` is live.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "{what}: the child failed, or hung and was killed");
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn device(directory: &tempfile::TempDir, backend: Backend) -> Device {
    let path = directory.path().join(backend.to_string());
    block::open(path, &Options::new().backend(backend).create(64 * BLOCK as u64)).unwrap()
}

fn read(device: &Device, block: u64) -> TransferFuture {
    device.read_async(block, block::AlignedBuffer::new(BLOCK, device.alignment()).unwrap())
}

#[test]
fn a_child_uses_a_device_without_the_threads_of_its_parent() {
    let directory = common::directory();
    for backend in backends() {
        let device = device(&directory, backend);
        // The parent has threads by now, and has something under way.
        (0..8).for_each(|block| drop(block_on(read(&device, block)).unwrap()));
        let mut under_way: Vec<TransferFuture> = (0..100).map(|block| read(&device, block % 64)).collect();
        under_way.retain_mut(|future| poll(future).is_pending());
        let mut queue = device.queue(4, BLOCK).unwrap();
        queue.read(0, queue.buffer().unwrap(), 0).unwrap();
        queue.submit().unwrap();
        in_child(&format!("{backend}: futures"), || {
            (0..100).all(|block| block_on(read(&device, block % 64)).is_ok()) && block_on(device.flush_async()).is_ok()
        });
        in_child(&format!("{backend}: a queue of its own"), || {
            let mut queue = device.queue(4, BLOCK).unwrap();
            queue.read(1, queue.buffer().unwrap(), 1).unwrap();
            queue.flush(2).unwrap();
            (0..2).all(|_| queue.wait().unwrap().is_some_and(|completed| completed.result.is_ok()))
        });
        in_child(&format!("{backend}: what is its parent's"), || {
            let refused = queue.read(1, device.aligned_buffer(BLOCK).unwrap(), 1).unwrap_err();
            let is_refused = refused.error().kind() == ErrorKind::Forked
                && queue.submit().is_err_and(|error| error.kind() == ErrorKind::Forked)
                && queue.completion_fd().is_err_and(|error| error.kind() == ErrorKind::Forked);
            drop(queue);
            // Those that had a place; those in line begin here.
            let ended = under_way.into_iter().all(|future| match block_on(future) {
                Ok(_) => true,
                Err(failed) => failed.error().kind() == ErrorKind::Forked,
            });
            is_refused && ended
        });
    }
}

#[test]
fn a_child_does_not_take_what_its_parent_is_told() {
    let directory = common::directory();
    for backend in backends() {
        let device = device(&directory, backend);
        let mut queue = device.queue(4, BLOCK).unwrap();
        let descriptor = queue.completion_fd().unwrap().as_raw_fd();
        queue.read(0, queue.buffer().unwrap(), 0).unwrap();
        queue.submit().unwrap();
        assert!(common::is_readable(descriptor, 10_000));
        in_child(&backend.to_string(), || (0..4).all(|_| queue.poll().is_none()));
        assert!(common::is_readable(descriptor, 0), "{backend}: the child has heard it");
        queue.wait().unwrap().unwrap().result.unwrap();
    }
}

#[cfg(any(feature = "link", feature = "dlopen"))]
#[test]
fn a_childs_reactor_stays_when_its_parents_goes() {
    use sysuring::block::Reactor;

    if let Err(reason) = sysuring::available() {
        return common::skip(reason);
    }
    let reactor = Reactor::new().unwrap();
    in_child("reactor", || {
        let own = Reactor::new().unwrap();
        drop(reactor);
        let is_there = Reactor::new().is_err_and(|error| error.kind() == ErrorKind::Busy);
        drop(own);
        is_there && Reactor::new().is_ok()
    });
}

#[cfg(any(feature = "link", feature = "dlopen"))]
#[test]
fn futures_go_on_where_the_ring_can_not_be_entered_any_more() {
    if let Err(reason) = sysuring::available() {
        return common::skip(reason);
    }
    let directory = common::directory();
    for errno in [libc::EPERM, libc::EAGAIN] {
        // Its hub and its hub's thread are its own.
        in_child(&format!("errno {errno}"), || {
            let device = device(&directory, Backend::Uring);
            block_on(read(&device, 0)).unwrap();
            common::filter::deny(&[libc::SYS_io_uring_enter], errno);
            (0..8).for_each(|block| drop(block_on(read(&device, block)).unwrap()));
            let degraded = device.report().degraded;
            device.stats().in_flight == 0 && degraded.len() == 1 && degraded[0].to_string().contains("submit")
        });
    }
}
