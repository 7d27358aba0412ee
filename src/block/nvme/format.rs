//! How a namespace is formatted.

use crate::block::nvme::entry::{MOST_BLOCKS, Metadata};

/// What the kernel maps memory in. Larger pages than this make transfers shorter than they might be, not longer.
pub(super) const PAGE: usize = 4096;

/// The format of a namespace's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Bytes of data in a logical block: a power of two.
    pub(super) lba_size: u32,
    /// Bytes of metadata that go along with each.
    pub(super) metadata_size: u32,
    /// The metadata follows each block's data in the same buffer.
    pub(super) is_extended: bool,
    /// The type of protection information, 0 for none.
    pub(super) protection: u8,
}

impl Format {
    /// Bytes of metadata of each block that are transferred.
    fn transferred(&self, metadata: Metadata) -> u32 {
        // Where it is nothing but protection information, what the controller makes it also keeps.
        let is_kept = metadata == Metadata::Controllers && self.protection != 0 && self.metadata_size == 8;
        if is_kept { 0 } else { self.metadata_size }
    }

    /// Bytes of a block in the buffer of the data.
    pub(super) fn data_size(&self, metadata: Metadata) -> u32 {
        self.lba_size + if self.is_extended { self.transferred(metadata) } else { 0 }
    }

    /// Bytes of a block in a buffer of its own for metadata.
    pub(super) fn separate_metadata(&self, metadata: Metadata) -> u32 {
        if self.is_extended { 0 } else { self.transferred(metadata) }
    }

    /// Most blocks of a command: as many as are counted, and as have metadata that fits into a page.
    ///
    /// The controller is told one address for all of the metadata. Within a page that is always good; across pages, which may lie
    /// anywhere, it would be the kernel's to copy it.
    pub(super) fn most_blocks(&self, metadata: Metadata) -> u64 {
        match self.separate_metadata(metadata) {
            0 => MOST_BLOCKS,
            bytes => (PAGE as u64 / u64::from(bytes)).max(1),
        }
    }
}
