//! Random reads by the block device beside a plain `pread` loop.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use fastrand::Rng;
use sysuring::Error;
use sysuring::block::{BlockDevice, Device, ReadRequest};

use crate::demo::{BLOCK, DEPTH};
use crate::plain::{self, failure};

/// Rounds of all contestants, one after the other, so that what slows the machine meets all of them.
pub(crate) const ROUNDS: usize = 5;
/// Length of a contestant's turn in a round.
const TURN: Duration = Duration::from_millis(300);

/// Reads a few random blocks; the answer is how many.
type Reader<'a> = Box<dyn FnMut(&mut Rng) -> Result<usize> + 'a>;

/// One way to read, and what was measured of it.
struct Contestant<'a> {
    name: String,
    read: Reader<'a>,
    random: Rng,
    /// Reads per second, in each round.
    rates: Vec<f64>,
    /// Of each call, in nanoseconds, in all rounds.
    latencies: Vec<u64>,
}

/// Measures the ways to read against each other; the answer is the table to print.
pub(crate) fn compare(device: &Device, file: &File) -> Result<Table> {
    let backend = device.backend();
    let mut contestants = [
        Contestant::new("pread".to_owned(), plain_reader(device, file)?),
        Contestant::new(format!("{backend}, depth 1"), single_reader(device)?),
        Contestant::new(format!("{backend}, depth {DEPTH}"), batch_reader(device)?),
    ];
    for contestant in &mut contestants {
        // What is made at the first use is no part of the measurement.
        (contestant.read)(&mut contestant.random)?;
    }
    for _ in 0..ROUNDS {
        for contestant in &mut contestants {
            contestant.take_turn()?;
        }
    }
    Ok(table(&mut contestants))
}

fn plain_reader<'a>(device: &Device, file: &'a File) -> Result<Reader<'a>> {
    let mut buffer = device.aligned_buffer(BLOCK)?;
    let blocks = device.block_count();
    Ok(Box::new(move |random| {
        let offset = random.u64(..blocks) * BLOCK as u64;
        plain::read_at(file, &mut buffer, offset)
            .map_err(|error| failure(format_args!("pread at offset {offset}"), &error))?;
        Ok(1)
    }))
}

fn single_reader(device: &Device) -> Result<Reader<'_>> {
    let mut buffer = device.aligned_buffer(BLOCK)?;
    Ok(Box::new(move |random| {
        device.read_block(random.u64(..device.block_count()), &mut buffer)?;
        Ok(1)
    }))
}

fn batch_reader(device: &Device) -> Result<Reader<'_>> {
    let mut buffer = device.aligned_buffer(DEPTH * BLOCK)?;
    Ok(Box::new(move |random| {
        let mut requests: Vec<_> = buffer
            .chunks_mut(BLOCK)
            .map(|buffer| ReadRequest::new(random.u64(..device.block_count()), buffer))
            .collect();
        device.read_blocks(&mut requests).map_err(Error::from)?;
        Ok(DEPTH)
    }))
}

impl<'a> Contestant<'a> {
    fn new(name: String, read: Reader<'a>) -> Self {
        Self { name, read, random: Rng::with_seed(1), rates: Vec::new(), latencies: Vec::new() }
    }

    fn take_turn(&mut self) -> Result<()> {
        let start = Instant::now();
        let (mut before, mut reads) = (start, 0);
        loop {
            reads += (self.read)(&mut self.random)?;
            let now = Instant::now();
            self.latencies.push(u64::try_from((now - before).as_nanos()).unwrap_or(u64::MAX));
            before = now;
            if now - start >= TURN {
                self.rates.push(reads as f64 / (now - start).as_secs_f64());
                return Ok(());
            }
        }
    }

    /// The median of the rounds.
    fn rate(&mut self) -> f64 {
        self.rates.sort_by(f64::total_cmp);
        self.rates[self.rates.len() / 2]
    }

    /// What a share of the calls did not take longer than, in microseconds.
    fn latency(&mut self, share: f64) -> String {
        let last = self.latencies.len() - 1;
        let (_, nanoseconds, _) = self.latencies.select_nth_unstable((last as f64 * share) as usize);
        format!("{:.1}", *nanoseconds as f64 / 1e3)
    }
}

fn table(contestants: &mut [Contestant<'_>]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["random reads", "reads/s", "MiB/s", "p50 µs", "p99 µs", "to pread"]);
    let baseline = contestants[0].rate();
    for contestant in contestants {
        let rate = contestant.rate();
        table.add_row([
            contestant.name.clone(),
            format!("{rate:.0}"),
            format!("{:.0}", rate * BLOCK as f64 / f64::from(1 << 20)),
            contestant.latency(0.5),
            contestant.latency(0.99),
            format!("{:.2}", rate / baseline),
        ]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
