//! What a device did so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a device did since it was opened. Counted without a lock: numbers that belong together may be a moment apart.
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
    /// Calls of discard and write zeroes.
    pub clears: u64,
    /// Requests that are being carried out now.
    pub in_flight: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Transfers that were tried again: EINTR, EAGAIN, or given back by the kernel.
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

impl Counters {
    pub(super) fn read(&self, degraded: u64) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            reads: read(&self.reads),
            bytes_read: read(&self.bytes_read),
            writes: read(&self.writes),
            bytes_written: read(&self.bytes_written),
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
