//! `sysuring copy` where it succeeds.

use std::fs;
use std::path::Path;

use tempfile::tempdir;

use crate::common::{assert_same, backends, copy, file, skip};

/// Around the sizes of sectors, blocks, runs and batches.
const SIZES: [usize; 11] =
    [0, 1, 511, 512, 4095, 4096, 4097, (1 << 20) + 13, 4 << 20, (4 << 20) + 4096, (33 << 20) + 13];

fn copies_every_size(destination: &Path) {
    let directory = tempdir().unwrap();
    for backend in backends() {
        for size in SIZES {
            let source = file(directory.path(), "source", size);
            let destination = destination.join(format!("{backend}-{size}"));
            let finished = copy(&source, &destination, &["--verify", "--backend", backend]).succeeded();
            assert_same(&source, &destination);
            let summary = finished.output;
            assert!(summary.contains(&format!("copied {size} bytes in ")), "{summary}");
            assert!(summary.contains("verified"), "{summary}");
            assert!(summary.contains(&format!("source: {backend}, destination: {backend}")), "{summary}");
            assert_eq!(summary.lines().count(), 1, "{summary}");
            fs::remove_file(destination).unwrap();
        }
    }
}

#[test]
fn every_size() {
    copies_every_size(tempdir().unwrap().path());
}

#[test]
fn every_size_to_a_file_system_in_memory() {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(destination) => copies_every_size(destination.path()),
        Err(error) => skip(format_args!("no directory in /dev/shm: {error}")),
    }
}

#[test]
fn every_option() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", (3 << 20) + 777);
    for backend in backends() {
        for (block, depth, threads) in
            [("512", "1", "1"), ("512", "4096", "3"), ("4096", "7", "8"), ("8192", "100", "2"), ("65536", "3", "5")]
        {
            for buffered in [false, true] {
                let destination = directory.path().join("destination");
                let mut options = vec!["--block-size", block, "--depth", depth, "--threads", threads];
                options.extend(["--backend", backend, "--verify"]);
                options.extend(buffered.then_some("--buffered"));
                copy(&source, &destination, &options).succeeded();
                assert_same(&source, &destination);
                fs::remove_file(destination).unwrap();
            }
        }
    }
}

#[test]
fn a_destination_that_exists_gets_the_size_of_the_source() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", (1 << 20) + 13);
    for backend in backends() {
        for size in [0, 1, 4096, (1 << 20) + 12, (1 << 20) + 13, (1 << 20) + 14, 3 << 20] {
            let destination = file(directory.path(), "destination", size);
            copy(&source, &destination, &["--verify", "--backend", backend]).succeeded();
            assert_same(&source, &destination);
        }
        let empty = file(directory.path(), "empty", 0);
        let destination = file(directory.path(), "destination", 10_000);
        copy(&empty, &destination, &["--verify", "--backend", backend]).succeeded();
        assert_same(&empty, &destination);
    }
}

#[test]
fn a_file_with_holes() {
    let directory = tempdir().unwrap();
    let source = directory.path().join("source");
    let holes = fs::File::create(&source).unwrap();
    holes.set_len((20 << 20) + 5).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::FileExt::write_all_at(&holes, b"island", 7 << 20).unwrap();
    for backend in backends() {
        let destination = directory.path().join(backend);
        copy(&source, &destination, &["--verify", "--backend", backend]).succeeded();
        assert_same(&source, &destination);
    }
}

#[test]
fn quiet_prints_nothing() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 10_000);
    let destination = directory.path().join("destination");
    let finished = copy(&source, &destination, &["--quiet", "--verify"]).succeeded();
    assert_eq!((&*finished.output, &*finished.errors), ("", ""));
    assert_same(&source, &destination);
}

#[cfg(unix)]
#[test]
fn permissions_go_with_the_file() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    let destination = directory.path().join("destination");
    for mode in [0o600, 0o640, 0o400, 0o700] {
        fs::set_permissions(&source, PermissionsExt::from_mode(mode)).unwrap();
        copy(&source, &destination, &[]).succeeded();
        let found = fs::metadata(&destination).unwrap().permissions().mode() & 0o777;
        // A umask may take away from the group, never add.
        assert_eq!(found & 0o707, mode & 0o707, "{found:o} for {mode:o}");
        assert_eq!(found & !mode, 0, "{found:o} for {mode:o}");
        assert_same(&source, &destination);
        fs::remove_file(&destination).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_link_is_followed() {
    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    let destination = file(directory.path(), "destination", 1);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&destination, &link).unwrap();
    copy(&source, &link, &["--verify"]).succeeded();
    assert!(link.is_symlink());
    assert_same(&source, &destination);
}

#[cfg(unix)]
#[test]
fn a_name_without_a_directory() {
    use crate::common::{Finished, PROGRAM};

    let directory = tempdir().unwrap();
    let source = file(directory.path(), "source", 5000);
    let mut command = std::process::Command::new(PROGRAM);
    Finished::from(command.current_dir(&directory).args(["copy", "source", "destination"])).succeeded();
    assert_same(&source, &directory.path().join("destination"));
}
