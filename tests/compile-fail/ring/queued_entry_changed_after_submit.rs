//! R1: an entry that was submitted is the kernel's.
use sysuring::{Ring, UserData};

pub fn case(ring: &mut Ring) {
    let queued = ring.get_sqe().unwrap().prep_nop();
    #[cfg(bad)]
    let _ = ring.submit(); //~ E0499
    queued.set_data64(UserData::from(1));
    let _ = ring.submit();
}
