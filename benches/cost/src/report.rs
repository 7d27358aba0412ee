//! The table, and whether the goals are met.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use sysuring_pairs::{Comparison, Verdict};

use crate::workloads::{WORKLOADS, Workload};
use crate::{Side, instructions, time};

/// Prints all comparisons; fails where a goal is missed.
pub(crate) fn report() -> Result<ExitCode> {
    if is_skipped()? {
        return Ok(ExitCode::SUCCESS);
    }
    let without_instructions = instructions::missing();
    let mut missed = 0;
    print_row(["workload", "of one operation", "C", "Rust", "ratio", "", "goal", ""]);
    for workload in WORKLOADS {
        if without_instructions.is_none() {
            missed += u32::from(report_instructions(workload, workload.goal)? == Verdict::Missed);
        }
        let times = time::compare(workload)?;
        if workload.in_steps {
            missed += u32::from(report_time(workload, "ns, fill and reap", &times.fill_and_reap) == Verdict::Missed);
        }
        missed += u32::from(report_time(workload, "ns, all", &times.round) == Verdict::Missed);
    }
    if let Some(reason) = without_instructions {
        println!("skipped: instructions: {reason}");
    }
    Ok(summed_up(missed))
}

/// Prints the instructions of what has a ceiling; fails where one is passed.
pub(crate) fn check() -> Result<ExitCode> {
    if is_skipped()? {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = instructions::missing() {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut missed = 0;
    print_row(["workload", "of one operation", "C", "Rust", "ratio", "", "at most", ""]);
    for workload in WORKLOADS.iter().filter(|workload| workload.ceiling.is_some()) {
        missed += u32::from(report_instructions(workload, workload.ceiling)? == Verdict::Missed);
    }
    Ok(summed_up(missed))
}

/// Whether nothing can be compared here; says so.
fn is_skipped() -> Result<bool> {
    ensure!(!cfg!(debug_assertions), "this was built for debugging; build it with --release");
    let reason = sysuring::available().err();
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    Ok(reason.is_some())
}

fn summed_up(missed: u32) -> ExitCode {
    if missed == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{missed} missed");
    ExitCode::FAILURE
}

fn report_instructions(workload: &Workload, limit: Option<f64>) -> Result<Verdict> {
    let c = instructions::count(workload, Side::C)?;
    let rust = instructions::count(workload, Side::Rust)?;
    let ratio = rust / c;
    let verdict = Verdict::of(limit, (ratio, ratio));
    print_line(workload, "instructions", (c, rust), ratio, (limit, String::new()), verdict);
    Ok(verdict)
}

fn report_time(workload: &Workload, what: &str, comparison: &Comparison) -> Verdict {
    let (low, high) = comparison.interval;
    let verdict = Verdict::of(workload.goal, comparison.interval);
    let times = (comparison.base, comparison.side);
    print_line(workload, what, times, comparison.ratio, (workload.goal, format!("{low:.2} to {high:.2}")), verdict);
    verdict
}

fn print_line(
    workload: &Workload,
    what: &str,
    (c, rust): (f64, f64),
    ratio: f64,
    (goal, interval): (Option<f64>, String),
    verdict: Verdict,
) {
    let goal = goal.map_or(String::new(), |goal| format!("{goal:.2}"));
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
    let row = format!("{workload:<17} {what:<18} {c:>7} {rust:>7} {ratio:>6}  {interval:<13} {goal:>7} {verdict}");
    println!("{}", row.trim_end());
}
