//! liburing's ring: its set-up, the calls that enter the kernel, and its end. What is in its queues is [`crate::queues`].

use std::cell::Cell;
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
use crate::huge_pages::HugePages;
#[cfg(test)]
use crate::model::liburing as sys;
use crate::parcel::timespec;
use crate::rejected::RejectReason;

/// Whether the next operation is started in the plain way, as one number: it is, where this is 0.
#[derive(Debug, Default)]
pub(crate) struct State(u64);

impl State {
    /// Completions were lost; nothing that the ring says can be believed.
    const POISONED: u64 = 1 << 63;
    /// Operations are started with flags, or in a chain.
    const FLAGGED: u64 = 1 << 62;
    /// The rest counts raw entries whose final CQE is due. They use up the completion queue, too.
    const RAW: u64 = Self::FLAGGED - 1;

    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn is_poisoned(&self) -> bool {
        self.0 & Self::POISONED != 0
    }

    #[inline(always)]
    pub(crate) fn raw_in_flight(&self) -> u32 {
        (self.0 & Self::RAW).min(u32::MAX.into()) as u32
    }

    #[inline(always)]
    pub(crate) fn begin_raw(&mut self) {
        self.0 += 1;
    }

    /// Does nothing where none is in flight: a message, or the tag of a file, has no entry of its own.
    #[inline(always)]
    pub(crate) fn end_raw(&mut self) {
        if self.0 & Self::RAW != 0 {
            self.0 -= 1;
        }
    }

    pub(crate) fn set_flagged(&mut self, on: bool) {
        self.0 = self.0 & !Self::FLAGGED | if on { Self::FLAGGED } else { 0 };
    }
}

/// A ring that is set up, and what is known of it.
pub(crate) struct RawRing {
    /// On the heap, never moved: liburing and the caller's C code may keep its address.
    ring: NonNull<sys::io_uring>,
    mark: ForkMark,
    pub(crate) state: State,
    cq_entries: u32,
    sq_polling: bool,
    /// That thread takes the submissions of other rings, too.
    shares_poller: Cell<bool>,
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

impl RawRing {
    /// Sets up a ring, in `memory` where that is given; `Err` carries the errno of liburing's set-up where that is what failed.
    pub(crate) fn new(
        entries: u32,
        params: &mut sys::io_uring_params,
        memory: Option<HugePages>,
    ) -> Result<Self, SetupError> {
        sys::load().map_err(|error| SetupError::Unavailable(Unavailable::from_load(&error)))?;
        let mark = ForkMark::current().map_err(|error| {
            SetupError::Unavailable(Unavailable::from_mapping(error, "map a page that a fork wipes"))
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
        let mut raw_ring = Self {
            ring,
            mark,
            state: State::default(),
            cq_entries: params.cq_entries,
            sq_polling: flags & sys::IORING_SETUP_SQPOLL != 0,
            shares_poller: Cell::new(false),
            features: params.features,
            identity: None,
            _memory: memory,
            raw_files: false,
            raw_buffers: false,
        };
        raw_ring.identity = identity(raw_ring.descriptor());
        if sq_entries == 0 {
            // A library older than 2.3 does not fill this field, and get_sqe would say "full" for ever.
            return Err(SetupError::Unavailable(Unavailable::library_too_old()));
        }
        Ok(raw_ring)
    }

    /// Changes the size of the queues: nothing may be in flight, or in the queues.
    ///
    /// The kernel changes it, then liburing maps the new queues. Where it found no room for them the old ones are nobody's: what
    /// is put into them is never seen, and the ring is poisoned.
    pub(crate) fn resize(&mut self, entries: u32, cq_entries: u32) -> Result<()> {
        self.check_usable()?;
        let mut params = resize_params(entries, cq_entries);
        if let Err(error) = self.resize_by(&mut params) {
            // The kernel tells where the new queues are before it changes anything, and afterwards refuses only what does not fit
            // into them. Whether it ran out of memory then, or the mapping did, can't be told apart.
            let is_told = params.sq_off.ring_mask != 0;
            if is_told && error.raw_os_error() != Some(libc::EOVERFLOW) {
                self.state.0 |= State::POISONED;
                let message =
                    "the kernel may have changed the queues, and the new ones are not mapped; make another ring";
                return Err(error.with_hint(message));
            }
            return Err(error);
        }
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
            state: State::default(),
            cq_entries,
            sq_polling: flags & sys::IORING_SETUP_SQPOLL != 0,
            shares_poller: Cell::new(false),
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

    /// Whether a descriptor is of this ring, as far as it can be told.
    pub(crate) fn is_own(&self, descriptor: RawFd) -> bool {
        self.identity.is_some() && identity(descriptor) == self.identity
    }

    pub(crate) fn mark(&self) -> ForkMark {
        self.mark
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Not a ring of the parent process, nor one that lost completions.
    #[inline(always)]
    pub(crate) fn is_usable(&self) -> bool {
        self.mark.is_alive() && !self.is_poisoned()
    }

    /// Whether the ring can be used, and the next operation on it is started in the plain way.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.mark.is_alive() && self.state.is_plain()
    }

    /// Raw entries whose final CQE is due.
    #[inline]
    pub(crate) fn raw_in_flight(&self) -> u32 {
        self.state.raw_in_flight()
    }

    /// Refuses a ring of the parent process, and one that lost completions.
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.is_usable() { Ok(()) } else { Err(self.why_unusable().into()) }
    }

    #[cold]
    pub(crate) fn why_unusable(&self) -> RejectReason {
        if self.mark.is_alive() { RejectReason::Poisoned } else { RejectReason::Forked }
    }

    /// Whether a thread of the kernel takes entries out of the submission queue on its own.
    #[inline]
    pub(crate) fn is_polled(&self) -> bool {
        self.sq_polling
    }

    /// The thread that takes the submissions is another ring's as well, from here on.
    pub(crate) fn share_poller(&self) {
        self.shares_poller.set(self.sq_polling);
    }

    /// Whether a chain may be cut: a thread that polls several rings takes eight entries of each at a time, and ends a chain
    /// where they end.
    #[inline]
    pub(crate) fn cuts_chains(&self) -> bool {
        self.shares_poller.get()
    }

    // ---- entering the kernel

    /// Submits what is in the queue and waits until `wait` completions are there; [`RawRing::entered`] says what the answer
    /// means.
    #[inline]
    pub(crate) fn enter(&mut self, wait: u32) -> libc::c_int {
        // SAFETY: the ring is set up and ours; every entry in the queue is either of the safe interface, whose memory the
        // table owns, or of the raw one, whose caller vouched for it.
        unsafe {
            match wait {
                0 => sys::io_uring_submit(self.raw()),
                _ => sys::io_uring_submit_and_wait(self.raw(), wait),
            }
        }
    }

    /// As [`RawRing::enter`] with at least one to wait for, for `limit` at most. It is no error when the time passes.
    pub(crate) fn submit_and_wait_timeout(&mut self, wait: u32, limit: Duration) -> Result<u32> {
        let mut time = timespec(limit);
        let mut cqe = ptr::null_mut();
        // SAFETY: as for `enter`; the time is read during the call, or (before Linux 5.11) by the submission
        // that the call makes.
        let returned = unsafe {
            sys::io_uring_submit_and_wait_timeout(self.raw(), &raw mut cqe, wait, &raw mut time, ptr::null_mut())
        };
        if returned == -libc::ETIME { Ok(0) } else { self.entered(returned) }
    }

    /// Whether the kernel has completions that it does not post until somebody enters.
    #[inline]
    pub(crate) fn holds_back(&self) -> bool {
        // SAFETY: the ring is set up, and `kflags` points into it; the kernel writes it atomically.
        let flags = unsafe { AtomicU32::from_ptr((*self.raw()).sq.kflags) }.load(Ordering::Relaxed);
        flags & (sys::IORING_SQ_CQ_OVERFLOW | sys::IORING_SQ_TASKRUN) != 0
    }

    /// Lets the kernel post completions that it holds back until somebody enters.
    pub(crate) fn flush_completions(&mut self) -> Result<()> {
        self.check_usable()?;
        if !self.holds_back() {
            return Ok(());
        }
        // SAFETY: as above.
        let returned = unsafe { sys::io_uring_get_events(self.raw()) };
        self.entered(returned).map(|_| ())
    }

    /// Asks the kernel to end everything that it can, without waiting; whether it knows how (since Linux 6.0), and the ring's
    /// restrictions let it. For a ring that ends itself: raw entries are among it.
    pub(crate) fn cancel_all(&mut self) -> bool {
        // SAFETY: all zeroes is a value of this C structure.
        let mut registration = unsafe { std::mem::zeroed::<sys::io_uring_sync_cancel_reg>() };
        registration.flags = sys::IORING_ASYNC_CANCEL_ALL | sys::IORING_ASYNC_CANCEL_ANY;
        // SAFETY: the ring is set up and ours; the structure is read during the call. Cancelled or not, each operation has
        // its completion.
        let returned = unsafe { sys::io_uring_register_sync_cancel(self.raw(), &raw mut registration) };
        !matches!(-returned, libc::EINVAL | libc::EACCES)
    }

    /// Registers the ring's own descriptor with the calling thread, the only one that ever enters the ring: each call takes less
    /// then. Where that can't be, before Linux 5.18 or with sixteen such rings, it works without.
    pub(crate) fn register_descriptor(&mut self) {
        // SAFETY: the ring is set up and ours.
        unsafe { sys::io_uring_register_ring_fd(self.raw()) };
    }

    /// What a call that entered the kernel returned.
    #[inline]
    pub(crate) fn entered(&mut self, returned: libc::c_int) -> Result<u32> {
        if returned == -libc::EBADR {
            // Completions were lost: what is in flight will never be heard of again.
            self.state.0 |= State::POISONED;
            return Err(self.why_unusable().into());
        }
        check(returned, "submit to the ring")
    }

    /// Whether there are completions in the queue.
    #[cfg(feature = "block")]
    pub(crate) fn has_completions(&self) -> bool {
        // SAFETY: the ring is set up.
        unsafe { sys::io_uring_cq_ready(self.raw()) != 0 }
    }

    /// Whether nothing in the submission queue is left to the next submit.
    #[inline]
    pub(crate) fn is_consumed(&self) -> bool {
        // SAFETY: the ring is set up; the tail is liburing's own.
        self.sq_polling || self.consumed() == unsafe { (*self.raw()).sq.sqe_tail }
    }

    /// How far the kernel has come in the submission queue.
    #[inline]
    pub(crate) fn consumed(&self) -> u32 {
        // SAFETY: the ring is set up, and `khead` points into it; the kernel writes it atomically.
        unsafe { AtomicU32::from_ptr((*self.raw()).sq.khead) }.load(Ordering::Acquire)
    }
}

/// A function that the header has not declared.
#[cfg(not(liburing_2_9))]
#[cold]
pub(crate) fn header_too_old(function: &str, since: &str) -> Error {
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

impl std::fmt::Debug for RawRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawRing")
            .field("sq_entries", &self.sq_entries())
            .field("cq_entries", &self.cq_entries)
            .field("flags", &format_args!("{:#x}", self.flags()))
            .finish_non_exhaustive()
    }
}

impl Drop for RawRing {
    fn drop(&mut self) {
        if !self.mark.is_alive() {
            // The mappings stay: they are the parent's as well, and unmapping the child's view would help nobody.
            if self.is_own(self.descriptor()) {
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
