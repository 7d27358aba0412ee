//! Runs the program as its users do.
#![allow(clippy::doc_markdown, reason = "as in the program")]

mod common;
mod copy;
mod demo;
#[cfg(target_os = "linux")]
mod disks;
mod errors;
#[cfg(target_os = "linux")]
mod fallback;
mod info;
#[cfg(all(target_os = "linux", feature = "nvme", any(feature = "dlopen", feature = "link")))]
mod nvme;
mod terminal;
