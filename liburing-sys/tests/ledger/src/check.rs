//! The comparison of the bindings with one header.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use liburing_sys::HEADER_VERSION;

use crate::names::{Item, Kind, c, here};
use crate::{Function, NOT_BOUND, NOT_BOUND_IS, Row};

/// Functions and constants of the bindings that are not liburing's.
const OWN: &[&str] = &[
    "FILE_NAME",
    "HEADER_VERSION",
    "OLDEST_VERSION",
    "has",
    "library_path",
    "library_version",
    "load",
    "load_from",
    "require",
    "since",
];

/// What is here, and what is wrong.
pub(crate) fn check(doc: &Path, functions: &BTreeMap<String, Function>) -> Result<(Vec<Row>, Vec<String>)> {
    let mut problems = Vec::new();
    let documented = documented(doc)?;
    let paths: BTreeMap<_, _> = here::functions().into_iter().collect();
    let constants = compare(here::constants(), c::constants(), &mut problems);
    let types = compare(here::types(), c::types(), &mut problems);

    let mut rows = Vec::new();
    for &Item { name, kind, header } in here::ITEMS {
        let bytes = constants.get(name).map(|value| value.size).or(types.get(name).map(|layout| layout.size));
        let what = match kind {
            Kind::Exported | Kind::Inline => paths[name].map(|path| provenance(kind, path)),
            Kind::Macro => documented.contains(&("fn".to_owned(), name.to_owned())).then_some("Rust"),
            Kind::Constant | Kind::Enumerator => constants.contains_key(name).then_some("constant"),
            Kind::Struct | Kind::Union | Kind::Enum | Kind::Typedef => types.contains_key(name).then_some("type"),
            Kind::Empty | Kind::Other => None,
        };
        let what = match (what, reason(name)) {
            (Some(what), None) => what.to_owned(),
            (None, Some(reason)) => format!("{NOT_BOUND_IS}{reason}"),
            (Some(_), Some(_)) => {
                problems.push(format!("{name} is bound, and has a reason not to be"));
                continue;
            }
            (None, None) => {
                problems.push(format!("{name} ({kind:?} in {header}) is missing"));
                continue;
            }
        };
        let kind = if header.starts_with("linux/") { "Kernel".to_owned() } else { format!("{kind:?}") };
        let bytes = bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        rows.push(Row { name: name.to_owned(), kind, bytes, what });
    }

    check_functions(functions, &paths, &mut problems);
    check_documentation(doc, functions, &documented, &mut problems)?;
    check_surplus(functions, &documented, &mut problems);
    Ok((rows, problems))
}

fn reason(name: &str) -> Option<&'static str> {
    NOT_BOUND.iter().find(|(_, names)| names.contains(&name)).map(|(reason, _)| *reason)
}

/// What the bindings have, by name.
fn compare<T: Copy + PartialEq + fmt::Display>(
    here: Vec<(&'static str, Option<T>)>,
    c: impl Iterator<Item = T>,
    problems: &mut Vec<String>,
) -> BTreeMap<&'static str, T> {
    let mut found = BTreeMap::new();
    for ((name, here), c) in here.into_iter().zip(c) {
        let Some(here) = here else { continue };
        if here != c {
            problems.push(format!("{name} is {here}, and {c} in C"));
        }
        found.insert(name, here);
    }
    found
}

/// Where a function comes from, by its path in the bindings.
fn provenance(kind: Kind, path: &str) -> &'static str {
    match path.split("::").nth(1) {
        Some("bindings") if kind == Kind::Exported => "exported",
        Some("bindings") => "shim",
        Some("quirks") => "overridden",
        _ => "Rust",
    }
}

/// Kind and name of everything that rustdoc lists.
fn documented(doc: &Path) -> Result<BTreeSet<(String, String)>> {
    let file = doc.join("all.html");
    let page = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let links = page.split("href=\"").filter_map(|rest| rest.split_once(".html\"")?.0.split_once('.'));
    Ok(links.map(|(kind, name)| (kind.to_owned(), name.to_owned())).collect())
}

/// functions.txt lists what the header declares, no more and no less.
fn check_functions(
    functions: &BTreeMap<String, Function>,
    paths: &BTreeMap<&str, Option<&str>>,
    problems: &mut Vec<String>,
) {
    for &name in paths.keys().filter(|name| reason(name).is_none()) {
        match functions.get(name) {
            None => problems.push(format!("{name} is not in functions.txt")),
            Some(function) if function.since > HEADER_VERSION => {
                problems.push(format!("{name} is in the header, and since {} in functions.txt", function.since));
            }
            Some(_) => {}
        }
    }
    for (name, function) in functions {
        if function.since <= HEADER_VERSION && !paths.contains_key(name.as_str()) {
            problems.push(format!("{name} is since {} in functions.txt, and not in the header", function.since));
        }
    }
}

/// Each function says since when it is in liburing, and links to its manual page.
fn check_documentation(
    doc: &Path,
    functions: &BTreeMap<String, Function>,
    documented: &BTreeSet<(String, String)>,
    problems: &mut Vec<String>,
) -> Result<()> {
    for (_, name) in documented.iter().filter(|(kind, name)| kind == "fn" && !OWN.contains(&name.as_str())) {
        let file = doc.join(format!("fn.{name}.html"));
        let page = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let expected = match functions.get(name) {
            Some(Function { since, section }) if section == "-" => format!("Since liburing {since}."),
            Some(Function { since, section }) => {
                let manual = format!("https://man7.org/linux/man-pages/man{section}/{name}.{section}.html");
                format!("Since liburing {since}; see <a href=\"{manual}\">{name}({section})</a>.")
            }
            // A macro in C.
            None => "Since liburing 2.".to_owned(),
        };
        if !page.contains(&expected) {
            problems.push(format!("the documentation of {name} lacks: {expected}"));
        }
    }
    Ok(())
}

/// Nothing is here under a name of liburing's that liburing does not have.
///
/// bindgen reads the header by itself: what it finds and this program does not is an error of one of them.
fn check_surplus(
    functions: &BTreeMap<String, Function>,
    documented: &BTreeSet<(String, String)>,
    problems: &mut Vec<String>,
) {
    let in_header: BTreeSet<_> = here::ITEMS.iter().map(|item| item.name).collect();
    for (kind, name) in documented {
        let is_liburings = match kind.as_str() {
            "fn" => !OWN.contains(&name.as_str()),
            // waitid's come along with its type.
            "constant" => !OWN.contains(&name.as_str()) && !name.starts_with("P_"),
            // Types without a name in C have one like io_uring_sqe__bindgen_ty_1.
            "struct" | "union" | "type" => name.starts_with("io_uring") && !name.contains("__bindgen_"),
            _ => false,
        };
        // Those in Rust are there with every header.
        let is_of_another =
            functions.contains_key(name) || ["IO_URING_CHECK_VERSION", "io_uring_cqe_index"].contains(&name.as_str());
        if is_liburings && !in_header.contains(name.as_str()) && !is_of_another {
            problems.push(format!("{name} ({kind}) is here, and nowhere in the header"));
        }
    }
}
