//! Each step down: that it is taken, told, and an error where it is forbidden.

use std::path::Path;
use std::sync::atomic::Ordering;

use sysuring::block::{self, Backend, BlockDevice, Device, Fallback, Options};
use sysuring::{Error, ErrorKind, Reason};

use crate::common::{self, backends, filter, pattern};

fn works(device: &Device) {
    let data = pattern(6, 64 * 4096 + 1);
    device.write_run(0, &data[1..]).unwrap();
    let mut back = vec![0; 64 * 4096 + 1];
    device.read_run(0, &mut back[1..]).unwrap();
    assert!(back[1..] == data[1..]);
}

fn is_taken(device: &Device, fallback: Fallback) -> bool {
    device.report().degraded.iter().any(|degraded| degraded.fallback == fallback)
}

#[track_caller]
fn names_step_and_remedy(error: &Error, fallback: Fallback, remedy: &str) {
    assert_eq!(error.kind(), ErrorKind::Degraded, "{error}");
    let sentence = error.to_string();
    assert!(sentence.contains(&format!("{fallback:?}")) && sentence.contains(remedy), "{sentence}");
}

/// What happens where a step has to be taken when the device is opened: it works and says so, or it is an error.
#[track_caller]
fn allowed_and_forbidden(path: &Path, options: &Options, fallback: Fallback, words: &[&str]) {
    let device = block::open(path, options).unwrap();
    works(&device);
    assert!(is_taken(&device, fallback), "{}", device.report());
    assert_eq!(device.stats().degraded, device.report().degraded.len() as u64);
    let report = device.report().to_string();
    words.iter().for_each(|word| assert!(report.contains(word), "{report}"));
    device.close().unwrap();
    let error = block::open(path, &options.clone().forbid(fallback)).unwrap_err();
    if fallback == Fallback::Pread {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    } else {
        names_step_and_remedy(&error, fallback, "To do: ");
    }
    // Another one that is forbidden changes nothing.
    let other = if fallback == Fallback::SharedRing { Fallback::PageCache } else { Fallback::SharedRing };
    block::open(path, &options.clone().forbid(other)).unwrap();
}

/// Other tests' threads leave a ring for this one.
fn rings_for_all() {
    #[cfg(any(feature = "link", feature = "dlopen"))]
    sysuring::ThreadRings::set_limit(64);
}

fn options() -> Options {
    Options::new().create(64 * 4096)
}

#[test]
fn nothing_is_forbidden_in_vain() {
    rings_for_all();
    let directory = common::directory();
    let every = [
        Fallback::PageCache,
        Fallback::Interrupts,
        Fallback::SystemCalls,
        Fallback::UnregisteredBuffers,
        Fallback::SharedRing,
        Fallback::PreadAtTimes,
    ];
    let strict = every.into_iter().fold(options(), Options::forbid);
    let device = match block::open(directory.path().join("disk"), &strict) {
        Ok(device) => device,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Degraded, "{error}");
            return common::skip(error);
        }
    };
    works(&device);
    let report = device.report();
    assert!(report.degraded.iter().all(|degraded| degraded.fallback == Fallback::Pread), "{report}");
    if report.backend == Backend::Uring {
        let said = ["backend: uring", "read through a ring", "O_DIRECT", "buffers: registered", "by system call"];
        said.iter().for_each(|word| assert!(report.to_string().contains(word), "{report}"));
    }
}

#[test]
fn no_ring_is_pread() {
    if common::is_alone("device::ladder::no_ring_is_pread") {
        let directory = common::directory();
        filter::deny_rings(libc::EPERM);
        let path = directory.path().join("disk");
        allowed_and_forbidden(&path, &options(), Fallback::Pread, &["backend: file", "pread/pwrite"]);
        let device = block::open(&path, &options()).unwrap();
        let reason = device.fallback_reason().unwrap();
        match reason.reason() {
            Reason::Seccomp | Reason::NotBuilt => {}
            Reason::Sysctl if is_disabled() => {}
            _ => panic!("{reason}"),
        }
    }
}

#[test]
fn no_direct_is_the_page_cache() {
    if common::is_alone("device::ladder::no_direct_is_the_page_cache") {
        let directory = common::directory();
        filter::deny_direct();
        let path = directory.path().join("disk");
        for backend in backends() {
            let options = options().backend(backend);
            let error = block::open(&path, &options.clone().forbid(Fallback::PageCache)).unwrap_err();
            names_step_and_remedy(&error, Fallback::PageCache, "Options::direct(false)");
            assert!(!path.exists(), "a failed open leaves nothing behind");
            allowed_and_forbidden(&path, &options, Fallback::PageCache, &["refuses O_DIRECT", "page cache: used"]);
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn no_polling_is_interrupts() {
    if sysuring::available().is_err() {
        return common::skip("io_uring is not available");
    }
    rings_for_all();
    let directory = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| common::directory());
    let path = directory.path().join("disk");
    let options = options().backend(Backend::Uring).iopoll(true);
    if block::open(&path, &options).unwrap().report().polled {
        return common::skip("what the test is on can be polled");
    }
    allowed_and_forbidden(&path, &options, Fallback::Interrupts, &["by interrupt", "can't be polled"]);
}

#[test]
fn no_kernel_thread_is_system_calls() {
    if sysuring::available().is_err() {
        return common::skip("io_uring is not available");
    }
    if common::is_alone("device::ladder::no_kernel_thread_is_system_calls") {
        let directory = common::directory();
        let path = directory.path().join("disk");
        let options = options().backend(Backend::Uring).sqpoll(std::time::Duration::from_millis(5));
        let device = block::open(&path, &options).unwrap();
        works(&device);
        assert!(device.report().kernel_thread && !is_taken(&device, Fallback::SystemCalls), "{}", device.report());
        drop(device);
        // The rings that are there are used again: a thread of its own has none.
        std::thread::spawn(move || {
            if let Err(why) = give_to_ordinary(&path) {
                return common::skip(why);
            }
            filter::limit(libc::RLIMIT_NPROC, 1);
            let device = block::open(&path, &options).unwrap();
            works(&device);
            if device.report().kernel_thread {
                return common::skip("the kernel counts its threads to no limit");
            }
            drop(device);
            allowed_and_forbidden(&path, &options, Fallback::SystemCalls, &["by system call", "kernel thread"]);
        })
        .join()
        .unwrap();
    }
}

/// Whether `kernel.io_uring_disabled` (since Linux 6.6) leaves no ring to this process: `uring::disabled`.
fn is_disabled() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    // SAFETY: asks who this is.
    setting.trim() == "2" || setting.trim() == "1" && unsafe { libc::geteuid() } != 0
}

/// Makes an ordinary user of the process, who still may use the file.
fn give_to_ordinary(path: &Path) -> Result<(), &'static str> {
    use std::os::unix::fs::PermissionsExt;

    let mut folder = path.parent();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o666)).map_err(|_| "the file is not ours")?;
    std::fs::set_permissions(folder.unwrap(), PermissionsExt::from_mode(0o777))
        .map_err(|_| "the folder is not ours")?;
    while let Some(parent) = folder {
        if parent.metadata().map_or(0, |metadata| metadata.permissions().mode()) & 0o001 == 0 {
            return Err("an ordinary user can't get where the test's files are");
        }
        folder = parent.parent();
    }
    if !filter::become_ordinary() {
        return Err("only root can become an ordinary user");
    }
    if is_disabled() { Err("kernel.io_uring_disabled leaves an ordinary user no ring") } else { Ok(()) }
}

#[test]
fn no_locked_memory_is_buffers_that_are_not_registered() {
    if sysuring::available().is_err() {
        return common::skip("io_uring is not available");
    }
    if common::is_alone("device::ladder::no_locked_memory_is_buffers_that_are_not_registered") {
        let directory = common::directory();
        let path = directory.path().join("disk");
        let options = options().backend(Backend::Uring).pool_size(64 << 20);
        drop(block::open(&path, &options).unwrap());
        // The rings that are there are charged to nobody: a thread of its own has none.
        std::thread::spawn(move || {
            if let Err(why) = give_to_ordinary(&path) {
                return common::skip(why);
            }
            filter::limit(libc::RLIMIT_MEMLOCK, 8 << 20);
            let fallback = Fallback::UnregisteredBuffers;
            allowed_and_forbidden(&path, &options, fallback, &["RLIMIT_MEMLOCK", "buffers: not registered"]);
            let small = options.pool_size(64 << 10).forbid(fallback);
            works(&block::open(&path, &small).expect("what the remedy says helps"));
        })
        .join()
        .unwrap();
    }
}

/// What happens to a thread later, in a process of its own with a device that was opened before.
fn later(test: &str, fallback: Fallback, happens: impl Fn() + Sync, remedy: &str) {
    if sysuring::available().is_err() {
        return common::skip("io_uring is not available");
    }
    if !common::is_alone(test) {
        return;
    }
    rings_for_all();
    let directory = common::directory();
    let open = |name: &str, options: Options| block::open(directory.path().join(name), &options).unwrap();
    let allowed = open("allowed", options().backend(Backend::Uring));
    let forbidden = open("forbidden", options().backend(Backend::Uring).forbid(fallback));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            happens();
            works(&allowed);
            assert!(is_taken(&allowed, fallback), "{}", allowed.report());
            let error = forbidden.write_block(0, &[0; 4096]).unwrap_err();
            names_step_and_remedy(&error, fallback, remedy);
            assert!(!is_taken(&forbidden, fallback));
            let stats = forbidden.stats();
            assert_eq!((stats.in_flight, stats.failures), (0, 1));
        });
    });
    // Other threads go on.
    works(&forbidden);
}

#[test]
fn no_ring_for_a_thread_is_a_shared_one() {
    let test = "device::ladder::no_ring_for_a_thread_is_a_shared_one";
    let before = std::sync::atomic::AtomicU64::new(0);
    let no_more = || before.store(filter::soft_limit(libc::RLIMIT_NOFILE, 0), Ordering::Relaxed);
    later(test, Fallback::SharedRing, no_more, "raise the limit");
    // What looks for leaks at the end of the process opens files.
    if before.load(Ordering::Relaxed) != 0 {
        filter::soft_limit(libc::RLIMIT_NOFILE, before.into_inner());
    }
}

#[test]
fn no_ring_at_all_for_a_thread_is_pread() {
    let test = "device::ladder::no_ring_at_all_for_a_thread_is_pread";
    later(test, Fallback::PreadAtTimes, || filter::deny_rings(libc::EPERM), "lift what the message names");
}
