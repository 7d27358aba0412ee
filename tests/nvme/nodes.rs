//! What is opened, and what is not.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sysuring::ErrorKind;
use sysuring::block::nvme::NvmeDevice;
use sysuring::block::{self, BlockDevice, Options};

use super::{has_nodes, nodes, open, options};
use crate::common;

fn disk_of(node: &Path) -> PathBuf {
    PathBuf::from(node.to_str().unwrap().replace("/ng", "/nvme"))
}

#[test]
fn old_kernels_say_so() {
    if nodes().is_empty() || common::is_kernel(5, 13) {
        return;
    }
    let disk = std::fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().path());
    let disk = disk.into_iter().find(|path| path.to_str().unwrap().starts_with("/dev/nvme0n")).unwrap();
    let error = NvmeDevice::open(&disk, &Options::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("passes no commands through"), "{error}");
    assert!(error.to_string().contains("before Linux 5.13"), "{error}");
}

#[test]
fn a_namespace_has_several_names() {
    let nodes = nodes();
    if nodes.is_empty() || !has_nodes() {
        return;
    }
    let directory = common::directory();
    for (index, node) in nodes.iter().enumerate() {
        let Some(device) = open(node, &options()) else { continue };
        let nsid = device.nsid();
        let busy = NvmeDevice::open(node, &Options::new()).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
        drop(device);
        let link = directory.path().join(format!("link-{index}"));
        symlink(node, &link).unwrap();
        assert_eq!(open(&link, &options()).unwrap().nsid(), nsid);
        let disk = disk_of(node);
        if disk.exists() {
            assert_eq!(open(&disk, &options()).unwrap().nsid(), nsid);
            // Held against the block layer's users as well.
            let device = open(&disk, &options()).unwrap();
            if let Ok(other) = block::open(&disk, &Options::new().block_size(device.block_size() as u32)) {
                assert_eq!(other.block_count(), 0, "{} is open twice", disk.display());
            }
        }
    }
}

#[test]
fn what_is_no_namespace_is_told() {
    let nodes = nodes();
    if nodes.is_empty() || !has_nodes() {
        return;
    }
    let told = |path: &Path| {
        let error = NvmeDevice::open(path, &Options::new().read_only(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    assert!(told(Path::new("/dev/nvme0")).contains("/dev/nvme0 is a controller"));
    assert!(told(Path::new("/dev/null")).contains("another kind"));
    assert!(told(Path::new("/")).contains("is no device"));
    let error = NvmeDevice::open(&nodes[0], &Options::new().create(1 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(NvmeDevice::open("/dev/ng77n7", &Options::new()).unwrap_err().kind(), ErrorKind::NotFound);

    let disk = disk_of(&nodes[0]);
    let added = std::process::Command::new("addpart").arg(&disk).args(["1", "2048", "2048"]).status();
    if !added.is_ok_and(|status| status.success()) {
        return common::skip("no partition can be added");
    }
    let partition = PathBuf::from(format!("{}p1", disk.display()));
    let sentence = told(&partition);
    assert!(sentence.contains("is a partition") && sentence.contains(disk.to_str().unwrap()), "{sentence}");
    let _ = std::process::Command::new("delpart").arg(&disk).arg("1").status();
}

#[test]
fn a_mounted_namespace_is_left_alone() {
    if nodes().is_empty() || !has_nodes() {
        return;
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let Some(disk) =
        mounts.lines().filter_map(|line| line.split(' ').next()).find(|disk| disk.starts_with("/dev/nvme"))
    else {
        return common::skip("no namespace is mounted");
    };
    for path in [disk.to_owned(), disk.replace("/nvme", "/ng")] {
        let error = NvmeDevice::open(&path, &Options::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
    // To look at it is harmless.
    assert!(NvmeDevice::open(disk, &Options::new().read_only(true)).unwrap().identify_controller().is_ok());
}
