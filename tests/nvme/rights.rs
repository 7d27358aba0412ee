//! What an ordinary user may do: the nodes of `SYSURING_TEST_NVME` are open to everybody, those of `SYSURING_TEST_NVME_SLOW` to root
//! alone.

use sysuring::ErrorKind;
use sysuring::block::nvme::NvmeDevice;
use sysuring::block::{Backend, BlockDevice, Options};

use super::{has_nodes, nodes, open, options};
use crate::common::{self, pattern};

/// Whether this is an ordinary user; a visible skip where not.
fn is_user() -> bool {
    // SAFETY: asks who this is.
    let is_user = unsafe { libc::geteuid() } != 0;
    if !is_user {
        common::skip("root may do everything");
    }
    is_user
}

#[test]
fn a_user_may_use_what_is_open_to_everybody() {
    let nodes = nodes();
    if nodes.is_empty() || !is_user() || !has_nodes() {
        return;
    }
    for path in nodes {
        if !common::is_kernel(6, 2) {
            let error = NvmeDevice::open(&path, &options()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains("before Linux 6.2"), "{error}");
            continue;
        }
        for backend in common::backends() {
            let Some(device) = open(&path, &options().backend(backend)) else { continue };
            assert_eq!(device.backend(), backend);
            let denied = |result: sysuring::Result<()>| {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            };
            device.identify_controller().unwrap();
            device.identify_namespace().unwrap();
            denied(device.smart().map(drop));
            denied(device.feature(6).map(drop));
            denied(device.active_namespaces().map(drop));
            let mut block = vec![0; device.block_size()];
            device.flush().unwrap();
            if device.zoned().is_none() {
                let data = pattern(1, 20 * device.block_size());
                device.write_run(1, &data).unwrap();
                device.flush().unwrap();
                let mut back = vec![0; data.len()];
                device.read_run(1, &mut back).unwrap();
                assert!(back == data);
                device.write_block(0, &block).unwrap();
                device.read_block(0, &mut block).unwrap();
                let mut queue = device.queue(4, device.block_size()).unwrap();
                queue.write(0, queue.buffer().unwrap(), 1).unwrap();
                queue.wait().unwrap().unwrap().result.unwrap();
            }
            drop(device);
            // Who may only read is told so by the device, before the kernel does.
            let device = open(&path, &options().backend(backend).read_only(true)).unwrap();
            device.read_block(0, &mut block).unwrap();
            assert_eq!(device.write_block(0, &block).unwrap_err().kind(), ErrorKind::ReadOnly);
        }
    }
}

#[test]
fn a_user_may_not_use_what_is_roots() {
    let Some(path) = std::env::var_os("SYSURING_TEST_NVME_SLOW") else {
        return common::skip("SYSURING_TEST_NVME_SLOW names no namespace; tests/vm/run has one");
    };
    if !is_user() || !has_nodes() {
        return;
    }
    for options in [Options::new(), Options::new().read_only(true), Options::new().backend(Backend::File)] {
        let error = NvmeDevice::open(&path, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("whoever may open this node"), "{error}");
    }
}
