//! R1: an entry is in the ring's memory.
use sysuring::{Queued, Ring};

pub fn case(mut ring: Ring) {
    let queued: Queued<'_> = ring.get_sqe().unwrap().prep_nop();
    #[cfg(bad)]
    drop(ring); //~ E0505
    queued.set_data64(1.into());
}
