//! Measures the sides of a group in turn.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sysuring_pairs::{Comparison, median};

use crate::blocks::{Blocks, Target};
use crate::groups::{Group, Named};
use crate::side::{Sample, Side};

/// Rounds, in each of which every side has a piece.
const ROUNDS: usize = 151;
/// Rounds before those that count.
const WARM_UP: usize = 3;
/// How long a piece takes, in nanoseconds: short, so that those of a round see the same machine.
const PIECE: f64 = 20e6;
/// A piece has a multiple of so many blocks.
const BATCH: u64 = 32;

/// What was found about a side.
pub(crate) struct Found {
    /// Medians, in nanoseconds for each block.
    pub(crate) time: f64,
    pub(crate) processors: f64,
    /// How the subject compares to it, in time and in time of processors; `None` for the subject.
    pub(crate) comparison: Option<(Comparison, Comparison)>,
}

/// A side that is set up, and what it needs for a block, in each round.
struct Measured<'a> {
    named: &'a Named,
    side: Box<dyn Side>,
    /// Blocks of a piece.
    count: u64,
    times: Vec<f64>,
    processors: Vec<f64>,
}

impl<'a> Measured<'a> {
    fn new(named: &'a Named, target: &Target) -> Result<Self> {
        let side = (named.open)(target).with_context(|| format!("cannot set up {}", named.name))?;
        Ok(Self { named, side, count: 0, times: Vec::new(), processors: Vec::new() })
    }

    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        let sample = self.side.run(blocks).with_context(|| format!("{} failed", self.named.name))?;
        ensure!(sample.sum == blocks.sum(), "{} did not transfer the blocks that it was to", self.named.name);
        Ok(sample)
    }

    /// Finds out how many blocks it does in a piece.
    fn find_count(&mut self, blocks: Blocks) -> Result<()> {
        self.count = 8 * BATCH;
        loop {
            let sample = self.run(blocks.range(0, self.count))?;
            let fitting = self.count as f64 * PIECE / sample.time;
            if sample.time > PIECE / 4.0 {
                self.count = (fitting as u64).div_ceil(BATCH) * BATCH;
                return Ok(());
            }
            self.count *= 2;
        }
    }
}

/// Measures all sides of a group; the first found is the subject.
pub(crate) fn measure(group: &Group, target: &Target, blocks: Blocks) -> Result<Vec<Found>> {
    let sides: Result<Vec<_>> = group.sides().map(|named| Measured::new(named, target)).collect();
    let mut sides = sides?;
    for side in &mut sides {
        side.find_count(blocks)?;
    }
    let number = sides.len();
    for round in 0..WARM_UP + ROUNDS {
        for turn in 0..number {
            // Nobody always comes first, or always after the same one.
            let turn = if round % 2 == 0 { turn } else { number - 1 - turn };
            let side = &mut sides[(turn + round / 2) % number];
            let count = side.count;
            let sample = side.run(blocks.range(round as u64 * 5003, count))?;
            if round >= WARM_UP {
                side.times.push(sample.time / count as f64);
                side.processors.push(sample.processors / count as f64);
            }
        }
    }
    let subject = &sides[0];
    let compare = |base: &[f64], subject: &[f64]| {
        let pairs: Vec<_> = base.iter().copied().zip(subject.iter().copied()).collect();
        Comparison::of(&pairs)
    };
    let found = sides.iter().enumerate().map(|(index, side)| Found {
        time: median(side.times.iter().copied()),
        processors: median(side.processors.iter().copied()),
        comparison: (index != 0)
            .then(|| (compare(&side.times, &subject.times), compare(&side.processors, &subject.processors))),
    });
    Ok(found.collect())
}

/// Runs one side of a group for some seconds, to be watched by other programs.
pub(crate) fn watch(named: &Named, target: &Target, blocks: Blocks, seconds: f64) -> Result<()> {
    let mut side = Measured::new(named, target)?;
    side.find_count(blocks)?;
    let count = side.count;
    let (start, mut times, mut processors) = (Instant::now(), Vec::new(), Vec::new());
    while start.elapsed().as_secs_f64() < seconds {
        let sample = side.run(blocks.range(times.len() as u64 * 5003, count))?;
        times.push(sample.time / count as f64);
        processors.push(sample.processors / count as f64);
    }
    let (time, processors) = (median(times.into_iter()), median(processors.into_iter()));
    println!("{}: {time:.0} ns a block, {processors:.0} ns of processors", named.name);
    Ok(())
}
