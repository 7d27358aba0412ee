//! Commands beyond those of a block device.

use sysuring::ErrorKind;
use sysuring::block::nvme::{NvmeDevice, RawCommand, StatusType};
use sysuring::block::{BlockDevice, Options};

use super::{each, each_random, has_nodes, nodes};
use crate::common::{self, pattern};

#[test]
fn controllers_and_namespaces_say_what_they_are() {
    each(|device| {
        let controller = device.identify_controller().unwrap();
        assert!(!controller.serial.is_empty() && !controller.model.is_empty(), "{controller:?}");
        assert!(controller.version.0 >= 1);
        let namespace = device.identify_namespace().unwrap();
        assert_eq!(namespace.lba_format().data as usize, device.lba_size());
        assert_eq!(usize::from(namespace.lba_format().metadata), device.metadata_size());
        assert_eq!(namespace.size, device.lba_count());
        assert!(device.active_namespaces().unwrap().contains(&device.nsid()));
        let smart = device.smart().unwrap();
        assert!((200..400).contains(&smart.temperature), "{smart:?}");
        assert_eq!(device.feature(6).unwrap() & 1, u32::from(controller.has_write_cache));
        // Queues of both kinds, less one, in either half.
        assert_ne!(device.feature(7).unwrap(), 0);
        let mut page = [0; 512];
        device.log_page(2, &mut page).unwrap();
        assert_eq!(u16::from_le_bytes([page[1], page[2]]), smart.temperature);
        let geometry = device.geometry();
        assert_eq!(geometry.logical_block as usize, device.lba_size());
        assert!(geometry.max_transfer.unwrap() >= 64 << 10, "{geometry}");
    });
}

#[test]
fn flushes_reach_the_controller() {
    each(|device| {
        // Nothing else tells of them: that they are no error is all that can be seen.
        device.flush().unwrap();
        device.flush().unwrap();
        assert_eq!(device.stats().flushes, 2);
    });
}

#[test]
fn blocks_are_compared_and_verified() {
    each_random(|device| {
        let data = pattern(1, 8 * device.lba_size());
        device.write_run(16, &data).unwrap();
        match device.compare(16, &data) {
            Ok(same) => {
                assert!(same);
                let mut other = data.clone();
                *other.last_mut().unwrap() ^= 1;
                assert!(!device.compare(16, &other).unwrap());
            }
            Err(error) => assert!(error.kind() == ErrorKind::Unsupported && device.metadata_size() != 0, "{error}"),
        }
        if device.identify_controller().unwrap().can_verify {
            device.verify(16, 8).unwrap();
            // In more commands than one.
            let blocks = if device.metadata_size() == 0 { device.lba_count().min(5000) } else { 20 };
            device.verify(0, blocks).unwrap();
        }
    });
}

#[test]
fn a_status_is_an_error_by_its_name() {
    each(|device| {
        let mut block = vec![0; device.lba_size()];
        let past_the_end = device.lba_count();
        let read = RawCommand {
            opcode: 2,
            words: [0, 0, past_the_end as u32, (past_the_end >> 32) as u32, 0, 0, 0, 0],
            ..RawCommand::default()
        };
        // SAFETY: a read of one block, into memory for one; of metadata there is none to be transferred past the end.
        let error = unsafe { device.raw_command(&read, &mut block, &mut []) }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Nvme, "{error}");
        let status = error.nvme_status().unwrap();
        assert_eq!(
            (status.status_type(), status.code(), status.name()),
            (StatusType::Generic, 0x80, Some("LBA out of range"))
        );
        assert!(status.do_not_retry());
        assert!(error.to_string().contains("LBA out of range (generic status 0x80"), "{error}");
        assert_eq!(std::io::Error::from(error).raw_os_error(), Some(libc::EINVAL));

        let odd = RawCommand { opcode: 0x55, ..RawCommand::default() };
        // SAFETY: there is no such command.
        let error = unsafe { device.raw_command(&odd, &mut [], &mut []) }.unwrap_err();
        assert_eq!(error.nvme_status().unwrap().name(), Some("invalid command opcode"));

        // As any other: identify, for the controller.
        let mut bytes = vec![0; 4096];
        let identify =
            RawCommand { opcode: 6, is_admin: true, nsid: Some(0), words: [0, 0, 1, 0, 0, 0, 0, 0], timeout: None };
        // SAFETY: it fills 4096 bytes.
        unsafe { device.raw_command(&identify, &mut bytes, &mut []) }.unwrap();
        assert_eq!(bytes[4..24].trim_ascii(), device.identify_controller().unwrap().serial.as_bytes());
    });
}

#[test]
fn metadata_is_as_long_as_its_blocks() {
    if !has_nodes() {
        return;
    }
    for path in nodes() {
        let device = match NvmeDevice::open(&path, &Options::new().whole_blocks(true)) {
            Ok(device) => device,
            Err(error) => {
                assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("metadata"), "{error}");
                common::skip(error);
                continue;
            }
        };
        if device.zoned().is_some() {
            continue;
        }
        let (lba, size) = (device.lba_size(), device.metadata_size());
        let data = pattern(5, 4 * lba);
        let mut back = vec![0; 4 * lba];
        for wrong in [0, size, 4 * size + 1, 5 * size, 3 * size] {
            if wrong == 4 * size {
                continue;
            }
            let error = device.write_with_metadata(8, &data, &vec![0; wrong]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}: {error}");
            let error = device.read_with_metadata(8, &mut back, &mut vec![0; wrong]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}: {error}");
        }
        let metadata = pattern(6, 4 * size);
        match device.write_with_metadata(8, &data, &metadata) {
            Ok(()) => {}
            Err(error) if size != 0 && error.kind() == ErrorKind::Unsupported => {
                common::skip(error);
                continue;
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
        let mut metadata_back = vec![0xff; 4 * size];
        device.read_with_metadata(8, &mut back, &mut metadata_back).unwrap();
        assert!(back == data && metadata_back == metadata, "{}", path.display());
        // More than one command takes.
        let blocks = 2 * device.geometry().max_transfer.unwrap() as usize / lba + 3;
        let (data, metadata) = (pattern(7, blocks * lba), pattern(8, blocks * size));
        device.write_with_metadata(0, &data, &metadata).unwrap();
        let (mut back, mut metadata_back) = (vec![0; blocks * lba], vec![0; blocks * size]);
        device.read_with_metadata(0, &mut back, &mut metadata_back).unwrap();
        assert!(back == data && metadata_back == metadata, "{}", path.display());
        if size == 8 && device.identify_namespace().unwrap().protection != 0 {
            // The controller looks at what was put there.
            let error = device.read_run(1, &mut vec![0; device.block_size()]).unwrap_err();
            assert_eq!(error.nvme_status().unwrap().status_type(), StatusType::Media, "{error}");
            let data = pattern(9, blocks * lba / device.block_size() * device.block_size());
            device.write_run(0, &data).unwrap();
            device.read_run(1, &mut vec![0; device.block_size()]).unwrap();
            // What it makes is a checksum, a tag that nobody has a use for, and the number of the block.
            device.read_with_metadata(0, &mut back, &mut metadata_back).unwrap();
            let whole = data.len() / lba;
            for (block, (data, metadata)) in (0..).zip(back.chunks(lba).zip(metadata_back.chunks(size))).take(whole) {
                let guard = u16::from_be_bytes([metadata[0], metadata[1]]);
                assert_eq!((guard, &metadata[4..]), (checksum(data), &u32::to_be_bytes(block)[..]), "block {block}");
            }
        }
    }
}

/// CRC-16/T10-DIF.
fn checksum(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 != 0 { crc << 1 ^ 0x8bb7 } else { crc << 1 })
    })
}
