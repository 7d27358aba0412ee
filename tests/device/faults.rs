//! Faults that can be had from a real kernel: what is full, read-only, shorter than it was, or gone while it is used, and
//! signals all the time. Nothing hangs, each error is told, and when the fault is over the device works.
//!
//! Faults of every kind, at any moment, are in the tests of `src/block/faults`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sysuring::ErrorKind;
use sysuring::block::{self, BlockDevice, Degraded, Device, Fallback, Options, ReadRequest, WriteRequest};

use super::create;
use crate::common::disk::{Loop, Mount};
use crate::common::random::Random;
use crate::common::{self, backends, filter, pattern};

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the process where `work` does not end: threads that hang can't be ended.
fn without_hanging<R>(work: impl FnOnce() -> R) -> R {
    let (ended, is_over) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if is_over.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("calls of the device hang");
            std::process::abort();
        }
    });
    let result = work();
    drop(ended);
    watch.join().unwrap();
    result
}

/// What threads were told.
#[derive(Debug, Default)]
struct Told {
    succeeded: usize,
    /// Errors, and of how many requests.
    errors: BTreeMap<String, (ErrorKind, usize)>,
}

impl Told {
    fn kinds(&self) -> Vec<ErrorKind> {
        self.errors.values().map(|(kind, _)| *kind).collect()
    }
}

/// Threads read (and write) batches of blocks anywhere, while something happens to the device.
fn under_load(device: &Device, writes: bool, happens: impl FnOnce()) -> Told {
    let (is_over, batches) = (AtomicBool::new(false), AtomicU64::new(0));
    // However slow the machine is: some batches of each thread before, and some after.
    let wait_for_batches = || {
        let (before, end) = (batches.load(Ordering::Relaxed), Instant::now() + PATIENCE / 4);
        while batches.load(Ordering::Relaxed) < before + 12 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let work = |seed: u64| {
        let _alarms = IS_STORM.load(Ordering::Relaxed).then(Alarms::start);
        let (mut random, mut told) = (Random::new(seed), Told::default());
        let (block_size, blocks) = (device.block_size(), device.block_count() as usize);
        let mut memory = device.aligned_buffer(64 * block_size).unwrap();
        while !is_over.load(Ordering::Relaxed) {
            let first = random.below(blocks);
            let numbers = (0..64).map(|at| (first + at * 7 % blocks) as u64 % blocks as u64);
            let results: Vec<_> = if writes && random.once_in(2) {
                let mut requests: Vec<_> = numbers
                    .zip(memory.chunks(block_size))
                    .map(|(block, data)| WriteRequest::new(block, data))
                    .collect();
                let _ = device.write_blocks(&mut requests);
                requests.iter().map(|request| request.result().unwrap().clone()).collect()
            } else {
                let mut requests: Vec<_> = numbers
                    .zip(memory.chunks_mut(block_size))
                    .map(|(block, buffer)| ReadRequest::new(block, buffer))
                    .collect();
                let _ = device.read_blocks(&mut requests);
                requests.iter().map(|request| request.result().unwrap().clone()).collect()
            };
            batches.fetch_add(1, Ordering::Relaxed);
            for result in results {
                match result {
                    Ok(()) => told.succeeded += 1,
                    Err(error) => {
                        let name = format!("{:?} {:?}", error.kind(), error.raw_os_error());
                        told.errors.entry(name).or_insert((error.kind(), 0)).1 += 1;
                    }
                }
            }
        }
        told
    };
    let before = device.report().degraded;
    let told = without_hanging(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || work(seed))).collect();
            std::thread::sleep(Duration::from_millis(50));
            wait_for_batches();
            happens();
            std::thread::sleep(Duration::from_millis(100));
            wait_for_batches();
            is_over.store(true, Ordering::Relaxed);
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(Told::default(), |mut all, told| {
                all.succeeded += told.succeeded;
                for (name, (kind, count)) in told.errors {
                    all.errors.entry(name).or_insert((kind, 0)).1 += count;
                }
                all
            })
        })
    });
    println!("{}: {told:?}", device.backend());
    assert!(told.succeeded > 0, "{told:?}");
    let after = device.report().degraded;
    // Linux 5.10 gives back what it punts to its threads when signals come, again and again.
    let is_given_back = |degraded: &Degraded| degraded.fallback == Fallback::PreadAtTimes && !common::is_kernel(5, 12);
    assert!(
        after[..before.len()] == before && after[before.len()..].iter().all(is_given_back),
        "faults of the target are no reason to use another way: {after:?}"
    );
    let stats = device.stats();
    let failures = told.errors.values().map(|(_, count)| *count as u64).sum::<u64>();
    assert_eq!((stats.in_flight, stats.failures), (0, failures), "{stats:?}");
    told
}

/// All of it can be written and read.
fn works(device: &Device) {
    let bytes = device.block_count() as usize * device.block_size();
    let data = pattern(9, bytes + 1);
    device.write_run(0, &data[1..]).unwrap();
    device.flush().unwrap();
    let mut back = vec![0; bytes];
    device.read_run(0, &mut back).unwrap();
    assert!(back == data[1..], "{}", device.backend());
    assert_eq!(device.stats().in_flight, 0);
}

fn set_len(path: &std::path::Path, bytes: u64) {
    File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn a_file_that_is_truncated_while_it_is_read_ends_there() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 1024);
        works(&device);
        let told = under_load(&device, false, || set_len(&path, 300 * 4096 + 1000));
        assert_eq!(told.kinds(), [ErrorKind::EndOfDevice], "{told:?}");
        assert_eq!(device.rescan().unwrap(), 300);
        works(&device);
        set_len(&path, 1024 * 4096);
        assert_eq!(device.rescan().unwrap(), 1024);
        works(&device);
    }
}

#[test]
fn a_disk_that_shrinks_while_it_is_read_ends_there() {
    // A child that another test forks would hold the disk, which is open exclusively.
    if !common::is_alone("device::faults::a_disk_that_shrinks_while_it_is_read_ends_there") {
        return;
    }
    let Some(disk) = Loop::new(4 << 20, 512) else { return };
    for backend in backends() {
        let device = block::open(&disk.path, &Options::new().backend(backend)).unwrap();
        works(&device);
        // What is written to a loop device makes its file longer again, as long as it has not followed its file.
        let told = under_load(&device, false, || {
            set_len(&disk.file, 1 << 20);
            disk.follow_file();
        });
        // What the kernel was doing while it shrank fails as well.
        let is_known = |kind| matches!(kind, &ErrorKind::EndOfDevice | &ErrorKind::Io);
        assert!(told.kinds().contains(&ErrorKind::EndOfDevice) && told.kinds().iter().all(is_known), "{told:?}");
        let data = pattern(1, 4096);
        let mut requests: Vec<_> = (200..300).map(|block| WriteRequest::new(block, &data)).collect();
        let error = without_hanging(|| device.write_blocks(&mut requests)).unwrap_err();
        assert_eq!((error.completed(), error.error().kind()), (56, ErrorKind::NoSpace), "{error}");
        assert!(requests[56..].iter().all(|request| request.result().unwrap().is_err()));
        assert_eq!(device.rescan().unwrap(), 256);
        assert_eq!(device.read_block(256, &mut [0; 4096]).unwrap_err().kind(), ErrorKind::OutOfRange);
        works(&device);
        set_len(&disk.file, 4 << 20);
        disk.follow_file();
        assert_eq!(device.rescan().unwrap(), 1024);
        works(&device);
    }
}

/// Reads a device whenever something is logged.
struct Reader(Device, AtomicU64);

impl log::Log for Reader {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let is_end = record.args().to_string().contains("ends before its");
        self.0.read_block(0, &mut [0; 4096]).unwrap();
        self.1.fetch_add(u64::from(is_end), Ordering::Relaxed);
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_may_use_a_device_and_is_told_once_of_an_early_end() {
    if !common::is_alone("device::faults::a_logger_may_use_a_device_and_is_told_once_of_an_early_end") {
        return;
    }
    // This thread's ring is the only one: others share one.
    #[cfg(any(feature = "link", feature = "dlopen"))]
    sysuring::ThreadRings::set_limit(1);
    let directory = common::directory();
    let other = create(&directory.path().join("other"), *backends().last().unwrap(), 16);
    other.read_block(0, &mut [0; 4096]).unwrap();
    let reader: &'static Reader = Box::leak(Box::new(Reader(other, AtomicU64::new(0))));
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 16);
        works(&device);
        set_len(&path, 8 * 4096);
        let _ = log::set_logger(reader);
        log::set_max_level(log::LevelFilter::Error);
        let read = |expected| {
            let mut memory = device.aligned_buffer(4096).unwrap();
            let error = device.read_block(12, &mut memory).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::EndOfDevice, "{error}");
            assert_eq!(reader.1.load(Ordering::Relaxed), expected, "{backend}");
            let mut requests = [ReadRequest::new(1, &mut memory)];
            device.read_blocks(&mut requests).unwrap();
        };
        let before = reader.1.load(Ordering::Relaxed);
        without_hanging(|| {
            read(before + 1);
            std::thread::scope(|scope| scope.spawn(|| read(before + 2)).join().unwrap());
        });
        log::set_max_level(log::LevelFilter::Off);
        set_len(&path, 16 * 4096);
    }
}

/// Whether the kernel reports that a disk's second half is gone, to who reads it past the page cache and without this library.
fn device_ends(path: &std::path::Path) -> bool {
    let disk = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let mut block = block::AlignedBuffer::new(4096, 4096).unwrap();
    disk.read_at(&mut block, 3 << 20).is_err()
}

#[test]
fn a_disk_whose_storage_goes_and_comes_back_works_again() {
    if !common::is_alone("device::faults::a_disk_whose_storage_goes_and_comes_back_works_again") {
        return;
    }
    let Some(disk) = Loop::new(4 << 20, 512) else { return };
    for backend in backends() {
        let device = block::open(&disk.path, &Options::new().backend(backend)).unwrap();
        // What is written to a loop device makes its file longer again.
        let mut ends = false;
        let told = under_load(&device, false, || {
            set_len(&disk.file, 1 << 20);
            ends = device_ends(&disk.path);
        });
        // Some kernels (Linux 6.1) give zeroes where the file has nothing, of which nobody can tell.
        let expected: &[_] = if ends { &[ErrorKind::Io] } else { &[] };
        assert_eq!(told.kinds(), expected, "{told:?}");
        set_len(&disk.file, 4 << 20);
        works(&device);
    }
}

#[test]
fn a_disk_that_is_detached_while_it_is_used_ends_or_goes_on() {
    if !common::is_alone("device::faults::a_disk_that_is_detached_while_it_is_used_ends_or_goes_on") {
        return;
    }
    for backend in backends() {
        let Some(mut disk) = Loop::new(4 << 20, 512) else { return };
        let path = disk.path.clone();
        let device = block::open(&path, &Options::new().backend(backend)).unwrap();
        under_load(&device, true, || disk.detach());
        // Whether it is there or not, each call comes back.
        without_hanging(|| {
            let _ = device.write_block(1, &[1; 4096]);
            let _ = device.flush();
            let _ = device.rescan();
        });
        assert_eq!(device.stats().in_flight, 0);
        drop(device);
        let end = Instant::now() + PATIENCE;
        loop {
            // A disk that is gone has no blocks.
            match block::open(&path, &Options::new().backend(backend)) {
                Err(_) => break,
                Ok(device) if device.block_count() == 0 => break,
                Ok(_) => assert!(Instant::now() < end, "the device keeps the disk open"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Writes more than there is room for, makes room, and writes again.
fn fill(directory: &std::path::Path, name: &str) {
    let filler = directory.join("filler");
    let path = directory.join("disk");
    for backend in backends() {
        std::fs::write(&filler, vec![1; 512 << 10]).unwrap();
        let device = create(&path, backend, 2048);
        let data = pattern(3, 2048 * 4096);
        let mut requests: Vec<_> =
            data.chunks(4096).enumerate().map(|(block, data)| WriteRequest::new(block as u64, data)).collect();
        let error = without_hanging(|| device.write_blocks(&mut requests)).unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::NoSpace, "{name}: {error}");
        let failed = requests.iter().filter(|request| request.result().unwrap().is_err()).count();
        assert!((1..2048).contains(&failed), "{name}, {backend}: {failed}");
        let stats = device.stats();
        assert_eq!((stats.in_flight, stats.failures), (0, failed as u64));
        // What was written is there, and what was not is a hole, or what it was.
        let mut back = vec![0; 4096];
        for request in &requests {
            device.read_block(request.block(), &mut back).unwrap();
            let data = &data[request.block() as usize * 4096..][..4096];
            let is_written = request.result().unwrap().is_ok();
            assert!(back == data || !is_written, "{name}, {backend}: block {}", request.block());
        }
        let failed: Vec<_> =
            requests.iter().filter(|request| request.result().unwrap().is_err()).map(WriteRequest::block).collect();
        std::fs::remove_file(&filler).unwrap();
        device.write_block(failed[0], &data[failed[0] as usize * 4096..][..4096]).unwrap();
        device.flush().unwrap();
        device.read_block(failed[0], &mut back).unwrap();
        assert!(back == data[failed[0] as usize * 4096..][..4096]);
        drop(device);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_full_file_system_is_told_and_with_room_again_it_goes_on() {
    if !common::is_alone("device::faults::a_full_file_system_is_told_and_with_room_again_it_goes_on") {
        return;
    }
    if let Some(memory) = Mount::new(&["-t", "tmpfs", "-o", "size=4m", "none"]) {
        fill(&memory.path, "tmpfs");
    }
    let Some(disk) = Loop::new(8 << 20, 512) else { return };
    if let Some(mounted) = ext4(&disk) {
        fill(&mounted.path, "ext4");
    }
}

/// A file system on a disk.
fn ext4(disk: &Loop) -> Option<Mount> {
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal"]).arg(&disk.path).output();
    match made {
        Ok(output) if output.status.success() => Mount::new(&["-t", "ext4", disk.path.to_str().unwrap()]),
        Ok(output) => {
            common::skip(format_args!("mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr)));
            None
        }
        Err(error) => {
            common::skip(format_args!("mkfs.ext4: {error}"));
            None
        }
    }
}

#[test]
fn what_is_read_only_can_be_read_and_says_so() {
    if !common::is_alone("device::faults::what_is_read_only_can_be_read_and_says_so") {
        return;
    }
    let Some(disk) = Loop::new(8 << 20, 512) else { return };
    let Some(mounted) = ext4(&disk) else { return };
    let path = mounted.path.join("disk");
    let data = pattern(8, 16 * 4096);
    std::fs::write(&path, &data).unwrap();
    let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&mounted.path).status();
    assert!(status.unwrap().success());
    for backend in backends() {
        let options = Options::new().backend(backend);
        let error = block::open(&path, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        let error = block::open(mounted.path.join("new"), &options.clone().create(4096)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        let device = block::open(&path, &options.read_only(true)).unwrap();
        let mut back = vec![0; 16 * 4096];
        device.read_run(0, &mut back).unwrap();
        assert!(back == data, "{backend}");
        device.flush().unwrap();
        assert_eq!(device.write_block(0, &[0; 4096]).unwrap_err().kind(), ErrorKind::ReadOnly);
    }
}

#[test]
fn a_disk_that_becomes_read_only_is_told_and_can_be_read() {
    if !common::is_alone("device::faults::a_disk_that_becomes_read_only_is_told_and_can_be_read") {
        return;
    }
    let Some(disk) = Loop::new(4 << 20, 512) else { return };
    for backend in backends() {
        let options = Options::new().backend(backend);
        let device = block::open(&disk.path, &options).unwrap();
        let mut refused = None;
        let told = under_load(&device, true, || refused = Some(Refused::new(&disk)));
        // Some kernels let those go on who have it open.
        let is_known = |kind| matches!(kind, &ErrorKind::PermissionDenied | &ErrorKind::Io | &ErrorKind::ReadOnly);
        assert!(told.kinds().iter().all(is_known), "{told:?}");
        device.read_run(0, &mut vec![0; 4 << 20]).unwrap();
        drop(device);
        // Some kernels open it for writing, too, and refuse every write.
        let error = block::open(&disk.path, &options).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnly), "{error}");
        let reader = block::open(&disk.path, &options.clone().read_only(true)).unwrap();
        reader.read_run(0, &mut vec![0; 4 << 20]).unwrap();
        drop((reader, refused));
        works(&block::open(&disk.path, &options).unwrap());
    }
}

/// Writes to a disk are refused, until this is dropped: whoever has the number next would find it so.
struct Refused<'a>(&'a Loop);

impl<'a> Refused<'a> {
    fn new(disk: &'a Loop) -> Self {
        let refused = Self(disk);
        assert!(refused.set("--setro"));
        refused
    }

    fn set(&self, option: &str) -> bool {
        Command::new("blockdev").arg(option).arg(&self.0.path).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        assert!(self.set("--setrw") || std::thread::panicking());
    }
}

/// Signals that came.
static ALARMS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_alarm(_: libc::c_int) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// Whether threads under load have [`Alarms`].
static IS_STORM: AtomicBool = AtomicBool::new(false);

/// A timer that sends SIGALRM to this thread several thousand times a second; calls end with EINTR.
struct Alarms(libc::timer_t);

impl Alarms {
    fn start() -> Self {
        let mut timer = std::ptr::null_mut();
        let often = libc::timespec { tv_sec: 0, tv_nsec: 200_000 };
        let often = libc::itimerspec { it_interval: often, it_value: often };
        // SAFETY: the handler only counts; the structures are read during the calls, and the timer is written.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = count_alarm as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGALRM;
            event.sigev_notify_thread_id = libc::gettid();
            assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), 0);
            assert_eq!(libc::timer_settime(timer, 0, &raw const often, std::ptr::null_mut()), 0);
        }
        Self(timer)
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        // SAFETY: made above, and given up only here.
        unsafe { libc::timer_delete(self.0) };
    }
}

#[test]
fn a_storm_of_signals_ends_nothing_on_own_rings_and_shared_ones() {
    if !common::is_alone("device::faults::a_storm_of_signals_ends_nothing_on_own_rings_and_shared_ones") {
        return;
    }
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        // More threads than rings: the others share one.
        #[cfg(any(feature = "link", feature = "dlopen"))]
        sysuring::ThreadRings::set_limit(2);
        let device = create(&path, backend, 1024);
        let before = ALARMS.load(Ordering::Relaxed);
        IS_STORM.store(true, Ordering::Relaxed);
        let alarms = Alarms::start();
        let told = under_load(&device, true, || {
            for lap in 0..20 {
                let data = pattern(lap, 64 * 4096 + 1);
                device.write_run_fua(lap * 10, &data[1..]).unwrap();
                device.flush().unwrap();
                device.write_zeroes(lap * 10, 64).unwrap();
            }
        });
        assert!(told.errors.is_empty(), "{told:?}");
        works(&device);
        drop(alarms);
        let alarms = ALARMS.load(Ordering::Relaxed) - before;
        assert!(alarms > 500, "{backend}: {alarms} signals are too few to mean anything");
    }
}

#[test]
fn what_is_tried_again_is_counted_and_after_a_while_told() {
    if !common::is_alone("device::faults::what_is_tried_again_is_counted_and_after_a_while_told") {
        return;
    }
    let directory = common::directory();
    let device = create(&directory.path().join("disk"), sysuring::block::Backend::File, 16);
    works(&device);
    assert_eq!(device.stats().retries, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            filter::deny(&[libc::SYS_pread64], libc::EAGAIN);
            let error = without_hanging(|| device.read_block(0, &mut [0; 4096])).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
        });
    });
    let stats = device.stats();
    assert!(stats.retries >= 100, "{stats:?}");
    assert_eq!((stats.failures, stats.in_flight), (1, 0));
    works(&device);
    assert_eq!(device.stats().retries, stats.retries);
}
