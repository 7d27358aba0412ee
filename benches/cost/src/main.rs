//! What the safe ring costs, side by side with C. The README says how to read the table.

mod baseline;
mod instructions;
mod report;
mod safe;
mod time;
mod workloads;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::workloads::WORKLOADS;

const USAGE: &str = "\
usage: sysuring-cost                          compare, and fail where a goal is missed
       sysuring-cost check                    count instructions, and fail where there are more than there were
       sysuring-cost run SIDE WORKLOAD COUNT  run one side, c or rust, COUNT times, to be watched by other programs";

/// Which implementation.
#[derive(Debug, Clone, Copy)]
enum Side {
    C,
    Rust,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Rust => "rust",
        }
    }

    fn named(name: &str) -> Result<Self> {
        match name {
            "c" => Ok(Self::C),
            "rust" => Ok(Self::Rust),
            _ => bail!("no side {name:?}; there are c and rust"),
        }
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => report::report(),
        ["check"] => report::check(),
        ["run", side, workload, rounds] => {
            let rounds = rounds.parse().with_context(|| format!("{rounds:?} is no count"))?;
            run(Side::named(side)?, workload, rounds).map(|()| ExitCode::SUCCESS)
        }
        _ => bail!("{USAGE}"),
    }
}

fn run(side: Side, name: &str, rounds: u64) -> Result<()> {
    let workload = WORKLOADS.iter().find(|workload| workload.name == name).with_context(|| {
        let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        format!("no workload {name:?}; there are {}", names.join(", "))
    })?;
    let open = match side {
        Side::C => workload.c,
        Side::Rust => workload.rust,
    };
    let mut work = open(workload.depth)?;
    for _ in 0..rounds {
        work.fill()?;
        work.submit()?;
        work.reap()?;
    }
    Ok(())
}
