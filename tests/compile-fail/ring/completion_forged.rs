//! R4: a completion comes from the ring.
use sysuring::{Done, More};

pub fn case(done: Done) -> Done {
    let _: fn(&More) -> u32 = More::flags;
    #[cfg(bad)]
    let done = Done { result: 0, ..done }; //~ E0451
    done
}
