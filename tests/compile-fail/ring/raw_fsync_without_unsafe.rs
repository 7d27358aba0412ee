//! A raw operation on a descriptor is `unsafe`: its number may be another file's by the time.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    let sqe = ring.get_sqe().unwrap();
    #[cfg(bad)]
    sqe.prep_fsync(0, 0); //~ E0133
    #[cfg(not(bad))]
    // SAFETY: standard input is not closed.
    unsafe {
        sqe.prep_fsync(0, 0);
    }
}
