//! R8: exclusive use is not enough, since the ring may be bound to its thread.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    std::thread::scope(|threads| {
        #[cfg(bad)]
        threads.spawn(|| ring.submit()); //~ E0277
        #[cfg(not(bad))]
        let _ = ring.submit();
        threads.spawn(|| ());
    });
}
