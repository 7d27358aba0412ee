//! `sysuring info`: whether io_uring works here, and if not, why and what to do.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sysuring::block::{self, BlockDevice, Options};
use sysuring::{Library, Probe};

use crate::temporary;

/// Bytes in the device that is opened to see which backend it gets.
const PROBE_DEVICE: u64 = 4096;
/// Columns that the text fits in.
const WIDTH: usize = 100;
/// Columns before the values of the text.
const INDENT: usize = 26;

/// Show whether io_uring works here, and if not, why and what to do
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Info {
    library: LibraryInfo,
    header_version: Option<String>,
    kernel: Option<String>,
    ring: RingInfo,
    /// `None` where the kernel has no such setting.
    sysctl_io_uring_disabled: Option<i64>,
    /// Bytes; `None` for no limit.
    memlock_limit: Option<u64>,
    features: Vec<&'static str>,
    setup_flags: BTreeMap<&'static str, bool>,
    operations: BTreeMap<&'static str, bool>,
    /// `None` where no device could be opened to see.
    backend: Option<String>,
    /// Why that is not io_uring, or why it is not known.
    #[serde(skip)]
    backend_reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct LibraryInfo {
    loaded: bool,
    path: Option<String>,
    version: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct RingInfo {
    available: bool,
    reason: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let info = Info::gather();
    if arguments.json {
        crate::print(serde_json::to_string_pretty(&info).context("write JSON")?)
    } else {
        crate::print(info.text()?.trim_end())
    }
}

impl Info {
    fn gather() -> Self {
        let library = Library::get();
        let unavailable = sysuring::available().err();
        // Before the probe, which makes many rings: the kernel gives back the locked memory of a ring only a while after
        // it was closed, and where little may be locked there would be none left.
        let (backend, backend_reason) = match backend() {
            Ok((backend, reason)) => (Some(backend), reason),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let probe = Probe::get().unwrap_or_default();
        Self {
            header_version: library.header_version.clone(),
            library: LibraryInfo {
                loaded: library.is_loaded(),
                path: library.path.map(|path| path.display().to_string()),
                version: library.version,
                error: library.error,
            },
            kernel: kernel(),
            ring: RingInfo { available: unavailable.is_none(), reason: unavailable.map(|reason| reason.to_string()) },
            sysctl_io_uring_disabled: sysctl(),
            memlock_limit: memlock_limit(),
            features: probe.features,
            setup_flags: probe.setup_flags.into_iter().collect(),
            operations: probe.operations.into_iter().collect(),
            backend,
            backend_reason,
        }
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        match &self.ring.reason {
            None => writeln!(text, "io_uring works here")?,
            Some(reason) => writeln!(text, "io_uring does not work here: {reason}")?,
        }
        match (&self.backend, &self.backend_reason) {
            // There may be a ring, but none any more once the file is open.
            (Some(backend), Some(reason)) if self.ring.available => {
                writeln!(text, "a block device gets the backend {backend}: {reason}")?;
            }
            (Some(backend), _) => writeln!(text, "a block device gets the backend {backend}")?,
            (None, error) => {
                let error = error.as_deref().unwrap_or("nothing says why");
                writeln!(text, "which backend a block device gets is unknown: {error}")?;
            }
        }
        writeln!(text)?;

        let unknown = || "unknown".to_owned();
        let library = match &self.library {
            LibraryInfo { error: Some(error), .. } => format!("not loaded: {error}"),
            LibraryInfo { path, version, .. } => {
                format!("{}, version {}", path.clone().unwrap_or_else(unknown), version.clone().unwrap_or_else(unknown))
            }
        };
        line(&mut text, "library", &library)?;
        line(&mut text, "header version", &self.header_version.clone().unwrap_or_else(|| "built without".to_owned()))?;
        line(&mut text, "kernel", &self.kernel.clone().unwrap_or_else(unknown))?;
        line(
            &mut text,
            "kernel.io_uring_disabled",
            match self.sysctl_io_uring_disabled {
                Some(0) => "0 (allowed)",
                Some(1) => "1 (for the group kernel.io_uring_group and with CAP_SYS_ADMIN only)",
                Some(2) => "2 (for nobody)",
                Some(_) => "another value than 0, 1 and 2",
                None => "no such setting",
            },
        )?;
        let memlock = self.memlock_limit.map_or("unlimited".to_owned(), |bytes| match bytes {
            0..1024 => format!("{bytes} bytes"),
            _ => format!("{} KiB", bytes / 1024),
        });
        line(&mut text, "memlock limit", &memlock)?;

        if self.ring.available {
            words(&mut text, "features", "IORING_FEAT_", self.features.iter().copied())?;
            for (name, prefix, items) in
                [("setup flags", "IORING_SETUP_", &self.setup_flags), ("operations", "IORING_OP_", &self.operations)]
            {
                let with =
                    |wanted: bool| items.iter().filter(move |(_, works)| **works == wanted).map(|(name, _)| *name);
                words(&mut text, name, prefix, with(true))?;
                words(&mut text, &format!("{name} not here"), prefix, with(false))?;
            }
        }
        Ok(text)
    }
}

/// A line of the text: a name, and what there is to say of it.
fn line(text: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(text, "{name:INDENT$}{value}")
}

/// Names without the prefix that they share, in lines that start under each other.
fn words<'a>(text: &mut String, name: &str, prefix: &str, words: impl Iterator<Item = &'a str>) -> std::fmt::Result {
    let mut current = String::new();
    let mut name = name;
    for word in words.map(|word| word.strip_prefix(prefix).unwrap_or(word)) {
        if !current.is_empty() && INDENT + current.len() + 1 + word.len() > WIDTH {
            line(text, name, &current)?;
            name = "";
            current.clear();
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    line(text, name, if current.is_empty() { "none" } else { &current })
}

/// The backend that a small device in a temporary file gets, and why it is not io_uring.
fn backend() -> Result<(String, Option<String>)> {
    let mut first_error = None;
    for place in temporary::places() {
        match backend_in(&place) {
            Ok(found) => return Ok(found),
            // That of the usual place is the one to tell.
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) => bail!("{error:#}; let TMPDIR name a directory where a file can be made"),
        None => bail!("there is no directory for temporary files; let TMPDIR name one"),
    }
}

fn backend_in(place: &Path) -> Result<(String, Option<String>)> {
    let directory = temporary::directory(place)?;
    let options = Options::new().create(PROBE_DEVICE);
    let device = block::open(directory.path().join("probe"), &options)?;
    Ok((device.backend().to_string(), device.fallback_reason().map(ToString::to_string)))
}

#[cfg(unix)]
fn kernel() -> Option<String> {
    let name = nix::sys::utsname::uname().ok()?;
    name.release().to_str().map(str::to_owned)
}

#[cfg(not(unix))]
fn kernel() -> Option<String> {
    None
}

/// `kernel.io_uring_disabled`, where the kernel has it (since 6.6).
fn sysctl() -> Option<i64> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn memlock_limit() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (limit != RLIM_INFINITY).then_some(limit)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn memlock_limit() -> Option<u64> {
    None
}
