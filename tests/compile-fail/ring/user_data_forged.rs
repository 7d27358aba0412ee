//! R4: a raw entry can't carry the tag of the safe interface.
use sysuring::{Ring, UserData};

pub fn case(ring: &mut Ring) {
    #[cfg(bad)]
    let user_data = UserData(1 << 62); //~ E0423
    #[cfg(not(bad))]
    let user_data = UserData::new(1).unwrap();
    ring.get_sqe().unwrap().prep_nop().set_data64(user_data);
}
