//! Threads that come and go, many devices, and devices that are opened and closed: nothing stays behind, and nobody waits for
//! somebody else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use sysuring::block::{self, Backend, BlockDevice, Device, Options};

use crate::common::{self, backends};

const BLOCK: usize = 4096;
/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Threads that live at the same time.
const AT_ONCE: usize = 16;

/// What a process has that may leak.
#[derive(Debug)]
struct Possessions {
    descriptors: usize,
    threads: usize,
    /// KiB.
    resident: u64,
    /// KiB of registered buffers.
    pinned: u64,
}

impl Possessions {
    fn now() -> Self {
        let count = |folder| std::fs::read_dir(folder).unwrap().count();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            resident: field("VmRSS:"),
            pinned: field("VmPin:"),
        }
    }

    /// Against those before: what was needed at once may be kept for the next time. The kernel ends rings and threads some time
    /// after they were closed.
    #[track_caller]
    fn wait_for(before: &Self) -> Self {
        let end = Instant::now() + PATIENCE;
        // AddressSanitizer keeps what was freed for long, and looks for leaks itself.
        let is_sanitized = std::env::var_os("LSAN_OPTIONS").is_some();
        loop {
            let now = Self::now();
            let are_same = now.descriptors <= before.descriptors + 2
                && now.threads <= before.threads + AT_ONCE
                && (is_sanitized || now.resident <= before.resident + (16 << 10))
                && now.pinned <= before.pinned;
            if are_same {
                return now;
            }
            assert!(Instant::now() < end, "{before:?} before, {now:?} after");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What a short thread does: a write and a read of its own block, and things that are in flight when it ends.
fn live_shortly(device: &Device, number: usize) {
    let block = (number % AT_ONCE) as u64;
    let data = vec![number as u8; BLOCK];
    device.write_block(block, &data).unwrap();
    let mut back = vec![0; BLOCK];
    device.read_block(block, &mut back).unwrap();
    assert!(back == data, "thread {number}");
    if number % 16 == 0 {
        let mut queue = device.queue(4, BLOCK).unwrap();
        for _ in 0..4 {
            let buffer = queue.buffer().unwrap();
            queue.read(block, buffer, 0).unwrap();
        }
        queue.submit().unwrap();
    }
    if number % 16 == 1 {
        let mut future = device.read_async(block, device.aligned_buffer(BLOCK).unwrap());
        let _ = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
    }
}

#[test]
fn ten_thousand_short_threads_leave_nothing_behind() {
    if !common::is_alone("device::threads::ten_thousand_short_threads_leave_nothing_behind") {
        return;
    }
    let directory = common::directory();
    for backend in backends() {
        let options = Options::new().backend(backend).create((AT_ONCE * BLOCK) as u64);
        let device = Arc::new(block::open(directory.path().join(backend.to_string()), &options).unwrap());
        let live = |numbers: std::ops::Range<usize>| {
            for first in numbers.step_by(AT_ONCE) {
                let threads: Vec<_> = (first..first + AT_ONCE)
                    .map(|number| {
                        let device = Arc::clone(&device);
                        std::thread::spawn(move || live_shortly(&device, number))
                    })
                    .collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            }
        };
        live(0..320);
        let before = Possessions::now();
        live(0..10_000);
        let after = Possessions::wait_for(&before);
        #[cfg(any(feature = "link", feature = "dlopen"))]
        assert!(
            sysuring::ThreadRings::count() <= 1,
            "{} rings of threads that are gone",
            sysuring::ThreadRings::count()
        );
        let stats = device.stats();
        assert!(stats.reads >= 10_000 && stats.writes >= 10_000 && stats.failures == 0, "{stats:?}");
        println!("{backend}: {before:?} before, {after:?} after");
    }
}

#[test]
fn many_threads_use_many_devices() {
    const THREADS: usize = 256;
    const DEVICES: usize = 100;

    if !common::is_alone("device::threads::many_threads_use_many_devices") {
        return;
    }
    let directory = common::directory();
    for backend in backends() {
        let options = Options::new().backend(backend).create((THREADS * BLOCK) as u64).pool_size(16 * BLOCK);
        let open = |number| block::open(directory.path().join(format!("{backend}-{number}")), &options).unwrap();
        let before = Possessions::now();
        let devices: Arc<Vec<Device>> = Arc::new((0..DEVICES).map(open).collect());
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let devices = Arc::clone(&devices);
                std::thread::spawn(move || {
                    let mut back = vec![0; BLOCK];
                    for at in 0..DEVICES {
                        // Each begins with another device.
                        let device = &devices[(thread + at) % DEVICES];
                        let data = vec![(thread ^ at) as u8; BLOCK];
                        device.write_block(thread as u64, &data).unwrap();
                        device.read_block(thread as u64, &mut back).unwrap();
                        assert!(back == data, "{backend}: thread {thread}, device {at}");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for device in devices.iter() {
            let stats = device.stats();
            assert_eq!((stats.reads, stats.writes), (THREADS as u64, THREADS as u64));
            assert_eq!((stats.failures, stats.in_flight), (0, 0), "{stats:?}");
        }
        drop(devices);
        let after = Possessions::now();
        assert!(after.descriptors <= before.descriptors + 8, "{before:?} before, {after:?} after");
        println!("{backend}: {before:?} before, {after:?} after");
    }
}

/// Needs liburing 2.8, and Linux 6.12.
#[test]
fn threads_share_what_is_pinned_where_the_kernel_can() {
    const TEST: &str = "device::threads::threads_share_what_is_pinned_where_the_kernel_can";
    // What other tests pin would be counted, too.
    if !common::is_alone(TEST) {
        return;
    }
    if !cfg!(liburing_2_8) {
        return common::skip(
            "this program was built with a header of liburing before 2.8, which brought io_uring_clone_buffers",
        );
    }
    if !common::is_kernel(6, 12) {
        return common::skip("the kernel clones no buffers (before Linux 6.12)");
    }
    let directory = common::directory();
    let options = Options::new().backend(Backend::Uring).create(1 << 20).pool_size(8 << 20);
    let device = match block::open(directory.path().join("disk"), &options) {
        Ok(device) => device,
        Err(error) => return common::skip(error),
    };
    let pinned = || Possessions::now().pinned;
    let before = pinned();
    if !device.report().registered_buffers || before < 8 << 10 {
        return common::skip(format_args!("{before} KiB are pinned: {}", device.report()));
    }
    std::thread::scope(|scope| {
        for block in 0..4 {
            let device = &device;
            scope.spawn(move || {
                let mut buffer = device.aligned_buffer(4096).unwrap();
                device.write_block(block, &buffer).unwrap();
                device.read_block(block, &mut buffer).unwrap();
                assert!(pinned() < before + (4 << 10), "{} KiB are pinned, {before} before", pinned());
            });
        }
    });
    assert!(device.report().registered_buffers && device.stats().bounces == 0);
    drop(device);
    let other = block::open(directory.path().join("other"), &Options::new().create(4096)).unwrap();
    other.write_block(0, &[1; 4096]).unwrap();
    let end = Instant::now() + PATIENCE;
    while pinned() > before - (7 << 10) {
        assert!(Instant::now() < end, "{} KiB are pinned after it was closed, {before} before", pinned());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_thousand_opens_and_closes_leave_nothing_behind() {
    if !common::is_alone("device::threads::a_thousand_opens_and_closes_leave_nothing_behind") {
        return;
    }
    let directory = common::directory();
    for backend in backends() {
        let path = directory.path().join(backend.to_string());
        let options = Options::new().backend(backend).create(16 * BLOCK as u64);
        let live = |laps: usize| {
            for lap in 0..laps {
                let device = block::open(&path, &options).unwrap();
                device.write_block(lap as u64 % 16, &[lap as u8; BLOCK]).unwrap();
                if lap % 2 == 0 {
                    device.close().unwrap();
                }
            }
        };
        live(20);
        let before = Possessions::now();
        live(1000);
        let after = Possessions::wait_for(&before);
        println!("{backend}: {before:?} before, {after:?} after");
    }
}
