//! The kernel's side of rings in memory, and who owns which memory at each moment.
//!
//! The kernel here keeps its promises, and no others: it uses what an operation lent it until that operation's final
//! completion, in any order, as late as it likes, also after a cancel and after the ring was closed; it takes as many
//! entries as it likes, answers with errors whether it took some or not, and holds completions back. Whoever can post to a
//! ring posts what means nothing there. Before it touches memory it looks who owns it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Weak;

use liburing_sys as sys;

use super::memory::Memory;
use crate::pool::PoolMemory;
use crate::random::Random;

/// `ring_fd` of the first ring of a world; those of the others are below.
const FIRST_RING: c_int = -1000;
/// Descriptors that a world makes begin here, where nobody else's are.
const FIRST_DESCRIPTOR: c_int = 500;
const LINKS: u8 = (sys::IOSQE_IO_LINK | sys::IOSQE_IO_HARDLINK) as u8;
const MORE: u32 = sys::IORING_CQE_F_MORE;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Works on the world of this thread. No value that tells the world of its end may be dropped in there.
pub(crate) fn world<R>(work: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| work(world.as_mut().expect("a program is running")))
}

/// Begins the world of this thread, or ends it.
pub(super) fn set_world(new: Option<World>) -> Option<World> {
    WORLD.replace(new)
}

/// Fails the test once: what follows while the stack unwinds is not looked at any more.
macro_rules! check {
    ($world:expr, $holds:expr, $($message:tt)*) => {
        if !$world.has_failed && !$holds {
            $world.has_failed = true;
            panic!($($message)*);
        }
    };
}
pub(super) use check;

/// Who may touch a piece of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A slot on its pool's free list.
    Free,
    User,
    /// The operation, until its final completion; for ever where that is never seen.
    Operation(u64),
    /// The user forgot it.
    Forgotten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of the pool with this number.
    Slot(usize),
    /// The memory of a [`super::Tracked`].
    Tracked,
    /// Lent for the time of a scope.
    Borrowed,
}

#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) address: usize,
    pub(super) length: usize,
    pub(super) owner: Owner,
    pub(super) kind: Kind,
}

/// The file that an operation is on.
#[derive(Debug, Clone)]
pub(super) enum On {
    Nothing,
    /// An index among the registered files, and which registration it is.
    Registered(u32, u64),
    /// A descriptor that stays open for as long as the operation is in flight.
    Kept(RawFd, Weak<OwnedFd>),
    Number(RawFd),
}

/// How a result is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Result {
    Count,
    Descriptor,
    ZeroCopy,
    Close(RawFd),
}

/// Where an address is in an entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    Address,
    Offset,
}

/// What the kernel is to find.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) opcode: u32,
    pub(super) on: On,
    /// What is transferred, in order; with `is_vectored` through an array of iovecs.
    pub(super) memory: Vec<(usize, usize)>,
    pub(super) is_vectored: bool,
    /// The kernel writes to the memory, and else reads it.
    pub(super) is_written: bool,
    pub(super) fill: u8,
    pub(super) texts: Vec<(Field, CString)>,
    pub(super) seconds: Option<i64>,
    pub(super) has_status: bool,
    pub(super) result: Result,
    /// Another descriptor that it uses.
    pub(super) second: Option<Weak<OwnedFd>>,
    /// May report more than once.
    pub(super) is_multishot: bool,
    /// Addresses of the regions that it owns.
    pub(super) regions: Vec<usize>,
}

impl Expected {
    pub(super) fn new(opcode: u32) -> Self {
        Self {
            opcode,
            on: On::Nothing,
            memory: Vec::new(),
            is_vectored: false,
            is_written: false,
            fill: 0,
            texts: Vec::new(),
            seconds: None,
            has_status: false,
            result: Result::Count,
            second: None,
            is_multishot: false,
            regions: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In a chain that is not complete.
    Building,
    Queued,
    InKernel,
    /// Its final completion was posted.
    Posted,
}

#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) number: u64,
    pub(super) ring: usize,
    pub(super) user_data: u64,
    pub(super) expected: Expected,
    pub(super) stage: Stage,
    /// Its final completion was taken out of the queue, or it never got into the kernel and was withdrawn.
    pub(super) is_popped: bool,
    /// A cancel, which nobody hears of.
    pub(super) is_silent: bool,
    /// Of a scope.
    pub(super) is_borrowed: bool,
    /// Linked to the next entry.
    pub(super) is_linked: bool,
    pub(super) result: i32,
    pub(super) flags: u32,
    /// A zero-copy operation has its result, and its memory is still in use.
    has_result: bool,
    /// Ends with this, whatever else happens.
    doomed: Option<i32>,
    /// `addr` and `off` of its entry.
    fields: (u64, u64),
}

/// A completion.
#[derive(Debug, Clone, Copy)]
struct Posting {
    user_data: u64,
    result: i32,
    flags: u32,
    /// Of this operation, and not forged or a repetition.
    operation: Option<u64>,
    makes_descriptor: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Forgotten,
}

/// What a ring in memory is to be like.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) sq_entries: u32,
    pub(super) cq_entries: u32,
    pub(super) flags: u32,
    /// Completions become visible when somebody enters.
    pub(super) is_deferred: bool,
    pub(super) has_sparse_buffers: bool,
}

pub(super) struct RingModel {
    pub(super) raw: NonNull<sys::io_uring>,
    pub(super) setup: Setup,
    memory: Memory,
    state: State,
    pub(super) is_poisoned: bool,
    /// Completions were dropped, and nobody was told so far.
    has_lost: bool,
    /// `user_data` of what is in the submission queue.
    pub(super) queue: VecDeque<u64>,
    /// In the completion queue, and not known to have been taken out.
    visible: VecDeque<Posting>,
    /// Due, with no room, or held back.
    held: VecDeque<Posting>,
    /// Raw entries that the kernel took.
    raw_taken: Vec<u64>,
    /// As the crate is to count them.
    pub(super) raw_in_flight: u32,
    /// Taken out of the queue, for the user to hear of.
    pub(super) raw_due: VecDeque<u64>,
    pub(super) more_due: VecDeque<(u64, i32, bool)>,
    /// Final completions of before.
    ended: Vec<u64>,
    pub(super) files: Vec<Option<u64>>,
    buffers: Vec<(usize, usize)>,
    /// The head of a chain that is being taken failed.
    chain_is_broken: bool,
    chain_goes_on: bool,
}

pub(super) struct PoolModel {
    pub(super) memory: Weak<PoolMemory>,
    pub(super) start: usize,
    pub(super) length: usize,
    pub(super) is_gone: bool,
    /// It went while the kernel used it: its addresses are nobody's for good.
    pub(super) is_retired: bool,
}

/// What became of a descriptor that a world made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    InUse,
    /// Closed; the number is taken, so that closing it again does not go unnoticed.
    Closed,
    Forgotten,
}

/// How the kernel feels today.
#[derive(Debug, Clone)]
pub(super) struct Temper {
    /// One call in so many fails; 0 for none.
    pub(super) errors: usize,
    /// Others post completions that mean nothing here.
    pub(super) is_forging: bool,
    pub(super) loses_completions: bool,
}

pub(crate) struct World {
    pub(super) random: Random,
    pub(super) temper: Temper,
    pub(super) rings: Vec<RingModel>,
    pub(super) operations: Vec<Operation>,
    pub(super) regions: Vec<Region>,
    pub(super) pools: Vec<PoolModel>,
    descriptors: HashMap<RawFd, Fate>,
    null: File,
    next_number: u64,
    next_registration: u64,
    next_descriptor: RawFd,
    /// A scope must end: nothing that it waits for may be lost.
    pub(super) in_scope: bool,
    /// What is in the submission queue may be taken out of it again.
    pub(super) may_withdraw: bool,
    /// What a chain held comes back: its closure failed.
    pub(super) chain_fails: bool,
    pub(super) has_failed: bool,
    calls_after_failure: u32,
}

impl World {
    pub(super) fn new(random: Random, temper: Temper) -> Self {
        Self {
            random,
            temper,
            rings: Vec::new(),
            operations: Vec::new(),
            regions: Vec::new(),
            pools: Vec::new(),
            descriptors: HashMap::new(),
            null: File::options().read(true).write(true).open("/dev/null").expect("/dev/null"),
            next_number: 0,
            next_registration: 0,
            next_descriptor: FIRST_DESCRIPTOR,
            in_scope: false,
            may_withdraw: false,
            chain_fails: false,
            has_failed: false,
            calls_after_failure: 0,
        }
    }

    // ---- rings

    /// A ring with nothing in it, whose counters are about to wrap.
    pub(super) fn make_ring(&mut self, setup: Setup) -> (usize, NonNull<sys::io_uring>) {
        let number = self.rings.len();
        let start = |random: &mut Random| u32::MAX.wrapping_sub(random.below(24) as u32).wrapping_add(4);
        let (sq, cq) = (start(&mut self.random), start(&mut self.random));
        // SAFETY: a plain C structure, for which all zeroes is a value.
        let mut ring = Box::new(unsafe { std::mem::zeroed::<sys::io_uring>() });
        let entries = (setup.sq_entries, setup.cq_entries);
        let memory = Memory::new(&mut ring, FIRST_RING - number as c_int, setup.flags, entries, (sq, cq));
        let raw = NonNull::from(Box::leak(ring));
        self.rings.push(RingModel {
            raw,
            setup,
            memory,
            state: State::Open,
            is_poisoned: false,
            has_lost: false,
            queue: VecDeque::new(),
            visible: VecDeque::new(),
            held: VecDeque::new(),
            raw_taken: Vec::new(),
            raw_in_flight: 0,
            raw_due: VecDeque::new(),
            more_due: VecDeque::new(),
            ended: Vec::new(),
            files: Vec::new(),
            buffers: Vec::new(),
            chain_is_broken: false,
            chain_goes_on: false,
        });
        (number, raw)
    }

    /// Which ring of a world it is; `None` for liburing's own.
    pub(super) fn number_of(ring: *mut sys::io_uring) -> Option<usize> {
        // SAFETY: the caller passes a ring that is set up.
        let descriptor = unsafe { (*ring).ring_fd };
        usize::try_from(FIRST_RING - descriptor).ok()
    }

    pub(super) fn close(&mut self, ring: usize) {
        self.settle(ring);
        self.may_withdraw = false;
        let model = &mut self.rings[ring];
        model.state = State::Closed;
        let lost: Vec<Posting> = model.held.drain(..).chain(model.visible.drain(..)).collect();
        for posting in lost {
            self.lose(posting);
        }
    }

    /// The ring was dropped: what ended before gave back what it held, and the rest never will.
    pub(super) fn ring_gone(&mut self, ring: usize) {
        let due: Vec<_> = self.rings[ring].more_due.drain(..).collect();
        for (_, descriptor, is_descriptor) in due {
            if is_descriptor {
                self.closed(descriptor);
            }
        }
        let of_ring = |operation: &&Operation| operation.ring == ring;
        let all: Vec<Operation> = self.operations.iter().filter(of_ring).cloned().collect();
        for operation in &all {
            if !operation.is_popped {
                self.forget_what_it_closes(operation);
                continue;
            }
            self.operations.retain(|known| known.number != operation.number);
            self.give_up(operation);
            let result = operation.result;
            match operation.expected.result {
                Result::Descriptor if result >= 0 => self.closed(result),
                Result::Close(descriptor) if is_unclosed(result) => self.closed(descriptor),
                _ => {}
            }
        }
    }

    /// The user forgot the ring: nobody will take completions any more.
    pub(super) fn forget_ring(&mut self, ring: usize) {
        self.close(ring);
        self.rings[ring].state = State::Forgotten;
        let due: Vec<_> = self.rings[ring].more_due.drain(..).collect();
        for (_, descriptor, is_descriptor) in due {
            if is_descriptor {
                self.forget_descriptor(descriptor);
            }
        }
        let of_ring = |operation: &&Operation| operation.ring == ring;
        let all: Vec<Operation> = self.operations.iter().filter(of_ring).cloned().collect();
        for operation in &all {
            if operation.is_popped && operation.expected.result == Result::Descriptor && operation.result >= 0 {
                self.forget_descriptor(operation.result);
            }
            self.forget_what_it_closes(operation);
        }
    }

    /// A descriptor that was to be closed, and may never be.
    fn forget_what_it_closes(&mut self, operation: &Operation) {
        let Result::Close(descriptor) = operation.expected.result else { return };
        let is_over = operation.stage == Stage::Posted && is_unclosed(operation.result);
        if is_over || operation.stage == Stage::Queued {
            self.forget_descriptor(descriptor);
        }
    }

    /// A completion that nobody will see: the kernel leaves the descriptor that it made in the process.
    fn lose(&mut self, posting: Posting) {
        if posting.makes_descriptor {
            self.forget_descriptor(posting.result);
        }
    }

    pub(super) fn is_open(&self, ring: usize) -> bool {
        self.rings[ring].state == State::Open
    }

    // ---- what the user did

    /// The user started an operation.
    pub(super) fn started(&mut self, ring: usize, user_data: u64, expected: Expected, stage: Stage) -> u64 {
        self.next_number += 1;
        let number = self.next_number;
        for address in expected.regions.clone() {
            let region = self.region(address);
            let owner = region.owner;
            region.owner = Owner::Operation(number);
            check!(self, owner == Owner::User, "memory of {owner:?} was lent to an operation");
        }
        let same = self.operations.iter().any(|known| known.ring == ring && known.user_data == user_data);
        check!(self, !same, "two operations of one ring have the user_data {user_data:#x}");
        if stage == Stage::Queued {
            self.rings[ring].queue.push_back(user_data);
        }
        self.operations.push(Operation {
            number,
            ring,
            user_data,
            expected,
            stage,
            is_popped: false,
            is_silent: false,
            is_borrowed: false,
            is_linked: false,
            result: 0,
            flags: 0,
            has_result: false,
            doomed: None,
            fields: (0, 0),
        });
        number
    }

    pub(super) fn operation(&mut self, number: u64) -> Option<&mut Operation> {
        self.operations.iter_mut().find(|operation| operation.number == number)
    }

    /// The operation of this ring that carries `user_data`.
    pub(super) fn position(&self, ring: usize, user_data: u64) -> Option<usize> {
        self.operations.iter().position(|operation| operation.ring == ring && operation.user_data == user_data)
    }

    /// The `user_data` of the entry that was put into the queue last.
    pub(super) fn last_queued(&self, ring: usize) -> u64 {
        let model = &self.rings[ring];
        // SAFETY: the ring and its entries live until the end of the world; only this thread uses them.
        unsafe {
            let sq = &(*model.raw.as_ptr()).sq;
            (*model.memory.entry(sq.sqe_tail.wrapping_sub(1))).user_data
        }
    }

    /// The chain is complete, or will never be.
    pub(super) fn end_chain(&mut self, ring: usize, is_complete: bool) {
        let mut chain: Vec<&mut Operation> = self
            .operations
            .iter_mut()
            .filter(|operation| operation.ring == ring && operation.stage == Stage::Building)
            .collect();
        if is_complete {
            let last = chain.len();
            for (index, operation) in chain.iter_mut().enumerate() {
                operation.stage = Stage::Queued;
                operation.is_linked = index + 1 != last;
                self.rings[ring].queue.push_back(operation.user_data);
            }
            return;
        }
        let forgotten: Vec<Operation> = chain.into_iter().map(|operation| operation.clone()).collect();
        for operation in forgotten {
            self.operations.retain(|known| known.number != operation.number);
            self.give_up(&operation);
            if let Result::Close(descriptor) = operation.expected.result {
                self.closed(descriptor);
            }
        }
    }

    /// The crate dropped what the operation held.
    pub(super) fn give_up(&mut self, operation: &Operation) {
        for address in &operation.expected.regions {
            let Some(region) = self.regions.iter_mut().find(|region| region.address == *address) else { continue };
            if region.owner != Owner::Operation(operation.number) {
                continue;
            }
            match region.kind {
                Kind::Slot(_) => region.owner = Owner::Free,
                Kind::Tracked => {
                    let message = "a buffer that came back to nobody was not dropped";
                    check!(self, false, "{message}: {operation:?}");
                }
                Kind::Borrowed => {}
            }
        }
    }

    /// The user has what the operation held.
    pub(super) fn hand_over(&mut self, operation: &Operation) {
        for address in &operation.expected.regions {
            let region = self.region(*address);
            let owner = region.owner;
            region.owner = Owner::User;
            let number = operation.number;
            check!(self, owner == Owner::Operation(number), "memory of {owner:?} came back from operation {number}");
        }
    }

    pub(super) fn region(&mut self, address: usize) -> &mut Region {
        self.regions.iter_mut().find(|region| region.address == address).expect("memory that the model knows")
    }

    /// New memory of the user's.
    pub(super) fn add_region(&mut self, address: usize, length: usize, owner: Owner, kind: Kind) {
        let overlaps = self
            .regions
            .iter()
            .find(|region| address < region.address + region.length && region.address < address + length)
            .cloned();
        check!(
            self,
            overlaps.is_none(),
            "new memory of {kind:?} at {address:#x} is where other memory is: {overlaps:x?}"
        );
        self.regions.push(Region { address, length, owner, kind });
    }

    /// The user's buffer is being dropped, by whomever.
    pub(super) fn tracked_dropped(&mut self, address: usize) {
        let Some(region) = self.regions.iter().find(|region| region.address == address).cloned() else {
            check!(self, false, "a buffer was dropped twice");
            return;
        };
        let may_go = match region.owner {
            Owner::User => true,
            Owner::Operation(number) => {
                let chain_fails = self.chain_fails;
                for ring in 0..self.rings.len() {
                    self.settle(ring);
                }
                self.operation(number)
                    .is_some_and(|operation| operation.is_popped || chain_fails && operation.stage == Stage::Building)
            }
            Owner::Free | Owner::Forgotten => false,
        };
        check!(self, may_go, "a buffer was dropped that {:?} still uses", region.owner);
        self.regions.retain(|region| region.address != address);
    }

    // ---- looking

    /// Finds out what the crate took out of the queues since.
    pub(super) fn settle(&mut self, ring: usize) {
        if self.rings[ring].state != State::Open {
            return;
        }
        // SAFETY: shared with the crate, on this thread; lives until the end of the world.
        let shared = unsafe { &*self.rings[ring].memory.shared };
        let (cq_head, cq_tail, sq_head) = (shared.cq_head, shared.cq_tail, shared.sq_head);
        let left = cq_tail.wrapping_sub(cq_head) as usize;
        check!(self, left <= self.rings[ring].visible.len(), "the head of the completion queue went back, or too far");
        while self.rings[ring].visible.len() > left {
            let Some(posting) = self.rings[ring].visible.pop_front() else { break };
            self.popped(ring, posting);
        }
        // SAFETY: the structure lives until the ring is closed; only this thread uses it.
        let sqe_tail = unsafe { (*self.rings[ring].raw.as_ptr()).sq.sqe_tail };
        let queued = sqe_tail.wrapping_sub(sq_head) as usize;
        if queued != 0 {
            self.find_own_cancel(ring, sqe_tail.wrapping_sub(1));
        }
        let known = self.rings[ring].queue.len();
        check!(self, queued <= known, "{queued} entries are in the submission queue, of which {known} were started");
        if known == queued {
            return;
        }
        let model = &mut self.rings[ring];
        let places = (0..queued as u32).map(|ahead| sq_head.wrapping_add(ahead));
        // SAFETY: complete entries, of plain numbers.
        let left: Vec<u64> = places.map(|at| unsafe { (*model.memory.entry(at)).user_data }).collect();
        // What is left kept its order; what is missing of the start is the rest of a chain that was cut.
        let is_cut = model.chain_goes_on && left.first() != model.queue.front();
        let mut left = left.into_iter().peekable();
        for user_data in std::mem::take(&mut model.queue) {
            if left.next_if_eq(&user_data).is_some() {
                self.rings[ring].queue.push_back(user_data);
            } else {
                self.withdrawn(ring, user_data, is_cut);
            }
        }
        check!(
            self,
            left.next().is_none(),
            "the submission queue has entries that nobody started, or in another order"
        );
        self.rings[ring].chain_goes_on &= !is_cut;
    }

    /// A ring with a polling thread asks by an entry, which no user started, that all of its operations end.
    fn find_own_cancel(&mut self, ring: usize, last: u32) {
        const ALL: u32 = sys::IORING_ASYNC_CANCEL_ALL | sys::IORING_ASYNC_CANCEL_ANY;
        // SAFETY: a complete entry, of plain numbers.
        let (user_data, opcode, flags) = unsafe {
            let sqe = &*self.rings[ring].memory.entry(last);
            (sqe.user_data, u32::from(sqe.opcode), sqe.__bindgen_anon_3.cancel_flags)
        };
        let is_of_all = opcode == sys::IORING_OP_ASYNC_CANCEL && flags == ALL;
        if !is_of_all || self.rings[ring].queue.contains(&user_data) {
            return;
        }
        let expected = Expected { on: On::Number(-1), ..Expected::new(opcode) };
        let number = self.started(ring, user_data, expected, Stage::Queued);
        if let Some(operation) = self.operation(number) {
            operation.is_silent = true;
        }
    }

    fn popped(&mut self, ring: usize, posting: Posting) {
        let model = &mut self.rings[ring];
        let is_more = posting.flags & MORE != 0;
        if posting.user_data >> 62 == 0 {
            model.raw_due.push_back(posting.user_data);
            if !is_more {
                model.raw_in_flight = model.raw_in_flight.saturating_sub(1);
            }
            return;
        }
        let Some(number) = posting.operation else { return };
        let Some(operation) = self.operations.iter_mut().find(|operation| operation.number == number) else { return };
        if !is_more {
            operation.is_popped = true;
            if operation.is_silent {
                self.operations.retain(|operation| operation.number != number);
            }
        } else if operation.expected.result != Result::ZeroCopy {
            model.more_due.push_back((posting.user_data, posting.result, posting.makes_descriptor));
        }
    }

    fn withdrawn(&mut self, ring: usize, user_data: u64, is_cut: bool) {
        let may_withdraw = self.may_withdraw || self.in_scope || is_cut;
        check!(self, may_withdraw, "{user_data:#x} was taken out of the submission queue");
        if user_data >> 62 == 0 {
            let model = &mut self.rings[ring];
            model.raw_in_flight = model.raw_in_flight.saturating_sub(1);
            return;
        }
        let Some(position) = self.position(ring, user_data) else { return };
        let operation = &mut self.operations[position];
        operation.stage = Stage::Posted;
        operation.is_popped = true;
        (operation.result, operation.flags) = (-libc::ECANCELED, 0);
        if operation.is_silent {
            self.operations.remove(position);
        }
    }

    /// Operations that the crate is to count as in flight.
    pub(super) fn in_flight(&mut self, ring: usize) -> u32 {
        self.settle(ring);
        self.operations.iter().filter(|operation| operation.ring == ring && !operation.is_popped).count() as u32
    }

    /// Entries of the table that are taken.
    pub(super) fn live(&self, ring: usize) -> u32 {
        self.operations.iter().filter(|operation| operation.ring == ring).count() as u32
    }

    pub(super) fn building(&self, ring: usize) -> u32 {
        let is_building = |operation: &&Operation| operation.ring == ring && operation.stage == Stage::Building;
        self.operations.iter().filter(is_building).count() as u32
    }

    /// Completions in the queue that nobody took.
    pub(super) fn visible(&mut self, ring: usize) -> usize {
        self.settle(ring);
        self.rings[ring].visible.len()
    }

    // ---- pools

    /// Looks which pools are gone by now, and what became of their addresses.
    pub(super) fn check_pools(&mut self) {
        for number in 0..self.pools.len() {
            let pool = &self.pools[number];
            if pool.is_gone || pool.memory.strong_count() != 0 {
                continue;
            }
            let (start, length) = (pool.start, pool.length);
            let of_this = |region: &&Region| region.kind == Kind::Slot(number);
            let in_use = self.regions.iter().filter(of_this).any(|region| matches!(region.owner, Owner::Operation(_)));
            let in_hands = self.regions.iter().filter(of_this).any(|region| region.owner == Owner::User);
            check!(self, !in_hands, "a pool went while the user has leases of it");
            self.pools[number].is_gone = true;
            self.pools[number].is_retired = in_use;
            if in_use {
                check!(self, is_mapped(start, length), "the addresses of a pool were given back that the kernel uses");
            } else {
                self.regions.retain(|region| region.kind != Kind::Slot(number));
            }
        }
    }

    // ---- descriptors

    fn make_descriptor(&mut self) -> RawFd {
        // SAFETY: makes a descriptor.
        let made = unsafe { libc::fcntl(self.null.as_raw_fd(), libc::F_DUPFD_CLOEXEC, self.next_descriptor) };
        check!(self, made >= 0, "no descriptor: {}", std::io::Error::last_os_error());
        self.next_descriptor = made + 1;
        self.descriptors.insert(made, Fate::InUse);
        made
    }

    /// A new descriptor of the user's.
    pub(super) fn descriptor(&mut self) -> RawFd {
        self.make_descriptor()
    }

    /// The descriptor is to be closed by now. Its number is taken again, so that closing it once more is seen.
    pub(super) fn closed(&mut self, descriptor: RawFd) {
        let fate = self.descriptors.insert(descriptor, Fate::Closed);
        check!(self, fate == Some(Fate::InUse), "descriptor {descriptor} was {fate:?} when it was closed");
        check!(self, !is_descriptor(descriptor), "descriptor {descriptor} was not closed");
        // SAFETY: makes a descriptor.
        let again = unsafe { libc::fcntl(self.null.as_raw_fd(), libc::F_DUPFD_CLOEXEC, descriptor) };
        check!(self, again == descriptor, "descriptor {descriptor} was not closed, but replaced");
    }

    pub(super) fn forget_descriptor(&mut self, descriptor: RawFd) {
        self.descriptors.insert(descriptor, Fate::Forgotten);
    }

    // ---- the kernel's calls

    /// Whether the call is to fail, and how.
    fn error(&mut self) -> Option<c_int> {
        if self.has_failed {
            // The stack unwinds: whoever waits gets what they wait for.
            self.calls_after_failure += 1;
            if self.calls_after_failure > 10_000 {
                eprintln!("the model failed, and a scope can't be left");
                std::process::abort();
            }
            return None;
        }
        if self.temper.errors == 0 || !self.random.once_in(self.temper.errors) {
            return None;
        }
        let rarely = if self.random.once_in(16) { libc::ENXIO } else { libc::EINTR };
        Some(-self.random.pick(&[libc::EINTR, libc::EINTR, libc::EAGAIN, libc::EBUSY, rarely]))
    }

    /// Submits, and waits until `wait` completions are there.
    pub(super) fn enter(&mut self, ring: usize, wait: u32, get_events: bool) -> c_int {
        self.settle(ring);
        let model = &self.rings[ring];
        let is_polling = model.setup.flags & sys::IORING_SETUP_SQPOLL != 0;
        let is_rest_there = model.chain_goes_on && !is_polling && !model.queue.is_empty();
        check!(self, !is_rest_there, "the rest of a chain that was cut is submitted as one of its own");
        self.publish(ring);
        if get_events && self.tell_of_losses(ring) {
            return -libc::EBADR;
        }
        let error = self.error();
        let mut count = self.rings[ring].queue.len();
        if self.random.once_in(8) || error.is_some() && self.random.once_in(2) {
            count = self.random.below(count + 1);
        }
        if error.is_some() && self.random.once_in(2) {
            count = 0;
        }
        if !is_polling || self.random.once_in(2) {
            (0..count).for_each(|_| self.take(ring));
        }
        let events = self.random.below(4);
        self.run(events);
        if let Some(error) = error {
            return error;
        }
        if get_events || self.random.once_in(4) {
            self.show(ring);
        }
        let wait = wait.min(self.rings[ring].setup.cq_entries) as usize;
        while self.rings[ring].visible.len() < wait {
            if is_polling && !self.rings[ring].queue.is_empty() {
                self.take(ring);
            }
            if !self.finish_any(ring) {
                return if count == 0 { -libc::EINTR } else { count as c_int };
            }
            self.show(ring);
        }
        count as c_int
    }

    pub(super) fn enter_for_a_time(&mut self, ring: usize, wait: u32) -> c_int {
        if self.random.once_in(3) {
            let entered = self.enter(ring, 0, true);
            return if entered == 0 { -libc::ETIME } else { entered };
        }
        self.enter(ring, wait, true)
    }

    pub(super) fn get_events(&mut self, ring: usize) -> c_int {
        self.settle(ring);
        if self.tell_of_losses(ring) {
            return -libc::EBADR;
        }
        if let Some(error) = self.error() {
            return error;
        }
        self.show(ring);
        0
    }

    fn tell_of_losses(&mut self, ring: usize) -> bool {
        let model = &mut self.rings[ring];
        if self.in_scope || !std::mem::take(&mut model.has_lost) {
            return false;
        }
        model.is_poisoned = true;
        true
    }

    /// What liburing does first.
    fn publish(&mut self, ring: usize) {
        let model = &self.rings[ring];
        // SAFETY: as in `settle`.
        unsafe { model.memory.publish(model.raw.as_ptr()) };
    }

    /// Takes the entry at the head of the submission queue.
    fn take(&mut self, ring: usize) {
        let model = &mut self.rings[ring];
        let Some(user_data) = model.queue.pop_front() else { return };
        // SAFETY: as in `settle`.
        let shared = unsafe { &mut *model.memory.shared };
        let at = shared.sq_head;
        shared.sq_head = at.wrapping_add(1);
        // SAFETY: a complete entry, and a plain C structure.
        let sqe = unsafe { std::ptr::read(model.memory.entry(at)) };
        let is_behind = at != shared.sq_tail;
        check!(self, is_behind, "an entry was taken that is not published");
        check!(self, sqe.user_data == user_data, "{:#x} is in the queue, not {user_data:#x}", sqe.user_data);
        // SAFETY: every member of these unions is plain numbers.
        let (address, offset) = unsafe { (sqe.__bindgen_anon_2.addr, sqe.__bindgen_anon_1.off) };
        if user_data >> 62 == 0 {
            if u32::from(sqe.opcode) == sys::IORING_OP_ASYNC_CANCEL {
                self.cancel(ring, address);
            }
            self.rings[ring].raw_taken.push(user_data);
            return;
        }
        let Some(position) = self.position(ring, user_data) else {
            check!(self, false, "{user_data:#x} is executed, which nobody started");
            return;
        };
        let breaks = self.random.once_in(4);
        let operation = &mut self.operations[position];
        let stage = std::mem::replace(&mut operation.stage, Stage::InKernel);
        operation.fields = (address, offset);
        let is_linked = sqe.flags & LINKS != 0;
        let (was_linked, expected, number) = (operation.is_linked, operation.expected.clone(), operation.number);
        let model = &mut self.rings[ring];
        if !model.chain_goes_on {
            model.chain_is_broken = false;
        }
        if model.chain_is_broken {
            operation.doomed = Some(-libc::ECANCELED);
        } else if is_linked && breaks {
            operation.doomed = Some(-libc::EIO);
            model.chain_is_broken = true;
        }
        model.chain_goes_on = is_linked;
        check!(self, stage == Stage::Queued, "an operation is executed that is {stage:?}");
        check!(self, is_linked == was_linked, "{number}: linked {is_linked}, and was to be {was_linked}");
        self.check_entry(ring, &sqe, &expected);
        self.touch(number);
        if expected.opcode == sys::IORING_OP_ASYNC_CANCEL {
            self.cancel(ring, address);
        }
    }

    /// Compares an entry with what was asked for.
    fn check_entry(&mut self, ring: usize, sqe: &sys::io_uring_sqe, expected: &Expected) {
        check!(self, u32::from(sqe.opcode) == expected.opcode, "opcode {} for {expected:?}", sqe.opcode);
        let is_fixed = sqe.flags & sys::IOSQE_FIXED_FILE as u8 != 0;
        let on_right_file = match expected.on {
            On::Nothing => !is_fixed,
            On::Registered(index, _) => is_fixed && sqe.fd as u32 == index,
            On::Kept(descriptor, _) | On::Number(descriptor) => !is_fixed && sqe.fd == descriptor,
        };
        check!(self, on_right_file, "file {} (registered: {is_fixed}) for {expected:?}", sqe.fd);
        let skips = sqe.flags & sys::IOSQE_CQE_SKIP_SUCCESS as u8 != 0;
        check!(self, !skips, "an operation that owns something posts no completion");
        // SAFETY: every member of these unions is plain numbers.
        let (address, buffer) = unsafe { (sqe.__bindgen_anon_2.addr as usize, sqe.__bindgen_anon_4.buf_index) };
        let opcode = expected.opcode;
        if !expected.memory.is_empty() && !expected.is_vectored {
            let (start, length) = expected.memory[0];
            check!(
                self,
                (address, sqe.len as usize) == (start, length),
                "{address:#x} + {} for {expected:x?}",
                sqe.len
            );
        }
        if matches!(opcode, sys::IORING_OP_READ_FIXED | sys::IORING_OP_WRITE_FIXED) {
            let (start, length) = expected.memory[0];
            let (first, size) = self.rings[ring].buffers.get(usize::from(buffer)).copied().unwrap_or_default();
            let is_inside = start >= first && start + length <= first + size;
            check!(self, is_inside, "{start:#x} + {length} is not in the registered buffer {buffer} at {first:#x}");
        }
    }

    fn cancel(&mut self, ring: usize, user_data: u64) {
        let Some(position) = self.position(ring, user_data) else { return };
        let operation = &mut self.operations[position];
        if operation.stage == Stage::InKernel && self.random.once_in(2) && !operation.has_result {
            operation.doomed.get_or_insert(-libc::ECANCELED);
            if self.random.once_in(2) {
                let number = self.operations[position].number;
                self.finish(number);
            }
        }
    }

    /// Cancels what can be: no barrier, and no promise.
    pub(super) fn cancel_all(&mut self, ring: usize) -> c_int {
        let all: Vec<u64> =
            self.operations.iter().filter(|known| known.ring == ring).map(|known| known.user_data).collect();
        all.into_iter().for_each(|user_data| self.cancel(ring, user_data));
        0
    }

    /// Things that happen meanwhile, to any ring, closed ones included.
    pub(super) fn run(&mut self, events: usize) {
        for _ in 0..events {
            let ring = self.random.below(self.rings.len().max(1));
            if ring >= self.rings.len() {
                return;
            }
            let is_open = self.is_open(ring);
            if is_open && self.rings[ring].setup.flags & sys::IORING_SETUP_SQPOLL != 0 {
                self.poll_queue(ring);
            }
            match self.random.below(8) {
                0 if is_open && self.temper.is_forging => self.forge(ring),
                1 if is_open => self.finish_raw(ring),
                2 if is_open && !self.rings[ring].setup.is_deferred => self.show(ring),
                3 if is_open && self.temper.loses_completions && !self.in_scope => self.lose_held(ring),
                4 | 5 => {
                    if let Some(number) = self.any_in_kernel() {
                        self.finish(number);
                    }
                }
                6 => {
                    if let Some(number) = self.any_in_kernel() {
                        self.post_more(number);
                    }
                }
                _ => {
                    if let Some(number) = self.any_in_kernel() {
                        self.touch(number);
                    }
                }
            }
        }
    }

    /// The thread that looks at the queue by itself.
    fn poll_queue(&mut self, ring: usize) {
        self.settle(ring);
        let model = &self.rings[ring];
        // SAFETY: as in `settle`.
        let shared = unsafe { &*model.memory.shared };
        let published = shared.sq_tail.wrapping_sub(shared.sq_head) as usize;
        let count = self.random.below(published + 1);
        (0..count).for_each(|_| self.take(ring));
    }

    fn any_in_kernel(&mut self) -> Option<u64> {
        let in_kernel: Vec<u64> = self
            .operations
            .iter()
            .filter(|operation| operation.stage == Stage::InKernel)
            .map(|operation| operation.number)
            .collect();
        (!in_kernel.is_empty()).then(|| self.random.pick(&in_kernel))
    }

    /// Ends one thing of a ring, for somebody who waits.
    fn finish_any(&mut self, ring: usize) -> bool {
        let of_ring: Vec<u64> = self
            .operations
            .iter()
            .filter(|operation| operation.ring == ring && operation.stage == Stage::InKernel)
            .map(|operation| operation.number)
            .collect();
        if !of_ring.is_empty() {
            let number = self.random.pick(&of_ring);
            self.finish(number);
        } else if !self.rings[ring].raw_taken.is_empty() {
            self.finish_raw(ring);
        } else {
            return !self.rings[ring].held.is_empty();
        }
        true
    }

    fn finish_raw(&mut self, ring: usize) {
        let count = self.rings[ring].raw_taken.len();
        if count > 0 {
            let index = self.random.below(count);
            let user_data = self.rings[ring].raw_taken.swap_remove(index);
            let more = self.random.once_in(8);
            if more {
                self.rings[ring].raw_taken.push(user_data);
            }
            let flags = if more { MORE } else { 0 };
            self.post(ring, Posting { user_data, result: 0, flags, operation: None, makes_descriptor: false });
        }
    }

    /// Uses what an operation lent.
    fn touch(&mut self, number: u64) {
        let Some(operation) = self.operations.iter().find(|operation| operation.number == number).cloned() else {
            return;
        };
        let expected = &operation.expected;
        match &expected.on {
            On::Registered(index, registration) => {
                let now = self.rings[operation.ring].files.get(*index as usize).copied().flatten();
                check!(self, now == Some(*registration), "operation {number} is on another file by now");
            }
            On::Kept(_, descriptor) => {
                check!(self, descriptor.strong_count() > 0, "the file of operation {number} was closed");
            }
            On::Nothing | On::Number(_) => {}
        }
        if let Some(second) = &expected.second {
            check!(self, second.strong_count() > 0, "the second file of operation {number} was closed");
        }
        let (address, offset) = operation.fields;
        for (field, text) in &expected.texts {
            let address = if matches!(field, Field::Address) { address } else { offset };
            // SAFETY: a path that the operation keeps; that it is still there is what is tested.
            let found = unsafe { CStr::from_ptr(std::ptr::with_exposed_provenance(address as usize)) };
            check!(self, found == text.as_c_str(), "operation {number} has the path {found:?}, not {text:?}");
        }
        if let Some(seconds) = expected.seconds {
            // SAFETY: a time that the operation keeps.
            let time = unsafe { &*std::ptr::with_exposed_provenance::<sys::__kernel_timespec>(address as usize) };
            check!(self, time.tv_sec == seconds, "operation {number} waits for {} s, not {seconds}", time.tv_sec);
        }
        if expected.is_vectored {
            for (index, piece) in expected.memory.iter().enumerate() {
                // SAFETY: as many of them as the operation was given memory, kept by it.
                let iovec = unsafe { &*std::ptr::with_exposed_provenance::<libc::iovec>(address as usize).add(index) };
                let found = (iovec.iov_base.addr(), iovec.iov_len);
                check!(self, found == *piece, "piece {index} of operation {number} is {found:x?}, not {piece:x?}");
            }
        }
        if expected.has_status {
            let status = std::ptr::with_exposed_provenance_mut::<libc::statx>(offset as usize);
            // SAFETY: in the parcel of an operation in flight.
            unsafe { status.write_bytes(expected.fill, 1) };
        }
        for (start, length) in expected.memory.clone() {
            self.use_memory(&operation, start, length);
        }
    }

    /// Writes to memory, or looks whether what is to be written is still there.
    fn use_memory(&mut self, operation: &Operation, start: usize, length: usize) {
        let number = operation.number;
        let Some(region) = self.regions.iter().find(|region| region.address == start).cloned() else {
            check!(self, false, "operation {number} is in flight on memory that is gone: {operation:x?}");
            return;
        };
        let is_lent = region.owner == Owner::Operation(number) && length <= region.length;
        check!(self, is_lent, "operation {number} is in flight on memory of {:?}: {operation:x?}", region.owner);
        if let Kind::Slot(pool) = region.kind {
            let pool = &self.pools[pool];
            if pool.memory.strong_count() == 0 {
                let (start, length) = (pool.start, pool.length);
                check!(self, is_mapped(start, length), "the kernel writes to addresses that were given back");
                return;
            }
        }
        if self.has_failed {
            return;
        }
        // SAFETY: the region is there, and belongs to the operation: the user has no reference to it.
        let memory = unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(start), length) };
        if operation.expected.is_written {
            memory.fill(operation.expected.fill);
        } else {
            let is_same = memory.iter().all(|byte| *byte == operation.expected.fill);
            check!(self, is_same, "operation {number} writes what somebody changed meanwhile");
        }
    }

    /// Reports something of an operation that goes on.
    fn post_more(&mut self, number: u64) {
        self.touch(number);
        let is_open = self.operation(number).map(|operation| operation.ring).is_some_and(|ring| self.is_open(ring));
        let Some(operation) = self.operation(number) else { return };
        if operation.is_silent || operation.is_borrowed || operation.doomed.is_some() {
            return;
        }
        let (ring, user_data) = (operation.ring, operation.user_data);
        let posting = |result, makes_descriptor| Posting {
            user_data,
            result,
            flags: MORE,
            operation: Some(number),
            makes_descriptor,
        };
        match operation.expected.result {
            Result::ZeroCopy if !operation.has_result => {
                let length = operation.expected.memory[0].1 as i32;
                operation.has_result = true;
                (operation.result, operation.flags) = (length, MORE);
                self.post(ring, posting(length, false));
            }
            Result::Descriptor if operation.expected.is_multishot && is_open => {
                let descriptor = self.make_descriptor();
                self.post(ring, posting(descriptor, true));
            }
            // No operation of ours does, unless it is asked to; but a kernel that does must find its memory.
            Result::Count => self.post(ring, posting(1, false)),
            _ => {}
        }
    }

    /// Ends an operation.
    fn finish(&mut self, number: u64) {
        self.touch(number);
        let Some(position) = self.operations.iter().position(|operation| operation.number == number) else { return };
        let operation = &self.operations[position];
        let (ring, user_data, kind) = (operation.ring, operation.user_data, operation.expected.result);
        let total: usize = operation.expected.memory.iter().map(|(_, length)| length).sum();
        let (doomed, has_result) = (operation.doomed, operation.has_result);
        let errno = -self.random.pick(&[libc::EIO, libc::ECANCELED, libc::EINVAL, libc::EINTR, libc::EAGAIN]);
        let fails = self.random.once_in(4);
        let is_open = self.is_open(ring);
        let mut makes_descriptor = false;
        let result = match (doomed, kind) {
            _ if has_result => 0,
            (Some(errno), _) => errno,
            _ if fails => errno,
            (_, Result::Descriptor) if is_open => {
                makes_descriptor = true;
                self.make_descriptor()
            }
            (_, Result::Descriptor) => -libc::ECANCELED,
            (_, Result::Count | Result::ZeroCopy) => {
                if self.random.once_in(4) {
                    self.random.below(total + 1) as i32
                } else {
                    total as i32
                }
            }
            (_, Result::Close(_)) => 0,
        };
        if let Result::Close(descriptor) = kind {
            if !is_unclosed(result) {
                // SAFETY: the operation owns it, and it is what this operation is to close.
                unsafe { libc::close(descriptor) };
                self.closed(descriptor);
            } else if !is_open {
                self.forget_descriptor(descriptor);
            }
        }
        let flags = if has_result { sys::IORING_CQE_F_NOTIF } else { 0 };
        let operation = &mut self.operations[position];
        operation.stage = Stage::Posted;
        if !has_result {
            (operation.result, operation.flags) = (result, flags);
        }
        self.post(ring, Posting { user_data, result, flags, operation: Some(number), makes_descriptor });
        if is_open {
            self.rings[ring].ended.push(user_data);
            if self.temper.is_forging && self.random.once_in(4) {
                self.post_useless(ring, user_data);
            }
        }
    }

    /// Posts a completion that means nothing to this ring.
    fn forge(&mut self, ring: usize) {
        let random = self.random.next();
        let ended = &self.rings[ring].ended;
        let old = ended.get(self.random.below(ended.len().max(1))).copied();
        let mine: Vec<u64> =
            self.operations.iter().filter(|operation| operation.ring == ring).map(|known| known.user_data).collect();
        let any = if mine.is_empty() { None } else { Some(self.random.pick(&mine)) };
        let user_data = match self.random.below(8) {
            // Late, and twice.
            0..=2 => old,
            3 => Some(2 << 62 | random >> 2),
            4 => Some(3 << 62 | random >> 2),
            5 => Some(u64::MAX),
            // An older generation. The next one could become somebody's before this is read.
            6 => any.map(|data| data.wrapping_sub(1 << 32)).filter(|data| data >> 62 == 1),
            // Another generation, another slot.
            _ => any.map(|data| data ^ [1 << 61, 1 << 31, 1 << 16][random as usize % 3]),
        };
        if let Some(user_data) = user_data {
            self.post_useless(ring, user_data);
        }
    }

    fn post_useless(&mut self, ring: usize, user_data: u64) {
        let has_room = self.rings[ring].held.is_empty() && self.has_room(ring);
        if has_room && !self.rings[ring].setup.is_deferred {
            let result = self.random.below(64) as i32 - 32;
            let flags = if self.random.once_in(3) { MORE } else { 0 };
            self.post(ring, Posting { user_data, result, flags, operation: None, makes_descriptor: false });
        }
    }

    fn has_room(&mut self, ring: usize) -> bool {
        self.settle(ring);
        self.rings[ring].visible.len() < self.rings[ring].setup.cq_entries as usize
    }

    fn post(&mut self, ring: usize, posting: Posting) {
        if !self.is_open(ring) {
            self.lose(posting);
            return;
        }
        let is_late = self.rings[ring].setup.is_deferred || !self.rings[ring].held.is_empty();
        if is_late || !self.has_room(ring) {
            self.rings[ring].held.push_back(posting);
        } else {
            self.write(ring, posting);
        }
        self.set_flags(ring);
    }

    fn write(&mut self, ring: usize, posting: Posting) {
        let model = &mut self.rings[ring];
        // SAFETY: as in `settle`; `post` and `show` look for room.
        unsafe { model.memory.post(posting.user_data, posting.result, posting.flags) };
        model.visible.push_back(posting);
    }

    /// Shows completions that were held back.
    fn show(&mut self, ring: usize) {
        while self.has_room(ring) {
            let Some(posting) = self.rings[ring].held.pop_front() else { break };
            self.write(ring, posting);
        }
        self.set_flags(ring);
    }

    /// Tells that there are completions which only whoever enters will see.
    fn set_flags(&mut self, ring: usize) {
        let model = &mut self.rings[ring];
        let flag = if model.setup.is_deferred { sys::IORING_SQ_TASKRUN } else { sys::IORING_SQ_CQ_OVERFLOW };
        let flags = if model.held.is_empty() && !model.has_lost { 0 } else { flag };
        // SAFETY: as in `settle`.
        unsafe { (*model.memory.shared).sq_flags = flags };
    }

    /// The kernel has no memory for completions that found no room.
    fn lose_held(&mut self, ring: usize) {
        let model = &mut self.rings[ring];
        if model.setup.is_deferred || model.held.is_empty() {
            return;
        }
        model.has_lost = true;
        let lost: Vec<Posting> = model.held.drain(..).collect();
        for posting in lost {
            // Never posted, so that it can't be repeated.
            self.rings[ring].ended.retain(|user_data| *user_data != posting.user_data);
            let operation = self.operations.iter_mut().find(|known| Some(known.number) == posting.operation);
            if let Some(operation) = operation.filter(|known| known.has_result && posting.flags & MORE != 0) {
                // Its memory is told to be free, if there is room by then.
                (operation.result, operation.flags) = (-libc::EBADR, sys::IORING_CQE_F_NOTIF);
            }
            self.lose(posting);
        }
    }

    // ---- registering

    pub(super) fn register_files(&mut self, ring: usize, count: u32) -> c_int {
        if self.error().is_some() {
            return -libc::ENOMEM;
        }
        self.rings[ring].files = vec![None; count as usize];
        0
    }

    pub(super) fn update_file(&mut self, ring: usize, index: u32, descriptor: RawFd) -> c_int {
        self.settle(ring);
        let user = self.operations.iter().find(|operation| {
            let uses = matches!(operation.expected.on, On::Registered(used, _) if used == index);
            operation.ring == ring && uses && operation.stage != Stage::Posted
        });
        let user = user.map(|operation| operation.number);
        check!(self, user.is_none(), "registered file {index} was given up with operation {user:?} in flight on it");
        if self.error().is_some() {
            return -libc::ENOMEM;
        }
        self.next_registration += 1;
        let registration = (descriptor >= 0).then_some(self.next_registration);
        self.rings[ring].files[index as usize] = registration;
        1
    }

    pub(super) fn register_sparse(&mut self, ring: usize, count: u32) -> c_int {
        let model = &mut self.rings[ring];
        if !model.setup.has_sparse_buffers {
            return -libc::EINVAL;
        }
        model.buffers = vec![(0, 0); count as usize];
        0
    }

    pub(super) fn register_buffers(&mut self, ring: usize, buffers: &[libc::iovec]) -> c_int {
        self.rings[ring].buffers = buffers.iter().map(|iovec| (iovec.iov_base.addr(), iovec.iov_len)).collect();
        0
    }

    pub(super) fn update_buffers(&mut self, ring: usize, first: u32, buffers: &[libc::iovec]) -> c_int {
        self.settle(ring);
        for index in first as usize..first as usize + buffers.len() {
            let (start, length) = self.rings[ring].buffers[index];
            let user = self.operations.iter().find(|operation| {
                let is_fixed =
                    matches!(operation.expected.opcode, sys::IORING_OP_READ_FIXED | sys::IORING_OP_WRITE_FIXED);
                let is_inside =
                    operation.expected.memory.iter().any(|piece| (start..start + length).contains(&piece.0));
                operation.ring == ring && is_fixed && is_inside && operation.stage != Stage::Posted
            });
            let user = user.map(|operation| operation.number);
            check!(
                self,
                user.is_none(),
                "registered buffer {index} was given up with operation {user:?} in flight on it"
            );
        }
        let fails = self.error().is_some();
        // Where it fails some may be in already.
        let count = if fails { self.random.below(buffers.len()) } else { buffers.len() };
        for (index, iovec) in buffers.iter().take(count).enumerate() {
            self.rings[ring].buffers[first as usize + index] = (iovec.iov_base.addr(), iovec.iov_len);
        }
        if fails { -libc::ENOMEM } else { count as c_int }
    }

    pub(super) fn unregister_buffers(&mut self, ring: usize) -> c_int {
        // Before Linux 6.13 this waits for operations, and on 6.1 for ever.
        let is_idle = self.in_flight(ring) == 0;
        check!(self, is_idle, "buffers are unregistered with operations in flight");
        self.rings[ring].buffers.clear();
        0
    }

    // ---- the end

    /// Ends all that is in the kernel, and looks once more at everything that was lent.
    pub(super) fn finish_all(&mut self) {
        while let Some(number) = self.any_in_kernel() {
            self.finish(number);
        }
    }

    /// Gives back what nobody else can any more: what was leaked, as it should be.
    pub(super) fn end(&mut self) {
        for (descriptor, fate) in self.descriptors.clone() {
            check!(self, fate != Fate::InUse, "descriptor {descriptor} was never closed");
            check!(self, is_descriptor(descriptor), "descriptor {descriptor} ({fate:?}) was closed twice");
            // SAFETY: made by this world, and nobody else's: it was closed, or forgotten.
            unsafe { libc::close(descriptor) };
        }
        for pool in &self.pools {
            // Others were unmapped: their addresses may be another thread's by now.
            if pool.is_retired {
                // SAFETY: retired: nobody reaches these addresses, and no kernel uses them.
                unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(pool.start), pool.length) };
            }
        }
        for region in &self.regions {
            let start = std::ptr::with_exposed_provenance_mut::<u8>(region.address);
            // SAFETY: leaked by the crate, which will not touch it, or forgotten by the program; allocated as these types.
            unsafe {
                match region.kind {
                    Kind::Tracked => drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, region.length))),
                    Kind::Slot(_) | Kind::Borrowed => {}
                }
            }
        }
        for ring in &self.rings {
            // SAFETY: allocated in `make_ring`; the rings are gone, or forgotten and not used any more.
            unsafe {
                ring.memory.free();
                if ring.state == State::Forgotten {
                    drop(Box::from_raw(ring.raw.as_ptr()));
                }
            }
        }
    }
}

/// Whether closing ended before it began. With any other error this kernel has closed the file, as a file system may.
pub(super) fn is_unclosed(result: i32) -> bool {
    result == -libc::ECANCELED
}

fn is_mapped(start: usize, length: usize) -> bool {
    // SAFETY: asks about addresses; a range that is mapped, access or none, gives 0.
    unsafe { libc::msync(std::ptr::with_exposed_provenance_mut(start), length, libc::MS_ASYNC) == 0 }
}

fn is_descriptor(descriptor: RawFd) -> bool {
    // SAFETY: asks about a number.
    unsafe { libc::fcntl(descriptor, libc::F_GETFD) >= 0 }
}
