//! Each thing that can keep io_uring from working, taken away from a run of the program.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::common::{Finished, PROGRAM, assert_same, file, has_ring, info, info_of, is_linked, is_root, skip};

/// The users that the program runs as where it may lock little memory; each run takes another, counted down. The kernel
/// counts locked memory by user, and gives that of a ring back only a while after it was closed.
static USER: AtomicU32 = AtomicU32::new(65534);

/// Checks that a text has one of the words, in whatever case.
#[track_caller]
fn assert_says(text: &str, one_of: &[&str]) {
    let lower = text.to_lowercase();
    assert!(one_of.iter().any(|word| lower.contains(&word.to_lowercase())), "none of {one_of:?} in {text:?}");
}

/// Checks everything that a user sees of a fallback; `run` makes a command that lacks its arguments only.
fn assert_falls_back(directory: &Path, run: impl Fn() -> Command, one_of: &[&str]) {
    let info = info_of(run());
    assert_eq!(info["ring"]["available"], false, "{info}");
    assert_eq!(info["backend"], "file", "{info}");
    assert_says(info["ring"]["reason"].as_str().unwrap(), one_of);
    assert_says(Finished::from(run().arg("info")).succeeded().output.lines().next().unwrap(), one_of);

    let source = file(directory, "source", (1 << 20) + 13);
    let destination = directory.join("destination");
    let copy = |options: &[&str]| Finished::from(run().arg("copy").arg(&source).arg(&destination).args(options));
    let finished = copy(&["--backend", "uring"]).failed_with(&[]);
    assert_says(&finished.errors, one_of);
    let reason = info["ring"]["reason"].as_str().unwrap();
    assert!(finished.errors.matches(reason).count() <= 1, "says it twice: {}", finished.errors);
    assert!(!destination.exists(), "made a destination for a copy that cannot be");
    let summary = copy(&["--verify"]).succeeded().output;
    assert_same(&source, &destination);
    assert!(summary.contains("source: file, destination: file"), "{summary}");
    assert_says(&summary, one_of);

    let demo = |options: &[&str]| {
        Finished::from(run().args(["demo", "--size", "4", "--directory"]).arg(directory).args(options))
    };
    let text = demo(&[]).succeeded().output;
    let end = &text[text.find("\nbackend: file").unwrap_or_else(|| panic!("{text}"))..];
    assert_says(end, one_of);
    assert_says(&demo(&["--backend", "uring"]).failed_with(&[]).errors, one_of);
}

/// The program where the dynamic loader looks into a directory first.
fn with_libraries_of(directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env("LD_LIBRARY_PATH", directory);
    command
}

/// A library of that name and older than 2.3, which began to export what is looked for.
#[test]
fn the_library_is_too_old() {
    match is_linked() {
        Some(false) => {}
        _ => return skip("this program is linked to liburing, and would not start"),
    }
    let directory = tempdir().unwrap();
    let source = directory.path().join("old.c");
    fs::write(&source, "int io_uring_queue_init(void) { return -38; }\n").unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,liburing.so.2", "-o"])
        .arg(directory.path().join("liburing.so.2"))
        .arg(&source)
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        return skip("no C compiler");
    }
    assert_falls_back(directory.path(), || with_libraries_of(directory.path()), &["2.3"]);
}

/// Something of that name that is no library.
#[test]
fn the_library_is_garbage() {
    match is_linked() {
        Some(false) => {}
        _ => return skip("this program is linked to liburing, and would not start"),
    }
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("liburing.so.2"), "no library").unwrap();
    assert_falls_back(directory.path(), || with_libraries_of(directory.path()), &["LD_LIBRARY_PATH"]);
}

/// The program where system calls fail with `errno`, as in a sandbox.
fn sandboxed(calls: &[libc::c_long], errno: i32) -> Command {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        let number = u32::try_from(*call).unwrap();
        filter.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1));
        let answer = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap();
        filter.push(statement(libc::BPF_RET | libc::BPF_K, answer, 0, 0));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));

    let mut command = Command::new(PROGRAM);
    let install = move || {
        let length = u16::try_from(filter.len()).unwrap_or_default();
        let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
        // SAFETY: both take numbers and, the second, a pointer to a program that outlives the call.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec only two system calls are made; nothing is allocated and no lock taken.
    unsafe { command.pre_exec(install) };
    command
}

const ALL: [libc::c_long; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

#[test]
fn a_sandbox_that_forbids() {
    if !has_ring() {
        return;
    }
    for calls in [&ALL[..], &[libc::SYS_io_uring_setup]] {
        let directory = tempdir().unwrap();
        assert_falls_back(directory.path(), || sandboxed(calls, libc::EPERM), &["seccomp"]);
    }
}

#[test]
fn a_sandbox_that_pretends_an_old_kernel() {
    if !has_ring() {
        return;
    }
    for calls in [&ALL[..], &[libc::SYS_io_uring_setup]] {
        let directory = tempdir().unwrap();
        assert_falls_back(directory.path(), || sandboxed(calls, libc::ENOSYS), &["ENOSYS", "kernel"]);
    }
}

#[test]
fn a_sandbox_that_gives_a_ring_and_forbids_its_use() {
    if !has_ring() {
        return;
    }
    let directory = tempdir().unwrap();
    let run = || sandboxed(&[libc::SYS_io_uring_enter], libc::EPERM);
    assert_falls_back(directory.path(), run, &["seccomp", "EPERM"]);
}

/// Where the dynamic loader finds the library; `None` where it is not installed.
fn directory_of_library() -> Option<PathBuf> {
    if let Some(path) = info()["library"]["path"].as_str() {
        return fs::canonicalize(path).ok()?.parent().map(Path::to_owned);
    }
    let cache = Command::new("ldconfig").arg("-p").output().ok()?;
    let cache = String::from_utf8_lossy(&cache.stdout).into_owned();
    let line = cache.lines().find(|line| line.trim_start().starts_with("liburing.so.2 "))?;
    let path = Path::new(line.split(" => ").nth(1)?);
    fs::canonicalize(path).ok()?.parent().map(Path::to_owned)
}

/// Lays a file system over the directory `$1` in a mount namespace of its own, and removes the library there; `$2` is a
/// directory to work in.
const HIDE: &str = r#"
    library=$1 work=$2; shift 2
    mount -t tmpfs tmpfs "$work"
    mkdir "$work/upper" "$work/work"
    mount -t overlay -o "lowerdir=$library,upperdir=$work/upper,workdir=$work/work" overlay "$library"
    rm "$library"/liburing.so.2*
    exec "$@""#;

#[test]
fn the_library_is_not_there() {
    if is_linked() != Some(false) {
        return skip("this program is linked to liburing and does not start without it");
    }
    let directory = tempdir().unwrap();
    let Some(library) = directory_of_library() else {
        // Nothing to hide: it is as the test wants it.
        return assert_falls_back(directory.path(), || Command::new(PROGRAM), &["liburing.so.2"]);
    };
    let work = tempdir().unwrap();
    let hidden = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", HIDE, "sh"]).arg(&library).arg(work.path()).arg(program);
        command
    };
    if !is_root() {
        return;
    }
    let prepared = Finished::from(&mut hidden("true"));
    if prepared.status != Some(0) {
        return skip(format_args!("the library cannot be hidden: {}", prepared.errors.trim()));
    }
    let run = || hidden(PROGRAM);
    let info = info_of(run());
    assert_eq!(info["library"]["loaded"], false, "{info}");
    assert_says(info["library"]["error"].as_str().unwrap(), &["liburing.so.2"]);
    assert_falls_back(directory.path(), run, &["liburing.so.2"]);
}

/// The program for an ordinary user, in a directory that is all theirs.
struct Ordinary {
    directory: TempDir,
    program: PathBuf,
}

impl Ordinary {
    fn new() -> Self {
        let directory = tempdir().unwrap();
        let program = directory.path().join("sysuring");
        // Copied by a process of its own: a child that another test starts would hold our descriptor for a moment, and a
        // program that is open for writing can't be run.
        let copied = Command::new("install").args(["-m", "755"]).arg(PROGRAM).arg(&program).status().unwrap();
        assert!(copied.success());
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        Self { directory, program }
    }

    /// The program.
    fn run(&self) -> Command {
        let mut command = Command::new(&self.program);
        let user = USER.fetch_sub(1, Ordering::Relaxed);
        command.uid(user).gid(user).env("TMPDIR", self.directory.path()).current_dir(&self.directory);
        command
    }

    /// The program with a limit on locked memory, in bytes.
    fn run_with(&self, memlock: u64) -> Command {
        self.run_limited(libc::RLIMIT_MEMLOCK, memlock)
    }

    /// The program with a limit.
    fn run_limited(&self, resource: libc::__rlimit_resource_t, value: u64) -> Command {
        let mut command = self.run();
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        let set = move || {
            // SAFETY: reads the structure, which outlives the call.
            match unsafe { libc::setrlimit(resource, &raw const limit) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec one system call is made; nothing is allocated and no lock taken.
        unsafe { command.pre_exec(set) };
        command
    }
}

/// Whether an ordinary user gets a ring with the limits of this session: else a lower one has nothing to take away.
fn ordinary_user_has_ring(user: &Ordinary) -> bool {
    if !is_root() || !has_ring() {
        return false;
    }
    let info: Value = info_of(user.run());
    let available = info["ring"]["available"] == true;
    if !available {
        skip(format_args!("no io_uring for an ordinary user: {}", info["ring"]["reason"]));
    }
    available
}

#[test]
fn little_memory_may_be_locked() {
    let user = Ordinary::new();
    if !ordinary_user_has_ring(&user) {
        return;
    }
    let limit = 64 << 10;
    let info = info_of(user.run_with(limit));
    assert_eq!(info["memlock_limit"], limit);
    assert_eq!(info["ring"]["available"], true, "{info}");
    assert_eq!(info["backend"], "uring", "{info}");

    let source = file(user.directory.path(), "source", (1 << 20) + 13);
    let destination = user.directory.path().join("destination");
    let mut command = user.run_with(limit);
    command.arg("copy").arg(&source).arg(&destination).args(["--verify", "--threads", "1"]);
    let finished = Finished::from(&mut command).succeeded();
    assert_same(&source, &destination);
    assert!(finished.output.contains("source: uring, destination: uring"), "{finished:?}");
    assert_says(&finished.errors, &["memlock"]);

    let mut command = user.run_with(limit);
    let text = Finished::from(command.args(["demo", "--size", "4", "--threads", "1"])).succeeded().output;
    let end = &text[text.find("\nbackend: uring").unwrap_or_else(|| panic!("{text}"))..];
    assert!(end.contains("not registered"), "{text}");
    assert_says(end, &["memlock"]);
}

#[test]
fn no_memory_may_be_locked() {
    let user = Ordinary::new();
    if !ordinary_user_has_ring(&user) {
        return;
    }
    assert_falls_back(user.directory.path(), || user.run_with(0), &["memlock"]);
}

/// Neither the program's threads nor those that the kernel makes for io_uring may be as many as they would.
#[test]
fn no_more_threads() {
    let user = Ordinary::new();
    if !ordinary_user_has_ring(&user) {
        return;
    }
    let source = file(user.directory.path(), "source", (64 << 20) + 13);
    for limit in 1..=3 {
        let destination = user.directory.path().join(format!("destination{limit}"));
        let mut command = user.run_limited(libc::RLIMIT_NPROC, limit);
        command.arg("copy").arg(&source).arg(&destination).args(["--verify", "--threads", "4"]);
        Finished::from(&mut command).succeeded();
        assert_same(&source, &destination);
    }
}
