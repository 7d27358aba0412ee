//! NVMe commands, passed through to a namespace: a block device without the kernel's block layer, and what no block device has.
//!
//! An [`NvmeDevice`] is a [`BlockDevice`]: it reads, writes, flushes, discards and zeroes, in batches, on a [queue](Device::queue)
//! and as [futures](Device::read_async), through the same types as any [`Device`]. Beyond that it has commands of its own: what
//! controller and namespace say of themselves, their health, compare, verify, metadata, zones, and
//! [any other](NvmeDevice::raw_command).
//!
//! ```no_run
//! use sysuring::block::{BlockDevice, Options};
//! use sysuring::block::nvme::NvmeDevice;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = NvmeDevice::open("/dev/ng0n1", &Options::new())?;
//! println!("{}, {} blocks", device.identify_controller()?.model, device.block_count());
//! device.write_block(7, &[0x5a; 4096])?;
//! device.flush()?;
//! let mut block = vec![0; 4096];
//! device.read_block(7, &mut block)?;
//! println!("{} °C", device.smart()?.temperature.saturating_sub(273));
//! # Ok(())
//! # }
//! ```
//!
//! # When to use it
//!
//! Commands that are passed through skip the block layer: there is no scheduler, no merging, and no partition table, and errors are
//! the controller's own words ([`NvmeStatus`]). It is for programs that have a whole namespace to themselves. What is written
//! this way past a mounted file system destroys it: with [`Options::exclusive`] (the default) a namespace that is mounted, or that
//! another device has, is refused.
//!
//! # Units
//!
//! [`BlockDevice`]'s methods count blocks of [`Options::block_size`], which is a multiple of the logical block; the commands beyond it
//! count *logical blocks*, [`NvmeDevice::lba_size`] bytes each, as the specification does.
//!
//! # How commands get there
//!
//! Reads and writes go through io_uring (`IORING_OP_URING_CMD`, on rings with large entries), with registered buffers where memory
//! comes from [`BlockDevice::aligned_buffer`] or [`Queue::buffer`](crate::block::Queue::buffer), and polled for with
//! [`Options::iopoll`] where the driver has queues for that (`nvme.poll_queues`), from Linux 6.12 on. All else, and everything with [`Backend::File`] or where
//! no ring is to be had, goes by `ioctl`. Futures are on rings of their own, whatever [`Reactor`](crate::block::Reactor) the thread has.
//! [`Options::sqpoll`] is not used, and
//! [`Options::direct`] means nothing here.
//!
//! Transfers are cut to what controller and kernel take at once. Of a transfer longer than that, parts may be written and others not
//! when the power fails.
//!
//! # Metadata
//!
//! On a format with 8 bytes of protection information the controller makes and checks it. Other metadata that has a buffer of its own
//! is written as zeroes, and not looked at when it is read; [`NvmeDevice::read_with_metadata`] and
//! [`NvmeDevice::write_with_metadata`] are for those who have a use for it. Such buffers are refused on Linux 6.13 to 7.2:
//! 6.18.15 dereferences a null pointer. Formats that have metadata between the blocks (extended logical blocks) are refused, but for
//! those 8 bytes.
//!
//! # Permissions
//!
//! Whoever may open the node `/dev/ngXnY` may read and, where it was opened for writing, write, from Linux 6.2 on; before, that takes
//! CAP_SYS_ADMIN, as other commands do on any kernel.

mod bytes;
mod device;
mod entry;
mod format;
mod identify;
mod kernel;
mod namespace;
mod node;
mod smart;
mod status;
mod wire;
mod zone;

pub use device::{NvmeDevice, RawCommand};
pub use identify::{Controller, LbaFormat, NamespaceInfo, Zoned};
pub use smart::SmartLog;
pub use status::{NvmeStatus, StatusType};
pub use zone::{Zone, ZoneAction, ZoneState};

pub(super) use namespace::Namespace;
pub(super) use wire::Passthrough;

#[cfg(doc)]
use crate::block::{Backend, BlockDevice, Device, Options};
