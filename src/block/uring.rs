//! The io_uring backend.
//!
//! # A transfer
//!
//! The requests of a call are cut into pieces; up to a queue depth of pieces are in flight. Memory that is aligned goes to
//! the kernel as it is, lent for the time of the call; other memory is copied through a lease of the device's pool. The call
//! returns when every piece has ended, so that nothing lent is in flight any more: there is no way out before that, not by
//! an error of the ring, and not by a panic (which ends the process).
//!
//! # A ring for each thread
//!
//! The calling thread's own ring ([`crate::ThreadRings`]); where it can get none, the ring that such threads share; where
//! that does not work, `pread` and `pwrite`. Each of these steps is reported.

use std::cell::Cell;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::block::file::Blocking;
use crate::block::request::{Request, answer};
use crate::block::target::{Setbacks, Target as Opened};
use crate::block::{AlignedBuffer, Backend, BatchError, BlockDevice, Options, ReadRequest, Report, WriteRequest};
use crate::core::{Core, Operation, Target, transfer_opcode};
use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::raw_ring::is_passing;
use crate::shared::SharedRing;
use crate::table::{Finished, Held, Ticket};
use crate::thread_rings::{PoolGivenUp, Refused, RingKind, ThreadRings};
use crate::{Unavailable, available};

/// Longest piece, in bytes: a multiple of every block size.
const LONGEST_PIECE: usize = 1 << 20;
/// Smallest slot of the pool.
const SMALLEST_SLOT: usize = 4096;
/// O_DIRECT transfers go on at a multiple of this after a short one.
const SECTOR: usize = 512;
/// How often the kernel may give back a part that it did not begin.
const MOST_TRIES: u32 = 3;
/// How long a device uses `pread` and `pwrite` after it got something back that way.
const REST: Duration = Duration::from_secs(30);
/// How long completions are waited for on a ring that can't be entered any more.
const LAST_RESORT: Duration = Duration::from_secs(60);

/// A block device on io_uring.
#[derive(Debug)]
pub struct UringBlockDevice {
    blocking: Blocking,
    sqpoll: Option<Duration>,
    /// Completions are polled for; off for good when the target turns out not to be able to.
    polls: AtomicBool,
    pool: Pool,
    /// After the pool.
    _pool_given_up: PoolGivenUp,
    /// Counts the leases of the pool that are lent out as buffers.
    lent: Arc<()>,
    /// For threads that can get no ring of their own, and the same without polling.
    shared: [Option<Arc<SharedRing>>; 2],
    /// The pool could not be registered on a ring, and is not tried on others.
    unregistered: AtomicBool,
    /// A thread that should have had a ring of its own uses a shared one.
    shares: AtomicBool,
    /// What could not be had; one sentence of each kind.
    degraded: Mutex<Vec<String>>,
    opened: Instant,
    /// Until when `pread` and `pwrite` are used, in milliseconds since the device was opened.
    rests_until: AtomicU64,
}

impl UringBlockDevice {
    /// Makes a ring and reads through it; where that does not work, gives the target back with the reason.
    pub(crate) fn new(target: Opened, options: &Options) -> Result<Self, Box<(Opened, Unavailable)>> {
        if let Err(reason) = available() {
            return Err(Box::new((target, reason)));
        }
        let slot_size = SMALLEST_SLOT.max(target.block_size as usize);
        let slots = u32::try_from(options.pool_size / slot_size).unwrap_or(u32::MAX - 1).max(1);
        let pool = match Pool::new(slots, slot_size) {
            Ok(pool) => pool,
            Err(error) => return Err(Box::new((target, Unavailable::other(&error)))),
        };
        let degraded = Mutex::new(target.degraded.clone());
        let mut device = Self {
            blocking: Blocking::new(target),
            sqpoll: options.sqpoll,
            polls: AtomicBool::new(options.iopoll),
            pool,
            _pool_given_up: PoolGivenUp,
            lent: Arc::new(()),
            shared: [None, None],
            unregistered: AtomicBool::new(false),
            shares: AtomicBool::new(false),
            degraded,
            opened: Instant::now(),
            rests_until: AtomicU64::new(0),
        };
        match device.settle() {
            Ok(()) => Ok(device),
            Err(reason) => Err(Box::new((device.blocking.target, reason))),
        }
    }

    /// Finds the most capable kind of ring that works with this target.
    fn settle(&mut self) -> Result<(), Unavailable> {
        if self.polls() && !self.blocking.target.direct {
            self.stop_polling("it needs O_DIRECT");
        }
        if self.sqpoll.is_some() {
            if let Err(error) = ThreadRings::shared_of_kind(self.kind()) {
                self.sqpoll = None;
                self.degrade(format!("no kernel thread for submissions ({error}); submitting by system call"));
            }
        }
        self.shared[usize::from(self.polls())] = self.shared_ring();
        let probed = self.probe();
        if self.polls() {
            if let Err(reason) = &probed {
                self.stop_polling(&reason.to_string());
            }
            // Polled or not: what the first block is on may differ from what others are on.
            self.shared[0] = ThreadRings::shared_of_kind(RingKind { iopoll: false, ..self.kind() }).ok();
        }
        if probed.is_ok() || self.shared[0].is_none() { probed } else { self.probe() }
    }

    fn shared_ring(&self) -> Option<Arc<SharedRing>> {
        let ring = ThreadRings::shared_of_kind(self.kind());
        if let Err(error) = &ring {
            self.degrade(format!("no ring for threads to share ({error}); such threads use pread/pwrite"));
        }
        ring.ok()
    }

    fn kind(&self) -> RingKind {
        RingKind { sqpoll: self.sqpoll, iopoll: self.polls(), of_devices: true }
    }

    fn polls(&self) -> bool {
        self.polls.load(Ordering::Relaxed)
    }

    #[cold]
    fn stop_polling(&self, why: &str) {
        self.polls.store(false, Ordering::Relaxed);
        self.degrade(format!("completions can't be polled for here ({why}); waiting for interrupts"));
    }

    /// Reads the first block through a ring. What `pread` reports as well is no failure of the ring.
    fn probe(&self) -> Result<(), Unavailable> {
        let unavailable = |error| Unavailable::from_error("read through io_uring", error);
        let lane = |lane: &mut Lane<'_>| -> Result<()> {
            if self.block_count() == 0 {
                return lane.with(|_| ());
            }
            let mut block = AlignedBuffer::new(self.block_size(), self.alignment().max(SECTOR))?;
            let mut requests = [ReadRequest::new(0, &mut block)];
            Transfer::new(self, &mut requests).drive(lane)?;
            let [request] = requests;
            match request.into_result() {
                Some(Err(error)) if self.blocking.target.pread_exact(&mut block, 0).is_ok() => Err(error),
                _ => Ok(()),
            }
        };
        self.on_a_ring(lane).map_err(unavailable)
    }

    /// Works on this thread's ring, or on the shared one.
    fn on_a_ring<R>(&self, work: impl FnOnce(&mut Lane<'_>) -> Result<R>) -> Result<R> {
        let mut work = Some(work);
        // Reported only when the ring is let go of: a logger is somebody else's code.
        let mut unregistered = None;
        let own = ThreadRings::with_kind(self.kind(), self.blocking.target.queue_depth, |ring| {
            let core = ring.core();
            unregistered = self.register(core);
            work.take().map(|work| work(&mut Lane::Own(core)))
        });
        let done = match (own, &self.shared[usize::from(self.polls())]) {
            (Ok(done), _) => done,
            (Err(refused), None) => return Err(refused.into()),
            (Err(refused), Some(shared)) => {
                self.report_shared(refused);
                unregistered = shared.with(|core| self.register(core))?;
                work.map(|work| work(&mut Lane::Shared(shared)))
            }
        };
        let done = done.expect("the work is done once, on the one ring or the other");
        if let (Some(error), Ok(_)) = (unregistered, &done) {
            // Where the ring does not work at all, that it has no buffers is no news.
            self.report_unregistered(&error);
        }
        done
    }

    /// Says, the first time, that a thread uses a shared ring, unless that is how it is meant to be.
    fn report_shared(&self, refused: Refused) {
        let is_meant = matches!(refused, Refused::OverLimit | Refused::InUse | Refused::Ended);
        if !is_meant && !self.shares.swap(true, Ordering::Relaxed) {
            let refused = Error::from(refused);
            self.degrade(format!("a thread has no ring of its own ({refused}); it uses a shared one"));
        }
    }

    /// Registers the pool on a ring that has not got it yet; an error means that it goes without.
    #[inline]
    fn register(&self, core: &mut Core) -> Option<Error> {
        let is_tried = self.unregistered.load(Ordering::Relaxed);
        if is_tried || core.buffer_of(Arc::as_ptr(&self.pool.memory), 0).is_some() {
            return None;
        }
        core.register_pool(&self.pool).err()
    }

    #[cold]
    fn report_unregistered(&self, error: &Error) {
        if !self.unregistered.swap(true, Ordering::Relaxed) {
            let bytes = self.pool.slots() as usize * self.pool.slot_size();
            let hint = if error.raw_os_error() == Some(libc::ENOMEM) {
                "; RLIMIT_MEMLOCK is too small (`ulimit -l` shows it in KiB)"
            } else {
                ""
            };
            self.degrade(format!("{bytes} bytes of buffers are not registered ({error}{hint}); transfers go without"));
        }
    }

    /// Keeps a sentence for the report, and logs it, the first time.
    #[cold]
    fn degrade(&self, sentence: String) {
        let mut degraded = self.degraded.lock().unwrap_or_else(PoisonError::into_inner);
        if degraded.contains(&sentence) {
            return;
        }
        degraded.push(sentence.clone());
        // A logger may ask for the report.
        drop(degraded);
        log::warn!("{}: {sentence}", self.blocking.target.path.display());
    }

    fn run<R: Request>(&self, requests: &mut [R]) {
        for request in &mut *requests {
            let block = request.first_block();
            let writable = if R::IS_READ { Ok(()) } else { self.blocking.target.check_writable(block) };
            let checked = writable.and_then(|()| self.blocking.target.check(R::NAME, block, request.len()));
            match checked {
                Ok(_) => request.clear(),
                Err(error) => request.set_result(Err(error)),
            }
        }
        let mut transfer = Transfer::new(self, requests);
        if self.is_resting() {
            transfer.finish_blocking();
            return transfer.settle();
        }
        let mut outcome = self.on_a_ring(|lane| transfer.drive(lane));
        if mem::take(&mut transfer.polling_refused) {
            if self.polls() {
                self.stop_polling("the disk has no queues for it");
            }
            outcome = self.on_a_ring(|lane| transfer.drive(lane));
        }
        if let Err(error) = outcome {
            self.degrade(format!("a thread can't use io_uring ({error}); it uses pread/pwrite"));
            transfer.finish_blocking();
        }
        if !transfer.by_hand.is_empty() {
            self.rest();
            transfer.finish_blocking();
        }
        transfer.settle();
    }

    /// Whether io_uring is left alone for a while. One relaxed load where it never had to be.
    #[inline]
    fn is_resting(&self) -> bool {
        let until = self.rests_until.load(Ordering::Relaxed);
        until != 0 && self.opened.elapsed().as_millis() < u128::from(until)
    }

    #[cold]
    fn rest(&self) {
        let until = (self.opened.elapsed() + REST).as_millis();
        self.rests_until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.degrade(format!(
            "the kernel gives operations back that it did not begin (ECANCELED): it may start no thread for them, see \
             `ulimit -u` and pids.max; using pread/pwrite for {} s at a time",
            REST.as_secs()
        ));
    }

    /// The longest part that can be transferred at once to or from `address`, in bytes.
    fn longest(&self, address: *mut u8) -> usize {
        let is_aligned = address.addr() % self.blocking.target.alignment == 0;
        if is_aligned { LONGEST_PIECE } else { self.pool.slot_size() }
    }

    fn one<R: Request>(&self, request: R) -> Result<()> {
        let mut requests = [request];
        self.run(&mut requests);
        let [request] = requests;
        request.into_result().expect("a run gives every request its result")
    }
}

/// The ring that a transfer goes through.
enum Lane<'a> {
    Own(&'a mut Core),
    Shared(&'a SharedRing),
}

impl Lane<'_> {
    fn with<R>(&mut self, work: impl FnOnce(&mut Core) -> R) -> Result<R> {
        match self {
            Lane::Own(core) => core.check_usable().map(|()| work(core)),
            Lane::Shared(ring) => ring.with(work),
        }
    }

    /// Submits, and waits for `wait` completions where the ring is ours alone, for one of `pieces` where it is not.
    fn submit_and_wait(&mut self, wait: usize, pieces: &[Piece]) -> Result<()> {
        match self {
            Lane::Own(core) => {
                core.submit_and_wait(wait as u32)?;
                core.reap();
                Ok(())
            }
            Lane::Shared(ring) => {
                ring.with(Core::submit)??;
                ring.wait_until(|core| any_done(core, pieces))
            }
        }
    }

    /// Takes completions from a ring that can't be entered.
    #[cold]
    fn look(&mut self, pieces: &[Piece]) {
        match self {
            Lane::Own(core) => core.reap(),
            // Another thread may be able to wait for us; where none can, this looks at the queue all the same.
            Lane::Shared(ring) => drop(ring.wait_until(|core| any_done(core, pieces))),
        }
    }
}

/// Whether a piece has ended and can be taken.
fn any_done(core: &Core, pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| core.is_done(piece.ticket))
}

/// A signal came while nothing was submitted. However many come, the wait goes on.
fn is_signal(error: &Error) -> bool {
    error.raw_os_error() == Some(libc::EINTR)
}

/// Part of a request that is not in flight.
#[derive(Debug, Clone, Copy)]
struct Part {
    request: usize,
    /// Bytes from the start of the request.
    position: usize,
    length: usize,
    /// How often the kernel gave it back.
    tries: u32,
}

/// Part of a request that is in flight.
#[derive(Debug)]
struct Piece {
    ticket: Ticket,
    part: Part,
}

thread_local! {
    /// The list of pieces of this thread's last call, for the next one: no allocation for each.
    static SCRATCH: Cell<Vec<Piece>> = const { Cell::new(Vec::new()) };
}

/// The requests of one call on their way.
struct Transfer<'a, R: Request> {
    device: &'a UringBlockDevice,
    requests: &'a mut [R],
    pieces: Vec<Piece>,
    /// Parts to be tried again, before any new one.
    again: Vec<Part>,
    /// The next new part begins here.
    next: Part,
    /// The ring polls for completions and the target can't: nothing more is started, and what was refused is in `again`.
    polling_refused: bool,
    setbacks: Setbacks,
    /// What the kernel gave back again and again: nothing more is started, and all that is left is carried out by `pread` and `pwrite`.
    by_hand: Vec<Part>,
}

/// There is no room on the ring, or no lease: some of what is in flight has to end first.
struct NoRoom;

impl<'a, R: Request> Transfer<'a, R> {
    fn new(device: &'a UringBlockDevice, requests: &'a mut [R]) -> Self {
        let next = Part { request: 0, position: 0, length: 0, tries: 0 };
        let pieces = SCRATCH.try_with(Cell::take).unwrap_or_default();
        Self {
            device,
            requests,
            pieces,
            again: Vec::new(),
            next,
            polling_refused: false,
            setbacks: Setbacks::default(),
            by_hand: Vec::new(),
        }
    }

    /// The next part to start.
    fn next_part(&mut self) -> Option<Part> {
        while let Some(part) = self.again.pop() {
            if self.requests[part.request].result().is_none() {
                return Some(part);
            }
        }
        // A request that has a result already failed.
        while self.requests.get(self.next.request)?.result().is_some() {
            self.next_request();
        }
        let request = &self.requests[self.next.request];
        let left = request.len() - self.next.position;
        let longest = self.device.longest(request.address());
        let part = Part { length: left.min(longest), ..self.next };
        self.next.position += part.length;
        if part.length == left {
            self.next_request();
        }
        Some(part)
    }

    fn next_request(&mut self) {
        self.next = Part { request: self.next.request + 1, position: 0, length: 0, tries: 0 };
    }

    fn has_more(&self) -> bool {
        !self.again.is_empty() || self.next.request < self.requests.len()
    }

    /// Carries everything out. An error means that the ring failed; then nothing is in flight, and what is left to do is in
    /// `again` and `next`.
    fn drive(&mut self, lane: &mut Lane<'_>) -> Result<()> {
        let depth = self.device.blocking.target.queue_depth as usize;
        loop {
            let refused = lane.with(|core| self.fill(core, depth))?;
            if self.pieces.is_empty() {
                let Some(part) = refused else { return Ok(()) };
                // Somebody else has all leases or all room, and we hold nothing that they could wait for.
                self.transfer_blocking(part);
                continue;
            }
            // Half of the window is refilled while the other half is on its way.
            let wait = if self.has_more() { self.pieces.len().div_ceil(2) } else { self.pieces.len() };
            if let Err(error) = lane.submit_and_wait(wait, &self.pieces) {
                if is_passing(&error) && (is_signal(&error) || self.setbacks.may_try_again()) {
                    if let Lane::Own(core) = lane {
                        // A shared ring's completions are its leader's to take.
                        core.reap();
                    }
                    std::thread::yield_now();
                } else {
                    self.take_back(lane);
                    return Err(error);
                }
            }
            lane.with(|core| self.collect(core))?;
        }
    }

    /// Starts parts until the window is full. A part that could not be started for want of room is given back, and is also
    /// in `again` unless nothing at all is in flight.
    fn fill(&mut self, core: &mut Core, depth: usize) -> Option<Part> {
        while self.pieces.len() < depth && !self.polling_refused && self.by_hand.is_empty() {
            let part = self.next_part()?;
            match self.start(core, part) {
                Ok(ticket) => self.pieces.push(Piece { ticket, part }),
                Err(NoRoom) => {
                    if !self.pieces.is_empty() {
                        self.again.push(part);
                    }
                    return Some(part);
                }
            }
        }
        None
    }

    fn start(&mut self, core: &mut Core, part: Part) -> Result<Ticket, NoRoom> {
        let target = &self.device.blocking.target;
        let pool = &self.device.pool;
        let request = &mut self.requests[part.request];
        let offset = request.first_block() * u64::from(target.block_size) + part.position as u64;
        // SAFETY: a part lies within its request.
        let memory = unsafe { request.address().add(part.position) };
        let (address, chunk, held) = if memory.addr() % target.alignment == 0 {
            (memory, pool.memory.chunk_of(memory, part.length), Held::Borrowed)
        } else {
            let mut buf = pool.lease().ok_or(NoRoom)?;
            if !R::IS_READ {
                // SAFETY: `memory` is `length` bytes of the request that the caller lent us; a lease overlaps nothing.
                buf[..part.length].copy_from_slice(unsafe { std::slice::from_raw_parts(memory, part.length) });
            }
            (buf.address(), Some(buf.chunk()), Held::Lease(buf))
        };
        let buffer = chunk.and_then(|chunk| core.buffer_of(Arc::as_ptr(&pool.memory), chunk));
        let operation = Operation {
            address: address.expose_provenance() as u64,
            length: part.length as u32,
            offset,
            buffer: buffer.unwrap_or(0),
            ..Operation::new(transfer_opcode(R::IS_READ, buffer.is_some()))
        };
        let descriptor = Target::descriptor(target.file.as_raw_fd());
        core.start(descriptor, operation, held).map_err(|_| NoRoom)
    }

    /// Takes what has ended.
    fn collect(&mut self, core: &mut Core) {
        let mut index = 0;
        while let Some(piece) = self.pieces.get(index) {
            let part = piece.part;
            match core.take(piece.ticket) {
                Some(finished) => {
                    self.pieces.swap_remove(index);
                    self.finish(part, finished);
                }
                None => index += 1,
            }
        }
    }

    /// Accounts for a piece that ended.
    fn finish(&mut self, part: Part, finished: Finished) {
        let target = &self.device.blocking.target;
        let request = &mut self.requests[part.request];
        let offset = request.first_block() * u64::from(target.block_size) + part.position as u64;
        let moved = match usize::try_from(finished.result) {
            Ok(moved) => moved,
            Err(_) => {
                match -finished.result {
                    // Withdrawn; or the thread that submitted it for others has ended; or the kernel may have no thread for
                    // what it can't do at once, and will give it back the next time as well.
                    libc::ECANCELED if part.tries < MOST_TRIES => {
                        self.again.push(Part { tries: part.tries + 1, ..part });
                    }
                    libc::ECANCELED => self.by_hand.push(part),
                    libc::EINTR | libc::EAGAIN if self.setbacks.may_try_again() => self.again.push(part),
                    libc::EOPNOTSUPP if self.device.polls() => {
                        self.again.push(part);
                        self.polling_refused = true;
                    }
                    errno => request.set_result(Err(target.transfer_error(R::NAME, offset, errno))),
                }
                return;
            }
        };
        if let (Held::Lease(buf), true) = (&finished.held, R::IS_READ) {
            // SAFETY: the part lies within its request, which reads, so that its memory may be written; a lease overlaps
            // nothing, and has at least `length` bytes.
            unsafe {
                request.address().add(part.position).copy_from_nonoverlapping(buf.as_ptr(), moved.min(part.length))
            };
        }
        self.setbacks = Setbacks::default();
        if moved >= part.length {
            return;
        }
        let kept = if target.direct { moved - moved % SECTOR } else { moved };
        if kept == 0 {
            request.set_result(Err(target.end_error(R::NAME, offset)));
        } else {
            // What is left may be less aligned than the whole was.
            let (mut position, end) = (part.position + kept, part.position + part.length);
            while position < end {
                let longest = self.device.longest(request.address().wrapping_add(position));
                let length = longest.min(end - position);
                self.again.push(Part { position, length, ..part });
                position += length;
            }
        }
    }

    /// After the ring failed: takes back what the kernel has not seen, and waits for the end of the rest.
    #[cold]
    fn take_back(&mut self, lane: &mut Lane<'_>) {
        let since = Instant::now();
        // What is withdrawn ends with ECANCELED, and is collected like everything else.
        let mut usable = lane.with(Core::withdraw_unsubmitted).is_ok();
        while usable {
            lane.look(&self.pieces);
            usable = lane.with(|core| self.collect(core)).is_ok();
            if self.pieces.is_empty() {
                return;
            }
            if since.elapsed() > LAST_RESORT {
                self.give_up();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if !self.pieces.is_empty() {
            self.give_up();
        }
    }

    /// Ends the process: the kernel may write to the caller's memory, nobody can tell until when, and returning would give
    /// that memory back.
    #[cold]
    fn give_up(&self) -> ! {
        log::error!(
            "{}: {} operations on the caller's memory are in flight and the ring can't be entered any more; aborting",
            self.device.blocking.target.path.display(),
            self.pieces.len()
        );
        std::process::abort()
    }

    /// Carries out with `pread` or `pwrite` what is left to do.
    #[cold]
    fn finish_blocking(&mut self) {
        self.again.append(&mut self.by_hand);
        while let Some(part) = self.next_part() {
            self.transfer_blocking(part);
        }
    }

    fn transfer_blocking(&mut self, part: Part) {
        let target = &self.device.blocking.target;
        let request = &mut self.requests[part.request];
        let offset = request.first_block() * u64::from(target.block_size) + part.position as u64;
        // SAFETY: a part lies within its request.
        let memory = unsafe { request.address().add(part.position) };
        let result = if R::IS_READ {
            // SAFETY: a request that reads gives memory that may be written through, and none of it is in flight: parts do not
            // overlap, and this one was not started.
            self.device.blocking.read(unsafe { std::slice::from_raw_parts_mut(memory, part.length) }, offset)
        } else {
            // SAFETY: as above, for reading.
            self.device.blocking.write(unsafe { std::slice::from_raw_parts(memory, part.length) }, offset)
        };
        if let Err(error) = result {
            request.set_result(Err(error));
        }
    }

    /// Says of every request that did not fail that it succeeded.
    fn settle(&mut self) {
        for request in &mut *self.requests {
            if request.result().is_none() {
                request.set_result(Ok(()));
            }
        }
    }
}

impl<R: Request> Drop for Transfer<'_, R> {
    fn drop(&mut self) {
        if !self.pieces.is_empty() {
            // A panic in our own code.
            self.give_up();
        }
        let pieces = mem::take(&mut self.pieces);
        // Nothing to keep for a thread that is ending.
        let _ = SCRATCH.try_with(|scratch| scratch.set(pieces));
    }
}

impl BlockDevice for UringBlockDevice {
    fn block_size(&self) -> usize {
        self.blocking.target.block_size as usize
    }

    fn block_count(&self) -> u64 {
        self.blocking.target.block_count
    }

    fn alignment(&self) -> usize {
        self.blocking.target.alignment
    }

    fn max_batch(&self) -> usize {
        self.blocking.target.queue_depth as usize
    }

    fn backend(&self) -> Backend {
        Backend::Uring
    }

    fn fallback_reason(&self) -> Option<&Unavailable> {
        None
    }

    fn report(&self) -> Report {
        Report {
            backend: Backend::Uring,
            fallback_reason: None,
            direct: self.blocking.target.direct,
            registered_buffers: !self.unregistered.load(Ordering::Relaxed),
            degraded: self.degraded.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn read_block(&self, block: u64, buffer: &mut [u8]) -> Result<()> {
        self.blocking.target.check_one("read", block, buffer.len())?;
        self.one(ReadRequest::new(block, buffer))
    }

    fn write_block(&self, block: u64, data: &[u8]) -> Result<()> {
        self.blocking.target.check_one("write", block, data.len())?;
        self.one(WriteRequest::new(block, data))
    }

    fn read_run(&self, first: u64, buffer: &mut [u8]) -> Result<()> {
        self.one(ReadRequest::new(first, buffer))
    }

    fn write_run(&self, first: u64, data: &[u8]) -> Result<()> {
        self.one(WriteRequest::new(first, data))
    }

    fn read_blocks(&self, requests: &mut [ReadRequest<'_>]) -> Result<(), BatchError> {
        self.run(requests);
        answer(requests)
    }

    fn write_blocks(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError> {
        self.run(requests);
        answer(requests)
    }

    fn flush(&self) -> Result<()> {
        self.blocking.target.flush()
    }

    fn aligned_buffer(&self, bytes: usize) -> Result<AlignedBuffer> {
        // Registered memory where it fits, since the kernel need not look up its pages then; not all of it, so that
        // unaligned memory still has something to pass through.
        let lent = Arc::strong_count(&self.lent) - 1;
        let may_lend = (1..=self.pool.slot_size()).contains(&bytes) && lent < self.pool.slots() as usize / 2;
        match may_lend.then(|| self.pool.lease()).flatten() {
            Some(buf) => Ok(AlignedBuffer::of_lease(buf, bytes, Arc::clone(&self.lent))),
            None => AlignedBuffer::new(bytes, self.alignment()),
        }
    }
}
