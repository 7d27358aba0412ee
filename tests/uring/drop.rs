//! R3: nothing that the kernel may still write to is given to anybody else, however a ring ends.
//!
//! Each of these fails when the library is built with one of the mistakes that `--cfg sysuring_break="…"` puts in
//! (`scripts/mutants`): unmapping the pool, or giving the slots back.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sysuring::{Completion, ErrorKind, FixedFile, Operations as _, Pool, Ring, StableBuf};

use crate::common::{self, PausedChild};

const READS: u32 = 256;
const READ_SIZE: usize = 1 << 20;
const FILL: u8 = 0xa5;

/// A file of 256 MiB, none of it [`FILL`], and a ring with the file registered, past the page cache.
fn setup() -> Option<(tempfile::TempDir, Ring, FixedFile)> {
    let mut ring = common::ring(READS)?;
    let directory = common::directory();
    let path = directory.path().join("large");
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..READS {
        file.write_all(&[0x11; READ_SIZE]).unwrap();
    }
    file.sync_all().unwrap();
    let file = match std::fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(&path) {
        Ok(file) => file,
        Err(error) => {
            common::skip(format_args!("no O_DIRECT here: {error}"));
            return None;
        }
    };
    let file = ring.register_file(&file).unwrap();
    Some((directory, ring, file))
}

/// How long the same reads take when they are waited for, with a good margin.
fn time_to_end(ring: &mut Ring, file: &FixedFile, pool: &Pool) -> Duration {
    let started = Instant::now();
    start_reads(ring, file, pool, false);
    let mut ended = 0;
    while ended < READS {
        ring.submit_and_wait(1).unwrap();
        for done in ring.completions().filter_map(Completion::into_done) {
            assert_eq!(done.result().unwrap() as usize, READ_SIZE);
            ended += 1;
        }
    }
    started.elapsed() * 4 + Duration::from_millis(500)
}

fn start_reads(ring: &mut Ring, file: &FixedFile, pool: &Pool, fixed: bool) {
    for index in 0..READS {
        let buf = pool.lease().expect("as many slots as reads");
        let offset = u64::from(index) * READ_SIZE as u64;
        if fixed {
            ring.read_fixed(file, buf, READ_SIZE as u32, offset).unwrap();
        } else {
            ring.read(file, buf, READ_SIZE as u32, offset).unwrap();
        }
    }
}

/// New memory at `address` where that is free, else anywhere.
fn map_at(address: *mut u8, length: usize) -> &'static mut [u8] {
    let memory = common::map_at(address, length).or_else(|| common::map(ptr::null_mut(), length, 0)).expect("memory");
    // SAFETY: mapped just now, and unmapped by nobody.
    unsafe { std::slice::from_raw_parts_mut(memory, length) }
}

fn damage(memory: &[u8]) -> usize {
    memory.iter().filter(|byte| **byte != FILL).count()
}

/// Drops everything with the reads in flight, puts new memory where the pool was, and looks whether anything is written
/// to it.
fn drop_everything(fixed: bool) {
    let Some((_directory, mut ring, file)) = setup() else { return };
    let pool = Pool::new(READS, READ_SIZE).unwrap();
    let address = {
        let mut leases: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
        // Its pages are there, so that reads need not wait for them.
        leases.iter_mut().for_each(|buf| buf.fill(0));
        leases.iter().map(|buf| buf.as_ptr().cast_mut()).min().unwrap()
    };
    if fixed {
        match ring.register_pool(&pool) {
            Err(error) if error.kind() == ErrorKind::Full => return common::skip(error),
            registered => registered.unwrap(),
        }
    }
    let wait = time_to_end(&mut ring, &file, &pool);
    let retired = Pool::retired_bytes();
    start_reads(&mut ring, &file, &pool, fixed);
    ring.submit().unwrap();
    let in_flight = ring.in_flight();
    drop((ring, file, pool));

    let memory = map_at(address, READS as usize * READ_SIZE);
    memory.fill(FILL);
    std::thread::sleep(wait);
    assert_eq!(damage(memory), 0, "bytes of new memory were overwritten ({in_flight} reads were in flight)");
    // On files with read_iter the kernel pins the pages first, so that a plain unmapping would go unnoticed above.
    assert!(Pool::retired_bytes() > retired, "the addresses were given back, or no read was in flight at the drop");
}

#[test]
fn nothing_is_overwritten_after_everything_was_dropped() {
    drop_everything(false);
}

#[test]
fn nothing_is_overwritten_after_everything_was_dropped_registered() {
    drop_everything(true);
}

#[test]
fn a_slot_in_flight_is_not_leased_again_after_its_ring_was_dropped() {
    let Some((_directory, mut ring, file)) = setup() else { return };
    let pool = Pool::new(READS, READ_SIZE).unwrap();
    let wait = time_to_end(&mut ring, &file, &pool);
    start_reads(&mut ring, &file, &pool, false);
    ring.submit().unwrap();
    drop((ring, file));
    let mut leases: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
    leases.iter_mut().for_each(|buf| buf.fill(FILL));
    assert!(leases.len() < READS as usize, "the reads ended before the ring was dropped: this showed nothing");
    std::thread::sleep(wait);
    assert_eq!(leases.iter().map(|buf| damage(buf)).sum::<usize>(), 0, "a slot was given out with its read in flight");
}

/// A forked child keeps the ring's descriptor open, so that closing it in the parent does not even begin to end the read.
#[test]
fn nothing_is_overwritten_while_a_child_holds_the_ring() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, mut writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 4096).unwrap();
    let mut buf = pool.lease().unwrap();
    buf.fill(0);
    let address = buf.as_mut_ptr();
    ring.read(&file, buf, 4096, 0).unwrap();
    ring.submit().unwrap();

    let child = PausedChild::fork();
    drop((ring, file, pool));
    let memory = map_at(address, 4096);
    memory.fill(FILL);
    writer.write_all(&[0x11; 64]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let damaged = damage(memory);
    drop(child);
    assert_eq!(damaged, 0, "the kernel wrote to memory that was given out again");
    drop(reader);
}

#[test]
fn a_forgotten_ring_and_forgotten_leases_are_leaks_and_no_more() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, mut writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(3, 4096).unwrap();
    ring.read(&file, pool.lease().unwrap(), 4096, 0).unwrap();
    ring.submit().unwrap();
    std::mem::forget(pool.lease().unwrap());
    std::mem::forget(ring);
    std::mem::forget(file);
    let mut left = pool.lease().unwrap();
    left.fill(FILL);
    assert!(pool.lease().is_none());
    writer.write_all(&[0x11; 64]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(damage(&left), 0);
}

#[test]
fn a_ring_dropped_by_a_panic_lets_nothing_be_overwritten() {
    let Some(ring) = common::ring(8) else { return };
    let (reader, mut writer) = common::pipe();
    let pool = Pool::new(1, 4096).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut ring = ring;
        let file = ring.register_file(&reader).unwrap();
        ring.read(&file, pool.lease().unwrap(), 4096, 0).unwrap();
        ring.submit().unwrap();
        panic!("on purpose: descriptor {}", reader.as_raw_fd());
    }));
    assert!(panicked.is_err());
    assert!(pool.lease().is_none(), "the slot in flight is not given out again");
    writer.write_all(b"x").unwrap();
}

/// Counts those that are dropped; one of them unwinds.
#[derive(Debug)]
struct Loud {
    bytes: Vec<u8>,
    dropped: Arc<AtomicUsize>,
    unwinds: bool,
}

// SAFETY: that of the vector.
unsafe impl StableBuf for Loud {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        self.bytes.memory()
    }
}

impl Drop for Loud {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        assert!(!self.unwinds, "on purpose");
    }
}

#[test]
fn a_buffer_whose_drop_unwinds_leaks_no_other() {
    let Some(_) = common::ring(1) else { return };
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut ring = Ring::builder(8).build_owned().unwrap();
    let file = ring.register_file(&std::fs::File::open("/dev/zero").unwrap()).unwrap();
    for unwinds in [false, true, false, false] {
        ring.read_owned(&file, Loud { bytes: vec![1; 64], dropped: Arc::clone(&dropped), unwinds }, 0).unwrap();
    }
    ring.submit_and_wait(4).unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(ring)));
    assert!(unwound.is_err());
    assert_eq!(dropped.load(Ordering::Relaxed), 4);
}
