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
//! Dropping a ring cancels and waits for nothing. Completions that are there are taken, so that their leases go back to
//! their pools; what is still in flight is abandoned to the kernel. In the child of a `fork` the ring is its parent's:
//! every call is an error, and dropping it closes the child's descriptor only.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use liburing_sys as sys;

use crate::error::Result;
use crate::file::FixedFile;
use crate::parcel::{Parcel, address_of};
use crate::pool::{Buf, Pool, PoolMemory};
use crate::queues::{Cqe, Queues, SetupError};
use crate::registered::Registered;
use crate::rejected::{RejectReason, Rejected};
use crate::table::{Completed, Finished, Held, NO_FILE, NoBuffers, Outcome, Partial, Start, Table, Ticket, is_raw};

/// Makes the tickets of rings differ.
static RINGS_MADE: AtomicU32 = AtomicU32::new(0);

/// What an operation reads from or writes to.
#[derive(Debug, Clone)]
pub enum Target {
    /// An entry of the ring's table of files.
    Fixed(u32),
    /// A descriptor that outlives the operation: the caller waits for its end before it gives the descriptor up. Or none.
    Descriptor(RawFd),
    /// A descriptor that the operation keeps open.
    Shared(Arc<OwnedFd>),
}

impl Target {
    /// For operations on no file.
    pub(crate) const NONE: Self = Self::Descriptor(-1);
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
            outcome: Outcome::Count,
        }
    }
}

/// See the [module](self). Public, in a private module: sealed traits speak of it.
pub struct Core<B = NoBuffers> {
    /// Dropped before the table: see its `Drop`.
    queues: Queues,
    table: Table<B>,
    registered: Registered,
    /// Completions of raw entries that were found while somebody looked for something else.
    raw_waiting: VecDeque<Cqe>,
    /// Of operations that ended, for later ones.
    spare: Vec<Parcel<B>>,
    /// Entries of a chain that is being put together, behind the tail.
    ahead: u32,
    /// `IOSQE_*` for every entry that is started.
    extra_flags: u8,
}

// SAFETY: nothing in here belongs to a thread, but what the user's own buffers may hold. Rings that the kernel ties to one
// (SINGLE_ISSUER, DEFER_TASKRUN) are only ever inside of a `Ring`, which is not `Send`; the builder refuses these flags for
// a `SharedRing`.
unsafe impl<B: Send> Send for Core<B> {}

impl<B> Core<B> {
    /// Sets up a ring; `Err` carries the errno of `io_uring_queue_init_params` where that is what failed.
    pub(crate) fn new(entries: u32, params: &mut sys::io_uring_params, files: u32) -> Result<Self, SetupError> {
        Queues::new(entries, params).map(|queues| Self::with_queues(queues, files))
    }

    pub(crate) fn with_queues(queues: Queues, files: u32) -> Self {
        let seed = RINGS_MADE.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9);
        let capacity = queues.cq_entries() << u32::from(cfg!(sysuring_break = "r11_limit"));
        Self {
            queues,
            table: Table::new(capacity, seed),
            registered: Registered::new(files),
            raw_waiting: VecDeque::new(),
            spare: Vec::new(),
            ahead: 0,
            extra_flags: 0,
        }
    }

    #[inline]
    pub(crate) fn queues(&self) -> &Queues {
        &self.queues
    }

    #[inline]
    pub(crate) fn queues_mut(&mut self) -> &mut Queues {
        &mut self.queues
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.table.in_flight()
    }

    /// Operations in flight that use memory which a call that has not returned borrows.
    pub(crate) fn borrowed(&self) -> u32 {
        self.table.borrowed()
    }

    /// Whether nothing of anybody's is on the ring.
    pub(crate) fn is_idle(&self) -> bool {
        self.table.in_flight() == 0 && self.queues.raw_in_flight() == 0
    }

    /// Refuses a ring of the parent process, and one that lost completions.
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<()> {
        self.queues.check_usable()
    }

    /// Whether raw entries leave no place among the completions for one more operation.
    #[inline]
    fn raw_takes_all(&self) -> bool {
        let raw = self.queues.raw_in_flight();
        raw != 0 && self.table.in_flight() + raw >= self.queues.cq_entries()
    }

    // ---- starting

    /// Starts an operation of the safe interface.
    #[inline]
    pub(crate) fn start(
        &mut self,
        target: Target,
        operation: Operation,
        held: Held<B>,
    ) -> Result<Ticket, (RejectReason, Held<B>)> {
        self.start_with(target, operation, held, |_, _| ())
    }

    /// As [`Core::start`]; `fill` gets what the operation holds, at the address where it stays, and completes the fields.
    #[inline]
    pub(crate) fn start_with(
        &mut self,
        target: Target,
        mut operation: Operation,
        held: Held<B>,
        fill: impl FnOnce(&mut Operation, &mut Held<B>),
    ) -> Result<Ticket, (RejectReason, Held<B>)> {
        if self.raw_takes_all() {
            return Err((RejectReason::TableFull, held));
        }
        let Some(sqe) = self.queues.reserve_ahead(self.ahead) else { return Err((self.why_not(), held)) };
        let (file, descriptor, number) = match target {
            Target::Fixed(index) => (index, None, index as RawFd),
            Target::Descriptor(descriptor) => (NO_FILE, None, descriptor),
            Target::Shared(descriptor) => {
                let number = descriptor.as_raw_fd();
                (NO_FILE, Some(descriptor), number)
            }
        };
        if file != NO_FILE {
            operation.flags |= sys::IOSQE_FIXED_FILE as u8;
        }
        let ticket = match self.table.insert(Start { held, file, descriptor, outcome: operation.outcome }) {
            Ok(ticket) => ticket,
            Err(held) => return Err((RejectReason::TableFull, held)),
        };
        let unfinished = Unfinished { table: &mut self.table, ticket };
        fill(&mut operation, unfinished.table.held_mut(ticket));
        std::mem::forget(unfinished);
        operation.flags |= self.extra_flags;
        Self::fill(sqe, number, operation, ticket);
        self.registered.begin(file);
        if self.extra_flags & LINKS == 0 {
            self.queues.commit();
        } else {
            self.ahead += 1;
        }
        Ok(ticket)
    }

    #[inline]
    fn fill(sqe: NonNull<sys::io_uring_sqe>, descriptor: RawFd, operation: Operation, ticket: Ticket) {
        // SAFETY: `sqe` is the zeroed entry at the tail, which the kernel does not read before `commit` and a submit.
        let sqe = unsafe { &mut *sqe.as_ptr() };
        sqe.opcode = operation.opcode as u8;
        sqe.flags = operation.flags;
        sqe.ioprio = operation.ioprio;
        sqe.fd = descriptor;
        sqe.__bindgen_anon_1.off = operation.offset;
        sqe.__bindgen_anon_2.addr = operation.address;
        sqe.len = operation.length;
        sqe.__bindgen_anon_3.rw_flags = operation.operation_flags as _;
        sqe.__bindgen_anon_4.buf_index = operation.buffer;
        sqe.__bindgen_anon_5.file_index = operation.file_index;
        sqe.user_data = ticket.user_data();
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
    #[inline]
    pub(crate) fn start_transfer(
        &mut self,
        is_read: bool,
        fixed: bool,
        target: Target,
        buf: Buf,
        length: u32,
        offset: u64,
    ) -> Result<Ticket, Rejected<Buf>> {
        let reject = |reason, buf| Err(Rejected::new(reason, buf));
        if length as usize > buf.len() {
            return reject(RejectReason::TooLong, buf);
        }
        let buffer = if fixed { self.buffer_of(buf.memory(), buf.chunk()) } else { Some(0) };
        let Some(buffer) = buffer else { return reject(RejectReason::ForeignPool, buf) };
        let operation = Operation {
            address: address_of(buf.address()),
            length,
            offset,
            buffer,
            ..Operation::new(transfer_opcode(is_read, fixed))
        };
        self.start(target, operation, Held::Lease(buf)).map_err(|(reason, held)| {
            let Held::Lease(buf) = held else { unreachable!("a rejected operation gives back what it was given") };
            Rejected::new(reason, buf)
        })
    }

    /// Asks the kernel to end an operation. The answer is not waited for; the operation's own CQE tells how it ended.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Result<(), RejectReason> {
        if self.table.is_full() || self.raw_takes_all() {
            return Err(RejectReason::TableFull);
        }
        let Some(sqe) = self.queues.reserve() else { return Err(self.why_not()) };
        let Some(own) = self.table.insert_silent() else { return Err(RejectReason::TableFull) };
        let operation = Operation { address: ticket.user_data(), ..Operation::new(sys::IORING_OP_ASYNC_CANCEL) };
        Self::fill(sqe, -1, operation, own);
        self.queues.commit();
        Ok(())
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
        (self.ahead, self.extra_flags) = (0, self.extra_flags | link);
    }

    /// Publishes the chain: moves the tail over all of its entries at once.
    pub(crate) fn end_chain(&mut self) {
        let count = std::mem::take(&mut self.ahead);
        self.extra_flags &= !LINKS;
        if count > 0 {
            self.queues.clear_flags_ahead(count - 1, LINKS);
            self.queues.commit_all(count);
        }
    }

    /// Forgets the chain: nothing of it is executed, and the pools get their leases back. `forgotten` gets the rest.
    #[cold]
    pub(crate) fn abandon_chain(&mut self, mut forgotten: impl FnMut(Finished<B>)) {
        let count = std::mem::take(&mut self.ahead);
        self.extra_flags &= !LINKS;
        for ahead in 0..count {
            let finished = self.queues.user_data_ahead(ahead).and_then(|data| self.table.take_back(Ticket::of(data)));
            if let Some(finished) = finished {
                self.registered.end(finished.file);
                forgotten(finished);
            }
        }
    }

    /// Flags for every entry that is started from here on; gives those before.
    pub(crate) fn set_extra_flags(&mut self, flags: u8) -> u8 {
        std::mem::replace(&mut self.extra_flags, flags)
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
        self.check_usable()?;
        self.registered.release_files(&mut self.queues);
        let result = self.queues.submit_and_wait(wait);
        self.check_poisoned(result)
    }

    /// As [`Core::submit_and_wait`], for `limit` at most. It is no error when the time passes.
    pub(crate) fn submit_and_wait_timeout(&mut self, wait: u32, limit: Duration) -> Result<u32> {
        if wait == 0 {
            return self.submit();
        }
        self.check_usable()?;
        self.registered.release_files(&mut self.queues);
        let result = self.queues.submit_and_wait_timeout(wait, limit);
        self.check_poisoned(result)
    }

    /// Lets the kernel post completions that it holds back until somebody enters.
    pub(crate) fn flush_completions(&mut self) -> Result<()> {
        let result = self.queues.flush_completions();
        self.check_poisoned(result)
    }

    #[inline]
    fn check_poisoned<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() && (self.queues.is_poisoned() || cfg!(sysuring_break = "r1_error")) {
            // What is in flight will never be heard of again.
            self.table.abandon_in_flight();
        }
        result
    }

    /// Ends everything in the submission queue that the kernel has not consumed, with ECANCELED.
    pub(crate) fn withdraw_unsubmitted(&mut self) {
        let Self { queues, table, registered, .. } = self;
        queues.withdraw_unsubmitted(|user_data| {
            let file = table.complete_later(user_data, -libc::ECANCELED, 0);
            registered.end(file);
        });
    }

    // ---- completions

    /// The next completion that somebody wants to hear of.
    #[inline]
    pub(crate) fn next_completion(&mut self) -> Option<Next<B>> {
        if self.check_usable().is_err() {
            return None;
        }
        if self.table.has_waiting() || !self.raw_waiting.is_empty() {
            return self.next_waiting();
        }
        loop {
            let cqe = self.queues.pop()?;
            match self.table.complete(cqe.user_data(), cqe.raw_result(), cqe.flags()) {
                Completed::Final(finished) => {
                    self.registered.end(finished.file);
                    return Some(Next::Finished(self.unpack(finished)));
                }
                Completed::More(partial) => return Some(Next::Partial(partial)),
                Completed::NotYet | Completed::Silent => {}
                Completed::Unknown => {
                    if is_raw(cqe.user_data()) {
                        self.queues.count_raw(&cqe);
                        return Some(Next::Raw(cqe));
                    }
                }
            }
        }
    }

    /// What came while somebody looked for something else.
    #[cold]
    fn next_waiting(&mut self) -> Option<Next<B>> {
        if let Some(partial) = self.table.take_partial() {
            return Some(Next::Partial(partial));
        }
        if let Some(cqe) = self.raw_waiting.pop_front() {
            return Some(Next::Raw(cqe));
        }
        let finished = self.table.take_oldest()?;
        Some(Next::Finished(self.unpack(finished)))
    }

    /// Takes what the owner gets out of the operation's parcel, and keeps the parcel.
    #[inline]
    fn unpack(&mut self, mut finished: Finished<B>) -> Finished<B> {
        if let Held::Parcel(parcel) = &mut finished.held {
            let contents = parcel.unpack();
            if let Held::Parcel(parcel) = std::mem::replace(&mut finished.held, contents) {
                self.put_away(parcel);
            }
        }
        finished
    }

    /// Takes all CQEs out of the queue, to look for some in particular: the others wait for [`Core::next_completion`].
    pub(crate) fn reap(&mut self) {
        if self.check_usable().is_err() {
            return;
        }
        while let Some(cqe) = self.queues.pop() {
            if is_raw(cqe.user_data()) {
                self.queues.count_raw(&cqe);
                self.raw_waiting.push_back(cqe);
            } else {
                let file = self.table.complete_later(cqe.user_data(), cqe.raw_result(), cqe.flags());
                self.registered.end(file);
            }
        }
    }

    /// Takes an operation that ended; see [`Core::reap`].
    #[inline]
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Finished<B>> {
        self.table.take(ticket).map(|finished| self.unpack(finished))
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

    // ---- what is registered

    /// The index of a file of this ring.
    #[inline]
    pub(crate) fn index_of(&self, file: &FixedFile) -> Option<u32> {
        self.registered.index_of(file)
    }

    pub(crate) fn register_file(&mut self, file: BorrowedFd<'_>) -> Result<FixedFile> {
        self.registered.register_file(&mut self.queues, file)
    }

    /// The registered buffer that holds a chunk of a pool.
    #[inline]
    pub(crate) fn buffer_of(&self, memory: &Arc<PoolMemory>, chunk: u32) -> Option<u16> {
        self.registered.buffer_of(memory, chunk)
    }

    pub(crate) fn register_pool(&mut self, pool: &Pool) -> Result<()> {
        let is_idle = self.is_idle();
        self.registered.register_pool(&mut self.queues, is_idle, pool)
    }

    /// Takes a pool out of the registered buffers. Its operations in flight keep their pages.
    pub(crate) fn unregister_pool(&mut self, pool: &Pool) -> Result<()> {
        let is_idle = self.is_idle();
        self.registered.unregister_pool(&mut self.queues, is_idle, pool)
    }

    /// Lets go of pools that nobody can use any more.
    pub(crate) fn forget_unused_pools(&mut self) {
        let is_idle = self.is_idle();
        self.registered.forget_unused_pools(&mut self.queues, is_idle);
    }

    /// Registers the caller's own buffers.
    ///
    /// # Safety
    ///
    /// As for [`crate::Ring::register_buffers`].
    pub(crate) unsafe fn register_buffers(&mut self, buffers: &[libc::iovec]) -> Result<()> {
        // SAFETY: the same obligations, passed on.
        unsafe { self.registered.register_buffers(&mut self.queues, buffers) }
    }

    pub(crate) fn unregister_buffers(&mut self) -> Result<()> {
        let is_idle = self.is_idle();
        self.registered.unregister_buffers(&mut self.queues, is_idle)
    }
}

/// What links an entry to the next one.
const LINKS: u8 = (sys::IOSQE_IO_LINK | sys::IOSQE_IO_HARDLINK) as u8;

/// Takes an operation back whose fields could not be completed: the user's own code unwound.
struct Unfinished<'a, B> {
    table: &'a mut Table<B>,
    ticket: Ticket,
}

impl<B> Drop for Unfinished<'_, B> {
    fn drop(&mut self) {
        // Out of the table first: dropping a buffer is the user's code as well.
        drop(self.table.take_back(self.ticket));
    }
}

/// What [`Core::next_completion`] found.
#[derive(Debug)]
pub(crate) enum Next<B> {
    Finished(Finished<B>),
    Partial(Partial),
    Raw(Cqe),
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

impl<B> std::fmt::Debug for Core<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("queues", &self.queues)
            .field("in_flight", &self.table.in_flight())
            .finish_non_exhaustive()
    }
}

impl<B> Drop for Core<B> {
    fn drop(&mut self) {
        if !self.queues.mark().is_alive() {
            return;
        }
        // What ended already, or never began, gives its lease back; the rest is abandoned when the table is dropped.
        self.withdraw_unsubmitted();
        self.reap();
        let left = self.table.in_flight();
        if left != 0 {
            log::debug!("a ring is closed with {left} operations in flight; their memory is left to the kernel");
        }
    }
}
