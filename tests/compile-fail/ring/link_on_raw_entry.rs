//! R6: a raw entry can't be linked to the one after it, which may be one of the safe interface.
use sysuring::{Ring, SqeFlags};

pub fn case(ring: &mut Ring) {
    let queued = ring.get_sqe().unwrap().prep_nop();
    #[cfg(bad)]
    queued.set_flags(SqeFlags::IO_LINK); //~ E0599
    #[cfg(not(bad))]
    queued.set_flags(SqeFlags::IO_DRAIN);
}
