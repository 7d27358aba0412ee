//! What of liburing's header is in the bindings: scripts/ledger runs this.
//!
//!     ledger check DOC FUNCTIONS LIST [PAGE]  fails where something is missing or differs from C, or PAGE is out of date
//!     ledger page FUNCTIONS LIST...           makes PAGE of the lists that `check` wrote for several headers
//!
//! DOC is the folder that rustdoc made of liburing-sys, FUNCTIONS its functions.txt.

mod check;
mod names;
mod page;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use liburing_sys::{HEADER_VERSION, Version};

/// What has no place in Rust, and why. Everything else has to be there.
const NOT_BOUND: &[(&str, &[&str])] = &[
    (
        "keeps the header from being read twice",
        &[
            "LIBURING_BARRIER_H",
            "LIBURING_COMPAT_H",
            "LIBURING_SANITIZE_H",
            "LIBURING_VERSION_H",
            "LIB_URING_H",
            "LINUX_IO_URING_BPF_FILTER_H",
            "LINUX_IO_URING_H",
            "LINUX_IO_URING_QUERY_H",
        ],
    ),
    ("tells C which declarations the header has: `liburing_sys::HEADER_VERSION`", &["LIBURING_HAVE_DATA64"]),
    ("an attribute of C's declarations", &["LIBURING_NOEXCEPT", "__maybe_unused"]),
    ("a hint for C's optimiser", &["uring_likely", "uring_unlikely"]),
    (
        "for liburing's own build with a sanitizer, and empty outside of it; `liburing.h` does not include its header",
        &[
            "liburing_sanitize_address",
            "liburing_sanitize_iovecs",
            "liburing_sanitize_region",
            "liburing_sanitize_ring",
        ],
    ),
];

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["check", doc, functions, list, page @ ..] if page.len() < 2 => {
            let (rows, mut problems) = check::check(Path::new(doc), &read_functions(functions)?)?;
            fs::write(list, page::list(&rows)).with_context(|| format!("cannot write {list}"))?;
            if let Some(page) = page.first() {
                let text = fs::read_to_string(page).with_context(|| format!("cannot read {page}"))?;
                problems.extend(page::out_of_date(&text, &rows));
            }
            let not_bound = rows.iter().filter(|row| row.what.starts_with(NOT_BOUND_IS)).count();
            let all = rows.len();
            let mode = match (cfg!(feature = "link"), cfg!(feature = "dlopen")) {
                (true, true) => "linked, and called by pointer",
                (true, false) => "linked",
                _ => "called by pointer",
            };
            println!("liburing.h {HEADER_VERSION}, {mode}: {all} names, {not_bound} of them not bound for a reason");
            for problem in &problems {
                println!("error: {problem}");
            }
            Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ["page", functions, lists @ ..] if !lists.is_empty() => {
            print!("{}", page::page(&read_functions(functions)?, lists)?);
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("usage: ledger check DOC FUNCTIONS LIST [PAGE] | ledger page FUNCTIONS LIST..."),
    }
}

/// How `Row::what` begins where it is a reason.
const NOT_BOUND_IS: &str = "not bound: ";

/// A name of one header, and what it is here.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    kind: String,
    bytes: String,
    what: String,
}

/// A line of functions.txt.
struct Function {
    since: Version,
    section: String,
}

fn read_functions(file: &str) -> Result<BTreeMap<String, Function>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let &[name, since, section] = fields.as_slice() else { bail!("{file}: not three fields: {line}") };
            let (major, minor) = since.split_once('.').with_context(|| format!("{file}: no version: {line}"))?;
            let since = Version { major: major.parse()?, minor: minor.parse()? };
            Ok((name.to_owned(), Function { since, section: section.to_owned() }))
        })
        .collect()
}
