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
//! # Three speeds
//!
//! | | who waits | memory |
//! |---|---|---|
//! | [`BlockDevice`]'s methods | the thread that calls | the caller's own; copied only where it is not aligned |
//! | [`Device::queue`] | nobody, until the thread asks for what has ended | goes in and comes back ([`AlignedBuffer`]) |
//! | [`Device::read_async`] … | the task; any executor | goes in and comes back |
//!
//! They check the same things, have the same errors, and may be used at once. A queue is for one thread and costs least; it has
//! a descriptor for event loops. Futures may be dropped at any time, may have a deadline, and go to other threads as their
//! tasks do; a runtime of one thread can have a `Reactor`, which makes them cheaper.
//!
//! # What a target can do
//!
//! [`BlockDevice::capabilities`] tells beforehand what would be [`ErrorKind::Unsupported`]; [`BlockDevice::geometry`] has the
//! units of the target. What was asked for and can't be had is done without where that is possible: each such step is a
//! [`Fallback`], which [`BlockDevice::report`] tells and [`Options::forbid`] forbids.
//!
//! # fork
//!
//! A device that was open before a `fork` goes on in the parent as if nothing had happened; the lock stays with the parent.
//! The child should leave it alone: it may use it as long as the parent had no other threads that did, and buffers that the
//! device lent are zeroes there. Calls that block, new queues and new futures work then; the parent's queues, futures and
//! reactors are errors.
//!
//! # What is durable when
//!
//! A write is in the device's hands when the call returns, and on stable storage once a later [`BlockDevice::flush`]
//! returned. O_DIRECT does not change that: disks have caches, and files have metadata. [`BlockDevice::write_run_fua`] and
//! [`BlockDevice::write_blocks_fua`] return when what they wrote is on stable storage; [`BlockDevice::write_barrier`] when
//! that and everything before is.

mod buffer;
mod command;
#[cfg(all(test, unix))]
pub(crate) mod faults;
mod file;
mod foreign;
mod futures;
mod geometry;
mod latency;
#[cfg(nvme)]
pub mod nvme;
mod options;
mod platform;
mod process;
mod queue;
mod report;
mod request;
mod stats;
mod target;
#[cfg(uring)]
mod uring;
#[cfg(uring)]
mod wire;
mod workers;

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use buffer::AlignedBuffer;
pub use command::TransferError;
#[cfg(uring)]
pub use futures::Reactor;
pub use futures::{FlushFuture, TransferFuture};
pub use geometry::{AlignmentFrom, Capabilities, Geometry};
pub use latency::{Histogram, Latency};
pub use options::{Backend, Options};
pub use queue::{Completed, Queue};
pub use report::{Degraded, Fallback, Report};
pub use request::{BatchError, ReadRequest, WriteRequest};
pub use stats::Stats;

use crate::Unavailable;
use crate::block::command::Action;
#[cfg(uring)]
use crate::block::command::Command;
use crate::error::{Error, ErrorKind, Result};
use file::Blocking;
use futures::jobs::Jobs;
use request::{Request, answer};
use stats::count;
use target::Target;

/// How long a thread may take, at most, to let go of a device after it has counted the end of the last command.
const LAST_MOMENT: Duration = Duration::from_secs(1);

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

    /// The units of the target.
    fn geometry(&self) -> Geometry;

    /// What the target can do.
    fn capabilities(&self) -> Capabilities;

    /// What was done since the device was opened.
    fn stats(&self) -> Stats;

    /// Reads the block numbered `block` into `buffer`, which is one block long.
    fn read_block(&self, block: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes `data`, which is one block long, to the block numbered `block`.
    fn write_block(&self, block: u64, data: &[u8]) -> Result<()>;

    /// Reads consecutive blocks from `first` on, as many as `buffer` holds.
    fn read_run(&self, first: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes consecutive blocks from `first` on, as many as `data` holds.
    fn write_run(&self, first: u64, data: &[u8]) -> Result<()>;

    /// Reads consecutive blocks from `first` on into several buffers, one after the other: `readv` for blocks.
    ///
    /// # Errors
    ///
    /// Each buffer holds whole blocks; those with none are left out.
    fn read_vectored(&self, first: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<()>;

    /// Writes consecutive blocks from `first` on out of several buffers, one after the other: `writev` for blocks.
    ///
    /// # Errors
    ///
    /// Each buffer holds whole blocks; those with none are left out.
    fn write_vectored(&self, first: u64, buffers: &[IoSlice<'_>]) -> Result<()>;

    /// Writes consecutive blocks, which are on stable storage when it returns (Force Unit Access). Says nothing of writes
    /// before it.
    fn write_run_fua(&self, first: u64, data: &[u8]) -> Result<()>;

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

    /// Writes a batch as [`BlockDevice::write_blocks`], and is on stable storage when it returns.
    ///
    /// # Errors
    ///
    /// As for [`BlockDevice::read_blocks`].
    fn write_blocks_fua(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError>;

    /// Writes a batch, then flushes: what is written after it returned can reach stable storage only after everything that
    /// was written before. Where a write fails nothing is flushed.
    ///
    /// A batch of one, such as the record that commits what was written before, is handed over together with its flush: the
    /// kernel begins that when the write has ended.
    ///
    /// # Errors
    ///
    /// As for [`BlockDevice::read_blocks`]; where the flush fails every request has its error, and none is counted.
    fn write_barrier(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError>;

    /// Gives up the storage of `blocks` blocks from `first` on. What they read as afterwards is not said: zeroes from a file,
    /// anything from a disk.
    ///
    /// A disk is told through the ring where the kernel has a command for that (since Linux 6.12), else by `fallocate` and then
    /// by `ioctl`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] unless [`Capabilities::discard`].
    fn discard(&self, first: u64, blocks: u64) -> Result<()>;

    /// Makes `blocks` blocks from `first` on read as zeroes: by the file system or the disk where they can, by writing zeroes
    /// where not.
    fn write_zeroes(&self, first: u64, blocks: u64) -> Result<()>;

    /// Makes the file `blocks` blocks long. New ones are zeroes; the new size is on stable storage when it returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] unless [`Capabilities::resize`].
    fn resize(&self, blocks: u64) -> Result<()>;

    /// Asks the target for its size, which others may have changed; gives the number of blocks.
    fn rescan(&self) -> Result<u64>;

    /// Returns when everything that was written before is on stable storage; nothing to do where the device was opened
    /// for reading.
    fn flush(&self) -> Result<()>;

    /// Zeroed memory, aligned so that no transfer to or from it needs a copy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] when there is no memory, [`ErrorKind::InvalidInput`] for a length of 0.
    fn aligned_buffer(&self, bytes: usize) -> Result<AlignedBuffer> {
        AlignedBuffer::for_transfers(bytes, self.alignment())
    }
}

/// An open block device, on whichever backend was picked. What is checked and counted is so once, for both.
#[derive(Debug)]
pub struct Device(Arc<Picked>);

/// What is picked once, and shared with queues and futures.
#[derive(Debug)]
enum Picked {
    File(Blocking, Option<Unavailable>),
    #[cfg(uring)]
    Uring(uring::Uring),
    #[cfg(nvme)]
    Nvme(uring::Uring<nvme::Passthrough>),
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
/// * [`ErrorKind::Degraded`]: something else cannot be had, and [`Options::forbid`] forbids to do without;
/// * what the kernel says of opening the path.
pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Device> {
    let target = Target::open(path.as_ref(), options)?;
    let device = match options.backend {
        Backend::File => Device(Arc::new(Picked::File(Blocking::new(target), None))),
        Backend::Auto | Backend::Uring => open_uring(target, options)?,
    };
    let target = device.target();
    let cache = if target.direct { "O_DIRECT" } else { "page cache" };
    log::info!("{}: opened ({}, {cache}); {}", target.path.display(), device.backend(), target.geometry());
    Ok(device)
}

#[cfg(uring)]
fn open_uring(target: Target, options: &Options) -> Result<Device> {
    open_on_ring(target, options, Picked::Uring)
}

/// Makes a device whose transfers go through a ring, as `picked` has them.
#[cfg(uring)]
fn open_on_ring<W: wire::Wire>(
    target: Target,
    options: &Options,
    picked: impl FnOnce(uring::Uring<W>) -> Picked,
) -> Result<Device> {
    match uring::Uring::new(target, options) {
        Ok(device) => Ok(Device(Arc::new(picked(device)))),
        Err(refused) => match *refused {
            (target, uring::Refusal::Unavailable(reason)) => fall_back(target, options, reason),
            (_, uring::Refusal::Forbidden(error)) => Err(error),
        },
    }
}

#[cfg(not(uring))]
fn open_uring(target: Target, options: &Options) -> Result<Device> {
    fall_back(target, options, Unavailable::not_built())
}

fn fall_back(target: Target, options: &Options, reason: Unavailable) -> Result<Device> {
    if options.backend == Backend::Uring {
        return Err(reason.into_error());
    }
    target.steps.take(&target.path, Fallback::Pread, &reason.to_string())?;
    Ok(Device(Arc::new(Picked::File(Blocking::new(target), Some(reason)))))
}

/// How long what is written may stay in a cache of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Until the next flush.
    Cached,
    /// Not at all (RWF_DSYNC).
    Fua,
}

impl Picked {
    fn blocking(&self) -> &Blocking {
        match self {
            Self::File(blocking, _) => blocking,
            #[cfg(uring)]
            Self::Uring(uring) => &uring.blocking,
            #[cfg(nvme)]
            Self::Nvme(uring) => &uring.blocking,
        }
    }

    fn target(&self) -> &Target {
        &self.blocking().target
    }

    /// Carries out a command that the ring can't, for the reason `why`.
    #[cfg(uring)]
    #[cold]
    fn carry_out(&self, mut command: Command, why: &str) -> (Command, Result<()>) {
        let steps = &self.target().steps;
        let result = steps.take(&self.target().path, Fallback::PreadAtTimes, &format!("for one transfer, since {why}"));
        let result = result.and_then(|()| command.carry_out(self.blocking()));
        (command, result)
    }
}

/// Requests of a call that are being carried out; none of them is when it unwinds, as where a logger panics.
struct InFlight<'a> {
    counter: &'a AtomicU64,
    number: u64,
}

impl<'a> InFlight<'a> {
    fn new(counter: &'a AtomicU64, number: u64) -> Self {
        count(counter, number);
        Self { counter, number }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        count(self.counter, self.number.wrapping_neg());
    }
}

impl Device {
    fn target(&self) -> &Target {
        self.0.target()
    }

    /// Checks all requests, carries out those that make sense, and counts.
    fn run<R: Request + Send>(&self, requests: &mut [R], durability: Durability) {
        let target = self.target();
        let (mut bytes, mut refused) = (0, 0);
        for request in &mut *requests {
            let (block, length) = (request.first_block(), request.len());
            let writable = if R::IS_READ { Ok(()) } else { target.check_writable(R::NAME, block) };
            match writable.and_then(|()| target.check(R::NAME, block, length)) {
                Ok(_) => {
                    request.clear();
                    bytes += length as u64;
                }
                Err(error) => {
                    request.set_result(Err(error));
                    refused += 1;
                }
            }
        }
        let counters = &target.counters;
        let (runs, run_bytes) = match R::IS_READ {
            true => (&counters.reads, &counters.bytes_read),
            false => (&counters.writes, &counters.bytes_written),
        };
        let number = (requests.len() - refused) as u64;
        count(runs, number);
        count(run_bytes, bytes);
        let in_flight = InFlight::new(&counters.in_flight, number);
        let since = target.begin();
        match &*self.0 {
            Picked::File(blocking, _) => blocking.run(requests, durability == Durability::Fua),
            #[cfg(uring)]
            Picked::Uring(uring) => uring.run(requests, durability),
            #[cfg(nvme)]
            Picked::Nvme(uring) => uring.run(requests, durability),
        }
        target.end(if R::IS_READ { Action::Read } else { Action::Write }, since);
        drop(in_flight);
        let failed = requests.iter().filter(|request| matches!(request.result(), Some(Err(_)))).count() - refused;
        if failed != 0 {
            count(&counters.failures, failed as u64);
        }
    }

    /// Checks one request, carries it out, and counts: as [`Device::run`], with nothing that is for batches only.
    #[inline]
    fn one<R: Request + Send>(&self, request: R, durability: Durability) -> Result<()> {
        let target = self.target();
        let (block, length) = (request.first_block(), request.len());
        let action = if R::IS_READ { Action::Read } else { Action::Write };
        if !R::IS_READ {
            target.check_writable(R::NAME, block)?;
        }
        let offset = target.check(R::NAME, block, length)?;
        let since = target.begin();
        target.counters.start(action, length, target.block_size);
        let result = match &*self.0 {
            Picked::File(blocking, _) => blocking.one(&request, offset, durability == Durability::Fua),
            #[cfg(uring)]
            Picked::Uring(uring) => uring.one(request, offset, durability),
            #[cfg(nvme)]
            Picked::Nvme(uring) => uring.one(request, offset, durability),
        };
        target.end(action, since);
        if result.is_err() {
            count(&target.counters.failures, 1);
        }
        result
    }

    /// As [`Device::one`], for a write and the flush behind it.
    #[cfg(uring)]
    fn one_barrier(&self, uring: &uring::Uring, request: &WriteRequest<'_>) -> Result<()> {
        let target = self.target();
        let (block, length) = (request.first_block(), request.len());
        target.check_writable("write", block)?;
        let offset = target.check("write", block, length)?;
        let since = target.begin();
        target.counters.start(Action::Write, length, target.block_size);
        let result = uring.barrier(request.again(), offset);
        target.end(Action::Flush, since);
        if result.is_err() {
            count(&target.counters.failures, 1);
        }
        result
    }

    /// Carries out requests on consecutive blocks, as one.
    fn all<R: Request + Send>(&self, first: u64, mut requests: Vec<R>) -> Result<()> {
        if requests.is_empty() {
            // There is nothing to read or write, which is told like everywhere.
            self.target().check(R::NAME, first, 0)?;
        }
        // All or nothing is tried.
        for request in &requests {
            self.target().check(R::NAME, request.first_block(), request.len())?;
        }
        self.run(&mut requests, Durability::Cached);
        Ok(answer(&requests)?)
    }

    /// Where each buffer of a vectored call begins: the first block, and the number of blocks before it.
    fn place_of(&self, first: u64, bytes_before: usize) -> u64 {
        first.saturating_add((bytes_before / self.block_size()) as u64)
    }

    /// How long things took since the device was opened; `None` unless it was opened with [`Options::measure_latency`].
    ///
    /// Blocking calls count once, whatever they transfer; requests of a [`Queue`] and futures each, from when they were
    /// started, or first polled, until they were seen to have ended.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use sysuring::block::{self, BlockDevice, Options};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("disk.img");
    /// let device = block::open(&path, &Options::new().create(1 << 20).measure_latency(true))?;
    /// device.write_block(0, &[1; 4096])?;
    /// device.flush()?;
    /// let latency = device.latency().expect("asked for");
    /// println!("writes: {}; 99.9 % of flushes within {:?}", latency.writes, latency.flushes.percentile(99.9));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        self.target().clock.as_ref().map(|clock| clock.read())
    }

    /// Closes the device: waits for what queues and futures that were dropped left in flight, flushes, and releases the lock.
    ///
    /// Dropping the device waits for nothing and flushes nothing: it stays open, and locked, until all of that has ended, and
    /// [`open`] says [`ErrorKind::Busy`] meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`BlockDevice::flush`]; [`ErrorKind::Busy`] where a [`Queue`] or a future of the device is alive, or a `Reactor` of
    /// this thread has something of it in flight. Then everything before is flushed, and the device is closed when the last of
    /// them is gone.
    pub fn close(self) -> Result<()> {
        let is_alone = self.wait_for_dropped();
        self.flush()?;
        if is_alone {
            return Ok(());
        }
        let name = self.target().path.display();
        let message = format!(
            "{name} stays open and locked: queues or futures of the device are alive, or in flight on this thread's reactor; \
             drop them, and turn the reactor, before it is closed"
        );
        Err(Error::new(ErrorKind::Busy, message))
    }

    /// Waits for what queues and futures left in flight that were dropped. False where some are alive.
    fn wait_for_dropped(&self) -> bool {
        let blocking = self.0.blocking();
        let mut idle_since = None;
        // In the child of a fork nothing ends that the parent has in flight.
        while Arc::strong_count(&self.0) != 1 && !blocking.workers.are_elsewhere() {
            if blocking.queues.load(Ordering::Relaxed) != 0 {
                return false;
            }
            let is_in_flight = blocking.target.counters.is_in_flight() || !blocking.workers.are_idle();
            // What is on a reactor ends when this thread turns it, and not before.
            if is_in_flight && !Jobs::has_reactor() {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() > LAST_MOMENT {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        true
    }
}

impl BlockDevice for Device {
    fn block_size(&self) -> usize {
        self.target().block_size as usize
    }

    fn block_count(&self) -> u64 {
        self.target().block_count()
    }

    fn alignment(&self) -> usize {
        self.target().alignment
    }

    fn max_batch(&self) -> usize {
        self.target().queue_depth as usize
    }

    fn backend(&self) -> Backend {
        match &*self.0 {
            Picked::File(..) => Backend::File,
            #[cfg(uring)]
            Picked::Uring(_) => Backend::Uring,
            #[cfg(nvme)]
            Picked::Nvme(_) => Backend::Uring,
        }
    }

    fn fallback_reason(&self) -> Option<&Unavailable> {
        match &*self.0 {
            Picked::File(_, reason) => reason.as_ref(),
            #[cfg(uring)]
            Picked::Uring(_) => None,
            #[cfg(nvme)]
            Picked::Nvme(_) => None,
        }
    }

    fn report(&self) -> Report {
        let target = self.target();
        let (polled, kernel_thread, registered_buffers) = match &*self.0 {
            Picked::File(..) => (false, false, false),
            #[cfg(uring)]
            Picked::Uring(uring) => uring.picked(),
            #[cfg(nvme)]
            Picked::Nvme(uring) => uring.picked(),
        };
        Report {
            backend: self.backend(),
            fallback_reason: self.fallback_reason().cloned(),
            direct: target.direct,
            polled,
            kernel_thread,
            registered_buffers,
            geometry: target.geometry(),
            capabilities: target.capabilities,
            degraded: target.steps.taken(),
        }
    }

    fn geometry(&self) -> Geometry {
        self.target().geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.target().capabilities
    }

    fn stats(&self) -> Stats {
        let target = self.target();
        target.counters.read(target.block_size, target.steps.taken().len() as u64)
    }

    fn read_block(&self, block: u64, buffer: &mut [u8]) -> Result<()> {
        self.target().check_one("read", block, buffer.len())?;
        self.read_run(block, buffer)
    }

    fn write_block(&self, block: u64, data: &[u8]) -> Result<()> {
        self.target().check_one("write", block, data.len())?;
        self.write_run(block, data)
    }

    fn read_run(&self, first: u64, buffer: &mut [u8]) -> Result<()> {
        self.one(ReadRequest::new(first, buffer), Durability::Cached)
    }

    fn write_run(&self, first: u64, data: &[u8]) -> Result<()> {
        self.one(WriteRequest::new(first, data), Durability::Cached)
    }

    fn read_vectored(&self, first: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<()> {
        let mut before = 0;
        let buffers = buffers.iter_mut().filter(|buffer| !buffer.is_empty());
        let requests = buffers.map(|buffer| {
            let block = self.place_of(first, before);
            before += buffer.len();
            ReadRequest::new(block, buffer)
        });
        self.all(first, requests.collect())
    }

    fn write_vectored(&self, first: u64, buffers: &[IoSlice<'_>]) -> Result<()> {
        let mut before = 0;
        let buffers = buffers.iter().filter(|buffer| !buffer.is_empty());
        let requests = buffers.map(|buffer| {
            let block = self.place_of(first, before);
            before += buffer.len();
            WriteRequest::new(block, buffer)
        });
        self.all(first, requests.collect())
    }

    fn write_run_fua(&self, first: u64, data: &[u8]) -> Result<()> {
        self.one(WriteRequest::new(first, data), Durability::Fua)
    }

    fn read_blocks(&self, requests: &mut [ReadRequest<'_>]) -> Result<(), BatchError> {
        self.run(requests, Durability::Cached);
        answer(requests)
    }

    fn write_blocks(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError> {
        self.run(requests, Durability::Cached);
        answer(requests)
    }

    fn write_blocks_fua(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError> {
        self.run(requests, Durability::Fua);
        answer(requests)
    }

    fn write_barrier(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError> {
        #[cfg(uring)]
        if let (Picked::Uring(uring), [request]) = (&*self.0, &mut *requests) {
            let result = self.one_barrier(uring, request);
            request.set_result(result);
            return answer(requests);
        }
        self.run(requests, Durability::Cached);
        answer(requests)?;
        if let Err(error) = self.flush() {
            requests.iter_mut().for_each(|request| request.set_result(Err(error.clone())));
            return Err(BatchError::none(error));
        }
        Ok(())
    }

    fn discard(&self, first: u64, blocks: u64) -> Result<()> {
        match &*self.0 {
            Picked::File(blocking, ..) => blocking.target.discard(first, blocks, |_, _| false),
            #[cfg(uring)]
            Picked::Uring(uring) => {
                uring.blocking.target.discard(first, blocks, |offset, length| uring.discard(offset, length))
            }
            #[cfg(nvme)]
            Picked::Nvme(uring) => uring.blocking.target.discard(first, blocks, |_, _| false),
        }
    }

    fn write_zeroes(&self, first: u64, blocks: u64) -> Result<()> {
        self.target().write_zeroes(first, blocks)
    }

    fn resize(&self, blocks: u64) -> Result<()> {
        self.target().resize(blocks)
    }

    fn rescan(&self) -> Result<u64> {
        self.target().rescan()
    }

    fn flush(&self) -> Result<()> {
        self.target().flush()
    }

    fn aligned_buffer(&self, bytes: usize) -> Result<AlignedBuffer> {
        match &*self.0 {
            Picked::File(..) => AlignedBuffer::for_transfers(bytes, self.alignment()),
            #[cfg(uring)]
            Picked::Uring(uring) => uring.aligned_buffer(bytes),
            #[cfg(nvme)]
            Picked::Nvme(uring) => uring.aligned_buffer(bytes),
        }
    }
}
