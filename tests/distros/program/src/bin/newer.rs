//! Calls every function that is newer than 2.3 and that the header declares.
//!
//! What the library has works; of what it lacks, a call panics in Rust and says why, and nothing else happens.

#![cfg_attr(not(liburing_2_4), allow(unused, reason = "the header has nothing newer"))]

use std::mem;
use std::panic::{self, UnwindSafe};
use std::ptr;

use liburing_sys as sys;
use sysuring_versions::{Ring, assert_says, check, load, tell_library};

fn main() {
    load();
    drop(Ring::new(8));
    tell_library();
    let functions = functions();
    println!("{} functions newer than 2.3 in the header", functions.len());
    // What is said of a panic is looked at, not shown.
    panic::set_hook(Box::new(|_| {}));
    let results: Vec<_> =
        functions.into_iter().map(|function| (function.name, panic::catch_unwind(function.call))).collect();
    let _ = panic::take_hook();
    let mut missing = 0;
    for (name, result) in results {
        let text = match result {
            Ok(()) if sys::has(name) => continue,
            Ok(()) => {
                assert_eq!(sys::require(name), Ok(()));
                println!("{name} is missing, and written in Rust");
                continue;
            }
            Err(payload) => match payload.downcast::<String>() {
                Ok(text) => *text,
                Err(payload) => panic::resume_unwind(payload),
            },
        };
        missing += 1;
        println!("{name} is missing: {text}");
        assert!(!sys::has(name), "{text}");
        assert_eq!(sys::require(name).map_err(|error| error.to_string()), Err(text.clone()));
        assert_says(&text, name);
    }
    missing_in_c();
    println!("{missing} missing");
    println!("passed");
}

/// A function of the library, and a use of it.
struct Function {
    name: &'static str,
    call: Box<dyn FnOnce() + UnwindSafe>,
}

fn function(name: &'static str, call: impl FnOnce() + UnwindSafe + 'static) -> Function {
    Function { name, call: Box::new(call) }
}

/// An inline function, compiled by C, that calls one of the library's: no panic can pass through it.
fn missing_in_c() {
    #[cfg(liburing_2_6)]
    if !sys::has("io_uring_buf_ring_head") {
        let mut ring = Ring::new(8);
        // SAFETY: integers, for which zero is a value.
        let mut buffers: sys::io_uring_buf_ring = unsafe { mem::zeroed() };
        // SAFETY: the library would only ask the kernel, which knows no such group of buffers.
        let result = unsafe { sys::io_uring_buf_ring_available(ring.as_ptr(), &mut buffers, 1) };
        assert_eq!(result, -libc::ENOSYS);
        println!("without io_uring_buf_ring_head, io_uring_buf_ring_available returns -ENOSYS");
    }
}

/// Whether the kernel did it. An older one says that it cannot.
#[cfg(liburing_2_4)]
#[track_caller]
fn done(result: i32) -> bool {
    const CANNOT: [i32; 4] = [libc::EINVAL, libc::EOPNOTSUPP, libc::EPERM, libc::ENOSYS];
    match check(result) {
        Ok(_) => true,
        Err(error) if CANNOT.contains(&error.raw_os_error().unwrap_or(0)) => false,
        Err(error) => panic!("{error}"),
    }
}

/// What the kernel says to a request without an address, or that it does not know.
#[cfg(liburing_2_4)]
#[track_caller]
fn refused(result: i32) {
    assert!(result < 0, "{result}");
}

fn functions() -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    #[cfg(liburing_2_4)]
    functions.extend(of_2_4());
    #[cfg(liburing_2_5)]
    functions.extend(of_2_5());
    #[cfg(liburing_2_6)]
    functions.extend(of_2_6());
    #[cfg(liburing_2_8)]
    functions.extend(of_2_8());
    #[cfg(liburing_2_9)]
    functions.extend(of_2_9());
    #[cfg(liburing_2_10)]
    functions.extend(of_2_10());
    #[cfg(liburing_2_11)]
    functions.extend(of_2_11());
    #[cfg(liburing_2_12)]
    functions.extend(of_2_12());
    #[cfg(liburing_2_15)]
    functions.extend(of_2_15());
    functions
}

#[cfg(liburing_2_4)]
fn of_2_4() -> Vec<Function> {
    vec![
        function("io_uring_major_version", || {
            // SAFETY: no arguments.
            assert_eq!(unsafe { sys::io_uring_major_version() }, 2);
        }),
        function("io_uring_minor_version", || {
            // SAFETY: no arguments.
            let minor = unsafe { sys::io_uring_minor_version() };
            assert_eq!(Some(minor as u32), sys::library_version().map(|version| version.minor));
        }),
        function("io_uring_check_version", || {
            // SAFETY: two numbers. It says whether the library is older.
            unsafe {
                assert!(!sys::io_uring_check_version(2, 3));
                assert!(sys::io_uring_check_version(2, 99));
            }
        }),
        function("io_uring_close_ring_fd", || {
            let mut ring = Ring::new(8);
            // SAFETY: an initialised ring, whose descriptor nobody else uses.
            let closed = unsafe {
                done(sys::io_uring_register_ring_fd(ring.as_ptr())) && done(sys::io_uring_close_ring_fd(ring.as_ptr()))
            };
            if closed {
                ring.assert_works(10);
            } else {
                // SAFETY: as above; an error where nothing is registered.
                unsafe { refused(sys::io_uring_close_ring_fd(ring.as_ptr())) };
            }
        }),
        function("io_uring_setup_buf_ring", || with_buffers(|_, _| ())),
        function("io_uring_free_buf_ring", || {
            if sys::has("io_uring_free_buf_ring") {
                with_buffers(|_, _| ());
            } else {
                // SAFETY: there is no such function to be called.
                unsafe { sys::io_uring_free_buf_ring(ptr::null_mut(), ptr::null_mut(), 0, 0) };
            }
        }),
        function("io_uring_enable_rings", || {
            let mut ring = Ring::with_flags(8, sys::IORING_SETUP_R_DISABLED).expect("a ring that is not started");
            // SAFETY: an initialised ring.
            assert_eq!(unsafe { sys::io_uring_enable_rings(ring.as_ptr()) }, 0);
            ring.assert_works(1);
        }),
        function("io_uring_register_restrictions", || {
            let mut ring = Ring::new(8);
            // SAFETY: an initialised ring, which has been started and takes no restrictions.
            let result = unsafe { sys::io_uring_register_restrictions(ring.as_ptr(), ptr::null_mut(), 0) };
            assert_eq!(result, -libc::EBADFD);
        }),
    ]
}

/// Runs `body` with a group of four buffers' places, group 3, where the kernel can.
#[cfg(liburing_2_4)]
fn with_buffers(body: impl FnOnce(&mut Ring, *mut sys::io_uring_buf_ring)) {
    let mut ring = Ring::new(8);
    let mut error = 0;
    // SAFETY: an initialised ring.
    let buffers = unsafe { sys::io_uring_setup_buf_ring(ring.as_ptr(), 4, 3, 0, &mut error) };
    if buffers.is_null() {
        assert!(!done(error));
        return;
    }
    body(&mut ring, buffers);
    // SAFETY: set up above, and used no more.
    assert_eq!(unsafe { sys::io_uring_free_buf_ring(ring.as_ptr(), buffers, 4, 3) }, 0);
}

#[cfg(liburing_2_5)]
fn of_2_5() -> Vec<Function> {
    vec![function("io_uring_queue_init_mem", || {
        /// The kernel wants whole pages for the queues.
        #[repr(C, align(4096))]
        #[derive(Clone, Copy)]
        struct Page([u8; 4096]);
        let mut memory = vec![Page([0; 4096]); 512];
        let size = size_of_val(&memory[..]);
        // SAFETY: integers and pointers, for which zero is a value.
        let (mut ring, mut params): (Box<sys::io_uring>, sys::io_uring_params) =
            unsafe { (Box::new(mem::zeroed()), mem::zeroed()) };
        // SAFETY: the memory outlives the ring.
        let result =
            unsafe { sys::io_uring_queue_init_mem(8, &mut *ring, &mut params, memory.as_mut_ptr().cast(), size) };
        if done(result) {
            assert!((1..size as i32).contains(&result), "{result}");
            // SAFETY: just initialised.
            unsafe { Ring::from_initialised(ring) }.assert_works(20);
        }
    })]
}

#[cfg(liburing_2_6)]
fn of_2_6() -> Vec<Function> {
    vec![
        function("io_uring_buf_ring_head", || {
            if sys::has("io_uring_setup_buf_ring") {
                with_buffers(|ring, buffers| {
                    let mut head = u16::MAX;
                    // SAFETY: an initialised ring with such a group.
                    unsafe {
                        if done(sys::io_uring_buf_ring_head(ring.as_ptr(), 3, &mut head)) {
                            assert_eq!(head, 0);
                            assert_eq!(sys::io_uring_buf_ring_available(ring.as_ptr(), buffers, 3), 0);
                        }
                    }
                });
            } else {
                // SAFETY: there is no such function to be called.
                unsafe { sys::io_uring_buf_ring_head(ptr::null_mut(), 0, ptr::null_mut()) };
            }
        }),
        // SAFETY: an initialised ring; the kernel refuses the address.
        function("io_uring_register_napi", || unsafe {
            refused(sys::io_uring_register_napi(Ring::new(8).as_ptr(), ptr::dangling_mut()));
        }),
        // SAFETY: as above.
        function("io_uring_unregister_napi", || unsafe {
            let result = sys::io_uring_unregister_napi(Ring::new(8).as_ptr(), ptr::dangling_mut());
            refused(result);
        }),
    ]
}

#[cfg(liburing_2_8)]
fn of_2_8() -> Vec<Function> {
    vec![
        function("io_uring_register_clock", || {
            // SAFETY: integers, for which zero is a value.
            let mut clock: sys::io_uring_clock_register = unsafe { mem::zeroed() };
            clock.clockid = libc::CLOCK_MONOTONIC as u32;
            // SAFETY: an initialised ring.
            done(unsafe { sys::io_uring_register_clock(Ring::new(8).as_ptr(), &mut clock) });
        }),
        function("io_uring_submit_and_wait_min_timeout", || {
            let (mut ring, mut cqe) = (Ring::new(8), ptr::null_mut());
            let mut time = sys::__kernel_timespec { tv_sec: 5, tv_nsec: 0 };
            // SAFETY: a nop names no memory; the time outlives the call.
            unsafe {
                sys::io_uring_prep_nop(ring.entry());
                let ring = ring.as_ptr();
                if done(sys::io_uring_submit_and_wait_min_timeout(ring, &mut cqe, 1, &mut time, 0, ptr::null_mut())) {
                    assert_eq!((*cqe).res, 0);
                }
            }
        }),
        function("io_uring_wait_cqes_min_timeout", || {
            let (mut ring, mut cqe) = (Ring::new(8), ptr::null_mut());
            let mut time = sys::__kernel_timespec { tv_sec: 5, tv_nsec: 0 };
            // SAFETY: a nop names no memory; the time outlives the call.
            unsafe {
                sys::io_uring_prep_nop(ring.entry());
                let ring = ring.as_ptr();
                assert_eq!(sys::io_uring_submit(ring), 1);
                if done(sys::io_uring_wait_cqes_min_timeout(ring, &mut cqe, 1, &mut time, 0, ptr::null_mut())) {
                    assert_eq!((*cqe).res, 0);
                }
            }
        }),
        // SAFETY: two initialised rings; there are no buffers to be had.
        function("io_uring_clone_buffers", || unsafe {
            refused(sys::io_uring_clone_buffers(Ring::new(8).as_ptr(), Ring::new(8).as_ptr()));
            clone_a_buffer(|to, from| sys::io_uring_clone_buffers(to, from));
        }),
    ]
}

/// Has a buffer that is registered with one ring cloned, and checks that another has it then.
#[cfg(liburing_2_8)]
fn clone_a_buffer(clone: impl FnOnce(*mut sys::io_uring, *mut sys::io_uring) -> i32) {
    let (mut from, mut to) = (Ring::new(8), Ring::new(8));
    let mut buffer = vec![0u8; 4096];
    let iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the buffer outlives both rings' use of it.
    unsafe {
        assert_eq!(sys::io_uring_register_buffers(from.as_ptr(), &iovec, 1), 0);
        if done(clone(to.as_ptr(), from.as_ptr())) {
            // As many bytes as /dev/zero is asked for.
            let zero = std::fs::File::open("/dev/zero").expect("/dev/zero");
            let sqe = to.entry();
            sys::io_uring_prep_read_fixed(sqe, std::os::fd::AsRawFd::as_raw_fd(&zero), iovec.iov_base, 4096, 0, 0);
            assert_eq!(sys::io_uring_submit_and_wait(to.as_ptr(), 1), 1);
            assert_eq!(to.wait().res, 4096);
        }
    }
}

#[cfg(liburing_2_9)]
fn of_2_9() -> Vec<Function> {
    vec![
        function("io_uring_resize_rings", || {
            let flags = sys::IORING_SETUP_SINGLE_ISSUER | sys::IORING_SETUP_DEFER_TASKRUN;
            let Ok(mut ring) = Ring::with_flags(8, flags) else { return };
            // SAFETY: integers and pointers, for which zero is a value.
            let mut params: sys::io_uring_params = unsafe { mem::zeroed() };
            params.sq_entries = 32;
            params.cq_entries = 64;
            params.flags = sys::IORING_SETUP_CQSIZE;
            ring.assert_works(5);
            // SAFETY: an initialised ring without anything in flight.
            let resized = done(unsafe { sys::io_uring_resize_rings(ring.as_ptr(), &mut params) });
            // SAFETY: an initialised ring.
            let room = unsafe { sys::io_uring_sq_space_left(ring.as_ptr()) };
            assert_eq!(room, if resized { 32 } else { 8 });
            ring.assert_works(100);
        }),
        // SAFETY: an initialised ring; the kernel refuses the address.
        function("io_uring_register_wait_reg", || unsafe {
            refused(sys::io_uring_register_wait_reg(Ring::new(8).as_ptr(), ptr::dangling_mut(), 1));
        }),
        function("io_uring_submit_and_wait_reg", || {
            let mut cqe = ptr::null_mut();
            // SAFETY: an initialised ring, which has no region to read the time in.
            unsafe { refused(sys::io_uring_submit_and_wait_reg(Ring::new(8).as_ptr(), &mut cqe, 1, 0)) };
        }),
        // SAFETY: two initialised rings.
        function("io_uring_clone_buffers_offset", || unsafe {
            clone_a_buffer(|to, from| sys::io_uring_clone_buffers_offset(to, from, 0, 0, 1, 0));
        }),
        // SAFETY: an initialised ring; the kernel refuses the address.
        function("io_uring_register_region", || unsafe {
            refused(sys::io_uring_register_region(Ring::new(8).as_ptr(), ptr::dangling_mut()));
        }),
    ]
}

#[cfg(liburing_2_10)]
fn of_2_10() -> Vec<Function> {
    vec![
        // SAFETY: an initialised ring; the kernel refuses the address.
        function("io_uring_register_ifq", || unsafe {
            refused(sys::io_uring_register_ifq(Ring::new(8).as_ptr(), ptr::dangling_mut()));
        }),
        function("io_uring_set_iowait", || {
            let mut ring = Ring::new(8);
            // SAFETY: an initialised ring.
            done(unsafe { sys::io_uring_set_iowait(ring.as_ptr(), false) });
            ring.assert_works(5);
        }),
        // SAFETY: two initialised rings.
        function("__io_uring_clone_buffers", || unsafe {
            clone_a_buffer(|to, from| sys::__io_uring_clone_buffers(to, from, 0));
        }),
        // SAFETY: two initialised rings.
        function("__io_uring_clone_buffers_offset", || unsafe {
            clone_a_buffer(|to, from| sys::__io_uring_clone_buffers_offset(to, from, 0, 0, 1, 0));
        }),
    ]
}

#[cfg(liburing_2_11)]
fn of_2_11() -> Vec<Function> {
    vec![
        function("io_uring_memory_size", || {
            // SAFETY: two numbers.
            assert!(unsafe { sys::io_uring_memory_size(8, 0) } > 0);
        }),
        function("io_uring_memory_size_params", || {
            // SAFETY: integers and pointers, for which zero is a value.
            let mut params: sys::io_uring_params = unsafe { mem::zeroed() };
            // SAFETY: a number and memory of ours.
            assert!(unsafe { sys::io_uring_memory_size_params(8, &mut params) } > 0);
        }),
    ]
}

#[cfg(liburing_2_12)]
fn of_2_12() -> Vec<Function> {
    // SAFETY: the kernel refuses an entry that is not a message.
    vec![function("io_uring_register_sync_msg", || unsafe {
        refused(sys::io_uring_register_sync_msg(&mut mem::zeroed()));
    })]
}

#[cfg(liburing_2_15)]
fn of_2_15() -> Vec<Function> {
    vec![
        // SAFETY: an initialised ring; the kernel refuses the address.
        function("io_uring_register_bpf_filter", || unsafe {
            refused(sys::io_uring_register_bpf_filter(Ring::new(8).as_ptr(), ptr::dangling_mut()));
        }),
        // SAFETY: the kernel refuses the address.
        function("io_uring_register_bpf_filter_task", || unsafe {
            refused(sys::io_uring_register_bpf_filter_task(ptr::dangling_mut()));
        }),
        // SAFETY: an initialised ring; the kernel refuses the address.
        function("io_uring_register_zcrx_ctrl", || unsafe {
            refused(sys::io_uring_register_zcrx_ctrl(Ring::new(8).as_ptr(), ptr::dangling_mut()));
        }),
        function("io_uring_register_query", || {
            // SAFETY: integers, for which zero is a value: a question that the kernel need not know.
            let mut query: sys::io_uring_query_hdr = unsafe { mem::zeroed() };
            // SAFETY: memory of ours.
            done(unsafe { sys::io_uring_register_query(&mut query) });
        }),
    ]
}
