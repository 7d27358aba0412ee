//! Wakes futures when their time is over: one thread for all, started when the first future has a deadline.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crate::block::futures::waiters::wake;

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
    made: u64,
    has_thread: bool,
    /// The thread's; the child of a fork has not got it.
    process: u32,
}

impl Timer {
    fn get() -> &'static Self {
        static TIMER: OnceLock<Timer> = OnceLock::new();
        TIMER.get_or_init(|| Self { state: Mutex::default(), earlier: Condvar::new() })
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
        state.made += 1;
        let entry = (self.at, state.made);
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
                log::error!("no thread can be started for deadlines, which pass without a word: {error}");
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
