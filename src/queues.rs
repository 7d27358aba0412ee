//! The two queues of a ring, and the calls that submit and wait: liburing's ring without what it holds.
//!
//! There is no head or tail beside the ring's own: the tail of the submission queue moves when an entry is complete, never
//! before, so that an abandoned entry is never executed; a completion is copied out, and then the head of its queue is
//! published, so that C code on the same ring sees what we see.

use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[cfg(not(test))]
use liburing_sys as sys;

use crate::Unavailable;
use crate::error::{Error, Result, check};
use crate::fork::ForkMark;
#[cfg(test)]
use crate::model::liburing as sys;
use crate::rejected::RejectReason;
use crate::table::is_raw;

/// A completion queue entry, copied out of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cqe {
    user_data: u64,
    result: i32,
    flags: u32,
}

impl Cqe {
    /// What the entry was given by [`Queued::set_data64`](crate::Queued::set_data64).
    #[doc(alias("io_uring_cqe_get_data64", "io_uring_cqe_get_data"))]
    #[must_use]
    #[inline]
    pub fn user_data(&self) -> u64 {
        self.user_data
    }

    /// The kernel's result: for most operations a count, or `-errno`.
    #[must_use]
    #[inline]
    pub fn raw_result(&self) -> i32 {
        self.result
    }

    /// The result, with `-errno` as an error.
    ///
    /// # Errors
    ///
    /// What the kernel reported.
    #[inline]
    pub fn result(&self) -> Result<u32> {
        check(self.result, "io_uring operation")
    }

    /// `IORING_CQE_F_*`.
    #[must_use]
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags
    }
}

/// liburing's ring.
pub(crate) struct Queues {
    /// On the heap, never moved: liburing and the caller's C code may keep its address.
    ring: NonNull<sys::io_uring>,
    mark: ForkMark,
    /// Completions were lost; nothing that this ring says can be believed.
    poisoned: bool,
    /// Raw entries whose final CQE is due. They use up the completion queue too.
    raw_in_flight: u32,
    cq_entries: u32,
    sq_polling: bool,
    /// log2 of the size of an SQE in units of 64 bytes.
    sqe_shift: u32,
    cqe_shift: u32,
    features: u32,
    /// The queues' own memory where the kernel did not make it: unmapped when the ring is closed, which leaves the kernel its
    /// pages.
    _memory: Option<HugePages>,
    /// What the descriptor is of, by device and inode: in the child of a fork it may be of another file by then.
    identity: Option<(u64, u64)>,
    /// The table of registered files is the raw interface's.
    pub(crate) raw_files: bool,
    /// The table of registered buffers is the raw interface's.
    pub(crate) raw_buffers: bool,
}

impl Queues {
    /// Sets up a ring, in `memory` where that is given; `Err` carries the errno of liburing's set-up where that is what failed.
    pub(crate) fn new(
        entries: u32,
        params: &mut sys::io_uring_params,
        memory: Option<HugePages>,
    ) -> Result<Self, SetupError> {
        sys::load().map_err(|error| SetupError::Unavailable(Unavailable::from_load(&error)))?;
        let mark = ForkMark::current().map_err(|error| {
            let error = Error::from_io(error, "map a page that a fork wipes");
            SetupError::Unavailable(Unavailable::other(&error))
        })?;
        // SAFETY: all zeroes is a value of this C structure.
        let ring = Box::new(unsafe { std::mem::zeroed::<sys::io_uring>() });
        let ring = NonNull::from(Box::leak(ring));
        let returned = match &memory {
            // SAFETY: both pointers are to live values that nobody else uses; the ring stays at its address until `drop`.
            None => unsafe { sys::io_uring_queue_init_params(entries, ring.as_ptr(), params) },
            Some(memory) => memory.init(entries, ring, params),
        };
        if returned < 0 {
            // SAFETY: leaked above, and liburing keeps nothing of a ring that it failed to set up.
            drop(unsafe { Box::from_raw(ring.as_ptr()) });
            return Err(SetupError::Errno(-returned));
        }
        // SAFETY: set up above.
        let (sq_entries, flags) = unsafe { ((*ring.as_ptr()).sq.ring_entries, (*ring.as_ptr()).flags) };
        let mut queues = Self {
            ring,
            mark,
            poisoned: false,
            raw_in_flight: 0,
            cq_entries: params.cq_entries,
            sq_polling: flags & sys::IORING_SETUP_SQPOLL != 0,
            sqe_shift: u32::from(flags & sys::IORING_SETUP_SQE128 != 0),
            cqe_shift: u32::from(flags & sys::IORING_SETUP_CQE32 != 0),
            features: params.features,
            identity: None,
            _memory: memory,
            raw_files: false,
            raw_buffers: false,
        };
        queues.identity = identity(queues.descriptor());
        if sq_entries == 0 {
            // A library older than 2.3 does not fill this field, and get_sqe would say "full" for ever.
            return Err(SetupError::Unavailable(Unavailable::library_too_old()));
        }
        Ok(queues)
    }

    /// Changes the size of the queues: nothing may be in flight, or in the queues.
    pub(crate) fn resize(&mut self, entries: u32, cq_entries: u32) -> Result<()> {
        self.check_usable()?;
        let mut params = resize_params(entries, cq_entries);
        self.resize_by(&mut params)?;
        self.cq_entries = params.cq_entries;
        Ok(())
    }

    #[cfg(liburing_2_9)]
    fn resize_by(&mut self, params: &mut sys::io_uring_params) -> Result<()> {
        crate::Library::require("io_uring_resize_rings")?;
        // SAFETY: the ring is set up and ours, and nobody has an entry of its queues: that would borrow `self`.
        let returned = unsafe { sys::io_uring_resize_rings(self.raw(), params) };
        check(returned, "resize a ring (it takes defer_taskrun, and Linux 6.13)").map(|_| ())
    }

    #[cfg(not(liburing_2_9))]
    #[allow(clippy::unused_self)]
    fn resize_by(&mut self, _params: &mut sys::io_uring_params) -> Result<()> {
        Err(header_too_old("io_uring_resize_rings", "2.9"))
    }

    /// Queues over a ring that was set up elsewhere, with no kernel behind it. Takes the structure, which was allocated by a
    /// box; `sys::io_uring_queue_exit` ends it.
    #[cfg(test)]
    pub(crate) fn over(ring: NonNull<sys::io_uring>) -> Self {
        let mark = ForkMark::current().expect("a page that a fork wipes");
        // SAFETY: set up by the caller.
        let (cq_entries, flags) = unsafe { ((*ring.as_ptr()).cq.ring_entries, (*ring.as_ptr()).flags) };
        Self {
            ring,
            mark,
            poisoned: false,
            raw_in_flight: 0,
            cq_entries,
            sq_polling: flags & sys::IORING_SETUP_SQPOLL != 0,
            sqe_shift: u32::from(flags & sys::IORING_SETUP_SQE128 != 0),
            cqe_shift: u32::from(flags & sys::IORING_SETUP_CQE32 != 0),
            features: 0,
            identity: None,
            raw_files: false,
            raw_buffers: false,
            _memory: None,
        }
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut sys::io_uring {
        self.ring.as_ptr()
    }

    /// Raw entries whose final CQE is due.
    #[inline]
    pub(crate) fn raw_in_flight(&self) -> u32 {
        self.raw_in_flight
    }

    pub(crate) fn features(&self) -> u32 {
        self.features
    }

    pub(crate) fn flags(&self) -> u32 {
        // SAFETY: the ring is set up; `flags` is a plain field that only setup writes.
        unsafe { (*self.raw()).flags }
    }

    pub(crate) fn cq_entries(&self) -> u32 {
        self.cq_entries
    }

    pub(crate) fn sq_entries(&self) -> u32 {
        // SAFETY: the ring is set up; `ring_entries` is a plain field.
        unsafe { (*self.raw()).sq.ring_entries }
    }

    /// The descriptor that waiting outside of a lock enters.
    pub(crate) fn descriptor(&self) -> RawFd {
        // SAFETY: the ring is set up; `ring_fd` is a plain field.
        unsafe { (*self.raw()).ring_fd }
    }

    pub(crate) fn mark(&self) -> ForkMark {
        self.mark
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Not a ring of the parent process, nor one that lost completions.
    #[inline(always)]
    pub(crate) fn is_usable(&self) -> bool {
        self.mark.is_alive() && !self.poisoned
    }

    /// Refuses a ring of the parent process, and one that lost completions.
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.is_usable() { Ok(()) } else { Err(self.why_unusable().into()) }
    }

    #[cold]
    fn why_unusable(&self) -> RejectReason {
        if self.mark.is_alive() { RejectReason::Poisoned } else { RejectReason::Forked }
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
    #[inline(always)]
    pub(crate) fn reserve_ahead(&mut self, ahead: u32) -> Option<NonNull<sys::io_uring_sqe>> {
        if !self.is_usable() {
            return None;
        }
        // SAFETY: the ring is set up; `sq` is only used by us, and the kernel shares nothing of it but what the pointers
        // point to.
        let sq = unsafe { &mut (*self.raw()).sq };
        // SAFETY: `khead` points into the mapped ring, which lives as long as the ring; the kernel writes it atomically.
        let head = unsafe { AtomicU32::from_ptr(sq.khead) }.load(Ordering::Acquire);
        let at = sq.sqe_tail.wrapping_add(ahead);
        if at.wrapping_sub(head) >= sq.ring_entries {
            return None;
        }
        let index = ((at & sq.ring_mask) as usize) << self.sqe_shift;
        // SAFETY: masked to the array, whose entries are twice as large where `sqe_shift` says so.
        let sqe = unsafe { sq.sqes.add(index) };
        if self.sqe_shift != 0 {
            // SAFETY: the second half of the entry, which the kernel consumed and reads again only after the tail moved.
            unsafe { sqe.add(1).write_bytes(0, 1) };
        }
        if cfg!(sysuring_break = "r6_tail") {
            self.commit();
        }
        // SAFETY: entries lie inside of the mapped ring, so that their address is not null.
        Some(unsafe { NonNull::new_unchecked(sqe) })
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
        let index = ((sq.sqe_tail.wrapping_add(ahead) & sq.ring_mask) as usize) << self.sqe_shift;
        // SAFETY: masked to the array, whose entries are twice as large where `sqe_shift` says so.
        NonNull::new(unsafe { sq.sqes.add(index) })
    }

    /// As [`Queues::commit`], for an entry of the raw interface.
    #[inline(always)]
    pub(crate) fn commit_raw(&mut self) {
        self.raw_in_flight = self.raw_in_flight.saturating_add(1);
        self.commit();
    }

    /// A raw entry will post no CQE where it succeeds.
    pub(crate) fn forget_raw(&mut self) {
        self.raw_in_flight = self.raw_in_flight.saturating_sub(1);
    }

    /// A raw entry will post a CQE after all.
    pub(crate) fn expect_raw(&mut self) {
        self.raw_in_flight = self.raw_in_flight.saturating_add(1);
    }

    /// Why there is no room for an entry.
    #[cold]
    pub(crate) fn why_not(&self) -> RejectReason {
        if self.is_usable() { RejectReason::QueueFull } else { self.why_unusable() }
    }

    /// Submits what is in the queue and waits until `wait` completions are there.
    #[inline]
    pub(crate) fn submit_and_wait(&mut self, wait: u32) -> Result<u32> {
        // SAFETY: the ring is set up and ours; every entry in the queue is either of the safe interface, whose memory the
        // table owns, or of the raw one, whose caller vouched for it.
        let returned = unsafe {
            match wait {
                0 => sys::io_uring_submit(self.raw()),
                _ => sys::io_uring_submit_and_wait(self.raw(), wait),
            }
        };
        self.entered(returned)
    }

    /// As [`Queues::submit_and_wait`] with at least one to wait for, for `limit` at most. It is no error when the time passes.
    pub(crate) fn submit_and_wait_timeout(&mut self, wait: u32, limit: Duration) -> Result<u32> {
        let mut time = sys::__kernel_timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut cqe = ptr::null_mut();
        // SAFETY: as for `submit_and_wait`; the time is read during the call, or (before Linux 5.11) by the submission
        // that the call makes.
        let returned = unsafe {
            sys::io_uring_submit_and_wait_timeout(self.raw(), &raw mut cqe, wait, &raw mut time, ptr::null_mut())
        };
        if returned == -libc::ETIME { Ok(0) } else { self.entered(returned) }
    }

    /// Lets the kernel post completions that it holds back until somebody enters.
    pub(crate) fn flush_completions(&mut self) -> Result<()> {
        self.check_usable()?;
        // SAFETY: the ring is set up and ours.
        let kernel_flags = unsafe { AtomicU32::from_ptr((*self.raw()).sq.kflags) }.load(Ordering::Relaxed);
        let held_back = sys::IORING_SQ_CQ_OVERFLOW | sys::IORING_SQ_TASKRUN;
        if kernel_flags & held_back == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        let returned = unsafe { sys::io_uring_get_events(self.raw()) };
        self.entered(returned).map(|_| ())
    }

    /// Asks the kernel to end everything that it can, without waiting. For a ring that ends itself: raw entries are among it.
    pub(crate) fn cancel_all(&mut self) {
        // SAFETY: all zeroes is a value of this C structure.
        let mut registration = unsafe { std::mem::zeroed::<sys::io_uring_sync_cancel_reg>() };
        registration.flags = sys::IORING_ASYNC_CANCEL_ALL | sys::IORING_ASYNC_CANCEL_ANY;
        // SAFETY: the ring is set up and ours; the structure is read during the call. Cancelled or not, each operation has
        // its completion; where the kernel does not know this (before Linux 6.0) nothing is cancelled.
        let _ = unsafe { sys::io_uring_register_sync_cancel(self.raw(), &raw mut registration) };
    }

    #[inline]
    fn entered(&mut self, returned: libc::c_int) -> Result<u32> {
        if returned == -libc::EBADR {
            // Completions were lost: what is in flight will never be heard of again.
            self.poisoned = true;
            return Err(self.why_unusable().into());
        }
        check(returned, "submit to the ring")
    }

    /// How far the kernel has come in the submission queue.
    #[inline]
    pub(crate) fn consumed(&self) -> u32 {
        // SAFETY: the ring is set up, and `khead` points into it; the kernel writes it atomically.
        unsafe { AtomicU32::from_ptr((*self.raw()).sq.khead) }.load(Ordering::Acquire)
    }

    /// Whether the kernel, which had come to `before`, took some entries and left others.
    #[inline]
    pub(crate) fn stopped_short(&self, before: u32) -> bool {
        let head = self.consumed();
        // SAFETY: the ring is set up; the tail is liburing's own.
        let tail = unsafe { (*self.raw()).sq.sqe_tail };
        head != tail && head != before && !self.sq_polling
    }

    /// Whether the kernel, which had come to `before`, took some entries and stopped in the middle of a chain: it had no
    /// memory, or (before Linux 5.15) refused an entry, and did not look at those behind.
    #[inline]
    pub(crate) fn is_chain_cut(&self, before: u32) -> bool {
        let head = self.consumed();
        // SAFETY: the ring is set up; the tail is liburing's own.
        let tail = unsafe { (*self.raw()).sq.sqe_tail };
        let may_be = head != tail && head != before && !self.sq_polling && !cfg!(sysuring_break = "r6_cut");
        may_be && self.links(head.wrapping_sub(1))
    }

    /// Whether the entry that is or was at this place is linked to the next one.
    fn links(&self, at: u32) -> bool {
        // SAFETY: the ring is set up; the entry is masked to the array, and the kernel does not write to it.
        let flags = unsafe {
            let sq = &(*self.raw()).sq;
            (*sq.sqes.add(((at & sq.ring_mask) as usize) << self.sqe_shift)).flags
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
        let entry = |at: u32| ((at & sq.ring_mask) as usize) << self.sqe_shift;
        let mut end = head;
        while end != sq.sqe_tail {
            // SAFETY: masked to the array; the entry is complete, since only complete entries are behind the tail.
            withdrawn(unsafe { (*sq.sqes.add(entry(end))).user_data });
            let is_linked = self.links(end);
            end = end.wrapping_add(1);
            if !is_linked {
                break;
            }
        }
        let mut to = head;
        while end != sq.sqe_tail {
            // SAFETY: both are masked to the array, differ, and have as many bytes as `sqe_shift` says.
            unsafe {
                let (from, to) = (sq.sqes.add(entry(end)), sq.sqes.add(entry(to)));
                ptr::copy_nonoverlapping(from, to, 1 << self.sqe_shift);
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
        let head = if self.sq_polling { shared_tail } else { head }.load(Ordering::Acquire);
        let mut at = head;
        while at != sq.sqe_tail {
            let index = ((at & sq.ring_mask) as usize) << self.sqe_shift;
            // SAFETY: masked to the array; the entry is complete, since only complete entries are behind the tail.
            let user_data = unsafe { (*sq.sqes.add(index)).user_data };
            if is_raw(user_data) {
                self.raw_in_flight = self.raw_in_flight.saturating_sub(1);
            } else {
                withdrawn(user_data);
            }
            at = at.wrapping_add(1);
        }
        sq.sqe_tail = head;
        sq.sqe_head = head;
        if !self.sq_polling {
            shared_tail.store(head, Ordering::Release);
        }
    }

    // ---- completion queue

    /// Copies the CQE at the head, then publishes the head: C code on the same ring sees what we see.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<Cqe> {
        // SAFETY: the ring is set up; `cq` is only used by us.
        let cq = unsafe { &(*self.raw()).cq };
        // SAFETY: both point into the mapped ring; the kernel writes the tail, we the head.
        let (head, tail) = unsafe { (AtomicU32::from_ptr(cq.khead), AtomicU32::from_ptr(cq.ktail)) };
        let at = head.load(Ordering::Relaxed);
        if at == tail.load(Ordering::Acquire) {
            return None;
        }
        let index = ((at & cq.ring_mask) as usize) << self.cqe_shift;
        // SAFETY: masked to the array, whose entries are twice as large where `cqe_shift` says so; the kernel wrote this one
        // before it published the tail, and writes it again only after the head passed it.
        let cqe = unsafe { &*cq.cqes.add(index) };
        let cqe = Cqe { user_data: cqe.user_data, result: cqe.res, flags: cqe.flags };
        head.store(at.wrapping_add(1), Ordering::Release);
        Some(cqe)
    }

    /// Accounts for a CQE of the raw interface. One that no entry of this ring asked for, a message or the tag of a file,
    /// cannot be told apart: the count is too low by it until the raw entries in flight have ended.
    #[inline(always)]
    pub(crate) fn count_raw(&mut self, cqe: &Cqe) {
        if cqe.flags & sys::IORING_CQE_F_MORE == 0 {
            self.raw_in_flight = self.raw_in_flight.saturating_sub(1);
        }
    }
}

/// A function that the header has not declared.
#[cfg(not(liburing_2_9))]
#[cold]
fn header_too_old(function: &str, since: &str) -> Error {
    let header = sys::HEADER_VERSION;
    let message = format!("this program was built with the header of liburing {header}; {function} came with {since}");
    Error::new(crate::ErrorKind::Unsupported, message)
}

fn resize_params(entries: u32, cq_entries: u32) -> sys::io_uring_params {
    // SAFETY: all zeroes is a value of this C structure.
    let mut params = unsafe { std::mem::zeroed::<sys::io_uring_params>() };
    params.sq_entries = entries;
    params.cq_entries = cq_entries;
    params.flags = sys::IORING_SETUP_CQSIZE;
    params
}

/// Memory for a ring's queues on huge pages. Shared, so that a fork makes no copy of it on the next write.
#[derive(Debug)]
pub(crate) struct HugePages {
    start: NonNull<u8>,
}

/// Bytes of [`HugePages`]: the smallest huge page that there is on x86 and ARM, and more than the largest queues that fit
/// into one.
const HUGE_PAGE: usize = 2 << 20;

impl HugePages {
    pub(crate) fn new() -> Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), HUGE_PAGE, access, flags, -1, 0) };
        let start = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED);
        start.map(|start| Self { start }).ok_or_else(|| {
            let error = io::Error::last_os_error();
            let doing = "map a huge page for a ring (`sysctl vm.nr_hugepages` says how many there are)";
            Error::from_io(error, doing)
        })
    }

    /// Whether liburing, header and library, can have queues in memory that it is given.
    ///
    /// # Errors
    ///
    /// That they are too old.
    pub(crate) fn check() -> Result<()> {
        #[cfg(liburing_2_5)]
        return crate::Library::require("io_uring_queue_init_mem");
        #[cfg(not(liburing_2_5))]
        return Err(header_too_old("io_uring_queue_init_mem", "2.5"));
    }

    #[cfg(liburing_2_5)]
    fn init(&self, entries: u32, ring: NonNull<sys::io_uring>, params: &mut sys::io_uring_params) -> libc::c_int {
        // SAFETY: the pointers are to live values that nobody else uses; the memory is ours, aligned, and stays until the ring
        // is closed.
        let used = unsafe {
            sys::io_uring_queue_init_mem(entries, ring.as_ptr(), params, self.start.as_ptr().cast(), HUGE_PAGE)
        };
        used.min(0)
    }

    #[cfg(not(liburing_2_5))]
    #[allow(clippy::unused_self)]
    fn init(&self, _: u32, _: NonNull<sys::io_uring>, _: &mut sys::io_uring_params) -> libc::c_int {
        -libc::EOPNOTSUPP
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; the ring that used it is closed.
        unsafe { libc::munmap(self.start.as_ptr().cast(), HUGE_PAGE) };
    }
}

// SAFETY: memory that no thread owns.
unsafe impl Send for HugePages {}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues")
            .field("sq_entries", &self.sq_entries())
            .field("cq_entries", &self.cq_entries)
            .field("flags", &format_args!("{:#x}", self.flags()))
            .finish_non_exhaustive()
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        if !self.mark.is_alive() {
            // The mappings stay: they are the parent's as well, and unmapping the child's view would help nobody.
            if self.identity.is_some() && identity(self.descriptor()) == self.identity {
                // SAFETY: it is still the ring: this copy of the descriptor came with the fork, and nobody else closes it.
                unsafe { libc::close(self.descriptor()) };
            }
            return;
        }
        // SAFETY: the ring is set up, and this is its end. Closing it is no barrier: the table of operations, which is dropped
        // after this, gives nothing back that an operation may still use.
        unsafe { sys::io_uring_queue_exit(self.raw()) };
        // SAFETY: leaked in `new`; liburing is through with it.
        drop(unsafe { Box::from_raw(self.raw()) });
    }
}

/// Why a ring could not be set up.
#[derive(Debug)]
pub(crate) enum SetupError {
    Unavailable(Unavailable),
    Errno(i32),
}

/// What a descriptor is of, by device and inode.
fn identity(descriptor: RawFd) -> Option<(u64, u64)> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills `status`, which is as large as it expects.
    let returned = unsafe { libc::fstat(descriptor, status.as_mut_ptr()) };
    // SAFETY: all zeroes is a value of this plain structure; the kernel wrote over it at most.
    let status = unsafe { status.assume_init() };
    (returned == 0).then_some((status.st_dev, status.st_ino))
}

/// Whether the same call may be made again.
pub(crate) fn is_passing(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// What the kernel says of `io_uring_enter` on a ring that somebody else holds the lock of: waits for one completion.
///
/// No memory of ours is involved, so that this is safe at any time with any descriptor.
pub(crate) fn wait_for_one(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: nothing is submitted and no signal mask is given.
    let returned =
        unsafe { sys::io_uring_enter(descriptor as u32, 0, 1, sys::IORING_ENTER_GETEVENTS, ptr::null_mut()) };
    if returned < 0 { Err(io::Error::from_raw_os_error(-returned)) } else { Ok(()) }
}
