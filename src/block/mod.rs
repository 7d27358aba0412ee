//! A block device over a file, an image or a disk.
//!
//! [`open`] gives a [`Device`]. It uses io_uring where that works and `pread`/`pwrite` where it does not, with the same
//! checks, the same errors and the same durability; [`BlockDevice::backend`] tells which of the two it is and
//! [`BlockDevice::fallback_reason`] why.
//!
//! ```
//! use sysuring::block::{self, BlockDevice, Options, ReadRequest};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("disk.img");
//! let device = block::open(&path, &Options::new().block_size(4096).create(1 << 20))?;
//! device.write_block(7, &[0x5a; 4096])?;
//! device.flush()?;
//!
//! let (mut a, mut b) = (vec![0; 4096], vec![0; 8192]);
//! device.read_blocks(&mut [ReadRequest::new(7, &mut a), ReadRequest::new(100, &mut b)])?;
//! assert!(a.iter().all(|byte| *byte == 0x5a));
//! if let Some(reason) = device.fallback_reason() {
//!     println!("no io_uring here: {reason}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Blocks, runs and batches
//!
//! Every length is a multiple of the block size and every address a block number, so that a torn or misplaced write
//! cannot be asked for. A *run* is consecutive blocks in one buffer. A *batch* is any number of runs anywhere on the
//! device: they are in flight together, [`BlockDevice::max_batch`] at a time, and complete in any order.
//!
//! # fork
//!
//! A device that was open before a `fork` goes on in the parent as if nothing had happened; the lock stays with the parent.
//! The child should leave it alone: it may use it as long as the parent had no other threads that did, and buffers that the
//! device lent are zeroes there.
//!
//! # What is durable when
//!
//! A write is in the device's hands when the call returns, and on stable storage once a later [`BlockDevice::flush`]
//! returned. O_DIRECT does not change that: disks have caches, and files have metadata.

mod buffer;
mod file;
mod options;
mod report;
mod request;
mod target;
#[cfg(uring)]
mod uring;

use std::fmt;
use std::path::Path;

pub use buffer::AlignedBuffer;
pub use file::FileBlockDevice;
pub use options::{Backend, Options};
pub use report::Report;
pub use request::{BatchError, ReadRequest, WriteRequest};
#[cfg(uring)]
pub use uring::UringBlockDevice;

use crate::Unavailable;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;

/// Numbered blocks of one size that can be read, written and flushed, from any thread.
///
/// # Errors
///
/// All methods: [`ErrorKind::InvalidInput`] when a buffer is no multiple of the block size, [`ErrorKind::OutOfRange`]
/// when a block lies past the end, [`ErrorKind::ReadOnly`] for a write to a device opened for reading, and what the
/// kernel reports, with operation, block and errno in the message. After an error the device works on.
pub trait BlockDevice: Send + Sync + fmt::Debug {
    /// Bytes in a block.
    fn block_size(&self) -> usize;

    /// Blocks on the device.
    fn block_count(&self) -> u64;

    /// What an address in memory should be a multiple of, in bytes, to be used without a copy.
    fn alignment(&self) -> usize;

    /// Requests of a batch that are in flight together at most, per thread: the queue depth. A batch may be longer.
    fn max_batch(&self) -> usize;

    /// The way that the blocks are reached: [`Backend::Uring`] or [`Backend::File`].
    fn backend(&self) -> Backend;

    /// Why this is not the io_uring backend; `None` when it is, or when [`Backend::File`] was asked for.
    fn fallback_reason(&self) -> Option<&Unavailable>;

    /// What was picked when the device was opened and since, and why.
    fn report(&self) -> Report;

    /// Reads the block numbered `block` into `buffer`, which is one block long.
    fn read_block(&self, block: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes `data`, which is one block long, to the block numbered `block`.
    fn write_block(&self, block: u64, data: &[u8]) -> Result<()>;

    /// Reads consecutive blocks from `first` on, as many as `buffer` holds.
    fn read_run(&self, first: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes consecutive blocks from `first` on, as many as `data` holds.
    fn write_run(&self, first: u64, data: &[u8]) -> Result<()>;

    /// Reads a batch of any length.
    ///
    /// # Errors
    ///
    /// The first failure, with the count of requests that succeeded before it in the list; each request has its own
    /// result too. All requests are tried.
    fn read_blocks(&self, requests: &mut [ReadRequest<'_>]) -> Result<(), BatchError>;

    /// Writes a batch of any length. Requests that overlap are written in no particular order.
    ///
    /// # Errors
    ///
    /// As for [`BlockDevice::read_blocks`].
    fn write_blocks(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError>;

    /// Returns when everything that was written before is on stable storage; nothing to do where the device was opened
    /// for reading.
    fn flush(&self) -> Result<()>;

    /// Zeroed memory, aligned so that no transfer to or from it needs a copy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] when there is no memory, [`ErrorKind::InvalidInput`] for a length of 0.
    fn aligned_buffer(&self, bytes: usize) -> Result<AlignedBuffer> {
        AlignedBuffer::new(bytes, self.alignment())
    }
}

/// An open block device, on whichever backend was picked.
#[derive(Debug)]
pub struct Device(Picked);

#[derive(Debug)]
enum Picked {
    File(FileBlockDevice),
    #[cfg(uring)]
    Uring(UringBlockDevice),
}

/// Opens `path`: a regular file, a block device, or a link to one.
///
/// With [`Backend::Auto`] a ring is made and something is read through it before io_uring is picked; what keeps it from
/// working is logged as a warning once and kept as [`BlockDevice::fallback_reason`].
///
/// # Errors
///
/// * [`ErrorKind::InvalidInput`]: a block size that is no power of two from 512 to 65536, a queue depth of 0 or over 4096,
///   a directory or another thing that has no blocks;
/// * [`ErrorKind::Misaligned`]: the block size is under the logical block size of the disk;
/// * [`ErrorKind::AlreadyExists`]: a size to create was given and the file has another;
/// * [`ErrorKind::Busy`]: another device, or the kernel, holds the target;
/// * [`ErrorKind::Unavailable`]: [`Backend::Uring`] was asked for and cannot be had;
/// * what the kernel says of opening the path.
pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Device> {
    let target = target::Target::open(path.as_ref(), options)?;
    match options.backend {
        Backend::File => Ok(Device(Picked::File(FileBlockDevice::new(target, None)))),
        Backend::Auto | Backend::Uring => open_uring(target, options),
    }
}

#[cfg(uring)]
fn open_uring(target: target::Target, options: &Options) -> Result<Device> {
    match UringBlockDevice::new(target, options) {
        Ok(device) => Ok(Device(Picked::Uring(device))),
        Err(refused) => {
            let (target, reason) = *refused;
            fall_back(target, options, reason)
        }
    }
}

#[cfg(not(uring))]
fn open_uring(target: target::Target, options: &Options) -> Result<Device> {
    fall_back(target, options, Unavailable::not_built())
}

fn fall_back(target: target::Target, options: &Options, reason: Unavailable) -> Result<Device> {
    if options.backend == Backend::Uring {
        return Err(reason.into_error());
    }
    log::warn!("{}: {reason}; using pread/pwrite", target.path.display());
    Ok(Device(Picked::File(FileBlockDevice::new(target, Some(reason)))))
}

impl Device {
    fn get(&self) -> &dyn BlockDevice {
        match &self.0 {
            Picked::File(device) => device,
            #[cfg(uring)]
            Picked::Uring(device) => device,
        }
    }

    /// Closes the device: what was in flight has ended, and the lock is released.
    ///
    /// Dropping the device does the same, but has nobody to tell that the flush failed.
    ///
    /// # Errors
    ///
    /// As for [`BlockDevice::flush`].
    pub fn close(self) -> Result<()> {
        self.flush()
    }
}

impl BlockDevice for Device {
    fn block_size(&self) -> usize {
        self.get().block_size()
    }

    fn block_count(&self) -> u64 {
        self.get().block_count()
    }

    fn alignment(&self) -> usize {
        self.get().alignment()
    }

    fn max_batch(&self) -> usize {
        self.get().max_batch()
    }

    fn backend(&self) -> Backend {
        self.get().backend()
    }

    fn fallback_reason(&self) -> Option<&Unavailable> {
        self.get().fallback_reason()
    }

    fn report(&self) -> Report {
        self.get().report()
    }

    fn read_block(&self, block: u64, buffer: &mut [u8]) -> Result<()> {
        self.get().read_block(block, buffer)
    }

    fn write_block(&self, block: u64, data: &[u8]) -> Result<()> {
        self.get().write_block(block, data)
    }

    fn read_run(&self, first: u64, buffer: &mut [u8]) -> Result<()> {
        self.get().read_run(first, buffer)
    }

    fn write_run(&self, first: u64, data: &[u8]) -> Result<()> {
        self.get().write_run(first, data)
    }

    fn read_blocks(&self, requests: &mut [ReadRequest<'_>]) -> Result<(), BatchError> {
        self.get().read_blocks(requests)
    }

    fn write_blocks(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError> {
        self.get().write_blocks(requests)
    }

    fn flush(&self) -> Result<()> {
        self.get().flush()
    }

    fn aligned_buffer(&self, bytes: usize) -> Result<AlignedBuffer> {
        self.get().aligned_buffer(bytes)
    }
}
