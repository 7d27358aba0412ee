//! The units of a target, and what it can do.

use std::fmt;

/// What alignment is where nothing tells: a page, on every platform that we know.
const PAGE: u32 = 4096;

/// The units and the size of what a device is on, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// Size of the target, its last incomplete block included.
    pub bytes: u64,
    /// A disk, not a file.
    pub is_disk: bool,
    /// The smallest unit that can be transferred: 1 for a file that is used through the page cache.
    pub logical_block: u32,
    /// The smallest unit that the disk or the file system writes without reading first.
    pub physical_block: u32,
    /// What a transfer should be a multiple of to be fast, where the disk or the file system says so.
    pub optimal_transfer: Option<u32>,
    /// The longest transfer that reaches the disk as one, where it is known. Longer ones are split by the kernel.
    pub max_transfer: Option<u64>,
    /// What addresses in memory must be multiples of to be used without a copy.
    pub memory_alignment: u32,
    /// Who told the alignment.
    pub alignment_from: AlignmentFrom,
}

/// Who told what the alignment of transfers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlignmentFrom {
    /// There is none: the page cache takes everything.
    PageCache,
    /// `statx` (STATX_DIOALIGN, since Linux 6.1).
    Statx,
    /// The disk's logical block size (the ioctl BLKSSZGET).
    BlockSize,
    /// What NVMe controllers take, where commands are passed through.
    Controller,
    /// Nobody; a page is enough everywhere.
    Page,
}

impl fmt::Display for AlignmentFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PageCache => "the page cache",
            Self::Statx => "statx",
            Self::BlockSize => "BLKSSZGET",
            Self::Controller => "the controller",
            Self::Page => "nobody, a page is assumed",
        })
    }
}

/// What O_DIRECT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alignment {
    pub(super) memory: u32,
    /// Of offsets and lengths.
    pub(super) offset: u32,
    pub(super) from: AlignmentFrom,
}

impl Alignment {
    pub(super) const NONE: Self = Self { memory: 1, offset: 1, from: AlignmentFrom::PageCache };

    /// The first that is known of what `statx` said of addresses and offsets, the logical block size, and a page.
    #[cfg_attr(windows, allow(dead_code))]
    pub(super) fn pick(statx: Option<(u32, u32)>, logical_block: Option<u32>) -> Self {
        match (statx, logical_block) {
            // A file system that has no direct I/O of its own says 0, even where it takes the flag.
            (Some((memory @ 1.., offset @ 1..)), logical) if memory.is_power_of_two() => {
                Self { memory, offset: offset.max(logical.unwrap_or(1)), from: AlignmentFrom::Statx }
            }
            (_, Some(logical)) if logical.is_power_of_two() => {
                Self { memory: logical, offset: logical, from: AlignmentFrom::BlockSize }
            }
            _ => Self { memory: PAGE, offset: PAGE, from: AlignmentFrom::Page },
        }
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, logical_block, physical_block, memory_alignment, alignment_from, .. } = self;
        let what = if self.is_disk { "disk" } else { "file" };
        write!(f, "{what} of {bytes} bytes; blocks of {logical_block} (logical) and {physical_block} (physical); ")?;
        write!(f, "memory aligned to {memory_alignment} (from {alignment_from})")?;
        if let Some(optimal) = self.optimal_transfer {
            write!(f, "; best in multiples of {optimal}")?;
        }
        self.max_transfer.map_or(Ok(()), |longest| write!(f, "; up to {longest} at once"))
    }
}

/// What a device can do beyond reading, writing and flushing; known when it was opened.
///
/// What is `false` here is an [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) that nobody has to run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Writes: the device was not opened for reading only.
    pub write: bool,
    /// [`discard`](crate::block::BlockDevice::discard): the target can give up storage.
    pub discard: bool,
    /// [`resize`](crate::block::BlockDevice::resize): the target is a file.
    pub resize: bool,
    /// A durable write is one operation of the kernel, which uses the disk's FUA where it has it; elsewhere it is a write and
    /// a flush.
    pub native_fua: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            (self.write, "write"),
            (self.discard, "discard"),
            (self.resize, "resize"),
            (self.native_fua, "durable writes in one operation"),
        ];
        let (can, cannot): (Vec<_>, Vec<_>) = known.into_iter().partition(|(can, _)| *can);
        let list = |what: &[(bool, &'static str)]| what.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
        match (can.as_slice(), cannot.as_slice()) {
            (can, []) => write!(f, "can {}", list(can)),
            ([], cannot) => write!(f, "cannot {}", list(cannot)),
            (can, cannot) => write!(f, "can {}; cannot {}", list(can), list(cannot)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_comes_from_the_first_that_knows() {
        let picked = |statx, logical| {
            let Alignment { memory, offset, from } = Alignment::pick(statx, logical);
            (memory, offset, from)
        };
        assert_eq!(picked(Some((4, 512)), Some(4096)), (4, 4096, AlignmentFrom::Statx));
        assert_eq!(picked(Some((512, 512)), None), (512, 512, AlignmentFrom::Statx));
        assert_eq!(picked(Some((0, 0)), Some(512)), (512, 512, AlignmentFrom::BlockSize));
        assert_eq!(picked(None, Some(4096)), (4096, 4096, AlignmentFrom::BlockSize));
        assert_eq!(picked(Some((0, 0)), None), (PAGE, PAGE, AlignmentFrom::Page));
        assert_eq!(picked(None, None), (PAGE, PAGE, AlignmentFrom::Page));
    }
}
