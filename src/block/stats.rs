//! What a device did so far.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::block::command::Action;

/// What a device did since it was opened. Counted without a lock: numbers that belong together may be a moment apart.
///
/// What is refused before it begins, since it is out of range, no multiple of the block size, or a write to a device that was opened
/// for reading, is counted nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Runs read, each request of a batch for itself; those that failed are among them.
    pub reads: u64,
    /// Bytes that reads asked for.
    pub bytes_read: u64,
    /// Runs written.
    pub writes: u64,
    /// Bytes that writes asked for.
    pub bytes_written: u64,
    /// Flushes, those of barriers among them.
    pub flushes: u64,
    /// Calls of discard and write zeroes, those that failed among them.
    pub clears: u64,
    /// Requests of batches, queues and futures that are being carried out now, flushes of queues and futures among them. Calls for
    /// a single run (`read_run`, `write_block` …) are not counted here, nor is a call of `flush`.
    pub in_flight: u64,
    /// Reads, writes and flushes that failed. A future that was given up at its deadline has not: its transfer may have ended well.
    pub failures: u64,
    /// Transfers that were tried again: EINTR, EAGAIN, EBUSY, or given back by the kernel.
    pub retries: u64,
    /// Transfers that the kernel carried out in part; the rest was asked for again.
    pub short_transfers: u64,
    /// Transfers that were copied, since the caller's memory was not aligned.
    pub bounces: u64,
    /// Steps down that were taken; [`Report::degraded`](crate::block::Report::degraded) says which.
    pub degraded: u64,
}

/// [`Stats`] that are still being counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Reads and writes of one block: most are, and these are counted once instead of twice.
    one_block_reads: AtomicU64,
    one_block_writes: AtomicU64,
    /// The others.
    pub(super) reads: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) clears: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) short_transfers: AtomicU64,
    pub(super) bounces: AtomicU64,
}

/// Adds to a counter.
#[inline]
pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// What one queue did since it last told its device: so that not every transfer touches what all threads share.
#[derive(Debug, Default)]
pub(super) struct Tally {
    reads: u64,
    bytes_read: u64,
    writes: u64,
    bytes_written: u64,
    flushes: u64,
    failures: u64,
    /// How many requests the device was told to be in flight.
    told: u64,
}

impl Tally {
    #[inline(always)]
    pub(super) fn start(&mut self, action: Action, bytes: usize) {
        let (runs, run_bytes) = match action {
            Action::Read => (&mut self.reads, &mut self.bytes_read),
            Action::Write | Action::WriteFua => (&mut self.writes, &mut self.bytes_written),
            Action::Flush => {
                self.flushes += 1;
                return;
            }
        };
        *runs += 1;
        *run_bytes += bytes as u64;
    }

    pub(super) fn fail(&mut self) {
        self.failures += 1;
    }

    /// Tells the device, and how many requests are in flight now.
    pub(super) fn tell(&mut self, counters: &Counters, in_flight: u64) {
        let Self { reads, bytes_read, writes, bytes_written, flushes, failures, told } =
            mem::replace(self, Self { told: in_flight, ..Self::default() });
        let told = [
            (&counters.reads, reads),
            (&counters.bytes_read, bytes_read),
            (&counters.writes, writes),
            (&counters.bytes_written, bytes_written),
            (&counters.flushes, flushes),
            (&counters.failures, failures),
            // It may be fewer than before.
            (&counters.in_flight, in_flight.wrapping_sub(told)),
        ];
        told.into_iter().filter(|(_, more)| *more != 0).for_each(|(counter, more)| count(counter, more));
    }
}

impl Counters {
    /// Counts what a call or a future starts.
    #[inline]
    pub(super) fn start(&self, action: Action, bytes: usize, block_size: u32) {
        let is_one_block = bytes == block_size as usize;
        match action {
            Action::Read if is_one_block => count(&self.one_block_reads, 1),
            Action::Read => {
                count(&self.reads, 1);
                count(&self.bytes_read, bytes as u64);
            }
            Action::Write | Action::WriteFua if is_one_block => count(&self.one_block_writes, 1),
            Action::Write | Action::WriteFua => {
                count(&self.writes, 1);
                count(&self.bytes_written, bytes as u64);
            }
            Action::Flush => count(&self.flushes, 1),
        }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) != 0
    }

    pub(super) fn read(&self, block_size: u32, degraded: u64) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (one_block_reads, one_block_writes) = (read(&self.one_block_reads), read(&self.one_block_writes));
        Stats {
            reads: read(&self.reads) + one_block_reads,
            bytes_read: read(&self.bytes_read) + one_block_reads * u64::from(block_size),
            writes: read(&self.writes) + one_block_writes,
            bytes_written: read(&self.bytes_written) + one_block_writes * u64::from(block_size),
            flushes: read(&self.flushes),
            clears: read(&self.clears),
            in_flight: read(&self.in_flight),
            failures: read(&self.failures),
            retries: read(&self.retries),
            short_transfers: read(&self.short_transfers),
            bounces: read(&self.bounces),
            degraded,
        }
    }
}
