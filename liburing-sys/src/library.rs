//! Which liburing runs: found and checked once, then the same for every caller.

use std::env;
use std::error::Error;
use std::ffi::{CStr, CString, OsStr, c_int, c_void};
use std::fmt;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::quirks::WITHOUT_LIBRARY;

/// The file name that the dynamic loader looks for: liburing's `SONAME`.
///
/// Not `liburing.so`, which only a development package installs.
pub const FILE_NAME: &str = "liburing.so.2";

/// Version of the header that these bindings were made from.
///
/// ```
/// assert!(liburing_sys::HEADER_VERSION >= liburing_sys::OLDEST_VERSION);
/// ```
pub const HEADER_VERSION: Version = {
    let (major, minor) = crate::bindings::HEADER;
    Version { major, minor }
};

/// Oldest version that can be used, as header and as library.
///
/// Since 2.3 the header's inline functions read fields that an older library leaves at zero: every
/// ring would look full, for good.
pub const OLDEST_VERSION: Version = Version { major: 2, minor: 3 };

/// A function that 2.3 added: a library that has it fills the fields that the header reads.
const WITNESS: &CStr = c"io_uring_register_sync_cancel";

/// A function that each older version added, by its minor number: these versions do not tell what they are.
const BROUGHT_BEFORE: [(&CStr, u32); 3] =
    [(c"io_uring_register_ring_fd", 2), (c"io_uring_mlock_size", 1), (c"io_uring_queue_init", 0)];

/// Never closed, so that addresses in it stay good.
static IN_USE: OnceLock<Running> = OnceLock::new();

struct Running {
    library: Library,
    version: Version,
    /// It was linked into the program statically: the loader knows nothing of it, and it is of the header's version.
    in_program: bool,
}

/// Lines of name, first header with it, and section of the man page.
const FUNCTIONS: &str = include_str!("../functions.txt");

/// A version of liburing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The number that is also in the `SONAME`.
    pub major: u32,
    /// The number that grows with each release.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why liburing, or a function of it, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// The dynamic loader finds or accepts no such library.
    #[non_exhaustive]
    Open {
        /// What it was asked for.
        file: PathBuf,
        /// Its own words.
        reason: String,
    },
    /// The library is older than [`OLDEST_VERSION`].
    #[non_exhaustive]
    TooOld {
        /// Where it is.
        file: PathBuf,
        /// What its functions say that it is; `None` where they are not liburing's.
        version: Option<Version>,
    },
    /// Another library is in use already, and a process has one.
    #[non_exhaustive]
    InUse {
        /// The library in use.
        file: PathBuf,
        /// The library that was asked for.
        refused: PathBuf,
    },
    /// The library that runs has no function of this name.
    #[non_exhaustive]
    MissingSymbol {
        /// The function.
        name: String,
        /// The liburing that brought it, where that is known.
        since: Option<Version>,
        /// The library that runs.
        running: Version,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { file, reason } => {
                write!(f, "cannot load {}: {reason}", file.display())?;
                // The loader has one kind of error only, and says in words which it is.
                if file != Path::new(FILE_NAME) {
                    return Ok(());
                }
                // The missing file may be one that liburing needs.
                f.write_str(if reason.contains(FILE_NAME) && reason.contains("No such file") {
                    "; install liburing2 (apt, zypper) or liburing (dnf, pacman, apk)"
                } else {
                    "; is the file that the dynamic loader finds by that name liburing's? see LD_LIBRARY_PATH"
                })
            }
            Self::TooOld { file, version } => {
                let file = file.display();
                let needed = format!("{OLDEST_VERSION} or later is needed (built with the header of {HEADER_VERSION})");
                match version {
                    Some(version) => write!(
                        f,
                        "{file} is liburing {version}; {needed}: upgrade liburing2 (apt, zypper) or liburing (dnf, \
                         pacman, apk), or see LD_LIBRARY_PATH"
                    ),
                    None => write!(f, "{file} is not liburing, or older than 2.0; {needed}: see LD_LIBRARY_PATH"),
                }
            }
            Self::InUse { file, refused } => write!(
                f,
                "cannot load {}: {} is in use already; load it before liburing is used at all, \
                 in a program that is not linked to liburing",
                refused.display(),
                file.display()
            ),
            Self::MissingSymbol { name, since, running } => {
                write!(f, "liburing {running} has no {name}")?;
                match since {
                    Some(since) if since > running => write!(f, ", which came with {since}: upgrade liburing to that"),
                    Some(since) => write!(f, ", which came with {since}: another library goes by its name"),
                    None => f.write_str(", and no other version that is known here"),
                }?;
                write!(f, " (built with the header of {HEADER_VERSION})")
            }
        }
    }
}

impl Error for LoadError {}

/// Finds liburing, unless it is in use already, and checks that it is not too old.
///
/// A program that is linked to liburing has it from the start. Calls of exported functions do this
/// themselves, and panic where it fails.
///
/// # Errors
///
/// [`LoadError::Open`] where there is no [`FILE_NAME`], [`LoadError::TooOld`] where there is one of
/// before [`OLDEST_VERSION`]. The next call tries again.
pub fn load() -> Result<(), LoadError> {
    in_use().map(drop)
}

/// Loads the library at `path` instead of the one that [`load`] finds.
///
/// Prefer [`load`], which follows the dynamic loader's configuration. This one serves a program
/// that brings its own build, and must then come before anything else in this crate.
///
/// # Errors
///
/// [`LoadError::InUse`] where another library is in use, as it is from the start in a program that
/// is linked to liburing; otherwise those of [`load`]. The library in use may be named again.
///
/// # Safety
///
/// `path` must name a build of liburing, with the ABI of `liburing.so.2`.
pub unsafe fn load_from(path: impl AsRef<OsStr>) -> Result<(), LoadError> {
    let path = path.as_ref();
    if path.is_empty() {
        // The dynamic loader would take the program itself.
        return Err(LoadError::Open { file: path.into(), reason: "the name of the file is empty".into() });
    }
    let running = if cfg!(feature = "link") { in_use()? } else { adopt(path)? };
    // Whoever came first, this call or another thread's, it must be the same library.
    let named = open(path, libc::RTLD_NOLOAD).ok();
    let same = named.is_some_and(|named| address_in(&named, WITNESS) == address_in(&running.library, WITNESS));
    if same { Ok(()) } else { Err(LoadError::InUse { file: library_path().unwrap_or_default(), refused: path.into() }) }
}

/// Says whether the library that runs has a function of this name, without calling it.
///
/// `false` where there is no library, too. The header's inline functions are not in the library.
///
/// ```
/// if liburing_sys::has("io_uring_resize_rings") {
///     // ...
/// }
/// assert!(!liburing_sys::has("printf"));
/// ```
pub fn has(symbol: &str) -> bool {
    // The loader would look into the C library as well.
    let is_liburings = symbol.trim_start_matches("__").starts_with("io_uring_");
    let Ok(name) = CString::new(symbol) else { return false };
    is_liburings
        && in_use().is_ok_and(|running| match running.in_program {
            true => since(symbol).is_some_and(|since| since <= running.version),
            false => address_in(&running.library, &name).is_some(),
        })
}

/// The file of the library that runs, which is the program where it was linked statically; `None` where [`load`] fails.
pub fn library_path() -> Option<PathBuf> {
    let running = in_use().ok()?;
    if running.in_program { env::current_exe().ok() } else { file_of(address_in(&running.library, WITNESS)?) }
}

/// The version of the library that runs; `None` where [`load`] fails.
///
/// A library of before 2.4 cannot tell its version, and is 2.3, or it would not have been loaded.
pub fn library_version() -> Option<Version> {
    Some(in_use().ok()?.version)
}

/// The same, for functions that need a library.
///
/// # Panics
///
/// Where [`load`] fails, as calls of exported functions do.
pub(crate) fn running_version() -> Version {
    in_use().unwrap_or_else(|error| panic!("{error}")).version
}

/// The first liburing with a function of this name, exported or in the header; `None` where none is known.
///
/// ```
/// use liburing_sys::{Version, since};
///
/// assert_eq!(since("io_uring_clone_buffers"), Some(Version { major: 2, minor: 8 }));
/// assert_eq!(since("printf"), None);
/// ```
pub fn since(function: &str) -> Option<Version> {
    let mut lines = FUNCTIONS.lines().map(|line| line.split(' '));
    let mut fields = lines.find_map(|mut fields| (fields.next() == Some(function)).then_some(fields))?;
    let (major, minor) = fields.next()?.split_once('.')?;
    Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// Makes sure, without calling it, that a function of this name can be called.
///
/// What the header defines `inline`, and what this crate writes in Rust, needs no such function in the library; see
/// [`has`] for the library alone.
///
/// # Errors
///
/// [`LoadError::MissingSymbol`] with the version that brought the function; otherwise those of [`load`].
pub fn require(function: &str) -> Result<(), LoadError> {
    let running = in_use()?;
    let is_here = crate::bindings::INLINE.contains(&function) || WITHOUT_LIBRARY.contains(&function);
    if is_here || has(function) { Ok(()) } else { Err(missing(function, running)) }
}

fn missing(function: &str, running: &Running) -> LoadError {
    LoadError::MissingSymbol { name: function.to_owned(), since: since(function), running: running.version }
}

/// Finds a function in the library that runs.
#[cfg(feature = "dlopen")]
pub(crate) fn function(name: &CStr) -> Result<NonNull<c_void>, LoadError> {
    let running = in_use()?;
    address_in(&running.library, name).ok_or_else(|| missing(&name.to_string_lossy(), running))
}

fn in_use() -> Result<&'static Running, LoadError> {
    match IN_USE.get() {
        Some(running) => Ok(running),
        None => adopt(OsStr::new(FILE_NAME)),
    }
}

/// Puts a library to use, unless there is one: returns the one in use.
#[cold]
fn adopt(file: &OsStr) -> Result<&'static Running, LoadError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = IN_USE.get() {
        return Ok(running);
    }
    // Linked: the one that the program started with, and no other.
    let library = match open(file, if cfg!(feature = "link") { libc::RTLD_NOLOAD } else { 0 }) {
        Ok(library) => library,
        Err(_) if cfg!(all(feature = "link", not(feature = "dlopen"))) => {
            let version = HEADER_VERSION;
            return Ok(IN_USE.get_or_init(|| Running { library: Library::this(), version, in_program: true }));
        }
        // Calls go through pointers, which only the loader can give.
        Err(_) if cfg!(feature = "link") => open(file, 0)?,
        Err(error) => return Err(error),
    };
    if address_in(&library, WITNESS).is_none() {
        let somewhere = address_in(&library, c"io_uring_queue_init").and_then(file_of);
        let version = BROUGHT_BEFORE.iter().find(|(name, _)| address_in(&library, name).is_some());
        return Err(LoadError::TooOld {
            file: somewhere.unwrap_or_else(|| file.into()),
            version: version.map(|(_, minor)| Version { major: 2, minor: *minor }),
        });
    }
    let version = version_of(&library);
    Ok(IN_USE.get_or_init(|| Running { library, version, in_program: false }))
}

fn version_of(library: &Library) -> Version {
    let part = |name| {
        let address = address_in(library, name)?;
        // SAFETY: liburing declares both functions as `int f(void)`.
        let function: extern "C" fn() -> c_int = unsafe { mem::transmute(address) };
        u32::try_from(function()).ok()
    };
    let told = part(c"io_uring_major_version").zip(part(c"io_uring_minor_version"));
    told.map_or(OLDEST_VERSION, |(major, minor)| Version { major, minor })
}

fn open(file: &OsStr, more_flags: c_int) -> Result<Library, LoadError> {
    // SAFETY: liburing's initialisers ask for nothing, and this is liburing: a library that carries
    // its SONAME, or one that the caller of `load_from` vouches for.
    unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL | more_flags) }
        .map_err(|error| LoadError::Open { file: file.into(), reason: error.to_string() })
}

fn address_in(library: &Library, name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: an address without a type; whoever calls it gives it the type that it has.
    let symbol = unsafe { library.get::<*mut c_void>(name.to_bytes_with_nul()) }.ok()?;
    NonNull::new(*symbol)
}

/// The file that an address was mapped from.
fn file_of(address: NonNull<c_void>) -> Option<PathBuf> {
    // SAFETY: four words and pointers, for which zero is a value.
    let mut info: libc::Dl_info = unsafe { mem::zeroed() };
    // SAFETY: the address is only looked up, and `info` is ours to write.
    let found = unsafe { libc::dladdr(address.as_ptr(), &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own string, for as long as the object stays: our caller holds it open.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(OsStr::from_bytes(name.to_bytes()).into())
}

/// Makes the dynamic loader refuse a library without the witness when a linked program starts.
#[cfg(feature = "link")]
mod linked {
    use std::ffi::c_int;
    use std::hint;

    use crate::bindings::{io_uring, io_uring_sync_cancel_reg};

    type Witness = unsafe extern "C" fn(*mut io_uring, *mut io_uring_sync_cancel_reg) -> c_int;

    unsafe extern "C" {
        // Not the one of `bindings`, which with `dlopen` calls through a pointer.
        fn io_uring_register_sync_cancel(ring: *mut io_uring, registration: *mut io_uring_sync_cancel_reg) -> c_int;
    }

    // Linkers drop an address that nothing reads, `#[used]` or not, but no initialiser and what it
    // refers to.
    // SAFETY: the section holds functions of this type, which run before main or in dlopen; this
    // one needs nothing to be initialised, and does nothing.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static REFER: extern "C" fn() = refer;

    extern "C" fn refer() {
        hint::black_box(io_uring_register_sync_cancel as Witness);
    }
}
