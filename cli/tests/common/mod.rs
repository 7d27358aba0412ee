//! Running the program, and telling why a test cannot be run here.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use serde_json::Value;

/// The program that is tested.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sysuring");

/// How a run of the program ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit status; `None` where a signal ended it.
    pub status: Option<i32>,
    /// What it printed.
    pub output: String,
    /// What it printed to standard error.
    pub errors: String,
}

impl Finished {
    /// Runs a command to its end.
    pub fn from(command: &mut Command) -> Self {
        let finished = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
        Self {
            status: finished.status.code(),
            output: String::from_utf8_lossy(&finished.stdout).into_owned(),
            errors: String::from_utf8_lossy(&finished.stderr).into_owned(),
        }
    }

    /// Checks that it succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:?}");
        self
    }

    /// Checks that it failed with one line that begins with "error: " and has all of these words.
    #[track_caller]
    pub fn failed_with(self, words: &[&str]) -> Self {
        assert_eq!(self.status, Some(1), "{self:?}");
        let message = self.errors.lines().last().unwrap_or_default();
        assert!(message.starts_with("error: "), "{self:?}");
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message:?}");
        }
        self
    }
}

/// Runs the program.
pub fn sysuring<Argument: AsRef<OsStr>>(arguments: impl IntoIterator<Item = Argument>) -> Finished {
    Finished::from(Command::new(PROGRAM).args(arguments))
}

/// Runs `sysuring copy SOURCE DESTINATION` with more options.
pub fn copy(source: &Path, destination: &Path, options: &[&str]) -> Finished {
    Finished::from(Command::new(PROGRAM).arg("copy").arg(source).arg(destination).args(options))
}

/// Runs the program within a limit of the shell, as in `-n 9`.
#[cfg(target_os = "linux")]
pub fn limited<Argument: AsRef<OsStr>>(limit: &str, arguments: impl IntoIterator<Item = Argument>) -> Finished {
    let script = format!("ulimit {limit}; exec \"$@\"");
    Finished::from(Command::new("sh").args(["-euc", &script, "sh", PROGRAM]).args(arguments))
}

/// What `sysuring info --json` says, by a command that is complete but for its arguments.
pub fn info_of(mut command: Command) -> Value {
    let finished = Finished::from(command.args(["info", "--json"])).succeeded();
    serde_json::from_str(&finished.output).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// What `sysuring info --json` says here.
pub fn info() -> &'static Value {
    static INFO: OnceLock<Value> = OnceLock::new();
    INFO.get_or_init(|| info_of(Command::new(PROGRAM)))
}

/// Says that a test, or a part of one, cannot be run here. `scripts/test` lists these lines.
pub fn skip(why: impl std::fmt::Display) {
    let thread = thread::current();
    println!("skipped: {}: {why}", thread.name().unwrap_or("a test"));
}

/// Whether there is a ring; says so where not.
pub fn has_ring() -> bool {
    let ring = &info()["ring"];
    if ring["available"] != true {
        skip(format_args!("no io_uring here: {}", ring["reason"].as_str().unwrap_or("no reason given")));
    }
    ring["available"] == true
}

/// The backends that work here; says which one does not.
pub fn backends() -> Vec<&'static str> {
    if has_ring() { vec!["file", "uring"] } else { vec!["file"] }
}

/// Whether this process may do everything; says so where not.
#[cfg(target_os = "linux")]
pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        skip("only root can set this up");
    }
    is_root
}

/// Whether the program is linked to liburing; `None`, and a line that says so, where nothing can tell.
#[cfg(target_os = "linux")]
pub fn is_linked() -> Option<bool> {
    match Command::new("ldd").arg(PROGRAM).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).contains("liburing.so.2")),
        Err(error) => {
            skip(format_args!("no ldd: {error}"));
            None
        }
    }
}

/// Whether a shell script runs to its end, as the preparation for a test; says so where not.
#[cfg(target_os = "linux")]
pub fn can(script: &str, arguments: &[&Path]) -> bool {
    let finished = Finished::from(Command::new("sh").args(["-euc", script, "sh"]).args(arguments));
    let can = finished.status == Some(0);
    if !can {
        skip(format_args!("the preparation does not work: {}", finished.errors.trim()));
    }
    can
}

/// Bytes that look random and are the same in every run.
pub fn data(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    fastrand::Rng::with_seed(bytes as u64).fill(&mut data);
    data
}

/// A file with such bytes.
pub fn file(directory: &Path, name: &str, bytes: usize) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, data(bytes)).unwrap();
    path
}

/// Checks that two files are the same, without printing megabytes where not.
#[track_caller]
pub fn assert_same(first: &Path, second: &Path) {
    let (a, b) = (fs::read(first).unwrap(), fs::read(second).unwrap());
    assert_eq!(a.len(), b.len(), "sizes of {} and {}", first.display(), second.display());
    let difference = a.iter().zip(&b).position(|(a, b)| a != b);
    assert_eq!(difference, None, "first difference of {} and {}", first.display(), second.display());
}
