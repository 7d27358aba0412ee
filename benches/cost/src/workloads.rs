//! What is measured: the same work in C and in Rust, and what it may cost.

use anyhow::Result;

use crate::{baseline, safe};

/// Nothing is quicker to read from, and the kernel's part is the same on both sides.
pub(crate) const FILE: &str = "/dev/zero";

/// Bytes of a read: a sector.
pub(crate) const LENGTH: u32 = 512;

/// One side of a workload. A round is one of each in this order, and ends as it began: with nothing in flight.
pub(crate) trait Work {
    /// Puts a batch into the submission queue.
    fn fill(&mut self) -> Result<()>;

    /// Submits it, and waits until all of it has ended.
    fn submit(&mut self) -> Result<()>;

    /// Takes all completions, looks at their results, and gets back what the operations had.
    fn reap(&mut self) -> Result<()>;

    /// The sum of what was read off the completions: both sides have to arrive at the same.
    fn total(&self) -> u64;
}

/// Sets up one side, for batches of `depth` operations.
pub(crate) type Open = fn(depth: u32) -> Result<Box<dyn Work>>;

/// One comparison.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) depth: u32,
    /// What Rust may cost at most, as a multiple of C; `None` where it is only reported.
    pub(crate) goal: Option<f64>,
    /// Instructions that it takes at most, as a multiple of C's, with liburing found at run time: what was reached, and must not
    /// get worse.
    pub(crate) ceiling: Option<f64>,
    /// Whether filling, submitting and reaping are three steps on both sides.
    pub(crate) in_steps: bool,
    pub(crate) c: Open,
    pub(crate) rust: Open,
}

impl Workload {
    /// `depth` operations at once, in three steps.
    const fn new(name: &'static str, depth: u32, c: Open, rust: Open) -> Self {
        Self { name, depth, goal: None, ceiling: None, in_steps: true, c, rust }
    }

    const fn goal(mut self, goal: f64, ceiling: f64) -> Self {
        (self.goal, self.ceiling) = (Some(goal), Some(ceiling));
        self
    }

    const fn in_one(mut self) -> Self {
        self.in_steps = false;
        self
    }
}

/// All of them.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload::new("read-fixed", 64, baseline::read_fixed, safe::read_fixed).goal(1.05, 1.88),
    Workload::new("read-owned", 64, baseline::read, safe::read_owned).goal(1.15, 2.28),
    Workload::new("read-scope", 64, baseline::read, safe::read_scope).goal(1.10, 2.98).in_one(),
    // The raw interface does what C does.
    Workload::new("nop", 32, baseline::nop, safe::raw_nop).goal(1.03, 1.41),
    Workload::new("nop-bindings", 32, baseline::nop, safe::bindings_nop).goal(1.03, 1.03),
    // Without a goal: to know what else there is to pay, and where there is nothing to gain.
    Workload::new("nop-safe", 32, baseline::nop_with_request, safe::nop),
    Workload::new("read-fixed-lease", 64, baseline::read_fixed, safe::lease_and_read_fixed),
    Workload::new("read", 64, baseline::read, safe::read),
    Workload::new("read-fixed-one", 1, baseline::read_fixed, safe::read_fixed),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_every_workload_do_the_same() {
        if let Err(reason) = sysuring::available() {
            println!("skipped: {reason}");
            return;
        }
        for workload in WORKLOADS {
            let totals = [workload.c, workload.rust].map(|open| {
                let mut work = open(workload.depth).unwrap();
                for _ in 0..3 {
                    work.fill().unwrap();
                    work.submit().unwrap();
                    work.reap().unwrap();
                }
                work.total()
            });
            assert_eq!(totals[0], totals[1], "{}", workload.name);
            let is_read = workload.name.starts_with("read");
            let read = 3 * u64::from(workload.depth) * u64::from(LENGTH);
            assert!(!is_read || totals[0] == read, "{}: {} bytes of {read}", workload.name, totals[0]);
        }
    }
}
