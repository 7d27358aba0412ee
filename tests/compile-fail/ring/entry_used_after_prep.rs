//! R6: an entry in the queue is complete.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    let sqe = ring.get_sqe().unwrap();
    sqe.prep_nop();
    #[cfg(bad)]
    sqe.prep_nop(); //~ E0382
}
