//! Futures that wait for room, in the order in which they came.

use std::collections::VecDeque;
use std::task::Waker;

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

#[derive(Default)]
pub(super) struct Waiters {
    line: VecDeque<(Place, Waker)>,
    entered: u64,
}

impl Waiters {
    pub(super) fn enter(&mut self, waker: Waker) -> Place {
        self.entered += 1;
        let place = Place(self.entered);
        self.line.push_back((place, waker));
        place
    }

    /// Leaves the line; `None` for one that was called already, and has to call another where it does not use the room.
    pub(super) fn leave(&mut self, place: Place) -> Option<Waker> {
        let index = self.line.iter().position(|(known, _)| *known == place)?;
        self.line.remove(index).map(|(_, waker)| waker)
    }

    /// Who is to be called next.
    pub(super) fn call(&mut self) -> Option<Waker> {
        self.line.pop_front().map(|(_, waker)| waker)
    }
}

/// Wakes a task. A panic is the executor's own, and must not be ours: what ended for others has to be told, too.
pub(super) fn wake(waker: Waker) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake())).is_err() {
        log::error!("a task could not be woken: its waker panicked");
    }
}
