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
    sysuring(["demo", "--directory", "/absent/directory"]).failed_with(&["/absent/directory"]);
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
    use std::process::Command;

    // Larger than files may get: the error comes when the file was made already.
    let directory = tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 1024; trap '' XFSZ; exec \"$@\"", "sh", PROGRAM, "demo", "--size", "64"]);
    let finished = Finished::from(command.arg("--directory").arg(directory.path()));
    finished.failed_with(&["EFBIG", "demo.img"]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something is left in the directory");
}
