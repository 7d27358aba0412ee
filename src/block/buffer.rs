//! Memory with the alignment that a device wants.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
#[cfg(uring)]
use crate::pool::Buf;

/// Zeroed bytes at an aligned address.
///
/// One that a device gives ([`crate::block::BlockDevice::aligned_buffer`]) may be a lease of the memory that the device has
/// registered with the kernel, which makes transfers cheaper still; dropping it gives the lease back. In the child of a `fork`
/// such a lease reads as zeroes.
pub struct AlignedBuffer {
    /// All of it: nobody has to ask whose it is before it is used.
    start: NonNull<u8>,
    bytes: usize,
    owner: Owner,
    /// Shared by several of which somebody wants to know how many there are.
    count: Option<Arc<()>>,
}

/// Whose the memory is.
enum Owner {
    /// The allocator's.
    Heap { alignment: usize },
    /// The pool's.
    #[cfg(uring)]
    Lease(Buf),
}

impl AlignedBuffer {
    /// `bytes` zeroed bytes at an address that is a multiple of `alignment`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when `bytes` is 0 or `alignment` no power of two, [`ErrorKind::Full`] when there is no
    /// memory.
    pub fn new(bytes: usize, alignment: usize) -> Result<Self> {
        if bytes == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "a buffer of 0 bytes; ask for at least 1"));
        }
        let layout = Layout::from_size_align(bytes, alignment).map_err(|_| {
            let message = format!("no buffer of {bytes} bytes can be aligned to {alignment}");
            Error::new(ErrorKind::InvalidInput, message)
        })?;
        // SAFETY: the size of the layout is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })
            .ok_or_else(|| Error::new(ErrorKind::Full, format!("no memory for a buffer of {bytes} bytes")))?;
        Ok(Self { start, bytes, owner: Owner::Heap { alignment }, count: None })
    }

    /// As [`AlignedBuffer::new`], for transfers: what is a page or more begins with one, or it would be in one page more.
    pub(crate) fn for_transfers(bytes: usize, alignment: usize) -> Result<Self> {
        const PAGE: usize = 4096;

        Self::new(bytes, if bytes < PAGE { alignment } else { alignment.max(PAGE) })
    }

    /// The same, as one of those that share `count`.
    pub(crate) fn counted(mut self, count: &Arc<()>) -> Self {
        self.count = Some(Arc::clone(count));
        self
    }

    /// The first `bytes` of a lease, as they are.
    #[cfg(uring)]
    pub(crate) fn of_lease(buf: Buf, bytes: usize) -> Self {
        assert!(bytes <= buf.size() as usize);
        let start = NonNull::new(buf.address()).expect("slots are mapped");
        Self { start, bytes, owner: Owner::Lease(buf), count: None }
    }

    /// Where it begins, to be read and written through by whoever owns it.
    #[cfg(uring)]
    #[inline(always)]
    pub(crate) fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The lease, where it is one.
    #[cfg(uring)]
    #[inline]
    pub(crate) fn lease(&self) -> Option<&Buf> {
        match &self.owner {
            Owner::Heap { .. } => None,
            Owner::Lease(buf) => Some(buf),
        }
    }
}

impl Drop for AlignedBuffer {
    #[inline]
    fn drop(&mut self) {
        match self.owner {
            Owner::Heap { alignment } => {
                // SAFETY: it was a layout in `new`, with which this was allocated, and it is given up only here.
                unsafe { dealloc(self.start.as_ptr(), Layout::from_size_align_unchecked(self.bytes, alignment)) }
            }
            // The lease gives it back.
            #[cfg(uring)]
            Owner::Lease(_) => {}
        }
    }
}

// SAFETY: the bytes belong to this value alone, as a box's would; a lease may go anywhere as well.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBuffer {}

impl Deref for AlignedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: so many initialised bytes start here, of an allocation or of a slot that `owner` keeps, and nobody has another
        // reference to them: borrowed as `self` is.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, borrowed exclusively as `self` is.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("bytes", &self.len()).finish_non_exhaustive()
    }
}
