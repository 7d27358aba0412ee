//! What is known of requests that are in flight together: what each sector may hold, and what each request may find.
//!
//! Every write puts its own number into every sector that it writes ([`fill`]), so that what is found tells who wrote it. A
//! sector may hold what was last written to it, what is being written to it, and what a write that failed was to put there. A
//! read finds what the sector could have held at some time while the read was in flight; a flush that succeeded, and a durable
//! write, leave on stable storage what was there when they were started, or what came later.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::disk::{Disk, Nature, RUBBISH};
use crate::error::{Error, ErrorKind};
use crate::random::Random;

/// Bytes of a sector.
const SECTOR: usize = 512;

/// What a write or a memory of that number has in a sector, again and again.
fn word(number: u32, sector: usize) -> [u8; 8] {
    Random::new(u64::from(number) << 20 ^ sector as u64).next().to_ne_bytes()
}

fn is(found: &[u8], number: u32, sector: usize) -> bool {
    found[..8] == word(number, sector) && found[8..] == found[..SECTOR - 8]
}

fn fill(memory: &mut [u8], number: u32, first: usize) {
    for (bytes, sector) in memory.chunks_exact_mut(SECTOR).zip(first..) {
        bytes[..8].copy_from_slice(&word(number, sector));
        for done in [8, 16, 32, 64, 128, 256] {
            bytes.copy_within(..done, done);
        }
    }
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Read,
    Write,
    WriteFua,
    Flush,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) what: What,
    first: usize,
    sectors: usize,
    /// What its memory has in it, or had before.
    number: u32,
    /// Of its memory.
    address: usize,
    /// What a read may find, and what a flush and a durable write may leave on stable storage, sector by sector.
    seen: Vec<Vec<u32>>,
    /// Nobody will hear of its end.
    is_lost: bool,
}

impl Request {
    fn range(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.sectors
    }
}

/// When a write was started, and when it had ended.
#[derive(Debug)]
struct Write {
    started: u64,
    ended: Option<u64>,
}

/// How many were started, and how many failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) flushes: u64,
    pub(super) failures: u64,
}

pub(super) struct Flight {
    disk: Arc<Disk>,
    /// Sectors of a block.
    block: usize,
    /// A transfer moves whole sectors.
    is_whole: bool,
    /// Requests in flight are of blocks apart.
    pub(super) is_apart: bool,
    /// Errors that no transfer had, since submits fail for good.
    pub(super) breaks: bool,
    possible: Vec<Vec<u32>>,
    writes: HashMap<u32, Write>,
    pub(super) requests: BTreeMap<u64, Request>,
    clock: u64,
    next: u32,
    pub(super) counted: Counted,
    /// Requests that nobody will ever hear of, in all.
    pub(super) lost: u64,
}

impl Flight {
    pub(super) fn new(disk: &Arc<Disk>, nature: Nature, block_size: usize, random: &mut Random) -> Self {
        let sectors = nature.bytes / SECTOR;
        {
            let mut state = disk.state();
            fill(&mut state.contents, 0, 0);
            state.stable = state.contents.clone();
            state.begin_step(random.next());
        }
        let is_whole = nature.unit >= SECTOR;
        Self {
            disk: Arc::clone(disk),
            block: block_size / SECTOR,
            is_whole,
            is_apart: !is_whole || random.once_in(2),
            breaks: false,
            possible: vec![vec![0]; sectors],
            writes: HashMap::from([(0, Write { started: 0, ended: Some(0) })]),
            requests: BTreeMap::new(),
            clock: 0,
            next: 0,
            counted: Counted::default(),
            lost: 0,
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.possible.len() / self.block
    }

    /// Requests whose end somebody will hear of.
    pub(super) fn in_flight(&self) -> usize {
        self.requests.values().filter(|request| !request.is_lost).count()
    }

    /// A block that so many from there on may be used from; `None` where others are in the way.
    pub(super) fn place(&self, random: &mut Random, blocks: usize) -> Option<usize> {
        // Few of them, so that there is something on the way to them.
        let most = if self.is_apart { self.blocks() } else { self.blocks().min(8) };
        let first = random.below(most);
        let (start, end) = (first * self.block, (first + blocks) * self.block);
        let is_apart = |known: &Request| known.first + known.sectors <= start || end <= known.first;
        let is_free = self.requests.values().all(|known| known.what == What::Flush || is_apart(known));
        (end <= self.possible.len() && (is_free || !self.is_apart)).then_some(first)
    }

    /// A number for memory that is about to be lent; fills it.
    pub(super) fn prepare(&mut self, memory: &mut [u8], block: usize) -> u32 {
        self.next += 1;
        fill(memory, self.next, block * self.block);
        self.next
    }

    /// A request is started, with memory that was prepared.
    pub(super) fn start(&mut self, tag: u64, what: What, block: usize, memory: &[u8], number: u32) {
        self.start_at(tag, what, block, memory.as_ptr().addr(), memory.len(), number);
    }

    /// As [`Flight::start`], of memory that was moved in and stays where it is.
    pub(super) fn start_at(&mut self, tag: u64, what: What, block: usize, address: usize, length: usize, number: u32) {
        self.clock += 1;
        let (first, sectors) = (block * self.block, length / SECTOR);
        let mut request = Request { what, first, sectors, number, address, seen: Vec::new(), is_lost: false };
        match what {
            What::Read => {
                self.counted.reads += 1;
                request.seen = self.possible[request.range()].to_vec();
            }
            What::Write | What::WriteFua => {
                self.counted.writes += 1;
                if what == What::WriteFua {
                    let in_flight = |number: &u32| self.writes[number].ended.is_none();
                    let others =
                        |numbers: &Vec<u32>| numbers.iter().copied().filter(in_flight).chain([number]).collect();
                    request.seen = self.possible[request.range()].iter().map(others).collect();
                }
                self.writes.insert(number, Write { started: self.clock, ended: None });
                for sector in request.range() {
                    self.possible[sector].push(number);
                    for other in self.requests.values_mut() {
                        if !other.seen.is_empty() && other.range().contains(&sector) {
                            other.seen[sector - other.first].push(number);
                        }
                    }
                }
            }
            What::Flush => {
                self.counted.flushes += 1;
                (request.first, request.sectors) = (0, 0);
                request.seen = self.possible.clone();
            }
        }
        if what == What::Flush {
            // For what is started from now on.
            request.sectors = self.possible.len();
        }
        assert!(self.requests.insert(tag, request).is_none(), "two requests with the tag {tag}");
    }

    /// Nobody will hear of its end, which may be any time.
    pub(super) fn lose(&mut self, tag: u64) {
        if let Some(request) = self.requests.get_mut(&tag) {
            request.is_lost = true;
            self.lost += 1;
        }
    }

    /// Everything that nobody will hear of has ended.
    pub(super) fn settle(&mut self) {
        self.clock += 1;
        let lost: Vec<_> = self.requests.iter().filter(|(_, request)| request.is_lost).map(|(tag, _)| *tag).collect();
        for tag in lost {
            let request = self.requests.remove(&tag).expect("found just now");
            if let Some(write) = self.writes.get_mut(&request.number) {
                write.ended = Some(self.clock);
            }
            self.take_told(&request);
        }
    }

    /// What a transfer or a flush was told, which nobody is told again.
    fn take_told(&self, request: &Request) -> Vec<i32> {
        let mut state = self.disk.state();
        let range = request.first * SECTOR..(request.first + request.sectors) * SECTOR;
        let is_flush = request.what == What::Flush;
        let is_its = |place: usize| if is_flush { place == usize::MAX } else { range.contains(&place) };
        let told = state.told.iter().filter(|(place, _)| is_its(*place)).map(|(_, errno)| *errno).collect();
        if is_flush {
            let index = state.told.iter().position(|(place, _)| is_its(*place));
            if let Some(index) = index {
                state.told.remove(index);
            }
        } else if self.is_apart {
            state.told.retain(|(place, _)| !is_its(*place));
        }
        told
    }

    /// A request has ended. The memory is what came back.
    pub(super) fn end(&mut self, tag: u64, error: Option<&Error>, memory: Option<&[u8]>) {
        self.clock += 1;
        let request = self.requests.remove(&tag).unwrap_or_else(|| panic!("{tag} ended, which is not in flight"));
        assert!(!request.is_lost, "{tag} ended, of which nobody was to hear");
        self.counted.failures += u64::from(error.is_some());
        self.check_told(&request, error);
        match (request.what, memory) {
            (What::Flush, None) => self.end_flush(&request, error.is_none()),
            (What::Flush, Some(_)) => panic!("a flush has no memory"),
            (_, None) => panic!("{request:?} came back without its memory"),
            (what, Some(memory)) => {
                let place = (memory.as_ptr().addr(), memory.len());
                assert_eq!(place, (request.address, request.sectors * SECTOR), "the memory is another's");
                match what {
                    What::Read => self.end_read(&request, error.is_none(), memory),
                    _ => self.end_write(&request, error.is_none(), memory),
                }
            }
        }
    }

    fn check_told(&self, request: &Request, error: Option<&Error>) {
        let is_flush = request.what == What::Flush;
        let Some(error) = error else {
            if self.is_apart && !is_flush {
                let told = self.take_told(request);
                assert!(told.is_empty(), "{told:?} was told to nobody: {:?} from {}", request.what, request.first);
            }
            return;
        };
        let told = self.take_told(request);
        let errno = if error.kind() == ErrorKind::EndOfDevice { Some(0) } else { error.raw_os_error() };
        let is_told = errno.is_some_and(|errno| told.contains(&errno));
        let is_of_ring = self.breaks && matches!(error.kind(), ErrorKind::Full);
        assert!(is_told || is_of_ring, "{:?} from {}: {error}, after {told:?}", request.what, request.first);
    }

    /// Whether a sector is one of those, or of several where writes may end anywhere.
    fn is_one_of(&self, found: &[u8], sector: usize, numbers: &[u32], may_be_torn: bool) -> bool {
        numbers.iter().rev().any(|number| is(found, *number, sector))
            || may_be_torn && {
                let all: Vec<_> = numbers.iter().map(|number| word(*number, sector)).collect();
                (0..SECTOR).all(|at| all.iter().any(|word| word[at % 8] == found[at]))
            }
    }

    fn end_read(&self, request: &Request, is_ok: bool, memory: &[u8]) {
        for (index, (found, seen)) in memory.chunks_exact(SECTOR).zip(&request.seen).enumerate() {
            let sector = request.first + index;
            if self.is_one_of(found, sector, seen, !self.is_whole) {
                continue;
            }
            assert!(!is_ok, "sector {sector} was read, and is none of {seen:?}");
            let mut left = seen.clone();
            left.push(request.number);
            let is_left =
                |at: usize, all: &[[u8; 8]]| found[at] == RUBBISH || all.iter().any(|word| word[at % 8] == found[at]);
            let all: Vec<_> = left.iter().map(|number| word(*number, sector)).collect();
            assert!((0..SECTOR).all(|at| is_left(at, &all)), "a read that failed left what is nobody's");
        }
    }

    fn end_write(&mut self, request: &Request, is_ok: bool, memory: &[u8]) {
        for (found, sector) in memory.chunks_exact(SECTOR).zip(request.first..) {
            assert!(is(found, request.number, sector), "what was written was changed");
        }
        let clock = self.clock;
        let started = self.writes.get_mut(&request.number).map_or(0, |write| {
            write.ended = Some(clock);
            write.started
        });
        if !is_ok {
            return;
        }
        for sector in request.range() {
            let writes = &self.writes;
            let is_before = |number: &u32| writes[number].ended.is_some_and(|ended| ended < started);
            self.possible[sector].retain(|number| !is_before(number));
        }
        let state = self.disk.state();
        for sector in request.range() {
            let found = &state.contents[sector * SECTOR..][..SECTOR];
            let is_there = self.is_one_of(found, sector, &self.possible[sector], !self.is_whole);
            assert!(is_there, "sector {sector} was written, and is not there");
            if request.what == What::WriteFua {
                let found = &state.stable[sector * SECTOR..][..SECTOR];
                let seen = &request.seen[sector - request.first];
                let is_stable = self.is_one_of(found, sector, seen, !self.is_whole);
                assert!(is_stable, "sector {sector}: a durable write ended before it was on stable storage");
            }
        }
    }

    fn end_flush(&self, request: &Request, is_ok: bool) {
        let state = self.disk.state();
        for (found, (sector, seen)) in state.stable.chunks_exact(SECTOR).zip(request.seen.iter().enumerate()) {
            let is_stable = !is_ok || self.is_one_of(found, sector, seen, !self.is_whole);
            assert!(is_stable, "sector {sector}: a flush ended before {seen:?} was on stable storage");
        }
    }

    /// What is on the disk is what may be there, and nobody did what may not be.
    pub(super) fn check_disk(&self) {
        let state = self.disk.state();
        assert!(state.complaints.is_empty(), "{:?}", state.complaints);
        for (sector, (found, possible)) in state.contents.chunks_exact(SECTOR).zip(&self.possible).enumerate() {
            let is_possible = self.is_one_of(found, sector, possible, !self.is_whole);
            assert!(is_possible, "sector {sector} is none of {possible:?}");
        }
    }

    /// All faults were told, when nothing is in flight.
    pub(super) fn check_all_told(&self) {
        let told = std::mem::take(&mut self.disk.state().told);
        assert!(!self.is_apart || told.is_empty() || self.lost != 0, "{told:?} was told to nobody");
    }
}
