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
    let mut text = String::from("| | thousand a second | ratio | |");
    text += if with_goals { " goal | |" } else { "" };
    text += " processor, µs each | ratio |\n|---|--:|--:|---|";
    text += if with_goals { "---|---|--:|--:|\n" } else { "--:|--:|\n" };
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
    let (rate, processors) = (1e6 / found.time, found.processors / 1e3);
    let Some((time, of_processors)) = &found.comparison else {
        let empty = if with_goals { "| | | | |" } else { "| | |" };
        return (format!("| **{name}** | {rate:.1} {empty} {processors:.2} | |\n"), false);
    };
    let (time_at_most, goal) = match goal {
        Some(Goal::TimeAtMost(goal)) => (Some(goal), format!("time ≤ {goal:.2}")),
        Some(Goal::RateAtLeast(goal)) => (Some(1.0 / goal), format!("rate ≥ {goal:.1}")),
        None => (None, String::new()),
    };
    let (ratio, (low, high)) = (time.ratio, time.interval);
    let verdict = Verdict::of(time_at_most, (low, high));
    let mut row = match goal.starts_with("rate") {
        true => format!("| {name} | {rate:.1} | {:.2} | {:.2} to {:.2} |", 1.0 / ratio, 1.0 / high, 1.0 / low),
        false => format!("| {name} | {rate:.1} | {ratio:.3} | {low:.3} to {high:.3} |"),
    };
    if with_goals {
        let _ = write!(row, " {goal} | {} |", verdict.name());
    }
    let _ = writeln!(row, " {processors:.2} | {:.2} |", of_processors.ratio);
    (row, verdict == Verdict::Missed)
}
