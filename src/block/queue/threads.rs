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

use crate::block::command::{Action, Command, TransferError};
use crate::block::file::WORTH_HELP;
use crate::block::process::Process;
use crate::block::{AlignedBuffer, Picked};
use crate::error::{Error, ErrorKind, Result};

/// A command that was carried out.
type Outcome = (Command, Result<()>);

/// What a queue on the device's threads has.
pub(super) struct Threads {
    depth: usize,
    buffer_size: usize,
    /// Has one owner more than there are buffers of the queue's own.
    lent: Arc<()>,
    /// Nobody has begun these.
    started: Vec<Command>,
    ended: Arc<Ended>,
    /// The threads are this process's, and not its children's.
    process: Process,
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
    pub(super) fn new(depth: u32, buffer_size: usize) -> Self {
        let (depth, lent) = (depth as usize, Arc::default());
        Self { depth, buffer_size, lent, started: Vec::new(), ended: Arc::default(), process: Process::current() }
    }

    /// As many as a queue on a ring has, so that what works on one does on the other.
    pub(super) fn buffer(&self, alignment: usize) -> Option<AlignedBuffer> {
        if Arc::strong_count(&self.lent) > self.depth {
            return None;
        }
        let buffer = AlignedBuffer::for_transfers(self.buffer_size, alignment).ok()?;
        Some(buffer.counted(&self.lent))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn start(&mut self, command: Command) -> Result<(), TransferError> {
        if !self.process.is_this() {
            return Err(TransferError::new(forked(), command.buffer));
        }
        self.started.push(command);
        Ok(())
    }

    /// Carries out what takes no longer than to tell another thread of it, and has threads carry out the rest.
    pub(super) fn submit(&mut self, device: &Arc<Picked>, ready: &mut VecDeque<Outcome>) -> Result<()> {
        if !self.process.is_this() {
            return Err(forked());
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
                let result = command.carry_out_apart(device.blocking());
                // Before anybody hears of it: who does may close the device, and expects it to be closed then.
                drop(device);
                ended.push((command, result));
            }));
        }
        Ok(())
    }

    /// Tells an event loop that something has ended.
    pub(super) fn tell(&self) {
        self.ended.tell();
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
        if !self.process.is_this() {
            // The descriptor is the parent's too, and must still tell it.
            return None;
        }
        ready.append(&mut self.ended.list());
        #[cfg(target_os = "linux")]
        if let (true, Some(eventfd)) = (ready.is_empty(), self.ended.eventfd.get()) {
            sys::reset(eventfd);
            // What came before that was told of by nobody else.
            ready.append(&mut self.ended.list());
            if ready.len() > 1 {
                self.ended.tell();
            }
        }
        ready.pop_front()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn completion_fd(&self) -> Result<BorrowedFd<'_>> {
        if !self.process.is_this() {
            return Err(forked());
        }
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

#[cold]
fn forked() -> Error {
    let message = "the queue was made before a fork and belongs to the parent process; make a new one";
    Error::new(ErrorKind::Forked, message)
}
