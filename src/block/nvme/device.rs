//! A namespace as a block device, and its commands.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::Unavailable;
use crate::block::file::Blocking;
use crate::block::nvme::entry::{Entry, Metadata, Run, Transfer, admin, io as opcode};
use crate::block::nvme::identify::{
    ACTIVE_NAMESPACES, CONTROLLER, Controller, NAMESPACE, NamespaceInfo, Zoned, parse_list,
};
use crate::block::nvme::kernel::Kernel;
use crate::block::nvme::namespace::{ALIGNMENT, Namespace, Refused, To, admin_read, identify, pass};
use crate::block::nvme::node::Node;
use crate::block::nvme::smart::{SMART, SMART_BYTES, SmartLog};
use crate::block::nvme::zone::{ZONE_BYTES, Zone, ZoneAction, parse_report};
use crate::block::target::{Below, Target, check_options, in_use};
use crate::block::{
    AlignedBuffer, AlignmentFrom, Backend, BatchError, BlockDevice, Capabilities, Device, Fallback, Geometry, Options,
    Picked, ReadRequest, Report, Stats, WriteRequest, fall_back, open_on_ring, platform as sys,
};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of zones that are asked for at once.
const REPORT_BYTES: usize = 64 << 10;

/// A namespace that NVMe commands are passed through to; see the [module](crate::block::nvme).
///
/// It is a [`Device`] (by [`Deref`]), which has queues and futures, with commands beyond that.
#[derive(Debug)]
pub struct NvmeDevice(Device);

impl NvmeDevice {
    /// Opens a namespace: its character device `/dev/ngXnY`, its block device `/dev/nvmeXnY`, or a link to one of them.
    ///
    /// Blocks are [`Options::block_size`] bytes, a multiple of the logical block. Exclusive, with `flock` on the node and, for writing,
    /// `O_EXCL` on the block device where there is one that may be opened.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidInput`]: something else than a namespace (a partition and a controller are told so), or
    ///   [`Options::create`];
    /// * [`ErrorKind::Unsupported`]: a kernel without such nodes (before Linux 5.13), or a format whose metadata can't be had;
    /// * [`ErrorKind::PermissionDenied`]: the kernel does not pass commands through for this user;
    /// * as for [`block::open`](crate::block::open) otherwise.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        check_options(options)?;
        let path = path.as_ref();
        if options.create.is_some() {
            let message =
                format!("{}: a namespace is not created by opening it; leave Options::create off", path.display());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let node = Node::open(path, options.read_only)?;
        // The kernel's cache is nowhere on the way.
        let mut options = options.clone().direct(true);
        let target = open_target(node, &mut options)?;
        let device = match options.backend {
            Backend::File => Device(Arc::new(Picked::File(Blocking::new(target), None))),
            _ if !Kernel::running().has_fixed_commands() => {
                let message = "io_uring has registered buffers for commands since Linux 6.1 only";
                fall_back(target, &options, Unavailable::other(&Error::new(ErrorKind::Unsupported, message)))?
            }
            _ => open_on_ring(target, &options, Picked::Nvme)?,
        };
        let target = device.target();
        log::info!("{}: opened (passthrough, {}); {}", target.path.display(), device.backend(), target.geometry());
        Ok(Self(device))
    }

    fn target(&self) -> &Target {
        self.0.target()
    }

    fn namespace(&self) -> &Namespace {
        self.target().namespace.as_ref().expect("it was opened over one")
    }

    fn name(&self) -> String {
        self.target().path.display().to_string()
    }

    /// The namespace's number (NSID).
    #[must_use]
    pub fn nsid(&self) -> u32 {
        self.namespace().nsid
    }

    /// Bytes of data in a logical block.
    #[must_use]
    pub fn lba_size(&self) -> usize {
        self.namespace().format.lba_size as usize
    }

    /// Bytes of metadata that go along with a logical block.
    #[must_use]
    pub fn metadata_size(&self) -> usize {
        self.namespace().format.metadata_size as usize
    }

    /// Logical blocks.
    #[must_use]
    pub fn lba_count(&self) -> u64 {
        self.target().geometry().bytes / self.lba_size() as u64
    }

    /// Its zones, where it has some; blocks are written in order there.
    #[must_use]
    pub fn zoned(&self) -> Option<Zoned> {
        self.namespace().zoned
    }

    /// As [`Device::close`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn close(self) -> Result<()> {
        self.0.close()
    }

    // ---- what controller and namespace say

    /// What the controller says of itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Nvme`] where the controller refuses; what the kernel reports.
    pub fn identify_controller(&self) -> Result<Controller> {
        Ok(Controller::parse(&*identify(&self.target().file, 0, CONTROLLER, 0, &self.name())?))
    }

    /// What the namespace says of itself, now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where it is no namespace with blocks any more; as for [`NvmeDevice::identify_controller`].
    pub fn identify_namespace(&self) -> Result<NamespaceInfo> {
        let name = self.name();
        NamespaceInfo::parse(&*identify(&self.target().file, self.nsid(), NAMESPACE, 0, &name)?).ok_or_else(|| {
            let message = format!("{name}: namespace {} has no blocks any more; was it detached?", self.nsid());
            Error::new(ErrorKind::Unsupported, message)
        })
    }

    /// The numbers of the namespaces that are attached to the controller, up to 1024 of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PermissionDenied`] without CAP_SYS_ADMIN; as for [`NvmeDevice::identify_controller`].
    pub fn active_namespaces(&self) -> Result<Vec<u32>> {
        Ok(parse_list(&*identify(&self.target().file, 0, ACTIVE_NAMESPACES, 0, &self.name())?))
    }

    /// The current value of a feature that is one number: 1 arbitration, 2 power management, 4 temperature threshold, 5 error
    /// recovery, 6 volatile write cache, 7 number of queues, 8 interrupt coalescing, 9 interrupt vector configuration, 0xa write
    /// atomicity, 0xb events, 0x10 thermal management, 0x80 software progress, 0x82 and 0x83 reservations, 0x84 write protection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for another one: with it a controller transfers data, whether there is a place for it or not. As for
    /// [`NvmeDevice::active_namespaces`] otherwise.
    pub fn feature(&self, feature: u8) -> Result<u32> {
        let namespace = self.namespace();
        let nsid = match feature {
            0x01 | 0x02 | 0x04 | 0x06..=0x0b | 0x10 | 0x80 => 0,
            0x05 | 0x82..=0x84 => namespace.nsid,
            _ => {
                let message = format!("feature {feature:#04x}: it is no number; raw_command gets it with its data");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
        };
        let mut entry = Entry::new(admin::GET_FEATURES, nsid);
        entry.words[0] = feature.into();
        // SAFETY: no memory is named, and none of these features has data.
        let value = unsafe { namespace.send(self.target(), To::Controller, &mut entry) };
        let value = value.map_err(|refused| {
            refused.into_error(format_args!("get feature {feature:#04x} of {}", self.target().path.display()))
        })?;
        // What is above is reserved.
        Ok(value as u32)
    }

    /// The controller's health, since it was made.
    ///
    /// # Errors
    ///
    /// As for [`NvmeDevice::active_namespaces`].
    pub fn smart(&self) -> Result<SmartLog> {
        let mut log = [0; SMART_BYTES];
        self.log_page(SMART as u8, &mut log)?;
        Ok(SmartLog::parse(&log))
    }

    /// A log page of the controller, from its start on, as many bytes as `page` has: a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for another length; as for [`NvmeDevice::active_namespaces`].
    pub fn log_page(&self, log: u8, page: &mut [u8]) -> Result<()> {
        let longest = self.namespace().longest(page.as_ptr());
        if page.is_empty() || page.len() % 4 != 0 || page.len() > longest {
            let message = format!("a log page of {} bytes: it must be a multiple of 4, {longest} at most", page.len());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let mut entry = Entry::new(admin::GET_LOG_PAGE, u32::MAX);
        let words = page.len() as u32 / 4 - 1;
        entry.words = [u32::from(log) | words << 16, words >> 16, 0, 0, 0, 0];
        admin_read(&self.target().file, &mut entry, page).map(drop).map_err(|refused| {
            refused.into_error(format_args!("get log page {log:#04x} of {}", self.target().path.display()))
        })
    }

    // ---- blocks

    /// Checks that there are so many logical blocks.
    fn check(&self, operation: &str, first: u64, blocks: u64) -> Result<()> {
        let count = self.lba_count();
        if blocks != 0 && first.checked_add(blocks).is_some_and(|end| end <= count) {
            return Ok(());
        }
        let (kind, why) = match blocks {
            0 => (ErrorKind::InvalidInput, "it must be one block at least".to_owned()),
            _ => (ErrorKind::OutOfRange, format!("there are blocks 0 to {} only", i128::from(count) - 1)),
        };
        let place = self.namespace().place(self.target(), operation, first);
        Err(Error::new(kind, format!("{place}, {blocks} blocks: {why}")))
    }

    /// How many logical blocks buffers of that length are, one for data and, where it is `Some`, one for metadata.
    fn blocks_of(&self, operation: &str, first: u64, data: usize, metadata: Option<usize>) -> Result<u64> {
        let format = &self.namespace().format;
        let whose = if metadata.is_some() { Metadata::Callers } else { Metadata::Controllers };
        let size = u64::from(format.data_size(whose));
        let blocks = data as u64 / size;
        let expected = blocks * u64::from(format.separate_metadata(whose));
        if data as u64 % size != 0 || metadata.is_some_and(|metadata| metadata as u64 != expected) {
            let place = self.namespace().place(self.target(), operation, first);
            let message = match (metadata, data as u64 % size) {
                (Some(metadata), 0) => {
                    format!(
                        "{place}: {blocks} blocks have {expected} bytes of metadata, and the buffer for it {metadata}"
                    )
                }
                _ => format!("{place}: a buffer of {data} bytes is no multiple of the block, which has {size} in it"),
            };
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        self.check(operation, first, blocks)?;
        let has_buffer = format.separate_metadata(whose) != 0;
        if has_buffer && !Kernel::running().maps_metadata() {
            return Err(no_metadata(&self.name()));
        }
        Ok(blocks)
    }

    /// Transfers blocks in as many commands as that takes; gives what the controller answered last.
    ///
    /// # Safety
    ///
    /// Both lengths were checked by [`NvmeDevice::blocks_of`]; there are so many bytes, which may be written where it reads.
    unsafe fn transfer(
        &self,
        (transfer, operation): (Transfer, &str),
        first: u64,
        (data, length): (*mut u8, usize),
        metadata: Option<(*mut u8, usize)>,
    ) -> Result<u64> {
        let namespace = self.namespace();
        let whose = if metadata.is_some() { Metadata::Callers } else { Metadata::Controllers };
        let block = namespace.format.data_size(whose) as usize;
        let metadata_block = namespace.format.separate_metadata(whose) as usize;
        let mut page = namespace.metadata_page(whose)?;
        let (mut done, mut answer) = (0, 0);
        while done < length {
            let address = data.wrapping_add(done);
            let piece = (length - done).min(namespace.longest_with(address, whose));
            let lba = first + (done / block) as u64;
            let run = Run::of_bytes(&namespace.format, lba, piece, whose).expect("whole blocks, as was checked");
            let bytes = run.metadata_bytes(&namespace.format) as usize;
            let callers = metadata.map(|(start, _)| start.wrapping_add(done / block * metadata_block));
            let mut place = 0;
            if let Some(page) = &mut page {
                match callers {
                    // SAFETY: the caller vouches for so many bytes, which are copied to a page that has as many.
                    Some(callers) if transfer != Transfer::Read => unsafe {
                        page[..bytes].as_mut_ptr().copy_from_nonoverlapping(callers, bytes);
                    },
                    _ => page.fill(0),
                }
                place = page.as_mut_ptr().expose_provenance() as u64;
            }
            let address = address.expose_provenance() as u64;
            let mut entry = run.entry(&namespace.format, namespace.nsid, transfer, address, place);
            // SAFETY: the lengths of the entry are those of its blocks, which the memory has, as the caller vouches for; the metadata's
            // fit into the page.
            let sent = unsafe {
                match transfer {
                    // One that was carried out after all would be there twice.
                    Transfer::Append => pass(&self.target().file, To::Namespace, &mut entry),
                    _ => namespace.send(self.target(), To::Namespace, &mut entry),
                }
            };
            answer = sent.map_err(|refused| refused.into_error(namespace.place(self.target(), operation, lba)))?;
            if let (Some(page), Some(callers), Transfer::Read) = (&page, callers, transfer) {
                // SAFETY: the caller vouches for so many bytes, which may be written.
                unsafe { callers.copy_from_nonoverlapping(page[..bytes].as_ptr(), bytes) };
            }
            done += piece;
        }
        Ok(answer)
    }

    /// Reads logical blocks from `first` on with their metadata, unchecked: as many as `data` holds.
    ///
    /// Where the format has the metadata between the blocks (extended logical blocks) `data` holds both, and `metadata` is empty.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for lengths that don't belong together, [`ErrorKind::OutOfRange`],
    /// [`ErrorKind::Unsupported`] on kernels that can't map the buffer, [`ErrorKind::Nvme`]; what the kernel reports.
    pub fn read_with_metadata(&self, first: u64, data: &mut [u8], metadata: &mut [u8]) -> Result<()> {
        self.blocks_of("read", first, data.len(), Some(metadata.len()))?;
        let (data, metadata) = ((data.as_mut_ptr(), data.len()), (metadata.as_mut_ptr(), metadata.len()));
        // SAFETY: checked above, and borrowed for writing.
        unsafe { self.transfer((Transfer::Read, "read"), first, data, Some(metadata)) }.map(drop)
    }

    /// Writes logical blocks from `first` on with their metadata, as it is; see [`NvmeDevice::read_with_metadata`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::ReadOnly`].
    pub fn write_with_metadata(&self, first: u64, data: &[u8], metadata: &[u8]) -> Result<()> {
        self.target().check_writable("write", first)?;
        self.blocks_of("write", first, data.len(), Some(metadata.len()))?;
        let data = (data.as_ptr().cast_mut(), data.len());
        let metadata = (metadata.as_ptr().cast_mut(), metadata.len());
        let how = (Transfer::Write { fua: false }, "write");
        // SAFETY: checked above, and borrowed for reading, which is all that a write does.
        unsafe { self.transfer(how, first, data, Some(metadata)) }.map(drop)
    }

    /// Whether logical blocks from `first` on are the same as `data`; the controller compares. Of more than it takes at once the
    /// parts are compared one after the other.
    ///
    /// # Errors
    ///
    /// As for [`NvmeDevice::read_with_metadata`]; blocks that differ are no error. Blocks with metadata are compared with that, which is
    /// not done here: [`ErrorKind::Unsupported`].
    pub fn compare(&self, first: u64, data: &[u8]) -> Result<bool> {
        self.blocks_of("compare", first, data.len(), None)?;
        if self.metadata_size() != 0 {
            let message = format!("{}: blocks with metadata are not compared by their data alone", self.name());
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let data = (data.as_ptr().cast_mut(), data.len());
        // SAFETY: checked above, and borrowed for reading, which is all that a compare does.
        match unsafe { self.transfer((Transfer::Compare, "compare"), first, data, None) } {
            Ok(_) => Ok(true),
            Err(error) if error.nvme_status().is_some_and(|status| status.raw() & 0x7ff == 0x285) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has the controller read logical blocks, without transferring them, to see that it can.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfRange`]; [`ErrorKind::Nvme`] for what can't be read, or where the controller has no such command
    /// ([`Controller::can_verify`]).
    pub fn verify(&self, first: u64, blocks: u64) -> Result<()> {
        self.check("verify", first, blocks)?;
        let namespace = self.namespace();
        // As long as what is transferred at once: it takes the controller as long.
        let most = (namespace.longest(std::ptr::null()) / self.lba_size()) as u64;
        namespace
            .on_blocks(self.target(), opcode::VERIFY, (first, blocks), most)
            .map_err(|(refused, lba)| refused.into_error(namespace.place(self.target(), "verify", lba)))
    }

    // ---- zones

    fn check_zoned(&self, operation: &str) -> Result<Zoned> {
        self.zoned().ok_or_else(|| {
            let message = format!("{operation} on {}: the namespace has no zones (NvmeDevice::zoned)", self.name());
            Error::new(ErrorKind::Unsupported, message)
        })
    }

    /// The zones from that of logical block `first` on, `most` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where there are none; [`ErrorKind::OutOfRange`]; [`ErrorKind::Nvme`]; what the kernel reports.
    pub fn zones(&self, first: u64, most: usize) -> Result<Vec<Zone>> {
        let zone_size = self.check_zoned("zone report")?.zone_size;
        self.check("zone report", first, 1)?;
        let (mut zones, mut next) = (Vec::new(), first);
        let namespace = self.namespace();
        let bytes = REPORT_BYTES.min(namespace.longest(std::ptr::null()));
        let mut report = AlignedBuffer::new(bytes, ALIGNMENT as usize)?;
        while zones.len() < most && next < self.lba_count() {
            let wanted = (most - zones.len()).saturating_add(1).saturating_mul(ZONE_BYTES);
            let length = bytes.min(wanted);
            let mut entry = Entry::new(opcode::ZONE_RECEIVE, namespace.nsid);
            entry.address = report.as_mut_ptr().expose_provenance() as u64;
            entry.data_length = length as u32;
            // A report, of all states, and of as many as fit.
            entry.words = [next as u32, (next >> 32) as u32, length as u32 / 4 - 1, 1 << 16, 0, 0];
            // SAFETY: the buffer has so many bytes, and outlives the call.
            unsafe { namespace.send(self.target(), To::Namespace, &mut entry) }
                .map_err(|refused| refused.into_error(namespace.place(self.target(), "zone report", next)))?;
            let found = parse_report(&report[..length]);
            let Some(last) = found.last() else { break };
            // Whatever it says, it goes on.
            next = last.start.saturating_add(zone_size).max(next + 1);
            zones.extend(found);
        }
        zones.truncate(most);
        Ok(zones)
    }

    /// Does something with the zone that begins at logical block `start`, or with all zones where it is `None`.
    ///
    /// # Errors
    ///
    /// As for [`NvmeDevice::zones`], and [`ErrorKind::ReadOnly`].
    pub fn manage_zone(&self, start: Option<u64>, action: ZoneAction) -> Result<()> {
        self.check_zoned("zone management")?;
        self.target().check_writable("zone management", 0)?;
        let first = start.unwrap_or(0);
        self.check("zone management", first, 1)?;
        let namespace = self.namespace();
        let mut entry = Entry::new(opcode::ZONE_SEND, namespace.nsid);
        let all = if start.is_none() { 1 << 8 } else { 0 };
        entry.words = [first as u32, (first >> 32) as u32, 0, action.number() | all, 0, 0];
        // SAFETY: no memory is named.
        unsafe { namespace.send(self.target(), To::Namespace, &mut entry) }
            .map(drop)
            .map_err(|refused| refused.into_error(namespace.place(self.target(), "zone management", first)))
    }

    /// Writes to wherever the zone that begins at logical block `start` is written next; gives the first block that was
    /// written. It is sent once: after an error that does not say that nothing was written, [`NvmeDevice::zones`] tells.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for more than one command can write; as for [`NvmeDevice::manage_zone`].
    pub fn append(&self, start: u64, data: &[u8]) -> Result<u64> {
        self.check_zoned("append")?;
        self.target().check_writable("append", start)?;
        self.blocks_of("append", start, data.len(), None)?;
        let longest = self.namespace().longest(data.as_ptr());
        if data.len() > longest {
            let message = format!("append of {} bytes to {}: one command takes {longest}", data.len(), self.name());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let memory = (data.as_ptr().cast_mut(), data.len());
        // SAFETY: checked above, and borrowed for reading, which is all that a write does.
        unsafe { self.transfer((Transfer::Append, "append"), start, memory, None) }
    }

    // ---- anything else

    /// Passes any command through, to the namespace or to its controller; gives what it answers.
    ///
    /// Nothing is checked, and it is sent once. The kernel copies memory that is not aligned.
    ///
    /// # Safety
    ///
    /// The command transfers no more data and metadata than the buffers have, in the direction that its opcode says: a controller
    /// that is told of more blocks than the length it was given reads, or writes, past the end of the buffer. And whatever it does to
    /// what is on the namespace is not used by others meanwhile in a way that they rely on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Nvme`], and what the kernel reports.
    pub unsafe fn raw_command(&self, command: &RawCommand, data: &mut [u8], metadata: &mut [u8]) -> Result<u64> {
        let length = |bytes: &[u8], what| {
            u32::try_from(bytes.len()).map_err(|_| {
                Error::new(ErrorKind::InvalidInput, format!("{what} of {} bytes is longer than a command", bytes.len()))
            })
        };
        let address = |bytes: &mut [u8]| match bytes {
            [] => 0,
            bytes => bytes.as_mut_ptr().expose_provenance() as u64,
        };
        let mut entry = Entry {
            opcode: command.opcode,
            nsid: command.nsid.unwrap_or(self.nsid()),
            cdw2: command.words[0],
            cdw3: command.words[1],
            words: [
                command.words[2],
                command.words[3],
                command.words[4],
                command.words[5],
                command.words[6],
                command.words[7],
            ],
            data_length: length(data, "data")?,
            metadata_length: length(metadata, "metadata")?,
            address: address(data),
            metadata: address(metadata),
            timeout_ms: command.timeout.map_or(0, |time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)),
            ..Entry::default()
        };
        let to = if command.is_admin { To::Controller } else { To::Namespace };
        // SAFETY: the same obligation; both are borrowed for writing until it returns.
        unsafe { pass(&self.target().file, to, &mut entry) }.map_err(|refused: Refused| {
            let opcode = command.opcode;
            refused.into_error(format_args!("command {opcode:#04x} to {}", self.target().path.display()))
        })
    }
}

/// A command as the specification has it, for [`NvmeDevice::raw_command`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawCommand {
    /// What to do.
    pub opcode: u8,
    /// For the controller, and not the namespace.
    pub is_admin: bool,
    /// Another namespace than the device's own; the kernel takes that for the controller's commands only.
    pub nsid: Option<u32>,
    /// The command's words 2, 3, and 10 to 15.
    pub words: [u32; 8],
    /// When the kernel gives it up; its own limit unless set.
    pub timeout: Option<Duration>,
}

/// Everything after the node is open.
fn open_target(node: Node, options: &mut Options) -> Result<Target> {
    let Node { path, file, disk, limits } = node;
    let name = path.display().to_string();
    if options.exclusive {
        sys::lock(&file, options.read_only).map_err(|error| in_use(&path, error))?;
    }
    // A user who may pass commands through need not be one who may open the block device.
    let claim = match &disk {
        Some(disk) if options.exclusive && !options.read_only => match sys::claim(disk) {
            Ok(claim) => Some(claim),
            Err(error) if sys::is_in_use(&error) => return Err(in_use(disk, error)),
            Err(error) => {
                log::debug!("{}: not held against mounts ({error})", disk.display());
                None
            }
        },
        _ => None,
    };
    let (namespace, info) = Namespace::look_at(&file, &name, limits)?;
    let format = namespace.format;
    if options.block_size % format.lba_size != 0 {
        let message = format!(
            "block size {} is under the logical block size of {name}; use {} or a larger power of two",
            options.block_size, format.lba_size
        );
        return Err(Error::new(ErrorKind::Misaligned, message));
    }
    if format.data_size(Metadata::Controllers) != format.lba_size {
        let message = format!(
            "{name} is formatted with {} bytes of metadata behind each block's data (extended logical blocks), which a block device \
             has no place for; format it with metadata in a buffer of its own, or none",
            format.metadata_size
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if format.separate_metadata(Metadata::Controllers) != 0 && !Kernel::running().maps_metadata() {
        return Err(no_metadata(&name));
    }
    if info.is_write_protected && !options.read_only {
        let message = format!("{name} is write protected: open it with Options::read_only");
        return Err(Error::new(ErrorKind::ReadOnly, message));
    }
    let bytes = info.size.saturating_mul(format.lba_size.into());
    if bytes % u64::from(options.block_size) != 0 && !options.whole_blocks {
        let message = format!(
            "{name} has {bytes} bytes, which is no multiple of the block size {}; use another block size, or the option \
             whole_blocks to leave the last bytes out",
            options.block_size
        );
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let capabilities = Capabilities {
        write: !options.read_only,
        discard: !options.read_only && namespace.can_discard,
        resize: false,
        native_fua: true,
    };
    let geometry = Geometry {
        bytes,
        is_disk: true,
        logical_block: format.lba_size,
        physical_block: format.lba_size,
        optimal_transfer: None,
        max_transfer: Some(namespace.longest(std::ptr::null()) as u64),
        memory_alignment: ALIGNMENT,
        alignment_from: AlignmentFrom::Controller,
    };
    let (can_poll, locked_by) = (limits.can_poll, options.exclusive.then(std::process::id));
    let namespace = Some(Box::new(namespace));
    let target = Target::of(Below { path, file, claim, geometry, capabilities, locked_by, namespace }, options);
    let take = |fallback, what: &str| target.steps.take(&target.path, fallback, what);
    let no_polling = match (Kernel::running().polls(), can_poll) {
        (false, _) => Some("before Linux 6.12 the kernel dereferences a wild pointer when a ring that polls goes"),
        (true, false) => Some("the driver has no queues for it (nvme.poll_queues)"),
        (true, true) => None,
    };
    if let (true, Some(why)) = (options.iopoll, no_polling) {
        take(Fallback::Interrupts, &format!("completions can't be polled for: {why}"))?;
        options.iopoll = false;
    }
    if options.sqpoll.take().is_some() {
        take(Fallback::SystemCalls, "no kernel thread takes commands that are passed through")?;
    }
    Ok(target)
}

fn no_metadata(name: &str) -> Error {
    let message = format!(
        "{name}: {} can't be given a buffer for metadata (6.18.15 dereferences a null pointer then); use a format without, or another \
         kernel, up to 6.12 or from 7.3 on",
        Kernel::running()
    );
    Error::new(ErrorKind::Unsupported, message)
}

impl Deref for NvmeDevice {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.0
    }
}

/// Writes methods that pass on to the device.
macro_rules! delegate {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $output:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $output {
            self.0.$name($($argument),*)
        })*
    };
}

impl BlockDevice for NvmeDevice {
    delegate! {
        fn block_size(&self) -> usize;
        fn block_count(&self) -> u64;
        fn alignment(&self) -> usize;
        fn max_batch(&self) -> usize;
        fn backend(&self) -> Backend;
        fn fallback_reason(&self) -> Option<&Unavailable>;
        fn report(&self) -> Report;
        fn geometry(&self) -> Geometry;
        fn capabilities(&self) -> Capabilities;
        fn stats(&self) -> Stats;
        fn read_block(&self, block: u64, buffer: &mut [u8]) -> Result<()>;
        fn write_block(&self, block: u64, data: &[u8]) -> Result<()>;
        fn read_run(&self, first: u64, buffer: &mut [u8]) -> Result<()>;
        fn write_run(&self, first: u64, data: &[u8]) -> Result<()>;
        fn read_vectored(&self, first: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<()>;
        fn write_vectored(&self, first: u64, buffers: &[IoSlice<'_>]) -> Result<()>;
        fn write_run_fua(&self, first: u64, data: &[u8]) -> Result<()>;
        fn read_blocks(&self, requests: &mut [ReadRequest<'_>]) -> Result<(), BatchError>;
        fn write_blocks(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError>;
        fn write_blocks_fua(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError>;
        fn write_barrier(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError>;
        fn discard(&self, first: u64, blocks: u64) -> Result<()>;
        fn write_zeroes(&self, first: u64, blocks: u64) -> Result<()>;
        fn resize(&self, blocks: u64) -> Result<()>;
        fn rescan(&self) -> Result<u64>;
        fn flush(&self) -> Result<()>;
        fn aligned_buffer(&self, bytes: usize) -> Result<AlignedBuffer>;
    }
}
