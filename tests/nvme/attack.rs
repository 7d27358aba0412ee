//! Queues that go while their commands are in flight: what the controller writes then is nobody else's memory.

use std::time::{Duration, Instant};

use sysuring::block::nvme::NvmeDevice;
use sysuring::block::{AlignedBuffer, BlockDevice, Queue};

use super::{has_nodes, open, options};
use crate::common::{self, PausedChild};

const READS: u64 = 6;
const BYTES: usize = 64 << 10;
/// What the disk is full of.
const ON_DISK: u8 = 0x11;
/// What memory is full of that must stay as it is.
const FILL: u8 = 0xa5;

/// A namespace on which a read takes a second or so, or a visible skip.
#[track_caller]
fn slow() -> Option<NvmeDevice> {
    let Some(path) = std::env::var_os("SYSURING_TEST_NVME_SLOW") else {
        common::skip("SYSURING_TEST_NVME_SLOW names no namespace; tests/vm/run has one");
        return None;
    };
    if !has_nodes() {
        return None;
    }
    let device = open(path.as_ref(), &options())?;
    device.write_run(0, &vec![ON_DISK; READS as usize * BYTES]).unwrap();
    Some(device)
}

/// Whose buffers are read into.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Buffers {
    /// The queue's: registered.
    Queues,
    /// Of the device's pool, which the queue's ring does not know.
    Devices,
    /// Of the allocator.
    Heap,
}

impl Buffers {
    fn take(self, device: &NvmeDevice, queue: &Queue) -> AlignedBuffer {
        match self {
            Self::Queues => queue.buffer().unwrap(),
            Self::Devices => device.aligned_buffer(4096).unwrap(),
            Self::Heap => AlignedBuffer::new(BYTES, 4096).unwrap(),
        }
    }
}

/// Memory of others, of all sizes that were given up.
fn others() -> Vec<Vec<u8>> {
    [4096, BYTES].iter().cycle().take(64).chain([&(8 << 20)]).map(|size| vec![FILL; *size]).collect()
}

/// Waits until the namespace has nothing to do any more: reads are answered in their order.
fn settle(device: &NvmeDevice) {
    let mut block = vec![0; device.block_size()];
    device.read_block(0, &mut block).unwrap();
    assert!(block.iter().all(|byte| *byte == ON_DISK));
    std::thread::sleep(Duration::from_secs(2));
}

#[test]
fn a_queue_that_goes_leaves_its_reads_to_nobody_elses_memory() {
    for buffers in [Buffers::Queues, Buffers::Devices, Buffers::Heap] {
        for forked in [false, true] {
            let Some(device) = slow() else { return };
            println!("{buffers:?}, forked {forked}");
            let mut queue = device.queue(READS as u32, BYTES).unwrap();
            let step = BYTES as u64 / device.block_size() as u64;
            let mut addresses = Vec::new();
            for index in 0..READS {
                let mut buffer = buffers.take(&device, &queue);
                buffer.fill(0);
                addresses.push((buffer.as_mut_ptr(), buffer.len()));
                queue.read(index * step, buffer, index).unwrap();
            }
            queue.submit().unwrap();
            let child = forked.then(PausedChild::fork);
            let mut ended = 0;
            while queue.poll().is_some() {
                ended += 1;
            }
            assert!(ended < READS, "the disk is not slow");
            let start = Instant::now();
            drop(queue);
            assert!(start.elapsed() < Duration::from_secs(4), "it is not waited for");
            let others = others();
            // Of what is not the allocator's, nothing is given out again.
            if buffers != Buffers::Heap {
                let taken = addresses.iter().filter(|(address, _)| common::map_at(*address, 4096).is_some()).count();
                assert_eq!(taken, 0, "addresses were given out again");
            }
            settle(&device);
            drop(child);
            assert!(others.iter().flatten().all(|byte| *byte == FILL), "memory of others was written to");
        }
    }
}

#[test]
fn a_process_that_is_killed_leaves_nothing_behind() {
    let Some(device) = slow() else { return };
    let path = std::env::var_os("SYSURING_TEST_NVME_SLOW").unwrap();
    drop(device);
    for _ in 0..3 {
        // SAFETY: the child opens a device, starts reads, and is killed; it shares nothing that it uses with other threads: this test
        // has a process of its own, as far as it is run as `tests/vm` runs it.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let started = std::panic::catch_unwind(|| {
                let device = open(path.as_ref(), &options().exclusive(false)).unwrap();
                let mut queue = device.queue(READS as u32, BYTES).unwrap();
                for index in 0..READS {
                    queue.read(index * 16, queue.buffer().unwrap(), index).unwrap();
                }
                queue.submit().unwrap();
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
            let _: Result<(), _> = started;
            // SAFETY: ends the child without anything of the parent's.
            unsafe { libc::_exit(1) };
        }
        assert!(child > 0);
        std::thread::sleep(Duration::from_secs(2));
        // SAFETY: the child that was made above, once.
        unsafe {
            assert_eq!(libc::kill(child, libc::SIGKILL), 0);
            assert_eq!(libc::waitpid(child, std::ptr::null_mut(), 0), child);
        }
        // What it had pinned is freed, and used again, while its reads go on.
        let others = others();
        let device = open(path.as_ref(), &options()).unwrap();
        settle(&device);
        assert!(others.iter().flatten().all(|byte| *byte == FILL), "memory of others was written to");
    }
}
