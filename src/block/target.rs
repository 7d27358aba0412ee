//! The file or disk below a device: opening, locking, geometry, and the checks that every backend shares.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::block::command::Action;
#[cfg(all(test, unix))]
use crate::block::faults::platform as sys;
use crate::block::foreign;
use crate::block::latency::Clock;
#[cfg(nvme)]
use crate::block::nvme::Namespace;
#[cfg(not(all(test, unix)))]
use crate::block::platform as sys;
use crate::block::platform::{Access, Clear};
use crate::block::stats::{Counters, count};
use crate::block::{AlignedBuffer, Capabilities, Degraded, Fallback, Geometry, Options};
use crate::error::{Error, ErrorKind, Result};

/// Block sizes that a device may have.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=65536;
/// Deepest queue.
const MAX_QUEUE_DEPTH: u32 = 4096;
/// Largest pool, in bytes.
const MAX_POOL_SIZE: usize = 1 << 30;
/// Longest piece of zeroes that is written at once, in bytes.
const ZEROES: u64 = 1 << 20;
/// Ways to zero a range of a file and of a disk, the best first; after them zeroes are written.
const ZEROING: [&[Clear]; 2] = [&[Clear::ZeroRange], &[Clear::ZeroRange, Clear::ZeroOut]];
/// Ways to discard a range of a file and of a disk, the best first; before them, for a disk, the command of a ring.
const DISCARDING: [&[Clear]; 2] = [&[Clear::PunchHole], &[Clear::PunchHole, Clear::Discard]];

/// Longest read that is tried from the page cache before anything else, in bytes: a longer one keeps its thread for long, and is
/// copied in vain where its end is missing.
const LONGEST_CACHED: usize = 64 << 10;
/// How many reads go by after one that was not in the page cache, before it is asked again.
const CACHE_RESTS: u32 = 16;
/// The page cache is not asked.
const NEVER: u32 = u32::MAX;

/// An opened file or disk.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Holds a disk against others for as long as it is open; not used for I/O, so that nothing else keeps it open.
    _claim: Option<File>,
    pub(crate) block_size: u32,
    /// Changes when the target is resized, or found to have been.
    block_count: AtomicU64,
    /// Of addresses in memory, in bytes.
    pub(crate) alignment: usize,
    pub(crate) direct: bool,
    pub(crate) read_only: bool,
    pub(crate) queue_depth: u32,
    geometry: Geometry,
    pub(crate) capabilities: Capabilities,
    pub(crate) counters: Counters,
    /// Where somebody wants to know.
    pub(crate) clock: Option<Box<Clock>>,
    /// What was asked for and could not be had.
    pub(crate) steps: Steps,
    /// How many of [`ZEROING`] the target refused.
    zeroing_refused: AtomicU8,
    /// How many reads go by before the page cache is asked again; [`NEVER`] where it is not to be asked.
    cache_rests_for: AtomicU32,
    /// The process that holds the lock: the lock is one with a forked child's, which must not release it.
    locked_by: Option<u32>,
    /// Where the file is the way to a namespace, to which everything is a command.
    #[cfg(nvme)]
    pub(crate) namespace: Option<Box<Namespace>>,
}

/// What a target is over.
#[cfg(any(nvme, all(test, unix)))]
pub(crate) struct Below {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) claim: Option<File>,
    pub(crate) geometry: Geometry,
    pub(crate) capabilities: Capabilities,
    pub(crate) locked_by: Option<u32>,
    #[cfg(nvme)]
    pub(crate) namespace: Option<Box<Namespace>>,
}

#[cfg(any(nvme, all(test, unix)))]
impl Below {
    fn is_namespace(&self) -> bool {
        #[cfg(nvme)]
        let is_namespace = self.namespace.is_some();
        #[cfg(not(nvme))]
        let is_namespace = false;
        is_namespace
    }
}

impl Target {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self> {
        check_options(options)?;
        let name = path.display();
        let mut created = false;
        match std::fs::metadata(path) {
            Ok(metadata) => check_type(path, &metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if options.create.is_none() || options.read_only {
                    let error = Error::from_io(error, format_args!("open {name}"));
                    return Err(if options.read_only { error } else { error.with_hint("Options::create makes it") });
                }
                created = true;
            }
            Err(error) => return Err(Error::from_io(error, format_args!("open {name}"))),
        }

        let steps = Steps::new(options, false);
        let (file, mut direct) = match open_file(path, options, created, &steps) {
            // Somebody made it in the meantime.
            Err(error) if created && error.kind() == ErrorKind::AlreadyExists => {
                created = false;
                open_file(path, options, created, &steps)?
            }
            opened => opened?,
        };
        let opened = Self::finish(path, options, file, created, &mut direct, steps);
        let is_ours = opened.as_ref().is_err_and(|error| error.kind() != ErrorKind::Busy);
        if is_ours && created {
            // Made a moment ago by us and of no use to anybody; that it may be gone already changes nothing.
            let _ = std::fs::remove_file(path);
        }
        opened
    }

    /// Everything after the open proper; an error here leaves nothing behind but the file that was created.
    fn finish(
        path: &Path,
        options: &Options,
        mut file: File,
        created: bool,
        direct: &mut bool,
        steps: Steps,
    ) -> Result<Self> {
        let name = path.display();
        if options.exclusive {
            sys::lock(&file, options.read_only).map_err(|error| in_use(path, error))?;
        }
        if let (true, Some(bytes)) = (created, options.create) {
            file.set_len(bytes)
                .map_err(|error| Error::from_io(error, format_args!("set the size of {name} to {bytes}")))?;
        }
        let read_geometry = |file: &File, direct| {
            sys::geometry(file, direct)
                .map_err(|error| Error::from_io(error, format_args!("read the geometry of {name}")))
        };
        let mut geometry = read_geometry(&file, *direct)?;
        let block_size = u64::from(options.block_size);

        if geometry.is_disk && options.block_size < geometry.logical_block {
            let message = format!(
                "block size {block_size} is under the logical block size of {name}; use {} or a larger power of two",
                geometry.logical_block
            );
            return Err(Error::new(ErrorKind::Misaligned, message));
        }
        if let Some(bytes) = options.create {
            if geometry.bytes != bytes && !(geometry.is_disk && geometry.bytes > bytes) {
                let message = format!(
                    "{name} exists with {} bytes, not {bytes}; open it without a size to create, or remove it",
                    geometry.bytes
                );
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
        }
        if geometry.bytes % block_size != 0 && !options.whole_blocks {
            let message = format!(
                "{name} has {} bytes, which is no multiple of the block size {block_size}; use another block size, or \
                 the option whole_blocks to leave the last bytes out",
                geometry.bytes
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }

        if geometry.is_disk && !options.read_only && sys::is_read_only(&file) {
            let message = format!(
                "{name} is read-only; `blockdev --setrw {name}` lets it be written to, and Options::read_only opens it for reading"
            );
            return Err(Error::new(ErrorKind::ReadOnly, message));
        }
        let claim = if options.exclusive && geometry.is_disk && !options.read_only {
            Some(sys::claim(path).map_err(|error| in_use(path, error))?)
        } else {
            None
        };
        if *direct && options.block_size < geometry.logical_block {
            let what = format!(
                "O_DIRECT wants transfers in multiples of {} bytes here and the block size is {block_size}",
                geometry.logical_block
            );
            steps.take(path, Fallback::PageCache, &what)?;
            *direct = false;
            // The lock goes with the first file description, so it is taken anew.
            drop(file);
            file = sys::open(path, access(options, false, false))
                .map_err(|error| Error::from_io(error, format_args!("open {name}")))?;
            if options.exclusive {
                sys::lock(&file, options.read_only).map_err(|error| in_use(path, error))?;
            }
            geometry = read_geometry(&file, false)?;
        }
        let capabilities = Capabilities {
            write: !options.read_only,
            discard: !options.read_only && sys::can_discard(&file),
            resize: !options.read_only && !geometry.is_disk,
            native_fua: sys::HAS_DURABLE_WRITE,
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            _claim: claim,
            block_size: options.block_size,
            block_count: AtomicU64::new(geometry.bytes / block_size),
            alignment: geometry.memory_alignment as usize,
            direct: *direct,
            read_only: options.read_only,
            queue_depth: options.queue_depth,
            geometry,
            capabilities,
            counters: Counters::default(),
            clock: options.measure_latency.then(Clock::new),
            steps,
            zeroing_refused: AtomicU8::new(0),
            cache_rests_for: AtomicU32::new(rest_of_cache(*direct, options)),
            locked_by: options.exclusive.then(std::process::id),
            #[cfg(nvme)]
            namespace: None,
        })
    }

    /// Over a file of which it is known what it is like.
    #[cfg(all(test, unix))]
    pub(crate) fn over(file: File, geometry: Geometry, options: &Options) -> Self {
        let below = Below {
            path: PathBuf::from("disk"),
            file,
            claim: None,
            geometry,
            capabilities: Capabilities { write: true, discard: true, resize: false, native_fua: true },
            locked_by: None,
            #[cfg(nvme)]
            namespace: None,
        };
        Self::of(below, options)
    }

    /// Over something of which all is known; nothing is checked.
    #[cfg(any(nvme, all(test, unix)))]
    pub(crate) fn of(below: Below, options: &Options) -> Self {
        let geometry = below.geometry;
        let is_past_cache = options.direct || below.is_namespace();
        let steps = Steps::new(options, below.is_namespace());
        Self {
            path: below.path,
            file: below.file,
            _claim: below.claim,
            block_size: options.block_size,
            block_count: AtomicU64::new(geometry.bytes / u64::from(options.block_size)),
            alignment: geometry.memory_alignment as usize,
            direct: options.direct,
            read_only: options.read_only,
            queue_depth: options.queue_depth,
            geometry,
            capabilities: below.capabilities,
            counters: Counters::default(),
            clock: options.measure_latency.then(Clock::new),
            steps,
            zeroing_refused: AtomicU8::new(0),
            cache_rests_for: AtomicU32::new(rest_of_cache(is_past_cache, options)),
            locked_by: below.locked_by,
            #[cfg(nvme)]
            namespace: below.namespace,
        }
    }

    /// Blocks on the device, as far as is known now.
    #[inline]
    pub(crate) fn block_count(&self) -> u64 {
        self.block_count.load(Ordering::Relaxed)
    }

    /// With the size that is known now.
    pub(crate) fn geometry(&self) -> Geometry {
        let whole = self.geometry.bytes / u64::from(self.block_size);
        match self.block_count() {
            count if count == whole => self.geometry,
            count => Geometry { bytes: count * u64::from(self.block_size), ..self.geometry },
        }
    }

    /// Checks a request for `bytes` from `block` on; the answer is its offset in bytes.
    #[inline]
    pub(crate) fn check(&self, operation: &str, block: u64, bytes: usize) -> Result<u64> {
        let length = bytes as u64;
        // The block size is a power of two, which the compiler can't know.
        if length == 0 || length & u64::from(self.block_size - 1) != 0 {
            return Err(self.odd_length(operation, block, length));
        }
        self.check_range(operation, block, length >> self.block_size.trailing_zeros())
    }

    #[cold]
    fn odd_length(&self, operation: &str, block: u64, length: u64) -> Error {
        let name = self.path.display();
        let message = if length == 0 {
            format!("{operation} of block {block} of {name}: the buffer has no bytes")
        } else {
            let block_size = self.block_size;
            format!(
                "{operation} of block {block} of {name}: a buffer of {length} bytes is no multiple of the block size {block_size}"
            )
        };
        Error::new(ErrorKind::InvalidInput, message)
    }

    /// Checks that there are `blocks` from `first` on; the answer is their offset in bytes.
    #[inline]
    pub(crate) fn check_range(&self, operation: &str, first: u64, blocks: u64) -> Result<u64> {
        let count = self.block_count();
        if first.checked_add(blocks).is_none_or(|end| end > count) {
            return Err(self.out_of_range(operation, first, blocks, count));
        }
        // No overflow: it is under the size of the target.
        Ok(first * u64::from(self.block_size))
    }

    #[cold]
    fn out_of_range(&self, operation: &str, first: u64, blocks: u64, count: u64) -> Error {
        let (name, unit) = (self.path.display(), if blocks == 1 { "block" } else { "blocks" });
        let there_is = match count {
            0 => "no blocks".to_owned(),
            1 => "block 0 only".to_owned(),
            _ => format!("blocks 0 to {} only", count - 1),
        };
        let message = format!("{operation} of {blocks} {unit} from block {first} on: {name} has {there_is}");
        Error::new(ErrorKind::OutOfRange, message)
    }

    /// Checks that the buffer is one block long.
    #[inline]
    pub(crate) fn check_one(&self, operation: &str, block: u64, bytes: usize) -> Result<()> {
        if bytes == self.block_size as usize { Ok(()) } else { Err(self.not_one_block(operation, block, bytes)) }
    }

    #[cold]
    fn not_one_block(&self, operation: &str, block: u64, bytes: usize) -> Error {
        let message = format!(
            "{operation} of block {block} of {}: the buffer has {bytes} bytes, a block has {}",
            self.path.display(),
            self.block_size
        );
        Error::new(ErrorKind::InvalidInput, message)
    }

    /// Refuses a write to a device opened for reading.
    pub(crate) fn check_writable(&self, operation: &str, block: u64) -> Result<()> {
        if self.read_only { Err(self.opened_for_reading(&format!("{operation} of block {block}"))) } else { Ok(()) }
    }

    #[cold]
    fn opened_for_reading(&self, what: &str) -> Error {
        Error::new(ErrorKind::ReadOnly, format!("{what} of {}: opened for reading only", self.path.display()))
    }

    /// The kernel's error for a transfer at `offset`.
    #[cfg(uring)]
    pub(crate) fn transfer_error(&self, operation: &str, offset: u64, errno: i32) -> Error {
        Error::from_errno(errno, self.place(operation, offset))
    }

    /// The error for a transfer that moved nothing where blocks should be.
    #[cold]
    fn end_error(&self, operation: &str, offset: u64) -> Error {
        let message = format!(
            "{}: the target ends before its {} blocks do; was it truncated? BlockDevice::rescan asks for its size again",
            self.place(operation, offset),
            self.block_count()
        );
        Error::new(ErrorKind::EndOfDevice, message)
    }

    /// Logs that a target ended early, where that is the error: with no lock held, since a logger may use a device.
    #[cold]
    pub(crate) fn log_end(error: &Error) {
        if error.kind() == ErrorKind::EndOfDevice {
            foreign::call(|| log::error!("{error}"));
        }
    }

    /// How much of what a transfer moved is of use, where `asked` was asked for: the next one begins at a multiple of the unit.
    /// An error where that is nothing.
    pub(crate) fn account(&self, operation: &str, offset: u64, moved: usize, asked: usize) -> Result<usize> {
        if moved >= asked {
            return Ok(asked);
        }
        match moved - moved % self.unit() {
            0 => Err(self.end_error(operation, offset)),
            kept => {
                count(&self.counters.short_transfers, 1);
                Ok(kept)
            }
        }
    }

    pub(crate) fn place(&self, operation: &str, offset: u64) -> String {
        let block = offset / u64::from(self.block_size);
        format!("{operation} of block {block} (offset {offset}) of {}", self.path.display())
    }

    /// Whether blocks are written one after the other, and in no other order.
    pub(crate) fn is_zoned(&self) -> bool {
        #[cfg(nvme)]
        let is_zoned = self.namespace.as_ref().is_some_and(|namespace| namespace.is_zoned());
        #[cfg(not(nvme))]
        let is_zoned = false;
        is_zoned
    }

    /// Whether a flush has something to do.
    pub(crate) fn may_need_flush(&self) -> bool {
        #[cfg(nvme)]
        let has_cache = self.namespace.as_ref().is_none_or(|namespace| namespace.has_write_cache());
        #[cfg(not(nvme))]
        let has_cache = true;
        has_cache && !self.read_only
    }

    /// What offsets and lengths of transfers must be multiples of, in bytes.
    pub(crate) fn unit(&self) -> usize {
        if self.direct { self.geometry.logical_block as usize } else { 1 }
    }

    /// Whether a transfer may begin at this address in memory.
    #[inline]
    pub(crate) fn is_aligned(&self, memory: *const u8) -> bool {
        // A power of two, which the compiler can't know.
        memory.addr() & (self.alignment - 1) == 0
    }

    /// Reads into `buffer` at `offset` with `pread`: all of it, or up to where a short transfer leaves an address that is not
    /// aligned. The answer is how much that is.
    #[inline]
    pub(crate) fn pread(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if !self.is_aligned(buffer.as_ptr()) {
            return Ok(0);
        }
        #[cfg(nvme)]
        if let Some(namespace) = &self.namespace {
            return namespace.read(self, buffer, offset);
        }
        match sys::pread(&self.file, buffer, offset) {
            Ok(moved) if moved == buffer.len() => Ok(moved),
            first => self.pread_on(buffer, offset, first),
        }
    }

    /// Reads what is in the page cache, where all of it is: in one call that waits for nothing, for which neither a ring nor a
    /// thread is worth it. `false` where it is to be read in another way.
    #[inline]
    pub(crate) fn read_cached(&self, buffer: &mut [u8], offset: u64) -> bool {
        let rests_for = self.cache_rests_for.load(Ordering::Relaxed);
        if rests_for != 0 {
            if rests_for != NEVER {
                // Two threads may count as one: it is asked a bit later then.
                self.cache_rests_for.store(rests_for - 1, Ordering::Relaxed);
            }
            return false;
        }
        buffer.len() <= LONGEST_CACHED && self.ask_cache(buffer, offset)
    }

    fn ask_cache(&self, buffer: &mut [u8], offset: u64) -> bool {
        match sys::pread_cached(&self.file, buffer, offset) {
            Ok(moved) if moved == buffer.len() => return true,
            // The file system has no such reads, or a filter of system calls refuses them.
            Err(error) if sys::is_unsupported(&error) || is_refusal(&error) => {
                self.cache_rests_for.store(NEVER, Ordering::Relaxed);
            }
            // What is wrong is found, and told, by who reads it next.
            Ok(_) | Err(_) => self.cache_rests_for.store(CACHE_RESTS, Ordering::Relaxed),
        }
        false
    }

    /// Goes on after the first call.
    #[cold]
    fn pread_on(&self, buffer: &mut [u8], offset: u64, first: io::Result<usize>) -> Result<usize> {
        let (mut progress, mut done, mut result) = (Progress::default(), 0, first);
        loop {
            let rest = &mut buffer[done..];
            done += progress.step(self, "read", offset + done as u64, result, rest.len())?;
            let rest = &mut buffer[done..];
            if rest.is_empty() || !self.is_aligned(rest.as_ptr()) {
                return Ok(done);
            }
            result = sys::pread(&self.file, rest, offset + done as u64);
        }
    }

    /// Writes `data` at `offset` with `pwrite`; as [`Target::pread`].
    #[inline]
    pub(crate) fn pwrite(&self, data: &[u8], offset: u64, durable: bool) -> Result<usize> {
        if !self.is_aligned(data.as_ptr()) {
            return Ok(0);
        }
        #[cfg(nvme)]
        if let Some(namespace) = &self.namespace {
            return namespace.write(self, data, offset, durable);
        }
        match self.pwrite_once(data, offset, durable) {
            Ok(moved) if moved == data.len() => Ok(moved),
            first => self.pwrite_on(data, offset, durable, first),
        }
    }

    /// Goes on after the first call.
    #[cold]
    fn pwrite_on(&self, data: &[u8], offset: u64, durable: bool, first: io::Result<usize>) -> Result<usize> {
        let (mut progress, mut done, mut result) = (Progress::default(), 0, first);
        loop {
            done += progress.step(self, "write", offset + done as u64, result, data.len() - done)?;
            let rest = &data[done..];
            if rest.is_empty() || !self.is_aligned(rest.as_ptr()) {
                return Ok(done);
            }
            result = self.pwrite_once(rest, offset + done as u64, durable);
        }
    }

    #[inline]
    fn pwrite_once(&self, data: &[u8], offset: u64, durable: bool) -> io::Result<usize> {
        match durable {
            false => sys::pwrite(&self.file, data, offset),
            true => sys::pwrite_durable(&self.file, data, offset),
        }
    }

    /// Returns when the data is on stable storage, and what is needed to find it again.
    pub(crate) fn flush(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        count(&self.counters.flushes, 1);
        let since = self.begin();
        let result = self.sync();
        self.end(Action::Flush, since);
        if result.is_err() {
            count(&self.counters.failures, 1);
        }
        result
    }

    /// When something begins; 0 where nobody wants to know.
    #[inline]
    pub(crate) fn begin(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.now())
    }

    /// Counts how long something took.
    #[inline]
    pub(crate) fn end(&self, action: Action, since: u64) {
        if let Some(clock) = &self.clock {
            clock.record(action, since);
        }
    }

    /// As [`Target::flush`], for one that is counted already.
    pub(crate) fn sync(&self) -> Result<()> {
        #[cfg(nvme)]
        if let Some(namespace) = &self.namespace {
            return namespace.flush(self);
        }
        sys::flush(&self.file).map_err(|error| self.flush_error(error))
    }

    /// The error for a flush that failed.
    pub(crate) fn flush_error(&self, error: io::Error) -> Error {
        let error = Error::from_io(error, format_args!("flush of {}", self.path.display()));
        foreign::call(|| log::error!("{error}; what was written since the last flush may be lost"));
        error
    }

    /// Gives up the storage of blocks; `command` is a way that a ring knows for disks, and says whether it worked.
    pub(crate) fn discard(&self, first: u64, blocks: u64, command: impl FnOnce(u64, u64) -> bool) -> Result<()> {
        self.check_writable("discard", first)?;
        let offset = self.check_range("discard", first, blocks)?;
        let unsupported = || {
            let message = format!("discard on {}: the target can't (Capabilities::discard)", self.path.display());
            Error::new(ErrorKind::Unsupported, message)
        };
        if !self.capabilities.discard {
            return Err(unsupported());
        }
        count(&self.counters.clears, 1);
        #[cfg(nvme)]
        if let Some(namespace) = &self.namespace {
            return namespace.deallocate(self, offset, blocks * u64::from(self.block_size));
        }
        let is_done = self.geometry.is_disk && blocks != 0 && command(offset, blocks * u64::from(self.block_size));
        if is_done {
            return Ok(());
        }
        for how in DISCARDING[usize::from(self.geometry.is_disk)] {
            if self.clear("discard", *how, offset, blocks)? {
                return Ok(());
            }
        }
        Err(unsupported())
    }

    /// Makes blocks read as zeroes, without sending zeroes where the target can do that.
    pub(crate) fn write_zeroes(&self, first: u64, blocks: u64) -> Result<()> {
        self.check_writable("write zeroes", first)?;
        let mut offset = self.check_range("write zeroes", first, blocks)?;
        count(&self.counters.clears, 1);
        #[cfg(nvme)]
        if let Some(namespace) = &self.namespace {
            if namespace.write_zeroes(self, offset, blocks * u64::from(self.block_size))? {
                return Ok(());
            }
            self.zeroing_refused.store(u8::MAX, Ordering::Relaxed);
        }
        let ways = ZEROING[usize::from(self.geometry.is_disk)];
        let refused = usize::from(self.zeroing_refused.load(Ordering::Relaxed));
        for (index, how) in ways.iter().enumerate().skip(refused) {
            if self.clear("write zeroes", *how, offset, blocks)? {
                return Ok(());
            }
            self.zeroing_refused.fetch_max(index as u8 + 1, Ordering::Relaxed);
        }
        let mut left = blocks * u64::from(self.block_size);
        let zeroes = AlignedBuffer::new(left.clamp(1, ZEROES) as usize, self.alignment)?;
        while left > 0 {
            let written = self.pwrite(&zeroes[..left.min(ZEROES) as usize], offset, false)? as u64;
            (offset, left) = (offset + written, left - written);
        }
        Ok(())
    }

    /// One way of clearing blocks; `false` where the target has not got it.
    fn clear(&self, operation: &str, how: Clear, offset: u64, blocks: u64) -> Result<bool> {
        if blocks == 0 {
            return Ok(true);
        }
        let length = blocks * u64::from(self.block_size);
        let mut setbacks = Setbacks::default();
        loop {
            match sys::clear(&self.file, how, offset, length) {
                Ok(()) => return Ok(true),
                Err(error) if sys::is_unsupported(&error) => return Ok(false),
                Err(error) if is_passing(&error) && setbacks.may_try_again() => count(&self.counters.retries, 1),
                Err(error) => return Err(Error::from_io(error, self.place(operation, offset))),
            }
        }
    }

    /// Makes a file longer or shorter.
    pub(crate) fn resize(&self, blocks: u64) -> Result<()> {
        if self.read_only {
            return Err(self.opened_for_reading("resize"));
        }
        let name = self.path.display();
        if !self.capabilities.resize {
            let message = format!("resize of {name}: a disk has the size that it has (Capabilities::resize)");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let bytes = blocks.checked_mul(u64::from(self.block_size)).filter(|bytes| i64::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or_else(|| {
            let message = format!("resize of {name} to {blocks} blocks: no file can have as many bytes");
            Error::new(ErrorKind::InvalidInput, message)
        })?;
        // Shorter before, so that nothing reads where nothing is any more; longer after.
        self.block_count.fetch_min(blocks, Ordering::Relaxed);
        let resized = self.file.set_len(bytes).and_then(|()| self.file.sync_all());
        let rescanned = self.rescan();
        resized.map_err(|error| Error::from_io(error, format_args!("resize of {name} to {blocks} blocks")))?;
        rescanned.map(drop)
    }

    /// Asks for the size again.
    pub(crate) fn rescan(&self) -> Result<u64> {
        let name = self.path.display();
        #[cfg(nvme)]
        let namespace_bytes = self.namespace.as_ref().map(|namespace| namespace.size(self)).transpose()?;
        #[cfg(not(nvme))]
        let namespace_bytes = None;
        let bytes = match namespace_bytes {
            Some(bytes) => bytes,
            None => {
                sys::size(&self.file).map_err(|error| Error::from_io(error, format_args!("read the size of {name}")))?
            }
        };
        let blocks = bytes / u64::from(self.block_size);
        let before = self.block_count.swap(blocks, Ordering::Relaxed);
        if before != blocks {
            log::info!("{name}: {blocks} blocks, {before} before");
        }
        Ok(blocks)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.locked_by == Some(std::process::id()) {
            // A file that the kernel still has a reference to (a ring that was closed a moment ago) would stay locked.
            sys::unlock(&self.file);
        }
    }
}

/// See [`Target::read_cached`].
fn rest_of_cache(direct: bool, options: &Options) -> u32 {
    // A kernel thread that takes submissions copies in the place of the caller.
    if direct || options.sqpoll.is_some() { NEVER } else { 0 }
}

pub(crate) fn check_options(options: &Options) -> Result<()> {
    let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
    if !options.block_size.is_power_of_two() || !BLOCK_SIZES.contains(&options.block_size) {
        return invalid(format!(
            "block size {}: it must be a power of two from {} to {}",
            options.block_size,
            BLOCK_SIZES.start(),
            BLOCK_SIZES.end()
        ));
    }
    if options.queue_depth == 0 || options.queue_depth > MAX_QUEUE_DEPTH {
        return invalid(format!("queue depth {}: it must be from 1 to {MAX_QUEUE_DEPTH}", options.queue_depth));
    }
    if options.pool_size > MAX_POOL_SIZE {
        return invalid(format!("pool size {}: it must be {MAX_POOL_SIZE} at most", options.pool_size));
    }
    if let Some(bytes) = options.create {
        if bytes % u64::from(options.block_size) != 0 && !options.whole_blocks {
            return invalid(format!("size {bytes} is no multiple of the block size {}", options.block_size));
        }
        if i64::try_from(bytes).is_err() {
            return invalid(format!("size {bytes}: no file can have as many bytes"));
        }
    }
    if options.iopoll && !options.direct {
        return invalid("iopoll needs O_DIRECT: leave the option direct on".to_owned());
    }
    Ok(())
}

fn check_type(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    let what = if metadata.is_dir() {
        "is a directory"
    } else if metadata.is_file() || sys::is_disk(metadata) {
        return Ok(());
    } else {
        "has no blocks"
    };
    let message = format!("{} {what}; give a regular file or a block device", path.display());
    Err(Error::new(ErrorKind::InvalidInput, message))
}

fn access(options: &Options, create: bool, direct: bool) -> Access {
    Access { read_only: options.read_only, create, direct, exclusive: options.exclusive }
}

fn open_file(path: &Path, options: &Options, create: bool, steps: &Steps) -> Result<(File, bool)> {
    let mut direct = options.direct && sys::HAS_DIRECT;
    let mut opened = sys::open(path, access(options, create, direct));
    if let Err(error) = &opened {
        let refuses_direct = error.kind() == io::ErrorKind::InvalidInput || sys::is_unsupported(error);
        if direct && refuses_direct {
            // The refused open may have made the file already.
            let is_made = create && path.exists();
            steps.take(path, Fallback::PageCache, "the file system refuses O_DIRECT").inspect_err(|_| {
                if is_made {
                    let _ = std::fs::remove_file(path);
                }
            })?;
            direct = false;
            opened = sys::open(path, access(options, create && !is_made, false));
        }
    }
    let file = opened.map_err(|error| match sys::is_in_use(&error) {
        true => in_use(path, error),
        false => Error::from_io(error, format_args!("open {}", path.display())),
    })?;
    Ok((file, direct))
}

pub(crate) fn in_use(path: &Path, error: io::Error) -> Error {
    if !sys::is_in_use(&error) {
        return Error::from_io(error, format_args!("lock {}", path.display()));
    }
    let message = format!(
        "{} is in use: another device with its queues and futures, a mount or another program holds it; close that first",
        path.display()
    );
    Error::new(ErrorKind::Busy, message)
}

/// The steps down that were taken, and those that must not be.
#[derive(Debug)]
pub(crate) struct Steps {
    forbidden: u8,
    is_passthrough: bool,
    taken: Mutex<Vec<Degraded>>,
}

impl Steps {
    pub(crate) fn new(options: &Options, is_passthrough: bool) -> Self {
        Self { forbidden: options.forbidden, is_passthrough, taken: Mutex::default() }
    }

    /// Takes a step down for the reason that `what` says: keeps and logs it, the first time. Where it is forbidden it is an
    /// error instead.
    #[cold]
    pub(crate) fn take(&self, path: &Path, fallback: Fallback, what: &str) -> Result<()> {
        self.take_or(path, fallback, what, fallback.remedy())
    }

    /// As [`Steps::take`], where something else can be done about it than the step has it.
    #[cold]
    pub(crate) fn take_or(&self, path: &Path, fallback: Fallback, what: &str, remedy: &str) -> Result<()> {
        if self.forbidden & fallback.bit() != 0 {
            let message = format!(
                "{}: {what}; to go on without ({}) is forbidden by Options::forbid(Fallback::{fallback:?}). To do: {remedy}",
                path.display(),
                fallback.consequence(self.is_passthrough)
            );
            return Err(Error::new(ErrorKind::Degraded, message));
        }
        let sentence = format!("{what}; {}", fallback.consequence(self.is_passthrough));
        let degraded = Degraded { fallback, sentence };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.contains(&degraded) {
            return Ok(());
        }
        taken.push(degraded.clone());
        // A logger may ask for the report.
        drop(taken);
        foreign::call(|| log::warn!("{}: {degraded}", path.display()));
        Ok(())
    }

    #[cfg(uring)]
    pub(crate) fn is_forbidden(&self, fallback: Fallback) -> bool {
        self.forbidden & fallback.bit() != 0
    }

    pub(crate) fn taken(&self) -> Vec<Degraded> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A transfer by `pread` or `pwrite` on its way.
#[derive(Default)]
struct Progress(Setbacks);

impl Progress {
    /// How far a call got, as far as that is of use; 0 where it is to be made again.
    fn step(
        &mut self,
        target: &Target,
        operation: &str,
        offset: u64,
        result: io::Result<usize>,
        asked: usize,
    ) -> Result<usize> {
        match result {
            Ok(moved) => {
                self.0 = Setbacks::default();
                target.account(operation, offset, moved, asked).inspect_err(Target::log_end)
            }
            Err(error) if is_passing(&error) && self.0.may_try_again() => {
                count(&target.counters.retries, 1);
                Ok(0)
            }
            Err(error) => Err(Error::from_io(error, target.place(operation, offset))),
        }
    }
}

/// How often in a row something had to be tried again; and, in the upper half, how often it was given back. One word, which is
/// copied with whatever it belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setbacks(u64);

impl Setbacks {
    /// In a row; the last of them with a pause.
    const MOST: u64 = 2000;
    const AT_ONCE: u64 = 1000;
    /// As often in a row the kernel may give back what it did not begin.
    #[cfg(uring)]
    const MOST_GIVEN_BACK: u64 = 3;

    /// Counts one, and waits a moment where there were many: what does not pass in a second is an error.
    pub(crate) fn may_try_again(&mut self) -> bool {
        self.0 += 1;
        let passing = self.0 & u64::from(u32::MAX);
        if passing > Self::AT_ONCE {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        passing <= Self::MOST
    }

    /// As [`Setbacks::may_try_again`] for what the kernel did not begin, and will not begin the next time either.
    #[cfg(uring)]
    pub(crate) fn may_give_back_again(&mut self) -> bool {
        self.0 += 1 << 32;
        self.0 >> 32 <= Self::MOST_GIVEN_BACK
    }
}

/// Whether it is the kind of call that is refused, whatever it is for.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied)
}

/// Whether the same call may be made again at once.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy)
}

#[cfg(all(test, uring))]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_leaves_time_for_what_passes() {
        let mut setbacks = Setbacks::default();
        assert!((0..3).all(|_| setbacks.may_give_back_again()));
        assert!((0..1000).all(|_| setbacks.may_try_again()));
        assert!(!setbacks.may_give_back_again());
    }
}
