//! Files by the ordinary calls: what surrounds the block device, and what it is compared with.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Result, anyhow};

/// What can have blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    Regular,
    /// A block device.
    Disk,
}

/// The error of an ordinary call; `doing` says what was tried, as in "open disk.img".
pub(crate) fn failure(doing: impl std::fmt::Display, error: &io::Error) -> anyhow::Error {
    anyhow!("{doing}: {}", error_text(error))
}

/// The system's words with the name of the errno, as the library's errors have them: "no space left on device (ENOSPC)".
pub(crate) fn error_text(error: &io::Error) -> String {
    #[cfg(unix)]
    if let Some(errno) = error.raw_os_error().or_else(|| wrapped_errno(error)) {
        let errno = nix::errno::Errno::from_raw(errno);
        let mut text = errno.desc().to_owned();
        if let Some(first) = text.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        return format!("{text} ({errno:?})");
    }
    error.to_string()
}

/// The errno in an error of the crate tempfile, which has it in its text only, beside the path.
#[cfg(unix)]
fn wrapped_errno(error: &io::Error) -> Option<i32> {
    let text = error.to_string();
    let (_, rest) = text.split_once("(os error ")?;
    rest.split(')').next()?.parse().ok()
}

/// Tells what `path` is, or why it cannot be used.
pub(crate) fn kind(path: &Path, metadata: &Metadata) -> Result<Kind> {
    #[cfg(unix)]
    if std::os::unix::fs::FileTypeExt::is_block_device(&metadata.file_type()) {
        return Ok(Kind::Disk);
    }
    if metadata.is_file() {
        return Ok(Kind::Regular);
    }
    let what = if metadata.is_dir() { "is a directory" } else { "has no blocks" };
    Err(anyhow!("{} {what}; give a regular file or a block device", path.display()))
}

/// Whether two paths lead to the same bytes, whatever links lie between.
#[cfg(unix)]
pub(crate) fn is_same(first: (&Path, &Metadata), second: (&Path, &Metadata)) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let (a, b) = (first.1, second.1);
    let is_same_disk = kind(first.0, a)? == Kind::Disk && kind(second.0, b)? == Kind::Disk && a.rdev() == b.rdev();
    Ok(is_same_disk || (a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Whether two paths lead to the same file.
#[cfg(not(unix))]
pub(crate) fn is_same(first: (&Path, &Metadata), second: (&Path, &Metadata)) -> Result<bool> {
    let canonical =
        |path: &Path| path.canonicalize().map_err(|error| failure(format_args!("resolve {}", path.display()), &error));
    Ok(canonical(first.0)? == canonical(second.0)?)
}

/// Bytes in a file or on a disk. The metadata of a disk do not have them.
pub(crate) fn size(path: &Path, mut file: &File) -> Result<u64> {
    file.seek(SeekFrom::End(0)).map_err(|error| failure(format_args!("read the size of {}", path.display()), &error))
}

/// Reads all of `buffer` at `offset`.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

/// Writes all of `data` at `offset`.
pub(crate) fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, data, offset)
    }
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < data.len() {
            match std::os::windows::fs::FileExt::seek_write(file, &data[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => done += written,
            }
        }
        Ok(())
    }
}

/// Takes the room for `bytes` bytes without changing the size, so that a full file system is found out before anything
/// is written, and so that writes find their blocks allocated.
///
/// Where the file system cannot, nothing happens.
#[cfg(target_os = "linux")]
pub(crate) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, fallocate};

    let Ok(length) = i64::try_from(bytes) else { return Err(Errno::EFBIG.into()) };
    if length == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
            Err(Errno::EINTR) => {}
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Nothing: writes allocate as they go.
#[cfg(not(target_os = "linux"))]
pub(crate) fn allocate(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// Asks the kernel to forget what it has in memory of a file, so that what is read next comes from the disk.
pub(crate) fn forget_cached(file: &File) {
    #[cfg(target_os = "linux")]
    {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        // A hint: where it is not taken the check still compares what the kernel has.
        let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// The directory of `path`, opened so that a new entry in it can be put on stable storage; `None` where that is not done.
pub(crate) fn open_parent(path: &Path) -> Result<Option<File>> {
    if !cfg!(unix) {
        return Ok(None);
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(parent)
        .map_err(|error| failure(format_args!("open directory {} of {}", parent.display(), path.display()), &error))?;
    Ok(Some(directory))
}
