//! A queue on `pread` and `pwrite`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use {
    crate::block::platform as sys,
    std::fs::File,
    std::os::fd::{AsFd, BorrowedFd},
    std::sync::OnceLock,
};

use crate::block::Picked;
use crate::block::command::{Action, Command};
use crate::block::file::WORTH_HELP;
use crate::error::{Error, ErrorKind, Result};

/// A command that was carried out.
type Outcome = (Command, Result<()>);

/// What a queue on the device's threads has.
pub(super) struct Threads {
    pub(super) buffer_size: usize,
    /// Nobody has begun these.
    started: Vec<Command>,
    ended: Arc<Ended>,
    /// The threads are this process's, and not its children's.
    process: u32,
}

/// Where threads put what they carried out.
#[derive(Default)]
struct Ended {
    list: Mutex<VecDeque<Outcome>>,
    /// Signalled when there is more on the list.
    more: Condvar,
    #[cfg(target_os = "linux")]
    eventfd: OnceLock<File>,
}

impl Ended {
    fn list(&self) -> MutexGuard<'_, VecDeque<Outcome>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event loop that there is more to be taken.
    fn tell(&self) {
        #[cfg(target_os = "linux")]
        if let Some(eventfd) = self.eventfd.get() {
            sys::signal(eventfd);
        }
    }

    fn push(&self, outcome: Outcome) {
        self.list().push_back(outcome);
        self.more.notify_one();
        self.tell();
    }
}

impl Threads {
    pub(super) fn new(buffer_size: usize) -> Self {
        Self { buffer_size, started: Vec::new(), ended: Arc::default(), process: std::process::id() }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn start(&mut self, command: Command) {
        self.started.push(command);
    }

    /// Carries out what takes no longer than to tell another thread of it, and has threads carry out the rest.
    pub(super) fn submit(&mut self, device: &Arc<Picked>, ready: &mut VecDeque<Outcome>) -> Result<()> {
        if self.process != std::process::id() {
            let message = "the queue was made before a fork and belongs to the parent process; make a new one";
            return Err(Error::new(ErrorKind::Forked, message));
        }
        let blocking = device.blocking();
        for mut command in self.started.drain(..) {
            let is_copy = !blocking.target.direct && matches!(command.action, Action::Read | Action::Write);
            if is_copy && command.bytes() < WORTH_HELP {
                let result = command.carry_out(blocking);
                ready.push_back((command, result));
                self.ended.tell();
                continue;
            }
            let (device, ended) = (Arc::clone(device), Arc::clone(&self.ended));
            blocking.workers.spawn(Box::new(move || {
                let result = command.carry_out(device.blocking());
                // Before anybody hears of it: who does may close the device, and expects it to be closed then.
                drop(device);
                ended.push((command, result));
            }));
        }
        Ok(())
    }

    /// Waits until `ready` has `count`, for `limit` at most.
    pub(super) fn wait(&self, count: usize, limit: Option<Duration>, ready: &mut VecDeque<Outcome>) {
        if ready.len() >= count {
            return;
        }
        // A limit too long to add up is none.
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut list = self.ended.list();
        loop {
            ready.append(&mut list);
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if ready.len() >= count || left.is_some_and(|left| left.is_zero()) {
                return;
            }
            list = match left {
                None => self.ended.more.wait(list).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.ended.more.wait_timeout(list, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    pub(super) fn poll(&self, ready: &mut VecDeque<Outcome>) -> Option<Outcome> {
        ready.append(&mut self.ended.list());
        #[cfg(target_os = "linux")]
        if let (true, Some(eventfd)) = (ready.is_empty(), self.ended.eventfd.get()) {
            sys::reset(eventfd);
            // What came before that was told of by nobody else.
            ready.append(&mut self.ended.list());
        }
        ready.pop_front()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn completion_fd(&self) -> Result<BorrowedFd<'_>> {
        let eventfd = match self.ended.eventfd.get() {
            Some(eventfd) => eventfd,
            None => {
                let made = sys::eventfd().map_err(|error| Error::from_io(error, "make an eventfd"))?;
                // What has ended already is told of, too.
                sys::signal(&made);
                self.ended.eventfd.get_or_init(|| made)
            }
        };
        Ok(eventfd.as_fd())
    }
}
