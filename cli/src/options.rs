//! The options that several commands share.

use std::thread;

use clap::ValueEnum;
use sysuring::block::Backend;

/// Most threads that a command starts.
const MAX_THREADS: u16 = 1024;
/// Threads beyond this number rarely make one device faster, so more are not started unless asked for.
const DEFAULT_THREADS: usize = 4;

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendChoice {
    /// io_uring where it works, else pread and pwrite
    Auto,
    /// io_uring, or an error that says why not
    Uring,
    /// pread and pwrite
    File,
}

impl From<BackendChoice> for Backend {
    fn from(choice: BackendChoice) -> Self {
        match choice {
            BackendChoice::Auto => Self::Auto,
            BackendChoice::Uring => Self::Uring,
            BackendChoice::File => Self::File,
        }
    }
}

/// `--threads`, where it is given.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Threads {
    /// Threads that work at the same time [default: one per processor, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_THREADS)))]
    threads: Option<u16>,
}

impl Threads {
    /// How many to start.
    pub(crate) fn count(&self) -> usize {
        match self.threads {
            Some(threads) => usize::from(threads),
            None => thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_THREADS),
        }
    }
}

/// Reads `--block-size`, so that a mistake is one of usage.
pub(crate) fn parse_block_size(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|error| format!("{error}"))?;
    if bytes.is_power_of_two() && (512..=65536).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("it must be a power of two from 512 to 65536".to_owned())
    }
}
