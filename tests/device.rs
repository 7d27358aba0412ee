//! The block device, on every backend that this machine has.
//!
//! Defects that such devices have had, and the tests that would notice each. Paths without `uring::` are below this module.
//!
//! | defect | tests |
//! |---|---|
//! | functions that the installed library does not export | `blocks_runs_and_batches_round_trip` |
//! | the ring is copied, and the copy used: the second transfer hangs | `blocks_runs_and_batches_round_trip` |
//! | buffers are registered on one ring and used on all | `uring::threads::more_threads_than_rings_read_and_write_one_device` |
//! | that buffers could not be registered is ignored | `ladder::no_locked_memory_is_buffers_that_are_not_registered` |
//! | numbers and layouts of the interface are wrong, or of one architecture | `every_block_size_works_buffered_and_direct`, `odd_options_work_or_are_reported`; the bindings' own tests |
//! | a short transfer is taken for a whole one: stale data, lost writes | `a_truncated_target_is_an_error_and_no_stale_data`; `src/block/faults` |
//! | completions are not told apart: after an error others get what was left over | `defects::after_an_error_in_a_batch_every_answer_is_its_own`; `src/block/faults` |
//! | a signal is a failure, with transfers in flight | `defects::signals_end_no_transfer`, `faults::a_storm_of_signals_ends_nothing_on_own_rings_and_shared_ones` |
//! | a full queue or a short submit leaves entries for later | `odd_options_work_or_are_reported` (queues of 1 and 4096), `kill`; `src/block/faults` |
//! | a batch longer than the queue waits for itself; two wait for each other | `blocks_runs_and_batches_round_trip`, `defects::threads_share_a_device_whatever_its_backend` |
//! | batches are not checked, or only afterwards | `mistakes_are_told_and_lose_nothing` |
//! | a flush does nothing | `operations::flush_fua_and_barrier_reach_the_disk_and_a_write_alone_does_not` |
//! | closing leaves rings, descriptors, pinned memory | `threads::a_thousand_opens_and_closes_leave_nothing_behind`, `uring::process::a_closed_device_leaves_no_memory_pinned` |
//! | rings of threads that ended stay, and count | `threads::ten_thousand_short_threads_leave_nothing_behind`, `threads::many_threads_use_many_devices` |
//! | a lock is held across a wait | `uring::shared::a_thread_that_waits_long_holds_nobody_up` |
//! | a library that is there is taken for io_uring that works | `ladder::no_ring_is_pread`, `uring::process` |
//! | no way out where O_DIRECT is refused | `ladder::no_direct_is_the_page_cache` |
//! | the file is not created, not measured, not locked, and inherited | `opening_tells_what_is_wrong`, `a_device_is_exclusive_until_it_is_closed_and_free_at_once_after`, `defects::no_descriptor_outlives_an_exec_or_a_failed_open` |
//! | a failed open leaks | `defects::no_descriptor_outlives_an_exec_or_a_failed_open` |
//! | block sizes that the target can't have; offsets that overflow | `geometry::disks_tell_their_sectors_and_take_every_block_size_from_there`, `geometry::files_as_large_as_they_can_be_have_a_last_block` |
//! | an error has no place, no operation and no number | `mistakes_are_told_and_lose_nothing`, the tests of `Error` |
//! | everything is copied | `operations::what_is_done_is_counted_and_what_has_ended_is_not_in_flight` |
//! | the fallback opens the file for each transfer, and not for two at once | `defects::threads_share_a_device_whatever_its_backend`, `defects::no_descriptor_outlives_an_exec_or_a_failed_open` |
//! | options that nothing uses | `ladder` |
//! | no time limits, no cancellation | `futures::what_does_not_end_in_time_is_given_up`, `futures::a_future_may_be_dropped_at_any_time`, `queue::a_wait_ends_when_its_time_is_over`, `queue::a_queue_that_goes_gives_up_what_it_has` |
//! | no descriptor that tells an event loop of completions | `queue::an_event_loop_hears_of_what_ended`, `futures::reactor` |
//! | no vectored transfers, discard, zeroes, durable writes, resize, statistics | `operations` |
//!
//! Commands passed through to NVMe: `tests/nvme`. Not here yet, and so not tested: that kernel threads of several rings
//! (`Options::sqpoll`) are one.

#[cfg(target_os = "linux")]
mod defects;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod fork;
#[cfg(target_os = "linux")]
mod futures;
#[cfg(target_os = "linux")]
mod geometry;
#[cfg(target_os = "linux")]
mod kill;
#[cfg(target_os = "linux")]
mod ladder;
#[cfg(target_os = "linux")]
mod operations;
#[cfg(target_os = "linux")]
mod queue;
#[cfg(target_os = "linux")]
mod threads;

use std::io::ErrorKind as IoErrorKind;
#[cfg(unix)]
use std::os::unix::fs::symlink;
use std::path::Path;
#[cfg(unix)]
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
};

use sysuring::ErrorKind;
use sysuring::block::{self, Backend, BlockDevice, Device, Options, ReadRequest, WriteRequest};

use crate::common::{self, backends, pattern};

fn create(path: &Path, backend: Backend, blocks: u64) -> Device {
    let _ = std::fs::remove_file(path);
    let options = Options::new().backend(backend).create(blocks * 4096).queue_depth(8);
    let device = block::open(path, &options).unwrap();
    assert_eq!(device.backend(), backend);
    device
}

#[test]
fn blocks_runs_and_batches_round_trip() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 600);
        let data = pattern(1, 600 * 4096);
        assert_eq!((device.block_count(), device.block_size(), device.max_batch()), (600, 4096, 8));

        // Unaligned on purpose: one byte into the allocation.
        let mut shifted = vec![0; 4097];
        shifted[1..].copy_from_slice(&data[..4096]);
        device.write_block(0, &shifted[1..]).unwrap();
        device.write_run(1, &data[4096..20 * 4096]).unwrap();
        // Longer than the queue is deep, in an order of its own, runs of several blocks among them.
        let mut requests: Vec<WriteRequest> = (20..600_usize)
            .step_by(4)
            .rev()
            .map(|block| WriteRequest::new(block as u64, &data[block * 4096..][..4 * 4096]))
            .collect();
        device.write_blocks(&mut requests).unwrap();
        assert!(requests.iter().all(|request| matches!(request.result(), Some(Ok(())))));
        device.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), data, "{backend}");

        device.read_block(0, &mut shifted[1..]).unwrap();
        assert_eq!(shifted[1..], data[..4096]);
        let mut all = vec![0; 600 * 4096];
        device.read_run(0, &mut all).unwrap();
        assert_eq!(all, data, "{backend}");
        all.fill(0);
        let mut requests: Vec<ReadRequest> = all
            .chunks_mut(3 * 4096)
            .enumerate()
            .map(|(index, buffer)| ReadRequest::new(index as u64 * 3, buffer))
            .collect();
        device.read_blocks(&mut requests).unwrap();
        assert_eq!(all, data, "{backend}");

        let mut aligned = device.aligned_buffer(4096).unwrap();
        device.read_block(599, &mut aligned).unwrap();
        assert_eq!(*aligned, data[599 * 4096..]);
        let mut aligned = device.aligned_buffer(3 << 20).map(|_| device.aligned_buffer(100 * 4096)).unwrap().unwrap();
        assert_eq!(aligned.as_ptr().addr() % device.alignment(), 0);
        device.read_run(100, &mut aligned).unwrap();
        assert_eq!(*aligned, data[100 * 4096..200 * 4096]);
        device.close().unwrap();
    }
}

#[test]
fn every_block_size_works_buffered_and_direct() {
    let directory = common::directory();
    for backend in backends() {
        for direct in [true, false] {
            for block_size in [512, 1024, 4096, 65536] {
                let path = directory.path().join(format!("{backend}-{direct}-{block_size}"));
                let size = u64::from(block_size) * 16;
                let options = Options::new().backend(backend).block_size(block_size).create(size).direct(direct);
                let device = block::open(&path, &options).unwrap();
                let data = pattern(block_size.into(), size as usize);
                device.write_run(0, &data).unwrap();
                let mut back = vec![0; size as usize + 3];
                device.read_run(0, &mut back[3..]).unwrap();
                assert_eq!(back[3..], data, "{backend} {direct} {block_size}");
                assert!(direct || !device.report().direct);
            }
        }
    }
}

#[test]
fn mistakes_are_told_and_lose_nothing() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 10);
        device.write_block(9, &[9; 4096]).unwrap();
        let mut buffer = vec![0; 8192];
        for (error, kind, words) in [
            (device.read_block(0, &mut buffer), ErrorKind::InvalidInput, "8192"),
            (device.write_block(0, &buffer[..100]), ErrorKind::InvalidInput, "100"),
            (device.read_run(0, &mut buffer[..4097]), ErrorKind::InvalidInput, "4097"),
            (device.read_run(0, &mut []), ErrorKind::InvalidInput, "no bytes"),
            (device.read_block(10, &mut buffer[..4096]), ErrorKind::OutOfRange, "block 10"),
            (device.read_run(9, &mut buffer), ErrorKind::OutOfRange, "block 9"),
            (device.write_run(u64::MAX, &buffer), ErrorKind::OutOfRange, "0 to 9"),
            (device.write_block(1 << 61, &buffer[..4096]), ErrorKind::OutOfRange, "0 to 9"),
        ] {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        // In a batch the others are carried out.
        let (mut first, mut second, mut third) = (vec![0; 4096], vec![0; 4096], vec![0; 4096]);
        let mut requests =
            [ReadRequest::new(9, &mut first), ReadRequest::new(10, &mut second), ReadRequest::new(9, &mut third)];
        let error = device.read_blocks(&mut requests).unwrap_err();
        assert_eq!((error.completed(), error.error().kind()), (1, ErrorKind::OutOfRange));
        assert!(requests[1].result().unwrap().is_err() && requests[2].result().unwrap().is_ok());
        assert!(first.iter().chain(&third).all(|byte| *byte == 9));
        device.read_blocks(&mut []).unwrap();
        assert_eq!(device.aligned_buffer(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn what_is_told_is_of_the_blocks_that_were_asked_for() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let mut block = [0; 4096];
        let device = create(&path, backend, 1);
        let told = device.read_run(1, &mut block).unwrap_err().to_string();
        assert!(told.starts_with("read of 1 block from block 1 on: ") && told.ends_with("has block 0 only"), "{told}");
        let told = device.read_vectored(5, &mut []).unwrap_err().to_string();
        assert!(told.starts_with("read of block 5 "), "{told}");
        let told = device.write_vectored(6, &[]).unwrap_err().to_string();
        assert!(told.starts_with("write of block 6 "), "{told}");
        assert!(!device.report().to_string().contains("nothing"), "{}", device.report());
        drop(device);

        let device = block::open(&path, &Options::new().backend(backend).read_only(true)).unwrap();
        let told = device.resize(2).unwrap_err().to_string();
        assert_eq!(told, format!("resize of {}: opened for reading only", path.display()));
        drop(device);

        std::fs::write(&path, "").unwrap();
        let device = block::open(&path, &Options::new().backend(backend)).unwrap();
        let told = device.read_block(0, &mut block).unwrap_err().to_string();
        assert!(told.ends_with("disk has no blocks"), "{told}");
    }
}

#[test]
fn opening_tells_what_is_wrong() {
    let directory = common::directory();
    let missing = directory.path().join("missing");
    let path = directory.path().join("disk");
    std::fs::write(&path, vec![0; 10_000]).unwrap();
    for backend in backends() {
        let options = || Options::new().backend(backend);
        for (target, options, kind, words) in [
            (&*missing, options(), ErrorKind::NotFound, "missing"),
            (directory.path(), options(), ErrorKind::InvalidInput, "is a directory"),
            (Path::new("/dev/null"), options(), ErrorKind::InvalidInput, "has no blocks"),
            (&*path, options(), ErrorKind::InvalidInput, "multiple"),
            (&*path, options().create(4096), ErrorKind::AlreadyExists, "10000 bytes"),
            (&*path, options().block_size(1000), ErrorKind::InvalidInput, "power of two"),
            (&*path, options().block_size(256), ErrorKind::InvalidInput, "512"),
            (&*path, options().block_size(1 << 17), ErrorKind::InvalidInput, "65536"),
            (&*path, options().queue_depth(0), ErrorKind::InvalidInput, "queue depth 0"),
            (&*path, options().queue_depth(5000), ErrorKind::InvalidInput, "4096"),
            (&*missing, options().create(5000), ErrorKind::InvalidInput, "5000"),
            (&*missing, options().create(1 << 63), ErrorKind::InvalidInput, "no file can have as many bytes"),
            (&*path, options().pool_size(usize::MAX), ErrorKind::InvalidInput, "pool size"),
            (&*path, options().iopoll(true).direct(false), ErrorKind::InvalidInput, "O_DIRECT"),
        ] {
            let error = block::open(target, &options).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(!missing.exists(), "a failed open leaves nothing behind");
        let device = block::open(&path, &options().whole_blocks(true)).unwrap();
        assert_eq!(device.block_count(), 2);
    }
}

#[cfg(unix)]
#[test]
fn a_device_is_exclusive_until_it_is_closed_and_free_at_once_after() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    for backend in backends() {
        let options = Options::new().backend(backend).queue_depth(4);
        drop(create(&path, backend, 8));
        for lap in 0..1000 {
            let device = block::open(&path, &options).unwrap_or_else(|error| panic!("lap {lap}: {error}"));
            device.write_block(lap % 8, &[lap as u8; 4096]).unwrap();
            if lap % 100 == 0 {
                let error = block::open(&link, &options).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Busy);
                assert!(error.to_string().contains("in use"), "{error}");
                assert_eq!(block::open(&path, &options.clone().read_only(true)).unwrap_err().kind(), ErrorKind::Busy);
                block::open(&path, &options.clone().exclusive(false)).unwrap();
            }
            device.close().unwrap();
        }
        // Readers share.
        let reader = options.clone().read_only(true);
        let (one, two) = (block::open(&path, &reader).unwrap(), block::open(&path, &reader).unwrap());
        let mut block = vec![0; 4096];
        one.read_block(0, &mut block).unwrap();
        let error = two.write_block(0, &block).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly);
        two.flush().unwrap();
        assert_eq!(block::open(&path, &options).unwrap_err().kind(), ErrorKind::Busy);
    }
}

/// Also where a write that was dropped may still be under way, which must not come after whatever the next one writes.
#[cfg(unix)]
#[test]
fn a_device_is_free_when_it_was_closed_whatever_was_dropped_before() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let options = Options::new().backend(backend).queue_depth(8);
        drop(create(&path, backend, 1024));
        for lap in 0..60 {
            let device = block::open(&path, &options).unwrap_or_else(|error| panic!("{backend}, lap {lap}: {error}"));
            let mut context = Context::from_waker(Waker::noop());
            let mut futures: Vec<_> = (0..16)
                .map(|run| {
                    let buffer = device.aligned_buffer(64 * 4096).unwrap();
                    if lap % 2 == 0 {
                        device.write_async(run * 64, buffer)
                    } else {
                        device.read_async(run * 64, buffer)
                    }
                })
                .collect();
            for future in &mut futures {
                let _ = Pin::new(future).poll(&mut context);
            }
            let mut queue = device.queue(8, 64 * 4096).unwrap();
            while let Some(buffer) = queue.buffer() {
                queue.read(0, buffer, 0).unwrap();
            }
            queue.submit().unwrap();
            drop((queue, futures));
            device.close().unwrap();
        }

        let device = block::open(&path, &options).unwrap();
        let mut queue = device.queue(2, 4096).unwrap();
        let buffer = queue.buffer().unwrap();
        queue.read(0, buffer, 0).unwrap();
        queue.submit().unwrap();
        let error = device.close().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert_eq!(block::open(&path, &options).unwrap_err().kind(), ErrorKind::Busy);
        queue.wait().unwrap().expect("it goes on").result.unwrap();
        drop(queue);

        let device = block::open(&path, &options).unwrap();
        let future = device.flush_async();
        let error = device.close().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        drop(future);
        block::open(&path, &options).unwrap().close().unwrap();
    }
}

#[test]
fn a_truncated_target_is_an_error_and_no_stale_data() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 16);
        device.write_run(0, &[7; 16 * 4096]).unwrap();
        device.flush().unwrap();
        for length in [4 * 4096, 4 * 4096 + 512, 4 * 4096 + 100] {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_len(length).unwrap();
            let mut buffer = vec![0xee; 8 * 4096];
            let error = device.read_run(2, &mut buffer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::EndOfDevice, "{backend} {length}: {error}");
            assert!(error.to_string().contains("truncated"), "{error}");
            // Aligned, so that it is one transfer, which is short; and the block that is there in part only.
            let mut aligned = device.aligned_buffer(8 * 4096).unwrap();
            assert_eq!(
                device.read_run(2, &mut aligned).unwrap_err().kind(),
                ErrorKind::EndOfDevice,
                "{backend} {length}"
            );
            for memory in [&mut aligned[..4096], &mut buffer[..4096]] {
                assert_eq!(
                    device.read_block(4, memory).unwrap_err().kind(),
                    ErrorKind::EndOfDevice,
                    "{backend} {length}"
                );
            }
            assert_eq!(device.read_block(9, &mut buffer[..4096]).unwrap_err().kind(), ErrorKind::EndOfDevice);
            device.read_block(3, &mut buffer[..4096]).unwrap();
            assert!(buffer[..4096].iter().all(|byte| *byte == 7));
        }
        let error = std::io::Error::from(device.read_block(9, &mut [0; 4096]).unwrap_err());
        assert_eq!(error.kind(), IoErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_forbidden_fallback_is_an_error_with_the_reason() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    let options = Options::new().backend(Backend::Uring).create(4096);
    match (sysuring::available(), block::open(&path, &options)) {
        (Ok(()), Ok(device)) => assert!(device.fallback_reason().is_none()),
        (Err(reason), Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert_eq!(error.to_string(), reason.to_string());
            assert_eq!(error.reason(), Some(&reason));
            assert!(std::error::Error::source(&error).is_none(), "a chain would say it twice");
        }
        (available, opened) => panic!("{available:?} but {opened:?}"),
    }
}

#[test]
fn odd_options_work_or_are_reported() {
    let directory = common::directory();
    for backend in backends() {
        for (name, options) in [
            ("iopoll", Options::new().iopoll(true)),
            ("sqpoll", Options::new().sqpoll(std::time::Duration::from_millis(10))),
            ("small pool", Options::new().pool_size(1)),
            ("deep", Options::new().queue_depth(4096)),
            ("depth 1", Options::new().queue_depth(1)),
        ] {
            let path = directory.path().join(format!("{backend}-{name}"));
            let device = block::open(&path, &options.backend(backend).create(100 * 4096)).unwrap();
            let data = pattern(5, 100 * 4096 + 1);
            let mut requests: Vec<WriteRequest> =
                data[1..].chunks(4096).enumerate().map(|(block, data)| WriteRequest::new(block as u64, data)).collect();
            device.write_blocks(&mut requests).unwrap();
            let mut back = vec![0; 100 * 4096 + 1];
            device.read_run(0, &mut back[1..]).unwrap();
            assert_eq!(back[1..], data[1..], "{backend} {name}");
            if backend == Backend::Uring && name == "iopoll" {
                // Where the disk can be polled it is; where not, that is said.
                println!("{}", device.report());
            }
        }
    }
}
