//! Where temporary files are made.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::plain::failure;

/// Directories to try, the usual one first.
pub(crate) fn places() -> Vec<PathBuf> {
    let mut places = vec![env::temp_dir()];
    if cfg!(unix) {
        places.push("/var/tmp".into());
    }
    places.extend(env::current_dir());
    places
}

/// Makes a directory in `place` that is removed when it is dropped.
pub(crate) fn directory(place: &Path) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("sysuring.")
        .tempdir_in(place)
        .map_err(|error| failure(format_args!("create a directory in {}", place.display()), &error))
}
