//! A ring for the commands of futures, on any number of devices.
//!
//! # Life of a command
//!
//! A future that is polled for the first time takes a task, starts its command, and leaves its waker. Whoever takes
//! completions puts the outcome into the task and wakes the future, which takes it from there when it is polled again. A future
//! that is dropped before that abandons its task: the kernel is asked to end the command, and when it has, what the command
//! had goes. Where as many commands are in flight as may be, a future waits in line, and who is called has a claim to the room
//! that was made. What has ended takes no room, whether its future is polled or not.
//!
//! # Who submits, and who takes completions
//!
//! The process's own hubs are for all threads, which take turns in choosing theirs, so that those that run at once do not wait
//! for each other's lock. A future submits what it starts, and takes what ended by then, so that what is in the page cache costs
//! no thread but the caller's. For what is not a thread waits, one for each hub, which is started when first needed.
//!
//! A hub that is attached to a thread ([`Reactor`](super::Reactor)) has a ring that the kernel ties to it: there futures fill
//! entries, and wake the reactor, which submits for all of them and takes what ended. Other threads may poll and drop such
//! futures; they never enter the ring.
//!
//! # The lock
//!
//! It is not held while anything of others runs: wakers are cloned before, and woken and dropped after; so are devices and
//! loggers. What is left to do is in an [`Aftermath`].

use std::cell::Cell;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use liburing_sys as sys;

use crate::block::command::{Command, Next};
use crate::block::futures::Outcome;
use crate::block::futures::waiters::{Place, Waiters, wake};
use crate::block::stats::count;
use crate::block::target::Setbacks;
use crate::block::uring::Uring;
use crate::block::wire::{Plain, Wire};
use crate::block::{Fallback, Picked};
use crate::completion::Completion;
use crate::core::{Core, Operation, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::ForkMark;
use crate::leader::forked;
use crate::raw_ring::{is_passing, wait_for_one};
use crate::rejected::{RejectReason, Rejected};
use crate::ring::Ring;
use crate::table::{Held, Ticket};
use crate::thread_rings::{OfThreads as _, RingKind, pools_given_up};

/// The most commands in flight on a hub.
const TASKS: u32 = 256;
/// Most hubs of a process; otherwise one for each processor.
const MOST_HUBS: usize = 8;
/// How long no ring is asked for again where the kernel gave none: to ask takes a while, in the middle of a poll.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a reactor that goes waits for what it has in flight.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// See the [module](self).
pub(in crate::block) struct Hub<W: Wire = Plain> {
    /// Outside of the lock: in the child of a `fork` the lock may be held by a thread that does not exist there.
    mark: ForkMark,
    is_attached: bool,
    state: Mutex<State<W>>,
    /// Signalled when the hub's thread has something to do.
    work: Condvar,
}

struct State<W: Wire> {
    /// `None` when the reactor is gone.
    core: Option<Core<Command, W::Entries>>,
    /// As many as there are commands in flight and outcomes that were not taken.
    tasks: Vec<Task>,
    free: Vec<u32>,
    /// Commands in flight, abandoned ones included.
    pending: u32,
    waiters: Waiters,
    /// Something was started, or started again, and not submitted.
    has_unsubmitted: bool,
    /// How often in a row a submit had to be tried again.
    setbacks: Setbacks,
    /// Of the reactor, while it sleeps.
    reactor: Option<Waker>,
    thread: Thread,
    is_closed: bool,
    /// [`pools_given_up`] when the ring was last rid of pools that nobody has any more.
    swept: u64,
}

/// What the hub's own thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thread {
    /// It was not started.
    None,
    /// It sleeps, since nothing is in flight.
    Idle,
    /// It waits for completions, or is about to.
    Awake,
}

#[derive(Default)]
struct Task {
    /// Open until the command has ended.
    device: Option<Arc<Picked>>,
    waker: Option<Waker>,
    ticket: Option<Ticket>,
    ended: Option<Outcome>,
    is_abandoned: bool,
}

/// What became of a command that was to be started.
pub(super) enum Begun {
    /// It is on its way, as this task.
    Pending(u32),
    /// It has ended already.
    Ended(Outcome),
    /// All tasks are taken.
    InLine(Arc<Picked>, Command, Place),
}

/// What is left to do when the lock is not held any more.
#[derive(Default)]
struct Aftermath {
    wakers: Vec<Waker>,
    /// What abandoned tasks had.
    devices: Vec<Arc<Picked>>,
    commands: Vec<Command>,
    /// What did not end with all that was asked for.
    odd: Vec<(Arc<Picked>, Command, i32)>,
    /// Why what the kernel had not seen was taken back, which is among those.
    withdrawn: Option<String>,
}

thread_local! {
    /// The list of wakers of this thread's last turn, for the next one: no allocation for each.
    static SCRATCH: Cell<Vec<Waker>> = const { Cell::new(Vec::new()) };
}

/// What a task had; dropped without the lock.
struct Released {
    _device: Option<Arc<Picked>>,
    _waker: Option<Waker>,
}

/// Whether two tasks are on one device.
fn is_same(one: &Task, other: &Task) -> bool {
    match (&one.device, &other.device) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

fn tell_ended(device: &Picked, number: u64) {
    count(&device.target().counters.in_flight, number.wrapping_neg());
}

/// Tells the device of so many tasks, of which this is one, that they have ended.
fn tell_all_ended(tasks: &[Task], ended: Option<(u32, u64)>) {
    if let Some((slot, number)) = ended {
        if let Some(device) = &tasks[slot as usize].device {
            tell_ended(device, number);
        }
    }
}

impl Aftermath {
    fn new() -> Self {
        Self { wakers: SCRATCH.try_with(Cell::take).unwrap_or_default(), ..Self::default() }
    }
}

impl<W: Wire> State<W> {
    fn new(core: Core<Command, W::Entries>) -> Self {
        Self {
            core: Some(core),
            tasks: (0..TASKS).map(|_| Task::default()).collect(),
            free: (0..TASKS).rev().collect(),
            pending: 0,
            waiters: Waiters::default(),
            has_unsubmitted: false,
            setbacks: Setbacks::default(),
            reactor: None,
            thread: Thread::None,
            is_closed: false,
            swept: pools_given_up(),
        }
    }

    /// Puts a command into the queue. What can't be is given back.
    fn push(&mut self, device: &Picked, command: Command) -> Result<Ticket, (Error, Command)> {
        let Some(core) = &mut self.core else { return Err((reactor_gone(), command)) };
        // The device stays open: the task has it.
        match W::push(core, device.target(), None, command) {
            Ok(ticket) => {
                self.has_unsubmitted = true;
                Ok(ticket)
            }
            Err(rejected) => self.push_again(device, rejected),
        }
    }

    #[cold]
    fn push_again(&mut self, device: &Picked, rejected: Rejected<Command>) -> Result<Ticket, (Error, Command)> {
        let Some(core) = &mut self.core else { return Err((reactor_gone(), rejected.into_inner())) };
        let is_full = rejected.reason() == RejectReason::QueueFull;
        let pushed = match is_full && core.submit().is_ok() {
            true => W::push(core, device.target(), None, rejected.into_inner()),
            false => Err(rejected),
        };
        match pushed {
            Ok(ticket) => {
                self.has_unsubmitted = true;
                Ok(ticket)
            }
            Err(rejected) => {
                let reason = rejected.reason();
                Err((reason.into(), rejected.into_inner()))
            }
        }
    }

    /// Submits what was started. What can't be goes along with the next submit.
    fn submit(&mut self) -> Result<()> {
        let Some(core) = &mut self.core else { return Ok(()) };
        if !self.has_unsubmitted {
            return Ok(());
        }
        loop {
            match core.submit() {
                Ok(_) if core.queues().is_consumed() => {
                    self.has_unsubmitted = false;
                    return Ok(());
                }
                // It took a part, and says why not more, or takes it, when it is asked again.
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => {
                    if is_passing(&error) {
                        core.reap();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// As [`State::submit`], on a ring whose thread may be asleep in the kernel, and would not hear of what is left: it is
    /// tried until it is submitted. Where that does not come to be, what the kernel has not seen is taken back, and comes as
    /// cancelled.
    fn submit_all(&mut self, after: &mut Aftermath) {
        if !self.has_unsubmitted {
            return;
        }
        while let Err(error) = self.submit() {
            // Once it has not passed for a second, the next one has one try.
            if is_passing(&error) && self.setbacks.may_try_again() {
                std::thread::yield_now();
                continue;
            }
            if let Some(core) = self.core.as_mut().filter(|core| core.check_usable().is_ok()) {
                core.withdraw_unsubmitted();
                self.has_unsubmitted = false;
                after.withdrawn = Some(format!("it can't be submitted ({error})"));
            }
            return;
        }
        self.setbacks = Setbacks::default();
    }

    /// Has the kernel tell the eventfd of no completion: those that are there when a submit returns are taken at once.
    fn set_silent(&mut self, is_silent: bool) {
        if let Some(core) = self.core.as_ref().filter(|core| core.check_usable().is_ok()) {
            // SAFETY: the ring is set up; what is changed is an atomic word that the kernel reads.
            unsafe { sys::io_uring_cq_eventfd_toggle(core.queues().raw(), !is_silent) };
        }
    }

    /// Takes the completions that are there.
    fn reap(&mut self, after: &mut Aftermath) {
        let Self { core: Some(core), tasks, .. } = self else { return };
        core.flush_completions();
        // One of those that have ended and are not told yet, all of one device, and how many they are.
        let mut untold: Option<(u32, u64)> = None;
        while let Some(completion) = core.next_completion() {
            let Completion::Done(done) = completion else { continue };
            let result = done.raw_result();
            let Some(command) = done.into_owned() else { continue };
            let slot = command.tag as u32;
            let task = &mut tasks[slot as usize];
            task.ticket = None;
            let Some(device) = &task.device else { continue };
            if task.is_abandoned {
                self.pending -= 1;
                tell_ended(device, 1);
                device.target().end(command.action, command.since);
                task.is_abandoned = false;
                after.devices.extend(task.device.take());
                self.free.push(slot);
                after.commands.push(command);
            } else if W::is_whole(device.target(), &command, result) {
                self.pending -= 1;
                device.target().end(command.action, command.since);
                after.wakers.extend(task.waker.take());
                task.ended = Some((command.buffer, Ok(())));
                untold = match untold {
                    Some((first, count)) if is_same(&tasks[first as usize], &tasks[slot as usize]) => {
                        Some((first, count + 1))
                    }
                    other => {
                        tell_all_ended(tasks, other);
                        Some((slot, 1))
                    }
                };
            } else {
                after.odd.push((Arc::clone(device), command, result));
            }
        }
        tell_all_ended(tasks, untold);
        self.call(&mut after.wakers);
    }

    /// Ends a task that is in flight; the command is missing where it was lost with the ring.
    fn end(&mut self, slot: u32, command: Option<Command>, result: Result<()>, after: &mut Aftermath) {
        let task = &mut self.tasks[slot as usize];
        self.pending -= 1;
        task.ticket = None;
        if let Some(device) = &task.device {
            tell_ended(device, 1);
            count(&device.target().counters.failures, u64::from(result.is_err()));
            if let Some(command) = &command {
                device.target().end(command.action, command.since);
            }
        }
        if task.is_abandoned {
            task.is_abandoned = false;
            after.devices.extend(task.device.take());
            after.commands.extend(command);
            self.free.push(slot);
        } else {
            after.wakers.extend(task.waker.take());
            task.ended = Some((command.and_then(|command| command.buffer), result));
        }
        self.call(&mut after.wakers);
    }

    /// Takes the outcome of a task, which is free from then on; and what is to be dropped, and woken, without the lock.
    fn take(&mut self, slot: u32) -> Option<(Outcome, Released)> {
        let task = &mut self.tasks[slot as usize];
        let outcome = task.ended.take()?;
        let (device, waker) = (task.device.take(), task.waker.take());
        self.free.push(slot);
        Some((outcome, Released { _device: device, _waker: waker }))
    }

    /// Whether one more command may be in flight: of who was called, or of who comes without a claim. Where nothing is in flight
    /// one may, whoever has claims: they may have been forgotten.
    fn has_room(&self, was_called: bool) -> bool {
        let is_free = |claims| self.pending as usize + claims < TASKS as usize;
        match was_called {
            true => is_free(0),
            false => self.pending == 0 || self.waiters.is_empty() && is_free(self.waiters.claims()),
        }
    }

    /// Calls those that there is room for; everybody where nothing is under way that would make more.
    fn call(&mut self, wakers: &mut Vec<Waker>) {
        if self.waiters.is_empty() {
            return;
        }
        if self.pending == 0 {
            wakers.extend(self.waiters.call_all(TASKS as usize));
        }
        while self.pending as usize + self.waiters.claims() < TASKS as usize {
            let Some(waker) = self.waiters.call() else { return };
            wakers.push(waker);
        }
    }

    /// A task for one more command.
    fn place(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.tasks.push(Task::default());
            self.tasks.len() as u32 - 1
        })
    }

    /// Lets go of pools that devices gave up. One relaxed load where none did.
    fn sweep_pools(&mut self) {
        let given_up = pools_given_up();
        if let (true, Some(core)) = (self.swept != given_up, &mut self.core) {
            if core.forget_unused_pools() {
                self.swept = given_up;
            }
        }
    }

    /// Ends all that is in flight with an error: the ring is gone.
    fn fail_all(&mut self, after: &mut Aftermath, error: &Error) {
        for slot in 0..self.tasks.len() as u32 {
            let task = &self.tasks[slot as usize];
            if task.device.is_some() && task.ended.is_none() {
                self.end(slot, None, Err(error.clone()), after);
            }
        }
    }
}

impl<W: Wire> Hub<W> {
    fn new(core: Core<Command, W::Entries>, is_attached: bool) -> Arc<Self> {
        let mark = core.queues().mark();
        Arc::new(Self { mark, is_attached, state: Mutex::new(State::new(core)), work: Condvar::new() })
    }

    /// A hub whose ring is the calling thread's, and tells `eventfd` of completions.
    pub(super) fn attached(eventfd: &File) -> Result<Arc<Self>> {
        let mut ring = Ring::new(RingKind { of_devices: true, ..RingKind::default() }.make_core(TASKS)?);
        ring.register_eventfd(eventfd)?;
        Ok(Self::new(ring.into_core(), true))
    }

    /// `None` in the child of a `fork`.
    fn lock(&self) -> Option<MutexGuard<'_, State<W>>> {
        self.mark.is_alive().then(|| self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nothing is in flight, and no place is taken.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.lock().is_some_and(|state| state.pending == 0 && state.free.len() == state.tasks.len())
    }

    pub(super) fn is_alive(&self) -> bool {
        self.mark.is_alive()
    }

    /// Whether the calling thread may start a command that waits in line here; no reactor's hub, which is asked for that.
    pub(super) fn takes_more(&self) -> bool {
        self.lock().is_some_and(|state| state.core.is_some())
    }

    pub(super) fn is_attached(&self) -> bool {
        self.is_attached
    }

    /// Starts a command on a device that is on io_uring; of a future that waits in line there, or of a new one.
    pub(super) fn start(
        self: &Arc<Self>,
        device: Arc<Picked>,
        mut command: Command,
        waker: Waker,
        place: Option<Place>,
    ) -> Begun {
        let Some(mut state) = self.lock() else { return Begun::Ended((command.buffer, Err(forked()))) };
        state.sweep_pools();
        if let (true, Some(uring)) = (command.has_lease(), W::uring(&device)) {
            if let Some(error) = state.core.as_mut().and_then(|core| uring.register(core)) {
                drop(state);
                if let Err(error) = uring.report_pool_unregistered(&error) {
                    return Begun::Ended((command.buffer, Err(error)));
                }
                let Some(locked) = self.lock() else { return Begun::Ended((command.buffer, Err(forked()))) };
                state = locked;
            }
        }
        let was_called = place.is_some_and(|place| state.waiters.take_claim(place));
        if !state.has_room(was_called) && !self.is_attached {
            let mut after = Aftermath::new();
            state.reap(&mut after);
            drop(state);
            self.settle(after);
            let Some(locked) = self.lock() else { return Begun::Ended((command.buffer, Err(forked()))) };
            state = locked;
        }
        if !state.has_room(was_called) {
            let (place, before) = match place {
                Some(place) => (place, state.waiters.enter_again(place, waker)),
                None => (state.waiters.enter(waker), None),
            };
            drop(state);
            drop(before);
            return Begun::InLine(device, command, place);
        }
        let left = place.and_then(|place| state.waiters.leave(place));
        let slot = state.place();
        command.tag = u64::from(slot);
        let ticket = match state.push(&device, command) {
            Ok(ticket) => ticket,
            Err((error, command)) => {
                state.free.push(slot);
                let mut called = Vec::new();
                state.call(&mut called);
                drop(state);
                called.into_iter().for_each(wake);
                count(&device.target().counters.failures, 1);
                return Begun::Ended((command.buffer, Err(error)));
            }
        };
        count(&device.target().counters.in_flight, 1);
        // Who has a reactor needs no thread.
        let for_thread = (!self.is_attached).then(|| Arc::clone(&device));
        state.pending += 1;
        let task = &mut state.tasks[slot as usize];
        task.ticket = Some(ticket);
        match for_thread {
            None => {
                (task.device, task.waker) = (Some(device), Some(waker));
                let reactor = state.reactor.take();
                drop(state);
                drop(left);
                if let Some(reactor) = reactor {
                    wake(reactor);
                }
                Begun::Pending(slot)
            }
            Some(kept) => {
                task.device = Some(device);
                let begun = self.begin(state, slot, &kept, waker);
                drop(left);
                begun
            }
        }
    }

    /// Submits a command of the process's hub, and takes what ended by then.
    fn begin(self: &Arc<Self>, mut state: MutexGuard<'_, State<W>>, slot: u32, device: &Picked, waker: Waker) -> Begun {
        let mut after = Aftermath::new();
        state.submit_all(&mut after);
        state.reap(&mut after);
        let taken = state.take(slot);
        if taken.is_none() {
            // Not before: who gets the answer at once need not be woken.
            state.tasks[slot as usize].waker = Some(waker);
        }
        let needs_thread = state.pending > 0;
        drop(state);
        self.settle(after);
        match taken {
            Some((outcome, _released)) => Begun::Ended(outcome),
            None => {
                if let (true, Some(uring)) = (needs_thread, W::uring(device)) {
                    self.call_thread(uring, slot);
                }
                Begun::Pending(slot)
            }
        }
    }

    /// Leaves the line, to try again.
    pub(super) fn leave(&self, place: Place) {
        let left = self.lock().and_then(|mut state| state.waiters.leave(place));
        drop(left);
    }

    /// Leaves the line for good, and lets another in where room was made for this one.
    pub(super) fn give_up(&self, place: Place) {
        let Some(mut state) = self.lock() else { return };
        let left = state.waiters.leave(place);
        let mut called = Vec::new();
        state.call(&mut called);
        drop(state);
        drop(left);
        called.into_iter().for_each(wake);
    }

    /// The outcome of a task, where there is one; else leaves the waker.
    pub(super) fn poll(&self, slot: u32, waker: &Waker) -> Poll<Outcome> {
        let mut clone = None;
        loop {
            let Some(mut state) = self.lock() else { return Poll::Ready((None, Err(forked()))) };
            if let Some((outcome, _released)) = state.take(slot) {
                drop(state);
                return Poll::Ready(outcome);
            }
            let task = &mut state.tasks[slot as usize];
            if task.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                return Poll::Pending;
            }
            if let Some(clone) = clone.take() {
                let before = task.waker.replace(clone);
                drop(state);
                drop(before);
                return Poll::Pending;
            }
            drop(state);
            clone = Some(waker.clone());
        }
    }

    /// Gives up a task: asks the kernel to end its command, and forgets the future.
    pub(super) fn abandon(&self, slot: u32) {
        let Some(mut state) = self.lock() else { return };
        if let Some((outcome, _released)) = state.take(slot) {
            drop(state);
            return drop(outcome);
        }
        let mut after = Aftermath::new();
        let task = &mut state.tasks[slot as usize];
        task.is_abandoned = true;
        let (waker, ticket) = (task.waker.take(), task.ticket);
        if let (Some(core), Some(ticket)) = (&mut state.core, ticket) {
            // Where there is no room for that it ends when it ends.
            state.has_unsubmitted |= core.cancel(ticket).is_ok();
        }
        if self.is_attached {
            after.wakers.extend(state.reactor.take());
        } else {
            state.submit_all(&mut after);
            state.reap(&mut after);
        }
        drop(state);
        // Others are told first: dropping it is the executor's code, and may panic.
        self.settle(after);
        drop(waker);
    }

    /// Does what is left to do without the lock.
    fn settle(&self, mut after: Aftermath) {
        while !after.odd.is_empty() {
            if let Some(why) = after.withdrawn.take() {
                self.carry_out_withdrawn(&mut after, &why);
            }
            for (device, command, result) in std::mem::take(&mut after.odd) {
                self.go_on(&device, command, result, &mut after);
                after.devices.push(device);
            }
            if !self.is_attached {
                if let Some(mut state) = self.lock() {
                    state.submit_all(&mut after);
                    state.reap(&mut after);
                }
            }
        }
        after.commands.clear();
        after.devices.clear();
        after.wakers.drain(..).for_each(wake);
        // Nothing to keep for a thread that is ending.
        let _ = SCRATCH.try_with(|scratch| scratch.set(after.wakers));
    }

    /// Carries out what was withdrawn, since the ring takes nothing any more.
    #[cold]
    fn carry_out_withdrawn(&self, after: &mut Aftermath, why: &str) {
        let is_withdrawn = |(_, _, result): &(Arc<Picked>, Command, i32)| *result == -libc::ECANCELED;
        let (withdrawn, odd) = std::mem::take(&mut after.odd).into_iter().partition(is_withdrawn);
        let withdrawn: Vec<_> = withdrawn;
        after.odd = odd;
        for (device, command, _) in withdrawn {
            let slot = command.tag as u32;
            let (command, result) = device.carry_out(command, why);
            if let Some(mut state) = self.lock() {
                state.end(slot, Some(command), result, after);
            }
            after.devices.push(device);
        }
    }

    /// Looks at a command that did not end as it should.
    #[cold]
    fn go_on(&self, device: &Arc<Picked>, mut command: Command, result: i32, after: &mut Aftermath) {
        let slot = command.tag as u32;
        let next = W::advance(device.target(), &mut command, result);
        let (command, result) = match next {
            Next::Ended(result) => (command, result),
            Next::ByHand(why) => device.carry_out(command, why),
            Next::Again => {
                let Some(mut state) = self.lock() else { return };
                if state.tasks[slot as usize].is_abandoned {
                    state.end(slot, Some(command), Ok(()), after);
                    return;
                }
                match state.push(device, command) {
                    Ok(ticket) => state.tasks[slot as usize].ticket = Some(ticket),
                    Err((error, command)) => state.end(slot, Some(command), Err(error), after),
                }
                return;
            }
        };
        if let Some(mut state) = self.lock() {
            state.end(slot, Some(command), result, after);
        }
    }

    // ---- the process's own ones

    /// One of the process's hubs; made where there is none, and closed when no device has it any more.
    fn of_process(number: usize) -> Result<Arc<Handle<W>>> {
        let hubs = W::hubs()
            .get(KnownHubs::<W>::default)
            .map_err(|error| Error::from_io(error, "map a page that a fork wipes"))?;
        let mut known = hubs[number].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = known.hub.upgrade() {
            return Ok(handle);
        }
        if let Some((_, why)) = known.refused.as_ref().filter(|(when, _)| when.elapsed() < PATIENCE) {
            return Err(why.clone());
        }
        let kind = RingKind { of_devices: true, ..RingKind::default() };
        let core = W::Entries::sized(kind.builder(TASKS)).core();
        known.refused = core.as_ref().err().map(|why| (Instant::now(), why.clone()));
        let handle = Arc::new(Handle(Self::new(core?, false)));
        known.hub = Arc::downgrade(&handle);
        Ok(handle)
    }

    /// Sees that a thread waits for what is in flight.
    fn call_thread(self: &Arc<Self>, uring: &Uring<W>, slot: u32) {
        let Some(mut state) = self.lock() else { return };
        match state.thread {
            Thread::Awake => return,
            Thread::Idle => {
                drop(state);
                self.work.notify_one();
                return;
            }
            Thread::None => state.thread = Thread::Awake,
        }
        drop(state);
        let hub = Arc::clone(self);
        let builder = std::thread::Builder::new().name("sysuring-futures".to_owned());
        if let Err(error) = builder.spawn(move || hub.serve()) {
            if let Some(mut state) = self.lock() {
                state.thread = Thread::None;
            }
            let error = Error::from_io(error, "start a thread");
            let what = format!("no thread can be started to wait for futures ({error}): they block");
            // Where that is forbidden there is still nobody else to wait.
            let _ = uring.degrade(Fallback::PreadAtTimes, &what);
            self.wait_for(slot);
        }
    }

    /// What the hub's thread does, until the hub is closed.
    fn serve(&self) {
        loop {
            let Some(mut state) = self.lock() else { return };
            while state.pending == 0 {
                if state.is_closed {
                    return;
                }
                state.thread = Thread::Idle;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.thread = Thread::Awake;
            }
            drop(state);
            if !self.wait_and_reap() {
                return;
            }
        }
    }

    /// Waits, in a future's own thread, until its command has ended.
    #[cold]
    fn wait_for(&self, slot: u32) {
        let goes_on = |state: MutexGuard<'_, State<W>>| state.tasks[slot as usize].ended.is_none();
        while self.lock().is_some_and(goes_on) && self.wait_and_reap() {}
    }

    /// Waits for completions and takes them; false where there will be no more.
    fn wait_and_reap(&self) -> bool {
        let mut after = Aftermath::new();
        let Some(mut state) = self.lock() else { return false };
        state.submit_all(&mut after);
        state.reap(&mut after);
        let lost = state.core.as_ref().is_none_or(|core| core.check_usable().is_err());
        if lost {
            state.fail_all(&mut after, &Error::from(RejectReason::Poisoned));
        }
        let descriptor = state.core.as_ref().map(|core| core.queues().descriptor());
        let is_over = state.pending == 0;
        drop(state);
        self.settle(after);
        let (Some(descriptor), false) = (descriptor, lost) else { return false };
        if !is_over {
            let waited = wait_for_one(descriptor).map_err(|error| Error::from_io(error, "wait for completions"));
            let mut after = Aftermath::new();
            if let Some(mut state) = self.lock() {
                if let (Err(error), Some(core)) = (&waited, &mut state.core) {
                    // That completions were lost is told once.
                    core.failed_to_wait(error);
                }
                state.reap(&mut after);
            }
            self.settle(after);
            if waited.is_err_and(|error| error.raw_os_error() != Some(libc::EINTR)) {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        true
    }

    // ---- attached to a thread

    /// Submits what was started and takes what has ended, on the reactor's thread; `waker` is woken when more is started.
    pub(super) fn turn(&self, waker: &Waker) -> Result<()> {
        let mut clone = None;
        let mut is_known = false;
        let mut setbacks = Setbacks::default();
        loop {
            let mut after = Aftermath::new();
            let mut state = self.lock().ok_or_else(forked)?;
            state.sweep_pools();
            state.set_silent(true);
            let submitted = state.submit();
            state.reap(&mut after);
            state.set_silent(false);
            // What ended before that was told of by nobody.
            state.reap(&mut after);
            is_known |= state.reactor.as_ref().is_some_and(|known| known.will_wake(waker));
            let before = match clone.take() {
                Some(clone) => {
                    is_known = true;
                    state.reactor.replace(clone)
                }
                None => None,
            };
            let is_through = after.odd.is_empty();
            drop(state);
            self.settle(after);
            drop(before);
            match submitted {
                // What does not pass in a second is told; it may be tried again.
                Err(error) if !is_passing(&error) || !setbacks.may_try_again() => return Err(error),
                Err(_) => std::thread::yield_now(),
                Ok(()) if is_through && is_known => return Ok(()),
                Ok(()) => {}
            }
            if !is_known {
                clone = Some(waker.clone());
            }
        }
    }

    /// Ends a hub that is attached to the calling thread.
    pub(super) fn detach(&self) {
        let since = Instant::now();
        while self.lock().is_some_and(|state| state.core.is_some() && state.pending > 0) && since.elapsed() < LAST_WAIT
        {
            if self.turn(Waker::noop()).is_err() {
                break;
            }
            let Some(mut state) = self.lock() else { return };
            if let (true, Some(core)) = (state.pending > 0, &mut state.core) {
                // Looked at when the ring is.
                let _ = core.submit_and_wait_timeout(1, Duration::from_millis(10));
            }
        }
        let Some(mut state) = self.lock() else { return };
        let mut after = Aftermath::new();
        state.reap(&mut after);
        let core = state.core.take();
        if core.is_some() {
            state.fail_all(&mut after, &reactor_gone());
            after.wakers.extend(state.waiters.call_all(0));
        }
        drop(state);
        // Here, and not with the last future: the ring is this thread's.
        drop(core);
        self.settle(after);
    }
}

#[cold]
fn reactor_gone() -> Error {
    let message = "the reactor of the thread that started this is gone; keep it for as long as its futures";
    Error::new(ErrorKind::Unavailable, message)
}

/// Which of the process's hubs the calling thread uses.
fn number_of_thread() -> usize {
    const NONE: usize = usize::MAX;

    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    }
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    let number = |number: &Cell<usize>| {
        if number.get() == NONE {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            number.set(THREADS.fetch_add(1, Ordering::Relaxed) % processors.min(MOST_HUBS));
        }
        number.get()
    };
    NUMBER.try_with(number).unwrap_or(0)
}

/// One of the process's hubs, as the devices that use it have it.
pub(in crate::block) struct Handle<W: Wire>(Arc<Hub<W>>);

/// The hubs of a process.
pub(in crate::block) type KnownHubs<W> = [Mutex<KnownHub<W>>; MOST_HUBS];

/// One of the hubs of a process, for as long as some device has it.
pub(in crate::block) struct KnownHub<W: Wire> {
    hub: Weak<Handle<W>>,
    /// When the kernel last gave no ring for it, and why.
    refused: Option<(Instant, Error)>,
}

impl<W: Wire> Default for KnownHub<W> {
    fn default() -> Self {
        Self { hub: Weak::new(), refused: None }
    }
}

impl<W: Wire> Drop for Handle<W> {
    fn drop(&mut self) {
        let Some(mut state) = self.0.lock() else { return };
        state.is_closed = true;
        let mut after = Aftermath::new();
        if let (Thread::Awake, Some(core)) = (state.thread, &mut state.core) {
            // It may wait for a completion that others took, and never come back.
            let nop = Operation::new(sys::IORING_OP_NOP);
            let is_started = core.start(Target::NONE, nop, Held::Nothing).is_ok();
            state.has_unsubmitted |= is_started;
            state.submit_all(&mut after);
        }
        drop(state);
        self.0.work.notify_one();
        self.0.settle(after);
    }
}

/// A device's part in the process's hubs; dropped after the device's pool.
pub(in crate::block) struct HubsOfProcess<W: Wire>([OnceLock<Arc<Handle<W>>>; MOST_HUBS]);

impl<W: Wire> Default for HubsOfProcess<W> {
    fn default() -> Self {
        Self(Default::default())
    }
}

impl<W: Wire> HubsOfProcess<W> {
    /// The hub for the calling thread.
    pub(super) fn get(&self) -> Result<Arc<Hub<W>>> {
        let number = number_of_thread();
        if let Some(handle) = self.0[number].get().filter(|handle| handle.0.is_alive()) {
            return Ok(Arc::clone(&handle.0));
        }
        let handle = Hub::of_process(number)?;
        let hub = Arc::clone(&handle.0);
        // In the child of a fork its parent's is there, and a new one is looked up each time.
        let _ = self.0[number].set(handle);
        Ok(hub)
    }
}

#[cfg(test)]
impl<W: Wire> HubsOfProcess<W> {
    /// Whether nothing is in flight on those that the device used, and no place is taken.
    pub(in crate::block) fn are_idle(&self) -> bool {
        self.0.iter().filter_map(OnceLock::get).all(|handle| handle.0.is_idle())
    }
}

impl<W: Wire> Drop for HubsOfProcess<W> {
    fn drop(&mut self) {
        for handle in self.0.iter().filter_map(OnceLock::get) {
            if let Some(mut state) = handle.0.lock() {
                state.sweep_pools();
            }
        }
    }
}

impl<W: Wire> std::fmt::Debug for HubsOfProcess<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let used = self.0.iter().filter(|hub| hub.get().is_some()).count();
        f.debug_struct("HubsOfProcess").field("used", &used).finish()
    }
}
