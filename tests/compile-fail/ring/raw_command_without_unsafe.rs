//! A command that a driver defines is `unsafe`: it may name any memory.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    let sqe = ring.get_sqe().unwrap();
    #[cfg(bad)]
    sqe.prep_uring_cmd(0, 0, &[0; 16]); //~ E0133
    #[cfg(not(bad))]
    // SAFETY: standard input is not closed, and has no commands.
    unsafe {
        sqe.prep_uring_cmd(0, 0, &[0; 16]);
    }
}
