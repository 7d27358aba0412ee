//! A program that is linked to liburing.a, of which the dynamic loader knows nothing.

use std::error::Error;
use std::mem::MaybeUninit;

use liburing_sys as sys;

#[link(name = "uring", kind = "static")]
unsafe extern "C" {}

fn main() -> Result<(), Box<dyn Error>> {
    sys::load()?;
    assert_eq!(sys::library_version(), Some(sys::HEADER_VERSION));
    assert_eq!(sys::library_path(), Some(std::env::current_exe()?));
    assert!(sys::has("io_uring_submit") && !sys::has("io_uring_none"));
    sys::require("io_uring_submit")?;
    let mut ring = MaybeUninit::<sys::io_uring>::zeroed();
    // SAFETY: the ring stays in its place until queue_exit, on one thread, and the entry names no memory.
    unsafe {
        assert_eq!(sys::io_uring_queue_init(8, ring.as_mut_ptr(), 0), 0);
        sys::io_uring_prep_nop(sys::io_uring_get_sqe(ring.as_mut_ptr()));
        assert_eq!(sys::io_uring_submit_and_wait(ring.as_mut_ptr(), 1), 1);
        assert_eq!(sys::io_uring_cq_ready(ring.as_ptr()), 1);
        sys::io_uring_queue_exit(ring.as_mut_ptr());
    }
    Ok(())
}
