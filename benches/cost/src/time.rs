//! Measures time with both sides in one process, in turn.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sysuring_pairs::Comparison;

use crate::workloads::{Work, Workload};

/// Pairs of samples. Each is short, so that most of them see no other process.
const PAIRS: usize = 301;
/// Pairs before those that count.
const WARM_UP: usize = 20;
const OPERATIONS_A_SAMPLE: u32 = 4096;

/// Ticks of whatever counts time finely at the lowest cost.
#[cfg(target_arch = "x86_64")]
#[inline]
fn ticks() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};

    // SAFETY: every x86-64 has these instructions. The fences keep what is measured between two readings.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn ticks() -> u64 {
    use std::sync::OnceLock;

    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// What reading the clock takes by itself.
fn ticks_of_clock() -> u64 {
    let apart = |_| {
        let start = ticks();
        ticks() - start
    };
    (0..1000).map(apart).min().unwrap_or(0)
}

/// One side's time for some rounds, in ticks.
struct Sample {
    fill_and_reap: u64,
    round: u64,
}

fn sample(work: &mut dyn Work, rounds: u32, of_clock: u64) -> Result<Sample> {
    let mut sample = Sample { fill_and_reap: 0, round: 0 };
    for _ in 0..rounds {
        let start = ticks();
        work.fill()?;
        let filled = ticks();
        work.submit()?;
        let submitted = ticks();
        work.reap()?;
        let reaped = ticks();
        sample.fill_and_reap += (filled - start + reaped - submitted).saturating_sub(2 * of_clock);
        sample.round += (reaped - start).saturating_sub(3 * of_clock);
    }
    Ok(sample)
}

/// The time of filling and reaping alone, and of a whole round, which has the kernel's part as well; in nanoseconds for each
/// operation, Rust to C.
pub(crate) struct Times {
    pub(crate) fill_and_reap: Comparison,
    pub(crate) round: Comparison,
}

pub(crate) fn compare(workload: &Workload) -> Result<Times> {
    let mut c = (workload.c)(workload.depth)?;
    let mut rust = (workload.rust)(workload.depth)?;
    let rounds = OPERATIONS_A_SAMPLE / workload.depth;
    let of_clock = ticks_of_clock();
    let mut pairs = Vec::with_capacity(PAIRS);
    let (start, start_ticks) = (Instant::now(), ticks());
    for pair in 0..WARM_UP + PAIRS {
        // Neither is always the one that comes first.
        let (of_c, of_rust) = if pair % 2 == 0 {
            let of_c = sample(&mut *c, rounds, of_clock)?;
            (of_c, sample(&mut *rust, rounds, of_clock)?)
        } else {
            let of_rust = sample(&mut *rust, rounds, of_clock)?;
            (sample(&mut *c, rounds, of_clock)?, of_rust)
        };
        if pair >= WARM_UP {
            pairs.push((of_c, of_rust));
        }
    }
    let nanoseconds_a_tick = nanoseconds(start.elapsed()) / (ticks() - start_ticks) as f64;
    ensure!(c.total() == rust.total(), "{}: C and Rust did not do the same", workload.name);

    let a_operation = nanoseconds_a_tick / f64::from(rounds * workload.depth);
    let comparison = |part: fn(&Sample) -> u64| {
        let nanoseconds = |sample| a_operation * part(sample) as f64;
        let times: Vec<_> = pairs.iter().map(|(c, rust)| (nanoseconds(c), nanoseconds(rust))).collect();
        Comparison::of(&times)
    };
    Ok(Times { fill_and_reap: comparison(|sample| sample.fill_and_reap), round: comparison(|sample| sample.round) })
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
