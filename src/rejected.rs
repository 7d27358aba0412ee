//! An operation that was not started, and what was given for it.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Why an operation was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// The submission queue is full: submit, then try again.
    QueueFull,
    /// As many operations are in flight as completions fit: take some completions, then try again.
    TableFull,
    /// The buffer's pool is not registered on this ring.
    ForeignPool,
    /// The group of buffers is another ring's, or was removed.
    ForeignGroup,
    /// The file is registered on another ring.
    ForeignFile,
    /// More bytes than the buffer has.
    TooLong,
    /// More operations in one chain than the submission queue has entries.
    ChainTooLong,
    /// A chain on a ring that shares its polling thread ([`RingBuilder::build_attached`](crate::RingBuilder::build_attached)):
    /// the kernel would cut it.
    SharedPoller,
    /// All places for registered files are taken ([`RingBuilder::files`](crate::RingBuilder::files)).
    FilesFull,
    /// The ring can have no registered files; [`Ring::register_file`](crate::Ring::register_file) says why. Its kind is
    /// [`ErrorKind::Busy`], since the raw interface may let go of its own; where the ring was made with
    /// [`RingBuilder::files`](crate::RingBuilder::files) of 0, nothing ever will.
    NoFiles,
    /// The kernel is too old for the operation.
    Unsupported,
    /// The ring that a message is for is gone.
    RingGone,
    /// The ring belongs to the parent process.
    Forked,
    /// The ring lost completions.
    Poisoned,
}

impl RejectReason {
    fn kind(self) -> ErrorKind {
        match self {
            Self::QueueFull | Self::TableFull | Self::FilesFull => ErrorKind::Full,
            Self::NoFiles => ErrorKind::Busy,
            Self::Unsupported | Self::SharedPoller => ErrorKind::Unsupported,
            Self::ForeignPool | Self::ForeignGroup => ErrorKind::ForeignPool,
            Self::ForeignFile => ErrorKind::ForeignFile,
            Self::TooLong | Self::ChainTooLong => ErrorKind::InvalidInput,
            Self::RingGone => ErrorKind::NotFound,
            Self::Forked => ErrorKind::Forked,
            Self::Poisoned => ErrorKind::Poisoned,
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the submission queue is full; submit first",
            Self::TableFull => "as many operations are in flight as completions fit; take some completions first",
            Self::ForeignPool => "the buffer's pool is not registered on this ring; call register_pool",
            Self::ForeignGroup => {
                "the group of buffers is another ring's, or was removed; call provide_buffers on this ring"
            }
            Self::ForeignFile => "the file is registered on another ring; call register_file on this one",
            Self::TooLong => "the length is more than the buffer has",
            Self::ChainTooLong => "the chain is longer than the submission queue; make the ring with more entries",
            Self::SharedPoller => {
                "the ring shares its polling thread, which takes a few entries at a time and would cut a chain; make a ring \
                 with a thread of its own"
            }
            Self::FilesFull => {
                "all registered files of the ring are taken; drop one and submit, or make the ring with more \
                 (RingBuilder::files)"
            }
            Self::NoFiles => {
                "the ring can have no registered files, as when the raw interface has, or it was made for none \
                 (RingBuilder::files); register_file says why"
            }
            Self::Unsupported => "the kernel is too old for the operation",
            Self::RingGone => "the ring that the message is for is gone; forget its mailbox",
            Self::Forked => "the ring was made before a fork and belongs to the parent process; make a new one",
            Self::Poisoned => "the ring lost completions and can't be used any more; make a new one",
        })
    }
}

/// An operation that was not started; gives back what was passed in.
///
/// Small, and made without an allocation: a full queue is no exception.
#[derive(Debug)]
pub struct Rejected<T> {
    reason: RejectReason,
    value: T,
}

impl<T> Rejected<T> {
    pub(crate) fn new(reason: RejectReason, value: T) -> Self {
        Self { reason, value }
    }

    /// Why it was not started.
    #[must_use]
    pub fn reason(&self) -> RejectReason {
        self.reason
    }

    /// What was passed in.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Rejected<T> {}

impl<T> From<Rejected<T>> for Error {
    fn from(rejected: Rejected<T>) -> Self {
        rejected.reason.into()
    }
}

impl From<RejectReason> for Error {
    fn from(reason: RejectReason) -> Self {
        Self::new(reason.kind(), reason.to_string())
    }
}
