//! Rings that end while a disk does not answer: dropping and shutting down come back within their bound, what the kernel may
//! still write to is nobody else's, and what leaks is counted.
//!
//! The disk is a linear mapping onto the one that `SYSURING_TEST_DISK` names (its contents are lost), suspended by `dmsetup`,
//! which needs root. `tests/vm/run` has all that; elsewhere these tests are skipped.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sysuring::{
    Completion, ErrorKind, FixedFile, OpRing, Operations, Pool, Ring, RingBuilder, StableBuf, ThreadRings,
    leaked_operations,
};

use crate::common;

const READS: u32 = 8;
const BLOCK: usize = 4096;
/// What the disk is full of.
const ON_DISK: u8 = 0x11;
/// What memory is full of that the kernel must not write to.
const FILL: u8 = 0xa5;
/// What a bound may be missed by: an emulated processor that others use, too, is slow.
const SLACK: Duration = Duration::from_secs(2);
/// How long dropping a ring waits for what would leak, where nothing else was said.
const LEAK_LIMIT: Duration = Duration::from_secs(1);

/// A disk that answers nothing until it is told to.
struct HungDisk {
    name: String,
    answers: bool,
    /// One at a time: they are on the same disk.
    _turn: MutexGuard<'static, ()>,
}

fn dmsetup(arguments: &[&str]) -> Result<(), String> {
    // There may be no udev: dmsetup makes the nodes itself.
    let output = Command::new("dmsetup").args(arguments).env("DM_DISABLE_UDEV", "1").output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("dmsetup {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("dmsetup: {error}")),
    }
}

impl HungDisk {
    /// `None`, with the reason on standard error, where there can't be one.
    #[track_caller]
    fn new() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        static MADE: AtomicUsize = AtomicUsize::new(0);

        let below = super::disk::disk()?;
        // SAFETY: asks who this is.
        if unsafe { libc::geteuid() } != 0 {
            common::skip("only root can map a disk");
            return None;
        }
        if let Err(error) = dmsetup(&["version"]) {
            common::skip(error);
            return None;
        }
        common::ring(1)?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let size = READS as usize * BLOCK;
        let disk = File::options().write(true).open(&below).unwrap();
        disk.write_all_at(&vec![ON_DISK; size], 0).unwrap();
        disk.sync_all().unwrap();
        drop(disk);
        let name = format!("sysuring-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let table = format!("0 {} linear {} 0", size / 512, below.display());
        dmsetup(&["create", &name, "--table", &table]).unwrap();
        Some(Self { name, answers: true, _turn: turn })
    }

    fn open(&self, direct: bool) -> File {
        let path = PathBuf::from("/dev/mapper").join(&self.name);
        let flags = if direct { libc::O_DIRECT } else { 0 };
        File::options().read(true).custom_flags(flags).open(path).unwrap()
    }

    fn hang(&mut self) {
        dmsetup(&["suspend", "--nolockfs", "--noflush", &self.name]).unwrap();
        self.answers = false;
    }

    /// Lets it answer, and waits until the reads have ended: nobody has it open then.
    fn answer(mut self) {
        self.resume().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(error) = dmsetup(&["remove", &self.name]) {
            assert!(Instant::now() < end, "reads go on, or a ring keeps the disk open: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.name.clear();
    }

    fn resume(&mut self) -> Result<(), String> {
        if self.answers {
            return Ok(());
        }
        self.answers = true;
        dmsetup(&["resume", &self.name])
    }
}

impl Drop for HungDisk {
    fn drop(&mut self) {
        // After a failed test: a process with I/O that never ends could not end either.
        if !self.name.is_empty() {
            let _ = self.resume();
            let _ = dmsetup(&["remove", "--retry", &self.name]);
        }
    }
}

/// Memory that is somebody's, in which every byte would show.
struct Others(Vec<Vec<u8>>);

impl Others {
    fn new() -> Self {
        // Of the sizes that were given up, so that an allocator would give out the same addresses, and large.
        Self([BLOCK; 64].into_iter().chain([4 << 20]).map(|size| vec![FILL; size]).collect())
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert!(self.0.iter().flatten().all(|byte| *byte == FILL), "memory of others was overwritten");
    }
}

/// Runs `work`, which may wait as long as `bound`.
#[track_caller]
fn within<R>(bound: Duration, work: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = work();
    let took = start.elapsed();
    assert!(took < bound + SLACK, "it took {took:?}, and may take {bound:?}");
    result
}

/// The first address of a pool, all of whose slots are free.
fn start_of(pool: &Pool) -> *mut u8 {
    let mut leases: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
    // Its pages are there.
    leases.iter_mut().for_each(|buf| buf.fill(0));
    leases.iter_mut().map(|buf| buf.as_mut_ptr()).min().unwrap()
}

/// Whether something is mapped at an address of a page.
fn is_mapped(address: *mut u8) -> bool {
    // SAFETY: asks about an address.
    unsafe { libc::msync(address.cast(), BLOCK, libc::MS_ASYNC) == 0 }
}

fn start_reads(ring: &mut impl Operations, file: &FixedFile, pool: &Pool, fixed: bool) {
    for index in 0..READS {
        let (buf, offset) = (pool.lease().unwrap(), u64::from(index) * BLOCK as u64);
        if fixed {
            ring.read_fixed(file, buf, BLOCK as u32, offset).unwrap();
        } else {
            ring.read(file, buf, BLOCK as u32, offset).unwrap();
        }
    }
}

/// How long the kernel has to bring all reads to the disk: those that it has not could be cancelled.
const ON_THE_WAY: Duration = Duration::from_millis(300);

/// Waits until the reads are on the disk, and sees that none ends.
fn let_them_hang<B>(ring: &mut Ring<B>) {
    within(ON_THE_WAY, || ring.submit_and_wait_timeout(1, ON_THE_WAY)).unwrap();
    assert_eq!(ring.completions().count(), 0, "the disk answers");
    assert_eq!(ring.in_flight(), READS);
}

/// The kinds of rings that differ in how they end.
fn kinds() -> [(&'static str, RingBuilder); 3] {
    [
        ("plain", Ring::builder(16)),
        ("deferred", Ring::builder(16).single_issuer(true).defer_taskrun(true).fall_back_flags(true)),
        ("polled", Ring::builder(16).sqpoll(Duration::from_millis(10))),
    ]
}

#[test]
fn a_pool_is_retired_and_nobody_waits() {
    for (name, builder) in kinds() {
        for (fixed, direct) in [(true, true), (false, true), (true, false)] {
            for forked in [false, true] {
                if forked && !direct {
                    continue;
                }
                let Some(mut disk) = HungDisk::new() else { return };
                println!("{name}, registered {fixed}, direct {direct}, forked {forked}");
                let mut ring = builder.build().unwrap();
                let pool = Pool::new(READS, BLOCK).unwrap();
                let address = start_of(&pool);
                if fixed {
                    ring.register_pool(&pool).unwrap();
                }
                let file = ring.register_file(&disk.open(direct)).unwrap();
                disk.hang();
                start_reads(&mut ring, &file, &pool, fixed);
                let_them_hang(&mut ring);
                let child = forked.then(Child::new);

                let (retired, leaked) = (Pool::retired_bytes(), leaked_operations());
                within(Duration::ZERO, || drop((ring, file, pool)));
                assert_eq!(Pool::retired_bytes() - retired, READS as usize * BLOCK);
                assert_eq!(leaked_operations(), leaked, "leases are no leak");
                for page in 0..READS as usize {
                    assert!(is_mapped(address.wrapping_add(page * BLOCK)), "the addresses were given back");
                }
                let others = Others::new();
                drop(child);
                disk.answer();
                others.assert_untouched();
            }
        }
    }
}

/// A process that has all that this one has, until it is dropped.
struct Child(libc::pid_t);

impl Child {
    fn new() -> Self {
        Self(common::fork_paused())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the child that was made above, once. Not waited for: with reads in flight it may take its time.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
        }
    }
}

#[test]
fn a_shared_ring_comes_back_as_well() {
    for fixed in [true, false] {
        for limit in [None, Some(Duration::from_millis(300))] {
            let Some(mut disk) = HungDisk::new() else { return };
            let builder = match limit {
                Some(limit) => Ring::builder(16).drop_limit(limit),
                None => Ring::builder(16),
            };
            let ring = builder.build_shared().unwrap();
            let pool = Pool::new(READS, BLOCK).unwrap();
            let address = start_of(&pool);
            if fixed {
                ring.register_pool(&pool).unwrap();
            }
            let file = ring.register_file(&disk.open(true)).unwrap();
            disk.hang();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start_reads(&mut &ring, &file, &pool, fixed);
                    ring.submit().unwrap();
                    // Some of them end with the thread that submitted them where they are not on the disk yet.
                    std::thread::sleep(ON_THE_WAY);
                });
            });
            let (retired, start) = (Pool::retired_bytes(), Instant::now());
            within(limit.unwrap_or_default(), || drop((ring, file, pool)));
            assert!(start.elapsed() >= limit.unwrap_or_default(), "it was to wait for {limit:?}");
            assert_eq!(Pool::retired_bytes() - retired, READS as usize * BLOCK);
            assert!(is_mapped(address));
            let others = Others::new();
            disk.answer();
            others.assert_untouched();
        }
    }
}

#[test]
fn a_limit_is_kept_and_a_shutdown_says_what_is_left() {
    for (name, builder) in kinds() {
        let Some(mut disk) = HungDisk::new() else { return };
        println!("{name}");
        let limit = Duration::from_millis(300);
        let mut rings: Vec<_> = (0..2)
            .map(|_| {
                let mut ring = builder.clone().drop_limit(limit).build().unwrap();
                let pool = Pool::new(READS, BLOCK).unwrap();
                let file = ring.register_file(&disk.open(true)).unwrap();
                (ring, pool, file)
            })
            .collect();
        disk.hang();
        for (ring, pool, file) in &mut rings {
            start_reads(ring, file, pool, false);
            let_them_hang(ring);
        }
        let (ring, pool, file) = rings.pop().unwrap();
        let start = Instant::now();
        let error = within(limit, || ring.shutdown(limit)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains(&READS.to_string()), "{error}");
        assert!(start.elapsed() >= limit);
        assert!(pool.lease().is_none(), "all slots are the kernel's");
        drop((pool, file));

        let (ring, pool, file) = rings.pop().unwrap();
        within(limit, || drop(ring));
        assert!(pool.lease().is_none(), "all slots are the kernel's");
        drop((pool, file));
        disk.answer();
    }
}

/// A buffer as O_DIRECT wants it, that counts how many of its kind exist.
struct Page {
    bytes: Box<Aligned>,
    _alive: Arc<()>,
}

#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

// SAFETY: the bytes are on the heap, and only this value has them.
unsafe impl StableBuf for Page {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        (NonNull::from(&mut self.bytes.0).cast(), BLOCK)
    }
}

/// A ring with reads in flight into buffers that were moved in, and the buffers' addresses.
fn with_owned(builder: &RingBuilder, file: &File, alive: &Arc<()>) -> (OpRing<Page>, Vec<usize>) {
    let mut ring: OpRing<Page> = builder.build_owned().unwrap();
    let file = ring.register_file(file).unwrap();
    let mut addresses = Vec::new();
    for index in 0..READS {
        let mut page = Page { bytes: Box::new(Aligned([0; BLOCK])), _alive: Arc::clone(alive) };
        addresses.push(page.memory().0.as_ptr().expose_provenance());
        ring.read_owned(&file, page, u64::from(index) * BLOCK as u64).unwrap_or_else(|_| panic!("rejected"));
    }
    let_them_hang(&mut ring);
    (ring, addresses)
}

/// What the reads wrote after their ring had gone is in the memory that was leaked for them, and nowhere else.
fn assert_leaked_pages_were_read_into(addresses: &[usize]) {
    for address in addresses {
        let page = ptr::with_exposed_provenance::<u8>(*address);
        for index in 0..BLOCK {
            // SAFETY: a page that was leaked, so that it is there, and that nobody writes to any more.
            assert_eq!(unsafe { page.add(index).read_volatile() }, ON_DISK);
        }
    }
}

#[test]
fn buffers_that_were_moved_in_leak_and_are_counted() {
    if !common::is_alone("uring::hung::buffers_that_were_moved_in_leak_and_are_counted") {
        return;
    }
    let mut leaked = 0;
    for (name, builder) in kinds() {
        for shuts_down in [false, true] {
            let Some(mut disk) = HungDisk::new() else { return };
            println!("{name}, shutdown {shuts_down}");
            let alive = Arc::new(());
            let file = disk.open(true);
            disk.hang();
            let (ring, addresses) = with_owned(&builder, &file, &alive);
            drop(file);
            if shuts_down {
                let limit = Duration::from_millis(200);
                assert_eq!(within(limit, || ring.shutdown(limit)).unwrap_err().kind(), ErrorKind::TimedOut);
            } else {
                let start = Instant::now();
                within(LEAK_LIMIT, || drop(ring));
                assert!(start.elapsed() >= LEAK_LIMIT, "it is to wait for what would leak");
            }
            leaked += READS;
            assert_eq!(leaked_operations(), leaked);
            assert_eq!(Arc::strong_count(&alive), 1 + READS as usize, "no buffer was dropped");
            let others = Others::new();
            disk.answer();
            others.assert_untouched();
            assert_leaked_pages_were_read_into(&addresses);
        }
    }
}

thread_local! {
    static LATE: RefCell<Option<OpRing<Page>>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_with_a_ring_ends() {
    if !common::is_alone("uring::hung::a_thread_with_a_ring_ends") {
        return;
    }
    // Buffers that were moved in.
    for (_, builder) in kinds() {
        let Some(mut disk) = HungDisk::new() else { return };
        let alive = Arc::new(());
        let leaked = leaked_operations();
        let file = disk.open(true);
        disk.hang();
        let addresses = within(ON_THE_WAY + LEAK_LIMIT, || {
            let thread = std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let (ring, addresses) = with_owned(&builder, &file, &alive);
                    LATE.set(Some(ring));
                    addresses
                });
                thread.join()
            });
            // A scoped thread may still be running its destructors: these are waited for, too.
            while leaked_operations() == leaked {
                std::thread::sleep(Duration::from_millis(1));
            }
            thread.unwrap()
        });
        assert_eq!(leaked_operations(), leaked + READS);
        drop(file);
        let others = Others::new();
        disk.answer();
        others.assert_untouched();
        assert_leaked_pages_were_read_into(&addresses);
    }
    // Leases, on the thread's own ring.
    let Some(mut disk) = HungDisk::new() else { return };
    let retired = Pool::retired_bytes();
    let file = disk.open(true);
    disk.hang();
    let thread = std::thread::spawn(move || {
        let pool = Pool::new(READS, BLOCK).unwrap();
        let started = ThreadRings::with(16, |ring| {
            let file = ring.register_file(&file).unwrap();
            start_reads(ring, &file, &pool, false);
            ring.submit().unwrap()
        });
        assert_eq!(started.unwrap(), READS);
    });
    within(Duration::ZERO, || thread.join().unwrap());
    assert_eq!(Pool::retired_bytes() - retired, READS as usize * BLOCK);
    let others = Others::new();
    disk.answer();
    others.assert_untouched();
}

/// The disk of these tests does hang, and does answer: without that they would show nothing.
#[test]
fn reads_wait_for_the_disk_and_then_end() {
    let Some(mut disk) = HungDisk::new() else { return };
    let mut ring = common::ring(16).unwrap();
    let pool = Pool::new(READS, BLOCK).unwrap();
    let file = ring.register_file(&disk.open(true)).unwrap();
    disk.hang();
    start_reads(&mut ring, &file, &pool, false);
    let_them_hang(&mut ring);
    disk.resume().unwrap();
    let mut ended = 0;
    while ended < READS {
        ring.submit_and_wait(1).unwrap();
        for done in ring.completions().filter_map(Completion::into_done) {
            assert_eq!(done.result().unwrap() as usize, BLOCK);
            assert!(done.into_buf().unwrap().iter().all(|byte| *byte == ON_DISK));
            ended += 1;
        }
    }
    drop((ring, file, pool));
    disk.answer();
    std::io::stdout().flush().unwrap();
}
