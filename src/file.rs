//! Files that a ring holds for its operations.
//!
//! A registered file is an index into a table of the ring. The index must not go to another file while an operation that
//! names it has not ended, or that operation would reach the wrong file; so the ring counts the operations on each, and frees
//! one whose [`FixedFile`] was dropped after the last.

use std::fmt;
use std::sync::Arc;

use crate::sync::{AtomicBool, AtomicU8, Ordering};

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
    entries: Box<[AtomicU8]>,
    any_released: AtomicBool,
}

/// What became of an entry whose `FixedFile` is gone.
pub(crate) enum Release {
    /// The kernel has let go of the file.
    Free,
    /// Operations use it; [`FileTable::look_again`] tells when none does any more.
    InUse,
    /// To be tried again.
    Failed,
}

impl FixedFile {
    pub(crate) fn new(table: Arc<FileTable>, index: u32) -> Self {
        Self { table, index }
    }

    #[inline(always)]
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
        self.table.entries[self.index as usize].store(RELEASED, Ordering::Release);
        // Exchanged, not stored: who sees that it is set sees what everybody released who set it, not the last one only.
        self.table.any_released.swap(true, Ordering::Release);
    }
}

impl fmt::Debug for FixedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedFile").field("index", &self.index).finish_non_exhaustive()
    }
}

impl FileTable {
    pub(crate) fn new(entries: u32) -> Self {
        Self { entries: (0..entries).map(|_| AtomicU8::new(FREE)).collect(), any_released: AtomicBool::new(false) }
    }

    /// Whether it has no entries at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no entry is taken.
    pub(crate) fn is_unused(&self) -> bool {
        self.entries.iter().all(|entry| entry.load(Ordering::Acquire) == FREE)
    }

    /// Takes a free entry.
    pub(crate) fn claim(&self) -> Option<u32> {
        let index = self.entries.iter().position(|entry| entry.load(Ordering::Relaxed) == FREE)?;
        self.entries[index].store(USED, Ordering::Relaxed);
        Some(index as u32)
    }

    pub(crate) fn free(&self, index: u32) {
        self.entries[index as usize].store(FREE, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn has_released(&self) -> bool {
        self.any_released.load(Ordering::Relaxed)
    }

    /// The last operation on an entry that was released has ended.
    pub(crate) fn look_again(&self) {
        self.any_released.swap(true, Ordering::Relaxed);
    }

    /// Frees the entries that were released, where `unregister` says that it worked.
    pub(crate) fn sweep(&self, mut unregister: impl FnMut(u32) -> Release) {
        // Acquires what others released before they set this.
        self.any_released.swap(false, Ordering::AcqRel);
        for (index, state) in self.entries.iter().enumerate() {
            if state.load(Ordering::Acquire) != RELEASED {
                continue;
            }
            match unregister(index as u32) {
                Release::Free => state.store(FREE, Ordering::Relaxed),
                Release::InUse => {}
                Release::Failed => self.look_again(),
            }
        }
    }
}

impl fmt::Debug for FileTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTable").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;

    /// What a ring does before it submits. Which entries the kernel was told to forget.
    fn release(table: &FileTable) -> Vec<u32> {
        let mut released = Vec::new();
        if table.has_released() {
            table.sweep(|index| {
                released.push(index);
                Release::Free
            });
        }
        released
    }

    /// Fails where `drop` sets `any_released` before the entry, stores it instead of exchanging it, or does that Relaxed; and
    /// where `sweep` clears it after it looked.
    #[test]
    fn loom_a_file_that_is_dropped_elsewhere_is_released_once() {
        crate::sync::model(3, || {
            let table = Arc::new(FileTable::new(2));
            let files = [(); 2].map(|()| FixedFile::new(Arc::clone(&table), table.claim().unwrap()));
            let threads = files.map(|file| loom::thread::spawn(move || drop(file)));
            let mut released = release(&table);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            released.extend(release(&table));
            released.sort_unstable();
            assert_eq!(released, [0, 1]);
            assert_eq!((table.claim(), table.claim(), table.claim()), (Some(0), Some(1), None));
        });
    }

    /// One that is in use when it is dropped stays, and is not forgotten.
    ///
    /// Fails where `look_again` does not set `any_released`, or stores it: the second file is overlooked then.
    #[test]
    fn loom_a_file_in_use_is_released_later() {
        crate::sync::model(3, || {
            let table = Arc::new(FileTable::new(2));
            let files = [(); 2].map(|()| FixedFile::new(Arc::clone(&table), table.claim().unwrap()));
            let threads = files.map(|file| loom::thread::spawn(move || drop(file)));
            if table.has_released() {
                let mut in_use = false;
                table.sweep(|_| {
                    in_use = true;
                    Release::InUse
                });
                assert_eq!(table.claim(), None);
                if in_use {
                    table.look_again();
                }
            }
            let mut released = release(&table);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            released.extend(release(&table));
            released.sort_unstable();
            assert_eq!(released, [0, 1]);
        });
    }
}
