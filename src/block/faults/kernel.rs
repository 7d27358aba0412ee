//! The kernel's side of rings in memory, which carries out reads and writes on [`Disk`]s: in any order, as late as it likes,
//! and with their faults.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use liburing_sys as sys;

use super::disk::{Disk, Temper};
use crate::model::memory::Memory;
use crate::random::Random;

/// `ring_fd` of the first ring; those of the others are below, where no other model has its own.
const FIRST_RING: c_int = -1_000_000;

/// Kernels by the descriptor of their ring.
static KERNELS: Mutex<BTreeMap<c_int, Arc<Mutex<Kernel>>>> = Mutex::new(BTreeMap::new());

fn kernels() -> MutexGuard<'static, BTreeMap<c_int, Arc<Mutex<Kernel>>>> {
    KERNELS.lock().unwrap_or_else(PoisonError::into_inner)
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
    address: u64,
    length: usize,
    offset: u64,
    is_read: bool,
    durable: bool,
    disk: Arc<Disk>,
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
    /// Ended, and posted when somebody asks.
    late: Vec<(u64, i32)>,
    buffers: Vec<(usize, usize)>,
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
        late: Vec::new(),
        buffers: Vec::new(),
    };
    kernels.insert(descriptor, Arc::new(Mutex::new(kernel)));
    Some(0)
}

/// The kernel of a ring; `None` where it is no ring of this module.
pub(crate) fn of(ring: *mut sys::io_uring) -> Option<Arc<Mutex<Kernel>>> {
    // SAFETY: the caller passes a ring that is set up.
    of_descriptor(unsafe { (*ring).ring_fd })
}

pub(crate) fn of_descriptor(descriptor: c_int) -> Option<Arc<Mutex<Kernel>>> {
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
    let kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    if !kernel.taken.is_empty() {
        kernel.complain("a ring was closed with operations in flight");
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

    /// Waits until `wait` completions are there, and submits nothing.
    pub(crate) fn wait(&mut self, wait: u32) -> c_int {
        let (fails, breaks) = self.error();
        if breaks {
            return self.break_down();
        }
        if fails {
            return -self.random.pick(&super::disk::PASSING);
        }
        self.wait_for(wait);
        0
    }

    fn wait_for(&mut self, wait: u32) {
        self.post_late();
        while self.posted() < wait {
            if !self.end_one() {
                self.complain("more is waited for than is in flight: that is for ever");
                return;
            }
            self.post_late();
        }
    }

    /// Completions in the queue.
    fn posted(&self) -> u32 {
        // SAFETY: shared with who has the ring, which calls this.
        unsafe { (*self.memory.shared).cq_tail.wrapping_sub((*self.memory.shared).cq_head) }
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
        let (is_read, is_fixed) = match u32::from(sqe.opcode) {
            sys::IORING_OP_READ => (true, false),
            sys::IORING_OP_READ_FIXED => (true, true),
            sys::IORING_OP_WRITE => (false, false),
            sys::IORING_OP_WRITE_FIXED => (false, true),
            opcode => return self.complain(&format!("an entry with opcode {opcode}")),
        };
        let length = sqe.len as usize;
        if is_fixed {
            let (start, size) = self.buffers.get(usize::from(buffer)).copied().unwrap_or_default();
            let address = address as usize;
            if address < start || address + length > start + size {
                self.complain(&format!("{address:#x} + {length} is not in the registered buffer {buffer}"));
            }
        }
        let durable = flags == libc::RWF_DSYNC;
        if sqe.flags != 0 || flags != 0 && (!durable || is_read) {
            self.complain(&format!("an entry with the flags {:#x} and {flags:#x}", sqe.flags));
        }
        let Some(disk) = Disk::of_descriptor(sqe.fd) else {
            return self.complain(&format!("an entry on the descriptor {}", sqe.fd));
        };
        let user_data = sqe.user_data;
        self.taken.push(Taken { user_data, address, length, offset, is_read, durable, disk });
    }

    /// Ends one operation, whichever; `false` where none is there.
    fn end_one(&mut self) -> bool {
        if self.taken.is_empty() {
            return false;
        }
        let taken = self.taken.swap_remove(self.random.below(self.taken.len()));
        let memory = std::ptr::with_exposed_provenance_mut::<u8>(taken.address as usize);
        let result = if taken.is_read {
            taken.disk.read(memory, taken.length, taken.offset, true)
        } else {
            // SAFETY: lent to the operation until its completion, which is not posted yet.
            let data = unsafe { std::slice::from_raw_parts(memory, taken.length) };
            taken.disk.write(data, taken.offset, taken.durable, true)
        };
        let result = result.map_or_else(|errno| -errno, |moved| moved as i32);
        self.late.push((taken.user_data, result));
        self.set_flags();
        if !self.is_deferred && self.random.once_in(2) {
            self.post_late();
        }
        true
    }

    /// Tells that there are completions which only whoever enters will see.
    fn set_flags(&mut self) {
        let flags = if self.late.is_empty() { 0 } else { sys::IORING_SQ_TASKRUN };
        // SAFETY: shared with who has the ring, which calls this.
        unsafe { (*self.memory.shared).sq_flags = flags };
    }

    fn post_late(&mut self) {
        for (user_data, result) in std::mem::take(&mut self.late) {
            if self.posted() >= self.cq_entries {
                return self.complain("more is in flight than completions fit");
            }
            // SAFETY: there is room, and who has the ring calls this.
            unsafe { self.memory.post(user_data, result, 0) };
        }
        self.set_flags();
    }

    // ---- registering

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
