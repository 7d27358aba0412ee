//! The table of operations in flight: the one place that has to be right.
//!
//! Every operation of the safe interface has an entry here, and the entry owns what the kernel can reach through the
//! operation. Everything sound about the crate rests on the following, all of which is kept in this file:
//!
//! 1. **An entry exists before its SQE is visible** ([`Table::insert`] comes first, the submission queue's tail moves
//!    after), and holds its memory until the *final* CQE of that operation (one without `IORING_CQE_F_MORE`) was taken out
//!    of the completion queue ([`Table::complete`]). No error of a submit, no cancel and no close of the ring removes it.
//! 2. **An entry is found only by its own CQE.** `user_data` is a tag (2 bits), the entry's generation (30 bits) and its
//!    slot (32 bits). The generation changes each time that the entry is freed, so a CQE that comes late, twice, or from
//!    somewhere else finds nothing. Entries of the raw interface carry tag 0 and never reach the table; all ones is
//!    liburing's own and is no slot.
//! 3. **What an entry holds comes out once**: [`Table::complete`] and [`Table::take`] move it out as they free the entry.
//! 4. **The table never grows**: it has as many entries as the completion queue, so that no more completions can be due
//!    than the queue can hold, and nothing is allocated per operation.
//! 5. **Dropping the table gives back nothing that the kernel may use**: memory of an operation still in flight is
//!    abandoned ([`crate::pool`]), that of one that ended goes back to its pool.
//! 6. **No code of a user runs in here.** What entries hold has no destructor but ours.
//!
//! An entry is free, in flight, or done: it ended while somebody looked for another one's end, and waits on a list
//! threaded through the table for whoever asks for it.

use std::mem;

use crate::pool::Buf;

/// Bits 63 and 62 of `user_data`.
const TAG_SHIFT: u32 = 62;
/// The tag of operations in the table. 0 is the raw interface, 3 is left to liburing (`LIBURING_UDATA_TIMEOUT`).
const TAG_OPERATION: u64 = 1;
const GENERATION_MASK: u32 = (1 << 30) - 1;
/// End of a list.
const NO_SLOT: u32 = u32::MAX;
/// The `file` of an operation on none of the ring's registered files.
pub(crate) const NO_FILE: u32 = u32::MAX;

/// Names one operation of one ring. An old ticket finds nothing: its value comes back only after 2^30 operations in the same
/// place of the table. Tickets of two rings differ as a rule, not always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// The `user_data` that the operation carries.
    pub(crate) fn user_data(self) -> u64 {
        self.0
    }

    fn slot(self) -> u32 {
        self.0 as u32
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }

    fn new(slot: u32, generation: u32) -> Self {
        Self(TAG_OPERATION << TAG_SHIFT | u64::from(generation) << 32 | u64::from(slot))
    }
}

/// Whether `user_data` belongs to the raw interface.
#[inline]
pub(crate) fn is_raw(user_data: u64) -> bool {
    user_data >> TAG_SHIFT == 0
}

/// What an operation keeps from its owner while the kernel may use it.
#[derive(Debug, Default)]
pub(crate) enum Held {
    /// Nothing: no memory is involved.
    #[default]
    Nothing,
    /// A slot of a pool.
    Lease(Buf),
    /// Memory borrowed by a call that does not return before the operation ended.
    #[cfg(feature = "block")]
    Borrowed,
}

/// A finished operation, taken out of the table.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) ticket: Ticket,
    pub(crate) result: i32,
    pub(crate) flags: u32,
    pub(crate) held: Held,
    /// The registered file that the operation used, or [`NO_FILE`].
    pub(crate) file: u32,
}

/// What a CQE meant.
#[derive(Debug)]
pub(crate) enum Completed {
    /// No operation of this table has that `user_data` now.
    Unknown,
    /// One of several CQEs; the operation is still in flight.
    More,
    /// The last one.
    Final(Finished),
    /// The last one of an operation that nobody wants to hear of.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    InFlight,
    /// In flight, and freed without a word when it ends.
    InFlightSilent,
    Done,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    state: State,
    /// The next one of the free list or of the done list.
    next: u32,
    /// The one before on the done list.
    previous: u32,
    file: u32,
    result: i32,
    flags: u32,
    held: Held,
}

/// All operations of a ring.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Box<[Entry]>,
    free: u32,
    /// The done list, oldest first.
    first_done: u32,
    last_done: u32,
    in_flight: u32,
}

impl Table {
    /// A table of `capacity` entries; `seed` sets where their generations begin, so that two rings' tickets differ.
    pub(crate) fn new(capacity: u32, seed: u32) -> Self {
        let entry = |slot| Entry {
            generation: seed & GENERATION_MASK,
            state: State::Free,
            next: if slot + 1 == capacity { NO_SLOT } else { slot + 1 },
            previous: NO_SLOT,
            file: NO_FILE,
            result: 0,
            flags: 0,
            held: Held::Nothing,
        };
        Self {
            entries: (0..capacity).map(entry).collect(),
            free: if capacity == 0 { NO_SLOT } else { 0 },
            first_done: NO_SLOT,
            last_done: NO_SLOT,
            in_flight: 0,
        }
    }

    /// Operations whose final CQE was not taken yet.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether no entry is free.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.free == NO_SLOT
    }

    /// Makes an entry that owns `held`; gives `held` back where none is free.
    #[inline]
    pub(crate) fn insert(&mut self, held: Held, file: u32) -> Result<Ticket, Held> {
        self.insert_as(State::InFlight, held, file)
    }

    /// Makes an entry that owns nothing and is freed without a word.
    pub(crate) fn insert_silent(&mut self) -> Option<Ticket> {
        self.insert_as(State::InFlightSilent, Held::Nothing, NO_FILE).ok()
    }

    #[inline]
    fn insert_as(&mut self, state: State, held: Held, file: u32) -> Result<Ticket, Held> {
        let slot = self.free;
        let Some(entry) = self.entries.get_mut(slot as usize) else { return Err(held) };
        debug_assert_eq!(entry.state, State::Free);
        self.free = entry.next;
        self.in_flight += 1;
        entry.state = state;
        entry.held = held;
        entry.file = file;
        Ok(Ticket::new(slot, entry.generation))
    }

    /// Frees an entry and moves out what it held.
    #[inline]
    fn free(&mut self, slot: u32, result: i32, flags: u32) -> Finished {
        let entry = &mut self.entries[slot as usize];
        let ticket = Ticket::new(slot, entry.generation);
        let held = mem::take(&mut entry.held);
        let file = entry.file;
        entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
        entry.state = State::Free;
        entry.next = self.free;
        self.free = slot;
        Finished { ticket, result, flags, held, file }
    }

    /// The entry in flight that `user_data` belongs to.
    #[inline]
    fn find(&mut self, user_data: u64) -> Option<(u32, State)> {
        if user_data >> TAG_SHIFT != TAG_OPERATION {
            return None;
        }
        let ticket = Ticket(user_data);
        let entry = self.entries.get(ticket.slot() as usize)?;
        let in_flight = matches!(entry.state, State::InFlight | State::InFlightSilent);
        let is_same = entry.generation == ticket.generation() || cfg!(sysuring_break = "r4_generation");
        (in_flight && is_same).then_some((ticket.slot(), entry.state))
    }

    /// Accounts for a CQE and hands out the operation where it was the final one.
    #[inline]
    pub(crate) fn complete(&mut self, user_data: u64, result: i32, flags: u32) -> Completed {
        let Some((slot, state)) = self.find(user_data) else { return Completed::Unknown };
        if flags & liburing_sys::IORING_CQE_F_MORE != 0 && !cfg!(sysuring_break = "r2_more") {
            return Completed::More;
        }
        self.in_flight -= 1;
        let finished = self.free(slot, result, flags);
        if state == State::InFlightSilent { Completed::Silent } else { Completed::Final(finished) }
    }

    /// Accounts for a CQE; where it was a final one the operation goes to the done list, for [`Table::take`].
    ///
    /// Also for an SQE that was taken out of the submission queue before the kernel saw it: it has ended as well.
    ///
    /// The answer is the registered file that the operation is through with, or [`NO_FILE`].
    pub(crate) fn complete_later(&mut self, user_data: u64, result: i32, flags: u32) -> u32 {
        let Some((slot, state)) = self.find(user_data) else { return NO_FILE };
        if flags & liburing_sys::IORING_CQE_F_MORE != 0 {
            return NO_FILE;
        }
        self.in_flight -= 1;
        if state == State::InFlightSilent {
            self.free(slot, result, flags);
            return NO_FILE;
        }
        let last = self.last_done;
        let entry = &mut self.entries[slot as usize];
        entry.state = State::Done;
        entry.result = result;
        entry.flags = flags;
        entry.previous = last;
        entry.next = NO_SLOT;
        let file = mem::replace(&mut entry.file, NO_FILE);
        match self.entries.get_mut(last as usize) {
            Some(last) => last.next = slot,
            None => self.first_done = slot,
        }
        self.last_done = slot;
        file
    }

    /// Takes the operation where it is on the done list.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Finished> {
        let entry = self.entries.get(ticket.slot() as usize)?;
        if entry.state != State::Done || entry.generation != ticket.generation() {
            return None;
        }
        let (result, flags) = (entry.result, entry.flags);
        let (previous, next) = (entry.previous, entry.next);
        match self.entries.get_mut(previous as usize) {
            Some(entry) => entry.next = next,
            None => self.first_done = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(entry) => entry.previous = previous,
            None => self.last_done = previous,
        }
        Some(self.free(ticket.slot(), result, flags))
    }

    /// Takes the operation that has been on the done list for longest.
    #[inline]
    pub(crate) fn take_oldest(&mut self) -> Option<Finished> {
        let entry = self.entries.get(self.first_done as usize)?;
        self.take(Ticket::new(self.first_done, entry.generation))
    }

    /// Whether the operation is in flight or waits on the done list.
    pub(crate) fn knows(&self, ticket: Ticket) -> bool {
        self.entries
            .get(ticket.slot() as usize)
            .is_some_and(|entry| entry.state != State::Free && entry.generation == ticket.generation())
    }

    /// Whether the operation waits on the done list.
    #[cfg(feature = "block")]
    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        self.entries
            .get(ticket.slot() as usize)
            .is_some_and(|entry| entry.state == State::Done && entry.generation == ticket.generation())
    }

    /// Gives up everything in flight: no CQE will be believed any more, and memory is abandoned to the kernel.
    pub(crate) fn abandon_in_flight(&mut self) {
        for slot in 0..self.entries.len() as u32 {
            if matches!(self.entries[slot as usize].state, State::InFlight | State::InFlightSilent) {
                if let Held::Lease(buf) = self.free(slot, 0, 0).held {
                    buf.abandon();
                }
            }
        }
        self.in_flight = 0;
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.abandon_in_flight();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    const MORE: u32 = liburing_sys::IORING_CQE_F_MORE;

    fn free_slots(pool: &Pool) -> usize {
        let leases: Vec<Buf> = std::iter::from_fn(|| pool.lease()).collect();
        leases.len()
    }

    #[test]
    fn an_operation_keeps_its_lease_until_its_final_completion() {
        let pool = Pool::new(1, 64).unwrap();
        let mut table = Table::new(2, 7);
        let ticket = table.insert(Held::Lease(pool.lease().unwrap()), NO_FILE).unwrap();
        assert_eq!(free_slots(&pool), 0);
        assert!(matches!(table.complete(ticket.user_data(), 3, MORE), Completed::More));
        assert_eq!(free_slots(&pool), 0, "R2: F_MORE is not final");
        let Completed::Final(finished) = table.complete(ticket.user_data(), 3, 0) else { panic!() };
        assert_eq!((finished.ticket, finished.result), (ticket, 3));
        drop(finished);
        assert_eq!(free_slots(&pool), 1);
    }

    #[test]
    fn a_completion_that_comes_twice_or_late_finds_nothing() {
        let mut table = Table::new(1, 0);
        let first = table.insert(Held::Nothing, NO_FILE).unwrap();
        assert!(matches!(table.complete(first.user_data(), 0, 0), Completed::Final(_)));
        assert!(matches!(table.complete(first.user_data(), 0, 0), Completed::Unknown));
        let second = table.insert(Held::Nothing, NO_FILE).unwrap();
        assert_ne!(first, second);
        assert!(matches!(table.complete(first.user_data(), 0, 0), Completed::Unknown), "the slot is another's now");
        assert_eq!(table.in_flight(), 1);
    }

    #[test]
    fn foreign_user_data_finds_nothing() {
        let mut table = Table::new(4, 0);
        let ticket = table.insert(Held::Nothing, NO_FILE).unwrap();
        let low = ticket.user_data() & !(3 << 62);
        for forged in
            [u64::MAX, 0, low, low | 2 << 62, low | 3 << 62, ticket.user_data() + 1, ticket.user_data() + (1 << 32)]
        {
            assert!(matches!(table.complete(forged, 0, 0), Completed::Unknown), "{forged:#x}");
        }
        assert!(is_raw(low) && !is_raw(ticket.user_data()) && !is_raw(u64::MAX));
    }

    #[test]
    fn generations_wrap_within_their_bits() {
        let mut table = Table::new(1, GENERATION_MASK);
        let last = table.insert(Held::Nothing, NO_FILE).unwrap();
        assert!(matches!(table.complete(last.user_data(), 0, 0), Completed::Final(_)));
        let first = table.insert(Held::Nothing, NO_FILE).unwrap();
        assert_eq!(first.generation(), 0);
        assert_eq!(first.user_data() >> TAG_SHIFT, TAG_OPERATION);
    }

    #[test]
    fn a_full_table_gives_the_lease_back() {
        let pool = Pool::new(2, 64).unwrap();
        let mut table = Table::new(1, 0);
        table.insert(Held::Lease(pool.lease().unwrap()), NO_FILE).unwrap();
        assert!(table.is_full());
        let Err(Held::Lease(buf)) = table.insert(Held::Lease(pool.lease().unwrap()), NO_FILE) else { panic!() };
        drop(buf);
        assert_eq!(free_slots(&pool), 1);
    }

    #[test]
    fn the_done_list_keeps_its_order_and_loses_nothing() {
        let mut table = Table::new(4, 0);
        let tickets: Vec<Ticket> = (0..4).map(|_| table.insert(Held::Nothing, NO_FILE).unwrap()).collect();
        for index in [2, 0, 3, 1] {
            table.complete_later(tickets[index].user_data(), index as i32, 0);
        }
        assert_eq!(table.in_flight(), 0);
        assert_eq!(table.take(tickets[0]).unwrap().result, 0);
        assert!(table.take(tickets[0]).is_none(), "taken once");
        let rest: Vec<i32> = std::iter::from_fn(|| table.take_oldest()).map(|finished| finished.result).collect();
        assert_eq!(rest, [2, 3, 1]);
        assert!(table.insert(Held::Nothing, NO_FILE).is_ok());
    }

    #[test]
    fn a_dropped_table_gives_back_what_ended_and_nothing_else() {
        let pool = Pool::new(3, 64).unwrap();
        let mut table = Table::new(3, 0);
        let ended = table.insert(Held::Lease(pool.lease().unwrap()), NO_FILE).unwrap();
        table.insert(Held::Lease(pool.lease().unwrap()), NO_FILE).unwrap();
        table.complete_later(ended.user_data(), 0, 0);
        drop(table);
        assert_eq!(free_slots(&pool), 2, "one was free, one came back, the one in flight is abandoned");
    }
}
