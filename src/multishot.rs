//! Operations that report more than once.
//!
//! One submission, many completions: each is a [`More`](crate::Completion::More), until a [`Done`](crate::Completion::Done)
//! ends the operation. The kernel ends it by itself too, when an error comes or the completion queue overflows: who wants to
//! go on starts it again. For one ring's thread only, since a thread that waits for one ticket would not know what to do with
//! another's results.

use liburing_sys as sys;

use crate::core::Operation;
use crate::operations::{FileRef, accept_operation, poll_mask, start_bare};
use crate::rejected::Rejected;
use crate::ring::Ring;
use crate::table::Ticket;

impl<B> Ring<B> {
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
}
