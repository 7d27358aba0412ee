//! Operations that start one after another, and operations with flags.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use liburing_sys as sys;

use crate::core::Core;
use crate::entries::{Entries, SmallEntries};
use crate::operations::{Seal, Starter, start_time};
use crate::rejected::Rejected;
use crate::ring::{OneThread, Ring};
use crate::table::{NoBuffers, Ticket};

/// Operations that start one after another; see [`Ring::chain`].
#[derive(Debug)]
pub struct Chain<'ring, B = NoBuffers, E: Entries = SmallEntries> {
    core: &'ring mut Core<B, E>,
    one_thread: OneThread,
}

impl<B, E: Entries> Ring<B, E> {
    /// Starts operations each of which begins when the one before has succeeded; those after one that failed, or moved less
    /// than it was to, end with ECANCELED.
    ///
    /// In C these are linked entries. ([`Operations::link`](crate::Operations::link) is another thing: a name for a file.)
    ///
    /// Nothing is started before `build` has returned `Ok`. Where it answers `Err`, or unwinds, leases return to their pools *with
    /// what was in them*, buffers that were moved in are **dropped**, and a descriptor that was to be closed **is closed**: who
    /// can't do without them asks [`Ring::check_chain`] first, and sees to it that nothing else is refused. All of a chain is
    /// submitted at once.
    ///
    /// # Errors
    ///
    /// That of `build`. A chain that does not fit behind what waits in the queue is
    /// [`QueueFull`](crate::RejectReason::QueueFull), one that is longer than the queue
    /// [`ChainTooLong`](crate::RejectReason::ChainTooLong), and one on a ring that shares its polling thread
    /// [`SharedPoller`](crate::RejectReason::SharedPoller).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// use sysuring::{Operations as _, Pool, Ring};
    ///
    /// # let path = std::env::temp_dir().join(format!("sysuring-chain-{}", std::process::id()));
    /// # let file = std::fs::File::create(&path)?;
    /// # std::fs::remove_file(&path)?;
    /// let mut ring = Ring::with_entries(8)?;
    /// let pool = Pool::new(1, 4096)?;
    /// let file = ring.register_file(&file)?;
    /// let mut buf = pool.lease().expect("the only one");
    /// buf[..5].copy_from_slice(b"hello");
    /// let fsync = ring.chain(|chain| -> sysuring::Result<_> {
    ///     chain.write(&file, buf, 5, 0)?;
    ///     Ok(chain.fsync(&file, true)?)
    /// })?;
    /// ring.submit_and_wait(2)?;
    /// for completion in ring.completions() {
    ///     let done = completion.into_done().expect("of the safe interface");
    ///     assert_eq!(done.result()?, if done.ticket() == fsync { 0 } else { 5 });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "IOSQE_IO_LINK")]
    pub fn chain<T, Error>(
        &mut self,
        build: impl FnOnce(&mut Chain<'_, B, E>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.chain_by(sys::IOSQE_IO_LINK as u8, build)
    }

    /// Whether a chain of `length` operations has room: one that is put together right after is not refused for the want of it.
    ///
    /// What is given to a chain that is given up half way is gone, so that this is worth a look before something that there is
    /// no other copy of is moved in. It says nothing of what may be refused for other reasons, as a file of another ring.
    ///
    /// # Errors
    ///
    /// [`QueueFull`](crate::RejectReason::QueueFull): submit first; [`TableFull`](crate::RejectReason::TableFull): take some
    /// completions first; those of [`Ring::chain`], and of a ring that can't be used.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// use sysuring::{OpRing, Operations as _, RejectReason, Ring};
    ///
    /// # let file = std::sync::Arc::new(std::os::fd::OwnedFd::from(std::fs::File::options().write(true).open("/dev/null")?));
    /// let mut ring: OpRing<Vec<u8>> = Ring::builder(2).build_owned()?;
    /// ring.nop()?; // waits in the queue
    /// let only_copy = b"hello".to_vec();
    /// if let Err(rejected) = ring.check_chain(2) {
    ///     assert_eq!(rejected.reason(), RejectReason::QueueFull);
    ///     ring.submit()?;
    /// }
    /// ring.chain(|chain| -> sysuring::Result<_> {
    ///     chain.write_owned(&file, only_copy, 0)?;
    ///     Ok(chain.nop()?)
    /// })?;
    /// # ring.submit_and_wait(3)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn check_chain(&self, length: u32) -> Result<(), Rejected<()>> {
        self.core_ref().check_chain(length).map_err(|reason| Rejected::new(reason, ()))
    }

    /// As [`Ring::chain`], but an operation that fails does not end those after it.
    ///
    /// # Errors
    ///
    /// As for [`Ring::chain`].
    #[doc(alias = "IOSQE_IO_HARDLINK")]
    pub fn hard_chain<T, Error>(
        &mut self,
        build: impl FnOnce(&mut Chain<'_, B, E>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.chain_by(sys::IOSQE_IO_HARDLINK as u8, build)
    }

    fn chain_by<T, Error>(
        &mut self,
        link: u8,
        build: impl FnOnce(&mut Chain<'_, B, E>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.core().begin_chain(link);
        let mut open = Open { core: self.core(), is_complete: false };
        let built = build(&mut Chain { core: open.core, one_thread: PhantomData })?;
        open.is_complete = true;
        Ok(built)
    }

    /// Starts operations that begin when everything submitted before them has ended, and before anything submitted after.
    ///
    /// With [`RingBuilder::defer_taskrun`](crate::RingBuilder::defer_taskrun) wait for what is before them first, and for them with
    /// another call: Linux 6.18 does not wake who waits for all at once before all but the last have ended, and these begin only
    /// when somebody is woken.
    ///
    /// A [`Ring::cancel`] is submitted after them, too, and waits as long: what it is to end has to end by itself, or by
    /// [`Ring::register_sync_cancel`], which waits for nobody.
    #[doc(alias = "IOSQE_IO_DRAIN")]
    pub fn drained(&mut self) -> WithFlags<'_, B, E> {
        WithFlags { core: self.core(), flags: sys::IOSQE_IO_DRAIN as u8, one_thread: PhantomData }
    }

    /// Starts operations that the kernel hands to a thread of its own at once, without an attempt to complete them first.
    #[doc(alias = "IOSQE_ASYNC")]
    pub fn forced_async(&mut self) -> WithFlags<'_, B, E> {
        WithFlags { core: self.core(), flags: sys::IOSQE_ASYNC as u8, one_thread: PhantomData }
    }
}

/// A chain that is being put together; unless it is complete when this is dropped, it is as if it had never begun.
struct Open<'ring, B, E: Entries> {
    core: &'ring mut Core<B, E>,
    is_complete: bool,
}

impl<B, E: Entries> Drop for Open<'_, B, E> {
    fn drop(&mut self) {
        if self.is_complete {
            self.core.end_chain();
            return;
        }
        let mut forgotten = Vec::new();
        self.core.abandon_chain(|finished| {
            if cfg!(sysuring_break = "r10_chain") {
                drop(finished);
            } else {
                forgotten.push(finished);
            }
        });
        // Only now, when the chain is gone, may the caller's own buffers be dropped.
        drop(forgotten);
    }
}

#[cfg(sysuring_break = "r8_send")]
// SAFETY: none, this is a mistake.
unsafe impl<B, E: Entries> Send for Chain<'_, B, E> {}

impl<B, E: Entries> Chain<'_, B, E> {
    /// Ends the operation before this one with ECANCELED where it takes longer than `limit`. This one ends with ETIME then,
    /// and with ECANCELED where it was in time.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`](crate::RejectReason).
    #[doc(alias("io_uring_prep_link_timeout", "IORING_OP_LINK_TIMEOUT"))]
    pub fn link_timeout(&mut self, limit: Duration) -> Result<Ticket, Rejected<()>> {
        start_time(self.core, sys::IORING_OP_LINK_TIMEOUT, limit)
    }
}

impl<B, E: Entries> Starter for Chain<'_, B, E> {
    type Owned = B;
    type Entries = E;

    type Guard<'a>
        = &'a mut Core<B, E>
    where
        Self: 'a;

    #[inline(always)]
    fn core_guard(&mut self, _: Seal) -> Option<&mut Core<B, E>> {
        Some(self.core)
    }
}

/// Starts operations with a flag; see [`Ring::drained`] and [`Ring::forced_async`].
#[derive(Debug)]
pub struct WithFlags<'ring, B = NoBuffers, E: Entries = SmallEntries> {
    core: &'ring mut Core<B, E>,
    #[cfg(not(sysuring_break = "r7_flags"))]
    flags: u8,
    #[cfg(sysuring_break = "r7_flags")]
    pub flags: u8,
    one_thread: OneThread,
}

impl<B, E: Entries> Starter for WithFlags<'_, B, E> {
    type Owned = B;
    type Entries = E;

    type Guard<'a>
        = Flagged<'a, B, E>
    where
        Self: 'a;

    fn core_guard(&mut self, _: Seal) -> Option<Flagged<'_, B, E>> {
        Some(Flagged::set(self.core, self.flags))
    }
}

/// A ring whose entries get flags until this is dropped. Public, in a private module: a sealed trait speaks of it.
#[derive(Debug)]
pub struct Flagged<'ring, B, E: Entries> {
    core: &'ring mut Core<B, E>,
    before: u8,
}

impl<'ring, B, E: Entries> Flagged<'ring, B, E> {
    fn set(core: &'ring mut Core<B, E>, flags: u8) -> Self {
        let before = core.extra_flags();
        let skip = if cfg!(sysuring_break = "r7_skip") { sys::IOSQE_CQE_SKIP_SUCCESS as u8 } else { 0 };
        core.set_extra_flags(before | flags | skip);
        Self { core, before }
    }
}

impl<B, E: Entries> Deref for Flagged<'_, B, E> {
    type Target = Core<B, E>;

    fn deref(&self) -> &Core<B, E> {
        self.core
    }
}

impl<B, E: Entries> DerefMut for Flagged<'_, B, E> {
    fn deref_mut(&mut self) -> &mut Core<B, E> {
        self.core
    }
}

impl<B, E: Entries> Drop for Flagged<'_, B, E> {
    fn drop(&mut self) {
        self.core.set_extra_flags(self.before);
    }
}
