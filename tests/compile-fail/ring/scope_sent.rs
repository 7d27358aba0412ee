//! R8: what borrows a ring stays on its thread, as the ring does: a scope.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    ring.scope(|scope| {
        std::thread::scope(|threads| {
            #[cfg(bad)]
            threads.spawn(|| scope.submit()); //~ E0277
            #[cfg(not(bad))]
            let _ = scope.submit();
            threads.spawn(|| ());
        });
    });
}
