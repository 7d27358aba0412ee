//! What comes back from a ring.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use crate::core::Core;
use crate::error::{Error, ErrorKind, Result, check};
use crate::parcel::Parcel;
use crate::pool::Buf;
use crate::provided::Received;
use crate::queues::Cqe;
use crate::ring::OneThread;
use crate::table::{NoBuffers, Partial, Ticket};

/// The completions of a ring; see [`crate::Ring::completions`].
#[derive(Debug)]
pub struct Completions<'ring, B = NoBuffers> {
    core: &'ring mut Core<B>,
    one_thread: OneThread,
}

impl<'ring, B> Completions<'ring, B> {
    pub(crate) fn new(core: &'ring mut Core<B>) -> Self {
        Self { core, one_thread: PhantomData }
    }
}

impl<B> Iterator for Completions<'_, B> {
    type Item = Completion<B>;

    #[inline(always)]
    fn next(&mut self) -> Option<Completion<B>> {
        self.core.next_completion()
    }
}

/// Something that a ring has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum Completion<B = NoBuffers> {
    /// An operation of the safe interface ended.
    Done(Done<B>),
    /// One of several results of an operation that goes on.
    More(More),
    /// An entry of the raw interface.
    Raw(Cqe),
}

impl<B> Completion<B> {
    /// The operation of the safe interface, where it ended.
    #[must_use]
    pub fn into_done(self) -> Option<Done<B>> {
        match self {
            Self::Done(done) => Some(done),
            _ => None,
        }
    }
}

/// An operation of the safe interface that ended, with what it had taken.
///
/// Whatever is not asked for is given up when this is dropped: a lease goes back to its pool, a new descriptor is closed.
#[derive(Debug)]
pub struct Done<B = NoBuffers> {
    ticket: Ticket,
    result: i32,
    flags: u32,
    returned: Returned<B>,
}

/// What an operation gives back. Whatever is in here is dropped by value, out of line: a loop that looks at leases has them
/// in registers.
#[derive(Debug)]
pub(crate) enum Returned<B> {
    Nothing,
    Lease(Buf),
    Owned(B),
    Descriptor(OwnedFd),
    Received(Received),
    /// Several buffers, or what `statx` filled in.
    Parcel(Parcel<B>),
}

impl<B> Done<B> {
    #[inline(always)]
    pub(crate) fn new(ticket: Ticket, result: i32, flags: u32, returned: Returned<B>) -> Self {
        Self { ticket, result, flags, returned }
    }

    /// Which operation it was.
    #[inline]
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// How it ended: for a read or write, the bytes transferred, which may be fewer than asked for.
    ///
    /// # Errors
    ///
    /// What the kernel reported.
    #[inline]
    pub fn result(&self) -> Result<u32> {
        check(self.result, "io_uring operation")
    }

    /// The kernel's result: a count, or `-errno`. Where it is a descriptor, [`Done::into_fd`] owns it.
    #[inline]
    #[must_use]
    pub fn raw_result(&self) -> i32 {
        self.result
    }

    /// `IORING_CQE_F_*`.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// The lease that the operation had, if any.
    #[inline]
    #[must_use]
    pub fn into_buf(self) -> Option<Buf> {
        match self.returned {
            Returned::Lease(buf) => Some(buf),
            _ => None,
        }
    }

    /// The leases of a vectored operation, in their order.
    #[must_use]
    pub fn into_bufs(self) -> Vec<Buf> {
        match self.returned {
            Returned::Parcel(mut parcel) => std::mem::take(&mut parcel.parameters().leases),
            Returned::Lease(buf) => vec![buf],
            _ => Vec::new(),
        }
    }

    /// The buffer that was moved into the operation, if any.
    #[must_use]
    pub fn into_owned(self) -> Option<B> {
        match self.returned {
            Returned::Owned(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The buffers that were moved into a vectored operation, in their order.
    #[must_use]
    pub fn into_several(self) -> Vec<B> {
        match self.returned {
            Returned::Parcel(mut parcel) => std::mem::take(&mut parcel.parameters().several),
            Returned::Owned(buffer) => vec![buffer],
            _ => Vec::new(),
        }
    }

    /// The new descriptor of an operation that makes one.
    ///
    /// # Errors
    ///
    /// What the kernel reported; [`ErrorKind::InvalidInput`] for an operation that makes none.
    pub fn into_fd(self) -> Result<OwnedFd> {
        self.result()?;
        match self.returned {
            Returned::Descriptor(descriptor) => Ok(descriptor),
            _ => Err(no_descriptor()),
        }
    }

    /// The buffers that the kernel picked, where it picked some.
    #[must_use]
    pub fn into_received(self) -> Option<Received> {
        match self.returned {
            Returned::Received(received) => Some(received),
            _ => None,
        }
    }

    /// What `statx` filled in, or was to fill in.
    #[must_use]
    pub fn into_status(self) -> Option<Box<libc::statx>> {
        match self.returned {
            Returned::Parcel(mut parcel) => parcel.parameters().status.take(),
            _ => None,
        }
    }
}

/// One of several results of an operation that goes on; see [`Completion::More`].
#[derive(Debug)]
pub struct More {
    partial: Partial,
    received: Option<Received>,
}

impl More {
    pub(crate) fn new(partial: Partial, received: Option<Received>) -> Self {
        Self { partial, received }
    }

    /// Which operation it is.
    #[inline]
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.partial.ticket
    }

    /// The result.
    ///
    /// # Errors
    ///
    /// What the kernel reported.
    #[inline]
    pub fn result(&self) -> Result<u32> {
        check(self.partial.result, "io_uring operation")
    }

    /// The kernel's result: a count, or `-errno`. Where it is a descriptor, [`More::into_fd`] owns it.
    #[inline]
    #[must_use]
    pub fn raw_result(&self) -> i32 {
        self.partial.result
    }

    /// `IORING_CQE_F_*`.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.partial.flags
    }

    /// The new descriptor of an operation that makes some.
    ///
    /// # Errors
    ///
    /// What the kernel reported; [`ErrorKind::InvalidInput`] for an operation that makes none.
    pub fn into_fd(self) -> Result<OwnedFd> {
        self.result()?;
        self.partial.new_descriptor.ok_or_else(no_descriptor)
    }

    /// The buffers that the kernel picked, where it picked some.
    #[must_use]
    pub fn into_received(self) -> Option<Received> {
        self.received
    }
}

#[cold]
fn no_descriptor() -> Error {
    Error::new(ErrorKind::InvalidInput, "the operation makes no descriptor")
}
