//! The table of operations in flight: the one place that has to be right.
//!
//! Every operation of the safe interface has an entry here, and the entry owns what the kernel can reach through the
//! operation. Everything sound about the crate rests on the following, all of which is kept in this file:
//!
//! 1. **An entry exists before its SQE is visible** ([`Table::insert`] comes first, the submission queue's tail moves
//!    after), and holds its memory until the *final* CQE of that operation (one without `IORING_CQE_F_MORE`) was taken out
//!    of the completion queue ([`Table::complete`]). No error of a submit, no cancel and no close of the ring removes it.
//! 2. **An entry is found only by its own CQE.** `user_data` is a tag (2 bits), the entry's generation (30 bits) and its
//!    slot (32 bits, of which the top four are clear). An entry's key is that very number while a plain operation is in
//!    flight, and another one otherwise, so that one comparison finds out. The generation changes each time that the entry
//!    is freed, so a CQE that comes late, twice, or from somewhere else finds nothing. Entries of the raw interface carry
//!    tag 0 and never reach the table; all ones is liburing's own and is no slot.
//! 3. **What an entry holds comes out once**: [`Table::complete`] and [`Table::take`] move it out as they free the entry.
//!    An operation is *plain* when its end is giving back a lease, a buffer or nothing. All others have a bit more in their
//!    key ([`RARE`]), and so go by [`Table::complete_rare`].
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
use std::fmt;
use std::hint;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use crate::completion::Returned;
use crate::message::own_received;
use crate::parcel::Parcel;
use crate::pool::Buf;
use crate::provided::ProvidedMemory;

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

    #[cfg(test)]
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

/// What an operation keeps from its owner while the kernel may use it. Each is one word, but for what is of the user's type,
/// so that it is handed on in registers. The first three are *plain*: they are given back as they are.
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
    /// Several buffers, paths, a time, an address, a descriptor to be closed …
    Parcel(Parcel<B>),
    /// A group of buffers that the kernel picks from.
    Group(Arc<ProvidedMemory>),
}

impl<B> Held<B> {
    #[inline(always)]
    fn is_plain(&self) -> bool {
        matches!(self, Self::Nothing | Self::Lease(_) | Self::Owned(_))
    }
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
    /// A count that may span several buffers of a group.
    Bundle,
    /// A count, and a parcel with a message that may have brought descriptors.
    Message,
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
    /// The registered file that the operation used, where [`Table::watch_file`] was asked for it, or [`NO_FILE`].
    pub(crate) file: u32,
    /// The new descriptor that is the result.
    pub(crate) new_descriptor: Option<OwnedFd>,
    /// The result may span several buffers.
    pub(crate) is_bundle: bool,
}

/// One of several results of an operation that goes on.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) ticket: Ticket,
    pub(crate) result: i32,
    pub(crate) flags: u32,
    pub(crate) new_descriptor: Option<OwnedFd>,
    /// The group of buffers that the operation takes its own from.
    pub(crate) group: Option<u16>,
    /// The result may span several buffers.
    pub(crate) is_bundle: bool,
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
    /// The last one of an operation that nobody wants to hear of; the registered file that it used, as in [`Finished`].
    Silent(u32),
}

/// What an entry's key has beside the `user_data` of its operation: bits that no slot has.
const FREE: u64 = 1 << 30;
const DONE: u64 = 1 << 29;
/// The operation is in flight, and there is more to its end than to hand out what it holds: see [`Rest`].
const RARE: u64 = 1 << 28;
const STATES: u64 = FREE | DONE | RARE;
/// Slots are below this.
const MOST_ENTRIES: u32 = 1 << 28;

/// What every operation needs, found by one comparison.
struct Entry<B> {
    /// The `user_data` of the operation in flight; with one of the bits above where that is not all.
    key: u64,
    /// The next one of the free list.
    next: u32,
    file: u32,
    /// Of no value while the entry is free. Not dropped by itself, so that nothing is checked when it is written over.
    held: ManuallyDrop<Held<B>>,
}

impl<B> Entry<B> {
    /// Puts the entry, which was `user_data`'s, on top of the free list.
    #[inline(always)]
    fn give_back(&mut self, user_data: u64, free: &mut u32) {
        self.key = freed(user_data);
        self.next = mem::replace(free, user_data as u32);
    }
}

/// What few operations need, and those that ended while somebody looked for another one's end.
#[derive(Debug)]
struct Rest {
    outcome: Outcome,
    /// Freed without a word when it ends.
    is_silent: bool,
    /// A zero-copy operation has its result, and waits for its memory.
    has_result: bool,
    descriptor: Option<Arc<OwnedFd>>,
    /// The registered file that somebody wants to be told of when the operation ends, or [`NO_FILE`].
    watched_file: u32,
    result: i32,
    flags: u32,
    /// The neighbours on the done list.
    next: u32,
    previous: u32,
}

impl Rest {
    const NONE: Self = Self {
        outcome: Outcome::Count,
        is_silent: false,
        has_result: false,
        descriptor: None,
        watched_file: NO_FILE,
        result: 0,
        flags: 0,
        next: NO_SLOT,
        previous: NO_SLOT,
    };
}

impl Rest {
    /// Whether it says nothing: so it is left when an entry is freed, and so it is for a plain operation.
    fn is_none(&self) -> bool {
        let is_plain = self.outcome == Outcome::Count && self.descriptor.is_none() && self.watched_file == NO_FILE;
        is_plain && !self.is_silent && !self.has_result
    }
}

/// All operations of a ring.
pub(crate) struct Table<B = NoBuffers> {
    entries: Box<[Entry<B>]>,
    rest: Box<[Rest]>,
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
        assert!(capacity <= MOST_ENTRIES, "the kernel has no queues of that size");
        let entry = |slot| Entry {
            key: Ticket::new(slot, seed & GENERATION_MASK).0 | FREE,
            next: if slot + 1 == capacity { NO_SLOT } else { slot + 1 },
            file: NO_FILE,
            held: ManuallyDrop::new(Held::Nothing),
        };
        Self {
            entries: (0..capacity).map(entry).collect(),
            rest: (0..capacity).map(|_| Rest::NONE).collect(),
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

    /// Whether so many entries are free. Looks at that many.
    pub(crate) fn has_room(&self, count: u32) -> bool {
        let mut slot = self.free;
        for _ in 0..count {
            match self.entries.get(slot as usize) {
                Some(entry) => slot = entry.next,
                None => return false,
            }
        }
        true
    }

    /// Makes an entry that owns what `start` holds.
    ///
    /// # Safety
    ///
    /// Not [`Table::is_full`].
    #[inline]
    pub(crate) unsafe fn insert(&mut self, start: Start<B>) -> Ticket {
        let Start { held, file, descriptor, outcome } = start;
        let is_plain = held.is_plain() && outcome == Outcome::Count && descriptor.is_none();
        if matches!(held, Held::Borrowed) {
            self.borrowed += 1;
        }
        // SAFETY: the same obligation; what is no plain operation gets RARE.
        let ticket = unsafe { self.insert_with(held, file, if is_plain { 0 } else { RARE }) };
        if outcome != Outcome::Count || descriptor.is_some() {
            self.rest[ticket.slot() as usize] = Rest { outcome, descriptor, ..Rest::NONE };
        }
        ticket
    }

    /// Makes an entry of a plain operation: one that ends with giving back what it holds.
    ///
    /// # Safety
    ///
    /// Not [`Table::is_full`], which is no check of its own, since a way out between the lease and its entry would cost more
    /// than all the rest. What is held is [plain](Held).
    #[inline(always)]
    pub(crate) unsafe fn insert_plain(&mut self, held: Held<B>, file: u32) -> Ticket {
        // SAFETY: the same obligation.
        unsafe { self.insert_with(held, file, 0) }
    }

    /// Makes an entry of an operation on borrowed memory and a descriptor that the borrower keeps open.
    ///
    /// # Safety
    ///
    /// Not [`Table::is_full`].
    #[cfg(feature = "block")]
    #[inline(always)]
    pub(crate) unsafe fn insert_borrowed(&mut self) -> Ticket {
        self.borrowed += 1;
        // SAFETY: the same obligation.
        unsafe { self.insert_with(Held::Borrowed, NO_FILE, RARE) }
    }

    /// Makes an entry with that state.
    ///
    /// # Safety
    ///
    /// Not [`Table::is_full`], and what is not [plain](Held) has RARE.
    #[inline(always)]
    unsafe fn insert_with(&mut self, held: Held<B>, file: u32, state: u64) -> Ticket {
        let slot = self.free;
        debug_assert!(!self.is_full());
        // SAFETY: the free list has slots of this table only, and is not empty.
        let entry = unsafe { self.entries.get_unchecked_mut(slot as usize) };
        debug_assert_eq!(entry.key & STATES, FREE);
        debug_assert!(self.rest[slot as usize].is_none(), "left as for a plain operation");
        self.free = entry.next;
        self.in_flight += 1;
        let key = entry.key ^ FREE;
        entry.key = key | state;
        entry.file = file;
        entry.held = ManuallyDrop::new(held);
        Ticket(key)
    }

    /// Makes an entry that owns nothing and is freed without a word.
    ///
    /// # Safety
    ///
    /// Not [`Table::is_full`].
    pub(crate) unsafe fn insert_silent(&mut self) -> Ticket {
        let start = Start { held: Held::Nothing, file: NO_FILE, descriptor: None, outcome: Outcome::Count };
        // SAFETY: the same obligation.
        let ticket = unsafe { self.insert(start) };
        self.entries[ticket.slot() as usize].key |= RARE;
        self.rest[ticket.slot() as usize] = Rest { is_silent: true, ..Rest::NONE };
        ticket
    }

    /// What the operation holds, in the place where it stays until the end; not once the kernel may have seen it.
    #[inline(always)]
    pub(crate) fn held_mut(&mut self, ticket: Ticket) -> &mut Held<B> {
        &mut self.entries[ticket.slot() as usize].held
    }

    /// Takes back an entry whose SQE the kernel has not seen, and never will.
    #[cold]
    pub(crate) fn take_back(&mut self, ticket: Ticket) -> Option<Finished<B>> {
        let slot = self.find(ticket.user_data())?;
        self.leave_flight(slot);
        Some(self.free(slot, -libc::ECANCELED, 0))
    }

    /// The entry in flight that `user_data` belongs to.
    fn find(&self, user_data: u64) -> Option<u32> {
        let slot = Ticket(user_data).slot();
        let key = self.entries.get(slot as usize)?.key;
        (is_same(key & !RARE, user_data)).then_some(slot)
    }

    fn leave_flight(&mut self, slot: u32) {
        self.in_flight -= 1;
        if matches!(*self.entries[slot as usize].held, Held::Borrowed) {
            self.borrowed -= 1;
        }
    }

    /// Frees an entry that is not free, and moves out what it held.
    fn free(&mut self, slot: u32, result: i32, flags: u32) -> Finished<B> {
        let entry = &mut self.entries[slot as usize];
        let was_rare = entry.key & RARE != 0;
        let ticket = Ticket(entry.key & !STATES);
        // SAFETY: the entry is not free, and is from the next line on: what it holds is moved out once.
        let mut held = unsafe { ManuallyDrop::take(&mut entry.held) };
        entry.give_back(ticket.0, &mut self.free);
        let rest = &mut self.rest[slot as usize];
        let new_descriptor = if was_rare { settle(rest.outcome, result, &mut held) } else { None };
        let is_bundle = was_rare && rest.outcome == Outcome::Bundle;
        let file = rest.watched_file;
        *rest = Rest::NONE;
        Finished { ticket, result, flags, held, file, new_descriptor, is_bundle }
    }

    /// Accounts for a CQE, where it is the final one of an operation that ends with what it holds.
    ///
    /// Everything else is for [`Table::complete_rare`].
    #[inline(always)]
    pub(crate) fn complete(&mut self, user_data: u64, flags: u32) -> Option<Returned<B>> {
        let slot = user_data as u32;
        let entry = self.entries.get_mut(slot as usize)?;
        if !is_same(entry.key, user_data) || has_more(flags) {
            return None;
        }
        self.in_flight -= 1;
        entry.give_back(user_data, &mut self.free);
        // SAFETY: the key was that of an operation in flight, and is not any more: what it holds is moved out once. That of an
        // entry that holds anything but these three has RARE, and differs from `user_data`.
        Some(unsafe {
            // First, and apart: the compiler makes one comparison of it.
            if let Held::Lease(buf) = &*entry.held {
                return Some(Returned::Lease(ptr::read(buf)));
            }
            match &*entry.held {
                Held::Nothing => Returned::Nothing,
                Held::Owned(buffer) => Returned::Owned(ptr::read(buffer)),
                _ => hint::unreachable_unchecked(),
            }
        })
    }

    /// Accounts for a CQE, where it is the final one of an operation on borrowed memory, of which nobody wants to know
    /// anything else.
    #[inline]
    pub(crate) fn complete_borrowed(&mut self, user_data: u64, flags: u32) -> bool {
        let slot = user_data as u32;
        let (Some(entry), Some(rest)) = (self.entries.get_mut(slot as usize), self.rest.get(slot as usize)) else {
            return false;
        };
        let is_borrowed = is_same(entry.key & !RARE, user_data) && matches!(*entry.held, Held::Borrowed);
        if !is_borrowed || has_more(flags) || rest.watched_file != NO_FILE || rest.descriptor.is_some() {
            return false;
        }
        (self.in_flight, self.borrowed) = (self.in_flight - 1, self.borrowed - 1);
        entry.give_back(user_data, &mut self.free);
        true
    }

    /// How many operations in flight use a registered file; from now on each of them tells of it when it ends.
    #[cold]
    pub(crate) fn watch_file(&mut self, file: u32) -> u32 {
        let mut count = 0;
        for (entry, rest) in self.entries.iter_mut().zip(&mut self.rest) {
            if entry.key & (FREE | DONE) == 0 && entry.file == file {
                entry.key |= RARE;
                rest.watched_file = file;
                count += 1;
            }
        }
        count
    }

    /// Accounts for any CQE.
    #[cold]
    #[inline(never)]
    pub(crate) fn complete_rare(&mut self, user_data: u64, result: i32, flags: u32) -> Completed<B> {
        let Some(slot) = self.find(user_data) else { return Completed::Unknown };
        if has_more(flags) {
            return self.more(slot, result, flags).map_or(Completed::NotYet, Completed::More);
        }
        self.leave_flight(slot);
        let is_silent = self.rest[slot as usize].is_silent;
        let (result, flags) = self.end_of(slot, result, flags);
        let finished = self.free(slot, result, flags);
        if is_silent { Completed::Silent(finished.file) } else { Completed::Final(finished) }
    }

    /// A CQE of an operation that goes on.
    fn more(&mut self, slot: u32, result: i32, flags: u32) -> Option<Partial> {
        let (entry, rest) = (&self.entries[slot as usize], &mut self.rest[slot as usize]);
        if rest.outcome == Outcome::ZeroCopy {
            (rest.result, rest.flags, rest.has_result) = (result, flags, true);
            return None;
        }
        let outcome = if entry.key & RARE == 0 { Outcome::Count } else { rest.outcome };
        let new_descriptor = settle(outcome, result, &mut Held::<B>::Nothing);
        let group = if let Held::Group(memory) = &*entry.held { Some(memory.group()) } else { None };
        let is_bundle = outcome == Outcome::Bundle;
        Some(Partial { ticket: Ticket(entry.key & !STATES), result, flags, new_descriptor, group, is_bundle })
    }

    /// The result that counts where the final CQE says `result`.
    fn end_of(&self, slot: u32, result: i32, flags: u32) -> (i32, u32) {
        let rest = &self.rest[slot as usize];
        if rest.has_result {
            return (rest.result, rest.flags);
        }
        // The memory of a zero-copy operation is free, and the CQE with its result was lost for want of memory: of which the
        // kernel tells when the ring is entered, with the same number. Its 0 is no result.
        let is_lost = flags & liburing_sys::IORING_CQE_F_NOTIF != 0;
        (if is_lost { -libc::EBADR } else { result }, flags)
    }

    /// Accounts for a CQE; where it was a final one the operation goes to the done list, for [`Table::take`].
    ///
    /// Also for an SQE that was taken out of the submission queue before the kernel saw it: it has ended as well.
    ///
    /// The answer is the registered file that the operation is through with, or [`NO_FILE`].
    pub(crate) fn complete_later(&mut self, user_data: u64, result: i32, flags: u32) -> u32 {
        let Some(slot) = self.find(user_data) else { return NO_FILE };
        debug_assert!(
            !self.takes_from_group(user_data) || flags == 0,
            "buffers are accounted for in the order of CQEs"
        );
        if flags & liburing_sys::IORING_CQE_F_MORE != 0 {
            let partial = self.more(slot, result, flags);
            self.partial.extend(partial);
            return NO_FILE;
        }
        self.leave_flight(slot);
        let (result, flags) = self.end_of(slot, result, flags);
        if self.rest[slot as usize].is_silent {
            return self.free(slot, result, flags).file;
        }
        let last = self.last_done;
        let entry = &mut self.entries[slot as usize];
        entry.key |= DONE;
        let rest = &mut self.rest[slot as usize];
        rest.descriptor = None;
        (rest.result, rest.flags) = (result, flags);
        (rest.previous, rest.next) = (last, NO_SLOT);
        let file = mem::replace(&mut rest.watched_file, NO_FILE);
        match self.rest.get_mut(last as usize) {
            Some(last) => last.next = slot,
            None => self.first_done = slot,
        }
        self.last_done = slot;
        file
    }

    /// Whether the operation in flight takes its buffers from a group: its CQEs are told to [`Table::complete_rare`] as they
    /// come.
    pub(crate) fn takes_from_group(&self, user_data: u64) -> bool {
        let slot = self.find(user_data);
        slot.is_some_and(|slot| matches!(*self.entries[slot as usize].held, Held::Group(_)))
    }

    /// Takes the operation where it is on the done list.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Finished<B>> {
        if !self.is_done(ticket) {
            return None;
        }
        let &Rest { result, flags, previous, next, .. } = &self.rest[ticket.slot() as usize];
        match self.rest.get_mut(previous as usize) {
            Some(rest) => rest.next = next,
            None => self.first_done = next,
        }
        match self.rest.get_mut(next as usize) {
            Some(rest) => rest.previous = previous,
            None => self.last_done = previous,
        }
        Some(self.free(ticket.slot(), result, flags))
    }

    /// Takes the operation that has been on the done list for longest.
    pub(crate) fn take_oldest(&mut self) -> Option<Finished<B>> {
        let entry = self.entries.get(self.first_done as usize)?;
        self.take(Ticket(entry.key & !STATES))
    }

    /// Takes what an operation that goes on reported while somebody looked for something else.
    pub(crate) fn take_partial(&mut self) -> Option<Partial> {
        self.partial.pop_front()
    }

    /// How many operations are on the done list, or reported something that nobody took.
    pub(crate) fn waiting(&self) -> usize {
        let mut done = 0;
        let mut slot = self.first_done;
        while let Some(rest) = self.rest.get(slot as usize) {
            done += 1;
            slot = rest.next;
        }
        done + self.partial.len()
    }

    /// Discards the operations on the done list that used borrowed memory.
    pub(crate) fn forget_borrowed(&mut self) {
        let mut slot = self.first_done;
        while let Some(entry) = self.entries.get(slot as usize) {
            let (ticket, next) = (Ticket(entry.key & !STATES), self.rest[slot as usize].next);
            if matches!(*entry.held, Held::Borrowed) {
                self.take(ticket);
            }
            slot = next;
        }
    }

    /// Whether the operation is in flight or waits on the done list.
    pub(crate) fn knows(&self, ticket: Ticket) -> bool {
        let key = self.entries.get(ticket.slot() as usize).map(|entry| entry.key);
        key.is_some_and(|key| key & !(DONE | RARE) == ticket.0)
    }

    /// Whether the operation waits on the done list.
    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        let key = self.entries.get(ticket.slot() as usize).map(|entry| entry.key);
        key.is_some_and(|key| key & DONE != 0 && key & !STATES == ticket.0)
    }

    /// The operations in flight, but for cancels themselves.
    pub(crate) fn tickets_to_cancel(&self) -> Vec<Ticket> {
        let entries = self.entries.iter().zip(&self.rest);
        let in_flight = entries.filter(|(entry, rest)| entry.key & (FREE | DONE) == 0 && !rest.is_silent);
        in_flight.map(|(entry, _)| Ticket(entry.key & !STATES)).collect()
    }

    /// How many operations in flight have something that would be leaked: memory that is no slot of a pool, or a descriptor.
    pub(crate) fn would_leak(&self) -> u32 {
        let in_flight = self.entries.iter().zip(&self.rest).filter(|(entry, _)| entry.key & (FREE | DONE) == 0);
        let leaks = |(entry, rest): &(&Entry<B>, &Rest)| {
            let has_memory = !matches!(*entry.held, Held::Nothing | Held::Borrowed | Held::Lease(_) | Held::Group(_));
            let is_rare = entry.key & RARE != 0;
            has_memory || is_rare && (rest.descriptor.is_some() || rest.outcome == Outcome::Descriptor)
        };
        in_flight.filter(leaks).count() as u32
    }

    /// Gives up everything in flight: no CQE will be believed any more, and memory is abandoned to the kernel.
    ///
    /// The answer is of how many of them something is leaked: a descriptor in use, memory that is not a slot of a pool.
    pub(crate) fn abandon_in_flight(&mut self) -> u32 {
        let mut leaked = 0;
        for slot in 0..self.entries.len() as u32 {
            if self.entries[slot as usize].key & (FREE | DONE) != 0 {
                continue;
            }
            let rest = &mut self.rest[slot as usize];
            // There is no result yet, whatever the number says.
            rest.outcome = Outcome::Count;
            // The file stays open: an operation that has not started yet looks for it by its number.
            let descriptor = rest.descriptor.take();
            let mut leaks = descriptor.is_some();
            mem::forget(descriptor);
            match self.free(slot, 0, 0).held {
                Held::Lease(buf) => buf.abandon(),
                Held::Group(memory) => memory.abandon(),
                Held::Nothing | Held::Borrowed => {}
                held => {
                    leaks = true;
                    mem::forget(held);
                }
            }
            leaked += u32::from(leaks);
        }
        // `borrowed` stays: who lent memory must not get it back.
        self.in_flight = 0;
        leaked
    }
}

/// Whether `key` is that of the operation in flight that `user_data` names.
#[inline(always)]
fn is_same(key: u64, user_data: u64) -> bool {
    if cfg!(sysuring_break = "r4_generation") {
        return (key ^ user_data) & !(u64::from(GENERATION_MASK) << 32) == 0;
    }
    key == user_data
}

#[inline(always)]
fn has_more(flags: u32) -> bool {
    flags & liburing_sys::IORING_CQE_F_MORE != 0 && !cfg!(sysuring_break = "r2_more")
}

/// The key of the entry that was `user_data`'s, free: with the next generation.
#[inline(always)]
fn freed(user_data: u64) -> u64 {
    if cfg!(sysuring_break = "r4_twice") {
        return user_data;
    }
    // Slots have no such bit, so that adding sets it.
    let next = user_data.wrapping_add(1 << 32 | FREE);
    if next as i64 >= 0 { next } else { first_generation(next) }
}

/// The generation ran over into the tag, and made its upper bit one.
#[cold]
#[inline(never)]
fn first_generation(key: u64) -> u64 {
    key & u64::from(u32::MAX) | TAG_OPERATION << TAG_SHIFT
}

/// What a result means for descriptors: the new one that it is, if any.
#[cold]
fn settle<B>(outcome: Outcome, result: i32, held: &mut Held<B>) -> Option<OwnedFd> {
    if outcome == Outcome::Descriptor && result >= 0 {
        // SAFETY: the kernel made this descriptor for us, and each CQE is looked at once.
        return Some(unsafe { OwnedFd::from_raw_fd(result) });
    }
    if outcome == Outcome::Close && result != -libc::ECANCELED {
        // Closed, also where closing reports an error, which a file system may choose as it likes. So where it was refused
        // (by restrictions, for a ring's descriptor) it stays open: to close the number again could hit somebody else's file.
        if let Held::Parcel(parcel) = held {
            mem::forget(parcel.parameters().closing.take());
        }
    }
    if let (Outcome::Message, Held::Parcel(parcel)) = (outcome, held) {
        own_received(parcel);
    }
    None
}

impl<B> Drop for Table<B> {
    fn drop(&mut self) {
        self.abandon_in_flight();
        // Where dropping one unwinds the others are dropped all the same, as those of a vector are.
        let rest = Unasked(self);
        while let Some(finished) = rest.0.take_oldest() {
            drop(finished);
        }
    }
}

/// What ended and was not asked for: gives up what it held.
struct Unasked<'a, B>(&'a mut Table<B>);

impl<B> Drop for Unasked<'_, B> {
    fn drop(&mut self) {
        while let Some(finished) = self.0.take_oldest() {
            drop(finished);
        }
    }
}

impl<B> fmt::Debug for Table<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    const MORE: u32 = liburing_sys::IORING_CQE_F_MORE;

    impl Table {
        fn start(&mut self, start: Start<NoBuffers>) -> Ticket {
            assert!(!self.is_full());
            // SAFETY: just looked up.
            unsafe { self.insert(start) }
        }

        /// As a ring does.
        fn complete_any(&mut self, user_data: u64, result: i32, flags: u32) -> Completed {
            match self.complete(user_data, flags) {
                Some(returned) => {
                    let held = match returned {
                        Returned::Nothing => Held::Nothing,
                        Returned::Lease(buf) => Held::Lease(buf),
                        other => panic!("{other:?} is not plain"),
                    };
                    let (ticket, file) = (Ticket::of(user_data), NO_FILE);
                    Completed::Final(Finished {
                        ticket,
                        result,
                        flags,
                        held,
                        file,
                        new_descriptor: None,
                        is_bundle: false,
                    })
                }
                None => self.complete_rare(user_data, result, flags),
            }
        }
    }

    fn free_slots(pool: &Pool) -> usize {
        let leases: Vec<Buf> = std::iter::from_fn(|| pool.lease()).collect();
        leases.len()
    }

    #[test]
    fn an_operation_keeps_its_lease_until_its_final_completion() {
        let pool = Pool::new(1, 64).unwrap();
        let mut table = Table::<NoBuffers>::new(2, 7);
        let ticket = table.start(Start::holding(Held::Lease(pool.lease().unwrap())));
        assert_eq!(free_slots(&pool), 0);
        assert!(matches!(table.complete_any(ticket.user_data(), 3, MORE), Completed::More(_)));
        assert_eq!(free_slots(&pool), 0, "R2: F_MORE is not final");
        let Completed::Final(finished) = table.complete_any(ticket.user_data(), 3, 0) else { panic!() };
        assert_eq!((finished.ticket, finished.result), (ticket, 3));
        drop(finished);
        assert_eq!(free_slots(&pool), 1);
    }

    #[test]
    fn a_result_that_was_lost_is_no_success() {
        const NOTIF: u32 = liburing_sys::IORING_CQE_F_NOTIF;
        let mut table = Table::<NoBuffers>::new(1, 0);
        for (has_result, expected) in [(true, (491, MORE)), (false, (-libc::EBADR, NOTIF))] {
            let start = Start { outcome: Outcome::ZeroCopy, ..Start::holding(Held::Nothing) };
            let ticket = table.start(start);
            if has_result {
                assert!(matches!(table.complete_any(ticket.user_data(), 491, MORE), Completed::NotYet));
            }
            let Completed::Final(finished) = table.complete_any(ticket.user_data(), 0, NOTIF) else { panic!() };
            assert_eq!((finished.result, finished.flags), expected);
        }
    }

    #[test]
    fn a_completion_that_comes_twice_or_late_finds_nothing() {
        let mut table = Table::<NoBuffers>::new(1, 0);
        let first = table.start(Start::holding(Held::Nothing));
        assert!(matches!(table.complete_any(first.user_data(), 0, 0), Completed::Final(_)));
        assert!(matches!(table.complete_any(first.user_data(), 0, 0), Completed::Unknown));
        let second = table.start(Start::holding(Held::Nothing));
        assert_ne!(first, second);
        assert!(matches!(table.complete_any(first.user_data(), 0, 0), Completed::Unknown), "the slot is another's now");
        assert_eq!(table.in_flight(), 1);
    }

    #[test]
    fn foreign_user_data_finds_nothing() {
        let mut table = Table::<NoBuffers>::new(4, 0);
        let ticket = table.start(Start::holding(Held::Nothing));
        let low = ticket.user_data() & !(3 << 62);
        for forged in
            [u64::MAX, 0, low, low | 2 << 62, low | 3 << 62, ticket.user_data() + 1, ticket.user_data() + (1 << 32)]
        {
            assert!(matches!(table.complete_any(forged, 0, 0), Completed::Unknown), "{forged:#x}");
        }
        assert!(is_raw(low) && !is_raw(ticket.user_data()) && !is_raw(u64::MAX));
    }

    #[test]
    fn generations_wrap_within_their_bits() {
        let mut table = Table::<NoBuffers>::new(1, GENERATION_MASK);
        let last = table.start(Start::holding(Held::Nothing));
        assert!(matches!(table.complete_any(last.user_data(), 0, 0), Completed::Final(_)));
        let first = table.start(Start::holding(Held::Nothing));
        assert_eq!(first.generation(), 0);
        assert_eq!(first.user_data() >> TAG_SHIFT, TAG_OPERATION);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = Table::<NoBuffers>::new(1, 0);
        assert!(!table.is_full());
        let ticket = table.start(Start::holding(Held::Nothing));
        assert!(table.is_full());
        table.complete_any(ticket.user_data(), 0, 0);
        assert!(!table.is_full());
        assert!(Table::<NoBuffers>::new(0, 0).is_full());
    }

    #[test]
    fn the_done_list_keeps_its_order_and_loses_nothing() {
        let mut table = Table::<NoBuffers>::new(4, 0);
        let tickets: Vec<Ticket> = (0..4).map(|_| table.start(Start::holding(Held::Nothing))).collect();
        for index in [2, 0, 3, 1] {
            table.complete_later(tickets[index].user_data(), index as i32, 0);
        }
        assert_eq!(table.in_flight(), 0);
        assert_eq!(table.take(tickets[0]).unwrap().result, 0);
        assert!(table.take(tickets[0]).is_none(), "taken once");
        let rest: Vec<i32> = std::iter::from_fn(|| table.take_oldest()).map(|finished| finished.result).collect();
        assert_eq!(rest, [2, 3, 1]);
        assert!(!table.is_full());
    }

    #[test]
    fn a_dropped_table_gives_back_what_ended_and_nothing_else() {
        let pool = Pool::new(3, 64).unwrap();
        let mut table = Table::<NoBuffers>::new(3, 0);
        let ended = table.start(Start::holding(Held::Lease(pool.lease().unwrap())));
        table.start(Start::holding(Held::Lease(pool.lease().unwrap())));
        table.complete_later(ended.user_data(), 0, 0);
        drop(table);
        assert_eq!(free_slots(&pool), 2, "one was free, one came back, the one in flight is abandoned");
    }
}
