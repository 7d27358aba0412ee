//! Files that a ring holds for its operations.
//!
//! A registered file is an index into a table of the ring. The index must not go to another file while an operation that
//! names it has not ended, or that operation would reach the wrong file; so entries count their operations, and one whose
//! [`FixedFile`] was dropped is freed by its ring after the last.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

const FREE: u8 = 0;
const USED: u8 = 1;
/// Its `FixedFile` is gone.
const RELEASED: u8 = 2;

/// A file registered on one ring (`IOSQE_FIXED_FILE`).
///
/// The kernel holds the file: the descriptor that it was registered from may be closed. Dropping this lets the ring let
/// go of it, when the last operation ended and the ring is used again or dropped.
pub struct FixedFile {
    table: Arc<FileTable>,
    index: u32,
}

/// Which entries of a ring's table of files are taken. Only the ring's own thread (or lock) changes it, but for
/// [`FixedFile`]s that are dropped elsewhere.
pub(crate) struct FileTable {
    entries: Box<[FileEntry]>,
    any_released: AtomicBool,
}

struct FileEntry {
    state: AtomicU8,
    in_flight: AtomicU32,
}

impl FixedFile {
    pub(crate) fn new(table: Arc<FileTable>, index: u32) -> Self {
        Self { table, index }
    }

    #[inline]
    pub(crate) fn index_in(&self, table: &Arc<FileTable>) -> Option<u32> {
        Arc::ptr_eq(&self.table, table).then_some(self.index)
    }

    /// The index in the ring's table, for raw entries with `IOSQE_FIXED_FILE`.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for FixedFile {
    fn drop(&mut self) {
        self.table.entries[self.index as usize].state.store(RELEASED, Ordering::Release);
        self.table.any_released.store(true, Ordering::Release);
    }
}

impl fmt::Debug for FixedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedFile").field("index", &self.index).finish_non_exhaustive()
    }
}

impl FileTable {
    pub(crate) fn new(entries: u32) -> Self {
        let entry = |_| FileEntry { state: AtomicU8::new(FREE), in_flight: AtomicU32::new(0) };
        Self { entries: (0..entries).map(entry).collect(), any_released: AtomicBool::new(false) }
    }

    /// Takes a free entry.
    pub(crate) fn claim(&self) -> Option<u32> {
        let index = self.entries.iter().position(|entry| entry.state.load(Ordering::Relaxed) == FREE)?;
        self.entries[index].state.store(USED, Ordering::Relaxed);
        Some(index as u32)
    }

    pub(crate) fn free(&self, index: u32) {
        self.entries[index as usize].state.store(FREE, Ordering::Relaxed);
    }

    // Plain loads and stores: only the ring counts.

    #[inline]
    pub(crate) fn begin(&self, index: u32) {
        let count = &self.entries[index as usize].in_flight;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn end(&self, index: u32) {
        let entry = &self.entries[index as usize];
        let left = entry.in_flight.load(Ordering::Relaxed) - 1;
        entry.in_flight.store(left, Ordering::Relaxed);
        if left == 0 && entry.state.load(Ordering::Relaxed) == RELEASED {
            self.any_released.store(true, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn has_released(&self) -> bool {
        self.any_released.load(Ordering::Relaxed)
    }

    /// Frees the entries that were released and have nothing in flight, where `unregister` says that it worked.
    pub(crate) fn sweep(&self, mut unregister: impl FnMut(u32) -> bool) {
        // Acquires what others released before they set this.
        self.any_released.swap(false, Ordering::AcqRel);
        for (index, entry) in self.entries.iter().enumerate() {
            let is_released = entry.state.load(Ordering::Acquire) == RELEASED;
            let is_used = entry.in_flight.load(Ordering::Relaxed) != 0 && !cfg!(sysuring_break = "r1_file");
            if !is_released || is_used {
                continue;
            }
            if unregister(index as u32) {
                entry.state.store(FREE, Ordering::Relaxed);
            } else {
                self.any_released.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for FileTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTable").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}
