//! How a ring is set up.

use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::time::Duration;

use liburing_sys as sys;

use crate::Unavailable;
use crate::core::Core;
use crate::entries::{BigEntries, Entries, SmallEntries};
use crate::error::{Error, ErrorKind, Result};
use crate::huge_pages::HugePages;
use crate::raw_ring::{RawRing, SetupError};
use crate::ring::{DisabledRing, Ring};
use crate::shared::SharedRing;
use crate::stable::StableBuf;
use crate::table::NoBuffers;

/// How long to wait before each further attempt at a ring that there was no memory for, in milliseconds.
const PATIENCE: [u64; 4] = [1, 4, 10, 20];

bitflags::bitflags! {
    /// `IORING_SETUP_*`; [`RingBuilder`] has a method for each that is worth one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct SetupFlags: u32 {
        /// Wait for completions by polling the device.
        const IOPOLL = sys::IORING_SETUP_IOPOLL;
        /// A kernel thread takes submissions.
        const SQPOLL = sys::IORING_SETUP_SQPOLL;
        /// That thread runs on one processor.
        const SQ_AFF = sys::IORING_SETUP_SQ_AFF;
        /// The size of the completion queue is given.
        const CQSIZE = sys::IORING_SETUP_CQSIZE;
        /// Sizes over the maximum are cut down to it.
        const CLAMP = sys::IORING_SETUP_CLAMP;
        /// Starts disabled.
        const R_DISABLED = sys::IORING_SETUP_R_DISABLED;
        /// A failing entry does not end the submission (since Linux 5.18).
        const SUBMIT_ALL = sys::IORING_SETUP_SUBMIT_ALL;
        /// No interrupt of a running task for completions (since Linux 5.19).
        const COOP_TASKRUN = sys::IORING_SETUP_COOP_TASKRUN;
        /// Tells by a flag that completions are due (since Linux 5.19).
        const TASKRUN_FLAG = sys::IORING_SETUP_TASKRUN_FLAG;
        /// Submission entries of 128 bytes (since Linux 5.19).
        const SQE128 = sys::IORING_SETUP_SQE128;
        /// Completion entries of 32 bytes (since Linux 5.19).
        const CQE32 = sys::IORING_SETUP_CQE32;
        /// Only one task submits (since Linux 6.0).
        const SINGLE_ISSUER = sys::IORING_SETUP_SINGLE_ISSUER;
        /// Completions are posted only while that task waits (since Linux 6.1).
        const DEFER_TASKRUN = sys::IORING_SETUP_DEFER_TASKRUN;
        /// The kernel's threads are another ring's.
        const ATTACH_WQ = sys::IORING_SETUP_ATTACH_WQ;
        /// Entries are taken in their order, without an array of indices (since Linux 6.6). liburing asks for it by itself where
        /// the kernel has it, from 2.6 on.
        const NO_SQARRAY = 1 << 16;
        /// Polling sleeps for a part of the time (since Linux 6.13).
        const HYBRID_IOPOLL = 1 << 17;
    }
}

impl SetupFlags {
    /// What binds a ring to the thread that made it.
    const ONE_THREAD: Self = Self::SINGLE_ISSUER.union(Self::DEFER_TASKRUN);
}

/// Sets up a [`Ring`] or a [`SharedRing`].
///
/// ```
/// use sysuring::Ring;
///
/// # fn main() -> sysuring::Result<()> {
/// # if sysuring::available().is_err() { return Ok(()) }
/// let ring = Ring::builder(64).single_issuer(true).defer_taskrun(true).fall_back_flags(true).build()?;
/// println!("{:?}", ring.flags());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RingBuilder<E: Entries = SmallEntries> {
    entries: u32,
    flags: SetupFlags,
    cq_entries: u32,
    sq_idle: Duration,
    sq_cpu: u32,
    files: u32,
    fall_back: bool,
    drop_limit: Option<Duration>,
    huge_pages: bool,
    size: PhantomData<E>,
}

impl RingBuilder {
    pub(crate) fn new(entries: u32) -> Self {
        Self {
            entries,
            flags: SetupFlags::empty(),
            cq_entries: 0,
            sq_idle: Duration::ZERO,
            sq_cpu: 0,
            files: 64,
            fall_back: false,
            drop_limit: None,
            huge_pages: false,
            size: PhantomData,
        }
    }

    /// Submission entries of 128 bytes and completion entries of 32, as NVMe passthrough needs (since Linux 5.19).
    ///
    /// ```
    /// use sysuring::{BigEntries, Completion, NoBuffers, Ring};
    ///
    /// # fn main() -> sysuring::Result<()> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// # if Ring::builder(8).big_entries().build().is_err() { return Ok(()) }
    /// let mut ring: Ring<NoBuffers, BigEntries> = Ring::builder(8).big_entries().build()?;
    /// ring.get_sqe().expect("the queue is empty").prep_nop();
    /// ring.submit_and_wait(1)?;
    /// let Some(Completion::Raw(cqe)) = ring.completions().next() else { panic!("one entry, one completion") };
    /// let [_first, _second] = cqe.extra();
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("IORING_SETUP_SQE128", "IORING_SETUP_CQE32"))]
    #[must_use]
    pub fn big_entries(self) -> RingBuilder<BigEntries> {
        let Self { entries, flags, cq_entries, sq_idle, sq_cpu, files, fall_back, drop_limit, huge_pages, .. } = self;
        let size = PhantomData;
        RingBuilder { entries, flags, cq_entries, sq_idle, sq_cpu, files, fall_back, drop_limit, huge_pages, size }
    }
}

impl<E: Entries> RingBuilder<E> {
    fn set(mut self, flags: SetupFlags, on: bool) -> Self {
        self.flags.set(flags, on);
        self
    }

    /// Entries of the completion queue; twice those of the submission queue unless given. Also the most operations that
    /// may be in flight.
    #[doc(alias = "IORING_SETUP_CQSIZE")]
    #[must_use]
    pub fn cq_entries(mut self, entries: u32) -> Self {
        self.cq_entries = entries;
        self.set(SetupFlags::CQSIZE, true)
    }

    /// A kernel thread takes submissions without a system call and sleeps after `idle` without any; zero means the kernel's
    /// default, one second.
    #[doc(alias = "IORING_SETUP_SQPOLL")]
    #[must_use]
    pub fn sqpoll(mut self, idle: Duration) -> Self {
        self.sq_idle = idle;
        self.set(SetupFlags::SQPOLL, true)
    }

    /// Binds the kernel thread of [`RingBuilder::sqpoll`] to a processor.
    #[doc(alias = "IORING_SETUP_SQ_AFF")]
    #[must_use]
    pub fn sqpoll_cpu(mut self, cpu: u32) -> Self {
        self.sq_cpu = cpu;
        self.set(SetupFlags::SQ_AFF, true)
    }

    /// Waits for completions by polling the device; only O_DIRECT transfers to one that can be polled work then.
    #[doc(alias = "IORING_SETUP_IOPOLL")]
    #[must_use]
    pub fn iopoll(self, on: bool) -> Self {
        let flags = SetupFlags::IOPOLL;
        // Nothing sleeps for a part of what is not polled.
        self.set(if on { flags } else { flags | SetupFlags::HYBRID_IOPOLL }, on)
    }

    /// An entry that fails at once does not end the submission of those after it (since Linux 5.18).
    #[doc(alias = "IORING_SETUP_SUBMIT_ALL")]
    #[must_use]
    pub fn submit_all(self, on: bool) -> Self {
        self.set(SetupFlags::SUBMIT_ALL, on)
    }

    /// Does not interrupt the task when completions are due (since Linux 5.19).
    #[doc(alias = "IORING_SETUP_COOP_TASKRUN")]
    #[must_use]
    pub fn coop_taskrun(self, on: bool) -> Self {
        self.set(SetupFlags::COOP_TASKRUN, on)
    }

    /// Promises that one thread submits (since Linux 6.0). For a [`Ring`] only.
    #[doc(alias = "IORING_SETUP_SINGLE_ISSUER")]
    #[must_use]
    pub fn single_issuer(self, on: bool) -> Self {
        self.set(SetupFlags::SINGLE_ISSUER, on)
    }

    /// Posts completions only while the thread waits (since Linux 6.1); implies [`RingBuilder::single_issuer`]. For a
    /// [`Ring`] only.
    #[doc(alias = "IORING_SETUP_DEFER_TASKRUN")]
    #[must_use]
    pub fn defer_taskrun(self, on: bool) -> Self {
        let flags = SetupFlags::DEFER_TASKRUN;
        self.set(if on { flags | SetupFlags::SINGLE_ISSUER } else { flags }, on)
    }

    /// Cuts sizes that are over the kernel's maximum down to it, instead of failing.
    #[doc(alias = "IORING_SETUP_CLAMP")]
    #[must_use]
    pub fn clamp(self, on: bool) -> Self {
        self.set(SetupFlags::CLAMP, on)
    }

    /// Files that can be registered at once; 64 unless given.
    #[must_use]
    pub fn files(mut self, files: u32) -> Self {
        self.files = files;
        self
    }

    /// How long dropping the ring waits, after it asked the kernel to cancel them, for operations in flight.
    ///
    /// Unless set, it waits only where something would leak otherwise, for a second at most: buffers that were moved in, paths,
    /// times, addresses and descriptors that an operation keeps open or makes leak; leases of a pool and registered files don't ([`crate::leaked_operations`], [`crate::Pool::retired_bytes`]).
    #[must_use]
    pub fn drop_limit(mut self, limit: Duration) -> Self {
        self.drop_limit = Some(limit);
        self
    }

    /// Has the queues on a huge page of 2 MiB (since Linux 6.5; liburing 2.5, header and library). Queues that don't fit are
    /// an error.
    #[doc(alias("io_uring_queue_init_mem", "IORING_SETUP_NO_MMAP"))]
    #[must_use]
    pub fn huge_pages(mut self, on: bool) -> Self {
        self.huge_pages = on;
        self
    }

    /// Polls the device as [`RingBuilder::iopoll`] does, and sleeps for a part of the time that it took before (since Linux
    /// 6.13).
    #[doc(alias = "IORING_SETUP_HYBRID_IOPOLL")]
    #[must_use]
    pub fn hybrid_iopoll(self, on: bool) -> Self {
        let flags = SetupFlags::HYBRID_IOPOLL;
        self.set(if on { flags | SetupFlags::IOPOLL } else { flags }, on)
    }

    /// Insists on a queue without an array of indices, which saves its memory and a look at it for each entry (since Linux 6.6;
    /// liburing 2.6). From 2.6 on liburing has such queues anyway where the kernel can; [`Ring::flags`] tells.
    ///
    /// # Errors
    ///
    /// With an older library [`RingBuilder::build`] is [`ErrorKind::Unsupported`]: it would write the array over the queues.
    #[doc(alias = "IORING_SETUP_NO_SQARRAY")]
    #[must_use]
    pub fn no_sqarray(self, on: bool) -> Self {
        self.set(SetupFlags::NO_SQARRAY, on)
    }

    /// Where the kernel does not know a flag that only speeds things up, goes on without it: DEFER_TASKRUN and
    /// SINGLE_ISSUER first, then COOP_TASKRUN, then SUBMIT_ALL. [`Ring::flags`] tells what was granted.
    #[must_use]
    pub fn fall_back_flags(mut self, on: bool) -> Self {
        self.fall_back = on;
        self
    }

    /// Sets up a ring for this thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] with the reason where there is no io_uring to be had, [`ErrorKind::InvalidInput`] where
    /// the sizes or the combination of flags are refused.
    #[doc(alias("io_uring_queue_init", "io_uring_queue_init_params"))]
    pub fn build(&self) -> Result<Ring<NoBuffers, E>> {
        self.core().map(Ring::new)
    }

    /// Sets up a ring for this thread that buffers of the type `B` can be moved into.
    ///
    /// # Errors
    ///
    /// As for [`RingBuilder::build`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// use sysuring::{OpRing, Operations as _, Ring};
    ///
    /// let mut ring: OpRing<Vec<u8>> = Ring::builder(8).build_owned()?;
    /// let file = ring.register_file(&std::fs::File::open("/proc/self/exe")?)?;
    /// ring.read_owned(&file, vec![0; 4], 0)?;
    /// ring.submit_and_wait(1)?;
    /// let done = ring.completions().find_map(|completion| completion.into_done()).expect("waited for");
    /// assert_eq!(done.into_owned().as_deref(), Some(&b"\x7fELF"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn build_owned<B: StableBuf>(&self) -> Result<Ring<B, E>> {
        self.core().map(Ring::new)
    }

    /// As [`RingBuilder::build`], and the ring has its kernel threads together with `other`: with [`RingBuilder::sqpoll`],
    /// one thread takes the submissions of both. Only useful with `sqpoll` on both rings (since Linux 5.12).
    ///
    /// Neither of the two takes a [`Ring::chain`] from then on ([`RejectReason::SharedPoller`](crate::RejectReason::SharedPoller)):
    /// of several rings the thread takes eight entries at a time, and the kernel ends a chain there. One that is in `other`'s queue
    /// is to be submitted before.
    ///
    /// # Errors
    ///
    /// As for [`RingBuilder::build`], and [`ErrorKind::InvalidInput`] with `sqpoll` where `other` has no polling thread.
    #[doc(alias = "IORING_SETUP_ATTACH_WQ")]
    pub fn build_attached<B, F: Entries>(&self, other: &Ring<B, F>) -> Result<Ring<NoBuffers, E>> {
        if self.flags.contains(SetupFlags::SQPOLL) && !other.flags().contains(SetupFlags::SQPOLL) {
            let message = "the other ring has no polling thread to share; make it with sqpoll, too";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let descriptor = other.descriptor();
        let core = self.clone().set(SetupFlags::ATTACH_WQ, true).core_attached(descriptor)?;
        core.queues().share_poller();
        other.core_ref().queues().share_poller();
        Ok(Ring::new(core))
    }

    /// Sets up a ring that threads share.
    ///
    /// # Errors
    ///
    /// As for [`RingBuilder::build`], and [`ErrorKind::InvalidInput`] with `single_issuer` or `defer_taskrun`, which bind
    /// a ring to one thread.
    pub fn build_shared(&self) -> Result<SharedRing<E>> {
        if self.flags.intersects(SetupFlags::ONE_THREAD) {
            let message = "a shared ring can't be bound to one thread; leave single_issuer and defer_taskrun off";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        self.core().map(SharedRing::new)
    }

    /// Sets up a ring that is enabled later, by the thread that will use it.
    ///
    /// # Errors
    ///
    /// As for [`RingBuilder::build`].
    #[doc(alias = "IORING_SETUP_R_DISABLED")]
    pub fn build_disabled(&self) -> Result<DisabledRing<NoBuffers, E>> {
        self.clone().set(SetupFlags::R_DISABLED, true).core().map(DisabledRing::new)
    }

    pub(crate) fn core<B>(&self) -> Result<Core<B, E>> {
        self.core_attached(-1)
    }

    /// `attached` is the descriptor of the ring to share kernel threads with, where the flags say so.
    fn core_attached<B>(&self, attached: RawFd) -> Result<Core<B, E>> {
        if self.huge_pages {
            HugePages::check()?;
        }
        if self.flags.contains(SetupFlags::NO_SQARRAY) {
            check_no_sqarray()?;
        }
        let mut flags = self.flags;
        if flags.intersects(SetupFlags::COOP_TASKRUN | SetupFlags::DEFER_TASKRUN) {
            // So that completions() knows when the kernel has to be entered.
            flags |= SetupFlags::TASKRUN_FLAG;
        }
        let mut patience = PATIENCE.iter();
        loop {
            match self.try_core(flags, attached) {
                // The kernel gives back the locked memory of a ring some time after it was closed.
                Err(SetupError::Errno(errno @ libc::ENOMEM)) => match patience.next() {
                    Some(milliseconds) => std::thread::sleep(Duration::from_millis(*milliseconds)),
                    None => return Err(self.refused(errno)),
                },
                Err(SetupError::Errno(libc::EINVAL)) if self.fall_back => match one_rung_down(flags) {
                    Some(fewer) => flags = fewer,
                    None => return Err(self.refused(libc::EINVAL)),
                },
                Err(SetupError::Errno(errno)) => return Err(self.refused(errno)),
                Err(SetupError::Unavailable(reason)) => return Err(reason.into_error()),
                Ok(mut core) => {
                    core.set_drop_limit(self.drop_limit);
                    return Ok(core);
                }
            }
        }
    }

    fn try_core<B>(&self, flags: SetupFlags, attached: RawFd) -> Result<Core<B, E>, SetupError> {
        // SAFETY: all zeroes is a value of this C structure.
        let mut params = unsafe { std::mem::zeroed::<sys::io_uring_params>() };
        params.flags = (flags | Self::SIZE).bits();
        params.cq_entries = self.cq_entries;
        params.wq_fd = attached as u32;
        params.sq_thread_cpu = self.sq_cpu;
        params.sq_thread_idle = u32::try_from(self.sq_idle.as_millis()).unwrap_or(u32::MAX);
        let memory = if self.huge_pages {
            let memory = HugePages::new().map_err(|error| SetupError::Unavailable(Unavailable::other(&error)))?;
            Some(memory)
        } else {
            None
        };
        let ring = RawRing::new(self.entries, &mut params, memory)?;
        Ok(Core::new(ring, self.files))
    }

    /// The error for a setup that the kernel refused.
    #[cold]
    fn refused(&self, errno: i32) -> Error {
        if errno == libc::EINVAL {
            let message = format!(
                "io_uring_setup refuses {} entries with {:?} (EINVAL); {}",
                self.entries,
                self.all_flags(),
                self.hint()
            );
            return Error::new(ErrorKind::InvalidInput, message);
        }
        Unavailable::from_errno("io_uring_setup", errno).into_error()
    }
}

impl<E: Entries> RingBuilder<E> {
    /// What entries of this size take.
    const SIZE: SetupFlags = SetupFlags::from_bits_retain(E::FLAGS);

    /// The flags that are asked for.
    fn all_flags(&self) -> SetupFlags {
        self.flags | Self::SIZE
    }

    /// What is wrong with a setup that the kernel finds invalid, as far as we can tell.
    fn hint(&self) -> &'static str {
        let flags = self.all_flags();
        if self.entries == 0 || self.entries > 32768 && !flags.contains(SetupFlags::CLAMP) {
            "use 1 to 32768 entries"
        } else if flags.contains(SetupFlags::CQSIZE) && self.cq_entries < self.entries {
            "cq_entries must be at least the entries"
        } else if flags.contains(SetupFlags::CQSIZE) && self.cq_entries > 65536 && !flags.contains(SetupFlags::CLAMP) {
            "use up to 65536 cq_entries"
        } else if flags.contains(SetupFlags::SQ_AFF) && !flags.contains(SetupFlags::SQPOLL) {
            "sqpoll_cpu needs sqpoll"
        } else if flags.contains(SetupFlags::SQ_AFF) {
            "does the processor of sqpoll_cpu exist?"
        } else if flags.contains(SetupFlags::SQPOLL)
            && flags.intersects(SetupFlags::DEFER_TASKRUN | SetupFlags::COOP_TASKRUN)
        {
            "sqpoll excludes defer_taskrun and coop_taskrun"
        } else if flags.contains(SetupFlags::DEFER_TASKRUN) && !flags.contains(SetupFlags::SINGLE_ISSUER) {
            "defer_taskrun needs single_issuer, which was switched off again"
        } else if flags.contains(SetupFlags::NO_SQARRAY) {
            "no_sqarray needs Linux 6.6"
        } else if flags.is_empty() {
            "a sandbox may answer in the kernel's place"
        } else {
            "this kernel may not know a flag (fall_back_flags drops those that only speed things up)"
        }
    }
}

/// Whether the library knows that there may be no array of indices in the queue.
fn check_no_sqarray() -> Result<()> {
    match sys::library_version() {
        Some(version) if (version.major, version.minor) < (2, 6) => {
            let message = format!("liburing {version} has no queues without an array of indices; 2.6 brought them");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        // Where there is none at all, the set-up says so.
        _ => Ok(()),
    }
}

/// The same flags without the newest that only speed things up.
fn one_rung_down(flags: SetupFlags) -> Option<SetupFlags> {
    if flags.intersects(SetupFlags::ONE_THREAD) {
        let without = flags - SetupFlags::ONE_THREAD;
        return Some(without | SetupFlags::COOP_TASKRUN | SetupFlags::TASKRUN_FLAG);
    }
    let cooperative = SetupFlags::COOP_TASKRUN | SetupFlags::TASKRUN_FLAG;
    if flags.intersects(cooperative) {
        return Some(flags - cooperative);
    }
    flags.contains(SetupFlags::SUBMIT_ALL).then(|| flags - SetupFlags::SUBMIT_ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_in_part_goes_with_polling() {
        let flags = |builder: RingBuilder| builder.flags;
        let hybrid = || RingBuilder::new(8).hybrid_iopoll(true);
        assert_eq!(flags(hybrid()), SetupFlags::IOPOLL | SetupFlags::HYBRID_IOPOLL);
        assert_eq!(flags(hybrid().hybrid_iopoll(false)), SetupFlags::IOPOLL);
        assert_eq!(flags(hybrid().iopoll(false)), SetupFlags::empty());
    }

    #[test]
    fn the_ladder_ends() {
        let mut flags = SetupFlags::all();
        let mut rungs = 0;
        while let Some(fewer) = one_rung_down(flags) {
            flags = fewer;
            rungs += 1;
        }
        assert_eq!(rungs, 3);
        assert!(flags.contains(SetupFlags::SQPOLL), "what changes the meaning is never dropped");
    }
}
