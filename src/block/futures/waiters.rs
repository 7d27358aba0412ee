//! Futures that wait for room, in the order in which they came.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::task::Waker;

use crate::block::foreign;

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// Sorted by place, so that who leaves is found at once, however many there are.
///
/// Who is called has a claim to the room that was made, before others that come later, until it takes it or leaves. One that
/// was forgotten would keep its claim for ever: so claims lapse where everything has ended twice since.
#[derive(Default)]
pub(super) struct Waiters {
    line: BTreeMap<Place, Waker>,
    called: BTreeSet<Place>,
    /// Called before everything had last ended.
    called_before: BTreeSet<Place>,
    entered: u64,
}

impl Waiters {
    pub(super) fn enter(&mut self, waker: Waker) -> Place {
        self.entered += 1;
        let place = Place(self.entered);
        self.line.insert(place, waker);
        place
    }

    /// Goes back to where it was in the line.
    #[cfg(uring)]
    pub(super) fn enter_again(&mut self, place: Place, waker: Waker) -> Option<Waker> {
        self.line.insert(place, waker)
    }

    /// Leaves the line; `None` for one that was called already, and has to call another where it does not use the room.
    pub(super) fn leave(&mut self, place: Place) -> Option<Waker> {
        self.take_claim(place);
        self.line.remove(&place)
    }

    /// Gives up the claim of one that was called; whether it had one.
    pub(super) fn take_claim(&mut self, place: Place) -> bool {
        self.called.remove(&place) || self.called_before.remove(&place)
    }

    /// How many were called and have not come.
    #[cfg(uring)]
    pub(super) fn claims(&self) -> usize {
        self.called.len() + self.called_before.len()
    }

    #[cfg(uring)]
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Who is to be called next.
    pub(super) fn call(&mut self) -> Option<Waker> {
        let (place, waker) = self.line.pop_first()?;
        self.called.insert(place);
        Some(waker)
    }

    /// Everybody. To be called when nothing is under way: who was called before may have been forgotten, or may not be polled
    /// for a long time, and nothing else would make room and call another. The first `room` have a claim.
    pub(super) fn call_all(&mut self, room: usize) -> impl Iterator<Item = Waker> {
        self.called_before = mem::take(&mut self.called);
        let line = mem::take(&mut self.line);
        let room = room.saturating_sub(self.called_before.len());
        self.called.extend(line.keys().take(room));
        line.into_values()
    }
}

/// Wakes a task.
pub(super) fn wake(waker: Waker) {
    report(foreign::call(|| waker.wake()));
}

/// As [`wake`], where the waker is somebody else's.
pub(super) fn wake_by_ref(waker: &Waker) {
    report(foreign::call(|| waker.wake_by_ref()));
}

fn report(woken: Option<()>) {
    if woken.is_none() {
        foreign::call(|| log::error!("a task could not be woken: its waker panicked"));
    }
}
