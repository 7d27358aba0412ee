//! Buffers that the kernel picks by itself, when there is something to put into them.
//!
//! # Life of a buffer
//!
//! [`Ring::provide_buffers`] makes a group of equal buffers and gives all of them to the kernel. A receiving operation on the
//! group takes one for each of its results, which hands it to the caller as a [`ProvidedBuf`]; dropping that marks it as
//! returned, from whatever thread, and the ring gives it to the kernel again with the next submit or look at completions.
//!
//! Where the group is *incremental*, the kernel puts several results into one buffer, one behind the other. Such a buffer has
//! several owners, of a piece each; the kernel counts as one of them until it says that it is through, and the buffer is
//! returned with the last.
//!
//! The memory belongs to the operations in flight as well: where a ring is dropped before they ended, it is retired, as that
//! of a [`Pool`](crate::Pool) is.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use liburing_sys as sys;

use crate::error::{Error, ErrorKind, Result, check};
use crate::free_list::{FreeList, NO_SLOT};
use crate::mapping::Mapping;
use crate::raw_ring::RawRing;

/// The most buffers that a group can have.
const MOST_BUFFERS: u16 = 1 << 15;
/// Groups that a ring can have at once.
const MOST_GROUPS: usize = 1 << 10;
/// `IORING_CQE_F_BUF_MORE`: the kernel goes on with the same buffer.
const BUFFER_MORE: u32 = 1 << 4;
/// `IOU_PBUF_RING_INC`.
const INCREMENTAL: u16 = 2;

/// A group of buffers on one ring; see [`Ring::provide_buffers`](crate::Ring::provide_buffers).
#[derive(Clone)]
pub struct ProvidedBuffers {
    pub(crate) memory: Arc<ProvidedMemory>,
}

/// The memory of a group, and which of its buffers wait to be given to the kernel again.
pub(crate) struct ProvidedMemory {
    /// All buffers.
    buffers: Mapping,
    /// The ring in which they are offered to the kernel.
    ring: Mapping,
    size: u32,
    count: u16,
    group: u16,
    is_incremental: bool,
    /// The buffers that were returned. Those of one result are linked in it, too.
    returned: FreeList,
    /// Who owns a piece of the buffer: each [`ProvidedBuf`], and the kernel.
    owners: Box<[AtomicU32]>,
}

impl ProvidedMemory {
    #[inline]
    fn address(&self, buffer: u32) -> *mut u8 {
        // SAFETY: `buffer` is below `count`, so that the result lies inside of the mapping.
        unsafe { self.buffers.start().add(buffer as usize * self.size as usize) }
    }

    /// One owner is gone.
    fn release(&self, buffer: u32) {
        if self.owners[buffer as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
            self.returned.push(buffer);
        }
    }

    /// Which of the ring's groups it is.
    pub(crate) fn group(&self) -> u16 {
        self.group
    }

    /// An operation on the group will not be heard of again.
    pub(crate) fn abandon(&self) {
        self.buffers.abandon();
        self.ring.abandon();
    }
}

/// What a ring knows of one of its groups.
struct Group {
    memory: Arc<ProvidedMemory>,
    /// How much of each buffer results have had, where the group is incremental.
    filled: Box<[u32]>,
    /// The buffers in the order in which the kernel takes them, by their place in its ring.
    order: Box<[u16]>,
    /// Where in that order each buffer is.
    place: Box<[u16]>,
    /// Where the next one goes.
    tail: u16,
}

/// The groups of a ring.
#[derive(Default)]
pub(crate) struct Groups(Vec<Option<Group>>);

impl Groups {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(
        &mut self,
        raw_ring: &mut RawRing,
        count: u16,
        size: u32,
        is_incremental: bool,
    ) -> Result<ProvidedBuffers> {
        raw_ring.check_usable()?;
        let bytes = usize::from(count).checked_mul(size as usize);
        let Some(bytes) = bytes.filter(|bytes| *bytes > 0 && count.is_power_of_two() && count <= MOST_BUFFERS) else {
            let message = format!(
                "a group of {count} buffers of {size} bytes; use a power of two up to {MOST_BUFFERS} of 1 byte at least"
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        let map = |bytes| {
            Mapping::new(bytes).map_err(|error| Error::from_io(error, format_args!("map {bytes} bytes of buffers")))
        };
        let (buffers, ring) = (map(bytes)?, map(usize::from(count) * size_of::<sys::io_uring_buf>())?);
        let free = self.register_somewhere(raw_ring, &ring, count, is_incremental)?;
        let memory = Arc::new(ProvidedMemory {
            buffers,
            ring,
            size,
            count,
            group: free as u16,
            is_incremental,
            returned: FreeList::empty(count.into()),
            owners: (0..count).map(|_| AtomicU32::new(0)).collect(),
        });
        let mut group = Group {
            filled: vec![0; count.into()].into(),
            order: vec![0; count.into()].into(),
            place: vec![0; count.into()].into(),
            tail: 0,
            memory: Arc::clone(&memory),
        };
        for buffer in 0..count {
            group.offer(buffer, buffer);
        }
        group.publish(count);
        if self.0.len() <= free {
            self.0.resize_with(free + 1, || None);
        }
        self.0[free] = Some(group);
        Ok(ProvidedBuffers { memory })
    }

    /// Registers a ring of buffers under the first number that is neither ours nor the raw interface's.
    fn register_somewhere(
        &self,
        raw_ring: &mut RawRing,
        ring: &Mapping,
        count: u16,
        is_incremental: bool,
    ) -> Result<usize> {
        for number in 0..MOST_GROUPS {
            if self.0.get(number).is_some_and(Option::is_some) {
                continue;
            }
            match register(raw_ring, ring, count, is_incremental, number as u16) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                registered => return registered.map(|()| number),
            }
        }
        let message = format!("the ring has {MOST_GROUPS} groups of buffers already; remove one");
        Err(Error::new(ErrorKind::Full, message))
    }

    /// Whether the group is this ring's.
    pub(crate) fn has(&self, buffers: &ProvidedBuffers) -> bool {
        let known = self.0.get(usize::from(buffers.memory.group)).and_then(Option::as_ref);
        known.is_some_and(|group| Arc::ptr_eq(&group.memory, &buffers.memory))
    }

    pub(crate) fn remove(&mut self, raw_ring: &mut RawRing, is_idle: bool, buffers: ProvidedBuffers) -> Result<()> {
        raw_ring.check_usable()?;
        if !self.has(&buffers) {
            return Err(Error::new(ErrorKind::ForeignPool, "the buffers are another ring's, or were removed already"));
        }
        if !is_idle {
            let message = "operations are in flight on the ring; wait for them before a group of buffers is removed";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // SAFETY: the ring is set up and ours.
        let returned = unsafe { sys::io_uring_unregister_buf_ring(raw_ring.raw(), buffers.memory.group.into()) };
        check(returned, "remove a group of buffers")?;
        self.0[usize::from(buffers.memory.group)] = None;
        Ok(())
    }

    /// Gives the kernel what was returned since.
    #[inline]
    pub(crate) fn offer_returned(&mut self) {
        for group in self.0.iter_mut().flatten() {
            if !group.memory.returned.is_empty() {
                group.offer_returned();
            }
        }
    }

    /// The buffers of a result; `None` where the kernel took none.
    ///
    /// To be asked once for each CQE, in their order: what an incremental group has left depends on it.
    pub(crate) fn received(&mut self, group: u16, result: i32, flags: u32, is_bundle: bool) -> Option<Received> {
        if flags & sys::IORING_CQE_F_BUFFER == 0 {
            return None;
        }
        let group = self.0.get_mut(usize::from(group))?.as_mut()?;
        let buffer = flags >> sys::IORING_CQE_BUFFER_SHIFT;
        group.received(buffer, u32::try_from(result).unwrap_or(0), flags, is_bundle)
    }
}

fn register(raw_ring: &mut RawRing, ring: &Mapping, count: u16, is_incremental: bool, group: u16) -> Result<()> {
    // SAFETY: all zeroes is a value of this C structure.
    let mut registration = unsafe { std::mem::zeroed::<sys::io_uring_buf_reg>() };
    registration.ring_addr = ring.start().expose_provenance() as u64;
    registration.ring_entries = count.into();
    registration.bgid = group;
    if is_incremental {
        // The last two of its first 16 bytes, which older headers call padding.
        // SAFETY: within the structure.
        unsafe { (&raw mut registration).cast::<u16>().add(7).write(INCREMENTAL) };
    }
    // SAFETY: the ring is set up and ours; the memory is mapped for as long as the group is registered, and where an
    // operation may use it later than that, it is retired.
    let returned = unsafe { sys::io_uring_register_buf_ring(raw_ring.raw(), &raw mut registration, 0) };
    if returned == -libc::EINVAL {
        let since = if is_incremental { "incremental buffers (since 6.12)" } else { "buffer rings (since 5.19)" };
        return Err(Error::new(ErrorKind::Unsupported, format!("the kernel has no {since}")));
    }
    check(returned, "register a group of buffers").map(|_| ())
}

impl Group {
    /// Puts a buffer into the kernel's ring, `ahead` of the tail.
    fn offer(&mut self, buffer: u16, ahead: u16) {
        let mask = self.memory.count - 1;
        let place = self.tail.wrapping_add(ahead) & mask;
        self.order[usize::from(place)] = buffer;
        self.place[usize::from(buffer)] = place;
        self.filled[usize::from(buffer)] = 0;
        self.memory.owners[usize::from(buffer)].store(1, Ordering::Relaxed);
        // SAFETY: the mapping is a ring of `count` entries, of which the kernel reads only those below the tail that
        // `publish` sets; the buffer is whole, and nobody has it.
        unsafe {
            sys::io_uring_buf_ring_add(
                self.memory.ring.start().cast(),
                self.memory.address(buffer.into()).cast(),
                self.memory.size,
                buffer,
                mask.into(),
                ahead.into(),
            );
        }
    }

    fn publish(&mut self, count: u16) {
        self.tail = self.tail.wrapping_add(count);
        // SAFETY: as many entries were filled in.
        unsafe { sys::io_uring_buf_ring_advance(self.memory.ring.start().cast(), count.into()) };
    }

    fn offer_returned(&mut self) {
        let (mut buffer, mut count) = (self.memory.returned.take_all(), 0);
        while buffer != NO_SLOT {
            let next = self.memory.returned.after(buffer);
            self.offer(buffer as u16, count);
            count += 1;
            buffer = next;
        }
        self.publish(count);
    }

    fn received(&mut self, buffer: u32, length: u32, flags: u32, is_bundle: bool) -> Option<Received> {
        let memory = &self.memory;
        let size = memory.size;
        let filled = self.filled.get_mut(buffer as usize)?;
        if memory.is_incremental {
            let offset = *filled;
            let length = length.min(size - offset);
            *filled += length;
            if flags & BUFFER_MORE != 0 {
                memory.owners[buffer as usize].fetch_add(1, Ordering::Relaxed);
            }
            return Some(Received::new(memory, buffer, offset, length, 1));
        }
        if !is_bundle {
            // A result can be larger than the buffer: MSG_TRUNC says how long a datagram was.
            return Some(Received::new(memory, buffer, 0, length.min(size), 1));
        }
        let buffers = length.div_ceil(size).clamp(1, memory.count.into());
        let mut last = buffer;
        for ahead in 1..buffers as u16 {
            let place = self.place[buffer as usize].wrapping_add(ahead) & (memory.count - 1);
            let next = u32::from(self.order[usize::from(place)]);
            memory.returned.link(last, next);
            last = next;
        }
        Some(Received::new(memory, buffer, 0, length, buffers))
    }
}

/// The buffers of one result, in their order: one, or several of a bundle.
///
/// Those that are not taken go back to the kernel when this is dropped.
pub struct Received {
    /// One owner of the group's memory, given up in `drop`.
    memory: *const ProvidedMemory,
    buffer: u32,
    offset: u32,
    left: u32,
    buffers: u32,
}

// SAFETY: owns buffers of the group, whose memory is made for threads to share.
unsafe impl Send for Received {}
// SAFETY: shared, it gives nothing out.
unsafe impl Sync for Received {}

impl Received {
    fn new(memory: &Arc<ProvidedMemory>, buffer: u32, offset: u32, left: u32, buffers: u32) -> Self {
        Self { memory: Arc::into_raw(Arc::clone(memory)), buffer, offset, left, buffers }
    }
}

impl Iterator for Received {
    type Item = ProvidedBuf;

    fn next(&mut self) -> Option<ProvidedBuf> {
        self.buffers = self.buffers.checked_sub(1)?;
        // SAFETY: made from an `Arc` in `new`, of which this is an owner; the `Buf` will be another.
        let memory = unsafe {
            Arc::increment_strong_count(self.memory);
            Arc::from_raw(self.memory)
        };
        let (buffer, offset) = (self.buffer, self.offset);
        let length = self.left.min(memory.size - offset);
        if self.buffers > 0 {
            // Before it is handed out: afterwards the place is for the list of those returned.
            self.buffer = memory.returned.after(buffer);
        }
        (self.offset, self.left) = (0, self.left - length);
        Some(ProvidedBuf { memory, buffer, offset, length })
    }
}

impl Drop for Received {
    #[inline(always)]
    fn drop(&mut self) {
        let Self { memory, buffer, offset, left, buffers } = *self;
        give_back(memory, buffer, offset, left, buffers);
    }
}

/// Out of line and by value: what may have received something, and has not, stays in registers.
#[cold]
#[inline(never)]
fn give_back(memory: *const ProvidedMemory, buffer: u32, offset: u32, left: u32, buffers: u32) {
    let mut rest = ManuallyDrop::new(Received { memory, buffer, offset, left, buffers });
    rest.by_ref().for_each(drop);
    // SAFETY: made from an `Arc` in `new`; this is the end of that owner.
    drop(unsafe { Arc::from_raw(memory) });
}

/// Bytes that the kernel put into a buffer of its choice.
///
/// Dropping it returns the buffer; forgetting it leaks the buffer.
pub struct ProvidedBuf {
    memory: Arc<ProvidedMemory>,
    buffer: u32,
    offset: u32,
    length: u32,
}

impl ProvidedBuf {
    fn start(&self) -> *mut u8 {
        // SAFETY: within the buffer.
        unsafe { self.memory.address(self.buffer).add(self.offset as usize) }
    }
}

impl Deref for ProvidedBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: initialised bytes inside of the mapping, which `self.memory` keeps. The buffer has this one owner, or
        // several of different pieces; the kernel is through with this piece, and gets the buffer only when all are gone.
        unsafe { slice::from_raw_parts(self.start(), self.length as usize) }
    }
}

impl DerefMut for ProvidedBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, borrowed exclusively as `self` is.
        unsafe { slice::from_raw_parts_mut(self.start(), self.length as usize) }
    }
}

impl Drop for ProvidedBuf {
    fn drop(&mut self) {
        self.memory.release(self.buffer);
    }
}

impl ProvidedBuffers {
    /// Bytes in a buffer.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.memory.size
    }

    pub(crate) fn is_incremental(&self) -> bool {
        self.memory.is_incremental
    }

    /// How many buffers there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.memory.count
    }
}

impl fmt::Debug for ProvidedBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvidedBuffers").field("count", &self.count()).field("size", &self.size()).finish()
    }
}

impl fmt::Debug for ProvidedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvidedMemory").field("count", &self.count).field("size", &self.size).finish_non_exhaustive()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("buffers", &self.buffers).field("bytes", &self.left).finish()
    }
}

impl fmt::Debug for ProvidedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvidedBuf").field("buffer", &self.buffer).field("bytes", &self.len()).finish()
    }
}
