//! The inline functions that run for every operation, in Rust.
//!
//! They do what the installed header's do, with two differences: [`io_uring_get_sqe`] always clears
//! the fields that the header clears since 2.6, and no error leaves a consumed entry behind, as it
//! did in 2.13 and 2.14.

use std::ffi::{c_int, c_uint, c_ushort, c_void};
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use libc::iovec;

use crate::bindings::{
    IORING_FEAT_EXT_ARG, IORING_OP_ASYNC_CANCEL, IORING_OP_CLOSE, IORING_OP_FALLOCATE, IORING_OP_FSYNC, IORING_OP_NOP,
    IORING_OP_POLL_ADD, IORING_OP_READ, IORING_OP_READ_FIXED, IORING_OP_READV, IORING_OP_RECV, IORING_OP_SEND,
    IORING_OP_URING_CMD, IORING_OP_WRITE, IORING_OP_WRITE_FIXED, IORING_OP_WRITEV, IORING_SETUP_IOPOLL,
    IORING_SETUP_SQE128, IORING_SETUP_SQPOLL, IORING_SQ_CQ_OVERFLOW, IORING_SQ_TASKRUN, LIBURING_UDATA_TIMEOUT,
    io_uring, io_uring_buf, io_uring_buf_ring, io_uring_cqe, io_uring_op, io_uring_sqe,
};
use crate::macros::{KNOWS_MIXED_ENTRIES, header_is_at_least, io_uring_cqe_index, io_uring_cqe_nr};
use crate::quirks::__io_uring_get_cqe;

/// The header's `IORING_CQE_F_SKIP`, which those before 2.13 do not have: an entry without meaning.
const CQE_F_SKIP: u32 = 1 << 5;

/// Until 2.5 the preparations clear the optional fields, since then `io_uring_get_sqe` does.
const PREPARATIONS_CLEAR: bool = !header_is_at_least(2, 6);

/// `io_uring_sqe` without its unions, whose names in Rust depend on the header's version.
#[repr(C)]
struct Entry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    rw_flags: u32,
    user_data: u64,
    buf_index: u16,
    personality: u16,
    file_index: u32,
    addr3: u64,
    pad: u64,
}

macro_rules! assert_same_offset {
    ( $($field:ident),* ) => {
        $( assert!(offset_of!(Entry, $field) == offset_of!(io_uring_sqe, $field)); )*
    };
}

const _: () = {
    assert!(size_of::<Entry>() == size_of::<io_uring_sqe>());
    assert!(align_of::<Entry>() <= align_of::<io_uring_sqe>());
    assert_same_offset!(opcode, flags, ioprio, fd, len, user_data, personality);
    // The tail of a buffer ring lies over the unused end of its first entry.
    assert!(offset_of!(io_uring_buf, resv) == 14);
    assert!(size_of::<io_uring_buf_ring>() == size_of::<io_uring_buf>());
};

/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
unsafe fn clear(sqe: *mut io_uring_sqe) {
    let entry = sqe.cast::<Entry>();
    // SAFETY: the caller's entry, which has the same layout.
    unsafe {
        (*entry).flags = 0;
        (*entry).ioprio = 0;
        (*entry).rw_flags = 0;
        (*entry).buf_index = 0;
        (*entry).personality = 0;
        (*entry).file_index = 0;
        (*entry).addr3 = 0;
        (*entry).pad = 0;
    }
}

/// # Safety
///
/// `ring` must point to an initialised ring.
#[inline]
unsafe fn submission_head(ring: *const io_uring) -> c_uint {
    // SAFETY: the caller's ring, whose pointers lead into its mapped queues.
    unsafe {
        let head = AtomicU32::from_ptr((*ring).sq.khead);
        if (*ring).flags & IORING_SETUP_SQPOLL != 0 {
            // The kernel's thread moves the head after it has read the entries before it.
            head.load(Ordering::Acquire)
        } else {
            head.load(Ordering::Relaxed)
        }
    }
}

/// Returns an entry to fill, with its optional fields cleared; null when the queue is full.
///
/// Whatever has been filled is submitted by the next `io_uring_submit`.
///
#[doc = reference!(io_uring_get_sqe)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose submission queue no other thread uses.
#[inline]
pub unsafe fn io_uring_get_sqe(ring: *mut io_uring) -> *mut io_uring_sqe {
    // SAFETY: the caller's ring; the mask keeps the index inside the mapped entries.
    unsafe {
        let head = submission_head(ring);
        let sq = &raw mut (*ring).sq;
        let tail = (*sq).sqe_tail;
        if tail.wrapping_sub(head) >= (*sq).ring_entries {
            return ptr::null_mut();
        }
        let shift = u32::from((*ring).flags & IORING_SETUP_SQE128 != 0);
        let sqe = (*sq).sqes.add(((tail & (*sq).ring_mask) << shift) as usize);
        (*sq).sqe_tail = tail.wrapping_add(1);
        clear(sqe);
        sqe
    }
}

/// Number of entries that the kernel has not consumed.
///
#[doc = reference!(io_uring_sq_ready)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose submission queue no other thread uses.
#[inline]
pub unsafe fn io_uring_sq_ready(ring: *const io_uring) -> c_uint {
    // SAFETY: the caller's ring.
    unsafe { (*ring).sq.sqe_tail.wrapping_sub(submission_head(ring)) }
}

/// Number of entries that can be had before the queue is full.
///
#[doc = reference!(io_uring_sq_space_left)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose submission queue no other thread uses.
#[inline]
pub unsafe fn io_uring_sq_space_left(ring: *const io_uring) -> c_uint {
    // SAFETY: the caller's ring.
    unsafe { (*ring).sq.ring_entries.wrapping_sub(io_uring_sq_ready(ring)) }
}

/// Sets the value that comes back in the completion.
///
#[doc = reference!(io_uring_sqe_set_data64)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
pub unsafe fn io_uring_sqe_set_data64(sqe: *mut io_uring_sqe, data: u64) {
    // SAFETY: the caller's entry.
    unsafe { (*sqe).user_data = data };
}

/// Sets the pointer that comes back in the completion.
///
#[doc = reference!(io_uring_sqe_set_data)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
pub unsafe fn io_uring_sqe_set_data(sqe: *mut io_uring_sqe, data: *mut c_void) {
    // SAFETY: the caller's entry.
    unsafe { io_uring_sqe_set_data64(sqe, data.expose_provenance() as u64) };
}

/// Sets the entry's `IOSQE_*` flags, after the preparation.
///
#[doc = reference!(io_uring_sqe_set_flags)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
pub unsafe fn io_uring_sqe_set_flags(sqe: *mut io_uring_sqe, flags: c_uint) {
    // SAFETY: the caller's entry.
    unsafe { (*sqe).flags = flags as u8 };
}

/// Prepares an operation that takes memory, a length and an offset.
///
#[doc = reference!(io_uring_prep_rw)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write. Once it is submitted, the memory must
/// stay what the operation needs until its last completion.
#[inline]
pub unsafe fn io_uring_prep_rw(
    op: c_int,
    sqe: *mut io_uring_sqe,
    fd: c_int,
    addr: *const c_void,
    len: c_uint,
    offset: u64,
) {
    let entry = sqe.cast::<Entry>();
    // SAFETY: the caller's entry, which has the same layout.
    unsafe {
        if PREPARATIONS_CLEAR {
            clear(sqe);
        }
        (*entry).opcode = op as u8;
        (*entry).fd = fd;
        (*entry).off = offset;
        (*entry).addr = addr.expose_provenance() as u64;
        (*entry).len = len;
    }
}

/// # Safety
///
/// That of [`io_uring_prep_rw`].
#[inline]
unsafe fn prepare(
    op: io_uring_op,
    sqe: *mut io_uring_sqe,
    fd: c_int,
    addr: *const c_void,
    len: c_uint,
    offset: u64,
) -> *mut Entry {
    // SAFETY: the caller's obligations are the same.
    unsafe { io_uring_prep_rw(op as c_int, sqe, fd, addr, len, offset) };
    sqe.cast()
}

macro_rules! transfers {
    ( $( $(#[$doc:meta])* $name:ident($memory:ident: $ty:ty, $len:ident) is $op:ident; )* ) => { $(
        $(#[$doc])*
        ///
        #[doc = reference!($name)]
        ///
        /// # Safety
        ///
        /// `sqe` must point to an entry that the caller may write. Once it is submitted, the memory
        /// must stay valid for the operation, and untouched, until its completion.
        #[inline]
        pub unsafe fn $name(
            sqe: *mut io_uring_sqe,
            fd: c_int,
            $memory: $ty,
            $len: c_uint,
            offset: u64,
        ) {
            // SAFETY: the caller's obligations are the same.
            unsafe { prepare($op, sqe, fd, $memory.cast(), $len, offset) };
        }
    )* };
}

transfers! {
    /// Prepares `pread(2)`.
    io_uring_prep_read(buf: *mut c_void, nbytes) is IORING_OP_READ;
    /// Prepares `pwrite(2)`.
    io_uring_prep_write(buf: *const c_void, nbytes) is IORING_OP_WRITE;
    /// Prepares `preadv(2)`.
    io_uring_prep_readv(iovecs: *const iovec, nr_vecs) is IORING_OP_READV;
    /// Prepares `pwritev(2)`.
    io_uring_prep_writev(iovecs: *const iovec, nr_vecs) is IORING_OP_WRITEV;
}

macro_rules! fixed_transfers {
    ( $( $(#[$doc:meta])* $name:ident($ty:ty) is $op:ident; )* ) => { $(
        $(#[$doc])*
        ///
        #[doc = reference!($name)]
        ///
        /// # Safety
        ///
        /// `sqe` must point to an entry that the caller may write. Once it is submitted, the memory
        /// must stay registered under `buf_index`, and untouched, until its completion.
        #[inline]
        pub unsafe fn $name(
            sqe: *mut io_uring_sqe,
            fd: c_int,
            buf: $ty,
            nbytes: c_uint,
            offset: u64,
            buf_index: c_int,
        ) {
            // SAFETY: the caller's obligations are the same; the same entry.
            unsafe {
                let entry = prepare($op, sqe, fd, buf.cast(), nbytes, offset);
                (*entry).buf_index = buf_index as u16;
            }
        }
    )* };
}

fixed_transfers! {
    /// Prepares a read into a registered buffer.
    io_uring_prep_read_fixed(*mut c_void) is IORING_OP_READ_FIXED;
    /// Prepares a write from a registered buffer.
    io_uring_prep_write_fixed(*const c_void) is IORING_OP_WRITE_FIXED;
}

macro_rules! messages {
    ( $( $(#[$doc:meta])* $name:ident($ty:ty) is $op:ident; )* ) => { $(
        $(#[$doc])*
        ///
        #[doc = reference!($name)]
        ///
        /// # Safety
        ///
        /// `sqe` must point to an entry that the caller may write. Once it is submitted, the memory
        /// must stay valid for the operation, and untouched, until its completion.
        #[inline]
        pub unsafe fn $name(
            sqe: *mut io_uring_sqe,
            sockfd: c_int,
            buf: $ty,
            len: usize,
            flags: c_int,
        ) {
            // SAFETY: the caller's obligations are the same; the same entry.
            unsafe {
                let entry = prepare($op, sqe, sockfd, buf.cast(), len as u32, 0);
                (*entry).rw_flags = flags as u32;
            }
        }
    )* };
}

messages! {
    /// Prepares `send(2)`.
    io_uring_prep_send(*const c_void) is IORING_OP_SEND;
    /// Prepares `recv(2)`.
    io_uring_prep_recv(*mut c_void) is IORING_OP_RECV;
}

/// Prepares an operation that does nothing.
///
#[doc = reference!(io_uring_prep_nop)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
pub unsafe fn io_uring_prep_nop(sqe: *mut io_uring_sqe) {
    // SAFETY: the caller's entry; no memory.
    unsafe { prepare(IORING_OP_NOP, sqe, -1, ptr::null(), 0, 0) };
}

/// Prepares `fsync(2)`, or `fdatasync(2)` with `IORING_FSYNC_DATASYNC`.
///
#[doc = reference!(io_uring_prep_fsync)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
pub unsafe fn io_uring_prep_fsync(sqe: *mut io_uring_sqe, fd: c_int, fsync_flags: c_uint) {
    // SAFETY: the caller's entry; no memory.
    unsafe { (*prepare(IORING_OP_FSYNC, sqe, fd, ptr::null(), 0, 0)).rw_flags = fsync_flags };
}

/// Prepares `fallocate(2)`; offset and length are `off_t` in the header of 2.3.
///
#[doc = reference!(io_uring_prep_fallocate)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
pub unsafe fn io_uring_prep_fallocate(sqe: *mut io_uring_sqe, fd: c_int, mode: c_int, offset: u64, len: u64) {
    // SAFETY: the caller's entry; no memory.
    unsafe {
        let entry = prepare(IORING_OP_FALLOCATE, sqe, fd, ptr::null(), mode as u32, offset);
        (*entry).addr = len;
    }
}

/// Prepares a wait for one of the `POLL*` events.
///
#[doc = reference!(io_uring_prep_poll_add)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
pub unsafe fn io_uring_prep_poll_add(sqe: *mut io_uring_sqe, fd: c_int, poll_mask: c_uint) {
    // The kernel's field was 16 bits wide once, and they stay where they were.
    let events = if cfg!(target_endian = "big") { poll_mask.rotate_left(16) } else { poll_mask };
    // SAFETY: the caller's entry; no memory.
    unsafe { (*prepare(IORING_OP_POLL_ADD, sqe, fd, ptr::null(), 0, 0)).rw_flags = events };
}

/// Prepares the cancellation of operations by their `user_data`.
///
#[doc = reference!(io_uring_prep_cancel64)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write.
#[inline]
pub unsafe fn io_uring_prep_cancel64(sqe: *mut io_uring_sqe, user_data: u64, flags: c_int) {
    // SAFETY: the caller's entry; no memory.
    unsafe {
        let entry = prepare(IORING_OP_ASYNC_CANCEL, sqe, -1, ptr::null(), 0, 0);
        (*entry).addr = user_data;
        (*entry).rw_flags = flags as u32;
    }
}

/// Prepares `close(2)`.
///
#[doc = reference!(io_uring_prep_close)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write. Once it is submitted, `fd` is no longer
/// the caller's.
#[inline]
pub unsafe fn io_uring_prep_close(sqe: *mut io_uring_sqe, fd: c_int) {
    // SAFETY: the caller's entry; no memory.
    unsafe { prepare(IORING_OP_CLOSE, sqe, fd, ptr::null(), 0, 0) };
}

/// Prepares a command of the file's own, to which the caller adds its arguments; in C since 2.13.
///
#[doc = reference!(io_uring_prep_uring_cmd)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write. Once it is submitted, whatever the
/// command refers to must stay valid until its last completion.
#[inline]
pub unsafe fn io_uring_prep_uring_cmd(sqe: *mut io_uring_sqe, cmd_op: c_int, fd: c_int) {
    // SAFETY: the caller's entry; the command is the first half of `off`, on either endianness.
    unsafe {
        let entry = prepare(IORING_OP_URING_CMD, sqe, fd, ptr::null(), 0, 0);
        (&raw mut (*entry).off).cast::<u32>().write(cmd_op as u32);
    }
}

/// Gives `nr` places of the completion queue back to the kernel.
///
#[doc = reference!(io_uring_cq_advance)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose completion queue no other thread uses. The
/// entries in those places must not be read any more.
#[inline]
pub unsafe fn io_uring_cq_advance(ring: *mut io_uring, nr: c_uint) {
    if nr == 0 {
        return;
    }
    // SAFETY: the caller's ring, whose pointers lead into its mapped queues.
    unsafe {
        let head = AtomicU32::from_ptr((*ring).cq.khead);
        // Release: the kernel writes there when the reads of the entries are done.
        head.store(head.load(Ordering::Relaxed).wrapping_add(nr), Ordering::Release);
    }
}

/// Gives one completion back to the kernel; does nothing for null.
///
#[doc = reference!(io_uring_cqe_seen)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose completion queue no other thread uses, and `cqe`
/// to its first entry, which must not be read any more.
#[inline]
pub unsafe fn io_uring_cqe_seen(ring: *mut io_uring, cqe: *mut io_uring_cqe) {
    if !cqe.is_null() {
        // SAFETY: the caller's ring and entry.
        unsafe { io_uring_cq_advance(ring, io_uring_cqe_nr(cqe)) };
    }
}

/// Number of completions that wait in the queue.
///
#[doc = reference!(io_uring_cq_ready)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose completion queue no other thread uses.
#[inline]
pub unsafe fn io_uring_cq_ready(ring: *const io_uring) -> c_uint {
    // SAFETY: the caller's ring, whose pointers lead into its mapped queues.
    unsafe {
        let tail = AtomicU32::from_ptr((*ring).cq.ktail).load(Ordering::Acquire);
        tail.wrapping_sub(AtomicU32::from_ptr((*ring).cq.khead).load(Ordering::Relaxed))
    }
}

/// Whether the kernel keeps completions that found no place in the queue.
///
#[doc = reference!(io_uring_cq_has_overflow)]
///
/// # Safety
///
/// `ring` must point to an initialised ring.
#[inline]
pub unsafe fn io_uring_cq_has_overflow(ring: *const io_uring) -> bool {
    // SAFETY: the caller's ring.
    unsafe { submission_flags(ring) & IORING_SQ_CQ_OVERFLOW != 0 }
}

/// # Safety
///
/// `ring` must point to an initialised ring.
#[inline]
pub(crate) unsafe fn submission_flags(ring: *const io_uring) -> u32 {
    // SAFETY: the caller's ring, whose pointers lead into its mapped queues.
    unsafe { AtomicU32::from_ptr((*ring).sq.kflags).load(Ordering::Relaxed) }
}

/// The value that the submission carried.
///
#[doc = reference!(io_uring_cqe_get_data64)]
///
/// # Safety
///
/// `cqe` must point to a completion queue entry that has not been given back.
#[inline]
pub unsafe fn io_uring_cqe_get_data64(cqe: *const io_uring_cqe) -> u64 {
    // SAFETY: the caller's entry.
    unsafe { (*cqe).user_data }
}

/// The pointer that the submission carried.
///
#[doc = reference!(io_uring_cqe_get_data)]
///
/// # Safety
///
/// `cqe` must point to a completion queue entry that has not been given back.
#[inline]
pub unsafe fn io_uring_cqe_get_data(cqe: *const io_uring_cqe) -> *mut c_void {
    // SAFETY: the caller's entry.
    ptr::with_exposed_provenance_mut(unsafe { (*cqe).user_data } as usize)
}

/// Looks for a completion in the queue only. Not for applications: see [`io_uring_peek_cqe`].
///
#[doc = reference!(__io_uring_peek_cqe)]
///
/// # Safety
///
/// That of [`io_uring_peek_cqe`]; besides, `nr_available` must be null or writable.
#[inline]
pub unsafe fn __io_uring_peek_cqe(
    ring: *mut io_uring,
    cqe_ptr: *mut *mut io_uring_cqe,
    nr_available: *mut c_uint,
) -> c_int {
    // SAFETY: the caller's ring and places; the mask keeps the index inside the mapped queue, and
    // the kernel wrote the entries before the tail that was read.
    unsafe {
        let (cqe, available, error) = loop {
            let available = io_uring_cq_ready(ring);
            if available == 0 {
                break (ptr::null_mut(), 0, 0);
            }
            let cq = &raw const (*ring).cq;
            let head = AtomicU32::from_ptr((*cq).khead).load(Ordering::Relaxed);
            let cqe = (*cq).cqes.add(io_uring_cqe_index(ring, head, (*cq).ring_mask) as usize);

            let skipped = KNOWS_MIXED_ENTRIES && (*cqe).flags & CQE_F_SKIP != 0;
            // Kernels before 5.11 have no timeout for a wait: the library queues one of its own.
            let is_timeout = (*ring).features & IORING_FEAT_EXT_ARG == 0 && (*cqe).user_data == LIBURING_UDATA_TIMEOUT;
            if !skipped && !is_timeout {
                break (cqe, available, 0);
            }
            let error = if skipped { 0 } else { (*cqe).res.min(0) };
            io_uring_cq_advance(ring, io_uring_cqe_nr(cqe));
            if error < 0 {
                break (ptr::null_mut(), available, error);
            }
        };
        *cqe_ptr = cqe;
        if !nr_available.is_null() {
            *nr_available = available;
        }
        error
    }
}

/// Returns the first completion, if there is one: 0 and an entry, or `-errno` (`-EAGAIN` for none).
///
#[doc = reference!(io_uring_peek_cqe)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose completion queue no other thread uses, and
/// `cqe_ptr` must be writable. The entry is valid until it is given back.
#[inline]
pub unsafe fn io_uring_peek_cqe(ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe) -> c_int {
    // SAFETY: the caller's obligations are the same.
    unsafe {
        if __io_uring_peek_cqe(ring, cqe_ptr, ptr::null_mut()) == 0 {
            if !(*cqe_ptr).is_null() {
                return 0;
            }
            // Since 2.15 an empty queue is not looked into again if the kernel has nothing for it.
            if header_is_at_least(2, 15)
                && (*ring).flags & IORING_SETUP_IOPOLL == 0
                && submission_flags(ring) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN) == 0
            {
                return -libc::EAGAIN;
            }
        }
        __io_uring_get_cqe(ring, cqe_ptr, 0, 0, ptr::null_mut())
    }
}

/// Returns the first completion and waits until there is one: 0 and an entry, or `-errno`.
///
#[doc = reference!(io_uring_wait_cqe)]
///
/// # Safety
///
/// That of [`io_uring_peek_cqe`].
#[inline]
pub unsafe fn io_uring_wait_cqe(ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe) -> c_int {
    // SAFETY: the caller's obligations are the same.
    unsafe {
        let error = __io_uring_peek_cqe(ring, cqe_ptr, ptr::null_mut());
        if error == 0 && !(*cqe_ptr).is_null() {
            return 0;
        }
        __io_uring_get_cqe(ring, cqe_ptr, 0, 1, ptr::null_mut())
    }
}

/// Returns the first completion and waits until there are `wait_nr`: 0 and an entry, or `-errno`.
///
#[doc = reference!(io_uring_wait_cqe_nr)]
///
/// # Safety
///
/// That of [`io_uring_peek_cqe`].
#[inline]
pub unsafe fn io_uring_wait_cqe_nr(ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe, wait_nr: c_uint) -> c_int {
    // SAFETY: the caller's obligations are the same.
    unsafe { __io_uring_get_cqe(ring, cqe_ptr, 0, wait_nr, ptr::null_mut()) }
}

/// The mask of a buffer ring with so many entries.
///
#[doc = reference!(io_uring_buf_ring_mask)]
///
/// # Safety
///
/// None: unsafe only because the header's other functions are.
#[inline]
pub unsafe fn io_uring_buf_ring_mask(ring_entries: u32) -> c_int {
    ring_entries.wrapping_sub(1) as c_int
}

/// # Safety
///
/// `br` must point to a buffer ring.
#[inline]
unsafe fn buffer_tail<'a>(br: *mut io_uring_buf_ring) -> &'a AtomicU16 {
    // SAFETY: the caller's ring; the tail is written by the program only, and is aligned.
    unsafe { AtomicU16::from_ptr(&raw mut (*br.cast::<io_uring_buf>()).resv) }
}

/// Makes a buffer ring empty, before it is registered.
///
#[doc = reference!(io_uring_buf_ring_init)]
///
/// # Safety
///
/// `br` must point to a buffer ring that no other thread uses.
#[inline]
pub unsafe fn io_uring_buf_ring_init(br: *mut io_uring_buf_ring) {
    // SAFETY: the caller's ring.
    unsafe { buffer_tail(br) }.store(0, Ordering::Relaxed);
}

/// Puts a buffer into the place `buf_offset` after the tail, not yet for the kernel to see.
///
#[doc = reference!(io_uring_buf_ring_add)]
///
/// # Safety
///
/// `br` must point to a buffer ring that no other thread uses, of `mask + 1` entries, with a place
/// that is free. From [`io_uring_buf_ring_advance`] on the memory is the kernel's, until a
/// completion names the buffer.
#[inline]
pub unsafe fn io_uring_buf_ring_add(
    br: *mut io_uring_buf_ring,
    addr: *mut c_void,
    len: c_uint,
    bid: c_ushort,
    mask: c_int,
    buf_offset: c_int,
) {
    // SAFETY: the caller's ring; the mask keeps the index inside it.
    unsafe {
        let tail = c_int::from(buffer_tail(br).load(Ordering::Relaxed));
        let index = tail.wrapping_add(buf_offset) & mask;
        let buf = br.cast::<io_uring_buf>().offset(index as isize);
        // Field by field: in the first entry the rest is the tail.
        (*buf).addr = addr.expose_provenance() as u64;
        (*buf).len = len;
        (*buf).bid = bid;
    }
}

/// Shows `count` buffers that have been added to the kernel.
///
#[doc = reference!(io_uring_buf_ring_advance)]
///
/// # Safety
///
/// `br` must point to a buffer ring that no other thread uses, to which `count` were added.
#[inline]
pub unsafe fn io_uring_buf_ring_advance(br: *mut io_uring_buf_ring, count: c_int) {
    // SAFETY: the caller's ring.
    let tail = unsafe { buffer_tail(br) };
    // Release: the kernel sees the entries first.
    tail.store(tail.load(Ordering::Relaxed).wrapping_add(count as u16), Ordering::Release);
}

/// Gives completions back to the kernel, and buffers that have been added to their ring.
///
/// Headers before 2.6 do not order the buffers' entries before their number.
///
#[doc = reference!(__io_uring_buf_ring_cq_advance)]
///
/// # Safety
///
/// Those of [`io_uring_buf_ring_advance`] and [`io_uring_cq_advance`].
#[inline]
pub unsafe fn __io_uring_buf_ring_cq_advance(
    ring: *mut io_uring,
    br: *mut io_uring_buf_ring,
    cq_count: c_int,
    buf_count: c_int,
) {
    // SAFETY: the caller's obligations are the same.
    unsafe {
        io_uring_buf_ring_advance(br, buf_count);
        io_uring_cq_advance(ring, cq_count as c_uint);
    }
}

/// Gives as many completions back to the kernel as buffers that have been added to their ring.
///
/// Headers before 2.6 do not order the buffers' entries before their number.
///
#[doc = reference!(io_uring_buf_ring_cq_advance)]
///
/// # Safety
///
/// Those of [`io_uring_buf_ring_advance`] and [`io_uring_cq_advance`].
#[inline]
pub unsafe fn io_uring_buf_ring_cq_advance(ring: *mut io_uring, br: *mut io_uring_buf_ring, count: c_int) {
    // SAFETY: the caller's obligations are the same.
    unsafe { __io_uring_buf_ring_cq_advance(ring, br, count, count) }
}
