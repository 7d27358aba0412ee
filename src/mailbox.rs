//! Messages from ring to ring.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use crate::core::Core;
use crate::entries::Entries;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkMark;
use crate::rejected::RejectReason;
use crate::ring::Ring;

/// Where messages to a ring go: a handle that is cloned, and sent to other threads. Made by [`Ring::mailbox`], used by
/// [`Operations::message`](crate::Operations::message).
///
/// It keeps nothing of the ring alive, and is of no use once the ring is gone. An operation that sends a message keeps the
/// ring's descriptor open until it ends, and with it what the kernel has of the ring. In the child of a `fork` it is of no use, as
/// the ring is: the number may be another file's there.
#[derive(Clone)]
pub struct Mailbox {
    /// A descriptor of the ring that is nobody else's: for as long as an operation has it, its number is the ring's.
    ring: Weak<OwnedFd>,
    mark: ForkMark,
}

impl Mailbox {
    /// The ring's descriptor, to be kept open by an operation; or that the ring is gone, or the parent process's.
    pub(crate) fn descriptor(&self) -> Result<Arc<OwnedFd>, RejectReason> {
        if !self.mark.is_alive() {
            return Err(RejectReason::Forked);
        }
        self.ring.upgrade().ok_or(RejectReason::RingGone)
    }
}

impl<B, E: Entries> Ring<B, E> {
    /// Where others send messages to this ring (since Linux 5.18). Each is a [`Completion::Raw`](crate::Completion::Raw) here: it
    /// is what wakes a thread that waits for its ring, from any other thread with a ring of its own.
    ///
    /// Messages take places in the completion queue that nothing was counted for. What does not fit waits in the kernel's
    /// memory, this ring's own completions among it, until it is taken: nothing is lost, but who sends more than is ever
    /// taken uses up memory.
    ///
    /// ```
    /// use sysuring::{Completion, Operations as _, Ring, UserData};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if !sysuring::Probe::get().is_ok_and(|probe| probe.operations.contains(&("IORING_OP_MSG_RING", true))) { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// let mailbox = ring.mailbox()?;
    /// let thread = std::thread::spawn(move || -> sysuring::Result<u32> {
    ///     let mut ring = Ring::with_entries(8)?;
    ///     ring.message(&mailbox, UserData::from(7), 42)?;
    ///     ring.submit_and_wait(1)?;
    ///     ring.completions().find_map(|completion| completion.into_done()).expect("waited for").result()
    /// });
    /// ring.submit_and_wait(1)?;
    /// let Some(Completion::Raw(message)) = ring.completions().next() else { panic!("waited for") };
    /// assert_eq!((message.user_data(), message.raw_result()), (7, 42));
    /// thread.join().expect("it does not panic")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] where the process has as many descriptors as it may have;
    /// [`ErrorKind::Unsupported`] where the ring's own was closed (`io_uring_close_ring_fd`).
    #[doc(alias = "IORING_OP_MSG_RING")]
    pub fn mailbox(&mut self) -> Result<Mailbox> {
        self.core().mailbox()
    }
}

impl<B, E: Entries> Core<B, E> {
    fn mailbox(&mut self) -> Result<Mailbox> {
        self.check_usable()?;
        let number = self.queues().descriptor();
        if number < 0 {
            let message = "the ring's descriptor was closed (close_ring_fd): nobody else can name the ring";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mark = self.queues().mark();
        let descriptor = match &mut self.mailbox {
            Some(descriptor) => descriptor,
            none => {
                // SAFETY: the ring's own, which is open for as long as the ring, and not -1.
                let own = unsafe { BorrowedFd::borrow_raw(number) };
                let copy = own.try_clone_to_owned();
                none.insert(Arc::new(copy.map_err(|error| Error::from_io(error, "copy a ring's descriptor"))?))
            }
        };
        Ok(Mailbox { ring: Arc::downgrade(descriptor), mark })
    }

    /// From here on no message begins. In the child of a fork the number may be somebody else's by now.
    pub(crate) fn close_mailbox(&mut self) {
        use std::os::fd::AsRawFd as _;

        let descriptor = self.mailbox.take();
        let is_parents = |descriptor: &Arc<OwnedFd>| {
            !self.queues().mark().is_alive() && !self.queues().is_own(descriptor.as_raw_fd())
        };
        if descriptor.as_ref().is_some_and(is_parents) {
            std::mem::forget(descriptor);
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("is_open", &(self.ring.strong_count() != 0)).finish_non_exhaustive()
    }
}
