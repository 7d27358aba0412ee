//! Programs on queues, with many requests in flight, on a device whose disk has faults.
//!
//! What is looked at: each request ends once, with its own number, memory and error, or none where none happened; what it found
//! and left is what [`flight`](super::flight) says; what is refused comes back; the queue and the device count what is in flight
//! and what was done; and when everything was taken nothing is in flight, and the next request works. Queues are dropped with
//! requests in flight.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{Disk, Fault, Nature, Temper};
use super::flight::{Flight, What};
#[cfg(uring)]
use super::kernel;
use super::programs::{Below, Made, make_device, temper};
use super::watch::Watch;
use crate::block::{AlignedBuffer, BlockDevice, Completed, Device, Queue};
use crate::error::ErrorKind;
use crate::random::{Random, in_thread, run_programs};

/// Calls in all, unless the environment asks for another number.
const CALLS: u64 = 24_000;
/// Calls of one program, on one device.
const PROGRAM: u64 = 400;

struct Program {
    random: Random,
    watch: Watch,
    descriptor: RawFd,
    nature: Nature,
    block_size: usize,
    queue: Option<Queue>,
    buffer_size: usize,
    kept: Vec<AlignedBuffer>,
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
        self.queue = None;
        Disk::remove(self.descriptor);
    }
}

impl Program {
    fn new(mut random: Random, below: Below) -> Self {
        let made = make_device(&mut random, below, true);
        let mut flight = Flight::new(&made.disk, made.nature, made.block_size, &mut random);
        let temper = temper(&mut random, below);
        flight.breaks = temper.breaks != 0;
        let Made { descriptor, nature, block_size, device, disk, .. } = made;
        Self {
            random,
            watch: Watch::new(),
            descriptor,
            nature,
            block_size,
            queue: None,
            buffer_size: 0,
            kept: Vec::new(),
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
        self.open();
        for _ in 0..PROGRAM {
            let is_calm = self.random.once_in(16);
            self.disk.state().temper = if is_calm { Temper::default() } else { self.temper.clone() };
            self.step();
            if self.random.once_in(64) {
                self.check_works();
            }
        }
        self.check_works();
        self.close();
        self.settle();
        self.flight.check_disk();
    }

    fn open(&mut self) {
        let depth = self.random.pick(&[1, 2, 3, 8, 17, 64]);
        self.buffer_size = self.random.pick(&[1, 2, 4]) * self.block_size;
        self.watch.step(format_args!("a queue of depth {depth}"));
        // A ring that can't be made is no fault of a disk.
        self.disk.state().temper = Temper::default();
        let queue = self.device.queue(depth, self.buffer_size).expect("a queue");
        assert_eq!((queue.depth(), queue.in_flight()), (depth as usize, 0));
        self.queue = Some(queue);
    }

    fn queue(&mut self) -> &mut Queue {
        self.queue.as_mut().expect("made in `open`")
    }

    fn step(&mut self) {
        match self.random.below(32) {
            0..=15 => self.start(),
            16 => {
                self.watch.step(format_args!("submit"));
                let result = self.queue().submit();
                self.check_submitted(result);
            }
            17 | 18 => {
                let count = self.random.below(self.flight.in_flight() + 2);
                self.watch.step(format_args!("submit and wait for {count}"));
                let result = self.queue().submit_and_wait(count);
                self.check_submitted(result);
            }
            19 => {
                let (count, limit) = (self.random.below(8), Duration::from_micros(self.random.below(200) as u64));
                self.watch.step(format_args!("submit and wait for {count}, for {limit:?}"));
                let result = self.queue().submit_and_wait_timeout(count, limit);
                self.check_submitted(result);
            }
            20..=22 => {
                #[cfg(uring)]
                {
                    let (number, mut random) = (self.number, Random::new(self.random.next()));
                    kernel::pass_time(number, &mut random);
                }
            }
            23..=27 => {
                let most = 1 + self.random.below(8);
                self.watch.step(format_args!("poll {most} times"));
                for _ in 0..most {
                    let Some(completed) = self.queue().poll() else { break };
                    self.take(completed);
                }
            }
            28 | 29 => self.wait(),
            30 => drop(self.kept.pop()),
            _ if self.random.once_in(8) => self.drop_queue(),
            _ => self.take_all(),
        }
        let (counted, known) = (self.queue().in_flight(), self.flight.in_flight());
        assert_eq!(counted, known, "requests are in flight");
    }

    fn check_submitted(&self, result: crate::Result<()>) {
        let Err(error) = result else { return };
        let breaks = self.disk.state().temper.breaks != 0;
        assert!(breaks, "a submit failed: {error}");
    }

    fn memory(&mut self) -> Option<AlignedBuffer> {
        if self.random.once_in(3) {
            if let Some(buffer) = self.kept.pop() {
                return Some(buffer);
            }
        }
        if self.random.once_in(3) {
            let blocks = 1 + self.random.below(4);
            return Some(self.device.aligned_buffer(blocks * self.block_size).expect("memory"));
        }
        self.queue().buffer()
    }

    fn start(&mut self) {
        self.tags += 1;
        let tag = self.tags;
        let is_full = self.flight.in_flight() == self.queue().depth();
        let what = self.random.pick(&[What::Read, What::Read, What::Write, What::Write, What::WriteFua, What::Flush]);
        if what == What::Flush {
            if !self.random.once_in(2) {
                return;
            }
            self.watch.step(format_args!("{tag}: flush"));
            match self.queue().flush(tag) {
                Ok(()) => self.flight.start(tag, what, 0, &[], 0),
                Err(error) => self.check_refused(is_full, &error),
            }
            assert!(!is_full || !self.flight.requests.contains_key(&tag), "a full queue took a flush");
            return;
        }
        let Some(mut buffer) = self.memory() else { return };
        let blocks = buffer.len() / self.block_size;
        let Some(block) = self.flight.place(&mut self.random, blocks) else { return self.keep(buffer) };
        if self.random.once_in(64) {
            let before = buffer.as_ptr();
            let past = self.flight.blocks() as u64;
            let refused = self.queue().read(past, buffer, tag).expect_err("it is past the end");
            let kind = if is_full { ErrorKind::Full } else { ErrorKind::OutOfRange };
            assert_eq!(refused.error().kind(), kind);
            let buffer = refused.into_buffer().expect("what is refused comes back");
            assert_eq!(buffer.as_ptr(), before);
            return self.keep(buffer);
        }
        let number = self.flight.prepare(&mut buffer, block);
        self.watch.step(format_args!("{tag}: {what:?} of {blocks} blocks from {block}, as {number}"));
        // What is in it is known, and where it is: it is not used before it has come back.
        let (memory, length) = (buffer.as_ptr(), buffer.len());
        let first = block as u64;
        let started = match what {
            What::Read => self.queue().read(first, buffer, tag),
            What::Write => self.queue().write(first, buffer, tag),
            _ => self.queue().write_fua(first, buffer, tag),
        };
        match started {
            Ok(()) => {
                assert!(!is_full, "a full queue took a request");
                self.flight.start_at(tag, what, block, memory.addr(), length, number);
            }
            Err(refused) => {
                self.check_refused(is_full, refused.error());
                let buffer = refused.into_buffer().expect("what is refused comes back");
                assert_eq!((buffer.as_ptr(), buffer.len()), (memory, length));
                self.keep(buffer);
            }
        }
    }

    fn check_refused(&self, is_full: bool, error: &crate::Error) {
        // Where a submit fails there may be no room for one more entry.
        let is_known = is_full || self.flight.breaks;
        assert!(is_known && error.kind() == ErrorKind::Full, "refused: {error}");
    }

    fn keep(&mut self, buffer: AlignedBuffer) {
        if self.kept.len() < 8 {
            self.kept.push(buffer);
        }
    }

    fn take(&mut self, completed: Completed) {
        let Completed { user_data, result, buffer } = completed;
        self.watch.step(format_args!("{user_data} ended: {result:?}"));
        self.flight.end(user_data, result.as_ref().err(), buffer.as_deref());
        buffer.into_iter().for_each(|buffer| self.keep(buffer));
        if self.flight.in_flight() == 0 {
            self.check_idle();
        }
    }

    fn wait(&mut self) {
        self.watch.step(format_args!("wait"));
        match self.queue().wait() {
            Ok(Some(completed)) => self.take(completed),
            Ok(None) => assert_eq!(self.flight.in_flight(), 0, "requests are in flight, and none is waited for"),
            Err(error) => self.check_submitted(Err(error)),
        }
    }

    fn take_all(&mut self) {
        if !self.flight.breaks && self.random.once_in(2) {
            return self.poll_all();
        }
        while self.flight.in_flight() != 0 {
            self.wait();
        }
    }

    /// Takes everything without ever waiting: what goes on does so by itself.
    fn poll_all(&mut self) {
        self.watch.step(format_args!("submit, and poll for all"));
        let result = self.queue().submit();
        self.check_submitted(result);
        let end = Instant::now() + Duration::from_secs(20);
        while self.flight.in_flight() != 0 {
            if let Some(completed) = self.queue().poll() {
                self.take(completed);
                continue;
            }
            assert!(Instant::now() < end, "{} are in flight, and do not end", self.flight.in_flight());
            #[cfg(uring)]
            {
                let (number, mut random) = (self.number, Random::new(self.random.next()));
                if kernel::pass_time(number, &mut random) {
                    continue;
                }
            }
            std::thread::yield_now();
        }
    }

    fn drop_queue(&mut self) {
        self.close();
        if self.random.once_in(2) {
            self.settle();
        }
        self.open();
    }

    /// Drops the queue, whatever is in flight.
    fn close(&mut self) {
        self.watch.step(format_args!("drop the queue with {} in flight", self.flight.in_flight()));
        self.queue = None;
        let tags: Vec<_> = self.flight.requests.keys().copied().collect();
        tags.into_iter().for_each(|tag| self.flight.lose(tag));
        assert_eq!(self.device.stats().in_flight, 0, "the queue is gone");
    }

    /// What dropped queues had in flight ends.
    fn settle(&mut self) {
        self.watch.step(format_args!("settle"));
        let end = Instant::now() + Duration::from_secs(20);
        // Threads that are at it have the device.
        let others = 1 + usize::from(self.queue.is_some());
        while Arc::strong_count(&self.device.0) != others {
            assert!(Instant::now() < end, "what a dropped queue had in flight does not end");
            std::thread::yield_now();
        }
        #[cfg(uring)]
        kernel::end_left(&self.disk);
        self.flight.settle();
    }

    /// Everything was taken.
    fn check_idle(&mut self) {
        let stats = self.device.stats();
        let counted = &self.flight.counted;
        assert_eq!(stats.in_flight, 0, "{stats:?}");
        let done = (stats.reads, stats.writes, stats.flushes, stats.failures);
        assert_eq!(done, (counted.reads, counted.writes, counted.flushes, counted.failures), "{stats:?}");
        if self.flight.requests.is_empty() {
            self.flight.check_disk();
            self.flight.check_all_told();
        }
        let counts = self.disk.state().counts;
        let cancels = self.temper.kinds.contains(&Fault::Errno(libc::ECANCELED));
        if self.flight.lost == 0 {
            assert_eq!(stats.short_transfers, counts.short, "{stats:?}");
            let least = if cancels { counts.passing - counts.passing / 4 } else { counts.passing };
            assert!((least..=counts.passing).contains(&stats.retries), "{} of {counts:?}", stats.retries);
        }
    }

    /// Without faults everything works, whatever there was before.
    fn check_works(&mut self) {
        self.disk.state().temper = Temper::default();
        self.watch.step(format_args!("without faults"));
        self.take_all();
        self.settle();
        self.check_idle();
        let buffer = self.device.aligned_buffer(self.block_size).expect("memory");
        self.kept = vec![buffer];
        let failures = self.flight.counted.failures;
        let depth = self.queue().depth();
        for _ in 0..4 * depth {
            self.start();
            if self.flight.in_flight() == depth {
                break;
            }
        }
        self.take_all();
        self.check_idle();
        self.tags += 1;
        let tag = self.tags;
        self.queue().flush(tag).expect("there is room");
        self.flight.start(tag, What::Flush, 0, &[], 0);
        self.take_all();
        assert_eq!(self.flight.counted.failures, failures, "a disk without faults failed");
        #[cfg(uring)]
        if let crate::block::Picked::Uring(_) = &*self.device.0 {
            let pool = self.queue().depth();
            self.kept.clear();
            let queue = self.queue.as_ref().expect("made in `open`");
            let all: Vec<_> = (0..pool).map_while(|_| queue.buffer()).collect();
            assert_eq!(all.len(), pool, "buffers of the queue are missing");
        }
    }
}

fn run(below: Below) {
    run_programs(CALLS, |random| {
        in_thread(|| Program::new(random, below).run());
        PROGRAM
    });
}

#[test]
fn queues_on_calls_that_fail_lose_nothing() {
    run(Below::Calls);
}

#[cfg(uring)]
#[test]
fn queues_on_rings_that_fail_lose_nothing() {
    run(Below::Ring);
}

/// However often something passes in the life of a queue: each time it is over.
#[cfg(uring)]
#[test]
fn what_passed_is_not_counted_any_more() {
    for seed in [1, 2] {
        in_thread(move || {
            let mut program = Program::new(Random::new(seed), Below::Ring);
            program.open();
            program.disk.state().temper = Temper { submits: 2, ..Temper::default() };
            // More of them fail than one submit may.
            for tag in 0..15_000 {
                let buffer = program.queue().buffer().expect("all are there");
                program.queue().read(0, buffer, tag).expect("there is room");
                let ended = program.queue().wait().expect("what failed has passed");
                ended.expect("one is in flight").result.expect("nothing is wrong with the disk");
            }
        });
    }
}
