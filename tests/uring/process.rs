//! What has to be tried in a process of its own: what happens when a thread can't get a ring, or can't enter the one that it
//! has, after the device was opened, and other things that limits, filters and counts of a whole process decide.
//!
//! The test starts itself again as a child.

use std::future::Future;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sysuring::block::{self, Backend, BlockDevice, Device, Fallback, Options, ReadRequest, WriteRequest};
use sysuring::{ErrorKind, Reason, Ring, SqeFlags, ThreadRings};

use crate::common::{self, pattern};

const CHILD: &str = "SYSURING_TEST_CHILD";
const BLOCKS: usize = 64;

/// Runs `scenario` in a process of its own, with a device that has a pattern on it.
#[track_caller]
fn in_process(name: &str, scenario: impl FnOnce(&Device, &[u8])) {
    if let Err(reason) = sysuring::available() {
        return common::skip(reason);
    }
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        let directory = common::directory();
        let options = Options::new().backend(Backend::Uring).create(BLOCKS as u64 * 4096).queue_depth(8);
        let device = block::open(directory.path().join("disk"), &options).unwrap();
        let data = pattern(3, BLOCKS * 4096);
        device.write_run(0, &data).unwrap();
        scenario(&device, &data);
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("uring::process::{name}"), "--nocapture"])
        .env(CHILD, name)
        // A sanitizer that looks for leaks at the end needs files and processes, which some of these limit.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {}\n{text}", output.status);
    text.lines().filter_map(|line| line.split_once("skipped: ")).for_each(|(_, why)| common::skip(why));
}

fn read_all(device: &Device) -> Vec<u8> {
    let mut back = vec![0; BLOCKS * 4096 + 1];
    let mut requests: Vec<ReadRequest> =
        back[1..].chunks_mut(4096).enumerate().map(|(block, buffer)| ReadRequest::new(block as u64, buffer)).collect();
    device.read_blocks(&mut requests).unwrap();
    back.remove(0);
    back
}

fn report_says(device: &Device, words: &[&str]) {
    let report = device.report().to_string();
    for word in words {
        assert!(report.contains(word), "no {word:?} in: {report}");
    }
}

/// Makes io_uring's system calls fail with `errno` in this thread and those that it starts.
fn deny(errno: i32) {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let equals = |k: i64, jt| sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt, jf: 0, k: k as u32 };
    let mut filter = [
        statement(BPF_LD | BPF_W | BPF_ABS, 0),
        equals(libc::SYS_io_uring_setup, 3),
        equals(libc::SYS_io_uring_enter, 2),
        equals(libc::SYS_io_uring_register, 1),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter is read during the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the limit is read during the call.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

#[test]
fn too_many_files_for_a_ring_of_its_own() {
    in_process("too_many_files_for_a_ring_of_its_own", |device, data| {
        ThreadRings::set_limit(64);
        limit(libc::RLIMIT_NOFILE, 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(read_all(device), data));
            }
        });
        assert_eq!(device.backend(), Backend::Uring);
        report_says(device, &["no ring of its own", "EMFILE", "a shared one"]);
        assert!(!device.report().to_string().contains("pread"), "{}", device.report());
    });
}

#[test]
fn no_memory_for_a_ring_of_its_own() {
    in_process("no_memory_for_a_ring_of_its_own", |device, data| {
        // SAFETY: no memory is passed.
        if unsafe { libc::setgid(65534) | libc::setuid(65534) } != 0 {
            return common::skip("only root can become an ordinary user");
        }
        ThreadRings::set_limit(64);
        limit(libc::RLIMIT_MEMLOCK, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(read_all(device), data));
        });
        if sysuring::Ring::with_entries(2).is_ok() {
            return common::skip("this kernel charges rings to no limit");
        }
        report_says(device, &["no ring of its own", "ENOMEM", "RLIMIT_MEMLOCK", "a shared one"]);
    });
}

fn a_filter_came_after(errno: i32, name: &str, word: &str) {
    in_process(name, |device, data| {
        ThreadRings::set_limit(64);
        std::thread::scope(|scope| {
            // A thread that never had a ring.
            scope.spawn(|| {
                deny(errno);
                assert_eq!(read_all(device), data);
                device.write_block(1, &data[4096..8192]).unwrap();
            });
            // One that has, and can't enter it any more.
            scope.spawn(|| {
                assert_eq!(read_all(device), data);
                deny(errno);
                for _ in 0..3 {
                    assert_eq!(read_all(device), data);
                }
                device.write_run(0, data).unwrap();
                device.flush().unwrap();
            });
        });
        report_says(device, &["no ring of its own", "seccomp", "can't use io_uring", word, "using pread/pwrite"]);
        assert!(device.report().registered_buffers, "the other threads' rings have them");
        let before = device.report();
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(read_all(device), data));
        });
        assert_eq!(read_all(device), data);
        assert_eq!(device.report(), before, "threads without the filter go on with their rings");
        assert!(sysuring::available().is_ok());
    });
}

#[test]
fn a_filter_with_eperm_came_after() {
    a_filter_came_after(libc::EPERM, "a_filter_with_eperm_came_after", "EPERM");
}

#[test]
fn a_filter_with_enosys_came_after() {
    a_filter_came_after(libc::ENOSYS, "a_filter_with_enosys_came_after", "ENOSYS");
}

#[test]
fn too_many_files_is_asked_about_again() {
    // In a process that asks for the first time: an answer that is kept would hide what is tested.
    const NAME: &str = "uring::process::too_many_files_is_asked_about_again";
    if std::env::var_os(CHILD).is_none() {
        if let Err(reason) = sysuring::available() {
            return common::skip(reason);
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        let status = child
            .args(["--exact", NAME])
            .env(CHILD, "available")
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limits are written and read during the calls.
    let reason = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut old);
        let low = libc::rlimit { rlim_cur: 0, ..old };
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const low);
        let reason = sysuring::available();
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const old);
        reason
    };
    let reason = reason.unwrap_err();
    assert_eq!(reason.reason(), Reason::TooManyFiles, "{reason}");
    sysuring::available().unwrap();
}

/// Memory that the process has pinned, in KiB.
fn pinned() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_closed_device_leaves_no_memory_pinned() {
    in_process("a_closed_device_leaves_no_memory_pinned", |_, _| {
        let directory = common::directory();
        let options = Options::new().backend(Backend::Uring).create(4096).pool_size(64 << 20);
        let before = pinned();
        let device = block::open(directory.path().join("another"), &options).unwrap();
        if !device.report().registered_buffers {
            return common::skip(device.report());
        }
        if pinned() <= before {
            return common::skip("the kernel does not count what this user's rings pin");
        }
        // What an earlier ring pinned may still have been counted before.
        assert!(pinned() >= 64 << 10, "the pool is registered");
        device.close().unwrap();
        // The kernel may take a moment.
        for _ in 0..200 {
            if pinned() <= before {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{before} KiB were pinned before, and {} KiB are now", pinned());
    });
}

#[test]
fn a_buffer_that_outlives_its_device_leaves_no_memory_pinned_when_it_goes() {
    in_process("a_buffer_that_outlives_its_device_leaves_no_memory_pinned_when_it_goes", |_, _| {
        let directory = common::directory();
        let options = Options::new().backend(Backend::Uring).create(4096).pool_size(64 << 20);
        let before = pinned();
        let device = block::open(directory.path().join("another"), &options).unwrap();
        if !device.report().registered_buffers {
            return common::skip(device.report());
        }
        if pinned() <= before {
            return common::skip("the kernel does not count what this user's rings pin");
        }
        let buffers = [(); 2].map(|()| device.aligned_buffer(4096).unwrap());
        device.close().unwrap();
        assert!(pinned() >= 64 << 10, "the pool is registered");
        drop(buffers);
        // The kernel may take a moment.
        for _ in 0..200 {
            if pinned() <= before {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{before} KiB were pinned before, and {} KiB are now", pinned());
    });
}

/// A ring has room for 256 registered buffers, and each device takes one on the ring of the thread that opens it.
#[test]
fn devices_that_are_closed_make_room_for_the_buffers_of_others() {
    in_process("devices_that_are_closed_make_room_for_the_buffers_of_others", |_, _| {
        let directory = common::directory();
        let options = || Options::new().backend(Backend::Uring).create(4096).pool_size(4096).exclusive(false);
        let path = directory.path().join("another");
        let open = || block::open(&path, &options()).unwrap();
        let mut devices = vec![open()];
        if !devices[0].report().registered_buffers {
            return common::skip(devices[0].report());
        }
        while devices.len() < 300 && devices[devices.len() - 1].report().registered_buffers {
            devices.push(open());
        }
        let last = devices.pop().unwrap();
        let report = last.report();
        let [degraded] = &report.degraded[..] else { panic!("{report}") };
        assert_eq!(degraded.fallback, Fallback::UnregisteredBuffers);
        assert!(degraded.sentence.contains("other devices") && !degraded.sentence.contains("MEMLOCK"), "{degraded}");
        let forbidden = block::open(&path, &options().forbid(Fallback::UnregisteredBuffers)).unwrap_err();
        assert_eq!(forbidden.kind(), ErrorKind::Degraded);
        assert!(forbidden.to_string().ends_with("To do: close devices"), "{forbidden}");

        last.write_block(0, &[1; 4096]).unwrap();
        assert!(!last.report().registered_buffers);
        if !common::is_kernel(5, 19) {
            return common::skip("one pool is all that a ring can register (before Linux 5.19)");
        }
        devices.truncate(100);
        last.write_block(0, &[2; 4096]).unwrap();
        assert!(last.report().registered_buffers, "{}", last.report());
        last.read_block(0, &mut [0; 4096]).unwrap();
        assert_eq!(last.report().degraded.len(), 1, "{}", last.report());
    });
}

/// A logger that asks the device that logs; it is called while nothing of the device's is locked.
struct Curious;

static ASKED: std::sync::OnceLock<Device> = std::sync::OnceLock::new();

impl log::Log for Curious {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        if let Some(device) = ASKED.get() {
            device.read_block(0, &mut [0; 4096]).unwrap();
            assert!(!device.report().degraded.is_empty());
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_may_use_the_device() {
    in_process("a_logger_may_use_the_device", |device, _| {
        // SAFETY: ends the process where it hangs.
        unsafe { libc::alarm(30) };
        log::set_logger(&Curious).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let directory = common::directory();
        let options = Options::new().backend(Backend::Uring).create(4096);
        ASKED.set(block::open(directory.path().join("asked"), &options).unwrap()).unwrap();
        ThreadRings::set_limit(64);
        limit(libc::RLIMIT_NOFILE, 0);
        let asked = ASKED.get().unwrap();
        std::thread::spawn(|| ASKED.get().unwrap().write_block(0, &[1; 4096]).unwrap()).join().unwrap();
        report_says(asked, &["EMFILE"]);
        assert_eq!(device.block_count(), BLOCKS as u64);
    });
}

/// A logger that does not like errors.
struct Panicking;

impl log::Log for Panicking {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        assert!(record.level() != log::Level::Error, "on purpose");
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_that_panics_takes_nothing_along() {
    in_process("a_logger_that_panics_takes_nothing_along", |_, _| {
        // SAFETY: ends the process where it hangs.
        unsafe { libc::alarm(30) };
        log::set_logger(&Panicking).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let directory = common::directory();
        let path = directory.path().join("another");
        let device = block::open(&path, &Options::new().backend(Backend::File).create(64 * 4096)).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let read = |block| {
            let mut future = std::pin::pin!(device.read_async(block, device.aligned_buffer(4096).unwrap()));
            let mut context = Context::from_waker(Waker::noop());
            loop {
                if let Poll::Ready(ended) = future.as_mut().poll(&mut context) {
                    return ended;
                }
                std::thread::yield_now();
            }
        };
        // More than there are threads.
        for _ in 0..20 {
            let failed = read(10).unwrap_err();
            assert!(failed.to_string().contains("block 10") && failed.into_buffer().is_some());
        }
        read(0).unwrap();
        let mut queue = device.queue(4, 4096).unwrap();
        for block in [10, 0, 10] {
            let buffer = queue.buffer().unwrap();
            queue.read(block, buffer, block).unwrap();
        }
        while let Some(completed) = queue.wait().unwrap() {
            assert_eq!(completed.result.is_ok(), completed.user_data == 0);
        }
        let stats = device.stats();
        assert_eq!((stats.failures, stats.in_flight), (22, 0));

        // A call that waits has its own error, and nothing in flight then.
        let path = directory.path().join("third");
        let uring = block::open(&path, &Options::new().backend(Backend::Uring).create(64 * 4096)).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let mut block = uring.aligned_buffer(4096).unwrap();
        let failed = uring.read_blocks(&mut [ReadRequest::new(10, &mut block)]).unwrap_err();
        assert_eq!(failed.error().kind(), ErrorKind::EndOfDevice);
        assert_eq!(uring.stats().in_flight, 0);
    });
}

/// What it can't do at once the kernel leaves to threads of its own, and `RLIMIT_NPROC` counts those as well: writes that
/// allocate come back with ECANCELED then, again and again.
#[test]
fn no_more_threads_for_the_kernel() {
    // On a thread that the kernel has made none for yet.
    in_process("no_more_threads_for_the_kernel", |_, _| std::thread::spawn(write_without_threads).join().unwrap());

    fn write_without_threads() {
        const SIZE: usize = 64 << 20;
        // Where an ordinary user can go; on a disk, if possible.
        let directory = tempfile::tempdir_in("/var/tmp").or_else(|_| tempfile::tempdir()).unwrap();
        let path = directory.path().join("sparse");
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        // SAFETY: no memory is passed.
        if unsafe { libc::setgid(65533) | libc::setuid(65533) } != 0 {
            return common::skip("only root can become an ordinary user");
        }
        limit(libc::RLIMIT_NPROC, 1);
        if !gives_back_what_it_has_no_thread_for() {
            return common::skip(
                "this kernel tries again and again to start a thread that it may not, and ends no operation",
            );
        }
        let options = Options::new().backend(Backend::Uring).create(SIZE as u64).queue_depth(16);
        let device = block::open(&path, &options).unwrap();
        let mut data = device.aligned_buffer(SIZE).unwrap();
        data.copy_from_slice(&pattern(9, SIZE));
        let mut requests: Vec<WriteRequest> = data
            .chunks(256 << 10)
            .enumerate()
            .map(|(index, data)| WriteRequest::new(index as u64 * 64, data))
            .collect();
        device.write_blocks(&mut requests).unwrap();
        device.flush().unwrap();
        assert!(std::fs::read(&path).unwrap() == *data);
        if device.report().degraded.is_empty() {
            return common::skip("the kernel needed no threads for these writes");
        }
        report_says(&device, &["ECANCELED", "ulimit -u"]);
        assert_eq!(device.backend(), Backend::Uring);
    }

    /// Kernels without "io-wq: limit retrying worker initialisation" (Linux 6.11, and releases of older series since August 2024)
    /// don't, whoever asks: all that waits for an operation does so for ever.
    fn gives_back_what_it_has_no_thread_for() -> bool {
        let mut ring = Ring::with_entries(2).unwrap();
        ring.get_sqe().unwrap().prep_nop().set_flags(SqeFlags::ASYNC);
        ring.submit_and_wait_timeout(1, Duration::from_secs(5)).unwrap();
        ring.completions().next().is_some()
    }
}
