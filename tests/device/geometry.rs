//! Sizes, units and alignment, on files and on disks.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::Path;

use sysuring::ErrorKind;
use sysuring::block::{self, AlignmentFrom, Backend, BlockDevice, Options};

use crate::common::disk::{Loop, write_partition_table};
use crate::common::{self, backends, filter, pattern};

/// Writes and reads `bytes` bytes in blocks of a size at the beginning and the end, aligned and not.
fn round_trip(path: &Path, backend: Backend, block_size: u32) {
    let device = block::open(path, &Options::new().backend(backend).block_size(block_size)).unwrap();
    let run = 4 * block_size as usize;
    let last = device.block_count() - 4;
    for (first, shift) in [(0, 0), (last, 1)] {
        let data = pattern(u64::from(block_size) + first, run + shift);
        device.write_run(first, &data[shift..]).unwrap();
        let mut back = vec![0; run + shift];
        device.read_run(first, &mut back[shift..]).unwrap();
        assert!(back[shift..] == data[shift..], "{} {backend} {block_size}", path.display());
    }
    let error = device.read_run(last + 1, &mut vec![0; run]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
    device.close().unwrap();
}

#[test]
fn disks_tell_their_sectors_and_take_every_block_size_from_there() {
    // A child that another test forks would hold the disk, which is open exclusively.
    if !common::is_alone("device::geometry::disks_tell_their_sectors_and_take_every_block_size_from_there") {
        return;
    }
    for sector in [512, 4096] {
        let Some(disk) = Loop::new(16 << 20, sector) else { return };
        let link = disk.file.with_file_name("link");
        symlink(&disk.path, &link).unwrap();
        for backend in backends() {
            for block_size in [512, 1024, 4096, 16384, 65536] {
                let options = Options::new().backend(backend).block_size(block_size);
                if block_size < sector {
                    let error = block::open(&link, &options).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Misaligned, "{error}");
                    assert!(error.to_string().contains("4096"), "names what works: {error}");
                    continue;
                }
                round_trip(&link, backend, block_size);
            }
            let device = block::open(&disk.path, &Options::new().backend(backend)).unwrap();
            let geometry = device.geometry();
            assert_eq!((geometry.bytes, geometry.is_disk, geometry.logical_block), (16 << 20, true, sector));
            assert!(geometry.physical_block >= sector && geometry.max_transfer.unwrap() >= u64::from(sector));
            assert_eq!(geometry.memory_alignment as usize, device.alignment());
            assert!(!device.capabilities().resize);
            // Through the page cache as well, where the sector is the unit all the same.
            drop(device);
            let error = block::open(&disk.path, &Options::new().backend(backend).block_size(4096).direct(false));
            assert_eq!(error.unwrap().geometry().logical_block, sector);
        }
    }
}

#[test]
fn a_partition_is_a_disk_that_ends_where_it_ends() {
    const START: u64 = 2048 * 512;
    let Some(disk) = Loop::with_contents(16 << 20, 512, write_partition_table) else { return };
    let Some(partition) = disk.partition() else {
        return common::skip("the kernel finds no partitions on loop devices");
    };
    for backend in backends() {
        let device = block::open(&partition, &Options::new().backend(backend)).unwrap();
        assert_eq!(device.block_count(), 1024);
        assert!(device.capabilities().discard, "as the whole disk");
        let data = pattern(7, 4096);
        device.write_block(1023, &data).unwrap();
        assert_eq!(device.write_block(1024, &data).unwrap_err().kind(), ErrorKind::OutOfRange);
        device.close().unwrap();
        let below = std::fs::read(&disk.file).unwrap();
        assert!(below[START as usize + 1023 * 4096..][..4096] == data);
        assert!(below[START as usize + 1024 * 4096..].iter().all(|byte| *byte == 0), "{backend}");
    }
}

/// The largest size that a file can have there.
fn largest(file: &File) -> u64 {
    let (mut fits, mut too_large) = (0, 1_u64 << 63);
    while too_large - fits > 1 {
        let middle = fits + (too_large - fits) / 2;
        match file.set_len(middle) {
            Ok(()) => fits = middle,
            Err(_) => too_large = middle,
        }
    }
    file.set_len(fits).unwrap();
    fits
}

#[test]
fn files_as_large_as_they_can_be_have_a_last_block() {
    let places = [common::directory(), tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| common::directory())];
    for directory in &places {
        let path = directory.path().join("sparse");
        let size = largest(&File::create(&path).unwrap());
        let blocks = size / 512;
        println!("{}: {size} bytes", directory.path().display());
        for backend in backends() {
            let options = Options::new().backend(backend).block_size(512).whole_blocks(true);
            let device = block::open(&path, &options).unwrap();
            assert_eq!(device.block_count(), blocks);
            assert!(blocks > 1 << 32, "{blocks} blocks");
            let mut back = vec![1; 1024];
            device.read_run((1 << 32) - 1, &mut back).unwrap();
            assert!(back.iter().all(|byte| *byte == 0));
            for block in [1 << 32, blocks - 1] {
                let data = pattern(block, 512);
                device.write_block(block, &data).unwrap();
                device.read_block(block, &mut back[..512]).unwrap();
                assert!(back[..512] == data, "{backend} {block}");
                // What an offset cut to 32 bits, or a block number, would have hit.
                device.read_block(block % (1 << 32) % (1 << 23), &mut back[..512]).unwrap();
                assert!(back[..512].iter().all(|byte| *byte == 0), "{backend} {block}");
                device.write_zeroes(block, 1).unwrap();
                device.read_block(block, &mut back[..512]).unwrap();
                assert!(back[..512].iter().all(|byte| *byte == 0), "{backend} {block}");
            }
            for (first, count) in [(blocks, 1), (u64::MAX, 1), (1, u64::MAX), (u64::MAX / 512, 1 << 60)] {
                assert_eq!(device.write_zeroes(first, count).unwrap_err().kind(), ErrorKind::OutOfRange);
                assert_eq!(device.discard(first, count).unwrap_err().kind(), ErrorKind::OutOfRange);
            }
            assert_eq!(device.read_block(u64::MAX, &mut back[..512]).unwrap_err().kind(), ErrorKind::OutOfRange);
            let error = device.resize(u64::MAX / 512).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            // One more than there can be is the file system's to refuse; nothing is lost by asking.
            device.resize(blocks + 1).unwrap_err();
            assert_eq!(device.block_count(), blocks);
        }
    }
}

#[test]
fn alignment_is_asked_of_statx_then_of_the_disk_then_a_page_is_assumed() {
    let directory = common::directory();
    let path = directory.path().join("file");
    let options = Options::new().create(1 << 20);
    let from = |path: &Path, options: &Options| {
        let device = block::open(path, options).unwrap();
        let geometry = device.geometry();
        assert!(device.report().to_string().contains(&geometry.alignment_from.to_string()), "{}", device.report());
        (geometry.alignment_from, geometry.memory_alignment, geometry.logical_block)
    };
    assert_eq!(from(&path, &options.clone().direct(false)), (AlignmentFrom::PageCache, 1, 1));
    if !common::is_alone("device::geometry::alignment_is_asked_of_statx_then_of_the_disk_then_a_page_is_assumed") {
        return;
    }
    let disk = Loop::new(1 << 20, 512);
    let told = from(&path, &options);
    if told.0 != AlignmentFrom::Statx {
        common::skip(format_args!("the file system in {} tells no alignment", directory.path().display()));
    }
    if let Some(disk) = &disk {
        assert_eq!(from(&disk.path, &Options::new()).2, 512);
    }
    // Detaching needs processes that can do everything.
    let (disk_path, kept) = (disk.as_ref().map(|disk| disk.path.clone()), disk);
    std::thread::spawn(move || {
        filter::deny(&[libc::SYS_statx], libc::ENOSYS);
        let options = Options::new();
        match from(&path, &options) {
            (AlignmentFrom::PageCache, ..) => common::skip("the file system has no O_DIRECT, hence no alignment"),
            other => assert_eq!(other, (AlignmentFrom::Page, 4096, 4096)),
        }
        if let Some(disk) = disk_path {
            assert_eq!(from(&disk, &options), (AlignmentFrom::BlockSize, 512, 512));
        }
    })
    .join()
    .unwrap();
    drop(kept);
}
