//! The ledger as a page, made of the lists of several headers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use liburing_sys::HEADER_VERSION;

use crate::names::here;
use crate::{Function, NOT_BOUND, NOT_BOUND_IS, Row};

struct Section {
    title: &'static str,
    kinds: &'static [&'static str],
    note: &'static str,
    columns: &'static [&'static str],
}

const SECTIONS: &[Section] = &[
    Section {
        title: "Functions",
        kinds: &["Exported", "Inline"],
        note: "\
* exported: the library's own, linked or called through a pointer
* shim: the header's `static inline` function, compiled
* Rust: runs for every operation, and is written again so that it is inlined
* overridden: wrong or missing in some version of liburing, and right here
",
        columns: &["name", "since", "headers", "here"],
    },
    Section {
        title: "Macros with arguments",
        kinds: &["Macro"],
        note: "These are functions here.\n",
        columns: &["name", "headers"],
    },
    Section {
        title: "Types",
        kinds: &["Struct", "Union", "Enum", "Typedef"],
        note: "Size and alignment are those of C.\n",
        columns: &["name", "headers", "bytes"],
    },
    Section {
        title: "Constants",
        kinds: &["Constant", "Enumerator"],
        note: "Value and width are those of C.\n",
        columns: &["name", "headers", "bytes"],
    },
    Section {
        title: "Commands of the kernel's headers",
        kinds: &["Kernel"],
        note: "As the kernel's headers of the same Debian have them.\n",
        columns: &["name", "headers", "bytes"],
    },
    Section {
        title: "Not bound",
        kinds: &["Empty", "Other"],
        note: "What has no place in Rust.\n",
        columns: &["name", "headers", "why"],
    },
];

/// The names of this header, for `page`.
pub(crate) fn list(rows: &[Row]) -> String {
    let lines = rows.iter().map(|Row { name, kind, bytes, what }| format!("{name}\t{kind}\t{bytes}\t{what}\n"));
    format!("{HEADER_VERSION}\n{}", lines.collect::<String>())
}

fn read_list(file: &str) -> Result<(String, Vec<Row>)> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let (version, lines) = text.split_once('\n').with_context(|| format!("{file} is empty"))?;
    let rows = lines.lines().map(|line| {
        let fields: Vec<_> = line.split('\t').map(str::to_owned).collect();
        let Ok([name, kind, bytes, what]) = <[String; 4]>::try_from(fields) else { bail!("not four fields: {line}") };
        Ok(Row { name, kind, bytes, what })
    });
    Ok((version.to_owned(), rows.collect::<Result<_>>()?))
}

/// A name in each version of the header that has it.
type Versions = Vec<(String, Row)>;

fn section(row: &Row) -> usize {
    let not_bound = SECTIONS.len() - 1;
    let of_kind = SECTIONS.iter().position(|section| section.kinds.contains(&row.kind.as_str()));
    if row.what.starts_with(NOT_BOUND_IS) { not_bound } else { of_kind.unwrap_or(not_bound) }
}

pub(crate) fn page(functions: &BTreeMap<String, Function>, lists: &[&str]) -> Result<String> {
    let lists = lists.iter().map(|list| read_list(list)).collect::<Result<Vec<_>>>()?;
    let versions: Vec<_> = lists.iter().map(|(version, _)| version.as_str()).collect();
    let mut names = BTreeMap::<&str, Versions>::new();
    for (version, rows) in &lists {
        for row in rows {
            names.entry(&row.name).or_default().push((version.clone(), row.clone()));
        }
    }
    for name in NOT_BOUND.iter().flat_map(|(_, names)| *names) {
        ensure!(names.contains_key(name), "{name} is in none of the headers, and has a reason not to be bound");
    }

    let mut text = format!(
        "# What liburing's header has, and what that is here\n\n\
         `scripts/ledger --write` makes this page from the headers of liburing {}, as Debian has them;\n\
         `scripts/ledger` compares the header that is installed with the bindings, and with this page.\n\n",
        versions.join(", ")
    );
    text += &counts(&lists);
    for (number, Section { title, note, columns, .. }) in SECTIONS.iter().enumerate() {
        text += &format!("\n## {title}\n\n{note}\n| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
        for (name, versions) in &names {
            // Once a macro, then a function: the newest header decides where it is listed.
            if versions.last().is_none_or(|(_, row)| section(row) != number) {
                continue;
            }
            let cells = columns.iter().map(|column| match *column {
                "name" => format!("`{name}`"),
                "since" => functions.get(*name).map(|function| function.since.to_string()).unwrap_or_default(),
                "headers" => versions.iter().map(|(version, _)| version.as_str()).collect::<Vec<_>>().join(", "),
                "bytes" => cell(versions, |row| &row.bytes),
                _ => cell(versions, |row| row.what.trim_start_matches(NOT_BOUND_IS)),
            });
            text += &format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
        }
    }
    Ok(text)
}

/// What all headers have in common, or what each has.
fn cell(versions: &Versions, field: impl Fn(&Row) -> &str) -> String {
    let mut values = Vec::<(&str, Vec<&str>)>::new();
    for (version, row) in versions {
        match values.iter_mut().find(|(value, _)| *value == field(row)) {
            Some((_, of)) => of.push(version),
            None => values.push((field(row), vec![version])),
        }
    }
    match values.as_slice() {
        [(value, _)] => (*value).to_owned(),
        _ => values.iter().map(|(value, of)| format!("{}: {value}", of.join(", "))).collect::<Vec<_>>().join("; "),
    }
}

/// How many of each there are in each header.
fn counts(lists: &[(String, Vec<Row>)]) -> String {
    let mut counts = BTreeMap::<(usize, &str), Vec<usize>>::new();
    for (number, (_, rows)) in lists.iter().enumerate() {
        for row in rows {
            let section = section(row);
            let what = if section == 0 { row.what.as_str() } else { "" };
            counts.entry((section, what)).or_insert_with(|| vec![0; lists.len()])[number] += 1;
        }
    }
    let versions: Vec<_> = lists.iter().map(|(version, _)| version.as_str()).collect();
    let mut text = format!("| | {} |\n|---|{}\n", versions.join(" | "), "---:|".repeat(versions.len()));
    for ((section, what), counts) in &counts {
        let title = SECTIONS[*section].title;
        let title = if what.is_empty() { title.to_owned() } else { format!("{title}: {what}") };
        let counts: Vec<_> = counts.iter().map(usize::to_string).collect();
        text += &format!("| {title} | {} |\n", counts.join(" | "));
    }
    // `check` fails where it is another number.
    text + &format!("| Missing | {} |\n", vec!["0"; lists.len()].join(" | "))
}

/// Where a page that was made from a header of this version, among others, disagrees with this one.
pub(crate) fn out_of_date(page: &str, rows: &[Row]) -> Vec<String> {
    let mut problems = Vec::new();
    for name in NOT_BOUND.iter().flat_map(|(_, names)| *names) {
        if !page.contains(&format!("| `{name}` |")) {
            problems.push(format!("{name} is in no header, and has a reason not to be bound"));
        }
    }
    let version = HEADER_VERSION.to_string();
    let is_list = |cell: &&str| {
        cell.starts_with("2.") && cell.chars().all(|character| character.is_ascii_digit() || ", .".contains(character))
    };
    let listed = page.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let cells: Vec<_> = rest.trim_end_matches(" |").split(" | ").collect();
        // The version that brought a function is in a cell before it.
        let at = cells.iter().rposition(is_list)?;
        let here = cells[at].split(", ").any(|header| header == version);
        here.then(|| (name, cells.get(at + 1).copied()))
    });
    let listed: BTreeMap<_, _> = listed.collect();
    if listed.is_empty() {
        return problems;
    }
    let found: BTreeSet<_> = here::ITEMS.iter().map(|item| item.name).collect();
    // Those of the kernel's headers depend on the kernel's version.
    let kernels = |name: &str| name.contains("_URING_CMD_") || name.ends_with("_uring_cmd");
    let names: BTreeSet<_> = listed.keys().copied().collect();
    for name in found.symmetric_difference(&names).filter(|name| !kernels(name)) {
        let (is, is_not) = if found.contains(name) { ("header", "page") } else { ("page", "header") };
        problems.push(format!("{name} is in the {is} for {version} and not in the {is_not}: scripts/ledger --write"));
    }
    for row in rows {
        let Some(&Some(listed)) = listed.get(row.name.as_str()) else { continue };
        let is = if row.bytes.is_empty() { row.what.trim_start_matches(NOT_BOUND_IS) } else { &row.bytes };
        if listed != is && !listed.split("; ").any(|part| of_version(part, &version) == Some(is)) {
            problems.push(format!("{}: {is} for {version}, {listed} in the page: scripts/ledger --write", row.name));
        }
    }
    problems
}

/// What `cell` wrote about one version among others.
fn of_version<'a>(part: &'a str, version: &str) -> Option<&'a str> {
    let (versions, value) = part.split_once(": ")?;
    versions.split(", ").any(|of| of == version).then_some(value)
}
