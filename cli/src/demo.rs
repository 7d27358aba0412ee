//! `sysuring demo`: a block device made, written by several threads, read back, verified and measured.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use sysuring::Error;
use sysuring::block::{self, AlignedBuffer, BlockDevice, Device, Options, ReadRequest, WriteRequest};
use tempfile::TempDir;

use crate::batches::{Plan, for_each_batch};
use crate::measure;
use crate::options::{BackendChoice, Threads};
use crate::plain::failure;
use crate::temporary;

/// Bytes in a block of the demonstration.
pub(crate) const BLOCK: usize = 4096;
/// Requests in a batch, and in flight for each thread.
pub(crate) const DEPTH: usize = 32;
/// Blocks in a run that is written at once.
const RUN: usize = 16;
/// The pattern is the same in every run of the program.
const SEED: u64 = 0x5eed_0b10_c000_0001;
/// Spreads block numbers over the seeds of their patterns.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Create a block device in a temporary file, write, read back, verify and measure it
///
/// Takes a few seconds, and leaves nothing behind, also where it is interrupted: the file is unlinked as soon as it is
/// open.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Size of the device in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    size: u64,
    #[command(flatten)]
    threads: Threads,
    /// How to reach the blocks
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
    /// Where to make the temporary file [default: where O_DIRECT works among the directory for temporary files, /var/tmp
    /// and the current directory]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let place = Place::find(arguments.directory.as_deref())?;
    let path = place.directory.path().join("demo.img");
    let size = arguments.size << 20;
    let options = Options::new()
        .block_size(BLOCK as u32)
        .queue_depth(DEPTH as u32)
        .create(size)
        .direct(place.direct)
        .backend(arguments.backend.into());
    let device = block::open(&path, &options)?;
    let direct = device.report().direct;
    let file = open_plain(&path, direct)
        .map_err(|error| failure(format_args!("open {} for pread", path.display()), &error))?;
    // Nothing needs the path any more, and what has none is gone whatever ends this program.
    let kept = if cfg!(unix) {
        unlink(&path, place.directory)?;
        None
    } else {
        Some(place.directory)
    };
    crate::print(format_args!(
        "device    {} MiB in {}, {} blocks of {BLOCK} bytes",
        arguments.size,
        path.display(),
        device.block_count()
    ))?;
    if let Some(remark) = &place.remark {
        crate::print(format_args!("          {remark}"))?;
    }
    crate::print(format_args!("backend   {}", device.backend()))?;

    let blocks = device.block_count();
    let plan = Plan { blocks, batch: (DEPTH * RUN) as u64, threads: arguments.threads.count() };
    step("write", &format!("{} threads, a pattern of block number and seed", plan.threads), size, || {
        write_all(&device, &plan)
    })?;
    step("flush", "to stable storage", 0, || Ok(device.flush()?))?;
    step("verify", &format!("{} threads, random blocks in batches of {DEPTH}", plan.threads), size, || {
        verify_all(&device, &plan)
    })?;

    let how = if direct { "O_DIRECT" } else { "through the page cache" };
    crate::print(format_args!(
        "measure   random reads of {BLOCK} bytes, {how}, one thread, median of {} rounds",
        measure::ROUNDS
    ))?;
    let table = measure::compare(&device, &file)?;
    crate::print(format_args!("\n{table}\n"))?;

    crate::print(device.report())?;
    drop(file);
    device.close()?;
    kept.map_or(Ok(()), |directory| unlink(&path, directory))
}

/// Removes the file and its directory.
fn unlink(path: &Path, directory: TempDir) -> Result<()> {
    fs::remove_file(path).map_err(|error| failure(format_args!("remove {}", path.display()), &error))?;
    let name = directory.path().to_owned();
    directory.close().map_err(|error| failure(format_args!("remove {}", name.display()), &error))
}

/// Carries out a step, and says how long it took and, where it moved `bytes`, how fast it was.
fn step(name: &str, what: &str, bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    work()?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = match bytes {
        0 => String::new(),
        _ => format!(", {:.0} MiB/s", bytes as f64 / seconds.max(1e-6) / f64::from(1 << 20)),
    };
    crate::print(format_args!("{name:9} {what}: {seconds:.2} s{rate}"))
}

/// Where the file is, and how it can be opened.
struct Place {
    directory: TempDir,
    direct: bool,
    /// Why it is there, or not past the page cache, where that is not as expected.
    remark: Option<String>,
}

impl Place {
    fn find(wanted: Option<&Path>) -> Result<Self> {
        if let Some(wanted) = wanted {
            let directory = temporary::directory(wanted)?;
            let direct = takes_direct(directory.path());
            let remark = (!direct).then(|| format!("no O_DIRECT in {}: through the page cache", wanted.display()));
            return Ok(Self { directory, direct, remark });
        }
        // Why the places before are not taken, and the first that can be written to at least.
        let (mut reasons, mut usable) = (Vec::new(), None);
        let mut first_error = None;
        for place in temporary::places() {
            // A place that cannot be written to is no error while there are others.
            let directory = match temporary::directory(&place) {
                Ok(directory) => directory,
                Err(error) => {
                    reasons.push(error.to_string());
                    first_error.get_or_insert(error);
                    continue;
                }
            };
            if takes_direct(directory.path()) {
                return Ok(Self { directory, direct: true, remark: reasons.into_iter().next() });
            }
            reasons.push(format!("no O_DIRECT in {}", place.display()));
            usable.get_or_insert(directory);
        }
        match (usable, first_error) {
            (Some(directory), _) => {
                let remark = Some("no O_DIRECT there nor in the current directory: through the page cache".to_owned());
                Ok(Self { directory, direct: false, remark })
            }
            (None, Some(error)) => bail!("{error}; give another place (option --directory)"),
            (None, None) => bail!("there is no directory for temporary files; give one (option --directory)"),
        }
    }
}

/// Whether O_DIRECT means something in a directory: file systems in memory accept it since Linux 6.6, and have nothing
/// to go past.
fn takes_direct(directory: &Path) -> bool {
    #[cfg(target_os = "linux")]
    if let Ok(found) = nix::sys::statfs::statfs(directory) {
        if found.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC {
            return false;
        }
    }
    let path = directory.join("direct");
    let accepted = File::create(&path).and_then(|_| open_plain(&path, true)).is_ok();
    // It goes with its directory anyway.
    let _ = fs::remove_file(&path);
    accepted
}

/// Opens a file for reading by ordinary calls, past the page cache or through it.
fn open_plain(path: &Path, direct: bool) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    if direct {
        #[cfg(target_os = "linux")]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::fcntl::OFlag::O_DIRECT.bits());
        #[cfg(not(target_os = "linux"))]
        return Err(io::ErrorKind::Unsupported.into());
    }
    options.open(path)
}

/// Fills a block with what belongs there: its number, then bytes that depend on it and on the seed.
fn fill(block: u64, buffer: &mut [u8]) {
    Rng::with_seed(SEED ^ block.wrapping_mul(SPREAD)).fill(buffer);
    buffer[..8].copy_from_slice(&block.to_le_bytes());
}

fn write_all(device: &Device, plan: &Plan) -> Result<()> {
    for_each_batch(
        plan,
        || batch_buffer(device, plan.batch),
        |buffer, range| {
            let buffer = &mut buffer[..bytes(&range)];
            for (block, piece) in range.clone().zip(buffer.chunks_mut(BLOCK)) {
                fill(block, piece);
            }
            let mut requests: Vec<_> = (range.start..)
                .step_by(RUN)
                .zip(buffer.chunks(RUN * BLOCK))
                .map(|(block, data)| WriteRequest::new(block, data))
                .collect();
            Ok(device.write_blocks(&mut requests).map_err(Error::from)?)
        },
    )
}

fn verify_all(device: &Device, plan: &Plan) -> Result<()> {
    // All blocks once, in an order that has nothing to do with how they were written.
    let mut order: Vec<u64> = (0..plan.blocks).collect();
    Rng::with_seed(SEED).shuffle(&mut order);
    for_each_batch(
        &Plan { batch: DEPTH as u64, ..*plan },
        || Ok((batch_buffer(device, DEPTH as u64)?, vec![0; BLOCK])),
        |(buffer, expected), range| {
            let buffer = &mut buffer[..bytes(&range)];
            let blocks = &order[range.start as usize..range.end as usize];
            let mut requests: Vec<_> = blocks
                .iter()
                .zip(buffer.chunks_mut(BLOCK))
                .map(|(block, buffer)| ReadRequest::new(*block, buffer))
                .collect();
            device.read_blocks(&mut requests).map_err(Error::from)?;
            requests.iter().try_for_each(|request| check(request.block(), request.data(), expected))
        },
    )
}

/// Compares a block with what belongs there.
fn check(block: u64, found: &[u8], expected: &mut [u8]) -> Result<()> {
    fill(block, expected);
    if found == expected {
        return Ok(());
    }
    let offset = found.iter().zip(&*expected).position(|(found, expected)| found != expected).unwrap_or_default();
    let number = u64::from_le_bytes(found[..8].try_into().context("a block is shorter than its number")?);
    bail!("verify of block {block}: wrong from byte {offset} on; it says that it is block {number}")
}

fn batch_buffer(device: &Device, blocks: u64) -> Result<AlignedBuffer> {
    Ok(device.aligned_buffer(bytes(&(0..blocks)))?)
}

/// The bytes of a range of blocks that is a batch, and so fits in memory.
fn bytes(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize * BLOCK
}

#[cfg(test)]
mod tests {
    use sysuring::block::Backend;

    use super::*;

    #[test]
    fn a_pattern_belongs_to_one_block() {
        let (mut a, mut b, mut scratch) = (vec![0; BLOCK], vec![0; BLOCK], vec![0; BLOCK]);
        fill(7, &mut a);
        fill(8, &mut b);
        assert_ne!(a[8..], b[8..]);
        assert!(check(7, &a, &mut scratch).is_ok());
        let message = check(7, &b, &mut scratch).unwrap_err().to_string();
        assert!(message.contains("block 7") && message.contains("block 8"), "{message}");
        a[4095] ^= 1;
        let message = check(7, &a, &mut scratch).unwrap_err().to_string();
        assert!(message.contains("byte 4095"), "{message}");
    }

    #[test]
    fn what_is_lost_on_the_device_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device");
        let options = Options::new().create(1 << 20).backend(Backend::File);
        let device = block::open(&path, &options).unwrap();
        let plan = Plan { blocks: device.block_count(), batch: 64, threads: 2 };
        write_all(&device, &plan).unwrap();
        verify_all(&device, &plan).unwrap();
        device.write_block(200, &[0; BLOCK]).unwrap();
        let message = verify_all(&device, &plan).unwrap_err().to_string();
        assert!(message.contains("block 200"), "{message}");
    }
}
