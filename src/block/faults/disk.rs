//! A disk in memory that has faults.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::block::platform::Clear;
use crate::block::{AlignmentFrom, Geometry};
use crate::random::Random;

/// Disks by the descriptors that stand for them.
static DISKS: Mutex<BTreeMap<RawFd, Arc<Disk>>> = Mutex::new(BTreeMap::new());

fn disks() -> MutexGuard<'static, BTreeMap<RawFd, Arc<Disk>>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What can become of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It moves a part, in whole units.
    Short,
    /// It moves nothing, as at the end.
    End,
    /// It fails with this.
    Errno(i32),
}

/// What a kernel answers that can do it when it is asked again.
pub(super) const PASSING: [i32; 3] = [libc::EINTR, libc::EAGAIN, libc::EBUSY];

/// What a read that fails may leave in memory.
pub(super) const RUBBISH: u8 = 0xee;

/// What a disk is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nature {
    pub(super) bytes: usize,
    pub(super) direct: bool,
    /// Of offsets and lengths.
    pub(super) unit: usize,
    /// Of addresses in memory.
    pub(super) alignment: usize,
}

/// How a disk feels today.
#[derive(Debug, Clone, Default)]
pub(super) struct Temper {
    /// One transfer in so many has a fault; 0 for none.
    pub(super) faults: usize,
    pub(super) kinds: Vec<Fault>,
    /// One submit or wait in so many fails with what passes, takes a part, or does not wait; 0 for none.
    #[cfg_attr(not(uring), allow(dead_code))]
    pub(super) submits: usize,
    /// One in so many fails for good.
    pub(super) breaks: usize,
    /// One flush in so many fails.
    pub(super) flushes: usize,
}

/// What happened since the disk was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Transfers that are to be tried again.
    pub(super) passing: u64,
    /// Transfers that moved some of what was asked, and not all.
    pub(super) short: u64,
    pub(super) flushes: u64,
    pub(super) transfers: u64,
}

/// A file that stands for memory.
#[derive(Debug)]
pub(super) struct Disk {
    nature: Nature,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// What reads give.
    pub(super) contents: Vec<u8>,
    /// What is left where the power goes.
    pub(super) stable: Vec<u8>,
    /// How far the disk goes now.
    pub(super) end: usize,
    pub(super) temper: Temper,
    pub(super) counts: Counts,
    /// Faults of the step that somebody has to be told of: where, and the errno, or 0 for the end.
    pub(super) told: Vec<(usize, i32)>,
    /// What the device did that nobody may.
    pub(super) complaints: Vec<String>,
    seed: u64,
    /// How often each offset was asked for in this step. What becomes of a transfer depends on nothing else, so that it is
    /// the same whichever thread comes first.
    attempts: HashMap<usize, u64>,
}

impl State {
    /// From here on faults are others; those before are over.
    pub(super) fn begin_step(&mut self, seed: u64) {
        self.seed = seed;
        self.attempts.clear();
        self.told.clear();
    }

    fn attempt(&mut self, offset: usize) -> Random {
        let attempt = self.attempts.entry(offset).or_default();
        *attempt += 1;
        Random::new(Random::new(self.seed ^ (offset as u64) << 20).next() ^ *attempt)
    }

    fn draw(&self, random: &mut Random) -> Option<Fault> {
        let has_one = self.temper.faults != 0 && !self.temper.kinds.is_empty() && random.once_in(self.temper.faults);
        has_one.then(|| random.pick(&self.temper.kinds))
    }

    fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.contents == self.stable
    }
}

/// What is to become of a transfer.
struct Fate {
    result: Result<usize, i32>,
    /// Though it fails, some sectors are written, or memory is.
    scribbles: bool,
    random: Random,
}

impl Disk {
    /// Makes a disk that `file` stands for, until [`Disk::remove`].
    pub(super) fn new(file: &File, nature: Nature, random: &mut Random) -> Arc<Self> {
        let mut contents = vec![0; nature.bytes];
        contents.iter_mut().for_each(|byte| *byte = random.next() as u8);
        let state = State {
            stable: contents.clone(),
            contents,
            end: nature.bytes,
            temper: Temper::default(),
            counts: Counts::default(),
            told: Vec::new(),
            complaints: Vec::new(),
            seed: 0,
            attempts: HashMap::new(),
        };
        let disk = Arc::new(Self { nature, state: Mutex::new(state) });
        disks().insert(file.as_raw_fd(), Arc::clone(&disk));
        disk
    }

    /// Called when nobody uses the file as a disk any more.
    pub(super) fn remove(descriptor: RawFd) {
        disks().remove(&descriptor);
    }

    pub(super) fn of(file: &File) -> Option<Arc<Self>> {
        Self::of_descriptor(file.as_raw_fd())
    }

    pub(super) fn of_descriptor(descriptor: RawFd) -> Option<Arc<Self>> {
        disks().get(&descriptor).cloned()
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            bytes: self.nature.bytes as u64,
            is_disk: true,
            logical_block: self.nature.unit as u32,
            physical_block: self.nature.unit as u32,
            optimal_transfer: None,
            max_transfer: None,
            memory_alignment: self.nature.alignment as u32,
            alignment_from: AlignmentFrom::Statx,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of a transfer.
    fn fate(
        &self,
        state: &mut State,
        is_read: bool,
        on_ring: bool,
        address: usize,
        length: usize,
        offset: u64,
    ) -> Fate {
        let Nature { unit, alignment, bytes, .. } = self.nature;
        state.counts.transfers += 1;
        let place = usize::try_from(offset).unwrap_or(usize::MAX);
        let is_inside = length != 0 && place.checked_add(length).is_some_and(|end| end <= bytes);
        let is_aligned = place % unit == 0 && length % unit == 0 && address % alignment == 0;
        let mut random = state.attempt(place);
        let fate = |result, random| Fate { result, scribbles: false, random };
        if !is_inside || !is_aligned {
            let what =
                format!("a transfer of {length} bytes at {offset}, {address:#x} in memory, of {:?}", self.nature);
            state.complain(what);
            return fate(Err(libc::EINVAL), random);
        }
        // A file ends anywhere, and what is written to it without a cache is whole.
        let there = length.min(state.end.saturating_sub(place));
        let there = if is_read { there } else { there - there % unit };
        if there == 0 {
            state.told.push((place, if is_read { 0 } else { libc::ENOSPC }));
            return fate(if is_read { Ok(0) } else { Err(libc::ENOSPC) }, random);
        }
        let is_of_ring = |fault: &Fault| *fault == Fault::Errno(libc::ECANCELED);
        let fault = state.draw(&mut random).filter(|fault| on_ring || !is_of_ring(fault));
        let result = match fault {
            Some(Fault::Errno(libc::ENOSPC)) if is_read => Ok(there),
            Some(Fault::Errno(errno)) => {
                if PASSING.contains(&errno) || errno == libc::ECANCELED {
                    state.counts.passing += 1;
                } else {
                    state.told.push((place, errno));
                    // A disk that fails has done some of it.
                    return Fate { result: Err(errno), scribbles: errno == libc::EIO, random };
                }
                Err(errno)
            }
            Some(Fault::Short) if there > unit => Ok(unit * (1 + random.below((there - 1) / unit))),
            Some(Fault::End) => Ok(0),
            None | Some(Fault::Short) => Ok(there),
        };
        if let Ok(moved) = result {
            if moved / unit == 0 {
                state.told.push((place, 0));
            } else if moved < length {
                state.counts.short += 1;
            }
        }
        fate(result, random)
    }

    /// Reads to memory, which nobody else uses meanwhile.
    pub(super) fn read(&self, memory: *mut u8, length: usize, offset: u64, on_ring: bool) -> Result<usize, i32> {
        let state = &mut *self.state();
        let fate = self.fate(state, true, on_ring, memory.addr(), length, offset);
        let moved = fate.result.unwrap_or(0);
        // SAFETY: `length` bytes that the caller has lent.
        let memory = unsafe { std::slice::from_raw_parts_mut(memory, length) };
        if moved > 0 {
            memory[..moved].copy_from_slice(&state.contents[offset as usize..][..moved]);
        }
        if fate.scribbles {
            memory.fill(RUBBISH);
        }
        fate.result
    }

    /// Reads what is in a cache, which is all of it, or a part, or nothing.
    pub(super) fn read_cached(&self, buffer: &mut [u8], offset: u64) -> Result<usize, i32> {
        let state = &mut *self.state();
        let place = usize::try_from(offset).unwrap_or(usize::MAX);
        if self.nature.direct {
            state.complain(format!("a read at {offset} of what is in a cache, past the cache"));
        }
        let there = buffer.len().min(state.end.saturating_sub(place));
        // No attempt: what becomes of those that follow does not depend on what is cached.
        let mut random = Random::new(state.seed ^ offset.rotate_left(32) ^ 0xcace);
        let moved = match random.below(4) {
            0 => return Err(random.pick(&[libc::EAGAIN, libc::EAGAIN, libc::EINTR, libc::EIO])),
            1 => random.below(there + 1),
            _ => there,
        };
        buffer[..moved].copy_from_slice(&state.contents[place.min(state.end)..][..moved]);
        Ok(moved)
    }

    pub(super) fn write(&self, data: &[u8], offset: u64, durable: bool, on_ring: bool) -> Result<usize, i32> {
        let state = &mut *self.state();
        let mut fate = self.fate(state, false, on_ring, data.as_ptr().addr(), data.len(), offset);
        let start = offset as usize;
        let moved = fate.result.unwrap_or(0);
        if moved > 0 {
            state.contents[start..][..moved].copy_from_slice(&data[..moved]);
        }
        if durable && moved > 0 {
            state.stable[start..][..moved].copy_from_slice(&data[..moved]);
        }
        if fate.scribbles {
            let there = data.len().min(state.end - start);
            let there = there - there % self.nature.unit;
            for (index, sector) in data[..there].chunks(self.nature.unit.max(512)).enumerate() {
                if fate.random.once_in(2) {
                    let at = start + index * self.nature.unit.max(512);
                    state.contents[at..][..sector.len()].copy_from_slice(sector);
                }
            }
        }
        fate.result
    }

    pub(super) fn flush(&self, on_ring: bool) -> Result<(), i32> {
        let state = &mut *self.state();
        let mut random = state.attempt(usize::MAX);
        match state.draw(&mut random).filter(|_| on_ring) {
            Some(Fault::Errno(errno)) if PASSING.contains(&errno) || errno == libc::ECANCELED => {
                state.counts.passing += 1;
                return Err(errno);
            }
            // A file that only calls can flush.
            Some(Fault::End) => return Err(random.pick(&[libc::EOPNOTSUPP, libc::EINVAL])),
            _ => {}
        }
        state.counts.flushes += 1;
        if state.temper.flushes != 0 && random.once_in(state.temper.flushes) {
            state.told.push((usize::MAX, libc::EIO));
            return Err(libc::EIO);
        }
        state.stable.clone_from(&state.contents);
        Ok(())
    }

    /// Zeroes a range, where the disk can do that.
    pub(super) fn clear(&self, how: Clear, offset: u64, length: u64) -> Result<(), i32> {
        let state = &mut *self.state();
        let (start, length) = (offset as usize, length as usize);
        let mut random = state.attempt(start);
        if how != Clear::ZeroRange || random.once_in(8) {
            return Err(libc::EOPNOTSUPP);
        }
        match state.draw(&mut random) {
            Some(Fault::Errno(errno)) if PASSING.contains(&errno) => {
                state.counts.passing += 1;
                return Err(errno);
            }
            Some(Fault::Errno(libc::EIO)) => {
                state.told.push((start, libc::EIO));
                return Err(libc::EIO);
            }
            _ => {}
        }
        state.contents[start..][..length].fill(0);
        Ok(())
    }
}
