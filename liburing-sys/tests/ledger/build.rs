//! Lists what the C compiler finds in liburing's headers, and writes two halves of the program from the list: C that
//! tells what constants and types are there, and Rust that looks the same names up in the bindings.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// An object-like macro with one of these is no expression.
const STATEMENTS: &[&str] = &["__attribute__", "do", "extern", "for", "if", "inline", "return", "static", "while"];

/// What a header declares: name, then the variant of `Kind` that it is and the header's name.
type Items = BTreeMap<String, (&'static str, String)>;

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    // The folders that the bindings were made with, and the file that says what else is bound.
    println!("cargo::rerun-if-env-changed=DEP_URING_INCLUDE");
    println!("cargo::rerun-if-changed=../../wrapper.h");
    let mut compiler = cc::Build::new();
    let folders =
        env::var_os("DEP_URING_INCLUDE").context("the build script of sysuring-sys sets DEP_URING_INCLUDE")?;
    compiler.includes(env::split_paths(&folders).filter(|folder| !folder.as_os_str().is_empty()));
    compiler.include("../..").include(&out).warnings(false);

    let all = out.join("all.h");
    fs::write(&all, "#include \"wrapper.h\"\n")?;
    let folder = liburing_folder(&preprocess(&compiler, &all)?)?;
    let mut headers = Vec::new();
    find_headers(&folder.join("liburing"), &mut headers)?;
    let mut includes = fs::read_to_string(&all)?;
    for header in &headers {
        writeln!(includes, "#include <{}>", header.strip_prefix(&folder)?.display())?;
    }
    fs::write(&all, includes)?;

    let items = items(&preprocess(&compiler, &all)?, &folder);
    let values = out.join("values.c");
    fs::write(&values, c_half(&items))?;
    compiler.file(&values).try_compile("ledger_values").context("the C compiler does not know what it told us of")?;
    fs::write(out.join("items.rs"), rust_half(&items)).context("cannot write items.rs")
}

/// Text with all macros and with marks that say which line came from where.
fn preprocess(compiler: &cc::Build, header: &Path) -> Result<String> {
    let mut compiler = compiler.clone();
    let text = compiler.file(header).flag("-xc").flag("-dD").try_expand().context("the C preprocessor failed")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The file of a line like `# 12 "/usr/include/liburing.h" 1 3`.
fn marked_file(line: &str) -> Option<&Path> {
    let (number, rest) = line.strip_prefix("# ")?.split_once(" \"")?;
    number.parse::<u32>().ok()?;
    rest.split_once('"').map(|(file, _)| Path::new(file))
}

/// Where liburing.h is.
fn liburing_folder(text: &str) -> Result<PathBuf> {
    let mut files = text.lines().filter_map(marked_file);
    let header = files.find(|file| file.ends_with("liburing.h")).context("wrapper.h includes no liburing.h")?;
    Ok(header.parent().context("a file is in a folder")?.to_owned())
}

fn find_headers(folder: &Path, headers: &mut Vec<PathBuf>) -> Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_headers(&path, headers)?;
        } else if path.extension().is_some_and(|extension| extension == "h") {
            headers.push(path);
        }
    }
    headers.sort();
    Ok(())
}

/// What the headers of liburing declare, and the kernel's codes for `uring_cmd`.
fn items(text: &str, folder: &Path) -> Items {
    let mut items = Items::new();
    let mut declaration = Declaration::default();
    let mut header = None;
    for line in text.lines() {
        if let Some(file) = marked_file(line) {
            header = liburings(file, folder).or_else(|| kernels(file));
        } else if let Some(name) = line.strip_prefix("#undef ") {
            items.remove(name.trim());
        } else if let (Some(definition), Some(header)) = (line.strip_prefix("#define "), &header) {
            let end = definition.find([' ', '(']).unwrap_or(definition.len());
            let (name, rest) = definition.split_at(end);
            let kind = match rest.trim() {
                "" => "Empty",
                _ if rest.starts_with('(') => "Macro",
                body if tokens(body).iter().any(|token| STATEMENTS.contains(token)) => "Other",
                _ => "Constant",
            };
            items.insert(name.to_owned(), (kind, header.clone()));
        } else if !line.starts_with('#') {
            for token in tokens(line) {
                declaration.add(token);
                if declaration.is_complete() {
                    let complete = std::mem::take(&mut declaration);
                    if let Some(header) = &header {
                        complete.names(|name, kind| {
                            items.insert(name.to_owned(), (kind, header.clone()));
                        });
                    }
                }
            }
        }
    }
    items.retain(|name, (_, header)| !header.starts_with("linux/") || is_kernels(name));
    items
}

fn liburings(file: &Path, folder: &Path) -> Option<String> {
    let name = file.strip_prefix(folder).ok()?;
    (name == Path::new("liburing.h") || name.starts_with("liburing")).then(|| name.display().to_string())
}

fn kernels(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    file.parent()?.ends_with("linux").then(|| format!("linux/{name}"))
}

/// Whether a name of the kernel's headers belongs to passthrough: a code, or its argument.
fn is_kernels(name: &str) -> bool {
    name.contains("_URING_CMD_") || name.ends_with("_uring_cmd")
}

/// The words, numbers, strings and signs of a line of C without comments.
fn tokens(line: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        let length = if is_word(first) {
            rest.find(|character| !is_word(character)).unwrap_or(rest.len())
        } else if first == '"' || first == '\'' {
            let mut escaped = false;
            let end = rest[1..].find(|character| {
                let is_end = character == first && !escaped;
                escaped = character == '\\' && !escaped;
                is_end
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// A declaration at the outermost level, without the bodies of functions.
#[derive(Default)]
struct Declaration {
    tokens: Vec<String>,
    /// Parentheses, brackets and braces that are open.
    depth: usize,
    /// The depth at which a function's body began.
    body: Option<usize>,
    ended: bool,
}

impl Declaration {
    fn add(&mut self, token: &str) {
        let is_body = token == "{" && self.depth == 0 && self.function().is_some();
        match token {
            "{" | "(" | "[" => self.depth += 1,
            "}" | ")" | "]" => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if is_body {
            self.body = Some(0);
        }
        if self.body.is_none() {
            self.tokens.push(token.to_owned());
        }
        self.ended = self.depth == 0 && (token == ";" || (token == "}" && self.body.is_some()));
    }

    fn is_complete(&self) -> bool {
        self.ended
    }

    /// The name before the parameters, if this declares a function.
    fn function(&self) -> Option<&str> {
        let mut depth = 0;
        let mut before: Option<&str> = None;
        for token in &self.tokens {
            match token.as_str() {
                "(" if depth == 0 && before.is_some_and(is_name) => return before,
                "(" | "{" | "[" => depth += 1,
                ")" | "}" | "]" => depth -= 1,
                "=" if depth == 0 => return None,
                _ => {}
            }
            before = Some(token);
        }
        None
    }

    /// Names of what is declared: one function, or types and the constants in them.
    fn names(&self, mut found: impl FnMut(&str, &'static str)) {
        if self.tokens.first().is_some_and(|first| first == "typedef") {
            if let [.., name, _] = self.tokens.as_slice() {
                found(name, "Typedef");
            }
        } else if let Some(name) = self.function() {
            let is_static = self.tokens.iter().any(|token| token == "static");
            found(name, if is_static { "Inline" } else { "Exported" });
            return;
        }
        let mut rest = self.tokens.as_slice();
        while let [first, after @ ..] = rest {
            let kind = match first.as_str() {
                "struct" => Some("Struct"),
                "union" => Some("Union"),
                "enum" => Some("Enum"),
                _ => None,
            };
            if let (Some(kind), [name, brace, ..]) = (kind, after) {
                if is_name(name) && brace == "{" {
                    found(name, kind);
                }
                if kind == "Enum" {
                    let body = after.iter().skip_while(|token| *token != "{").skip(1);
                    enumerators(body.map(String::as_str), &mut found);
                }
            }
            rest = after;
        }
    }
}

fn is_name(token: &str) -> bool {
    let is_word = token.starts_with(|character: char| character.is_alphabetic() || character == '_');
    is_word && !matches!(token, "__attribute__" | "__asm__" | "__extension__" | "__typeof__" | "_Static_assert")
}

fn enumerators<'a>(body: impl Iterator<Item = &'a str>, found: &mut impl FnMut(&str, &'static str)) {
    let mut depth = 0;
    let mut expected = true;
    for token in body {
        match token {
            "}" if depth == 0 => break,
            "(" => depth += 1,
            ")" => depth -= 1,
            "," if depth == 0 => expected = true,
            _ if expected => {
                found(token, "Enumerator");
                expected = false;
            }
            _ => {}
        }
    }
}

fn of_kind<'a>(items: &'a Items, kinds: &'a [&str]) -> impl Iterator<Item = (&'a str, &'static str)> {
    items.iter().filter(|(_, (kind, _))| kinds.contains(kind)).map(|(name, (kind, _))| (name.as_str(), *kind))
}

const CONSTANTS: &[&str] = &["Constant", "Enumerator"];
const FUNCTIONS: &[&str] = &["Exported", "Inline"];
const TYPES: &[&str] = &["Enum", "Struct", "Typedef", "Union"];

fn c_half(items: &Items) -> String {
    let mut text = String::from(
        "#include \"all.h\"\n\
         struct constant { unsigned long long bits; unsigned size, is_signed; };\n\
         struct type { unsigned long long size, align; };\n",
    );
    text += "const struct constant ledger_constants[] = {\n";
    for (name, _) in of_kind(items, CONSTANTS) {
        text += &format!("    {{ (unsigned long long)({name}), sizeof({name}), (__typeof__({name}))-1 < 1 }},\n");
    }
    text += "    { 0 }\n};\nconst struct type ledger_types[] = {\n";
    for (name, kind) in of_kind(items, TYPES) {
        let c = if kind == "Typedef" { name.to_owned() } else { format!("{} {name}", kind.to_lowercase()) };
        text += &format!("    {{ sizeof({c}), __alignof__({c}) }},\n");
    }
    // That they are functions is all that there is to see here.
    text += "    { 0 }\n};\nconst struct type ledger_functions[] = {\n";
    for (name, _) in of_kind(items, FUNCTIONS) {
        text += &format!("    {{ sizeof(&{name}) }},\n");
    }
    text + "    { 0 }\n};\n"
}

/// A name that the bindings lack means, in Rust, the one of the same name in the module around: a stand-in.
fn rust_half(items: &Items) -> String {
    let mut text = String::from("pub const ITEMS: &[Item] = &[\n");
    for (name, (kind, header)) in items {
        text += &format!("    Item {{ name: {name:?}, kind: Kind::{kind}, header: {header:?} }},\n");
    }
    text += "];\n";

    let (mut constants, mut functions, mut types) = (String::new(), String::new(), String::new());
    let mut stand_ins = BTreeSet::new();
    for (name, _) in of_kind(items, CONSTANTS) {
        stand_ins.insert(format!("const {name}: Missing = Missing;\n"));
        constants += &format!("        ({name:?}, {name}.look()),\n");
    }
    for (name, _) in of_kind(items, FUNCTIONS) {
        stand_ins.insert(format!("fn {name}() -> Missing {{ Missing }}\n"));
        functions += &format!("        ({name:?}, function(&{name}, {name} as *const ())),\n");
    }
    for (name, _) in of_kind(items, TYPES) {
        stand_ins.insert(format!("struct {name} {{}}\n"));
        types += &format!("        ({name:?}, look_at_type::<{name}>()),\n");
    }
    text.extend(stand_ins);
    for (function, item, list) in [
        ("constants", "Option<Value>", constants),
        ("functions", "Option<&'static str>", functions),
        ("types", "Option<Layout>", types),
    ] {
        text += &format!(
            "pub fn {function}() -> Vec<(&'static str, {item})> {{\n    \
             #[allow(unused_imports)]\n    use liburing_sys::*;\n    vec![\n{list}    ]\n}}\n"
        );
    }
    text
}
