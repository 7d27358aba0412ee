//! `sysuring`: what io_uring can do here, a copy and a demonstration on the block device of the library, and NVMe commands.
#![allow(clippy::doc_markdown, reason = "the help text is made from doc comments, and is not markdown")]

mod batches;
mod copy;
mod demo;
mod info;
mod measure;
#[cfg(all(target_os = "linux", feature = "nvme", any(feature = "dlopen", feature = "link")))]
mod nvme;
mod options;
mod plain;
mod temporary;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// liburing from your distribution, and a block device that says why when it falls back.
#[derive(Debug, Parser)]
#[command(name = "sysuring", version, about, propagate_version = true)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Info(info::Arguments),
    Copy(copy::Arguments),
    Demo(demo::Arguments),
    #[cfg(all(target_os = "linux", feature = "nvme", any(feature = "dlopen", feature = "link")))]
    Nvme(nvme::Arguments),
}

fn main() -> ExitCode {
    ignore_file_size_signal();
    let result = match Program::parse().command {
        Command::Info(arguments) => info::run(&arguments),
        Command::Copy(arguments) => copy::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        #[cfg(all(target_os = "linux", feature = "nvme", any(feature = "dlopen", feature = "link")))]
        Command::Nvme(arguments) => nvme::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // With no standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A write past the limit on file sizes (`ulimit -f`) fails with EFBIG then, which is told and cleaned up after as any
/// other error; the signal would end the program without a word.
fn ignore_file_size_signal() {
    // SAFETY: no handler is installed that could run at a bad moment, and there are no other threads yet. The call cannot
    // fail for a signal that may be ignored.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Whether the program at the other end of our output stopped reading, as `head` does: no failure of ours.
fn reader_left(error: &anyhow::Error) -> bool {
    error.downcast_ref::<OutputError>().is_some_and(|error| error.0.kind() == io::ErrorKind::BrokenPipe)
}

/// Standard output could not be written to.
#[derive(Debug)]
struct OutputError(io::Error);

impl std::fmt::Display for OutputError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "write to standard output: {}", plain::error_text(&self.0))
    }
}

impl std::error::Error for OutputError {}

/// Prints a line to standard output; `println!` would panic when the reader has gone.
fn print(line: impl std::fmt::Display) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(OutputError)?;
    Ok(())
}

/// Prints a remark to standard error, as far as there is one.
fn note(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "note: {line}");
}
