//! The device on a whole disk.
//!
//! `SYSURING_TEST_DISK` names one whose contents may be lost. `tests/vm/run` has disks of several kinds; elsewhere these tests
//! are skipped. They use one disk, one after the other: `cargo test -- --test-threads 1`.

use std::path::PathBuf;

use sysuring::ErrorKind;
use sysuring::block::{self, BlockDevice, Options, ReadRequest, WriteRequest};

use crate::common::{self, backends, pattern};

/// What is written in one test, in bytes.
const EXTENT: usize = 1 << 20;

/// The disk that may be written to, or a visible skip.
#[track_caller]
pub(super) fn disk() -> Option<PathBuf> {
    let disk = std::env::var_os("SYSURING_TEST_DISK").map(PathBuf::from);
    if disk.is_none() {
        common::skip("SYSURING_TEST_DISK names no disk whose contents may be lost; tests/vm/run has one");
    }
    disk
}

/// Blocks in the order of a bad shuffle: neighbours are far apart.
fn shuffled(count: usize) -> impl Iterator<Item = usize> {
    assert!(count % 7 != 0);
    (0..count).map(move |index| index * 7 % count)
}

#[test]
fn blocks_runs_and_batches_round_trip() {
    let Some(path) = disk() else { return };
    for backend in backends() {
        for direct in [true, false] {
            for block_size in [512, 4096, 65536] {
                let what = format!("{backend}, O_DIRECT {direct}, blocks of {block_size}");
                let options = Options::new().backend(backend).direct(direct).block_size(block_size).queue_depth(8);
                let device = block::open(&path, &options).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(device.backend(), backend);
                let block_size = block_size as usize;
                let count = EXTENT / block_size;
                // At the very end of the disk, too.
                for first in [1, device.block_count() - count as u64] {
                    // One byte into the allocation, on purpose.
                    let data = pattern(first + count as u64, EXTENT + 1);
                    device.write_run(first, &data[1..]).unwrap();
                    let mut back = vec![0; EXTENT + 1];
                    device.read_run(first, &mut back[1..]).unwrap();
                    assert!(back[1..] == data[1..], "{what}: a run");

                    let data = pattern(first, EXTENT);
                    let blocks = shuffled(count).map(|index| (first + index as u64, &data[index * block_size..]));
                    let mut requests: Vec<_> =
                        blocks.map(|(block, data)| WriteRequest::new(block, &data[..block_size])).collect();
                    device.write_blocks(&mut requests).unwrap();
                    device.flush().unwrap();
                    back[..EXTENT].fill(0);
                    let mut requests: Vec<_> = back[..EXTENT]
                        .chunks_mut(block_size)
                        .enumerate()
                        .map(|(index, buffer)| ReadRequest::new(first + index as u64, buffer))
                        .collect();
                    device.read_blocks(&mut requests).unwrap();
                    assert!(back[..EXTENT] == data, "{what}: a batch");
                }
                device.close().unwrap();
            }
        }
    }
}

#[test]
fn what_one_backend_writes_the_other_reads() {
    let Some(path) = disk() else { return };
    let backends = backends();
    for (lap, writer) in backends.iter().enumerate() {
        let data = pattern(lap as u64 + 40, EXTENT);
        let device = block::open(&path, &Options::new().backend(*writer)).unwrap();
        device.write_run(3, &data).unwrap();
        device.flush().unwrap();
        device.close().unwrap();
        for reader in &backends {
            for direct in [true, false] {
                let options = Options::new().backend(*reader).direct(direct).read_only(true);
                let device = block::open(&path, &options).unwrap();
                let mut back = vec![0; EXTENT];
                device.read_run(3, &mut back).unwrap();
                assert!(back == data, "written by {writer}, read by {reader}, O_DIRECT {direct}");
            }
        }
    }
}

#[test]
fn a_disk_has_an_end_and_one_owner() {
    let Some(path) = disk() else { return };
    for backend in backends() {
        let options = Options::new().backend(backend);
        let device = block::open(&path, &options).unwrap();
        let (count, mut block) = (device.block_count(), vec![0; device.block_size()]);
        device.read_block(count - 1, &mut block).unwrap();
        assert_eq!(device.read_block(count, &mut block).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(device.write_block(count, &block).unwrap_err().kind(), ErrorKind::OutOfRange);
        assert_eq!(block::open(&path, &options).unwrap_err().kind(), ErrorKind::Busy);
        device.close().unwrap();
        let reader = block::open(&path, &options.clone().read_only(true)).unwrap();
        assert_eq!(reader.write_block(0, &block).unwrap_err().kind(), ErrorKind::ReadOnly);
        reader.close().unwrap();
        // Free at once, again and again.
        for _ in 0..50 {
            block::open(&path, &options).unwrap().close().unwrap();
        }
    }
}

#[test]
fn odd_options_work_or_are_reported() {
    let Some(path) = disk() else { return };
    for backend in backends() {
        for (name, options) in [
            ("iopoll", Options::new().iopoll(true)),
            ("sqpoll", Options::new().sqpoll(std::time::Duration::from_millis(10))),
            ("small pool", Options::new().pool_size(1)),
            ("deep", Options::new().queue_depth(4096)),
            ("depth 1", Options::new().queue_depth(1)),
        ] {
            let device = block::open(&path, &options.backend(backend)).unwrap();
            let data = pattern(5, 64 * 4096);
            let mut requests: Vec<_> =
                data.chunks(4096).enumerate().map(|(block, data)| WriteRequest::new(block as u64, data)).collect();
            device.write_blocks(&mut requests).unwrap();
            device.flush().unwrap();
            let mut back = vec![0; 64 * 4096];
            device.read_run(0, &mut back).unwrap();
            assert!(back == data, "{backend}, {name}");
            // Where the disk can't be polled that is said.
            println!("{name}: {}", device.report());
        }
    }
}
