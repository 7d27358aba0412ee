//! What several tests need.

#[cfg(all(target_os = "linux", feature = "block"))]
pub mod disk;
// What there is of the ring and of the device uses different parts of it.
#[allow(dead_code)]
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen", feature = "block")))]
pub mod filter;
// Where there is no ring no program of many steps runs; where there is no block device no single one.
#[allow(dead_code)]
#[cfg(target_os = "linux")]
pub mod random;

use std::io::Write;

/// Says on the real standard error that a test did not run, and why: the test harness hides what passing tests print.
#[track_caller]
pub fn skip(why: impl std::fmt::Display) {
    let place = std::panic::Location::caller();
    let line = format!("skipped: {}:{}: {why}\n", place.file(), place.line());
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written to");
}

/// Whether a descriptor can be read from, within so many milliseconds.
#[cfg(all(target_os = "linux", feature = "block"))]
pub fn is_readable(descriptor: std::os::fd::RawFd, limit: i32) -> bool {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one element.
    unsafe { libc::poll(&raw mut poll, 1, limit) == 1 }
}

/// Whether the kernel is of this version or later.
pub fn is_kernel(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|other: char| !other.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// A directory on a file system that has O_DIRECT where there is one: beside the program, not in /tmp.
pub fn directory() -> tempfile::TempDir {
    let program = std::env::current_exe().expect("the test knows its own path");
    tempfile::tempdir_in(program.parent().expect("a program is in a directory")).expect("a temporary directory")
}

/// Bytes that depend on `seed` and on their place.
pub fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut contents = Vec::with_capacity(bytes + 8);
    while contents.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        contents.extend_from_slice(&state.to_le_bytes());
    }
    contents.truncate(bytes);
    contents
}

/// A file of `bytes` bytes that differ from block to block.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
pub fn patterned_file(path: &std::path::Path, bytes: usize) -> Vec<u8> {
    let contents = pattern(0, bytes);
    std::fs::File::create(path).and_then(|mut file| file.write_all(&contents)).expect("a file can be written");
    contents
}

/// A ring, or a visible skip with the reason.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
#[track_caller]
pub fn ring(entries: u32) -> Option<sysuring::Ring> {
    match sysuring::available() {
        Ok(()) => Some(sysuring::Ring::with_entries(entries).expect("a ring, since io_uring is available")),
        Err(reason) => {
            skip(reason);
            None
        }
    }
}

/// The reading and the writing end of a pipe.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
pub fn pipe() -> (std::fs::File, std::fs::File) {
    use std::os::fd::FromRawFd;

    let mut ends = [0; 2];
    // SAFETY: room for the two descriptors that the call makes.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: made just now, and owned by nobody else.
    ends.map(|end| unsafe { std::fs::File::from_raw_fd(end) }).into()
}

/// Whether this is the process that a test started for itself alone, so that what it counts is its own. Where it is not,
/// starts it, and passes on what it says.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen", feature = "block")))]
#[track_caller]
pub fn is_alone(test: &str) -> bool {
    const ALONE: &str = "SYSURING_TEST_ALONE";

    if std::env::var_os(ALONE).is_some_and(|alone| alone == test) {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{test}: {}\n{text}", output.status);
    text.lines().filter_map(|line| line.split_once("skipped: ")).for_each(|(_, why)| skip(why));
    false
}

/// `count` operations that ended; others that did stay on the ring.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
pub fn finish<B, E: sysuring::Entries>(ring: &mut sysuring::Ring<B, E>, count: usize) -> Vec<sysuring::Done<B>> {
    let mut done = Vec::new();
    while done.len() < count {
        ring.submit_and_wait(1).expect("the ring can be waited for");
        let left = count - done.len();
        done.extend(ring.completions().filter_map(sysuring::Completion::into_done).take(left));
    }
    done
}

/// An operation that ended.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
pub fn finish_one<B, E: sysuring::Entries>(ring: &mut sysuring::Ring<B, E>) -> sysuring::Done<B> {
    finish(ring, 1).pop().expect("one")
}

/// New memory at `address`, by `MAP_*` flags; `None` where that is refused.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
pub fn map(address: *mut u8, length: usize, flags: i32) -> Option<*mut u8> {
    assert_eq!(flags & libc::MAP_FIXED, 0, "replaces nothing");
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping that replaces none.
    let memory = unsafe { libc::mmap(address.cast(), length, protection, flags, -1, 0) };
    (memory != libc::MAP_FAILED).then_some(memory.cast())
}

/// New memory at `address`, where that is free.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
pub fn map_at(address: *mut u8, length: usize) -> Option<*mut u8> {
    map(address, length, libc::MAP_FIXED_NOREPLACE)
}

/// The backends to test: io_uring is left out visibly where there is none.
#[cfg(feature = "block")]
#[track_caller]
pub fn backends() -> Vec<sysuring::block::Backend> {
    use sysuring::block::Backend;

    match sysuring::available() {
        Ok(()) => vec![Backend::File, Backend::Uring],
        Err(reason) => {
            skip(format_args!("io_uring backend: {reason}"));
            vec![Backend::File]
        }
    }
}

/// Forks a child that does nothing until it is killed, which is the caller's to do.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
pub fn fork_paused() -> libc::pid_t {
    // SAFETY: the child calls nothing but pause.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    assert!(child > 0);
    child
}

/// A forked child that does nothing, until this is dropped: it has copies of all descriptors, those of rings too.
#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
pub struct PausedChild(i32);

#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
impl PausedChild {
    pub fn fork() -> Self {
        Self(fork_paused())
    }
}

#[cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]
impl Drop for PausedChild {
    fn drop(&mut self) {
        // SAFETY: the child that was made, once.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}
