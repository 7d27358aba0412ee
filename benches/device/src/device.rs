//! The device, blocking and by a queue, as its users write it.

use anyhow::{Context, Result, ensure};
use sysuring::block::{self, AlignedBuffer, Backend, BlockDevice, Device, Options, Queue, ReadRequest};

use crate::blocks::{BLOCK, Blocks, Target, number};
use crate::side::{Clock, Sample, Side};

/// Opens the device; what was asked for and can't be had is an error.
pub(crate) fn open(target: &Target, backend: Backend) -> Result<Device> {
    let options = Options::new().backend(backend).direct(target.direct).exclusive(false);
    let device = block::open(&target.path, &options)?;
    let report = device.report();
    ensure!(report.degraded.is_empty(), "the device is not at its best here: {report}");
    Ok(device)
}

struct Queued {
    queue: Queue,
    buffers: Vec<AlignedBuffer>,
    is_write: bool,
}

impl Queued {
    fn open(target: &Target, depth: u32, is_write: bool) -> Result<Box<dyn Side>> {
        let queue = open(target, Backend::Uring)?.queue(depth, BLOCK)?;
        let buffers: Option<_> = (0..depth).map(|_| queue.buffer()).collect();
        Ok(Box::new(Self { queue, buffers: buffers.context("a queue has as many buffers as it is deep")?, is_write }))
    }

    #[inline]
    fn start(&mut self, block: u64, mut buffer: AlignedBuffer) -> Result<()> {
        if self.is_write {
            buffer[..8].copy_from_slice(&block.to_ne_bytes());
            self.queue.write(block, buffer, 0)?;
        } else {
            self.queue.read(block, buffer, 0)?;
        }
        Ok(())
    }
}

impl Side for Queued {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        let clock = Clock::start();
        let (mut next, mut left, mut sum) = (0, blocks.count, 0);
        while let (true, Some(buffer)) = (next < blocks.count, self.buffers.pop()) {
            self.start(blocks.at(next), buffer)?;
            next += 1;
        }
        while left > 0 {
            self.queue.submit_and_wait(1)?;
            while let Some(completed) = self.queue.poll() {
                completed.result?;
                let buffer = completed.buffer.context("a transfer gives its buffer back")?;
                sum += number(&buffer);
                left -= 1;
                if next < blocks.count {
                    self.start(blocks.at(next), buffer)?;
                    next += 1;
                } else {
                    self.buffers.push(buffer);
                }
            }
        }
        Ok(clock.stop(sum))
    }
}

/// Reads by a queue, 32 in flight.
pub(crate) fn queue_read(target: &Target) -> Result<Box<dyn Side>> {
    Queued::open(target, 32, false)
}

/// Writes by a queue, 32 in flight.
pub(crate) fn queue_write(target: &Target) -> Result<Box<dyn Side>> {
    Queued::open(target, 32, true)
}

/// Reads one block after the other.
struct Single {
    device: Device,
    buffer: AlignedBuffer,
    /// Where in the buffer the block is to go.
    at: usize,
}

impl Single {
    fn open(target: &Target, backend: Backend, at: usize) -> Result<Box<dyn Side>> {
        let device = open(target, backend)?;
        let buffer = device.aligned_buffer(BLOCK + at)?;
        Ok(Box::new(Self { device, buffer, at }))
    }
}

impl Side for Single {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        let buffer = &mut self.buffer[self.at..];
        let clock = Clock::start();
        let mut sum = 0;
        for index in 0..blocks.count {
            self.device.read_block(blocks.at(index), buffer)?;
            sum += number(buffer);
        }
        Ok(clock.stop(sum))
    }
}

/// `read_block`, into memory that the device gave.
pub(crate) fn read_block(target: &Target) -> Result<Box<dyn Side>> {
    Single::open(target, Backend::Uring, 0)
}

/// `read_block` into memory that is not aligned.
pub(crate) fn read_block_unaligned(target: &Target) -> Result<Box<dyn Side>> {
    Single::open(target, Backend::Uring, 8)
}

/// `read_block` of the file backend.
pub(crate) fn read_block_of_file(target: &Target) -> Result<Box<dyn Side>> {
    Single::open(target, Backend::File, 0)
}

/// Reads batches of 32 blocks.
struct Batch {
    device: Device,
    buffers: Vec<AlignedBuffer>,
}

impl Side for Batch {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        let clock = Clock::start();
        let (mut next, mut sum) = (0, 0);
        while next < blocks.count {
            let length = (blocks.count - next).min(32) as usize;
            let buffers = self.buffers[..length].iter_mut();
            let mut requests: Vec<_> =
                buffers.zip(next..).map(|(buffer, index)| ReadRequest::new(blocks.at(index), buffer)).collect();
            self.device.read_blocks(&mut requests)?;
            sum += self.buffers[..length].iter().map(|buffer| number(buffer)).sum::<u64>();
            next += length as u64;
        }
        Ok(clock.stop(sum))
    }
}

fn batches(target: &Target, backend: Backend) -> Result<Box<dyn Side>> {
    let device = open(target, backend)?;
    let buffers: Result<_, _> = (0..32).map(|_| device.aligned_buffer(BLOCK)).collect();
    Ok(Box::new(Batch { device, buffers: buffers? }))
}

/// `read_blocks`, 32 at once.
pub(crate) fn read_blocks(target: &Target) -> Result<Box<dyn Side>> {
    batches(target, Backend::Uring)
}

/// `read_blocks` of the file backend, 32 at once.
pub(crate) fn read_blocks_of_file(target: &Target) -> Result<Box<dyn Side>> {
    batches(target, Backend::File)
}
