//! The two queues of a ring.
//!
//! There is no head or tail beside the ring's own: the tail of the submission queue moves when an entry is complete, never
//! before, so that an abandoned entry is never executed; a completion is copied out, and then the head of its queue is
//! published, so that C code on the same ring sees what we see.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use liburing_sys as sys;

use crate::cqe::Cqe;
use crate::entries::Entries;
use crate::raw_ring::RawRing;
use crate::rejected::RejectReason;
use crate::table::is_raw;

/// The queues of a ring whose entries have the sizes of `E`.
pub(crate) struct Queues<E> {
    ring: RawRing,
    entries: PhantomData<E>,
}

impl<E: Entries> Queues<E> {
    /// Those of `ring`, which was set up with `E::FLAGS`.
    pub(crate) fn of(ring: RawRing) -> Self {
        debug_assert_eq!(ring.flags() & (sys::IORING_SETUP_SQE128 | sys::IORING_SETUP_CQE32), E::FLAGS);
        Self { ring, entries: PhantomData }
    }

    // ---- submission queue

    /// The entry at the tail, zeroed; `None` where the queue is full. The tail stays where it is until [`Queues::commit`].
    #[inline]
    pub(crate) fn reserve(&mut self) -> Option<NonNull<sys::io_uring_sqe>> {
        let sqe = self.reserve_ahead(0)?;
        // SAFETY: the kernel consumed this entry (the head is past it) and reads it again only after the tail moved.
        unsafe { sqe.write_bytes(0, 1) };
        Some(sqe)
    }

    /// As [`Queues::reserve`], `ahead` entries behind the tail. The first 64 bytes are as they were left.
    #[inline]
    pub(crate) fn reserve_ahead(&mut self, ahead: u32) -> Option<NonNull<sys::io_uring_sqe>> {
        if self.is_usable() { self.free_entry(ahead) } else { None }
    }

    /// As [`Queues::reserve_ahead`], on a ring that can be used.
    #[inline(always)]
    pub(crate) fn free_entry(&mut self, ahead: u32) -> Option<NonNull<sys::io_uring_sqe>> {
        // SAFETY: the ring is set up; `sq` is only used by us, and the kernel shares nothing of it but what the pointers
        // point to.
        let sq = unsafe { &mut (*self.raw()).sq };
        // SAFETY: `khead` points into the mapped ring, which lives as long as the ring; the kernel writes it atomically.
        let head = unsafe { AtomicU32::from_ptr(sq.khead) }.load(Ordering::Acquire);
        let at = sq.sqe_tail.wrapping_add(ahead);
        if at.wrapping_sub(head) >= sq.ring_entries {
            return None;
        }
        let index = ((at & sq.ring_mask) as usize) << E::SHIFT;
        // SAFETY: masked to the array, whose entries are twice as large where `E` says so.
        let sqe = unsafe { sq.sqes.add(index) };
        if E::SHIFT != 0 {
            // SAFETY: the second half of the entry, which the kernel consumed and reads again only after the tail moved.
            unsafe { sqe.add(1).write_bytes(0, 1) };
        }
        if cfg!(sysuring_break = "r6_tail") {
            self.commit();
        }
        // SAFETY: entries lie inside of the mapped ring, so that their address is not null.
        Some(unsafe { NonNull::new_unchecked(sqe) })
    }

    /// Entries that fit behind the tail.
    pub(crate) fn sq_free(&self) -> u32 {
        // SAFETY: the ring is set up; `sq` is only used by us.
        let sq = unsafe { &(*self.raw()).sq };
        sq.ring_entries - sq.sqe_tail.wrapping_sub(self.consumed())
    }

    /// Moves the tail over the entry that [`Queues::reserve`] gave, which is complete now.
    #[inline(always)]
    pub(crate) fn commit(&mut self) {
        self.commit_all(1);
    }

    /// Moves the tail over `count` entries, which are complete now.
    #[inline(always)]
    pub(crate) fn commit_all(&mut self, count: u32) {
        // SAFETY: the ring is set up; the tail is liburing's own and not shared with the kernel until a submit.
        let tail = unsafe { &mut (*self.raw()).sq.sqe_tail };
        *tail = tail.wrapping_add(count);
    }

    /// Clears flags of the entry `ahead` behind the tail, which is not published yet.
    pub(crate) fn clear_flags_ahead(&mut self, ahead: u32, flags: u8) {
        if let Some(mut sqe) = self.unpublished(ahead) {
            // SAFETY: an entry of ours that the kernel does not read before the tail moved over it.
            unsafe { sqe.as_mut() }.flags &= !flags;
        }
    }

    /// The `user_data` of the entry `ahead` behind the tail, which is not published yet.
    pub(crate) fn user_data_ahead(&mut self, ahead: u32) -> Option<u64> {
        // SAFETY: as for `clear_flags_ahead`.
        self.unpublished(ahead).map(|sqe| unsafe { sqe.as_ref() }.user_data)
    }

    fn unpublished(&mut self, ahead: u32) -> Option<NonNull<sys::io_uring_sqe>> {
        // SAFETY: the ring is set up; `sq` is only used by us.
        let sq = unsafe { &(*self.raw()).sq };
        let index = ((sq.sqe_tail.wrapping_add(ahead) & sq.ring_mask) as usize) << E::SHIFT;
        // SAFETY: masked to the array, whose entries are twice as large where `E` says so.
        NonNull::new(unsafe { sq.sqes.add(index) })
    }

    /// As [`Queues::commit`], for an entry of the raw interface.
    #[inline(always)]
    pub(crate) fn commit_raw(&mut self) {
        self.state.begin_raw();
        self.commit();
    }

    /// A raw entry will post no CQE where it succeeds.
    pub(crate) fn forget_raw(&mut self) {
        self.state.end_raw();
    }

    /// A raw entry will post a CQE after all.
    pub(crate) fn expect_raw(&mut self) {
        self.state.begin_raw();
    }

    /// Why there is no room for an entry.
    #[cold]
    pub(crate) fn why_not(&self) -> RejectReason {
        if self.is_usable() { RejectReason::QueueFull } else { self.why_unusable() }
    }

    /// Whether the kernel, which had come to `before`, took some entries and left others.
    #[inline]
    pub(crate) fn stopped_short(&self, before: u32) -> bool {
        let head = self.consumed();
        // SAFETY: the ring is set up; the tail is liburing's own.
        let tail = unsafe { (*self.raw()).sq.sqe_tail };
        head != tail && head != before && !self.is_polled()
    }

    /// Whether the kernel, which had come to `before`, took some entries and stopped in the middle of a chain: it had no
    /// memory, or (before Linux 5.15) refused an entry, and did not look at those behind.
    #[inline]
    pub(crate) fn is_chain_cut(&self, before: u32) -> bool {
        let head = self.consumed();
        // SAFETY: the ring is set up; the tail is liburing's own.
        let tail = unsafe { (*self.raw()).sq.sqe_tail };
        let may_be = head != tail && head != before && !self.is_polled() && !cfg!(sysuring_break = "r6_cut");
        may_be && self.links(head.wrapping_sub(1))
    }

    /// Whether the entry that is or was at this place is linked to the next one.
    fn links(&self, at: u32) -> bool {
        // SAFETY: the ring is set up; the entry is masked to the array, and the kernel does not write to it.
        let flags = unsafe {
            let sq = &(*self.raw()).sq;
            (*sq.sqes.add(((at & sq.ring_mask) as usize) << E::SHIFT)).flags
        };
        u32::from(flags) & (sys::IOSQE_IO_LINK | sys::IOSQE_IO_HARDLINK) != 0
    }

    /// Takes the rest of a chain out of the queue that the kernel cut, and tells `withdrawn` the `user_data` of each entry.
    /// By itself the next submit would start it as a chain of its own.
    #[cold]
    pub(crate) fn withdraw_cut_chain(&mut self, mut withdrawn: impl FnMut(u64)) {
        // SAFETY: the ring is set up and ours.
        let sq = unsafe { &mut (*self.raw()).sq };
        // SAFETY: both point into the mapped ring; without a polling thread the kernel reads the queue only when it is entered.
        let (head, shared_tail) = unsafe { (AtomicU32::from_ptr(sq.khead), AtomicU32::from_ptr(sq.ktail)) };
        let head = head.load(Ordering::Acquire);
        let entry = |at: u32| ((at & sq.ring_mask) as usize) << E::SHIFT;
        let mut end = head;
        while end != sq.sqe_tail {
            // SAFETY: masked to the array; the entry is complete, since only complete entries are behind the tail.
            let user_data = unsafe { (*sq.sqes.add(entry(end))).user_data };
            if is_raw(user_data) {
                self.ring.state.end_raw();
            } else {
                withdrawn(user_data);
            }
            let is_linked = self.links(end);
            end = end.wrapping_add(1);
            if !is_linked {
                break;
            }
        }
        let mut to = head;
        while end != sq.sqe_tail {
            // SAFETY: both are masked to the array, differ, and have as many bytes as `E` says.
            unsafe {
                let (from, to) = (sq.sqes.add(entry(end)), sq.sqes.add(entry(to)));
                ptr::copy_nonoverlapping(from, to, 1 << E::SHIFT);
            }
            (to, end) = (to.wrapping_add(1), end.wrapping_add(1));
        }
        (sq.sqe_tail, sq.sqe_head) = (to, to);
        shared_tail.store(to, Ordering::Release);
    }

    /// Takes everything out of the submission queue that the kernel has not consumed, and tells `withdrawn` the `user_data`
    /// of each entry of the safe interface. With SQPOLL a kernel thread reads the queue on its own, so that only what was
    /// not published to it is taken back.
    pub(crate) fn withdraw_unsubmitted(&mut self, mut withdrawn: impl FnMut(u64)) {
        if !self.is_usable() {
            return;
        }
        // SAFETY: the ring is set up and ours.
        let sq = unsafe { &mut (*self.raw()).sq };
        // SAFETY: both point into the mapped ring. Without SQPOLL the kernel reads the queue during `io_uring_enter` with
        // entries to submit only, and only who has this `&mut self` makes such a call; with it, up to the shared tail.
        let (head, shared_tail) = unsafe { (AtomicU32::from_ptr(sq.khead), AtomicU32::from_ptr(sq.ktail)) };
        let head = if self.is_polled() { shared_tail } else { head }.load(Ordering::Acquire);
        let mut at = head;
        while at != sq.sqe_tail {
            let index = ((at & sq.ring_mask) as usize) << E::SHIFT;
            // SAFETY: masked to the array; the entry is complete, since only complete entries are behind the tail.
            let user_data = unsafe { (*sq.sqes.add(index)).user_data };
            if is_raw(user_data) {
                self.ring.state.end_raw();
            } else {
                withdrawn(user_data);
            }
            at = at.wrapping_add(1);
        }
        sq.sqe_tail = head;
        sq.sqe_head = head;
        if !self.is_polled() {
            shared_tail.store(head, Ordering::Release);
        }
    }

    // ---- completion queue

    /// Copies the CQE at the head, then publishes the head: C code on the same ring sees what we see.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<Cqe<E>> {
        // SAFETY: the ring is set up; `cq` is only used by us.
        let cq = unsafe { &(*self.raw()).cq };
        // SAFETY: both point into the mapped ring; the kernel writes the tail, we the head.
        let (head, tail) = unsafe { (AtomicU32::from_ptr(cq.khead), AtomicU32::from_ptr(cq.ktail)) };
        let at = head.load(Ordering::Relaxed);
        if at == tail.load(Ordering::Acquire) {
            return None;
        }
        let index = ((at & cq.ring_mask) as usize) << E::SHIFT;
        // SAFETY: masked to the array, whose entries are twice as large where `E` says so; the kernel wrote this one
        // before it published the tail, and writes it again only after the head passed it.
        let cqe = unsafe {
            let cqe = cq.cqes.add(index);
            Cqe { user_data: (*cqe).user_data, result: (*cqe).res, flags: (*cqe).flags, extra: E::extra(cqe) }
        };
        head.store(at.wrapping_add(1), Ordering::Release);
        Some(cqe)
    }

    /// Accounts for a CQE of the raw interface. One that no entry of this ring asked for, a message or the tag of a file,
    /// cannot be told apart: the count is too low by it until the raw entries in flight have ended.
    #[inline(always)]
    pub(crate) fn count_raw(&mut self, flags: u32) {
        if flags & sys::IORING_CQE_F_MORE == 0 {
            self.state.end_raw();
        }
    }
}

impl<E> Deref for Queues<E> {
    type Target = RawRing;

    #[inline(always)]
    fn deref(&self) -> &RawRing {
        &self.ring
    }
}

impl<E> DerefMut for Queues<E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut RawRing {
        &mut self.ring
    }
}

impl<E> std::fmt::Debug for Queues<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ring.fmt(f)
    }
}
