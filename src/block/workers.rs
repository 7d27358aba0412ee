//! A few threads that help with the batches of a device on `pread` and `pwrite`, and carry out what nobody waits for.
//!
//! They are started when there is first something for them to do, and end with the device. The caller works too, so that a
//! batch gets done where no thread can be started, where all are busy with other batches, and in the child of a `fork`, which
//! has none.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::block::foreign;
use crate::block::process::Process;

/// Threads for one device.
pub(super) struct Workers {
    shared: Arc<Shared>,
    most: usize,
    /// Whose threads they are: in its children there are none, and the lock may be held for ever.
    process: Process,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when there is work, and when there will never be any more.
    work: Condvar,
    /// Signalled when a helper is through with a job.
    done: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    /// Threads that wait for something to do.
    idle: usize,
    is_closed: bool,
    /// Jobs made so far.
    made: u64,
}

/// Something for a thread to do.
enum Work {
    /// A place for a helper.
    Help(Arc<Job>),
    /// Something that nobody waits for here.
    Alone(Box<dyn FnOnce() + Send>),
}

impl Work {
    fn is_of(&self, number: u64) -> bool {
        matches!(self, Self::Help(job) if job.number == number)
    }
}

/// What the helpers of one call do.
struct Job {
    number: u64,
    /// Valid as long as the call that made it has not returned; it returns when nobody is `helping` and no place is queued.
    work: *const (dyn Fn() + Sync),
    /// Helpers that have begun and not ended; changed under the lock.
    helping: AtomicUsize,
}

// SAFETY: what it points to is `Sync`, and is called only as long as it is there: see `Workers::run`.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that no thread is there for, and none will come: whoever started that one thread less takes it as well.
    fn take_from_nobody(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let mut state = self.lock();
        let index = state.queue.iter().position(|work| state.threads == 0 && matches!(work, Work::Alone(_)))?;
        match state.queue.remove(index) {
            Some(Work::Alone(work)) => Some(work),
            _ => None,
        }
    }

    /// What a helper does until the device is closed.
    fn help(&self) {
        let mut state = self.lock();
        loop {
            match state.queue.pop_front() {
                Some(Work::Help(job)) => {
                    job.helping.fetch_add(1, Relaxed);
                    drop(state);
                    let through = Through { shared: self, job: &job };
                    // SAFETY: the call that made the job waits until nobody helps, and this one has said under the lock
                    // that it does, when its place was still queued.
                    unsafe { (*job.work)() };
                    drop(through);
                    state = self.lock();
                }
                Some(Work::Alone(work)) => {
                    drop(state);
                    // A panic has told, and there is more to do than this.
                    foreign::call(work);
                    state = self.lock();
                }
                None if state.is_closed => return,
                None => {
                    state.idle += 1;
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
    }
}

/// Says that a helper is through. One that panicked ends the process: what it had to do is not done, and nobody would know.
struct Through<'a> {
    shared: &'a Shared,
    job: &'a Job,
}

impl Drop for Through<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
        let state = self.shared.lock();
        self.job.helping.fetch_sub(1, Relaxed);
        drop(state);
        self.shared.done.notify_all();
    }
}

/// Ends a call: takes back the places that nobody took, and waits for those who help.
struct Call<'a> {
    shared: &'a Shared,
    job: &'a Job,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.queue.retain(|queued| !queued.is_of(self.job.number));
        while self.job.helping.load(Relaxed) != 0 {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Workers {
    /// At most so many threads, none of which is started yet.
    pub(super) fn new(most: usize) -> Self {
        let shared = Shared { state: Mutex::default(), work: Condvar::new(), done: Condvar::new() };
        Self { shared: Arc::new(shared), most, process: Process::current() }
    }

    /// Whether this is the child of a `fork`, in which the threads are not.
    pub(super) fn are_elsewhere(&self) -> bool {
        !self.process.is_this()
    }

    /// Whether nothing is queued, and all threads wait for something to do: what they carried out is gone.
    pub(super) fn are_idle(&self) -> bool {
        let state = self.shared.lock();
        state.queue.is_empty() && state.idle == state.threads
    }

    /// Calls `work` in this thread, and in up to `helpers` others at the same time; returns when all calls have returned.
    pub(super) fn run(&self, helpers: usize, work: &(dyn Fn() + Sync)) {
        let helpers = helpers.min(self.most);
        if helpers == 0 || self.are_elsewhere() {
            return work();
        }
        let work_pointer: *const (dyn Fn() + Sync + '_) = work;
        // SAFETY: changes the lifetime of what is pointed to and nothing else; `Call` keeps the promise that `Job::work` makes.
        let work_pointer = unsafe {
            std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const (dyn Fn() + Sync + 'static)>(work_pointer)
        };
        let mut state = self.shared.lock();
        state.made += 1;
        let job = Arc::new(Job { number: state.made, work: work_pointer, helping: 0.into() });
        state.queue.extend(std::iter::repeat_n(&job, helpers).cloned().map(Work::Help));
        // The caller works too: it waits for none of the threads.
        let _call = Call { shared: &self.shared, job: &job };
        self.start_threads(state);
        self.shared.work.notify_all();
        work();
    }

    /// Has a thread carry out `work`, some time; returns at once, unless there is no thread to be had, as in the child of a `fork`.
    pub(super) fn spawn(&self, work: Box<dyn FnOnce() + Send>) {
        if self.most == 0 || self.are_elsewhere() {
            return work();
        }
        let mut state = self.shared.lock();
        state.queue.push_back(Work::Alone(work));
        self.start_threads(state);
        self.shared.work.notify_one();
    }

    /// Starts threads where there is more to do than threads are idle. Where one can't be started, and there is none, what
    /// nobody else would do is done here, whoever put it there.
    fn start_threads(&self, mut state: MutexGuard<'_, State>) {
        let wanted = state.queue.len().saturating_sub(state.idle).min(self.most - state.threads);
        state.threads += wanted;
        drop(state);
        let mut all_started = true;
        for _ in 0..wanted {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("sysuring-block".to_owned());
            if thread.spawn(move || shared.help()).is_err() {
                // No thread to be had: the caller does it.
                self.shared.lock().threads -= 1;
                all_started = false;
            }
        }
        if !all_started {
            while let Some(work) = self.shared.take_from_nobody() {
                work();
            }
        }
    }
}

impl Drop for Workers {
    /// Threads carry out what is queued, and end by themselves.
    fn drop(&mut self) {
        if self.are_elsewhere() {
            return;
        }
        self.shared.lock().is_closed = true;
        self.shared.work.notify_all();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_through_when_a_call_returns() {
        let workers = Workers::new(4);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for items in [1, 2, 7, 100] {
                        let (next, done, inside) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
                        workers.run(items - 1, &|| {
                            inside.fetch_add(1, Relaxed);
                            while next.fetch_add(1, Relaxed) < items {
                                std::thread::yield_now();
                                done.fetch_add(1, Relaxed);
                            }
                            inside.fetch_sub(1, Relaxed);
                        });
                        assert_eq!((done.into_inner(), inside.into_inner()), (items, 0));
                    }
                });
            }
        });
        assert!(workers.shared.lock().threads <= 4);
        assert!(workers.shared.lock().queue.is_empty());
    }

    #[test]
    fn helpers_work_at_the_same_time() {
        let workers = Workers::new(3);
        let barrier = std::sync::Barrier::new(4);
        // Nobody gets past it alone.
        workers.run(3, &|| {
            barrier.wait();
        });
    }

    #[test]
    fn a_panic_of_the_caller_waits_for_its_helpers() {
        let workers = Workers::new(2);
        let caller = std::thread::current().id();
        let (begun, ended) = (std::sync::Barrier::new(3), AtomicUsize::new(0));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            workers.run(2, &|| {
                begun.wait();
                assert_ne!(std::thread::current().id(), caller, "on purpose");
                std::thread::sleep(std::time::Duration::from_millis(20));
                ended.fetch_add(1, Relaxed);
            });
        }));
        assert!(unwound.is_err());
        assert_eq!(ended.into_inner(), 2);
        workers.run(2, &|| ());
    }

    #[test]
    fn what_panics_alone_takes_no_thread_along() {
        let workers = Workers::new(1);
        for _ in 0..3 {
            workers.spawn(Box::new(|| panic!("on purpose")));
        }
        let (ended, hear) = std::sync::mpsc::channel();
        workers.spawn(Box::new(move || ended.send(()).unwrap()));
        hear.recv_timeout(std::time::Duration::from_secs(10)).expect("the one thread is there");
        assert_eq!(workers.shared.lock().threads, 1);
    }
}
