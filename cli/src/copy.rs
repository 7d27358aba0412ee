//! `sysuring copy`: a file, an image or a disk, through the block device.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sysuring::block::{self, AlignedBuffer, Backend, BlockDevice, Device, Options, ReadRequest, WriteRequest};
use sysuring::{Error, ErrorKind};

use crate::batches::{Plan, for_each_batch};
use crate::options::{BackendChoice, Threads, parse_block_size};
use crate::plain::{self, Kind, failure};

/// Longest run of blocks that is one request, in bytes: longer ones are not faster.
const RUN: usize = 256 << 10;
/// Memory for a batch, in bytes: a deep queue gets shorter runs.
const BATCH: usize = 16 << 20;

/// Copy a file, an image or a block device
///
/// The copy is byte-identical for every size, and on stable storage when the exit status is 0.
///
/// A DST that does not exist is created with SRC's size and permissions; a regular file gets SRC's size; a block device
/// must be at least as large as SRC, and keeps what lies behind. SRC and DST are locked meanwhile. A copy that fails half
/// way leaves DST incomplete, with SRC's size already, as cp does; one that fails before the first write leaves DST as
/// it was.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to copy: a regular file or a block device
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Where to: a regular file, which is made where there is none, or a block device
    #[arg(value_name = "DST")]
    destination: PathBuf,
    /// Bytes in a block: a power of two from 512 to 65536
    #[arg(long, value_name = "N", default_value = "4096", value_parser = parse_block_size)]
    block_size: u32,
    /// Requests that each thread has in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: u32,
    #[command(flatten)]
    threads: Threads,
    /// How to reach the blocks
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
    /// Go through the page cache instead of past it (O_DIRECT)
    #[arg(long)]
    buffered: bool,
    /// Read DST again and compare it with SRC
    #[arg(long)]
    verify: bool,
    /// Print errors only
    #[arg(long)]
    quiet: bool,
}

/// One end of the copy.
#[derive(Debug)]
struct End {
    // Closed before `_lock` is given up.
    device: Device,
    /// For what is no whole block.
    file: File,
    path: PathBuf,
    /// Holds the lock where it had to be taken before the device could be opened.
    _lock: Option<Device>,
}

/// A file that was made for this copy, and is removed again unless the copy gets as far as writing to it.
struct Created<'a> {
    path: Option<&'a Path>,
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path {
            // It is empty and ours; the error that brought us here is the one to tell.
            let _ = fs::remove_file(path);
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (source_path, destination_path) = (&*arguments.source, &*arguments.destination);
    let source_metadata =
        fs::metadata(source_path).map_err(|error| failure(format_args!("open {}", source_path.display()), &error))?;
    plain::kind(source_path, &source_metadata)?;
    let destination_metadata = match fs::metadata(destination_path) {
        Ok(metadata) => {
            plain::kind(destination_path, &metadata)?;
            if plain::is_same((source_path, &source_metadata), (destination_path, &metadata))? {
                bail!(
                    "{} and {} are the same file; give another destination",
                    source_path.display(),
                    destination_path.display()
                );
            }
            Some(metadata)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(failure(format_args!("open {}", destination_path.display()), &error));
        }
    };

    let start = Instant::now();
    let source = open_source(arguments)?;
    let size = plain::size(source_path, &source.file)?;
    if source.device.block_count() != size / u64::from(arguments.block_size) {
        bail!("{} changed its size while it was opened; copy it when nobody writes to it", source_path.display());
    }

    let was_missing = destination_metadata.is_none();
    let (destination, permissions) = match destination_metadata {
        Some(metadata) => (open_destination(arguments, &metadata, size)?, None),
        None => create_destination(arguments, &source_metadata, size)?,
    };
    let progress = progress_bar(arguments, size, "copying");
    copy_blocks(arguments, &source, &destination, &progress)?;
    copy_tail(&source, &destination, size)?;
    if let Some(permissions) = permissions {
        destination
            .file
            .set_permissions(permissions)
            .map_err(|error| failure(format_args!("set the permissions of {}", destination_path.display()), &error))?;
    }
    destination.device.flush()?;
    destination
        .file
        .sync_all()
        .map_err(|error| failure(format_args!("flush of {}", destination_path.display()), &error))?;
    if was_missing {
        plain::sync_parent(destination_path)?;
    }
    progress.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();

    let mut verified = "";
    if arguments.verify {
        plain::forget_cached(&destination.file);
        let progress = progress_bar(arguments, size, "verifying");
        compare_blocks(arguments, &source, &destination, &progress)?;
        compare_tail(&source, &destination, size)?;
        progress.finish_and_clear();
        verified = ", verified";
    }
    if arguments.quiet {
        return Ok(());
    }
    say_degraded(&source.device, &destination.device);
    let rate = size as f64 / seconds.max(1e-6) / f64::from(1 << 20);
    let backends = backends(&source.device, &destination.device);
    crate::print(format_args!("copied {size} bytes in {seconds:.3} s ({rate:.1} MiB/s){verified}; {backends}"))
}

/// Which backend each end has, and why it is not io_uring.
fn backends(source: &Device, destination: &Device) -> String {
    let mut text = format!("source: {}, destination: {}", source.backend(), destination.backend());
    let reasons = [source, destination].map(BlockDevice::fallback_reason);
    if let Some(reason) = reasons.into_iter().flatten().next() {
        text.push_str(&format!("; no io_uring: {reason}"));
    }
    text
}

/// Says what was asked for and could not be had; part of it is known only after the threads made their rings.
fn say_degraded(source: &Device, destination: &Device) {
    let mut sentences = source.report().degraded;
    for sentence in destination.report().degraded {
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    sentences.iter().for_each(crate::note);
}

fn options(arguments: &Arguments) -> Options {
    Options::new()
        .block_size(arguments.block_size)
        .queue_depth(arguments.depth)
        .backend(arguments.backend.into())
        .direct(!arguments.buffered)
        .whole_blocks(true)
}

/// Opens a device, and tells which option to change where the disk wants larger blocks.
fn open_device(path: &Path, options: &Options) -> Result<Device> {
    block::open(path, options).map_err(|error| match error.kind() {
        ErrorKind::Misaligned => anyhow!("{error} (option --block-size)"),
        _ => error.into(),
    })
}

fn open_source(arguments: &Arguments) -> Result<End> {
    let path = &arguments.source;
    let device = open_device(path, &options(arguments).read_only(true))?;
    let file = File::open(path).map_err(|error| failure(format_args!("open {}", path.display()), &error))?;
    Ok(End { device, file, path: path.clone(), _lock: None })
}

/// Opens a destination that exists. Nothing of it is changed before it is locked and known to have room.
fn open_destination(arguments: &Arguments, metadata: &fs::Metadata, size: u64) -> Result<End> {
    let path = &arguments.destination;
    let name = path.display();
    let options = options(arguments);
    let open_file = || {
        let file = OpenOptions::new().read(true).write(true).open(path);
        file.map_err(|error| failure(format_args!("open {name}"), &error))
    };
    if plain::kind(path, metadata)? == Kind::Disk {
        let device = open_device(path, &options)?;
        let file = open_file()?;
        let room = plain::size(path, &file)?;
        if room < size {
            bail!("{name} has {room} bytes and {} has {size}; give a larger device", arguments.source.display());
        }
        return Ok(End { device, file, path: path.clone(), _lock: None });
    }
    // A device knows its size from when it was opened: one takes the lock, the other comes after the size is set.
    let lock = open_device(path, &options.clone().backend(Backend::File))?;
    let file = open_file()?;
    let old_size = plain::size(path, &file)?;
    set_size(path, &file, old_size, size)?;
    let device = open_device(path, &options.exclusive(false))?;
    Ok(End { device, file, path: path.clone(), _lock: Some(lock) })
}

/// Makes the destination. The permissions are those that it shall have at the end, where it cannot be written with them.
fn create_destination(
    arguments: &Arguments,
    source_metadata: &fs::Metadata,
    size: u64,
) -> Result<(End, Option<fs::Permissions>)> {
    let path = &arguments.destination;
    let mut open = OpenOptions::new();
    open.read(true).write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
        open.mode((source_metadata.mode() & 0o777) | 0o600);
    }
    let file = open.open(path).map_err(|error| match error.kind() {
        // Nothing was there by `metadata`, which follows links.
        io::ErrorKind::AlreadyExists => anyhow!(
            "create {}: it is a link to a file that does not exist; remove the link, or give the file that it names",
            path.display()
        ),
        _ => failure(format_args!("create {}", path.display()), &error),
    })?;
    let mut created = Created { path: Some(path) };
    let permissions = final_permissions(source_metadata, &file);
    set_size(path, &file, 0, size)?;
    let device = open_device(path, &options(arguments))?;
    created.path = None;
    Ok((End { device, file, path: path.clone(), _lock: None }, permissions))
}

/// What the source does not allow its owner either, and what the umask left.
#[cfg(unix)]
fn final_permissions(source: &fs::Metadata, file: &File) -> Option<fs::Permissions> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let made = file.metadata().ok()?.mode() & 0o777;
    let wanted = made & source.mode();
    (wanted != made).then(|| fs::Permissions::from_mode(wanted))
}

#[cfg(not(unix))]
fn final_permissions(_: &fs::Metadata, _: &File) -> Option<fs::Permissions> {
    None
}

/// Gives a regular file the room that it needs, then its size; a file that cannot have the room keeps its size.
fn set_size(path: &Path, file: &File, old_size: u64, size: u64) -> Result<()> {
    let name = path.display();
    if let Err(error) = plain::allocate(file, size) {
        // Gives back the room behind the end that was taken before there was no more.
        let _ = file.set_len(old_size);
        return Err(failure(format_args!("allocate {size} bytes (from offset 0) for {name}"), &error));
    }
    file.set_len(size).map_err(|error| failure(format_args!("set the size of {name} to {size}"), &error))
}

/// The blocks of a copy, and how long a run is, in bytes.
fn plan(arguments: &Arguments, source: &Device) -> (Plan, usize) {
    let block = source.block_size();
    let depth = arguments.depth as usize;
    let run = (BATCH / depth / block * block).clamp(block, RUN);
    let blocks = source.block_count();
    let batch = ((run / block * depth) as u64).min(blocks.max(1));
    (Plan { blocks, batch, threads: arguments.threads.count() }, run)
}

/// Memory that both ends can use without a copy.
fn buffer(ends: [&Device; 2], plan: &Plan) -> Result<AlignedBuffer> {
    let [first, second] = ends;
    let pickier = if first.alignment() >= second.alignment() { first } else { second };
    // A batch has at most `BATCH` bytes, or one block for each request.
    let bytes = usize::try_from(plan.batch).context("a batch does not fit in memory")? * first.block_size();
    Ok(pickier.aligned_buffer(bytes)?)
}

/// The bytes of a range that fits in a buffer.
fn bytes(range: &Range<u64>, block_size: usize) -> usize {
    usize::try_from(range.end - range.start).map_or(usize::MAX, |blocks| blocks * block_size)
}

fn read(device: &Device, first: u64, buffer: &mut [u8], run: usize) -> Result<()> {
    let step = run / device.block_size();
    let mut requests: Vec<_> = (first..)
        .step_by(step)
        .zip(buffer.chunks_mut(run))
        .map(|(block, buffer)| ReadRequest::new(block, buffer))
        .collect();
    Ok(device.read_blocks(&mut requests).map_err(Error::from)?)
}

fn write(device: &Device, first: u64, data: &[u8], run: usize) -> Result<()> {
    let step = run / device.block_size();
    let mut requests: Vec<_> =
        (first..).step_by(step).zip(data.chunks(run)).map(|(block, data)| WriteRequest::new(block, data)).collect();
    Ok(device.write_blocks(&mut requests).map_err(Error::from)?)
}

fn copy_blocks(arguments: &Arguments, source: &End, destination: &End, progress: &ProgressBar) -> Result<()> {
    let (source, destination) = (&source.device, &destination.device);
    let (plan, run) = plan(arguments, source);
    for_each_batch(
        &plan,
        || buffer([source, destination], &plan),
        |buffer, range| {
            let buffer = &mut buffer[..bytes(&range, source.block_size())];
            read(source, range.start, buffer, run)?;
            write(destination, range.start, buffer, run)?;
            progress.inc(buffer.len() as u64);
            Ok(())
        },
    )
}

fn compare_blocks(arguments: &Arguments, source: &End, destination: &End, progress: &ProgressBar) -> Result<()> {
    let (plan, run) = plan(arguments, &source.device);
    let ends = [&source.device, &destination.device];
    for_each_batch(
        &plan,
        || Ok((buffer(ends, &plan)?, buffer(ends, &plan)?)),
        |(wanted, found), range| {
            let block_size = source.device.block_size();
            let length = bytes(&range, block_size);
            let (wanted, found) = (&mut wanted[..length], &mut found[..length]);
            read(&source.device, range.start, wanted, run)?;
            read(&destination.device, range.start, found, run)?;
            compare(wanted, found, range.start * block_size as u64, source, destination)?;
            progress.inc(length as u64);
            Ok(())
        },
    )
}

/// Where the bytes begin that are no whole block, and room for them.
fn tail(device: &Device, size: u64) -> Option<(u64, Vec<u8>)> {
    let length = size % device.block_size() as u64;
    (length > 0).then(|| (size - length, vec![0; length as usize]))
}

fn read_tail(end: &End, offset: u64, buffer: &mut [u8]) -> Result<()> {
    plain::read_at(&end.file, buffer, offset)
        .map_err(|error| failure(format_args!("read at offset {offset} of {}", end.path.display()), &error))
}

fn copy_tail(source: &End, destination: &End, size: u64) -> Result<()> {
    let Some((offset, mut bytes)) = tail(&source.device, size) else { return Ok(()) };
    read_tail(source, offset, &mut bytes)?;
    plain::write_at(&destination.file, &bytes, offset)
        .map_err(|error| failure(format_args!("write at offset {offset} of {}", destination.path.display()), &error))
}

fn compare_tail(source: &End, destination: &End, size: u64) -> Result<()> {
    let Some((offset, mut wanted)) = tail(&source.device, size) else { return Ok(()) };
    let mut found = vec![0; wanted.len()];
    read_tail(source, offset, &mut wanted)?;
    read_tail(destination, offset, &mut found)?;
    compare(&wanted, &found, offset, source, destination)
}

/// An error that names the first difference between two pieces that begin at `offset`.
fn compare(wanted: &[u8], found: &[u8], offset: u64, source: &End, destination: &End) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    let place = wanted.iter().zip(found).position(|(wanted, found)| wanted != found).unwrap_or_default();
    bail!(
        "verify: {} differs from {} at offset {}; copy again when nobody writes to either, and check the disk",
        destination.path.display(),
        source.path.display(),
        offset + place as u64
    )
}

/// On a terminal only: a pipe or a file gets no control characters.
fn progress_bar(arguments: &Arguments, size: u64, doing: &'static str) -> ProgressBar {
    if arguments.quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{msg} [{bar:40}] {percent}% {binary_bytes}/{binary_total_bytes} ({binary_bytes_per_sec}, {eta} left)";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style).with_message(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(directory: &Path, more: &[&str]) -> Arguments {
        let (source, destination) = (directory.join("source"), directory.join("destination"));
        let mut words = vec!["copy".as_ref(), source.as_os_str(), destination.as_os_str()];
        words.extend(more.iter().map(std::ffi::OsStr::new));
        let line: CommandLine = clap::Parser::parse_from(words);
        line.arguments
    }

    /// The first difference that a comparison of two files finds, or `None`.
    fn difference(size: usize, changed: &[usize], more: &[&str]) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let arguments = arguments(directory.path(), more);
        let mut data = vec![7_u8; size];
        fs::write(&arguments.source, &data).unwrap();
        changed.iter().for_each(|offset| data[*offset] ^= 1);
        fs::write(&arguments.destination, &data).unwrap();

        let source = open_source(&arguments).unwrap();
        let metadata = fs::metadata(&arguments.destination).unwrap();
        let destination = open_destination(&arguments, &metadata, size as u64).unwrap();
        let progress = ProgressBar::hidden();
        compare_blocks(&arguments, &source, &destination, &progress)
            .and_then(|()| compare_tail(&source, &destination, size as u64))
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn verify_names_the_first_difference() {
        let size = (9 << 20) + 100;
        for backend in ["file", "auto"] {
            let more = ["--threads=4", "--depth=2", "--backend", backend];
            assert_eq!(difference(size, &[], &more), None);
            let cases: [&[usize]; 4] = [&[0], &[4095, 4096], &[5_000_001, 9_000_000, 9 << 20], &[size - 1]];
            for changed in cases {
                let message = difference(size, changed, &more).expect("a difference");
                assert!(message.contains(&format!("at offset {};", changed[0])), "{message}");
            }
        }
    }

    #[test]
    fn a_batch_keeps_to_its_memory_and_to_whole_blocks() {
        let directory = tempfile::tempdir().unwrap();
        for (block, depth) in [("512", "1"), ("512", "4096"), ("4096", "3"), ("65536", "16"), ("65536", "4096")] {
            let arguments = arguments(directory.path(), &["--block-size", block, "--depth", depth]);
            File::create(&arguments.source).unwrap().set_len(1 << 30).unwrap();
            let source = open_source(&arguments).unwrap();
            let (plan, run) = plan(&arguments, &source.device);
            let block = source.device.block_size();
            let depth = arguments.depth as usize;
            assert_eq!(run % block, 0);
            assert!((block..=RUN).contains(&run), "{run}");
            assert_eq!(plan.batch, (run / block * depth) as u64);
            assert!(run == block || run * depth <= BATCH, "{run} * {depth}");
        }
    }
}
