//! Memory of our own that the kernel may write to for longer than anybody here knows.
//!
//! A mapping that is dropped is unmapped, unless an operation on it was abandoned: then it is *retired*, see
//! [`crate::pool`].

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

static RETIRED: AtomicUsize = AtomicUsize::new(0);

/// Bytes of address space that were retired.
pub(crate) fn retired_bytes() -> usize {
    RETIRED.load(Ordering::Relaxed)
}

/// A private mapping of zeroed memory, which the child of a fork sees as zeroes.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
    /// Operations that were in flight when their ring was closed.
    abandoned: AtomicU32,
}

impl Mapping {
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        map(length).map(|start| Self { start, length, abandoned: AtomicU32::new(0) })
    }

    /// The first byte.
    #[inline]
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// An operation that nobody will hear of again may still use the memory.
    pub(crate) fn abandon(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// How many operations that is.
    pub(crate) fn abandoned(&self) -> u32 {
        self.abandoned.load(Ordering::Acquire)
    }
}

fn map(length: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range is the mapping made above.
    if !cfg!(sysuring_break = "r12_wipe") && unsafe { libc::madvise(start, length, libc::MADV_WIPEONFORK) } != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: nobody but us knows this mapping.
        unsafe { libc::munmap(start, length) };
        return Err(error);
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if *self.abandoned.get_mut() == 0 || cfg!(sysuring_break = "r3_unmap") {
            // SAFETY: nobody has a handle to it, no ring has it registered, and no operation is in flight: none was
            // abandoned, and who has one in flight has a handle.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
            return;
        }
        // SAFETY: the range is our own mapping, and nobody in user space can reach it any more.
        unsafe {
            libc::mmap(
                self.start.as_ptr().cast(),
                self.length,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        // Where that fails the old mapping stays: memory is leaked then, and just as much address space. Nothing is logged: a
        // logger is somebody else's code, and this may run while a ring is locked.
        RETIRED.fetch_add(self.length, Ordering::Relaxed);
    }
}

// SAFETY: plain memory that no thread owns; who hands out pieces of it sees to it that each has one owner.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; nothing here reads or writes it.
unsafe impl Sync for Mapping {}
