//! What liburing-sys has in Rust under the name of one of C's functions, exported for C as `NAME__ported`.
//!
//! `../run` fails where a function is forgotten: one line for each, with C's types.

use std::ffi::{c_char, c_int, c_uint, c_ushort, c_void};

use libc::{iovec, mode_t, msghdr, sigset_t, sockaddr, socklen_t};
use liburing_sys::{
    __kernel_timespec, io_uring, io_uring_buf_ring, io_uring_cqe, io_uring_probe, io_uring_recvmsg_out,
    io_uring_restriction, io_uring_sqe, open_how,
};

/// The functions under test: those of liburing-sys, but for one mistake that `../run` builds in to see it noticed.
mod functions {
    #[allow(clippy::wildcard_imports, reason = "what is defined here wins over the same name there")]
    pub use liburing_sys::*;

    /// Asks for a byte less.
    #[cfg(sysuring_break = "suite_prep_read")]
    pub unsafe fn io_uring_prep_read(
        sqe: *mut io_uring_sqe,
        fd: i32,
        buf: *mut super::c_void,
        nbytes: u32,
        offset: u64,
    ) {
        // SAFETY: none: a mistake.
        unsafe { liburing_sys::io_uring_prep_read(sqe, fd, buf, nbytes.saturating_sub(1), offset) };
    }

    /// Leaves an entry out, which the kernel takes for an operation.
    #[cfg(sysuring_break = "suite_get_sqe")]
    pub unsafe fn io_uring_get_sqe(ring: *mut io_uring) -> *mut io_uring_sqe {
        // SAFETY: the caller's ring.
        unsafe {
            liburing_sys::io_uring_get_sqe(ring);
            liburing_sys::io_uring_get_sqe(ring)
        }
    }

    /// Gives nothing back.
    #[cfg(sysuring_break = "suite_cqe_seen")]
    pub unsafe fn io_uring_cqe_seen(_ring: *mut io_uring, _cqe: *mut io_uring_cqe) {}
}

macro_rules! ported {
    ( $( $(#[$attribute:meta])* $name:ident( $($arg:ident: $ty:ty),* $(,)? ) $(-> $ret:ty)?; )* ) => { $(
        $(#[$attribute])*
        const _: () = {
            #[unsafe(export_name = concat!(stringify!($name), "__ported"))]
            unsafe extern "C" fn exported( $($arg: $ty),* ) $(-> $ret)? {
                // SAFETY: the caller owes what C's function asks for.
                unsafe { functions::$name( $($arg),* ) }
            }
        };
    )* };
}

// Per operation: `inline.rs`.
ported! {
    __io_uring_peek_cqe(ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe, nr_available: *mut c_uint) -> c_int;
    io_uring_buf_ring_add(
        br: *mut io_uring_buf_ring, addr: *mut c_void, len: c_uint, bid: c_ushort, mask: c_int, buf_offset: c_int
    );
    io_uring_buf_ring_advance(br: *mut io_uring_buf_ring, count: c_int);
    io_uring_buf_ring_cq_advance(ring: *mut io_uring, br: *mut io_uring_buf_ring, count: c_int);
    io_uring_buf_ring_init(br: *mut io_uring_buf_ring);
    io_uring_buf_ring_mask(ring_entries: u32) -> c_int;
    io_uring_cq_advance(ring: *mut io_uring, nr: c_uint);
    io_uring_cq_has_overflow(ring: *const io_uring) -> bool;
    io_uring_cq_ready(ring: *const io_uring) -> c_uint;
    io_uring_cqe_get_data(cqe: *const io_uring_cqe) -> *mut c_void;
    io_uring_cqe_get_data64(cqe: *const io_uring_cqe) -> u64;
    io_uring_cqe_seen(ring: *mut io_uring, cqe: *mut io_uring_cqe);
    io_uring_get_sqe(ring: *mut io_uring) -> *mut io_uring_sqe;
    io_uring_peek_cqe(ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe) -> c_int;
    io_uring_prep_cancel64(sqe: *mut io_uring_sqe, user_data: u64, flags: c_int);
    io_uring_prep_close(sqe: *mut io_uring_sqe, fd: c_int);
    // off_t in the header of 2.3, which is passed alike.
    io_uring_prep_fallocate(sqe: *mut io_uring_sqe, fd: c_int, mode: c_int, offset: u64, len: u64);
    io_uring_prep_fsync(sqe: *mut io_uring_sqe, fd: c_int, fsync_flags: c_uint);
    io_uring_prep_nop(sqe: *mut io_uring_sqe);
    io_uring_prep_poll_add(sqe: *mut io_uring_sqe, fd: c_int, poll_mask: c_uint);
    io_uring_prep_read(sqe: *mut io_uring_sqe, fd: c_int, buf: *mut c_void, nbytes: c_uint, offset: u64);
    io_uring_prep_read_fixed(
        sqe: *mut io_uring_sqe, fd: c_int, buf: *mut c_void, nbytes: c_uint, offset: u64, buf_index: c_int
    );
    io_uring_prep_readv(sqe: *mut io_uring_sqe, fd: c_int, iovecs: *const iovec, nr_vecs: c_uint, offset: u64);
    io_uring_prep_recv(sqe: *mut io_uring_sqe, sockfd: c_int, buf: *mut c_void, len: usize, flags: c_int);
    io_uring_prep_rw(
        op: c_int, sqe: *mut io_uring_sqe, fd: c_int, addr: *const c_void, len: c_uint, offset: u64
    );
    io_uring_prep_send(sqe: *mut io_uring_sqe, sockfd: c_int, buf: *const c_void, len: usize, flags: c_int);
    io_uring_prep_uring_cmd(sqe: *mut io_uring_sqe, cmd_op: c_int, fd: c_int);
    io_uring_prep_write(sqe: *mut io_uring_sqe, fd: c_int, buf: *const c_void, nbytes: c_uint, offset: u64);
    io_uring_prep_write_fixed(
        sqe: *mut io_uring_sqe, fd: c_int, buf: *const c_void, nbytes: c_uint, offset: u64, buf_index: c_int
    );
    io_uring_prep_writev(sqe: *mut io_uring_sqe, fd: c_int, iovecs: *const iovec, nr_vecs: c_uint, offset: u64);
    io_uring_sq_ready(ring: *const io_uring) -> c_uint;
    io_uring_sq_space_left(ring: *const io_uring) -> c_uint;
    io_uring_sqe_set_data(sqe: *mut io_uring_sqe, data: *mut c_void);
    io_uring_sqe_set_data64(sqe: *mut io_uring_sqe, data: u64);
    io_uring_sqe_set_flags(sqe: *mut io_uring_sqe, flags: c_uint);
    io_uring_wait_cqe(ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe) -> c_int;
    io_uring_wait_cqe_nr(ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe, wait_nr: c_uint) -> c_int;
    __io_uring_buf_ring_cq_advance(
        ring: *mut io_uring, br: *mut io_uring_buf_ring, cq_count: c_int, buf_count: c_int
    );
}

// Macros of older headers: `macros.rs`.
ported! {
    io_uring_cqe_nr(cqe: *const io_uring_cqe) -> c_uint;
    io_uring_cqe_shift(ring: *const io_uring) -> c_uint;
}

// Wrong in some version, and inline: `quirks.rs`. With the other versions these are C's own.
ported! {
    io_uring_opcode_supported(p: *const io_uring_probe, op: c_int) -> c_int;
    io_uring_prep_accept_direct(
        sqe: *mut io_uring_sqe,
        fd: c_int, addr: *mut sockaddr, addrlen: *mut socklen_t, flags: c_int, file_index: c_uint
    );
    io_uring_prep_openat_direct(
        sqe: *mut io_uring_sqe, dfd: c_int, path: *const c_char, flags: c_int, mode: mode_t, file_index: c_uint
    );
    io_uring_prep_openat2_direct(
        sqe: *mut io_uring_sqe, dfd: c_int, path: *const c_char, how: *mut open_how, file_index: c_uint
    );
    #[cfg(liburing_2_6)]
    io_uring_prep_read_multishot(
        sqe: *mut io_uring_sqe, fd: c_int, nbytes: c_uint, offset: u64, buf_group: c_int
    );
    io_uring_prep_socket_direct(
        sqe: *mut io_uring_sqe, domain: c_int, kind: c_int, protocol: c_int, file_index: c_uint, flags: c_uint
    );
    io_uring_recvmsg_payload_length(o: *mut io_uring_recvmsg_out, buf_len: c_int, msgh: *mut msghdr) -> c_uint;
    io_uring_recvmsg_validate(buf: *mut c_void, buf_len: c_int, msgh: *mut msghdr) -> *mut io_uring_recvmsg_out;
}

// The same for functions that the library exports.
ported! {
    __io_uring_get_cqe(
        ring: *mut io_uring,
        cqe_ptr: *mut *mut io_uring_cqe, submit: c_uint, wait_nr: c_uint, sigmask: *mut sigset_t
    ) -> c_int;
    #[cfg(liburing_2_4)]
    io_uring_check_version(major: c_int, minor: c_int) -> bool;
    io_uring_enable_rings(ring: *mut io_uring) -> c_int;
    #[cfg(liburing_2_4)]
    io_uring_major_version() -> c_int;
    #[cfg(liburing_2_4)]
    io_uring_minor_version() -> c_int;
    io_uring_peek_batch_cqe(ring: *mut io_uring, cqes: *mut *mut io_uring_cqe, count: c_uint) -> c_uint;
    #[cfg(liburing_2_5)]
    io_uring_queue_init_mem(
        entries: c_uint,
        ring: *mut io_uring, p: *mut liburing_sys::io_uring_params, buf: *mut c_void, buf_size: usize
    ) -> c_int;
    io_uring_register_restrictions(ring: *mut io_uring, res: *mut io_uring_restriction, nr_res: c_uint) -> c_int;
    io_uring_register_ring_fd(ring: *mut io_uring) -> c_int;
    #[cfg(liburing_2_9)]
    io_uring_resize_rings(ring: *mut io_uring, p: *mut liburing_sys::io_uring_params) -> c_int;
    #[cfg(liburing_2_8)]
    io_uring_submit_and_wait_min_timeout(
        ring: *mut io_uring,
        cqe_ptr: *mut *mut io_uring_cqe,
        wait_nr: c_uint, ts: *mut __kernel_timespec, min_wait: c_uint, sigmask: *mut sigset_t
    ) -> c_int;
    #[cfg(liburing_2_9)]
    io_uring_submit_and_wait_reg(
        ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe, wait_nr: c_uint, reg_index: c_int
    ) -> c_int;
    io_uring_submit_and_wait_timeout(
        ring: *mut io_uring,
        cqe_ptr: *mut *mut io_uring_cqe, wait_nr: c_uint, ts: *mut __kernel_timespec, sigmask: *mut sigset_t
    ) -> c_int;
    io_uring_wait_cqe_timeout(
        ring: *mut io_uring, cqe_ptr: *mut *mut io_uring_cqe, ts: *mut __kernel_timespec
    ) -> c_int;
    io_uring_wait_cqes(
        ring: *mut io_uring,
        cqe_ptr: *mut *mut io_uring_cqe, wait_nr: c_uint, ts: *mut __kernel_timespec, sigmask: *mut sigset_t
    ) -> c_int;
    #[cfg(liburing_2_8)]
    io_uring_wait_cqes_min_timeout(
        ring: *mut io_uring,
        cqe_ptr: *mut *mut io_uring_cqe,
        wait_nr: c_uint, ts: *mut __kernel_timespec, min_ts_usec: c_uint, sigmask: *mut sigset_t
    ) -> c_int;
}
