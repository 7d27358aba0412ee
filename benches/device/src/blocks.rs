//! The file that is read, and the order in which it is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
/// Blocks of the file: 512 MiB.
const FILE_BLOCKS: u64 = 1 << 17;
/// Blocks on the list: as many as the file has. A power of two.
const LIST: usize = 1 << 17;

/// The same blocks in the same order for every side: those from `start` on of a list that begins anew when it is over.
/// Shared with `baseline.c`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Blocks {
    list: *const u64,
    mask: u64,
    start: u64,
    pub(crate) count: u64,
}

// SAFETY: the list is leaked, and nobody changes it.
unsafe impl Send for Blocks {}
// SAFETY: as above.
unsafe impl Sync for Blocks {}

impl Blocks {
    /// A list of random blocks, the same in every run.
    pub(crate) fn random() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let list: Vec<u64> = (0..LIST).map(|_| random.u64(..FILE_BLOCKS)).collect();
        Self { list: list.leak().as_ptr(), mask: LIST as u64 - 1, start: 0, count: 0 }
    }

    /// Other blocks of the list.
    pub(crate) fn range(self, start: u64, count: u64) -> Self {
        Self { start, count, ..self }
    }

    #[inline]
    pub(crate) fn at(self, index: u64) -> u64 {
        let place = (self.start + index) & self.mask;
        // SAFETY: the list has `mask + 1` numbers, and lives as long as the process.
        unsafe { *self.list.add(place as usize) }
    }

    /// What the first numbers of all these blocks add up to: that of each block is its own number.
    pub(crate) fn sum(self) -> u64 {
        (0..self.count).map(|index| self.at(index)).sum()
    }
}

/// A page of memory, which O_DIRECT takes.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Page(pub(crate) [u8; BLOCK]);

impl Page {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self([0; BLOCK]))
    }
}

/// The number that a block begins with.
#[inline]
pub(crate) fn number(block: &[u8]) -> u64 {
    u64::from_ne_bytes(block[..8].try_into().expect("eight bytes"))
}

/// Where the blocks are, and whether they are reached past the page cache.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) direct: bool,
}

impl Target {
    pub(crate) fn open(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(if self.direct { libc::O_DIRECT } else { 0 })
            .open(&self.path)
            .with_context(|| format!("cannot open {}", self.path.display()))
    }
}

/// Makes the file where it is not there: all of it written, each block with its number in front.
pub(crate) fn make(path: &Path) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == FILE_BLOCKS * BLOCK as u64) {
        return Ok(());
    }
    let making = path.with_extension("making");
    let file = File::create(&making).with_context(|| format!("cannot create {}", making.display()))?;
    let mut random = fastrand::Rng::with_seed(3);
    let mut run = vec![0; 256 * BLOCK];
    for first in (0..FILE_BLOCKS).step_by(256) {
        // Nothing that could be stored in less.
        random.fill(&mut run);
        for (block, number) in run.chunks_mut(BLOCK).zip(first..) {
            block[..8].copy_from_slice(&number.to_ne_bytes());
        }
        file.write_all_at(&run, first * BLOCK as u64)?;
    }
    file.sync_all()?;
    std::fs::rename(&making, path)?;
    Ok(())
}

/// Takes the file out of the page cache, or into it.
pub(crate) fn set_cached(path: &Path, is_cached: bool) -> Result<()> {
    let file = File::open(path)?;
    if !is_cached {
        file.sync_all()?;
        // SAFETY: takes no memory of ours.
        let returned =
            unsafe { libc::posix_fadvise(std::os::fd::AsRawFd::as_raw_fd(&file), 0, 0, libc::POSIX_FADV_DONTNEED) };
        ensure!(returned == 0, "cannot take {} out of the page cache (error {returned})", path.display());
        return Ok(());
    }
    let mut run = vec![0; 256 * BLOCK];
    for first in (0..FILE_BLOCKS).step_by(256) {
        file.read_exact_at(&mut run, first * BLOCK as u64)?;
        for (block, expected) in run.chunks(BLOCK).zip(first..) {
            let found = number(block);
            let path = path.display();
            ensure!(found == expected, "block {expected} of {path} says that it is {found}; delete the file");
        }
    }
    Ok(())
}
