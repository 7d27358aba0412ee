//! R6: nor by a hard link.
use sysuring::{Ring, SqeFlags};

pub fn case(ring: &mut Ring) {
    let queued = ring.get_sqe().unwrap().prep_nop();
    #[cfg(bad)]
    queued.set_flags(SqeFlags::IO_HARDLINK); //~ E0599
    #[cfg(not(bad))]
    queued.set_flags(SqeFlags::ASYNC);
}
