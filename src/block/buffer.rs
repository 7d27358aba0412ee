//! Memory with the alignment that a device wants.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
#[cfg(uring)]
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
#[cfg(uring)]
use crate::pool::Buf;

/// Zeroed bytes at an aligned address.
///
/// One that a device gives ([`crate::block::BlockDevice::aligned_buffer`]) may be a lease of the memory that the device has
/// registered with the kernel, which makes transfers cheaper still; dropping it gives the lease back. In the child of a `fork`
/// such a lease reads as zeroes.
pub struct AlignedBuffer(Memory);

enum Memory {
    Heap(Heap),
    #[cfg(uring)]
    Lease {
        buf: Buf,
        bytes: usize,
        _lent: Option<Arc<()>>,
    },
}

struct Heap {
    start: NonNull<u8>,
    layout: Layout,
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
        Ok(Self(Memory::Heap(Heap { start, layout })))
    }

    /// As [`AlignedBuffer::new`], for transfers: what is a page or more begins with one, or it would be in one page more.
    pub(crate) fn for_transfers(bytes: usize, alignment: usize) -> Result<Self> {
        const PAGE: usize = 4096;

        Self::new(bytes, if bytes < PAGE { alignment } else { alignment.max(PAGE) })
    }

    /// The first `bytes` of a lease, as they are; `lent` counts such leases, where somebody wants to know how many there are.
    #[cfg(uring)]
    pub(crate) fn of_lease(buf: Buf, bytes: usize, lent: Option<Arc<()>>) -> Self {
        debug_assert!(bytes <= buf.len());
        Self(Memory::Lease { buf, bytes, _lent: lent })
    }

    /// The lease, where it is one.
    #[cfg(uring)]
    #[inline]
    pub(crate) fn lease(&self) -> Option<&Buf> {
        match &self.0 {
            Memory::Heap(_) => None,
            Memory::Lease { buf, .. } => Some(buf),
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and given up only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

// SAFETY: the bytes belong to this value alone, as a box's would.
unsafe impl Send for Heap {}
// SAFETY: shared references only read.
unsafe impl Sync for Heap {}

impl Deref for AlignedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: `layout.size()` initialised bytes start here, borrowed as `self` is.
            Memory::Heap(heap) => unsafe { slice::from_raw_parts(heap.start.as_ptr(), heap.layout.size()) },
            #[cfg(uring)]
            Memory::Lease { buf, bytes, .. } => &buf[..*bytes],
        }
    }
}

impl DerefMut for AlignedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            // SAFETY: as for `deref`, borrowed exclusively as `self` is.
            Memory::Heap(heap) => unsafe { slice::from_raw_parts_mut(heap.start.as_ptr(), heap.layout.size()) },
            #[cfg(uring)]
            Memory::Lease { buf, bytes, .. } => &mut buf[..*bytes],
        }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("bytes", &self.len()).finish_non_exhaustive()
    }
}
