//! What goes to a terminal, and what to a pipe.
#![cfg(unix)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use crate::common::{Finished, PROGRAM, copy, file, skip};

#[test]
fn no_progress_bar_in_a_pipe() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", (1 << 20) + 13);
    let finished = copy(&source, &directory.path().join("destination"), &["--verify"]).succeeded();
    for text in [&finished.output, &finished.errors] {
        assert!(!text.contains(['\r', '\x1b', '%']), "{finished:?}");
    }
}

#[test]
fn a_progress_bar_on_a_terminal() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", (1 << 20) + 13);
    let run = |options: &str| {
        let command =
            format!("{PROGRAM} copy {} {}/destination {options}", source.display(), directory.path().display());
        Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output()
    };
    let finished = match run("") {
        Ok(finished) => finished,
        Err(error) => return skip(format_args!("no program `script` to make a terminal: {error}")),
    };
    let text = String::from_utf8_lossy(&finished.stdout);
    assert!(finished.status.success(), "{text}");
    assert!(text.contains("copying [") && text.contains('%'), "{text:?}");
    let quiet = run("--quiet").unwrap();
    assert!(quiet.status.success() && quiet.stdout.is_empty(), "{quiet:?}");
}

/// Something to write to that nobody reads.
fn abandoned() -> Stdio {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    OwnedFd::from(theirs).into()
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    let destination = directory.path().join("destination");
    let (source, destination) = (source.to_str().unwrap(), destination.to_str().unwrap());
    for arguments in [&["info"][..], &["info", "--json"], &["demo", "--size", "1"], &["copy", source, destination]] {
        let child = Command::new(PROGRAM).args(arguments).stdout(abandoned()).stderr(Stdio::piped()).spawn();
        let finished = child.unwrap().wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&finished.stderr);
        assert!(!errors.contains("panicked") && !errors.contains("error:"), "{arguments:?}: {errors}");
        assert_eq!(finished.status.code(), Some(0), "{arguments:?}: {errors}");
    }
}

#[test]
fn an_error_without_a_reader_is_still_an_error() {
    let child = Command::new(PROGRAM).args(["copy", "/absent", "/absent/too"]).stderr(abandoned()).status();
    assert_eq!(child.unwrap().code(), Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = Command::new(PROGRAM).arg("info").stdout(full).stderr(Stdio::piped()).spawn();
    let finished = child.unwrap().wait_with_output().unwrap();
    let finished = Finished {
        status: finished.status.code(),
        output: String::new(),
        errors: String::from_utf8_lossy(&finished.stderr).into_owned(),
    };
    finished.failed_with(&["standard output", "ENOSPC"]);
}
