//! What [`Ring`](crate::Ring) and [`SharedRing`](crate::SharedRing) have in common: liburing's ring, the table of
//! operations, and what is registered.
//!
//! # Life of an operation
//!
//! [`Core::start`] makes an entry in the table, which takes the lease; then it fills the SQE at the tail of the submission
//! queue; then it moves the tail. Until a submit the kernel has seen nothing. From then on only the CQE counts:
//! [`Core::pop`] copies it and publishes the queue's head, and the table gives the lease out again.
//!
//! # Life of a ring
//!
//! Dropping a ring cancels and waits for nothing. Completions that are there are taken, so that their leases go back to
//! their pools; what is still in flight is abandoned to the kernel. In the child of a `fork` the ring is its parent's:
//! every call is an error, and dropping it closes the child's descriptor only.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use liburing_sys as sys;

use crate::Unavailable;
use crate::error::{Error, ErrorKind, Result, check};
use crate::file::{FileTable, FixedFile};
use crate::fork::ForkMark;
use crate::pool::{Buf, Pool, PoolMemory};
use crate::rejected::{RejectReason, Rejected};
use crate::table::{Completed, Finished, Held, NO_FILE, Table, Ticket, is_raw};

/// Entries of the table of registered buffers, where the kernel can fill them one by one.
const BUFFERS: u32 = 256;

/// What the kernel takes at most.
const MOST_FILES: u32 = 1 << 20;

/// Makes the tickets of rings differ.
static RINGS_MADE: AtomicU32 = AtomicU32::new(0);

/// A completion queue entry, copied out of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cqe {
    user_data: u64,
    result: i32,
    flags: u32,
}

impl Cqe {
    /// What the entry was given by [`Queued::set_data64`](crate::Queued::set_data64).
    #[doc(alias = "io_uring_cqe_get_data64")]
    #[must_use]
    pub fn user_data(&self) -> u64 {
        self.user_data
    }

    /// The kernel's result: for most operations a count, or `-errno`.
    #[must_use]
    pub fn raw_result(&self) -> i32 {
        self.result
    }

    /// The result, with `-errno` as an error.
    ///
    /// # Errors
    ///
    /// What the kernel reported.
    pub fn result(&self) -> Result<u32> {
        check(self.result, "io_uring operation")
    }

    /// `IORING_CQE_F_*`.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags
    }
}

/// What the safe operations read from or write to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// An entry of the ring's table of files.
    Fixed(u32),
    /// A descriptor that outlives the operation: the caller waits for its end before it gives the descriptor up.
    Descriptor(RawFd),
}

/// The fields of an SQE that safe operations set; all others are zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) opcode: u32,
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) offset: u64,
    /// `rw_flags`, `fsync_flags`, `cancel_flags` …, which share a place.
    pub(crate) operation_flags: u32,
    pub(crate) buffer: u16,
}

impl Operation {
    pub(crate) fn new(opcode: u32) -> Self {
        Self { opcode, address: 0, length: 0, offset: 0, operation_flags: 0, buffer: 0 }
    }
}

/// A pool, and the index of its first chunk among the registered buffers.
struct RegisteredPool {
    memory: Arc<PoolMemory>,
    /// Dead when nobody has the pool any more.
    handles: Weak<()>,
    first: u32,
    chunks: u32,
}

impl RegisteredPool {
    fn new(pool: &Pool, first: u32) -> Self {
        Self {
            memory: Arc::clone(&pool.memory),
            handles: Arc::downgrade(&pool.handles),
            first,
            chunks: pool.memory.chunk_count(),
        }
    }

    fn is_unused(&self) -> bool {
        self.handles.strong_count() == 0 && self.memory.is_idle()
    }
}

/// See the [module](self).
pub(crate) struct Core {
    /// On the heap, never moved: liburing and the caller's C code may keep its address.
    ring: NonNull<sys::io_uring>,
    table: Table,
    mark: ForkMark,
    /// Completions were lost; nothing that this ring says can be believed.
    poisoned: bool,
    /// Raw entries whose final CQE is due. They use up the completion queue too.
    raw_in_flight: u32,
    cq_entries: u32,
    sq_polling: bool,
    /// log2 of the size of an SQE in units of 64 bytes.
    sqe_shift: u32,
    cqe_shift: u32,
    files: Option<Arc<FileTable>>,
    file_slots: u32,
    pools: Vec<RegisteredPool>,
    buffers: BufferTable,
    features: u32,
    /// What the descriptor is of, by device and inode: in the child of a fork it may be of another file by then.
    identity: Option<(u64, u64)>,
}

/// How pools can be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BufferTable {
    /// Not tried yet.
    None,
    /// An empty table was registered; pools come and go (since Linux 5.19).
    Sparse,
    /// One pool was registered as the whole table.
    Whole,
    /// The caller's own buffers, through the raw interface.
    Raw,
}

// SAFETY: nothing in here belongs to a thread. Rings that the kernel ties to one (SINGLE_ISSUER, DEFER_TASKRUN) are only
// ever inside of a `Ring`, which is not `Send`; the builder refuses these flags for a `SharedRing`.
unsafe impl Send for Core {}

impl Core {
    /// Sets up a ring; `Err` carries the errno of `io_uring_queue_init_params` where that is what failed.
    pub(crate) fn new(entries: u32, params: &mut sys::io_uring_params, files: u32) -> Result<Self, SetupError> {
        sys::load().map_err(|error| SetupError::Unavailable(Unavailable::from_load(&error)))?;
        let mark = ForkMark::current().map_err(|error| {
            let error = Error::from_io(error, "map a page that a fork wipes");
            SetupError::Unavailable(Unavailable::other(&error))
        })?;
        // SAFETY: all zeroes is a value of this C structure.
        let ring = Box::new(unsafe { std::mem::zeroed::<sys::io_uring>() });
        let ring = NonNull::from(Box::leak(ring));
        // SAFETY: both pointers are to live values that nobody else uses; the ring stays at its address until `drop`.
        let returned = unsafe { sys::io_uring_queue_init_params(entries, ring.as_ptr(), params) };
        if returned < 0 {
            // SAFETY: leaked above, and liburing keeps nothing of a ring that it failed to set up.
            drop(unsafe { Box::from_raw(ring.as_ptr()) });
            return Err(SetupError::Errno(-returned));
        }
        // SAFETY: set up above.
        let (sq_entries, flags) = unsafe { ((*ring.as_ptr()).sq.ring_entries, (*ring.as_ptr()).flags) };
        let seed = RINGS_MADE.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9);
        let mut core = Self {
            ring,
            table: Table::new(params.cq_entries << u32::from(cfg!(sysuring_break = "r11_limit")), seed),
            mark,
            poisoned: false,
            raw_in_flight: 0,
            cq_entries: params.cq_entries,
            sq_polling: flags & sys::IORING_SETUP_SQPOLL != 0,
            sqe_shift: u32::from(flags & sys::IORING_SETUP_SQE128 != 0),
            cqe_shift: u32::from(flags & sys::IORING_SETUP_CQE32 != 0),
            files: None,
            file_slots: files,
            pools: Vec::new(),
            buffers: BufferTable::None,
            features: params.features,
            identity: None,
        };
        core.identity = identity(core.descriptor());
        if sq_entries == 0 {
            // A library older than 2.3 does not fill this field, and get_sqe would say "full" for ever.
            return Err(SetupError::Unavailable(Unavailable::library_too_old()));
        }
        Ok(core)
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut sys::io_uring {
        self.ring.as_ptr()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.table.in_flight()
    }

    /// Whether nothing of anybody's is on the ring.
    pub(crate) fn is_idle(&self) -> bool {
        self.table.in_flight() == 0 && self.raw_in_flight == 0
    }

    pub(crate) fn features(&self) -> u32 {
        self.features
    }

    pub(crate) fn flags(&self) -> u32 {
        // SAFETY: the ring is set up; `flags` is a plain field that only setup writes.
        unsafe { (*self.raw()).flags }
    }

    pub(crate) fn cq_entries(&self) -> u32 {
        self.cq_entries
    }

    pub(crate) fn sq_entries(&self) -> u32 {
        // SAFETY: the ring is set up; `ring_entries` is a plain field.
        unsafe { (*self.raw()).sq.ring_entries }
    }

    /// The descriptor that waiting outside of a lock enters.
    pub(crate) fn descriptor(&self) -> RawFd {
        // SAFETY: the ring is set up; `ring_fd` is a plain field.
        unsafe { (*self.raw()).ring_fd }
    }

    pub(crate) fn mark(&self) -> ForkMark {
        self.mark
    }

    /// Refuses a ring of the parent process, and one that lost completions.
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.mark.is_alive() && !self.poisoned { Ok(()) } else { Err(self.unusable()) }
    }

    #[cold]
    fn unusable(&self) -> Error {
        if self.mark.is_alive() { RejectReason::Poisoned.into() } else { RejectReason::Forked.into() }
    }

    // ---- submission queue

    /// The entry at the tail, zeroed; `None` where the queue is full. The tail stays where it is until [`Core::commit`].
    #[inline]
    pub(crate) fn reserve(&mut self) -> Option<NonNull<sys::io_uring_sqe>> {
        if self.check_usable().is_err() {
            return None;
        }
        // SAFETY: the ring is set up; `sq` is only used by us, and the kernel shares nothing of it but what the pointers
        // point to.
        let sq = unsafe { &mut (*self.raw()).sq };
        // SAFETY: `khead` points into the mapped ring, which lives as long as the ring; the kernel writes it atomically.
        let head = unsafe { AtomicU32::from_ptr(sq.khead) }.load(Ordering::Acquire);
        if sq.sqe_tail.wrapping_sub(head) >= sq.ring_entries {
            return None;
        }
        let index = ((sq.sqe_tail & sq.ring_mask) as usize) << self.sqe_shift;
        // SAFETY: masked to the array, whose entries are twice as large where `sqe_shift` says so.
        let sqe = unsafe { sq.sqes.add(index) };
        // SAFETY: the kernel consumed this entry (the head is past it) and reads it again only after the tail moved.
        unsafe { ptr::write_bytes(sqe, 0, 1 << self.sqe_shift) };
        if cfg!(sysuring_break = "r6_tail") {
            self.commit();
        }
        NonNull::new(sqe)
    }

    /// Moves the tail over the entry that [`Core::reserve`] gave, which is complete now.
    #[inline]
    pub(crate) fn commit(&mut self) {
        // SAFETY: the ring is set up; the tail is liburing's own and not shared with the kernel until a submit.
        let tail = unsafe { &mut (*self.raw()).sq.sqe_tail };
        *tail = tail.wrapping_add(1);
    }

    pub(crate) fn commit_raw(&mut self) {
        self.raw_in_flight = self.raw_in_flight.saturating_add(1);
        self.commit();
    }

    /// A raw entry will post no CQE where it succeeds.
    pub(crate) fn forget_raw(&mut self) {
        self.raw_in_flight = self.raw_in_flight.saturating_sub(1);
    }

    /// Starts an operation of the safe interface.
    #[inline]
    pub(crate) fn start(
        &mut self,
        target: Target,
        operation: Operation,
        held: Held,
    ) -> Result<Ticket, (RejectReason, Held)> {
        if self.raw_in_flight != 0 && self.table.in_flight() + self.raw_in_flight >= self.cq_entries {
            return Err((RejectReason::TableFull, held));
        }
        let Some(sqe) = self.reserve() else { return Err((self.why_not(), held)) };
        let file = match target {
            Target::Fixed(index) => index,
            Target::Descriptor(_) => NO_FILE,
        };
        let ticket = match self.table.insert(held, file) {
            Ok(ticket) => ticket,
            Err(held) => return Err((RejectReason::TableFull, held)),
        };
        self.fill(sqe, target, operation, ticket);
        if let (Target::Fixed(index), Some(files)) = (target, &self.files) {
            files.begin(index);
        }
        self.commit();
        Ok(ticket)
    }

    #[inline]
    fn fill(&mut self, sqe: NonNull<sys::io_uring_sqe>, target: Target, operation: Operation, ticket: Ticket) {
        let (descriptor, flags) = match target {
            Target::Fixed(index) => (index as RawFd, sys::IOSQE_FIXED_FILE as u8),
            Target::Descriptor(descriptor) => (descriptor, 0),
        };
        // SAFETY: `sqe` is the zeroed entry at the tail, which the kernel does not read before `commit` and a submit.
        let sqe = unsafe { &mut *sqe.as_ptr() };
        sqe.opcode = operation.opcode as u8;
        sqe.flags = flags;
        sqe.fd = descriptor;
        sqe.__bindgen_anon_1.off = operation.offset;
        sqe.__bindgen_anon_2.addr = operation.address;
        sqe.len = operation.length;
        sqe.__bindgen_anon_3.rw_flags = operation.operation_flags as _;
        sqe.__bindgen_anon_4.buf_index = operation.buffer;
        sqe.user_data = ticket.user_data();
    }

    /// Why there is no room for an entry.
    #[cold]
    fn why_not(&self) -> RejectReason {
        match self.check_usable() {
            Ok(()) => RejectReason::QueueFull,
            Err(error) if error.kind() == ErrorKind::Forked => RejectReason::Forked,
            Err(_) => RejectReason::Poisoned,
        }
    }

    /// Reads or writes a lease: by index where its pool is registered and `fixed` asks for that, else by address.
    #[inline]
    pub(crate) fn start_transfer(
        &mut self,
        is_read: bool,
        fixed: bool,
        file: &FixedFile,
        buf: Buf,
        length: u32,
        offset: u64,
    ) -> Result<Ticket, Rejected<Buf>> {
        let reject = |reason, buf| Err(Rejected::new(reason, buf));
        let Some(index) = self.index_of(file) else { return reject(RejectReason::ForeignFile, buf) };
        if length as usize > buf.len() {
            return reject(RejectReason::TooLong, buf);
        }
        let buffer = if fixed { self.buffer_of(buf.memory(), buf.chunk()) } else { Some(0) };
        let Some(buffer) = buffer else { return reject(RejectReason::ForeignPool, buf) };
        let operation = Operation {
            address: buf.address().expose_provenance() as u64,
            length,
            offset,
            buffer,
            ..Operation::new(transfer_opcode(is_read, fixed))
        };
        self.start(Target::Fixed(index), operation, Held::Lease(buf)).map_err(|(reason, held)| {
            let Held::Lease(buf) = held else { unreachable!("a rejected operation gives back what it was given") };
            Rejected::new(reason, buf)
        })
    }

    /// Asks the kernel to end an operation. The answer is not waited for; the operation's own CQE tells how it ended.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Result<(), RejectReason> {
        if self.table.is_full() {
            return Err(RejectReason::TableFull);
        }
        let Some(sqe) = self.reserve() else { return Err(self.why_not()) };
        let Some(own) = self.table.insert_silent() else { return Err(RejectReason::TableFull) };
        let operation = Operation { address: ticket.user_data(), ..Operation::new(sys::IORING_OP_ASYNC_CANCEL) };
        self.fill(sqe, Target::Descriptor(-1), operation, own);
        self.commit();
        Ok(())
    }

    /// Submits what is in the queue.
    pub(crate) fn submit(&mut self) -> Result<u32> {
        self.submit_and_wait(0)
    }

    /// Submits what is in the queue and waits until `wait` completions are there.
    #[inline]
    pub(crate) fn submit_and_wait(&mut self, wait: u32) -> Result<u32> {
        self.check_usable()?;
        self.release_files();
        // SAFETY: the ring is set up and ours; every entry in the queue is either of the safe interface, whose memory the
        // table owns, or of the raw one, whose caller vouched for it.
        let returned = unsafe {
            match wait {
                0 => sys::io_uring_submit(self.raw()),
                _ => sys::io_uring_submit_and_wait(self.raw(), wait),
            }
        };
        self.entered(returned)
    }

    /// As [`Core::submit_and_wait`], for `limit` at most. It is no error when the time passes.
    pub(crate) fn submit_and_wait_timeout(&mut self, wait: u32, limit: Duration) -> Result<u32> {
        if wait == 0 {
            return self.submit();
        }
        self.check_usable()?;
        self.release_files();
        let mut time = sys::__kernel_timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut cqe = ptr::null_mut();
        // SAFETY: as for `submit_and_wait`; the time is read during the call, or (before Linux 5.11) by the submission
        // that the call makes.
        let returned = unsafe {
            sys::io_uring_submit_and_wait_timeout(self.raw(), &raw mut cqe, wait, &raw mut time, ptr::null_mut())
        };
        if returned == -libc::ETIME { Ok(0) } else { self.entered(returned) }
    }

    /// Lets the kernel post completions that it holds back until somebody enters.
    pub(crate) fn flush_completions(&mut self) -> Result<()> {
        self.check_usable()?;
        // SAFETY: the ring is set up and ours.
        let kernel_flags = unsafe { AtomicU32::from_ptr((*self.raw()).sq.kflags) }.load(Ordering::Relaxed);
        let held_back = sys::IORING_SQ_CQ_OVERFLOW | sys::IORING_SQ_TASKRUN;
        if kernel_flags & held_back == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        let returned = unsafe { sys::io_uring_get_events(self.raw()) };
        self.entered(returned).map(|_| ())
    }

    #[inline]
    fn entered(&mut self, returned: libc::c_int) -> Result<u32> {
        if returned == -libc::EBADR {
            self.poison();
            return Err(self.unusable());
        }
        check(returned, "submit to the ring")
    }

    /// Completions were lost: what is in flight will never be heard of again.
    #[cold]
    fn poison(&mut self) {
        self.poisoned = true;
        self.table.abandon_in_flight();
    }

    /// Ends everything in the submission queue that the kernel has not consumed, with ECANCELED. With SQPOLL a kernel thread
    /// reads the queue on its own, so that only what was not published to it is taken back.
    pub(crate) fn withdraw_unsubmitted(&mut self) {
        if self.check_usable().is_err() {
            return;
        }
        // SAFETY: the ring is set up and ours.
        let sq = unsafe { &mut (*self.raw()).sq };
        // SAFETY: both point into the mapped ring. Without SQPOLL the kernel reads the queue during `io_uring_enter` with
        // entries to submit only, and only who has this `&mut self` makes such a call; with it, up to the shared tail.
        let (head, shared_tail) = unsafe { (AtomicU32::from_ptr(sq.khead), AtomicU32::from_ptr(sq.ktail)) };
        let head = if self.sq_polling { shared_tail } else { head }.load(Ordering::Acquire);
        let mut at = head;
        while at != sq.sqe_tail {
            let index = ((at & sq.ring_mask) as usize) << self.sqe_shift;
            // SAFETY: masked to the array; the entry is complete, since only complete entries are behind the tail.
            let user_data = unsafe { (*sq.sqes.add(index)).user_data };
            if is_raw(user_data) {
                self.raw_in_flight = self.raw_in_flight.saturating_sub(1);
            } else {
                let file = self.table.complete_later(user_data, -libc::ECANCELED, 0);
                self.end_file(file);
            }
            at = at.wrapping_add(1);
        }
        sq.sqe_tail = head;
        sq.sqe_head = head;
        if !self.sq_polling {
            shared_tail.store(head, Ordering::Release);
        }
    }

    // ---- completion queue

    /// Copies the CQE at the head, then publishes the head: C code on the same ring sees what we see.
    #[inline]
    fn pop(&mut self) -> Option<Cqe> {
        // SAFETY: the ring is set up; `cq` is only used by us.
        let cq = unsafe { &(*self.raw()).cq };
        // SAFETY: both point into the mapped ring; the kernel writes the tail, we the head.
        let (head, tail) = unsafe { (AtomicU32::from_ptr(cq.khead), AtomicU32::from_ptr(cq.ktail)) };
        let at = head.load(Ordering::Relaxed);
        if at == tail.load(Ordering::Acquire) {
            return None;
        }
        let index = ((at & cq.ring_mask) as usize) << self.cqe_shift;
        // SAFETY: masked to the array, whose entries are twice as large where `cqe_shift` says so; the kernel wrote this one
        // before it published the tail, and writes it again only after the head passed it.
        let cqe = unsafe { &*cq.cqes.add(index) };
        let cqe = Cqe { user_data: cqe.user_data, result: cqe.res, flags: cqe.flags };
        head.store(at.wrapping_add(1), Ordering::Release);
        Some(cqe)
    }

    /// The next completion that somebody wants to hear of.
    #[inline]
    pub(crate) fn next_completion(&mut self) -> Option<Next> {
        if self.check_usable().is_err() {
            return None;
        }
        if let Some(finished) = self.table.take_oldest() {
            return Some(Next::Finished(finished));
        }
        loop {
            let cqe = self.pop()?;
            match self.table.complete(cqe.user_data, cqe.result, cqe.flags) {
                Completed::Final(finished) => {
                    self.end_file(finished.file);
                    return Some(Next::Finished(finished));
                }
                Completed::More | Completed::Silent => {}
                Completed::Unknown => {
                    if is_raw(cqe.user_data) {
                        self.count_raw(&cqe);
                        return Some(Next::Raw(cqe));
                    }
                }
            }
        }
    }

    #[inline]
    fn count_raw(&mut self, cqe: &Cqe) {
        if cqe.flags & sys::IORING_CQE_F_MORE == 0 {
            self.raw_in_flight = self.raw_in_flight.saturating_sub(1);
        }
    }

    #[inline]
    fn end_file(&mut self, file: u32) {
        if let (true, Some(files)) = (file != NO_FILE, &self.files) {
            files.end(file);
        }
    }

    /// Takes all CQEs of the safe interface out of the queue and puts them on the done list; `raw` gets the others.
    pub(crate) fn reap(&mut self, mut raw: impl FnMut(Cqe)) {
        if self.check_usable().is_err() {
            return;
        }
        while let Some(cqe) = self.pop() {
            if is_raw(cqe.user_data) {
                self.count_raw(&cqe);
                raw(cqe);
            } else {
                let file = self.table.complete_later(cqe.user_data, cqe.result, cqe.flags);
                self.end_file(file);
            }
        }
    }

    /// Takes an operation that ended; see [`Core::reap`].
    #[inline]
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Finished> {
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

    // ---- registered files

    /// The index of a file of this ring.
    #[inline]
    pub(crate) fn index_of(&self, file: &FixedFile) -> Option<u32> {
        self.files.as_ref().and_then(|files| file.index_in(files))
    }

    pub(crate) fn register_file(&mut self, file: BorrowedFd<'_>) -> Result<FixedFile> {
        use std::os::fd::AsRawFd;

        self.check_usable()?;
        let files = match &self.files {
            Some(files) => Arc::clone(files),
            None => self.make_file_table()?,
        };
        self.release_files();
        let Some(index) = files.claim() else {
            let message = format!("all {} registered files of the ring are taken; drop one", self.file_slots);
            return Err(Error::new(ErrorKind::Full, message));
        };
        let registered = self.update_file(index, file.as_raw_fd());
        if registered.is_err() {
            files.free(index);
        }
        registered.map(|()| FixedFile::new(files, index))
    }

    fn make_file_table(&mut self) -> Result<Arc<FileTable>> {
        if !(1..=MOST_FILES).contains(&self.file_slots) {
            let message = format!("a table of {} files; RingBuilder::files takes 1 to {MOST_FILES}", self.file_slots);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let empty = vec![-1; self.file_slots as usize];
        // SAFETY: the ring is set up and ours; the array is read during the call.
        let returned = unsafe { sys::io_uring_register_files(self.raw(), empty.as_ptr(), self.file_slots) };
        check(returned, &format!("register a table of {} files (RingBuilder::files)", self.file_slots))?;
        let files = Arc::new(FileTable::new(self.file_slots));
        self.files = Some(Arc::clone(&files));
        Ok(files)
    }

    fn update_file(&mut self, index: u32, descriptor: RawFd) -> Result<()> {
        // SAFETY: the ring is set up and ours; the one descriptor is read during the call.
        let returned = unsafe { sys::io_uring_register_files_update(self.raw(), index, &raw const descriptor, 1) };
        check(returned, "register a file").map(|_| ())
    }

    /// Frees the entries whose [`FixedFile`] is gone and that no operation uses.
    #[inline]
    fn release_files(&mut self) {
        if self.files.as_ref().is_some_and(|files| files.has_released()) {
            self.sweep_files();
        }
    }

    #[cold]
    fn sweep_files(&mut self) {
        let Some(files) = self.files.clone() else { return };
        files.sweep(|index| {
            // Where that fails the file stays open until the next attempt.
            self.update_file(index, -1).is_ok()
        });
    }

    // ---- registered buffers

    /// The registered buffer that holds a chunk of a pool.
    #[inline]
    pub(crate) fn buffer_of(&self, memory: &Arc<PoolMemory>, chunk: u32) -> Option<u16> {
        let pool = self.pools.iter().find(|pool| Arc::ptr_eq(&pool.memory, memory))?;
        Some((pool.first + chunk) as u16)
    }

    pub(crate) fn register_pool(&mut self, pool: &Pool) -> Result<()> {
        self.check_usable()?;
        let memory = &pool.memory;
        if self.buffer_of(memory, 0).is_some() {
            return Ok(());
        }
        self.forget_unused_pools();
        let chunks: Vec<libc::iovec> = memory.chunks().collect();
        if self.buffers == BufferTable::None {
            self.buffers = self.make_buffer_table(&chunks)?;
            if self.buffers == BufferTable::Whole {
                self.pools.push(RegisteredPool::new(pool, 0));
                return Ok(());
            }
        }
        if self.buffers != BufferTable::Sparse {
            let message =
                "the ring has registered buffers already, and this kernel can't add to them (since Linux 5.19)";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let first = self.find_room(memory.chunk_count())?;
        self.update_buffers(first, &chunks).inspect_err(|_| {
            // Some may be in: take them out again, so that the table says what we believe.
            let _ = self.update_buffers(first, &vec![EMPTY; chunks.len()]);
        })?;
        self.pools.push(RegisteredPool::new(pool, first));
        Ok(())
    }

    /// An empty table where the kernel can have one, else all of `chunks` as the table.
    fn make_buffer_table(&mut self, chunks: &[libc::iovec]) -> Result<BufferTable> {
        // SAFETY: the ring is set up and ours.
        let returned = unsafe { sys::io_uring_register_buffers_sparse(self.raw(), BUFFERS) };
        if returned == 0 {
            return Ok(BufferTable::Sparse);
        }
        if returned != -libc::EINVAL {
            check(returned, "register a table of buffers")?;
        }
        // SAFETY: as above; the array is read during the call, and the memory that it names stays mapped for as long as it
        // is registered, since `pools` keeps it.
        let returned = unsafe { sys::io_uring_register_buffers(self.raw(), chunks.as_ptr(), chunks.len() as u32) };
        check(returned, "register a pool")?;
        Ok(BufferTable::Whole)
    }

    fn update_buffers(&mut self, first: u32, chunks: &[libc::iovec]) -> Result<()> {
        let tags = vec![0_u64; chunks.len()];
        // SAFETY: the ring is set up and ours; both arrays are read during the call. The memory stays mapped while it is
        // registered: `pools` keeps it, and it is taken out of `pools` only after its entries were emptied.
        let returned = unsafe {
            sys::io_uring_register_buffers_update_tag(
                self.raw(),
                first,
                chunks.as_ptr(),
                tags.as_ptr(),
                chunks.len() as u32,
            )
        };
        check(returned, "register a pool").map(|_| ())
    }

    /// The first index from which on `count` entries are free.
    fn find_room(&self, count: u32) -> Result<u32> {
        let overlaps =
            |first: u32| self.pools.iter().find(|pool| first < pool.first + pool.chunks && pool.first < first + count);
        let mut first = 0;
        while let Some(pool) = overlaps(first) {
            first = pool.first + pool.chunks;
        }
        if first + count <= BUFFERS {
            return Ok(first);
        }
        let message = format!("no room for {count} more among the {BUFFERS} registered buffers; unregister a pool");
        Err(Error::new(ErrorKind::Full, message))
    }

    /// Takes a pool out of the registered buffers. Its operations in flight keep their pages.
    pub(crate) fn unregister_pool(&mut self, pool: &Pool) -> Result<()> {
        self.check_usable()?;
        let Some(position) = self.pools.iter().position(|known| Arc::ptr_eq(&known.memory, &pool.memory)) else {
            return Err(Error::new(ErrorKind::ForeignPool, "the pool is not registered on this ring"));
        };
        self.unregister_at(position)
    }

    fn unregister_at(&mut self, position: usize) -> Result<()> {
        if !self.is_idle() {
            // Before Linux 6.13 taking a buffer away can wait for its operations, and on 6.1 for ever.
            let message = "operations are in flight on the ring; wait for them before a pool is unregistered";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let (first, chunks) = (self.pools[position].first, self.pools[position].chunks);
        if self.buffers == BufferTable::Sparse {
            self.update_buffers(first, &vec![EMPTY; chunks as usize])?;
        } else {
            // SAFETY: the ring is set up and ours, and has nothing in flight.
            check(unsafe { sys::io_uring_unregister_buffers(self.raw()) }, "unregister a pool")?;
            self.buffers = BufferTable::None;
        }
        self.pools.swap_remove(position);
        Ok(())
    }

    /// Lets go of pools that nobody can use any more.
    pub(crate) fn forget_unused_pools(&mut self) {
        if self.check_usable().is_err() {
            // In the child of a fork the registrations are the parent's.
            return;
        }
        let mut position = 0;
        while position < self.pools.len() {
            let unused = self.pools[position].is_unused();
            if !(unused && self.unregister_at(position).is_ok()) {
                position += 1;
            }
        }
    }

    /// Registers the caller's own buffers.
    ///
    /// # Safety
    ///
    /// As for [`crate::Ring::register_buffers`].
    pub(crate) unsafe fn register_buffers(&mut self, buffers: &[libc::iovec]) -> Result<()> {
        self.check_usable()?;
        if self.buffers != BufferTable::None {
            let message = "the ring has registered buffers already; unregister them first";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // SAFETY: the ring is set up and ours; the array is read during the call; the caller vouches for the memory.
        let returned = unsafe { sys::io_uring_register_buffers(self.raw(), buffers.as_ptr(), buffers.len() as u32) };
        check(returned, "register buffers")?;
        self.buffers = BufferTable::Raw;
        Ok(())
    }

    pub(crate) fn unregister_buffers(&mut self) -> Result<()> {
        self.check_usable()?;
        if self.buffers != BufferTable::Raw {
            let message =
                "no buffers were registered with register_buffers; a pool is unregistered with unregister_pool";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if !self.is_idle() {
            let message = "operations are in flight on the ring; wait for them before buffers are unregistered";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // SAFETY: the ring is set up and ours, and has nothing in flight.
        check(unsafe { sys::io_uring_unregister_buffers(self.raw()) }, "unregister buffers")?;
        self.buffers = BufferTable::None;
        Ok(())
    }
}

/// The iovec that empties an entry of the buffer table.
const EMPTY: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// What [`Core::next_completion`] found.
#[derive(Debug)]
pub(crate) enum Next {
    Finished(Finished),
    Raw(Cqe),
}

/// Why a ring could not be set up.
#[derive(Debug)]
pub(crate) enum SetupError {
    Unavailable(Unavailable),
    Errno(i32),
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

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("sq_entries", &self.sq_entries())
            .field("cq_entries", &self.cq_entries)
            .field("in_flight", &self.table.in_flight())
            .field("flags", &format_args!("{:#x}", self.flags()))
            .finish_non_exhaustive()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !self.mark.is_alive() {
            // The mappings stay: they are the parent's as well, and unmapping the child's view would help nobody.
            if self.identity.is_some() && identity(self.descriptor()) == self.identity {
                // SAFETY: it is still the ring: this copy of the descriptor came with the fork, and nobody else closes it.
                unsafe { libc::close(self.descriptor()) };
            }
            return;
        }
        // What ended already, or never began, gives its lease back; the rest is abandoned when the table is dropped.
        self.withdraw_unsubmitted();
        self.reap(|_| ());
        let left = self.table.in_flight();
        if left != 0 {
            log::debug!("a ring is closed with {left} operations in flight; their memory is left to the kernel");
        }
        // SAFETY: the ring is set up, and this is its end. Closing it is no barrier: the table, which is dropped after this,
        // gives nothing back that an operation may still use.
        unsafe { sys::io_uring_queue_exit(self.raw()) };
        // SAFETY: leaked in `new`; liburing is through with it.
        drop(unsafe { Box::from_raw(self.raw()) });
    }
}

/// What a descriptor is of, by device and inode.
fn identity(descriptor: RawFd) -> Option<(u64, u64)> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills `status`, which is as large as it expects.
    let returned = unsafe { libc::fstat(descriptor, status.as_mut_ptr()) };
    // SAFETY: all zeroes is a value of this plain structure; the kernel wrote over it at most.
    let status = unsafe { status.assume_init() };
    (returned == 0).then_some((status.st_dev, status.st_ino))
}

/// Whether the same call may be made again.
pub(crate) fn is_passing(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// What the kernel says of `io_uring_enter` on a ring that somebody else holds the lock of: waits for one completion.
///
/// No memory of ours is involved, so that this is safe at any time with any descriptor.
pub(crate) fn wait_for_one(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: nothing is submitted and no signal mask is given.
    let returned =
        unsafe { sys::io_uring_enter(descriptor as u32, 0, 1, sys::IORING_ENTER_GETEVENTS, ptr::null_mut()) };
    if returned < 0 { Err(io::Error::from_raw_os_error(-returned)) } else { Ok(()) }
}
