//! Threads that wait for completions of one ring.
//!
//! The lock is held to start, to submit and to take completions, never across a wait. Of the threads that wait for
//! something, one (the leader) waits in the kernel; the others park. The leader alone takes completions while it leads: it
//! takes all that are there, each goes to the table's done list under its ticket, and everybody looks whether theirs is
//! among them. A leader whose own operation ended leaves, and one of those that it wakes leads next. Nobody can be left
//! behind: whoever goes to sleep has seen, under the lock, that a leader is there and that its own operation has not
//! ended; and a leader that leaves wakes everybody. So where there is no leader, nobody sleeps that was not woken, and who
//! takes completions then need not wake anybody.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::{Error, Result};
use crate::fork::ForkMark;
use crate::rejected::RejectReason;
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What completions come from.
pub(crate) trait Source {
    /// What is waited on, without the lock.
    type Descriptor;

    /// Takes the completions that are there.
    fn reap(&mut self);

    /// Whether there will be others.
    fn check_usable(&self) -> Result<()>;

    fn descriptor(&self) -> Self::Descriptor;

    /// Waits until a completion is there. An error that passes is none.
    fn wait(descriptor: Self::Descriptor) -> Result<()>;

    /// What waiting ended with, told under the lock: it may be that there will be no other completions.
    fn failed(&mut self, error: &Error);
}

/// Something that threads share, take completions from and wait for.
pub(crate) struct Led<S> {
    /// Outside of the lock: in the child of a `fork` the lock may be held by a thread that does not exist there.
    mark: ForkMark,
    state: Mutex<State<S>>,
    /// Signalled when a leader leaves.
    left: Condvar,
}

struct State<S> {
    source: S,
    /// A thread is waiting in the kernel, and nobody else takes completions.
    has_leader: bool,
    /// How many sleep until the leader leaves: waking nobody would be a system call too.
    parked: u32,
}

/// The source, while the lock is held.
pub(crate) struct Locked<'a, S>(MutexGuard<'a, State<S>>);

impl<S> Led<S> {
    pub(crate) fn new(source: S, mark: ForkMark) -> Self {
        Self { mark, state: Mutex::new(State { source, has_leader: false, parked: 0 }), left: Condvar::new() }
    }

    /// `None` in the child of a `fork`.
    pub(crate) fn lock(&self) -> Option<Locked<'_, S>> {
        // Nothing of ours panics while it holds the lock with the table half changed.
        self.mark.is_alive().then(|| Locked(self.state.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<S: Source> Led<S> {
    /// Waits until `is_over`, which looks at the source under the lock whenever completions were taken.
    pub(crate) fn wait_until(&self, mut is_over: impl FnMut(&mut S) -> bool) -> Result<()> {
        let mut state = self.lock().ok_or_else(forked)?.0;
        loop {
            if !state.has_leader {
                state.source.reap();
            }
            if is_over(&mut state.source) {
                return Ok(());
            }
            state.source.check_usable()?;
            if state.has_leader {
                state.parked += 1;
                state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.parked -= 1;
                continue;
            }
            state.has_leader = true;
            let descriptor = state.source.descriptor();
            drop(state);
            let waited = S::wait(descriptor);
            state = self.lock().ok_or_else(forked)?.0;
            state.has_leader = false;
            state.source.reap();
            if let Err(error) = &waited {
                state.source.failed(error);
            }
            if state.parked > 0 {
                self.left.notify_all();
            }
            if let Err(error) = waited {
                return state.source.check_usable().and(Err(error));
            }
        }
    }
}

pub(crate) fn forked() -> Error {
    RejectReason::Forked.into()
}

impl<S> Deref for Locked<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0.source
    }
}

impl<S> DerefMut for Locked<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.0.source
    }
}

impl<S> fmt::Debug for Locked<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").field("has_leader", &self.0.has_leader).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use crate::sync::Arc;

    /// A completion queue: numbers of operations that ended.
    struct Kernel {
        posted: Mutex<Vec<usize>>,
        changed: Condvar,
    }

    impl Kernel {
        fn post(&self, operation: usize) {
            self.posted.lock().unwrap().push(operation);
            self.changed.notify_all();
        }
    }

    struct Operations {
        kernel: Arc<Kernel>,
        done: [bool; 3],
    }

    impl Source for Operations {
        type Descriptor = Arc<Kernel>;

        fn reap(&mut self) {
            for operation in self.kernel.posted.lock().unwrap().drain(..) {
                assert!(!std::mem::replace(&mut self.done[operation], true), "taken twice");
            }
        }

        fn check_usable(&self) -> Result<()> {
            Ok(())
        }

        fn descriptor(&self) -> Arc<Kernel> {
            Arc::clone(&self.kernel)
        }

        fn wait(kernel: Arc<Kernel>) -> Result<()> {
            let mut posted = kernel.posted.lock().unwrap();
            while posted.is_empty() {
                posted = kernel.changed.wait(posted).unwrap();
            }
            Ok(())
        }

        fn failed(&mut self, error: &Error) {
            panic!("{error}");
        }
    }

    fn wait_for(led: &Led<Operations>, operation: usize) {
        led.wait_until(|operations| operations.done[operation]).unwrap();
        assert!(led.lock().unwrap().done[operation], "taken by nobody else");
    }

    /// Threads wait for an operation each, which end one after another.
    fn hand_over(waiting: usize, switches: usize) {
        crate::sync::model(switches, move || {
            let kernel = Arc::new(Kernel { posted: Mutex::new(Vec::new()), changed: Condvar::new() });
            let operations = Operations { kernel: Arc::clone(&kernel), done: [false; 3] };
            let led = Arc::new(Led::new(operations, ForkMark::current().unwrap()));
            let threads: Vec<_> = (1..waiting)
                .map(|operation| {
                    let led = Arc::clone(&led);
                    loom::thread::spawn(move || wait_for(&led, operation))
                })
                .collect();
            let posts = loom::thread::spawn(move || (0..waiting).for_each(|operation| kernel.post(operation)));
            wait_for(&led, 0);
            posts.join().unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    /// Fails where the leader wakes nobody, and where there are two since `has_leader` is not set: one sleeps for ever.
    #[test]
    fn loom_a_leader_that_leaves_is_followed_by_another() {
        hand_over(2, 3);
    }

    /// With a third, so that two are parked at once. Fails where the leader wakes only one of them (`notify_one`), which may
    /// be one whose operation has not ended.
    #[test]
    fn loom_all_that_wait_come_back() {
        hand_over(3, 2);
    }
}

#[cfg(all(test, not(loom)))]
mod lost {
    use super::*;

    /// A ring that lost completions, which the kernel tells once.
    struct Lost {
        is_told: bool,
    }

    impl Source for Lost {
        type Descriptor = bool;

        fn reap(&mut self) {}

        fn check_usable(&self) -> Result<()> {
            if self.is_told { Err(RejectReason::Poisoned.into()) } else { Ok(()) }
        }

        fn descriptor(&self) -> bool {
            self.is_told
        }

        fn wait(is_told: bool) -> Result<()> {
            assert!(!is_told, "nobody waits any more: it would be for ever");
            Err(Error::from_errno(libc::EBADR, "wait for completions"))
        }

        fn failed(&mut self, error: &Error) {
            self.is_told = error.raw_os_error() == Some(libc::EBADR);
        }
    }

    #[test]
    fn all_that_wait_hear_of_lost_completions() {
        let led = Led::new(Lost { is_told: false }, ForkMark::current().unwrap());
        for _ in 0..2 {
            let error = led.wait_until(|_| false).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Poisoned, "{error}");
        }
    }
}
