//! C that the tests compile, with the header that the bindings were made from.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libloading::Library;
use libloading::os::unix::{Library as UnixLibrary, RTLD_LOCAL, RTLD_NOW};

/// A folder for what a test makes.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder for what the test makes");
    folder
}

/// Runs `command`, which must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{told}", output.status);
    output
}

/// The C compiler with the flags that `source` of `tests/integration/c` needs, and those of `CFLAGS`.
pub(crate) fn compiler(source: &str) -> Command {
    let mut command = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-O1", "-g", "-fPIC", "-Wall"]);
    match env::var_os("LIBURING_INCLUDE_DIR") {
        Some(folders) => {
            for folder in env::split_paths(&folders) {
                command.arg("-I").arg(folder);
            }
        }
        None => _ = command.args(pkg_config(&["--cflags", "liburing"])),
    }
    command.args(env::var("CFLAGS").unwrap_or_default().split_whitespace());
    // What an instrumented C program is compiled with has no place in a program in Rust.
    command.args(["-fno-sanitize=all", "-fno-lto"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/c").join(source));
    command
}

/// Where the linker looks for liburing first, if that has to be said.
pub(crate) fn library_folder() -> Option<PathBuf> {
    let by_hand = env::var_os("LIBURING_LIB_DIR").map(PathBuf::from);
    by_hand.or_else(|| pkg_config(&["--variable=libdir", "liburing"]).first().map(PathBuf::from))
}

/// What pkg-config says, in words; nothing where it does not know or is not there.
fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("pkg-config").args(arguments).output();
    let told = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    told.split_whitespace().map(str::to_owned).collect()
}

/// Compiles `source` into a shared library called `name`; the linker gets `link` besides.
///
/// Written beside its place and moved there: several processes may do the same.
#[track_caller]
pub(crate) fn shared_library<A: AsRef<OsStr>>(source: &str, name: &str, link: &[A]) -> PathBuf {
    let library = folder("c").join(name);
    let draft = library.with_extension(std::process::id().to_string());
    let mut command = compiler(source);
    run(command.arg("-shared").arg("-o").arg(&draft).args(link));
    fs::rename(&draft, &library).expect("a library in its place");
    library
}

/// Loads a library that a test made.
#[track_caller]
pub(crate) fn load(library: &Path, more_flags: i32) -> Library {
    // SAFETY: neither the sources in `c` nor liburing have initialisers; a library in Rust has such that ask for nothing.
    let loaded = unsafe { UnixLibrary::open(Some(library), RTLD_NOW | RTLD_LOCAL | more_flags) };
    loaded.unwrap_or_else(|error| panic!("cannot load {}: {error}", library.display())).into()
}
