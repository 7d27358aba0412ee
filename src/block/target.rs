//! The file or disk below a device: opening, locking, geometry, and the checks that every backend shares.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::block::Options;
use crate::error::{Error, ErrorKind, Result};

/// Block sizes that a device may have.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=65536;
/// Deepest queue.
const MAX_QUEUE_DEPTH: u32 = 4096;
/// Largest pool, in bytes.
const MAX_POOL_SIZE: usize = 1 << 30;
/// What `alignment` is where nothing tells: a page, on every platform that we know.
const PAGE: usize = 4096;

/// An opened file or disk.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Holds a disk against others for as long as it is open; not used for I/O, so that nothing else keeps it open.
    _claim: Option<File>,
    pub(crate) block_size: u32,
    pub(crate) block_count: u64,
    /// Of addresses in memory, in bytes.
    pub(crate) alignment: usize,
    pub(crate) direct: bool,
    pub(crate) read_only: bool,
    pub(crate) queue_depth: u32,
    /// What was asked for and could not be had.
    pub(crate) degraded: Vec<String>,
    /// The process that holds the lock: the lock is one with a forked child's, which must not release it.
    locked_by: Option<u32>,
}

/// The smallest units of a target, in bytes.
struct Geometry {
    size: u64,
    /// Of offsets and lengths, for any access to a disk, and for O_DIRECT on a file.
    logical_block: u64,
    /// Of addresses.
    memory: usize,
    is_disk: bool,
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

        let mut degraded = Vec::new();
        let (file, mut direct) = match open_file(path, options, created, &mut degraded) {
            // Somebody made it in the meantime.
            Err(error) if created && error.kind() == ErrorKind::AlreadyExists => {
                created = false;
                open_file(path, options, created, &mut degraded)?
            }
            opened => opened?,
        };
        let opened = Self::finish(path, options, file, created, &mut direct, degraded);
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
        file: File,
        created: bool,
        direct: &mut bool,
        mut degraded: Vec<String>,
    ) -> Result<Self> {
        let name = path.display();
        if options.exclusive {
            sys::lock(&file, options.read_only).map_err(|error| in_use(path, error))?;
        }
        if let (true, Some(bytes)) = (created, options.create) {
            file.set_len(bytes)
                .map_err(|error| Error::from_io(error, format_args!("set the size of {name} to {bytes}")))?;
        }
        let geometry = sys::geometry(&file, *direct)
            .map_err(|error| Error::from_io(error, format_args!("read the geometry of {name}")))?;
        let block_size = u64::from(options.block_size);

        if geometry.is_disk && block_size < geometry.logical_block {
            let message = format!(
                "block size {block_size} is under the logical block size of {name}; use {} or a larger power of two",
                geometry.logical_block
            );
            return Err(Error::new(ErrorKind::Misaligned, message));
        }
        if let Some(bytes) = options.create {
            if geometry.size != bytes && !(geometry.is_disk && geometry.size > bytes) {
                let message = format!(
                    "{name} exists with {} bytes, not {bytes}; open it without a size to create, or remove it",
                    geometry.size
                );
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
        }
        if geometry.size % block_size != 0 && !options.whole_blocks {
            let message = format!(
                "{name} has {} bytes, which is no multiple of the block size {block_size}; use another block size, or \
                 the option whole_blocks to leave the last bytes out",
                geometry.size
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }

        let claim = if options.exclusive && geometry.is_disk && !options.read_only {
            Some(sys::claim(path).map_err(|error| in_use(path, error))?)
        } else {
            None
        };
        let mut file = file;
        if *direct && block_size < geometry.logical_block {
            degraded.push(format!(
                "{name} wants O_DIRECT transfers in multiples of {} bytes and the block size is {block_size}; going \
                 through the page cache",
                geometry.logical_block
            ));
            *direct = false;
            // The lock goes with the first file description, so it is taken anew.
            drop(file);
            file = sys::open(path, options.read_only, false, false)
                .map_err(|error| Error::from_io(error, format_args!("open {name}")))?;
            if options.exclusive {
                sys::lock(&file, options.read_only).map_err(|error| in_use(path, error))?;
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            _claim: claim,
            block_size: options.block_size,
            block_count: geometry.size / block_size,
            alignment: if *direct { geometry.memory } else { 1 },
            direct: *direct,
            read_only: options.read_only,
            queue_depth: options.queue_depth,
            degraded,
            locked_by: options.exclusive.then(std::process::id),
        })
    }

    /// Checks a request for `bytes` from `block` on; the answer is its offset in bytes.
    pub(crate) fn check(&self, operation: &str, block: u64, bytes: usize) -> Result<u64> {
        let block_size = u64::from(self.block_size);
        let length = bytes as u64;
        if length == 0 {
            let message = format!("{operation} of block {block} of {}: the buffer has no bytes", self.path.display());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if length % block_size != 0 {
            let message = format!(
                "{operation} of block {block} of {}: a buffer of {length} bytes is no multiple of the block size {block_size}",
                self.path.display()
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let end = block.checked_add(length / block_size);
        if end.is_none_or(|end| end > self.block_count) {
            let message = format!(
                "{operation} of {} blocks from block {block} on: {} has blocks 0 to {} only",
                length / block_size,
                self.path.display(),
                i128::from(self.block_count) - 1
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        Ok(block * block_size)
    }

    /// Checks that the buffer is one block long.
    pub(crate) fn check_one(&self, operation: &str, block: u64, bytes: usize) -> Result<()> {
        if bytes == self.block_size as usize {
            return Ok(());
        }
        let message = format!(
            "{operation} of block {block} of {}: the buffer has {bytes} bytes, a block has {}",
            self.path.display(),
            self.block_size
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    /// Refuses a write to a device opened for reading.
    pub(crate) fn check_writable(&self, block: u64) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        let message = format!("write of block {block} of {}: opened for reading only", self.path.display());
        Err(Error::new(ErrorKind::ReadOnly, message))
    }

    /// The kernel's error for a transfer at `offset`.
    #[cfg(uring)]
    pub(crate) fn transfer_error(&self, operation: &str, offset: u64, errno: i32) -> Error {
        Error::from_errno(errno, self.place(operation, offset))
    }

    /// The error for a transfer that moved nothing where blocks should be.
    pub(crate) fn end_error(&self, operation: &str, offset: u64) -> Error {
        let message = format!(
            "{}: the target ends before its {} blocks do; was it truncated?",
            self.place(operation, offset),
            self.block_count
        );
        Error::new(ErrorKind::EndOfDevice, message)
    }

    fn place(&self, operation: &str, offset: u64) -> String {
        let block = offset / u64::from(self.block_size);
        format!("{operation} of block {block} (offset {offset}) of {}", self.path.display())
    }

    /// Reads all of `buffer` at `offset` with `pread`.
    pub(crate) fn pread_exact(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<()> {
        let mut setbacks = Setbacks::default();
        while !buffer.is_empty() {
            match sys::pread(&self.file, buffer, offset) {
                Ok(0) => return Err(self.end_error("read", offset)),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                    setbacks = Setbacks::default();
                }
                Err(error) if is_passing(&error) && setbacks.may_try_again() => {}
                Err(error) => return Err(Error::from_io(error, self.place("read", offset))),
            }
        }
        Ok(())
    }

    /// Writes all of `data` at `offset` with `pwrite`.
    pub(crate) fn pwrite_all(&self, mut data: &[u8], mut offset: u64) -> Result<()> {
        let mut setbacks = Setbacks::default();
        while !data.is_empty() {
            match sys::pwrite(&self.file, data, offset) {
                Ok(0) => return Err(self.end_error("write", offset)),
                Ok(written) => {
                    data = &data[written..];
                    offset += written as u64;
                    setbacks = Setbacks::default();
                }
                Err(error) if is_passing(&error) && setbacks.may_try_again() => {}
                Err(error) => return Err(Error::from_io(error, self.place("write", offset))),
            }
        }
        Ok(())
    }

    /// Returns when the data is on stable storage, and what is needed to find it again.
    pub(crate) fn flush(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| Error::from_io(error, format_args!("flush of {}", self.path.display())))
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

fn check_options(options: &Options) -> Result<()> {
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

fn open_file(path: &Path, options: &Options, create: bool, degraded: &mut Vec<String>) -> Result<(File, bool)> {
    let mut direct = options.direct && sys::HAS_DIRECT;
    let mut opened = sys::open(path, options.read_only, create, direct);
    if let Err(error) = &opened {
        let refuses_direct = error.kind() == io::ErrorKind::InvalidInput
            || error.raw_os_error().is_some_and(|errno| errno == libc::EOPNOTSUPP);
        if direct && refuses_direct {
            degraded
                .push(format!("the file system of {} refuses O_DIRECT; going through the page cache", path.display()));
            direct = false;
            // The refused open may have made the file already.
            opened = sys::open(path, options.read_only, create && !path.exists(), false);
        }
    }
    let file = opened.map_err(|error| Error::from_io(error, format_args!("open {}", path.display())))?;
    Ok((file, direct))
}

fn in_use(path: &Path, error: io::Error) -> Error {
    let busy = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy);
    let error = Error::from_io(error, format_args!("lock {}", path.display()));
    if !busy {
        return error;
    }
    let message =
        format!("{} is in use: another device, a mount or another program holds it; close that first", path.display());
    Error::new(ErrorKind::Busy, message)
}

/// How often in a row something had to be tried again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Setbacks(u32);

impl Setbacks {
    /// In a row; the last of them with a pause.
    const MOST: u32 = 2000;
    const AT_ONCE: u32 = 1000;

    /// Counts one, and waits a moment where there were many: what does not pass in a second is an error.
    pub(crate) fn may_try_again(&mut self) -> bool {
        self.0 += 1;
        if self.0 > Self::AT_ONCE {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.0 <= Self::MOST
    }
}

/// Whether the same call may be made again at once.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// The same for all platforms but this file: what `open` says of access.
fn access(read_only: bool, create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(!read_only).create_new(create);
    options
}

#[cfg(unix)]
mod sys {
    use std::fs::{File, Metadata, OpenOptions};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    use super::{Geometry, PAGE};

    pub(super) const HAS_DIRECT: bool = cfg!(any(target_os = "linux", target_os = "android"));

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const O_DIRECT: libc::c_int = libc::O_DIRECT;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const O_DIRECT: libc::c_int = 0;

    pub(super) fn is_disk(metadata: &Metadata) -> bool {
        metadata.file_type().is_block_device()
    }

    pub(super) fn open(path: &Path, read_only: bool, create: bool, direct: bool) -> io::Result<File> {
        let flags = if direct { O_DIRECT } else { 0 };
        super::access(read_only, create).custom_flags(flags).open(path)
    }

    /// Opens a disk so that neither a mount nor another claim can have it.
    pub(super) fn claim(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path)
    }

    pub(super) fn lock(file: &File, shared: bool) -> io::Result<()> {
        let how = if shared { libc::LOCK_SH } else { libc::LOCK_EX };
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        match unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn unlock(file: &File) {
        // SAFETY: as for `lock`. There is nobody to tell of a failure, and the lock goes with the file anyway.
        unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
    }

    pub(super) fn pread(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(super) fn pwrite(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(data, offset)
    }

    pub(super) fn geometry(file: &File, direct: bool) -> io::Result<Geometry> {
        let metadata = file.metadata()?;
        if !is_disk(&metadata) {
            let (memory, logical_block) = if direct { direct_alignment(file) } else { (1, 1) };
            return Ok(Geometry { size: metadata.size(), logical_block, memory, is_disk: false });
        }
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        let end = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_END) };
        let size = u64::try_from(end).map_err(|_| io::Error::last_os_error())?;
        let logical_block = logical_block_size(file)?;
        let (memory, _) = direct_alignment(file);
        Ok(Geometry { size, logical_block, memory, is_disk: true })
    }

    /// What O_DIRECT asks of addresses and of offsets: what `statx` says, or a page where it says nothing.
    #[cfg(target_os = "linux")]
    fn direct_alignment(file: &File) -> (usize, u64) {
        use std::mem::MaybeUninit;

        let mut status = MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: an empty path with AT_EMPTY_PATH means the descriptor itself; the kernel fills `status`, which is as
        // large as it expects.
        let returned = unsafe {
            libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, status.as_mut_ptr())
        };
        // SAFETY: all zeroes is a value of this plain structure; the kernel wrote over some of it at most.
        let status = unsafe { status.assume_init() };
        if returned == 0 && status.stx_mask & libc::STATX_DIOALIGN != 0 && status.stx_dio_mem_align != 0 {
            (status.stx_dio_mem_align as usize, u64::from(status.stx_dio_offset_align))
        } else {
            (PAGE, PAGE as u64)
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn direct_alignment(_: &File) -> (usize, u64) {
        (PAGE, PAGE as u64)
    }

    /// The smallest unit that the disk reads and writes.
    #[cfg(target_os = "linux")]
    fn logical_block_size(file: &File) -> io::Result<u64> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: BLKSSZGET writes one int through the pointer, which is to a live one.
        match unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &raw mut bytes) } {
            0 => Ok(u64::try_from(bytes).unwrap_or(PAGE as u64)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn logical_block_size(_: &File) -> io::Result<u64> {
        Ok(PAGE as u64)
    }
}

#[cfg(windows)]
mod sys {
    use std::fs::{File, Metadata};
    use std::io;
    use std::os::windows::fs::FileExt;
    use std::path::Path;

    use super::Geometry;

    pub(super) const HAS_DIRECT: bool = false;

    pub(super) fn is_disk(_: &Metadata) -> bool {
        false
    }

    pub(super) fn open(path: &Path, read_only: bool, create: bool, _: bool) -> io::Result<File> {
        super::access(read_only, create).open(path)
    }

    pub(super) fn claim(_: &Path) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn lock(_: &File, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn unlock(_: &File) {}

    pub(super) fn pread(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(super) fn pwrite(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(data, offset)
    }

    pub(super) fn geometry(file: &File, _: bool) -> io::Result<Geometry> {
        Ok(Geometry { size: file.metadata()?.len(), logical_block: 1, memory: 1, is_disk: false })
    }
}
