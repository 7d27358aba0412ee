//! Memory for transfers: leased to one owner at a time, and safe to give to the kernel.
//!
//! # Life of a slot
//!
//! A [`Pool`] is one page-aligned mapping, cut into slots of one size. A slot is in one of four places: on the free list;
//! in the hands of a [`Buf`], which is the only way to reach its bytes; inside the ring's table of operations, while the
//! kernel may read or write it (nobody has a `Buf` then); or *abandoned*, when a ring was closed with an operation in
//! flight, because closing a ring is no barrier: the kernel goes on writing.
//!
//! # What happens to abandoned memory
//!
//! The mapping lives for as long as anybody has a `Pool`, a `Buf` or a ring with the pool registered. When the last of
//! them goes, it is unmapped if nothing was abandoned, and *retired* otherwise: a mapping without access rights is put
//! over the range, and those addresses are never given back. The kernel keeps the pages that it pinned until its I/O
//! ends, and whatever it still wants to reach through the address fails in the kernel with EFAULT. Nothing waits, no
//! memory stays allocated; address space is spent, and [`Pool::retired_bytes`] counts it.
//!
//! Plain `munmap` would not do: the same addresses would soon be somebody else's memory, and operations that were not
//! started yet, and all operations on files without `read_iter`, go through the address.
//!
//! # fork
//!
//! The child of a `fork` sees the pool as zeroes (`MADV_WIPEONFORK`): no page is shared copy-on-write with an operation
//! in flight, so that what the kernel writes arrives where the parent looks, and a [`Buf`] is still memory in the child. Its
//! bytes are others than before, though, also behind a `&[u8]` that was taken from it: not to fork while such a borrow goes
//! on in the child is part of what whoever calls `fork` vouches for.

use std::fmt;
#[cfg(feature = "block")]
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::free_list::{FreeList, NO_SLOT};
use crate::mapping::{self, Mapping};

/// The kernel registers at most this much at one address.
const LARGEST_CHUNK: usize = 1 << 30;
/// What slots of at least this size are aligned to.
const PAGE: usize = 4096;

/// Equal slots of memory for transfers; a handle, cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Pool {
    pub(crate) memory: Arc<PoolMemory>,
    /// Counts the handles, apart from leases and from the rings that have the pool registered.
    pub(crate) handles: Arc<()>,
}

/// One slot of a [`Pool`], exclusively.
///
/// Dereferences to its bytes; zeroed when it is leased for the first time, and otherwise as its last owner left it.
/// Dropping it gives the slot back; forgetting it leaks the slot.
#[repr(transparent)]
pub struct Buf {
    /// In the pool's own memory, of which this counts as an owner.
    slot: NonNull<Slot>,
}

/// All that is to be known of a slot, so that a lease is one word. Made with the pool.
#[repr(C, align(32))]
pub(crate) struct Slot {
    pub(crate) address: *mut u8,
    /// [`SLOT`]: tells it from other memory that is described in such a way (`block::AlignedBuffer`).
    pub(crate) kind: u32,
    size: u32,
    memory: *const PoolMemory,
    index: u32,
    chunk: u32,
}

/// The kind of a [`Slot`].
pub(crate) const SLOT: u32 = 0;

/// The mapping, and which of its slots are free.
pub(crate) struct PoolMemory {
    mapping: Mapping,
    slot_size: usize,
    slots: u32,
    /// Slots in a chunk that is registered as one buffer: a power of two, as the shift.
    chunk_shift: u32,
    free: FreeList,
    descriptions: Box<[Slot]>,
}

impl Pool {
    /// `slots` zeroed slots of at least `slot_size` bytes.
    ///
    /// The size is rounded up to a power of two (64 at least) below a page, and to whole pages above; slots are aligned to
    /// their size, or to a page. That is enough for O_DIRECT from 512 bytes on, or 4096, as the disk asks for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for no slots, a slot size of 0 or over 1 GiB, or a total that is no `usize`;
    /// [`ErrorKind::Full`] when the kernel has no memory.
    pub fn new(slots: u32, slot_size: usize) -> Result<Self> {
        Self::in_chunks(slots, slot_size, LARGEST_CHUNK)
    }

    /// As [`Pool::new`], registered in pieces of at most so many bytes, or of one slot where that is longer.
    pub(crate) fn in_chunks(slots: u32, slot_size: usize, longest_chunk: usize) -> Result<Self> {
        if slots == 0 || slots == NO_SLOT || slot_size == 0 || slot_size > LARGEST_CHUNK {
            let message = format!(
                "a pool of {slots} slots of {slot_size} bytes; use 1 to {} slots of 1 byte to 1 GiB",
                NO_SLOT - 1
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let slot_size =
            if slot_size < PAGE { slot_size.next_power_of_two().max(64) } else { slot_size.next_multiple_of(PAGE) };
        let length = slot_size.checked_mul(slots as usize).ok_or_else(|| {
            let message = format!("a pool of {slots} slots of {slot_size} bytes is larger than memory can be");
            Error::new(ErrorKind::InvalidInput, message)
        })?;
        let mapping = Mapping::new(length)
            .map_err(|error| Error::from_io(error, format_args!("map a pool of {length} bytes")))?;
        let slots_per_chunk = (longest_chunk / slot_size).max(1) as u64;
        let no_memory = |_| Error::new(ErrorKind::Full, format!("no memory for the descriptions of {slots} slots"));
        let mut descriptions = Vec::new();
        descriptions.try_reserve_exact(slots as usize).map_err(no_memory)?;
        let free = FreeList::full(slots).map_err(no_memory)?;
        Ok(Self {
            memory: Arc::new_cyclic(|memory| PoolMemory {
                descriptions: {
                    descriptions.extend((0..slots).map(|index| Slot {
                        // SAFETY: `index` is below `slots`, so that the result lies inside of the mapping.
                        address: unsafe { mapping.start().add(index as usize * slot_size) },
                        kind: SLOT,
                        size: slot_size as u32,
                        memory: memory.as_ptr(),
                        index,
                        chunk: index >> slots_per_chunk.ilog2(),
                    }));
                    descriptions.into_boxed_slice()
                },
                mapping,
                slot_size,
                slots,
                chunk_shift: slots_per_chunk.ilog2(),
                free,
            }),
            handles: Arc::new(()),
        })
    }

    /// Takes a slot; `None` when none is free now: drop a lease, or take completions, whose operations have the others.
    #[must_use]
    pub fn lease(&self) -> Option<Buf> {
        let slot = self.memory.free.pop()?;
        // Owned by the `Buf` from here on.
        let memory = Arc::into_raw(Arc::clone(&self.memory));
        // SAFETY: `memory` lives for as long as its owner.
        let description = unsafe { &(&(*memory).descriptions)[slot as usize] };
        Some(Buf { slot: NonNull::from(description) })
    }

    /// Bytes in a slot.
    #[must_use]
    pub fn slot_size(&self) -> usize {
        self.memory.slot_size
    }

    /// Slots, leased ones included.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.memory.slots
    }

    /// Bytes of address space that this process spent on pools whose last handle went while the kernel could still use
    /// them (see the [module](self) about retiring). No memory is behind them.
    #[must_use]
    pub fn retired_bytes() -> usize {
        mapping::retired_bytes()
    }
}

impl Buf {
    /// All that it consists of, which has to become a `Buf` again.
    #[cfg(feature = "block")]
    #[inline(always)]
    pub(crate) fn into_raw(self) -> NonNull<Slot> {
        ManuallyDrop::new(self).slot
    }

    /// # Safety
    ///
    /// [`Buf::into_raw`] gave `slot`, from which no other `Buf` was made since.
    #[cfg(feature = "block")]
    #[inline(always)]
    pub(crate) unsafe fn from_raw(slot: NonNull<Slot>) -> Self {
        Self { slot }
    }

    #[inline(always)]
    fn description(&self) -> &Slot {
        // SAFETY: in the pool's memory, of which this is an owner.
        unsafe { self.slot.as_ref() }
    }

    /// The address of the first byte.
    #[inline(always)]
    pub(crate) fn address(&self) -> *mut u8 {
        self.description().address
    }

    /// Bytes in the slot.
    #[inline(always)]
    pub(crate) fn size(&self) -> u32 {
        self.description().size
    }

    /// The pool's memory: valid for as long as this, and compared otherwise.
    #[inline(always)]
    pub(crate) fn memory(&self) -> *const PoolMemory {
        self.description().memory
    }

    /// Which of the buffers that the pool is registered as holds this slot.
    #[inline(always)]
    pub(crate) fn chunk(&self) -> u32 {
        self.description().chunk
    }

    /// Gives the slot up without making it free: an operation that nobody will hear of again may still use it.
    pub(crate) fn abandon(self) {
        if cfg!(any(sysuring_break = "r3_free", sysuring_break = "r1_error")) {
            return;
        }
        let buf = std::mem::ManuallyDrop::new(self);
        // SAFETY: made by `lease`; `buf` is not dropped, so that this is the one time that its ownership ends.
        let memory = unsafe { Arc::from_raw(buf.memory()) };
        memory.mapping.abandon();
    }
}

impl PoolMemory {
    /// Whether no slot is leased or in an operation. To be relied on only when nobody can lease any more.
    pub(crate) fn is_idle(&self) -> bool {
        let mut idle = self.mapping.abandoned();
        let mut slot = self.free.first();
        while slot != NO_SLOT {
            idle += 1;
            slot = self.free.after(slot);
        }
        idle >= self.slots
    }

    /// The pieces in which the pool is registered, in the order of their indices.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = libc::iovec> + '_ {
        let bytes = self.slot_size << self.chunk_shift;
        (0..self.mapping.length()).step_by(bytes).map(move |offset| libc::iovec {
            // SAFETY: `offset` is below the length of the mapping.
            iov_base: unsafe { self.mapping.start().add(offset) }.cast(),
            iov_len: bytes.min(self.mapping.length() - offset),
        })
    }

    /// How many pieces there are.
    pub(crate) fn chunk_count(&self) -> u32 {
        self.slots.div_ceil(1 << self.chunk_shift)
    }

    /// Which chunk holds all of `length` bytes at `address`; `None` where they are not of this pool or straddle two.
    #[cfg(any(test, feature = "block"))]
    #[inline]
    pub(crate) fn chunk_of(&self, address: *const u8, length: usize) -> Option<u32> {
        let offset = address.addr().wrapping_sub(self.mapping.start().addr());
        if offset >= self.mapping.length() || length > self.mapping.length() - offset || length == 0 {
            return None;
        }
        let chunk_bytes = self.slot_size << self.chunk_shift;
        if self.mapping.length() <= chunk_bytes {
            // One chunk, as nearly always: no division for each transfer.
            return Some(0);
        }
        let (first, last) = (offset / chunk_bytes, (offset + length - 1) / chunk_bytes);
        (first == last).then_some(first as u32)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        give_back(self.slot);
    }
}

/// Ends the ownership of a `Buf`. Out of line and by value: leases that are not dropped stay in registers.
#[inline(never)]
fn give_back(slot: NonNull<Slot>) {
    // SAFETY: the pool's memory is there until `memory` is dropped below.
    let (memory, index) = unsafe { (slot.as_ref().memory, slot.as_ref().index) };
    // SAFETY: made by `lease`, and ended once: where the `Buf` is dropped.
    let memory = unsafe { Arc::from_raw(memory) };
    memory.free.push(index);
}

// SAFETY: a `Buf` is the only way to its slot's bytes, whichever thread has it, and the pool is made for threads to share.
unsafe impl Send for Buf {}
// SAFETY: shared, a `Buf` gives its bytes to be read only.
unsafe impl Sync for Buf {}
// SAFETY: a description is never changed, and names memory that the pool hands out one owner a slot.
unsafe impl Send for Slot {}
// SAFETY: as for `Send`.
unsafe impl Sync for Slot {}

impl Deref for Buf {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `slot_size` initialised bytes inside the mapping, of which this is an owner; this `Buf` is their only
        // owner, and the kernel has none of them while it exists.
        unsafe { slice::from_raw_parts(self.address(), self.size() as usize) }
    }
}

impl DerefMut for Buf {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, borrowed exclusively as `self` is.
        unsafe { slice::from_raw_parts_mut(self.address(), self.size() as usize) }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("slots", &self.slots()).field("slot_size", &self.slot_size()).finish()
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf").field("slot", &self.description().index).field("bytes", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_leased_once_and_come_back() {
        let pool = Pool::new(3, 100).unwrap();
        assert_eq!(pool.slot_size(), 128);
        let mut leases: Vec<Buf> = std::iter::from_fn(|| pool.lease()).collect();
        assert_eq!(leases.len(), 3);
        for (value, buf) in leases.iter_mut().enumerate() {
            buf.fill(value as u8 + 1);
        }
        for (value, buf) in leases.iter().enumerate() {
            assert!(buf.iter().all(|byte| *byte == value as u8 + 1));
        }
        leases.pop();
        assert!(pool.lease().is_some());
    }

    #[test]
    fn many_threads_never_share_a_slot() {
        let pool = Pool::new(4, 64).unwrap();
        std::thread::scope(|scope| {
            for id in 1..=4_u8 {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let Some(mut buf) = pool.lease() else { continue };
                        buf.fill(id);
                        assert!(buf.iter().all(|byte| *byte == id));
                    }
                });
            }
        });
        let leases: Vec<Buf> = std::iter::from_fn(|| pool.lease()).collect();
        assert_eq!(leases.len(), 4);
    }

    #[test]
    fn a_pool_with_abandoned_slots_is_retired_when_its_last_handle_goes() {
        let before = Pool::retired_bytes();
        let pool = Pool::new(2, 4096).unwrap();
        let other = pool.lease().unwrap();
        pool.lease().unwrap().abandon();
        let address = other.address();
        drop(pool);
        assert!(other.iter().all(|byte| *byte == 0), "a lease outlives the pool");
        drop(other);
        assert!(Pool::retired_bytes() >= before + 8192);
        // SAFETY: asks about an address; a range that is mapped, access or none, gives 0.
        let mapped = unsafe { libc::msync(address.map_addr(|address| address & !4095).cast(), 4096, libc::MS_ASYNC) };
        assert_eq!(mapped, 0, "the address was given back");
    }

    #[test]
    fn chunks_cover_the_pool_and_no_slot_straddles_two() {
        // Not touched, so that no memory is behind it: 3 slots of 600 MiB are 3 chunks of one slot each.
        let pool = Pool::new(3, 600 << 20).unwrap();
        let chunks: Vec<libc::iovec> = pool.memory.chunks().collect();
        assert_eq!(chunks.len(), 3);
        assert_eq!(pool.memory.chunk_count(), 3);
        let by_slot = Pool::in_chunks(5, 8192, 8192).unwrap();
        assert_eq!((by_slot.memory.chunk_count(), by_slot.memory.chunks().count()), (5, 5));
        assert!(by_slot.memory.chunks().all(|chunk| chunk.iov_len == 8192));
        assert_eq!(chunks.iter().map(|chunk| chunk.iov_len).sum::<usize>(), 3 * (600 << 20));
        let buf = (pool.lease(), pool.lease()).1.unwrap();
        assert_eq!(buf.chunk(), 1);
        assert_eq!(pool.memory.chunk_of(buf.address(), 600 << 20), Some(1));
        assert_eq!(pool.memory.chunk_of(buf.address(), (600 << 20) + 1), None);
        assert_eq!(pool.memory.chunk_of([0_u8].as_ptr(), 1), None);
    }
}
