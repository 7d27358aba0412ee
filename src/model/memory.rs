//! The memory that a ring shares with its kernel, without a kernel.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

use liburing_sys as sys;

/// The words that both sides share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) sq_head: u32,
    pub(crate) sq_tail: u32,
    pub(crate) sq_flags: u32,
    pub(crate) cq_head: u32,
    pub(crate) cq_tail: u32,
    /// `IORING_CQ_*`, which the crate's side writes.
    pub(crate) cq_flags: u32,
    unused: u32,
}

/// See the [module](self). Freed by [`Memory::free`] only.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) shared: *mut Shared,
    entries: *mut [sys::io_uring_sqe],
    completions: *mut [sys::io_uring_cqe],
    sq_mask: u32,
    cq_mask: u32,
    sqe_shift: u32,
    cqe_shift: u32,
}

impl Memory {
    /// Sets up `ring`, which is all zeroes, with nothing in its queues; their counters begin at `starts`.
    pub(crate) fn new(
        ring: &mut sys::io_uring,
        descriptor: c_int,
        flags: u32,
        entries: (u32, u32),
        starts: (u32, u32),
    ) -> Self {
        let ((sq_entries, cq_entries), (sq, cq)) = (entries, starts);
        let shared =
            Box::into_raw(Box::new(Shared { sq_head: sq, sq_tail: sq, cq_head: cq, cq_tail: cq, ..Shared::default() }));
        let sqe_shift = u32::from(flags & sys::IORING_SETUP_SQE128 != 0);
        let cqe_shift = u32::from(flags & sys::IORING_SETUP_CQE32 != 0);
        // What was there before is no entry of anybody's.
        let entries = (0..sq_entries << sqe_shift)
            // SAFETY: plain C structures, for which all zeroes is a value.
            .map(|_| unsafe { std::mem::zeroed::<sys::io_uring_sqe>() })
            .collect::<Box<[_]>>();
        let entries = Box::into_raw(entries);
        let completions = (0..cq_entries << cqe_shift)
            // SAFETY: as above.
            .map(|_| unsafe { std::mem::zeroed::<sys::io_uring_cqe>() })
            .collect::<Box<[_]>>();
        let completions = Box::into_raw(completions);
        (ring.flags, ring.ring_fd) = (flags, descriptor);
        // SAFETY: allocated just now; only addresses are taken.
        unsafe {
            ring.sq.khead = &raw mut (*shared).sq_head;
            ring.sq.ktail = &raw mut (*shared).sq_tail;
            ring.sq.kflags = &raw mut (*shared).sq_flags;
            ring.sq.kdropped = &raw mut (*shared).unused;
            ring.cq.khead = &raw mut (*shared).cq_head;
            ring.cq.ktail = &raw mut (*shared).cq_tail;
            ring.cq.kflags = &raw mut (*shared).cq_flags;
            ring.cq.koverflow = &raw mut (*shared).unused;
        }
        ring.sq.sqes = entries.cast();
        (ring.sq.sqe_head, ring.sq.sqe_tail) = (sq, sq);
        (ring.sq.ring_entries, ring.sq.ring_mask) = (sq_entries, sq_entries - 1);
        ring.cq.cqes = completions.cast();
        (ring.cq.ring_entries, ring.cq.ring_mask) = (cq_entries, cq_entries - 1);
        Self { shared, entries, completions, sq_mask: sq_entries - 1, cq_mask: cq_entries - 1, sqe_shift, cqe_shift }
    }

    /// The place of an entry.
    pub(crate) fn entry(&self, at: u32) -> *const sys::io_uring_sqe {
        let index = ((at & self.sq_mask) as usize) << self.sqe_shift;
        // SAFETY: masked to the array.
        unsafe { self.entries.cast::<sys::io_uring_sqe>().add(index) }
    }

    /// Writes a completion to the tail, and moves it.
    ///
    /// # Safety
    ///
    /// There is room, and nobody else posts meanwhile.
    pub(crate) unsafe fn post(&self, user_data: u64, result: i32, flags: u32) {
        // SAFETY: masked to the array, at a place that the crate does not read before the tail moved.
        unsafe {
            // Whoever takes completions reads it, and may be another thread.
            let tail = AtomicU32::from_ptr(&raw mut (*self.shared).cq_tail);
            let at = tail.load(Ordering::Relaxed);
            let index = ((at & self.cq_mask) as usize) << self.cqe_shift;
            let cqe = self.completions.cast::<sys::io_uring_cqe>().add(index);
            (*cqe).user_data = user_data;
            (*cqe).res = result;
            (*cqe).flags = flags;
            tail.store(at.wrapping_add(1), Ordering::Release);
        }
    }

    /// What liburing does first in a submit: shows the kernel what is in the queue.
    ///
    /// # Safety
    ///
    /// `ring` was set up with this memory, and nobody else uses it meanwhile.
    pub(crate) unsafe fn publish(&self, ring: *mut sys::io_uring) {
        // SAFETY: the caller vouches for it.
        unsafe {
            let sq = &mut (*ring).sq;
            sq.sqe_head = sq.sqe_tail;
            (*self.shared).sq_tail = sq.sqe_tail;
        }
    }

    /// # Safety
    ///
    /// Called once, when nobody uses the ring any more.
    pub(crate) unsafe fn free(&self) {
        // SAFETY: allocated in `new` as these types.
        unsafe {
            drop(Box::from_raw(self.shared));
            drop(Box::from_raw(self.entries));
            drop(Box::from_raw(self.completions));
        }
    }
}
