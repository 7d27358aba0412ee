//! Transfers as futures, for any executor.

#[cfg(uring)]
pub(super) mod hub;
pub(super) mod jobs;
#[cfg(uring)]
mod reactor;
mod timer;
mod waiters;

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::block::command::{Action, Command, TransferError};
use crate::block::futures::jobs::{Job, Jobs, forked};
use crate::block::futures::timer::Deadline;
use crate::block::futures::waiters::{Place, wake_by_ref};
#[cfg(nvme)]
use crate::block::nvme::Passthrough;
use crate::block::stats::count;
#[cfg(uring)]
use crate::block::wire::Wire;
use crate::block::{AlignedBuffer, Device, Picked};
use crate::error::{Error, ErrorKind, Result};

#[cfg(doc)]
use crate::block::{BlockDevice, Options};
#[cfg(uring)]
use hub::{Begun, Hub};
#[cfg(uring)]
pub use reactor::Reactor;

/// How many futures may have their answer when they are first polled, with no more than a few bytes each, before one gives way to
/// other tasks and is polled again; half as many that read 4 KiB.
const ENOUGH_ANSWERS: usize = 256;

/// A transfer that goes on while its task does something else; see [`Device::read_async`].
///
/// It begins when it is first polled, unless there is no room or it is others' turn: then its task is woken, and it begins later.
/// It keeps the device open. Dropping it is safe at any time: the kernel is asked to end it, and its buffer goes when it has.
/// Whether a write that was dropped has been carried out is not known.
///
/// One that waits for its turn has to be polled, or dropped: where it is forgotten it keeps its device, and its claim to a turn for
/// a while.
#[must_use = "a future does nothing before it is polled"]
pub struct TransferFuture {
    state: State,
    deadline: Option<Deadline>,
}

/// A flush that goes on while its task does something else; see [`Device::flush_async`].
#[derive(Debug)]
#[must_use = "a future does nothing before it is polled"]
pub struct FlushFuture(TransferFuture);

enum State {
    /// Refused before it began.
    Refused(TransferError),
    New(Arc<Picked>, Command),
    /// It gave way to others, and begins when it is polled again.
    NextTurn(Arc<Picked>, Command),
    /// All places are taken.
    InLine(Arc<Picked>, Command, Line),
    #[cfg(uring)]
    OnRing(Arc<Hub>, u32),
    #[cfg(nvme)]
    OnBigRing(Arc<Hub<Passthrough>>, u32),
    OnThread(Arc<Picked>, Arc<Job>),
    Over,
}

/// How a command ended. There is no buffer where the kernel may still use it, and for a flush.
type Outcome = (Option<AlignedBuffer>, Result<()>);

/// The line that a future stands in.
enum Line {
    #[cfg(uring)]
    Hub(Arc<Hub>, Place),
    #[cfg(nvme)]
    BigHub(Arc<Hub<Passthrough>>, Place),
    Jobs(Place),
}

impl Device {
    /// Reads as many blocks from `block` on as the buffer holds, and gives the buffer back.
    ///
    /// On io_uring all devices of the process share rings for this, one for each processor (8 at most), and the future is woken
    /// by a thread of the library; where a runtime has one thread, a [`Reactor`] makes it cheaper. On `pread`/`pwrite` the device's
    /// threads carry it out. Where as many transfers are in flight as there is room for, it waits for its turn: 256 on each of those
    /// rings, whatever [`Options::queue_depth`] says; on `pread`/`pwrite` the device's queue depth.
    ///
    /// What is in the page cache is copied when the future is first polled (Linux; 64 KiB at most). After 128 such answers in a row
    /// on a thread, or fewer longer ones, a future is pending once, so that other tasks have a turn.
    ///
    /// # Errors
    ///
    /// As for [`BlockDevice`], and [`ErrorKind::Misaligned`] for a buffer with another alignment than the device's
    /// ([`BlockDevice::aligned_buffer`] has it).
    ///
    /// ```
    /// use sysuring::block::{self, BlockDevice, Options};
    ///
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut future = std::pin::pin!(future);
    /// #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     loop {
    /// #         if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) { return output }
    /// #         std::thread::yield_now();
    /// #     }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("disk.img");
    /// # block_on(async {
    /// let device = block::open(&path, &Options::new().create(1 << 20))?;
    /// let mut buffer = device.aligned_buffer(8192)?;
    /// buffer.fill(7);
    /// let mut buffer = device.write_async(10, buffer).await?;
    /// device.flush_async().await?;
    /// buffer.fill(0);
    /// let buffer = device.read_async(10, buffer).await?;
    /// assert!(buffer.iter().all(|byte| *byte == 7));
    /// # Ok::<(), sysuring::Error>(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_async(&self, block: u64, buffer: AlignedBuffer) -> TransferFuture {
        self.transfer(Action::Read, block, buffer)
    }

    /// Writes as many blocks from `block` on as the buffer holds, and gives the buffer back; see [`Device::read_async`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_async(&self, block: u64, buffer: AlignedBuffer) -> TransferFuture {
        self.transfer(Action::Write, block, buffer)
    }

    /// As [`Device::write_async`], and the data is on stable storage when it ends (Force Unit Access).
    ///
    /// # Errors
    ///
    /// As for [`Device::read_async`].
    pub fn write_fua_async(&self, block: u64, buffer: AlignedBuffer) -> TransferFuture {
        self.transfer(Action::WriteFua, block, buffer)
    }

    /// When it has ended, all writes that had ended before it was first polled are on stable storage.
    ///
    /// # Errors
    ///
    /// As for [`BlockDevice::flush`].
    pub fn flush_async(&self) -> FlushFuture {
        FlushFuture(TransferFuture::new(State::New(Arc::clone(&self.0), Command::flush(0))))
    }

    fn transfer(&self, action: Action, block: u64, buffer: AlignedBuffer) -> TransferFuture {
        TransferFuture::new(match Command::transfer(self.target(), action, block, buffer, 0) {
            Ok(command) => State::New(Arc::clone(&self.0), command),
            Err(refused) => State::Refused(refused),
        })
    }
}

impl Future for TransferFuture {
    type Output = Result<AlignedBuffer, TransferError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_ended(context) {
            Poll::Ready(Ok(Some(buffer))) => Poll::Ready(Ok(buffer)),
            Poll::Ready(Ok(None)) => unreachable!("a transfer has a buffer"),
            Poll::Ready(Err(failed)) => Poll::Ready(Err(failed)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Future for FlushFuture {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_ended(context).map(|ended| ended.map(drop).map_err(Into::into))
    }
}

impl TransferFuture {
    fn new(state: State) -> Self {
        Self { state, deadline: None }
    }

    /// Ends the transfer with [`ErrorKind::TimedOut`] where it has not ended at that time.
    ///
    /// It is given up then as if the future were dropped: the buffer, which the kernel may still use, comes back only where the
    /// transfer had not begun, and a write may still be carried out. What ends when it is first polled is in time, whatever the
    /// deadline.
    pub fn deadline(mut self, at: Instant) -> Self {
        self.deadline = Some(Deadline::new(at));
        self
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<AlignedBuffer>, TransferError>> {
        let first = self.state.is_first();
        let mut polled = self.state.poll(context);
        if matches!((&self.state, &self.deadline), (State::NextTurn(..), Some(deadline)) if deadline.is_over()) {
            // It may still have its answer at once.
            polled = self.state.poll(context);
        }
        match (&mut self.deadline, &polled) {
            (None, _) => {}
            (Some(_), Poll::Ready(_)) => self.deadline = None,
            (Some(deadline), Poll::Pending) if !deadline.is_over() => deadline.set(context.waker()),
            (Some(_), Poll::Pending) => {
                self.deadline = None;
                let buffer = mem::replace(&mut self.state, State::Over).give_up();
                let error = Error::new(ErrorKind::TimedOut, "a transfer did not end before its deadline");
                polled = Poll::Ready(Err(TransferError::new(error, buffer)));
            }
        }
        if let (Some(bytes), Poll::Ready(_)) = (first, &polled) {
            count_answer(bytes);
        }
        polled
    }
}

impl FlushFuture {
    /// Ends with [`ErrorKind::TimedOut`] where the flush has not ended at that time; see [`TransferFuture::deadline`].
    pub fn deadline(self, at: Instant) -> Self {
        Self(self.0.deadline(at))
    }
}

impl State {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<AlignedBuffer>, TransferError>> {
        let is_next_turn = matches!(self, Self::NextTurn(..));
        // Left where it is until it has ended: a waker that panics when it is cloned loses nothing.
        let polled = match self {
            #[cfg(uring)]
            Self::OnRing(hub, slot) => Some(hub.poll(*slot, context.waker())),
            #[cfg(nvme)]
            Self::OnBigRing(hub, slot) => Some(hub.poll(*slot, context.waker())),
            Self::OnThread(device, _) if device.blocking().workers.are_elsewhere() => {
                Some(Poll::Ready((None, Err(forked()))))
            }
            Self::OnThread(_, job) => Some(job.poll(context.waker()).map(|(command, result)| (command.buffer, result))),
            Self::New(device, command) | Self::NextTurn(device, command) => {
                let target = device.target();
                let is_needed = command.action != Action::Flush || target.may_need_flush();
                if !is_next_turn {
                    if is_needed {
                        target.counters.start(command.action, command.bytes(), target.block_size);
                        command.since = target.begin();
                    }
                    if is_anothers_turn() {
                        wake_by_ref(context.waker());
                        self.give_way();
                        return Poll::Pending;
                    }
                }
                if !is_needed {
                    *self = Self::Over;
                    return Poll::Ready(Ok(None));
                }
                command.read_cached(target).then(|| {
                    target.end(command.action, command.since);
                    Poll::Ready((command.buffer.take(), Ok(())))
                })
            }
            Self::Refused(_) if is_anothers_turn() => {
                wake_by_ref(context.waker());
                return Poll::Pending;
            }
            _ => None,
        };
        if let Some(polled) = polled {
            return polled.map(|outcome| {
                *self = Self::Over;
                answer(outcome)
            });
        }
        if let Self::Refused(_) = self {
            let Self::Refused(refused) = mem::replace(self, Self::Over) else { unreachable!("looked at above") };
            return Poll::Ready(Err(refused));
        }
        // The executor's code, before anything is taken out of where it is.
        let waker = context.waker().clone();
        let outcome = match mem::replace(self, Self::Over) {
            Self::New(device, command) | Self::NextTurn(device, command) => self.begin(device, command, waker),
            Self::InLine(device, command, line) => match line {
                #[cfg(uring)]
                Line::Hub(hub, place) if may_start_on(&hub) => self.start_on(hub, device, command, waker, Some(place)),
                #[cfg(nvme)]
                Line::BigHub(hub, place) if hub.takes_more() => {
                    self.start_on_big(hub, device, command, waker, Some(place))
                }
                line => {
                    line.leave(&device);
                    self.begin(device, command, waker)
                }
            },
            #[cfg(uring)]
            Self::OnRing(..) => unreachable!("polled above"),
            #[cfg(nvme)]
            Self::OnBigRing(..) => unreachable!("polled above"),
            Self::OnThread(..) => unreachable!("polled above"),
            Self::Refused(_) => unreachable!("given out above"),
            Self::Over => panic!("a future is polled after its end"),
        };
        match outcome {
            Some(outcome) => Poll::Ready(answer(outcome)),
            None => Poll::Pending,
        }
    }

    /// How many bytes it has, where it was not polled before.
    fn is_first(&self) -> Option<usize> {
        match self {
            Self::New(_, command) => Some(command.bytes()),
            Self::Refused(_) => Some(0),
            _ => None,
        }
    }

    #[cold]
    fn give_way(&mut self) {
        if let Self::New(device, command) = mem::replace(self, Self::Over) {
            *self = Self::NextTurn(device, command);
        }
    }

    /// Starts the command: gives what it came to, where it has ended already.
    fn begin(&mut self, device: Arc<Picked>, command: Command, waker: Waker) -> Option<Outcome> {
        let command = match &*device {
            Picked::File(..) => command,
            #[cfg(uring)]
            Picked::Uring(uring) => match Self::hub(uring) {
                Ok(hub) => return self.start_on(hub, device, command, waker, None),
                Err(error) => match without_ring(uring, &error) {
                    Ok(()) => command,
                    Err(error) => {
                        count(&device.target().counters.failures, 1);
                        return Some((command.buffer, Err(error)));
                    }
                },
            },
            #[cfg(nvme)]
            Picked::Nvme(uring) => match Passthrough::check(&uring.blocking.target, &command).and(Ok(uring.hubs.get()))
            {
                Ok(Ok(hub)) => return self.start_on_big(hub, device, command, waker, None),
                Ok(Err(error)) => match without_ring(uring, &error) {
                    Ok(()) => command,
                    Err(error) => {
                        count(&device.target().counters.failures, 1);
                        return Some((command.buffer, Err(error)));
                    }
                },
                // There is no room for the metadata behind the data: a thread has a buffer for it.
                Err(_) => command,
            },
        };
        let blocking = device.blocking();
        if blocking.workers.are_elsewhere() {
            // The child of a fork has no threads but this one.
            let mut command = command;
            let result = command.carry_out(blocking);
            blocking.target.end(command.action, command.since);
            count(&blocking.target.counters.failures, u64::from(result.is_err()));
            return Some((command.buffer, result));
        }
        *self = match Jobs::start(&device, command, waker) {
            Ok(job) => Self::OnThread(device, job),
            Err((command, place)) => Self::InLine(device, command, Line::Jobs(place)),
        };
        None
    }

    /// Starts the command on a ring; `place` is where it waited in line.
    #[cfg(uring)]
    fn start_on(
        &mut self,
        hub: Arc<Hub>,
        device: Arc<Picked>,
        command: Command,
        waker: Waker,
        place: Option<Place>,
    ) -> Option<Outcome> {
        *self = match hub.start(device, command, waker, place) {
            Begun::Ended(outcome) => return Some(outcome),
            Begun::Pending(slot) => Self::OnRing(hub, slot),
            Begun::InLine(device, command, place) => Self::InLine(device, command, Line::Hub(hub, place)),
        };
        None
    }

    /// As [`State::start_on`], on a ring with large entries.
    #[cfg(nvme)]
    fn start_on_big(
        &mut self,
        hub: Arc<Hub<Passthrough>>,
        device: Arc<Picked>,
        command: Command,
        waker: Waker,
        place: Option<Place>,
    ) -> Option<Outcome> {
        *self = match hub.start(device, command, waker, place) {
            Begun::Ended(outcome) => return Some(outcome),
            Begun::Pending(slot) => Self::OnBigRing(hub, slot),
            Begun::InLine(device, command, place) => Self::InLine(device, command, Line::BigHub(hub, place)),
        };
        None
    }

    /// The hub of this thread, or the process's.
    #[cfg(uring)]
    fn hub(uring: &super::uring::Uring) -> Result<Arc<Hub>> {
        reactor::of_thread().map_or_else(|| uring.hubs.get(), Ok)
    }
}

thread_local! {
    /// What the futures came to that had their answer when they were first polled, since one last gave way for that reason.
    static ANSWERED: Cell<usize> = const { Cell::new(0) };
}

/// Counts an answer, and the time that it takes to copy so many bytes.
fn count_answer(bytes: usize) {
    ANSWERED.set(ANSWERED.get() + 1 + bytes / 4096);
}

/// Whether so much was answered at once that others of this thread may be waiting for their turn: a task that reads what is in the
/// page cache would not give way by itself.
fn is_anothers_turn() -> bool {
    let is_theirs = ANSWERED.get() >= ENOUGH_ANSWERS;
    if is_theirs {
        ANSWERED.set(0);
    }
    is_theirs
}

/// Whether this thread may start what waits in line there. Where it may not it begins anew elsewhere.
#[cfg(uring)]
fn may_start_on(hub: &Arc<Hub>) -> bool {
    let is_own = || reactor::of_thread().is_some_and(|own| Arc::ptr_eq(&own, hub));
    hub.takes_more() && (!hub.is_attached() || is_own())
}

/// Takes the step down of a device whose futures can have no ring.
#[cfg(uring)]
#[cold]
fn without_ring<W: Wire>(uring: &super::uring::Uring<W>, error: &Error) -> Result<()> {
    uring.degrade(crate::block::Fallback::PreadAtTimes, &format!("futures can't have a ring ({error})"))
}

/// What a future ends with.
fn answer((buffer, result): Outcome) -> Result<Option<AlignedBuffer>, TransferError> {
    match result {
        Ok(()) => Ok(buffer),
        Err(error) => Err(TransferError::new(error, buffer)),
    }
}

impl Line {
    fn leave(&self, device: &Picked) {
        match self {
            #[cfg(uring)]
            Self::Hub(hub, place) => hub.leave(*place),
            #[cfg(nvme)]
            Self::BigHub(hub, place) => hub.leave(*place),
            Self::Jobs(place) => Jobs::leave(device, *place),
        }
    }

    fn give_up(&self, device: &Picked) {
        match self {
            #[cfg(uring)]
            Self::Hub(hub, place) => hub.give_up(*place),
            #[cfg(nvme)]
            Self::BigHub(hub, place) => hub.give_up(*place),
            Self::Jobs(place) => Jobs::give_up(device, *place),
        }
    }
}

impl State {
    /// Gives it up; the buffer comes back where nothing has begun.
    fn give_up(self) -> Option<AlignedBuffer> {
        match self {
            Self::InLine(device, command, line) => {
                line.give_up(&device);
                command.buffer
            }
            #[cfg(uring)]
            Self::OnRing(hub, slot) => {
                hub.abandon(slot);
                None
            }
            #[cfg(nvme)]
            Self::OnBigRing(hub, slot) => {
                hub.abandon(slot);
                None
            }
            Self::OnThread(device, job) => {
                if !device.blocking().workers.are_elsewhere() {
                    job.abandon();
                }
                None
            }
            Self::New(_, command) | Self::NextTurn(_, command) => command.buffer,
            Self::Refused(_) | Self::Over => None,
        }
    }
}

impl Drop for TransferFuture {
    fn drop(&mut self) {
        if !matches!(self.state, State::Over) {
            mem::replace(&mut self.state, State::Over).give_up();
        }
    }
}

impl fmt::Debug for TransferFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused(_) => "refused",
            State::New(..) => "new",
            State::NextTurn(..) => "waits for its turn",
            State::InLine(..) => "waits for room",
            #[cfg(uring)]
            State::OnRing(..) => "in flight",
            #[cfg(nvme)]
            State::OnBigRing(..) => "in flight",
            State::OnThread(..) => "in flight",
            State::Over => "over",
        };
        f.debug_struct("TransferFuture").field("state", &state).finish()
    }
}
