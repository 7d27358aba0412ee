//! The one error type of the library.
//!
//! An [`Error`] is one word wide, so that a `Result` on the hot path stays small; what it says is put together only when
//! something went wrong. Match on [`Error::kind`]; print it to get a sentence that names what was tried, the place and the
//! remedy, as far as they are known. What one operation of a ring ended with is made of its completion alone, which says nothing
//! of what the operation was: that is known to whoever keeps its [`Ticket`](crate::Ticket).

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::Unavailable;
#[cfg(nvme)]
use crate::block::nvme::NvmeStatus;

/// What went wrong, in one word to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument makes no sense: a length, a size, a combination of options.
    InvalidInput,
    /// A block or a range lies outside the device.
    OutOfRange,
    /// An address, a length or an offset has not the alignment that the target asks for.
    Misaligned,
    /// The path does not exist, or the ring that a message is for.
    NotFound,
    /// The path exists already, or exists with another size.
    AlreadyExists,
    /// The kernel refuses access.
    PermissionDenied,
    /// Somebody else holds the device, or operations are still in flight on the thing.
    Busy,
    /// No room: the submission queue, the table of operations, the pool or the file table is full.
    Full,
    /// The device has no space left.
    NoSpace,
    /// The device was opened for reading only.
    ReadOnly,
    /// The data ends before the request does.
    EndOfDevice,
    /// The kernel, the library or the target cannot do this.
    Unsupported,
    /// There is no ring to be had; the message says why.
    Unavailable,
    /// Something that was asked for can't be had, and the options forbid to do without.
    Degraded,
    /// The buffer belongs to a pool that is not registered on this ring, or the group of buffers is not this ring's.
    ForeignPool,
    /// The file is registered on another ring.
    ForeignFile,
    /// The operation was cancelled.
    Cancelled,
    /// The ring was made before a `fork`; it belongs to the parent process.
    Forked,
    /// The ring lost completions; nothing can be done with it any more.
    Poisoned,
    /// A time limit passed.
    TimedOut,
    /// An NVMe controller refused a command, or failed to carry it out; `Error::nvme_status` says why.
    Nvme,
    /// Any other failure of an input or output operation.
    Io,
}

/// An error of this library; printed, a sentence that says what went wrong and what helps.
///
/// That of a completion ([`Done::result`](crate::Done::result)) does not say which operation failed: the ticket does.
///
/// Converts to [`io::Error`] with the same errno where there was one.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    /// A positive errno, or 0.
    errno: i32,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// Why there is no ring, where that is the error: the same sentence, so that it is no source.
    unavailable: Option<Unavailable>,
    /// What an NVMe controller said.
    #[cfg(nvme)]
    status: Option<NvmeStatus>,
}

impl Inner {
    fn new(kind: ErrorKind, errno: i32, message: String, source: Option<Arc<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            errno,
            message,
            source,
            unavailable: None,
            #[cfg(nvme)]
            status: None,
        }
    }
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that we found, with the sentence to show.
    #[cold]
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner::new(kind, 0, message.into(), None)))
    }

    /// An error that the kernel reported as `errno`; `doing` says what was tried, as in "read of block 7".
    #[cold]
    #[cfg_attr(windows, allow(dead_code))]
    pub(crate) fn from_errno(errno: i32, doing: impl fmt::Display) -> Self {
        let message = format!("{doing}: {}", errno_text(errno));
        Self(Box::new(Inner::new(kind_of(errno), errno, message, None)))
    }

    /// As [`Error::from_errno`] for a failed call of the standard library.
    #[cold]
    pub(crate) fn from_io(error: io::Error, doing: impl fmt::Display) -> Self {
        match error.raw_os_error() {
            #[cfg(not(windows))]
            Some(errno) => Self::from_errno(errno, doing),
            // Windows has numbers of its own there.
            _ => {
                let (kind, message) = (kind_of_io(error.kind()), format!("{doing}: {error}"));
                Self(Box::new(Inner::new(kind, 0, message, Some(Arc::new(error)))))
            }
        }
    }

    /// That there is no ring to be had.
    #[cold]
    pub(crate) fn unavailable(reason: Unavailable) -> Self {
        let mut error = Self::new(ErrorKind::Unavailable, reason.to_string());
        error.0.unavailable = Some(reason);
        error
    }

    /// What an NVMe controller said of a command; `doing` is what was tried.
    #[cfg(nvme)]
    #[cold]
    pub(crate) fn from_nvme(status: NvmeStatus, doing: impl fmt::Display) -> Self {
        let mut inner = Inner::new(ErrorKind::Nvme, status.errno(), format!("{doing}: {status}"), None);
        inner.status = Some(status);
        Self(Box::new(inner))
    }

    /// The same error with a remedy at the end of its sentence.
    #[cfg(any(feature = "block", uring))]
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        self.0.message.push_str("; ");
        self.0.message.push_str(hint);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Why there is no ring, where that is what went wrong.
    #[must_use]
    pub fn reason(&self) -> Option<&Unavailable> {
        self.0.unavailable.as_ref()
    }

    /// What the NVMe controller said, where it refused or failed a command that was passed through to it.
    #[cfg(nvme)]
    #[must_use]
    pub fn nvme_status(&self) -> Option<NvmeStatus> {
        self.0.status
    }

    /// The kernel's error number (positive), where the kernel reported the error; for [`ErrorKind::Nvme`] the one that comes
    /// closest to what the controller said.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        (self.0.errno != 0).then_some(self.0.errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("errno", &self.0.errno)
            .field("message", &self.0.message)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for io::Error {
    /// Keeps the errno where there is one (and then loses the sentence), else the sentence.
    fn from(error: Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::from_raw_os_error(errno),
            None => {
                let kind = match error.kind() {
                    ErrorKind::NotFound => io::ErrorKind::NotFound,
                    ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
                    ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
                    ErrorKind::InvalidInput | ErrorKind::OutOfRange | ErrorKind::Misaligned => {
                        io::ErrorKind::InvalidInput
                    }
                    ErrorKind::EndOfDevice => io::ErrorKind::UnexpectedEof,
                    ErrorKind::Unsupported | ErrorKind::Unavailable => io::ErrorKind::Unsupported,
                    ErrorKind::TimedOut => io::ErrorKind::TimedOut,
                    _ => io::ErrorKind::Other,
                };
                Self::new(kind, error)
            }
        }
    }
}

/// Turns liburing's convention (a count, or `-errno`) into a `Result`.
///
/// liburing never sets `errno`: the number is in the value that it returns.
#[cfg(uring)]
#[inline]
pub(crate) fn check(returned: libc::c_int, doing: &str) -> Result<u32> {
    if returned >= 0 { Ok(returned as u32) } else { Err(failed(returned, doing)) }
}

/// Out of line: the way on has nothing to do with it.
#[cfg(uring)]
#[cold]
#[inline(never)]
fn failed(returned: libc::c_int, doing: &str) -> Error {
    // ERESTARTSYS and its like: Linux 6.1 lets them out for a read of a pipe that was cancelled while it slept. What they
    // mean to a program is EINTR, which is what later kernels say.
    let errno = if matches!(-returned, 512..=514 | 516) { libc::EINTR } else { -returned };
    Error::from_errno(errno, doing)
}

/// The system's words for `errno`, with its name first: "ENOSPC, no space left on device".
pub(crate) fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    // The standard library appends " (os error 28)".
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut text = text.to_owned();
    if let Some(first) = text.get(..1) {
        let first = first.to_ascii_lowercase();
        text.replace_range(..1, &first);
    }
    match errno_name(errno) {
        Some(name) => format!("{text} ({name})"),
        None => format!("{text} (errno {errno})"),
    }
}

/// The kind of an error that has no errno.
fn kind_of_io(kind: io::ErrorKind) -> ErrorKind {
    match kind {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
        io::ErrorKind::ResourceBusy => ErrorKind::Busy,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Io,
    }
}

/// One table for both directions that errnos are read in: the name to print and the kind to match on.
macro_rules! errnos {
    ($($(#[$attribute:meta])* $name:ident => $kind:ident,)*) => {
        fn errno_name(errno: i32) -> Option<&'static str> {
            match errno {
                $($(#[$attribute])* libc::$name => Some(stringify!($name)),)*
                _ => None,
            }
        }

        fn kind_of(errno: i32) -> ErrorKind {
            match errno {
                $($(#[$attribute])* libc::$name => ErrorKind::$kind,)*
                _ => ErrorKind::Io,
            }
        }
    };
}

errnos! {
    EPERM => PermissionDenied,
    ENOENT => NotFound,
    EINTR => Io,
    EIO => Io,
    ENXIO => Io,
    E2BIG => InvalidInput,
    EBADF => InvalidInput,
    EAGAIN => Busy,
    ENOMEM => Full,
    EACCES => PermissionDenied,
    EFAULT => InvalidInput,
    EBUSY => Busy,
    EEXIST => AlreadyExists,
    ENODEV => Io,
    ENOTDIR => NotFound,
    EISDIR => InvalidInput,
    EINVAL => InvalidInput,
    ENFILE => Full,
    EMFILE => Full,
    EFBIG => NoSpace,
    ENOSPC => NoSpace,
    ESPIPE => Unsupported,
    EROFS => ReadOnly,
    EPIPE => Io,
    ERANGE => OutOfRange,
    ENOSYS => Unsupported,
    ETIME => TimedOut,
    ETIMEDOUT => TimedOut,
    ENOTSOCK => InvalidInput,
    EADDRINUSE => AlreadyExists,
    ENOBUFS => Full,
    ENOTCONN => Io,
    ECONNREFUSED => Io,
    ECONNRESET => Io,
    EOPNOTSUPP => Unsupported,
    ECANCELED => Cancelled,
    EOVERFLOW => OutOfRange,
    EALREADY => Busy,
    #[cfg(unix)]
    EDQUOT => NoSpace,
    ELOOP => NotFound,
    ENAMETOOLONG => InvalidInput,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn errno_survives_the_conversion() {
        let error = Error::from_errno(libc::ENOSPC, "write of block 7");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.to_string(), "write of block 7: no space left on device (ENOSPC)");
        assert_eq!(io::Error::from(error).raw_os_error(), Some(libc::ENOSPC));
    }

    #[cfg(uring)]
    #[test]
    fn numbers_that_the_kernel_should_have_kept_mean_an_interruption() {
        assert_eq!(check(-512, "read").unwrap_err().raw_os_error(), Some(libc::EINTR));
        assert_eq!(check(-libc::EIO, "read").unwrap_err().raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn a_sentence_survives_the_conversion() {
        let error = Error::new(ErrorKind::EndOfDevice, "read of block 9: the device ends");
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), "read of block 9: the device ends");
    }
}
