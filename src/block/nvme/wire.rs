//! Commands on a ring.
//!
//! What they name is the ring's table's until they have ended, as with any operation: the lease, or the buffer that was moved in.
//! Where a format has metadata that is transferred, it has the last page of the same lease: the kernel takes its address as it is, also
//! where the data is in a registered buffer.

use std::os::fd::AsRawFd;

use liburing_sys as sys;

use crate::block::command::{Action, Command, Next};
use crate::block::foreign;
use crate::block::futures::hub::KnownHubs;
use crate::block::nvme::entry::{Entry, Metadata, Run, Transfer, URING_CMD_FIXED, URING_CMD_IO, io};
use crate::block::nvme::format::PAGE;
use crate::block::nvme::kernel::Kernel;
use crate::block::nvme::namespace::{Namespace, Refused, may_pass};
use crate::block::nvme::status::NvmeStatus;
use crate::block::target::Target;
use crate::block::uring::Uring;
use crate::block::wire::{Piece, Wire, give_back};
use crate::block::{Durability, Picked};
use crate::core::{Core, Operation, Target as On};
use crate::entries::BigEntries;
use crate::error::{Error, ErrorKind, Result};
use crate::file::FixedFile;
use crate::fork::PerProcess;
use crate::pool::Pool;
use crate::rejected::{RejectReason, Rejected};
use crate::table::{Held, NoBuffers, Ticket};

/// What passes through a slot of the device's pool, in bytes, where the pool has not too many of them.
const SLOT: usize = 64 << 10;
/// Slots of the device's pool: each is registered by itself, and a ring has room for a few hundred.
const MOST_SLOTS: usize = 64;
/// What a controller says of a command is told apart from what the kernel says by being larger.
const STATUS: i32 = 1 << 16;

/// See the [module](self).
#[derive(Debug)]
pub(in crate::block) enum Passthrough {}

fn namespace(target: &Target) -> &Namespace {
    target.namespace.as_ref().expect("commands are passed through to a namespace")
}

impl Namespace {
    /// Bytes at the end of a slot that metadata has for itself: a page, or none.
    fn room_for_metadata(&self) -> usize {
        if self.format.separate_metadata(Metadata::Controllers) == 0 { 0 } else { PAGE }
    }

    /// A pool whose slots are registered each by itself: Linux 6.1 refuses a buffer that has more pages than a transfer may.
    fn pool_of(&self, slots: u32, bytes: usize) -> Result<Pool> {
        let slot_size = bytes.next_multiple_of(PAGE) + self.room_for_metadata();
        Pool::in_chunks(slots, slot_size, slot_size)
    }

    /// Whether a slot of that size may be used by its number.
    fn takes_fixed(&self, slot_size: usize) -> bool {
        Kernel::running().has_fixed_commands() && slot_size <= self.limits.pages.saturating_mul(PAGE)
    }
}

/// The fields of a ring's entry that are no part of the command.
fn operation(buffer: Option<u16>) -> Operation {
    Operation {
        buffer: buffer.unwrap_or(0),
        operation_flags: if buffer.is_some() { URING_CMD_FIXED } else { 0 },
        ..Operation::new(sys::IORING_OP_URING_CMD)
    }
}

/// The status that is told as a number.
fn status_of(errno: i32) -> Option<NvmeStatus> {
    (errno >= STATUS).then(|| NvmeStatus::from_raw((errno - STATUS) as u16))
}

impl Wire for Passthrough {
    type Entries = BigEntries;

    fn pool(target: &Target, bytes: usize) -> Result<Pool> {
        let namespace = namespace(target);
        let block_size = target.block_size as usize;
        let longest = namespace.longest(std::ptr::null());
        let data = SLOT.max(bytes / MOST_SLOTS).max(block_size).min(longest);
        let data = data - data % namespace.format.lba_size as usize;
        namespace.pool_of((bytes / data).clamp(1, MOST_SLOTS) as u32, data)
    }

    fn queue_pool(target: &Target, depth: u32, buffer_size: usize) -> Result<Pool> {
        namespace(target).pool_of(depth, buffer_size)
    }

    #[inline]
    fn takes(target: &Target, address: *const u8) -> bool {
        target.is_aligned(address) && namespace(target).format.separate_metadata(Metadata::Controllers) == 0
    }

    #[inline]
    fn longest(target: &Target, address: *const u8) -> usize {
        namespace(target).longest(address)
    }

    fn longest_in(target: &Target, slot_size: usize) -> usize {
        let namespace = namespace(target);
        let data = slot_size - namespace.room_for_metadata();
        (data - data % namespace.format.lba_size as usize).min(namespace.longest(std::ptr::null()))
    }

    fn window(target: &Target, is_read: bool) -> usize {
        // The blocks of a zone are written one after the other.
        if namespace(target).is_zoned() && !is_read { 1 } else { target.queue_depth as usize }
    }

    #[inline]
    fn start_borrowed(core: &mut Core<NoBuffers, BigEntries>, target: &Target, piece: Piece) -> Option<Ticket> {
        Self::start(core, target, piece, Held::Borrowed)
    }

    fn start(core: &mut Core<NoBuffers, BigEntries>, target: &Target, piece: Piece, mut held: Held) -> Option<Ticket> {
        let namespace = namespace(target);
        let room = namespace.room_for_metadata();
        let (mut slot_size, mut metadata) = (0, 0);
        if let Held::Lease(buf) = &mut held {
            slot_size = buf.len();
            let (data, place) = buf.split_at_mut(slot_size - room);
            assert!(piece.length <= data.len(), "what goes with the data has a place of its own");
            // What the controller keeps of it means nothing, but is not what was here before.
            place.fill(0);
            metadata = place.as_mut_ptr().expose_provenance() as u64;
        } else {
            assert_eq!(room, 0, "metadata has a place in a lease only");
        }
        let run = Run::of_bytes(&namespace.format, namespace.lba(piece.offset), piece.length, Metadata::Controllers)?;
        let transfer = match piece.is_read {
            true => Transfer::Read,
            false => Transfer::Write { fua: piece.durability == Durability::Fua },
        };
        let address = piece.address.expose_provenance() as u64;
        let entry = run.entry(&namespace.format, namespace.nsid, transfer, address, metadata);
        let buffer = piece.buffer.filter(|_| namespace.takes_fixed(slot_size));
        let on = On::descriptor(target.file.as_raw_fd());
        core.start_command(on, URING_CMD_IO, operation(buffer), &entry.payload(), held).ok()
    }

    #[inline]
    fn moved(result: i32, length: usize) -> i32 {
        match result {
            0 => length as i32,
            // A status, whatever its sign says.
            status @ 1.. => -(STATUS + status),
            errno => errno,
        }
    }

    fn may_pass(errno: i32) -> bool {
        status_of(errno).is_some_and(may_pass)
    }

    fn error(target: &Target, operation: &str, offset: u64, errno: i32) -> Error {
        let refused = status_of(errno).map_or(Refused::Kernel(errno), Refused::Status);
        refused.into_error(target.place(operation, offset))
    }

    fn check(target: &Target, command: &Command) -> Result<()> {
        let Some(buffer) = &command.buffer else { return Ok(()) };
        let room = namespace(target).room_for_metadata();
        let has_room = buffer.lease().is_some_and(|lease| lease.size() as usize >= buffer.len() + room);
        if room == 0 || has_room {
            return Ok(());
        }
        let message = format!(
            "{} is formatted with metadata, which takes {room} bytes behind the data of this buffer; take one that has the room \
             from Queue::buffer",
            target.path.display()
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    fn push(
        core: &mut Core<Command, BigEntries>,
        target: &Target,
        file: Option<&FixedFile>,
        command: Command,
    ) -> Result<Ticket, Rejected<Command>> {
        let namespace = namespace(target);
        let on = match file.map(|file| core.index_of(file)) {
            Some(Some(index)) => On::fixed(index),
            Some(None) => return Err(Rejected::new(RejectReason::ForeignFile, command)),
            None => On::descriptor(target.file.as_raw_fd()),
        };
        let mut number_of_buffer = None;
        let entry = match &command.buffer {
            None => Entry::new(io::FLUSH, namespace.nsid),
            Some(buffer) => {
                let length = next_piece(namespace, &command);
                let first = namespace.lba(command.position());
                let run = Run::of_bytes(&namespace.format, first, length, Metadata::Controllers)
                    .expect("a command is of whole blocks, which was checked");
                let transfer = match command.action {
                    Action::Read => Transfer::Read,
                    action => Transfer::Write { fua: action == Action::WriteFua },
                };
                let mut metadata = 0;
                let room = namespace.room_for_metadata();
                if room != 0 {
                    // `check` saw that there is one. It is the command's, and nothing of it is in flight: pieces go one after the
                    // other.
                    let lease = buffer.lease().expect("metadata has a place in a lease only");
                    assert!(buffer.len() + room <= lease.size() as usize, "it fits behind the data");
                    let place = lease.address().wrapping_add(lease.size() as usize - room);
                    // SAFETY: the last bytes of the lease, which are not among those of the buffer.
                    unsafe { place.write_bytes(0, room) };
                    metadata = place.expose_provenance() as u64;
                }
                let lease = buffer.lease().filter(|lease| namespace.takes_fixed(lease.size() as usize));
                number_of_buffer = lease.and_then(|lease| core.buffer_of(lease.memory(), lease.chunk()));
                run.entry(&namespace.format, namespace.nsid, transfer, command.address(), metadata)
            }
        };
        let operation = operation(number_of_buffer);
        let held = Held::Owned(command);
        core.start_command(on, URING_CMD_IO, operation, &entry.payload(), held).map_err(give_back)
    }

    fn is_whole(target: &Target, command: &Command, result: i32) -> bool {
        let is_last = || next_piece(namespace(target), command) == command.bytes() - command.moved();
        result == 0 && (command.buffer.is_none() || is_last())
    }

    fn uring(device: &Picked) -> Option<&Uring<Self>> {
        match device {
            Picked::Nvme(uring) => Some(uring),
            _ => None,
        }
    }

    fn hubs() -> &'static PerProcess<KnownHubs<Self>> {
        static HUBS: PerProcess<KnownHubs<Passthrough>> = PerProcess::new();
        &HUBS
    }

    fn advance(target: &Target, command: &mut Command, result: i32) -> Next {
        match result {
            0 if command.buffer.is_none() => Next::Ended(Ok(())),
            0 => {
                let length = next_piece(namespace(target), command);
                if command.moved_on(length) { Next::Ended(Ok(())) } else { Next::Again }
            }
            status @ 1.. => {
                let status = NvmeStatus::from_raw(status as u16);
                if may_pass(status) && command.may_give_back_again(target) {
                    return Next::Again;
                }
                let error = if command.action == Action::Flush {
                    let error = Error::from_nvme(status, format_args!("flush of {}", target.path.display()));
                    foreign::call(|| log::error!("what was written since the last flush may be lost: {error}"));
                    error
                } else {
                    Error::from_nvme(status, target.place(command.action.name(), command.position()))
                };
                Next::Ended(Err(error))
            }
            errno => command.failed(target, command.position(), -errno),
        }
    }
}

/// Bytes of the next piece of a transfer, which is also the last one that was handed over as long as it was not accounted for.
fn next_piece(namespace: &Namespace, command: &Command) -> usize {
    let address = std::ptr::without_provenance(command.address() as usize);
    namespace.longest(address).min(command.bytes() - command.moved())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_where_the_kernel_looks_for_it() {
        let Ok(mut core) = crate::Ring::builder(4).big_entries().core::<NoBuffers>() else {
            return println!("skipped: no ring with large entries here");
        };
        let payload: [u8; 80] = std::array::from_fn(|index| index as u8 + 1);
        for lap in 0..2 {
            let started =
                core.start_command(On::descriptor(7), URING_CMD_IO, operation(Some(3)), &payload, Held::Nothing);
            assert!(started.is_ok());
            // SAFETY: the ring is set up, and its entries have 128 bytes each.
            let bytes = unsafe { (*core.queues().raw()).sq.sqes.add(2 * lap).cast::<[u8; 128]>().read() };
            assert_eq!((bytes[0], &bytes[4..8]), (sys::IORING_OP_URING_CMD as u8, &7_i32.to_ne_bytes()[..]));
            assert_eq!(bytes[8..12], URING_CMD_IO.to_ne_bytes());
            assert_eq!((&bytes[28..32], &bytes[40..42]), (&1_u32.to_ne_bytes()[..], &3_u16.to_ne_bytes()[..]));
            assert_eq!(bytes[48..], payload);
        }
    }

    #[test]
    fn a_positive_result_is_never_bytes() {
        assert_eq!(Passthrough::moved(0, 4096), 4096);
        assert_eq!(Passthrough::moved(-libc::EIO, 4096), -libc::EIO);
        for status in [1, 0x80, 0x4080, 0x7fff] {
            let moved = Passthrough::moved(status, 4096);
            assert!(moved < 0, "{status:#x}");
            assert_eq!(status_of(-moved), Some(NvmeStatus::from_raw(status as u16)));
        }
        assert_eq!(status_of(libc::EIO), None);
        assert!(Passthrough::may_pass(STATUS + 6) && !Passthrough::may_pass(libc::EINTR));
    }
}
