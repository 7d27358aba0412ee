//! R7: the flags that operations can be started with are those that have a name.
use sysuring::{Operations as _, Ring, SqeFlags};

pub fn case(ring: &mut Ring) {
    let mut flagged = ring.drained();
    let _ = flagged.nop();
    #[cfg(bad)]
    let _ = std::mem::replace(&mut flagged.flags, SqeFlags::CQE_SKIP_SUCCESS.bits()); //~ E0616
}
