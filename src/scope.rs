//! Operations on memory that the caller lends.
//!
//! As with `std::thread::scope`, what makes this sound is not a destructor that the caller could forget, but that
//! [`Ring::scope`] does not return, and does not unwind further, before the last of the scope's operations has ended.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use liburing_sys as sys;

use crate::core::{Core, Operation, Target};
use crate::entries::{Entries, SmallEntries};
use crate::error::{Error, ErrorKind, Result, check};
use crate::file::FixedFile;
use crate::operations::{Seal, Starter};
use crate::parcel::address_of;
use crate::raw_ring::is_passing;
use crate::rejected::{RejectReason, Rejected};
use crate::ring::{OneThread, Ring};
use crate::table::{Held, NoBuffers, Ticket};

/// How long a ring that can't be entered any more is watched for the completions that are due.
const LAST_RESORT: Duration = Duration::from_secs(30);

/// Starts operations on memory that outlives the scope; see [`Ring::scope`].
pub struct Scope<'scope, 'env: 'scope, B = NoBuffers, E: Entries = SmallEntries> {
    core: &'scope mut Core<B, E>,
    /// Invariant in both: neither may be taken for a shorter or a longer one.
    env: PhantomData<&'env mut &'env ()>,
    scope: PhantomData<&'scope mut &'scope ()>,
    one_thread: OneThread,
}

/// An operation of a scope.
#[derive(Debug)]
pub struct ScopedOperation<'scope> {
    ticket: Ticket,
    scope: PhantomData<&'scope mut &'scope ()>,
}

/// What an operation of a scope can be on: a registered file, or whatever has a descriptor.
pub trait ScopedFile: scoped::ToTarget {}

impl<F: AsFd> ScopedFile for F {}
impl ScopedFile for FixedFile {}

mod scoped {
    use super::{AsFd, AsRawFd, Core, Entries, FixedFile, RejectReason, Target};

    pub trait ToTarget {
        fn to_target<B, E: Entries>(&self, core: &Core<B, E>) -> Result<Target, RejectReason>;
    }

    impl<F: AsFd> ToTarget for F {
        #[inline]
        fn to_target<B, E: Entries>(&self, _core: &Core<B, E>) -> Result<Target, RejectReason> {
            Ok(Target::descriptor(self.as_fd().as_raw_fd()))
        }
    }

    impl ToTarget for FixedFile {
        #[inline]
        fn to_target<B, E: Entries>(&self, core: &Core<B, E>) -> Result<Target, RejectReason> {
            core.index_of(self).map(Target::fixed).ok_or(RejectReason::ForeignFile)
        }
    }
}

impl<B, E: Entries> Ring<B, E> {
    /// Runs `work`, which may start operations on memory that it borrows, and returns when all of them have ended, however
    /// long that takes. That holds when `work` panics or returns early with `?`, too: a read of a pipe that nobody writes to holds
    /// up the panic; [`cancel`](Scope::cancel) it first.
    ///
    /// Operations that were in flight before stay so; what completes meanwhile is there afterwards. That goes for what is
    /// started through [`Operations`](crate::Operations) inside as well, which takes a place in the table until then.
    ///
    /// # Aborts
    ///
    /// Where the kernel refuses to be waited for and does not complete the operations within half a minute either: the memory
    /// can't be given back then.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// use sysuring::Ring;
    ///
    /// let mut ring = Ring::with_entries(8)?;
    /// let file = std::fs::File::open("/proc/self/exe")?;
    /// let (mut first, mut second) = ([0; 4], vec![0; 512]);
    /// let read = ring.scope(|scope| -> sysuring::Result<u32> {
    ///     let first = scope.read(&file, &mut first, 0)?;
    ///     scope.read(&file, &mut second, 0)?;
    ///     scope.wait(first)
    /// })?;
    /// assert_eq!((read, &first), (4, b"\x7fELF"));
    /// assert_eq!(second[..4], first);
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope<'env, R>(&mut self, work: impl for<'scope> FnOnce(&mut Scope<'scope, 'env, B, E>) -> R) -> R {
        let end = End { core: self.core() };
        work(&mut Scope { core: &mut *end.core, env: PhantomData, scope: PhantomData, one_thread: PhantomData })
    }
}

/// Waits, on every way out of [`Ring::scope`]. In our own frame: nobody can forget it.
struct End<'ring, B, E: Entries> {
    core: &'ring mut Core<B, E>,
}

impl<B, E: Entries> Drop for End<'_, B, E> {
    fn drop(&mut self) {
        if cfg!(sysuring_break = "r9_scope") {
            return;
        }
        self.core.drain_borrowed();
        self.core.forget_borrowed();
    }
}

impl<B, E: Entries> Core<B, E> {
    /// Waits until no operation uses borrowed memory any more.
    pub(crate) fn drain_borrowed(&mut self) {
        let mut refused_since = None;
        while self.borrowed() != 0 {
            if !self.queues().mark().is_alive() {
                // The child of a fork: the operations, and the memory that they use, are the parent's.
                return;
            }
            match self.submit_and_wait(1) {
                Ok(submitted) if submitted != 0 || self.queues().is_consumed() => refused_since = None,
                Err(error) if is_passing(&error) => {}
                // Also where nothing is taken out of the queue, which nobody waits behind.
                _ => {
                    // What the kernel has not seen ends at once; what it has may still complete.
                    self.withdraw_unsubmitted();
                    if refused_since.get_or_insert_with(Instant::now).elapsed() > LAST_RESORT {
                        // Not through the log, which may have nobody who listens.
                        eprintln!(
                            "sysuring: the kernel refuses to wait for operations that use borrowed memory; aborting"
                        );
                        std::process::abort();
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            self.reap();
        }
    }
}

impl<'scope, 'env, B, E: Entries> Scope<'scope, 'env, B, E> {
    /// Reads at `offset` into `memory`; `u64::MAX` is the file's own position.
    ///
    /// # Errors
    ///
    /// Gives the memory back where nothing was started; see [`RejectReason`].
    #[doc(alias("io_uring_prep_read", "IORING_OP_READ"))]
    #[inline]
    pub fn read(
        &mut self,
        file: &'env impl ScopedFile,
        memory: &'env mut [u8],
        offset: u64,
    ) -> Result<ScopedOperation<'scope>, Rejected<&'env mut [u8]>> {
        let (address, length) = (address_of(memory.as_mut_ptr()), memory.len());
        let operation = Operation { offset, ..Operation::new(sys::IORING_OP_READ) };
        self.start(file, operation, address, length).map_err(|reason| Rejected::new(reason, memory))
    }

    /// Writes `memory` at `offset`; `u64::MAX` is the file's own position.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_write", "IORING_OP_WRITE"))]
    #[inline]
    pub fn write(
        &mut self,
        file: &'env impl ScopedFile,
        memory: &'env [u8],
        offset: u64,
    ) -> Result<ScopedOperation<'scope>, Rejected<&'env [u8]>> {
        let operation = Operation { offset, ..Operation::new(sys::IORING_OP_WRITE) };
        let started = self.start(file, operation, address_of(memory.as_ptr()), memory.len());
        started.map_err(|reason| Rejected::new(reason, memory))
    }

    /// Reads at `offset` into one piece of memory after the other.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`]; `TooLong` for more than 1024 pieces.
    #[doc(alias("io_uring_prep_readv", "IORING_OP_READV"))]
    pub fn read_vectored(
        &mut self,
        file: &'env impl ScopedFile,
        memory: &'env mut [IoSliceMut<'env>],
        offset: u64,
    ) -> Result<ScopedOperation<'scope>, Rejected<&'env mut [IoSliceMut<'env>]>> {
        // The standard library promises that these are iovecs to C.
        let (address, pieces) = (address_of(memory.as_mut_ptr()), memory.len());
        let started = self.vectored(sys::IORING_OP_READV, file, address, pieces, offset);
        started.map_err(|reason| Rejected::new(reason, memory))
    }

    /// Writes one piece of memory after the other at `offset`.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`]; `TooLong` for more than 1024 pieces.
    #[doc(alias("io_uring_prep_writev", "IORING_OP_WRITEV"))]
    pub fn write_vectored(
        &mut self,
        file: &'env impl ScopedFile,
        memory: &'env [IoSlice<'env>],
        offset: u64,
    ) -> Result<ScopedOperation<'scope>, Rejected<&'env [IoSlice<'env>]>> {
        let started = self.vectored(sys::IORING_OP_WRITEV, file, address_of(memory.as_ptr()), memory.len(), offset);
        started.map_err(|reason| Rejected::new(reason, memory))
    }

    /// Receives into `memory`; `flags` are those of `recv(2)`.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_recv", "IORING_OP_RECV"))]
    pub fn recv(
        &mut self,
        socket: &'env impl ScopedFile,
        memory: &'env mut [u8],
        flags: i32,
    ) -> Result<ScopedOperation<'scope>, Rejected<&'env mut [u8]>> {
        let (address, length) = (address_of(memory.as_mut_ptr()), memory.len());
        let operation = Operation { operation_flags: flags as u32, ..Operation::new(sys::IORING_OP_RECV) };
        self.start(socket, operation, address, length).map_err(|reason| Rejected::new(reason, memory))
    }

    /// Sends `memory`; `flags` are those of `send(2)`.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_send", "IORING_OP_SEND"))]
    pub fn send(
        &mut self,
        socket: &'env impl ScopedFile,
        memory: &'env [u8],
        flags: i32,
    ) -> Result<ScopedOperation<'scope>, Rejected<&'env [u8]>> {
        let operation = Operation { operation_flags: send_flags(flags), ..Operation::new(sys::IORING_OP_SEND) };
        let started = self.start(socket, operation, address_of(memory.as_ptr()), memory.len());
        started.map_err(|reason| Rejected::new(reason, memory))
    }

    fn vectored(
        &mut self,
        opcode: u32,
        file: &impl ScopedFile,
        address: u64,
        pieces: usize,
        offset: u64,
    ) -> Result<ScopedOperation<'scope>, RejectReason> {
        if pieces > libc::UIO_MAXIOV as usize {
            return Err(RejectReason::TooLong);
        }
        self.start(file, Operation { offset, ..Operation::new(opcode) }, address, pieces)
    }

    #[inline]
    fn start(
        &mut self,
        file: &impl ScopedFile,
        mut operation: Operation,
        address: u64,
        length: usize,
    ) -> Result<ScopedOperation<'scope>, RejectReason> {
        let target = file.to_target(self.core)?;
        operation.address = address;
        // The kernel transfers less than that at once.
        operation.length = u32::try_from(length).unwrap_or(u32::MAX);
        let ticket = self.core.start(target, operation, Held::Borrowed).map_err(|(reason, _)| reason)?;
        Ok(ScopedOperation { ticket, scope: PhantomData })
    }

    /// Submits what was started, and waits for one operation: the bytes that it moved.
    ///
    /// # Errors
    ///
    /// What the kernel reported of the operation, or of waiting for it.
    #[inline]
    pub fn wait(&mut self, operation: ScopedOperation<'scope>) -> Result<u32> {
        loop {
            if let Some(result) = self.core.take_borrowed(operation.ticket) {
                return check(result, "io_uring operation");
            }
            if !self.core.knows(operation.ticket) {
                self.core.check_usable()?;
                return Err(Error::new(ErrorKind::InvalidInput, "the operation is of another scope"));
            }
            match self.core.submit_and_wait(1) {
                Err(error) if !is_passing(&error) => return Err(error),
                _ => {}
            }
        }
    }

    /// Submits what was started; see [`Ring::submit`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn submit(&mut self) -> Result<u32> {
        self.core.submit()
    }

    /// Asks the kernel to end an operation early; see [`Ring::cancel`].
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    pub fn cancel(&mut self, operation: &ScopedOperation<'scope>) -> Result<(), Rejected<()>> {
        self.core.cancel(operation.ticket).map_err(|reason| Rejected::new(reason, ()))
    }
}

/// Without MSG_ZEROCOPY, which would have the network read the memory after the completion.
pub(crate) fn send_flags(flags: i32) -> u32 {
    (flags & !libc::MSG_ZEROCOPY) as u32
}

impl<B, E: Entries> Starter for Scope<'_, '_, B, E> {
    type Owned = B;
    type Entries = E;

    type Guard<'a>
        = &'a mut Core<B, E>
    where
        Self: 'a;

    #[inline(always)]
    fn core_guard(&mut self, _: Seal) -> Option<&mut Core<B, E>> {
        Some(self.core)
    }
}

impl<B, E: Entries> fmt::Debug for Scope<'_, '_, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("borrowed", &self.core.borrowed()).finish_non_exhaustive()
    }
}
