//! R4: a completion comes from the ring.
use sysuring::{Completion, Done, More};

pub fn case(completion: Completion) -> Option<Done> {
    #[cfg(bad)]
    let _ = More { received: None, ..todo!() }; //~ E0451
    let _: fn(&More) -> u32 = More::flags;
    completion.into_done()
}
