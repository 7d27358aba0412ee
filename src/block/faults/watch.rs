//! Ends the process where a program hangs: that is a failure, and is to be told as one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Steps of a program that are printed where it fails.
const LAST_STEPS: usize = 24;
/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Shared {
    steps: AtomicU64,
    is_over: AtomicBool,
    last: Mutex<VecDeque<String>>,
}

/// Watches one program. Where that panics or hangs, its last steps are printed.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: RefCell<Option<std::thread::JoinHandle<()>>>,
}

impl Watch {
    pub(super) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut known = u64::MAX;
            while !theirs.is_over.load(Ordering::Acquire) {
                std::thread::park_timeout(PATIENCE);
                let steps = theirs.steps.load(Ordering::Relaxed);
                if steps == known && !theirs.is_over.load(Ordering::Acquire) {
                    eprintln!("a step of a program did not end in {PATIENCE:?}");
                    theirs.print();
                    std::process::abort();
                }
                known = steps;
            }
        });
        Self { shared, thread: RefCell::new(Some(thread)) }
    }

    /// Says what is done next.
    pub(super) fn step(&self, what: fmt::Arguments<'_>) {
        self.shared.steps.fetch_add(1, Ordering::Relaxed);
        let mut last = self.shared.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = if last.len() == LAST_STEPS { last.pop_front().unwrap_or_default() } else { String::new() };
        line.clear();
        let _ = fmt::Write::write_fmt(&mut line, what);
        last.push_back(line);
    }
}

impl Shared {
    fn print(&self) {
        eprintln!("the last steps of the program, of {}:", self.steps.load(Ordering::Relaxed));
        for line in self.last.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            eprintln!("  {line}");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if std::thread::panicking() {
            self.shared.print();
        }
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
