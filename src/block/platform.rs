//! The system calls below a device, by platform.

#[cfg(unix)]
pub(super) use unix::*;
#[cfg(windows)]
pub(super) use windows::*;

/// What `open` says of access.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub(super) read_only: bool,
    pub(super) create: bool,
    /// Not asked for where there is none.
    #[cfg_attr(windows, allow(dead_code))]
    pub(super) direct: bool,
    /// Only Windows locks when it opens.
    #[cfg_attr(unix, allow(dead_code))]
    pub(super) exclusive: bool,
}

impl Access {
    fn options(self) -> std::fs::OpenOptions {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(!self.read_only).create_new(self.create);
        options
    }
}

/// How storage is freed or zeroed, in the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clear {
    /// `fallocate` with FALLOC_FL_PUNCH_HOLE: reads as zeroes.
    PunchHole,
    /// The ioctl BLKDISCARD: reads as whatever.
    Discard,
    /// `fallocate` with FALLOC_FL_ZERO_RANGE.
    ZeroRange,
    /// The ioctl BLKZEROOUT.
    ZeroOut,
}

/// Returns when what was written is on stable storage, and what is needed to find it again.
pub(super) fn flush(file: &std::fs::File) -> std::io::Result<()> {
    file.sync_data()
}

#[cfg(unix)]
mod unix {
    use std::fs::{File, Metadata, OpenOptions};
    use std::io;
    #[cfg(target_os = "linux")]
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    #[cfg(target_os = "linux")]
    use std::os::fd::FromRawFd;
    use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    use super::{Access, Clear};
    use crate::block::geometry::{Alignment, Geometry};

    pub(in crate::block) const HAS_DIRECT: bool = cfg!(any(target_os = "linux", target_os = "android"));
    pub(in crate::block) const HAS_DURABLE_WRITE: bool = cfg!(target_os = "linux");

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const O_DIRECT: libc::c_int = libc::O_DIRECT;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const O_DIRECT: libc::c_int = 0;

    pub(in crate::block) fn is_disk(metadata: &Metadata) -> bool {
        metadata.file_type().is_block_device()
    }

    pub(in crate::block) fn open(path: &Path, access: Access) -> io::Result<File> {
        let flags = if access.direct { O_DIRECT } else { 0 };
        access.options().custom_flags(flags).open(path)
    }

    /// Opens a disk so that neither a mount nor another claim can have it.
    pub(in crate::block) fn claim(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path)
    }

    pub(in crate::block) fn lock(file: &File, shared: bool) -> io::Result<()> {
        let how = if shared { libc::LOCK_SH } else { libc::LOCK_EX };
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        match unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(in crate::block) fn unlock(file: &File) {
        // SAFETY: as for `lock`. There is nobody to tell of a failure, and the lock goes with the file anyway.
        unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
    }

    pub(in crate::block) fn is_in_use(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy)
    }

    pub(in crate::block) fn is_unsupported(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY))
    }

    #[inline]
    pub(in crate::block) fn pread(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(in crate::block) fn pwrite(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(data, offset)
    }

    /// Reads what the page cache has, and waits for nothing.
    #[cfg(target_os = "linux")]
    pub(in crate::block) fn pread_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        let iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: one element, which is `buffer`, borrowed exclusively and written during the call.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const iovec, 1, offset, libc::RWF_NOWAIT) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::block) fn pread_cached(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A write that is on stable storage when it returns.
    #[cfg(target_os = "linux")]
    pub(in crate::block) fn pwrite_durable(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        let iovec = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        // SAFETY: one element, which is `data`, read during the call.
        let written = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const iovec, 1, offset, libc::RWF_DSYNC) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::block) fn pwrite_durable(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
        let written = file.write_at(data, offset)?;
        file.sync_data().map(|()| written)
    }

    /// A counter that tells event loops of completions.
    #[cfg(target_os = "linux")]
    pub(in crate::block) fn eventfd() -> io::Result<File> {
        // SAFETY: passes no memory.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new, and nobody else's.
        Ok(unsafe { File::from_raw_fd(descriptor) })
    }

    /// Makes an eventfd readable.
    #[cfg(target_os = "linux")]
    pub(in crate::block) fn signal(mut eventfd: &File) {
        // It fails only where the counter is at its end, and then it is readable.
        let _ = eventfd.write(&1_u64.to_ne_bytes());
    }

    /// Makes an eventfd not readable; whether it was.
    #[cfg(target_os = "linux")]
    pub(in crate::block) fn reset(mut eventfd: &File) -> bool {
        eventfd.read(&mut [0; 8]).is_ok()
    }

    pub(in crate::block) fn size(file: &File) -> io::Result<u64> {
        let metadata = file.metadata()?;
        if !is_disk(&metadata) {
            return Ok(metadata.size());
        }
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        let end = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_END) };
        u64::try_from(end).map_err(|_| io::Error::last_os_error())
    }

    pub(in crate::block) fn geometry(file: &File, direct: bool) -> io::Result<Geometry> {
        let metadata = file.metadata()?;
        let is_disk = is_disk(&metadata);
        let disk = if is_disk { Some(linux::disk(file)?) } else { None };
        let alignment = match (direct, disk) {
            (true, _) => Alignment::pick(linux::direct_alignment(file), disk.map(|disk| disk.logical_block)),
            (false, _) => Alignment::NONE,
        };
        // A file is written in units of its file system.
        let file_block = u32::try_from(metadata.blksize()).ok();
        Ok(Geometry {
            bytes: size(file)?,
            is_disk,
            logical_block: alignment.offset.max(disk.map_or(1, |disk| disk.logical_block)),
            physical_block: disk.map_or(file_block.unwrap_or(1), |disk| disk.physical_block),
            optimal_transfer: disk.map_or(file_block, |disk| disk.optimal_transfer),
            max_transfer: disk.and_then(|disk| disk.max_transfer),
            memory_alignment: alignment.memory,
            alignment_from: alignment.from,
        })
    }

    #[derive(Debug, Clone, Copy)]
    struct Disk {
        logical_block: u32,
        physical_block: u32,
        optimal_transfer: Option<u32>,
        max_transfer: Option<u64>,
    }

    #[cfg(target_os = "linux")]
    mod linux {
        use std::mem::MaybeUninit;

        use super::{AsRawFd, Clear, Disk, File, Metadata, MetadataExt, io};

        /// The requests of `linux/fs.h` that libc does not have differ in their number only.
        const fn request(number: u8) -> libc::Ioctl {
            const BLKSSZGET: libc::Ioctl = 104;
            libc::BLKSSZGET - BLKSSZGET + number as libc::Ioctl
        }
        const BLKROGET: libc::Ioctl = request(94);
        const BLKSECTGET: libc::Ioctl = request(103);
        const BLKDISCARD: libc::Ioctl = request(119);
        const BLKZEROOUT: libc::Ioctl = request(127);

        /// What O_DIRECT asks of addresses and of offsets, where `statx` says it.
        pub(super) fn direct_alignment(file: &File) -> Option<(u32, u32)> {
            let mut status = MaybeUninit::<libc::statx>::zeroed();
            let (descriptor, path) = (file.as_raw_fd(), c"".as_ptr());
            // SAFETY: an empty path with AT_EMPTY_PATH means the descriptor itself; the kernel fills `status`, which is as
            // large as it expects.
            let returned = unsafe {
                libc::statx(descriptor, path, libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, status.as_mut_ptr())
            };
            // SAFETY: all zeroes is a value of this plain structure; the kernel wrote over some of it at most.
            let status = unsafe { status.assume_init() };
            let is_told = returned == 0 && status.stx_mask & libc::STATX_DIOALIGN != 0;
            is_told.then_some((status.stx_dio_mem_align, status.stx_dio_offset_align))
        }

        /// Asks a disk for a number. All of these write an `unsigned int` but BLKSECTGET, which writes a short one.
        fn ask(file: &File, request: libc::Ioctl) -> io::Result<u32> {
            let mut answer: libc::c_uint = 0;
            // SAFETY: each of the requests that this is called with writes at most one unsigned int through the pointer.
            match unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut answer) } {
                0 if request == BLKSECTGET && cfg!(target_endian = "big") => Ok(answer >> 16),
                0 => Ok(answer),
                _ => Err(io::Error::last_os_error()),
            }
        }

        pub(super) fn disk(file: &File) -> io::Result<Disk> {
            let logical_block = ask(file, libc::BLKSSZGET)?;
            let at_least_one = |answer: io::Result<u32>| answer.ok().filter(|answer| *answer != 0);
            Ok(Disk {
                logical_block,
                physical_block: at_least_one(ask(file, libc::BLKPBSZGET)).unwrap_or(logical_block),
                optimal_transfer: at_least_one(ask(file, libc::BLKIOOPT)),
                max_transfer: at_least_one(ask(file, BLKSECTGET)).map(|sectors| u64::from(sectors) * 512),
            })
        }

        /// Whether a disk refuses what is written to it, which the open need not have told.
        pub(in crate::block) fn is_read_only(file: &File) -> bool {
            // What can't be asked is told by the first write.
            ask(file, BLKROGET).is_ok_and(|answer| answer != 0)
        }

        /// Whether storage can be given back, without touching any.
        pub(in crate::block) fn can_discard(file: &File) -> bool {
            let Ok(metadata) = file.metadata() else { return false };
            if super::is_disk(&metadata) {
                disk_can_discard(&metadata)
            } else {
                file_can_discard(file, metadata.size())
            }
        }

        /// What the queue of the disk says, which for a partition is that of the whole.
        fn disk_can_discard(metadata: &Metadata) -> bool {
            let device = metadata.rdev();
            let folder = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
            ["queue", "../queue"].iter().any(|queue| {
                let longest = std::fs::read_to_string(format!("{folder}/{queue}/discard_max_bytes"));
                longest.is_ok_and(|bytes| bytes.trim().parse::<u64>().is_ok_and(|bytes| bytes != 0))
            })
        }

        /// Asks for a hole where nothing is: far behind the end, or where the file system does not reach that far, just
        /// behind it.
        fn file_can_discard(file: &File, size: u64) -> bool {
            const FAR: u64 = 1 << 40;
            for offset in [size.saturating_add(FAR), size] {
                match clear(file, Clear::PunchHole, offset, 4096) {
                    Ok(()) => return true,
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EFBIG | libc::EINVAL)) => {}
                    Err(_) => return false,
                }
            }
            // The file is as large as it can be. Nothing was refused for want of a hole.
            true
        }

        pub(in crate::block) fn clear(file: &File, how: Clear, offset: u64, length: u64) -> io::Result<()> {
            let too_far = || io::Error::from_raw_os_error(libc::EFBIG);
            let (Ok(start), Ok(bytes)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(length)) else {
                return Err(too_far());
            };
            let range = [offset, length];
            let descriptor = file.as_raw_fd();
            let (request, mode) = match how {
                Clear::PunchHole => (None, libc::FALLOC_FL_PUNCH_HOLE),
                Clear::ZeroRange => (None, libc::FALLOC_FL_ZERO_RANGE),
                Clear::Discard => (Some(BLKDISCARD), 0),
                Clear::ZeroOut => (Some(BLKZEROOUT), 0),
            };
            let returned = match request {
                // SAFETY: the request reads two 64-bit numbers through the pointer, which is to live ones.
                Some(request) => unsafe { libc::ioctl(descriptor, request, range.as_ptr()) },
                // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
                None => unsafe { libc::fallocate64(descriptor, mode | libc::FALLOC_FL_KEEP_SIZE, start, bytes) },
            };
            if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
    }

    /// Nothing is known of disks here, and holes are not asked for.
    #[cfg(not(target_os = "linux"))]
    mod linux {
        use super::{Clear, Disk, File, io};

        pub(super) fn direct_alignment(_: &File) -> Option<(u32, u32)> {
            None
        }

        pub(super) fn disk(_: &File) -> io::Result<Disk> {
            Ok(Disk { logical_block: 4096, physical_block: 4096, optimal_transfer: None, max_transfer: None })
        }

        pub(in crate::block) fn is_read_only(_: &File) -> bool {
            false
        }

        pub(in crate::block) fn can_discard(_: &File) -> bool {
            false
        }

        pub(in crate::block) fn clear(_: &File, _: Clear, _: u64, _: u64) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
        }
    }

    pub(in crate::block) use linux::{can_discard, clear, is_read_only};
}

#[cfg(windows)]
mod windows {
    use std::fs::{File, Metadata};
    use std::io;
    use std::os::windows::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;

    use super::{Access, Clear};
    use crate::block::geometry::{Alignment, Geometry};

    pub(in crate::block) const HAS_DIRECT: bool = false;
    pub(in crate::block) const HAS_DURABLE_WRITE: bool = false;

    /// Others may read what is read only.
    const FILE_SHARE_READ: u32 = 1;
    /// What an open fails with where another handle does not share.
    const ERROR_SHARING_VIOLATION: i32 = 32;

    pub(in crate::block) fn is_disk(_: &Metadata) -> bool {
        false
    }

    pub(in crate::block) fn open(path: &Path, access: Access) -> io::Result<File> {
        let mut options = access.options();
        if access.exclusive {
            options.share_mode(if access.read_only { FILE_SHARE_READ } else { 0 });
        }
        options.open(path)
    }

    pub(in crate::block) fn claim(_: &Path) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing to do: the open did it.
    pub(in crate::block) fn lock(_: &File, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(in crate::block) fn unlock(_: &File) {}

    pub(in crate::block) fn is_in_use(error: &io::Error) -> bool {
        error.raw_os_error() == Some(ERROR_SHARING_VIOLATION)
    }

    pub(in crate::block) fn is_unsupported(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::Unsupported
    }

    pub(in crate::block) fn pread(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(in crate::block) fn pread_cached(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::block) fn pwrite(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(data, offset)
    }

    pub(in crate::block) fn pwrite_durable(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
        let written = file.seek_write(data, offset)?;
        file.sync_data().map(|()| written)
    }

    pub(in crate::block) fn size(file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    pub(in crate::block) fn geometry(file: &File, _: bool) -> io::Result<Geometry> {
        Ok(Geometry {
            bytes: size(file)?,
            is_disk: false,
            logical_block: 1,
            physical_block: 1,
            optimal_transfer: None,
            max_transfer: None,
            memory_alignment: Alignment::NONE.memory,
            alignment_from: Alignment::NONE.from,
        })
    }

    pub(in crate::block) fn is_read_only(_: &File) -> bool {
        false
    }

    pub(in crate::block) fn can_discard(_: &File) -> bool {
        false
    }

    pub(in crate::block) fn clear(_: &File, _: Clear, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
