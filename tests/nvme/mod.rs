//! NVMe commands that are passed through.
//!
//! `SYSURING_TEST_NVME` names namespaces whose contents may be lost, separated by commas: tests are made on each of them, whatever
//! its format. `SYSURING_TEST_NVME_SLOW` names one that reads a block in seconds, for what happens to reads in flight, and
//! `SYSURING_TEST_NVME_POLL` is set where the driver has queues that are polled. `tests/vm/run` has all that; elsewhere these tests
//! are skipped. They use the same namespaces, one after the other: `cargo test -- --test-threads 1`.
//!
//! | what can go wrong | tests |
//! |---|---|
//! | a length that is not that of the blocks reaches the controller, which writes past the buffer | the unit tests of `nvme::entry`, `commands::metadata_is_as_long_as_its_blocks` |
//! | a status is taken for a success, or for a count | `commands::a_status_is_an_error_by_its_name`, the unit tests of `nvme::wire` |
//! | a transfer is longer than the controller takes | `blocks::what_is_longer_than_a_command_takes_several` |
//! | a flush goes through a ring that polls, or is left out | `blocks::a_queue_goes_round`, `commands::flushes_reach_the_controller` |
//! | memory is given back that a command may still be written to | `attack` |
//! | a partition, a controller, a mounted namespace is opened | `nodes` |
//! | an error hits others than those that it belongs to; what is unplugged is waited for | `faults`, `unplug` |
//! | a kernel is sent what it dies of | all of them, on each kernel of `tests/vm` |

mod attack;
mod blocks;
mod commands;
mod faults;
mod nodes;
mod program;
mod rights;
mod unplug;
mod zones;

use std::path::{Path, PathBuf};

use sysuring::ErrorKind;
use sysuring::block::nvme::NvmeDevice;
use sysuring::block::{Backend, BlockDevice, Options};

use crate::common;

/// The namespaces that may be written to, or a visible skip.
#[track_caller]
fn nodes() -> Vec<PathBuf> {
    let Some(nodes) = std::env::var_os("SYSURING_TEST_NVME") else {
        common::skip("SYSURING_TEST_NVME names no namespaces whose contents may be lost; tests/vm/run has some");
        return Vec::new();
    };
    nodes.to_str().expect("nodes have names").split(',').map(PathBuf::from).collect()
}

/// Whether the kernel has nodes for passthrough; a visible skip where not.
#[track_caller]
fn has_nodes() -> bool {
    let has_nodes = common::is_kernel(5, 13);
    if !has_nodes {
        common::skip("this kernel passes no commands through");
    }
    has_nodes
}

/// Whether completions are to be polled for: not where the kernel may crash of it.
fn polls() -> bool {
    std::env::var_os("SYSURING_TEST_NVME_POLL").is_some() && common::is_kernel(6, 12)
}

/// Options that the tests have in common, with blocks of the namespace's own size.
fn options() -> Options {
    Options::new().queue_depth(8).iopoll(polls())
}

/// Opens a namespace with its own blocks; a visible skip where the kernel can't be given its metadata.
#[track_caller]
fn open(path: &Path, options: &Options) -> Option<NvmeDevice> {
    let opened = NvmeDevice::open(path, &options.clone().block_size(65536).whole_blocks(true)).and_then(|device| {
        let block_size = device.lba_size() as u32;
        drop(device);
        NvmeDevice::open(path, &options.clone().block_size(block_size))
    });
    match opened {
        Ok(device) => Some(device),
        Err(error) if error.kind() == ErrorKind::Unsupported && error.to_string().contains("metadata") => {
            common::skip(error);
            None
        }
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// Runs a test on each namespace, through rings and by `ioctl`.
#[track_caller]
fn each(test: impl Fn(&NvmeDevice)) {
    let nodes = nodes();
    if nodes.is_empty() || !has_nodes() {
        return;
    }
    for path in nodes {
        for backend in common::backends() {
            let Some(device) = open(&path, &options().backend(backend)) else { continue };
            println!("{} ({backend})", path.display());
            assert_eq!(device.backend(), backend);
            assert_eq!(device.report().polled, polls() && backend == Backend::Uring);
            if device.identify_namespace().unwrap().protection != 0 {
                // What was never written has no protection information that holds.
                device.write_run(0, &vec![0; 64 * device.block_size()]).unwrap();
            }
            test(&device);
        }
    }
}

/// Runs a test on each namespace whose blocks can be written in any order.
#[track_caller]
fn each_random(test: impl Fn(&NvmeDevice)) {
    each(|device| {
        if device.zoned().is_none() {
            test(device);
        }
    });
}
