//! How transfers become entries of a ring: reads and writes of a file, or commands that are passed through to a disk.

use std::fmt;
use std::os::fd::AsRawFd;

use crate::block::command::{Command, Next, look};
use crate::block::futures::hub::KnownHubs;
use crate::block::target::Target;
use crate::block::uring::Uring;
use crate::block::{Durability, Picked};
use crate::core::{Core, Operation, Target as On, transfer_opcode};
use crate::entries::SmallEntries;
use crate::error::{Error, Result};
use crate::file::FixedFile;
use crate::fork::PerProcess;
use crate::pool::Pool;
use crate::rejected::{RejectReason, Rejected};
use crate::table::{Held, NoBuffers, Ticket};
use crate::thread_rings::OfThreads;

/// Longest piece of a blocking call, in bytes: a multiple of every block size.
const LONGEST_PIECE: usize = 1 << 20;
/// Smallest slot of the pool.
const SMALLEST_SLOT: usize = 4096;

/// Part of a request that goes to the kernel as one entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) is_read: bool,
    pub(super) address: *mut u8,
    pub(super) length: usize,
    /// On the target, in bytes.
    pub(super) offset: u64,
    pub(super) durability: Durability,
    /// Where the memory is registered.
    pub(super) buffer: Option<u16>,
}

/// See the [module](self).
pub(super) trait Wire: fmt::Debug + Send + Sync + Sized + 'static {
    /// Of the rings that it goes through.
    type Entries: OfThreads;

    /// `bytes` bytes, or one slot at least, that pass the data which the kernel can't have as it is.
    fn pool(target: &Target, bytes: usize) -> Result<Pool>;

    /// Whether the kernel can have the memory that begins there as it is.
    fn takes(target: &Target, address: *const u8) -> bool;

    /// The longest piece of memory that the kernel can have as it is, in bytes.
    fn longest(target: &Target, address: *const u8) -> usize;

    /// The longest piece that passes through a slot of that size, in bytes.
    fn longest_in(target: &Target, slot_size: usize) -> usize;

    /// `depth` buffers of a queue, and what goes along with the data.
    fn queue_pool(target: &Target, depth: u32, buffer_size: usize) -> Result<Pool>;

    /// How many pieces of a call may be in flight together.
    fn window(target: &Target, _is_read: bool) -> usize {
        target.queue_depth as usize
    }

    /// Starts a piece of borrowed memory, where there is room and nothing out of the ordinary.
    fn start_borrowed(core: &mut Core<NoBuffers, Self::Entries>, target: &Target, piece: Piece) -> Option<Ticket>;

    /// Starts a piece of what `held` has; `None` where there is no room.
    fn start(core: &mut Core<NoBuffers, Self::Entries>, target: &Target, piece: Piece, held: Held) -> Option<Ticket>;

    /// The bytes that a piece of `length` bytes moved, or a negative number, by what the kernel answered.
    fn moved(result: i32, length: usize) -> i32;

    /// Whether what failed with this number may be tried a few times.
    fn may_pass(errno: i32) -> bool;

    /// The error of a transfer at `offset` that failed with this number.
    fn error(target: &Target, operation: &str, offset: u64, errno: i32) -> Error;

    /// Refuses a command whose buffer can't be had.
    fn check(target: &Target, command: &Command) -> Result<()>;

    /// Starts what is left of a command; on `file` where that is registered, else on the target's descriptor, which stays open until
    /// it has ended.
    fn push(
        core: &mut Core<Command, Self::Entries>,
        target: &Target,
        file: Option<&FixedFile>,
        command: Command,
    ) -> Result<Ticket, Rejected<Command>>;

    /// Whether a command has ended, and all is well.
    fn is_whole(target: &Target, command: &Command, result: i32) -> bool;

    /// Accounts for what the kernel answered to a command.
    fn advance(target: &Target, command: &mut Command, result: i32) -> Next;

    /// What a device has whose transfers go this way.
    fn uring(device: &Picked) -> Option<&Uring<Self>>;

    /// The process's hubs.
    fn hubs() -> &'static PerProcess<KnownHubs<Self>>;
}

/// The command of an operation that was not started.
#[cold]
pub(super) fn give_back((reason, held): (RejectReason, Held<Command>)) -> Rejected<Command> {
    let Held::Owned(command) = held else { unreachable!("a rejected operation gives back what it was given") };
    Rejected::new(reason, command)
}

/// Reads and writes.
#[derive(Debug)]
pub(super) enum Plain {}

impl Plain {
    #[inline(always)]
    pub(super) fn operation(piece: Piece) -> Operation {
        Operation {
            address: piece.address.expose_provenance() as u64,
            length: piece.length as u32,
            offset: piece.offset,
            buffer: piece.buffer.unwrap_or(0),
            operation_flags: if piece.durability == Durability::Fua { libc::RWF_DSYNC as u32 } else { 0 },
            ..Operation::new(transfer_opcode(piece.is_read, piece.buffer.is_some()))
        }
    }
}

impl Wire for Plain {
    type Entries = SmallEntries;

    fn pool(target: &Target, bytes: usize) -> Result<Pool> {
        let slot_size = SMALLEST_SLOT.max(target.block_size as usize);
        Pool::new(u32::try_from(bytes / slot_size).unwrap_or(u32::MAX - 1).max(1), slot_size)
    }

    #[inline(always)]
    fn takes(target: &Target, address: *const u8) -> bool {
        target.is_aligned(address)
    }

    #[inline(always)]
    fn longest(_: &Target, _: *const u8) -> usize {
        LONGEST_PIECE
    }

    fn longest_in(_: &Target, slot_size: usize) -> usize {
        slot_size
    }

    fn queue_pool(target: &Target, depth: u32, buffer_size: usize) -> Result<Pool> {
        // So that each buffer begins where a transfer may.
        Pool::new(depth, buffer_size.next_multiple_of(target.alignment))
    }

    #[inline(always)]
    fn start_borrowed(core: &mut Core, target: &Target, piece: Piece) -> Option<Ticket> {
        core.start_borrowed(target.file.as_raw_fd(), Self::operation(piece))
    }

    fn start(core: &mut Core, target: &Target, piece: Piece, held: Held) -> Option<Ticket> {
        core.start(On::descriptor(target.file.as_raw_fd()), Self::operation(piece), held).ok()
    }

    #[inline(always)]
    fn moved(result: i32, _: usize) -> i32 {
        result
    }

    fn may_pass(_: i32) -> bool {
        false
    }

    fn error(target: &Target, operation: &str, offset: u64, errno: i32) -> Error {
        target.transfer_error(operation, offset, errno)
    }

    #[inline(always)]
    fn check(_: &Target, _: &Command) -> Result<()> {
        Ok(())
    }

    fn push(
        core: &mut Core<Command>,
        target: &Target,
        file: Option<&FixedFile>,
        command: Command,
    ) -> Result<Ticket, Rejected<Command>> {
        let operation = command.operation(core);
        if let Some(file) = file {
            return core.start_owned(file, operation, command, look);
        }
        let descriptor = target.file.as_raw_fd();
        if let Some(room) = core.room_on(descriptor) {
            let operation = Operation { address: command.address(), ..operation };
            // SAFETY: the ring gave the room, and nothing was done to it since.
            return Ok(unsafe { core.start_in(room, operation, command) });
        }
        let operation = Operation { address: command.address(), ..operation };
        core.start(On::descriptor(descriptor), operation, Held::Owned(command)).map_err(give_back)
    }

    #[inline(always)]
    fn is_whole(_: &Target, command: &Command, result: i32) -> bool {
        command.is_whole(result)
    }

    fn uring(device: &Picked) -> Option<&Uring> {
        match device {
            Picked::Uring(uring) => Some(uring),
            _ => None,
        }
    }

    fn hubs() -> &'static PerProcess<KnownHubs<Self>> {
        static HUBS: PerProcess<KnownHubs<Plain>> = PerProcess::new();
        &HUBS
    }

    #[inline(always)]
    fn advance(target: &Target, command: &mut Command, result: i32) -> Next {
        command.advance(target, result)
    }
}
