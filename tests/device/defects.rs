//! Defects that block devices on io_uring have had, and that no other test would notice. The [table](super) has them all.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sysuring::ErrorKind;
use sysuring::block::{self, BlockDevice, Options, ReadRequest, WriteRequest};

use super::create;
use crate::common::{self, backends, pattern};

/// Descriptors that are open, and whether an exec closes each.
fn descriptors() -> Vec<(String, bool)> {
    let entries = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let flags = numbers.filter_map(|number| {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?.trim().to_owned();
        let is_closed = i32::from_str_radix(&flags, 8).unwrap() & libc::O_CLOEXEC != 0;
        Some((number, is_closed))
    });
    flags.collect()
}

#[test]
fn no_descriptor_outlives_an_exec_or_a_failed_open() {
    if !common::is_alone("device::defects::no_descriptor_outlives_an_exec_or_a_failed_open") {
        return;
    }
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let before: HashSet<_> = descriptors().into_iter().map(|(number, _)| number).collect();
        let device = create(&path, backend, 8);
        device.write_block(0, &[1; 4096]).unwrap();
        let new: Vec<_> = descriptors().into_iter().filter(|(number, _)| !before.contains(number)).collect();
        assert!(!new.is_empty() && new.iter().all(|(_, is_closed)| *is_closed), "{new:?}");

        let open = descriptors().len();
        for _ in 0..50 {
            let options = Options::new().backend(backend);
            assert_eq!(block::open(&path, &options).unwrap_err().kind(), ErrorKind::Busy);
            let options = options.exclusive(false);
            block::open(&path, &options.clone().create(4096)).unwrap_err();
            block::open(&path, &options.clone().block_size(65536)).unwrap_err();
        }
        assert_eq!(descriptors().len(), open, "{backend}");
    }
}

#[test]
fn after_an_error_in_a_batch_every_answer_is_its_own() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 64);
        let data = pattern(8, 64 * 4096);
        device.write_run(0, &data).unwrap();
        device.flush().unwrap();
        // Half of the blocks are gone, and the device does not know: the kernel says so in the middle of the batch.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(32 * 4096).unwrap();
        for lap in 0..20 {
            let mut buffers = vec![vec![0xee; 4096]; 64];
            let order = (0..64_u64).map(|at| (at * 29 + lap) % 64);
            let mut requests: Vec<_> =
                order.zip(&mut buffers).map(|(block, buffer)| ReadRequest::new(block, buffer)).collect();
            let error = device.read_blocks(&mut requests).unwrap_err();
            assert_eq!(error.error().kind(), ErrorKind::EndOfDevice, "{error}");
            let first = requests.iter().position(|request| request.block() >= 32).unwrap();
            assert_eq!(error.completed(), first, "{backend}");
            for request in &requests {
                let block = request.block() as usize;
                match request.result().unwrap() {
                    Ok(()) => assert!(request.data() == &data[block * 4096..][..4096], "{backend} {block}"),
                    Err(error) => assert!(block >= 32 && error.kind() == ErrorKind::EndOfDevice, "{error}"),
                }
            }
            assert_eq!(device.stats().in_flight, 0);
            // What comes next is not told what was left over.
            let mut back = vec![0; 4096];
            device.read_block(lap % 32, &mut back).unwrap();
            assert!(back == data[(lap % 32) as usize * 4096..][..4096], "{backend}");
        }
    }
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn signals_end_no_transfer() {
    if !common::is_alone("device::defects::signals_end_no_transfer") {
        return;
    }
    let directory = common::directory();
    let path = directory.path().join("disk");
    // SAFETY: the handler only counts; without SA_RESTART, so that calls end with EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_signal as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    for backend in backends() {
        let device = create(&path, backend, 512);
        let data = pattern(3, 512 * 4096 + 1);
        // SAFETY: no memory is passed.
        let me = unsafe { libc::pthread_self() };
        let is_over = AtomicBool::new(false);
        let before = SIGNALS.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // SAFETY: the thread waits for this one to end.
                    unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
                    std::thread::sleep(std::time::Duration::from_micros(50));
                }
            });
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..20 {
                    let pieces = data[1..].chunks(4096).enumerate();
                    let mut requests: Vec<_> =
                        pieces.map(|(block, data)| WriteRequest::new(block as u64, data)).collect();
                    device.write_blocks(&mut requests).unwrap();
                    device.flush().unwrap();
                    let mut back = vec![0; 512 * 4096 + 1];
                    device.read_run(0, &mut back[1..]).unwrap();
                    assert!(back[1..] == data[1..], "{backend}");
                }
            }));
            is_over.store(true, Ordering::Relaxed);
            passed.unwrap();
        });
        assert!(SIGNALS.load(Ordering::Relaxed) > before + 20, "{backend}: too few signals to mean anything");
        assert_eq!(device.stats().in_flight, 0);
    }
}

#[test]
fn threads_share_a_device_whatever_its_backend() {
    let directory = common::directory();
    let path = directory.path().join("disk");
    for backend in backends() {
        let device = create(&path, backend, 8 * 32);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let device = &device;
                scope.spawn(move || {
                    for lap in 0..10 {
                        // Batches longer than the queue is deep, at the same time.
                        let data = pattern(thread * 10 + lap, 32 * 4096 + 1);
                        let pieces = data[1..].chunks(4096).enumerate();
                        let mut requests: Vec<_> =
                            pieces.map(|(at, data)| WriteRequest::new(thread * 32 + at as u64, data)).collect();
                        device.write_blocks(&mut requests).unwrap();
                        let mut back = vec![0; 32 * 4096];
                        device.read_run(thread * 32, &mut back).unwrap();
                        assert!(back == data[1..], "{backend} {thread} {lap}");
                    }
                });
            }
        });
        let stats = device.stats();
        assert_eq!((stats.writes, stats.reads, stats.in_flight), (8 * 10 * 32, 80, 0));
    }
}
