//! A program with liburing.a in it that loads liburing.so.2 besides: each ring goes through the copy that made it.

use std::error::Error;
use std::ffi::{CStr, c_int, c_uint};
use std::mem::{self, MaybeUninit};
use std::ptr;

use liburing_sys as sys;

mod own {
    use super::{c_int, c_uint, sys};

    #[link(name = "uring", kind = "static")]
    unsafe extern "C" {
        pub fn io_uring_queue_init(entries: c_uint, ring: *mut sys::io_uring, flags: c_uint) -> c_int;
        pub fn io_uring_queue_exit(ring: *mut sys::io_uring);
        pub fn io_uring_submit(ring: *mut sys::io_uring) -> c_int;
        pub fn __io_uring_get_cqe(
            ring: *mut sys::io_uring,
            cqe_ptr: *mut *mut sys::io_uring_cqe,
            submit: c_uint,
            wait_nr: c_uint,
            sigmask: *mut libc::sigset_t,
        ) -> c_int;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    sys::load()?;
    let program = std::env::current_exe()?;
    let library = sys::library_path().ok_or("no path of the library")?;
    // SAFETY: four words and pointers, for which zero is a value; the address is only looked up.
    let copy = unsafe {
        let mut info: libc::Dl_info = mem::zeroed();
        assert_ne!(libc::dladdr(own::io_uring_submit as *const _, &mut info), 0);
        CStr::from_ptr(info.dli_fname).to_string_lossy().into_owned()
    };
    let copy = std::fs::canonicalize(copy)?;
    assert_eq!(copy, std::fs::canonicalize(program)?, "the archive is not in the program");
    assert_ne!(copy, std::fs::canonicalize(library)?);

    let mut rings = [MaybeUninit::<sys::io_uring>::zeroed(), MaybeUninit::zeroed()];
    let [loaded, linked] = rings.each_mut().map(MaybeUninit::as_mut_ptr);
    let mut cqe = ptr::null_mut();
    // SAFETY: the rings stay in their places until queue_exit, on one thread, and no entry names memory.
    unsafe {
        assert_eq!(sys::io_uring_queue_init(8, loaded, 0), 0);
        assert_eq!(own::io_uring_queue_init(8, linked, 0), 0);
        for round in 0..100 {
            for (ring, user_data) in [(loaded, round), (linked, !round)] {
                let sqe = sys::io_uring_get_sqe(ring);
                sys::io_uring_prep_nop(sqe);
                sys::io_uring_sqe_set_data64(sqe, user_data);
            }
            assert_eq!(own::io_uring_submit(linked), 1);
            assert_eq!(sys::io_uring_submit(loaded), 1);
            assert_eq!(sys::io_uring_wait_cqe(loaded, &mut cqe), 0);
            assert_eq!(sys::io_uring_cqe_get_data64(cqe), round);
            sys::io_uring_cqe_seen(loaded, cqe);
            assert_eq!(own::__io_uring_get_cqe(linked, &mut cqe, 0, 1, ptr::null_mut()), 0);
            assert_eq!(sys::io_uring_cqe_get_data64(cqe), !round);
            sys::io_uring_cqe_seen(linked, cqe);
        }
        sys::io_uring_queue_exit(loaded);
        own::io_uring_queue_exit(linked);
    }
    Ok(())
}
