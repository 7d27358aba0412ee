//! The tables.

use std::fmt::Write as _;

use anyhow::Result;
use sysuring_pairs::Verdict;

use crate::blocks::{Blocks, Target};
use crate::groups::{Goal, Group};
use crate::measure::{Found, measure};

/// A table in Markdown, and how many goals are missed in it.
pub(crate) struct Table {
    pub(crate) text: String,
    pub(crate) missed: usize,
}

/// Measures groups; what is found is told at once on standard error, since it takes minutes.
pub(crate) fn table(groups: &[Group], target: &Target, blocks: Blocks, with_goals: bool) -> Result<Table> {
    let mut text = String::from("| | thousand a second | processor, µs each | ratio | |");
    text += if with_goals { " goal | |\n|---|--:|--:|--:|---|--:|---|\n" } else { "\n|---|--:|--:|--:|---|\n" };
    let mut missed = 0;
    for group in groups {
        let found = measure(group, target, blocks)?;
        for (index, (named, found)) in group.sides().zip(&found).enumerate() {
            let goal = index.checked_sub(1).and_then(|peer| group.peers[peer].1);
            let (row, is_missed) = row(named.name, found, goal, with_goals);
            eprint!("{row}");
            text += &row;
            missed += usize::from(is_missed);
        }
    }
    Ok(Table { text, missed })
}

fn row(name: &str, found: &Found, goal: Option<Goal>, with_goals: bool) -> (String, bool) {
    let emphasis = if found.comparison.is_none() { "**" } else { "" };
    let (rate, processors) = (1e6 / found.time, found.processors / 1e3);
    let mut row = format!("| {emphasis}{name}{emphasis} | {rate:.1} | {processors:.2} |");
    let Some(comparison) = &found.comparison else {
        row += if with_goals { " | | | |\n" } else { " | |\n" };
        return (row, false);
    };
    let (ratio, (low, high)) = (comparison.ratio, comparison.interval);
    let (time_at_most, goal) = match goal {
        Some(Goal::TimeAtMost(goal)) => (Some(goal), format!("time ≤ {goal:.2}")),
        Some(Goal::RateAtLeast(goal)) => (Some(1.0 / goal), format!("rate ≥ {goal:.1}")),
        None => (None, String::new()),
    };
    let verdict = Verdict::of(time_at_most, (low, high));
    let _ = match goal.starts_with("rate") {
        true => write!(row, " {:.2} | {:.2} to {:.2} |", 1.0 / ratio, 1.0 / high, 1.0 / low),
        false => write!(row, " {ratio:.3} | {low:.3} to {high:.3} |"),
    };
    if with_goals {
        let _ = write!(row, " {goal} | {} |", verdict.name());
    }
    row.push('\n');
    (row, verdict == Verdict::Missed)
}
