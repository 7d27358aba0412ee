//! Queues: requests that own their memory, taken as they end.

use std::collections::HashSet;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use sysuring::ErrorKind;
use sysuring::block::{self, AlignedBuffer, Backend, BlockDevice, Device, Options, Queue};

use crate::common::{self, backends, pattern};

const BLOCK: usize = 4096;

fn device(directory: &tempfile::TempDir, backend: Backend, direct: bool) -> Device {
    let path = directory.path().join(format!("{backend}-{direct}"));
    block::open(path, &Options::new().backend(backend).direct(direct).create(256 * BLOCK as u64)).unwrap()
}

fn take_all(queue: &mut Queue) -> Vec<AlignedBuffer> {
    let mut buffers = Vec::new();
    while let Some(completed) = queue.wait().unwrap() {
        completed.result.unwrap();
        buffers.extend(completed.buffer);
    }
    buffers
}

#[test]
fn what_a_queue_writes_a_queue_reads() {
    let directory = common::directory();
    for (backend, direct) in backends().into_iter().flat_map(|backend| [(backend, true), (backend, false)]) {
        let device = device(&directory, backend, direct);
        let data = pattern(7, 256 * BLOCK);
        let mut queue = device.queue(16, 2 * BLOCK).unwrap();
        let mut buffers: Vec<AlignedBuffer> = std::iter::from_fn(|| queue.buffer()).take(16).collect();
        assert_eq!(buffers.len(), 16);
        for first in (0..256).step_by(2) {
            if buffers.is_empty() {
                let completed = queue.wait().unwrap().expect("in flight");
                completed.result.unwrap();
                buffers.extend(completed.buffer);
            }
            let mut buffer = buffers.pop().unwrap();
            buffer.copy_from_slice(&data[first * BLOCK..][..2 * BLOCK]);
            match first % 4 {
                0 => queue.write(first as u64, buffer, first as u64).unwrap(),
                _ => queue.write_fua(first as u64, buffer, first as u64).unwrap(),
            }
        }
        buffers.extend(take_all(&mut queue));
        queue.flush(99).unwrap();
        let flushed = queue.wait().unwrap().expect("the flush");
        assert!(flushed.result.is_ok() && flushed.user_data == 99 && flushed.buffer.is_none());
        assert_eq!(buffers.len(), 16, "{backend}");

        // Out of order, with memory of all kinds.
        let mut expected = HashSet::new();
        for (index, block) in [200_u64, 0, 17, 255, 3].into_iter().enumerate() {
            let buffer = match index % 2 {
                0 => device.aligned_buffer(BLOCK).unwrap(),
                _ => AlignedBuffer::new(BLOCK, device.alignment()).unwrap(),
            };
            queue.read(block, buffer, block).unwrap();
            assert!(expected.insert(block));
        }
        queue.submit().unwrap();
        while !expected.is_empty() {
            let completed = queue.wait().unwrap().expect("in flight");
            completed.result.unwrap();
            assert!(expected.remove(&completed.user_data));
            let at = completed.user_data as usize * BLOCK;
            assert_eq!(*completed.buffer.unwrap(), data[at..][..BLOCK], "{backend} {direct}");
        }
        assert!(queue.wait().unwrap().is_none() && queue.poll().is_none());
        let stats = device.stats();
        assert_eq!((stats.in_flight, stats.reads, stats.writes, stats.flushes), (0, 5, 128, 1));
        assert_eq!(
            (stats.bytes_written, stats.bounces, stats.failures),
            (256 * BLOCK as u64, 0, 0),
            "nothing is copied"
        );
        drop(queue);
        assert_eq!(std::fs::read(directory.path().join(format!("{backend}-{direct}"))).unwrap(), data);
    }
}

#[test]
fn a_queue_tells_mistakes_and_gives_the_buffer_back() {
    let directory = common::directory();
    for backend in backends() {
        let device = device(&directory, backend, true);
        assert_eq!(device.queue(0, BLOCK).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(device.queue(4097, BLOCK).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(device.queue(1, 1000).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(device.queue(1, 0).unwrap_err().kind(), ErrorKind::InvalidInput);
        let mut queue = device.queue(2, BLOCK).unwrap();
        let refused = queue.read(256, queue.buffer().unwrap(), 1).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::OutOfRange);
        let buffer = refused.into_buffer().expect("given back");
        let shifted = (0..64)
            .map(|_| AlignedBuffer::new(BLOCK, 1).unwrap())
            .find(|buffer| buffer.as_ptr().addr() % device.alignment() != 0);
        if let Some(shifted) = shifted {
            let refused = queue.write(0, shifted, 1).unwrap_err();
            assert_eq!(refused.error().kind(), ErrorKind::Misaligned);
            assert!(refused.to_string().contains("aligned_buffer"), "{refused}");
        }
        queue.read(0, buffer, 1).unwrap();
        queue.flush(2).unwrap();
        assert_eq!(queue.in_flight(), queue.depth());
        let refused = queue.read(0, device.aligned_buffer(BLOCK).unwrap(), 3).unwrap_err();
        assert_eq!((refused.error().kind(), refused.into_buffer().is_some()), (ErrorKind::Full, true));
        assert_eq!(queue.flush(3).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(take_all(&mut queue).len(), 1);
        drop((queue, device));

        let path = directory.path().join(format!("{backend}-true"));
        let device = block::open(&path, &Options::new().backend(backend).read_only(true)).unwrap();
        let mut queue = device.queue(4, BLOCK).unwrap();
        let refused = queue.write(0, queue.buffer().unwrap(), 0).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::ReadOnly);
        queue.flush(5).unwrap();
        assert!(queue.poll().is_some_and(|completed| completed.user_data == 5 && completed.result.is_ok()));
        // The file ends before the device does.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(100 * BLOCK as u64).unwrap();
        queue.read(99, queue.buffer().unwrap(), 0).unwrap();
        queue.read(100, queue.buffer().unwrap(), 1).unwrap();
        for _ in 0..2 {
            let completed = queue.wait().unwrap().expect("in flight");
            assert!(completed.buffer.is_some());
            match completed.user_data {
                0 => completed.result.unwrap(),
                _ => assert_eq!(completed.result.unwrap_err().kind(), ErrorKind::EndOfDevice),
            }
        }
        assert_eq!((device.stats().failures, device.stats().in_flight), (1, 0));
        file.set_len(256 * BLOCK as u64).unwrap();
    }
}

#[test]
fn an_event_loop_hears_of_what_ended() {
    let directory = common::directory();
    for (backend, direct) in backends().into_iter().flat_map(|backend| [(backend, true), (backend, false)]) {
        let device = device(&directory, backend, direct);
        let mut queue = device.queue(8, BLOCK).unwrap();
        let descriptor = queue.completion_fd().unwrap().as_raw_fd();
        assert_eq!(queue.completion_fd().unwrap().as_raw_fd(), descriptor, "made once");
        assert!(queue.poll().is_none());
        for round in 0..50_u64 {
            for block in 0..1 + round % 8 {
                queue.read(block, queue.buffer().unwrap(), block).unwrap();
            }
            queue.submit().unwrap();
            while queue.in_flight() > 0 {
                assert!(common::is_readable(descriptor, 10_000), "{backend} {direct}: nobody told");
                while let Some(completed) = queue.poll() {
                    completed.result.unwrap();
                }
            }
            assert!(queue.poll().is_none());
        }
        // Nothing is left that would wake a loop for ever.
        queue.read(0, queue.buffer().unwrap(), 0).unwrap();
        queue.submit_and_wait(1).unwrap();
        while queue.in_flight() > 0 {
            queue.poll();
        }
        queue.flush(0).unwrap();
        take_all(&mut queue);
        // It may be told of what was taken already; once, and not for ever.
        let stray = (0..).take_while(|_| common::is_readable(descriptor, 1) && queue.poll().is_none()).take(10).count();
        assert!(stray < 3, "{stray} times");
    }
}

#[test]
fn a_wait_ends_when_its_time_is_over() {
    let directory = common::directory();
    for backend in backends() {
        let device = device(&directory, backend, true);
        let mut queue = device.queue(4, BLOCK).unwrap();
        // Nothing is in flight: there is nothing to wait for.
        queue.submit_and_wait_timeout(4, Duration::from_secs(3600)).unwrap();
        queue.read(1, queue.buffer().unwrap(), 0).unwrap();
        queue.submit_and_wait_timeout(4, Duration::MAX).unwrap();
        assert!(queue.poll().is_some());
        for _ in 0..1000 {
            queue.read(1, queue.buffer().unwrap(), 0).unwrap();
            queue.submit_and_wait_timeout(1, Duration::from_nanos(1)).unwrap();
            take_all(&mut queue);
        }
    }
}

#[test]
fn a_queue_that_goes_gives_up_what_it_has() {
    let directory = common::directory();
    for backend in backends() {
        let device = device(&directory, backend, true);
        for round in 0..50 {
            let mut queue = device.queue(32, 16 * BLOCK).unwrap();
            for index in 0..32 {
                let buffer = queue.buffer().unwrap();
                match round % 2 {
                    0 => queue.read(index, buffer, index).unwrap(),
                    _ => queue.write(index, buffer, index).unwrap(),
                }
            }
            if round % 3 != 0 {
                queue.submit().unwrap();
            }
            if round % 5 == 0 {
                // Buffers that outlive their queue.
                let kept = queue.wait().unwrap().unwrap().buffer;
                drop(queue);
                assert!(kept.unwrap().iter().all(|byte| *byte == 0), "nothing but zeroes was ever on the device");
            }
        }
        assert_eq!(device.stats().in_flight, 0);
        let mut block = vec![1; BLOCK];
        device.read_block(0, &mut block).unwrap();
        // A queue holds the device open.
        let mut queue = device.queue(1, BLOCK).unwrap();
        let path = directory.path().join(format!("{backend}-true"));
        drop(device);
        assert_eq!(block::open(&path, &Options::new()).unwrap_err().kind(), ErrorKind::Busy);
        queue.read(0, queue.buffer().unwrap(), 0).unwrap();
        take_all(&mut queue);
        drop(queue);
        // So do threads that are at something that was given up.
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(error) = block::open(&path, &Options::new()) {
            assert!(error.kind() == ErrorKind::Busy && Instant::now() < end, "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn what_ended_is_to_be_had_though_something_was_started_and_not_submitted() {
    let directory = common::directory();
    for (backend, direct) in backends().into_iter().flat_map(|backend| [(backend, true), (backend, false)]) {
        let path = directory.path().join(format!("{backend}-{direct}"));
        std::fs::write(path, pattern(7, 256 * BLOCK)).unwrap();
        let device = device(&directory, backend, direct);
        let mut queue = device.queue(2, BLOCK).unwrap();
        let buffers = [queue.buffer().unwrap(), queue.buffer().unwrap()];
        let [first, second] = buffers;
        queue.read(1, first, 1).unwrap();
        queue.submit().unwrap();
        queue.read(2, second, 2).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let ended = loop {
            assert!(Instant::now() < end, "{backend} {direct}: it does not come by polling");
            if let Some(completed) = queue.poll() {
                break completed;
            }
        };
        assert_eq!(ended.user_data, 1, "{backend} {direct}: nothing else was submitted");
        assert_eq!(queue.wait().unwrap().expect("the other one").user_data, 2);
    }
}

#[test]
fn a_queue_has_as_many_buffers_as_it_is_deep() {
    let directory = common::directory();
    for backend in backends() {
        let device = device(&directory, backend, true);
        let mut queue = device.queue(8, BLOCK).unwrap();
        let all = |queue: &Queue| -> Vec<AlignedBuffer> { std::iter::from_fn(|| queue.buffer()).take(100).collect() };
        let mut buffers = all(&queue);
        assert_eq!(buffers.len(), 8, "{backend}");
        queue.read(0, buffers.pop().unwrap(), 0).unwrap();
        assert!(queue.buffer().is_none(), "{backend}: it is in flight");
        drop(queue.wait().unwrap().expect("in flight"));
        assert_eq!(all(&queue).len(), 1, "{backend}: back again");
        drop(buffers);
        // What can't be had is no reason to go without a ring.
        for size in [(1 << 30) + BLOCK, 1 << 40, usize::MAX - BLOCK + 1] {
            assert_eq!(device.queue(1, size).unwrap_err().kind(), ErrorKind::InvalidInput, "{backend} {size}");
        }
        assert!(device.report().degraded.is_empty());
    }
}

#[test]
fn an_event_loop_that_takes_one_at_a_time_hears_of_all() {
    let directory = common::directory();
    for (backend, direct) in backends().into_iter().flat_map(|backend| [(backend, true), (backend, false)]) {
        let device = device(&directory, backend, direct);
        let mut queue = device.queue(8, BLOCK).unwrap();
        let descriptor = queue.completion_fd().unwrap().as_raw_fd();
        for _ in 0..1000 {
            for block in 0..8 {
                queue.read(block, queue.buffer().unwrap(), block).unwrap();
            }
            queue.submit().unwrap();
            while queue.in_flight() > 0 {
                assert!(
                    common::is_readable(descriptor, 10_000),
                    "{backend} {direct}: nobody told of {}",
                    queue.in_flight()
                );
                if let Some(completed) = queue.poll() {
                    completed.result.unwrap();
                }
            }
        }
        drop((queue, device));
        // Where there is nothing to flush, that it has ended is told as well; and it took no time.
        let path = directory.path().join(format!("{backend}-{direct}"));
        let options = Options::new().backend(backend).direct(direct).read_only(true).measure_latency(true);
        let device = block::open(path, &options).unwrap();
        let mut queue = device.queue(8, BLOCK).unwrap();
        let descriptor = queue.completion_fd().unwrap().as_raw_fd();
        assert!(queue.poll().is_none() && !common::is_readable(descriptor, 0));
        std::thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        queue.flush(5).unwrap();
        queue.submit().unwrap();
        assert!(common::is_readable(descriptor, 10_000), "{backend}: nobody told of a flush");
        assert_eq!(queue.poll().map(|completed| completed.user_data), Some(5));
        let took = device.latency().unwrap().flushes.percentile(100.0);
        assert!(took <= begun.elapsed() * 5 / 4 + Duration::from_nanos(5), "{backend}: {took:?}");
    }
}
