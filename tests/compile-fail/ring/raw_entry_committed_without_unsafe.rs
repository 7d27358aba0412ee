//! An entry that was filled in by hand is `unsafe` to put into the queue.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    let mut sqe = ring.get_sqe().unwrap();
    println!("{:p}", sqe.as_raw());
    #[cfg(bad)]
    sqe.commit(); //~ E0133
    #[cfg(not(bad))]
    // SAFETY: all zeroes do nothing.
    unsafe {
        sqe.commit();
    }
}
