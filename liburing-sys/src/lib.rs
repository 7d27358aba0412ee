//! Raw bindings to the system's liburing: C's names, C's signatures, C's obligations.
//!
//! Everything that the installed `liburing.h` declares is here. That header and the library that
//! runs may be of different versions; both are at least [`OLDEST_VERSION`], and [`HEADER_VERSION`]
//! and [`library_version`] tell them. A function that the header declares and the library lacks is
//! found out by [`has`], without a call.
//!
//! # Two ways to the library
//!
//! The features add up, and calls are written the same way in both:
//!
//! * `link` (on by default): the program is linked to `liburing.so.2` and does not start without
//!   it, nor with one that is too old.
//! * `dlopen`: exported functions are called through pointers, and the library is found by
//!   [`load`], or by the first call. Without `link`, a program starts where no liburing is
//!   installed: it calls [`load`] and does something else if that is an error.
//!
//! Prefer `dlopen` for a program that can do without `io_uring`, `link` for one that cannot.
//!
//! A program that is not linked carries an ELF note of the dependency (`.note.dlopen`), for the tools of packagers.
//!
//! # Inline functions
//!
//! The header's `static inline` functions are compiled once and called like the others. Those that
//! run for every operation are written again in Rust, so that they are inlined here as well; they
//! do what the installed header does.
//!
//! # Bugs of shipped versions
//!
//! A distribution keeps the liburing that it began with. What is wrong in the header depends on the one that was read,
//! what is wrong in the library on the one that runs; with others, C's own function is called. These do here what that
//! of 2.15 does:
//!
//! | function | wrong in | here |
//! |---|---|---|
//! | `io_uring_enable_rings`, `io_uring_register_restrictions` | library 2.3: declared, not exported | made from `io_uring_register` |
//! | `io_uring_prep_{accept,openat,openat2,socket}_direct` | header 2.3: `IORING_FILE_INDEX_ALLOC` gives a plain descriptor | corrected |
//! | `io_uring_buf_ring_cq_advance` | headers before 2.6: no order on weakly ordered processors | written in Rust |
//! | `io_uring_register_ring_fd` | library 2.4, before Linux 6.3: later registrations fail | refused there with `-EOPNOTSUPP`: the ring works without |
//! | `io_uring_check_version`, `IO_URING_CHECK_VERSION` | 2.4 and 2.5: off by one | written in Rust |
//! | `io_uring_queue_init_mem` | libraries 2.5 and 2.6: 64 bytes too few | size checked and rounded up |
//! | `io_uring_prep_read_multishot` | header 2.6: no `IOSQE_BUFFER_SELECT` | added |
//! | `io_uring_resize_rings` | libraries 2.9 to 2.14: queues lost or leaked | written in Rust |
//! | `io_uring_submit_and_wait_reg` | libraries 2.9 to 2.14: address 0 read when the time is over | written in Rust |
//! | `io_uring_peek_batch_cqe` | libraries before 2.15: wrong with `IORING_SETUP_CQE_MIXED` | written in Rust for such rings |
//! | `io_uring_wait_cqes`, `io_uring_wait_cqe_timeout`, `io_uring_submit_and_wait_timeout` and what peeks, without `IORING_FEAT_EXT_ARG` (before Linux 5.11) | libraries 2.13 and 2.14: an entry that was given back; all: success without an entry | no such entry; `-ETIME` of those that only wait |
//! | `io_uring_wait_cqes_min_timeout`, `io_uring_submit_and_wait_min_timeout` | libraries before 2.15: the minimum is ignored before Linux 6.12 | `-EINVAL` there |
//! | `io_uring_opcode_supported` | headers before 2.15: reads in front of the table for a negative operation | written in Rust |
//! | `io_uring_recvmsg_validate`, `io_uring_recvmsg_payload_length` | headers before 2.15: overflow | written in Rust |
//!
//! One is left to the program: where an older liburing was loaded with its symbols global (`RTLD_GLOBAL`, or linked) before
//! `load_from` brings 2.15, that one's calls to itself go to the older one, in C as well, and each ring leaks a mapping.
//!
//! # Building
//!
//! pkg-config finds the header, and libclang reads it. `LIBURING_INCLUDE_DIR` and
//! `LIBURING_LIB_DIR` name other folders, as cross builds need; with the target in front, as in
//! `AARCH64_UNKNOWN_LINUX_GNU_LIBURING_LIB_DIR`, they hold for that target only. The build scripts
//! of crates that depend on this one find the header's version in `DEP_URING_VERSION`, as "2.3",
//! and its folders in `DEP_URING_INCLUDE`.
//!
//! # Examples
//!
//! ```
//! use std::mem::MaybeUninit;
//! use std::ptr;
//!
//! use liburing_sys as sys;
//!
//! # fn main() -> Result<(), sys::LoadError> {
//! sys::load()?;
//! let mut ring = MaybeUninit::<sys::io_uring>::zeroed();
//! let ring = ring.as_mut_ptr();
//! // SAFETY: the ring stays in its place from queue_init to queue_exit, on one thread, and the
//! // entry names no memory.
//! unsafe {
//!     if sys::io_uring_queue_init(8, ring, 0) < 0 {
//!         return Ok(()); // not allowed here
//!     }
//!     let sqe = sys::io_uring_get_sqe(ring);
//!     sys::io_uring_prep_nop(sqe);
//!     sys::io_uring_sqe_set_data64(sqe, 7);
//!     assert_eq!(sys::io_uring_submit_and_wait(ring, 1), 1);
//!
//!     let mut cqe = ptr::null_mut();
//!     assert_eq!(sys::io_uring_peek_cqe(ring, &mut cqe), 0);
//!     assert_eq!(sys::io_uring_cqe_get_data64(cqe), 7);
//!     sys::io_uring_cqe_seen(ring, cqe);
//!     sys::io_uring_queue_exit(ring);
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(not(any(feature = "link", feature = "dlopen")))]
compile_error!(
    "nothing says how liburing is reached: turn on the feature `link` (the program is linked to \
     liburing.so.2), `dlopen` (it is found at run time), or both"
);

// `reference!(name)`: since when a function is in liburing, and where its manual page is.
include!(concat!(env!("OUT_DIR"), "/reference.rs"));

#[cfg(feature = "dlopen")]
#[macro_use]
mod dlopen;
mod inline;
mod library;
mod macros;
#[cfg(all(feature = "dlopen", not(feature = "link")))]
mod note;
mod quirks;

#[allow(
    dead_code, // what `quirks` replaces
    nonstandard_style,
    missing_docs,
    missing_debug_implementations,
    unused_imports,
    rustdoc::all, // the header's comments are not Markdown: "IORING_[UN]REGISTER_*"
    clippy::all,
    clippy::nursery,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from C"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
pub use library::{
    FILE_NAME, HEADER_VERSION, LoadError, OLDEST_VERSION, Version, has, library_path, library_version, load, load_from,
    require, since,
};
pub use macros::{
    CompletionQueueEntries, IO_URING_CHECK_VERSION, IO_URING_READ_ONCE, IO_URING_WRITE_ONCE, io_uring_cqe_index,
    io_uring_cqe_nr, io_uring_cqe_shift, io_uring_for_each_cqe, io_uring_smp_load_acquire, io_uring_smp_mb,
    io_uring_smp_store_release,
};

// As below, these names win over the same in `bindings::*`.
#[cfg(liburing_2_13)]
pub use quirks::io_uring_peek_batch_cqe;
#[cfg(all(liburing_2_6, not(liburing_2_7)))]
pub use quirks::io_uring_prep_read_multishot;
#[cfg(liburing_2_5)]
pub use quirks::io_uring_queue_init_mem;
pub use quirks::{
    __io_uring_get_cqe, io_uring_enable_rings, io_uring_opcode_supported, io_uring_recvmsg_payload_length,
    io_uring_recvmsg_validate, io_uring_register_restrictions, io_uring_register_ring_fd,
    io_uring_submit_and_wait_timeout, io_uring_wait_cqe_timeout, io_uring_wait_cqes,
};
#[cfg(liburing_2_4)]
pub use quirks::{io_uring_check_version, io_uring_major_version, io_uring_minor_version};
#[cfg(not(liburing_2_4))]
pub use quirks::{
    io_uring_prep_accept_direct, io_uring_prep_openat_direct, io_uring_prep_openat2_direct, io_uring_prep_socket_direct,
};
#[cfg(liburing_2_9)]
pub use quirks::{io_uring_resize_rings, io_uring_submit_and_wait_reg};
#[cfg(liburing_2_8)]
pub use quirks::{io_uring_submit_and_wait_min_timeout, io_uring_wait_cqes_min_timeout};

/// Exports the ports under C's names, and the compiled functions that they stand for as `shims`.
macro_rules! ports {
    ( $($name:ident),* $(,)? ) => {
        // A name that is imported singly wins over the same name in `bindings::*`.
        pub use inline::{ $($name),* };
        pub use inline::{ __io_uring_buf_ring_cq_advance, io_uring_prep_uring_cmd };

        /// The header's own functions, compiled, for the tests to compare the ports with.
        #[doc(hidden)]
        pub mod shims {
            pub use crate::bindings::{ $($name),* };
            #[cfg(liburing_2_13)]
            pub use crate::bindings::{
                io_uring_cqe_nr, io_uring_cqe_shift, io_uring_prep_uring_cmd,
            };
            #[cfg(liburing_2_4)]
            pub use crate::bindings::__io_uring_buf_ring_cq_advance;
            pub use crate::bindings::{ io_uring_recvmsg_payload_length, io_uring_recvmsg_validate };
        }
    };
}

ports! {
    __io_uring_peek_cqe,
    io_uring_buf_ring_add,
    io_uring_buf_ring_advance,
    io_uring_buf_ring_cq_advance,
    io_uring_buf_ring_init,
    io_uring_buf_ring_mask,
    io_uring_cq_advance,
    io_uring_cq_has_overflow,
    io_uring_cq_ready,
    io_uring_cqe_get_data,
    io_uring_cqe_get_data64,
    io_uring_cqe_seen,
    io_uring_get_sqe,
    io_uring_peek_cqe,
    io_uring_prep_cancel64,
    io_uring_prep_close,
    io_uring_prep_fallocate,
    io_uring_prep_fsync,
    io_uring_prep_nop,
    io_uring_prep_poll_add,
    io_uring_prep_read,
    io_uring_prep_read_fixed,
    io_uring_prep_readv,
    io_uring_prep_recv,
    io_uring_prep_rw,
    io_uring_prep_send,
    io_uring_prep_write,
    io_uring_prep_write_fixed,
    io_uring_prep_writev,
    io_uring_sq_ready,
    io_uring_sq_space_left,
    io_uring_sqe_set_data,
    io_uring_sqe_set_data64,
    io_uring_sqe_set_flags,
    io_uring_wait_cqe,
    io_uring_wait_cqe_nr,
}
