//! What a device picked, and why.

use std::fmt;

use crate::Unavailable;
use crate::block::{Backend, Capabilities, Geometry};

/// A step down: what a device does instead of what was asked for. [`Options::forbid`](crate::block::Options::forbid) makes an
/// error of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fallback {
    /// `pread`/`pwrite`, since there is no ring to be had; `ioctl` where NVMe commands are passed through. Forbidding it is
    /// [`Backend::Uring`].
    Pread,
    /// The page cache, since the file system refuses O_DIRECT, or wants larger blocks for it.
    PageCache,
    /// Interrupts, since completions can't be polled for.
    Interrupts,
    /// Submission by system call, since there is no kernel thread for it to be had.
    SystemCalls,
    /// Transfers with buffers that are not registered.
    UnregisteredBuffers,
    /// A ring that threads share, for a thread that got none of its own.
    SharedRing,
    /// `pread`/`pwrite`, or `ioctl`, for some of the transfers of a device on io_uring.
    PreadAtTimes,
}

impl Fallback {
    /// Its place in a set of them.
    pub(super) fn bit(self) -> u8 {
        1 << self as u8
    }

    /// What is done.
    pub(super) fn consequence(self, is_passthrough: bool) -> &'static str {
        match self {
            Self::Pread | Self::PreadAtTimes if is_passthrough => "passing commands by ioctl",
            Self::Pread | Self::PreadAtTimes => "using pread/pwrite",
            Self::PageCache => "going through the page cache",
            Self::Interrupts => "waiting for interrupts",
            Self::SystemCalls => "submitting by system call",
            Self::UnregisteredBuffers => "transfers go without",
            Self::SharedRing => "it uses a shared one",
        }
    }

    /// What can be done about it.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Pread => "make io_uring available",
            Self::PageCache => {
                "use a file system that has O_DIRECT and a block size that it takes, or Options::direct(false)"
            }
            Self::Interrupts => "use a disk whose driver has queues for polling, or leave Options::iopoll off",
            Self::SystemCalls => "leave Options::sqpoll off",
            Self::UnregisteredBuffers => "raise RLIMIT_MEMLOCK (`ulimit -l`), or make Options::pool_size smaller",
            Self::SharedRing => "raise the limit that the message names, or use fewer threads",
            Self::PreadAtTimes => "lift what the message names",
        }
    }
}

/// A step down that a device took.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Degraded {
    /// Which.
    pub fallback: Fallback,
    /// What could not be had, why, and what is done instead.
    pub sentence: String,
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.sentence)
    }
}

/// What a device picked when it was opened and since, and why. Printed, it is a line for each thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The way that the blocks are reached.
    pub backend: Backend,
    /// Why it is not io_uring, where it could have been.
    pub fallback_reason: Option<Unavailable>,
    /// Past the page cache.
    pub direct: bool,
    /// Completions are polled for.
    pub polled: bool,
    /// A kernel thread takes submissions.
    pub kernel_thread: bool,
    /// Registered buffers are in use on every ring that was made so far.
    pub registered_buffers: bool,
    /// The units of the target.
    pub geometry: Geometry,
    /// What the target can do.
    pub capabilities: Capabilities,
    /// Each thing that was asked for and could not be had, in the order in which it was found out.
    pub degraded: Vec<Degraded>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend: {}", self.backend)?;
        match &self.fallback_reason {
            Some(reason) => write!(f, " ({reason})")?,
            None if self.backend == Backend::Uring => write!(f, " (a block was read through a ring)")?,
            None => write!(f, " (it was asked for)")?,
        }
        write!(f, "\ntarget: {}\ntarget: {}", self.geometry, self.capabilities)?;
        write!(f, "\npage cache: {}", if self.direct { "bypassed (O_DIRECT)" } else { "used" })?;
        if self.backend == Backend::Uring {
            let pick = |picked, yes, no| if picked { yes } else { no };
            write!(f, "\nbuffers: {}", pick(self.registered_buffers, "registered", "not registered"))?;
            write!(f, "\nsubmission: {}", pick(self.kernel_thread, "by a kernel thread", "by system call"))?;
            write!(f, "\ncompletion: {}", pick(self.polled, "polled for", "by interrupt"))?;
        }
        self.degraded.iter().try_for_each(|degraded| write!(f, "\ndegraded: {degraded}"))
    }
}
