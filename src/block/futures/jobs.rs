//! Futures' commands on `pread` and `pwrite`: each is carried out by one of the device's threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::block::Picked;
use crate::block::command::Command;
use crate::block::futures::waiters::{Place, Waiters, wake};
use crate::block::stats::count;
use crate::error::{Error, ErrorKind, Result};

/// How many of a device's commands are under way, and who waits for room.
#[derive(Default)]
pub(in crate::block) struct Jobs(Mutex<Line>);

#[derive(Default)]
struct Line {
    running: u32,
    waiters: Waiters,
}

/// A command under way.
pub(super) struct Job(Mutex<State>);

enum State {
    Running(Waker),
    Ended(Command, Result<()>),
    /// Nobody wants to hear of its end any more.
    Abandoned,
}

impl Jobs {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread carry out `command`; gives it back, with a place in the line, where the device has enough to do.
    pub(super) fn start(
        device: &Arc<Picked>,
        mut command: Command,
        waker: Waker,
    ) -> Result<Arc<Job>, (Command, Place)> {
        let blocking = device.blocking();
        debug_assert!(!blocking.workers.are_elsewhere(), "there is nobody to carry it out");
        let mut line = blocking.jobs.line();
        if line.running == blocking.target.queue_depth {
            let place = line.waiters.enter(waker);
            return Err((command, place));
        }
        line.running += 1;
        drop(line);
        count(&blocking.target.counters.in_flight, 1);
        let job = Arc::new(Job(Mutex::new(State::Running(waker))));
        let (theirs, device) = (Arc::clone(&job), Arc::clone(device));
        blocking.workers.spawn(Box::new(move || {
            let result = command.carry_out_apart(device.blocking());
            device.target().end(command.action, command.since);
            let counters = &device.target().counters;
            count(&counters.in_flight, 1_u64.wrapping_neg());
            count(&counters.failures, u64::from(result.is_err()));
            let mut line = device.blocking().jobs.line();
            line.running -= 1;
            let mut next: Vec<Waker> = line.waiters.call().into_iter().collect();
            if line.running == 0 {
                next.extend(line.waiters.call_all(0));
            }
            drop(line);
            // Before anybody hears of it: who does may close the device, and expects it to be closed then.
            drop(device);
            let waker = theirs.end(command, result);
            next.into_iter().chain(waker).for_each(wake);
        }));
        Ok(job)
    }

    /// Whether this thread has a reactor, which it has to turn itself.
    pub(in crate::block) fn has_reactor() -> bool {
        #[cfg(uring)]
        let has_reactor = super::reactor::of_thread().is_some();
        #[cfg(not(uring))]
        let has_reactor = false;
        has_reactor
    }

    /// Leaves the line, to try again.
    pub(super) fn leave(device: &Picked, place: Place) {
        if device.blocking().workers.are_elsewhere() {
            return;
        }
        let left = device.blocking().jobs.line().waiters.leave(place);
        drop(left);
    }

    /// Leaves the line for good, and lets another in where room was made for this one.
    pub(super) fn give_up(device: &Picked, place: Place) {
        if device.blocking().workers.are_elsewhere() {
            return;
        }
        let mut line = device.blocking().jobs.line();
        let (left, next) = match line.waiters.leave(place) {
            Some(left) => (Some(left), None),
            None => (None, line.waiters.call()),
        };
        drop(line);
        drop(left);
        next.into_iter().for_each(wake);
    }
}

/// A transfer is on a thread of the parent process.
#[cold]
pub(super) fn forked() -> Error {
    let message = "the transfer was started before a fork and belongs to the parent process; start a new one";
    Error::new(ErrorKind::Forked, message)
}

impl Job {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, command: Command, result: Result<()>) -> Option<Waker> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Abandoned) {
            State::Running(waker) => {
                *state = State::Ended(command, result);
                Some(waker)
            }
            _ => None,
        }
    }

    pub(super) fn poll(&self, waker: &Waker) -> Poll<(Command, Result<()>)> {
        if matches!(&*self.state(), State::Running(known) if known.will_wake(waker)) {
            return Poll::Pending;
        }
        // Not under the lock: it is the executor's code.
        let waker = waker.clone();
        let mut state = self.state();
        let before = match std::mem::replace(&mut *state, State::Abandoned) {
            State::Ended(command, result) => return Poll::Ready((command, result)),
            State::Running(before) => before,
            State::Abandoned => unreachable!("a future is polled after its end"),
        };
        *state = State::Running(waker);
        drop(state);
        drop(before);
        Poll::Pending
    }

    pub(super) fn abandon(&self) {
        let before = std::mem::replace(&mut *self.state(), State::Abandoned);
        drop(before);
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("running", &self.line().running).finish_non_exhaustive()
    }
}
