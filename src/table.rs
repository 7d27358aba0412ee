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
//! 6. **No code of a user runs in here.** What entries hold is moved in and out; a value of the user's type is dropped in here
//!    only with the table itself, after everything that could look at the table has ended.
//!
//! An entry is free, in flight, or done: it ended while somebody looked for another one's end, and waits on a list
//! threaded through the table for whoever asks for it. What a multishot operation reports meanwhile waits in a list of its
//! own, which is the one thing here that can grow: for as long as nobody asks.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use crate::parcel::Parcel;
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

    /// The ticket of an operation that carries this `user_data`; a wrong one finds nothing.
    pub(crate) fn of(user_data: u64) -> Self {
        Self(user_data)
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
pub(crate) enum Held<B = NoBuffers> {
    /// Nothing: no memory is involved.
    #[default]
    Nothing,
    /// A slot of a pool.
    Lease(Buf),
    /// A buffer of the user's own type, moved in.
    Owned(B),
    /// Memory borrowed by a call that does not return before the operation ended.
    Borrowed,
    /// A descriptor that the operation closes.
    Closing(OwnedFd),
    /// Several buffers, paths, a time, an address …
    Parcel(Parcel<B>),
    /// Several slots of pools, when the operation has ended.
    Leases(Vec<Buf>),
    /// Several of the user's buffers, when the operation has ended.
    Several(Vec<B>),
    /// What `statx` filled in, when the operation has ended.
    Status(Box<libc::statx>),
}

/// The user's own buffers on a ring that takes none: there is no such value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoBuffers {}

/// How a result is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Outcome {
    /// A count, or a value that nobody has to give back.
    #[default]
    Count,
    /// A new descriptor, which is closed if nobody takes it.
    Descriptor,
    /// The result comes first, with F_MORE; the final CQE tells that the memory is free.
    ZeroCopy,
    /// The kernel closes the descriptor that the entry holds, unless it says that it did not begin.
    Close,
}

/// An operation to be entered.
#[derive(Debug)]
pub(crate) struct Start<B> {
    pub(crate) held: Held<B>,
    /// The registered file that it uses, or [`NO_FILE`].
    pub(crate) file: u32,
    /// The unregistered file that it uses.
    pub(crate) descriptor: Option<Arc<OwnedFd>>,
    pub(crate) outcome: Outcome,
}

impl<B> Start<B> {
    /// One that holds `held`, uses no file and counts.
    #[cfg(test)]
    fn holding(held: Held<B>) -> Self {
        Self { held, file: NO_FILE, descriptor: None, outcome: Outcome::Count }
    }
}

/// A finished operation, taken out of the table.
#[derive(Debug)]
pub(crate) struct Finished<B = NoBuffers> {
    pub(crate) ticket: Ticket,
    pub(crate) result: i32,
    pub(crate) flags: u32,
    pub(crate) held: Held<B>,
    /// The registered file that the operation used, or [`NO_FILE`].
    pub(crate) file: u32,
    /// The new descriptor that is the result.
    pub(crate) new_descriptor: Option<OwnedFd>,
}

/// One of several results of an operation that goes on.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) ticket: Ticket,
    pub(crate) result: i32,
    pub(crate) flags: u32,
    pub(crate) new_descriptor: Option<OwnedFd>,
}

/// What a CQE meant.
#[derive(Debug)]
pub(crate) enum Completed<B = NoBuffers> {
    /// No operation of this table has that `user_data` now.
    Unknown,
    /// One of several CQEs; the operation is still in flight, and nobody is to hear of this one.
    NotYet,
    /// One of several CQEs; the operation is still in flight.
    More(Partial),
    /// The last one.
    Final(Finished<B>),
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
struct Entry<B> {
    generation: u32,
    state: State,
    outcome: Outcome,
    /// A zero-copy operation has its result, and waits for its memory.
    has_result: bool,
    /// The next one of the free list or of the done list.
    next: u32,
    /// The one before on the done list.
    previous: u32,
    file: u32,
    result: i32,
    flags: u32,
    descriptor: Option<Arc<OwnedFd>>,
    held: Held<B>,
}

/// All operations of a ring.
#[derive(Debug)]
pub(crate) struct Table<B = NoBuffers> {
    entries: Box<[Entry<B>]>,
    free: u32,
    /// The done list, oldest first.
    first_done: u32,
    last_done: u32,
    in_flight: u32,
    /// Of those, how many use memory that a call which has not returned borrows.
    borrowed: u32,
    /// What operations reported that go on, oldest first.
    partial: VecDeque<Partial>,
}

impl<B> Table<B> {
    /// A table of `capacity` entries; `seed` sets where their generations begin, so that two rings' tickets differ.
    pub(crate) fn new(capacity: u32, seed: u32) -> Self {
        let entry = |slot| Entry {
            generation: seed & GENERATION_MASK,
            state: State::Free,
            outcome: Outcome::Count,
            has_result: false,
            next: if slot + 1 == capacity { NO_SLOT } else { slot + 1 },
            previous: NO_SLOT,
            file: NO_FILE,
            result: 0,
            flags: 0,
            descriptor: None,
            held: Held::Nothing,
        };
        Self {
            entries: (0..capacity).map(entry).collect(),
            free: if capacity == 0 { NO_SLOT } else { 0 },
            first_done: NO_SLOT,
            last_done: NO_SLOT,
            in_flight: 0,
            borrowed: 0,
            partial: VecDeque::new(),
        }
    }

    /// Operations whose final CQE was not taken yet.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Those of them that use borrowed memory.
    pub(crate) fn borrowed(&self) -> u32 {
        self.borrowed
    }

    /// Whether no entry is free.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.free == NO_SLOT
    }

    /// Makes an entry that owns what `start` holds; gives that back where no entry is free.
    #[inline]
    pub(crate) fn insert(&mut self, start: Start<B>) -> Result<Ticket, Held<B>> {
        let slot = self.free;
        let Some(entry) = self.entries.get_mut(slot as usize) else { return Err(start.held) };
        debug_assert_eq!(entry.state, State::Free);
        self.free = entry.next;
        self.in_flight += 1;
        if matches!(start.held, Held::Borrowed) {
            self.borrowed += 1;
        }
        entry.state = State::InFlight;
        entry.held = start.held;
        entry.file = start.file;
        entry.descriptor = start.descriptor;
        entry.outcome = start.outcome;
        Ok(Ticket::new(slot, entry.generation))
    }

    /// Makes an entry that owns nothing and is freed without a word.
    pub(crate) fn insert_silent(&mut self) -> Option<Ticket> {
        let start = Start { held: Held::Nothing, file: NO_FILE, descriptor: None, outcome: Outcome::Count };
        let ticket = self.insert(start).ok()?;
        self.entries[ticket.slot() as usize].state = State::InFlightSilent;
        Some(ticket)
    }

    /// What the operation holds, in the place where it stays until the end; not once the kernel may have seen it.
    #[inline]
    pub(crate) fn held_mut(&mut self, ticket: Ticket) -> &mut Held<B> {
        &mut self.entries[ticket.slot() as usize].held
    }

    /// Takes back an entry whose SQE the kernel has not seen, and never will.
    #[cold]
    pub(crate) fn take_back(&mut self, ticket: Ticket) -> Option<Finished<B>> {
        let (slot, _) = self.find(ticket.user_data())?;
        self.in_flight -= 1;
        if matches!(self.entries[slot as usize].held, Held::Borrowed) {
            self.borrowed -= 1;
        }
        Some(self.free(slot, -libc::ECANCELED, 0))
    }

    /// Frees an entry and moves out what it held.
    #[inline]
    fn free(&mut self, slot: u32, result: i32, flags: u32) -> Finished<B> {
        let entry = &mut self.entries[slot as usize];
        let ticket = Ticket::new(slot, entry.generation);
        let mut held = mem::take(&mut entry.held);
        let file = entry.file;
        let new_descriptor = match entry.outcome {
            Outcome::Count | Outcome::ZeroCopy => None,
            outcome => settle(outcome, result, &mut held),
        };
        entry.descriptor = None;
        entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
        entry.state = State::Free;
        entry.has_result = false;
        entry.next = self.free;
        self.free = slot;
        Finished { ticket, result, flags, held, file, new_descriptor }
    }

    /// The entry in flight that `user_data` belongs to.
    #[inline]
    fn find(&mut self, user_data: u64) -> Option<(u32, State)> {
        if user_data >> TAG_SHIFT != TAG_OPERATION {
            return None;
        }
        let ticket = Ticket(user_data);
        let entry = self.entries.get(ticket.slot() as usize)?;
        let in_flight =
            matches!(entry.state, State::InFlight | State::InFlightSilent) || cfg!(sysuring_break = "r4_twice");
        let is_same = entry.generation == ticket.generation() || cfg!(sysuring_break = "r4_generation");
        (in_flight && is_same).then_some((ticket.slot(), entry.state))
    }

    /// Accounts for a CQE and hands out the operation where it was the final one.
    #[inline]
    pub(crate) fn complete(&mut self, user_data: u64, result: i32, flags: u32) -> Completed<B> {
        let Some((slot, state)) = self.find(user_data) else { return Completed::Unknown };
        if flags & liburing_sys::IORING_CQE_F_MORE != 0 && !cfg!(sysuring_break = "r2_more") {
            return match self.more(slot, result, flags) {
                Some(partial) => Completed::More(partial),
                None => Completed::NotYet,
            };
        }
        self.in_flight -= 1;
        let (result, flags) = self.end_of(slot, result, flags);
        let finished = self.free(slot, result, flags);
        debug_assert!(!matches!(finished.held, Held::Borrowed), "who lends memory takes it with `take`");
        if state == State::InFlightSilent { Completed::Silent } else { Completed::Final(finished) }
    }

    /// A CQE of an operation that goes on.
    #[cold]
    fn more(&mut self, slot: u32, result: i32, flags: u32) -> Option<Partial> {
        let entry = &mut self.entries[slot as usize];
        if entry.outcome == Outcome::ZeroCopy {
            (entry.result, entry.flags, entry.has_result) = (result, flags, true);
            return None;
        }
        let new_descriptor = settle(entry.outcome, result, &mut Held::<B>::Nothing);
        Some(Partial { ticket: Ticket::new(slot, entry.generation), result, flags, new_descriptor })
    }

    /// The result that counts where the final CQE says `result`.
    #[inline]
    fn end_of(&self, slot: u32, result: i32, flags: u32) -> (i32, u32) {
        let entry = &self.entries[slot as usize];
        if entry.has_result { (entry.result, entry.flags) } else { (result, flags) }
    }

    /// Accounts for a CQE; where it was a final one the operation goes to the done list, for [`Table::take`].
    ///
    /// Also for an SQE that was taken out of the submission queue before the kernel saw it: it has ended as well.
    ///
    /// The answer is the registered file that the operation is through with, or [`NO_FILE`].
    pub(crate) fn complete_later(&mut self, user_data: u64, result: i32, flags: u32) -> u32 {
        let Some((slot, state)) = self.find(user_data) else { return NO_FILE };
        if flags & liburing_sys::IORING_CQE_F_MORE != 0 {
            let partial = self.more(slot, result, flags);
            self.partial.extend(partial);
            return NO_FILE;
        }
        self.in_flight -= 1;
        let (result, flags) = self.end_of(slot, result, flags);
        if state == State::InFlightSilent {
            self.free(slot, result, flags);
            return NO_FILE;
        }
        let last = self.last_done;
        let entry = &mut self.entries[slot as usize];
        if matches!(entry.held, Held::Borrowed) {
            self.borrowed -= 1;
        }
        entry.state = State::Done;
        entry.result = result;
        entry.flags = flags;
        entry.descriptor = None;
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
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Finished<B>> {
        if !self.is_done(ticket) {
            return None;
        }
        let entry = &self.entries[ticket.slot() as usize];
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
    pub(crate) fn take_oldest(&mut self) -> Option<Finished<B>> {
        let entry = self.entries.get(self.first_done as usize)?;
        self.take(Ticket::new(self.first_done, entry.generation))
    }

    /// Takes what an operation that goes on reported while somebody looked for something else.
    #[inline]
    pub(crate) fn take_partial(&mut self) -> Option<Partial> {
        self.partial.pop_front()
    }

    /// Whether something waits for [`Table::take_partial`] or [`Table::take_oldest`].
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        self.first_done != NO_SLOT || !self.partial.is_empty()
    }

    /// Discards the operations on the done list that used borrowed memory.
    pub(crate) fn forget_borrowed(&mut self) {
        let mut slot = self.first_done;
        while let Some(entry) = self.entries.get(slot as usize) {
            let (ticket, next) = (Ticket::new(slot, entry.generation), entry.next);
            if matches!(entry.held, Held::Borrowed) {
                self.take(ticket);
            }
            slot = next;
        }
    }

    /// Whether the operation is in flight or waits on the done list.
    pub(crate) fn knows(&self, ticket: Ticket) -> bool {
        self.entries
            .get(ticket.slot() as usize)
            .is_some_and(|entry| entry.state != State::Free && entry.generation == ticket.generation())
    }

    /// Whether the operation waits on the done list.
    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        self.entries
            .get(ticket.slot() as usize)
            .is_some_and(|entry| entry.state == State::Done && entry.generation == ticket.generation())
    }

    /// Gives up everything in flight: no CQE will be believed any more, and memory is abandoned to the kernel.
    ///
    /// The answer is how many operations' memory is leaked: what is not a slot of a pool.
    pub(crate) fn abandon_in_flight(&mut self) -> u32 {
        let mut leaked = 0;
        for slot in 0..self.entries.len() as u32 {
            if matches!(self.entries[slot as usize].state, State::InFlight | State::InFlightSilent) {
                // A descriptor in use is not a new one: the result is no descriptor, whatever it says.
                self.entries[slot as usize].outcome = Outcome::Count;
                // The file stays open: an operation that has not started yet looks for it by its number.
                mem::forget(self.entries[slot as usize].descriptor.take());
                match self.free(slot, 0, 0).held {
                    Held::Lease(buf) => buf.abandon(),
                    Held::Nothing | Held::Borrowed => {}
                    held => {
                        leaked += 1;
                        mem::forget(held);
                    }
                }
            }
        }
        // `borrowed` stays: who lent memory must not get it back.
        self.in_flight = 0;
        leaked
    }
}

/// What a result means for descriptors: the new one that it is, if any.
#[cold]
fn settle<B>(outcome: Outcome, result: i32, held: &mut Held<B>) -> Option<OwnedFd> {
    if outcome == Outcome::Descriptor && result >= 0 {
        // SAFETY: the kernel made this descriptor for us, and each CQE is looked at once.
        return Some(unsafe { OwnedFd::from_raw_fd(result) });
    }
    if outcome == Outcome::Close && !matches!(-result, libc::ECANCELED | libc::EINVAL) {
        // Closed, also where closing reports an error: to close the number again could hit somebody else's file.
        mem::forget(mem::take(held));
    }
    None
}

impl<B> Drop for Table<B> {
    fn drop(&mut self) {
        self.abandon_in_flight();
        // What ended and was not asked for gives up its descriptor.
        while let Some(finished) = self.take_oldest() {
            drop(finished);
        }
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
        let mut table = Table::<NoBuffers>::new(2, 7);
        let ticket = table.insert(Start::holding(Held::Lease(pool.lease().unwrap()))).unwrap();
        assert_eq!(free_slots(&pool), 0);
        assert!(matches!(table.complete(ticket.user_data(), 3, MORE), Completed::More(_)));
        assert_eq!(free_slots(&pool), 0, "R2: F_MORE is not final");
        let Completed::Final(finished) = table.complete(ticket.user_data(), 3, 0) else { panic!() };
        assert_eq!((finished.ticket, finished.result), (ticket, 3));
        drop(finished);
        assert_eq!(free_slots(&pool), 1);
    }

    #[test]
    fn a_completion_that_comes_twice_or_late_finds_nothing() {
        let mut table = Table::<NoBuffers>::new(1, 0);
        let first = table.insert(Start::holding(Held::Nothing)).unwrap();
        assert!(matches!(table.complete(first.user_data(), 0, 0), Completed::Final(_)));
        assert!(matches!(table.complete(first.user_data(), 0, 0), Completed::Unknown));
        let second = table.insert(Start::holding(Held::Nothing)).unwrap();
        assert_ne!(first, second);
        assert!(matches!(table.complete(first.user_data(), 0, 0), Completed::Unknown), "the slot is another's now");
        assert_eq!(table.in_flight(), 1);
    }

    #[test]
    fn foreign_user_data_finds_nothing() {
        let mut table = Table::<NoBuffers>::new(4, 0);
        let ticket = table.insert(Start::holding(Held::Nothing)).unwrap();
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
        let mut table = Table::<NoBuffers>::new(1, GENERATION_MASK);
        let last = table.insert(Start::holding(Held::Nothing)).unwrap();
        assert!(matches!(table.complete(last.user_data(), 0, 0), Completed::Final(_)));
        let first = table.insert(Start::holding(Held::Nothing)).unwrap();
        assert_eq!(first.generation(), 0);
        assert_eq!(first.user_data() >> TAG_SHIFT, TAG_OPERATION);
    }

    #[test]
    fn a_full_table_gives_the_lease_back() {
        let pool = Pool::new(2, 64).unwrap();
        let mut table = Table::<NoBuffers>::new(1, 0);
        table.insert(Start::holding(Held::Lease(pool.lease().unwrap()))).unwrap();
        assert!(table.is_full());
        let Err(Held::Lease(buf)) = table.insert(Start::holding(Held::Lease(pool.lease().unwrap()))) else { panic!() };
        drop(buf);
        assert_eq!(free_slots(&pool), 1);
    }

    #[test]
    fn the_done_list_keeps_its_order_and_loses_nothing() {
        let mut table = Table::<NoBuffers>::new(4, 0);
        let tickets: Vec<Ticket> = (0..4).map(|_| table.insert(Start::holding(Held::Nothing)).unwrap()).collect();
        for index in [2, 0, 3, 1] {
            table.complete_later(tickets[index].user_data(), index as i32, 0);
        }
        assert_eq!(table.in_flight(), 0);
        assert_eq!(table.take(tickets[0]).unwrap().result, 0);
        assert!(table.take(tickets[0]).is_none(), "taken once");
        let rest: Vec<i32> = std::iter::from_fn(|| table.take_oldest()).map(|finished| finished.result).collect();
        assert_eq!(rest, [2, 3, 1]);
        assert!(table.insert(Start::holding(Held::Nothing)).is_ok());
    }

    #[test]
    fn a_dropped_table_gives_back_what_ended_and_nothing_else() {
        let pool = Pool::new(3, 64).unwrap();
        let mut table = Table::<NoBuffers>::new(3, 0);
        let ended = table.insert(Start::holding(Held::Lease(pool.lease().unwrap()))).unwrap();
        table.insert(Start::holding(Held::Lease(pool.lease().unwrap()))).unwrap();
        table.complete_later(ended.user_data(), 0, 0);
        drop(table);
        assert_eq!(free_slots(&pool), 2, "one was free, one came back, the one in flight is abandoned");
    }
}
