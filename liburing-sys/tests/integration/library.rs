//! Which library runs, and what is said where none can.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Barrier;
use std::thread;

use liburing_sys as sys;
use liburing_sys::LoadError;

const WITNESS: &str = "io_uring_register_sync_cancel";

/// Runs `body`, the test's own, in a new process: the library in use is the process's.
#[track_caller]
pub(crate) fn in_new_process(test: &str, body: impl FnOnce()) {
    in_new_process_for(test, "", body);
}

/// The same for one of several cases of a test.
#[track_caller]
pub(crate) fn in_new_process_for(test: &str, case: &str, body: impl FnOnce()) {
    const CHILD: &str = "LIBURING_SYS_CHILD";
    let child = format!("{test} {case}");
    if let Some(name) = env::var_os(CHILD) {
        if name == *child {
            body();
        }
        return;
    }
    let output = run_again([test, "--exact", "--nocapture"], CHILD, child.as_ref());
    let told = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && told.contains("1 passed");
    assert!(passed, "{child}: {told}{}", String::from_utf8_lossy(&output.stderr));
}

fn run_again<const N: usize>(args: [&str; N], variable: &str, value: &OsStr) -> Output {
    let program = env::current_exe().expect("a path of our own");
    Command::new(program).args(args).env(variable, value).output().expect("we can be run again")
}

/// Compiles a library with liburing's `SONAME` and first symbol version, and `source` in it.
fn stub(folder: &str, source: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).expect("a folder for the stub");
    let (c, map) = (folder.join("stub.c"), folder.join("stub.map"));
    fs::write(&c, source).expect("a source of the stub");
    fs::write(&map, "LIBURING_2.0 { global: *; };").expect("a map of the stub");
    let library = folder.join(sys::FILE_NAME);
    let mut command = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-shared", "-fPIC", "-Wl,-soname,liburing.so.2"]);
    command.arg(format!("-Wl,--version-script={}", map.display()));
    command.arg("-o").arg(&library).arg(&c);
    assert!(command.status().expect("a C compiler").success());
    library
}

/// Says why, and does not load it.
fn refused(path: &Path) -> LoadError {
    // SAFETY: the stubs have no initialisers, and the functions in them have the header's types.
    unsafe { sys::load_from(path) }.expect_err("not a library to be used")
}

#[test]
fn library_is_found_and_known() {
    assert_eq!(sys::load(), Ok(()));
    assert_eq!(sys::load(), Ok(()));
    let version = sys::library_version().expect("a version");
    assert!(version >= sys::OLDEST_VERSION, "{version}");
    assert!(sys::HEADER_VERSION >= sys::OLDEST_VERSION);
    let path = sys::library_path().expect("a path");
    let name = path.file_name().expect("a name").to_string_lossy();
    assert!(name.starts_with(sys::FILE_NAME), "{name}");
    println!("header {}, library {version} at {}", sys::HEADER_VERSION, path.display());
}

#[test]
fn versions_compare_by_number() {
    let version = |major, minor| sys::Version { major, minor };
    assert!(version(2, 15) > version(2, 9));
    assert!(version(3, 0) > version(2, 15));
    assert_eq!(version(2, 15).to_string(), "2.15");
}

#[test]
fn has_tells_exported_functions_only() {
    assert!(sys::has("io_uring_queue_init"));
    assert!(sys::has("__io_uring_get_cqe"));
    assert!(sys::has(WITNESS));
    let knows_its_version = sys::library_version() > Some(sys::OLDEST_VERSION);
    assert_eq!(sys::has("io_uring_major_version"), knows_its_version);
    for name in ["", "io_uring_prep_nop", "io_uring_none", "printf", "io_uring_\0", "io_uring_submit\0"] {
        assert!(!sys::has(name), "{name:?}");
    }
}

#[test]
fn a_function_that_is_missing_is_told_with_its_version() {
    assert_eq!(sys::require("io_uring_queue_init"), Ok(()));
    assert_eq!(sys::since("io_uring_clone_buffers"), Some(sys::Version { major: 2, minor: 8 }));
    assert_eq!(sys::since("io_uring_queue_init"), Some(sys::Version { major: 2, minor: 0 }));
    assert_eq!(sys::since("io_uring_clone_buffer"), None);
    assert_eq!(sys::since(""), None);
    assert_eq!(sys::since("#"), None);
    let running = sys::library_version().expect("a version");
    let cloned = sys::require("io_uring_clone_buffers");
    if running < (sys::Version { major: 2, minor: 8 }) {
        let text = cloned.expect_err("a library of before").to_string();
        let expected = format!("liburing {running} has no io_uring_clone_buffers, which came with 2.8: upgrade");
        assert!(text.starts_with(&expected), "{text}");
    } else {
        assert_eq!(cloned, Ok(()));
    }
    // Inline, and written in Rust: the library of 2.3 has neither.
    for callable in ["io_uring_prep_nop", "io_uring_get_sqe", "io_uring_enable_rings", "io_uring_prep_uring_cmd"] {
        assert_eq!(sys::require(callable), Ok(()));
    }
    let newest = running.max(sys::HEADER_VERSION);
    assert_eq!(sys::require("io_uring_minor_version").is_ok(), newest > sys::OLDEST_VERSION);
    let nothing = sys::require("io_uring_nothing").expect_err("no such function").to_string();
    let expected = format!("liburing {running} has no io_uring_nothing, and no other version that is known here");
    assert!(nothing.starts_with(&expected), "{nothing}");
}

#[test]
fn packagers_find_the_library_in_a_note() {
    let program = fs::read("/proc/self/exe").expect("our own program");
    let kind_and_name = [&0x407c_0c0a_u32.to_ne_bytes()[..], b"FDO\0"].concat();
    let note = program.windows(kind_and_name.len()).position(|bytes| bytes == kind_and_name);
    if cfg!(feature = "link") {
        assert_eq!(note, None, "DT_NEEDED says it");
        return;
    }
    let note = note.expect("a note");
    let size = u32::from_ne_bytes(program[note - 4..note].try_into().expect("four bytes")) as usize;
    let text = &program[note + kind_and_name.len()..][..size];
    let text = std::str::from_utf8(text).expect("a text").strip_suffix('\0').expect("a C string");
    assert!(text.starts_with("[{") && text.ends_with("}]"), "{text}");
    assert!(text.contains(&format!("\"soname\":[\"{}\"]", sys::FILE_NAME)), "{text}");
}

#[test]
fn library_in_use_may_be_named_again() {
    let path = sys::library_path().expect("a path");
    // SAFETY: the distribution's own library.
    unsafe {
        assert_eq!(sys::load_from(&path), Ok(()));
        assert_eq!(sys::load_from(sys::FILE_NAME), Ok(()));
    }
}

#[test]
fn another_library_is_refused_when_one_is_in_use() {
    let other = stub("another", &format!("int {WITNESS}(void *r, void *c) {{ return 0; }}"));
    let path = sys::library_path().expect("a path");
    let error = refused(&other);
    let LoadError::InUse { file, refused, .. } = &error else { panic!("{error}") };
    assert_eq!((file, refused), (&path, &other));
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()) && text.contains(&*other.to_string_lossy()));
    assert_eq!(sys::library_path(), Some(path));
}

#[test]
fn old_library_is_refused() {
    let old = stub("old", "int io_uring_queue_init(void) { return 0; }");
    if cfg!(feature = "link") {
        let folder = old.parent().expect("a folder");
        let output = run_again(["--list"], "LD_LIBRARY_PATH", folder.as_os_str());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "the loader accepted it");
        // glibc looks at the versions first, and only the witness needs that of 2.3.
        assert!(told.contains("LIBURING_2.3") || told.contains(WITNESS), "{told}");
        return;
    }
    in_new_process("library::old_library_is_refused", || {
        let error = refused(&old);
        assert!(matches!(&error, LoadError::TooOld { file, .. } if *file == old), "{error}");
        let text = error.to_string();
        let expected = format!(
            "{} is liburing 2.0; 2.3 or later is needed (built with the header of {}): upgrade liburing2",
            old.display(),
            sys::HEADER_VERSION
        );
        assert!(text.starts_with(&expected), "{text}");

        let newer = stub(
            "older",
            "int io_uring_queue_init(void) { return 0; } int io_uring_register_ring_fd(void *r) { return 0; }",
        );
        assert!(refused(&newer).to_string().contains(" is liburing 2.2; 2.3 or later"));
        let other = stub("other", "int something(void) { return 0; }");
        assert!(refused(&other).to_string().contains(" is not liburing, or older than 2.0; 2.3 or later"));
        assert_eq!(sys::load(), Ok(()), "a failure stays");
    });
}

#[test]
fn missing_library_is_told_in_one_line() {
    in_new_process("library::missing_library_is_told_in_one_line", || {
        let empty = refused(Path::new("")).to_string();
        assert_eq!(empty, "cannot load : the name of the file is empty");
        let nowhere = Path::new("/nowhere/liburing.so.2");
        let error = refused(nowhere);
        let text = error.to_string();
        assert!(text.starts_with("cannot load /nowhere/liburing.so.2: "), "{text}");
        assert!(!text.contains('\n'), "{text}");
        if cfg!(feature = "link") {
            assert!(matches!(error, LoadError::InUse { .. }), "{text}");
        } else {
            assert!(matches!(error, LoadError::Open { .. }), "{text}");
            assert!(text.ends_with("No such file or directory"), "{text}");
        }
        assert_eq!(sys::load(), Ok(()), "a failure stays");
    });
}

#[test]
fn eight_threads_load_one_library() {
    in_new_process("library::eight_threads_load_one_library", || {
        let start = Barrier::new(8);
        let paths: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        if number % 2 == 0 {
                            assert_eq!(sys::load(), Ok(()));
                        } else {
                            assert!(sys::has("io_uring_submit"));
                        }
                        sys::library_path()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(paths[0].is_some());
        assert!(paths.iter().all(|path| *path == paths[0]));
    });
}

#[cfg(all(feature = "dlopen", not(feature = "link")))]
#[test]
fn missing_function_panics_but_not_through_c() {
    in_new_process("library::missing_function_panics_but_not_through_c", || {
        let other = stub("empty", &format!("int {WITNESS}(void *r, void *c) {{ return 0; }}"));
        // SAFETY: its one function has the header's type.
        assert_eq!(unsafe { sys::load_from(&other) }, Ok(()));
        assert_eq!(sys::library_path(), Some(other));
        assert_eq!(sys::library_version(), Some(sys::OLDEST_VERSION));
        assert!(!sys::has("io_uring_submit"));

        // SAFETY: there is no such function to be called.
        let panicked = std::panic::catch_unwind(|| unsafe { sys::io_uring_get_probe() });
        let payload = panicked.expect_err("the stub has no such function");
        let text = payload.downcast_ref::<String>().expect("a text");
        assert!(
            text.starts_with("liburing 2.3 has no io_uring_get_probe, which came with 2.0: another library"),
            "{text}"
        );
        assert!(text.ends_with(&format!("(built with the header of {})", sys::HEADER_VERSION)), "{text}");

        let mut head = 0;
        // SAFETY: integers and pointers, for which zero is a value.
        let mut ring: sys::io_uring = unsafe { std::mem::zeroed() };
        ring.flags = sys::IORING_SETUP_SQPOLL;
        ring.sq.khead = &raw mut head;
        // SAFETY: with no entries the queue is full; the compiled function reads no more than this.
        assert_eq!(unsafe { sys::io_uring_sqring_wait(&mut ring) }, -libc::ENOSYS);
    });
}
