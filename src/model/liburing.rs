//! Stands for `liburing_sys` in this crate's own tests: all of it, but the calls on a ring that [`World`] made go there and
//! not to the kernel.

use std::ffi::{c_int, c_uint};

use libc::{iovec, sigset_t};
pub(crate) use liburing_sys::*;

use super::world::{World, world};

/// Defines functions of liburing under their own names: `$fake` for a ring of the world, liburing's for any other.
macro_rules! stand_in {
    ($(fn $name:ident($ring:ident $(, $argument:ident: $type:ty)*) -> $returned:ty = $fake:expr;)*) => {$(
        pub(crate) unsafe fn $name($ring: *mut io_uring $(, $argument: $type)*) -> $returned {
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
    fn io_uring_submit(ring) -> c_int = |world: &mut World, number| world.enter(number, 0, false);
    fn io_uring_submit_and_wait(ring, wait: c_uint) -> c_int = |world: &mut World, number| world.enter(number, wait, true);
    fn io_uring_submit_and_wait_timeout(
        ring, _cqe: *mut *mut io_uring_cqe, wait: c_uint, _time: *mut __kernel_timespec, _mask: *mut sigset_t
    ) -> c_int = |world: &mut World, number| world.enter_for_a_time(number, wait);
    fn io_uring_get_events(ring) -> c_int = |world: &mut World, number| world.get_events(number);
    fn io_uring_register_sync_cancel(ring, _asked: *mut io_uring_sync_cancel_reg) -> c_int =
        |world: &mut World, number| world.cancel_all(number);
    fn io_uring_queue_exit(ring) -> () = |world: &mut World, number| world.close(number);
    fn io_uring_register_files(ring, _files: *const c_int, count: c_uint) -> c_int =
        |world: &mut World, number| world.register_files(number, count);
    fn io_uring_register_files_update(ring, index: c_uint, files: *const c_int, _count: c_uint) -> c_int =
        // SAFETY: the caller gives one descriptor.
        |world: &mut World, number| world.update_file(number, index, unsafe { *files });
    fn io_uring_register_buffers_sparse(ring, count: c_uint) -> c_int =
        |world: &mut World, number| world.register_sparse(number, count);
    fn io_uring_register_buffers(ring, buffers: *const iovec, count: c_uint) -> c_int =
        // SAFETY: the caller gives `count` of them.
        |world: &mut World, number| world.register_buffers(number, unsafe { iovecs(buffers, count) });
    fn io_uring_register_buffers_update_tag(
        ring, first: c_uint, buffers: *const iovec, _tags: *const __u64, count: c_uint
    ) -> c_int =
        // SAFETY: the caller gives `count` of them.
        |world: &mut World, number| world.update_buffers(number, first, unsafe { iovecs(buffers, count) });
    fn io_uring_unregister_buffers(ring) -> c_int = |world: &mut World, number| world.unregister_buffers(number);
}

/// # Safety
///
/// `first` points to `count` of them, which nobody changes meanwhile.
unsafe fn iovecs<'a>(first: *const iovec, count: c_uint) -> &'a [iovec] {
    // SAFETY: the caller vouches for it.
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}
