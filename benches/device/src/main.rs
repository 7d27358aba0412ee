//! How fast the block device is, side by side with C and with other runtimes. `scripts/performance` runs it;
//! `performance.md` says what is compared.

mod baseline;
mod blocks;
mod device;
mod futures;
mod groups;
mod measure;
mod report;
mod side;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::blocks::{Blocks, Target};
use crate::groups::{Group, Named};

const USAGE: &str = "\
usage: sysuring-performance FILE                     compare all; FILE is made where it is not there
       sysuring-performance FILE only WORD [CACHE]   compare those whose name has WORD in it
       sysuring-performance FILE watch NAME CACHE SECONDS   run one side, to be watched by other programs
CACHE: direct (past the page cache) or cached";

/// The document, with a line for each table.
const DOCUMENT: &str = include_str!("../performance.md");

fn main() -> Result<ExitCode> {
    ensure!(!cfg!(debug_assertions), "this was built for debugging; build it with --release");
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (path, rest) = arguments.split_first().context(USAGE)?;
    // A file of half a GiB is made under that name.
    ensure!(!path.starts_with('-'), "{USAGE}");
    let path = Path::new(path);
    if let Err(reason) = sysuring::available() {
        bail!("there is nothing to compare: {reason}");
    }
    blocks::make(path)?;
    let missed = match rest {
        [] => all(path)?,
        ["only", word] => only(path, word, &[true, false])?,
        ["only", word, cache] => only(path, word, &[is_direct(cache)?])?,
        ["watch", name, cache, seconds] => {
            let seconds = seconds.parse().with_context(|| format!("{seconds:?} is no number"))?;
            watch(path, name, is_direct(cache)?, seconds)?;
            0
        }
        _ => bail!("{USAGE}"),
    };
    if missed > 0 {
        eprintln!("{missed} missed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn is_direct(cache: &str) -> Result<bool> {
    match cache {
        "direct" => Ok(true),
        "cached" => Ok(false),
        _ => bail!("no cache {cache:?}; there are direct and cached"),
    }
}

/// The file, in the page cache or not in it.
fn target(path: &Path, direct: bool) -> Result<Target> {
    blocks::set_cached(path, !direct)?;
    Ok(Target { path: path.to_owned(), direct })
}

/// Prints the whole document.
fn all(path: &Path) -> Result<usize> {
    let blocks = Blocks::random();
    let mut document = DOCUMENT.to_owned();
    let mut missed = 0;
    for (cache, direct) in [("direct", true), ("cached", false)] {
        let target = target(path, direct)?;
        for (kind, groups) in [("goals", groups::with_goals(direct)), ("rest", groups::without_goals())] {
            let table = report::table(&groups, &target, blocks, kind == "goals")?;
            missed += table.missed;
            document = document.replace(&format!("@{cache} {kind}@"), table.text.trim_end());
        }
    }
    print!("{}", document.replace("@machine@", &machine(path)?));
    Ok(missed)
}

fn only(path: &Path, word: &str, caches: &[bool]) -> Result<usize> {
    let blocks = Blocks::random();
    let mut missed = 0;
    for direct in caches {
        let target = target(path, *direct)?;
        let mut groups = groups::with_goals(*direct);
        groups.extend(groups::without_goals());
        groups.retain(|group| group.subject.name.contains(word));
        ensure!(!groups.is_empty(), "nothing has {word:?} in its name");
        eprintln!("{}", if *direct { "past the page cache" } else { "cached" });
        missed += report::table(&groups, &target, blocks, true)?.missed;
    }
    Ok(missed)
}

fn watch(path: &Path, name: &str, direct: bool, seconds: f64) -> Result<()> {
    let mut groups = groups::with_goals(direct);
    groups.extend(groups::without_goals());
    let names: Vec<&Named> = groups.iter().flat_map(Group::sides).collect();
    let named = names.iter().find(|named| named.name == name).with_context(|| {
        let names: Vec<_> = names.iter().map(|named| named.name).collect();
        format!("no side {name:?}; there are {}", names.join("; "))
    })?;
    measure::watch(named, &target(path, direct)?, Blocks::random(), seconds)
}

/// What was measured on, with what, and when.
fn machine(path: &Path) -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("processor of unknown name", |(_, name)| name);
    let number = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let library = sysuring::Library::get().version.context("liburing is loaded")?;
    // Below a heading.
    let system = answer_of("df", &["--output=fstype", &path.to_string_lossy()])?;
    let system = system.lines().last().context("df names the file system")?;
    let date = answer_of("date", &["--utc", "+%F"])?;
    let rust = answer_of("rustc", &["--version"])?;
    let rust = rust.split(' ').nth(1).unwrap_or("of unknown version");
    Ok(format!(
        "Measured on {date}: {number} × {model}, Linux {}, liburing {library}, file system {system}, Rust {rust}.",
        kernel.trim()
    ))
}

fn answer_of(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
