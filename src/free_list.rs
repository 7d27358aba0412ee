//! Numbers of slots that are free, taken and put back by any thread without a lock.
//!
//! A list threaded through an array: its top is one word, with a count above the slot that changes with every slot that is
//! put back. A thread that looked at the top and was slow finds another count, even where the same slot is on top again with
//! another one below.

use std::collections::TryReserveError;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// End of a list; never a slot.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// Slots below a number that is fixed when the list is made; none is on it twice.
pub(crate) struct FreeList {
    /// The count, and in the lower half the slot.
    top: AtomicU64,
    /// For each slot on the list the next one. For others what [`FreeList::link`] says.
    next: Box<[AtomicU32]>,
}

impl FreeList {
    /// With all slots below `slots` on it.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub(crate) fn full(slots: u32) -> Result<Self, TryReserveError> {
        let next = |slot: u32| if slot + 1 == slots { NO_SLOT } else { slot + 1 };
        let first = if slots == 0 { NO_SLOT } else { 0 };
        let mut list = Vec::new();
        list.try_reserve_exact(slots as usize)?;
        list.extend((0..slots).map(|slot| AtomicU32::new(next(slot))));
        Ok(Self { top: AtomicU64::new(first.into()), next: list.into_boxed_slice() })
    }

    /// For the slots below `slots`, with none on it.
    pub(crate) fn empty(slots: u32) -> Self {
        Self { top: AtomicU64::new(NO_SLOT.into()), next: (0..slots).map(|_| AtomicU32::new(NO_SLOT)).collect() }
    }

    /// Takes a slot.
    #[inline]
    pub(crate) fn pop(&self) -> Option<u32> {
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            let slot = top as u32;
            if slot == NO_SLOT {
                return None;
            }
            // Stale where another thread was faster; then the exchange fails, since the count differs.
            let next = self.after(slot);
            match self.top.compare_exchange_weak(top, advance(top, next), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(slot),
                Err(now) => top = now,
            }
        }
    }

    /// Puts back a slot that is not on the list.
    #[inline]
    pub(crate) fn push(&self, slot: u32) {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            self.link(slot, top as u32);
            match self.top.compare_exchange_weak(top, advance(top, slot), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Takes all slots: the first, or [`NO_SLOT`]; the others by [`FreeList::after`].
    #[inline]
    pub(crate) fn take_all(&self) -> u32 {
        // The lower half becomes NO_SLOT. The count stays, and changes before a slot is on top again.
        self.top.fetch_or(NO_SLOT.into(), Ordering::Acquire) as u32
    }

    /// The slot on top, or [`NO_SLOT`]: it may be taken at any time, unless the caller knows that nobody does.
    pub(crate) fn first(&self) -> u32 {
        self.top.load(Ordering::Acquire) as u32
    }

    /// Whether nothing was on it a moment ago.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.top.load(Ordering::Relaxed) as u32 == NO_SLOT
    }

    /// What follows on a slot, or [`NO_SLOT`].
    #[inline]
    pub(crate) fn after(&self, slot: u32) -> u32 {
        self.next[slot as usize].load(Ordering::Relaxed)
    }

    /// Makes `next` follow on a slot that is the caller's, not on the list.
    #[inline]
    pub(crate) fn link(&self, slot: u32, next: u32) {
        self.next[slot as usize].store(next, Ordering::Relaxed);
    }
}

/// The word for a list with `slot` on top that was `top` before.
fn advance(top: u64, slot: u32) -> u64 {
    let count = (top >> 32).wrapping_add(1);
    count << 32 | u64::from(slot)
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use crate::sync::Arc;
    use loom::cell::UnsafeCell;

    /// Memory of which whoever has a slot is the only user.
    struct Slots<const N: usize> {
        list: FreeList,
        bytes: [UnsafeCell<u32>; N],
    }

    // SAFETY: loom tells where two threads use a cell at once.
    unsafe impl<const N: usize> Sync for Slots<N> {}

    impl<const N: usize> Slots<N> {
        fn new(list: FreeList) -> Arc<Self> {
            Arc::new(Self { list, bytes: std::array::from_fn(|_| UnsafeCell::new(0)) })
        }

        /// Writes to a slot's memory, as its only owner.
        fn write(&self, slot: u32) {
            // SAFETY: the slot is the caller's; where it is not loom says so.
            self.bytes[slot as usize].with_mut(|bytes| unsafe { *bytes += 1 });
        }

        fn lease_and_give_back(&self) {
            if let Some(slot) = self.list.pop() {
                self.write(slot);
                self.list.push(slot);
            }
        }

        fn count(&self) -> usize {
            std::iter::from_fn(|| self.list.pop()).inspect(|slot| self.write(*slot)).count()
        }
    }

    /// Fails where `push` is Relaxed, or `pop` does not acquire: two threads use a slot at once.
    #[test]
    fn loom_a_slot_has_one_owner() {
        crate::sync::model(3, || {
            let slots = Slots::<2>::new(FreeList::full(2).unwrap());
            let other = Arc::clone(&slots);
            let thread = loom::thread::spawn(move || {
                other.lease_and_give_back();
                other.lease_and_give_back();
            });
            slots.lease_and_give_back();
            slots.lease_and_give_back();
            thread.join().unwrap();
            assert_eq!(slots.count(), 2, "none is lost, none is there twice");
        });
    }

    /// Fails where the count is not changed: what was below the top when it was read is put on top though it was leased.
    #[test]
    fn loom_a_slot_that_was_on_top_before_is_another() {
        crate::sync::model(3, || {
            let slots = Slots::<3>::new(FreeList::full(3).unwrap());
            let other = Arc::clone(&slots);
            let thread = loom::thread::spawn(move || {
                // Another order than before: the first is on top again, and the second is leased.
                let (first, second) = (other.list.pop(), other.list.pop());
                first.into_iter().for_each(|slot| other.list.push(slot));
                second.into_iter().for_each(|slot| other.write(slot));
                second.into_iter().for_each(|slot| other.list.push(slot));
            });
            let leases = [slots.list.pop(), slots.list.pop()];
            leases.into_iter().flatten().for_each(|slot| slots.write(slot));
            thread.join().unwrap();
            assert_eq!(slots.count() + leases.into_iter().flatten().count(), 3);
        });
    }

    /// Buffers are returned by several threads while the ring offers those that were.
    ///
    /// Fails where `push` is Relaxed, and where `take_all` does not acquire.
    #[test]
    fn loom_what_is_returned_is_offered_once() {
        crate::sync::model(3, || {
            let slots = Slots::<3>::new(FreeList::empty(3));
            let threads: Vec<_> = [0..2, 2..3]
                .into_iter()
                .map(|returned| {
                    let slots = Arc::clone(&slots);
                    loom::thread::spawn(move || {
                        returned.for_each(|slot| {
                            slots.write(slot);
                            slots.list.push(slot);
                        });
                    })
                })
                .collect();
            // Not asked first whether there are any: loom would not try a load that comes later than it may.
            let offer = || {
                let mut offered = Vec::new();
                let mut slot = slots.list.take_all();
                while slot != NO_SLOT {
                    slots.write(slot);
                    offered.push(slot);
                    slot = slots.list.after(slot);
                }
                offered
            };
            let mut offered = offer();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            offered.extend(offer());
            offered.sort_unstable();
            assert_eq!(offered, [0, 1, 2]);
        });
    }
}
