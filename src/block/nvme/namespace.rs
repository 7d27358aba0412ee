//! A namespace, and commands to it that one thread waits for.
//!
//! These go by `ioctl`, which needs no ring and ends only when the command has: nothing of theirs is ever in flight when a call
//! returns. Flushes go this way too, since a ring that polls for completions must not see a command without data: Linux 6.1
//! dereferences a null pointer then.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::block::AlignedBuffer;
use crate::block::foreign;
use crate::block::nvme::entry::{Entry, MOST_BLOCKS, Metadata, Run, Transfer, admin, io as opcode, on_blocks, range};
use crate::block::nvme::format::{Format, PAGE};
use crate::block::nvme::identify::{
    CONTROLLER, Controller, IDENTIFY_BYTES, NAMESPACE, NAMESPACE_OF_SET, NamespaceInfo, ZONED, Zoned,
};
use crate::block::nvme::kernel::Kernel;
use crate::block::nvme::node::Limits;
use crate::block::nvme::status::{NvmeStatus, StatusType};
use crate::block::stats::count;
use crate::block::target::{Setbacks, Target};
use crate::error::{Error, ErrorKind, Result};

/// What addresses in memory are multiples of where the kernel need not copy: a controller takes them so.
pub(super) const ALIGNMENT: u32 = 4;
/// How often a command is sent again that the controller says may succeed then.
const MOST_TRIES: u32 = 3;

/// `_IOWR('N', number, struct nvme_passthru_cmd64)` of `linux/nvme_ioctl.h`.
const fn request(number: u32) -> libc::Ioctl {
    (3 << 30 | (size_of::<Entry>() as u32) << 16 | (b'N' as u32) << 8 | number) as libc::Ioctl
}
const ADMIN64_CMD: libc::Ioctl = request(0x47);
const IO64_CMD: libc::Ioctl = request(0x48);
/// `NVME_IOCTL_ID`, `_IO('N', 0x40)`, which some machines number otherwise.
const ID: libc::Ioctl = {
    let machines =
        cfg!(any(target_arch = "mips", target_arch = "mips64", target_arch = "powerpc", target_arch = "powerpc64"));
    (((b'N' as u32) << 8 | 0x40) | if machines || cfg!(target_arch = "sparc64") { 1 << 29 } else { 0 }) as libc::Ioctl
};

/// Where a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Namespace,
    Controller,
}

/// See the [module](self).
#[derive(Debug)]
pub(in crate::block) struct Namespace {
    pub(super) nsid: u32,
    pub(super) format: Format,
    pub(super) limits: Limits,
    pub(super) zoned: Option<Zoned>,
    /// What is written may be lost before a flush; taken for granted where it can't be told.
    has_write_cache: bool,
    pub(super) can_discard: bool,
    can_write_zeroes: bool,
}

impl Namespace {
    /// Asks the namespace behind `file` and its controller what they are; `name` is for errors.
    pub(super) fn look_at(file: &File, name: &str, limits: Limits) -> Result<(Self, NamespaceInfo)> {
        // SAFETY: no memory is passed.
        let nsid = unsafe { libc::ioctl(file.as_raw_fd(), ID) };
        let nsid = u32::try_from(nsid)
            .map_err(|_| Error::from_io(io::Error::last_os_error(), format_args!("ask for the namespace of {name}")))?;
        let info = identify(file, nsid, NAMESPACE, 0, name).map_err(|error| {
            let is_refused = error.kind() == ErrorKind::PermissionDenied;
            match is_refused && !Kernel::running().lets_users_in() {
                true => error.with_hint("before Linux 6.2 commands are passed through with CAP_SYS_ADMIN only"),
                false => error,
            }
        })?;
        let info = NamespaceInfo::parse(&info).ok_or_else(|| {
            let message = format!("{name}: namespace {nsid} has no blocks; is it attached and formatted?");
            Error::new(ErrorKind::Unsupported, message)
        })?;
        let controller = identify(file, nsid, CONTROLLER, 0, name).map(|bytes| Controller::parse(&bytes)).ok();
        // Refused where there are no zones.
        let zoned = identify(file, nsid, NAMESPACE_OF_SET, ZONED, name).ok();
        let zoned = zoned.and_then(|bytes| Zoned::parse(&bytes, info.format));
        let namespace = Self {
            nsid,
            format: info.as_format(),
            limits,
            zoned,
            has_write_cache: controller.as_ref().is_none_or(|controller| controller.has_write_cache),
            can_discard: controller.as_ref().is_some_and(|controller| controller.can_discard),
            can_write_zeroes: controller.as_ref().is_some_and(|controller| controller.can_write_zeroes),
        };
        Ok((namespace, info))
    }

    /// Bytes that one command transfers from or to `address`, at most.
    pub(super) fn longest(&self, address: *const u8) -> usize {
        self.longest_with(address, Metadata::Controllers)
    }

    /// The same, by whose the metadata is.
    pub(super) fn longest_with(&self, address: *const u8, metadata: Metadata) -> usize {
        let pages = self.limits.pages.saturating_mul(PAGE) - address.addr() % PAGE;
        let block = self.format.data_size(metadata) as usize;
        let longest = self.limits.longest.min(pages).min(self.format.most_blocks(metadata) as usize * block);
        (longest - longest % block).max(block)
    }

    /// Where metadata goes that nobody has a use for, or that is the caller's: a page of its own. `None` where there is none.
    pub(super) fn metadata_page(&self, metadata: Metadata) -> Result<Option<AlignedBuffer>> {
        match self.format.separate_metadata(metadata) {
            0 => Ok(None),
            bytes => AlignedBuffer::new(PAGE.max(bytes as usize), PAGE).map(Some),
        }
    }

    /// The logical block at an offset in bytes.
    pub(super) fn lba(&self, offset: u64) -> u64 {
        offset / u64::from(self.format.lba_size)
    }

    /// Sends a command, again where the controller or the kernel says so.
    ///
    /// # Safety
    ///
    /// What the entry names is valid for what the command does with it, until this returns.
    pub(super) unsafe fn send(&self, target: &Target, to: To, entry: &mut Entry) -> Result<u64, Refused> {
        let (mut setbacks, mut tries) = (Setbacks::default(), 0);
        loop {
            // SAFETY: the same obligation.
            match unsafe { pass(&target.file, to, entry) } {
                Ok(result) => return Ok(result),
                Err(Refused::Status(status)) if tries < MOST_TRIES && may_pass(status) => tries += 1,
                Err(Refused::Kernel(libc::EINTR | libc::EAGAIN | libc::EBUSY)) if setbacks.may_try_again() => {}
                Err(refused) => return Err(refused),
            }
            count(&target.counters.retries, 1);
        }
    }

    /// Transfers bytes of data from or to an address, in as many commands as that takes, at an offset of the target.
    ///
    /// # Safety
    ///
    /// There are so many bytes, for reading or for writing, until this returns.
    unsafe fn transfer(
        &self,
        target: &Target,
        transfer: Transfer,
        address: *mut u8,
        length: usize,
        offset: u64,
    ) -> Result<usize> {
        let mut page = self.metadata_page(Metadata::Controllers)?;
        let mut done = 0;
        while done < length {
            // SAFETY: within the memory of the caller.
            let memory = unsafe { address.add(done) };
            let piece = self.longest(memory).min(length - done);
            let run = Run::of_bytes(&self.format, self.lba(offset + done as u64), piece, Metadata::Controllers)
                .expect("a transfer is of whole blocks, which was checked");
            let metadata = match &mut page {
                Some(page) => {
                    page.fill(0);
                    page.as_mut_ptr().expose_provenance() as u64
                }
                None => 0,
            };
            let mut entry = run.entry(&self.format, self.nsid, transfer, memory.expose_provenance() as u64, metadata);
            // SAFETY: as many bytes as the run has, of data as the caller vouches for and of metadata as fit into
            // the page, which stays until the end.
            unsafe { self.send(target, To::Namespace, &mut entry) }.map_err(|refused| {
                let operation = if transfer == Transfer::Read { "read" } else { "write" };
                refused.into_error(target.place(operation, offset + done as u64))
            })?;
            done += piece;
        }
        Ok(done)
    }

    pub(in crate::block) fn read(&self, target: &Target, buffer: &mut [u8], offset: u64) -> Result<usize> {
        // SAFETY: borrowed for writing during the call.
        unsafe { self.transfer(target, Transfer::Read, buffer.as_mut_ptr(), buffer.len(), offset) }
    }

    pub(in crate::block) fn write(&self, target: &Target, data: &[u8], offset: u64, fua: bool) -> Result<usize> {
        // SAFETY: borrowed for reading during the call, and a write does no more.
        unsafe { self.transfer(target, Transfer::Write { fua }, data.as_ptr().cast_mut(), data.len(), offset) }
    }

    /// Whether a flush has something to do.
    pub(in crate::block) fn has_write_cache(&self) -> bool {
        self.has_write_cache
    }

    /// Whether blocks are written one after the other.
    pub(in crate::block) fn is_zoned(&self) -> bool {
        self.zoned.is_some()
    }

    pub(in crate::block) fn flush(&self, target: &Target) -> Result<()> {
        if !self.has_write_cache {
            return Ok(());
        }
        let mut entry = Entry::new(opcode::FLUSH, self.nsid);
        // SAFETY: no memory is named.
        match unsafe { self.send(target, To::Namespace, &mut entry) } {
            Ok(_) => Ok(()),
            Err(refused) => {
                let error = refused.into_error(format_args!("flush of {}", target.path.display()));
                foreign::call(|| log::error!("what was written since the last flush may be lost: {error}"));
                Err(error)
            }
        }
    }

    /// Gives up the storage of bytes that are whole blocks.
    pub(in crate::block) fn deallocate(&self, target: &Target, offset: u64, bytes: u64) -> Result<()> {
        let most = match self.limits.longest_discard / u64::from(self.format.lba_size) {
            0 => u64::from(u32::MAX),
            most => most.min(u32::MAX.into()),
        };
        let (mut first, mut left) = (self.lba(offset), self.lba(bytes));
        while left > 0 {
            let blocks = left.min(most);
            let mut ranges = range(first, blocks as u32);
            let mut entry = Entry::new(opcode::DATASET_MANAGEMENT, self.nsid);
            entry.address = ranges.as_mut_ptr().expose_provenance() as u64;
            entry.data_length = ranges.len() as u32;
            // One range, to be deallocated.
            entry.words = [0, 1 << 2, 0, 0, 0, 0];
            // SAFETY: the command reads so many bytes of a list that stays where it is.
            unsafe { self.send(target, To::Namespace, &mut entry) }
                .map_err(|refused| refused.into_error(self.place(target, "discard", first)))?;
            (first, left) = (first + blocks, left - blocks);
        }
        Ok(())
    }

    /// Whether the controller made zeroes of bytes that are whole blocks.
    pub(in crate::block) fn write_zeroes(&self, target: &Target, offset: u64, bytes: u64) -> Result<bool> {
        let most = match self.limits.longest_zeroes / u64::from(self.format.lba_size) {
            0 => MOST_BLOCKS,
            most => most.min(MOST_BLOCKS),
        };
        if !self.can_write_zeroes {
            return Ok(false);
        }
        match self.on_blocks(target, opcode::WRITE_ZEROES, (self.lba(offset), self.lba(bytes)), most) {
            Err((Refused::Status(status), _)) if status.raw() & 0x7ff == 1 => Ok(false),
            Err((refused, first)) => Err(refused.into_error(self.place(target, "write zeroes", first))),
            Ok(()) => Ok(true),
        }
    }

    /// Sends a command without data for blocks, `most` at a time; where it is refused, for which of them.
    pub(super) fn on_blocks(
        &self,
        target: &Target,
        opcode: u8,
        (mut first, mut left): (u64, u64),
        most: u64,
    ) -> Result<(), (Refused, u64)> {
        while left > 0 {
            let blocks = left.min(most);
            let mut entry = on_blocks(&self.format, self.nsid, opcode, first, blocks as u32);
            // SAFETY: no memory is named.
            unsafe { self.send(target, To::Namespace, &mut entry) }.map_err(|refused| (refused, first))?;
            (first, left) = (first + blocks, left - blocks);
        }
        Ok(())
    }

    /// What an error says of a logical block.
    pub(super) fn place(&self, target: &Target, operation: &str, lba: u64) -> String {
        format!("{operation} of logical block {lba} of {}", target.path.display())
    }

    /// Bytes that the namespace has now.
    pub(in crate::block) fn size(&self, target: &Target) -> Result<u64> {
        let name = target.path.display().to_string();
        let bytes = identify(&target.file, self.nsid, NAMESPACE, 0, &name)?;
        let size = NamespaceInfo::parse(&bytes).map_or(0, |info| info.size);
        Ok(size.saturating_mul(self.format.lba_size.into()))
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The controller says so.
    Status(NvmeStatus),
    /// The kernel says so: a number of the C library.
    Kernel(i32),
}

impl Refused {
    #[cold]
    pub(super) fn into_error(self, doing: impl std::fmt::Display) -> Error {
        match self {
            Self::Status(status) => Error::from_nvme(status, doing),
            Self::Kernel(errno) => Error::from_errno(errno, doing),
        }
    }
}

/// Whether a command may succeed when it is sent again: what the medium said, and what the command itself is refused for, stays.
pub(super) fn may_pass(status: NvmeStatus) -> bool {
    !status.do_not_retry() && matches!(status.status_type(), StatusType::Generic | StatusType::Path)
}

/// Passes a command through, waits for its end, and gives what the controller answers.
///
/// # Safety
///
/// What the entry names is valid for what the command does with it, until this returns.
pub(super) unsafe fn pass(file: &File, to: To, entry: &mut Entry) -> Result<u64, Refused> {
    let request = if to == To::Namespace { IO64_CMD } else { ADMIN64_CMD };
    entry.result = 0;
    // SAFETY: the kernel reads and writes an entry of this layout; the caller vouches for what it names. A signal does not end
    // the call before the command has ended.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, std::ptr::from_mut(entry)) } {
        0 => Ok(entry.result),
        // However it is returned, it is no success.
        status @ 1.. => Err(Refused::Status(NvmeStatus::from_raw(status as u16))),
        _ => Err(Refused::Kernel(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))),
    }
}

/// Asks for an Identify data structure; `set` is the word that names a command set.
pub(super) fn identify(file: &File, nsid: u32, what: u32, set: u32, name: &str) -> Result<Box<[u8; IDENTIFY_BYTES]>> {
    // A controller and a list of namespaces are no matter of one namespace.
    let nsid = match what {
        CONTROLLER => 0,
        _ => nsid,
    };
    let mut bytes = Box::new([0_u8; IDENTIFY_BYTES]);
    let mut entry = Entry::new(admin::IDENTIFY, nsid);
    entry.words = [what, set, 0, 0, 0, 0];
    admin_read(file, &mut entry, &mut *bytes).map_err(|refused| {
        let what = match what {
            NAMESPACE => "a namespace",
            CONTROLLER => "a controller",
            NAMESPACE_OF_SET => "the zones of a namespace",
            _ => "the active namespaces",
        };
        refused.into_error(format_args!("identify {what} ({name})"))
    })?;
    Ok(bytes)
}

/// A command to the controller that fills `bytes`, which it says the length of.
pub(super) fn admin_read(file: &File, entry: &mut Entry, bytes: &mut [u8]) -> Result<u64, Refused> {
    entry.address = bytes.as_mut_ptr().expose_provenance() as u64;
    entry.data_length = bytes.len() as u32;
    let mut setbacks = Setbacks::default();
    loop {
        // SAFETY: the memory is borrowed for writing during the call, and the callers' commands give no more than that.
        match unsafe { pass(file, To::Controller, entry) } {
            Err(Refused::Kernel(libc::EINTR | libc::EAGAIN)) if setbacks.may_try_again() => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(longest: usize, pages: usize) -> Namespace {
        Namespace {
            nsid: 1,
            format: Format { lba_size: 512, metadata_size: 0, is_extended: false, protection: 0 },
            limits: Limits { longest, pages, can_poll: false, longest_discard: 0, longest_zeroes: 0 },
            zoned: None,
            has_write_cache: true,
            can_discard: true,
            can_write_zeroes: true,
        }
    }

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!((ADMIN64_CMD as u32, IO64_CMD as u32), (0xc050_4e47, 0xc050_4e48));
        if cfg!(target_arch = "x86_64") {
            assert_eq!(ID as u32, 0x4e40);
        }
    }

    #[test]
    fn a_command_is_no_longer_than_its_limits() {
        let at = |address: usize| std::ptr::without_provenance::<u8>(address);
        // By its length, and by the pages that it touches.
        assert_eq!(namespace(512 << 10, 1000).longest(at(4096)), 512 << 10);
        assert_eq!(namespace(512 << 10, 127).longest(at(4096)), 127 * 4096);
        assert_eq!(namespace(512 << 10, 127).longest(at(4096 + 4)), 127 * 4096 - 512);
        assert_eq!(namespace(usize::MAX, usize::MAX).longest(at(0)), 512 << 16, "blocks are counted with 16 bits");
        assert_eq!(namespace(100, 1).longest(at(4095)), 512, "one block at least");
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let may_pass = |status| may_pass(NvmeStatus::from_raw(status));
        assert!(may_pass(0x006) && may_pass(0x082) && may_pass(0x303));
        assert!(!may_pass(0x4006) && !may_pass(0x281) && !may_pass(0x1bc));
    }
}
