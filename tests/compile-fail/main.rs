//! What must not compile.
//!
//! Each file in `ring/` and `block/` attacks one rule of ownership, named in its first line. The lines under `#[cfg(bad)]` break
//! the rule; the file has to be refused with them, and to compile without them, so that no case fails for another reason than
//! the one that it is about. A line that has to be refused says with what:
//!
//! ```text
//! #[cfg(bad)]
//! drop(buf); //~ E0382
//! ```
//!
//! which is one or more error codes or, where the compiler gives none, its message; `//~^` is about the line above. What is
//! named has to be there, and no other line may be refused. Whole messages are not compared: they differ from one compiler to
//! the next, while lines and codes do not, so that every compiler is a test.
#![cfg(all(target_os = "linux", any(feature = "link", feature = "dlopen")))]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fewer cases than that means that they were not found.
const LEAST: usize = 25;

/// The number of a line, and the error there.
type Errors = BTreeSet<(usize, String)>;

#[test]
fn what_breaks_a_rule_does_not_compile() {
    let library = library();
    let cases = cases();
    assert!(cases.len() >= LEAST, "{} cases were found", cases.len());

    check_corrected(&cases, &library);

    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = check(case, &library) {
                wrong.lock().unwrap().push(format!("{}: {why}", case.display()));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(8) {
            scope.spawn(work);
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    assert!(wrong.is_empty(), "of {} cases {} are wrong:\n\n{}", cases.len(), wrong.len(), wrong.join("\n"));
    println!("{} cases do not compile, and do when they are corrected", cases.len());
}

/// The files that this build has what they are about for.
fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile-fail");
    let folders: &[&str] = if cfg!(feature = "block") { &["ring", "block"] } else { &["ring"] };
    let files = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let mut cases: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    cases.sort();
    cases
}

/// All of them without what breaks the rules, as modules of one program: that takes a hundredth of the time.
fn check_corrected(cases: &[PathBuf], library: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("corrected.rs");
    let modules = cases.iter().enumerate();
    let modules = modules.map(|(index, case)| format!("#[path = {case:?}]\npub mod case_{index};\n"));
    fs::write(&program, modules.collect::<String>()).unwrap();
    let (errors, said) = compile(&program, library, &[]);
    assert!(errors.is_empty(), "what is corrected does not compile:\n{said}");
}

fn check(case: &Path, library: &Path) -> Result<(), String> {
    let text = fs::read_to_string(case).map_err(|error| error.to_string())?;
    if !text.starts_with("//! ") {
        return Err("the first line has to say which rule it attacks".into());
    }
    let expected = expected(&text);
    if expected.is_empty() {
        return Err("no line says what it has to be refused with (//~)".into());
    }
    let (errors, said) = compile(case, library, &["--cfg", "bad"]);
    if errors.is_empty() {
        return Err("COMPILES, and must not".into());
    }
    // A mistake may have a second error in its wake: in the same line, and not with every compiler.
    let is_marked = |line| expected.iter().any(|(marked, _)| *marked == line);
    if !errors.is_superset(&expected) || !errors.iter().all(|(line, _)| is_marked(*line)) {
        return Err(format!("refused for other reasons than {expected:?}:\n{said}"));
    }
    Ok(())
}

/// What the lines of a case have to be refused with.
fn expected(text: &str) -> Errors {
    let mut errors = Errors::new();
    for (line, text) in (1..).zip(text.lines()) {
        let Some((_, marked)) = text.split_once("//~") else { continue };
        // rustfmt puts what follows a brace on a line of its own.
        let (line, marked) = match marked.strip_prefix('^') {
            Some(marked) => (line - 1, marked.trim()),
            None => (line, marked.trim()),
        };
        if marked.split(' ').all(is_code) {
            errors.extend(marked.split(' ').map(|code| (line, code.to_owned())));
        } else {
            errors.insert((line, marked.to_owned()));
        }
    }
    errors
}

fn is_code(word: &str) -> bool {
    word.strip_prefix('E').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The errors in a file, and all that the compiler said.
fn compile(case: &Path, library: &Path, arguments: &[&str]) -> (Errors, String) {
    let name = case.file_name().unwrap().to_str().unwrap();
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .current_dir(case.parent().unwrap())
        .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--crate-name", "case"])
        .args(["--error-format", "short", "--cap-lints", "allow", "--check-cfg", "cfg(bad)"])
        .args(arguments)
        .arg("--out-dir")
        .arg(tempfile::tempdir().unwrap().path())
        .arg("--extern")
        .arg(format!("sysuring={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", library.parent().unwrap().display()))
        .arg(name)
        .output()
        .expect("the compiler that built this test starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut errors: Errors = said.lines().filter_map(|line| error_of(line, name)).collect();
    if errors.is_empty() && !output.status.success() {
        errors.insert((0, said.clone()));
    }
    (errors, said)
}

/// `name.rs:12:5: error[E0382]: use of moved value`, or without a code.
fn error_of(line: &str, name: &str) -> Option<(usize, String)> {
    let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')) else {
        // Of no line of the case: of the command, or in another file.
        let is_error = line.contains("error: ") || line.contains("error[");
        return (is_error && !line.starts_with("error: aborting due to")).then(|| (0, line.to_owned()));
    };
    let (place, what) = rest.split_once(": error")?;
    let number = place.split(':').next()?.parse().ok()?;
    let what = match what.strip_prefix('[') {
        Some(code) => code.split(']').next()?,
        // The same message once more is the label of the place.
        None => what.strip_prefix(": ")?.split(": ").next()?,
    };
    Some((number, what.to_owned()))
}

/// The library with the features of this test, as the compiler that built this test has compiled it.
fn library() -> PathBuf {
    let features =
        [("dlopen", cfg!(feature = "dlopen")), ("link", cfg!(feature = "link")), ("block", cfg!(feature = "block"))];
    let features: Vec<_> = features.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["check", "--package", "sysuring", "--lib", "--no-default-features", "--features", &features.join(",")])
        // All of it is here: this test was built with it.
        .args(["--offline", "--message-format", "json"])
        // The cases are compiled for the machine that compiles them.
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("the cargo that runs this test starts");
    let messages = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the library does not build:\n{said}\n{messages}");
    let files = messages.lines().flat_map(|message| message.split('"'));
    let mut libraries = files.filter(|file| {
        let name = file.rsplit('/').next().unwrap_or_default();
        name.starts_with("libsysuring-") && name.ends_with(".rmeta")
    });
    let library = libraries.next().expect("cargo names what it built");
    assert_eq!(libraries.next(), None, "there is one library of that name");
    library.into()
}
