//! Functions that are wrong, or missing, in some version of liburing that distributions ship.
//!
//! Each has C's name and does what the newest liburing does, whichever header was read and
//! whichever library runs. What is wrong in the header depends on [`HEADER_VERSION`], what is wrong
//! in the library on the one that was found at run time; elsewhere C's own function is called.
//!
//! [`HEADER_VERSION`]: crate::HEADER_VERSION

use std::ffi::{c_int, c_uint, c_void};
use std::ops::RangeInclusive;
use std::ptr;

use libc::{msghdr, sigset_t};

use crate::bindings::{
    self, __kernel_timespec, IORING_FEAT_EXT_ARG, IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_RESTRICTIONS, io_uring,
    io_uring_cqe, io_uring_recvmsg_out, io_uring_register, io_uring_restriction,
};
use crate::library;

/// The header's `IORING_FEAT_REG_REG_RING`, which 2.3 does not have.
const FEAT_REG_REG_RING: u32 = 1 << 13;

/// The header's `IORING_REGISTER_USE_REGISTERED_RING`, which 2.3 does not have.
const USE_REGISTERED_RING: c_uint = 1 << 31;

/// What is written here, or in `inline.rs` for headers without it, and needs nothing of the same name in the library.
pub(crate) const WITHOUT_LIBRARY: &[&str] = &[
    "__io_uring_buf_ring_cq_advance",
    "io_uring_enable_rings",
    "io_uring_prep_uring_cmd",
    "io_uring_register_restrictions",
    "io_uring_wait_cqe_timeout",
    #[cfg(liburing_2_4)]
    "io_uring_check_version",
    #[cfg(liburing_2_4)]
    "io_uring_major_version",
    #[cfg(liburing_2_4)]
    "io_uring_minor_version",
];

/// Whether the library that runs is one of 2.x with `x` among `minors`.
fn library_is_of(minors: RangeInclusive<u32>) -> bool {
    minors.contains(&library::running_version().minor)
}

/// `io_uring_register(2)` for a ring, whose descriptor may have been closed after its registration.
///
/// # Safety
///
/// `ring` must point to an initialised ring, and `arg` to what the kernel expects for `opcode`.
unsafe fn register(ring: *mut io_uring, opcode: c_uint, arg: *const c_void, count: c_uint) -> c_int {
    // SAFETY: the caller's ring and argument.
    unsafe {
        match c_uint::try_from((*ring).ring_fd) {
            Ok(descriptor) => io_uring_register(descriptor, opcode, arg.cast_mut(), count),
            Err(_) => {
                let index = (*ring).enter_ring_fd as c_uint;
                io_uring_register(index, opcode | USE_REGISTERED_RING, arg.cast_mut(), count)
            }
        }
    }
}

/// Starts a ring that was set up with `IORING_SETUP_R_DISABLED`: 0 or `-errno`.
///
/// The library of 2.3 declares this function and does not export it: it is made here from the register call.
///
#[doc = reference!(io_uring_enable_rings)]
///
/// # Safety
///
/// `ring` must point to an initialised ring.
#[inline]
pub unsafe fn io_uring_enable_rings(ring: *mut io_uring) -> c_int {
    // SAFETY: the caller's ring; the kernel reads no argument.
    unsafe { register(ring, IORING_REGISTER_ENABLE_RINGS, ptr::null(), 0) }
}

/// Allows on a disabled ring only what `res` lists: 0 or `-errno`.
///
/// The library of 2.3 declares this function and does not export it: it is made here from the register call.
///
#[doc = reference!(io_uring_register_restrictions)]
///
/// # Safety
///
/// `ring` must point to an initialised ring, and `res` to `nr_res` restrictions.
#[inline]
pub unsafe fn io_uring_register_restrictions(
    ring: *mut io_uring,
    res: *mut io_uring_restriction,
    nr_res: c_uint,
) -> c_int {
    // SAFETY: the caller's ring and restrictions.
    unsafe { register(ring, IORING_REGISTER_RESTRICTIONS, res.cast(), nr_res).min(0) }
}

/// Registers the ring's own descriptor, which makes `io_uring_enter` cheaper: 1 or `-errno`.
///
/// In the library of 2.4 every registration after this one fails where the kernel does not know registered rings there
/// (before Linux 6.3). With that library it is refused on such a kernel: `-EOPNOTSUPP`, which needs no attention, since
/// the ring works without.
///
#[doc = reference!(io_uring_register_ring_fd)]
///
/// # Safety
///
/// `ring` must point to an initialised ring.
#[inline]
pub unsafe fn io_uring_register_ring_fd(ring: *mut io_uring) -> c_int {
    // SAFETY: the caller's ring.
    unsafe {
        if library_is_of(4..=4) && (*ring).features & FEAT_REG_REG_RING == 0 {
            return -libc::EOPNOTSUPP;
        }
        bindings::io_uring_register_ring_fd(ring)
    }
}

/// Checks that a buffer of `recvmsg` holds the header and room for name and control data: null where it does not.
///
/// Headers before 2.15 let lengths pass whose sum overflows.
///
#[doc = reference!(io_uring_recvmsg_validate)]
///
/// # Safety
///
/// `msgh` must point to the message header that was submitted.
#[inline]
pub unsafe fn io_uring_recvmsg_validate(
    buf: *mut c_void,
    buf_len: c_int,
    msgh: *mut msghdr,
) -> *mut io_uring_recvmsg_out {
    let rest = usize::try_from(buf_len).ok().and_then(|length| length.checked_sub(size_of::<io_uring_recvmsg_out>()));
    // SAFETY: the caller's message header. The type of the control length differs between C libraries.
    #[allow(clippy::unnecessary_cast, trivial_numeric_casts, reason = "size_t in glibc, socklen_t in musl")]
    let (name, control) = unsafe { ((*msgh).msg_namelen as usize, (*msgh).msg_controllen as usize) };
    match rest.and_then(|rest| rest.checked_sub(name)).and_then(|rest| rest.checked_sub(control)) {
        Some(_) => buf.cast(),
        None => ptr::null_mut(),
    }
}

/// Number of bytes that were received into a buffer of `recvmsg`, after header, name and control data.
///
/// Headers before 2.15 give a huge number where there is less than these.
///
#[doc = reference!(io_uring_recvmsg_payload_length)]
///
/// # Safety
///
/// `msgh` must point to the message header that was submitted.
#[inline]
pub unsafe fn io_uring_recvmsg_payload_length(
    _o: *mut io_uring_recvmsg_out,
    buf_len: c_int,
    msgh: *mut msghdr,
) -> c_uint {
    // SAFETY: the caller's message header. The type of the control length differs between C libraries.
    #[allow(clippy::unnecessary_cast, trivial_numeric_casts, reason = "size_t in glibc, socklen_t in musl")]
    let (name, control) = unsafe { ((*msgh).msg_namelen as usize, (*msgh).msg_controllen as usize) };
    let before = size_of::<io_uring_recvmsg_out>().saturating_add(name).saturating_add(control);
    let length = usize::try_from(buf_len).unwrap_or(0).saturating_sub(before);
    // At most `buf_len`.
    length as c_uint
}

/// Puts right what a library of 2.13 or 2.14 left in `cqe_ptr`, on kernels without `IORING_FEAT_EXT_ARG` (before Linux
/// 5.11): when the time is over that may be the library's own entry, which it has given back already.
///
/// # Safety
///
/// Those of [`io_uring_wait_cqes`].
unsafe fn without_stale_entry(ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe) {
    // SAFETY: the caller's ring and place.
    unsafe {
        if (*ring).features & IORING_FEAT_EXT_ARG == 0 && !(*cqe_ptr).is_null() && library_is_of(13..=14) {
            // The first entry that is there now, if there is one; an error has been told already.
            crate::inline::__io_uring_peek_cqe(ring, cqe_ptr, ptr::null_mut());
        }
    }
}

/// Submits, and waits for completions. Not for applications: see [`io_uring_wait_cqes`].
///
#[doc = reference!(__io_uring_get_cqe)]
///
/// # Safety
///
/// Those of [`io_uring_submit_and_wait_timeout`].
#[inline]
pub unsafe fn __io_uring_get_cqe(
    ring: *mut io_uring,
    cqe_ptr: *mut *mut io_uring_cqe,
    submit: c_uint,
    wait_nr: c_uint,
    sigmask: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's obligations are the same.
    unsafe {
        let result = bindings::__io_uring_get_cqe(ring, cqe_ptr, submit, wait_nr, sigmask);
        without_stale_entry(ring, cqe_ptr);
        result
    }
}

/// Waits for so many completions, as long as `ts` says: 0 and the first entry, or `-errno` (`-ETIME` for time over).
///
/// On kernels without `IORING_FEAT_EXT_ARG` (before Linux 5.11) it submits as well, and C's own function returns a
/// positive number and no entry when the time is over; this one returns `-ETIME` there, too.
///
#[doc = reference!(io_uring_wait_cqes)]
///
/// # Safety
///
/// Those of [`io_uring_submit_and_wait_timeout`].
#[inline]
pub unsafe fn io_uring_wait_cqes(
    ring: *mut io_uring,
    cqe_ptr: *mut *mut io_uring_cqe,
    wait_nr: c_uint,
    ts: *mut __kernel_timespec,
    sigmask: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's obligations are the same.
    unsafe {
        let result = bindings::io_uring_wait_cqes(ring, cqe_ptr, wait_nr, ts, sigmask);
        without_stale_entry(ring, cqe_ptr);
        if result >= 0 && (*cqe_ptr).is_null() && wait_nr > 0 { -libc::ETIME } else { result }
    }
}

/// Waits for a completion, as long as `ts` says: [`io_uring_wait_cqes`] for one.
///
#[doc = reference!(io_uring_wait_cqe_timeout)]
///
/// # Safety
///
/// Those of [`io_uring_submit_and_wait_timeout`].
#[inline]
pub unsafe fn io_uring_wait_cqe_timeout(
    ring: *mut io_uring,
    cqe_ptr: *mut *mut io_uring_cqe,
    ts: *mut __kernel_timespec,
) -> c_int {
    // SAFETY: the caller's obligations are the same.
    unsafe { io_uring_wait_cqes(ring, cqe_ptr, 1, ts, ptr::null_mut()) }
}

/// Submits, and waits for completions as long as `ts` says: how many were submitted, or `-errno`.
///
/// Where something was submitted and the time is over, the result is no error and the entry null.
///
#[doc = reference!(io_uring_submit_and_wait_timeout)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose queues no other thread uses, `cqe_ptr` must be writable, and the other
/// pointers null or valid. The entry is valid until it is given back.
#[inline]
pub unsafe fn io_uring_submit_and_wait_timeout(
    ring: *mut io_uring,
    cqe_ptr: *mut *mut io_uring_cqe,
    wait_nr: c_uint,
    ts: *mut __kernel_timespec,
    sigmask: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's obligations are the same.
    unsafe {
        let result = bindings::io_uring_submit_and_wait_timeout(ring, cqe_ptr, wait_nr, ts, sigmask);
        without_stale_entry(ring, cqe_ptr);
        result
    }
}

#[cfg(liburing_2_8)]
macro_rules! waits_with_minimum {
    ( $( $(#[$doc:meta])* $name:ident; )* ) => { $(
        $(#[$doc])*
        ///
        /// `-EINVAL` on kernels without `IORING_FEAT_MIN_TIMEOUT` (before Linux 6.12), on which the libraries before
        /// 2.15 wait without the minimum.
        ///
        #[doc = reference!($name)]
        ///
        /// # Safety
        ///
        /// Those of [`io_uring_submit_and_wait_timeout`].
        #[inline]
        pub unsafe fn $name(
            ring: *mut io_uring,
            cqe_ptr: *mut *mut io_uring_cqe,
            wait_nr: c_uint,
            ts: *mut __kernel_timespec,
            min_wait: c_uint,
            sigmask: *mut sigset_t,
        ) -> c_int {
            // SAFETY: the caller's obligations are the same.
            unsafe {
                if (*ring).features & bindings::IORING_FEAT_MIN_TIMEOUT == 0 {
                    return -libc::EINVAL;
                }
                bindings::$name(ring, cqe_ptr, wait_nr, ts, min_wait, sigmask)
            }
        }
    )* };
}

#[cfg(liburing_2_8)]
waits_with_minimum! {
    /// Waits for so many completions, or for one after `min_wait` microseconds, as long as `ts` says.
    io_uring_wait_cqes_min_timeout;
    /// Submits, and waits as [`io_uring_wait_cqes_min_timeout`] does: how many were submitted, or `-errno`.
    io_uring_submit_and_wait_min_timeout;
}

/// Whether the kernel that was asked knows an operation: 1, or 0.
///
/// Headers before 2.15 look in front of the table for a negative one.
///
#[doc = reference!(io_uring_opcode_supported)]
///
/// # Safety
///
/// `p` must point to what `io_uring_get_probe` returned.
#[inline]
pub unsafe fn io_uring_opcode_supported(p: *const bindings::io_uring_probe, op: c_int) -> c_int {
    // SAFETY: the caller's probe, which has entries up to its last operation's.
    unsafe {
        match usize::try_from(op) {
            Ok(op) if op <= usize::from((*p).last_op) => {
                let entry = (&raw const (*p).ops).cast::<bindings::io_uring_probe_op>().add(op);
                c_int::from(u32::from((*entry).flags) & bindings::IO_URING_OP_SUPPORTED != 0)
            }
            _ => 0,
        }
    }
}

/// What the header of 2.3 takes for index -1, which is no entry at all, and later headers for "any free entry".
#[cfg(not(liburing_2_4))]
mod any_free_entry {
    use std::ffi::{c_char, c_int, c_uint};

    use libc::{mode_t, sockaddr, socklen_t};

    use crate::bindings::{self, IORING_FILE_INDEX_ALLOC, io_uring_sqe, open_how};

    /// The functions store the index plus one, and the kernel knows `IORING_FILE_INDEX_ALLOC` itself.
    fn index(file_index: c_uint) -> c_uint {
        if file_index == IORING_FILE_INDEX_ALLOC { IORING_FILE_INDEX_ALLOC - 1 } else { file_index }
    }

    macro_rules! direct {
        ( $( $(#[$doc:meta])* $name:ident( $($before:ident: $ty:ty),* ; file_index $(, $after:ident: $after_ty:ty)? ); )* ) => { $(
            $(#[$doc])*
            ///
            /// `file_index` may be `IORING_FILE_INDEX_ALLOC`, which the header of 2.3 itself takes for a plain descriptor.
            ///
            #[doc = reference!($name)]
            ///
            /// # Safety
            ///
            /// `sqe` must point to an entry that the caller may write. What the pointers lead to must stay valid until
            /// the entry's completion.
            #[inline]
            pub unsafe fn $name(
                sqe: *mut io_uring_sqe,
                $($before: $ty,)*
                file_index: c_uint,
                $($after: $after_ty,)?
            ) {
                // SAFETY: the caller's obligations are the same.
                unsafe { bindings::$name(sqe, $($before,)* index(file_index) $(, $after)?) };
            }
        )* };
    }

    direct! {
        /// Prepares `accept4(2)` into the table of registered files.
        io_uring_prep_accept_direct(
            fd: c_int, addr: *mut sockaddr, addrlen: *mut socklen_t, flags: c_int; file_index
        );
        /// Prepares `openat(2)` into the table of registered files.
        io_uring_prep_openat_direct(
            dfd: c_int, path: *const c_char, flags: c_int, mode: mode_t; file_index
        );
        /// Prepares `openat2(2)` into the table of registered files.
        io_uring_prep_openat2_direct(
            dfd: c_int, path: *const c_char, how: *mut open_how; file_index
        );
        /// Prepares `socket(2)` into the table of registered files.
        io_uring_prep_socket_direct(
            domain: c_int, r#type: c_int, protocol: c_int; file_index, flags: c_uint
        );
    }
}

#[cfg(not(liburing_2_4))]
pub use any_free_entry::{
    io_uring_prep_accept_direct, io_uring_prep_openat_direct, io_uring_prep_openat2_direct, io_uring_prep_socket_direct,
};

/// The `2` of the library's version that runs; also for 2.3, which does not have this function.
///
#[doc = reference!(io_uring_major_version)]
///
/// # Safety
///
/// None: unsafe only because the header's other functions are.
#[cfg(liburing_2_4)]
#[inline]
pub unsafe fn io_uring_major_version() -> c_int {
    library::running_version().major as c_int
}

/// The number after the point of the library's version that runs; also for 2.3, which does not have this function.
///
#[doc = reference!(io_uring_minor_version)]
///
/// # Safety
///
/// None: unsafe only because the header's other functions are.
#[cfg(liburing_2_4)]
#[inline]
pub unsafe fn io_uring_minor_version() -> c_int {
    library::running_version().minor as c_int
}

/// Whether the library that runs is *older* than `major.minor`, as in C.
///
/// The libraries of 2.4 and 2.5 say so of their own version, too.
///
#[doc = reference!(io_uring_check_version)]
///
/// # Safety
///
/// None: unsafe only because the header's other functions are.
#[cfg(liburing_2_4)]
#[inline]
pub unsafe fn io_uring_check_version(major: c_int, minor: c_int) -> bool {
    let running = library::running_version();
    (i64::from(major), i64::from(minor)) > (i64::from(running.major), i64::from(running.minor))
}

/// Sets a ring up in memory of the caller's: how many bytes of it are used, or `-errno`.
///
/// The libraries of 2.5 and 2.6 forget 64 bytes: the kernel then writes behind a buffer that is just as large as they
/// ask for. With these a buffer that is too small gets `-ENOMEM`, and the result is a whole number of pages.
///
#[doc = reference!(io_uring_queue_init_mem)]
///
/// # Safety
///
/// `ring` and `p` must be writable. `buf` must be aligned to a page, of `buf_size` bytes, and stay mapped and untouched
/// until the ring is closed.
#[cfg(liburing_2_5)]
#[inline]
pub unsafe fn io_uring_queue_init_mem(
    entries: c_uint,
    ring: *mut io_uring,
    p: *mut bindings::io_uring_params,
    buf: *mut c_void,
    buf_size: usize,
) -> c_int {
    // SAFETY: the caller's obligations are the same; the parameters are the caller's.
    unsafe {
        let needed = if library_is_of(5..=6) { memory_for(entries, &*p) } else { 0 };
        if buf_size < needed {
            return -libc::ENOMEM;
        }
        let used = bindings::io_uring_queue_init_mem(entries, ring, p, buf, buf_size);
        if used < 0 { used } else { used.max(c_int::try_from(needed).unwrap_or(c_int::MAX)) }
    }
}

/// How many bytes a ring's queues take: entries, then the kernel's counters, completions and index array.
#[cfg(liburing_2_5)]
fn memory_for(entries: c_uint, p: &bindings::io_uring_params) -> usize {
    const COUNTERS: usize = 64;
    // Larger numbers are refused by the kernel, or cut to these where that is asked for.
    const MOST: c_uint = 32768;
    // SAFETY: asks for a constant of the system.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let submissions = entries.clamp(1, MOST).next_power_of_two();
    let completions = if p.flags & bindings::IORING_SETUP_CQSIZE != 0 {
        p.cq_entries.clamp(1, 2 * MOST).next_power_of_two()
    } else {
        2 * submissions
    };
    let sqe = if p.flags & bindings::IORING_SETUP_SQE128 != 0 { 128 } else { 64 };
    let cqe = if p.flags & bindings::IORING_SETUP_CQE32 != 0 { 32 } else { 16 };
    let (submissions, completions) = (submissions as usize, completions as usize);
    let queue = COUNTERS + completions * cqe + submissions * size_of::<u32>();
    (submissions * sqe).next_multiple_of(page) + queue.next_multiple_of(page)
}

/// Prepares reads that go on, each into a buffer of the group.
///
/// The header of 2.6 forgets to ask for a buffer of the group.
///
#[doc = reference!(io_uring_prep_read_multishot)]
///
/// # Safety
///
/// `sqe` must point to an entry that the caller may write. The buffers of the group must stay valid until the last
/// completion.
#[cfg(all(liburing_2_6, not(liburing_2_7)))]
#[inline]
pub unsafe fn io_uring_prep_read_multishot(
    sqe: *mut bindings::io_uring_sqe,
    fd: c_int,
    nbytes: c_uint,
    offset: u64,
    buf_group: c_int,
) {
    // SAFETY: the caller's obligations are the same; the same entry.
    unsafe {
        bindings::io_uring_prep_read_multishot(sqe, fd, nbytes, offset, buf_group);
        (*sqe).flags |= bindings::IOSQE_BUFFER_SELECT as u8;
    }
}

/// Gives a ring queues of other sizes: 0 or `-errno`.
///
/// The libraries of 2.9 to 2.14 lose the ring's queues where the new ones cannot be mapped, and the old entries' memory
/// in any case. Here the ring keeps them then: no operation gets through, and `io_uring_queue_exit` still works.
///
#[doc = reference!(io_uring_resize_rings)]
///
/// # Safety
///
/// `ring` must point to an initialised ring that no other thread uses, and `p` to parameters. No entry and no
/// completion of before may be used afterwards.
#[cfg(liburing_2_9)]
#[inline]
pub unsafe fn io_uring_resize_rings(ring: *mut io_uring, p: *mut bindings::io_uring_params) -> c_int {
    if library_is_of(9..=14) {
        // SAFETY: the caller's obligations are the same.
        unsafe { resize(ring, p) }
    } else {
        // SAFETY: the caller's obligations are the same.
        unsafe { bindings::io_uring_resize_rings(ring, p) }
    }
}

/// # Safety
///
/// That of [`io_uring_resize_rings`].
#[cfg(liburing_2_9)]
unsafe fn resize(ring: *mut io_uring, p: *mut bindings::io_uring_params) -> c_int {
    use std::mem::{self, MaybeUninit};

    // SAFETY: the caller's ring and parameters.
    unsafe {
        if (*ring).flags & bindings::IORING_SETUP_NO_MMAP != 0 {
            return -libc::EINVAL;
        }
        // Found out before the kernel has changed anything: the queues are mapped through the descriptor.
        if (*ring).ring_fd < 0 {
            return -libc::EBADF;
        }
        // SAFETY: integers, for which zero is a value.
        (*p).sq_off = mem::zeroed();
        (*p).cq_off = mem::zeroed();
        let mut result = register(ring, bindings::IORING_REGISTER_RESIZE_RINGS, p.cast(), 1);
        if result >= 0 {
            let mut resized = MaybeUninit::<io_uring>::zeroed();
            result = bindings::io_uring_queue_mmap((*ring).ring_fd, p, resized.as_mut_ptr());
            if result == 0 {
                let mut resized = resized.assume_init();
                unmap_queues(ring);
                resized.sq.sqe_head = (*ring).sq.sqe_head;
                resized.sq.sqe_tail = (*ring).sq.sqe_tail;
                if (*p).flags & bindings::IORING_SETUP_NO_SQARRAY == 0 {
                    for index in 0..(*p).sq_entries {
                        resized.sq.array.add(index as usize).write(index);
                    }
                }
                (*ring).sq = resized.sq;
                (*ring).cq = resized.cq;
            }
        }
        (*p).flags = 0;
        result
    }
}

/// # Safety
///
/// `ring` must point to an initialised ring whose queues are mapped, and are not used afterwards.
#[cfg(liburing_2_9)]
unsafe fn unmap_queues(ring: *mut io_uring) {
    // SAFETY: the caller's ring, whose queues were mapped in these sizes.
    unsafe {
        let (sq, cq) = (&(*ring).sq, &(*ring).cq);
        let entry = if (*ring).flags & bindings::IORING_SETUP_SQE128 != 0 { 128 } else { 64 };
        libc::munmap(sq.sqes.cast(), entry * sq.ring_entries as usize);
        libc::munmap(sq.ring_ptr, sq.ring_sz);
        if !cq.ring_ptr.is_null() && cq.ring_ptr != sq.ring_ptr {
            libc::munmap(cq.ring_ptr, cq.ring_sz);
        }
    }
}

/// Submits, and waits as the registered argument `reg_index` says: how many were submitted, or `-errno`.
///
/// The libraries of 2.9 to 2.14 read address 0 when the time is over. With these the submission is a system call of its
/// own, and waiting counts as input and output (`io_uring_set_iowait`).
///
#[doc = reference!(io_uring_submit_and_wait_reg)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose queues no other thread uses, and `cqe_ptr` must be writable. The entry
/// is valid until it is given back.
#[cfg(liburing_2_9)]
#[inline]
pub unsafe fn io_uring_submit_and_wait_reg(
    ring: *mut io_uring,
    cqe_ptr: *mut *mut io_uring_cqe,
    wait_nr: c_uint,
    reg_index: c_int,
) -> c_int {
    if library_is_of(9..=14) {
        // SAFETY: the caller's obligations are the same.
        unsafe { submit_then_wait_reg(ring, cqe_ptr, wait_nr, reg_index) }
    } else {
        // SAFETY: the caller's obligations are the same.
        unsafe { bindings::io_uring_submit_and_wait_reg(ring, cqe_ptr, wait_nr, reg_index) }
    }
}

/// # Safety
///
/// That of [`io_uring_submit_and_wait_reg`].
#[cfg(liburing_2_9)]
unsafe fn submit_then_wait_reg(
    ring: *mut io_uring,
    cqe_ptr: *mut *mut io_uring_cqe,
    wait_nr: c_uint,
    reg_index: c_int,
) -> c_int {
    use crate::inline::{__io_uring_peek_cqe, io_uring_sq_ready};

    const SIZE: usize = size_of::<bindings::io_uring_reg_wait>();

    // SAFETY: the caller's ring and place. The kernel takes the last pointer for an offset into its registered region.
    unsafe {
        *cqe_ptr = ptr::null_mut();
        if (*ring).features & IORING_FEAT_EXT_ARG == 0 {
            return -libc::EINVAL;
        }
        let ready = io_uring_sq_ready(ring);
        let submitted = if ready == 0 { 0 } else { bindings::io_uring_submit(ring) };
        if submitted < 0 || (submitted as c_uint) < ready {
            __io_uring_peek_cqe(ring, cqe_ptr, ptr::null_mut());
            return submitted;
        }
        let mut flags =
            bindings::IORING_ENTER_GETEVENTS | bindings::IORING_ENTER_EXT_ARG | bindings::IORING_ENTER_EXT_ARG_REG;
        let descriptor = c_uint::try_from((*ring).ring_fd).unwrap_or_else(|_| {
            flags |= bindings::IORING_ENTER_REGISTERED_RING;
            (*ring).enter_ring_fd as c_uint
        });
        let offset = ptr::without_provenance_mut((reg_index as usize).wrapping_mul(SIZE));
        let mut waited = false;
        loop {
            let mut available = 0;
            let error = __io_uring_peek_cqe(ring, cqe_ptr, &mut available);
            if error != 0 {
                return error;
            }
            if available >= wait_nr && !(*cqe_ptr).is_null() {
                return submitted;
            }
            if waited || (submitted > 0 && wait_nr == 0) {
                let none = if wait_nr == 0 { -libc::EAGAIN } else { -libc::ETIME };
                return if !(*cqe_ptr).is_null() || submitted > 0 { submitted } else { none };
            }
            let result = bindings::io_uring_enter2(descriptor, 0, wait_nr, flags, offset, SIZE);
            if result < 0 {
                // As where one call does both: what was submitted hides the error.
                return if submitted > 0 { submitted } else { result };
            }
            waited = true;
        }
    }
}

/// Fills `cqes` with completions that wait in the queue, without giving them back: how many, at most `count`.
///
/// The libraries before 2.15 do not know entries of two sizes in one queue (`IORING_SETUP_CQE_MIXED`).
///
#[doc = reference!(io_uring_peek_batch_cqe)]
///
/// # Safety
///
/// `ring` must point to an initialised ring whose completion queue no other thread uses, and `cqes` to `count` places.
/// The entries are valid until they are given back.
#[cfg(liburing_2_13)]
#[inline]
pub unsafe fn io_uring_peek_batch_cqe(ring: *mut io_uring, cqes: *mut *mut io_uring_cqe, count: c_uint) -> c_uint {
    // SAFETY: the caller's obligations are the same.
    unsafe {
        if (*ring).flags & bindings::IORING_SETUP_CQE_MIXED == 0 || library_is_of(15..=u32::MAX) {
            return bindings::io_uring_peek_batch_cqe(ring, cqes, count);
        }
        let taken = take_mixed(ring, cqes, count);
        let due = bindings::IORING_SQ_CQ_OVERFLOW | bindings::IORING_SQ_TASKRUN;
        if taken > 0 || crate::inline::submission_flags(ring) & due == 0 {
            return taken;
        }
        bindings::io_uring_get_events(ring);
        take_mixed(ring, cqes, count)
    }
}

/// # Safety
///
/// That of [`io_uring_peek_batch_cqe`].
#[cfg(liburing_2_13)]
unsafe fn take_mixed(ring: *mut io_uring, cqes: *mut *mut io_uring_cqe, count: c_uint) -> c_uint {
    let mut taken = 0;
    // SAFETY: the caller's ring; at most `count` places are written.
    unsafe {
        for cqe in crate::macros::io_uring_for_each_cqe(ring) {
            if (*cqe).flags & bindings::IORING_CQE_F_SKIP != 0 {
                // Filling at the end of the queue, which can be given back only when it is first.
                if taken > 0 {
                    break;
                }
                crate::inline::io_uring_cqe_seen(ring, cqe);
                continue;
            }
            if taken == count {
                break;
            }
            cqes.add(taken as usize).write(cqe);
            taken += 1;
        }
    }
    taken
}
