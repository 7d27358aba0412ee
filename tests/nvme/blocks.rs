//! A namespace as a block device.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use sysuring::ErrorKind;
use sysuring::block::nvme::NvmeDevice;
use sysuring::block::{self, Backend, BlockDevice, Options, ReadRequest, WriteRequest};

use super::{each, each_random, has_nodes, nodes, open, options, polls};
use crate::common::{self, pattern};

/// More than is in flight at once, an odd number.
const COUNT: usize = 61;

#[test]
fn blocks_runs_and_batches_round_trip() {
    each_random(|device| {
        let size = device.block_size();
        // At the very end, too.
        for first in [3, device.block_count() - COUNT as u64] {
            let data = pattern(first, COUNT * size + 1);
            // One byte into the allocation, on purpose.
            device.write_run(first, &data[1..]).unwrap();
            let mut back = vec![0; COUNT * size + 1];
            device.read_run(first, &mut back[1..]).unwrap();
            assert!(back[1..] == data[1..], "a run that is not aligned");

            let data = pattern(first + 1, COUNT * size);
            let mut requests: Vec<_> = (0..COUNT)
                .rev()
                .map(|index| WriteRequest::new(first + index as u64, &data[index * size..][..size]))
                .collect();
            device.write_blocks(&mut requests).unwrap();
            assert!(requests.iter().all(|request| matches!(request.result(), Some(Ok(())))));
            device.flush().unwrap();
            back.truncate(COUNT * size);
            back.fill(0);
            let mut requests: Vec<_> = back
                .chunks_mut(size)
                .enumerate()
                .map(|(index, buffer)| ReadRequest::new(first + index as u64, buffer))
                .collect();
            device.read_blocks(&mut requests).unwrap();
            assert!(back == data, "a batch");

            let mut aligned = device.aligned_buffer(4 * size).unwrap();
            aligned.copy_from_slice(&pattern(first + 2, 4 * size));
            device.write_run_fua(first, &aligned).unwrap();
            aligned.fill(0);
            device.read_run(first, &mut aligned).unwrap();
            assert!(aligned[..] == pattern(first + 2, 4 * size), "registered memory");
            device.write_barrier(&mut [WriteRequest::new(first, &data[..size])]).unwrap();
            device.read_block(first, &mut back[..size]).unwrap();
            assert!(back[..size] == data[..size]);
        }
    });
}

#[test]
fn what_is_longer_than_a_command_takes_several() {
    each_random(|device| {
        let longest = device.geometry().max_transfer.unwrap() as usize;
        let bytes = (3 * longest + 5 * device.block_size()).next_multiple_of(device.block_size());
        let data = pattern(7, bytes);
        device.write_run(1, &data).unwrap();
        for shift in [0, 1, 4] {
            let mut back = vec![0; bytes + shift];
            let address = back[shift..].as_ptr();
            let read = device.read_run(1, &mut back[shift..]);
            assert!(read.is_ok(), "shifted by {shift}, at {address:?}: {read:?}");
            assert!(back[shift..] == data, "shifted by {shift}");
        }
        let mut aligned = device.aligned_buffer(bytes).unwrap();
        device.read_run(1, &mut aligned).unwrap();
        assert!(*aligned == *data);
    });
}

#[test]
fn both_ways_and_the_block_layer_see_the_same() {
    if !has_nodes() {
        return;
    }
    for path in nodes() {
        let shared = options().exclusive(false);
        let Some(ring) = open(&path, &shared) else { continue };
        if ring.zoned().is_some() {
            continue;
        }
        let size = ring.block_size();
        let ioctl = open(&path, &shared.clone().backend(Backend::File)).unwrap();
        let data = pattern(99, 8 * size);
        ring.write_run(5, &data).unwrap();
        let mut back = vec![0; 8 * size];
        ioctl.read_run(5, &mut back).unwrap();
        assert!(back == data);
        if ring.metadata_size() != 0 {
            // The block layer has no device, or an empty one; or it keeps to its own the protection information that it reads.
            continue;
        }
        let disk = path.to_str().unwrap().replace("/ng", "/nvme");
        let options = Options::new().exclusive(false).block_size(size as u32).backend(Backend::File);
        let disk = block::open(&disk, &options).unwrap();
        assert_eq!(disk.block_count(), ring.block_count());
        back.fill(0);
        disk.read_run(5, &mut back).unwrap();
        assert!(back == data, "{}: what was passed through is not there", path.display());
        let data = pattern(100, 8 * size);
        disk.write_run(5, &data).unwrap();
        ring.read_run(5, &mut back).unwrap();
        assert!(back == data, "{}: what was written is not there", path.display());
    }
}

#[test]
fn what_is_discarded_and_zeroed_is_gone() {
    each_random(|device| {
        let size = device.block_size();
        let (first, count) = (11, 40);
        device.write_run(first, &pattern(1, count * size)).unwrap();
        device.write_zeroes(first + 1, 30).unwrap();
        let mut back = vec![1; count * size];
        device.read_run(first, &mut back).unwrap();
        assert!(back[..size] == pattern(1, count * size)[..size]);
        assert!(back[size..31 * size].iter().all(|byte| *byte == 0));
        assert!(back[31 * size..] == pattern(1, count * size)[31 * size..]);
        assert!(device.capabilities().discard);
        device.discard(first, count as u64).unwrap();
        device.read_run(first, &mut back).unwrap();
        device.discard(0, 0).unwrap();
        device.write_zeroes(0, device.block_count()).unwrap();
        device.discard(0, device.block_count()).unwrap();
        assert_eq!(device.resize(1).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(device.rescan().unwrap(), device.block_count());
        assert_eq!(device.stats().failures, 0);
    });
}

#[test]
fn mistakes_are_told_before_anybody_sees_them() {
    each(|device| {
        let size = device.block_size();
        let mut block = vec![0; size];
        let kind = |result: sysuring::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(device.read_block(device.block_count(), &mut block)), ErrorKind::OutOfRange);
        assert_eq!(kind(device.read_run(device.block_count() - 1, &mut vec![0; 2 * size])), ErrorKind::OutOfRange);
        assert_eq!(kind(device.read_run(0, &mut block[1..])), ErrorKind::InvalidInput);
        assert_eq!(kind(device.write_run(0, &[])), ErrorKind::InvalidInput);
        assert_eq!(kind(device.verify(device.lba_count(), 1)), ErrorKind::OutOfRange);
        assert_eq!(kind(device.verify(0, 0)), ErrorKind::InvalidInput);
        assert_eq!(kind(device.compare(0, &block[1..]).map(drop)), ErrorKind::InvalidInput);
        assert_eq!(kind(device.compare(u64::MAX, &block).map(drop)), ErrorKind::OutOfRange);
        assert_eq!(device.feature(0x0c).unwrap_err().kind(), ErrorKind::InvalidInput, "a feature with data");
        assert_eq!(kind(device.log_page(2, &mut block[..6])), ErrorKind::InvalidInput);
        assert_eq!(device.stats().retries, 0);
    });
}

#[test]
fn a_queue_goes_round() {
    each_random(|device| {
        let size = device.block_size();
        for blocks in [1, 16] {
            let mut queue = device.queue(16, blocks * size).unwrap();
            for lap in 0..3 {
                for index in 0..16 {
                    let mut buffer = queue.buffer().unwrap();
                    buffer.copy_from_slice(&pattern(lap + index, blocks * size));
                    let block = index * blocks as u64;
                    let wrote = if index % 2 == 0 {
                        queue.write(block, buffer, index)
                    } else {
                        queue.write_fua(block, buffer, index)
                    };
                    wrote.unwrap();
                }
                assert!(queue.read(0, device.aligned_buffer(size).unwrap(), 0).is_err(), "it is full");
                while let Some(completed) = queue.wait().unwrap() {
                    completed.result.unwrap();
                }
                queue.flush(77).unwrap();
                assert_eq!(queue.wait().unwrap().unwrap().user_data, 77);
                for index in 0..16 {
                    queue.read(index * blocks as u64, queue.buffer().unwrap(), index).unwrap();
                }
                while let Some(completed) = queue.wait().unwrap() {
                    completed.result.unwrap();
                    let expected = pattern(lap + completed.user_data, blocks * size);
                    assert!(completed.buffer.unwrap()[..] == expected);
                }
            }
            let error = queue.read(device.block_count(), queue.buffer().unwrap(), 0).unwrap_err();
            assert_eq!(error.error().kind(), ErrorKind::OutOfRange);
        }
        assert_eq!(device.stats().failures, 0);
        assert!(device.report().degraded.is_empty(), "{}", device.report());
    });
}

#[test]
fn a_queue_takes_buffers_longer_than_a_command() {
    each_random(|device| {
        let longest = device.geometry().max_transfer.unwrap() as usize;
        let bytes = (2 * longest).next_multiple_of(device.block_size()) + device.block_size();
        let mut queue = device.queue(2, bytes).unwrap();
        let data = pattern(3, bytes);
        let mut buffer = queue.buffer().unwrap();
        buffer.copy_from_slice(&data);
        queue.write(0, buffer, 0).unwrap();
        let mut buffer = queue.wait().unwrap().map(|completed| completed.result.map(|()| completed.buffer)).unwrap();
        buffer.as_mut().unwrap().as_mut().unwrap().fill(0);
        queue.read(0, buffer.unwrap().unwrap(), 0).unwrap();
        let completed = queue.wait().unwrap().unwrap();
        completed.result.unwrap();
        assert!(completed.buffer.unwrap()[..] == data);
        // The caller's own, where there need be no room for metadata.
        let own = block::AlignedBuffer::new(bytes, 4096).unwrap();
        match queue.read(0, own, 0) {
            Ok(()) => {
                let completed = queue.wait().unwrap().unwrap();
                completed.result.unwrap();
                assert!(completed.buffer.unwrap()[..] == data);
            }
            Err(error) => assert!(error.to_string().contains("take one that has the room"), "{error}"),
        }
    });
}

#[test]
fn an_event_loop_hears_of_what_ended() {
    each(|device| {
        let mut queue = device.queue(4, device.block_size()).unwrap();
        let descriptor = match queue.completion_fd() {
            Ok(descriptor) => std::os::fd::AsRawFd::as_raw_fd(&descriptor),
            Err(error) => {
                assert!(polls() && error.kind() == ErrorKind::Unsupported, "{error}");
                return;
            }
        };
        for block in 0..4 {
            queue.read(block, queue.buffer().unwrap(), block).unwrap();
        }
        queue.submit().unwrap();
        let mut ended = 0;
        while ended < 4 {
            assert!(common::is_readable(descriptor, 10_000), "nothing is told");
            while let Some(completed) = queue.poll() {
                completed.result.unwrap();
                ended += 1;
            }
        }
    });
}

/// Wakes the thread that waits.
struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn futures_end() {
    each_random(|device| {
        let size = device.block_size();
        let mut futures = Vec::new();
        for block in 0..COUNT as u64 {
            let mut buffer = device.aligned_buffer(size).unwrap();
            buffer.copy_from_slice(&pattern(block, size));
            futures.push(Box::pin(device.write_async(block, buffer)));
        }
        // All are begun before the first is waited for, as far as there is room.
        let mut context = Context::from_waker(Waker::noop());
        let mut ended: Vec<_> = futures
            .iter_mut()
            .map(|future| match future.as_mut().poll(&mut context) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            })
            .collect();
        for (future, ended) in futures.into_iter().zip(&mut ended) {
            ended.take().unwrap_or_else(|| wait(future)).unwrap();
        }
        wait(device.flush_async()).unwrap();
        for block in 0..COUNT as u64 {
            let buffer = wait(device.read_async(block, device.aligned_buffer(size).unwrap())).unwrap();
            assert!(buffer[..] == pattern(block, size));
        }
        drop(device.read_async(0, device.aligned_buffer(size).unwrap()));
        let error = wait(device.read_async(device.block_count(), device.aligned_buffer(size).unwrap())).unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::OutOfRange);
        assert_eq!(device.stats().in_flight, 0);
    });
}

#[test]
fn more_threads_than_rings_use_one_namespace() {
    each_random(|device| {
        let size = device.block_size();
        std::thread::scope(|scope| {
            for thread in 0..3 * sysuring::ThreadRings::limit() as u64 {
                scope.spawn(move || {
                    let first = thread * COUNT as u64;
                    for lap in 0..3 {
                        let data = pattern(thread + lap, COUNT * size);
                        let mut requests: Vec<_> =
                            (first..).zip(data.chunks(size)).map(|(b, d)| WriteRequest::new(b, d)).collect();
                        device.write_blocks(&mut requests).unwrap();
                        let mut back = vec![0; COUNT * size];
                        device.read_run(first, &mut back).unwrap();
                        assert!(back == data, "thread {thread}");
                    }
                });
            }
        });
        assert_eq!((device.stats().failures, device.stats().in_flight), (0, 0));
        assert!(device.report().degraded.is_empty(), "{}", device.report());
    });
}

#[test]
fn where_there_is_no_ring_commands_go_by_ioctl() {
    if !has_nodes() {
        return;
    }
    for path in nodes() {
        let Some(device) = open(&path, &options()) else { continue };
        let available = sysuring::available().is_ok();
        assert_eq!(device.backend(), if available { Backend::Uring } else { Backend::File });
        assert_eq!(device.fallback_reason().is_none(), available);
        if !available {
            let report = device.report().to_string();
            assert!(report.contains("passing commands by ioctl"), "{report}");
        }
        if device.zoned().is_none() {
            device.write_block(1, &vec![7; device.block_size()]).unwrap();
            device.read_block(1, &mut vec![0; device.block_size()]).unwrap();
        }
        drop(device);
        let strict = NvmeDevice::open(&path, &options().block_size(4096).whole_blocks(true).backend(Backend::Uring));
        assert_eq!(strict.is_ok(), available);
    }
}

#[test]
fn where_polling_can_not_be_had_that_is_told() {
    if !has_nodes() {
        return;
    }
    for path in nodes() {
        let Some(device) = open(&path, &options().iopoll(true).backend(Backend::File)) else { continue };
        let report = device.report();
        assert!(!report.polled);
        let is_told = report.degraded.iter().any(|degraded| degraded.fallback == block::Fallback::Interrupts);
        let queue = path.to_str().unwrap().replace("/dev/ng", "/sys/class/block/nvme") + "/queue/io_poll";
        let has_queues = std::fs::read_to_string(queue).is_ok_and(|has| has.trim() == "1");
        assert_eq!(is_told, !(has_queues && common::is_kernel(6, 12)), "{report}");
    }
}

#[test]
fn every_block_size_works_from_the_logical_block_on() {
    if !has_nodes() {
        return;
    }
    for path in nodes() {
        let Some(device) = open(&path, &options()) else { continue };
        let (lba_size, zoned) = (device.lba_size() as u32, device.zoned());
        drop(device);
        for block_size in [512, 4096, 65536] {
            let opened = NvmeDevice::open(&path, &options().block_size(block_size).whole_blocks(true));
            if block_size < lba_size {
                assert_eq!(opened.unwrap_err().kind(), ErrorKind::Misaligned);
                continue;
            }
            let device = opened.unwrap();
            assert_eq!(device.block_count(), device.lba_count() * u64::from(lba_size) / u64::from(block_size));
            if zoned.is_none() {
                let data = pattern(block_size.into(), 3 * block_size as usize);
                device.write_run(2, &data).unwrap();
                let mut back = vec![0; data.len()];
                device.read_run(2, &mut back).unwrap();
                assert!(back == data, "{block_size}");
            }
        }
    }
}
