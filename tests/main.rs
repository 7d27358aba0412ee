//! The library from outside: what a user can do, and what must not happen whatever they do.

mod common;

#[cfg(feature = "block")]
mod device;
#[cfg(target_os = "linux")]
#[cfg(any(feature = "link", feature = "dlopen"))]
mod uring {
    mod chain;
    mod drop;
    mod forge;
    mod fork;
    mod model;
    mod operations;
    #[cfg(feature = "block")]
    mod process;
    mod provided;
    mod raw;
    mod register;
    mod ring;
    mod scope;
    mod setup;
    mod shared;
    mod teardown;
    #[cfg(feature = "block")]
    mod threads;
}
