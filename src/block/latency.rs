//! How long things take, as a histogram.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::block::command::Action;

/// Buckets for each power of two of nanoseconds.
const PARTS: u64 = 4;
/// Powers of two that differ: over half an hour.
const POWERS: u64 = 41;
const BUCKETS: usize = (POWERS * PARTS) as usize;

/// How long the reads, writes and flushes of a device took; see [`Options::measure_latency`].
///
/// [`Options::measure_latency`]: crate::block::Options::measure_latency
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Latency {
    /// Of reads.
    pub reads: Histogram,
    /// Of writes, durable ones too.
    pub writes: Histogram,
    /// Of flushes.
    pub flushes: Histogram,
}

/// How often something took how long, within a quarter.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
}

/// The bucket of a time.
fn bucket_of(nanoseconds: u64) -> usize {
    let nanoseconds = nanoseconds.max(PARTS);
    let power = u64::from(nanoseconds.ilog2());
    let part = (nanoseconds >> (power - 2)) - PARTS;
    ((power * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The longest time in a bucket.
fn end_of(bucket: usize) -> u64 {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    ((PARTS + part + 1) << power >> 2).saturating_sub(1)
}

impl Histogram {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What at least `percent` of them took at most: 50 is the median, 99.9 what one in a thousand exceeds. Zero where there
    /// were none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = (self.count() as f64 * (percent / 100.0).clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|number| {
            seen += number;
            *number > 0 && seen >= wanted
        });
        bucket.map_or(Duration::ZERO, |bucket| Duration::from_nanos(end_of(bucket)))
    }

    /// The times that there were, shortest first: the longest of each group, and how many are in it.
    pub fn groups(&self) -> impl Iterator<Item = (Duration, u64)> {
        let filled = self.buckets.iter().enumerate().filter(|(_, number)| **number > 0);
        filled.map(|(bucket, number)| (Duration::from_nanos(end_of(bucket)), *number))
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, most, slowest] = [50.0, 99.0, 100.0].map(|percent| self.percentile(percent));
        write!(f, "{} in all, half within {median:?}, 99 % within {most:?}, all within {slowest:?}", self.count())
    }
}

/// A [`Latency`] that is still being measured.
pub(super) struct Clock {
    start: Instant,
    times: [[AtomicU64; BUCKETS]; 3],
}

impl Clock {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { start: Instant::now(), times: [const { [const { AtomicU64::new(0) }; BUCKETS] }; 3] })
    }

    /// The time, as [`Clock::record`] takes it; never 0.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Counts something that began at `since`.
    pub(super) fn record(&self, action: Action, since: u64) {
        let times = match action {
            Action::Read => &self.times[0],
            Action::Write | Action::WriteFua => &self.times[1],
            Action::Flush => &self.times[2],
        };
        times[bucket_of(self.now().saturating_sub(since))].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Latency {
        let [reads, writes, flushes] = self.times.each_ref().map(|times| Histogram {
            buckets: Box::new(times.each_ref().map(|number| number.load(Ordering::Relaxed))),
        });
        Latency { reads, writes, flushes }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_a_bucket_that_ends_within_a_quarter() {
        for nanoseconds in (0..5000).chain([1 << 20, (1 << 20) + 1, 123_456_789, (1 << 40) + 5]) {
            let bucket = bucket_of(nanoseconds);
            assert!(end_of(bucket) >= nanoseconds, "{nanoseconds}");
            assert!(end_of(bucket) <= nanoseconds.max(PARTS) + nanoseconds / 4, "{nanoseconds}");
            assert!(bucket == bucket_of(0) || end_of(bucket - 1) < nanoseconds, "{nanoseconds}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let clock = Clock::new();
        assert_eq!(clock.read().reads.percentile(50.0), Duration::ZERO);
        for microseconds in 1..=100_u64 {
            clock.times[0][bucket_of(microseconds * 1000)].fetch_add(1, Ordering::Relaxed);
        }
        let reads = clock.read().reads;
        assert_eq!((reads.count(), reads.groups().map(|(_, number)| number).sum()), (100, 100_u64));
        for percent in [1, 50, 99, 100] {
            let told = reads.percentile(f64::from(percent)).as_nanos() as f64 / 1000.0;
            assert!(told >= f64::from(percent) * 0.999 && told <= f64::from(percent) * 1.25, "{percent} %: {told} us");
        }
        clock.record(Action::Flush, clock.now());
        assert_eq!((clock.read().flushes.count(), clock.read().writes.count()), (1, 0));
    }
}
