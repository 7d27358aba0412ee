//! Zoned namespaces.

use sysuring::ErrorKind;
use sysuring::block::BlockDevice;
use sysuring::block::nvme::{ZoneAction, ZoneState};

use super::each;
use crate::common::pattern;

#[test]
fn zones_are_written_in_order_and_reset() {
    each(|device| {
        let Some(zoned) = device.zoned() else {
            assert_eq!(device.zones(0, 1).unwrap_err().kind(), ErrorKind::Unsupported);
            assert_eq!(device.append(0, &vec![0; device.lba_size()]).unwrap_err().kind(), ErrorKind::Unsupported);
            assert_eq!(device.manage_zone(None, ZoneAction::Reset).unwrap_err().kind(), ErrorKind::Unsupported);
            return;
        };
        let lba = device.lba_size();
        device.manage_zone(None, ZoneAction::Reset).unwrap();
        let zones = device.zones(0, usize::MAX).unwrap();
        assert_eq!(zones.len() as u64, device.lba_count() / zoned.zone_size);
        assert!(zones.iter().all(|zone| zone.state == ZoneState::Empty && zone.write_pointer == zone.start));
        assert_eq!(device.zones(0, 3).unwrap(), zones[..3]);
        assert_eq!(device.zones(zones[2].start, 1).unwrap(), zones[2..3]);

        // A run longer than a command, whose parts are in order only when they are written one after the other.
        let bytes = zones[0].capacity as usize * lba / 2;
        let data = pattern(1, bytes);
        device.write_run(0, &data).unwrap();
        let mut back = vec![0; bytes];
        device.read_run(0, &mut back).unwrap();
        assert!(back == data);
        let zone = device.zones(0, 1).unwrap()[0];
        assert_eq!((zone.state, zone.write_pointer), (ZoneState::ImplicitlyOpen, (bytes / lba) as u64));

        let at = device.append(0, &pattern(2, 2 * lba)).unwrap();
        assert_eq!(at, (bytes / lba) as u64);
        let at = device.append(0, &pattern(3, lba)).unwrap();
        assert_eq!(at, (bytes / lba) as u64 + 2);
        let mut block = vec![0; lba];
        device.read_run(at, &mut block).unwrap();
        assert!(block == pattern(3, lba));

        let error = device.write_run(zones[1].start + 5, &block).unwrap_err();
        assert_eq!(error.nvme_status().unwrap().name(), Some("zone invalid write"), "{error}");
        device.manage_zone(Some(zones[1].start), ZoneAction::Open).unwrap();
        device.manage_zone(Some(0), ZoneAction::Close).unwrap();
        device.manage_zone(Some(zones[2].start), ZoneAction::Finish).unwrap();
        let states: Vec<_> = device.zones(0, 4).unwrap().iter().map(|zone| zone.state).collect();
        assert_eq!(states, [ZoneState::Closed, ZoneState::ExplicitlyOpen, ZoneState::Full, ZoneState::Empty]);
        device.manage_zone(None, ZoneAction::Reset).unwrap();
        assert!(device.zones(0, 4).unwrap().iter().all(|zone| zone.state == ZoneState::Empty));
    });
}

#[test]
fn a_batch_fills_a_zone_in_its_order() {
    each(|device| {
        if device.zoned().is_none() {
            return;
        }
        device.manage_zone(None, ZoneAction::Reset).unwrap();
        let size = device.block_size();
        let data = pattern(4, 40 * size);
        let mut requests: Vec<_> =
            (0..).zip(data.chunks(size)).map(|(block, data)| sysuring::block::WriteRequest::new(block, data)).collect();
        device.write_blocks(&mut requests).unwrap();
        let mut back = vec![0; 40 * size];
        device.read_run(0, &mut back).unwrap();
        assert!(back == data);
        device.manage_zone(None, ZoneAction::Reset).unwrap();
    });
}
