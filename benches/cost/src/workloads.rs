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
    pub(crate) c: Open,
    pub(crate) rust: Open,
}

/// All of them. `Ring::scope` (goal 1.10, against `baseline::read`) is not among them yet: it fills, submits and reaps in one
/// call.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload { name: "read-fixed", depth: 64, goal: Some(1.05), c: baseline::read_fixed, rust: safe::read_fixed },
    Workload { name: "read-owned", depth: 64, goal: Some(1.15), c: baseline::read, rust: safe::read_owned },
    // The raw interface does what C does.
    Workload { name: "nop", depth: 32, goal: Some(1.03), c: baseline::nop, rust: safe::raw_nop },
    Workload { name: "nop-bindings", depth: 32, goal: Some(1.03), c: baseline::nop, rust: safe::bindings_nop },
    // Without a goal: to know what else there is to pay, and where there is nothing to gain.
    Workload { name: "nop-safe", depth: 32, goal: None, c: baseline::nop_with_request, rust: safe::nop },
    Workload {
        name: "read-fixed-lease",
        depth: 64,
        goal: None,
        c: baseline::read_fixed,
        rust: safe::lease_and_read_fixed,
    },
    Workload { name: "read", depth: 64, goal: None, c: baseline::read, rust: safe::read },
    Workload { name: "read-fixed-one", depth: 1, goal: None, c: baseline::read_fixed, rust: safe::read_fixed },
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
