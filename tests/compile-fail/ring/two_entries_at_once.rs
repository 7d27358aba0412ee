//! R6: the queue's tail is one place: it has one free entry.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    let first = ring.get_sqe().unwrap();
    #[cfg(bad)]
    let second = ring.get_sqe().unwrap(); //~ E0499
    first.prep_nop();
    #[cfg(not(bad))]
    let second = ring.get_sqe().unwrap();
    second.prep_nop();
}
