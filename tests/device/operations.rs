//! What a device can do beside reading and writing blocks, and what it says of what it can't.

use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::MetadataExt;

use sysuring::ErrorKind;
use sysuring::block::{self, Backend, BlockDevice, Options, ReadRequest, WriteRequest};

use super::create;
use crate::common::disk::Loop;
use crate::common::{self, backends, filter, pattern};

#[test]
fn vectored_runs_are_runs_in_pieces() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 16);
        let data = pattern(2, 7 * 4096);
        let (one, rest) = data.split_at(4096);
        let (two, three) = rest.split_at(4 * 4096);
        device.write_vectored(3, &[one, &[], two, three].map(IoSlice::new)).unwrap();
        assert!(std::fs::read(&path).unwrap()[3 * 4096..][..7 * 4096] == data);
        // In other pieces, one of them unaligned.
        let (mut first, mut second) = (vec![0; 2 * 4096], vec![0; 5 * 4096 + 1]);
        device.read_vectored(3, &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second[1..])]).unwrap();
        assert!(first == data[..2 * 4096] && second[1..] == data[2 * 4096..], "{backend}");

        let nothing: [IoSlice<'_>; 0] = [];
        for (first, slices, kind) in [
            (0, &nothing[..], ErrorKind::InvalidInput),
            (0, &[IoSlice::new(&data[..4096]), IoSlice::new(&data[..100])], ErrorKind::InvalidInput),
            (15, &[IoSlice::new(one), IoSlice::new(one)], ErrorKind::OutOfRange),
            (u64::MAX, &[IoSlice::new(one), IoSlice::new(one)], ErrorKind::OutOfRange),
        ] {
            assert_eq!(device.write_vectored(first, slices).unwrap_err().kind(), kind, "{backend}");
        }
        let after = std::fs::read(&path).unwrap();
        assert!(after[15 * 4096..].iter().all(|byte| *byte == 0), "nothing of what is refused is written");
    }
}

#[test]
fn flush_fua_and_barrier_reach_the_disk_and_a_write_alone_does_not() {
    // A child that another test forks would hold the disk, which is open exclusively.
    if !common::is_alone("device::operations::flush_fua_and_barrier_reach_the_disk_and_a_write_alone_does_not") {
        return;
    }
    let Some(disk) = Loop::new(8 << 20, 512) else { return };
    for backend in backends() {
        let device = block::open(&disk.path, &Options::new().backend(backend)).unwrap();
        let data = pattern(4, 4 * 4096);
        let flushed = |what: &dyn Fn()| {
            let before = disk.flushes();
            what();
            disk.flushes() - before
        };
        assert_eq!(flushed(&|| device.write_run(0, &data).unwrap()), 0, "{backend}");
        assert!(flushed(&|| device.flush().unwrap()) >= 1, "{backend}: O_DIRECT or not, a flush is one");
        assert!(flushed(&|| device.write_run_fua(8, &data).unwrap()) >= 1, "{backend}: FUA");
        let batch = |first| [WriteRequest::new(first, &data), WriteRequest::new(first + 4, &data)];
        assert!(flushed(&|| device.write_blocks_fua(&mut batch(16)).unwrap()) >= 1, "{backend}: FUA");
        assert!(flushed(&|| device.write_barrier(&mut batch(32)).unwrap()) >= 1, "{backend}: barrier");
        // One by itself is linked with its flush.
        let mut one = [WriteRequest::new(48, &data)];
        assert!(flushed(&|| device.write_barrier(&mut [WriteRequest::new(40, &data)]).unwrap()) >= 1, "{backend}");
        assert!(flushed(&|| device.write_barrier(&mut [WriteRequest::new(44, &data)]).unwrap()) >= 1, "{backend}");
        device.write_barrier(&mut one).unwrap();
        assert!(one[0].result().is_some_and(|result| result.is_ok()));
        let mut back = vec![0; 4 * 4096];
        for first in [0, 8, 16, 20, 32, 36, 40, 44, 48] {
            device.read_run(first, &mut back).unwrap();
            assert!(back == data, "{backend} {first}");
        }
        // Unaligned memory too, in a batch that is longer than the queue.
        let long = pattern(5, 200 * 4096 + 1);
        let pieces = long[1..].chunks(4096).enumerate();
        let mut requests: Vec<_> = pieces.map(|(block, data)| WriteRequest::new(block as u64, data)).collect();
        device.write_blocks_fua(&mut requests).unwrap();
        let mut back = vec![0; 200 * 4096];
        device.read_run(0, &mut back).unwrap();
        assert!(back == long[1..], "{backend}");
        // A barrier that fails flushes nothing.
        let mut bad = [WriteRequest::new(0, &data), WriteRequest::new(1 << 40, &data)];
        let before = disk.flushes();
        assert_eq!(device.write_barrier(&mut bad).unwrap_err().completed(), 1);
        assert_eq!(disk.flushes(), before, "{backend}");
    }
}

#[test]
fn discard_gives_storage_back() {
    // A child that another test forks would hold the disk, which is open exclusively.
    if !common::is_alone("device::operations::discard_gives_storage_back") {
        return;
    }
    let directory = common::directory();
    let path = directory.path().join("disk");
    let disk = Loop::new(4 << 20, 512);
    for backend in backends() {
        let targets = [Some((&path, &path)), disk.as_ref().map(|disk| (&disk.path, &disk.file))];
        for (target, below) in targets.into_iter().flatten() {
            if target == &path {
                let _ = std::fs::remove_file(target);
            }
            let device = block::open(target, &Options::new().backend(backend).create(4 << 20)).unwrap();
            if !device.capabilities().discard {
                assert_eq!(device.discard(0, 1).unwrap_err().kind(), ErrorKind::Unsupported);
                common::skip(format_args!("{} can't discard", target.display()));
                continue;
            }
            device.write_run(0, &pattern(1, 4 << 20)).unwrap();
            device.flush().unwrap();
            let blocks = || below.metadata().unwrap().blocks();
            let full = blocks();
            device.discard(256, 512).unwrap();
            device.flush().unwrap();
            let left = blocks();
            assert!(full >= 8192 && left <= full - 4000, "{full} blocks, and {left} after");
            device.discard(1, 0).unwrap();
            let mut back = vec![0; 4096];
            device.read_block(255, &mut back).unwrap();
            assert!(back == pattern(1, 4 << 20)[255 * 4096..][..4096], "what is beside it stays");
            assert_eq!(device.discard(1023, 2).unwrap_err().kind(), ErrorKind::OutOfRange);
        }
    }
}

/// With the system calls that do the same taken away from the thread.
#[test]
fn a_disk_is_told_to_discard_through_the_ring() {
    if !common::is_alone("device::operations::a_disk_is_told_to_discard_through_the_ring") {
        return;
    }
    let Some(disk) = Loop::new(4 << 20, 512) else { return };
    if !backends().contains(&Backend::Uring) {
        return;
    }
    let device = block::open(&disk.path, &Options::new().backend(Backend::Uring)).unwrap();
    if !device.capabilities().discard {
        return common::skip(format_args!("{} can't discard", disk.path.display()));
    }
    device.write_run(0, &pattern(1, 4 << 20)).unwrap();
    device.flush().unwrap();
    let blocks = || disk.file.metadata().unwrap().blocks();
    let full = blocks();
    let discard = || {
        filter::deny(&[libc::SYS_fallocate, libc::SYS_ioctl], libc::EOPNOTSUPP);
        device.discard(256, 512)
    };
    match std::thread::scope(|scope| scope.spawn(discard).join().unwrap()) {
        Err(error) if !common::is_kernel(6, 12) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            return common::skip("disks have no such command before Linux 6.12");
        }
        done => done.unwrap(),
    }
    device.flush().unwrap();
    let left = blocks();
    assert!(full >= 8192 && left <= full - 4000, "{full} blocks, and {left} after");
    let mut back = vec![0; 4096];
    for beside in [255, 768] {
        device.read_block(beside, &mut back).unwrap();
        assert!(back == pattern(1, 4 << 20)[beside as usize * 4096..][..4096], "what is beside it stays");
    }
    assert_eq!(device.stats().in_flight, 0);
}

#[test]
fn zeroes_are_written_whatever_the_target_can_do() {
    // A child that another test forks would hold the disk, which is open exclusively.
    if !common::is_alone("device::operations::zeroes_are_written_whatever_the_target_can_do") {
        return;
    }
    let directory = common::directory();
    let shared_memory = tempfile::tempdir_in("/dev/shm").ok();
    let disk = Loop::new(4 << 20, 512);
    let mut targets = vec![directory.path().join("disk")];
    targets.extend(shared_memory.as_ref().map(|directory| directory.path().join("disk")));
    targets.extend(disk.as_ref().map(|disk| disk.path.clone()));
    for backend in backends() {
        for target in &targets {
            let device = block::open(target, &Options::new().backend(backend).create(4 << 20)).unwrap();
            // Twice, since what is refused once is not asked for again.
            for lap in 0..2 {
                let data = pattern(lap, 4 << 20);
                device.write_run(0, &data).unwrap();
                device.write_zeroes(3, 700).unwrap();
                device.write_zeroes(1000, 0).unwrap();
                let mut back = vec![1; 4 << 20];
                device.read_run(0, &mut back).unwrap();
                let zeroes = &back[3 * 4096..703 * 4096];
                assert!(zeroes.iter().all(|byte| *byte == 0), "{} {backend}", target.display());
                assert!(back[..3 * 4096] == data[..3 * 4096] && back[703 * 4096..] == data[703 * 4096..]);
            }
            assert_eq!(device.write_zeroes(1024, 1).unwrap_err().kind(), ErrorKind::OutOfRange);
            assert_eq!(device.stats().in_flight, 0);
        }
    }
}

/// On a kernel and a file system without any of that.
#[test]
fn what_a_target_cannot_do_is_known_before() {
    if !common::is_alone("device::operations::what_a_target_cannot_do_is_known_before") {
        return;
    }
    filter::deny(&[libc::SYS_fallocate], libc::EOPNOTSUPP);
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 16);
        assert!(!device.capabilities().discard && device.capabilities().write);
        assert!(device.report().to_string().contains("cannot discard"), "{}", device.report());
        let error = device.discard(0, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("Capabilities::discard"), "{error}");
        device.write_run(0, &[7; 16 * 4096]).unwrap();
        device.write_zeroes(2, 3).unwrap();
        let mut back = vec![0; 16 * 4096];
        device.read_run(0, &mut back).unwrap();
        assert!(back.iter().enumerate().all(|(at, byte)| *byte == if (2..5).contains(&(at / 4096)) { 0 } else { 7 }));
    }
}

#[test]
fn a_reader_changes_nothing() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        create(&path, backend, 4).write_run(0, &[3; 4 * 4096]).unwrap();
        let device = block::open(&path, &Options::new().backend(backend).read_only(true)).unwrap();
        let able = device.capabilities();
        assert!(!able.write && !able.discard && !able.resize);
        let mut requests = [WriteRequest::new(0, &[0; 4096])];
        for error in [
            device.write_block(0, &[0; 4096]),
            device.write_run_fua(0, &[0; 4096]),
            device.write_vectored(0, &[IoSlice::new(&[0; 4096])]),
            device.write_blocks(&mut requests).map_err(Into::into),
            device.write_blocks_fua(&mut requests).map_err(Into::into),
            device.write_barrier(&mut requests).map_err(Into::into),
            device.discard(0, 1),
            device.write_zeroes(0, 1),
            device.resize(1),
        ] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::ReadOnly, "{backend}");
        }
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 3));
    }
}

#[test]
fn a_device_grows_and_shrinks_and_sees_others_do_so() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 8);
        device.write_run(0, &[9; 8 * 4096]).unwrap();
        device.resize(16).unwrap();
        assert_eq!((device.block_count(), path.metadata().unwrap().len()), (16, 16 * 4096));
        let mut back = vec![1; 4096];
        device.read_block(15, &mut back).unwrap();
        assert!(back.iter().all(|byte| *byte == 0));
        device.write_block(15, &[8; 4096]).unwrap();
        device.resize(4).unwrap();
        assert_eq!(device.read_block(4, &mut back).unwrap_err().kind(), ErrorKind::OutOfRange);
        device.read_block(3, &mut back).unwrap();
        assert!(back.iter().all(|byte| *byte == 9));

        let other = std::fs::File::options().write(true).open(&path).unwrap();
        other.set_len(2 * 4096 + 100).unwrap();
        assert_eq!(device.block_count(), 4, "nobody has asked");
        assert_eq!(device.read_block(3, &mut back).unwrap_err().kind(), ErrorKind::EndOfDevice);
        assert_eq!((device.rescan().unwrap(), device.block_count()), (2, 2));
        assert_eq!(device.geometry().bytes, 2 * 4096);
        assert_eq!(device.read_block(3, &mut back).unwrap_err().kind(), ErrorKind::OutOfRange);
        other.set_len(32 * 4096).unwrap();
        assert_eq!(device.rescan().unwrap(), 32);
        device.write_block(31, &[1; 4096]).unwrap();
    }
}

#[test]
fn a_disk_that_grew_is_seen_and_cannot_be_resized() {
    // A child that another test forks would hold the disk, which is open exclusively.
    if !common::is_alone("device::operations::a_disk_that_grew_is_seen_and_cannot_be_resized") {
        return;
    }
    let Some(disk) = Loop::new(1 << 20, 512) else { return };
    for (lap, backend) in backends().into_iter().enumerate() {
        let device = block::open(&disk.path, &Options::new().backend(backend)).unwrap();
        assert_eq!(device.resize(1).unwrap_err().kind(), ErrorKind::Unsupported);
        let bytes = (lap as u64 + 2) << 20;
        std::fs::File::options().write(true).open(&disk.file).unwrap().set_len(bytes).unwrap();
        let status = std::process::Command::new("losetup").arg("--set-capacity").arg(&disk.path).status();
        assert!(status.unwrap().success());
        assert_eq!(device.rescan().unwrap(), bytes / 4096);
        device.write_block(bytes / 4096 - 1, &[1; 4096]).unwrap();
    }
}

#[test]
fn what_is_done_is_counted_and_what_has_ended_is_not_in_flight() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 64);
        let before = device.stats();
        assert_eq!((before.reads, before.writes, before.bytes_written), (0, 0, 0));
        let mut aligned = device.aligned_buffer(4096).unwrap();
        device.write_block(0, &aligned).unwrap();
        device.read_block(0, &mut aligned).unwrap();
        assert_eq!(device.stats().bounces, 0, "{backend}: aligned memory is not copied");
        let direct = device.report().direct;
        let mut shifted = vec![0; 40 * 4096 + 1];
        let pieces = shifted[1..].chunks_mut(2 * 4096).enumerate();
        let mut requests: Vec<_> = pieces.map(|(at, buffer)| ReadRequest::new(at as u64 * 2, buffer)).collect();
        device.read_blocks(&mut requests).unwrap();
        device.read_block(64, &mut aligned).unwrap_err();
        device.flush().unwrap();
        device.write_zeroes(1, 1).unwrap();
        let stats = device.stats();
        assert_eq!((stats.reads, stats.bytes_read), (21, 41 * 4096), "{backend}");
        assert_eq!((stats.writes, stats.bytes_written), (1, 4096), "{backend}");
        assert_eq!((stats.flushes, stats.clears, stats.failures), (1, 1, 0), "{backend}");
        assert_eq!((stats.in_flight, stats.degraded), (0, device.report().degraded.len() as u64));
        assert!(stats.bounces >= 20 || !direct, "{backend}: {stats:?}");

        // Short by nature: the file ends in the middle.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(4 * 4096).unwrap();
        device.read_run(0, &mut device.aligned_buffer(8 * 4096).unwrap()).unwrap_err();
        let stats = device.stats();
        assert!(stats.short_transfers >= 1, "{backend}: {stats:?}");
        assert_eq!(stats.in_flight, 0);
    }
}

#[test]
fn what_is_refused_is_counted_nowhere_and_flushes_of_queues_are_in_flight() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 64);
        let before = device.stats();
        let mut block = device.aligned_buffer(4096).unwrap();
        let mut queue = device.queue(2, 4096).unwrap();
        device.read_run(64, &mut block).unwrap_err();
        device.read_run(0, &mut block[..100]).unwrap_err();
        device.read_block(0, &mut block[..512]).unwrap_err();
        device.write_run(64, &block).unwrap_err();
        device.write_run_fua(64, &block).unwrap_err();
        device.read_vectored(64, &mut [IoSliceMut::new(&mut block)]).unwrap_err();
        device.read_blocks(&mut [ReadRequest::new(64, &mut block)]).unwrap_err();
        device.write_blocks(&mut [WriteRequest::new(64, &block)]).unwrap_err();
        device.write_barrier(&mut [WriteRequest::new(64, &block)]).unwrap_err();
        drop(device.read_async(64, block));
        let buffer = queue.buffer().unwrap();
        queue.read(64, buffer, 0).unwrap_err();
        queue.submit().unwrap();
        assert_eq!(device.stats(), before, "{backend}");

        let mut block = device.aligned_buffer(4096).unwrap();
        device.read_blocks(&mut [ReadRequest::new(64, &mut [0; 4096]), ReadRequest::new(0, &mut block)]).unwrap_err();
        queue.flush(1).unwrap();
        queue.submit().unwrap();
        let stats = device.stats();
        assert_eq!((stats.reads, stats.bytes_read, stats.failures), (1, 4096, 0), "{backend}");
        assert_eq!((stats.flushes, stats.in_flight), (1, 1), "{backend}");
        queue.wait().unwrap().expect("the flush").result.unwrap();
        assert_eq!(device.stats().in_flight, 0);
    }
}
