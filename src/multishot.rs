//! Operations that report more than once.
//!
//! One submission, many completions: each is a [`More`](crate::Completion::More), until a [`Done`](crate::Completion::Done)
//! ends the operation. The kernel ends it by itself too, when an error comes or the completion queue overflows: who wants to
//! go on starts it again, as the example of [`Ring::recv_multishot`] does. For one ring's thread only, since a thread that waits
//! for one ticket would not know what to do with another's results.

use std::sync::Arc;

use liburing_sys as sys;

use crate::core::Operation;
use crate::entries::Entries;
use crate::error::Result;
use crate::operations::{FileRef, accept_operation, poll_mask, start_bare};
use crate::provided::ProvidedBuffers;
use crate::rejected::{RejectReason, Rejected};
use crate::ring::Ring;
use crate::table::{Held, Outcome, Ticket};

impl<B, E: Entries> Ring<B, E> {
    /// Takes one connection after the other (since Linux 5.19): each is a [`More`](crate::More) with the new socket.
    /// `flags` are those of `accept4(2)`; `SOCK_CLOEXEC` is added.
    ///
    /// # Errors
    ///
    /// See [`RejectReason`](crate::RejectReason).
    #[doc(alias("io_uring_prep_multishot_accept", "IORING_ACCEPT_MULTISHOT"))]
    pub fn accept_multishot(&mut self, listener: &impl FileRef, flags: i32) -> Result<Ticket, Rejected<()>> {
        let operation = Operation { ioprio: sys::IORING_ACCEPT_MULTISHOT as u16, ..accept_operation(flags) };
        start_bare(self.core(), listener, operation)
    }

    /// Tells of `events` (`POLLIN` …) of a file each time that there are some (since Linux 5.13).
    ///
    /// # Errors
    ///
    /// See [`RejectReason`](crate::RejectReason).
    #[doc(alias("io_uring_prep_poll_multishot", "IORING_POLL_ADD_MULTI"))]
    pub fn poll_multishot(&mut self, file: &impl FileRef, events: u32) -> Result<Ticket, Rejected<()>> {
        let operation = Operation {
            length: sys::IORING_POLL_ADD_MULTI,
            operation_flags: poll_mask(events),
            ..Operation::new(sys::IORING_OP_POLL_ADD)
        };
        start_bare(self.core(), file, operation)
    }

    /// Makes a group of `count` buffers of `size` bytes that the kernel picks from by itself (since Linux 5.19); `count` is a
    /// power of two up to 32768. With `is_incremental` it puts several results into one buffer (since Linux 6.12).
    ///
    /// The group goes with the ring, or by [`Ring::remove_buffers`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the kernel has no such groups,
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a count or size that can't be,
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) where there is no memory.
    #[doc(alias("io_uring_register_buf_ring", "io_uring_setup_buf_ring", "IOU_PBUF_RING_INC"))]
    pub fn provide_buffers(&mut self, count: u16, size: u32, is_incremental: bool) -> Result<ProvidedBuffers> {
        self.core().provide_buffers(count, size, is_incremental)
    }

    /// Takes a group of buffers away from the kernel. Buffers of it that somebody has stay valid.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) while operations are in flight on the ring,
    /// [`ErrorKind::ForeignPool`](crate::ErrorKind::ForeignPool) where the group is not this ring's.
    #[doc(alias("io_uring_unregister_buf_ring", "io_uring_free_buf_ring"))]
    pub fn remove_buffers(&mut self, buffers: ProvidedBuffers) -> Result<()> {
        self.core().remove_buffers(buffers)
    }

    /// Receives once, into a buffer that the kernel picks when there is something:
    /// [`Done::into_received`](crate::Done::into_received). `flags` are those of `recv(2)`, but for `MSG_TRUNC` and, on an
    /// incremental group, `MSG_WAITALL`, which are ignored: they make the result another number than the bytes in the buffer.
    ///
    /// ```
    /// use std::os::fd::OwnedFd;
    /// use std::sync::Arc;
    /// use sysuring::Ring;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// // Before Linux 5.19 there are no such groups.
    /// let Ok(buffers) = ring.provide_buffers(4, 1024, false) else { return Ok(()) };
    /// let (here, mut there) = std::os::unix::net::UnixStream::pair()?;
    /// std::io::Write::write_all(&mut there, b"hello")?;
    /// ring.recv_provided(&Arc::new(OwnedFd::from(here)), &buffers, 0)?;
    /// ring.submit_and_wait(1)?;
    /// let done = ring.completions().find_map(|completion| completion.into_done()).expect("waited for");
    /// let buf = done.into_received().and_then(|mut received| received.next()).expect("one buffer");
    /// assert_eq!(&buf[..], b"hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_recv", "IOSQE_BUFFER_SELECT"))]
    pub fn recv_provided(
        &mut self,
        socket: &impl FileRef,
        buffers: &ProvidedBuffers,
        flags: i32,
    ) -> Result<Ticket, Rejected<()>> {
        let flags = receive_flags(flags, buffers);
        let operation = Operation { operation_flags: flags, ..Operation::new(sys::IORING_OP_RECV) };
        self.start_picking(socket, buffers, operation)
    }

    /// Receives again and again (since Linux 6.0): each time something comes that is a [`More`](crate::More) with the buffer
    /// that the kernel picked, [`More::into_received`](crate::More::into_received).
    ///
    /// Ends with ENOBUFS where no buffer is left, and with 0 at the end of the stream. With `bundle` (since Linux 6.10) a
    /// result may span several buffers; an incremental group has one for each result all the same.
    ///
    /// ```
    /// use std::io::Write as _;
    /// use std::os::fd::OwnedFd;
    /// use std::os::unix::net::UnixStream;
    /// use std::sync::Arc;
    ///
    /// use sysuring::{Completion, Ring, libc};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// # if ring.provide_buffers(2, 16, false).is_err() { return Ok(()) }
    /// let buffers = ring.provide_buffers(2, 16, false)?;
    /// let (here, mut there) = UnixStream::pair()?;
    /// there.write_all(&[7; 100])?;
    /// drop(there);
    /// let socket = Arc::new(OwnedFd::from(here));
    /// let (mut received, mut is_over) = (Vec::new(), false);
    /// while !is_over {
    ///     ring.recv_multishot(&socket, &buffers, 0, false)?;
    ///     let mut goes_on = true;
    ///     while goes_on {
    ///         ring.submit_and_wait(1)?;
    ///         for completion in ring.completions() {
    ///             let bufs = match completion {
    ///                 Completion::More(more) => more.into_received(),
    ///                 Completion::Done(done) => {
    ///                     goes_on = false;
    ///                     match done.result() {
    ///                         // No buffer was left; those that were dropped below are there when it is started again.
    ///                         Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
    /// #                       Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
    ///                         result => is_over = result? == 0,
    ///                     }
    ///                     done.into_received()
    ///                 }
    ///                 _ => None,
    ///             };
    ///             bufs.into_iter().flatten().for_each(|buf| received.extend_from_slice(&buf));
    ///         }
    ///     }
    /// }
    /// assert_eq!(received, [7; 100]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_recv_multishot", "IORING_RECV_MULTISHOT", "IORING_RECVSEND_BUNDLE"))]
    pub fn recv_multishot(
        &mut self,
        socket: &impl FileRef,
        buffers: &ProvidedBuffers,
        flags: i32,
        bundle: bool,
    ) -> Result<Ticket, Rejected<()>> {
        let bundle = bundle && !buffers.is_incremental();
        let operation = Operation {
            operation_flags: receive_flags(flags, buffers),
            ioprio: sys::IORING_RECV_MULTISHOT as u16 | if bundle { RECVSEND_BUNDLE } else { 0 },
            outcome: if bundle { Outcome::Bundle } else { Outcome::Count },
            ..Operation::new(sys::IORING_OP_RECV)
        };
        self.start_picking(socket, buffers, operation)
    }

    /// Reads again and again from a file that can be waited for, such as a pipe (since Linux 6.7); see
    /// [`Ring::recv_multishot`].
    ///
    /// # Errors
    ///
    /// See [`RejectReason`].
    #[doc(alias("io_uring_prep_read_multishot", "IORING_OP_READ_MULTISHOT"))]
    pub fn read_multishot(&mut self, file: &impl FileRef, buffers: &ProvidedBuffers) -> Result<Ticket, Rejected<()>> {
        self.start_picking(file, buffers, Operation { offset: u64::MAX, ..Operation::new(READ_MULTISHOT) })
    }

    fn start_picking(
        &mut self,
        file: &impl FileRef,
        buffers: &ProvidedBuffers,
        mut operation: Operation,
    ) -> Result<Ticket, Rejected<()>> {
        let core = self.core();
        if !core.has_buffers(buffers) {
            return Err(Rejected::new(RejectReason::ForeignGroup, ()));
        }
        let target = file.to_target(core).map_err(|reason| Rejected::new(reason, ()))?;
        operation.flags |= sys::IOSQE_BUFFER_SELECT as u8;
        operation.buffer = buffers.memory.group();
        let held = Held::Group(Arc::clone(&buffers.memory));
        core.start(target, operation, held).map_err(|(reason, _)| Rejected::new(reason, ()))
    }
}

/// Without MSG_TRUNC, whose result says nothing of how much memory the kernel used, and without MSG_WAITALL where it fills an
/// incremental buffer by more than it says.
fn receive_flags(flags: i32, buffers: &ProvidedBuffers) -> u32 {
    let wait = if buffers.is_incremental() { libc::MSG_WAITALL } else { 0 };
    (flags & !(libc::MSG_TRUNC | wait)) as u32
}

/// `IORING_OP_READ_MULTISHOT`, which liburing 2.3 has no name for.
const READ_MULTISHOT: u32 = 49;
/// `IORING_RECVSEND_BUNDLE`, likewise.
const RECVSEND_BUNDLE: u16 = 1 << 4;
