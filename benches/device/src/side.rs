//! One way to transfer blocks, and how long it takes.

use std::time::Instant;

use anyhow::Result;

use crate::blocks::{Blocks, Target};

/// One way to transfer blocks.
pub(crate) trait Side {
    /// Transfers all of them. What is not part of that is done outside of the clock.
    fn run(&mut self, blocks: Blocks) -> Result<Sample>;
}

/// Sets up a side.
pub(crate) type Open = fn(&Target) -> Result<Box<dyn Side>>;

/// What transferring some blocks took, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) time: f64,
    /// The time of processors, of all threads of the process.
    pub(crate) processors: f64,
    /// What the first numbers of the blocks added up to.
    pub(crate) sum: u64,
}

/// Takes the time of a sample.
pub(crate) struct Clock {
    processors: f64,
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { processors: time_of_processors(), start: Instant::now() }
    }

    pub(crate) fn stop(self, sum: u64) -> Sample {
        let time = self.start.elapsed().as_secs_f64() * 1e9;
        Sample { time, processors: time_of_processors() - self.processors, sum }
    }
}

fn time_of_processors() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is live during the call. It can't fail: every process has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
