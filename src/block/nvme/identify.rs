//! What controllers and namespaces say of themselves.

use crate::block::nvme::bytes::{at, text_at, u16_at, u32_at, u64_at, u128_at};
use crate::block::nvme::format::Format;

/// Bytes of an Identify data structure.
pub(super) const IDENTIFY_BYTES: usize = 4096;
/// What is identified (CNS).
pub(super) const NAMESPACE: u32 = 0;
pub(super) const CONTROLLER: u32 = 1;
pub(super) const ACTIVE_NAMESPACES: u32 = 2;
pub(super) const NAMESPACE_OF_SET: u32 = 5;
/// The zoned command set, in the upper byte of the eleventh word.
pub(super) const ZONED: u32 = 2 << 24;

/// What a controller says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Controller {
    /// The vendor, by its number on PCI.
    pub vendor: u16,
    /// The serial number.
    pub serial: String,
    /// The model.
    pub model: String,
    /// The revision of the firmware.
    pub firmware: String,
    /// The controller's number in its subsystem.
    pub id: u16,
    /// The version of the specification: major, minor, tertiary.
    pub version: (u16, u8, u8),
    /// The longest transfer as a power of two, in units of the controller's smallest page; `None` for no limit. The kernel's own
    /// limits are in [`Geometry::max_transfer`](crate::block::Geometry::max_transfer).
    pub max_transfer_shift: Option<u8>,
    /// The highest number that a namespace may have.
    pub namespaces: u32,
    /// There is a volatile write cache: a flush means something.
    pub has_write_cache: bool,
    /// Compare.
    pub can_compare: bool,
    /// Dataset management, which discards.
    pub can_discard: bool,
    /// Write zeroes.
    pub can_write_zeroes: bool,
    /// Verify.
    pub can_verify: bool,
    /// Bytes of all its storage; 0 where it does not say.
    pub capacity: u128,
    /// The name of the subsystem.
    pub subsystem: String,
}

impl Controller {
    pub(super) fn parse(bytes: &[u8; IDENTIFY_BYTES]) -> Self {
        let version = u32_at(bytes, 80);
        let commands = u16_at(bytes, 520);
        let has = |bit: u16| commands & 1 << bit != 0;
        Self {
            vendor: u16_at(bytes, 0),
            serial: text_at(bytes, 4..24),
            model: text_at(bytes, 24..64),
            firmware: text_at(bytes, 64..72),
            id: u16_at(bytes, 78),
            version: ((version >> 16) as u16, (version >> 8) as u8, version as u8),
            max_transfer_shift: Some(bytes[77]).filter(|shift| *shift != 0),
            namespaces: u32_at(bytes, 516),
            has_write_cache: bytes[525] & 1 != 0,
            can_compare: has(0),
            can_discard: has(2),
            can_write_zeroes: has(3),
            can_verify: has(7),
            capacity: u128_at(bytes, 280),
            subsystem: text_at(bytes, 768..1024),
        }
    }
}

/// What a namespace says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceInfo {
    /// Logical blocks that there are (NSZE).
    pub size: u64,
    /// Logical blocks that may be in use at once (NCAP).
    pub capacity: u64,
    /// Logical blocks that are in use (NUSE).
    pub used: u64,
    /// The formats that it could have.
    pub formats: Vec<LbaFormat>,
    /// Which of them it has.
    pub format: usize,
    /// The metadata follows each block's data in one buffer; otherwise it has a buffer of its own.
    pub is_extended: bool,
    /// The type of protection information, 1 to 3; 0 for none.
    pub protection: u8,
    /// Writes are refused now.
    pub is_write_protected: bool,
    /// The namespace's identifier of 16 bytes; zeroes where it has none.
    pub nguid: [u8; 16],
    /// The namespace's identifier of 8 bytes; zeroes where it has none.
    pub eui64: [u8; 8],
}

/// A format that a namespace supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LbaFormat {
    /// Bytes of data in a logical block; 0 for one that can't be had.
    pub data: u32,
    /// Bytes of metadata that go along with it.
    pub metadata: u16,
    /// 0 for the fastest, to 3.
    pub relative_performance: u8,
}

impl NamespaceInfo {
    /// `None` where nothing is: the controller gives zeroes for a namespace that is not attached.
    pub(super) fn parse(bytes: &[u8; IDENTIFY_BYTES]) -> Option<Self> {
        let size = u64_at(bytes, 0);
        let last_format = usize::from(bytes[25]);
        let formatted = bytes[26];
        let mut format = usize::from(formatted & 0xf);
        if last_format >= 16 {
            format |= usize::from(formatted >> 5 & 3) << 4;
        }
        let formats: Vec<LbaFormat> =
            (0..=last_format.min(63)).map(|index| LbaFormat::parse(at(bytes, 128 + 4 * index))).collect();
        let is_there = size != 0 && formats.get(format).is_some_and(|format| format.data != 0);
        is_there.then_some(Self {
            size,
            capacity: u64_at(bytes, 8),
            used: u64_at(bytes, 16),
            formats,
            format,
            is_extended: formatted & 1 << 4 != 0,
            protection: bytes[29] & 7,
            is_write_protected: bytes[99] & 1 != 0,
            nguid: at(bytes, 104),
            eui64: at(bytes, 120),
        })
    }

    /// The format that it has.
    #[must_use]
    pub fn lba_format(&self) -> LbaFormat {
        self.formats[self.format]
    }

    pub(super) fn as_format(&self) -> Format {
        let LbaFormat { data, metadata, .. } = self.lba_format();
        Format {
            lba_size: data,
            metadata_size: metadata.into(),
            is_extended: self.is_extended && metadata != 0,
            protection: self.protection,
        }
    }
}

impl LbaFormat {
    fn parse([metadata_low, metadata_high, shift, performance]: [u8; 4]) -> Self {
        Self {
            // From 512 bytes on; what is no size of memory is none.
            data: if (9..31).contains(&shift) { 1 << shift } else { 0 },
            metadata: u16::from_le_bytes([metadata_low, metadata_high]),
            relative_performance: performance & 3,
        }
    }
}

/// What a zoned namespace says of its zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Zoned {
    /// Logical blocks from the start of a zone to that of the next one.
    pub zone_size: u64,
    /// Zones that may be active at once; `None` for no limit.
    pub max_active: Option<u32>,
    /// Zones that may be open at once; `None` for no limit.
    pub max_open: Option<u32>,
}

impl Zoned {
    /// Of the namespace, formatted with the format of that number; `None` where it has no zones.
    pub(super) fn parse(bytes: &[u8; IDENTIFY_BYTES], format: usize) -> Option<Self> {
        let zone_size = u64_at(bytes, 2816 + 16 * format);
        // The number less one; all ones for none.
        let limit = |offset| u32_at(bytes, offset).checked_add(1);
        (zone_size != 0).then_some(Self { zone_size, max_active: limit(4), max_open: limit(8) })
    }
}

/// The numbers of namespaces in a list that ends with 0, or is full.
pub(super) fn parse_list(bytes: &[u8; IDENTIFY_BYTES]) -> Vec<u32> {
    (0..IDENTIFY_BYTES / 4).map(|index| u32_at(bytes, 4 * index)).take_while(|nsid| *nsid != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
        bytes[offset..offset + N].copy_from_slice(&value);
    }

    #[test]
    fn a_controller_is_read() {
        let mut bytes = [0; IDENTIFY_BYTES];
        put(&mut bytes, 0, 0x1b36_u16.to_le_bytes());
        put(&mut bytes, 4, *b"s-1                 ");
        put(&mut bytes, 24, *b"a\x07model");
        bytes[77] = 7;
        put(&mut bytes, 80, 0x0001_0400_u32.to_le_bytes());
        put(&mut bytes, 516, 256_u32.to_le_bytes());
        put(&mut bytes, 520, 0b1000_1101_u16.to_le_bytes());
        bytes[525] = 7;
        let controller = Controller::parse(&bytes);
        assert_eq!(
            (controller.vendor, controller.serial.as_str(), controller.model.as_str()),
            (0x1b36, "s-1", "a?model")
        );
        assert_eq!(
            (controller.version, controller.max_transfer_shift, controller.namespaces),
            ((1, 4, 0), Some(7), 256)
        );
        assert!(
            controller.can_compare && controller.can_discard && controller.can_write_zeroes && controller.can_verify
        );
        assert!(controller.has_write_cache);
        let nothing = Controller::parse(&[0; IDENTIFY_BYTES]);
        assert!(!nothing.has_write_cache && !nothing.can_verify && nothing.max_transfer_shift.is_none());
    }

    #[test]
    fn a_namespace_is_read() {
        let mut bytes = [0; IDENTIFY_BYTES];
        put(&mut bytes, 0, 1000_u64.to_le_bytes());
        bytes[25] = 1;
        bytes[26] = 1 | 1 << 4;
        bytes[29] = 1;
        put(&mut bytes, 128, [0, 0, 9, 0]);
        put(&mut bytes, 132, [8, 0, 12, 2]);
        let namespace = NamespaceInfo::parse(&bytes).unwrap();
        assert_eq!((namespace.size, namespace.format, namespace.formats.len()), (1000, 1, 2));
        assert_eq!(namespace.lba_format(), LbaFormat { data: 4096, metadata: 8, relative_performance: 2 });
        assert_eq!(
            namespace.as_format(),
            Format { lba_size: 4096, metadata_size: 8, is_extended: true, protection: 1 }
        );
        // Two more bits of the number count only where there are so many formats.
        bytes[26] = 1 | 1 << 5;
        assert_eq!(NamespaceInfo::parse(&bytes).unwrap().format, 1);
        bytes[25] = 17;
        put(&mut bytes, 128 + 4 * 17, [0, 0, 9, 0]);
        assert_eq!(NamespaceInfo::parse(&bytes).unwrap().format, 17);
    }

    #[test]
    fn what_is_no_namespace_is_none() {
        let mut bytes = [0; IDENTIFY_BYTES];
        assert_eq!(NamespaceInfo::parse(&bytes), None);
        put(&mut bytes, 0, 1000_u64.to_le_bytes());
        assert_eq!(NamespaceInfo::parse(&bytes), None, "a format without a size");
        put(&mut bytes, 128, [0, 0, 9, 0]);
        assert!(NamespaceInfo::parse(&bytes).is_some());
        bytes[26] = 5;
        assert_eq!(NamespaceInfo::parse(&bytes), None, "a format that is not in the list");
        // All ones stay within the structure.
        let _ = NamespaceInfo::parse(&[0xff; IDENTIFY_BYTES]);
        let _ = Controller::parse(&[0xff; IDENTIFY_BYTES]);
        let _ = Zoned::parse(&[0xff; IDENTIFY_BYTES], 63);
        assert_eq!(parse_list(&[0xff; IDENTIFY_BYTES]).len(), 1024);
    }

    #[test]
    fn zones_and_lists_are_read() {
        let mut bytes = [0; IDENTIFY_BYTES];
        assert_eq!(Zoned::parse(&bytes, 1), None);
        put(&mut bytes, 4, 3_u32.to_le_bytes());
        put(&mut bytes, 8, [0xff; 4]);
        put(&mut bytes, 2832, 8192_u64.to_le_bytes());
        assert_eq!(Zoned::parse(&bytes, 1), Some(Zoned { zone_size: 8192, max_active: Some(4), max_open: None }));
        let mut bytes = [0; IDENTIFY_BYTES];
        put(&mut bytes, 0, [1, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(parse_list(&bytes), [1, 7]);
    }
}
