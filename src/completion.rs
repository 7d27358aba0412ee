//! What comes back from a ring.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use crate::core::Core;
use crate::cqe::Cqe;
use crate::entries::{Entries, SmallEntries};
use crate::error::{Error, ErrorKind, Result, check};
use crate::file::FixedFile;
use crate::message::{Message, take_message};
use crate::parcel::Parcel;
use crate::pool::Buf;
use crate::provided::Received;
use crate::ring::OneThread;
use crate::table::{NoBuffers, Partial, Ticket};

/// The completions of a ring; see [`crate::Ring::completions`].
#[derive(Debug)]
pub struct Completions<'ring, B = NoBuffers, E: Entries = SmallEntries> {
    core: &'ring mut Core<B, E>,
    one_thread: OneThread,
    #[cfg(sysuring_break = "r5_head")]
    head: u32,
}

impl<'ring, B, E: Entries> Completions<'ring, B, E> {
    pub(crate) fn new(core: &'ring mut Core<B, E>) -> Self {
        Self {
            #[cfg(sysuring_break = "r5_head")]
            head: head_of(core).load(Ordering::Relaxed),
            core,
            one_thread: PhantomData,
        }
    }
}

impl<B, E: Entries> Iterator for Completions<'_, B, E> {
    type Item = Completion<B, E>;

    #[inline(always)]
    #[cfg(not(sysuring_break = "r5_head"))]
    fn next(&mut self) -> Option<Completion<B, E>> {
        self.core.next_completion()
    }

    #[cfg(sysuring_break = "r5_head")]
    fn next(&mut self) -> Option<Completion<B, E>> {
        let published = head_of(self.core).swap(self.head, Ordering::Relaxed);
        let completion = self.core.next_completion();
        self.head = head_of(self.core).swap(published, Ordering::Relaxed);
        completion
    }
}

/// The mistake is to publish the head where the iterator ends.
#[cfg(sysuring_break = "r5_head")]
impl<B, E: Entries> Drop for Completions<'_, B, E> {
    fn drop(&mut self) {
        head_of(self.core).store(self.head, Ordering::Release);
    }
}

#[cfg(sysuring_break = "r5_head")]
fn head_of<B, E: Entries>(core: &Core<B, E>) -> &AtomicU32 {
    // SAFETY: points into the mapped ring.
    unsafe { AtomicU32::from_ptr((*core.queues().raw()).cq.khead) }
}

#[cfg(sysuring_break = "r5_head")]
use std::sync::atomic::{AtomicU32, Ordering};

/// Something that a ring has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum Completion<B = NoBuffers, E: Entries = SmallEntries> {
    /// An operation of the safe interface ended.
    Done(Done<B>),
    /// One of several results of an operation that goes on.
    More(More),
    /// An entry of the raw interface.
    Raw(Cqe<E>),
}

impl<B, E: Entries> Completion<B, E> {
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
/// Whatever is not asked for is given up when this is dropped: a lease goes back to its pool, a new descriptor is closed, and so is a
/// new registered file when the ring is used again.
#[derive(Debug)]
pub struct Done<B = NoBuffers> {
    ticket: Ticket,
    result: i32,
    flags: u32,
    returned: Unclaimed<B>,
}

/// What an operation gives back.
#[derive(Debug)]
pub(crate) enum Returned<B> {
    Nothing,
    Lease(Buf),
    Owned(B),
    /// Several buffers, a message, a registered file, or what `statx` filled in.
    Parcel(Parcel<B>),
    Rare(RareBox),
}

/// What an operation gives back, until somebody asks for it.
///
/// Dropped by value and out of line, as is all that it may be: a loop over completions has them in registers, since nothing
/// is ever told their address.
#[derive(Debug)]
struct Unclaimed<B>(ManuallyDrop<Returned<B>>);

impl<B> Unclaimed<B> {
    #[inline(always)]
    fn claim(self) -> Returned<B> {
        let mut unclaimed = ManuallyDrop::new(self);
        // SAFETY: taken once: neither this nor what is left of `unclaimed` is used or dropped again.
        unsafe { ManuallyDrop::take(&mut unclaimed.0) }
    }
}

impl<B> Drop for Unclaimed<B> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: taken once, since this is the end.
        let returned = unsafe { ManuallyDrop::take(&mut self.0) };
        if matches!(returned, Returned::Nothing) {
            std::mem::forget(returned);
        } else {
            give_up(returned);
        }
    }
}

/// Drops what nobody asked for.
#[inline(never)]
fn give_up<B>(_: Returned<B>) {}

impl<B> Done<B> {
    #[inline(always)]
    pub(crate) fn new(ticket: Ticket, result: i32, flags: u32, returned: Returned<B>) -> Self {
        Self { ticket, result, flags, returned: Unclaimed(ManuallyDrop::new(returned)) }
    }

    /// Which operation it was.
    #[inline]
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// How it ended: for a read or write, the bytes transferred, which may be fewer than asked for. With `MSG_TRUNC` a receive
    /// says how long the message was, which may be more than the buffer has.
    ///
    /// # Errors
    ///
    /// What the kernel reported. A completion does not say what the operation was, and nor does the error: compare
    /// [`Done::ticket`] with what the operation was started with.
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
        match self.returned.claim() {
            Returned::Lease(buf) => Some(buf),
            other => {
                give_up(other);
                None
            }
        }
    }

    /// The leases of a vectored operation, in their order.
    #[must_use]
    pub fn into_bufs(self) -> Vec<Buf> {
        match self.returned.claim() {
            Returned::Parcel(mut parcel) => std::mem::take(&mut parcel.parameters().leases),
            Returned::Lease(buf) => vec![buf],
            _ => Vec::new(),
        }
    }

    /// The buffer that was moved into the operation, if any.
    #[inline]
    #[must_use]
    pub fn into_owned(self) -> Option<B> {
        match self.returned.claim() {
            Returned::Owned(buffer) => Some(buffer),
            other => {
                give_up(other);
                None
            }
        }
    }

    /// The buffers that were moved into a vectored operation, in their order.
    #[must_use]
    pub fn into_several(self) -> Vec<B> {
        match self.returned.claim() {
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
        match self.returned.claim() {
            Returned::Rare(mut rare) => rare.contents().new_descriptor.take().ok_or_else(no_descriptor),
            _ => Err(no_descriptor()),
        }
    }

    /// The registered file of an operation that makes one, such as [`Operations::open_direct`](crate::Operations::open_direct).
    ///
    /// # Errors
    ///
    /// What the kernel reported; [`ErrorKind::InvalidInput`] for an operation that makes none.
    pub fn into_fixed_file(self) -> Result<FixedFile> {
        self.result()?;
        let file = match self.returned.claim() {
            Returned::Parcel(mut parcel) => parcel.parameters().direct.take(),
            _ => None,
        };
        file.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the operation makes no registered file"))
    }

    /// The buffers that the kernel picked, where it picked some.
    #[must_use]
    pub fn into_received(self) -> Option<Received> {
        match self.returned.claim() {
            Returned::Rare(mut rare) => rare.contents().received.take(),
            _ => None,
        }
    }

    /// What [`Operations::recvmsg`](crate::Operations::recvmsg) and its like received; where they failed, the memory that they
    /// were given.
    #[must_use]
    pub fn into_message(self) -> Option<Message<B>> {
        match self.returned.claim() {
            Returned::Parcel(parcel) => take_message(parcel, self.result),
            _ => None,
        }
    }

    /// What [`Operations::statx`](crate::Operations::statx) says of a file; `stx_mask` tells which fields it filled in.
    ///
    /// # Errors
    ///
    /// What the kernel reported; [`ErrorKind::InvalidInput`] for another operation.
    pub fn into_status(self) -> Result<libc::statx> {
        self.result()?;
        if let Returned::Parcel(mut parcel) = self.returned.claim() {
            let parameters = parcel.parameters();
            if parameters.has_status {
                // SAFETY: the kernel filled in all of it, since the operation succeeded.
                return Ok(unsafe { parameters.status.assume_init() });
            }
        }
        Err(Error::new(ErrorKind::InvalidInput, "the operation asks for no status"))
    }
}

/// One of several results of an operation that goes on; see [`Completion::More`].
#[derive(Debug)]
pub struct More(RareBox);

impl More {
    pub(crate) fn new(partial: Partial, received: Option<Received>) -> Self {
        let Partial { ticket, result, flags, new_descriptor, .. } = partial;
        Self(RareBox::new(Rare { ticket, result, flags, new_descriptor, received }))
    }

    /// Which operation it is.
    #[inline]
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.0.look().ticket
    }

    /// The result.
    ///
    /// # Errors
    ///
    /// What the kernel reported.
    #[inline]
    pub fn result(&self) -> Result<u32> {
        check(self.0.look().result, "io_uring operation")
    }

    /// The kernel's result: a count, or `-errno`. Where it is a descriptor, [`More::into_fd`] owns it.
    #[inline]
    #[must_use]
    pub fn raw_result(&self) -> i32 {
        self.0.look().result
    }

    /// `IORING_CQE_F_*`.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.0.look().flags
    }

    /// The new descriptor of an operation that makes some.
    ///
    /// # Errors
    ///
    /// What the kernel reported; [`ErrorKind::InvalidInput`] for an operation that makes none.
    pub fn into_fd(mut self) -> Result<OwnedFd> {
        self.result()?;
        self.0.contents().new_descriptor.take().ok_or_else(no_descriptor)
    }

    /// The buffers that the kernel picked, where it picked some.
    #[must_use]
    pub fn into_received(mut self) -> Option<Received> {
        self.0.contents().received.take()
    }
}

#[cold]
fn no_descriptor() -> Error {
    Error::new(ErrorKind::InvalidInput, "the operation makes no descriptor")
}

/// What few completions have.
#[derive(Debug)]
pub(crate) struct Rare {
    pub(crate) ticket: Ticket,
    pub(crate) result: i32,
    pub(crate) flags: u32,
    pub(crate) new_descriptor: Option<OwnedFd>,
    pub(crate) received: Option<Received>,
}

/// A box of [`Rare`] that is allocated once and used again and again by its thread.
pub(crate) struct RareBox(NonNull<Rare>);

/// How many boxes a thread keeps.
const MOST_SPARE: usize = 256;

thread_local! {
    #[allow(clippy::vec_box)] // The boxes are what is kept.
    static SPARE: RefCell<Vec<Box<Rare>>> = const { RefCell::new(Vec::new()) };
}

impl RareBox {
    #[cold]
    pub(crate) fn new(rare: Rare) -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        let filled = match spare {
            Some(mut spare) => {
                *spare = rare;
                spare
            }
            None => Box::new(rare),
        };
        Self(NonNull::from(Box::leak(filled)))
    }

    fn look(&self) -> &Rare {
        // SAFETY: leaked in `new`, and this alone has it until it is dropped.
        unsafe { self.0.as_ref() }
    }

    fn contents(&mut self) -> &mut Rare {
        // SAFETY: as for `look`, borrowed exclusively as `self` is.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for RareBox {
    #[inline(always)]
    fn drop(&mut self) {
        put_back(self.0);
    }
}

/// Out of line and by value: what may have such a box, and has none, stays in registers.
#[cold]
#[inline(never)]
fn put_back(rare: NonNull<Rare>) {
    // SAFETY: leaked in `RareBox::new`, and dropped once.
    let mut rare = unsafe { Box::from_raw(rare.as_ptr()) };
    (rare.new_descriptor, rare.received) = (None, None);
    // In a thread that ends it is freed.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < MOST_SPARE {
            spare.push(rare);
        }
    });
}

// SAFETY: a box of what may be sent, of which this is the owner.
unsafe impl Send for RareBox {}
// SAFETY: shared, it gives out what may be shared.
unsafe impl Sync for RareBox {}

impl std::fmt::Debug for RareBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.look().fmt(f)
    }
}
