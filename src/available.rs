//! Whether io_uring can be used here, and if not, why.

use std::fmt;

use crate::error::Error;

/// Why there is no ring, in one word to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Built for another system than Linux, or without the features `link` and `dlopen`.
    NotBuilt,
    /// The dynamic loader finds no liburing.so.2 that it can load.
    LibraryMissing,
    /// The library is older than 2.3.
    LibraryTooOld,
    /// The kernel has no io_uring.
    Kernel,
    /// `kernel.io_uring_disabled` is 1 or 2.
    Sysctl,
    /// A seccomp filter forbids it, as container runtimes do by default.
    Seccomp,
    /// Not enough memory: locked memory, as a rule (RLIMIT_MEMLOCK), or address space (RLIMIT_AS).
    Memlock,
    /// Too many open files.
    TooManyFiles,
    /// Something else; the sentence says what.
    Other,
}

/// Why io_uring cannot be used; printed, a sentence with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    reason: Reason,
    sentence: String,
}

impl Unavailable {
    fn new(reason: Reason, sentence: impl Into<String>) -> Self {
        Self { reason, sentence: sentence.into() }
    }

    /// The word to match on.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    pub(crate) fn into_error(self) -> Error {
        Error::unavailable(self)
    }

    #[cfg(not(uring))]
    pub(crate) fn not_built() -> Self {
        let sentence = if cfg!(target_os = "linux") {
            "this program was built without io_uring; build it with the feature dlopen or link of sysuring"
        } else {
            "io_uring is a feature of Linux"
        };
        Self::new(Reason::NotBuilt, sentence)
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Unavailable {}

/// Whether io_uring can be used by this process, and if not, why.
///
/// Found out by loading the library, setting up a ring and passing an operation through it. The answer is kept where it is yes,
/// or no for a reason that lasts: no library, an old one or an old kernel, `kernel.io_uring_disabled`, a seccomp filter. Everything
/// else, as too many open files and too little memory, is asked about again.
///
/// # Errors
///
/// The reason, with its remedy.
pub fn available() -> Result<(), Unavailable> {
    #[cfg(uring)]
    return linux::available();
    #[cfg(not(uring))]
    return Err(Unavailable::not_built());
}

#[cfg(uring)]
mod linux {
    use std::sync::OnceLock;
    use std::{fmt, fs, io};

    use liburing_sys as sys;

    use super::{Reason, Unavailable};
    use crate::Ring;
    use crate::error::{Error, Result, errno_text};
    use crate::operations::Operations as _;

    /// The answer that will not change any more.
    static ANSWER: OnceLock<Result<(), Unavailable>> = OnceLock::new();

    pub(super) fn available() -> Result<(), Unavailable> {
        if let Some(answer) = ANSWER.get() {
            return answer.clone();
        }
        let answer = try_ring().map_err(|error| Unavailable::from_error("io_uring", error));
        if answer.as_ref().err().is_none_or(Unavailable::lasts) {
            // Another thread may have been faster, with the same answer.
            let _ = ANSWER.set(answer.clone());
        }
        answer
    }

    /// Setting up a ring is not enough: a filter may let that pass and forbid to enter it.
    fn try_ring() -> Result<()> {
        let mut ring = Ring::with_entries(2)?;
        ring.nop()?;
        while let Err(error) = ring.submit_and_wait(1) {
            if error.raw_os_error() != Some(libc::EINTR) {
                return Err(error);
            }
        }
        ring.completions().for_each(drop);
        Ok(())
    }

    impl Unavailable {
        /// Whether it is worth nothing to ask again. What is not known to last may pass.
        fn lasts(&self) -> bool {
            use Reason::{Kernel, LibraryMissing, LibraryTooOld, NotBuilt, Seccomp, Sysctl};

            matches!(self.reason, NotBuilt | LibraryMissing | LibraryTooOld | Kernel | Sysctl | Seccomp)
        }

        /// The reason behind an error of a ring.
        pub(crate) fn from_error(doing: &str, error: Error) -> Self {
            match (error.reason(), error.raw_os_error()) {
                (Some(known), _) => known.clone(),
                (None, Some(errno)) => Self::from_errno(doing, errno),
                (None, None) => Self::new(Reason::Other, error.to_string()),
            }
        }

        /// A reason that is none of io_uring's.
        pub(crate) fn other(error: &Error) -> Self {
            Self::new(Reason::Other, error.to_string())
        }

        /// The reason behind a mapping of our own that could not be made.
        pub(crate) fn from_mapping(error: io::Error, doing: &str) -> Self {
            let is_memory = error.raw_os_error() == Some(libc::ENOMEM);
            let error = Error::from_io(error, doing);
            if is_memory { Self::no_memory(&error) } else { Self::other(&error) }
        }

        fn no_memory(what: impl fmt::Display) -> Self {
            Self::new(
                Reason::Memlock,
                format!("{what}; too little memory, or address space (`ulimit -v` shows its limit)"),
            )
        }

        /// The reason why liburing could not be loaded.
        pub(crate) fn from_load(error: &sys::LoadError) -> Self {
            let reason = match error {
                sys::LoadError::TooOld { .. } => Reason::LibraryTooOld,
                sys::LoadError::Open { file, reason, .. } if is_want_of_memory(reason) => {
                    return Self::no_memory(format_args!("cannot load {}: {reason}", file.display()));
                }
                // The loader keeps the errno to itself; what keeps it from opening the library keeps us from opening this.
                _ => match fs::File::open("/dev/null").err().and_then(|error| error.raw_os_error()) {
                    Some(errno @ (libc::EMFILE | libc::ENFILE)) => {
                        return Self::from_errno(&format!("load {}", sys::FILE_NAME), errno);
                    }
                    _ => Reason::LibraryMissing,
                },
            };
            Self::new(reason, error.to_string())
        }

        /// A library that passed the check by symbol and still behaves like one older than 2.3.
        pub(crate) fn library_too_old() -> Self {
            let sentence = format!(
                "the loaded {} is older than {} and can't be used; install a newer liburing",
                sys::FILE_NAME,
                sys::OLDEST_VERSION
            );
            Self::new(Reason::LibraryTooOld, sentence)
        }

        /// The reason behind an errno of one of io_uring's system calls, from what the system says about itself.
        pub(crate) fn from_errno(call: &str, errno: i32) -> Self {
            let said = errno_text(errno);
            match errno {
                libc::ENOSYS if has_seccomp_filter() => Self::new(
                    Reason::Seccomp,
                    format!(
                        "{call}: {said}; a seccomp filter forbids io_uring (or the kernel has none). Allow io_uring_setup, \
                         io_uring_enter and io_uring_register in the sandbox's profile"
                    ),
                ),
                libc::ENOSYS => Self::new(
                    Reason::Kernel,
                    format!(
                        "{call}: {said}; the kernel has no io_uring (it needs Linux 5.10 or later, with CONFIG_IO_URING)"
                    ),
                ),
                libc::EPERM | libc::EACCES => match sysctl() {
                    Some(value @ 1..) if value > 1 || !(has_seccomp_filter() && is_exempt()) => Self::new(
                        Reason::Sysctl,
                        format!(
                            "{call}: {said}; io_uring is disabled by kernel.io_uring_disabled={value}. \
                             `sysctl kernel.io_uring_disabled=0` enables it"
                        ),
                    ),
                    _ if has_seccomp_filter() => Self::new(
                        Reason::Seccomp,
                        format!(
                            "{call}: {said}; a seccomp filter forbids io_uring, as container runtimes do by default. Allow \
                             io_uring_setup, io_uring_enter and io_uring_register in the sandbox's profile"
                        ),
                    ),
                    _ => Self::new(Reason::Other, format!("{call}: {said}; a security module may forbid io_uring")),
                },
                libc::ENOMEM => Self::new(
                    Reason::Memlock,
                    format!(
                        "{call}: {said}; too little memory for a ring: RLIMIT_MEMLOCK may be too small (`ulimit -l` shows it \
                         in KiB), or address space be short (`ulimit -v`)"
                    ),
                ),
                libc::EMFILE | libc::ENFILE => Self::new(
                    Reason::TooManyFiles,
                    format!("{call}: {said}; raise the limit (`ulimit -n`) or close something"),
                ),
                _ => Self::new(Reason::Other, format!("{call}: {said}")),
            }
        }
    }

    /// Whether the loader says that it had no memory, or address space; it gives the errno in words, if at all. It may also be a
    /// file system that nothing may be executed from: then the next question has the same answer.
    fn is_want_of_memory(said: &str) -> bool {
        !said.contains("not permitted")
            && ["allocate", "map segment", "zero-fill"].iter().any(|part| said.contains(part))
    }

    /// `kernel.io_uring_disabled`, where the kernel has it (since Linux 6.6).
    fn sysctl() -> Option<u32> {
        fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
    }

    /// Whether `kernel.io_uring_disabled` leaves io_uring to this thread where it is 1: to an administrator, and to those in
    /// `kernel.io_uring_group`.
    fn is_exempt() -> bool {
        const CAP_SYS_ADMIN: u64 = 1 << 21;
        let may = u64::from_str_radix(&status("CapEff:"), 16).unwrap_or(0);
        let group = fs::read_to_string("/proc/sys/kernel/io_uring_group").unwrap_or_default();
        let groups = status("Gid:") + " " + &status("Groups:");
        may & CAP_SYS_ADMIN != 0 || groups.split_whitespace().any(|of_thread| of_thread == group.trim())
    }

    fn has_seccomp_filter() -> bool {
        status("Seccomp:") == "2"
    }

    /// What the kernel says of this thread: others may have no filter.
    fn status(field: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let said = status.lines().find_map(|line| line.strip_prefix(field));
        said.unwrap_or_default().trim().to_owned()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_what_lasts_is_kept() {
            let errno = |errno| Unavailable::from_errno("io_uring_setup", errno);
            for passes in [libc::ENOMEM, libc::EMFILE, libc::EAGAIN, libc::EIO] {
                assert!(!errno(passes).lasts(), "{}", errno(passes));
            }
            assert!(errno(libc::ENOSYS).lasts());
            assert!(Unavailable::library_too_old().lasts());
            let mapping = |errno| Unavailable::from_mapping(io::Error::from_raw_os_error(errno), "map a page");
            assert_eq!(mapping(libc::ENOMEM).reason, Reason::Memlock);
            assert!(!mapping(libc::ENOMEM).lasts() && !mapping(libc::EINVAL).lasts());
        }

        #[test]
        fn a_loader_without_memory_is_understood() {
            for said in [
                "liburing.so.2: failed to map segment from shared object",
                "liburing.so.2: cannot create shared object descriptor: Cannot allocate memory",
                "Error loading shared library liburing.so.2: Cannot allocate memory",
            ] {
                assert!(is_want_of_memory(said), "{said}");
            }
            for said in [
                "liburing.so.2: cannot open shared object file: No such file or directory",
                "liburing.so.2: failed to map segment from shared object: Operation not permitted",
                "liburing.so.2: file too short",
            ] {
                assert!(!is_want_of_memory(said), "{said}");
            }
        }
    }
}
