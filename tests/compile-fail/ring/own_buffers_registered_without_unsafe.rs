//! Memory of the caller's own that is registered is `unsafe`: nobody but its caller keeps it.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    #[cfg(bad)]
    let _ = ring.register_buffers(&[]); //~ E0133
    #[cfg(not(bad))]
    // SAFETY: it is none.
    let _ = unsafe { ring.register_buffers(&[]) };
}
