//! The operations of the safe interface, one method each.
//!
//! A [`Ring`](crate::Ring), a [`Chain`](crate::Chain) on it, a ring [`with flags`](crate::Ring::drained) and a
//! `&`[`SharedRing`](crate::SharedRing) start operations in the same way: each has a [`Core`], and this trait the rest.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use liburing_sys as sys;

use crate::address::SocketAddress;
use crate::core::{Core, Operation, Target, reject, reject_lease};
use crate::entries::Entries;
use crate::file::FixedFile;
use crate::mailbox::Mailbox;
use crate::message::{SendMessage, receive_flags};
use crate::parcel::{Parameters, Parcel, address_of};
use crate::pool::Buf;
use crate::rejected::{RejectReason, Rejected};
use crate::scope::send_flags;
use crate::sqe::UserData;
use crate::stable::StableBuf;
use crate::table::{Held, NO_FILE, Outcome, Ticket};

/// What an operation can be on: a file that is registered on the ring, or a descriptor that the operation keeps open.
///
/// Implemented for [`FixedFile`], which costs least, and for `Arc<OwnedFd>`: `Arc::new(OwnedFd::from(file))` makes one of a
/// [`File`](std::fs::File), a socket or the like.
pub trait FileRef: to_target::ToTarget {}

impl FileRef for FixedFile {}
impl FileRef for Arc<OwnedFd> {}

pub(crate) mod to_target {
    use super::{Arc, AsRawFd, Core, Entries, FixedFile, NO_FILE, OwnedFd, RawFd, RejectReason, Target};

    pub trait ToTarget {
        /// The entry of the ring's table of files, or none of them, and what the kernel finds the file by.
        #[doc(hidden)]
        fn place<B, E: Entries>(&self, core: &Core<B, E>) -> Result<(u32, RawFd), RejectReason>;

        /// Whether it is an entry of the table: known where the type is known.
        #[doc(hidden)]
        fn is_fixed(&self) -> bool;

        /// What the operation keeps open.
        #[doc(hidden)]
        fn to_keep(&self) -> Option<Arc<OwnedFd>>;

        #[doc(hidden)]
        #[inline]
        fn to_target<B, E: Entries>(&self, core: &Core<B, E>) -> Result<Target, RejectReason> {
            self.place(core).map(|place| Target::of(place, self.to_keep()))
        }
    }

    impl ToTarget for FixedFile {
        #[inline(always)]
        fn place<B, E: Entries>(&self, core: &Core<B, E>) -> Result<(u32, RawFd), RejectReason> {
            match core.index_of(self) {
                Some(index) => Ok((index, index as RawFd)),
                None => Err(RejectReason::ForeignFile),
            }
        }

        #[inline(always)]
        fn is_fixed(&self) -> bool {
            true
        }

        #[inline(always)]
        fn to_keep(&self) -> Option<Arc<OwnedFd>> {
            None
        }
    }

    impl ToTarget for Arc<OwnedFd> {
        #[inline]
        fn place<B, E: Entries>(&self, _core: &Core<B, E>) -> Result<(u32, RawFd), RejectReason> {
            Ok((NO_FILE, self.as_raw_fd()))
        }

        #[inline(always)]
        fn is_fixed(&self) -> bool {
            false
        }

        #[inline]
        fn to_keep(&self) -> Option<Arc<OwnedFd>> {
            Some(Self::clone(self))
        }
    }
}

pub(crate) mod starter {
    use std::ops::DerefMut;

    use super::{Core, Entries, RejectReason, Rejected, Ticket};

    /// Only this crate has one: who has a bound on [`super::Operations`] can call the methods below, but not without this, and
    /// must not, since it could exchange the cores of two rings.
    #[derive(Debug)]
    pub struct Seal(());

    pub(crate) const SEAL: Seal = Seal(());

    /// What operations can be started on.
    pub trait Starter {
        /// The type of buffers that can be moved in.
        type Owned;

        /// The size of the ring's entries.
        type Entries: Entries;

        #[doc(hidden)]
        type Guard<'a>: DerefMut<Target = Core<Self::Owned, Self::Entries>>
        where
            Self: 'a;

        /// The ring's core; `None` in the child of a fork, where it can't be had.
        #[doc(hidden)]
        fn core_guard(&mut self, seal: Seal) -> Option<Self::Guard<'_>>;

        /// Starts an operation that takes `given`; gives it back where that can't be.
        #[doc(hidden)]
        fn start_on_core<T>(
            &mut self,
            seal: Seal,
            given: T,
            start: impl FnOnce(&mut Core<Self::Owned, Self::Entries>, T) -> Result<Ticket, Rejected<T>>,
        ) -> Result<Ticket, Rejected<T>> {
            match self.core_guard(seal) {
                Some(mut core) => start(&mut core, given),
                None => Err(Rejected::new(RejectReason::Forked, given)),
            }
        }
    }
}
pub(crate) use starter::{SEAL, Seal, Starter};

/// Where the path of an operation begins: `None` is the working directory.
pub type Directory<'a> = Option<&'a Arc<OwnedFd>>;

fn number_of(directory: Directory<'_>) -> RawFd {
    directory.map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd)
}

/// Starts an operation that takes nothing.
pub(crate) fn start_bare<B, E: Entries>(
    core: &mut Core<B, E>,
    file: &impl FileRef,
    operation: Operation,
) -> Result<Ticket, Rejected<()>> {
    let target = file.to_target(core).map_err(|reason| Rejected::new(reason, ()))?;
    core.start(target, operation, Held::Nothing).map_err(|(reason, _)| Rejected::new(reason, ()))
}

/// Starts an operation whose parameters are more than fits into an entry: `fill` puts them into a parcel and completes the
/// fields, `back` takes out of the parcel what the caller gave, where nothing was started.
fn start_parcel<B, E: Entries, T>(
    core: &mut Core<B, E>,
    target: Target,
    operation: Operation,
    given: T,
    fill: impl FnOnce(&mut Operation, &mut Parameters<B>, T),
    back: impl FnOnce(&mut Parameters<B>) -> T,
) -> Result<Ticket, Rejected<T>> {
    let mut operation = operation;
    let mut parcel = core.parcel();
    fill(&mut operation, parcel.parameters(), given);
    core.start(target, operation, Held::Parcel(parcel)).map_err(|(reason, held)| {
        let Held::Parcel(mut parcel) = held else { unreachable!("a rejected operation gives back what it was given") };
        let given = back(parcel.parameters());
        put_back(core, parcel);
        Rejected::new(reason, given)
    })
}

/// Keeps a parcel, out of which was taken what the caller gave, for later.
fn put_back<B, E: Entries>(core: &mut Core<B, E>, mut parcel: Parcel<B>) {
    let parameters = parcel.parameters();
    parameters.message.withdraw();
    parameters.has_status = false;
    parameters.direct = None;
    parcel.empty();
    core.put_away(parcel);
}

/// What a parcel with one path gives back.
fn first_path<B>(parameters: &mut Parameters<B>) -> CString {
    parameters.paths[0].take().unwrap_or_default()
}

fn both_paths<B>(parameters: &mut Parameters<B>) -> (CString, CString) {
    let [first, second] = &mut parameters.paths;
    (first.take().unwrap_or_default(), second.take().unwrap_or_default())
}

/// The operations that a ring starts; bring this into scope to start them.
///
/// Each takes what the kernel will use, and answers with a [`Ticket`]; the completion of that ticket gives it back. Where
/// nothing was started, [`Rejected`] says why and gives it back at once. What the kernel makes of an operation, an operation
/// that it does not know included, is in the completion.
///
/// Flags, modes and the like are those of C, and their names in the libc crate, which is also [`sysuring::libc`](crate::libc):
///
/// ```
/// use sysuring::{Operations as _, Ring, libc};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if sysuring::available().is_err() { return Ok(()) }
/// let mut ring = Ring::with_entries(8)?;
/// ring.open(None, c"/proc/self/exe", libc::O_RDONLY, 0)?;
/// ring.submit_and_wait(1)?;
/// let done = ring.completions().find_map(|completion| completion.into_done()).expect("waited for");
/// let file = std::fs::File::from(done.into_fd()?);
/// assert!(file.metadata()?.len() > 0);
/// # Ok(())
/// # }
/// ```
///
/// What is not here is on [`Ring`](crate::Ring) alone, since it concerns one ring's thread: operations that report more than once
/// ([`accept_multishot`](crate::Ring::accept_multishot), [`poll_multishot`](crate::Ring::poll_multishot),
/// [`recv_multishot`](crate::Ring::recv_multishot)), those that take a buffer of the kernel's choice
/// ([`provide_buffers`](crate::Ring::provide_buffers), [`recv_provided`](crate::Ring::recv_provided)),
/// [`cancel`](crate::Ring::cancel), and operations one after another ([`chain`](crate::Ring::chain)), which C calls linked;
/// [`link`](Operations::link) gives a file another name.
pub trait Operations: Starter {
    // ---- memory of a pool

    /// Reads `length` bytes at `offset` into a lease of a registered pool: the pool and the file are registered on this ring
    /// ([`Ring::register_pool`](crate::Ring::register_pool), [`Ring::register_file`](crate::Ring::register_file)), and `length` is at most the size of a slot.
    ///
    /// Offsets mean nothing to pipes and sockets; `u64::MAX` means the file's own position, as in C.
    ///
    /// # Errors
    ///
    /// Gives the lease back where nothing was started; see [`RejectReason`].
    #[doc(alias("io_uring_prep_read_fixed", "IORING_OP_READ_FIXED"))]
    #[inline(always)]
    fn read_fixed(&mut self, file: &impl FileRef, buf: Buf, length: u32, offset: u64) -> Result<Ticket, Rejected<Buf>> {
        match self.core_guard(SEAL) {
            Some(mut core) => core.start_transfer(true, true, file, buf, length, offset),
            None => Err(reject(RejectReason::Forked, buf)),
        }
    }

    /// Writes the first `length` bytes of a lease of a registered pool at `offset`.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_fixed`].
    #[doc(alias("io_uring_prep_write_fixed", "IORING_OP_WRITE_FIXED"))]
    #[inline(always)]
    fn write_fixed(
        &mut self,
        file: &impl FileRef,
        buf: Buf,
        length: u32,
        offset: u64,
    ) -> Result<Ticket, Rejected<Buf>> {
        match self.core_guard(SEAL) {
            Some(mut core) => core.start_transfer(false, true, file, buf, length, offset),
            None => Err(reject(RejectReason::Forked, buf)),
        }
    }

    /// As [`Operations::read_fixed`], whether the pool is registered or not: the kernel looks up the memory's pages each time, which
    /// costs more and needs no locked memory.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_fixed`].
    #[doc(alias("io_uring_prep_read", "IORING_OP_READ"))]
    #[inline(always)]
    fn read(&mut self, file: &impl FileRef, buf: Buf, length: u32, offset: u64) -> Result<Ticket, Rejected<Buf>> {
        match self.core_guard(SEAL) {
            Some(mut core) => core.start_transfer(true, false, file, buf, length, offset),
            None => Err(reject(RejectReason::Forked, buf)),
        }
    }

    /// As [`Operations::write_fixed`], whether the pool is registered or not; see [`Operations::read`].
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_fixed`].
    #[doc(alias("io_uring_prep_write", "IORING_OP_WRITE"))]
    #[inline(always)]
    fn write(&mut self, file: &impl FileRef, buf: Buf, length: u32, offset: u64) -> Result<Ticket, Rejected<Buf>> {
        match self.core_guard(SEAL) {
            Some(mut core) => core.start_transfer(false, false, file, buf, length, offset),
            None => Err(reject(RejectReason::Forked, buf)),
        }
    }

    /// Reads `length` bytes at `offset` into several leases, one after the other, whether their pool is registered or not.
    /// [`Done::into_bufs`](crate::Done::into_bufs) gives them back.
    ///
    /// # Errors
    ///
    /// Gives the leases back where nothing was started; see [`RejectReason`]. `TooLong` also for more than 1024 of them.
    #[doc(alias("io_uring_prep_readv", "IORING_OP_READV"))]
    fn read_vectored(
        &mut self,
        file: &impl FileRef,
        bufs: Vec<Buf>,
        length: usize,
        offset: u64,
    ) -> Result<Ticket, Rejected<Vec<Buf>>> {
        self.start_on_core(SEAL, bufs, |core, bufs| {
            let operation = Operation { offset, ..Operation::new(sys::IORING_OP_READV) };
            start_leases(core, file, operation, bufs, length, as_it_is)
        })
    }

    /// Writes `length` bytes at `offset` from several leases, one after the other; see [`Operations::read_vectored`].
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias("io_uring_prep_writev", "IORING_OP_WRITEV"))]
    fn write_vectored(
        &mut self,
        file: &impl FileRef,
        bufs: Vec<Buf>,
        length: usize,
        offset: u64,
    ) -> Result<Ticket, Rejected<Vec<Buf>>> {
        self.start_on_core(SEAL, bufs, |core, bufs| {
            let operation = Operation { offset, ..Operation::new(sys::IORING_OP_WRITEV) };
            start_leases(core, file, operation, bufs, length, as_it_is)
        })
    }
    // ---- memory of the caller's own type

    /// Reads at `offset` into a buffer that is moved in; [`Done::into_owned`](crate::Done::into_owned) gives it back.
    ///
    /// # Errors
    ///
    /// Gives the buffer back where nothing was started; see [`RejectReason`].
    #[doc(alias("io_uring_prep_read", "IORING_OP_READ"))]
    #[inline(always)]
    fn read_owned(
        &mut self,
        file: &impl FileRef,
        buffer: Self::Owned,
        offset: u64,
    ) -> Result<Ticket, Rejected<Self::Owned>>
    where
        Self::Owned: StableBuf,
    {
        match self.core_guard(SEAL) {
            Some(mut core) => {
                let operation = Operation { offset, ..Operation::new(sys::IORING_OP_READ) };
                start_owned(&mut *core, file, operation, buffer)
            }
            None => Err(Rejected::new(RejectReason::Forked, buffer)),
        }
    }

    /// Writes all of a buffer that is moved in at `offset`; [`Done::into_owned`](crate::Done::into_owned) gives it back.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_owned`].
    #[doc(alias("io_uring_prep_write", "IORING_OP_WRITE"))]
    #[inline(always)]
    fn write_owned(
        &mut self,
        file: &impl FileRef,
        buffer: Self::Owned,
        offset: u64,
    ) -> Result<Ticket, Rejected<Self::Owned>>
    where
        Self::Owned: StableBuf,
    {
        match self.core_guard(SEAL) {
            Some(mut core) => {
                let operation = Operation { offset, ..Operation::new(sys::IORING_OP_WRITE) };
                start_owned(&mut *core, file, operation, buffer)
            }
            None => Err(Rejected::new(RejectReason::Forked, buffer)),
        }
    }

    /// Receives into a buffer that is moved in; `flags` are those of `recv(2)`.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_owned`].
    #[doc(alias("io_uring_prep_recv", "IORING_OP_RECV"))]
    fn recv_owned(
        &mut self,
        socket: &impl FileRef,
        buffer: Self::Owned,
        flags: i32,
    ) -> Result<Ticket, Rejected<Self::Owned>>
    where
        Self::Owned: StableBuf,
    {
        self.start_on_core(SEAL, buffer, |core, buffer| {
            let operation = Operation { operation_flags: flags as u32, ..Operation::new(sys::IORING_OP_RECV) };
            start_owned(core, socket, operation, buffer)
        })
    }

    /// Sends all of a buffer that is moved in; `flags` are those of `send(2)`.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_owned`].
    #[doc(alias("io_uring_prep_send", "IORING_OP_SEND"))]
    fn send_owned(
        &mut self,
        socket: &impl FileRef,
        buffer: Self::Owned,
        flags: i32,
    ) -> Result<Ticket, Rejected<Self::Owned>>
    where
        Self::Owned: StableBuf,
    {
        self.start_on_core(SEAL, buffer, |core, buffer| {
            let operation = Operation { operation_flags: send_flags(flags), ..Operation::new(sys::IORING_OP_SEND) };
            start_owned(core, socket, operation, buffer)
        })
    }

    /// Reads into several buffers that are moved in, one after the other.
    /// [`Done::into_several`](crate::Done::into_several) gives them back.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_owned`].
    #[doc(alias("io_uring_prep_readv", "IORING_OP_READV"))]
    fn read_vectored_owned(
        &mut self,
        file: &impl FileRef,
        buffers: Vec<Self::Owned>,
        offset: u64,
    ) -> Result<Ticket, Rejected<Vec<Self::Owned>>>
    where
        Self::Owned: StableBuf,
    {
        self.start_on_core(SEAL, buffers, |core, buffers| {
            let operation = Operation { offset, ..Operation::new(sys::IORING_OP_READV) };
            start_several(core, file, operation, buffers, as_it_is)
        })
    }

    /// Writes several buffers that are moved in, one after the other.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_owned`].
    #[doc(alias("io_uring_prep_writev", "IORING_OP_WRITEV"))]
    fn write_vectored_owned(
        &mut self,
        file: &impl FileRef,
        buffers: Vec<Self::Owned>,
        offset: u64,
    ) -> Result<Ticket, Rejected<Vec<Self::Owned>>>
    where
        Self::Owned: StableBuf,
    {
        self.start_on_core(SEAL, buffers, |core, buffers| {
            let operation = Operation { offset, ..Operation::new(sys::IORING_OP_WRITEV) };
            start_several(core, file, operation, buffers, as_it_is)
        })
    }

    // ---- files

    /// Brings a file's data (with `data_only`), or data and metadata, to stable storage.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_fsync", "IORING_OP_FSYNC"))]
    fn fsync(&mut self, file: &impl FileRef, data_only: bool) -> Result<Ticket, Rejected<()>> {
        let flags = if data_only { sys::IORING_FSYNC_DATASYNC } else { 0 };
        let operation = Operation { operation_flags: flags, ..Operation::new(sys::IORING_OP_FSYNC) };
        self.start_on_core(SEAL, (), |core, ()| start_bare(core, file, operation))
    }

    /// Starts or waits for the writing of a range of a file; `flags` are those of `sync_file_range(2)`. No substitute for
    /// [`Operations::fsync`]: neither metadata nor the disk's cache is touched.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_sync_file_range", "IORING_OP_SYNC_FILE_RANGE"))]
    fn sync_file_range(
        &mut self,
        file: &impl FileRef,
        length: u32,
        offset: u64,
        flags: u32,
    ) -> Result<Ticket, Rejected<()>> {
        let operation =
            Operation { length, offset, operation_flags: flags, ..Operation::new(sys::IORING_OP_SYNC_FILE_RANGE) };
        self.start_on_core(SEAL, (), |core, ()| start_bare(core, file, operation))
    }

    /// Allocates, punches or zeroes a range of a file; `mode` is that of `fallocate(2)`.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_fallocate", "IORING_OP_FALLOCATE"))]
    fn fallocate(&mut self, file: &impl FileRef, mode: i32, offset: u64, length: u64) -> Result<Ticket, Rejected<()>> {
        // The mode is where other operations have their length, and the length where they have their address.
        let operation =
            Operation { address: length, length: mode as u32, offset, ..Operation::new(sys::IORING_OP_FALLOCATE) };
        self.start_on_core(SEAL, (), |core, ()| start_bare(core, file, operation))
    }

    /// Sets a file's length (since Linux 6.9).
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_ftruncate", "IORING_OP_FTRUNCATE"))]
    fn ftruncate(&mut self, file: &impl FileRef, length: u64) -> Result<Ticket, Rejected<()>> {
        let operation = Operation { offset: length, ..Operation::new(opcode::FTRUNCATE) };
        self.start_on_core(SEAL, (), |core, ()| start_bare(core, file, operation))
    }

    /// Opens a file; [`Done::into_fd`](crate::Done::into_fd) is the new descriptor. `flags` and `mode` are those of
    /// `openat(2)`; `O_CLOEXEC` is added.
    ///
    /// # Errors
    ///
    /// Gives the path back where nothing was started; see [`RejectReason`].
    #[doc(alias("io_uring_prep_openat", "IORING_OP_OPENAT"))]
    fn open(
        &mut self,
        directory: Directory<'_>,
        path: impl Into<CString>,
        flags: i32,
        mode: u32,
    ) -> Result<Ticket, Rejected<CString>> {
        let operation = Operation {
            length: mode,
            operation_flags: (flags | libc::O_CLOEXEC) as u32,
            outcome: Outcome::Descriptor,
            ..Operation::new(sys::IORING_OP_OPENAT)
        };
        self.start_on_core(SEAL, path.into(), |core, path| start_path(core, directory, operation, path))
    }

    /// As [`Operations::open`], into the ring's own table of files (since Linux 5.17):
    /// [`Done::into_fixed_file`](crate::Done::into_fixed_file). No descriptor is made, so that `O_CLOEXEC` is left out of `flags`.
    ///
    /// ```
    /// use sysuring::{ErrorKind, Operations as _, Pool, Ring};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// match ring.open_direct(None, c"/proc/self/exe", libc::O_RDONLY, 0).map_err(sysuring::Error::from) {
    ///     Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
    ///     started => started?,
    /// };
    /// ring.submit_and_wait(1)?;
    /// let file = ring.completions().find_map(|completion| completion.into_done()).expect("waited for").into_fixed_file()?;
    /// let pool = Pool::new(1, 64)?;
    /// ring.read(&file, pool.lease().expect("the only one"), 4, 0)?;
    /// ring.submit_and_wait(1)?;
    /// let done = ring.completions().find_map(|completion| completion.into_done()).expect("waited for");
    /// assert_eq!(done.into_buf().expect("a read gives its buffer back")[..4], *b"\x7fELF");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Operations::open`]; [`RejectReason::FilesFull`] where the table has no place left,
    /// [`RejectReason::NoFiles`] where there can be none, [`RejectReason::Unsupported`] on older kernels.
    #[doc(alias("io_uring_prep_openat_direct", "IORING_OP_OPENAT"))]
    fn open_direct(
        &mut self,
        directory: Directory<'_>,
        path: impl Into<CString>,
        flags: i32,
        mode: u32,
    ) -> Result<Ticket, Rejected<CString>> {
        self.start_on_core(SEAL, path.into(), |core, path| {
            let file = match core.claim_file() {
                Ok(file) => file,
                Err(reason) => return Err(Rejected::new(reason, path)),
            };
            let operation = Operation {
                length: mode,
                operation_flags: (flags & !libc::O_CLOEXEC) as u32,
                file_index: place_of(&file),
                ..Operation::new(sys::IORING_OP_OPENAT)
            };
            let fill = |operation: &mut Operation, parameters: &mut Parameters<_>, path| {
                operation.address = parameters.set_path(0, path);
                parameters.direct = Some(file);
            };
            start_parcel(core, at(directory), operation, path, fill, first_path)
        })
    }

    /// Opens a file as `how` says; see `openat2(2)`. `O_CLOEXEC` is added.
    ///
    /// # Errors
    ///
    /// As for [`Operations::open`].
    #[doc(alias("io_uring_prep_openat2", "IORING_OP_OPENAT2"))]
    fn open_how(
        &mut self,
        directory: Directory<'_>,
        path: impl Into<CString>,
        how: OpenHow,
    ) -> Result<Ticket, Rejected<CString>> {
        self.start_on_core(SEAL, path.into(), |core, path| {
            let operation = Operation {
                length: size_of::<sys::open_how>() as u32,
                outcome: Outcome::Descriptor,
                ..Operation::new(sys::IORING_OP_OPENAT2)
            };
            start_parcel(
                core,
                at(directory),
                operation,
                path,
                |operation, parameters, path| {
                    parameters.how.flags = how.flags | libc::O_CLOEXEC as u64;
                    parameters.how.mode = how.mode;
                    parameters.how.resolve = how.resolve;
                    operation.offset = address_of(&raw const parameters.how);
                    operation.address = parameters.set_path(0, path);
                },
                first_path,
            )
        })
    }

    /// Closes a descriptor. Where the operation is cancelled before it began, the descriptor is closed with the completion. Where
    /// it ends with another error nobody knows whether it is closed, and it is left as it is. In a [`Ring::chain`](crate::Ring::chain)
    /// that is given up after this, the descriptor is closed, too.
    ///
    /// # Errors
    ///
    /// Gives the descriptor back where nothing was started; see [`RejectReason`].
    #[doc(alias("io_uring_prep_close", "IORING_OP_CLOSE"))]
    fn close(&mut self, descriptor: OwnedFd) -> Result<Ticket, Rejected<OwnedFd>> {
        self.start_on_core(SEAL, descriptor, |core, descriptor| {
            let target = Target::descriptor(descriptor.as_raw_fd());
            let operation = Operation { outcome: Outcome::Close, ..Operation::new(sys::IORING_OP_CLOSE) };
            let keep = |_: &mut Operation, parameters: &mut Parameters<_>, descriptor| {
                parameters.closing = Some(descriptor);
            };
            start_parcel(core, target, operation, descriptor, keep, |parameters| {
                parameters.closing.take().unwrap_or_else(|| unreachable!("filled in above"))
            })
        })
    }

    /// Asks for a file's status: [`Done::into_status`](crate::Done::into_status). `flags` and `mask` are those of `statx(2)`; with
    /// `AT_EMPTY_PATH` and an empty path it is that of the directory, or whatever file takes its place.
    ///
    /// ```
    /// use sysuring::{Operations as _, Ring};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// ring.statx(None, c"/proc/self/exe", 0, libc::STATX_SIZE)?;
    /// ring.submit_and_wait(1)?;
    /// let done = ring.completions().find_map(|completion| completion.into_done()).expect("waited for");
    /// assert!(done.into_status()?.stx_size > 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Operations::open`].
    #[doc(alias("io_uring_prep_statx", "IORING_OP_STATX"))]
    fn statx(
        &mut self,
        directory: Directory<'_>,
        path: impl Into<CString>,
        flags: i32,
        mask: u32,
    ) -> Result<Ticket, Rejected<CString>> {
        // As much as the kernel writes.
        const { assert!(size_of::<libc::statx>() == 256) };
        self.start_on_core(SEAL, path.into(), |core, path| {
            let operation =
                Operation { length: mask, operation_flags: flags as u32, ..Operation::new(sys::IORING_OP_STATX) };
            let fill = |operation: &mut Operation, parameters: &mut Parameters<_>, path| {
                operation.address = parameters.set_path(0, path);
                operation.offset = parameters.status.as_mut_ptr().expose_provenance() as u64;
                parameters.has_status = true;
            };
            start_parcel(core, at(directory), operation, path, fill, first_path)
        })
    }

    /// Renames a file; `flags` are those of `renameat2(2)` (since Linux 5.11).
    ///
    /// # Errors
    ///
    /// Gives both paths back where nothing was started; see [`RejectReason`].
    #[doc(alias("io_uring_prep_renameat", "IORING_OP_RENAMEAT"))]
    fn rename(
        &mut self,
        from: (Directory<'_>, CString),
        to: (Directory<'_>, CString),
        flags: u32,
    ) -> Result<Ticket, Rejected<(CString, CString)>> {
        let operation = Operation { operation_flags: flags, ..Operation::new(sys::IORING_OP_RENAMEAT) };
        self.start_on_core(SEAL, (from.1, to.1), |core, paths| start_paths(core, from.0, to.0, operation, paths))
    }

    /// Makes another name for a file, a hard link; `flags` are those of `linkat(2)` (since Linux 5.15).
    ///
    /// It has nothing to do with linked entries, which are a [`Ring::chain`](crate::Ring::chain).
    ///
    /// # Errors
    ///
    /// As for [`Operations::rename`].
    #[doc(alias("io_uring_prep_linkat", "IORING_OP_LINKAT"))]
    fn link(
        &mut self,
        file: (Directory<'_>, CString),
        name: (Directory<'_>, CString),
        flags: i32,
    ) -> Result<Ticket, Rejected<(CString, CString)>> {
        let operation = Operation { operation_flags: flags as u32, ..Operation::new(sys::IORING_OP_LINKAT) };
        self.start_on_core(SEAL, (file.1, name.1), |core, paths| start_paths(core, file.0, name.0, operation, paths))
    }

    /// Makes a symbolic link at `path` to `target` (since Linux 5.15).
    ///
    /// # Errors
    ///
    /// Gives both back where nothing was started; see [`RejectReason`].
    #[doc(alias("io_uring_prep_symlinkat", "IORING_OP_SYMLINKAT"))]
    fn symlink(
        &mut self,
        target: impl Into<CString>,
        directory: Directory<'_>,
        path: impl Into<CString>,
    ) -> Result<Ticket, Rejected<(CString, CString)>> {
        self.start_on_core(SEAL, (target.into(), path.into()), |core, given| {
            start_parcel(
                core,
                at(directory),
                Operation::new(sys::IORING_OP_SYMLINKAT),
                given,
                |operation, parameters, (target, path)| {
                    operation.address = parameters.set_path(0, target);
                    operation.offset = parameters.set_path(1, path);
                },
                both_paths,
            )
        })
    }

    /// Removes a name; with `AT_REMOVEDIR` in `flags`, a directory (since Linux 5.11). See `unlinkat(2)`.
    ///
    /// # Errors
    ///
    /// As for [`Operations::open`].
    #[doc(alias("io_uring_prep_unlinkat", "IORING_OP_UNLINKAT"))]
    fn unlink(
        &mut self,
        directory: Directory<'_>,
        path: impl Into<CString>,
        flags: i32,
    ) -> Result<Ticket, Rejected<CString>> {
        let operation = Operation { operation_flags: flags as u32, ..Operation::new(sys::IORING_OP_UNLINKAT) };
        self.start_on_core(SEAL, path.into(), |core, path| start_path(core, directory, operation, path))
    }

    /// Makes a directory (since Linux 5.15). See `mkdirat(2)`.
    ///
    /// # Errors
    ///
    /// As for [`Operations::open`].
    #[doc(alias("io_uring_prep_mkdirat", "IORING_OP_MKDIRAT"))]
    fn mkdir(
        &mut self,
        directory: Directory<'_>,
        path: impl Into<CString>,
        mode: u32,
    ) -> Result<Ticket, Rejected<CString>> {
        let operation = Operation { length: mode, ..Operation::new(sys::IORING_OP_MKDIRAT) };
        self.start_on_core(SEAL, path.into(), |core, path| start_path(core, directory, operation, path))
    }

    /// Moves up to `length` bytes between two files, one of which is a pipe, without a copy; `None` is the file's own
    /// position, and what a pipe needs. `flags` are those of `splice(2)`.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_splice", "IORING_OP_SPLICE"))]
    fn splice(
        &mut self,
        from: (&Arc<OwnedFd>, Option<u64>),
        to: (&impl FileRef, Option<u64>),
        length: u32,
        flags: u32,
    ) -> Result<Ticket, Rejected<()>> {
        self.start_on_core(SEAL, (), |core, ()| {
            let target = to.0.to_target(core).map_err(|reason| Rejected::new(reason, ()))?;
            let operation = Operation {
                length,
                offset: to.1.unwrap_or(u64::MAX),
                address: from.1.unwrap_or(u64::MAX),
                // Without the flag that makes the input an index of registered files.
                operation_flags: flags & !sys::SPLICE_F_FD_IN_FIXED,
                file_index: from.0.as_raw_fd() as u32,
                ..Operation::new(sys::IORING_OP_SPLICE)
            };
            let keep = |_: &mut Operation, parameters: &mut Parameters<_>, ()| {
                parameters.descriptors[0] = Some(Arc::clone(from.0));
            };
            start_parcel(core, target, operation, (), keep, |_| ())
        })
    }

    // ---- events and time

    /// Does nothing, and completes.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_nop", "IORING_OP_NOP"))]
    #[inline(always)]
    fn nop(&mut self) -> Result<Ticket, Rejected<()>> {
        let Some(mut core) = self.core_guard(SEAL) else { return Err(Rejected::new(RejectReason::Forked, ())) };
        let operation = Operation::new(sys::IORING_OP_NOP);
        core.start(Target::NONE, operation, Held::Nothing).map_err(|(reason, _)| Rejected::new(reason, ()))
    }

    /// Waits until a file is ready for one of `events` (`POLLIN` …); the result is the events that there are.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_poll_add", "IORING_OP_POLL_ADD"))]
    fn poll(&mut self, file: &impl FileRef, events: u32) -> Result<Ticket, Rejected<()>> {
        let operation = Operation { operation_flags: poll_mask(events), ..Operation::new(sys::IORING_OP_POLL_ADD) };
        self.start_on_core(SEAL, (), |core, ()| start_bare(core, file, operation))
    }

    /// Completes with ETIME ([`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut)) when `time` is over.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_timeout", "IORING_OP_TIMEOUT"))]
    fn timeout(&mut self, time: Duration) -> Result<Ticket, Rejected<()>> {
        self.start_on_core(SEAL, (), |core, ()| start_time(core, sys::IORING_OP_TIMEOUT, time))
    }

    /// Sends a message to another ring (since Linux 5.18): a [`Completion::Raw`](crate::Completion::Raw) with `data` and `value`
    /// there. This operation ends when it is there; its result is 0.
    ///
    /// See [`Ring::mailbox`](crate::Ring::mailbox). `data` can't be taken for an operation of that ring, and there are no flags.
    ///
    /// # Errors
    ///
    /// [`RejectReason::RingGone`], [`RejectReason::Forked`] where it is a ring of the parent process, and as for all operations. A ring that goes later makes the result an error, or nobody reads
    /// the message. EOVERFLOW as the result means that the kernel had no memory for it; the other ring is poisoned then.
    #[doc(alias("io_uring_prep_msg_ring", "IORING_OP_MSG_RING"))]
    fn message(&mut self, to: &Mailbox, data: UserData, value: i32) -> Result<Ticket, Rejected<()>> {
        let descriptor = to.descriptor().map_err(|reason| Rejected::new(reason, ()))?;
        // The first command, whose number is 0: data.
        let operation =
            Operation { length: value as u32, offset: data.get(), ..Operation::new(sys::IORING_OP_MSG_RING) };
        self.start_on_core(SEAL, (), |core, ()| {
            let started = core.start(Target::shared(descriptor), operation, Held::Nothing);
            started.map_err(|(reason, _)| Rejected::new(reason, ()))
        })
    }

    // ---- sockets

    /// Takes a connection; [`Done::into_fd`](crate::Done::into_fd) is its socket. `flags` are those of `accept4(2)`;
    /// `SOCK_CLOEXEC` is added.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_accept", "IORING_OP_ACCEPT"))]
    fn accept(&mut self, listener: &impl FileRef, flags: i32) -> Result<Ticket, Rejected<()>> {
        self.start_on_core(SEAL, (), |core, ()| start_bare(core, listener, accept_operation(flags)))
    }

    /// As [`Operations::accept`], into the ring's own table of files (since Linux 5.17):
    /// [`Done::into_fixed_file`](crate::Done::into_fixed_file). No descriptor is made; `SOCK_CLOEXEC` is left out of `flags`.
    ///
    /// # Errors
    ///
    /// As for [`Operations::open_direct`].
    #[doc(alias("io_uring_prep_accept_direct", "IORING_OP_ACCEPT"))]
    fn accept_direct(&mut self, listener: &impl FileRef, flags: i32) -> Result<Ticket, Rejected<()>> {
        self.start_on_core(SEAL, (), |core, ()| {
            let target = listener.to_target(core).map_err(|reason| Rejected::new(reason, ()))?;
            let operation_flags = (flags & !libc::SOCK_CLOEXEC) as u32;
            start_direct(core, target, Operation { operation_flags, ..Operation::new(sys::IORING_OP_ACCEPT) })
        })
    }

    /// Connects a socket.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_connect", "IORING_OP_CONNECT"))]
    fn connect(&mut self, socket: &impl FileRef, address: &SocketAddress) -> Result<Ticket, Rejected<()>> {
        self.start_on_core(SEAL, (), |core, ()| start_address(core, socket, sys::IORING_OP_CONNECT, address))
    }

    /// Gives a socket its own address (since Linux 6.11).
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_bind", "IORING_OP_BIND"))]
    fn bind(&mut self, socket: &impl FileRef, address: &SocketAddress) -> Result<Ticket, Rejected<()>> {
        self.start_on_core(SEAL, (), |core, ()| start_address(core, socket, opcode::BIND, address))
    }

    /// Makes a socket take connections (since Linux 6.11).
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_listen", "IORING_OP_LISTEN"))]
    fn listen(&mut self, socket: &impl FileRef, backlog: u32) -> Result<Ticket, Rejected<()>> {
        let operation = Operation { length: backlog, ..Operation::new(opcode::LISTEN) };
        self.start_on_core(SEAL, (), |core, ()| start_bare(core, socket, operation))
    }

    /// Makes a socket, as `socket(2)` does (since Linux 5.19); [`Done::into_fd`](crate::Done::into_fd) is the descriptor.
    /// `SOCK_CLOEXEC` is added.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_socket", "IORING_OP_SOCKET"))]
    fn socket(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<Ticket, Rejected<()>> {
        self.start_on_core(SEAL, (), |core, ()| {
            let operation = Operation {
                offset: (kind | libc::SOCK_CLOEXEC) as u32 as u64,
                length: protocol as u32,
                outcome: Outcome::Descriptor,
                ..Operation::new(sys::IORING_OP_SOCKET)
            };
            core.start(Target::descriptor(domain), operation, Held::Nothing)
                .map_err(|(reason, _)| Rejected::new(reason, ()))
        })
    }

    /// As [`Operations::socket`], into the ring's own table of files:
    /// [`Done::into_fixed_file`](crate::Done::into_fixed_file). No descriptor is made; `SOCK_CLOEXEC` is left out of `kind`.
    ///
    /// # Errors
    ///
    /// As for [`Operations::open_direct`].
    #[doc(alias("io_uring_prep_socket_direct", "IORING_OP_SOCKET"))]
    fn socket_direct(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<Ticket, Rejected<()>> {
        self.start_on_core(SEAL, (), |core, ()| {
            let offset = (kind & !libc::SOCK_CLOEXEC) as u32 as u64;
            let length = protocol as u32;
            let operation = Operation { offset, length, ..Operation::new(sys::IORING_OP_SOCKET) };
            start_direct(core, Target::descriptor(domain), operation)
        })
    }

    /// Ends one or both directions of a connection; `how` is that of `shutdown(2)` (since Linux 5.11).
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_shutdown", "IORING_OP_SHUTDOWN"))]
    fn shutdown_socket(&mut self, socket: &impl FileRef, how: i32) -> Result<Ticket, Rejected<()>> {
        let operation = Operation { length: how as u32, ..Operation::new(sys::IORING_OP_SHUTDOWN) };
        self.start_on_core(SEAL, (), |core, ()| start_bare(core, socket, operation))
    }

    /// Receives up to `length` bytes into a lease; `flags` are those of `recv(2)`.
    ///
    /// Where many sockets wait and few have data, let the kernel pick the buffer when there is something:
    /// [`Ring::recv_provided`](crate::Ring::recv_provided), [`Ring::recv_multishot`](crate::Ring::recv_multishot).
    ///
    /// # Errors
    ///
    /// As for [`Operations::read`].
    #[doc(alias("io_uring_prep_recv", "IORING_OP_RECV"))]
    #[inline]
    fn recv(&mut self, socket: &impl FileRef, buf: Buf, length: u32, flags: i32) -> Result<Ticket, Rejected<Buf>> {
        let operation = Operation { operation_flags: flags as u32, ..Operation::new(sys::IORING_OP_RECV) };
        self.start_on_core(SEAL, buf, |core, buf| start_lease(core, socket, operation, buf, length))
    }

    /// Sends the first `length` bytes of a lease; `flags` are those of `send(2)`, but for `MSG_ZEROCOPY`, which is ignored: see
    /// [`Operations::send_zero_copy`].
    ///
    /// # Errors
    ///
    /// As for [`Operations::read`].
    #[doc(alias("io_uring_prep_send", "IORING_OP_SEND"))]
    #[inline]
    fn send(&mut self, socket: &impl FileRef, buf: Buf, length: u32, flags: i32) -> Result<Ticket, Rejected<Buf>> {
        let operation = Operation { operation_flags: send_flags(flags), ..Operation::new(sys::IORING_OP_SEND) };
        self.start_on_core(SEAL, buf, |core, buf| start_lease(core, socket, operation, buf, length))
    }

    /// As [`Operations::send`], without a copy (since Linux 6.0): the lease comes back, with the result, when the network is
    /// through with its memory, which can be much later.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read`].
    #[doc(alias("io_uring_prep_send_zc", "IORING_OP_SEND_ZC"))]
    fn send_zero_copy(
        &mut self,
        socket: &impl FileRef,
        buf: Buf,
        length: u32,
        flags: i32,
    ) -> Result<Ticket, Rejected<Buf>> {
        let operation = Operation {
            operation_flags: send_flags(flags),
            outcome: Outcome::ZeroCopy,
            ..Operation::new(sys::IORING_OP_SEND_ZC)
        };
        self.start_on_core(SEAL, buf, |core, buf| start_lease(core, socket, operation, buf, length))
    }

    /// Sends `length` bytes of several leases, one after the other, as one message: to an address, and with descriptors, where
    /// `message` says so. [`Done::into_bufs`](crate::Done::into_bufs) gives the leases back.
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use std::os::fd::OwnedFd;
    /// use std::sync::Arc;
    /// use sysuring::{Operations as _, Pool, Ring, SendMessage};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// let (from, to) = (here.local_addr()?, there.local_addr()?.into());
    /// let (here, there) = (Arc::new(OwnedFd::from(here)), Arc::new(OwnedFd::from(there)));
    /// let mut ring = Ring::with_entries(8)?;
    /// let pool = Pool::new(2, 64)?;
    ///
    /// let mut buf = pool.lease().expect("the first of two");
    /// buf[..5].copy_from_slice(b"hello");
    /// let sent = ring.sendmsg(&here, vec![buf], 5, &SendMessage { to: Some(&to), ..SendMessage::default() })?;
    /// ring.recvmsg(&there, vec![pool.lease().expect("the second")], 64, 0, 0)?;
    /// ring.submit_and_wait(2)?;
    /// for done in ring.completions().filter_map(|completion| completion.into_done()) {
    ///     assert_eq!(done.result()?, 5);
    ///     if done.ticket() != sent {
    ///         let message = done.into_message().expect("a message was received");
    ///         assert_eq!(message.bufs[0][..5], *b"hello");
    ///         assert_eq!(message.from.and_then(|address| address.to_ip()), Some(from));
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_vectored`].
    #[doc(alias("io_uring_prep_sendmsg", "IORING_OP_SENDMSG", "sendto", "SCM_RIGHTS"))]
    fn sendmsg(
        &mut self,
        socket: &impl FileRef,
        bufs: Vec<Buf>,
        length: usize,
        message: &SendMessage<'_>,
    ) -> Result<Ticket, Rejected<Vec<Buf>>> {
        self.start_on_core(SEAL, bufs, |core, bufs| {
            let complete = |operation: &mut Operation, parameters: &mut Parameters<_>| {
                parameters.send_message(operation, message);
            };
            start_leases(core, socket, sendmsg_operation(message), bufs, length, complete)
        })
    }

    /// Receives up to `length` bytes of a message into several leases, one after the other, with its sender's address, its flags
    /// and up to `descriptors` that were sent along: [`Done::into_message`](crate::Done::into_message). `flags` are those of
    /// `recvmsg(2)`; `MSG_CMSG_CLOEXEC` is added.
    ///
    /// Of all control data only descriptors are handed out (since Linux 5.12). What else the socket was asked for, such as
    /// times or credentials, takes of their room, and is discarded.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_vectored`].
    #[doc(alias("io_uring_prep_recvmsg", "IORING_OP_RECVMSG", "recvfrom", "SCM_RIGHTS"))]
    fn recvmsg(
        &mut self,
        socket: &impl FileRef,
        bufs: Vec<Buf>,
        length: usize,
        descriptors: usize,
        flags: i32,
    ) -> Result<Ticket, Rejected<Vec<Buf>>> {
        self.start_on_core(SEAL, bufs, |core, bufs| {
            let complete = |operation: &mut Operation, parameters: &mut Parameters<_>| {
                parameters.receive_message(operation, descriptors);
            };
            start_leases(core, socket, recvmsg_operation(flags), bufs, length, complete)
        })
    }

    /// As [`Operations::sendmsg`], all of several buffers that are moved in.
    /// [`Done::into_several`](crate::Done::into_several) gives them back.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_vectored_owned`].
    #[doc(alias("io_uring_prep_sendmsg", "IORING_OP_SENDMSG", "sendto", "SCM_RIGHTS"))]
    fn sendmsg_owned(
        &mut self,
        socket: &impl FileRef,
        buffers: Vec<Self::Owned>,
        message: &SendMessage<'_>,
    ) -> Result<Ticket, Rejected<Vec<Self::Owned>>>
    where
        Self::Owned: StableBuf,
    {
        self.start_on_core(SEAL, buffers, |core, buffers| {
            let complete = |operation: &mut Operation, parameters: &mut Parameters<_>| {
                parameters.send_message(operation, message);
            };
            start_several(core, socket, sendmsg_operation(message), buffers, complete)
        })
    }

    /// As [`Operations::recvmsg`], into several buffers that are moved in.
    ///
    /// # Errors
    ///
    /// As for [`Operations::read_vectored_owned`].
    #[doc(alias("io_uring_prep_recvmsg", "IORING_OP_RECVMSG", "recvfrom", "SCM_RIGHTS"))]
    fn recvmsg_owned(
        &mut self,
        socket: &impl FileRef,
        buffers: Vec<Self::Owned>,
        descriptors: usize,
        flags: i32,
    ) -> Result<Ticket, Rejected<Vec<Self::Owned>>>
    where
        Self::Owned: StableBuf,
    {
        self.start_on_core(SEAL, buffers, |core, buffers| {
            let complete = |operation: &mut Operation, parameters: &mut Parameters<_>| {
                parameters.receive_message(operation, descriptors);
            };
            start_several(core, socket, recvmsg_operation(flags), buffers, complete)
        })
    }
}

impl<S: Starter + ?Sized> Operations for S {}

fn sendmsg_operation(message: &SendMessage<'_>) -> Operation {
    Operation { operation_flags: send_flags(message.flags), ..Operation::new(sys::IORING_OP_SENDMSG) }
}

fn recvmsg_operation(flags: i32) -> Operation {
    let operation_flags = receive_flags(flags);
    Operation { operation_flags, outcome: Outcome::Message, ..Operation::new(sys::IORING_OP_RECVMSG) }
}

/// Operations that liburing 2.3 has no names for: the numbers are the kernel's.
mod opcode {
    pub(super) const FTRUNCATE: u32 = 55;
    pub(super) const BIND: u32 = 56;
    pub(super) const LISTEN: u32 = 57;
}

/// How [`Operations::open_how`] opens a file; see `openat2(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OpenHow {
    /// `O_*`.
    pub flags: u64,
    /// Of a file that is made.
    pub mode: u64,
    /// `RESOLVE_*`.
    pub resolve: u64,
}

/// Where a path begins, for operations that have it in the place of the file.
fn at(directory: Directory<'_>) -> Target {
    directory.map_or(Target::descriptor(libc::AT_FDCWD), |directory| Target::shared(Arc::clone(directory)))
}

fn start_path<B, E: Entries>(
    core: &mut Core<B, E>,
    directory: Directory<'_>,
    operation: Operation,
    path: CString,
) -> Result<Ticket, Rejected<CString>> {
    let fill = |operation: &mut Operation, parameters: &mut Parameters<B>, path| {
        operation.address = parameters.set_path(0, path);
    };
    start_parcel(core, at(directory), operation, path, fill, first_path)
}

/// Two paths, each with its directory: that of the second is where other operations have their length.
fn start_paths<B, E: Entries>(
    core: &mut Core<B, E>,
    first: Directory<'_>,
    second: Directory<'_>,
    mut operation: Operation,
    paths: (CString, CString),
) -> Result<Ticket, Rejected<(CString, CString)>> {
    operation.length = number_of(second) as u32;
    let second = second.cloned();
    let fill = |operation: &mut Operation, parameters: &mut Parameters<B>, (from, to)| {
        operation.address = parameters.set_path(0, from);
        operation.offset = parameters.set_path(1, to);
        parameters.descriptors[0] = second;
    };
    start_parcel(core, at(first), operation, paths, fill, both_paths)
}

/// The kernel counts places from 1.
fn place_of(file: &FixedFile) -> u32 {
    file.index() + 1
}

/// An operation that takes nothing, and puts a file into the ring's own table. The parcel has the place: it is free again
/// when nobody has the file, or the operation made none.
fn start_direct<B, E: Entries>(
    core: &mut Core<B, E>,
    target: Target,
    operation: Operation,
) -> Result<Ticket, Rejected<()>> {
    let file = core.claim_file().map_err(|reason| Rejected::new(reason, ()))?;
    let operation = Operation { file_index: place_of(&file), ..operation };
    let keep = |_: &mut Operation, parameters: &mut Parameters<B>, ()| parameters.direct = Some(file);
    start_parcel(core, target, operation, (), keep, |_| ())
}

/// A time, in the slot of the operation.
pub(crate) fn start_time<B, E: Entries>(
    core: &mut Core<B, E>,
    opcode: u32,
    time: Duration,
) -> Result<Ticket, Rejected<()>> {
    let operation = Operation { length: 1, ..Operation::new(opcode) };
    let fill = |operation: &mut Operation, parameters: &mut Parameters<B>, ()| {
        operation.address = parameters.set_time(time);
    };
    start_parcel(core, Target::NONE, operation, (), fill, |_| ())
}

fn start_address<B, E: Entries>(
    core: &mut Core<B, E>,
    socket: &impl FileRef,
    opcode: u32,
    address: &SocketAddress,
) -> Result<Ticket, Rejected<()>> {
    let target = socket.to_target(core).map_err(|reason| Rejected::new(reason, ()))?;
    let operation = Operation { offset: address.length.into(), ..Operation::new(opcode) };
    let fill = |operation: &mut Operation, parameters: &mut Parameters<B>, ()| {
        parameters.address = address.storage;
        operation.address = address_of(&raw const parameters.address);
    };
    start_parcel(core, target, operation, (), fill, |_| ())
}

/// A transfer of a lease by its address.
#[inline]
fn start_lease<B, E: Entries>(
    core: &mut Core<B, E>,
    file: &impl FileRef,
    mut operation: Operation,
    buf: Buf,
    length: u32,
) -> Result<Ticket, Rejected<Buf>> {
    if length as usize > buf.len() {
        return Err(Rejected::new(RejectReason::TooLong, buf));
    }
    let target = match file.to_target(core) {
        Ok(target) => target,
        Err(reason) => return Err(Rejected::new(reason, buf)),
    };
    operation.address = address_of(buf.address());
    operation.length = length;
    core.start(target, operation, Held::Lease(buf)).map_err(reject_lease)
}

/// For [`start_leases`] and [`start_several`], where the vectors are all.
fn as_it_is<B>(_: &mut Operation, _: &mut Parameters<B>) {}

/// A vectored transfer of leases: `length` bytes, over as many of them as that needs. `complete` gets the operation when its
/// vectors are filled in.
fn start_leases<B, E: Entries>(
    core: &mut Core<B, E>,
    file: &impl FileRef,
    operation: Operation,
    bufs: Vec<Buf>,
    length: usize,
    complete: impl FnOnce(&mut Operation, &mut Parameters<B>),
) -> Result<Ticket, Rejected<Vec<Buf>>> {
    if bufs.len() > libc::UIO_MAXIOV as usize || length > bufs.iter().map(|buf| buf.len()).sum() {
        return Err(Rejected::new(RejectReason::TooLong, bufs));
    }
    let target = match file.to_target(core) {
        Ok(target) => target,
        Err(reason) => return Err(Rejected::new(reason, bufs)),
    };
    let fill = |operation: &mut Operation, parameters: &mut Parameters<B>, bufs: Vec<Buf>| {
        let mut left = length;
        for buf in &bufs {
            let part = buf.len().min(left);
            parameters.iovecs.push(libc::iovec { iov_base: buf.address().cast(), iov_len: part });
            left -= part;
        }
        operation.length = bufs.len() as u32;
        operation.address = address_of(parameters.iovecs.as_ptr());
        parameters.leases = bufs;
        complete(operation, parameters);
    };
    start_parcel(core, target, operation, bufs, fill, |parameters| std::mem::take(&mut parameters.leases))
}

/// A transfer of a buffer that is moved in. Its address is asked for when it is where it stays.
#[inline(always)]
fn start_owned<B: StableBuf, E: Entries>(
    core: &mut Core<B, E>,
    file: &impl FileRef,
    operation: Operation,
    buffer: B,
) -> Result<Ticket, Rejected<B>> {
    core.start_owned(file, operation, buffer, |operation, buffer| {
        let (start, length) = buffer.memory();
        operation.address = start.as_ptr().expose_provenance() as u64;
        // The kernel transfers less than that at once.
        operation.length = u32::try_from(length).unwrap_or(u32::MAX);
    })
}

fn start_several<B: StableBuf, E: Entries>(
    core: &mut Core<B, E>,
    file: &impl FileRef,
    operation: Operation,
    buffers: Vec<B>,
    complete: impl FnOnce(&mut Operation, &mut Parameters<B>),
) -> Result<Ticket, Rejected<Vec<B>>> {
    if buffers.len() > libc::UIO_MAXIOV as usize {
        return Err(Rejected::new(RejectReason::TooLong, buffers));
    }
    let target = match file.to_target(core) {
        Ok(target) => target,
        Err(reason) => return Err(Rejected::new(reason, buffers)),
    };
    let mut parcel = core.parcel();
    parcel.parameters().several = buffers;
    let started = core.start_with(target, operation, Held::Parcel(parcel), |operation, held| {
        if let Held::Parcel(parcel) = held {
            let parameters = parcel.parameters();
            for buffer in &mut parameters.several {
                let (start, length) = buffer.memory();
                parameters.iovecs.push(libc::iovec { iov_base: start.as_ptr().cast(), iov_len: length });
            }
            operation.length = parameters.iovecs.len() as u32;
            operation.address = address_of(parameters.iovecs.as_ptr());
            complete(operation, parameters);
        }
    });
    started.map_err(|(reason, held)| {
        let Held::Parcel(mut parcel) = held else { unreachable!("a rejected operation gives back what it was given") };
        let buffers = std::mem::take(&mut parcel.parameters().several);
        put_back(core, parcel);
        Rejected::new(reason, buffers)
    })
}

pub(crate) fn accept_operation(flags: i32) -> Operation {
    Operation {
        operation_flags: (flags | libc::SOCK_CLOEXEC) as u32,
        outcome: Outcome::Descriptor,
        ..Operation::new(sys::IORING_OP_ACCEPT)
    }
}

/// The kernel reads the mask of events as two halves of 16 bits, in its own order.
pub(crate) fn poll_mask(events: u32) -> u32 {
    if cfg!(target_endian = "big") { events.rotate_left(16) } else { events }
}
