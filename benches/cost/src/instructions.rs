//! Counts instructions with callgrind, which sees user space only.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::Side;
use crate::workloads::Workload;

/// What both runs of a workload have in common is set-up, and drops out of their difference.
const FEW_ROUNDS: u64 = 50;
const MANY_ROUNDS: u64 = 550;

/// Why instructions can't be counted here, if so.
pub(crate) fn missing() -> Option<String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("valgrind --version ended with {}", output.status)),
        Err(error) => Some(format!("valgrind can't be run ({error}); install it with your distribution's package")),
    }
}

/// Instructions for each operation, without those in liburing itself: a submit is the same library's on both sides.
pub(crate) fn count(workload: &Workload, side: Side) -> Result<f64> {
    let few = count_run(workload, side, FEW_ROUNDS)?;
    let many = count_run(workload, side, MANY_ROUNDS)?;
    ensure!(many > few, "{} in {} takes no instructions", workload.name, side.name());
    Ok((many - few) as f64 / ((MANY_ROUNDS - FEW_ROUNDS) * u64::from(workload.depth)) as f64)
}

fn count_run(workload: &Workload, side: Side, rounds: u64) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let written = folder.path().join("callgrind");
    let mut output_file = std::ffi::OsString::from("--callgrind-out-file=");
    output_file.push(&written);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no"])
        .arg(output_file)
        .arg(env::current_exe()?)
        .args(["run", side.name(), workload.name, &rounds.to_string()])
        .output()
        .context("cannot run valgrind")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} in {} fails under valgrind ({}): {}", workload.name, side.name(), output.status, said.trim());
    }
    let profile = fs::read_to_string(&written).context("cannot read what callgrind wrote")?;
    own_instructions(&profile)
}

/// Sums up the instructions of a profile in callgrind's format that were not spent in liburing.
fn own_instructions(profile: &str) -> Result<u64> {
    let mut sum = 0;
    let mut in_liburing = false;
    let mut is_of_call = false;
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            in_liburing = object.contains("liburing");
        } else if line.starts_with("calls=") {
            // The next line has what the called function took, which is listed with that function as well.
            is_of_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            if !in_liburing && !is_of_call {
                let count = line.split_whitespace().nth(1).context("a line of callgrind's without a count")?;
                sum += count.parse::<u64>().context("a count of callgrind's that is no number")?;
            }
            is_of_call = false;
        }
    }
    ensure!(sum > 0, "callgrind wrote no instructions");
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_the_library_are_not_counted() {
        let profile = "version: 1\nevents: Ir\n\nob=/bin/program\nfl=a.c\nfn=main\n10 5\n+1 7\n\
            cob=/lib/liburing.so.2\ncfn=submit\ncalls=3 20\n* 100\n12 1\n\nob=/lib/liburing.so.2\nfn=submit\n20 100\n\n\
            ob=/bin/program\nfn=other\n-3 2\ntotals: 115\n";
        assert_eq!(own_instructions(profile).unwrap(), 15);
        assert!(own_instructions("events: Ir\n").is_err());
    }
}
