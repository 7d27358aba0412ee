//! One ring that C and Rust use, and two copies of liburing in one process.

use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::ffi::{CStr, OsStr, c_int, c_uint, c_void};
use std::fs;
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use libloading::Library;
use libloading::os::unix::Library as UnixLibrary;
use liburing_sys as sys;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::prop_oneof;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::c;
use crate::library::in_new_process;

const ENTRIES: u32 = 8;
const ALL: usize = 4 * ENTRIES as usize;

type Ring = *mut sys::io_uring;

/// What both languages can do with a ring: `tests/integration/c/languages.c`, and the same in Rust.
#[derive(Clone, Copy)]
struct Language {
    ring_size: unsafe extern "C" fn() -> usize,
    submit_address: unsafe extern "C" fn() -> *const c_void,
    set_up: unsafe extern "C" fn(Ring, c_uint, c_uint) -> c_int,
    take_down: unsafe extern "C" fn(Ring),
    get: unsafe extern "C" fn(Ring, u64) -> c_int,
    submit: unsafe extern "C" fn(Ring) -> c_int,
    submit_and_wait: unsafe extern "C" fn(Ring, c_uint) -> c_int,
    peek: unsafe extern "C" fn(Ring, *mut u64) -> c_int,
    wait: unsafe extern "C" fn(Ring, *mut u64) -> c_int,
    walk: unsafe extern "C" fn(Ring, *mut u64, c_uint) -> c_uint,
    state: unsafe extern "C" fn(Ring, *mut [c_uint; 10]),
}

impl Language {
    /// Takes the functions of a library made from `languages.c`, which stays.
    fn c(library: Library) -> Self {
        // SAFETY: the functions have the types of the fields, and the library is never closed.
        unsafe {
            let language = Self {
                ring_size: *library.get(b"c_ring_size").expect("a function"),
                submit_address: *library.get(b"c_submit_address").expect("a function"),
                set_up: *library.get(b"c_set_up").expect("a function"),
                take_down: *library.get(b"c_take_down").expect("a function"),
                get: *library.get(b"c_get").expect("a function"),
                submit: *library.get(b"c_submit").expect("a function"),
                submit_and_wait: *library.get(b"c_submit_and_wait").expect("a function"),
                peek: *library.get(b"c_peek").expect("a function"),
                wait: *library.get(b"c_wait").expect("a function"),
                walk: *library.get(b"c_walk").expect("a function"),
                state: *library.get(b"c_state").expect("a function"),
            };
            mem::forget(library);
            language
        }
    }

    /// C as it is mostly built, linked to the liburing that is found here.
    fn linked_c() -> Self {
        let mut link = vec!["-luring".into()];
        link.extend(c::library_folder().map(|folder| format!("-L{}", folder.display())));
        Self::c(c::load(&c::shared_library("languages.c", "languages.so", &link), 0))
    }
}

const RUST: Language = Language {
    ring_size: in_rust::ring_size,
    submit_address: in_rust::submit_address,
    set_up: in_rust::set_up,
    take_down: in_rust::take_down,
    get: in_rust::get,
    submit: in_rust::submit,
    submit_and_wait: in_rust::submit_and_wait,
    peek: in_rust::peek,
    wait: in_rust::wait,
    walk: in_rust::walk,
    state: in_rust::state,
};

/// Line by line what `languages.c` does.
#[allow(clippy::undocumented_unsafe_blocks, reason = "all callers owe the same: a ring that only this thread uses")]
mod in_rust {
    use super::{Library, Ring, UnixLibrary, c_int, c_uint, c_void, ptr, sys};

    pub(super) unsafe extern "C" fn ring_size() -> usize {
        size_of::<sys::io_uring>()
    }

    /// In the library in use, by its file: with `dlopen`, the function in Rust is another.
    pub(super) unsafe extern "C" fn submit_address() -> *const c_void {
        let path = sys::library_path().expect("a library");
        let library = unsafe { UnixLibrary::open(Some(path), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        let library = Library::from(library.expect("loaded already"));
        unsafe { *library.get::<*const c_void>(b"io_uring_submit").expect("a function") }
    }

    pub(super) unsafe extern "C" fn set_up(ring: Ring, entries: c_uint, flags: c_uint) -> c_int {
        unsafe { sys::io_uring_queue_init(entries, ring, flags) }
    }

    pub(super) unsafe extern "C" fn take_down(ring: Ring) {
        unsafe { sys::io_uring_queue_exit(ring) };
    }

    pub(super) unsafe extern "C" fn get(ring: Ring, user_data: u64) -> c_int {
        unsafe {
            let sqe = sys::io_uring_get_sqe(ring);
            if sqe.is_null() {
                return -libc::EAGAIN;
            }
            sys::io_uring_prep_nop(sqe);
            sys::io_uring_sqe_set_data64(sqe, user_data);
        }
        0
    }

    pub(super) unsafe extern "C" fn submit(ring: Ring) -> c_int {
        unsafe { sys::io_uring_submit(ring) }
    }

    pub(super) unsafe extern "C" fn submit_and_wait(ring: Ring, count: c_uint) -> c_int {
        unsafe { sys::io_uring_submit_and_wait(ring, count) }
    }

    unsafe fn take(ring: Ring, cqe: *mut sys::io_uring_cqe, user_data: *mut u64) -> c_int {
        unsafe {
            let result = (*cqe).res;
            *user_data = sys::io_uring_cqe_get_data64(cqe);
            sys::io_uring_cqe_seen(ring, cqe);
            result
        }
    }

    pub(super) unsafe extern "C" fn peek(ring: Ring, user_data: *mut u64) -> c_int {
        let mut cqe = ptr::null_mut();
        match unsafe { sys::io_uring_peek_cqe(ring, &mut cqe) } {
            0 => unsafe { take(ring, cqe, user_data) },
            error => error,
        }
    }

    pub(super) unsafe extern "C" fn wait(ring: Ring, user_data: *mut u64) -> c_int {
        let mut cqe = ptr::null_mut();
        match unsafe { sys::io_uring_wait_cqe(ring, &mut cqe) } {
            0 => unsafe { take(ring, cqe, user_data) },
            error => error,
        }
    }

    pub(super) unsafe extern "C" fn walk(ring: Ring, user_data: *mut u64, room: c_uint) -> c_uint {
        let mut count = 0;
        unsafe {
            for cqe in sys::io_uring_for_each_cqe(ring).take(room as usize) {
                *user_data.add(count as usize) = sys::io_uring_cqe_get_data64(cqe);
                count += 1;
            }
            sys::io_uring_cq_advance(ring, count);
        }
        count
    }

    pub(super) unsafe extern "C" fn state(ring: Ring, state: *mut [c_uint; 10]) {
        unsafe {
            *state = [
                sys::io_uring_sq_ready(ring),
                sys::io_uring_sq_space_left(ring),
                sys::io_uring_cq_ready(ring),
                sys::io_uring_cq_has_overflow(ring).into(),
                *(*ring).sq.khead,
                *(*ring).sq.ktail,
                (*ring).sq.sqe_head,
                (*ring).sq.sqe_tail,
                *(*ring).cq.khead,
                *(*ring).cq.ktail,
            ];
        }
    }
}

/// A ring that languages take turns with, and what must be in it.
struct SharedRing {
    ring: Box<sys::io_uring>,
    /// Who closes it.
    last: Language,
    gotten: VecDeque<u64>,
    submitted: VecDeque<u64>,
}

impl SharedRing {
    /// `None`, and a word why, where the kernel refuses.
    fn new(first: Language, last: Language, flags: c_uint) -> Option<Self> {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut ring: Box<sys::io_uring> = Box::new(unsafe { mem::zeroed() });
        // SAFETY: the ring stays in its box until `last` takes it down.
        let mut result = unsafe { (first.set_up)(&mut *ring, ENTRIES, flags) };
        if result == -libc::EINVAL && flags != 0 {
            // SAFETY: as above: there is none yet.
            result = unsafe { (first.set_up)(&mut *ring, ENTRIES, 0) };
        }
        if result < 0 {
            eprintln!("skipped: io_uring_setup is refused here: {}", io::Error::from_raw_os_error(-result));
            return None;
        }
        Some(Self { ring, last, gotten: VecDeque::new(), submitted: VecDeque::new() })
    }

    fn take(&mut self, step: Step, language: Language, user_data: u64) {
        let mut data = [0; ALL];
        let ring: Ring = &raw mut *self.ring;
        // SAFETY: a ring that this thread uses alone, with operations that name no memory; room for what is written.
        unsafe {
            match step {
                Step::Get => {
                    let result = (language.get)(ring, user_data);
                    if self.gotten.len() == ENTRIES as usize {
                        assert_eq!(result, -libc::EAGAIN);
                    } else {
                        assert_eq!(result, 0);
                        self.gotten.push_back(user_data);
                    }
                }
                // The completion queue has two places for each entry.
                Step::Submit if self.gotten.len() + self.submitted.len() <= 2 * ENTRIES as usize => {
                    assert_eq!((language.submit)(ring), self.gotten.len() as c_int);
                    self.submitted.append(&mut self.gotten);
                }
                Step::SubmitAndWait if self.gotten.len() + self.submitted.len() <= 2 * ENTRIES as usize => {
                    let all = (self.gotten.len() + self.submitted.len()) as c_uint;
                    assert_eq!((language.submit_and_wait)(ring, all), self.gotten.len() as c_int);
                    self.submitted.append(&mut self.gotten);
                }
                Step::Submit | Step::SubmitAndWait => {}
                Step::Peek => {
                    let result = (language.peek)(ring, data.as_mut_ptr());
                    match self.submitted.pop_front() {
                        Some(expected) => assert_eq!((result, data[0]), (0, expected)),
                        None => assert_eq!(result, -libc::EAGAIN),
                    }
                }
                Step::Wait => {
                    if let Some(expected) = self.submitted.pop_front() {
                        assert_eq!((language.wait)(ring, data.as_mut_ptr()), 0);
                        assert_eq!(data[0], expected);
                    }
                }
                Step::Walk => {
                    let count = (language.walk)(ring, data.as_mut_ptr(), ALL as c_uint);
                    assert_eq!(data[..count as usize], *self.submitted.make_contiguous());
                    self.submitted.clear();
                }
            }
        }
    }

    /// Asks a language what it sees of the ring; that is what must be in it.
    fn state(&mut self, language: Language) -> [c_uint; 10] {
        let mut state = [0; 10];
        // SAFETY: a ring that this thread uses alone.
        unsafe { (language.state)(&mut *self.ring, &mut state) };
        let gotten = self.gotten.len() as c_uint;
        assert_eq!(state[..4], [gotten, ENTRIES - gotten, self.submitted.len() as c_uint, 0]);
        state
    }
}

impl Drop for SharedRing {
    fn drop(&mut self) {
        // SAFETY: set up in `new`, and not used after this.
        unsafe { (self.last.take_down)(&mut *self.ring) };
    }
}

/// What a language does with a ring.
#[derive(Clone, Copy, Debug)]
enum Step {
    Get,
    Submit,
    SubmitAndWait,
    Peek,
    Wait,
    Walk,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Get),
        2 => Just(Step::Submit),
        1 => Just(Step::SubmitAndWait),
        2 => Just(Step::Peek),
        1 => Just(Step::Wait),
        1 => Just(Step::Walk),
    ]
}

/// Has the two take turns with one ring in any order, from its set-up to its end.
#[track_caller]
fn assert_share_a_ring(languages: [Language; 2]) {
    // SAFETY: no more than a sizeof.
    let sizes = languages.map(|language| unsafe { (language.ring_size)() });
    assert_eq!(sizes, [size_of::<sys::io_uring>(); 2]);
    if SharedRing::new(languages[0], languages[1], 0).is_none() {
        return;
    }
    let flags = select(vec![0, sys::IORING_SETUP_SQE128 | sys::IORING_SETUP_CQE32]);
    let steps = vec((step(), 0..2_usize), 1..120);
    let config = Config { cases: 48, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let outcome =
        TestRunner::new(config).run(&(0..2_usize, 0..2_usize, flags, steps), |(first, last, flags, steps)| {
            let mut shared = SharedRing::new(languages[first], languages[last], flags).expect("as before");
            for (number, (step, language)) in (1..).zip(steps) {
                shared.take(step, languages[language], u64::from(language == 0) << 63 | number);
                let [one, other] = languages.map(|language| shared.state(language));
                assert_eq!(one, other, "after {step:?}");
            }
            Ok(())
        });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The file that an address was mapped from.
fn file_of(address: *const c_void) -> PathBuf {
    // SAFETY: four words and pointers, for which zero is a value.
    let mut info: libc::Dl_info = unsafe { mem::zeroed() };
    // SAFETY: the address is only looked up, and the name is read while its library stays.
    let name = unsafe {
        assert_ne!(libc::dladdr(address, &mut info), 0, "{address:?} is in no file");
        CStr::from_ptr(info.dli_fname)
    };
    fs::canonicalize(OsStr::from_bytes(name.to_bytes())).expect("the file is there")
}

/// The file of the library that this crate uses.
fn library_in_use() -> PathBuf {
    fs::canonicalize(sys::library_path().expect("a library")).expect("the file is there")
}

#[test]
fn one_ring_is_used_from_c_and_rust() {
    assert_share_a_ring([RUST, Language::linked_c()]);
}

#[track_caller]
fn assert_same_copy() {
    // SAFETY: they return an address.
    let [c, rust] = [Language::linked_c(), RUST].map(|language| unsafe { (language.submit_address)() });
    assert_eq!(c, rust, "{} and {}", file_of(c).display(), file_of(rust).display());
    assert_eq!(file_of(c), library_in_use());
    #[cfg(not(feature = "dlopen"))]
    assert_eq!(sys::io_uring_submit as *const c_void, c);
}

#[test]
fn c_and_rust_have_the_same_copy_whoever_is_first() {
    in_new_process("languages::c_and_rust_have_the_same_copy_whoever_is_first", || {
        assert_eq!(sys::load(), Ok(()));
        assert_same_copy();
    });
}

#[test]
fn rust_takes_the_copy_that_c_has_loaded() {
    in_new_process("languages::rust_takes_the_copy_that_c_has_loaded", assert_same_copy);
}

/// The distribution's static library; `None`, and a word why, where it has none.
fn archive() -> Option<PathBuf> {
    let folders = c::library_folder().into_iter().chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
    let archive = folders.map(|folder| folder.join("liburing.a")).find(|archive| archive.exists());
    if archive.is_none() {
        println!("skipped: there is no liburing.a here");
    }
    archive
}

/// Two rings side by side, each through its own copy of liburing, and then one through both.
#[track_caller]
fn assert_no_harm(other: Language) {
    let (Some(mut ours), Some(mut theirs)) = (SharedRing::new(RUST, RUST, 0), SharedRing::new(other, other, 0)) else {
        return;
    };
    for round in 0..200 {
        for step in [Step::Get, Step::Get, Step::Submit, Step::Wait, Step::Peek] {
            ours.take(step, RUST, round);
            theirs.take(step, other, !round);
            ours.state(RUST);
            theirs.state(other);
        }
    }
    drop((ours, theirs));
    assert_share_a_ring([RUST, other]);
}

fn second_copy(name: &str, archive: &Path, more: &[&str]) -> PathBuf {
    let link: Vec<_> = [archive.as_os_str()].into_iter().chain(more.iter().map(OsStr::new)).collect();
    c::shared_library("languages.c", name, &link)
}

#[test]
fn second_copy_in_a_c_library_does_no_harm() {
    let Some(archive) = archive() else { return };
    let path = second_copy("second.so", &archive, &["-Wl,--exclude-libs,ALL"]);
    let second = Language::c(c::load(&path, 0));
    // SAFETY: it returns an address.
    let address = unsafe { (second.submit_address)() };
    assert_eq!(file_of(address), fs::canonicalize(path).expect("the library"));
    assert_ne!(file_of(address), library_in_use());
    assert_no_harm(second);
}

/// A library that exports the copy that it carries: the dynamic linker decides whose functions are called.
#[test]
fn second_copy_that_is_exported_does_no_harm() {
    let Some(archive) = archive() else { return };
    in_new_process("languages::second_copy_that_is_exported_does_no_harm", || {
        let path = second_copy("exported.so", &archive, &[]);
        // Before ours, and in front of it for every library that is loaded later.
        let second = Language::c(c::load(&path, libc::RTLD_GLOBAL));
        // SAFETY: it returns an address.
        let address = unsafe { (second.submit_address)() };
        // A program that is linked to liburing has it in front of everything.
        let expected = if cfg!(feature = "link") { library_in_use() } else { fs::canonicalize(path).expect("it") };
        assert_eq!(file_of(address), expected);
        // SAFETY: as above.
        assert_eq!(file_of(unsafe { (RUST.submit_address)() }), library_in_use());
        assert_no_harm(second);
    });
}

/// `None`, and a word why, where there is no cargo that builds for this machine.
fn cargo() -> Option<Command> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    match Command::new(&cargo).arg("-vV").output() {
        Err(error) => println!("skipped: there is no cargo to build a dependent crate with: {error}"),
        Ok(told) if String::from_utf8_lossy(&told.stdout).contains(&format!("host: {}-", env::consts::ARCH)) => {
            return Some(Command::new(cargo));
        }
        Ok(_) => println!("skipped: cargo builds dependent crates for another machine than this"),
    }
    None
}

/// Builds a crate that depends on this one with its feature(s) `mode`; returns what came out.
///
/// In the target directory of this build, so that little has to be built.
#[track_caller]
fn dependent(source: &str, mode: &str, native: Option<&Path>) -> Option<PathBuf> {
    let is_library = source == "library";
    let name = format!("dependent_{source}_{}", mode.replace(',', "_"));
    let folder = c::folder(&name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/integration/dependents").join(source).with_extension("rs");
    let (target, kind) = if is_library { ("[lib]", "crate-type = [\"cdylib\"]") } else { ("[[bin]]", "") };
    let features: Vec<_> = mode.split(',').collect();
    let manifest = format!(
        "[package]\nname = {name:?}\nedition = \"2024\"\n\n[workspace]\n\n{target}\nname = {name:?}\npath = {path:?}\n{kind}\n\n\
         [dependencies]\nlibc = \"0.2\"\nliburing-sys = {{ package = \"sysuring-sys\", path = {root:?}, \
         default-features = false, features = {features:?} }}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).expect("a manifest");
    // The same versions, which are here.
    let locks = [root.join("../Cargo.lock"), root.join("Cargo.lock")];
    if let Some(lock) = locks.iter().find(|lock| lock.exists()) {
        fs::copy(lock, folder.join("Cargo.lock")).expect("a lock file");
    }
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let mut command = cargo()?;
    command.args(["rustc", "--offline", "--message-format=json-render-diagnostics"]);
    command.arg(if is_library { "--lib" } else { "--bins" });
    command.env("CARGO_TARGET_DIR", target_dir).current_dir(&folder).arg("--");
    if let Some(native) = native {
        command.arg("-L").arg(format!("native={}", native.display()));
    }
    let told = c::run(&mut command).stdout;
    let told = String::from_utf8_lossy(&told);
    let artifact = told.lines().rfind(|line| line.contains("\"reason\":\"compiler-artifact\"") && line.contains(&name));
    let files = artifact.and_then(|line| line.split_once("\"filenames\":[\"")).expect("what was built").1;
    Some(files.split('"').next().expect("the first").into())
}

/// What a library exports.
fn exported(library: &Path) -> BTreeSet<String> {
    let output = c::run(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library));
    let names = String::from_utf8(output.stdout).expect("names");
    names.lines().filter_map(|line| line.split([' ', '@']).next()).map(str::to_owned).collect()
}

#[track_caller]
fn assert_exports_nothing_else(mode: &str) {
    let Some(library) = dependent("library", mode, None) else { return };
    let mut names = exported(&library);
    assert!(names.remove("round_trip"), "{names:?}");
    assert!(names.is_empty(), "with {mode}, a library in Rust exports {names:?}");

    // It has a crate like ours of its own.
    let library = c::load(&library, 0);
    // SAFETY: the function has this type.
    let round_trip = unsafe { library.get::<extern "C" fn() -> c_int>(b"round_trip") }.expect("the function");
    let result = round_trip();
    if SharedRing::new(RUST, RUST, 0).is_some() {
        assert_eq!(result, 0);
    }
    // What Rust has in it may have registered with the C library.
    mem::forget(library);
}

#[test]
fn library_in_rust_exports_its_own_functions_only() {
    for mode in ["link", "dlopen", "link,dlopen"] {
        assert_exports_nothing_else(mode);
    }
}

#[track_caller]
fn assert_runs(program: Option<PathBuf>) {
    if let (Some(program), Some(_)) = (program, SharedRing::new(RUST, RUST, 0)) {
        c::run(&mut Command::new(program));
    }
}

#[test]
fn second_copy_in_the_program_does_no_harm() {
    let Some(archive) = archive() else { return };
    assert_runs(dependent("static_copy", "dlopen", archive.parent()));
}

#[test]
fn liburing_may_be_part_of_the_program() {
    let Some(archive) = archive() else { return };
    assert_runs(dependent("static_only", "link", archive.parent()));
}

#[test]
fn wrappers_with_the_names_of_the_header_do_no_harm() {
    let folder = c::folder("plain");
    let object = folder.join("plain.o");
    c::run(c::compiler("plain.c").arg("-c").arg("-o").arg(&object));
    c::run(Command::new("ar").arg("rcs").arg(folder.join("libplain.a")).arg(&object));
    for mode in ["link", "dlopen", "link,dlopen"] {
        assert_runs(dependent("plain_functions", mode, Some(&folder)));
    }
}
