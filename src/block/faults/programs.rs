//! Programs that chance writes, on a device whose disk has faults.
//!
//! What is looked at after every step: what was read and what was written is what a model in memory says; a write that failed
//! left each sector old or new, and nothing else changed; an error is told where it happened, with its number, and no error is
//! told where none happened; what is on stable storage is; nothing is in flight, and no lease is missing; what is counted is
//! what happened; and without faults the device works.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
#[cfg(uring)]
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::disk::{Counts, Disk, Fault, Nature, PASSING, RUBBISH, Temper};
#[cfg(uring)]
use super::kernel;
use crate::block::file::Blocking;
use crate::block::target::Target;
#[cfg(uring)]
use crate::block::uring::Uring;
use crate::block::{BlockDevice, Device, Options, Picked, ReadRequest, WriteRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::random::{Random, in_thread, run_programs};

/// Steps in all, unless the environment asks for another number.
const STEPS: u64 = 110_000;
/// Bytes on a disk, at most.
pub(super) const LARGEST: usize = 128 << 10;
/// Steps of one program, on one device.
const PROGRAM: u64 = 400;

/// What a device is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    /// `pread` and `pwrite`.
    Calls,
    /// A ring.
    #[cfg(uring)]
    Ring,
}

/// What a write was to do, and how it ended.
struct Written<'a> {
    first: u64,
    data: &'a [u8],
    result: Result<()>,
    durable: bool,
}

struct Program {
    random: Random,
    /// Of the file that stands for the disk.
    descriptor: RawFd,
    nature: Nature,
    block_size: usize,
    device: Device,
    disk: Arc<Disk>,
    model: Vec<u8>,
    /// What the device counted, as it should have.
    failures: u64,
    temper: Temper,
}

/// The disk is gone before its descriptor can be another file's.
impl Drop for Program {
    fn drop(&mut self) {
        Disk::remove(self.descriptor);
    }
}

/// Memory for a transfer, aligned or not.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Memory {
    /// With something in it.
    fn new(random: &mut Random, length: usize) -> Self {
        static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
        let noise = NOISE.get_or_init(|| {
            let mut random = Random::new(1);
            (0..2 * LARGEST).map(|_| random.next() as u8).collect()
        });
        let mut memory = Self { bytes: vec![0; length + 8192], start: 0, length };
        let aligned = memory.bytes.as_ptr().align_offset(4096);
        memory.start = aligned + random.pick(&[0, 0, 0, 4, 512, 1, 2048, 777]);
        memory.get().copy_from_slice(&noise[random.below(LARGEST)..][..length]);
        memory
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.length]
    }
}

/// A device on a disk in memory.
pub(super) struct Made {
    /// Of the file that stands for the disk.
    pub(super) descriptor: RawFd,
    pub(super) nature: Nature,
    pub(super) block_size: usize,
    pub(super) device: Device,
    pub(super) disk: Arc<Disk>,
    /// Of its rings.
    #[cfg(uring)]
    pub(super) number: u32,
}

/// Makes a device; its rings are closed with operations in flight where that `may_be`.
pub(super) fn make_device(random: &mut Random, below: Below, may_be_left: bool) -> Made {
    #[cfg(not(uring))]
    let _ = may_be_left;
    let file = File::open("/dev/null").expect("/dev/null");
    let descriptor = file.as_raw_fd();
    let (direct, unit, alignment) =
        random.pick(&[(true, 512, 4), (true, 512, 512), (true, 4096, 4096), (true, 512, 4096), (false, 1, 1)]);
    let block_size = random.pick(&[512, 1024, 4096, 4096, 16384]).max(unit);
    let blocks = LARGEST / block_size;
    let nature = Nature { bytes: blocks * block_size, direct, unit, alignment };
    let disk = Disk::new(&file, nature, random);
    let mut options = Options::new().block_size(block_size as u32).direct(direct);
    options = options.queue_depth(random.pick(&[1, 2, 3, 8, 64])).pool_size(random.pick(&[1, 4, 64]) * block_size);
    #[cfg(uring)]
    let number = if below == Below::Ring {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        kernel::enter(kernel::Rings {
            number,
            descriptor,
            seed: random.next(),
            are_shared: random.once_in(4),
            are_unregistered: random.once_in(4),
            are_sparse: random.once_in(2),
            are_fileless: may_be_left && random.once_in(16),
            may_be_left,
        });
        number
    } else {
        0
    };
    let target = Target::over(file, disk.geometry(), &options);
    let device = match below {
        Below::Calls => Device(Arc::new(Picked::File(Blocking::new(target), None))),
        #[cfg(uring)]
        Below::Ring => match Uring::over(target, &options) {
            Ok(uring) => Device(Arc::new(Picked::Uring(uring))),
            Err(refused) => panic!("no ring: {:?}", refused.1),
        },
    };
    Made {
        descriptor,
        nature,
        block_size,
        device,
        disk,
        #[cfg(uring)]
        number,
    }
}

/// Which faults there are in a program.
pub(super) fn temper(random: &mut Random, below: Below) -> Temper {
    let errnos = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ECANCELED, libc::EIO, libc::ENOMEM, libc::ENOSPC];
    let all = errnos.into_iter().map(Fault::Errno).chain([Fault::Short, Fault::Short, Fault::End]);
    let mut kinds: Vec<_> = all.collect();
    if random.once_in(2) {
        // Few kinds, so that one follows another of its own.
        kinds = (0..=random.below(3)).map(|_| random.pick(&kinds)).collect();
    }
    let on_ring = below != Below::Calls;
    Temper {
        faults: random.pick(&[2, 4, 16, 64]),
        kinds,
        submits: if on_ring { random.pick(&[0, 3, 16]) } else { 0 },
        breaks: if on_ring { random.pick(&[0, 0, 200]) } else { 0 },
        flushes: random.pick(&[0, 4]),
    }
}

impl Program {
    fn new(mut random: Random, below: Below) -> Self {
        let Made { descriptor, nature, block_size, device, disk, .. } = make_device(&mut random, below, false);
        let temper = temper(&mut random, below);
        let model = disk.state().contents.clone();
        Self { random, descriptor, nature, block_size, device, disk, model, failures: 0, temper }
    }

    fn run(&mut self) {
        for _ in 0..PROGRAM {
            let seed = self.random.next();
            let is_calm = self.random.once_in(16);
            {
                let mut state = self.disk.state();
                state.begin_step(seed);
                state.temper = if is_calm { Temper::default() } else { self.temper.clone() };
            }
            self.step();
            self.check_state();
            if self.random.once_in(32) {
                self.check_works();
            }
        }
        self.check_works();
    }

    fn blocks(&self) -> usize {
        self.nature.bytes / self.block_size
    }

    /// A run of blocks.
    fn run_of_blocks(&mut self) -> (u64, usize) {
        let first = self.random.below(self.blocks());
        let most = (self.blocks() - first).min(self.random.pick(&[1, 2, 8, 32]));
        (first as u64, (1 + self.random.below(most)) * self.block_size)
    }

    /// Runs that do not overlap, in any order.
    fn runs_apart(&mut self) -> Vec<(u64, usize)> {
        let (mut runs, mut at) = (Vec::new(), self.random.below(4));
        let most = self.random.pick(&[1, 4, 16, 80]);
        while at < self.blocks() && runs.len() < most {
            let count = (1 + self.random.below(3)).min(self.blocks() - at);
            let index = self.random.below(runs.len() + 1);
            runs.insert(index, (at as u64, count * self.block_size));
            at += count + self.random.below(3);
        }
        runs
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=2 => self.read_one(),
            3..=5 => self.write_one(),
            6 | 7 => self.read_several(),
            8..=10 => self.write_several(),
            11 => self.read_vectored(),
            12 => self.write_vectored(),
            13 => self.flush(),
            14 => self.write_zeroes(),
            _ => self.shrink(),
        }
    }

    // ---- steps

    fn read_one(&mut self) {
        let (first, length) = self.run_of_blocks();
        let mut memory = Memory::new(&mut self.random, length);
        let before = memory.get().to_vec();
        let result = if length == self.block_size {
            self.device.read_block(first, memory.get())
        } else {
            self.device.read_run(first, memory.get())
        };
        self.check_read(first, memory.get(), &before, &result);
        self.check_told(&[(first, length, result.err())]);
    }

    fn write_one(&mut self) {
        let (first, length) = self.run_of_blocks();
        let mut memory = Memory::new(&mut self.random, length);
        let data = &*memory.get();
        let durable = self.random.once_in(3);
        let result = match durable {
            true => self.device.write_run_fua(first, data),
            false => self.device.write_run(first, data),
        };
        self.check_writes(vec![Written { first, data, result, durable }]);
    }

    fn read_several(&mut self) {
        let overlap = self.random.once_in(2);
        let runs = match overlap {
            true => (0..1 + self.random.below(8)).map(|_| self.run_of_blocks()).collect(),
            false => self.runs_apart(),
        };
        let mut memory: Vec<_> = runs.iter().map(|(_, length)| Memory::new(&mut self.random, *length)).collect();
        let before: Vec<_> = memory.iter_mut().map(|memory| memory.get().to_vec()).collect();
        let mut requests: Vec<_> =
            runs.iter().zip(&mut memory).map(|((first, _), memory)| ReadRequest::new(*first, memory.get())).collect();
        let answer = self.device.read_blocks(&mut requests);
        let results: Vec<_> = requests.iter().map(|request| request.result().expect("all are tried").clone()).collect();
        drop(requests);
        let completed = results.iter().position(Result::is_err);
        assert_eq!(answer.err().map(|error| error.completed()), completed);
        for ((first, _), (memory, (before, result))) in
            runs.iter().zip(memory.iter_mut().zip(before.iter().zip(&results)))
        {
            self.check_read(*first, memory.get(), before, result);
        }
        let told: Vec<_> =
            runs.iter().zip(results).map(|((first, length), result)| (*first, *length, result.err())).collect();
        if overlap {
            // Which of them had the fault is not known.
            self.failures += told.iter().filter(|(_, _, error)| error.is_some()).count() as u64;
            assert_eq!(completed.is_none(), self.disk.state().told.is_empty());
        } else {
            self.check_told(&told);
        }
    }

    fn write_several(&mut self) {
        let runs = self.runs_apart();
        let mut memory: Vec<_> = runs.iter().map(|(_, length)| Memory::new(&mut self.random, *length)).collect();
        let memory: Vec<&[u8]> = memory.iter_mut().map(|memory| &*memory.get()).collect();
        let mut requests: Vec<_> =
            runs.iter().zip(&memory).map(|((first, _), data)| WriteRequest::new(*first, data)).collect();
        let flushes = self.disk.state().counts.flushes;
        let kind = self.random.below(3);
        let answer = match kind {
            0 => self.device.write_blocks(&mut requests),
            1 => self.device.write_blocks_fua(&mut requests),
            _ => self.device.write_barrier(&mut requests),
        };
        let results: Vec<_> = requests.iter().map(|request| request.result().expect("all are tried").clone()).collect();
        drop(requests);
        let (flushes_now, told) = {
            let state = self.disk.state();
            (state.counts.flushes, state.told.clone())
        };
        if kind == 2 {
            if answer.is_ok() {
                assert!(self.disk.state().is_flushed(), "a barrier returned before all was on stable storage");
            }
            let flush_failed = told.iter().any(|(place, _)| *place == usize::MAX);
            assert_eq!(flushes_now - flushes, u64::from(answer.is_ok() || flush_failed));
            if flush_failed {
                self.failures += 1;
                assert_eq!(answer.unwrap_err().completed(), 0);
                assert!(results.iter().all(Result::is_err));
                // What the model says of writes is checked below: these were written, and are told to have failed.
                let all: Vec<_> = runs.iter().zip(&memory).collect();
                for ((first, _), data) in all {
                    self.adopt(*first, data, true);
                }
                return;
            }
        } else {
            assert_eq!(flushes_now, flushes);
        }
        let completed = results.iter().position(Result::is_err);
        assert_eq!(answer.err().map(|error| error.completed()), completed);
        let writes = runs.iter().zip(memory).zip(results);
        let writes =
            writes.map(|(((first, _), data), result)| Written { first: *first, data, result, durable: kind == 1 });
        self.check_writes(writes.collect());
    }

    /// A run in pieces of whole blocks.
    fn pieces(&mut self) -> (u64, Vec<Memory>) {
        let (first, mut left) = self.run_of_blocks();
        let mut pieces = Vec::new();
        while left > 0 {
            let length = (1 + self.random.below(left / self.block_size)) * self.block_size;
            pieces.push(Memory::new(&mut self.random, length));
            left -= length;
        }
        (first, pieces)
    }

    fn read_vectored(&mut self) {
        let (first, mut pieces) = self.pieces();
        let mut slices: Vec<_> = pieces.iter_mut().map(|piece| IoSliceMut::new(piece.get())).collect();
        let before = slices.iter().map(|slice| &**slice).collect::<Vec<_>>().concat();
        let result = self.device.read_vectored(first, &mut slices);
        let whole = slices.iter().map(|slice| &**slice).collect::<Vec<_>>().concat();
        drop(slices);
        self.failed_pieces(first, pieces.iter().map(|piece| piece.length));
        self.check_read(first, &whole, &before, &result);
        self.check_told_uncounted(&[(first, whole.len(), result.err())]);
    }

    fn write_vectored(&mut self) {
        let (first, mut pieces) = self.pieces();
        let slices: Vec<_> = pieces.iter_mut().map(|piece| IoSlice::new(piece.get())).collect();
        let result = self.device.write_vectored(first, &slices);
        let whole = slices.iter().map(|slice| &**slice).collect::<Vec<_>>().concat();
        drop(slices);
        self.failed_pieces(first, pieces.iter().map(|piece| piece.length));
        let told = [(first, whole.len(), result.as_ref().err().cloned())];
        self.check_told_uncounted(&told);
        self.adopt(first, &whole, result.is_err());
    }

    /// Counts the pieces of a vectored call that failed.
    fn failed_pieces(&mut self, first: u64, lengths: impl Iterator<Item = usize>) {
        let mut start = first as usize * self.block_size;
        let told = self.disk.state().told.clone();
        for length in lengths {
            let is_in = |(place, _): &&(usize, i32)| (start..start + length).contains(place);
            self.failures += u64::from(told.iter().any(|fault| is_in(&fault)));
            start += length;
        }
    }

    fn flush(&mut self) {
        let result = self.device.flush();
        self.failures += u64::from(result.is_err());
        let state = self.disk.state();
        assert_eq!(result.is_err(), !state.told.is_empty(), "{result:?}");
        assert!(result.is_err() || state.is_flushed(), "a flush returned before all was on stable storage");
    }

    fn write_zeroes(&mut self) {
        let (first, length) = self.run_of_blocks();
        let result = self.device.write_zeroes(first, (length / self.block_size) as u64);
        self.check_told_uncounted(&[(first, length, result.as_ref().err().cloned())]);
        self.adopt(first, &vec![0; length], result.is_err());
    }

    /// The disk ends earlier for a while, anywhere.
    fn shrink(&mut self) {
        let end = self.random.below(self.nature.bytes);
        self.disk.state().end = end;
        match self.random.below(4) {
            0 => self.read_one(),
            1 => self.write_one(),
            2 => self.read_several(),
            _ => self.write_several(),
        }
        assert_eq!(self.device.rescan().unwrap(), (end / self.block_size) as u64);
        if end < self.block_size {
            let error = self.device.read_block(0, &mut vec![0; self.block_size]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfRange);
        }
        self.disk.state().end = self.nature.bytes;
        assert_eq!(self.device.rescan().unwrap(), self.blocks() as u64);
    }

    // ---- looking

    /// What a read gave to memory that was as `before`. One that failed leaves there what was read, or what was there, or what
    /// a disk that fails has written, but nothing of anybody else's.
    fn check_read(&self, first: u64, memory: &[u8], before: &[u8], result: &Result<()>) {
        let model = &self.model[first as usize * self.block_size..][..memory.len()];
        if result.is_ok() {
            assert!(memory == model, "what was read from block {first} on is something else");
        }
        for ((found, model), before) in memory.chunks(512).zip(model.chunks(512)).zip(before.chunks(512)) {
            let is_known = |at: usize| found[at] == model[at] || found[at] == before[at] || found[at] == RUBBISH;
            let is_whole = found == model || found == before;
            assert!(is_whole || (0..found.len()).all(is_known), "a read that failed left what is nobody's");
        }
    }

    fn check_writes(&mut self, writes: Vec<Written<'_>>) {
        let told: Vec<_> =
            writes.iter().map(|write| (write.first, write.data.len(), write.result.as_ref().err().cloned())).collect();
        self.check_told(&told);
        for write in writes {
            self.adopt(write.first, write.data, write.result.is_err());
            if write.durable && write.result.is_ok() {
                let start = write.first as usize * self.block_size;
                let is_stable = self.disk.state().stable[start..][..write.data.len()] == *write.data;
                assert!(is_stable, "a durable write returned before it was on stable storage");
            }
        }
    }

    /// What a write did. One that failed left each sector old or new.
    fn adopt(&mut self, first: u64, data: &[u8], failed: bool) {
        let start = first as usize * self.block_size;
        let state = self.disk.state();
        let found = &state.contents[start..][..data.len()];
        let model = &mut self.model[start..][..data.len()];
        if failed {
            for ((found, new), old) in found.chunks(512).zip(data.chunks(512)).zip(model.chunks(512)) {
                let is_whole = found == new || found == old;
                assert!(is_whole || !self.nature.direct, "a write that failed left a torn sector");
                let is_mixed = is_whole || (0..found.len()).all(|at| found[at] == new[at] || found[at] == old[at]);
                assert!(is_mixed, "a write that failed left what nobody wrote");
            }
        } else {
            assert!(found == data, "what was written from block {first} on is not there");
        }
        model.copy_from_slice(found);
    }

    /// Compares what was told with what happened: place, length in bytes and error of each request.
    fn check_told(&mut self, requests: &[(u64, usize, Option<Error>)]) {
        self.failures += requests.iter().filter(|(_, _, error)| error.is_some()).count() as u64;
        self.check_told_uncounted(requests);
    }

    fn check_told_uncounted(&self, requests: &[(u64, usize, Option<Error>)]) {
        let told = self.disk.state().told.clone();
        for (first, length, error) in requests {
            let start = *first as usize * self.block_size;
            let faults: Vec<_> = told
                .iter()
                .filter(|(place, _)| (start..start + length).contains(place))
                .map(|(_, errno)| *errno)
                .collect();
            match error {
                None => assert!(faults.is_empty(), "block {first}, {length} bytes: {faults:?} was told to nobody"),
                Some(error) if error.kind() == ErrorKind::EndOfDevice => {
                    assert!(faults.contains(&0), "block {first}, {length} bytes: {error}, after {faults:?}");
                }
                Some(error) => {
                    let errno = error.raw_os_error().unwrap_or(-1);
                    assert!(faults.contains(&errno), "block {first}, {length} bytes: {error}, after {faults:?}");
                }
            }
        }
    }

    fn check_state(&mut self) {
        let stats = self.device.stats();
        let state = self.disk.state();
        assert!(state.complaints.is_empty(), "{:?}", state.complaints);
        assert!(state.contents == self.model, "what nobody wrote to has changed");
        let Counts { passing, short, flushes, .. } = state.counts;
        assert_eq!(stats.short_transfers, short, "{stats:?}");
        // What is taken back from a ring that failed is tried again, too.
        let all_are_told = stats.retries == passing || stats.retries > passing && self.temper.breaks != 0;
        assert!(all_are_told, "{passing} were to be tried again: {stats:?}");
        assert_eq!((stats.in_flight, stats.failures, stats.flushes), (0, self.failures, flushes), "{stats:?}");
        #[cfg(uring)]
        if let Picked::Uring(uring) = &*self.device.0 {
            let (free, all) = uring.leases();
            assert_eq!(free, all, "leases are missing");
            // Only after what was given back again and again.
            let is_rest = uring.end_rest();
            let cancels = self.temper.kinds.contains(&Fault::Errno(libc::ECANCELED)) || self.temper.breaks != 0;
            assert!(!is_rest || cancels, "the ring was given up");
        }
    }

    /// Without faults everything works, whatever there was before.
    fn check_works(&mut self) {
        {
            let mut state = self.disk.state();
            state.begin_step(0);
            state.temper = Temper::default();
        }
        let mut memory = Memory::new(&mut self.random, self.nature.bytes);
        self.device.read_run(0, memory.get()).unwrap();
        assert!(memory.get() == self.model, "what the device reads is not what is on the disk");
        self.write_several();
        self.device.flush().unwrap();
        assert!(self.disk.state().is_flushed());
        self.check_state();
    }
}

fn run(below: Below) {
    run_programs(STEPS, |random| {
        in_thread(|| Program::new(random, below).run());
        PROGRAM
    });
}

#[test]
fn faults_of_calls_are_tried_again_or_told() {
    run(Below::Calls);
}

#[cfg(uring)]
#[test]
fn faults_of_rings_are_tried_again_or_told() {
    run(Below::Ring);
}

/// What one thread submits may be another's, and what it leaves in the queue its own.
#[cfg(uring)]
#[test]
fn threads_that_share_a_ring_do_not_wait_for_what_nobody_submits() {
    const THREADS: usize = 3;
    const LAPS: usize = 20;
    run_programs(4000, |random| {
        in_thread(|| {
            let program = Program::new(random.clone(), Below::Ring);
            let kinds = PASSING.map(Fault::Errno).to_vec();
            program.disk.state().temper = Temper { faults: 8, kinds, submits: 2, ..Temper::default() };
            let rings = kernel::Rings { are_shared: true, ..kernel::entered().expect("entered by the program") };
            let blocks = program.blocks() / THREADS;
            let (device, block_size) = (&program.device, program.block_size);
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let mut random = Random::new(random.clone().next() ^ thread as u64);
                    scope.spawn(move || {
                        kernel::enter(rings);
                        for _ in 0..LAPS {
                            let mut memory = Memory::new(&mut random, blocks * block_size);
                            let data = &*memory.get();
                            let pieces = data.chunks(block_size).zip(thread as u64 * blocks as u64..);
                            let mut requests: Vec<_> =
                                pieces.map(|(data, block)| WriteRequest::new(block, data)).collect();
                            device.write_blocks(&mut requests).unwrap();
                            let mut back = vec![0; data.len()];
                            device.read_run((thread * blocks) as u64, &mut back).unwrap();
                            assert!(back == data, "thread {thread} reads what it did not write");
                        }
                    });
                }
            });
            let state = program.disk.state();
            assert!(state.complaints.is_empty(), "{:?}", state.complaints);
            assert_eq!(device.stats().in_flight, 0);
        });
        (THREADS * LAPS) as u64
    });
}

/// What does not pass is told, after a while.
#[test]
fn what_does_not_pass_is_told() {
    let kinds = [
        Below::Calls,
        #[cfg(uring)]
        Below::Ring,
    ];
    for below in kinds {
        for errno in PASSING {
            in_thread(|| {
                let mut program = Program::new(Random::new(errno as u64), below);
                {
                    let mut state = program.disk.state();
                    state.begin_step(1);
                    state.temper = Temper { faults: 1, kinds: vec![Fault::Errno(errno)], ..Temper::default() };
                }
                let mut block = vec![0; program.block_size];
                let error = program.device.read_block(0, &mut block).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(errno), "{error}");
                assert!(program.device.stats().retries >= 1000);
                program.disk.state().counts = Counts { passing: program.device.stats().retries, ..Counts::default() };
                program.failures = 1;
                program.check_works();
            });
        }
    }
}
