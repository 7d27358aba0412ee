//! Futures that wait for room, in the order in which they came.

use std::collections::BTreeMap;
use std::task::Waker;

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// Sorted by place, so that who leaves is found at once, however many there are.
#[derive(Default)]
pub(super) struct Waiters {
    line: BTreeMap<Place, Waker>,
    entered: u64,
}

impl Waiters {
    pub(super) fn enter(&mut self, waker: Waker) -> Place {
        self.entered += 1;
        let place = Place(self.entered);
        self.line.insert(place, waker);
        place
    }

    /// Leaves the line; `None` for one that was called already, and has to call another where it does not use the room.
    pub(super) fn leave(&mut self, place: Place) -> Option<Waker> {
        self.line.remove(&place)
    }

    #[cfg(uring)]
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Who is to be called next.
    pub(super) fn call(&mut self) -> Option<Waker> {
        self.line.pop_first().map(|(_, waker)| waker)
    }

    /// Everybody. To be called when nothing is under way: who was called before may have been forgotten, or may not be polled
    /// for a long time, and nothing else would make room and call another.
    pub(super) fn call_all(&mut self) -> impl Iterator<Item = Waker> {
        std::mem::take(&mut self.line).into_values()
    }
}

/// Wakes a task.
pub(super) fn wake(waker: Waker) {
    guard(|| waker.wake());
}

/// As [`wake`], where the waker is somebody else's.
pub(super) fn wake_by_ref(waker: &Waker) {
    guard(|| waker.wake_by_ref());
}

/// A panic is the executor's own, and must not be ours: what ended for others has to be told, too.
fn guard(wake: impl FnOnce()) {
    if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(wake)) {
        // Dropping it is the executor's code as well, and may panic again.
        std::mem::forget(payload);
        log::error!("a task could not be woken: its waker panicked");
    }
}
