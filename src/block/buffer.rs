//! Memory with the alignment that a device wants.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
#[cfg(uring)]
use std::mem::offset_of;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
#[cfg(uring)]
use crate::pool::{Buf, SLOT, Slot};
#[cfg(uring)]
use crate::thread_rings::PoolGivenUp;

/// There are no pools.
#[cfg(not(uring))]
const SLOT: u32 = 0;

/// Zeroed bytes at an aligned address.
///
/// One that a device gives ([`crate::block::BlockDevice::aligned_buffer`]) may be a lease of the memory that the device has
/// registered with the kernel, which makes transfers cheaper still; dropping it gives the lease back. In the child of a `fork`
/// such a lease reads as zeroes.
///
/// Two words, so that it is handed on in registers: queues and futures move their buffers in and out all the time.
pub struct AlignedBuffer {
    /// Begins what there is to be known of the memory, and what owns it: a [`Slot`] of a pool, a [`Heap`] or a [`Lent`], as its
    /// kind says. Nobody has to ask which before the memory is used.
    owner: NonNull<Head>,
    bytes: usize,
}

/// What every owner begins with.
#[repr(C)]
struct Head {
    address: *mut u8,
    kind: u32,
}

/// The kind of a [`Heap`]; a slot of a pool has [`SLOT`].
const HEAP: u32 = SLOT + 1;
/// The kind of a [`Lent`].
#[cfg(uring)]
const LENT: u32 = SLOT + 2;

/// Memory of the allocator.
#[repr(C)]
struct Heap {
    head: Head,
    alignment: usize,
    /// Shared by several of which somebody wants to know how many there are.
    count: Option<Arc<()>>,
}

/// A lease that is counted.
#[cfg(uring)]
#[repr(C)]
struct Lent {
    head: Head,
    buf: Buf,
    /// After the lease.
    _count: Arc<PoolGivenUp>,
}

/// A slot begins as the others do.
#[cfg(uring)]
const _: () = {
    assert!(offset_of!(Slot, address) == offset_of!(Head, address));
    assert!(offset_of!(Slot, kind) == offset_of!(Head, kind));
    assert!(size_of::<Slot>() >= size_of::<Head>());
};

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
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() {
            return Err(Error::new(ErrorKind::Full, format!("no memory for a buffer of {bytes} bytes")));
        }
        let heap = Box::new(Heap { head: Head { address, kind: HEAP }, alignment, count: None });
        Ok(Self { owner: NonNull::from(Box::leak(heap)).cast(), bytes })
    }

    /// As [`AlignedBuffer::new`], for transfers: what is a page or more begins with one, or it would be in one page more.
    pub(crate) fn for_transfers(bytes: usize, alignment: usize) -> Result<Self> {
        const PAGE: usize = 4096;

        Self::new(bytes, if bytes < PAGE { alignment } else { alignment.max(PAGE) })
    }

    /// The same, as one of those that share `count`. Not a lease.
    pub(crate) fn counted(mut self, count: &Arc<()>) -> Self {
        if let Some(heap) = self.heap() {
            heap.count = Some(Arc::clone(count));
        }
        self
    }

    /// The first `bytes` of a lease, as they are.
    #[cfg(uring)]
    pub(crate) fn of_lease(buf: Buf, bytes: usize) -> Self {
        assert!(bytes <= buf.size() as usize);
        Self { owner: buf.into_raw().cast(), bytes }
    }

    /// As [`AlignedBuffer::of_lease`], as one of those that share `count`.
    #[cfg(uring)]
    pub(crate) fn of_counted_lease(buf: Buf, bytes: usize, count: &Arc<PoolGivenUp>) -> Self {
        assert!(bytes <= buf.size() as usize);
        let head = Head { address: buf.address(), kind: LENT };
        let lent = Box::new(Lent { head, buf, _count: Arc::clone(count) });
        Self { owner: NonNull::from(Box::leak(lent)).cast(), bytes }
    }

    /// Where it begins, to be read and written through by whoever owns it.
    #[inline(always)]
    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: every owner begins with a head, and lives until this is dropped. Fields are read by themselves, since what is
        // behind them is not the same everywhere.
        unsafe { (*self.owner.as_ptr()).address }
    }

    #[inline(always)]
    fn kind(&self) -> u32 {
        // SAFETY: as for `address`.
        unsafe { (*self.owner.as_ptr()).kind }
    }

    fn heap(&mut self) -> Option<&mut Heap> {
        // SAFETY: what is of that kind was made from a box of it, which is this buffer's alone.
        (self.kind() == HEAP).then(|| unsafe { self.owner.cast().as_mut() })
    }

    /// The lease, where it is one.
    #[cfg(uring)]
    #[inline]
    pub(crate) fn lease(&self) -> Option<&Buf> {
        match self.kind() {
            // SAFETY: the pointer is all that a `Buf` consists of, and came from one.
            SLOT => Some(unsafe { &*(&raw const self.owner).cast() }),
            // SAFETY: what is of that kind was made from a box of it, which lives until this is dropped.
            LENT => Some(unsafe { &(*self.owner.cast::<Lent>().as_ptr()).buf }),
            _ => None,
        }
    }
}

impl Drop for AlignedBuffer {
    #[inline]
    fn drop(&mut self) {
        match self.kind() {
            // SAFETY: it came from a lease, and is given up only here.
            #[cfg(uring)]
            SLOT => drop(unsafe { Buf::from_raw(self.owner.cast()) }),
            // SAFETY: made from a box of that kind, and given up only here.
            #[cfg(uring)]
            LENT => drop(unsafe { Box::from_raw(self.owner.cast::<Lent>().as_ptr()) }),
            _ => {
                // SAFETY: as above, and there is no other kind.
                let heap = unsafe { Box::from_raw(self.owner.cast::<Heap>().as_ptr()) };
                // SAFETY: it was a layout in `new`, with which this was allocated, and it is given up only here.
                unsafe {
                    dealloc(heap.head.address, Layout::from_size_align_unchecked(self.bytes, heap.alignment));
                }
            }
        }
    }
}

// SAFETY: the bytes belong to this value alone, as a box's would; a lease may go anywhere as well, and a count.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared references only read.
unsafe impl Sync for AlignedBuffer {}

impl Deref for AlignedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: so many initialised bytes start here, of an allocation or of a slot that the owner keeps, and nobody has another
        // reference to them: borrowed as `self` is.
        unsafe { slice::from_raw_parts(self.address(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, borrowed exclusively as `self` is.
        unsafe { slice::from_raw_parts_mut(self.address(), self.bytes) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("bytes", &self.len()).finish_non_exhaustive()
    }
}
