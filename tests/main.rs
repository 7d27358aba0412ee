//! The library from outside: what a user can do, and what must not happen whatever they do.

mod common;

#[cfg(feature = "block")]
mod device;
#[cfg(target_os = "linux")]
#[cfg(any(feature = "link", feature = "dlopen"))]
mod uring {
    mod drop;
    mod fork;
    #[cfg(feature = "block")]
    mod process;
    mod raw;
    mod register;
    mod ring;
    mod shared;
    #[cfg(feature = "block")]
    mod threads;
}
