//! `sysuring demo`.

use std::fs;

use tempfile::tempdir;

use crate::common::{Finished, PROGRAM, backends, info, skip, sysuring};

#[test]
fn it_shows_writes_verifies_and_measures() {
    for backend in backends() {
        let directory = tempdir().unwrap();
        let finished = Finished::from(
            std::process::Command::new(PROGRAM)
                .args(["demo", "--size", "8", "--threads", "3", "--backend", backend, "--directory"])
                .arg(directory.path()),
        )
        .succeeded();
        let text = finished.output;
        for word in ["2048 blocks", "write", "flush", "verify", "pread", "depth 1", "depth 32", "reads/s"] {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        assert!(text.contains(&format!("\nbackend: {backend}")), "{text}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something is left in the directory");
    }
}

#[test]
fn it_ends_with_the_reason_of_a_fallback() {
    let Some(reason) = info()["ring"]["reason"].as_str() else {
        return skip("io_uring works here; the module `fallback` takes it away");
    };
    let text = sysuring(["demo", "--size", "1"]).succeeded().output;
    let end = &text[text.find("\nbackend: file").expect("the backend at the end")..];
    assert!(end.contains(reason), "{text}");
}

#[test]
fn a_directory_that_cannot_be_used() {
    sysuring(["demo", "--directory", "/absent/directory"])
        .failed_with(&["create a directory in /absent/directory: no such file or directory (ENOENT)"]);
}

#[cfg(target_os = "linux")]
#[test]
fn not_in_memory_where_a_disk_is_at_hand() {
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        return skip("no directory in /dev/shm");
    };
    let finished =
        Finished::from(std::process::Command::new(PROGRAM).args(["demo", "--size", "1"]).env("TMPDIR", memory.path()))
            .succeeded();
    let first = finished.output.lines().next().unwrap();
    let says = format!("no O_DIRECT in {}", memory.path().display());
    if finished.output.contains("O_DIRECT there nor") {
        skip("no file system with O_DIRECT here");
    } else {
        assert!(!first.contains("/dev/shm"), "{finished:?}");
        assert!(finished.output.contains(&says), "{finished:?}");
    }
    assert_eq!(fs::read_dir(memory.path()).unwrap().count(), 0, "something is left in the directory");
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_after_an_error() {
    use crate::common::limited;

    // Larger than files may get: the error comes when the file was made already.
    let directory = tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    limited("-f 1024", ["demo", "--size", "64", "--directory", place]).failed_with(&["EFBIG", "demo.img"]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something is left in the directory");
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_after_an_interruption() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    for backend in backends() {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
            let directory = tempdir().unwrap();
            let mut command = Command::new(PROGRAM);
            command.args(["demo", "--size", "64", "--backend", backend, "--directory"]).arg(directory.path());
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            // The first line comes when the file is open; what follows takes more than a second.
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut first = String::new();
            output.read_line(&mut first).unwrap();
            assert!(first.contains("64 MiB"), "{first}");
            let id = i32::try_from(child.id()).unwrap();
            // SAFETY: sends a signal to a child that was not waited for yet, so the number is its own.
            assert_eq!(unsafe { libc::kill(id, signal) }, 0);
            assert_eq!(child.wait().unwrap().signal(), Some(signal));
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something is left in the directory");
        }
    }
}

#[cfg(unix)]
#[test]
fn another_place_where_the_usual_one_cannot_be_used() {
    let mut command = std::process::Command::new(PROGRAM);
    let finished = Finished::from(command.env("TMPDIR", "/absent").args(["demo", "--size", "1"])).succeeded();
    // Without O_DIRECT anywhere that is what is remarked.
    let remarks = ["in /absent: no such file or directory (ENOENT)", "O_DIRECT there nor"];
    assert!(remarks.iter().any(|remark| finished.output.contains(remark)), "{finished:?}");
}
