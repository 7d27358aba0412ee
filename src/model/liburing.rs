//! Stands for `liburing_sys` in this crate's own tests: all of it, but the calls on a ring that [`World`] or a [`Kernel`] made
//! go there and not to the kernel.

use std::ffi::{c_int, c_uint};

use libc::{iovec, sigset_t};
pub(crate) use liburing_sys::*;

use super::world::{World, world};
#[cfg(feature = "block")]
use crate::block::faults::kernel::{self, Kernel};

/// Defines functions of liburing under their own names: `$fake` for a ring of the world, `$faulty` for one of a kernel that has
/// faults, liburing's for any other.
macro_rules! stand_in {
    ($(fn $name:ident($ring:ident $(, $argument:ident: $type:ty)*) -> $returned:ty = $fake:expr, $faulty:expr;)*) => {$(
        pub(crate) unsafe fn $name($ring: *mut io_uring $(, $argument: $type)*) -> $returned {
            #[cfg(feature = "block")]
            if let Some(kernel) = kernel::of($ring) {
                #[allow(clippy::redundant_closure_call)]
                return kernel.call($faulty);
            }
            match World::number_of($ring) {
                #[allow(clippy::redundant_closure_call)]
                Some(number) => world(|world| $fake(world, number)),
                // SAFETY: the same obligations, passed on.
                None => unsafe { liburing_sys::$name($ring $(, $argument)*) },
            }
        }
    )*};
}

stand_in! {
    fn io_uring_submit(ring) -> c_int =
        |world: &mut World, number| world.enter(number, 0, false), |kernel: &mut Kernel| kernel.submit(0);
    fn io_uring_submit_and_wait(ring, wait: c_uint) -> c_int =
        |world: &mut World, number| world.enter(number, wait, true), |kernel: &mut Kernel| kernel.submit(wait);
    fn io_uring_submit_and_wait_timeout(
        ring, _cqe: *mut *mut io_uring_cqe, wait: c_uint, _time: *mut __kernel_timespec, _mask: *mut sigset_t
    ) -> c_int =
        |world: &mut World, number| world.enter_for_a_time(number, wait), |kernel: &mut Kernel| kernel.submit_for_a_time(wait);
    fn io_uring_get_events(ring) -> c_int =
        |world: &mut World, number| world.get_events(number), |kernel: &mut Kernel| kernel.get_events();
    fn io_uring_register_ring_fd(ring) -> c_int =
        |_: &mut World, _| -libc::EINVAL, |_: &mut Kernel| -libc::EINVAL;
    fn io_uring_register_sync_cancel(ring, _asked: *mut io_uring_sync_cancel_reg) -> c_int =
        |world: &mut World, number| world.cancel_all(number), |_: &mut Kernel| -libc::ENOENT;
    fn io_uring_register_files(ring, _files: *const c_int, count: c_uint) -> c_int =
        |world: &mut World, number| world.register_files(number, count), |kernel: &mut Kernel| kernel.register_files(count);
    fn io_uring_register_files_update(ring, index: c_uint, files: *const c_int, _count: c_uint) -> c_int =
        // SAFETY: the caller gives one descriptor.
        |world: &mut World, number| world.update_file(number, index, unsafe { *files }),
        // SAFETY: as above.
        |kernel: &mut Kernel| kernel.update_file(index, unsafe { *files });
    fn io_uring_register_eventfd(ring, descriptor: c_int) -> c_int =
        |_: &mut World, _| -libc::EINVAL, |kernel: &mut Kernel| kernel.register_eventfd(descriptor);
    fn io_uring_register_buffers_sparse(ring, count: c_uint) -> c_int =
        |world: &mut World, number| world.register_sparse(number, count),
        |kernel: &mut Kernel| kernel.register_sparse(count);
    fn io_uring_register_buffers(ring, buffers: *const iovec, count: c_uint) -> c_int =
        // SAFETY: the caller gives `count` of them.
        |world: &mut World, number| world.register_buffers(number, unsafe { iovecs(buffers, count) }),
        // SAFETY: as above.
        |kernel: &mut Kernel| kernel.register_buffers(unsafe { iovecs(buffers, count) });
    fn io_uring_register_buffers_update_tag(
        ring, first: c_uint, buffers: *const iovec, _tags: *const __u64, count: c_uint
    ) -> c_int =
        // SAFETY: the caller gives `count` of them.
        |world: &mut World, number| world.update_buffers(number, first, unsafe { iovecs(buffers, count) }),
        // SAFETY: as above.
        |kernel: &mut Kernel| kernel.update_buffers(first, unsafe { iovecs(buffers, count) });
    fn io_uring_unregister_buffers(ring) -> c_int =
        |world: &mut World, number| world.unregister_buffers(number), |kernel: &mut Kernel| kernel.register_buffers(&[]);
}

pub(crate) unsafe fn io_uring_queue_exit(ring: *mut io_uring) {
    #[cfg(feature = "block")]
    if kernel::close(ring) {
        return;
    }
    match World::number_of(ring) {
        Some(number) => world(|world| world.close(number)),
        // SAFETY: the same obligations, passed on.
        None => unsafe { liburing_sys::io_uring_queue_exit(ring) },
    }
}

pub(crate) unsafe fn io_uring_queue_init_params(
    entries: c_uint,
    ring: *mut io_uring,
    params: *mut io_uring_params,
) -> c_int {
    #[cfg(feature = "block")]
    // SAFETY: the caller has them.
    if let Some(returned) = unsafe { kernel::set_up(entries, &mut *ring, &mut *params) } {
        return returned;
    }
    // SAFETY: the same obligations, passed on.
    unsafe { liburing_sys::io_uring_queue_init_params(entries, ring, params) }
}

pub(crate) unsafe fn io_uring_enter(
    descriptor: c_uint,
    submit: c_uint,
    wait: c_uint,
    flags: c_uint,
    mask: *mut sigset_t,
) -> c_int {
    #[cfg(feature = "block")]
    if let Some(kernel) = kernel::of_descriptor(descriptor as c_int) {
        return kernel.wait(wait);
    }
    // SAFETY: the same obligations, passed on.
    unsafe { liburing_sys::io_uring_enter(descriptor, submit, wait, flags, mask) }
}

/// # Safety
///
/// `first` points to `count` of them, which nobody changes meanwhile.
unsafe fn iovecs<'a>(first: *const iovec, count: c_uint) -> &'a [iovec] {
    // SAFETY: the caller vouches for it.
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}
