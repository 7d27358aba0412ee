//! A transfer that owns its memory: what a queue and the futures hand to the kernel, and get back.
//!
//! It goes to the kernel as a whole. What comes back may be less: [`Command::advance`] says whether it has ended, is to be
//! handed over again for the rest, or has to be carried out by `pread` and `pwrite`.

use std::fmt;

use crate::block::AlignedBuffer;
use crate::block::file::Blocking;
use crate::block::foreign;
use crate::block::target::Target;
use crate::error::{Error, ErrorKind, Result};

#[cfg(uring)]
use {
    crate::block::stats::count,
    crate::block::target::Setbacks,
    crate::core::{Core, Operation, transfer_opcode},
    liburing_sys as sys,
};

/// Most bytes that are asked for at once: what is left after that is asked for again.
#[cfg(uring)]
const LONGEST: usize = 1 << 30;

/// What is to be done.
///
/// As wide as a register, as all that a [`Command`] consists of: what was written in pieces is slow to be read in larger ones, and
/// what holds a command keeps its own state in what is left of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Action {
    Read,
    Write,
    /// A write that is on stable storage when it ends.
    WriteFua,
    Flush,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write | Self::WriteFua => "write",
            Self::Flush => "flush",
        }
    }
}

/// A transfer of consecutive blocks, or a flush.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) action: Action,
    #[cfg(uring)]
    setbacks: Setbacks,
    /// Whose it is.
    pub(super) tag: u64,
    /// When it began, where somebody wants to know.
    pub(super) since: u64,
    /// Where it begins on the target, in bytes.
    offset: u64,
    /// Bytes transferred so far.
    #[cfg(uring)]
    moved: usize,
    /// `None` for a flush.
    pub(super) buffer: Option<AlignedBuffer>,
}

impl Command {
    pub(super) fn flush(tag: u64) -> Self {
        Self::new(Action::Flush, tag, 0, 0, None)
    }

    /// Of what was [checked](check).
    #[inline(always)]
    pub(super) fn new(action: Action, tag: u64, since: u64, offset: u64, buffer: Option<AlignedBuffer>) -> Self {
        Self {
            action,
            #[cfg(uring)]
            setbacks: Setbacks::default(),
            tag,
            since,
            offset,
            #[cfg(uring)]
            moved: 0,
            buffer,
        }
    }

    /// Checks a transfer of as many blocks as the buffer holds.
    #[inline(always)]
    pub(super) fn transfer(
        target: &Target,
        action: Action,
        block: u64,
        buffer: AlignedBuffer,
        tag: u64,
    ) -> Result<Self, TransferError> {
        match check(target, action, block, &buffer) {
            Ok(offset) => Ok(Self::new(action, tag, 0, offset, Some(buffer))),
            Err(error) => Err(refuse(error, buffer)),
        }
    }

    /// Bytes in all.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// Carries out a read of what is in the page cache; whether it is done.
    pub(super) fn read_cached(&mut self, target: &Target) -> bool {
        match (self.action, &mut self.buffer) {
            (Action::Read, Some(buffer)) => target.read_cached(buffer, self.offset),
            _ => false,
        }
    }

    /// Carries out what is left by `pread`, `pwrite` or `fdatasync`.
    pub(super) fn carry_out(&mut self, blocking: &Blocking) -> Result<()> {
        #[cfg(uring)]
        let moved = self.moved;
        #[cfg(not(uring))]
        let moved = 0;
        let offset = self.offset + moved as u64;
        match (self.action, &mut self.buffer) {
            (Action::Read, Some(buffer)) => blocking.read(&mut buffer[moved..], offset),
            (Action::Write, Some(buffer)) => blocking.write(&buffer[moved..], offset, false),
            (Action::WriteFua, Some(buffer)) => blocking.write(&buffer[moved..], offset, true),
            // Counted where it was started.
            (Action::Flush, _) | (_, None) => blocking.target.sync(),
        }
    }
}

impl Command {
    /// As [`Command::carry_out`], where nobody waits on the stack: what panics on the way, as a logger may, is an error, so that
    /// whoever waits elsewhere hears of it.
    pub(super) fn carry_out_apart(&mut self, blocking: &Blocking) -> Result<()> {
        let (name, offset) = (self.action.name(), self.offset);
        foreign::call(|| self.carry_out(blocking)).unwrap_or_else(|| {
            let message = format!(
                "{}: something panicked on the way, as a logger does that is told of an error; see what it said",
                blocking.target.place(name, offset)
            );
            Err(Error::new(ErrorKind::Io, message))
        })
    }
}

/// Out of line, and by value: what is refused stays in registers where it is not.
#[cold]
#[inline(never)]
pub(super) fn refuse(error: Error, buffer: AlignedBuffer) -> TransferError {
    TransferError::new(error, Some(buffer))
}

/// The offset of a transfer that makes sense.
#[inline]
pub(super) fn check(target: &Target, action: Action, block: u64, buffer: &AlignedBuffer) -> Result<u64> {
    if action != Action::Read {
        target.check_writable(action.name(), block)?;
    }
    let offset = target.check(action.name(), block, buffer.len())?;
    if !target.is_aligned(buffer.as_ptr()) {
        return Err(misaligned(target, action, block));
    }
    Ok(offset)
}

#[cold]
fn misaligned(target: &Target, action: Action, block: u64) -> Error {
    let alignment = target.alignment;
    let message = format!(
        "{} of block {block} of {}: the buffer is not aligned to {alignment} bytes; take one from \
         BlockDevice::aligned_buffer",
        action.name(),
        target.path.display()
    );
    Error::new(ErrorKind::Misaligned, message)
}

/// What is next, after the kernel said how a command ended.
#[cfg(uring)]
pub(super) enum Next {
    /// Nothing: it has ended.
    Ended(Result<()>),
    /// The rest, or all of it, is to be handed over again.
    Again,
    /// It is to be carried out by `pread` and `pwrite`.
    ByHand(&'static str),
}

#[cfg(uring)]
impl Command {
    /// The entry of what is left, but for its address; by index where the buffer is of a pool that is registered with `core`.
    pub(super) fn operation<B>(&self, core: &Core<B>) -> Operation {
        match &self.buffer {
            Some(buffer) => transfer(core, self.action, self.offset, buffer, self.moved),
            None => {
                let operation_flags = sys::IORING_FSYNC_DATASYNC;
                Operation { operation_flags, ..Operation::new(sys::IORING_OP_FSYNC) }
            }
        }
    }

    /// The address of what is left, at which it stays wherever the command goes.
    #[inline(always)]
    pub(super) fn address(&self) -> u64 {
        self.buffer.as_ref().map_or(0, |buffer| buffer.address().wrapping_add(self.moved).expose_provenance() as u64)
    }

    /// Accounts for what the kernel said.
    #[inline]
    pub(super) fn advance(&mut self, target: &Target, result: i32) -> Next {
        if self.is_whole(result) { Next::Ended(Ok(())) } else { self.advance_partly(target, result) }
    }

    /// Whether nothing is left to be done.
    #[inline]
    pub(super) fn is_whole(&self, result: i32) -> bool {
        result >= 0 && self.moved + result as usize >= self.bytes()
    }

    /// Bytes transferred so far.
    #[cfg(nvme)]
    pub(super) fn moved(&self) -> usize {
        self.moved
    }

    /// Where what is left begins on the target, in bytes.
    #[cfg(nvme)]
    pub(super) fn position(&self) -> u64 {
        self.offset + self.moved as u64
    }

    /// Accounts for so many more bytes; whether nothing is left.
    #[cfg(nvme)]
    pub(super) fn moved_on(&mut self, bytes: usize) -> bool {
        self.setbacks = Setbacks::default();
        self.moved += bytes;
        self.moved >= self.bytes()
    }

    /// Counts that it was not carried out; whether it may be handed over again.
    #[cfg(nvme)]
    pub(super) fn may_give_back_again(&mut self, target: &Target) -> bool {
        let may = self.setbacks.may_give_back_again();
        count(&target.counters.retries, u64::from(may));
        may
    }

    /// Whether its memory may be registered.
    pub(super) fn has_lease(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| buffer.lease().is_some())
    }

    #[cold]
    #[inline(never)]
    fn advance_partly(&mut self, target: &Target, result: i32) -> Next {
        let offset = self.offset + self.moved as u64;
        let Ok(moved) = usize::try_from(result) else {
            return self.failed(target, offset, -result);
        };
        self.setbacks = Setbacks::default();
        let asked = (self.bytes() - self.moved).min(LONGEST);
        match target.account(self.action.name(), offset, moved, asked) {
            Ok(kept) => self.moved += kept,
            Err(error) => {
                Target::log_end(&error);
                return Next::Ended(Err(error));
            }
        }
        if self.buffer.as_ref().is_none_or(|buffer| target.is_aligned(buffer.address().wrapping_add(self.moved))) {
            Next::Again
        } else {
            Next::ByHand("what a short transfer left is not aligned")
        }
    }

    /// Accounts for an error of the kernel.
    pub(super) fn failed(&mut self, target: &Target, offset: u64, errno: i32) -> Next {
        match errno {
            libc::ECANCELED if self.setbacks.may_give_back_again() => {
                count(&target.counters.retries, 1);
                Next::Again
            }
            libc::ECANCELED => Next::ByHand(
                "the kernel gives operations back that it did not begin (ECANCELED): it may start no thread for them, see \
                 `ulimit -u` and pids.max",
            ),
            libc::EINTR | libc::EAGAIN | libc::EBUSY if self.setbacks.may_try_again() => {
                count(&target.counters.retries, 1);
                Next::Again
            }
            libc::EOPNOTSUPP | libc::EINVAL if self.action == Action::Flush => Next::ByHand("the ring can't flush"),
            libc::EOPNOTSUPP => Next::ByHand("completions can't be polled for"),
            errno if self.action == Action::Flush => {
                Next::Ended(Err(target.flush_error(std::io::Error::from_raw_os_error(errno))))
            }
            errno => Next::Ended(Err(target.transfer_error(self.action.name(), offset, errno))),
        }
    }
}

/// Completes the entry of a command that is where it stays.
#[cfg(uring)]
pub(super) fn look(operation: &mut Operation, command: &mut Command) {
    operation.address = command.address();
}

/// The entry of a transfer from `offset` on, of which so much was moved already, but for its address.
#[cfg(uring)]
#[inline(always)]
pub(super) fn transfer<B>(
    core: &Core<B>,
    action: Action,
    offset: u64,
    buffer: &AlignedBuffer,
    moved: usize,
) -> Operation {
    let lease = buffer.lease();
    let index = lease.and_then(|buf| core.buffer_of(buf.memory(), buf.chunk()));
    Operation {
        length: (buffer.len() - moved).min(LONGEST) as u32,
        offset: offset + moved as u64,
        buffer: index.unwrap_or(0),
        operation_flags: if action == Action::WriteFua { libc::RWF_DSYNC as u32 } else { 0 },
        ..Operation::new(transfer_opcode(action == Action::Read, index.is_some()))
    }
}

/// A transfer that failed, or was not started; gives the buffer back where it can be had.
///
/// Converts to [`Error`], so that `?` works where the buffer is of no interest.
#[derive(Debug)]
pub struct TransferError {
    error: Error,
    buffer: Option<AlignedBuffer>,
}

impl TransferError {
    pub(super) fn new(error: Error, buffer: Option<AlignedBuffer>) -> Self {
        Self { error, buffer }
    }

    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The buffer; `None` where the kernel may still use it, and for a flush.
    #[must_use]
    pub fn into_buffer(self) -> Option<AlignedBuffer> {
        self.buffer
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for TransferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<TransferError> for Error {
    fn from(failed: TransferError) -> Self {
        failed.error
    }
}

impl From<TransferError> for std::io::Error {
    fn from(failed: TransferError) -> Self {
        failed.error.into()
    }
}
