//! The kernel's side of rings in memory, which carries out reads and writes on [`Disk`]s: in any order, as late as it likes,
//! and with their faults.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use liburing_sys as sys;

use super::disk::{Disk, Temper};
use crate::block::platform as real;
use crate::model::memory::Memory;
use crate::random::Random;

/// `ring_fd` of the first ring; those of the others are below, where no other model has its own.
const FIRST_RING: c_int = -1_000_000;

/// Kernels by the descriptor of their ring.
static KERNELS: Mutex<BTreeMap<c_int, Arc<SharedKernel>>> = Mutex::new(BTreeMap::new());

fn kernels() -> MutexGuard<'static, BTreeMap<c_int, Arc<SharedKernel>>> {
    KERNELS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Operations that were in flight when their ring was closed, and have not ended.
static LEFT: Mutex<Vec<Taken>> = Mutex::new(Vec::new());

fn left() -> MutexGuard<'static, Vec<Taken>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What rings that a thread sets up are on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rings {
    /// Tells the rings of one program apart from those of others; not 0.
    pub(super) number: u32,
    /// The disk that they are used for.
    pub(super) descriptor: c_int,
    pub(super) seed: u64,
    /// A thread gets no ring of its own.
    pub(super) are_shared: bool,
    /// No buffer can be registered.
    pub(super) are_unregistered: bool,
    /// The table of buffers can be filled one by one.
    pub(super) are_sparse: bool,
    /// No file can be registered.
    pub(super) are_fileless: bool,
    /// They may be closed with operations in flight, as rings of queues are.
    pub(super) may_be_left: bool,
}

thread_local! {
    static RINGS: Cell<Option<Rings>> = const { Cell::new(None) };
}

/// From here on the rings that this thread sets up are in memory.
pub(super) fn enter(rings: Rings) {
    RINGS.set(Some(rings));
}

/// What the rings are on that this thread sets up, where that is in memory.
pub(super) fn entered() -> Option<Rings> {
    RINGS.get()
}

/// The number of [`Rings`]; 0 where they are liburing's.
pub(crate) fn of_thread() -> u32 {
    RINGS.get().map_or(0, |rings| rings.number)
}

/// An operation that was taken, and has not ended.
struct Taken {
    user_data: u64,
    work: Work,
    /// Begins when this has ended as it should, and ends without having begun where it has not.
    linked: Option<Box<Self>>,
}

impl Taken {
    fn new(user_data: u64, work: Work) -> Self {
        Self { user_data, work, linked: None }
    }

    /// Where what comes next in the chain has its place.
    fn last(&mut self) -> &mut Option<Box<Self>> {
        match self.linked {
            Some(ref mut linked) => linked.last(),
            None => &mut self.linked,
        }
    }
}

enum Work {
    Nothing,
    Transfer {
        disk: Arc<Disk>,
        address: u64,
        length: usize,
        offset: u64,
        is_read: bool,
        durable: bool,
    },
    Flush(Arc<Disk>),
    /// One that is linked: who gets it back, not begun, need not know whether the kernel did not want to, and counts nothing.
    LinkedFlush(Arc<Disk>),
    /// Of the operation with that `user_data`.
    Cancel(u64),
}

impl Work {
    fn carry_out(&self) -> i32 {
        let result = match self {
            Self::Nothing | Self::Cancel(_) => Ok(0),
            Self::Flush(disk) => disk.flush(true).map(|()| 0),
            Self::LinkedFlush(disk) => disk.flush(true).map(|()| 0).inspect_err(|errno| {
                disk.state().counts.passing -= u64::from(*errno == libc::ECANCELED);
            }),
            Self::Transfer { disk, address, length, offset, is_read, durable } => {
                let memory = std::ptr::with_exposed_provenance_mut::<u8>(*address as usize);
                if *is_read {
                    disk.read(memory, *length, *offset, true)
                } else {
                    // SAFETY: lent to the operation until its completion, which is not posted yet.
                    let data = unsafe { std::slice::from_raw_parts(memory, *length) };
                    disk.write(data, *offset, *durable, true)
                }
            }
        };
        result.map_or_else(|errno| -errno, |moved| moved as i32)
    }
}

/// Has all that was left in flight by rings of a disk end now.
pub(super) fn end_left(disk: &Arc<Disk>) {
    let is_of = |taken: &Taken| match &taken.work {
        Work::Transfer { disk: on, .. } | Work::Flush(on) | Work::LinkedFlush(on) => Arc::ptr_eq(on, disk),
        Work::Nothing | Work::Cancel(_) => false,
    };
    let mut all = left();
    let (ending, others) = std::mem::take(&mut *all).into_iter().partition(is_of);
    *all = others;
    drop(all);
    let ending: Vec<Taken> = ending;
    for taken in ending {
        taken.work.carry_out();
    }
}

/// Has some of what is in flight on rings of that number end, which are the calling thread's; whether anything did.
pub(super) fn pass_time(number: u32, random: &mut Random) -> bool {
    let of_number: Vec<_> = kernels().values().filter(|kernel| kernel.number == number).cloned().collect();
    let end_some = |kernel: &mut Kernel, most| (0..1 + most).filter(|_| kernel.end_one()).count() != 0;
    // All of them get some.
    of_number.iter().filter(|kernel| kernel.call(|kernel| end_some(kernel, random.below(4)))).count() != 0
}

/// What is on rings of that number: for whoever looks for what hangs.
pub(super) fn describe(number: u32) -> String {
    let all: Vec<_> = kernels().values().filter(|kernel| kernel.number == number).cloned().collect();
    let describe = |kernel: &Kernel| {
        let (taken, late, posted) = (kernel.taken.len(), kernel.late.len(), kernel.posted());
        format!("{} queued, {taken} taken, {late} late, {posted} posted; ", kernel.queued())
    };
    all.iter().map(|kernel| describe(&kernel.lock())).collect()
}

/// Rings of that number that are open.
pub(super) fn open_rings(number: u32) -> usize {
    kernels().values().filter(|kernel| kernel.number == number).count()
}

/// A kernel, for all threads that have its ring.
pub(crate) struct SharedKernel {
    number: u32,
    kernel: Mutex<Kernel>,
    /// Signalled after each call.
    changed: Condvar,
}

impl SharedKernel {
    fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn call<R>(&self, call: impl FnOnce(&mut Kernel) -> R) -> R {
        let result = call(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `wait` more completions are there than were taken when it was called, and submits nothing. Others may
    /// submit meanwhile, and take completions.
    pub(crate) fn wait(&self, wait: u32) -> c_int {
        let mut kernel = self.lock();
        let returned = kernel.fail_to_wait();
        if returned != 0 {
            return returned;
        }
        if kernel.random.once_in(8) {
            // It takes a while to get there, and others go on.
            drop(kernel);
            std::thread::sleep(Duration::from_micros(100));
            kernel = self.lock();
        }
        let end = kernel.cq_head().wrapping_add(wait);
        loop {
            kernel.post_late();
            if kernel.cq_tail().wrapping_sub(end) as i32 >= 0 {
                return 0;
            }
            if !kernel.end_one() {
                kernel = self.changed.wait(kernel).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// The kernel below one ring.
pub(crate) struct Kernel {
    ring: *mut sys::io_uring,
    memory: Memory,
    random: Random,
    rings: Rings,
    cq_entries: u32,
    /// Completions are posted only while the ring is entered to wait for them.
    is_deferred: bool,
    taken: Vec<Taken>,
    /// The next entry of this submit belongs to the chain of the last one.
    is_linked: bool,
    /// Ended, and posted when somebody asks.
    late: Vec<(u64, i32)>,
    buffers: Vec<(usize, usize)>,
    files: Vec<c_int>,
    eventfd: Option<File>,
}

// SAFETY: the ring and its memory are used under the lock of the kernel, or by the one thread that has the ring's lock.
unsafe impl Send for Kernel {}

/// Sets up a ring in memory; `None` where it is to be liburing's.
pub(crate) fn set_up(entries: u32, ring: &mut sys::io_uring, params: &mut sys::io_uring_params) -> Option<c_int> {
    let rings = RINGS.get()?;
    if rings.are_shared && params.flags & sys::IORING_SETUP_SINGLE_ISSUER != 0 {
        return Some(-libc::EMFILE);
    }
    params.sq_entries = entries.next_power_of_two();
    params.cq_entries = 2 * params.sq_entries;
    let mut kernels = kernels();
    let descriptor = kernels.first_key_value().map_or(FIRST_RING, |(last, _)| last - 1);
    let mut random = Random::new(rings.seed ^ u64::from(params.flags));
    let start = |random: &mut Random| 4_u32.wrapping_sub(random.below(24) as u32);
    let starts = (start(&mut random), start(&mut random));
    let memory = Memory::new(ring, descriptor, params.flags, (params.sq_entries, params.cq_entries), starts);
    let kernel = Kernel {
        ring,
        memory,
        random,
        rings,
        cq_entries: params.cq_entries,
        is_deferred: params.flags & sys::IORING_SETUP_DEFER_TASKRUN != 0,
        taken: Vec::new(),
        is_linked: false,
        late: Vec::new(),
        buffers: Vec::new(),
        files: Vec::new(),
        eventfd: None,
    };
    let kernel = SharedKernel { number: rings.number, kernel: Mutex::new(kernel), changed: Condvar::new() };
    kernels.insert(descriptor, Arc::new(kernel));
    Some(0)
}

/// The kernel of a ring; `None` where it is no ring of this module.
pub(crate) fn of(ring: *mut sys::io_uring) -> Option<Arc<SharedKernel>> {
    // SAFETY: the caller passes a ring that is set up.
    of_descriptor(unsafe { (*ring).ring_fd })
}

pub(crate) fn of_descriptor(descriptor: c_int) -> Option<Arc<SharedKernel>> {
    if descriptor > FIRST_RING {
        return None;
    }
    kernels().get(&descriptor).cloned()
}

/// Closes a ring; whether it was one of this module.
pub(crate) fn close(ring: *mut sys::io_uring) -> bool {
    // SAFETY: as for `of`.
    let descriptor = unsafe { (*ring).ring_fd };
    let Some(kernel) = of_descriptor(descriptor) else { return false };
    kernels().remove(&descriptor);
    let mut kernel = kernel.lock();
    if !kernel.taken.is_empty() && !kernel.rings.may_be_left {
        kernel.complain("a ring was closed with operations in flight");
    }
    for taken in std::mem::take(&mut kernel.taken) {
        if kernel.random.once_in(2) {
            taken.work.carry_out();
        } else {
            left().push(taken);
        }
    }
    // SAFETY: the ring is closed, and its kernel is known to nobody else.
    unsafe { kernel.memory.free() };
    true
}

impl Kernel {
    fn complain(&self, what: &str) {
        if let Some(disk) = Disk::of_descriptor(self.rings.descriptor) {
            disk.state().complaints.push(what.to_owned());
        }
    }

    /// Whether a call is to fail, with what passes and for good.
    fn error(&mut self) -> (bool, bool) {
        let Some(disk) = Disk::of_descriptor(self.rings.descriptor) else { return (false, false) };
        let Temper { submits, breaks, .. } = disk.state().temper;
        let mut once_in = |times| times != 0 && self.random.once_in(times);
        (once_in(submits), once_in(breaks))
    }

    /// Fails for good. What is on its way ends all the same; whether that is to be seen before somebody asks depends on the
    /// ring.
    fn break_down(&mut self) -> c_int {
        while self.end_one() {}
        if !self.is_deferred {
            self.post_late();
        }
        -self.random.pick(&[libc::ENOMEM, libc::EPERM, libc::ENXIO])
    }

    /// Entries that are complete and were not taken.
    fn queued(&self) -> usize {
        // SAFETY: the ring is this kernel's, and who calls it has it.
        unsafe { (*self.ring).sq.sqe_tail.wrapping_sub((*self.memory.shared).sq_head) as usize }
    }

    /// Submits what is in the queue, and waits until `wait` completions are there.
    pub(crate) fn submit(&mut self, wait: u32) -> c_int {
        // SAFETY: the ring is this kernel's, and who calls this has it.
        unsafe { self.memory.publish(self.ring) };
        let queued = self.queued();
        let (fails, breaks) = self.error();
        if breaks {
            return self.break_down();
        }
        let count = if fails { self.random.below(queued + 1) } else { queued };
        for _ in 0..count {
            self.take();
        }
        // A chain ends with its submit.
        self.is_linked = false;
        for _ in 0..self.random.below(3) {
            self.end_one();
        }
        if fails && count == 0 {
            return -self.random.pick(&super::disk::PASSING);
        }
        // The kernel does not wait where it stopped at an entry, and says nothing of a signal where it took some.
        let waits = !fails || count == queued && self.random.once_in(2);
        if wait > 0 && waits {
            self.wait_for(wait);
        }
        count as c_int
    }

    /// As [`Kernel::submit`], unless the time passes before.
    pub(crate) fn submit_for_a_time(&mut self, wait: u32) -> c_int {
        let submitted = self.submit(0);
        if submitted < 0 {
            return submitted;
        }
        while self.posted() < wait && !self.random.once_in(8) && self.end_one() {
            self.post_late();
        }
        if submitted == 0 && self.posted() < wait { -libc::ETIME } else { submitted }
    }

    /// Enters to post what is late, which is posted before a call can fail: nobody asks a second time on behalf of those who
    /// sleep until they are told.
    pub(crate) fn get_events(&mut self) -> c_int {
        if self.rings.may_be_left {
            self.post_late();
            return if self.error().0 { -self.random.pick(&super::disk::PASSING) } else { 0 };
        }
        let returned = self.fail_to_wait();
        if returned == 0 {
            self.post_late();
        }
        returned
    }

    /// What a call that only waits fails with; 0 where it does not.
    fn fail_to_wait(&mut self) -> c_int {
        let (fails, breaks) = self.error();
        if breaks {
            return self.break_down();
        }
        if fails { -self.random.pick(&super::disk::PASSING) } else { 0 }
    }

    fn wait_for(&mut self, wait: u32) {
        self.post_late();
        while self.posted() < wait {
            if !self.end_one() {
                self.complain("more is waited for than is in flight: that is for ever");
                // Who does that without end is to be heard of, too.
                let complaints =
                    Disk::of_descriptor(self.rings.descriptor).map_or(0, |disk| disk.state().complaints.len());
                assert!(complaints < 1000, "more is waited for than is in flight, again and again");
                return;
            }
            self.post_late();
        }
    }

    /// Completions in the queue.
    fn posted(&self) -> u32 {
        self.cq_tail().wrapping_sub(self.cq_head())
    }

    fn cq_tail(&self) -> u32 {
        // SAFETY: allocated until the ring is closed; both sides use it atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.memory.shared).cq_tail) }.load(Ordering::Relaxed)
    }

    fn cq_head(&self) -> u32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.memory.shared).cq_head) }.load(Ordering::Acquire)
    }

    /// Takes the entry at the head of the submission queue.
    fn take(&mut self) {
        // SAFETY: the queue is not empty; a complete entry, and a plain C structure.
        let sqe = unsafe {
            let shared = &mut *self.memory.shared;
            let sqe = std::ptr::read(self.memory.entry(shared.sq_head));
            shared.sq_head = shared.sq_head.wrapping_add(1);
            sqe
        };
        // SAFETY: every member of these unions is plain numbers.
        let (offset, address, flags, buffer) = unsafe {
            let (offset, address) = (sqe.__bindgen_anon_1.off, sqe.__bindgen_anon_2.addr);
            (offset, address, sqe.__bindgen_anon_3.rw_flags, sqe.__bindgen_anon_4.buf_index)
        };
        let link = sys::IOSQE_IO_LINK as u8;
        let is_of_table = sqe.flags & !link == sys::IOSQE_FIXED_FILE as u8;
        if sqe.flags & !link != 0 && !is_of_table {
            self.complain(&format!("an entry with the flags {:#x}", sqe.flags));
        }
        let is_linked = std::mem::replace(&mut self.is_linked, sqe.flags & link != 0);
        let user_data = sqe.user_data;
        let (is_read, is_fixed) = match u32::from(sqe.opcode) {
            sys::IORING_OP_NOP => return self.add(Taken::new(user_data, Work::Nothing), is_linked),
            sys::IORING_OP_ASYNC_CANCEL => return self.add(Taken::new(user_data, Work::Cancel(address)), is_linked),
            sys::IORING_OP_READ => (true, false),
            sys::IORING_OP_READ_FIXED => (true, true),
            sys::IORING_OP_WRITE => (false, false),
            sys::IORING_OP_WRITE_FIXED => (false, true),
            sys::IORING_OP_FSYNC => (false, false),
            opcode => return self.complain(&format!("an entry with opcode {opcode}")),
        };
        let descriptor = if is_of_table { self.files.get(sqe.fd as usize).copied().unwrap_or(-1) } else { sqe.fd };
        let Some(disk) = Disk::of_descriptor(descriptor) else {
            return self.complain(&format!("an entry on the descriptor {descriptor}"));
        };
        if u32::from(sqe.opcode) == sys::IORING_OP_FSYNC {
            if flags as u32 != sys::IORING_FSYNC_DATASYNC || (offset, sqe.len) != (0, 0) {
                self.complain(&format!("a flush of {} bytes at {offset} with the flags {flags:#x}", sqe.len));
            }
            let work = if is_linked { Work::LinkedFlush(disk) } else { Work::Flush(disk) };
            return self.add(Taken::new(user_data, work), is_linked);
        }
        let length = sqe.len as usize;
        if is_fixed {
            let (start, size) = self.buffers.get(usize::from(buffer)).copied().unwrap_or_default();
            let address = address as usize;
            if address < start || address + length > start + size {
                self.complain(&format!("{address:#x} + {length} is not in the registered buffer {buffer}"));
            }
        }
        let durable = flags == libc::RWF_DSYNC;
        if flags != 0 && (!durable || is_read) {
            self.complain(&format!("a transfer with the flags {flags:#x}"));
        }
        let work = Work::Transfer { disk, address, length, offset, is_read, durable };
        self.add(Taken::new(user_data, work), is_linked);
    }

    fn add(&mut self, taken: Taken, is_linked: bool) {
        match self.taken.last_mut() {
            Some(head) if is_linked => *head.last() = Some(Box::new(taken)),
            _ => self.taken.push(taken),
        }
    }

    /// Goes on with what is linked to an operation that has ended.
    fn go_on(&mut self, mut linked: Option<Box<Taken>>, is_whole: bool) {
        if is_whole {
            self.taken.extend(linked.map(|taken| *taken));
            return;
        }
        while let Some(taken) = linked {
            self.late.push((taken.user_data, -libc::ECANCELED));
            linked = taken.linked;
        }
    }

    /// Ends one operation, whichever; `false` where none is there.
    fn end_one(&mut self) -> bool {
        if self.taken.is_empty() {
            return false;
        }
        let taken = self.taken.swap_remove(self.random.below(self.taken.len()));
        let result = match taken.work {
            Work::Cancel(user_data) => self.cancel(user_data),
            ref work => work.carry_out(),
        };
        self.late.push((taken.user_data, result));
        let is_whole = match taken.work {
            Work::Transfer { length, .. } => result == length as i32,
            _ => result >= 0,
        };
        self.go_on(taken.linked, is_whole);
        self.set_flags();
        if !self.is_deferred {
            if self.random.once_in(2) {
                self.post_late();
            }
        } else {
            self.signal();
        }
        true
    }

    /// Ends an operation before it has begun, where that can be.
    fn cancel(&mut self, user_data: u64) -> i32 {
        let Some(index) = self.taken.iter().position(|taken| taken.user_data == user_data) else {
            return -libc::ENOENT;
        };
        if self.random.once_in(2) {
            return -libc::EALREADY;
        }
        let taken = self.taken.swap_remove(index);
        self.late.push((user_data, -libc::ECANCELED));
        self.go_on(taken.linked, false);
        0
    }

    /// Tells of a completion.
    fn signal(&self) {
        // SAFETY: allocated until the ring is closed; both sides use it atomically.
        let flags = unsafe { AtomicU32::from_ptr(&raw mut (*self.memory.shared).cq_flags) }.load(Ordering::Acquire);
        if let (Some(eventfd), 0) = (&self.eventfd, flags & sys::IORING_CQ_EVENTFD_DISABLED) {
            real::signal(eventfd);
        }
    }

    /// Tells that there are completions which only whoever enters will see.
    fn set_flags(&mut self) {
        let flags = if self.late.is_empty() { 0 } else { sys::IORING_SQ_TASKRUN };
        // SAFETY: allocated until the ring is closed; both sides use it atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.memory.shared).sq_flags) }.store(flags, Ordering::Release);
    }

    fn post_late(&mut self) {
        if !self.late.is_empty() {
            self.signal();
        }
        for (user_data, result) in std::mem::take(&mut self.late) {
            if self.posted() >= self.cq_entries {
                return self.complain("more is in flight than completions fit");
            }
            // SAFETY: there is room, and this has the kernel.
            unsafe { self.memory.post(user_data, result, 0) };
        }
        self.set_flags();
    }

    // ---- registering

    pub(crate) fn register_files(&mut self, count: u32) -> c_int {
        if self.rings.are_fileless {
            return -libc::EMFILE;
        }
        self.files = vec![-1; count as usize];
        0
    }

    pub(crate) fn update_file(&mut self, index: u32, descriptor: c_int) -> c_int {
        self.files.get_mut(index as usize).map_or(-libc::EINVAL, |file| {
            *file = descriptor;
            1
        })
    }

    pub(crate) fn register_eventfd(&mut self, descriptor: c_int) -> c_int {
        // SAFETY: the caller has it open during the call.
        let theirs = unsafe { BorrowedFd::borrow_raw(descriptor) };
        self.eventfd = theirs.try_clone_to_owned().ok().map(File::from);
        if self.eventfd.is_some() { 0 } else { -libc::EBADF }
    }

    pub(crate) fn register_sparse(&mut self, count: u32) -> c_int {
        if self.rings.are_unregistered {
            return -libc::ENOMEM;
        }
        if !self.rings.are_sparse {
            return -libc::EINVAL;
        }
        self.buffers = vec![(0, 0); count as usize];
        0
    }

    pub(crate) fn register_buffers(&mut self, buffers: &[libc::iovec]) -> c_int {
        self.buffers = buffers.iter().map(|iovec| (iovec.iov_base.addr(), iovec.iov_len)).collect();
        0
    }

    pub(crate) fn update_buffers(&mut self, first: u32, buffers: &[libc::iovec]) -> c_int {
        for (known, new) in self.buffers.iter_mut().skip(first as usize).zip(buffers) {
            *known = (new.iov_base.addr(), new.iov_len);
        }
        buffers.len() as c_int
    }
}
