//! R8: what borrows a ring stays on its thread, as the ring does: a ring with flags.
use sysuring::{Operations as _, Ring};

pub fn case(ring: &mut Ring) {
    let mut drained = ring.drained();
    std::thread::scope(|threads| {
        #[cfg(bad)]
        threads.spawn(|| drained.nop()); //~ E0277
        #[cfg(not(bad))]
        let _ = drained.nop();
        threads.spawn(|| ());
    });
}
