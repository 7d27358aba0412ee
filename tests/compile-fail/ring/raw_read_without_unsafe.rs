//! A raw operation on memory is `unsafe`: nobody but its caller keeps the memory.
use sysuring::Ring;

pub fn case(ring: &mut Ring, memory: &'static mut [u8; 512]) {
    let sqe = ring.get_sqe().unwrap();
    #[cfg(bad)]
    sqe.prep_read(0, memory.as_mut_ptr(), 512, 0); //~ E0133
    #[cfg(not(bad))]
    // SAFETY: the memory is never given back, and standard input is not closed.
    unsafe {
        sqe.prep_read(0, memory.as_mut_ptr(), 512, 0);
    }
}
