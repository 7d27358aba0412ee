//! Wakes futures when their time is over: one thread for all, started when the first future has a deadline.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crate::block::foreign;
use crate::block::futures::waiters::wake;
use crate::error::Error;
#[cfg(uring)]
use crate::fork::PerProcess;

/// Tells entries of one moment apart, those of a parent process too.
static MADE: AtomicU64 = AtomicU64::new(0);

/// When to wake whom; the number tells those of one moment apart.
type Entry = (Instant, u64);

/// A time that a future waits for, at most.
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// Under which the timer has the future's waker.
    entry: Option<u64>,
}

struct Timer {
    state: Mutex<State>,
    /// Signalled when there is an earlier time than the thread waits for.
    earlier: Condvar,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Entry, Waker>,
    has_thread: bool,
    /// The thread's; the child of a fork has not got it.
    process: u32,
}

impl Timer {
    fn get() -> &'static Self {
        static TIMER: OnceLock<Timer> = OnceLock::new();
        let make = || Self { state: Mutex::default(), earlier: Condvar::new() };
        #[cfg(uring)]
        {
            // In the child of a fork the lock may be held by a thread of the parent.
            static OF_PROCESS: PerProcess<Timer> = PerProcess::new();
            if let Ok(timer) = OF_PROCESS.get(make) {
                return timer;
            }
        }
        TIMER.get_or_init(make)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does, for as long as there are deadlines.
    fn serve(&'static self) {
        let mut state = self.lock();
        loop {
            let Some(&first) = state.entries.keys().next() else {
                state.has_thread = false;
                return;
            };
            let left = first.0.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waker = state.entries.remove(&first);
                // It is the executor's code.
                drop(state);
                waker.into_iter().for_each(wake);
                state = self.lock();
            } else {
                state = self.earlier.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Deadline {
    pub(super) fn new(at: Instant) -> Self {
        Self { at, entry: None }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Wakes `waker` at that time, in place of who was to be woken before.
    pub(super) fn set(&mut self, waker: &Waker) {
        let timer = Timer::get();
        // Not under the lock: it is the executor's code.
        let waker = waker.clone();
        let mut state = timer.lock();
        let before = self.entry.and_then(|entry| state.entries.remove(&(self.at, entry)));
        let entry = (self.at, MADE.fetch_add(1, Ordering::Relaxed));
        self.entry = Some(entry.1);
        state.entries.insert(entry, waker);
        let is_first = state.entries.keys().next() == Some(&entry);
        let process = std::mem::replace(&mut state.process, std::process::id());
        let needs_thread = !std::mem::replace(&mut state.has_thread, true) || process != state.process;
        drop(state);
        drop(before);
        if needs_thread {
            let thread = std::thread::Builder::new().name("sysuring-timer".to_owned());
            if let Err(error) = thread.spawn(move || timer.serve()) {
                timer.lock().has_thread = false;
                let error = Error::from_io(error, "start the thread that wakes futures at their deadlines");
                foreign::call(|| {
                    log::error!(
                        "{error}; they go on, and are timed out only where something else polls them (see `ulimit -u`)"
                    );
                });
            }
        } else if is_first {
            timer.earlier.notify_one();
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            let waker = Timer::get().lock().entries.remove(&(self.at, entry));
            drop(waker);
        }
    }
}

#[cfg(all(test, uring))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_child_has_deadlines_whatever_its_parents_threads_did() {
        let mut parents = Deadline::new(Instant::now() + Duration::from_secs(3600));
        parents.set(Waker::noop());
        // As a thread would that is not in the child.
        let held = Timer::get().lock();
        // SAFETY: what the child does allocates at most, which glibc supports after fork.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends a child that hangs, by a signal.
            unsafe { libc::alarm(20) };
            let mut own = Deadline::new(parents.at);
            own.set(Waker::noop());
            drop(parents);
            let is_there = Timer::get().lock().entries.len() == 1;
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(i32::from(!is_there)) }
        }
        drop(held);
        let mut status = 0;
        // SAFETY: `status` is live; the child made above, once.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child's timer is its parent's, or hangs");
    }
}
