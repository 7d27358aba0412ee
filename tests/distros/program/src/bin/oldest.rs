//! Has nothing done by what liburing 2.0 has, and waits for room in the ring as C programs do.
//!
//! With a library of 2.2 it would start and never end, if nobody refused that: it uses no function that 2.2 lacks.

use std::mem;
use std::ptr;

use liburing_sys as sys;

fn main() {
    // SAFETY: integers and pointers, for which zero is a value.
    let mut ring: sys::io_uring = unsafe { mem::zeroed() };
    // SAFETY: the ring keeps its place until queue_exit, and a nop names no memory.
    unsafe {
        let result = sys::io_uring_queue_init(8, &mut ring, 0);
        if result < 0 {
            println!("skipped: io_uring_setup is refused here: error {}", -result);
            return;
        }
        let sqe = loop {
            let sqe = sys::io_uring_get_sqe(&mut ring);
            if !sqe.is_null() {
                break sqe;
            }
            sys::io_uring_submit(&mut ring);
        };
        sys::io_uring_prep_nop(sqe);
        assert_eq!(sys::io_uring_submit(&mut ring), 1);
        let mut cqe = ptr::null_mut();
        assert_eq!(sys::io_uring_wait_cqe(&mut ring, &mut cqe), 0);
        sys::io_uring_cqe_seen(&mut ring, cqe);
        sys::io_uring_queue_exit(&mut ring);
    }
    println!("passed");
}
