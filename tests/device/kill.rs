//! Processes that are killed (SIGKILL) while they write: what was acknowledged is there afterwards, and no block is torn.
//!
//! A child writes batches of 64 blocks until it is killed, and says in shared memory what it was told: which blocks are being
//! written, which were, and which were flushed. A process that is killed takes no cache with it, so that what was written has
//! to be there whether it was flushed or not; what a loss of power takes is not tried here.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sysuring::ErrorKind;
use sysuring::block::{self, Backend, BlockDevice, Device, Options, ReadRequest, WriteRequest};

use crate::common::random::{Random, run_one};
use crate::common::{self, backends};

const TEST: &str = "device::kill::what_was_acknowledged_is_there_after_a_kill_and_nothing_is_torn";
/// What the child is to do.
const CHILD: &str = "SYSURING_TEST_KILLED";
const ROUNDS: usize = 128;
const BLOCKS: usize = 512;
/// Blocks in a batch, all of which are in flight together.
const BATCH: usize = 64;
/// The latest moment of a kill after the child began to write, in microseconds.
const LATEST: u64 = 50_000;
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Smallest page. Through the page cache a block that is larger may be torn.
const PAGE: usize = 4096;

/// What a device is like that is written to.
#[derive(Debug, Clone)]
struct Case {
    backend: Backend,
    direct: bool,
    block_size: usize,
    path: PathBuf,
}

impl Case {
    fn all(directory: &Path) -> Vec<Self> {
        let kinds = [(true, 4096), (false, 4096), (true, 16384), (false, 512)];
        let cases = backends().into_iter().flat_map(|backend| kinds.map(|kind| (backend, kind)));
        cases
            .map(|(backend, (direct, block_size))| {
                let path = directory.join(format!("{backend}-{direct}-{block_size}"));
                Self { backend, direct, block_size, path }
            })
            .collect()
    }

    /// Opens the device; waits while the kernel still writes for a process that was killed, and so keeps it locked.
    fn open(&self) -> Device {
        let block_size = self.block_size as u32;
        let options = Options::new().backend(self.backend).direct(self.direct).block_size(block_size);
        let options = options.create((BLOCKS * self.block_size) as u64).queue_depth(BATCH as u32);
        let end = Instant::now() + PATIENCE;
        loop {
            match block::open(&self.path, &options) {
                Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < end => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                opened => return opened.unwrap(),
            }
        }
    }

    fn board(&self) -> Board {
        Board::open(&self.path.with_extension("board"))
    }
}

/// What the child says, in memory that outlives it: numbers of generations by block.
struct Board {
    words: &'static [AtomicU64],
}

/// Words before those of the blocks: the round that the child writes in, the last generation, batches and flushes that
/// ended.
const HEADER: usize = 4;

impl Board {
    fn open(path: &Path) -> Self {
        let length = (HEADER + 3 * BLOCKS) * 8;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(length as u64).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file that is as long; it is never unmapped, and its pages stay when the file is closed.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(memory, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        // SAFETY: as many aligned words as were mapped, which both processes use atomically, and for which any bits are a value.
        let words = unsafe { std::slice::from_raw_parts(memory.cast::<AtomicU64>(), length / 8) };
        Self { words }
    }

    fn round(&self) -> &AtomicU64 {
        &self.words[0]
    }

    fn generation(&self) -> &AtomicU64 {
        &self.words[1]
    }

    fn batches(&self) -> &AtomicU64 {
        &self.words[2]
    }

    fn flushes(&self) -> &AtomicU64 {
        &self.words[3]
    }

    /// The generation that was to be written to a block last.
    fn asked(&self, block: usize) -> &AtomicU64 {
        &self.words[HEADER + block]
    }

    /// The last one whose write was acknowledged.
    fn written(&self, block: usize) -> &AtomicU64 {
        &self.words[HEADER + BLOCKS + block]
    }

    /// The last one whose flush was acknowledged.
    fn flushed(&self, block: usize) -> &AtomicU64 {
        &self.words[HEADER + 2 * BLOCKS + block]
    }
}

/// Fills a block: its generation, its number and a sum over all other words, which depend on both.
fn stamp(memory: &mut [u8], generation: u64, block: u64) {
    let mut sum = mix(mix(0, generation), block);
    for word in memory[24..].chunks_exact_mut(8) {
        word.copy_from_slice(&sum.to_le_bytes());
        sum = mix(sum, sum);
    }
    for (word, value) in memory.chunks_exact_mut(8).zip([generation, block, sum]) {
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// The generation of a block, or what is wrong with it.
fn read_stamp(memory: &[u8], block: u64) -> Result<u64, String> {
    let mut words = memory.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let (generation, number, sum) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let found = words.fold(mix(mix(0, generation), number), mix);
    if found != sum {
        return Err(format!("block {block} is torn (generation {generation}, block {number} at its start)"));
    }
    if number != block {
        return Err(format!("block {block} has what was written to block {number}, generation {generation}"));
    }
    Ok(generation)
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1)
}

/// What the child does: it writes until it is killed, or nobody is there to kill it.
fn write_until_killed(case: &Case, round: u64, mut random: Random) {
    let (device, board) = (case.open(), case.board());
    // SAFETY: no memory is passed.
    let parent = unsafe { libc::getppid() };
    let end = Instant::now() + PATIENCE;
    let bytes = BATCH * case.block_size;
    let mut aligned = device.aligned_buffer(bytes).unwrap();
    let mut shifted = vec![0; bytes + 1];
    let mut order: Vec<usize> = (0..BLOCKS).collect();
    let mut unflushed = Vec::new();
    board.round().store(round, Ordering::SeqCst);
    // SAFETY: no memory is passed.
    while Instant::now() < end && unsafe { libc::getppid() } == parent {
        for at in 0..BATCH {
            order.swap(at, at + random.below(BLOCKS - at));
        }
        let generation = board.generation().fetch_add(1, Ordering::SeqCst) + 1;
        let memory = if random.once_in(2) { &mut shifted[1..] } else { &mut aligned[..] };
        for (block, memory) in order.iter().zip(memory.chunks_exact_mut(case.block_size)) {
            stamp(memory, generation, *block as u64);
        }
        let mut requests: Vec<_> = order
            .iter()
            .zip(memory.chunks_exact(case.block_size))
            .map(|(block, data)| WriteRequest::new(*block as u64, data))
            .collect();
        let kind = random.below(6);
        order[..BATCH].iter().for_each(|block| board.asked(*block).store(generation, Ordering::SeqCst));
        match kind {
            0 => device.write_blocks_fua(&mut requests).unwrap(),
            1 => device.write_barrier(&mut requests).unwrap(),
            _ => device.write_blocks(&mut requests).unwrap(),
        }
        for block in &order[..BATCH] {
            board.written(*block).store(generation, Ordering::SeqCst);
            match kind {
                0 => board.flushed(*block).store(generation, Ordering::SeqCst),
                _ => unflushed.push((*block, generation)),
            }
        }
        board.batches().fetch_add(1, Ordering::SeqCst);
        if kind == 2 {
            device.flush().unwrap();
        }
        if matches!(kind, 1 | 2) {
            board.flushes().fetch_add(1, Ordering::SeqCst);
            unflushed.drain(..).for_each(|(block, generation)| {
                board.flushed(block).fetch_max(generation, Ordering::SeqCst);
            });
        }
    }
}

/// The child; killed when it is dropped.
struct Writer(Child);

impl Writer {
    fn start(task: String) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture"]).env(CHILD, task);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Fails where the child ended by itself.
    fn check_runs(&mut self) {
        if let Some(status) = self.0.try_wait().unwrap() {
            let [mut out, mut err] = [String::new(), String::new()];
            let _ = std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut out);
            let _ = std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut err);
            panic!("the child ended by itself: {status}\n{out}{err}");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Debug, Default)]
struct Found {
    checked: usize,
    /// Blocks that have what was asked for, and was not acknowledged yet.
    newer: usize,
    /// Rounds that ended in the middle of a batch.
    in_batches: usize,
}

/// Looks at every block after a kill.
fn check(case: &Case, board: &Board, random: &mut Random, found: &mut Found) {
    // Either way of reading sees what the other wrote.
    let device = Case { direct: random.once_in(2), ..case.clone() }.open();
    let mut memory = vec![0; BLOCKS * case.block_size];
    let mut requests: Vec<_> = memory
        .chunks_exact_mut(case.block_size)
        .enumerate()
        .map(|(block, buffer)| ReadRequest::new(block as u64, buffer))
        .collect();
    device.read_blocks(&mut requests).unwrap();
    device.close().unwrap();
    let mut is_in_batch = false;
    for (block, memory) in memory.chunks_exact(case.block_size).enumerate() {
        let generation = read_stamp(memory, block as u64).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        let [asked, written, flushed] =
            [board.asked(block), board.written(block), board.flushed(block)].map(|word| word.load(Ordering::SeqCst));
        assert!(
            generation == written || generation == asked,
            "{case:?}: block {block} has generation {generation}; {asked} was asked for last, {written} acknowledged, and \
             {flushed} flushed"
        );
        is_in_batch |= asked != written;
        found.checked += 1;
        found.newer += usize::from(generation != written);
        // From now on it stays: what was in flight has arrived, since the device can be opened.
        for word in [board.asked(block), board.written(block), board.flushed(block)] {
            word.store(generation, Ordering::SeqCst);
        }
    }
    found.in_batches += usize::from(is_in_batch);
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_and_nothing_is_torn() {
    if let Some(task) = std::env::var_os(CHILD) {
        let task = task.into_string().unwrap();
        let mut words = task.splitn(4, ' ');
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        let (index, round, seed) = (number(), number(), number());
        let case = &Case::all(Path::new(words.next().unwrap()))[index as usize];
        return write_until_killed(case, round, Random::new(seed));
    }
    let directory = common::directory();
    let cases = Case::all(directory.path());
    let boards: Vec<_> = cases.iter().map(Case::board).collect();
    run_one(|mut random| {
        let (start, mut found) = (Instant::now(), Found::default());
        let mut whole = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            // Written once, so that what a file system does with new storage is over.
            let mut memory = vec![0; BLOCKS * case.block_size];
            let blocks = memory.chunks_exact_mut(case.block_size).enumerate();
            blocks.for_each(|(block, memory)| stamp(memory, 0, block as u64));
            let device = case.open();
            device.write_run(0, &memory).unwrap();
            if device.report().direct || case.block_size <= PAGE {
                whole.push(index);
            } else {
                common::skip(format_args!(
                    "{case:?}: no O_DIRECT here, and through the page cache such blocks may be torn"
                ));
            }
            device.close().unwrap();
        }
        for round in 1..=ROUNDS {
            let index = whole[round % whole.len()];
            let (case, board) = (&cases[index], &boards[index]);
            let task = format!("{index} {round} {} {}", random.next(), directory.path().display());
            let mut writer = Writer::start(task);
            let begun = Instant::now();
            while board.round().load(Ordering::SeqCst) != round as u64 {
                writer.check_runs();
                assert!(begun.elapsed() < PATIENCE, "the child does not begin");
                std::thread::sleep(Duration::from_micros(100));
            }
            std::thread::sleep(Duration::from_micros(random.next() % LATEST));
            writer.check_runs();
            drop(writer);
            check(case, board, &mut random, &mut found);
        }
        let sum =
            |word: fn(&Board) -> &AtomicU64| boards.iter().map(|board| word(board).load(Ordering::SeqCst)).sum::<u64>();
        println!(
            "{ROUNDS} kills in {:.1?}, {} of them in the middle of a batch; {} batches, {} flushes; {} blocks checked, {} of \
             them newer than acknowledged",
            start.elapsed(),
            found.in_batches,
            sum(Board::batches),
            sum(Board::flushes),
            found.checked,
            found.newer
        );
        assert!(found.in_batches > ROUNDS / 20, "too few kills hit a batch to mean anything: {found:?}");
    });
}
