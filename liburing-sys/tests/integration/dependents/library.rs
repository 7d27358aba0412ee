//! A C library in Rust that has a ring inside: what it exports must be this function and nothing else.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use liburing_sys as sys;

/// Sends an operation through a ring and back; 0, or `-errno`.
#[unsafe(no_mangle)]
pub extern "C" fn round_trip() -> c_int {
    if sys::load().is_err() {
        return -libc::ENOSYS;
    }
    let mut ring = MaybeUninit::<sys::io_uring>::zeroed();
    let ring = ring.as_mut_ptr();
    let mut cqe = ptr::null_mut();
    // SAFETY: the ring stays in its place until queue_exit, on one thread, and its entry names no memory.
    unsafe {
        let error = sys::io_uring_queue_init(4, ring, 0);
        if error < 0 {
            return error;
        }
        let sqe = sys::io_uring_get_sqe(ring);
        // Compiled functions, of which the second and third call the library from C.
        sys::io_uring_prep_madvise(sqe, ptr::null_mut(), 0, 0);
        sys::io_uring_prep_nop(sqe);
        sys::io_uring_sqring_wait(ring);
        sys::io_uring_submit(ring);
        let error = sys::shims::io_uring_wait_cqe(ring, &mut cqe);
        sys::io_uring_cqe_seen(ring, cqe);
        sys::io_uring_queue_exit(ring);
        error
    }
}
