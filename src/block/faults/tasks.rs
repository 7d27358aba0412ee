//! Programs on futures, with many in flight, on a device whose disk has faults: on the process's own rings, on a reactor's, and
//! on the device's threads.
//!
//! A small executor polls what was woken, and now and then what was not. What is looked at: each future ends once, with its own
//! memory and error, or none where none happened; what it found and left is what [`flight`](super::flight) says; whoever waits
//! is woken; one that has ended when its time is over has its result; those that were dropped, at any time, and those whose
//! time was over leave no place taken and nothing in flight; and rings are closed with their device.

#[cfg(uring)]
use std::fs::File;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::disk::{Disk, Fault, Nature, Temper};
use super::flight::{Flight, What};
#[cfg(uring)]
use super::kernel;
use super::programs::{Below, Made, make_device, temper};
use super::watch::Watch;
use crate::block::{AlignedBuffer, BlockDevice, Device, FlushFuture, TransferFuture};
#[cfg(uring)]
use crate::block::{Picked, Reactor};
use crate::error::{Error, ErrorKind};
use crate::random::{Random, in_thread, run_programs};

/// Calls in all, unless the environment asks for another number.
const CALLS: u64 = 50_000;
/// Calls of one program, on one device.
const PROGRAM: u64 = 400;
/// How long somebody who is to be woken is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rung by every waker.
#[derive(Default)]
struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

/// The waker of one task.
struct Task {
    is_woken: AtomicBool,
    bell: Arc<Bell>,
}

impl Task {
    fn new(bell: &Arc<Bell>) -> Arc<Self> {
        Arc::new(Self { is_woken: AtomicBool::new(false), bell: Arc::clone(bell) })
    }

    fn take(&self) -> bool {
        self.is_woken.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        *self.bell.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.bell.rung.notify_all();
    }
}

enum Any {
    Transfer(TransferFuture),
    Flush(FlushFuture),
}

/// A future that has not ended.
struct Running {
    tag: u64,
    future: Any,
    what: What,
    block: usize,
    memory: (usize, usize),
    number: u32,
    deadline: Option<Instant>,
    /// It was polled.
    is_begun: bool,
    task: Arc<Task>,
}

type Ended = (Option<AlignedBuffer>, Option<Error>);

impl Running {
    fn poll(&mut self) -> Poll<Ended> {
        let waker = Waker::from(Arc::clone(&self.task));
        let mut context = Context::from_waker(&waker);
        match &mut self.future {
            Any::Transfer(future) => Pin::new(future).poll(&mut context).map(|ended| match ended {
                Ok(buffer) => (Some(buffer), None),
                Err(failed) => {
                    let error = failed.error().clone();
                    (failed.into_buffer(), Some(error))
                }
            }),
            Any::Flush(future) => Pin::new(future).poll(&mut context).map(|ended| (None, ended.err())),
        }
    }
}

struct Program {
    random: Random,
    watch: Watch,
    descriptor: RawFd,
    nature: Nature,
    block_size: usize,
    running: Vec<Running>,
    kept: Vec<AlignedBuffer>,
    #[cfg(uring)]
    reactor: Option<Reactor>,
    #[cfg_attr(not(uring), allow(dead_code))]
    reactor_task: Arc<Task>,
    bell: Arc<Bell>,
    device: Device,
    disk: Arc<Disk>,
    flight: Flight,
    tags: u64,
    temper: Temper,
    #[cfg(uring)]
    number: u32,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.running.clear();
        Disk::remove(self.descriptor);
    }
}

impl Program {
    fn new(mut random: Random, below: Below, has_reactor: bool) -> Self {
        let made = make_device(&mut random, below, true);
        let mut flight = Flight::new(&made.disk, made.nature, made.block_size, &mut random);
        let temper = temper(&mut random, below);
        flight.breaks = temper.breaks != 0;
        let Made { descriptor, nature, block_size, device, disk, .. } = made;
        let bell = Arc::<Bell>::default();
        let reactor_task = Task::new(&bell);
        // It is to turn before it can be woken.
        reactor_task.is_woken.store(true, Ordering::Release);
        #[cfg(not(uring))]
        let _ = has_reactor;
        #[cfg(uring)]
        if let (true, Some(rings)) = (has_reactor, kernel::entered()) {
            // A reactor is for a thread that has rings of its own.
            kernel::enter(kernel::Rings { are_shared: false, ..rings });
        }
        Self {
            random,
            watch: Watch::new(),
            descriptor,
            nature,
            block_size,
            running: Vec::new(),
            kept: Vec::new(),
            #[cfg(uring)]
            reactor: has_reactor.then(|| Reactor::new().expect("a reactor")),
            reactor_task,
            bell,
            device,
            disk,
            flight,
            tags: 0,
            temper,
            #[cfg(uring)]
            number: made.number,
        }
    }

    fn run(&mut self) {
        self.watch.step(format_args!("{:?} {:?}", self.nature, self.temper));
        for _ in 0..PROGRAM {
            let is_calm = self.random.once_in(16);
            self.disk.state().temper = if is_calm { Temper::default() } else { self.temper.clone() };
            self.step();
            if self.random.once_in(64) {
                self.check_works();
            }
        }
        self.check_works();
        self.flight.check_disk();
    }

    fn step(&mut self) {
        match self.random.below(32) {
            0..=13 => {
                self.start();
                if !self.random.once_in(4) && !self.running.is_empty() {
                    self.poll(self.running.len() - 1);
                }
            }
            14..=19 => {
                if let Some(index) = self.woken() {
                    self.poll(index);
                }
            }
            20 | 21 => {
                if let Some(index) = self.any() {
                    self.poll(index);
                }
            }
            22 | 23 => {
                if let Some(index) = self.any() {
                    self.give_up(index);
                }
            }
            24 | 25 => self.turn(),
            26 | 27 => drop(self.pass_time()),
            28 => self.poll_late(),
            #[cfg(uring)]
            29 if self.reactor.is_some() && !self.flight.is_apart && self.random.once_in(32) => self.crowd(),
            29 => drop(self.kept.pop()),
            30 => {
                while let Some(index) = self.woken() {
                    self.poll(index);
                }
            }
            _ => self.finish(),
        }
    }

    fn any(&mut self) -> Option<usize> {
        (!self.running.is_empty()).then(|| self.random.below(self.running.len()))
    }

    fn woken(&self) -> Option<usize> {
        self.running.iter().position(|running| running.task.take())
    }

    fn start(&mut self) {
        self.tags += 1;
        let tag = self.tags;
        let what = self.random.pick(&[What::Read, What::Read, What::Write, What::Write, What::WriteFua, What::Flush]);
        let deadline = self.random.once_in(6).then(|| {
            let micros = self.random.pick(&[0, 50, 1000, 1000, 1_000_000]);
            Instant::now() + Duration::from_micros(micros)
        });
        let task = Task::new(&self.bell);
        let is_begun = false;
        if what == What::Flush {
            if self.random.once_in(2) {
                let future = self.device.flush_async();
                let future = Any::Flush(match deadline {
                    Some(at) => future.deadline(at),
                    None => future,
                });
                self.watch.step(format_args!("{tag}: flush"));
                let memory = (0, 0);
                self.running.push(Running { tag, future, what, block: 0, memory, number: 0, deadline, is_begun, task });
            }
            return;
        }
        let blocks = 1 + self.random.below(4);
        let mut buffer = match self.kept.pop() {
            Some(buffer) if self.random.once_in(2) => buffer,
            _ => self.device.aligned_buffer(blocks * self.block_size).expect("memory"),
        };
        let blocks = buffer.len() / self.block_size;
        let block = self.flight.place(&mut self.random, blocks);
        // One that was made and not polled is on its way there, too.
        let is_apart = |running: &Running, block| {
            let sectors = running.memory.1 / self.block_size;
            running.what == What::Flush || running.block + sectors <= block || block + blocks <= running.block
        };
        let is_free = |block: &usize| !self.flight.is_apart || self.running.iter().all(|known| is_apart(known, *block));
        let Some(block) = block.filter(is_free) else { return self.keep(buffer) };
        let number = self.flight.prepare(&mut buffer, block);
        let memory = (buffer.as_ptr().addr(), buffer.len());
        self.watch
            .step(format_args!("{tag}: {what:?} of {blocks} blocks from {block}, as {number}, until {deadline:?}"));
        let first = block as u64;
        let future = match what {
            What::Read => self.device.read_async(first, buffer),
            What::Write => self.device.write_async(first, buffer),
            _ => self.device.write_fua_async(first, buffer),
        };
        let future = Any::Transfer(match deadline {
            Some(at) => future.deadline(at),
            None => future,
        });
        self.running.push(Running { tag, future, what, block, memory, number, deadline, is_begun, task });
    }

    /// More are started than a ring has room for, which those on a reactor stay until it turns.
    #[cfg(uring)]
    fn crowd(&mut self) {
        self.watch.step(format_args!("a crowd"));
        for _ in 0..600 {
            self.start();
            if let Some(last) = self.running.len().checked_sub(1).filter(|last| !self.running[*last].is_begun) {
                self.poll(last);
            }
            if self.running.len() > 280 {
                break;
            }
        }
    }

    fn keep(&mut self, buffer: AlignedBuffer) {
        if self.kept.len() < 8 {
            self.kept.push(buffer);
        }
    }

    fn poll(&mut self, index: usize) {
        let running = &mut self.running[index];
        self.watch.step(format_args!("poll {}", running.tag));
        if !running.is_begun {
            running.is_begun = true;
            let Running { tag, what, block, memory: (address, length), number, .. } = *running;
            self.flight.start_at(tag, what, block, address, length, number);
        }
        let Poll::Ready((buffer, error)) = running.poll() else { return };
        let Running { tag, deadline, .. } = self.running.swap_remove(index);
        self.watch.step(format_args!("{tag} ended: {error:?}"));
        match &error {
            Some(error) if error.kind() == ErrorKind::TimedOut => {
                assert!(deadline.is_some_and(|at| Instant::now() >= at), "{tag} timed out too early");
                self.flight.lose(tag);
            }
            error => self.flight.end(tag, error.as_ref(), buffer.as_deref()),
        }
        buffer.into_iter().for_each(|buffer| self.keep(buffer));
    }

    /// Drops a future, whatever it is at.
    fn give_up(&mut self, index: usize) {
        let running = self.running.swap_remove(index);
        self.watch.step(format_args!("drop {}", running.tag));
        self.flight.lose(running.tag);
    }

    /// Polls one that was woken before its time was over, when it is: the result is there.
    fn poll_late(&mut self) {
        let now = Instant::now();
        let soon = |at: Instant| at > now && at - now < Duration::from_millis(5);
        let is_it = |running: &Running| {
            running.deadline.is_some_and(soon) && running.is_begun && running.task.is_woken.load(Ordering::Acquire)
        };
        let Some(index) = self.running.iter().position(is_it) else { return };
        let tag = self.running[index].tag;
        self.watch.step(format_args!("wait until the time of {tag} is over"));
        // One that waits in line, or gave way to others, is woken before it has begun.
        let waits = format!(
            "{:?}",
            match &self.running[index].future {
                Any::Transfer(future) => format!("{future:?}"),
                Any::Flush(future) => format!("{future:?}"),
            }
        )
        .contains("waits for");
        let was_early = self.running[index].deadline.is_some_and(|at| Instant::now() < at);
        if waits || !was_early {
            return;
        }
        std::thread::sleep(Duration::from_millis(6));
        let lost = self.flight.lost;
        self.poll(index);
        assert_eq!(self.flight.lost, lost, "{tag} had ended before its time was over, and its result is lost");
    }

    fn turn(&mut self) {
        #[cfg(uring)]
        if let Some(reactor) = &self.reactor {
            self.watch.step(format_args!("turn"));
            self.reactor_task.take();
            reset(reactor);
            let waker = Waker::from(Arc::clone(&self.reactor_task));
            if let Err(error) = reactor.turn(&Context::from_waker(&waker)) {
                let breaks = self.disk.state().temper.breaks != 0;
                assert!(breaks, "a turn failed: {error}");
                // It is to be tried again.
                Waker::from(Arc::clone(&self.reactor_task)).wake();
            }
        }
    }

    /// Whether anything ended.
    fn pass_time(&mut self) -> bool {
        #[cfg(uring)]
        if self.reactor.is_some() {
            let mut random = Random::new(self.random.next());
            return kernel::pass_time(self.number, &mut random);
        }
        false
    }

    /// Polls what is woken until all have ended.
    fn finish(&mut self) {
        self.watch.step(format_args!("finish {}", self.running.len()));
        for index in (0..self.running.len()).rev() {
            if !self.running[index].is_begun {
                self.poll(index);
            }
        }
        while !self.running.is_empty() {
            let rings = *self.bell.rings.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = self.woken() {
                self.poll(index);
            } else if !self.attend() {
                self.sleep(rings);
            }
        }
    }

    /// Does what an event loop does for a reactor; whether there was anything to do.
    fn attend(&mut self) -> bool {
        #[cfg(uring)]
        if let Some(reactor) = &self.reactor {
            let is_told = reset(reactor);
            if self.reactor_task.take() || is_told {
                self.turn();
                return true;
            }
            return self.pass_time();
        }
        false
    }

    /// Waits until somebody is woken.
    fn sleep(&mut self, rings: u64) {
        #[cfg(uring)]
        assert!(
            self.reactor.is_none() || self.running.iter().any(|running| running.deadline.is_some()),
            "{} are in flight, and nobody is woken",
            self.running.len()
        );
        let known = self.bell.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.bell.rung.wait_timeout_while(known, PATIENCE, |now| *now == rings);
        let timed_out = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        #[cfg(uring)]
        let rings = kernel::describe(self.number);
        assert!(!timed_out, "{} are in flight, and nobody is woken: {rings}", self.running.len());
    }

    /// What was dropped ends, too.
    fn settle(&mut self) {
        self.watch.step(format_args!("settle"));
        let end = Instant::now() + PATIENCE;
        while self.device.stats().in_flight != 0 || Arc::strong_count(&self.device.0) != 1 {
            assert!(Instant::now() < end, "what was dropped does not end: {:?}", self.device.stats());
            if !self.attend() {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        #[cfg(uring)]
        kernel::end_left(&self.disk);
        self.flight.settle();
    }

    /// Nothing is in flight.
    fn check_idle(&mut self) {
        let stats = self.device.stats();
        let (counted, counts) = (&self.flight.counted, self.disk.state().counts);
        let started = (stats.in_flight, stats.reads, stats.writes, stats.flushes);
        assert_eq!(started, (0, counted.reads, counted.writes, counted.flushes), "{stats:?}");
        #[cfg(uring)]
        if let Picked::Uring(uring) = &*self.device.0 {
            let are_idle = self.reactor.as_ref().is_none_or(Reactor::is_idle) && uring.hubs.are_idle();
            assert!(are_idle, "places are taken, and nothing is in flight");
        }
        self.flight.check_disk();
        self.flight.check_all_told();
        let cancels = self.temper.kinds.contains(&Fault::Errno(libc::ECANCELED));
        if self.flight.lost == 0 {
            let least = counted.failures.min(if self.flight.breaks { 0 } else { u64::MAX });
            assert!((least..=counted.failures).contains(&stats.failures), "{stats:?}, and not {counted:?}");
            assert_eq!(stats.short_transfers, counts.short, "{stats:?}");
            let least = if cancels { counts.passing - counts.passing / 4 } else { counts.passing };
            // What is taken back from a ring that failed is tried again, too.
            let most = if self.flight.breaks { u64::MAX } else { counts.passing };
            assert!((least..=most).contains(&stats.retries), "{} of {counts:?}", stats.retries);
        } else {
            let most = counted.failures + self.flight.lost;
            assert!(stats.failures <= most && (self.flight.breaks || stats.failures >= counted.failures), "{stats:?}");
        }
    }

    /// Without faults everything works, whatever there was before.
    fn check_works(&mut self) {
        self.watch.step(format_args!("without faults"));
        self.disk.state().temper = Temper::default();
        self.finish();
        self.settle();
        self.check_idle();
        let failures = self.flight.counted.failures;
        for _ in 0..8 {
            self.start();
        }
        self.finish();
        self.settle();
        self.check_idle();
        assert_eq!(self.flight.counted.failures, failures, "a disk without faults failed");
    }
}

fn run(below: Below, has_reactor: bool) {
    run_programs(CALLS, |random| {
        in_thread(|| {
            let mut program = Program::new(random, below, has_reactor);
            program.run();
            #[cfg(uring)]
            {
                let number = program.number;
                drop(program);
                check_rings_are_closed(number);
            }
        });
        PROGRAM
    });
}

/// Reads the descriptor of a reactor; whether it was written to.
#[cfg(uring)]
fn reset(reactor: &Reactor) -> bool {
    let descriptor = reactor.completion_fd().try_clone_to_owned().expect("a descriptor");
    crate::block::platform::reset(&File::from(descriptor))
}

/// Those of the process are, when no device has them any more; this thread's own are its own.
#[cfg(uring)]
fn check_rings_are_closed(number: u32) {
    let end = Instant::now() + PATIENCE;
    let own = crate::ThreadRings::count();
    while kernel::open_rings(number) > 1 {
        assert!(Instant::now() < end, "{} rings are open, of {own} that threads have", kernel::open_rings(number));
        std::thread::sleep(Duration::from_micros(50));
    }
}

#[test]
fn futures_on_calls_that_fail_lose_nothing() {
    run(Below::Calls, false);
}

#[cfg(uring)]
#[test]
fn futures_on_rings_that_fail_lose_nothing() {
    run(Below::Ring, false);
}

#[cfg(uring)]
#[test]
fn futures_of_reactors_whose_ring_fails_lose_nothing() {
    run(Below::Ring, true);
}
