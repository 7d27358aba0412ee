//! R4: a number that may have the tag of the safe interface is checked before it can be a raw entry's.
use sysuring::{Ring, UserData};

pub fn case(ring: &mut Ring, number: u64) {
    #[cfg(bad)]
    ring.get_sqe().unwrap().prep_nop().set_data64(number.into()); //~ E0277
    if let Some(user_data) = UserData::new(number) {
        ring.get_sqe().unwrap().prep_nop().set_data64(user_data);
    }
}
