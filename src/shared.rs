//! A ring that threads share.
//!
//! Who waits, and where, is in [`crate::leader`].

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, RawFd};

use crate::completion::Done;
use crate::core::Core;
use crate::entries::{Entries, SmallEntries};
use crate::error::{Error, ErrorKind, Result};
use crate::file::FixedFile;
use crate::leader::{Led, Locked, Source, forked};
use crate::operations::{FileRef, Operations, Seal, Starter};
use crate::pool::{Buf, Pool};
use crate::raw_ring::{is_passing, wait_for_one};
use crate::rejected::{RejectReason, Rejected};
use crate::table::{NoBuffers, Ticket};

/// A ring whose methods take `&self` and may be called from any thread.
///
/// Each operation that was started must be submitted and waited for, or its completion keeps a place in the table; waiting
/// for one that nobody submits lasts until somebody does. Beside reads and writes it starts whatever is in
/// [`Operations`](crate::Operations), as `(&ring).fsync(&file, true)`. For one thread [`crate::Ring`] is faster: it takes no
/// lock and can be bound to its thread.
///
/// To the kernel an operation is of the thread that submitted it: one that waits for something, such as a receive, ends with
/// ECANCELED when that thread ends. Start it again, or let threads submit that last.
///
/// Scopes, chains, operations that report more than once, and buffers that the kernel picks are on [`crate::Ring`] alone: their
/// completions would be anybody's.
///
/// ```
/// use sysuring::{Pool, Ring};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if sysuring::available().is_err() { return Ok(()) }
/// let ring = Ring::builder(8).build_shared()?;
/// let pool = Pool::new(4, 4096)?;
/// ring.register_pool(&pool)?;
/// let file = ring.register_file(&std::fs::File::open("/proc/self/exe")?)?;
/// std::thread::scope(|scope| {
///     for block in 0..4 {
///         let (ring, pool, file) = (&ring, &pool, &file);
///         scope.spawn(move || -> sysuring::Result<u32> {
///             let buf = pool.lease().expect("four threads, four slots");
///             let ticket = ring.read_fixed(file, buf, 512, block * 512)?;
///             ring.submit()?;
///             ring.wait(ticket)?.result()
///         });
///     }
/// });
/// # Ok(())
/// # }
/// ```
pub struct SharedRing<E: Entries = SmallEntries>(Led<Core<NoBuffers, E>>);

impl<E: Entries> Source for Core<NoBuffers, E> {
    type Descriptor = RawFd;

    fn reap(&mut self) {
        Self::reap(self);
    }

    fn check_usable(&self) -> Result<()> {
        Self::check_usable(self)
    }

    fn descriptor(&self) -> RawFd {
        self.queues().descriptor()
    }

    fn wait(descriptor: RawFd) -> Result<()> {
        match wait_for_one(descriptor).map_err(|error| Error::from_io(error, "wait for completions")) {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, error: &Error) {
        self.failed_to_wait(error);
    }
}

impl<E: Entries> SharedRing<E> {
    pub(crate) fn new(core: Core<NoBuffers, E>) -> Self {
        let mark = core.queues().mark();
        Self(Led::new(core, mark))
    }

    /// Works on the ring under the lock.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Core<NoBuffers, E>) -> R) -> Result<R> {
        let mut core = self.0.lock().ok_or_else(forked)?;
        Ok(work(&mut core))
    }

    /// Registers a pool; see [`crate::Ring::register_pool`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn register_pool(&self, pool: &Pool) -> Result<()> {
        self.with(|core| core.register_pool(pool))?
    }

    /// Registers a file; see [`crate::Ring::register_file`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn register_file(&self, file: &impl AsFd) -> Result<FixedFile> {
        // The caller's own code, which may use this ring: before the lock.
        let file = file.as_fd();
        self.with(|core| core.register_file(file))?
    }

    /// Starts a read; see [`Operations::read_fixed`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_fixed(&self, file: &impl FileRef, buf: Buf, length: u32, offset: u64) -> Result<Ticket, Rejected<Buf>> {
        Operations::read_fixed(&mut &*self, file, buf, length, offset)
    }

    /// Starts a write; see [`Operations::write_fixed`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_fixed(
        &self,
        file: &impl FileRef,
        buf: Buf,
        length: u32,
        offset: u64,
    ) -> Result<Ticket, Rejected<Buf>> {
        Operations::write_fixed(&mut &*self, file, buf, length, offset)
    }

    /// Starts a read into a pool that is not registered; see [`Operations::read`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read(&self, file: &impl FileRef, buf: Buf, length: u32, offset: u64) -> Result<Ticket, Rejected<Buf>> {
        Operations::read(&mut &*self, file, buf, length, offset)
    }

    /// Starts a write from a pool that is not registered; see [`Operations::write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write(&self, file: &impl FileRef, buf: Buf, length: u32, offset: u64) -> Result<Ticket, Rejected<Buf>> {
        Operations::write(&mut &*self, file, buf, length, offset)
    }

    /// Submits what all threads started.
    ///
    /// # Errors
    ///
    /// As for [`crate::Ring::submit`].
    pub fn submit(&self) -> Result<u32> {
        self.with(Core::submit)?
    }

    /// Asks the kernel to end an operation early; see [`crate::Ring::cancel`]. It is asked at the next submit.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`](crate::RejectReason).
    #[doc(alias("io_uring_prep_cancel", "IORING_OP_ASYNC_CANCEL"))]
    pub fn cancel(&self, ticket: Ticket) -> Result<(), Rejected<()>> {
        let rejected = |reason| Rejected::new(reason, ());
        let mut core = self.0.lock().ok_or_else(|| rejected(RejectReason::Forked))?;
        core.cancel(ticket).map_err(rejected)
    }

    /// Waits until an operation that was submitted has ended; [`SharedRing::cancel`], from another thread, ends one that waits for
    /// something that never comes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a ticket that means nothing here: it was waited for before, or (as a rule) is of
    /// another ring; what the kernel reports of waiting.
    pub fn wait(&self, ticket: Ticket) -> Result<Done> {
        let mut finished = None;
        self.wait_until(|core| {
            if finished.is_none() {
                finished = core.take(ticket).map(|finished| core.done(finished));
            }
            finished.is_some() || !core.knows(ticket)
        })?;
        if let Some(finished) = finished {
            return Ok(finished);
        }
        // One that lost completions knows no operation any more.
        self.with(|core| core.check_usable())??;
        Err(Error::new(ErrorKind::InvalidInput, "the ticket is of another ring, or was waited for already"))
    }

    /// Waits until `is_over`, which looks at the ring under the lock whenever completions were taken.
    pub(crate) fn wait_until(&self, is_over: impl FnMut(&mut Core<NoBuffers, E>) -> bool) -> Result<()> {
        self.0.wait_until(is_over)
    }
}

/// Any operation, from any thread: `(&ring).fsync(&file, true)`.
impl<E: Entries> Starter for &SharedRing<E> {
    type Owned = NoBuffers;
    type Entries = E;

    type Guard<'a>
        = LockedCore<'a, E>
    where
        Self: 'a;

    fn core_guard(&mut self, _: Seal) -> Option<LockedCore<'_, E>> {
        self.0.lock().map(LockedCore)
    }
}

/// The core, while the lock is held. Public, in a private module: a sealed trait speaks of it.
#[derive(Debug)]
pub struct LockedCore<'ring, E: Entries = SmallEntries>(Locked<'ring, Core<NoBuffers, E>>);

impl<E: Entries> Deref for LockedCore<'_, E> {
    type Target = Core<NoBuffers, E>;

    fn deref(&self) -> &Core<NoBuffers, E> {
        &self.0
    }
}

impl<E: Entries> DerefMut for LockedCore<'_, E> {
    fn deref_mut(&mut self) -> &mut Core<NoBuffers, E> {
        &mut self.0
    }
}

impl<E: Entries> fmt::Debug for SharedRing<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRing").finish_non_exhaustive()
    }
}
