//! A queue on a ring of its own.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::block::command::{Action, Command, Next, TransferError, transfer};
use crate::block::target::{Setbacks, Target};
use crate::block::uring::Uring;
use crate::block::wire::{Plain, Wire};
use crate::block::{AlignedBuffer, Fallback, Picked, platform};
use crate::completion::Completion;
use crate::core::{Operation, Room};
use crate::error::{Error, ErrorKind, Result};
use crate::file::FixedFile;
use crate::pool::Pool;
use crate::raw_ring::is_passing;
use crate::rejected::{RejectReason, Rejected};
use crate::ring::Ring;

/// What a queue on a ring has.
pub(super) struct RingLane<W: Wire = Plain> {
    ring: Ring<Command, W::Entries>,
    file: FixedFile,
    pool: Pool,
    buffer_size: usize,
    /// Of the submit that is under way.
    setbacks: Setbacks,
    /// Commands were handed over again and not submitted.
    has_unsubmitted: bool,
    /// It was left to the next submit to have the kernel post what it holds back.
    is_left_to_submit: bool,
    is_polled: bool,
    eventfd: Option<File>,
}

impl RingLane {
    /// Room for one more command, where nothing is out of the ordinary.
    #[inline(always)]
    pub(super) fn room(&mut self) -> Option<Room> {
        self.ring.core().room(&self.file)
    }

    /// Starts a transfer that was checked.
    ///
    /// # Safety
    ///
    /// [`RingLane::room`] gave `room` just now.
    #[inline(always)]
    pub(super) unsafe fn start_in(
        &mut self,
        room: Room,
        action: Action,
        offset: u64,
        buffer: AlignedBuffer,
        tag: u64,
        since: u64,
    ) {
        let core = self.ring.core();
        let address = buffer.address().expose_provenance() as u64;
        let operation = Operation { address, ..transfer(core, action, offset, &buffer, 0) };
        // Made where it is moved to, and not before.
        let command = Command::new(action, tag, since, offset, Some(buffer));
        // SAFETY: the same obligation.
        unsafe { core.start_in(room, operation, command) };
    }
}

impl<W: Wire> RingLane<W> {
    /// `None` where there is no ring to be had.
    pub(super) fn new(device: &Uring<W>, depth: u32, buffer_size: usize) -> Result<Option<Self>> {
        // That there is no memory is no reason to go without a ring.
        let pool = W::queue_pool(&device.blocking.target, depth, buffer_size)?;
        let kind = device.kind();
        let made = kind.make_core(depth).and_then(|core| {
            let mut ring = Ring::new(core);
            let file = ring.register_file(&device.blocking.target.file)?;
            Ok((ring, file))
        });
        let (mut ring, file) = match made {
            Ok(made) => made,
            Err(error) => {
                device.degrade(Fallback::PreadAtTimes, &format!("a queue can't have a ring ({error})"))?;
                return Ok(None);
            }
        };
        if let Err(error) = ring.register_pool(&pool) {
            device.report_unregistered(&error, depth as usize * pool.slot_size())?;
        }
        let (setbacks, is_polled) = (Setbacks::default(), kind.iopoll);
        Ok(Some(Self {
            ring,
            file,
            pool,
            buffer_size,
            setbacks,
            has_unsubmitted: false,
            is_left_to_submit: false,
            is_polled,
            eventfd: None,
        }))
    }

    pub(super) fn buffer(&self) -> Option<AlignedBuffer> {
        self.pool.lease().map(|buf| AlignedBuffer::of_lease(buf, self.buffer_size))
    }

    /// Starts a command where there may be no room.
    #[cold]
    #[inline(never)]
    pub(super) fn start(&mut self, target: &Target, command: Command) -> Result<(), TransferError> {
        if let Err(error) = W::check(target, &command) {
            return Err(TransferError::new(error, command.buffer));
        }
        self.push(target, command).map_err(|rejected| {
            let error = rejected.reason().into();
            TransferError::new(error, rejected.into_inner().buffer)
        })
    }

    fn push(&mut self, target: &Target, command: Command) -> Result<(), Rejected<Command>> {
        match W::push(self.ring.core(), target, Some(&self.file), command) {
            Ok(_) => Ok(()),
            Err(rejected) => self.push_again(target, rejected),
        }
    }

    /// There may be no room before a submit: commands that are started again find the places of others taken.
    #[cold]
    #[inline(never)]
    fn push_again(&mut self, target: &Target, rejected: Rejected<Command>) -> Result<(), Rejected<Command>> {
        if rejected.reason() != RejectReason::QueueFull || self.submit(0, None).is_err() {
            return Err(rejected);
        }
        W::push(self.ring.core(), target, Some(&self.file), rejected.into_inner()).map(drop)
    }

    pub(super) fn submit(&mut self, wait: u32, limit: Option<Duration>) -> Result<()> {
        self.is_left_to_submit = false;
        let core = self.ring.core();
        loop {
            let wait = wait.saturating_sub(core.waiting());
            let submitted = match limit {
                Some(limit) => core.submit_and_wait_timeout(wait, limit),
                None => core.submit_and_wait(wait),
            };
            match submitted {
                // It took a part, and says why not more, or takes it, when it is asked again.
                Ok(_) if wait == 0 && !core.queues().is_consumed() => {}
                Ok(_) => {
                    self.has_unsubmitted = false;
                    self.setbacks = Setbacks::default();
                    return Ok(());
                }
                // A signal while nothing was submitted: who limits the wait may look whether it came for them.
                Err(error) if error.raw_os_error() == Some(libc::EINTR) && limit.is_some() => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if is_passing(&error) && self.setbacks.may_try_again() => {
                    core.reap();
                    std::thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what the kernel is through with, and what it says of it: which need not be the end of the command.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<(Command, i32)> {
        loop {
            match self.ring.core().next_completion() {
                Some(Completion::Done(done)) => {
                    let result = done.raw_result();
                    if let Some(command) = done.into_owned() {
                        return Some((command, result));
                    }
                }
                Some(_) => {}
                None if self.may_have_more() => {}
                None => return None,
            }
        }
    }

    /// Looks where completions may be that are not in the queue; whether it is worth to look there again.
    #[cold]
    #[inline(never)]
    fn may_have_more(&mut self) -> bool {
        if self.ring.core().check_usable().is_err() {
            // In the child of a fork the descriptor is the parent's too, and must still tell it.
            return false;
        }
        if self.has_unsubmitted {
            // What it can't submit goes with the next one.
            return self.submit(0, None).is_ok();
        }
        if !self.is_left_to_submit && !self.ring.core().queues().is_consumed() {
            // A submit is due, by which the kernel posts what it holds back as well: to enter it for that alone would be one call
            // more, and keep the disk waiting. Who asks again before may not have a submit in mind. The descriptor tells on.
            self.is_left_to_submit = true;
            return false;
        }
        if let Some(eventfd) = &self.eventfd {
            if platform::reset(eventfd) {
                if self.ring.core().queues().has_completions() {
                    // It told of these, of which the caller may take one and wait for the next.
                    platform::signal(eventfd);
                }
                return true;
            }
        }
        let core = self.ring.core();
        if !core.queues().is_usable() || !(core.queues().holds_back() || self.is_polled) {
            return false;
        }
        if self.is_polled {
            // Entering it polls the disk. That it fails is for the next submit to say.
            let _ = core.submit();
        } else {
            core.flush_completions();
        }
        core.queues().has_completions()
    }

    /// Goes on with a command that failed, or was carried out in part.
    #[cold]
    #[inline(never)]
    pub(super) fn go_on(
        &mut self,
        device: &Picked,
        mut command: Command,
        result: i32,
    ) -> Option<(Command, Result<()>)> {
        let why = match W::advance(device.target(), &mut command, result) {
            Next::Ended(result) => return Some((command, result)),
            Next::Again => match self.push(device.target(), command) {
                Ok(()) => {
                    self.has_unsubmitted = true;
                    return None;
                }
                Err(rejected) => {
                    let reason = rejected.reason();
                    return Some((rejected.into_inner(), Err(reason.into())));
                }
            },
            Next::ByHand(why) => why,
        };
        Some(device.carry_out(command, why))
    }

    /// Whether its ring polls for completions.
    #[cfg(nvme)]
    pub(super) fn is_polled(&self) -> bool {
        self.is_polled
    }

    /// Tells an event loop that something has ended.
    pub(super) fn tell(&self) {
        self.eventfd.iter().for_each(platform::signal);
    }

    pub(super) fn completion_fd(&mut self) -> Result<BorrowedFd<'_>> {
        if self.is_polled {
            let message =
                "completions of this device are polled for, which no descriptor tells; leave Options::iopoll off";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        self.ring.core().check_usable()?;
        if self.eventfd.is_none() {
            let made = platform::eventfd().map_err(|error| Error::from_io(error, "make an eventfd"))?;
            self.ring.register_eventfd(&made)?;
            // What has ended already is told of, too.
            platform::signal(&made);
            self.eventfd = Some(made);
        }
        match &self.eventfd {
            Some(eventfd) => Ok(eventfd.as_fd()),
            None => unreachable!("made above"),
        }
    }
}
