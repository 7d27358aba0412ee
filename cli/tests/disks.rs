//! File systems that are full, and block devices. Only root can set these up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::{TempDir, tempdir};

use crate::common::{Finished, PROGRAM, assert_same, backends, can, copy, data, file, is_root, skip};

/// Makes a file system in the image `$1` with the options `$3`, mounts it at `$2` in a mount namespace of its own, so that
/// nothing is left whatever happens, and runs the rest with `$mounted` set.
const MOUNTED: &str = r#"
    image=$1 mounted=$2 options=$3; shift 3
    truncate -s 16M "$image"
    mkfs.ext4 -q -F -m 0 $options "$image"
    mount -o loop "$image" "$mounted"
    "#;

/// Runs a script where a small file system is mounted at the directory `mounted`.
fn on_small_file_system(directory: &TempDir, options: &str, script: &str, arguments: &[&str]) -> Option<Finished> {
    let (image, mounted) = (directory.path().join("image"), directory.path().join("mounted"));
    fs::create_dir_all(&mounted).unwrap();
    let run = |options: &str, script: &str, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", &format!("{MOUNTED}{script}"), "sh"]);
        Finished::from(command.arg(&image).arg(&mounted).arg(options).args(arguments))
    };
    let prepared = run("", "true", &[]);
    if prepared.status != Some(0) {
        let (output, errors) = (prepared.output.trim(), prepared.errors.trim());
        skip(format_args!("no file system can be mounted: {output} {errors}"));
        return None;
    }
    Some(run(options, script, arguments))
}

#[test]
fn full_file_system() {
    if !is_root() {
        return;
    }
    for backend in backends() {
        // With extents the room is asked for before anything is written; without, the write fails.
        for (options, words, left) in [
            ("", &["allocate", "ENOSPC"][..], "nothing"),
            ("-O ^extent,^64bit", &["write of block", "(offset ", "ENOSPC"], "something"),
        ] {
            let directory = tempdir().unwrap();
            let source = file(directory.path(), "source", 24 << 20);
            let script = r#"
                status=0
                "$1" copy "$2" "$mounted/destination" --backend "$3" || status=$?
                if [ -e "$mounted/destination" ]; then echo something; else echo nothing; fi
                exit "$status""#;
            let arguments = [PROGRAM, source.to_str().unwrap(), backend];
            let Some(finished) = on_small_file_system(&directory, options, script, &arguments) else {
                return;
            };
            let finished = finished.failed_with(words).failed_with(&["mounted/destination"]);
            assert_eq!(finished.output.trim(), left, "{finished:?}");
        }
    }
}

#[test]
fn full_file_system_keeps_what_is_there() {
    if !is_root() {
        return;
    }
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 24 << 20);
    let script = r#"
        printf precious > "$mounted/destination"
        status=0
        "$1" copy "$2" "$mounted/destination" || status=$?
        cat "$mounted/destination"
        exit "$status""#;
    let arguments = [PROGRAM, source.to_str().unwrap()];
    let Some(finished) = on_small_file_system(&directory, "", script, &arguments) else { return };
    let finished = finished.failed_with(&["ENOSPC"]);
    assert_eq!(finished.output, "precious");
}

#[test]
fn a_file_system_that_refuses_direct_transfers() {
    if !is_root() {
        return;
    }
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", (1 << 20) + 13);
    let script = r#"
        mount -t ramfs ramfs "$3"
        "$1" copy "$2" "$3/destination" --verify
        cmp "$2" "$3/destination""#;
    let mounted = directory.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    if !can("unshare -m mount -t ramfs ramfs \"$1\"", &[&mounted]) {
        return;
    }
    let output = Command::new("unshare")
        .args(["-m", "sh", "-euc", script, "sh", PROGRAM])
        .args([&source, &mounted])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("refuses O_DIRECT"), "{errors}");
}

/// A loop device; detached when it is dropped.
struct Loop {
    path: PathBuf,
}

impl Loop {
    /// Shows a file as a block device; `None`, and a line that says so, where that cannot be done.
    fn attach(backing: &Path, sector: &str) -> Option<Self> {
        Self::attach_with(backing, &["--sector-size", sector])
    }

    fn attach_with(backing: &Path, options: &[&str]) -> Option<Self> {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show"]).args(options).arg(backing);
        match command.output() {
            Ok(output) if output.status.success() => {
                let path = String::from_utf8(output.stdout).unwrap().trim().into();
                Some(Self { path })
            }
            other => {
                skip(format_args!("no loop device: {other:?}"));
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.path).status();
        if !detached.is_ok_and(|status| status.success()) {
            println!("{} is still attached; losetup --detach removes it", self.path.display());
        }
    }
}

#[test]
fn to_and_from_a_block_device() {
    if !is_root() {
        return;
    }
    let directory = tempdir().unwrap();
    for backend in backends() {
        for sector in ["512", "4096"] {
            let backing = file(directory.path(), "backing", 8 << 20);
            let Some(disk) = Loop::attach(&backing, sector) else { return };
            let source = file(directory.path(), "source", (3 << 20) + 13);
            copy(&source, &disk.path, &["--verify", "--backend", backend]).succeeded();

            let copied = directory.path().join("copied");
            copy(&disk.path, &copied, &["--verify", "--backend", backend]).succeeded();
            assert_same(&disk.path, &copied);
            let mut expected = data(8 << 20);
            expected[..(3 << 20) + 13].copy_from_slice(&data((3 << 20) + 13));
            assert!(fs::read(&copied).unwrap() == expected, "what lies behind the copy was changed");
            fs::remove_file(copied).unwrap();
        }
    }
}

#[test]
fn a_block_device_smaller_than_the_source() {
    if !is_root() {
        return;
    }
    let directory = tempdir().unwrap();
    let backing = file(directory.path(), "backing", 1 << 20);
    let Some(disk) = Loop::attach(&backing, "512") else { return };
    let name = disk.path.to_str().unwrap();
    for backend in backends() {
        for size in [(1 << 20) + 1, 2 << 20] {
            let source = file(directory.path(), "source", size);
            copy(&source, &disk.path, &["--backend", backend]).failed_with(&[name, "1048576", &size.to_string()]);
        }
        assert!(fs::read(&disk.path).unwrap() == data(1 << 20), "a device that is too small was written to");
        let source = file(directory.path(), "source", 1 << 20);
        copy(&source, &disk.path, &["--backend", backend, "--verify"]).succeeded();
    }
}

#[test]
fn a_block_size_under_that_of_the_disk() {
    if !is_root() {
        return;
    }
    let directory = tempdir().unwrap();
    let backing = file(directory.path(), "backing", 1 << 20);
    let Some(disk) = Loop::attach(&backing, "4096") else { return };
    let other = directory.path().join("other");
    let words = [disk.path.to_str().unwrap(), "4096", "--block-size"];
    copy(&disk.path, &other, &["--block-size", "512"]).failed_with(&words);
    assert!(!other.exists());
    let source = file(directory.path(), "source", 8192);
    copy(&source, &disk.path, &["--block-size", "512"]).failed_with(&words);
    copy(&source, &disk.path, &["--block-size", "4096", "--verify"]).succeeded();
}

#[test]
fn a_block_device_by_two_names() {
    if !is_root() {
        return;
    }
    let directory = tempdir().unwrap();
    let backing = file(directory.path(), "backing", 1 << 20);
    let Some(disk) = Loop::attach(&backing, "512") else { return };
    let alias = directory.path().join("alias");
    let node = r#"mknod "$2" b $(stat -L -c '0x%t 0x%T' "$1")"#;
    if !can(node, &[&disk.path, &alias]) {
        return;
    }
    copy(&disk.path, &alias, &[]).failed_with(&["same file"]);
    copy(&alias, &disk.path, &[]).failed_with(&["same file"]);
}

#[test]
fn a_block_device_that_is_mounted() {
    if !is_root() {
        return;
    }
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 4096);
    let script = r#"disk=$(findmnt -n -o SOURCE "$mounted"); exec "$1" copy "$2" "$disk""#;
    let arguments = [PROGRAM, source.to_str().unwrap()];
    let Some(finished) = on_small_file_system(&directory, "", script, &arguments) else { return };
    finished.failed_with(&["/dev/loop", "in use"]);
}

#[test]
fn a_destination_that_is_read_only() {
    if !is_root() {
        return;
    }
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 4096);
    let backing = file(directory.path(), "backing", 1 << 20);
    let Some(disk) = Loop::attach_with(&backing, &["--read-only"]) else { return };
    for backend in backends() {
        let finished = copy(&source, &disk.path, &["--backend", backend]);
        let finished = finished.failed_with(&[disk.path.to_str().unwrap(), "read-only", "another destination"]);
        assert!(!finished.errors.contains("Options::"), "{finished:?}");
    }
    assert!(fs::read(&backing).unwrap() == data(1 << 20), "a device that is read-only was written to");
}
