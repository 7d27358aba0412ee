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
    for word in
        ["--block-size", "--depth", "--threads", "--backend", "--verify", "--quiet", "incomplete", "holes", "16 MiB"]
    {
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

/// Sizes of a destination that exists: shorter, as long as, and longer than a source of 8192 bytes.
#[cfg(target_os = "linux")]
const OLD_SIZES: [usize; 5] = [0, 100, 8192, 8193, 1 << 20];

/// Files that the kernel makes up: a size that is more than there is, none at all, and one that cannot be asked for.
#[cfg(target_os = "linux")]
#[test]
fn sources_whose_size_is_not_that_of_their_contents() {
    let directory = tempdir().unwrap();
    let new = directory.path().join("new");
    for (source, word) in [
        ("/sys/class/net/lo/mtu", "ends before the size"),
        ("/proc/sys/kernel/osrelease", "its size is 0"),
        ("/proc/version", "seekable"),
    ] {
        if !fs::exists(source).unwrap() {
            skip(format_args!("no {source} here"));
            continue;
        }
        for backend in backends() {
            for block in ["4096", "65536"] {
                let options = ["--backend", backend, "--block-size", block];
                let words = [source, word, "cat"];
                copy(source.as_ref(), &new, &options).failed_with(&words);
                assert!(!new.exists(), "{source}");
                for size in OLD_SIZES {
                    let old = file(directory.path(), "old", size);
                    copy(source.as_ref(), &old, &options).failed_with(&words);
                    assert!(fs::read(&old).unwrap() == data(size), "{source} changed a destination of {size} bytes");
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn few_open_files_and_nothing_lost() {
    use crate::common::limited;

    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 8192);
    let (mut failures, mut successes) = (0, 0);
    for files in 4..20 {
        let new = directory.path().join("new");
        let mut check = |destination: &std::path::Path, old: Option<usize>| {
            let arguments = ["copy".as_ref(), source.as_os_str(), destination.as_os_str()];
            let finished = limited(&format!("-n {files}"), arguments);
            if finished.status == Some(0) {
                successes += 1;
                assert_same(&source, destination);
                return;
            }
            failures += 1;
            let finished = finished.failed_with(&["EMFILE"]);
            match old {
                Some(size) => assert!(fs::read(destination).unwrap() == data(size), "{files}, {size}: {finished:?}"),
                None => assert!(!destination.exists(), "{files}: {finished:?}"),
            }
        };
        check(&new, None);
        for size in OLD_SIZES {
            let old = file(directory.path(), "old", size);
            check(&old, Some(size));
        }
        // It may not have come to be.
        let _ = fs::remove_file(new);
    }
    assert!(failures > 0 && successes > 0, "{failures} failures, {successes} successes");
}

#[cfg(target_os = "linux")]
#[test]
fn files_may_not_be_that_large() {
    use crate::common::limited;

    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 8192);
    let new = directory.path().join("new");
    for backend in backends() {
        let run = |destination: &std::path::Path| {
            let arguments = ["copy".as_ref(), source.as_os_str(), destination.as_os_str()];
            // In units of 512 bytes.
            limited("-f 8", arguments.into_iter().chain(["--backend".as_ref(), backend.as_ref()]))
        };
        run(&new).failed_with(&["new", "EFBIG"]);
        assert!(!new.exists());
        for size in [0, 100, 4096] {
            let old = file(directory.path(), "old", size);
            run(&old).failed_with(&["old", "EFBIG"]);
            assert_eq!(fs::read(&old).unwrap(), data(size));
        }
        // What is there already is no reason to fail before a write does.
        let old = file(directory.path(), "old", 1 << 20);
        run(&old).failed_with(&["write of block", "old", "EFBIG"]);
        assert_eq!(fs::metadata(&old).unwrap().len(), 1 << 20);
    }
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
