//! What to open, and how.

use std::time::Duration;

use crate::block::Fallback;

/// Which way a device reaches its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// io_uring where it works, else `pread`/`pwrite`; the device tells which, and why.
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    Uring,
    /// `pread`/`pwrite`; `ioctl` where NVMe commands are passed through.
    File,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::File => "file",
        })
    }
}

/// How to open a block device; a builder.
///
/// ```
/// use sysuring::block::{self, BlockDevice, Options};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("disk.img");
/// let device = block::open(&path, &Options::new().block_size(4096).create(1 << 20))?;
/// assert_eq!(device.block_count(), 256);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub(crate) block_size: u32,
    pub(crate) create: Option<u64>,
    pub(crate) queue_depth: u32,
    pub(crate) pool_size: usize,
    pub(crate) sqpoll: Option<Duration>,
    pub(crate) iopoll: bool,
    pub(crate) direct: bool,
    pub(crate) backend: Backend,
    pub(crate) read_only: bool,
    pub(crate) exclusive: bool,
    pub(crate) whole_blocks: bool,
    pub(crate) measure_latency: bool,
    /// Bits of [`Fallback`].
    pub(crate) forbidden: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_size: 4096,
            create: None,
            queue_depth: 64,
            pool_size: 1 << 20,
            sqpoll: None,
            iopoll: false,
            direct: true,
            backend: Backend::Auto,
            read_only: false,
            exclusive: true,
            whole_blocks: false,
            measure_latency: false,
            forbidden: 0,
        }
    }
}

impl Options {
    /// Blocks of 4096 bytes, queue depth 64, O_DIRECT, exclusive, any backend.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes in a block: a power of two from 512 to 65536, and at least the logical block size of the target.
    #[must_use]
    pub fn block_size(mut self, bytes: u32) -> Self {
        self.block_size = bytes;
        self
    }

    /// Creates the file, `bytes` long, where it does not exist.
    ///
    /// A file that exists is opened as it is if it has just that size, and is an error otherwise. With
    /// [`Options::read_only`] nothing is created.
    #[must_use]
    pub fn create(mut self, bytes: u64) -> Self {
        self.create = Some(bytes);
        self
    }

    /// Operations that calls of one thread have in flight at most: 1 to 4096. A longer batch goes through in windows of this
    /// size. On `pread`/`pwrite` it is also how many futures of the device are under way.
    ///
    /// A [`Queue`](crate::block::Queue) has a depth of its own; futures on io_uring share rings for 256 operations each,
    /// whatever this is.
    #[must_use]
    pub fn queue_depth(mut self, operations: u32) -> Self {
        self.queue_depth = operations;
        self
    }

    /// Bytes of registered memory that unaligned data passes through, and that [`BlockDevice::aligned_buffer`] gives out:
    /// 1 GiB at most, and at least one block whatever is asked for.
    ///
    /// [`BlockDevice::aligned_buffer`]: crate::block::BlockDevice::aligned_buffer
    #[must_use]
    pub fn pool_size(mut self, bytes: usize) -> Self {
        self.pool_size = bytes;
        self
    }

    /// A kernel thread takes submissions without a system call, and sleeps after `idle` without work
    /// (`IORING_SETUP_SQPOLL`).
    ///
    /// It keeps a processor busy: worth it only where there is one to spare.
    #[must_use]
    pub fn sqpoll(mut self, idle: Duration) -> Self {
        self.sqpoll = Some(idle);
        self
    }

    /// Waits for completions by polling the disk (`IORING_SETUP_IOPOLL`); needs O_DIRECT and a driver with poll queues.
    ///
    /// Where the target has none the device uses interrupts and says so in its report.
    #[must_use]
    pub fn iopoll(mut self, on: bool) -> Self {
        self.iopoll = on;
        self
    }

    /// Past the page cache (`O_DIRECT`, the default) or through it.
    ///
    /// Where the file system refuses O_DIRECT the device is buffered and says so in its report; see [`Options::forbid`].
    #[must_use]
    pub fn direct(mut self, on: bool) -> Self {
        self.direct = on;
        self
    }

    /// Which backend may be used.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Opens for reading only; every write is an error.
    #[must_use]
    pub fn read_only(mut self, on: bool) -> Self {
        self.read_only = on;
        self
    }

    /// Refuses a target that another device holds, and holds it in turn (the default).
    ///
    /// On Unix by `flock` (shared among readers), and by `O_EXCL` too for a block device that is opened for writing.
    #[must_use]
    pub fn exclusive(mut self, on: bool) -> Self {
        self.exclusive = on;
        self
    }

    /// Accepts a file whose size is no multiple of the block size; the bytes after its last whole block are left out.
    #[must_use]
    pub fn whole_blocks(mut self, on: bool) -> Self {
        self.whole_blocks = on;
        self
    }

    /// Measures how long reads, writes and flushes take, for [`Device::latency`](crate::block::Device::latency). Costs asking
    /// for the time twice for each.
    #[must_use]
    pub fn measure_latency(mut self, on: bool) -> Self {
        self.measure_latency = on;
        self
    }

    /// Forbids a step down: where it would have to be taken there is an error, which names it and the remedy.
    ///
    /// What is found out when the device is opened is an error of [`open`](crate::block::open); what happens later, such as a
    /// thread that gets no ring, is an error of the call that it happens to.
    ///
    /// ```
    /// use sysuring::block::{self, Fallback, Options};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("disk.img");
    /// let strict = Options::new().create(1 << 20).forbid(Fallback::PageCache);
    /// match block::open(&path, &strict) {
    ///     Ok(device) => drop(device),
    ///     Err(error) => println!("{error}"),
    /// }
    /// ```
    #[must_use]
    pub fn forbid(mut self, fallback: Fallback) -> Self {
        self.forbidden |= fallback.bit();
        if fallback == Fallback::Pread && self.backend == Backend::Auto {
            self.backend = Backend::Uring;
        }
        self
    }
}
