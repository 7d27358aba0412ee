//! A controller that goes while commands are in flight. `SYSURING_TEST_NVME_UNPLUG` allows it: other tests have no controller then.

use std::path::Path;
use std::time::{Duration, Instant};

use sysuring::ErrorKind;
use sysuring::block::nvme::NvmeDevice;
use sysuring::block::{Backend, BlockDevice};

use super::{has_nodes, open, options};
use crate::common;

#[test]
fn what_is_unplugged_is_an_error_and_nobody_waits() {
    let slow = std::env::var_os("SYSURING_TEST_NVME_SLOW");
    let (Some(path), Some(_)) = (slow, std::env::var_os("SYSURING_TEST_NVME_UNPLUG")) else {
        return common::skip("SYSURING_TEST_NVME_UNPLUG does not allow to take a controller away; tests/vm/run does");
    };
    if !has_nodes() {
        return;
    }
    let path: &Path = path.as_ref();
    let shared = options().exclusive(false);
    let ring = open(path, &shared).unwrap();
    let ioctl = open(path, &shared.backend(Backend::File)).unwrap();
    let (size, serial) = (ring.block_size(), ring.identify_controller().unwrap().serial);
    let mut queue = ring.queue(6, size).unwrap();
    for block in 0..6 {
        queue.read(block, queue.buffer().unwrap(), block).unwrap();
    }
    queue.submit().unwrap();

    let node = path.file_name().unwrap().to_str().unwrap();
    let controller = std::fs::canonicalize(format!("/sys/class/nvme-generic/{node}/device/device")).unwrap();
    let start = Instant::now();
    std::fs::write(controller.join("remove"), "1").unwrap();
    println!("removed in {:?}", start.elapsed());

    // What was in flight ended one way or the other, and comes with its buffer.
    let mut ended = 0;
    while let Some(completed) = queue.wait().unwrap() {
        println!("{}: {:?}", completed.user_data, completed.result);
        assert!(completed.buffer.is_some());
        ended += 1;
    }
    assert_eq!(ended, 6);
    // The drivers of controllers that are gone say ENODEV, or that a command was given up.
    let gone = |result: sysuring::Result<()>| {
        let error = result.unwrap_err();
        println!("{error}");
        assert!(!matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::OutOfRange), "{error}");
    };
    let mut block = vec![0; size];
    for device in [&ring, &ioctl] {
        gone(device.read_block(0, &mut block));
        gone(device.write_run(0, &vec![0; 20 * size]));
        gone(device.smart().map(drop));
        gone(device.rescan().map(drop));
    }
    queue.read(0, queue.buffer().unwrap(), 1).unwrap();
    gone(queue.wait().unwrap().unwrap().result);
    drop((queue, ring, ioctl));

    std::fs::write("/sys/bus/pci/rescan", "1").unwrap();
    // Under another name, perhaps.
    let is_back = || {
        let nodes = std::fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().path());
        let options = options().block_size(65536).whole_blocks(true).read_only(true).iopoll(false);
        nodes.into_iter().filter(|path| path.to_str().is_some_and(|path| path.starts_with("/dev/ng"))).any(|path| {
            let device = NvmeDevice::open(path, &options);
            device.is_ok_and(|device| device.identify_controller().is_ok_and(|controller| controller.serial == serial))
        })
    };
    let end = Instant::now() + Duration::from_secs(30);
    while !is_back() {
        assert!(Instant::now() < end, "it does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
}
