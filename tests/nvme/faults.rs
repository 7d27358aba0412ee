//! Errors that a disk has: QEMU's `blkdebug` makes them, on the namespace that `SYSURING_TEST_NVME_FAULTY` names.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sysuring::block::nvme::NvmeDevice;
use sysuring::block::{BlockDevice, ReadRequest, WriteRequest};
use sysuring::{Error, ErrorKind};

use super::{has_nodes, open, options};
use crate::common;

/// The block that can't be read, and the one that can't be written. No flush succeeds.
const BAD_READ: u64 = 2048;
const BAD_WRITE: u64 = 4096;

#[track_caller]
fn assert_is(error: &Error, name: &str) {
    assert_eq!(error.kind(), ErrorKind::Nvme, "{error}");
    assert_eq!(error.nvme_status().unwrap().name(), Some(name), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
}

#[test]
fn errors_of_the_medium_are_told_and_are_only_their_own() {
    let Some(path) = std::env::var_os("SYSURING_TEST_NVME_FAULTY") else {
        return common::skip("SYSURING_TEST_NVME_FAULTY names no namespace; tests/vm/run has one");
    };
    if !has_nodes() {
        return;
    }
    for backend in common::backends() {
        println!("{backend}");
        let device = open(path.as_ref(), &options().backend(backend)).unwrap();
        blocking(&device);
        queue(&device);
        future(&device);
        assert_eq!(device.stats().in_flight, 0);
        assert_eq!(device.flush().unwrap_err().kind(), ErrorKind::Nvme);
        // It works on.
        device.write_block(0, &[7; 512]).unwrap();
        device.read_block(0, &mut [0; 512]).unwrap();
        assert_eq!(device.close().unwrap_err().kind(), ErrorKind::Nvme, "who closes it hears of the flush");
    }
}

fn blocking(device: &NvmeDevice) {
    let mut memory = [0; 16 * 512];
    let retries = device.stats().retries;
    assert_is(&device.read_block(BAD_READ, &mut memory[..512]).unwrap_err(), "unrecovered read error");
    assert_is(&device.read_run(BAD_READ - 8, &mut memory).unwrap_err(), "unrecovered read error");
    assert_is(&device.write_block(BAD_WRITE, &memory[..512]).unwrap_err(), "write fault");
    assert_is(&device.write_run_fua(BAD_WRITE - 3, &memory).unwrap_err(), "write fault");
    assert_eq!(device.stats().retries, retries, "what the medium says stays so");

    let mut requests: Vec<_> =
        memory.chunks_mut(512).zip(BAD_READ - 8..).map(|(data, block)| ReadRequest::new(block, data)).collect();
    let error = device.read_blocks(&mut requests).unwrap_err();
    assert_eq!(error.completed(), 8);
    assert_is(error.error(), "unrecovered read error");
    let failed: Vec<_> = (0..16).filter(|index| requests[*index].result().unwrap().is_err()).collect();
    assert_eq!(failed, [8]);
    let mut requests: Vec<_> =
        memory.chunks(512).zip(BAD_WRITE - 8..).map(|(data, block)| WriteRequest::new(block, data)).collect();
    let error = device.write_blocks(&mut requests).unwrap_err();
    assert_eq!(error.completed(), 8);
    assert_is(error.error(), "write fault");
    // Nothing is flushed where a write fails, and then it is the write's error.
    assert_is(device.write_barrier(&mut requests).unwrap_err().error(), "write fault");
    assert_eq!(device.write_barrier(&mut requests[..3]).unwrap_err().completed(), 0);
}

fn queue(device: &NvmeDevice) {
    let mut queue = device.queue(16, 512).unwrap();
    for index in 0..16 {
        queue.read(BAD_READ - 8 + index, queue.buffer().unwrap(), index).unwrap();
    }
    let mut ended = 0;
    while let Some(completed) = queue.wait().unwrap() {
        assert!(completed.buffer.is_some(), "an error gives the buffer back");
        match completed.user_data {
            8 => assert_is(&completed.result.unwrap_err(), "unrecovered read error"),
            _ => completed.result.unwrap(),
        }
        ended += 1;
    }
    assert_eq!(ended, 16);
    queue.write_fua(BAD_WRITE, queue.buffer().unwrap(), 1).unwrap();
    assert_is(&queue.wait().unwrap().unwrap().result.unwrap_err(), "write fault");
    queue.flush(2).unwrap();
    let completed = queue.wait().unwrap().unwrap();
    assert_eq!((completed.user_data, completed.result.unwrap_err().kind()), (2, ErrorKind::Nvme));
}

fn future(device: &NvmeDevice) {
    let mut future = pin!(device.read_async(BAD_READ, device.aligned_buffer(512).unwrap()));
    let mut context = Context::from_waker(Waker::noop());
    let failed = loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            break result.unwrap_err();
        }
        std::thread::yield_now();
    };
    assert_is(failed.error(), "unrecovered read error");
    assert!(failed.into_buffer().is_some());
}
