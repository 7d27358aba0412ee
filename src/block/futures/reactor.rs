//! Futures on a ring that is bound to one thread.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::block::futures::hub::Hub;
use crate::block::platform;
use crate::error::{Error, ErrorKind, Result};

#[cfg(doc)]
use crate::block::Device;

thread_local! {
    static ATTACHED: RefCell<Option<Attached>> = const { RefCell::new(None) };
}

/// The hub of a thread that has a reactor; goes with the reactor, or else with the thread.
struct Attached(Arc<Hub>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.detach();
    }
}

/// The hub of this thread.
pub(super) fn of_thread() -> Option<Arc<Hub>> {
    let attached = |attached: &RefCell<Option<Attached>>| {
        let attached = attached.try_borrow().ok()?;
        attached.as_ref().filter(|attached| attached.0.is_alive()).map(|attached| Arc::clone(&attached.0))
    };
    ATTACHED.try_with(attached).ok().flatten()
}

/// Submits and reaps for the futures of one thread, on that thread; for runtimes with one thread that can watch a descriptor.
///
/// While there is one, futures of [`Device`]s that are first polled on this thread go over its ring, which the kernel ties to
/// the thread: all that tasks start in a turn of the runtime is handed over in one system call, and no other thread is
/// involved. Elsewhere, and without one, futures work as well.
///
/// With tokio:
///
/// ```
/// use sysuring::block::{self, BlockDevice, Options, Reactor};
/// use tokio::io::{Interest, unix::AsyncFd};
///
/// async fn application(device: &block::Device) -> Result<(), Box<dyn std::error::Error>> {
///     let buffer = device.aligned_buffer(4096)?;
///     device.read_async(0, buffer).await?;
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if sysuring::available().is_err() { return Ok(()) }
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("disk.img");
/// let device = block::open(&path, &Options::new().create(1 << 20))?;
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
/// runtime.block_on(async {
///     let reactor = Reactor::new()?;
///     // SAFETY: the descriptor is the reactor's, which outlives this.
///     let descriptor = unsafe { AsyncFd::register_with_interest(reactor.completion_fd(), Interest::READABLE) }
///         .map_err(std::io::Error::from)?;
///     let readable = || async {
///         descriptor.readable().await?.clear_ready();
///         Ok(())
///     };
///     let done = tokio::select! {
///         gone = reactor.run(readable) => gone.map(drop).map_err(Into::into),
///         done = application(&device) => done,
///     };
///     done
/// })
/// # }
/// ```
///
/// An event loop calls [`Reactor::turn`] once after the first futures were started, and then when the descriptor was written to
/// and when the waker that it gave was woken. As long as it does not, futures that were started on its thread do not end,
/// wherever they are polled, but for their deadlines.
#[must_use = "a reactor that is dropped reaps nothing"]
pub struct Reactor {
    hub: Arc<Hub>,
    /// An eventfd.
    descriptor: File,
    one_thread: PhantomData<*mut ()>,
}

impl Reactor {
    /// The reactor of this thread. Dropping it waits for what is in flight, for a second at most; what is left then fails.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] where the thread has one; [`ErrorKind::Unavailable`], and as for
    /// [`RingBuilder::build`](crate::RingBuilder::build), where there is no ring to be had.
    pub fn new() -> Result<Self> {
        ATTACHED
            .try_with(|attached| {
                let mut attached = attached.borrow_mut();
                if attached.as_ref().is_some_and(|attached| attached.0.is_alive()) {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        "this thread has a reactor; one is enough for all devices",
                    ));
                }
                let descriptor = platform::eventfd().map_err(|error| Error::from_io(error, "make an eventfd"))?;
                let hub = Hub::attached(&descriptor)?;
                // In the child of a fork this drops its parent's, which does nothing.
                *attached = Some(Attached(Arc::clone(&hub)));
                Ok(Self { hub, descriptor, one_thread: PhantomData })
            })
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the thread is ending"))?
    }

    /// Edge-triggered: an eventfd that is written to when something has ended. Nobody reads it: it is to be watched by edges
    /// (`EPOLLET`), as tokio does, or read before each turn.
    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Submits what futures started, takes what has ended and wakes them. The task of `context` is woken when more is started;
    /// when something ends, [`Reactor::completion_fd`] tells.
    ///
    /// # Errors
    ///
    /// What the kernel reports of submitting; [`ErrorKind::Forked`] in the child of a fork.
    pub fn turn(&self, context: &Context<'_>) -> Result<()> {
        self.hub.turn(context.waker())
    }

    /// Turns whenever something was started, and whenever `readable` says that the descriptor is.
    ///
    /// # Errors
    ///
    /// As for [`Reactor::turn`], and what `readable` reports. It does not end otherwise.
    pub async fn run<F>(&self, mut readable: impl FnMut() -> F) -> io::Result<Infallible>
    where
        F: Future<Output = io::Result<()>>,
    {
        loop {
            let mut readable = pin!(readable());
            poll_fn(|context| match self.turn(context) {
                Ok(()) => readable.as_mut().poll(context),
                Err(error) => Poll::Ready(Err(error.into())),
            })
            .await?;
        }
    }
}

#[cfg(test)]
impl Reactor {
    /// Whether nothing is in flight, and no place is taken.
    pub(in crate::block) fn is_idle(&self) -> bool {
        self.hub.is_idle()
    }
}

impl Drop for Reactor {
    /// Waits, for a second at most, for what is in flight; what is left then fails.
    fn drop(&mut self) {
        // In the child of a fork the thread may have another one.
        let own = |attached: &RefCell<Option<Attached>>| {
            attached.borrow_mut().take_if(|attached| Arc::ptr_eq(&attached.0, &self.hub))
        };
        drop(ATTACHED.try_with(own));
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}
