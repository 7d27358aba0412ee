//! R8: a ring may be bound to its thread, and is never `Send`.
use sysuring::{DisabledRing, Ring};

pub fn case(ring: Ring, disabled: DisabledRing) {
    #[cfg(bad)]
    std::thread::spawn(move || drop(ring)); //~ E0277
    #[cfg(not(bad))]
    drop(ring);
    std::thread::spawn(move || disabled.enable().map(drop));
}
