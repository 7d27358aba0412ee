//! Random programs on the real kernel, under a storm of signals: what the model in `src/model` checks on rings in memory, as
//! far as it can be seen from outside. Each read gives the file's bytes, no byte beside is touched, nothing that somebody
//! holds changes, and all leases come back but those of a ring that was dropped too early.
//!
//! [`random`](crate::common::random) says what can be set.

use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sysuring::{
    BigEntries, Buf, Completion, Done, Entries, FixedFile, Operations, Pool, RejectReason, Ring, RingBuilder,
    SmallEntries, Ticket, UserData,
};

use crate::common::{self, random::Random, random::run_programs};

const FILE: usize = 1 << 16;
const BLOCKS: usize = 8;
/// How Linux 6.1 says EINTR of a read of a pipe that was cancelled: a number that programs were never to see.
const ERESTARTSYS: i32 = 512;
/// What the pipe carries.
const PIPED: u8 = 0x5a;

type Model<E> = Ring<Vec<u8>, E>;

/// Sets up a ring with entries of one size.
type Build<E> = fn(RingBuilder) -> sysuring::Result<Model<E>>;

/// Interrupts the thread that made it, until it is dropped.
struct Storm {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn new() -> Self {
        extern "C" fn ignore(_signal: libc::c_int) {}
        // SAFETY: a plain C structure, for which all zeroes is a value; without SA_RESTART.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: a handler that does nothing; nobody else in these tests uses the signal.
        assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
        // SAFETY: asks who this thread is.
        let target = unsafe { libc::pthread_self() } as usize;
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(1);
            while !is_over.load(Ordering::Relaxed) {
                // SAFETY: the thread waits for this one before it ends.
                unsafe { libc::pthread_kill(target as libc::pthread_t, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_micros(random.below(200) as u64));
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a thread that only sends signals");
        }
    }
}

/// What programs read and write.
struct Files {
    contents: Vec<u8>,
    source: Arc<OwnedFd>,
    scratch: File,
    scratch_descriptor: Arc<OwnedFd>,
    pipe: Arc<OwnedFd>,
    pipe_writer: File,
    event: Arc<OwnedFd>,
}

/// Memory in the user's hands, and what it is full of.
struct Held {
    buf: Buf,
    fill: u8,
}

#[derive(Debug, Clone)]
enum What {
    /// Reads `length` bytes of the file at `offset`.
    File {
        offset: usize,
        length: usize,
    },
    Pipe,
    Event,
    /// Writes a block of the scratch file.
    Block {
        block: usize,
        value: u8,
    },
}

#[derive(Debug)]
struct Started {
    ticket: Ticket,
    what: What,
    /// What its memory was full of.
    fill: u8,
    leases: usize,
    is_cancelled: bool,
}

struct Program<'a, E: Entries> {
    random: Random,
    files: &'a Files,
    build: Build<E>,
    ring: Option<Model<E>>,
    registered: Vec<(FixedFile, usize)>,
    pool: Pool,
    is_pool_registered: bool,
    held: Vec<Held>,
    started: Vec<Started>,
    /// Blocks that a dropped ring may still write.
    lost_blocks: [bool; BLOCKS],
    /// Slots that a dropped ring left to the kernel.
    lost: usize,
    raw: u32,
    raw_seen: u32,
}

impl<E: Entries> Program<'_, E> {
    fn make_ring(&mut self) {
        let random = &mut self.random;
        let entries = 1 << random.below(4);
        let completions = entries * random.pick(&[1, 2]);
        let builder = Ring::builder(entries).cq_entries(completions).fall_back_flags(true);
        let builder = match random.below(16) {
            0 => builder.sqpoll(Duration::from_millis(1)),
            1..=5 => builder.single_issuer(true).defer_taskrun(true),
            6 | 7 => builder.coop_taskrun(true),
            _ => builder,
        };
        let mut ring = (self.build)(builder).expect("a ring");
        let all = [&self.files.source, &self.files.scratch_descriptor, &self.files.pipe, &self.files.event];
        self.registered = (0..all.len())
            .filter(|_| random.once_in(2))
            .map(|index| (ring.register_file(all[index]).expect("a registered file"), index))
            .collect();
        self.is_pool_registered = random.once_in(2) && ring.register_pool(&self.pool).is_ok();
        self.ring = Some(ring);
    }

    fn take(&mut self) -> Option<Held> {
        if let (true, Some(buf)) = (self.held.len() < 2, self.pool.lease()) {
            return Some(Held { buf, fill: 0 });
        }
        let count = self.held.len();
        let held = (count > 0).then(|| self.held.swap_remove(self.random.below(count)))?;
        assert!(held.buf.iter().all(|byte| *byte == held.fill), "memory in the user's hands changed");
        Some(held)
    }

    fn ended(&mut self, buf: Buf) {
        if self.random.once_in(3) {
            return;
        }
        let mut buf = buf;
        let fill = self.random.next() as u8;
        buf.fill(fill);
        self.held.push(Held { buf, fill });
    }

    /// Starts an operation on a file of either kind.
    fn start<S: Operations<Owned = Vec<u8>>>(&mut self, on: &mut S, only_file: bool) -> Result<(), RejectReason> {
        let choice = if only_file { self.random.below(4) } else { self.random.below(8) };
        let fill = self.random.next() as u8;
        let offset = self.random.below(FILE - 4096);
        let length = 1 + self.random.below(2000);
        let (index, descriptor) = match choice {
            0..=3 => (0, &self.files.source),
            4 => (1, &self.files.scratch_descriptor),
            5 | 6 => (2, &self.files.pipe),
            _ => (3, &self.files.event),
        };
        let registered = self.registered.iter().position(|(_, known)| *known == index);
        let registered = registered.filter(|_| self.random.once_in(2)).map(|place| self.registered.swap_remove(place));
        let file = registered.as_ref().map(|(file, _)| file);
        let read = What::File { offset, length };
        /// Either kind of file, one method.
        macro_rules! on_file {
            ($method:ident, $($argument:expr),*) => {
                match file {
                    Some(file) => on.$method(file, $($argument),*),
                    None => on.$method(descriptor, $($argument),*),
                }
            };
        }
        let result = match choice {
            0 => {
                let started = on_file!(read_owned, vec![fill; length], offset as u64);
                started.map(|ticket| (ticket, read, 0)).map_err(|rejected| {
                    let reason = rejected.reason();
                    assert!(rejected.into_inner().iter().all(|byte| *byte == fill), "what is rejected comes back");
                    reason
                })
            }
            1 => {
                let mut bufs: Vec<Buf> = (0..2).filter_map(|_| self.take()).map(|held| held.buf).collect();
                if bufs.is_empty() {
                    self.registered.extend(registered);
                    return Ok(());
                }
                bufs.iter_mut().for_each(|buf| buf.fill(fill));
                let (count, most) = (bufs.len(), bufs.iter().map(|buf| buf.len()).sum::<usize>());
                let length = length.min(most);
                let started = on_file!(read_vectored, bufs, length, offset as u64);
                started.map(|ticket| (ticket, What::File { offset, length }, count)).map_err(|rejected| {
                    let reason = rejected.reason();
                    self.held.extend(rejected.into_inner().into_iter().map(|buf| Held { buf, fill }));
                    reason
                })
            }
            _ => {
                let block = self.random.below(BLOCKS);
                let is_busy =
                    |started: &Started| matches!(started.what, What::Block { block: busy, .. } if busy == block);
                if choice == 4 && (self.lost_blocks[block] || self.started.iter().any(is_busy)) {
                    self.registered.extend(registered);
                    return Ok(());
                }
                let Some(mut held) = self.take() else {
                    self.registered.extend(registered);
                    return Ok(());
                };
                held.buf.fill(fill);
                let size = length as u32;
                let is_fixed = self.is_pool_registered && self.random.once_in(2);
                let at = (block * 4096) as u64;
                let (started, what) = match (choice, is_fixed) {
                    (2 | 3, true) => (on_file!(read_fixed, held.buf, size, offset as u64), read),
                    (2 | 3, false) => (on_file!(read, held.buf, size, offset as u64), read),
                    (4, true) => (on_file!(write_fixed, held.buf, 4096, at), What::Block { block, value: fill }),
                    (4, false) => (on_file!(write, held.buf, 4096, at), What::Block { block, value: fill }),
                    (5 | 6, true) => (on_file!(read_fixed, held.buf, size, u64::MAX), What::Pipe),
                    (5 | 6, false) => (on_file!(read, held.buf, size, u64::MAX), What::Pipe),
                    _ => (on_file!(read, held.buf, 8, u64::MAX), What::Event),
                };
                started.map(|ticket| (ticket, what, 1)).map_err(|rejected| {
                    let reason = rejected.reason();
                    self.held.push(Held { buf: rejected.into_inner(), fill });
                    reason
                })
            }
        };
        self.registered.extend(registered);
        let (ticket, what, leases) = result?;
        self.started.push(Started { ticket, what, fill, leases, is_cancelled: false });
        Ok(())
    }

    fn start_or_reject<S: Operations<Owned = Vec<u8>>>(&mut self, on: &mut S) {
        if let Err(reason) = self.start(on, false) {
            let is_full = matches!(reason, RejectReason::QueueFull | RejectReason::TableFull);
            assert!(is_full, "{reason:?}");
        }
    }

    fn chain(&mut self, on: &mut Model<E>) {
        let (length, fails) = (self.random.below(4), self.random.once_in(3));
        let before = self.started.len();
        let in_flight = on.in_flight();
        let built = on.chain(|chain| {
            for _ in 0..length {
                self.start(chain, true)?;
            }
            if fails { Err(RejectReason::TooLong) } else { Ok(()) }
        });
        if built.is_err() {
            assert_eq!(on.in_flight(), in_flight, "a chain that failed is as if it had never begun");
            self.started.truncate(before);
        }
    }

    fn scope(&mut self, on: &mut Model<E>) {
        let offset = self.random.below(FILE - 64);
        let fill = self.random.next() as u8;
        let mut memory = [fill; 96];
        let (guard, rest) = memory.split_at_mut(16);
        let (piece, other_guard) = rest.split_at_mut(64);
        let is_started = on.scope(|scope| {
            if self.random.once_in(2) {
                self.start_or_reject(scope);
            }
            match scope.read(&self.files.source, piece, offset as u64) {
                Ok(operation) if self.random.once_in(2) => {
                    let waited = scope.wait(operation);
                    assert!(waited.is_err() || waited.is_ok_and(|count| count == 64));
                    true
                }
                Ok(operation) => {
                    let _ = ManuallyDrop::new(operation);
                    true
                }
                Err(_) => false,
            }
        });
        assert!(guard.iter().chain(other_guard.iter()).all(|byte| *byte == fill), "bytes beside were touched");
        let expected = if is_started { self.files.contents[offset..offset + 64].to_vec() } else { vec![fill; 64] };
        assert_eq!(*piece, expected[..], "what was read in a scope");
    }

    fn completions(&mut self, on: &mut Model<E>, most: usize) {
        let mut completions = on.completions();
        for _ in 0..most {
            match completions.next() {
                Some(Completion::Done(done)) => self.done(done),
                Some(Completion::Raw(cqe)) => {
                    self.raw_seen += 1;
                    assert!(cqe.user_data() >= 1 && cqe.user_data() <= self.raw.into());
                }
                Some(completion) => panic!("{completion:?}"),
                None => break,
            }
        }
        if self.random.once_in(2) {
            let _ = ManuallyDrop::new(completions);
        }
    }

    fn done(&mut self, done: Done<Vec<u8>>) {
        let position = self.started.iter().position(|started| started.ticket == done.ticket());
        let started = self.started.swap_remove(position.expect("an operation that was started, once"));
        let result = done.raw_result();
        if result < 0 {
            let is_known = matches!(-result, libc::ECANCELED | libc::EINTR | ERESTARTSYS);
            assert!(is_known, "{started:?}: {result}");
        }
        let count = usize::try_from(result).unwrap_or(0);
        let expected = match started.what {
            What::File { offset, length } => {
                assert!(result < 0 || count == length, "{started:?}: {result}");
                self.files.contents[offset..offset + count].to_vec()
            }
            What::Pipe => vec![PIPED; count],
            What::Event if count == 8 => 1_u64.to_ne_bytes().to_vec(),
            What::Event => Vec::new(),
            What::Block { block, value } => {
                assert!(result < 0 || count == 4096, "{started:?}: {result}");
                if count == 4096 {
                    let mut now = vec![0; 4096];
                    self.files.scratch.read_exact_at(&mut now, (block * 4096) as u64).expect("the scratch file");
                    assert!(now.iter().all(|byte| *byte == value), "block {block} is not {value:#x}");
                }
                Vec::new()
            }
        };
        if started.leases == 0 {
            let memory = done.into_owned().expect("a read gives its buffer back");
            check(&memory, &expected, &started);
            return;
        }
        let bufs = done.into_bufs();
        assert_eq!(bufs.len(), started.leases, "{started:?}");
        let memory: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        check(&memory, &expected, &started);
        bufs.into_iter().for_each(|buf| self.ended(buf));
    }

    fn submit(&mut self, on: &mut Model<E>) {
        let is_sure = |started: &Started| matches!(started.what, What::File { .. } | What::Block { .. });
        let submitted = match self.random.below(3) {
            0 => on.submit(),
            1 if self.started.iter().any(is_sure) => on.submit_and_wait(1),
            _ => on.submit_and_wait_timeout(1, Duration::from_micros(50)),
        };
        if let Err(error) = submitted {
            let errno = error.raw_os_error();
            assert!(matches!(errno, Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)), "{error}");
        }
    }

    /// Closes the ring with whatever is in flight. What ended comes back, the rest never does.
    fn drop_ring(&mut self) {
        drop(self.ring.take());
        self.registered.clear();
        for started in self.started.drain(..) {
            if let What::Block { block, .. } = started.what {
                self.lost_blocks[block] = true;
            }
        }
        self.raw_seen = self.raw;
        let held = self.held.len();
        let free: Vec<Buf> = std::iter::from_fn(|| self.pool.lease()).collect();
        let lost = self.pool.slots() as usize - free.len() - held;
        assert!(lost >= self.lost, "a slot that was left to the kernel came back");
        self.lost = lost;
    }

    fn step(&mut self) {
        let Some(mut on) = self.ring.take() else { return self.make_ring() };
        match self.random.below(32) {
            0 => {
                self.ring = Some(on);
                return self.drop_ring();
            }
            1 | 2 => {
                (&self.files.pipe_writer).write_all(&[PIPED; 3]).expect("the pipe has room");
            }
            3 => event(&self.files.event),
            4 | 5 => {
                let count = self.started.len();
                if count > 0 {
                    let index = self.random.below(count);
                    if on.cancel(self.started[index].ticket).is_ok() {
                        self.started[index].is_cancelled = true;
                    }
                }
            }
            6 | 7 => self.chain(&mut on),
            8 => self.scope(&mut on),
            9 => {
                if let Some(entry) = on.get_sqe() {
                    if self.random.once_in(2) {
                        self.raw += 1;
                        entry.prep_nop().set_data64(UserData::from(self.raw));
                    }
                }
            }
            10 => drop(self.take()),
            11..=18 => self.start_or_reject(&mut on),
            19..=23 => self.submit(&mut on),
            _ => {
                let most = self.random.below(6);
                self.completions(&mut on, most);
            }
        }
        let known = self.started.len() as u32;
        assert!(
            on.in_flight() <= on.cq_entries() && (known >= on.in_flight() || on.in_flight() - known <= on.cq_entries())
        );
        self.ring = Some(on);
    }

    /// Cancels what is left, and waits for it: everything is back.
    fn end(&mut self) {
        let Some(mut on) = self.ring.take() else { return };
        let begun = Instant::now();
        while !self.started.is_empty() || on.in_flight() != 0 || self.raw_seen != self.raw {
            let left = &self.started;
            assert!(begun.elapsed() < Duration::from_secs(20), "{on:?} does not end: {left:?}, {} raw", self.raw);
            for started in &mut self.started {
                started.is_cancelled = true;
                if on.cancel(started.ticket).is_ok() {
                    continue;
                }
                // Where the table is full.
                if let Some(entry) = on.get_sqe() {
                    self.raw += 1;
                    entry.prep_cancel_ticket(started.ticket).set_data64(UserData::from(self.raw));
                }
            }
            let _ = on.submit_and_wait_timeout(1, Duration::from_millis(1));
            self.completions(&mut on, usize::MAX);
        }
        self.held.clear();
        let back: Vec<Buf> = std::iter::from_fn(|| self.pool.lease()).collect();
        assert_eq!(back.len() + self.lost, self.pool.slots() as usize, "leases did not come back");
    }
}

/// The first bytes are what was expected, and the rest is as it was.
fn check(memory: &[u8], expected: &[u8], started: &Started) {
    // What is cancelled half way may have written some of what it was to write.
    if !(started.is_cancelled && expected.is_empty()) {
        assert!(memory.starts_with(expected), "{started:?}: other bytes than those of the file");
        let is_same = memory[expected.len()..].iter().all(|byte| *byte == started.fill);
        assert!(is_same, "{started:?}: bytes beside were touched");
    }
}

fn event(event: &Arc<OwnedFd>) {
    use std::os::fd::AsRawFd;
    let one = 1_u64;
    // SAFETY: eight bytes, which the call reads.
    let written = unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) };
    assert_eq!(written, 8);
}

fn files(directory: &std::path::Path) -> Files {
    let (source, scratch) = (directory.join("source"), directory.join("scratch"));
    let contents = common::patterned_file(&source, FILE);
    let scratch = File::options().read(true).write(true).create_new(true).open(scratch).unwrap();
    scratch.set_len((BLOCKS * 4096) as u64).unwrap();
    let (pipe, pipe_writer) = common::pipe();
    // SAFETY: makes a descriptor. As a semaphore: each read gives 1.
    let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_SEMAPHORE) };
    assert!(event >= 0);
    Files {
        contents,
        source: Arc::new(File::open(source).unwrap().into()),
        scratch_descriptor: Arc::new(scratch.try_clone().unwrap().into()),
        scratch,
        pipe: Arc::new(pipe.into()),
        pipe_writer,
        // SAFETY: made just now, and owned by nobody else.
        event: Arc::new(unsafe { OwnedFd::from_raw_fd(event) }),
    }
}

#[test]
fn random_programs_on_the_kernel_read_what_is_there() {
    let Some(_) = common::ring(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let _storm = Storm::new();
    let big: Build<BigEntries> = |builder| builder.big_entries().build_owned();
    let has_big = big(Ring::builder(1)).is_ok();
    if !has_big {
        common::skip("no rings with big entries");
    }
    run_programs(20_000, |mut random| {
        if random.once_in(16) && has_big {
            run_program(random, directory.path(), big)
        } else {
            run_program::<SmallEntries>(random, directory.path(), |builder| builder.build_owned())
        }
    });
}

/// Runs one program; says how many steps it took.
fn run_program<E: Entries>(mut random: Random, directory: &Path, build: Build<E>) -> u64 {
    // Of each program's own: what an earlier one left in flight must not eat what this one waits for.
    let here = tempfile::tempdir_in(directory).unwrap();
    let files = files(here.path());
    let steps = 50 + random.below(400);
    let pool = Pool::new(1 + random.below(8) as u32, 4096).unwrap();
    let mut program = Program {
        random,
        files: &files,
        build,
        ring: None,
        registered: Vec::new(),
        pool,
        is_pool_registered: false,
        held: Vec::new(),
        started: Vec::new(),
        lost_blocks: [false; BLOCKS],
        lost: 0,
        raw: 0,
        raw_seen: 0,
    };
    for _ in 0..steps {
        program.step();
    }
    program.end();
    steps as u64
}
