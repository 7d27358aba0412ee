//! A program with another wrapper of liburing.h in it, whose functions have the header's names.

use std::error::Error;
use std::mem::MaybeUninit;
use std::ptr;

use liburing_sys as sys;

mod plain {
    use super::sys;

    #[link(name = "plain", kind = "static")]
    unsafe extern "C" {
        pub fn io_uring_get_sqe(ring: *mut sys::io_uring) -> *mut sys::io_uring_sqe;
        pub fn io_uring_prep_nop(sqe: *mut sys::io_uring_sqe);
        pub fn io_uring_prep_madvise(sqe: *mut sys::io_uring_sqe, addr: *mut libc::c_void, length: u32, advice: i32);
        pub fn io_uring_sqe_set_data64(sqe: *mut sys::io_uring_sqe, data: u64);
        pub fn io_uring_cqe_seen(ring: *mut sys::io_uring, cqe: *mut sys::io_uring_cqe);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    sys::load()?;
    assert_ne!(plain::io_uring_prep_nop as usize, sys::shims::io_uring_prep_nop as usize);
    assert_ne!(plain::io_uring_prep_madvise as usize, sys::io_uring_prep_madvise as usize);
    let mut ring = MaybeUninit::<sys::io_uring>::zeroed();
    let ring = ring.as_mut_ptr();
    let mut cqe = ptr::null_mut();
    // SAFETY: the ring stays in its place until queue_exit, on one thread, and no entry names memory.
    unsafe {
        assert_eq!(sys::io_uring_queue_init(8, ring, 0), 0);
        for round in 0..100 {
            let sqe = sys::io_uring_get_sqe(ring);
            plain::io_uring_prep_madvise(sqe, ptr::null_mut(), 0, 0);
            sys::shims::io_uring_prep_nop(sqe);
            sys::io_uring_sqe_set_data64(sqe, round);
            let sqe = plain::io_uring_get_sqe(ring);
            sys::io_uring_prep_madvise(sqe, ptr::null_mut(), 0, 0);
            plain::io_uring_prep_nop(sqe);
            plain::io_uring_sqe_set_data64(sqe, !round);
            assert_eq!(sys::io_uring_submit(ring), 2);
            assert_eq!(sys::shims::io_uring_wait_cqe(ring, &mut cqe), 0);
            assert_eq!(sys::io_uring_cqe_get_data64(cqe), round);
            plain::io_uring_cqe_seen(ring, cqe);
            assert_eq!(sys::io_uring_wait_cqe(ring, &mut cqe), 0);
            assert_eq!(sys::io_uring_cqe_get_data64(cqe), !round);
            sys::io_uring_cqe_seen(ring, cqe);
        }
        sys::io_uring_queue_exit(ring);
    }
    Ok(())
}
