//! What a user can do wrong: a message that helps, the right exit status, and nothing lost.

use std::fs;

use sysuring::block::{self, Backend, Options};
use tempfile::tempdir;

use crate::common::{assert_same, backends, copy, data, file, info, skip, sysuring};

#[test]
fn usage() {
    for (arguments, word) in [
        (&["copy", "a", "b", "--block-size", "1000"][..], "power of two"),
        (&["copy", "a", "b", "--block-size", "256"], "power of two"),
        (&["copy", "a", "b", "--block-size", "131072"], "power of two"),
        (&["copy", "a", "b", "--block-size", "big"], "--block-size"),
        (&["copy", "a", "b", "--threads", "0"], "--threads"),
        (&["copy", "a", "b", "--depth", "0"], "--depth"),
        (&["copy", "a", "b", "--depth", "4097"], "--depth"),
        (&["copy", "a", "b", "--backend", "magic"], "--backend"),
        (&["copy", "a"], "<DST>"),
        (&["demo", "--size", "0"], "--size"),
        (&["demo", "--threads", "0"], "--threads"),
        (&["nothing"], "nothing"),
        (&[], "Usage"),
    ] {
        let finished = sysuring(arguments);
        assert_eq!(finished.status, Some(2), "{arguments:?}: {finished:?}");
        assert!(finished.errors.contains(word), "{arguments:?}: {finished:?}");
    }
}

#[test]
fn version_and_help() {
    let finished = sysuring(["--version"]).succeeded();
    assert_eq!(finished.output.trim(), concat!("sysuring ", env!("CARGO_PKG_VERSION")));
    let help = sysuring(["copy", "--help"]).succeeded().output;
    for word in ["--block-size", "--depth", "--threads", "--backend", "--verify", "--quiet", "incomplete"] {
        assert!(help.contains(word), "no {word} in {help}");
    }
}

#[test]
fn source_is_missing() {
    let directory = tempdir().unwrap();
    let (source, destination) = (directory.path().join("absent"), directory.path().join("destination"));
    copy(&source, &destination, &[]).failed_with(&["open", "absent", "ENOENT"]);
    assert!(!destination.exists());
}

#[test]
fn directory_of_the_destination_is_missing() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    copy(&source, &directory.path().join("absent/destination"), &[]).failed_with(&["absent/destination", "ENOENT"]);
}

#[test]
fn directories() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    let other = directory.path().join("other");
    copy(&source, directory.path(), &[]).failed_with(&["is a directory"]);
    copy(directory.path(), &other, &[]).failed_with(&["is a directory"]);
    assert!(!other.exists());
    assert_eq!(fs::read(&source).unwrap(), data(5000));
}

#[cfg(unix)]
#[test]
fn what_has_no_blocks() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    copy(&source, "/dev/null".as_ref(), &[]).failed_with(&["/dev/null", "no blocks"]);
    copy("/dev/zero".as_ref(), &directory.path().join("other"), &[]).failed_with(&["/dev/zero", "no blocks"]);
    // Opening a named pipe would wait for a writer.
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    copy(&pipe, &directory.path().join("other"), &[]).failed_with(&["pipe", "no blocks"]);
}

#[cfg(unix)]
#[test]
fn source_is_destination() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    let (symbolic, hard) = (directory.path().join("symbolic"), directory.path().join("hard"));
    std::os::unix::fs::symlink("source", &symbolic).unwrap();
    fs::hard_link(&source, &hard).unwrap();
    let by_another_way = directory.path().join("../").join(directory.path().file_name().unwrap()).join("source");
    for other in [&source, &symbolic, &hard, &by_another_way] {
        copy(&source, other, &[]).failed_with(&["same file"]);
        copy(other, &source, &[]).failed_with(&["same file"]);
    }
    assert_eq!(fs::read(&source).unwrap(), data(5000));
}

#[cfg(unix)]
#[test]
fn destination_is_a_link_to_nothing() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("absent", &link).unwrap();
    copy(&source, &link, &[]).failed_with(&["link", "does not exist"]);
    assert!(!directory.path().join("absent").exists());
}

#[cfg(unix)]
#[test]
fn an_end_that_is_in_use() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 8192);
    let held = file(directory.path(), "held", 4096);
    let options = Options::new().backend(Backend::File);
    let device = block::open(&held, &options).unwrap();
    for backend in backends() {
        copy(&source, &held, &["--backend", backend]).failed_with(&["held", "in use"]);
        copy(&held, &directory.path().join("other"), &["--backend", backend]).failed_with(&["held", "in use"]);
    }
    assert_eq!(fs::read(&held).unwrap(), data(4096), "a destination in use was changed");
    assert!(!directory.path().join("other").exists());
    device.close().unwrap();
    copy(&source, &held, &[]).succeeded();
    assert_same(&source, &held);

    // Readers do not disturb each other.
    let reader = block::open(&source, &options.read_only(true)).unwrap();
    copy(&source, &held, &[]).succeeded();
    reader.close().unwrap();
}

#[test]
fn io_uring_or_nothing() {
    if info()["ring"]["available"] == true {
        return skip("io_uring works here; the module `fallback` takes it away");
    }
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 8192);
    let destination = directory.path().join("destination");
    let reason = info()["ring"]["reason"].as_str().expect("a reason");
    copy(&source, &destination, &["--backend", "uring"]).failed_with(&[reason]);
    assert!(!destination.exists());
    sysuring(["demo", "--backend", "uring"]).failed_with(&[reason]);
}
