//! The table, and whether the goals are met.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::time::Comparison;
use crate::workloads::{WORKLOADS, Workload};
use crate::{Side, instructions, time};

/// How a number compares to its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    NoGoal,
    Met,
    Missed,
    /// The goal lies inside of the interval.
    Undecided,
}

impl Verdict {
    /// A number that lies between `low` and `high`.
    fn of(goal: Option<f64>, (low, high): (f64, f64)) -> Self {
        match goal {
            None => Self::NoGoal,
            Some(goal) if low > goal => Self::Missed,
            Some(goal) if high <= goal => Self::Met,
            Some(_) => Self::Undecided,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NoGoal => "",
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Undecided => "undecided",
        }
    }
}

/// Prints all comparisons; fails where a goal is missed.
pub(crate) fn report() -> Result<ExitCode> {
    ensure!(!cfg!(debug_assertions), "this was built for debugging; build it with --release");
    if let Err(reason) = sysuring::available() {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let without_instructions = instructions::missing();
    let mut missed = 0;
    print_row(["workload", "of one operation", "C", "Rust", "ratio", "", "goal", ""]);
    for workload in WORKLOADS {
        if without_instructions.is_none() {
            missed += u32::from(report_instructions(workload)? == Verdict::Missed);
        }
        let times = time::compare(workload)?;
        for (what, comparison) in [("ns, fill and reap", times.fill_and_reap), ("ns, all", times.round)] {
            missed += u32::from(report_time(workload, what, &comparison) == Verdict::Missed);
        }
    }
    if let Some(reason) = without_instructions {
        println!("skipped: instructions: {reason}");
    }
    if missed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    println!("{missed} missed");
    Ok(ExitCode::FAILURE)
}

fn report_instructions(workload: &Workload) -> Result<Verdict> {
    let c = instructions::count(workload, Side::C)?;
    let rust = instructions::count(workload, Side::Rust)?;
    let ratio = rust / c;
    let verdict = Verdict::of(workload.goal, (ratio, ratio));
    print_line(workload, "instructions", (c, rust), ratio, String::new(), verdict);
    Ok(verdict)
}

fn report_time(workload: &Workload, what: &str, comparison: &Comparison) -> Verdict {
    let (low, high) = comparison.interval;
    let verdict = Verdict::of(workload.goal, comparison.interval);
    let times = (comparison.c, comparison.rust);
    print_line(workload, what, times, comparison.ratio, format!("{low:.2} to {high:.2}"), verdict);
    verdict
}

fn print_line(workload: &Workload, what: &str, (c, rust): (f64, f64), ratio: f64, interval: String, verdict: Verdict) {
    let goal = workload.goal.map_or(String::new(), |goal| format!("{goal:.2}"));
    print_row([
        workload.name,
        what,
        &format!("{c:.1}"),
        &format!("{rust:.1}"),
        &format!("{ratio:.2}"),
        &interval,
        &goal,
        verdict.name(),
    ]);
}

fn print_row([workload, what, c, rust, ratio, interval, goal, verdict]: [&str; 8]) {
    let row = format!("{workload:<17} {what:<18} {c:>7} {rust:>7} {ratio:>6}  {interval:<13} {goal:>5} {verdict}");
    println!("{}", row.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_above_the_goal_misses_it() {
        assert_eq!(Verdict::of(Some(1.05), (1.06, 1.10)), Verdict::Missed);
        assert_eq!(Verdict::of(Some(1.05), (1.04, 1.10)), Verdict::Undecided);
        assert_eq!(Verdict::of(Some(1.05), (0.90, 1.05)), Verdict::Met);
        assert_eq!(Verdict::of(None, (2.0, 3.0)), Verdict::NoGoal);
    }
}
