//! The ring of one thread.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

use liburing_sys as sys;

use crate::builder::{RingBuilder, SetupFlags};
use crate::completion::Completions;
use crate::core::Core;
use crate::entries::{Entries, SmallEntries};
use crate::error::{Error, ErrorKind, Result, check};
use crate::file::FixedFile;
use crate::operations::{Seal, Starter};
use crate::pool::Pool;
use crate::rejected::Rejected;
use crate::sqe::Sqe;
use crate::table::{NoBuffers, Ticket};

/// A submission and completion queue pair, used from one thread.
///
/// Safe operations take what the kernel will use ([`Buf`](crate::Buf), [`FixedFile`]) and give it back with the completion, so that
/// nothing can be freed, reused or looked at too early, whatever else goes wrong. The raw interface
/// ([`Ring::get_sqe`]) has liburing's own calls, with liburing's own obligations; both may be used on one ring.
///
/// Dropping a ring with operations in flight loses no memory that is anybody's: see
/// [`RingBuilder::drop_limit`](crate::RingBuilder::drop_limit). [`Ring::shutdown`] waits for them, and says what is left.
///
/// A ring is never `Send`, since it may be bound to its thread. Threads share a [`crate::SharedRing`].
///
/// ```
/// use sysuring::{Completion, Operations as _, Pool, Ring};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if sysuring::available().is_err() { return Ok(()) }
/// let file = std::fs::File::open("/proc/self/exe")?;
/// let mut ring = Ring::builder(8).build()?;
/// let pool = Pool::new(8, 4096)?;
/// ring.register_pool(&pool)?;
/// let file = ring.register_file(&file)?;
///
/// let buf = pool.lease().expect("nobody else leases from this pool");
/// ring.read_fixed(&file, buf, 4096, 0)?;
/// ring.submit_and_wait(1)?;
/// for completion in ring.completions() {
///     if let Completion::Done(done) = completion {
///         let read = done.result()?;
///         let buf = done.into_buf().expect("a read gives its buffer back");
///         assert_eq!(&buf[..4], b"\x7fELF");
///         assert_eq!(read, 4096);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Ring<B = NoBuffers, E: Entries = SmallEntries> {
    core: Core<B, E>,
    one_thread: OneThread,
}

/// In all that works on a [`Ring`], which may be bound to its thread: neither `Send` nor `Sync`, as a [`Core`] would be.
pub(crate) type OneThread = PhantomData<*mut ()>;

impl Ring {
    /// A ring with `entries` submission queue entries (rounded up to a power of two) and no flags.
    ///
    /// # Errors
    ///
    /// As for [`RingBuilder::build`].
    pub fn with_entries(entries: u32) -> Result<Self> {
        Self::builder(entries).build()
    }

    /// Sets up a ring with `entries` submission queue entries.
    #[must_use]
    pub fn builder(entries: u32) -> RingBuilder {
        RingBuilder::new(entries)
    }
}

impl<B, E: Entries> Ring<B, E> {
    pub(crate) fn new(core: Core<B, E>) -> Self {
        Self { core, one_thread: PhantomData }
    }

    pub(crate) fn core(&mut self) -> &mut Core<B, E> {
        &mut self.core
    }

    #[cfg(feature = "block")]
    pub(crate) fn into_core(self) -> Core<B, E> {
        self.core
    }

    pub(crate) fn core_ref(&self) -> &Core<B, E> {
        &self.core
    }

    /// The flags that the kernel granted. Flags that this library has no name for are left out.
    #[must_use]
    pub fn flags(&self) -> SetupFlags {
        SetupFlags::from_bits_truncate(self.core.queues().flags())
    }

    /// `IORING_FEAT_*` of the kernel.
    #[must_use]
    pub fn features(&self) -> u32 {
        self.core.queues().features()
    }

    /// Entries of the submission queue.
    #[must_use]
    pub fn sq_entries(&self) -> u32 {
        self.core.queues().sq_entries()
    }

    /// Entries of the completion queue: the most operations that can be in flight.
    #[must_use]
    pub fn cq_entries(&self) -> u32 {
        self.core.queues().cq_entries()
    }

    /// Operations of the safe interface that were started and whose final completion was not taken out of the queue: one that
    /// has ended counts until then.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.core.in_flight()
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.core.queues().descriptor()
    }

    /// Changes the size of the queues (since Linux 6.13, liburing 2.9), and with them how many operations may be in flight. The
    /// ring has to be one with [`RingBuilder::defer_taskrun`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] while operations are in flight, entries wait to be submitted or completions to be taken;
    /// [`ErrorKind::Unsupported`] where liburing is too old; what the kernel reports. The ring stays as it was, unless memory
    /// ran out ([`ErrorKind::Full`]) when the kernel may have changed the queues already: the error says so, and the ring can't
    /// be used any more then ([`ErrorKind::Poisoned`]).
    #[doc(alias = "io_uring_resize_rings")]
    pub fn resize(&mut self, entries: u32, cq_entries: u32) -> Result<()> {
        self.core.resize(entries, cq_entries)
    }

    /// The C structure, for C code that uses the same ring.
    ///
    /// It stays at its address for as long as the ring lives. C code has to respect the tag: an entry of its own has the
    /// top two bits of `user_data` clear (addresses do), and it consumes no completion that has them set.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::io_uring {
        self.core.queues().raw()
    }

    /// A submission queue entry to fill in; `None` when the queue is full (submit first).
    ///
    /// The queue's tail moves when one of the `prep` methods completed the entry: an entry that is dropped instead is
    /// never executed.
    #[doc(alias = "io_uring_get_sqe")]
    #[inline]
    pub fn get_sqe(&mut self) -> Option<Sqe<'_, E>> {
        let queues = self.core.queues_mut();
        let entry = queues.reserve()?;
        Some(Sqe::new(queues, entry))
    }

    /// Registers a pool, for [`Operations::read_fixed`](crate::Operations::read_fixed) and [`Operations::write_fixed`](crate::Operations::write_fixed) on its leases. Once is enough.
    ///
    /// # Errors
    ///
    /// ENOMEM where RLIMIT_MEMLOCK is too small (kind [`ErrorKind::Full`]); [`ErrorKind::Unsupported`] for a second pool
    /// before Linux 5.19.
    #[doc(alias = "io_uring_register_buffers")]
    pub fn register_pool(&mut self, pool: &Pool) -> Result<()> {
        self.core.register_pool(pool)
    }

    /// Takes a pool out of the registered buffers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] while operations are in flight, [`ErrorKind::ForeignPool`] where it is not registered. Raw entries
    /// that post no completion are in no count: before Linux 6.13 this can wait for them, and on 6.1 for ever.
    #[doc(alias = "io_uring_unregister_buffers")]
    pub fn unregister_pool(&mut self, pool: &Pool) -> Result<()> {
        self.core.unregister_pool(pool)
    }

    /// Registers a file. The kernel holds it from now on: the caller's descriptor may be closed.
    ///
    /// Dropping the [`FixedFile`] unregisters it, at the next submit after its last operation ended.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] when all places are taken ([`RingBuilder::files`]); what the kernel reports.
    #[doc(alias("io_uring_register_files", "io_uring_register_files_update"))]
    pub fn register_file(&mut self, file: &impl AsFd) -> Result<FixedFile> {
        self.core.register_file(file.as_fd())
    }

    /// Registers the caller's own buffers, for raw entries; excludes pools on this ring.
    ///
    /// # Safety
    ///
    /// The memory stays mapped, and is lent to the kernel for every operation that names its index, until the operation's
    /// final completion was seen, also after the ring is gone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] where buffers are registered already; what the kernel reports.
    #[doc(alias = "io_uring_register_buffers")]
    pub unsafe fn register_buffers(&mut self, buffers: &[libc::iovec]) -> Result<()> {
        // SAFETY: the same obligations, passed on.
        unsafe { self.core.register_buffers(buffers) }
    }

    /// Takes away what [`Ring::register_buffers`] and its like registered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] while operations are in flight, raw ones included, but for those that post no completion: before
    /// Linux 6.13 this can wait for them, and on 6.1 for ever.
    #[doc(alias = "io_uring_unregister_buffers")]
    pub fn unregister_buffers(&mut self) -> Result<()> {
        self.core.unregister_buffers()
    }

    /// Asks the kernel to end an operation early.
    ///
    /// Whether it did is in the operation's own completion, which comes in any case: with ECANCELED, or as if nothing had
    /// been asked. A ticket whose operation has ended is no error.
    ///
    /// A cancel is an operation as well: where as many are in flight as completions fit, there is no room for it.
    /// [`Sqe::prep_cancel_ticket`] gets through then.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`](crate::RejectReason).
    #[doc(alias("io_uring_prep_cancel", "io_uring_prep_cancel64", "IORING_OP_ASYNC_CANCEL"))]
    pub fn cancel(&mut self, ticket: Ticket) -> Result<(), Rejected<()>> {
        self.core.cancel(ticket).map_err(|reason| Rejected::new(reason, ()))
    }

    /// Submits what was started; the answer is how many entries the kernel took.
    ///
    /// An error takes nothing back: what was started stays started, and goes along with the next submit.
    ///
    /// # Errors
    ///
    /// What the kernel reports: EAGAIN when it has no memory, EBUSY when completions have to be taken first.
    #[doc(alias = "io_uring_submit")]
    #[inline]
    pub fn submit(&mut self) -> Result<u32> {
        self.core.submit()
    }

    /// As [`Ring::submit`], and waits until `wait` completions can be taken. Those that were found while a scope waited for its
    /// own are among them.
    ///
    /// Waits for ever where fewer than `wait` completions can come: ask [`Ring::in_flight`] first.
    ///
    /// It can return earlier: the kernel also counts what nobody is told of, which is the end of a [`Ring::cancel`] and the first
    /// of the two completions of a [`send_zero_copy`](crate::Operations::send_zero_copy). So wait again, until what is waited
    /// for was among [`Ring::completions`].
    ///
    /// # Errors
    ///
    /// As for [`Ring::submit`], and EINTR when a signal came while nothing was submitted (call it again).
    #[doc(alias = "io_uring_submit_and_wait")]
    #[inline]
    pub fn submit_and_wait(&mut self, wait: u32) -> Result<u32> {
        let wait = wait.saturating_sub(self.core.waiting());
        self.core.submit_and_wait(wait)
    }

    /// As [`Ring::submit_and_wait`], for `limit` at most; that the time passed is no error.
    ///
    /// # Errors
    ///
    /// As for [`Ring::submit_and_wait`].
    #[doc(alias = "io_uring_submit_and_wait_timeout")]
    pub fn submit_and_wait_timeout(&mut self, wait: u32, limit: Duration) -> Result<u32> {
        let wait = wait.saturating_sub(self.core.waiting());
        self.core.submit_and_wait_timeout(wait, limit)
    }

    /// The completions that are there, without waiting. Dropping or forgetting the iterator loses none of those not taken.
    ///
    /// On a ring that the kernel posts completions to only when it is entered, this enters it once.
    #[doc(alias("io_uring_for_each_cqe", "io_uring_peek_cqe", "io_uring_cqe_seen", "io_uring_cq_advance"))]
    #[inline]
    pub fn completions(&mut self) -> Completions<'_, B, E> {
        self.core.flush_completions();
        Completions::new(&mut self.core)
    }

    /// Waits until everything in flight has ended, for `limit` at most, and closes the ring.
    ///
    /// Completions that nobody took are discarded. Raw entries are waited for as well, as far as they can be counted: one that
    /// posts no completion ([`SqeFlags::CQE_SKIP_SUCCESS`](crate::SqeFlags::CQE_SKIP_SUCCESS)) is not, and a message of another
    /// ring counts as the end of one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when operations are still in flight: the kernel is asked to end them, and the ring is closed all
    /// the same, at once, or some milliseconds later where something would leak. The memory of those that do not end is left to
    /// the kernel ([`crate::leaked_operations`] counts what leaks). What the kernel reports.
    pub fn shutdown(mut self, limit: Duration) -> Result<()> {
        if self.core.wait_for_all(limit)? {
            return Ok(());
        }
        let left = self.in_flight() + self.core.queues().raw_in_flight();
        let message = format!("operations in flight: {left}, after {limit:?}");
        // What ends when it is asked to leaks nothing. Dropping the ring waits no longer.
        self.core.end_what_ends_at_once();
        self.core.set_drop_limit(Some(Duration::ZERO));
        Err(Error::new(ErrorKind::TimedOut, message))
    }
}

/// A ring that nobody can submit to yet; see [`RingBuilder::build_disabled`].
///
/// Unlike a [`Ring`] it may be sent to the thread that is to use it, which enables it. A ring that is bound to one thread is
/// bound to that one.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # if sysuring::available().is_err() { return Ok(()) }
/// use sysuring::{Operations as _, Ring};
///
/// let disabled = Ring::builder(8).single_issuer(true).fall_back_flags(true).build_disabled()?;
/// let thread = std::thread::spawn(move || -> sysuring::Result<u32> {
///     let mut ring = disabled.enable()?;
///     ring.nop()?;
///     ring.submit_and_wait(1)
/// });
/// assert_eq!(thread.join().expect("it does not panic")?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DisabledRing<B = NoBuffers, E: Entries = SmallEntries> {
    core: Core<B, E>,
}

impl<B, E: Entries> DisabledRing<B, E> {
    pub(crate) fn new(core: Core<B, E>) -> Self {
        Self { core }
    }

    pub(crate) fn core(&self) -> &Core<B, E> {
        &self.core
    }

    /// The C structure, for what only a ring that is not enabled takes.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::io_uring {
        self.core.queues().raw()
    }

    /// Makes it this thread's ring.
    ///
    /// # Errors
    ///
    /// What the kernel reports; the ring is closed then.
    #[doc(alias = "io_uring_enable_rings")]
    pub fn enable(self) -> Result<Ring<B, E>> {
        self.core.check_usable()?;
        // SAFETY: the ring is set up and ours.
        check(unsafe { sys::io_uring_enable_rings(self.core.queues().raw()) }, "enable a ring")?;
        Ok(Ring::new(self.core))
    }
}

/// A ring that buffers of a type of the caller's own can be moved into; made by
/// [`RingBuilder::build_owned`](crate::RingBuilder::build_owned).
pub type OpRing<B> = Ring<B>;

impl<B, E: Entries> Starter for Ring<B, E> {
    type Owned = B;
    type Entries = E;

    type Guard<'a>
        = &'a mut Core<B, E>
    where
        Self: 'a;

    #[inline(always)]
    fn core_guard(&mut self, _: Seal) -> Option<&mut Core<B, E>> {
        Some(&mut self.core)
    }
}

impl<B, E: Entries> fmt::Debug for Ring<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("sq_entries", &self.sq_entries())
            .field("cq_entries", &self.cq_entries())
            .field("flags", &self.flags())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
