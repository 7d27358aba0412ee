//! What [`Ring`](crate::Ring) and [`SharedRing`](crate::SharedRing) have in common: the queues, the table of operations,
//! and what is registered.
//!
//! # Life of an operation
//!
//! [`Core::start`] makes an entry in the table, which takes what the operation needs; then it fills the SQE at the tail of
//! the submission queue; then it moves the tail. Until a submit the kernel has seen nothing. From then on only the CQE
//! counts: [`Queues::pop`] copies it and publishes the queue's head, and the table gives out again what it held.
//!
//! # Life of a ring
//!
//! Dropping a ring takes the completions that are there, so that leases go back to their pools. What is still in flight on
//! memory of a pool is abandoned to the kernel: that costs nothing. Where other memory would leak, the operations are
//! cancelled and waited for, for as long as [`RingBuilder::drop_limit`](crate::RingBuilder::drop_limit) says; what is left
//! then is leaked, and counted. In the child of a `fork` the ring is its parent's: every call is an error, and dropping it
//! closes the child's descriptor only.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use liburing_sys as sys;

use crate::completion::{Completion, Done, More, Rare, RareBox, Returned};
use crate::cqe::Cqe;
#[cfg(nvme)]
use crate::entries::BigEntries;
use crate::entries::{Entries, SmallEntries};
use crate::error::{Error, ErrorKind, Result};
use crate::file::FixedFile;
use crate::operations::FileRef;
use crate::parcel::{Parcel, address_of};
use crate::pool::{Buf, Pool, PoolMemory};
use crate::provided::{Groups, ProvidedBuffers};
use crate::queues::Queues;
use crate::raw_ring::{RawRing, is_passing};
use crate::registered::Registered;
use crate::rejected::{RejectReason, Rejected};
use crate::table::{Completed, Finished, Held, NO_FILE, NoBuffers, Outcome, Partial, Start, Table, Ticket, is_raw};

/// Makes the tickets of rings differ.
static RINGS_MADE: AtomicU32 = AtomicU32::new(0);

/// What an operation reads from or writes to. No enum, so that what is known of it is known where it is used.
#[derive(Debug, Clone)]
pub struct Target {
    /// The entry of the ring's table of files, or [`NO_FILE`].
    file: u32,
    /// What the kernel finds it by.
    number: RawFd,
    /// Kept open by the operation.
    descriptor: Option<Arc<OwnedFd>>,
}

impl Target {
    /// For operations on no file.
    pub(crate) const NONE: Self = Self::descriptor(-1);

    /// An entry of the ring's table of files.
    #[inline(always)]
    pub(crate) const fn fixed(index: u32) -> Self {
        Self { file: index, number: index as RawFd, descriptor: None }
    }

    /// A descriptor that outlives the operation: the caller waits for its end before it gives the descriptor up. Or none.
    #[inline(always)]
    pub(crate) const fn descriptor(number: RawFd) -> Self {
        Self { file: NO_FILE, number, descriptor: None }
    }

    /// A descriptor that the operation keeps open.
    #[inline(always)]
    pub(crate) fn shared(descriptor: Arc<OwnedFd>) -> Self {
        Self { file: NO_FILE, number: descriptor.as_raw_fd(), descriptor: Some(descriptor) }
    }

    /// Of a file that is found by `place`, and kept open by `descriptor`.
    #[inline(always)]
    pub(crate) fn of(place: (u32, RawFd), descriptor: Option<Arc<OwnedFd>>) -> Self {
        Self { file: place.0, number: place.1, descriptor }
    }
}

/// The fields of an SQE that operations set; all others are zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) opcode: u32,
    /// `IOSQE_*`.
    pub(crate) flags: u8,
    pub(crate) ioprio: u16,
    pub(crate) address: u64,
    pub(crate) length: u32,
    /// Also a second address.
    pub(crate) offset: u64,
    /// `rw_flags`, `fsync_flags`, `cancel_flags` …, which share a place.
    pub(crate) operation_flags: u32,
    /// A registered buffer, or a group of provided ones.
    pub(crate) buffer: u16,
    /// `splice_fd_in`, `file_index`, which share a place.
    pub(crate) file_index: u32,
    /// `addr3`: what a command has no other place for.
    pub(crate) address3: u64,
    pub(crate) outcome: Outcome,
}

impl Operation {
    #[inline]
    pub(crate) fn new(opcode: u32) -> Self {
        Self {
            opcode,
            flags: 0,
            ioprio: 0,
            address: 0,
            length: 0,
            offset: 0,
            operation_flags: 0,
            buffer: 0,
            file_index: 0,
            address3: 0,
            outcome: Outcome::Count,
        }
    }
}

/// See the [module](self). Public, in a private module: sealed traits speak of it.
pub struct Core<B = NoBuffers, E: Entries = SmallEntries> {
    /// Dropped before the table: see its `Drop`.
    queues: Queues<E>,
    table: Table<B>,
    registered: Registered,
    groups: Groups,
    /// Something may be in `waiting`, or in the table to be taken; or the ring is poisoned.
    has_waiting: bool,
    /// What was found while somebody looked for something else.
    waiting: VecDeque<Completion<B, E>>,
    /// Of operations that ended, for later ones.
    spare: Vec<Parcel<B>>,
    /// Entries of a chain that is being put together, behind the tail.
    ahead: u32,
    /// `IOSQE_*` for every entry that is started.
    extra_flags: u8,
    /// How long dropping the ring waits; where nothing was said, only for memory that would leak.
    drop_limit: Option<Duration>,
    /// A second descriptor of the ring, for messages to it.
    pub(crate) mailbox: Option<Arc<OwnedFd>>,
}

/// A table for as many operations as completions fit. Tickets of another table find nothing in it, as a rule.
fn table_for<B>(queues: &RawRing) -> Table<B> {
    let seed = RINGS_MADE.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9);
    Table::new(queues.cq_entries() << u32::from(cfg!(sysuring_break = "r11_limit")), seed)
}

/// How long dropping a ring waits for memory that would leak.
const LEAK_LIMIT: Duration = Duration::from_secs(1);

/// How long after it was asked to end everything the kernel is asked again, where nothing ended.
const ASK_AGAIN: Duration = Duration::from_millis(4);

/// How long a ring that is closed at once waits for what was asked to end, where it would leak.
const AT_ONCE: Duration = Duration::from_millis(10);

/// Operations of which something was leaked.
static LEAKED: AtomicU32 = AtomicU32::new(0);

/// Operations whose memory or descriptor this process leaked, since the ring was gone and the kernel was not through with it.
/// What leases of a pool have is not leaked: see [`Pool::retired_bytes`].
#[must_use]
pub fn leaked_operations() -> u32 {
    LEAKED.load(Ordering::Relaxed)
}

// SAFETY: nothing in here belongs to a thread, but what the user's own buffers may hold. Rings that the kernel ties to one
// (SINGLE_ISSUER, DEFER_TASKRUN) are only ever inside of a `Ring`, which is not `Send`, as nothing is that borrows one
// (`OneThread`); the builder refuses these flags for a `SharedRing`. The one exception is a block device's reactor, where other
// threads fill entries under a lock, and the ring's own thread alone enters and closes it.
unsafe impl<B: Send, E: Entries> Send for Core<B, E> {}

impl<B, E: Entries> Core<B, E> {
    /// Nothing is on `ring`, which was set up with `E::FLAGS`; `files` may be registered on it.
    pub(crate) fn new(ring: RawRing, files: u32) -> Self {
        let queues = Queues::of(ring);
        Self {
            table: table_for(&queues),
            queues,
            registered: Registered::new(files),
            groups: Groups::default(),
            has_waiting: false,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            ahead: 0,
            extra_flags: 0,
            drop_limit: None,
            mailbox: None,
        }
    }

    /// Changes the size of the queues, and of the table with them.
    pub(crate) fn resize(&mut self, entries: u32, cq_entries: u32) -> Result<()> {
        self.check_usable()?;
        self.reap();
        if !self.is_idle() || self.has_waiting && self.find_waiting() {
            let message =
                "operations are in flight on the ring, or their completions not taken; take them before it is resized";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if !self.queues.is_consumed() {
            // Not all of them are in a count: some post no completion, and a message can make the count too low. The kernel
            // takes over what was published to it, which they were not, and the tail would go on as if they had been.
            let message = "entries are in the submission queue; submit them before it is resized";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let resized = self.queues.resize(entries, cq_entries);
        self.check_poisoned(resized)?;
        self.table = table_for(&self.queues);
        Ok(())
    }

    pub(crate) fn set_drop_limit(&mut self, limit: Option<Duration>) {
        self.drop_limit = limit;
    }

    #[inline]
    pub(crate) fn queues(&self) -> &Queues<E> {
        &self.queues
    }

    #[inline]
    pub(crate) fn queues_mut(&mut self) -> &mut Queues<E> {
        &mut self.queues
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.table.in_flight()
    }

    /// Operations in flight that use memory which a call that has not returned borrows.
    pub(crate) fn borrowed(&self) -> u32 {
        self.table.borrowed()
    }

    /// Whether nothing of anybody's is on the ring, as far as it can be known: raw entries that post no completion are in no
    /// count, since nothing tells of their end.
    pub(crate) fn is_idle(&self) -> bool {
        self.table.in_flight() == 0 && self.queues.raw_in_flight() == 0
    }

    /// Refuses a ring of the parent process, and one that lost completions.
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<()> {
        self.queues.check_usable()
    }

    // ---- starting

    /// Starts an operation of the safe interface.
    #[inline(always)]
    pub(crate) fn start(
        &mut self,
        target: Target,
        operation: Operation,
        held: Held<B>,
    ) -> Result<Ticket, (RejectReason, Held<B>)> {
        self.start_with(target, operation, held, |_, _| ())
    }

    /// As [`Core::start`]; `fill` gets what the operation holds, at the address where it stays, and completes the fields.
    #[inline(always)]
    pub(crate) fn start_with(
        &mut self,
        target: Target,
        mut operation: Operation,
        held: Held<B>,
        fill: impl FnOnce(&mut Operation, &mut Held<B>),
    ) -> Result<Ticket, (RejectReason, Held<B>)> {
        let sqe = match self.place() {
            Ok(sqe) => sqe,
            Err(reason) => return Err((reason, held)),
        };
        let Target { file, number, descriptor } = target;
        // SAFETY: `place` found room.
        let ticket = unsafe { self.table.insert(Start { held, file, descriptor, outcome: operation.outcome }) };
        let unfinished = Unfinished { table: &mut self.table, ticket };
        fill(&mut operation, unfinished.table.held_mut(ticket));
        std::mem::forget(unfinished);
        if file != NO_FILE {
            operation.flags |= sys::IOSQE_FIXED_FILE as u8;
        }
        self.publish(sqe, number, operation, ticket);
        Ok(ticket)
    }

    /// Starts an operation on borrowed memory and the caller's descriptor, where there is room and nothing out of the ordinary:
    /// the fast path of a call that waits for it.
    #[cfg(feature = "block")]
    #[inline(always)]
    pub(crate) fn start_borrowed(&mut self, descriptor: RawFd, operation: Operation) -> Option<Ticket> {
        let sqe = self.plain_place()?;
        // SAFETY: there is room, as was looked up just now.
        let ticket = unsafe { self.table.insert_borrowed() };
        fill(sqe, descriptor, operation, ticket);
        self.queues.commit();
        Some(ticket)
    }

    /// Whether raw entries leave no place among the completions for one more operation.
    fn is_crowded(&self) -> bool {
        let raw_in_flight = self.queues.raw_in_flight();
        raw_in_flight != 0 && self.table.in_flight() + raw_in_flight >= self.queues.cq_entries()
    }

    /// The place of the next entry, where there is room for it in the queue and in the table, and nothing is in the way.
    ///
    /// Entries of a chain, and those with flags, come from [`Core::place`] only.
    #[inline(always)]
    fn plain_place(&mut self) -> Option<NonNull<sys::io_uring_sqe>> {
        if self.queues.is_plain() && !self.table.is_full() { self.queues.free_entry(0) } else { None }
    }

    /// The place of the next entry, where there is room for it in the queue and in the table.
    #[inline]
    fn place(&mut self) -> Result<NonNull<sys::io_uring_sqe>, RejectReason> {
        if self.is_crowded() || self.table.is_full() {
            return Err(self.why_full());
        }
        if self.extra_flags & LINKS != 0 && self.queues.cuts_chains() {
            return Err(RejectReason::SharedPoller);
        }
        match self.queues.reserve_ahead(self.ahead) {
            Some(sqe) => Ok(sqe),
            None => Err(self.why_not()),
        }
    }

    /// Completes an entry, and moves the tail over it, unless it is of a chain.
    #[inline]
    fn publish(&mut self, sqe: NonNull<sys::io_uring_sqe>, number: RawFd, mut operation: Operation, ticket: Ticket) {
        operation.flags |= self.extra_flags;
        fill(sqe, number, operation, ticket);
        self.advance();
    }

    /// Moves the tail over an entry that is complete, unless it is of a chain.
    #[inline]
    fn advance(&mut self) {
        if self.extra_flags & LINKS == 0 {
            self.queues.commit();
        } else {
            self.ahead += 1;
        }
    }

    /// Why there is no room for an operation.
    #[cold]
    fn why_full(&self) -> RejectReason {
        if self.queues.is_usable() { RejectReason::TableFull } else { self.why_not() }
    }

    /// Why there is no room for an entry.
    #[cold]
    fn why_not(&self) -> RejectReason {
        match self.queues.why_not() {
            RejectReason::QueueFull if self.ahead >= self.queues.sq_entries() => RejectReason::ChainTooLong,
            reason => reason,
        }
    }

    /// Reads or writes a lease: by index where its pool is registered and `fixed` asks for that, else by address.
    ///
    /// This is the fast path: one file, one lease, and nothing out of the ordinary. Everything else goes round by
    /// [`Core::start`], out of line.
    #[inline(always)]
    pub(crate) fn start_transfer(
        &mut self,
        is_read: bool,
        fixed: bool,
        file: &impl FileRef,
        buf: Buf,
        length: u32,
        offset: u64,
    ) -> Result<Ticket, Rejected<Buf>> {
        let (index, number) = match file.place(self) {
            Ok(place) => place,
            Err(reason) => return Err(reject(reason, buf)),
        };
        if length > buf.size() {
            return Err(reject(RejectReason::TooLong, buf));
        }
        let buffer = if fixed { self.buffer_of(buf.memory(), buf.chunk()) } else { Some(0) };
        let Some(buffer) = buffer else { return Err(reject(RejectReason::ForeignPool, buf)) };
        let opcode = transfer_opcode(is_read, fixed);
        if file.is_fixed() {
            if let Some(sqe) = self.plain_place() {
                let flags = sys::IOSQE_FIXED_FILE as u8;
                let operation = Operation { flags, ..transfer(opcode, &buf, length, offset, buffer) };
                // SAFETY: there is room, as was looked up just now, and a lease is plain.
                let ticket = unsafe { self.table.insert_plain(Held::Lease(buf), index) };
                fill(sqe, number, operation, ticket);
                self.queues.commit();
                return Ok(ticket);
            }
        }
        self.start_lease(opcode, index, number, file.to_keep(), buf, length, offset, buffer)
    }

    /// As [`Core::start`], for a lease; with arguments that fit into registers.
    #[allow(clippy::too_many_arguments)]
    #[cold]
    #[inline(never)]
    fn start_lease(
        &mut self,
        opcode: u32,
        index: u32,
        number: RawFd,
        kept: Option<Arc<OwnedFd>>,
        buf: Buf,
        length: u32,
        offset: u64,
        buffer: u16,
    ) -> Result<Ticket, Rejected<Buf>> {
        let operation = transfer(opcode, &buf, length, offset, buffer);
        self.start(Target::of((index, number), kept), operation, Held::Lease(buf)).map_err(reject_lease)
    }

    /// Starts an operation on a buffer that is moved in; `look` completes the fields by the buffer, at the address where it
    /// stays. The other fast path; see [`Core::start_transfer`].
    #[inline(always)]
    pub(crate) fn start_owned(
        &mut self,
        file: &impl FileRef,
        mut operation: Operation,
        buffer: B,
        look: impl FnOnce(&mut Operation, &mut B),
    ) -> Result<Ticket, Rejected<B>> {
        let (index, number) = match file.place(self) {
            Ok(place) => place,
            Err(reason) => return Err(Rejected::new(reason, buffer)),
        };
        if file.is_fixed() && operation.outcome == Outcome::Count {
            if let Some(sqe) = self.plain_place() {
                operation.flags = sys::IOSQE_FIXED_FILE as u8;
                // SAFETY: there is room, as was looked up just now, and such a buffer is plain.
                let ticket = unsafe { self.table.insert_plain(Held::Owned(buffer), index) };
                let unfinished = Unfinished { table: &mut self.table, ticket };
                if let Held::Owned(buffer) = unfinished.table.held_mut(ticket) {
                    look(&mut operation, buffer);
                }
                std::mem::forget(unfinished);
                fill(sqe, number, operation, ticket);
                self.queues.commit();
                return Ok(ticket);
            }
        }
        self.start_owned_round(Target::of((index, number), file.to_keep()), operation, buffer, look)
    }

    /// Room for one more operation on a registered file, where nothing is out of the ordinary: who has it before it makes its
    /// buffer moves that once.
    #[cfg(feature = "block")]
    #[inline(always)]
    pub(crate) fn room(&mut self, file: &impl FileRef) -> Option<Room> {
        let (index, number) = file.place(self).ok()?;
        let sqe = if file.is_fixed() { self.plain_place()? } else { return None };
        Some(Room { sqe, index, number, flags: sys::IOSQE_FIXED_FILE as u8 })
    }

    /// As [`Core::room`], for a descriptor that somebody keeps open.
    #[cfg(feature = "block")]
    #[inline(always)]
    pub(crate) fn room_on(&mut self, descriptor: RawFd) -> Option<Room> {
        Some(Room { sqe: self.plain_place()?, index: NO_FILE, number: descriptor, flags: 0 })
    }

    /// As [`Core::start_owned`], for which there is room; the fields are complete.
    ///
    /// # Safety
    ///
    /// This ring gave `room`, and nothing was done to it since.
    #[cfg(feature = "block")]
    #[inline(always)]
    pub(crate) unsafe fn start_in(&mut self, room: Room, mut operation: Operation, buffer: B) -> Ticket {
        operation.flags = room.flags;
        // SAFETY: there is room, and such a buffer is plain.
        let ticket = unsafe { self.table.insert_plain(Held::Owned(buffer), room.index) };
        fill(room.sqe, room.number, operation, ticket);
        self.queues.commit();
        ticket
    }

    #[cold]
    #[inline(never)]
    fn start_owned_round(
        &mut self,
        target: Target,
        operation: Operation,
        buffer: B,
        look: impl FnOnce(&mut Operation, &mut B),
    ) -> Result<Ticket, Rejected<B>> {
        let started = self.start_with(target, operation, Held::Owned(buffer), |operation, held| {
            if let Held::Owned(buffer) = held {
                look(operation, buffer);
            }
        });
        started.map_err(|(reason, held)| {
            let Held::Owned(buffer) = held else { unreachable!("a rejected operation gives back what it was given") };
            Rejected::new(reason, buffer)
        })
    }

    /// Asks the kernel to end an operation. The answer is not waited for; the operation's own CQE tells how it ended.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Result<(), RejectReason> {
        self.start_cancel(ticket.user_data(), 0).map(drop)
    }

    /// Starts a cancel of whatever `address` and `flags` (`IORING_ASYNC_CANCEL_*`) say.
    fn start_cancel(&mut self, address: u64, flags: u32) -> Result<Ticket, RejectReason> {
        if self.is_crowded() || self.table.is_full() {
            return Err(RejectReason::TableFull);
        }
        let Some(sqe) = self.queues.reserve_ahead(0) else { return Err(self.why_not()) };
        // SAFETY: there is room, as was looked up above.
        let own = unsafe { self.table.insert_silent() };
        let operation = Operation { address, operation_flags: flags, ..Operation::new(sys::IORING_OP_ASYNC_CANCEL) };
        fill(sqe, -1, operation, own);
        self.queues.commit();
        Ok(own)
    }

    /// A parcel to fill in: one of an operation that ended, or a new one.
    pub(crate) fn parcel(&mut self) -> Parcel<B> {
        self.spare.pop().unwrap_or_else(Parcel::new)
    }

    /// Keeps a parcel for later.
    pub(crate) fn put_away(&mut self, parcel: Parcel<B>) {
        self.spare.push(parcel);
    }

    // ---- chains

    /// From here on entries are put behind the tail, linked by `link`, until [`Core::end_chain`].
    pub(crate) fn begin_chain(&mut self, link: u8) {
        debug_assert!(link & LINKS != 0);
        self.ahead = 0;
        self.set_extra_flags(self.extra_flags | link);
    }

    /// Whether a chain of `length` operations fits behind what waits, and into the table; if not, why.
    pub(crate) fn check_chain(&self, length: u32) -> Result<(), RejectReason> {
        if !self.queues.is_usable() {
            return Err(self.queues.why_unusable());
        }
        if self.queues.cuts_chains() {
            return Err(RejectReason::SharedPoller);
        }
        if length > self.queues.sq_entries() {
            return Err(RejectReason::ChainTooLong);
        }
        let raw_in_flight = self.queues.raw_in_flight();
        let is_crowded =
            raw_in_flight != 0 && self.table.in_flight() + raw_in_flight + length > self.queues.cq_entries();
        if is_crowded || !self.table.has_room(length) {
            return Err(RejectReason::TableFull);
        }
        if length > self.queues.sq_free() { Err(RejectReason::QueueFull) } else { Ok(()) }
    }

    /// Publishes the chain: moves the tail over all of its entries at once.
    pub(crate) fn end_chain(&mut self) {
        let count = std::mem::take(&mut self.ahead);
        self.set_extra_flags(self.extra_flags & !LINKS);
        // The child of a fork shares the entries with its parent, whose chain may go on.
        if count > 0 && self.queues.mark().is_alive() {
            self.queues.clear_flags_ahead(count - 1, LINKS);
            self.queues.commit_all(count);
        }
    }

    /// Forgets the chain: nothing of it is executed, and the pools get their leases back. `forgotten` gets the rest.
    #[cold]
    pub(crate) fn abandon_chain(&mut self, mut forgotten: impl FnMut(Finished<B>)) {
        let count = std::mem::take(&mut self.ahead);
        self.set_extra_flags(self.extra_flags & !LINKS);
        for ahead in 0..count {
            let finished = self.queues.user_data_ahead(ahead).and_then(|data| self.table.take_back(Ticket::of(data)));
            if let Some(finished) = finished {
                self.registered.end(finished.file);
                forgotten(finished);
            }
        }
    }

    /// Flags for every entry that is started from here on.
    pub(crate) fn set_extra_flags(&mut self, flags: u8) {
        self.queues.state.set_flagged(flags != 0);
        self.extra_flags = flags;
    }

    pub(crate) fn extra_flags(&self) -> u8 {
        self.extra_flags
    }

    // ---- submitting

    /// Submits what is in the queue.
    pub(crate) fn submit(&mut self) -> Result<u32> {
        self.submit_and_wait(0)
    }

    /// Submits what is in the queue and waits until `wait` completions are there.
    #[inline]
    pub(crate) fn submit_and_wait(&mut self, wait: u32) -> Result<u32> {
        self.before_submit()?;
        let before = self.queues.consumed();
        let returned = self.queues.enter(wait);
        if returned >= 0 && self.queues.is_consumed() {
            return Ok(returned as u32);
        }
        self.submitted_in_part(before, returned, wait)
    }

    /// What is done on the occasion of a submit; refuses a ring that can't be used.
    #[inline]
    fn before_submit(&mut self) -> Result<()> {
        if self.queues.is_usable() && !self.registered.has_released() && self.groups.is_empty() {
            return Ok(());
        }
        self.check_usable()?;
        self.registered.release_files(&mut self.queues, &mut self.table);
        self.groups.offer_returned();
        Ok(())
    }

    /// Looks at what a submit returned, after which the kernel had not come from `before` to the end of the queue.
    #[cold]
    #[inline(never)]
    fn submitted_in_part(&mut self, mut before: u32, mut returned: i32, wait: u32) -> Result<u32> {
        let mut submitted = 0;
        loop {
            let result = self.queues.entered(returned);
            match self.after_submit(before, result) {
                Err(error) if submitted == 0 => return Err(error),
                // What was submitted hides the error, which the next submit tells again.
                Err(_) => return Ok(submitted),
                Ok(count) => submitted += count,
            }
            // The kernel stops behind an entry that it refuses, and then does not wait.
            if wait == 0 || !self.queues.stopped_short(before) {
                return Ok(submitted);
            }
            before = self.queues.consumed();
            returned = self.queues.enter(wait);
        }
    }

    /// As [`Core::submit_and_wait`], for `limit` at most. It is no error when the time passes.
    pub(crate) fn submit_and_wait_timeout(&mut self, wait: u32, limit: Duration) -> Result<u32> {
        if wait == 0 {
            return self.submit();
        }
        self.before_submit()?;
        let before = self.queues.consumed();
        let result = self.queues.submit_and_wait_timeout(wait, limit);
        self.after_submit(before, result)
    }

    /// Lets the kernel post completions that it holds back until somebody enters.
    ///
    /// That it can't (a signal, a ring that can't be used) is for the next submit to say.
    #[inline]
    pub(crate) fn flush_completions(&mut self) {
        // In the child of a fork there may be no queue to look at.
        if self.queues.is_usable() && (self.queues.holds_back() || !self.groups.is_empty()) {
            self.flush_held_back();
        }
    }

    #[cold]
    fn flush_held_back(&mut self) {
        self.groups.offer_returned();
        let result = self.queues.flush_completions();
        let _ = self.check_poisoned(result);
    }

    #[inline]
    fn after_submit(&mut self, before: u32, result: Result<u32>) -> Result<u32> {
        if self.queues.is_chain_cut(before) {
            let Self { queues, table, registered, has_waiting, .. } = self;
            *has_waiting = true;
            queues.withdraw_cut_chain(|user_data| registered.end(table.complete_later(user_data, -libc::ECANCELED, 0)));
        }
        self.check_poisoned(result)
    }

    #[inline]
    fn check_poisoned<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() && (self.queues.is_poisoned() || cfg!(sysuring_break = "r1_error")) {
            // What is in flight will never be heard of again.
            LEAKED.fetch_add(self.table.abandon_in_flight(), Ordering::Relaxed);
            // So that nobody looks into the queue.
            self.has_waiting = true;
        }
        result
    }

    /// Looks at the error of a wait that entered the kernel by itself: who waits is told of lost completions once, too.
    #[cold]
    pub(crate) fn failed_to_wait(&mut self, error: &Error) {
        let result = self.queues.entered(-error.raw_os_error().unwrap_or(0));
        let _ = self.check_poisoned(result);
    }

    /// Ends everything in the submission queue that the kernel has not consumed, with ECANCELED.
    pub(crate) fn withdraw_unsubmitted(&mut self) {
        let Self { queues, table, registered, has_waiting, .. } = self;
        *has_waiting = true;
        queues.withdraw_unsubmitted(|user_data| {
            let file = table.complete_later(user_data, -libc::ECANCELED, 0);
            registered.end(file);
        });
    }

    // ---- completions

    /// The next completion that somebody wants to hear of.
    ///
    /// What is found while somebody looked for something else, and what a CQE means that is more than the end of a plain
    /// operation, takes the way through `waiting`, out of line: so that a plain one stays in registers.
    #[inline(always)]
    pub(crate) fn next_completion(&mut self) -> Option<Completion<B, E>> {
        if !self.queues.mark().is_alive() {
            return None;
        }
        loop {
            if self.has_waiting && self.find_waiting() {
                return self.waiting.pop_front();
            }
            let cqe = self.queues.pop()?;
            let (user_data, result, flags) = (cqe.user_data(), cqe.raw_result(), cqe.flags());
            if is_raw(user_data) {
                self.queues.count_raw(flags);
                return Some(Completion::Raw(cqe));
            }
            if let Some(returned) = self.table.complete(user_data, flags) {
                return Some(Completion::Done(Done::new(Ticket::of(user_data), result, flags, returned)));
            }
            self.complete_rare(user_data, result, flags);
        }
    }

    /// Puts what a CQE means that is more than the end of a plain operation to what waits.
    #[cold]
    #[inline(never)]
    fn complete_rare(&mut self, user_data: u64, result: i32, flags: u32) {
        match self.table.complete_rare(user_data, result, flags) {
            Completed::Final(finished) => {
                self.registered.end(finished.file);
                let done = self.done(finished);
                self.waiting.push_back(Completion::Done(done));
            }
            Completed::More(partial) => {
                let more = self.more(partial);
                self.waiting.push_back(more);
            }
            Completed::Silent(file) => self.registered.end(file),
            Completed::NotYet | Completed::Unknown => {}
        }
        self.has_waiting |= !self.waiting.is_empty();
    }

    /// Moves what came while somebody looked for something else to what waits, one at a time. Whether anything waits.
    ///
    /// No answer of this, or of the two above, is a completion itself: what is returned through memory stays there.
    #[cold]
    #[inline(never)]
    fn find_waiting(&mut self) -> bool {
        if self.waiting.is_empty() {
            if let Some(partial) = self.table.take_partial() {
                let more = self.more(partial);
                self.waiting.push_back(more);
            } else if let Some(finished) = self.table.take_oldest() {
                let done = self.done(finished);
                self.waiting.push_back(Completion::Done(done));
            }
        }
        // What was found before completions were lost is believed, and then there is nothing: the queue is not looked into.
        self.has_waiting = !self.waiting.is_empty() || self.queues.is_poisoned();
        self.has_waiting
    }

    /// How many completions can be taken without looking at the queue.
    #[inline]
    pub(crate) fn waiting(&self) -> u32 {
        if self.has_waiting { self.count_waiting() } else { 0 }
    }

    #[cold]
    fn count_waiting(&self) -> u32 {
        (self.waiting.len() + self.table.waiting()) as u32
    }

    /// What the owner of an operation gets back.
    pub(crate) fn done(&mut self, finished: Finished<B>) -> Done<B> {
        let Finished { ticket, result, flags, held, new_descriptor, is_bundle, .. } = finished;
        let returned = if new_descriptor.is_some() {
            Returned::Rare(RareBox::new(Rare { ticket, result, flags, new_descriptor, received: None }))
        } else {
            self.unpack(ticket, held, result, flags, is_bundle)
        };
        Done::new(ticket, result, flags, returned)
    }

    /// Adds the buffers that the kernel picked for a result.
    fn more(&mut self, partial: Partial) -> Completion<B, E> {
        let Partial { result, flags, is_bundle, .. } = partial;
        let received = partial.group.and_then(|group| self.groups.received(group, result, flags, is_bundle));
        Completion::More(More::new(partial, received))
    }

    /// Takes what the owner gets out of what the operation held, and keeps the parcel.
    #[inline(never)]
    fn unpack(&mut self, ticket: Ticket, held: Held<B>, result: i32, flags: u32, is_bundle: bool) -> Returned<B> {
        match held {
            Held::Nothing | Held::Borrowed => Returned::Nothing,
            Held::Lease(buf) => Returned::Lease(buf),
            Held::Owned(buffer) => Returned::Owned(buffer),
            Held::Parcel(mut parcel) => {
                if parcel.empty() {
                    return Returned::Parcel(parcel);
                }
                self.put_away(parcel);
                Returned::Nothing
            }
            Held::Group(memory) => match self.groups.received(memory.group(), result, flags, is_bundle) {
                None => Returned::Nothing,
                received => {
                    Returned::Rare(RareBox::new(Rare { ticket, result, flags, new_descriptor: None, received }))
                }
            },
        }
    }

    /// Takes all CQEs out of the queue, to look for some in particular: the others wait for [`Core::next_completion`].
    pub(crate) fn reap(&mut self) {
        if self.check_usable().is_err() {
            return;
        }
        while let Some(cqe) = self.queues.pop() {
            self.set_aside(&cqe);
        }
        self.has_waiting = true;
    }

    /// Accounts for a CQE that somebody found who looks for another one.
    fn set_aside(&mut self, cqe: &Cqe<E>) {
        self.has_waiting = true;
        if is_raw(cqe.user_data()) {
            self.queues.count_raw(cqe.flags());
            self.waiting.push_back(Completion::Raw(*cqe));
        } else if self.table.takes_from_group(cqe.user_data()) {
            // What the kernel did to the buffers is known only in the order in which it says so.
            self.complete_rare(cqe.user_data(), cqe.raw_result(), cqe.flags());
        } else {
            let file = self.table.complete_later(cqe.user_data(), cqe.raw_result(), cqe.flags());
            self.registered.end(file);
        }
    }

    /// The result of an operation on borrowed memory, where it has ended; see [`Core::reap`].
    #[inline]
    pub(crate) fn take_borrowed(&mut self, ticket: Ticket) -> Option<i32> {
        if self.queues.is_usable() {
            while let Some(cqe) = self.queues.pop() {
                let is_it = cqe.user_data() == ticket.user_data();
                if is_it && self.table.complete_borrowed(cqe.user_data(), cqe.flags()) {
                    return Some(cqe.raw_result());
                }
                self.set_aside(&cqe);
            }
        }
        self.take(ticket).map(|finished| finished.result)
    }

    /// Takes an operation that ended; see [`Core::reap`].
    #[inline]
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Finished<B>> {
        self.table.take(ticket)
    }

    /// Whether the operation has ended and can be taken.
    #[cfg(feature = "block")]
    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        self.table.is_done(ticket)
    }

    /// Whether the operation has not been handed out yet.
    pub(crate) fn knows(&self, ticket: Ticket) -> bool {
        self.table.knows(ticket)
    }

    /// Discards what ended and used borrowed memory.
    pub(crate) fn forget_borrowed(&mut self) {
        self.table.forget_borrowed();
    }

    /// Waits until nothing is in flight, raw entries included, for `limit` at most; whether that came to be. Completions wait
    /// to be taken.
    pub(crate) fn wait_for_all(&mut self, limit: Duration) -> Result<bool> {
        // A limit too long to add up is none.
        let end = Instant::now().checked_add(limit);
        self.flush_completions();
        self.reap();
        while !self.is_idle() {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(false);
            }
            match self.submit_and_wait_timeout(1, left) {
                Err(error) if !is_passing(&error) => return Err(error),
                _ => self.reap(),
            }
        }
        Ok(true)
    }

    /// Asks the kernel to end each of our operations, where it can't be asked to end all.
    #[cold]
    fn cancel_each(&mut self) {
        for ticket in self.table.tickets_to_cancel() {
            if self.cancel(ticket).is_err() {
                // The queue is full, or the table; what could be cancelled so far has left it.
                let _ = self.submit();
                self.reap();
                let _ = self.cancel(ticket);
            }
        }
    }

    /// Asks the kernel to end everything that is in flight, and takes what ends at once. Whether it could be asked for all of
    /// it together.
    ///
    /// `entry` is the cancel that a polling thread is to carry out, where one is under way.
    fn ask_all_to_end(&mut self, entry: &mut Option<Ticket>) -> bool {
        let is_asked = self.queues.cancel_all();
        if !is_asked {
            self.cancel_each();
        } else if self.queues.is_polled() && !entry.is_some_and(|entry| self.table.knows(entry)) {
            // The call does not reach what the thread gave to workers of its own: it has to ask them itself.
            let all = sys::IORING_ASYNC_CANCEL_ALL | sys::IORING_ASYNC_CANCEL_ANY;
            *entry = self.start_cancel(0, all).ok();
        }
        if !self.queues.is_consumed() || self.queues.is_polled() {
            // What it can't be asked for now it is asked for later.
            let _ = self.submit();
        }
        self.flush_completions();
        self.reap();
        is_asked
    }

    /// Has the kernel end everything of the table's that is in flight, and waits for that, for `limit` at most.
    ///
    /// Asking once is not enough. What is linked behind an operation, or drained, begins when that has ended, and a polling
    /// thread may take an entry out of the queue after it was asked.
    fn end_all(&mut self, limit: Duration) {
        let end = Instant::now().checked_add(limit);
        let is_over = || end.is_some_and(|end| end <= Instant::now());
        let mut entry = None;
        // Whether the kernel was asked in vain. Once may be too early: what begins next does so when the ring is entered.
        let mut is_vain = false;
        let mut left = self.in_flight_beside(entry);
        while left != 0 {
            let before = left;
            let is_asked = self.ask_all_to_end(&mut entry);
            left = self.in_flight_beside(entry);
            let again = Instant::now() + ASK_AGAIN;
            let was_vain = std::mem::replace(&mut is_vain, left == before);
            // Where they are asked one by one, each answer is the end of an operation as well.
            while left != 0 && !is_over() && (!is_asked || is_vain && was_vain) {
                let until = end.map_or(again, |end| end.min(again));
                let wait = until.saturating_duration_since(Instant::now());
                if wait.is_zero() {
                    break;
                }
                match self.submit_and_wait_timeout(1, wait) {
                    Err(error) if !is_passing(&error) => return,
                    _ => self.reap(),
                }
                left = self.in_flight_beside(entry);
                is_vain = left == before;
            }
            if is_over() {
                return;
            }
        }
    }

    /// Operations in flight that are not the entry that asks them to end.
    fn in_flight_beside(&self, entry: Option<Ticket>) -> u32 {
        self.table.in_flight() - u32::from(entry.is_some_and(|entry| self.table.knows(entry)))
    }

    /// Ends what ends when the kernel asks it to; waits a moment for that, where something would leak.
    pub(crate) fn end_what_ends_at_once(&mut self) {
        let would_leak = self.table.would_leak() != 0;
        self.end_all(if would_leak { AT_ONCE } else { Duration::ZERO });
    }

    /// Cancels and waits for what is in flight, for as long as a ring that is dropped may.
    fn drain(&mut self) {
        let limit = match self.drop_limit {
            Some(limit) => limit,
            None if self.table.would_leak() != 0 => LEAK_LIMIT,
            None => return,
        };
        // What it does not wait for is left to the kernel.
        if !limit.is_zero() {
            self.end_all(limit);
        }
    }

    // ---- what is registered

    /// The index of a file of this ring.
    #[inline(always)]
    pub(crate) fn index_of(&self, file: &FixedFile) -> Option<u32> {
        self.registered.index_of(file)
    }

    pub(crate) fn register_file(&mut self, file: BorrowedFd<'_>) -> Result<FixedFile> {
        self.registered.register_file(&mut self.queues, &mut self.table, file)
    }

    /// A place that an operation is to put a file into.
    pub(crate) fn claim_file(&mut self) -> Result<FixedFile, RejectReason> {
        self.registered.claim_file(&mut self.queues, &mut self.table)
    }

    pub(crate) fn provide_buffers(&mut self, count: u16, size: u32, is_incremental: bool) -> Result<ProvidedBuffers> {
        self.groups.add(&mut self.queues, count, size, is_incremental)
    }

    pub(crate) fn remove_buffers(&mut self, buffers: ProvidedBuffers) -> Result<()> {
        let is_idle = self.is_idle();
        self.groups.remove(&mut self.queues, is_idle, buffers)
    }

    /// Whether the group is this ring's.
    pub(crate) fn has_buffers(&self, buffers: &ProvidedBuffers) -> bool {
        self.groups.has(buffers)
    }

    /// The registered buffer that holds a chunk of a pool.
    #[inline(always)]
    pub(crate) fn buffer_of(&self, memory: *const PoolMemory, chunk: u32) -> Option<u16> {
        self.registered.buffer_of(memory, chunk)
    }

    pub(crate) fn register_pool(&mut self, pool: &Pool) -> Result<()> {
        let is_idle = self.is_idle();
        self.registered.register_pool(&mut self.queues, is_idle, pool)
    }

    /// Registers the pools of another ring.
    pub(crate) fn clone_pools<C, F: Entries>(&mut self, from: &Core<C, F>) -> Result<()> {
        self.registered.clone_pools(&mut self.queues, &from.registered, &from.queues)
    }

    /// Whether anything was ever registered as a buffer.
    #[cfg(feature = "block")]
    pub(crate) fn has_buffer_table(&self) -> bool {
        self.registered.has_buffer_table() || self.queues.raw_buffers
    }

    /// Takes a pool out of the registered buffers. Its operations in flight keep their pages.
    pub(crate) fn unregister_pool(&mut self, pool: &Pool) -> Result<()> {
        let is_idle = self.is_idle();
        self.registered.unregister_pool(&mut self.queues, is_idle, pool)
    }

    /// Lets go of pools that nobody can use any more; false where one of them has to stay for now.
    pub(crate) fn forget_unused_pools(&mut self) -> bool {
        let is_idle = self.is_idle();
        self.registered.forget_unused_pools(&mut self.queues, is_idle)
    }

    /// Takes away a table of buffers that no pool is in any more; says what is in the way of the raw interface's.
    pub(crate) fn give_up_buffers(&mut self) -> Result<()> {
        let is_idle = self.is_idle();
        self.registered.give_up_buffers(&mut self.queues, is_idle)
    }

    /// As [`Core::give_up_buffers`], for files.
    pub(crate) fn give_up_files(&mut self) -> Result<()> {
        let is_idle = self.is_idle();
        self.registered.give_up_files(&mut self.queues, is_idle, &mut self.table)
    }

    /// Registers the caller's own buffers.
    ///
    /// # Safety
    ///
    /// As for [`crate::Ring::register_buffers`].
    pub(crate) unsafe fn register_buffers(&mut self, buffers: &[libc::iovec]) -> Result<()> {
        self.give_up_buffers()?;
        // SAFETY: the same obligations, passed on.
        unsafe { self.registered.register_buffers(&mut self.queues, buffers) }
    }

    pub(crate) fn unregister_buffers(&mut self) -> Result<()> {
        let is_idle = self.is_idle();
        self.registered.unregister_buffers(&mut self.queues, is_idle)
    }
}

#[cfg(nvme)]
impl<B> Core<B, BigEntries> {
    /// Starts a command that the driver of the target defines, under the number `command`; the fields of `operation` that its
    /// payload has the place of are of no account. What the payload names is the caller's or in `held`.
    pub(crate) fn start_command(
        &mut self,
        target: Target,
        command: u32,
        mut operation: Operation,
        payload: &[u8; PAYLOAD],
        held: Held<B>,
    ) -> Result<Ticket, (RejectReason, Held<B>)> {
        let sqe = match self.place() {
            Ok(sqe) => sqe,
            Err(reason) => return Err((reason, held)),
        };
        let Target { file, number, descriptor } = target;
        // SAFETY: `place` found room.
        let ticket = unsafe { self.table.insert(Start { held, file, descriptor, outcome: operation.outcome }) };
        if file != NO_FILE {
            operation.flags |= sys::IOSQE_FIXED_FILE as u8;
        }
        operation.flags |= self.extra_flags;
        // Its place is the lower half of that of the offset, the way the machine stores it.
        let mut offset = [0; 8];
        offset[..4].copy_from_slice(&command.to_ne_bytes());
        operation.offset = u64::from_ne_bytes(offset);
        fill(sqe, number, operation, ticket);
        // SAFETY: the entry at the tail, which on such a ring has 128 bytes; the kernel does not read them before the tail moved.
        unsafe {
            let place = sqe.cast::<u8>().add(size_of::<sys::io_uring_sqe>() * 2 - PAYLOAD);
            place.cast::<[u8; PAYLOAD]>().write(*payload);
        }
        self.advance();
        Ok(ticket)
    }
}

/// Bytes that a command has room for in a big entry.
#[cfg(nvme)]
pub(crate) const PAYLOAD: usize = 80;

/// What links an entry to the next one.
const LINKS: u8 = (sys::IOSQE_IO_LINK | sys::IOSQE_IO_HARDLINK) as u8;

/// Out of line, and by value: what is rejected stays in registers where it is not.
#[cold]
#[inline(never)]
pub(crate) fn reject(reason: RejectReason, buf: Buf) -> Rejected<Buf> {
    Rejected::new(reason, buf)
}

/// What was not started gives back its lease.
#[cold]
#[inline(never)]
pub(crate) fn reject_lease<B>((reason, held): (RejectReason, Held<B>)) -> Rejected<Buf> {
    let Held::Lease(buf) = held else { unreachable!("a rejected operation gives back what it was given") };
    Rejected::new(reason, buf)
}

/// Where an operation can be started.
#[cfg(feature = "block")]
pub(crate) struct Room {
    sqe: NonNull<sys::io_uring_sqe>,
    index: u32,
    number: RawFd,
    flags: u8,
}

/// An entry as [`fill`] writes it: all of it, in few pieces.
#[repr(C)]
struct Filled {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    descriptor: RawFd,
    offset: u64,
    address: u64,
    length: u32,
    operation_flags: u32,
    user_data: u64,
    buffer: u16,
    personality: u16,
    file_index: u32,
    address3: u64,
    rest: u64,
}

const _: () = {
    use std::mem::offset_of;

    use sys::io_uring_sqe;

    assert!(size_of::<Filled>() == size_of::<io_uring_sqe>());
    assert!(offset_of!(Filled, flags) == offset_of!(io_uring_sqe, flags));
    assert!(offset_of!(Filled, ioprio) == offset_of!(io_uring_sqe, ioprio));
    assert!(offset_of!(Filled, descriptor) == offset_of!(io_uring_sqe, fd));
    assert!(offset_of!(Filled, length) == offset_of!(io_uring_sqe, len));
    assert!(offset_of!(Filled, user_data) == offset_of!(io_uring_sqe, user_data));
    assert!(offset_of!(Filled, buffer) == offset_of!(io_uring_sqe, __bindgen_anon_4));
    assert!(offset_of!(Filled, personality) == offset_of!(io_uring_sqe, personality));
    assert!(offset_of!(Filled, file_index) == offset_of!(io_uring_sqe, __bindgen_anon_5));
};

/// Writes the first 64 bytes of an entry.
#[inline(always)]
fn fill(sqe: NonNull<sys::io_uring_sqe>, descriptor: RawFd, operation: Operation, ticket: Ticket) {
    let filled = Filled {
        opcode: operation.opcode as u8,
        flags: operation.flags,
        ioprio: operation.ioprio,
        descriptor,
        offset: operation.offset,
        address: operation.address,
        length: operation.length,
        operation_flags: operation.operation_flags,
        user_data: ticket.user_data(),
        buffer: operation.buffer,
        personality: 0,
        file_index: operation.file_index,
        address3: operation.address3,
        rest: 0,
    };
    // SAFETY: the entry at the tail has these 64 bytes, and the kernel does not read them before the tail moved and a submit.
    unsafe { sqe.cast::<Filled>().write(filled) };
}

/// Takes an operation back whose fields could not be completed: the user's own code unwound.
struct Unfinished<'a, B> {
    table: &'a mut Table<B>,
    ticket: Ticket,
}

impl<B> Drop for Unfinished<'_, B> {
    fn drop(&mut self) {
        if cfg!(sysuring_break = "r10_unwind") {
            return;
        }
        // Out of the table first: dropping a buffer is the user's code as well.
        drop(self.table.take_back(self.ticket));
    }
}

/// A read or write of a lease, which is registered as `buffer`, where `opcode` says so.
#[inline(always)]
fn transfer(opcode: u32, buf: &Buf, length: u32, offset: u64, buffer: u16) -> Operation {
    Operation { address: address_of(buf.address()), length, offset, buffer, ..Operation::new(opcode) }
}

#[inline]
pub(crate) fn transfer_opcode(is_read: bool, fixed: bool) -> u32 {
    match (is_read, fixed) {
        (true, true) => sys::IORING_OP_READ_FIXED,
        (true, false) => sys::IORING_OP_READ,
        (false, true) => sys::IORING_OP_WRITE_FIXED,
        (false, false) => sys::IORING_OP_WRITE,
    }
}

impl<B, E: Entries> std::fmt::Debug for Core<B, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("queues", &self.queues)
            .field("in_flight", &self.table.in_flight())
            .finish_non_exhaustive()
    }
}

impl<B, E: Entries> Drop for Core<B, E> {
    fn drop(&mut self) {
        self.close_mailbox();
        if !self.queues.mark().is_alive() {
            return;
        }
        // What ended already, or never began, gives its lease back.
        self.withdraw_unsubmitted();
        // Completions may be held back until the ring is entered: there was no room, or they are deferred.
        self.flush_completions();
        self.reap();
        self.drain();
        self.flush_completions();
        self.reap();
        let left = self.table.in_flight();
        let leaked = self.table.abandon_in_flight();
        if leaked != 0 {
            LEAKED.fetch_add(leaked, Ordering::Relaxed);
            log::warn!(
                "a ring is closed with {left} operations in flight; memory or descriptors of {leaked} of them leak"
            );
        } else if left != 0 {
            log::debug!("a ring is closed with {left} operations in flight; their memory is left to the kernel");
        }
    }
}
