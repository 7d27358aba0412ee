//! The io_uring backend.
//!
//! # A transfer
//!
//! The requests of a call are cut into pieces; up to a queue depth of pieces are in flight. Memory that is aligned goes to
//! the kernel as it is, lent for the time of the call; other memory is copied through a lease of the device's pool. The call
//! returns when every piece has ended, so that nothing lent is in flight any more: there is no way out before that, not by
//! an error of the ring, and not by a panic (which ends the process).
//!
//! Before that, what is to be read through the page cache is asked of it, by a call that waits for nothing
//! ([`Target::read_cached`](Opened::read_cached)): a ring would copy the same bytes by more steps.
//!
//! # A ring for each thread
//!
//! The calling thread's own ring ([`crate::ThreadRings`]); where it can get none, the ring that such threads share; where
//! that does not work, `pread` and `pwrite`. Each of these steps is reported.

use std::cell::Cell;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::block::file::Blocking;
use crate::block::futures::hub::HubsOfProcess;
use crate::block::request::Request;
use crate::block::stats::count;
use crate::block::target::{Setbacks, Target as Opened};
use crate::block::wire::{self, Plain, Wire};
use crate::block::{AlignedBuffer, Durability, Fallback, Options, ReadRequest, WriteRequest};
use crate::core::{Core, Operation, Target};
use crate::entries::Entries;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Pool;
use crate::raw_ring::is_passing;
use crate::shared::SharedRing;
use crate::table::{Held, NoBuffers, Ticket};
use crate::thread_rings::{PoolGivenUp, Refused, RingKind, ThreadRings, pools_given_up};
use crate::{Unavailable, available};
use liburing_sys as sys;

/// What it means that a ring that polls refuses a transfer.
const NO_POLLING: &str = "the target has no queues for it";
/// How often the kernel may give back a part that it did not begin.
const MOST_TRIES: u32 = 3;
/// How long a device uses `pread` and `pwrite` after it got something back that way.
const REST: Duration = Duration::from_secs(30);
/// `BLOCK_URING_CMD_DISCARD` of `linux/blkdev.h`, since Linux 6.12: `_IO(0x12, 0)`.
const DISCARD: u32 = 0x1200;
/// Pools can't be registered.
const REFUSED: u64 = u64::MAX;
/// How long completions are waited for on a ring that can't be entered any more.
const LAST_RESORT: Duration = Duration::from_secs(60);

/// What a device on io_uring has.
#[derive(Debug)]
pub(super) struct Uring<W: Wire = Plain> {
    pub(super) blocking: Blocking,
    sqpoll: Option<Duration>,
    /// Completions are polled for; off for good when the target turns out not to be able to.
    polls: AtomicBool,
    pool: Pool,
    /// After the pool. Counts the leases of it that are lent out as buffers, which may outlive the device: rings can let go of
    /// the pool when the last of them is gone.
    lent: Arc<PoolGivenUp>,
    /// After the pool, too.
    pub(super) hubs: HubsOfProcess<W>,
    /// For threads that can get no ring of their own, and the same without polling.
    shared: [Option<Arc<SharedRing<W::Entries>>>; 2],
    /// Whether the pool could not be registered on a ring: 0, [`REFUSED`], or one more than [`pools_given_up`] was when there was
    /// no room for it.
    unregistered: AtomicU64,
    /// Buffers can be had from another ring (liburing 2.8, Linux 6.12).
    clones: AtomicBool,
    /// A thread that should have had a ring of its own uses a shared one.
    shares: AtomicBool,
    opened: Instant,
    /// Until when `pread` and `pwrite` are used, in milliseconds since the device was opened.
    rests_until: AtomicU64,
}

impl<W: Wire> Uring<W> {
    /// Makes a ring and reads through it; where that does not work, gives the target back with the reason.
    pub(super) fn new(target: Opened, options: &Options) -> Result<Self, Box<(Opened, Refusal)>> {
        match available() {
            Ok(()) => Self::over(target, options),
            Err(reason) => Err(Box::new((target, Refusal::Unavailable(reason)))),
        }
    }

    /// As [`Uring::new`], where io_uring is to be had.
    pub(super) fn over(target: Opened, options: &Options) -> Result<Self, Box<(Opened, Refusal)>> {
        let pool = match W::pool(&target, options.pool_size) {
            Ok(pool) => pool,
            Err(error) => return Err(Box::new((target, Refusal::Unavailable(Unavailable::other(&error))))),
        };
        let mut device = Self {
            blocking: Blocking::new(target),
            sqpoll: options.sqpoll,
            polls: AtomicBool::new(options.iopoll),
            pool,
            lent: Arc::new(PoolGivenUp),
            hubs: HubsOfProcess::default(),
            shared: [None, None],
            unregistered: AtomicU64::new(0),
            clones: AtomicBool::new(cfg!(liburing_2_8)),
            shares: AtomicBool::new(false),
            opened: Instant::now(),
            rests_until: AtomicU64::new(0),
        };
        match device.settle() {
            Ok(()) => Ok(device),
            Err(refusal) => Err(Box::new((device.blocking.target, refusal))),
        }
    }

    /// Finds the most capable kind of ring that works with this target.
    fn settle(&mut self) -> Result<(), Refusal> {
        if self.polls() && !self.blocking.target.direct {
            self.stop_polling("it needs O_DIRECT")?;
        }
        if self.sqpoll.is_some() {
            if let Err(error) = ThreadRings::shared_of_kind::<W::Entries>(self.kind()) {
                self.sqpoll = None;
                let what = format!("there is no kernel thread for submissions ({error})");
                self.degrade(Fallback::SystemCalls, &what)?;
            }
        }
        self.shared[usize::from(self.polls())] = self.shared_ring()?;
        let probed = self.probe();
        if self.polls() {
            if let Err(error) = &probed {
                self.stop_polling(&error.to_string())?;
            }
            // Polled or not: what the first block is on may differ from what others are on.
            self.shared[0] = ThreadRings::shared_of_kind(RingKind { iopoll: false, ..self.kind() }).ok();
        }
        let probed = if probed.is_ok() || self.shared[0].is_none() { probed } else { self.probe() };
        Ok(probed?)
    }

    fn shared_ring(&self) -> Result<Option<Arc<SharedRing<W::Entries>>>> {
        match ThreadRings::shared_of_kind(self.kind()) {
            Ok(ring) => Ok(Some(ring)),
            Err(error) => {
                let what = format!("there is no ring for threads to share ({error}), which such threads do without");
                self.degrade(Fallback::PreadAtTimes, &what).map(|()| None)
            }
        }
    }

    pub(super) fn kind(&self) -> RingKind {
        RingKind {
            sqpoll: self.sqpoll,
            iopoll: self.polls(),
            of_devices: true,
            #[cfg(test)]
            faults: crate::block::faults::kernel::of_thread(),
        }
    }

    fn polls(&self) -> bool {
        self.polls.load(Ordering::Relaxed)
    }

    #[cold]
    fn stop_polling(&self, why: &str) -> Result<()> {
        self.polls.store(false, Ordering::Relaxed);
        self.degrade(Fallback::Interrupts, &format!("completions can't be polled for here ({why})"))
    }

    /// Reads the first block through a ring. What `pread` reports as well is no failure of the ring.
    fn probe(&self) -> Result<()> {
        let lane = |lane: &mut Lane<'_, W::Entries>| -> Result<()> {
            let target = &self.blocking.target;
            if target.block_count() == 0 {
                return lane.with(|_| ());
            }
            let block_size = target.block_size as usize;
            let mut block = AlignedBuffer::new(block_size, target.alignment.max(block_size))?;
            let mut requests = [ReadRequest::new(0, &mut block)];
            let mut transfer = Transfer::new(self, &mut requests, Durability::Cached);
            transfer.drive(lane)?;
            if transfer.polling_refused {
                return Err(Error::new(ErrorKind::Unsupported, NO_POLLING));
            }
            drop(transfer);
            let [request] = requests;
            match request.into_result() {
                Some(Err(error)) if self.blocking.read(&mut block, 0).is_ok() => Err(error),
                _ => Ok(()),
            }
        };
        self.on_a_ring(lane)
    }

    /// Works on this thread's ring, or on the shared one.
    fn on_a_ring<R>(&self, work: impl FnOnce(&mut Lane<'_, W::Entries>) -> Result<R>) -> Result<R> {
        let mut work = Some(work);
        // Reported only when the ring is let go of: a logger is somebody else's code.
        let mut unregistered = None;
        let must_register = self.blocking.target.steps.is_forbidden(Fallback::UnregisteredBuffers);
        let own = ThreadRings::with_kind(self.kind(), self.blocking.target.queue_depth, |ring| {
            let core = ring.core();
            unregistered = self.register(core);
            if must_register && unregistered.is_some() {
                return None;
            }
            work.take().map(|work| work(&mut Lane::Own(core)))
        });
        let done = match (own, &self.shared[usize::from(self.polls())]) {
            (Ok(done), _) => done,
            (Err(refused), None) => return Err(refused.into()),
            (Err(refused), Some(shared)) => {
                self.report_shared(refused)?;
                unregistered = shared.with(|core| self.register_shared(core))?;
                match must_register && unregistered.is_some() {
                    true => None,
                    false => work.map(|work| work(&mut Lane::Shared(shared))),
                }
            }
        };
        if let (Some(error), None | Some(Ok(_))) = (unregistered, &done) {
            // Where the ring does not work at all, that it has no buffers is no news.
            self.report_pool_unregistered(&error)?;
        }
        done.expect("the work is done once, on the one ring or the other, or it is an error that there are no buffers")
    }

    /// Says, the first time, that a thread uses a shared ring, unless that is how it is meant to be.
    fn report_shared(&self, refused: Refused) -> Result<()> {
        let is_forbidden = self.blocking.target.steps.is_forbidden(Fallback::SharedRing);
        let is_meant = match refused {
            Refused::InUse | Refused::Ended => true,
            Refused::OverLimit => !is_forbidden,
            Refused::Failed(_) => false,
        };
        if is_meant || !is_forbidden && self.shares.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let refused = Error::from(refused);
        self.degrade(Fallback::SharedRing, &format!("a thread has no ring of its own ({refused})"))
    }

    /// Registers the pool on a ring that has not got it yet; an error means that it goes without. Not called with the shared
    /// ring locked.
    #[inline]
    pub(super) fn register<B, E: Entries>(&self, core: &mut Core<B, E>) -> Option<Error> {
        if self.is_registered(core) || self.clone_registered(core) {
            return None;
        }
        self.register_new(core)
    }

    #[cold]
    fn register_new<B, E: Entries>(&self, core: &mut Core<B, E>) -> Option<Error> {
        let registered = core.register_pool(&self.pool);
        if registered.is_ok() {
            // Where there was no room before there is now.
            self.unregistered.store(0, Ordering::Relaxed);
        }
        registered.err()
    }

    /// As [`Uring::register`], on the ring that threads share.
    fn register_shared(&self, core: &mut Core<NoBuffers, W::Entries>) -> Option<Error> {
        if self.is_registered(core) { None } else { self.register_new(core) }
    }

    /// Whether there is nothing to be registered, or it was tried.
    #[inline]
    fn is_registered<B, E: Entries>(&self, core: &Core<B, E>) -> bool {
        core.buffer_of(Arc::as_ptr(&self.pool.memory), 0).is_some() || self.goes_without()
    }

    /// Whether the pool could not be registered on a ring, and is not tried on others: where others had taken the room, until
    /// some of them are given up.
    #[inline]
    fn goes_without(&self) -> bool {
        match self.unregistered.load(Ordering::Relaxed) {
            0 => false,
            REFUSED => true,
            full => full == 1 + pools_given_up(),
        }
    }

    /// Has a ring that has no buffers share those of the ring that threads share: so they are pinned, and count as locked memory,
    /// once for all threads. Whether the pool is among them.
    #[cold]
    fn clone_registered<B, E: Entries>(&self, core: &mut Core<B, E>) -> bool {
        if !self.clones.load(Ordering::Relaxed) || core.has_buffer_table() {
            return false;
        }
        let Some(shared) = &self.shared[0] else { return false };
        let cloned = shared.with(|from| from.register_pool(&self.pool).and_then(|()| core.clone_pools(from)));
        let Ok(Err(error)) = cloned else { return cloned.is_ok() };
        if error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(libc::EINVAL) {
            self.clones.store(false, Ordering::Relaxed);
        }
        false
    }

    pub(super) fn report_pool_unregistered(&self, error: &Error) -> Result<()> {
        let bytes = self.pool.slots() as usize * self.pool.slot_size();
        let is_for_want_of_room =
            matches!(error.kind(), ErrorKind::Full | ErrorKind::Unsupported) && error.raw_os_error().is_none();
        if !is_for_want_of_room {
            return self.report_unregistered(error, bytes);
        }
        let what = format!(
            "{bytes} bytes of buffers are not registered, since those of other devices take all the room that a ring has for \
             them; they are when enough of those are closed"
        );
        self.go_without(1 + pools_given_up(), &what, "close devices")
    }

    pub(super) fn report_unregistered(&self, error: &Error, bytes: usize) -> Result<()> {
        let hint = if error.raw_os_error() == Some(libc::ENOMEM) {
            "; RLIMIT_MEMLOCK is too small (`ulimit -l` shows it in KiB)"
        } else {
            ""
        };
        let what = format!("{bytes} bytes of buffers are not registered ({error}{hint})");
        self.go_without(REFUSED, &what, Fallback::UnregisteredBuffers.remedy())
    }

    #[cold]
    fn go_without(&self, why: u64, what: &str, remedy: &str) -> Result<()> {
        let (target, fallback) = (&self.blocking.target, Fallback::UnregisteredBuffers);
        // Where it is forbidden it is an error each time, and tried again.
        if !target.steps.is_forbidden(fallback) && self.unregistered.swap(why, Ordering::Relaxed) == why {
            return Ok(());
        }
        target.steps.take_or(&target.path, fallback, what, remedy)
    }

    /// Takes a step down.
    #[cold]
    pub(super) fn degrade(&self, fallback: Fallback, what: &str) -> Result<()> {
        self.blocking.target.steps.take(&self.blocking.target.path, fallback, what)
    }

    /// Whether completions are polled for, whether a kernel thread submits, and whether buffers are registered.
    pub(super) fn picked(&self) -> (bool, bool, bool) {
        (self.polls(), self.sqpoll.is_some(), self.unregistered.load(Ordering::Relaxed) == 0)
    }

    /// Registered memory where it fits, since the kernel need not look up its pages then; not all of it, so that unaligned
    /// memory still has something to pass through.
    pub(super) fn aligned_buffer(&self, bytes: usize) -> Result<AlignedBuffer> {
        let lent = Arc::strong_count(&self.lent) - 1;
        let may_lend = (1..=self.longest_in_slot()).contains(&bytes) && lent < self.pool.slots() as usize / 2;
        match may_lend.then(|| self.pool.lease()).flatten() {
            Some(mut buf) => {
                buf[..bytes].fill(0);
                Ok(AlignedBuffer::of_counted_lease(buf, bytes, &self.lent))
            }
            None => AlignedBuffer::for_transfers(bytes, self.blocking.target.alignment),
        }
    }

    /// Carries out one request. What is aligned and short enough, as nearly all are, takes a short way: one entry on the thread's
    /// own ring. Whatever is out of the ordinary then goes on as any transfer does.
    #[inline]
    pub(super) fn one<R: Request>(&self, mut request: R, offset: u64, durability: Durability) -> Result<()> {
        if self.is_cached(&mut request, offset) {
            return Ok(());
        }
        let target = &self.blocking.target;
        let is_short = request.len() <= W::longest(target, request.address());
        if is_short && W::takes(target, request.address()) && !self.is_resting() {
            let done = ThreadRings::with_kind(self.kind(), self.blocking.target.queue_depth, |ring| {
                self.one_on(ring.core(), &mut request, offset, durability)
            });
            if let Ok(true) = done {
                return Ok(());
            }
        }
        self.one_anyhow(request, durability)
    }

    /// Reads what is in the page cache; whether that is all of it.
    #[inline]
    fn is_cached<R: Request>(&self, request: &mut R, offset: u64) -> bool {
        if !R::IS_READ {
            return false;
        }
        // SAFETY: a request that reads gives memory that may be written through; `request` is borrowed exclusively.
        let memory = unsafe { std::slice::from_raw_parts_mut(request.address(), request.len()) };
        self.blocking.target.read_cached(memory, offset)
    }

    #[cold]
    #[inline(never)]
    fn one_anyhow<R: Request>(&self, mut request: R, durability: Durability) -> Result<()> {
        match request.result() {
            None => self.run(std::slice::from_mut(&mut request), durability),
            Some(result) => result.as_ref().err().into_iter().for_each(Opened::log_end),
        }
        request.into_result().expect("a run gives every request its result")
    }

    /// Whether it is done; where it is not, nothing is in flight, and the request has a result or is to be carried out anew.
    #[inline]
    fn one_on<R: Request>(
        &self,
        core: &mut Core<NoBuffers, W::Entries>,
        request: &mut R,
        offset: u64,
        durability: Durability,
    ) -> bool {
        if !self.is_registered(core) {
            return false;
        }
        let (memory, length) = (request.address(), request.len());
        let chunk = self.pool.memory.chunk_of(memory, length);
        let piece = self.piece::<R, _>(core, memory, chunk, length, offset, durability);
        let Some(ticket) = W::start_borrowed(core, &self.blocking.target, piece) else { return false };
        let ended = if core.submit_and_wait(1).is_ok() { core.take_borrowed(ticket) } else { None };
        let ended = ended.map(|result| W::moved(result, length));
        // All of it, at once.
        ended == Some(length as i32) || self.finish_one(core, request, ticket, ended, durability)
    }

    /// Waits for a request that was started, and goes on with what is left of it.
    #[cold]
    #[inline(never)]
    fn finish_one<R: Request>(
        &self,
        core: &mut Core<NoBuffers, W::Entries>,
        request: &mut R,
        ticket: Ticket,
        ended: Option<i32>,
        durability: Durability,
    ) -> bool {
        let part = Part { request: 0, position: 0, length: request.len(), tries: 0 };
        let mut transfer = Transfer::new(self, std::slice::from_mut(request), durability);
        transfer.next_request();
        match ended {
            Some(result) => transfer.finish(part, result, &Held::Borrowed),
            None => transfer.pieces.push(Piece { ticket, part }),
        }
        let driven = transfer.drive(&mut Lane::Own(core));
        let is_over = driven.is_ok() && transfer.by_hand.is_empty() && !transfer.polling_refused;
        drop(transfer);
        is_over && request.result().is_none()
    }

    /// A piece of a transfer; `chunk` is that of the pool which the memory is in.
    #[inline]
    fn piece<R: Request, E: Entries>(
        &self,
        core: &Core<NoBuffers, E>,
        address: *mut u8,
        chunk: Option<u32>,
        length: usize,
        offset: u64,
        durability: Durability,
    ) -> wire::Piece {
        let buffer = chunk.and_then(|chunk| core.buffer_of(Arc::as_ptr(&self.pool.memory), chunk));
        wire::Piece { is_read: R::IS_READ, address, length, offset, durability, buffer }
    }

    /// Carries out every request that has no result.
    pub(super) fn run<R: Request>(&self, requests: &mut [R], durability: Durability) {
        for request in requests.iter_mut().filter(|request| request.result().is_none()) {
            let offset = request.first_block() * u64::from(self.blocking.target.block_size);
            if self.is_cached(request, offset) {
                request.set_result(Ok(()));
            }
        }
        if requests.iter().all(|request| request.result().is_some()) {
            return;
        }
        let mut transfer = Transfer::new(self, requests, durability);
        if self.is_resting() {
            transfer.finish_blocking();
        } else if let Err(error) = self.run_on_rings(&mut transfer) {
            // A step down that is forbidden.
            transfer.fail(&error);
        }
        transfer.settle();
        if transfer.ends_early {
            drop(transfer);
            requests.iter().filter_map(|request| request.result()?.as_ref().err()).for_each(Opened::log_end);
        }
    }

    fn run_on_rings<R: Request>(&self, transfer: &mut Transfer<'_, R, W>) -> Result<()> {
        let mut outcome = self.on_a_ring(|lane| transfer.drive(lane));
        if mem::take(&mut transfer.polling_refused) {
            if self.polls() {
                self.stop_polling(NO_POLLING)?;
            }
            outcome = self.on_a_ring(|lane| transfer.drive(lane));
        }
        match outcome {
            Err(error) if error.kind() == ErrorKind::Degraded => return Err(error),
            Err(error) => {
                self.degrade(Fallback::PreadAtTimes, &format!("a thread can't use io_uring ({error})"))?;
                transfer.finish_blocking();
            }
            Ok(()) => {}
        }
        if !transfer.by_hand.is_empty() {
            self.rest()?;
            transfer.finish_blocking();
        }
        Ok(())
    }

    /// Whether io_uring is left alone for a while. One relaxed load where it never had to be.
    #[inline]
    fn is_resting(&self) -> bool {
        let until = self.rests_until.load(Ordering::Relaxed);
        until != 0 && self.opened.elapsed().as_millis() < u128::from(until)
    }

    #[cold]
    fn rest(&self) -> Result<()> {
        let what = format!(
            "for {} s at a time, since the kernel gives operations back that it did not begin (ECANCELED): it may start no \
             thread for them, see `ulimit -u` and pids.max",
            REST.as_secs()
        );
        self.degrade(Fallback::PreadAtTimes, &what)?;
        let until = (self.opened.elapsed() + REST).as_millis();
        self.rests_until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }

    /// How many leases are to be had, of how many.
    #[cfg(test)]
    pub(super) fn leases(&self) -> (usize, usize) {
        let leases: Vec<_> = std::iter::from_fn(|| self.pool.lease()).collect();
        (leases.len(), self.pool.slots() as usize)
    }

    /// Uses io_uring again, however long it was to be left alone. Whether it was.
    #[cfg(test)]
    pub(super) fn end_rest(&self) -> bool {
        self.rests_until.swap(0, Ordering::Relaxed) != 0
    }

    /// The longest part that can be transferred at once to or from `address`, in bytes.
    #[inline]
    fn longest(&self, address: *mut u8) -> usize {
        let target = &self.blocking.target;
        if W::takes(target, address) { W::longest(target, address) } else { self.longest_in_slot() }
    }

    /// The longest part that passes through a lease, in bytes.
    fn longest_in_slot(&self) -> usize {
        W::longest_in(&self.blocking.target, self.pool.slot_size())
    }
}

impl Uring {
    /// Discards a range of a disk by a command, for which the kernel blocks no thread. `false` where that can't be had, or
    /// fails: the system calls can do the same again, and tell why they can't.
    pub(super) fn discard(&self, offset: u64, length: u64) -> bool {
        if self.polls() || self.is_resting() {
            return false;
        }
        let mut command = [0; 8];
        command[..4].copy_from_slice(&DISCARD.to_ne_bytes());
        let operation = Operation {
            // The number of the command has its place in the lower half of that of the offset, the way the machine stores it.
            offset: u64::from_ne_bytes(command),
            address: offset,
            address3: length,
            ..Operation::new(sys::IORING_OP_URING_CMD)
        };
        let done = ThreadRings::with_kind(self.kind(), self.blocking.target.queue_depth, |ring| {
            let core = ring.core();
            let descriptor = Target::descriptor(self.blocking.target.file.as_raw_fd());
            let ticket = core.start(descriptor, operation, Held::Nothing).map_err(|(reason, _)| reason).ok()?;
            Some(self.wait_for(core, ticket))
        });
        matches!(done, Ok(Some(0)))
    }

    /// Waits for an operation to end, whatever happens: one that went on would use what the caller lent, or undo what it does
    /// next.
    fn wait_for(&self, core: &mut Core, ticket: Ticket) -> i32 {
        let (mut failed_since, mut setbacks) = (None, Setbacks::default());
        loop {
            core.reap();
            if let Some(finished) = core.take(ticket) {
                return finished.result;
            }
            match core.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if is_signal(&error) => {}
                Err(error) if is_passing(&error) && setbacks.may_try_again() => std::thread::yield_now(),
                Err(_) => {
                    let since = *failed_since.get_or_insert_with(Instant::now);
                    core.withdraw_unsubmitted();
                    core.flush_completions();
                    if since.elapsed() > LAST_RESORT {
                        log::error!(
                            "{}: something is in flight and the ring can't be entered any more; aborting",
                            self.blocking.target.path.display()
                        );
                        std::process::abort()
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}

impl Uring {
    /// Writes one run, and flushes: what is aligned and short enough, by two entries that are linked. The kernel begins the flush
    /// by itself when all of the run is written, and not where it is not.
    pub(super) fn barrier(&self, mut request: WriteRequest<'_>, offset: u64) -> Result<()> {
        let target = &self.blocking.target;
        let is_short = request.len() <= Plain::longest(target, request.address());
        let is_short = is_short && Plain::takes(target, request.address());
        if is_short && !self.polls() && !self.is_resting() {
            let done = ThreadRings::with_kind(self.kind(), self.blocking.target.queue_depth, |ring| {
                self.barrier_on(ring.core(), &mut request, offset)
            });
            if let Ok(Some(flushed)) = done {
                return self.flushed(flushed);
            }
        }
        self.one_anyhow(request, Durability::Cached)?;
        self.flushed(-libc::ECANCELED)
    }

    /// What the kernel says of a flush behind a write that was done, where the flush is done; where it is not, nothing is in
    /// flight, and the request has a result or is to be carried out anew.
    fn barrier_on(&self, core: &mut Core, request: &mut WriteRequest<'_>, offset: u64) -> Option<i32> {
        if !self.is_registered(core) {
            return None;
        }
        let (memory, length) = (request.address(), request.len());
        let chunk = self.pool.memory.chunk_of(memory, length);
        let piece = self.piece::<WriteRequest<'_>, _>(core, memory, chunk, length, offset, Durability::Cached);
        let flush = Operation { operation_flags: sys::IORING_FSYNC_DATASYNC, ..Operation::new(sys::IORING_OP_FSYNC) };
        let descriptor = || Target::descriptor(self.blocking.target.file.as_raw_fd());
        core.begin_chain(sys::IOSQE_IO_LINK as u8);
        let write = core.start(descriptor(), Plain::operation(piece), Held::Borrowed);
        let flush = write.as_ref().ok().map(|_| core.start(descriptor(), flush, Held::Nothing));
        let (Ok(write), Some(Ok(flush))) = (write, flush) else {
            core.abandon_chain(|_| ());
            return None;
        };
        core.end_chain();
        let (written, flushed) = (self.wait_for(core, write), self.wait_for(core, flush));
        if written == length as i32 {
            return Some(flushed);
        }
        // The flush was not begun.
        self.finish_one(core, request, write, Some(written), Durability::Cached).then_some(-libc::ECANCELED)
    }

    /// Looks at what the kernel said of a linked flush.
    fn flushed(&self, result: i32) -> Result<()> {
        let target = &self.blocking.target;
        count(&target.counters.flushes, 1);
        match -result {
            0 => Ok(()),
            // It was not begun, or rings can't flush this file.
            libc::ECANCELED | libc::EOPNOTSUPP | libc::EINVAL => target.sync(),
            libc::EINTR | libc::EAGAIN | libc::EBUSY => {
                count(&target.counters.retries, 1);
                target.sync()
            }
            // No second try: the kernel tells of data that it lost once.
            errno => Err(target.flush_error(std::io::Error::from_raw_os_error(errno))),
        }
    }
}

/// Why a device is not on io_uring.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is none.
    Unavailable(Unavailable),
    /// It would be one without something that must not be missing.
    Forbidden(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Degraded => Self::Forbidden(error),
            _ => Self::Unavailable(Unavailable::from_error("read through io_uring", error)),
        }
    }
}

/// The ring that a transfer goes through.
enum Lane<'a, E: Entries> {
    Own(&'a mut Core<NoBuffers, E>),
    Shared(&'a SharedRing<E>),
}

impl<E: Entries> Lane<'_, E> {
    fn with<R>(&mut self, work: impl FnOnce(&mut Core<NoBuffers, E>) -> R) -> Result<R> {
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
                // Where only others' entries were taken, nobody else may come to submit ours.
                while !ring.with(|core| core.submit().map(|_| core.queues().is_consumed()))?? {}
                ring.wait_until(|core| any_done(core, pieces))
            }
        }
    }

    /// Takes completions from a ring that may be one that can't be entered.
    #[cold]
    fn look(&mut self, pieces: &[Piece]) {
        match self {
            Lane::Own(core) => {
                // One call that failed need not mean that all do, and the kernel may post nothing unless it is entered.
                core.flush_completions();
                core.reap();
            }
            // Another thread may be able to wait for us; where none can, this looks at the queue all the same.
            Lane::Shared(ring) => drop(ring.wait_until(|core| any_done(core, pieces))),
        }
    }
}

/// Whether a piece has ended and can be taken.
fn any_done<E: Entries>(core: &Core<NoBuffers, E>, pieces: &[Piece]) -> bool {
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
struct Transfer<'a, R: Request, W: Wire> {
    device: &'a Uring<W>,
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
    durability: Durability,
    /// The target ended before a request did, which is still to be logged.
    ends_early: bool,
}

/// There is no room on the ring, or no lease: some of what is in flight has to end first.
struct NoRoom;

impl<'a, R: Request, W: Wire> Transfer<'a, R, W> {
    fn new(device: &'a Uring<W>, requests: &'a mut [R], durability: Durability) -> Self {
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
            durability,
            ends_early: false,
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
    fn drive(&mut self, lane: &mut Lane<'_, W::Entries>) -> Result<()> {
        let depth = W::window(&self.device.blocking.target, R::IS_READ);
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
    fn fill(&mut self, core: &mut Core<NoBuffers, W::Entries>, depth: usize) -> Option<Part> {
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

    fn start(&mut self, core: &mut Core<NoBuffers, W::Entries>, part: Part) -> Result<Ticket, NoRoom> {
        let target = &self.device.blocking.target;
        let pool = &self.device.pool;
        let request = &mut self.requests[part.request];
        let offset = request.first_block() * u64::from(target.block_size) + part.position as u64;
        // SAFETY: a part lies within its request.
        let memory = unsafe { request.address().add(part.position) };
        let (address, chunk, held) = if W::takes(target, memory) {
            (memory, pool.memory.chunk_of(memory, part.length), Held::Borrowed)
        } else {
            let mut buf = pool.lease().ok_or(NoRoom)?;
            count(&target.counters.bounces, 1);
            if !R::IS_READ {
                // SAFETY: `memory` is `length` bytes of the request that the caller lent us; a lease overlaps nothing.
                buf[..part.length].copy_from_slice(unsafe { std::slice::from_raw_parts(memory, part.length) });
            }
            (buf.address(), Some(buf.chunk()), Held::Lease(buf))
        };
        let piece = self.device.piece::<R, _>(core, address, chunk, part.length, offset, self.durability);
        if matches!(held, Held::Borrowed) {
            if let Some(ticket) = W::start_borrowed(core, target, piece) {
                return Ok(ticket);
            }
        }
        W::start(core, target, piece, held).ok_or(NoRoom)
    }

    /// Takes what has ended.
    fn collect(&mut self, core: &mut Core<NoBuffers, W::Entries>) {
        let mut index = 0;
        while let Some(piece) = self.pieces.get(index) {
            let part = piece.part;
            match core.take(piece.ticket) {
                Some(finished) => {
                    self.pieces.swap_remove(index);
                    self.finish(part, W::moved(finished.result, part.length), &finished.held);
                }
                None => index += 1,
            }
        }
    }

    /// Accounts for a piece that ended.
    fn finish(&mut self, part: Part, result: i32, held: &Held) {
        let target = &self.device.blocking.target;
        let request = &mut self.requests[part.request];
        let offset = request.first_block() * u64::from(target.block_size) + part.position as u64;
        let Ok(moved) = usize::try_from(result) else {
            return self.finish_failed(part, -result);
        };
        if let (Held::Lease(buf), true) = (held, R::IS_READ) {
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
        match target.account(R::NAME, offset, moved, part.length) {
            Err(error) => {
                self.ends_early = true;
                request.set_result(Err(error));
            }
            Ok(kept) => {
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
    }

    /// Accounts for a piece that the kernel did not carry out.
    #[cold]
    fn finish_failed(&mut self, part: Part, errno: i32) {
        let target = &self.device.blocking.target;
        match errno {
            // Withdrawn; or the thread that submitted it for others has ended; or the kernel may have no thread for what it
            // can't do at once, and will give it back the next time as well.
            libc::ECANCELED if part.tries < MOST_TRIES => self.again.push(Part { tries: part.tries + 1, ..part }),
            libc::ECANCELED => self.by_hand.push(part),
            libc::EINTR | libc::EAGAIN | libc::EBUSY if self.setbacks.may_try_again() => self.again.push(part),
            libc::EOPNOTSUPP if self.device.polls() => {
                self.again.push(part);
                self.polling_refused = true;
                return;
            }
            errno if part.tries < MOST_TRIES && W::may_pass(errno) => {
                self.again.push(Part { tries: part.tries + 1, ..part });
            }
            errno => {
                let request = &mut self.requests[part.request];
                let offset = request.first_block() * u64::from(target.block_size) + part.position as u64;
                return request.set_result(Err(W::error(target, R::NAME, offset, errno)));
            }
        }
        count(&target.counters.retries, 1);
    }

    /// After the ring failed: takes back what the kernel has not seen, and waits for the end of the rest.
    #[cold]
    fn take_back(&mut self, lane: &mut Lane<'_, W::Entries>) {
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
            let durable = self.durability == Durability::Fua;
            // SAFETY: as above, for reading.
            self.device.blocking.write(unsafe { std::slice::from_raw_parts(memory, part.length) }, offset, durable)
        };
        if let Err(error) = result {
            request.set_result(Err(error));
        }
    }

    /// Says of every request that has not failed that it did so for that reason.
    #[cold]
    fn fail(&mut self, error: &Error) {
        self.requests.iter_mut().filter(|request| request.result().is_none()).for_each(|request| {
            request.set_result(Err(error.clone()));
        });
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

impl<R: Request, W: Wire> Drop for Transfer<'_, R, W> {
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
