//! Commands, as the kernel takes them.
//!
//! A transfer is described once, as a [`Run`] of logical blocks; how many bytes of data and metadata it has follows from that and
//! from the format, nowhere else. The device transfers what the number of blocks says, whatever length the kernel was told: a
//! shorter buffer would be written past its end.

use crate::block::nvme::format::Format;
use crate::core::PAYLOAD;

/// `NVME_URING_CMD_IO` of `linux/nvme_ioctl.h`: `_IOWR('N', 0x80, struct nvme_uring_cmd)`.
pub(super) const URING_CMD_IO: u32 = 0xc048_4e80;
/// `IORING_URING_CMD_FIXED`: the data is in a registered buffer.
pub(super) const URING_CMD_FIXED: u32 = 1;

/// Opcodes of commands to a namespace.
pub(super) mod io {
    pub(crate) const FLUSH: u8 = 0x00;
    pub(crate) const WRITE: u8 = 0x01;
    pub(crate) const READ: u8 = 0x02;
    pub(crate) const COMPARE: u8 = 0x05;
    pub(crate) const WRITE_ZEROES: u8 = 0x08;
    pub(crate) const DATASET_MANAGEMENT: u8 = 0x09;
    pub(crate) const VERIFY: u8 = 0x0c;
    pub(crate) const ZONE_SEND: u8 = 0x79;
    pub(crate) const ZONE_RECEIVE: u8 = 0x7a;
    pub(crate) const ZONE_APPEND: u8 = 0x7d;
}

/// Opcodes of commands to the controller.
pub(super) mod admin {
    pub(crate) const GET_LOG_PAGE: u8 = 0x02;
    pub(crate) const IDENTIFY: u8 = 0x06;
    pub(crate) const GET_FEATURES: u8 = 0x0a;
}

/// Most blocks of a command: their number less one has 16 bits.
pub(super) const MOST_BLOCKS: u64 = 1 << 16;
/// Force Unit Access, in the twelfth word.
const FUA: u32 = 1 << 30;
/// The controller makes and checks the protection information.
const PROTECTION_ACTION: u32 = 1 << 29;
const CHECK_GUARD: u32 = 1 << 28;
const CHECK_REFERENCE: u32 = 1 << 26;

/// A command that names memory: `struct nvme_passthru_cmd64` and, but for its last field, `struct nvme_uring_cmd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) reserved1: u16,
    pub(super) nsid: u32,
    pub(super) cdw2: u32,
    pub(super) cdw3: u32,
    pub(super) metadata: u64,
    pub(super) address: u64,
    pub(super) metadata_length: u32,
    pub(super) data_length: u32,
    /// Words 10 to 15.
    pub(super) words: [u32; 6],
    pub(super) timeout_ms: u32,
    pub(super) reserved2: u32,
    /// What the controller answered, where `ioctl` passed it.
    pub(super) result: u64,
}

const _: () = assert!(size_of::<Entry>() == PAYLOAD);

impl Entry {
    pub(super) fn new(opcode: u8, nsid: u32) -> Self {
        Self { opcode, nsid, ..Self::default() }
    }

    /// The bytes of an entry of a ring.
    pub(super) fn payload(&self) -> [u8; PAYLOAD] {
        let entry = Self { result: 0, ..*self };
        // SAFETY: as many bytes, all of which are initialised: the fields leave no gaps, as their sizes and order show.
        unsafe { std::mem::transmute(entry) }
    }
}

/// What is done with a run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    Read,
    Write { fua: bool },
    Compare,
    Append,
}

/// Whose the metadata is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metadata {
    /// Made and checked by the controller, as far as the format has protection information; what is transferred all the same is of
    /// no account.
    Controllers,
    /// The caller's, as it is.
    Callers,
}

/// Logical blocks that are transferred by one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    /// 1 to [`MOST_BLOCKS`].
    pub(super) blocks: u32,
    pub(super) metadata: Metadata,
}

impl Run {
    /// A run of whole blocks, as many as `bytes` bytes of data are; `None` where that is not a number that a command can have.
    pub(super) fn of_bytes(format: &Format, first: u64, bytes: usize, metadata: Metadata) -> Option<Self> {
        let size = format.data_size(metadata);
        let blocks = bytes as u64 / u64::from(size);
        let is_whole = bytes as u64 % u64::from(size) == 0 && (1..=MOST_BLOCKS).contains(&blocks);
        is_whole.then_some(Self { first, blocks: blocks as u32, metadata })
    }

    /// Bytes of metadata in a buffer of its own.
    pub(super) fn metadata_bytes(self, format: &Format) -> u32 {
        self.blocks * format.separate_metadata(self.metadata)
    }

    /// The command that transfers it, at these addresses; that of the metadata is of no account where it has no buffer of its own.
    pub(super) fn entry(self, format: &Format, nsid: u32, transfer: Transfer, address: u64, metadata: u64) -> Entry {
        let mut entry = Entry::new(
            match transfer {
                Transfer::Read => io::READ,
                Transfer::Write { .. } => io::WRITE,
                Transfer::Compare => io::COMPARE,
                Transfer::Append => io::ZONE_APPEND,
            },
            nsid,
        );
        entry.address = address;
        entry.data_length = self.blocks * format.data_size(self.metadata);
        entry.metadata_length = self.metadata_bytes(format);
        if entry.metadata_length != 0 {
            entry.metadata = metadata;
        }
        let mut control = self.blocks - 1;
        if matches!(transfer, Transfer::Write { fua: true }) {
            control |= FUA;
        }
        let (protection, reference) = self.protection(format);
        entry.words = [self.first as u32, (self.first >> 32) as u32, control | protection, 0, reference, 0];
        entry
    }

    /// What the controller is to do about protection information, and the tag that it begins to count from.
    fn protection(self, format: &Format) -> (u32, u32) {
        match (self.metadata, format.protection) {
            (Metadata::Callers, _) | (_, 0) => (0, 0),
            (Metadata::Controllers, 3) => (PROTECTION_ACTION | CHECK_GUARD, 0),
            (Metadata::Controllers, _) => (PROTECTION_ACTION | CHECK_GUARD | CHECK_REFERENCE, self.first as u32),
        }
    }
}

/// A command on blocks that transfers nothing: write zeroes, or verify.
pub(super) fn on_blocks(format: &Format, nsid: u32, opcode: u8, first: u64, blocks: u32) -> Entry {
    let run = Run { first, blocks, metadata: Metadata::Controllers };
    let (protection, reference) = run.protection(format);
    // Blocks of zeroes get their protection information from the controller; there is none to be checked for a verify otherwise.
    let protection = if opcode == io::WRITE_ZEROES { protection & PROTECTION_ACTION } else { protection };
    let words = [first as u32, (first >> 32) as u32, (blocks - 1) | protection, 0, reference, 0];
    Entry { words, ..Entry::new(opcode, nsid) }
}

/// A range of a dataset management command.
pub(super) fn range(first: u64, blocks: u32) -> [u8; 16] {
    let mut range = [0; 16];
    range[4..8].copy_from_slice(&blocks.to_le_bytes());
    range[8..].copy_from_slice(&first.to_le_bytes());
    range
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Format = Format { lba_size: 512, metadata_size: 0, is_extended: false, protection: 0 };

    #[test]
    fn a_read_is_as_long_as_its_blocks_say() {
        let run = Run::of_bytes(&PLAIN, 0x1_0000_0007, 4096, Metadata::Controllers).unwrap();
        let entry = run.entry(&PLAIN, 3, Transfer::Read, 0x1000, 0x2000);
        let bytes = entry.payload();
        assert_eq!(bytes[..8], [2, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(bytes[16..24], [0; 8], "no metadata, no address of any");
        assert_eq!(bytes[24..32], 0x1000_u64.to_ne_bytes());
        assert_eq!(bytes[32..40], [0, 0, 0, 0, 0, 16, 0, 0].map(|byte: u8| byte), "0 of metadata, 4096 of data");
        assert_eq!((entry.words[0], entry.words[1], entry.words[2]), (7, 1, 7));
    }

    #[test]
    fn lengths_that_are_no_blocks_are_no_runs() {
        for bytes in [0, 1, 511, 513, 512 * 65537] {
            assert_eq!(Run::of_bytes(&PLAIN, 0, bytes, Metadata::Controllers), None, "{bytes}");
        }
        assert_eq!(Run::of_bytes(&PLAIN, 0, 512 * 65536, Metadata::Controllers).unwrap().blocks, 65536);
    }

    #[test]
    fn metadata_is_as_long_as_its_blocks_say() {
        let format = Format { metadata_size: 16, ..PLAIN };
        let run = Run::of_bytes(&format, 8, 1024, Metadata::Callers).unwrap();
        let entry = run.entry(&format, 1, Transfer::Write { fua: true }, 0x1000, 0x2000);
        assert_eq!((entry.data_length, entry.metadata_length, entry.metadata), (1024, 32, 0x2000));
        assert_eq!(entry.words, [8, 0, 1 | 1 << 30, 0, 0, 0]);
        // Behind each block's data.
        let format = Format { is_extended: true, ..format };
        assert_eq!(Run::of_bytes(&format, 8, 1024, Metadata::Callers), None);
        let run = Run::of_bytes(&format, 8, 2 * 528, Metadata::Callers).unwrap();
        let entry = run.entry(&format, 1, Transfer::Write { fua: false }, 0x1000, 0x2000);
        assert_eq!((run.blocks, entry.data_length, entry.metadata_length, entry.metadata), (2, 1056, 0, 0));
    }

    #[test]
    fn protection_information_is_the_controllers_or_the_callers() {
        let format = Format { metadata_size: 8, protection: 1, ..PLAIN };
        let run = Run::of_bytes(&format, 9, 512, Metadata::Controllers).unwrap();
        let entry = run.entry(&format, 1, Transfer::Read, 0x1000, 0x2000);
        assert_eq!((entry.metadata_length, entry.metadata), (0, 0), "eight bytes are the controller's alone");
        assert_eq!(entry.words, [9, 0, 1 << 29 | 1 << 28 | 1 << 26, 0, 9, 0]);
        let run = Run { metadata: Metadata::Callers, ..run };
        let entry = run.entry(&format, 1, Transfer::Read, 0x1000, 0x2000);
        assert_eq!((entry.metadata_length, entry.words), (8, [9, 0, 0, 0, 0, 0]));
        // Larger metadata is transferred all the same.
        let format = Format { metadata_size: 64, ..format };
        let run = Run { metadata: Metadata::Controllers, ..run };
        assert_eq!(run.entry(&format, 1, Transfer::Read, 0x1000, 0x2000).metadata_length, 64);
        let zeroes = on_blocks(&format, 1, io::WRITE_ZEROES, 9, 4);
        assert_eq!((zeroes.words[2], zeroes.words[4], zeroes.data_length), (3 | 1 << 29, 9, 0));
    }

    #[test]
    fn a_range_has_its_length_before_its_place() {
        assert_eq!(range(0x0102, 3), [0, 0, 0, 0, 3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
