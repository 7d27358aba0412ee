//! Rings for threads, and devices used from many.

use std::cell::RefCell;
use std::sync::Arc;

use sysuring::block::{self, Backend, BlockDevice, Fallback, Options, ReadRequest};
use sysuring::{ErrorKind, ThreadRings};

use crate::common::{self, pattern};

/// File systems without O_DIRECT are no fault of ours.
#[track_caller]
fn assert_not_degraded(device: &impl BlockDevice) {
    let degraded = device.report().degraded;
    assert!(degraded.iter().all(|why| why.fallback == Fallback::PageCache), "{degraded:?}");
}

#[test]
fn more_threads_than_rings_read_and_write_one_device() {
    let Some(_) = common::ring(1) else { return };
    let directory = common::directory();
    let options = Options::new().backend(Backend::Uring).create(64 * 16 * 4096).queue_depth(8).pool_size(8 * 4096);
    let device = block::open(directory.path().join("disk"), &options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16_u64 {
            let device = &device;
            scope.spawn(move || {
                for lap in 0..20 {
                    let data = pattern(thread * 100 + lap, 64 * 4096 + 1);
                    device.write_run(thread * 64, &data[1..]).unwrap();
                    let mut back = vec![0; 64 * 4096 + 1];
                    let mut requests: Vec<ReadRequest> = back[1..]
                        .chunks_mut(4096)
                        .enumerate()
                        .map(|(block, buffer)| ReadRequest::new(thread * 64 + block as u64, buffer))
                        .collect();
                    device.read_blocks(&mut requests).unwrap();
                    assert!(back[1..] == data[1..], "thread {thread} lap {lap}");
                }
            });
        }
    });
    assert!(ThreadRings::count() <= ThreadRings::limit());
    assert_not_degraded(&device);
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn short_threads_and_many_devices_leave_nothing_behind() {
    let Some(_) = common::ring(1) else { return };
    let directory = common::directory();
    let path = directory.path().join("disk");
    let options = Options::new().backend(Backend::Uring).create(16 * 4096).queue_depth(4);
    let lap = || {
        let device = Arc::new(block::open(&path, &options).unwrap());
        let threads: Vec<_> = (0..4)
            .map(|block| {
                let device = Arc::clone(&device);
                std::thread::spawn(move || {
                    device.write_block(block, &[block as u8; 4096]).unwrap();
                    device.read_block(block, &mut [0; 4096]).unwrap();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    };
    lap();
    let before = open_descriptors();
    for _ in 0..200 {
        lap();
    }
    // Other tests open files meanwhile, though not hundreds.
    let after = open_descriptors();
    assert!(after < before + 100, "{before} descriptors before, {after} after");
}

#[test]
fn a_ring_inside_of_a_ring_is_refused() {
    let Some(_) = common::ring(1) else { return };
    ThreadRings::set_limit(64);
    let inner = ThreadRings::with(4, |_| ThreadRings::with(4, |_| ())).unwrap();
    assert_eq!(inner.unwrap_err().kind(), ErrorKind::Busy);
    // What one user of the thread's ring has on it another one's size does not take away.
    ThreadRings::with(4, |ring| {
        ring.get_sqe().unwrap().prep_nop();
    })
    .unwrap();
    let seen = ThreadRings::with(64, |ring| (ring.submit_and_wait(1).unwrap(), ring.completions().count())).unwrap();
    assert_eq!(seen, (1, 1));
}

struct OnExit(Option<block::Device>);

impl Drop for OnExit {
    fn drop(&mut self) {
        let device = self.0.take().unwrap();
        device.write_block(0, &[0x77; 4096]).unwrap();
    }
}

thread_local! {
    static LATE: RefCell<Option<OnExit>> = const { RefCell::new(None) };
}

#[test]
fn a_device_works_in_a_thread_locals_destructor() {
    let Some(_) = common::ring(1) else { return };
    let directory = common::directory();
    let path = directory.path().join("disk");
    let device = block::open(&path, &Options::new().create(4096).backend(Backend::Uring)).unwrap();
    std::thread::spawn(move || {
        // Registered before the thread's ring is, so that it is dropped after it.
        LATE.with(|late| *late.borrow_mut() = Some(OnExit(None)));
        device.write_block(0, &[1; 4096]).unwrap();
        LATE.with(|late| late.borrow_mut().as_mut().unwrap().0 = Some(device));
    })
    .join()
    .unwrap();
    assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0x77));
}

#[test]
fn lent_buffers_are_registered_and_leave_some_for_others() {
    let Some(_) = common::ring(1) else { return };
    let directory = common::directory();
    let options = Options::new().backend(Backend::Uring).create(64 * 4096).pool_size(8 * 4096);
    let device = block::open(directory.path().join("disk"), &options).unwrap();
    let mut buffers: Vec<_> = (0..64).map(|_| device.aligned_buffer(4096).unwrap()).collect();
    let data = pattern(4, 64 * 4096 + 1);
    for (block, buffer) in buffers.iter_mut().enumerate() {
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer.copy_from_slice(&data[block * 4096..][..4096]);
        device.write_block(block as u64, buffer).unwrap();
    }
    // Unaligned memory still finds a lease.
    let mut back = vec![0; 64 * 4096 + 1];
    device.read_run(0, &mut back[1..]).unwrap();
    assert!(back[1..] == data[..64 * 4096]);
    assert_not_degraded(&device);
    drop(buffers);
    let used = device.aligned_buffer(4096).unwrap();
    assert!(used.iter().all(|byte| *byte == 0), "a buffer that is lent again is zeroed");
}
