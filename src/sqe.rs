//! Raw submission queue entries: liburing's own helpers, with liburing's own obligations.

pub(crate) mod prep;

use std::fmt;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use liburing_sys as sys;

use crate::entries::{BigEntries, Entries, SmallEntries};
use crate::queues::Queues;
use crate::table::{Ticket, is_raw};

/// A free entry of the submission queue, zeroed. One of the `prep` methods fills it in and puts it into the queue.
///
/// Dropped before that, it is as if it had never been asked for.
///
/// A `prep` method is `unsafe` where the kernel may use something after the call that the caller could take away, memory
/// or a descriptor, where it acts on something by number, or where it makes a completion on somebody else's ring. They
/// have C's names without `io_uring_`, and the man pages say what they do. What the header that this program was built
/// with does not have is not there; whether the kernel has it, [`Probe`](crate::Probe) tells.
///
/// ```
/// use sysuring::{Completion, Ring, UserData};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if sysuring::available().is_err() { return Ok(()) }
/// let mut ring = Ring::with_entries(8)?;
/// let mut buffer = [0; 4];
/// let file = std::fs::File::open("/proc/self/exe")?;
/// let entry = ring.get_sqe().expect("the queue is empty");
/// // SAFETY: the file and the buffer outlive the wait below.
/// let entry = unsafe { entry.prep_read(std::os::fd::AsRawFd::as_raw_fd(&file), buffer.as_mut_ptr(), 4, 0) };
/// entry.set_data64(UserData::from(7));
/// ring.submit_and_wait(1)?;
/// let Some(Completion::Raw(completion)) = ring.completions().next() else { panic!("one entry, one completion") };
/// assert_eq!((completion.user_data(), completion.result()?), (7, 4));
/// assert_eq!(&buffer, b"\x7fELF");
/// # Ok(())
/// # }
/// ```
#[must_use = "an entry that is not prepared is not submitted"]
pub struct Sqe<'ring, E: Entries = SmallEntries> {
    queues: &'ring mut Queues<E>,
    entry: NonNull<sys::io_uring_sqe>,
}

/// An entry that is in the queue, and not submitted yet.
pub struct Queued<'ring, E: Entries = SmallEntries> {
    queues: &'ring mut Queues<E>,
    entry: NonNull<sys::io_uring_sqe>,
}

/// What a raw completion is told apart by: 62 bits of the caller's choice, such as an address.
///
/// The top two bits are the tag, and clear for raw entries: a completion that carries this value can never be taken for
/// one of the safe interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct UserData(u64);

impl UserData {
    /// `None` where one of the top two bits is set.
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        if value >> 62 == 0 || cfg!(sysuring_break = "r4_tag") { Some(Self(value)) } else { None }
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

impl<'ring, E: Entries> Sqe<'ring, E> {
    #[inline]
    pub(crate) fn new(queues: &'ring mut Queues<E>, entry: NonNull<sys::io_uring_sqe>) -> Self {
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
    pub unsafe fn commit(self) -> Queued<'ring, E> {
        // SAFETY: the entry is ours until it is submitted.
        debug_assert!(is_raw(unsafe { self.entry.as_ref() }.user_data), "the tag of the safe interface");
        self.into_queue()
    }

    #[inline]
    fn into_queue(self) -> Queued<'ring, E> {
        self.queues.commit_raw();
        Queued { queues: self.queues, entry: self.entry }
    }

    /// Sets the fields that most operations have, for one that has no method of its own.
    ///
    /// # Safety
    ///
    /// As for [`Sqe::commit`].
    #[doc(alias = "io_uring_prep_rw")]
    #[inline]
    pub unsafe fn prep_rw(
        self,
        opcode: u8,
        file: RawFd,
        address: *const u8,
        length: u32,
        offset: u64,
    ) -> Queued<'ring, E> {
        // SAFETY: the entry is the free one at the tail; the caller vouches for the rest.
        unsafe { sys::io_uring_prep_rw(opcode.into(), self.entry.as_ptr(), file, address.cast(), length, offset) };
        self.into_queue()
    }

    /// A command that the driver of `file` defines (since Linux 5.19), such as NVMe passthrough. Its payload has 80 bytes on a
    /// ring with [`BigEntries`], and 16 on others.
    ///
    /// # Safety
    ///
    /// `file` stays open, and whatever the command names stays valid for what the driver does with it, until the final
    /// completion was seen, also after the ring is gone.
    #[doc(alias("io_uring_prep_uring_cmd", "IORING_OP_URING_CMD"))]
    pub unsafe fn prep_uring_cmd(self, file: RawFd, command: u32, payload: &E::Payload) -> Queued<'ring, E> {
        // SAFETY: the caller vouches for it, and the payload fits into an entry of this size.
        unsafe { self.prep_command(sys::IORING_OP_URING_CMD, file, command, payload.as_ref()) }
    }

    /// # Safety
    ///
    /// As for [`Sqe::prep_uring_cmd`], and an entry has room for the payload.
    unsafe fn prep_command(self, opcode: u32, file: RawFd, command: u32, payload: &[u8]) -> Queued<'ring, E> {
        /// Where the payload begins in an entry.
        const PAYLOAD: usize = 48;
        let entry = self.entry.as_ptr();
        // SAFETY: the entry is the free one at the tail, zeroed, and the caller vouches for its length.
        unsafe {
            (*entry).opcode = opcode as u8;
            (*entry).fd = file;
            // `cmd_op` is the lower half of `off`, on machines of either byte order.
            (&raw mut (*entry).__bindgen_anon_1).cast::<u32>().write(command);
            entry.cast::<u8>().add(PAYLOAD).copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        }
        self.into_queue()
    }

    /// As [`Sqe::prep_cancel64`], for an operation of the safe interface, with a completion of its own. Works also where
    /// [`Ring::cancel`](crate::Ring::cancel) has no room for one more operation.
    #[inline]
    pub fn prep_cancel_ticket(self, ticket: Ticket) -> Queued<'ring, E> {
        // SAFETY: as for `prep_cancel64`.
        unsafe { sys::io_uring_prep_cancel64(self.entry.as_ptr(), ticket.user_data(), 0) };
        self.into_queue()
    }
}

impl<'ring> Sqe<'ring, BigEntries> {
    /// As [`Sqe::prep_uring_cmd`], under the number of an entry that says itself that it is a big one (since Linux 6.19).
    ///
    /// # Safety
    ///
    /// As for [`Sqe::prep_uring_cmd`].
    #[cfg(liburing_2_13)]
    #[doc(alias("io_uring_prep_uring_cmd128", "IORING_OP_URING_CMD128"))]
    pub unsafe fn prep_uring_cmd128(self, file: RawFd, command: u32, payload: &[u8; 80]) -> Queued<'ring, BigEntries> {
        // SAFETY: the caller vouches for it, and the payload fits into a big entry.
        unsafe { self.prep_command(sys::IORING_OP_URING_CMD128, file, command, payload) }
    }
}

impl<E: Entries> Queued<'_, E> {
    /// What the completion will carry; 0 unless set.
    #[doc(alias("io_uring_sqe_set_data64", "io_uring_sqe_set_data"))]
    #[inline]
    pub fn set_data64(self, user_data: UserData) -> Self {
        // SAFETY: the ring is borrowed by `self`, so that nobody has submitted the entry yet.
        unsafe { (*self.entry.as_ptr()).user_data = user_data.get() };
        self
    }

    /// Sets the entry's flags, in place of those that the preparation set; bits other than those of [`SqeFlags`] are
    /// ignored.
    #[doc(alias = "io_uring_sqe_set_flags")]
    #[inline]
    pub fn set_flags(self, flags: SqeFlags) -> Self {
        // Bits that have no name here are left out: a link would reach the next entry, which may be one of the safe interface.
        self.replace_flags((flags & SqeFlags::all()).bits())
    }

    /// Sets all of the entry's flags, `IOSQE_IO_LINK` and `IOSQE_IO_HARDLINK` among them.
    ///
    /// # Safety
    ///
    /// An entry with a link is followed by a raw entry, in the queue before the next submit. A failure in a chain can keep
    /// back the completions of what follows where `IOSQE_CQE_SKIP_SUCCESS` is set; an operation of the safe interface would
    /// never end.
    #[doc(alias("io_uring_sqe_set_flags", "IOSQE_IO_LINK", "IOSQE_IO_HARDLINK"))]
    #[inline]
    pub unsafe fn set_flags_unchecked(self, flags: u8) -> Self {
        self.replace_flags(flags)
    }

    #[inline]
    fn replace_flags(self, flags: u8) -> Self {
        // SAFETY: as for `set_data64`.
        let before = std::mem::replace(unsafe { &mut (*self.entry.as_ptr()).flags }, flags);
        let skips = |bits| SqeFlags::from_bits_retain(bits).contains(SqeFlags::CQE_SKIP_SUCCESS);
        match (skips(before), skips(flags)) {
            (false, true) => self.queues.forget_raw(),
            (true, false) => self.queues.expect_raw(),
            _ => {}
        }
        self
    }

    /// The group of provided buffers that the operation takes one from, with [`SqeFlags::BUFFER_SELECT`].
    ///
    /// In the place of the index of a registered buffer, which no operation has beside it.
    #[doc(alias("io_uring_sqe_set_buf_group", "buf_group"))]
    #[inline]
    pub fn set_buf_group(self, group: u16) -> Self {
        // SAFETY: as for `set_data64`. The function of this name is in headers since 2.9, the field in all.
        unsafe { (*self.entry.as_ptr()).__bindgen_anon_4.buf_group = group };
        self
    }

    /// Whose credentials the operation uses: what [`Ring::register_personality`](crate::Ring::register_personality) gave.
    #[doc(alias("personality", "IORING_REGISTER_PERSONALITY"))]
    #[inline]
    pub fn set_personality(self, personality: u16) -> Self {
        // SAFETY: as for `set_data64`.
        unsafe { (*self.entry.as_ptr()).personality = personality };
        self
    }

    /// The address that a prepared send goes to (since Linux 6.0 for [`Sqe::prep_send_zc`], 6.1 for others).
    ///
    /// # Safety
    ///
    /// The entry is a send. `address` can be read for `length` bytes until the final completion was seen, also after the
    /// ring is gone.
    #[doc(alias = "io_uring_prep_send_set_addr")]
    #[inline]
    pub unsafe fn prep_send_set_addr(self, address: *const libc::sockaddr, length: u16) -> Self {
        // SAFETY: as for `set_data64`; the caller vouches for the rest.
        unsafe { sys::io_uring_prep_send_set_addr(self.entry.as_ptr(), address, length) };
        self
    }
}

impl<E: Entries> fmt::Debug for Sqe<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqe").finish_non_exhaustive()
    }
}

impl<E: Entries> fmt::Debug for Queued<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").finish_non_exhaustive()
    }
}
