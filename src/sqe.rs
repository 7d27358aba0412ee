//! Raw submission queue entries: liburing's own helpers, with liburing's own obligations.

use std::fmt;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use liburing_sys as sys;

use crate::queues::Queues;
use crate::table::{Ticket, is_raw};

/// A free entry of the submission queue, zeroed. One of the `prep` methods fills it in and puts it into the queue.
///
/// Dropped before that, it is as if it had never been asked for.
///
/// A `prep` method is `unsafe` where the kernel may use something after the call that the caller could take away, memory
/// or a descriptor, or where it acts on something by number.
#[must_use = "an entry that is not prepared is not submitted"]
pub struct Sqe<'ring> {
    queues: &'ring mut Queues,
    entry: NonNull<sys::io_uring_sqe>,
}

/// An entry that is in the queue, and not submitted yet.
pub struct Queued<'ring> {
    queues: &'ring mut Queues,
    entry: NonNull<sys::io_uring_sqe>,
}

/// What a raw completion is told apart by: 62 bits of the caller's choice, such as an address.
///
/// The top two bits are the tag, and clear for raw entries: a completion that carries this value can never be taken for
/// one of the safe interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UserData(u64);

impl UserData {
    /// `None` where one of the top two bits is set.
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        if value >> 62 == 0 { Some(Self(value)) } else { None }
    }

    /// The value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u32> for UserData {
    fn from(value: u32) -> Self {
        Self(value.into())
    }
}

bitflags::bitflags! {
    /// `IOSQE_*` that concern one entry alone. Linked entries are not among them: a chain is more than a flag.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct SqeFlags: u8 {
        /// The descriptor is an index into the ring's registered files.
        const FIXED_FILE = sys::IOSQE_FIXED_FILE as u8;
        /// Starts after everything submitted before has ended.
        const IO_DRAIN = sys::IOSQE_IO_DRAIN as u8;
        /// Does not try to complete at once.
        const ASYNC = sys::IOSQE_ASYNC as u8;
        /// Takes its buffer from a group of provided buffers.
        const BUFFER_SELECT = sys::IOSQE_BUFFER_SELECT as u8;
        /// Posts no completion when it succeeds (since Linux 5.17).
        const CQE_SKIP_SUCCESS = sys::IOSQE_CQE_SKIP_SUCCESS as u8;
    }
}

impl<'ring> Sqe<'ring> {
    #[inline]
    pub(crate) fn new(queues: &'ring mut Queues, entry: NonNull<sys::io_uring_sqe>) -> Self {
        Self { queues, entry }
    }

    /// The zeroed C structure; [`Sqe::commit`] puts it into the queue.
    #[must_use]
    pub fn as_raw(&mut self) -> *mut sys::io_uring_sqe {
        self.entry.as_ptr()
    }

    /// Puts the entry into the queue as it was filled in through [`Sqe::as_raw`].
    ///
    /// # Safety
    ///
    /// Whatever the entry names stays valid until its final completion was seen, also after the ring is gone. The top two
    /// bits of its `user_data` are clear, and those of whatever else can make it into a completion's. It links to no entry
    /// of the safe interface.
    #[inline]
    pub unsafe fn commit(self) -> Queued<'ring> {
        // SAFETY: the entry is ours until it is submitted.
        debug_assert!(is_raw(unsafe { self.entry.as_ref() }.user_data), "the tag of the safe interface");
        self.into_queue()
    }

    #[inline]
    fn into_queue(self) -> Queued<'ring> {
        self.queues.commit_raw();
        Queued { queues: self.queues, entry: self.entry }
    }

    /// Does nothing, and completes. See `io_uring_prep_nop(3)`.
    #[doc(alias = "io_uring_prep_nop")]
    #[inline]
    pub fn prep_nop(self) -> Queued<'ring> {
        // SAFETY: the entry is the free one at the tail.
        unsafe { sys::io_uring_prep_nop(self.entry.as_ptr()) };
        self.into_queue()
    }

    /// Reads `length` bytes at `offset` of `file`. See `io_uring_prep_read(3)`.
    ///
    /// # Safety
    ///
    /// `buffer` can be written for `length` bytes, and nobody else uses it, until the final completion was seen, also after
    /// the ring is gone; `file` stays open until then.
    #[doc(alias = "io_uring_prep_read")]
    #[inline]
    pub unsafe fn prep_read(self, file: RawFd, buffer: *mut u8, length: u32, offset: u64) -> Queued<'ring> {
        // SAFETY: the entry is the free one at the tail; the caller vouches for the rest.
        unsafe { sys::io_uring_prep_read(self.entry.as_ptr(), file, buffer.cast(), length, offset) };
        self.into_queue()
    }

    /// Writes `length` bytes at `offset` of `file`. See `io_uring_prep_write(3)`.
    ///
    /// # Safety
    ///
    /// `buffer` can be read for `length` bytes, and nobody writes to it, until the final completion was seen, also after the
    /// ring is gone; `file` stays open until then.
    #[doc(alias = "io_uring_prep_write")]
    #[inline]
    pub unsafe fn prep_write(self, file: RawFd, buffer: *const u8, length: u32, offset: u64) -> Queued<'ring> {
        // SAFETY: the entry is the free one at the tail; the caller vouches for the rest.
        unsafe { sys::io_uring_prep_write(self.entry.as_ptr(), file, buffer.cast(), length, offset) };
        self.into_queue()
    }

    /// As [`Sqe::prep_read`], into the registered buffer `index`. See `io_uring_prep_read_fixed(3)`.
    ///
    /// # Safety
    ///
    /// As for [`Sqe::prep_read`]; that the buffer is registered does not keep it from being unmapped.
    #[doc(alias = "io_uring_prep_read_fixed")]
    #[inline]
    pub unsafe fn prep_read_fixed(
        self,
        file: RawFd,
        buffer: *mut u8,
        length: u32,
        offset: u64,
        index: u16,
    ) -> Queued<'ring> {
        // SAFETY: the entry is the free one at the tail; the caller vouches for the rest.
        unsafe {
            sys::io_uring_prep_read_fixed(self.entry.as_ptr(), file, buffer.cast(), length, offset, index.into());
        }
        self.into_queue()
    }

    /// As [`Sqe::prep_write`], from the registered buffer `index`. See `io_uring_prep_write_fixed(3)`.
    ///
    /// # Safety
    ///
    /// As for [`Sqe::prep_write`].
    #[doc(alias = "io_uring_prep_write_fixed")]
    #[inline]
    pub unsafe fn prep_write_fixed(
        self,
        file: RawFd,
        buffer: *const u8,
        length: u32,
        offset: u64,
        index: u16,
    ) -> Queued<'ring> {
        // SAFETY: the entry is the free one at the tail; the caller vouches for the rest.
        unsafe {
            sys::io_uring_prep_write_fixed(self.entry.as_ptr(), file, buffer.cast(), length, offset, index.into());
        }
        self.into_queue()
    }

    /// Brings `file` to stable storage; `flags` is 0 or `IORING_FSYNC_DATASYNC`. See `io_uring_prep_fsync(3)`.
    ///
    /// # Safety
    ///
    /// `file` stays open until the completion was seen.
    #[doc(alias = "io_uring_prep_fsync")]
    #[inline]
    pub unsafe fn prep_fsync(self, file: RawFd, flags: u32) -> Queued<'ring> {
        // SAFETY: the entry is the free one at the tail.
        unsafe { sys::io_uring_prep_fsync(self.entry.as_ptr(), file, flags) };
        self.into_queue()
    }

    /// Allocates, punches or zeroes a range of `file`. See `io_uring_prep_fallocate(3)` and `fallocate(2)`.
    ///
    /// # Safety
    ///
    /// `file` stays open until the completion was seen.
    #[doc(alias = "io_uring_prep_fallocate")]
    #[inline]
    pub unsafe fn prep_fallocate(self, file: RawFd, mode: i32, offset: u64, length: u64) -> Queued<'ring> {
        // SAFETY: the entry is the free one at the tail.
        unsafe { sys::io_uring_prep_fallocate(self.entry.as_ptr(), file, mode, offset, length) };
        self.into_queue()
    }

    /// A command that the driver of `file` defines (since Linux 5.19), such as NVMe passthrough: 16 bytes of `payload`, or
    /// 80 on a ring with big entries, of which the rest is zero.
    ///
    /// A longer payload is cut off at what the ring's entries hold.
    ///
    /// # Safety
    ///
    /// `file` stays open, and whatever the command names stays valid for what the driver does with it, until the final
    /// completion was seen, also after the ring is gone.
    #[doc(alias("io_uring_prep_uring_cmd", "IORING_OP_URING_CMD"))]
    pub unsafe fn prep_uring_cmd(self, file: RawFd, command: u32, payload: &[u8]) -> Queued<'ring> {
        /// Where the payload begins in an entry.
        const PAYLOAD: usize = 48;
        let room = (64 << u32::from(self.queues.flags() & sys::IORING_SETUP_SQE128 != 0)) - PAYLOAD;
        let length = payload.len().min(room);
        let entry = self.entry.as_ptr();
        // SAFETY: the entry is the free one at the tail, zeroed, and as long as `room` says from the payload on.
        unsafe {
            (*entry).opcode = sys::IORING_OP_URING_CMD as u8;
            (*entry).fd = file;
            // `cmd_op` is the lower half of `off`, on machines of either byte order.
            (&raw mut (*entry).__bindgen_anon_1).cast::<u32>().write(command);
            entry.cast::<u8>().add(PAYLOAD).copy_from_nonoverlapping(payload.as_ptr(), length);
        }
        self.into_queue()
    }

    /// Asks the kernel to end the raw operations with this `user_data`. See `io_uring_prep_cancel64(3)`.
    ///
    /// The answer is this entry's completion; the operation's own one comes in any case.
    #[doc(alias("io_uring_prep_cancel", "io_uring_prep_cancel64"))]
    #[inline]
    pub fn prep_cancel64(self, user_data: UserData, flags: i32) -> Queued<'ring> {
        // SAFETY: the entry is the free one at the tail. Cancelling takes nothing from anybody: operations still complete.
        unsafe { sys::io_uring_prep_cancel64(self.entry.as_ptr(), user_data.get(), flags) };
        self.into_queue()
    }

    /// As [`Sqe::prep_cancel64`], for an operation of the safe interface, with a completion of its own. Works also where
    /// [`Ring::cancel`](crate::Ring::cancel) has no room for one more operation.
    #[inline]
    pub fn prep_cancel_ticket(self, ticket: Ticket) -> Queued<'ring> {
        // SAFETY: as for `prep_cancel64`.
        unsafe { sys::io_uring_prep_cancel64(self.entry.as_ptr(), ticket.user_data(), 0) };
        self.into_queue()
    }
}

impl Queued<'_> {
    /// What the completion will carry; 0 unless set.
    #[doc(alias("io_uring_sqe_set_data64", "io_uring_sqe_set_data"))]
    #[inline]
    pub fn set_data64(self, user_data: UserData) -> Self {
        // SAFETY: the ring is borrowed by `self`, so that nobody has submitted the entry yet.
        unsafe { (*self.entry.as_ptr()).user_data = user_data.get() };
        self
    }

    /// Sets the entry's flags; bits other than those of [`SqeFlags`] are ignored.
    #[doc(alias = "io_uring_sqe_set_flags")]
    #[inline]
    pub fn set_flags(self, flags: SqeFlags) -> Self {
        // Bits that have no name here are left out: a link would reach the next entry, which may be one of the safe interface.
        let bits = (flags & SqeFlags::all()).bits();
        // SAFETY: as for `set_data64`.
        let before = std::mem::replace(unsafe { &mut (*self.entry.as_ptr()).flags }, bits);
        let skips = |bits| SqeFlags::from_bits_retain(bits).contains(SqeFlags::CQE_SKIP_SUCCESS);
        if skips(bits) && !skips(before) {
            self.queues.forget_raw();
        }
        self
    }
}

impl fmt::Debug for Sqe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqe").finish_non_exhaustive()
    }
}

impl fmt::Debug for Queued<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").finish_non_exhaustive()
    }
}
