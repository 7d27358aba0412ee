//! Which liburing this program runs with.

use std::path::PathBuf;

use crate::Result;
#[cfg(uring)]
use crate::error::{Error, ErrorKind};

/// The library that io_uring is reached through, as far as it can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Library {
    /// The version of the header that this program was built with, as "2.3"; `None` where it was built without.
    pub header_version: Option<String>,
    /// The version of the library that runs.
    pub version: Option<String>,
    /// The file that it was loaded from.
    pub path: Option<PathBuf>,
    /// Why it could not be loaded, with the remedy.
    pub error: Option<String>,
}

impl Library {
    /// Loads the library where that has not happened yet, and tells what is there.
    #[cfg(uring)]
    #[must_use]
    pub fn get() -> Self {
        Self {
            header_version: Some(liburing_sys::HEADER_VERSION.to_string()),
            error: liburing_sys::load().err().map(|error| error.to_string()),
            version: liburing_sys::library_version().map(|version| version.to_string()),
            path: liburing_sys::library_path(),
        }
    }

    /// Tells that there is none: this program was built without.
    #[cfg(not(uring))]
    #[must_use]
    pub fn get() -> Self {
        let error = Some(crate::Unavailable::not_built().to_string());
        Self { header_version: None, version: None, path: None, error }
    }

    /// Makes sure that the library that runs exports a function of this name, as "`io_uring_clone_buffers`".
    ///
    /// The library may be older than the header that this program was built with.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) with the version that brought the function, and
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) where there is no library at all.
    ///
    /// ```
    /// # if !sysuring::Library::get().is_loaded() { return }
    /// use sysuring::{ErrorKind, Library};
    ///
    /// assert!(Library::require("io_uring_queue_init").is_ok());
    /// let error = Library::require("io_uring_none").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// ```
    #[cfg(uring)]
    pub fn require(function: &str) -> Result<()> {
        liburing_sys::require(function).map_err(|error| {
            let kind = match error {
                liburing_sys::LoadError::MissingSymbol { .. } => ErrorKind::Unsupported,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, error.to_string())
        })
    }

    /// Tells that there is no library to look in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), always: this program was built without a ring.
    #[cfg(not(uring))]
    pub fn require(_function: &str) -> Result<()> {
        Err(crate::error::Error::unavailable(crate::Unavailable::not_built()))
    }

    /// Whether the library could be loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.error.is_none()
    }
}
