//! `sysuring copy`: a file, an image or a disk, through the block device.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
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
/// Memory for a batch at most, in bytes: a deep queue gets shorter runs, and fewer of them where a run is one block.
const BATCH: usize = 16 << 20;

/// Copy a file, an image or a block device
///
/// The copy is byte-identical for every size, and on stable storage when the exit status is 0.
///
/// A DST that does not exist is created with SRC's size and permissions; a regular file gets SRC's size; a block device
/// must be at least as large as SRC, and keeps what lies behind. Every block is written: the holes of a sparse SRC are
/// filled with zeroes in DST. SRC and DST are locked meanwhile.
///
/// A copy that fails half way leaves DST incomplete, as large as SRC or as before, whichever is larger; one that fails
/// before the first write leaves DST as it was, or removes it where there was none. Where it is interrupted DST stays as
/// far as it got.
///
/// Each thread takes up to 16 MiB of memory for the data of its requests, and twice that while it verifies.
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
    /// Requests that each thread has in flight, or fewer where their data would take more than 16 MiB
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
    /// Of a regular destination. Put back, where it has to be, while the lock is still held.
    before: Option<Before>,
    // Closed before `_lock` is given up.
    device: Device,
    /// For what is no whole block.
    file: Arc<File>,
    path: PathBuf,
    /// Holds the lock where it had to be taken before the device could be opened.
    _lock: Option<Device>,
}

/// What a regular destination was before the copy, and becomes again unless the copy gets as far as writing to it.
#[derive(Debug)]
struct Before {
    path: PathBuf,
    file: Arc<File>,
    /// Its size; `None` where it was made for this copy.
    size: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of the file was changed.
    Untouched,
    /// The file may be longer or have more room; its bytes are what they were.
    Prepared,
    /// Bytes of the file may have been replaced: there is no way back.
    Written,
}

impl Before {
    fn new(path: &Path, file: &Arc<File>, size: Option<u64>) -> Self {
        Self { path: path.to_owned(), file: Arc::clone(file), size, state: Mutex::new(State::Untouched) }
    }

    /// Makes the file as long as the source where it is shorter: a device has the blocks that it had when it was opened.
    fn grow(&mut self, size: u64) -> Result<()> {
        if self.size.unwrap_or(0) >= size {
            return Ok(());
        }
        *self.state.get_mut().unwrap_or_else(PoisonError::into_inner) = State::Prepared;
        set_size(&self.path, &self.file, size)
    }

    /// Comes before every write. The first time it takes the room for all of them, or says that there is none.
    fn begin_writing(&self, size: u64) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Written {
            return Ok(());
        }
        *state = State::Prepared;
        plain::allocate(&self.file, size).map_err(|error| {
            failure(format_args!("allocate {size} bytes (from offset 0) for {}", self.path.display()), &error)
        })?;
        *state = State::Written;
        Ok(())
    }

    /// Whether the file is longer than the copy shall be.
    fn is_longer(&self, size: u64) -> bool {
        self.size.is_some_and(|before| before > size)
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        let state = *self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The error that brought us here is the one to tell, whatever comes of these.
        let _ = match (state, self.size) {
            (State::Written, _) | (State::Untouched, Some(_)) => Ok(()),
            (State::Untouched | State::Prepared, None) => fs::remove_file(&self.path),
            // Gives back the room behind the end too.
            (State::Prepared, Some(size)) => self.file.set_len(size),
        };
    }
}

impl End {
    /// Comes before every write to a destination for `size` bytes.
    fn begin_writing(&self, size: u64) -> Result<()> {
        self.before.as_ref().map_or(Ok(()), |before| before.begin_writing(size))
    }

    /// Cuts off what a destination has behind the `size` bytes that were written to it.
    fn cut(&self, size: u64) -> Result<()> {
        let Some(before) = &self.before else { return Ok(()) };
        // An empty source has had nothing written so far.
        before.begin_writing(size)?;
        if before.is_longer(size) { set_size(&self.path, &self.file, size) } else { Ok(()) }
    }

    /// The error where there are fewer bytes than there were said to be.
    fn too_short(&self) -> anyhow::Error {
        anyhow!(
            "{} ends before the size that it had when it was opened: it changed meanwhile, or its size is not that of its \
             contents, as in /proc and /sys; copy it when nobody writes to it, or with cat",
            self.path.display()
        )
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
    let size = source_size(&source)?;
    if source.device.block_count() != size / u64::from(arguments.block_size) {
        bail!("{} changed its size while it was opened; copy it when nobody writes to it", source_path.display());
    }

    // Before anything is made: at the end it would be too late to find that it cannot be had.
    let parent = if destination_metadata.is_none() { plain::open_parent(destination_path)? } else { None };
    let (destination, permissions) = match destination_metadata {
        Some(metadata) => (open_destination(arguments, &metadata, size)?, None),
        None => create_destination(arguments, &source_metadata, size)?,
    };
    let progress = progress_bar(arguments, size, "copying");
    copy_blocks(arguments, &source, &destination, size, &progress)?;
    copy_tail(&source, &destination, size)?;
    destination.cut(size)?;
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
    if let Some(parent) = parent {
        parent.sync_all().map_err(|error| {
            failure(format_args!("flush of the directory of {}", destination_path.display()), &error)
        })?;
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
        // The device knows of an option that is none of ours, and of no use to a destination.
        ErrorKind::ReadOnly if error.raw_os_error().is_none() => {
            let name = path.display();
            anyhow!("{name} is read-only; `blockdev --setrw {name}` lets it be written to, or give another destination")
        }
        _ => error.into(),
    })
}

fn open_source(arguments: &Arguments) -> Result<End> {
    let path = &arguments.source;
    let device = open_device(path, &options(arguments).read_only(true))?;
    let file = File::open(path).map_err(|error| failure(format_args!("open {}", path.display()), &error))?;
    Ok(End { before: None, device, file: Arc::new(file), path: path.clone(), _lock: None })
}

/// The size of the source, which must be one that can be believed.
fn source_size(source: &End) -> Result<u64> {
    let name = source.path.display();
    let size = plain::size(&source.path, &source.file)
        .map_err(|error| anyhow!("{error}; a source needs a size and to be seekable: copy this one with cat"))?;
    // Files that the kernel makes up have contents and no size.
    if size == 0 && plain::read_at(&source.file, &mut [0], 0).is_ok() {
        bail!(
            "{name} has contents, but its size is 0: it changed while it was opened, or has none, as in /proc; copy it \
               when nobody writes to it, or with cat"
        );
    }
    Ok(size)
}

/// Opens a destination that exists. It is not changed before it is locked, and not shortened.
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
        return Ok(End { before: None, device, file: Arc::new(file), path: path.clone(), _lock: None });
    }
    // A device knows its size from when it was opened: one takes the lock, the other comes after the file has grown.
    let lock = open_device(path, &options.clone().backend(Backend::File))?;
    let file = Arc::new(open_file()?);
    let mut before = Before::new(path, &file, Some(plain::size(path, &file)?));
    before.grow(size)?;
    let device = open_device(path, &options.exclusive(false))?;
    Ok(End { before: Some(before), device, file, path: path.clone(), _lock: Some(lock) })
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
    let file = Arc::new(file);
    let mut before = Before::new(path, &file, None);
    let permissions = final_permissions(source_metadata, &file);
    before.grow(size)?;
    let device = open_device(path, &options(arguments))?;
    Ok((End { before: Some(before), device, file, path: path.clone(), _lock: None }, permissions))
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

fn set_size(path: &Path, file: &File, size: u64) -> Result<()> {
    file.set_len(size).map_err(|error| failure(format_args!("set the size of {} to {size}", path.display()), &error))
}

/// The blocks of a copy, and how long a run is, in bytes.
fn plan(arguments: &Arguments, source: &Device) -> (Plan, usize) {
    let block = source.block_size();
    let depth = arguments.depth as usize;
    let run = (BATCH / depth / block * block).clamp(block, RUN);
    let blocks = source.block_count();
    let batch = ((run / block * depth.min(BATCH / run)) as u64).min(blocks.max(1));
    (Plan { blocks, batch, threads: arguments.threads.count() }, run)
}

/// Memory that both ends can use without a copy.
fn buffer(ends: [&Device; 2], plan: &Plan) -> Result<AlignedBuffer> {
    let [first, second] = ends;
    let pickier = if first.alignment() >= second.alignment() { first } else { second };
    let bytes = usize::try_from(plan.batch).context("a batch does not fit in memory")? * first.block_size();
    Ok(pickier.aligned_buffer(bytes)?)
}

/// The bytes of a range that fits in a buffer.
fn bytes(range: &Range<u64>, block_size: usize) -> usize {
    usize::try_from(range.end - range.start).map_or(usize::MAX, |blocks| blocks * block_size)
}

fn read(end: &End, first: u64, buffer: &mut [u8], run: usize) -> Result<()> {
    let device = &end.device;
    let step = run / device.block_size();
    let mut requests: Vec<_> = (first..)
        .step_by(step)
        .zip(buffer.chunks_mut(run))
        .map(|(block, buffer)| ReadRequest::new(block, buffer))
        .collect();
    device.read_blocks(&mut requests).map_err(Error::from).map_err(|error| match error.kind() {
        ErrorKind::EndOfDevice => end.too_short(),
        _ => error.into(),
    })
}

fn write(device: &Device, first: u64, data: &[u8], run: usize) -> Result<()> {
    let step = run / device.block_size();
    let mut requests: Vec<_> =
        (first..).step_by(step).zip(data.chunks(run)).map(|(block, data)| WriteRequest::new(block, data)).collect();
    Ok(device.write_blocks(&mut requests).map_err(Error::from)?)
}

fn copy_blocks(
    arguments: &Arguments,
    source: &End,
    destination: &End,
    size: u64,
    progress: &ProgressBar,
) -> Result<()> {
    let (plan, run) = plan(arguments, &source.device);
    for_each_batch(
        &plan,
        || buffer([&source.device, &destination.device], &plan),
        |buffer, range| {
            let buffer = &mut buffer[..bytes(&range, source.device.block_size())];
            read(source, range.start, buffer, run)?;
            destination.begin_writing(size)?;
            write(&destination.device, range.start, buffer, run)?;
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
            read(source, range.start, wanted, run)?;
            read(destination, range.start, found, run)?;
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
    plain::read_at(&end.file, buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => end.too_short(),
        _ => failure(format_args!("read at offset {offset} of {}", end.path.display()), &error),
    })
}

fn copy_tail(source: &End, destination: &End, size: u64) -> Result<()> {
    let Some((offset, mut bytes)) = tail(&source.device, size) else { return Ok(()) };
    read_tail(source, offset, &mut bytes)?;
    destination.begin_writing(size)?;
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
    fn a_source_that_shrinks_is_named() {
        let size = (9 << 20) + 100;
        // In the last batch, in the tail, and all of it.
        for left in [8 << 20, size - 1, 0] {
            for backend in ["file", "auto"] {
                let directory = tempfile::tempdir().unwrap();
                let arguments = arguments(directory.path(), &["--depth=2", "--threads=1", "--backend", backend]);
                fs::write(&arguments.source, vec![7_u8; size]).unwrap();
                fs::write(&arguments.destination, "old").unwrap();
                let source = open_source(&arguments).unwrap();
                let metadata = fs::metadata(&arguments.destination).unwrap();
                let destination = open_destination(&arguments, &metadata, size as u64).unwrap();
                File::options().write(true).open(&arguments.source).unwrap().set_len(left as u64).unwrap();
                let message = copy_blocks(&arguments, &source, &destination, size as u64, &ProgressBar::hidden())
                    .and_then(|()| copy_tail(&source, &destination, size as u64))
                    .unwrap_err()
                    .to_string();
                assert!(message.contains(&format!("{} ends before", arguments.source.display())), "{message}");
                drop(destination);
                let found = fs::read(&arguments.destination).unwrap();
                if left == 0 {
                    assert_eq!(found, b"old");
                } else {
                    assert_eq!(found.len(), size);
                }
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
            let bytes = plan.batch as usize * block;
            assert_eq!(bytes % run, 0);
            assert!(bytes <= BATCH, "{bytes}");
            assert!(bytes / run == depth || (run == block && bytes == BATCH), "{bytes} in runs of {run}");
        }
    }
}
