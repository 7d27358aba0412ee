//! R8: what borrows a ring stays on its thread, as the ring does: a chain.
use sysuring::{Operations as _, Rejected, Ring};

pub fn case(ring: &mut Ring) {
    let _ = ring.chain(|chain| -> Result<(), Rejected<()>> {
        std::thread::scope(|threads| {
            #[cfg(bad)]
            threads.spawn(|| chain.nop()); //~ E0277
            #[cfg(not(bad))]
            let _ = chain.nop();
            threads.spawn(|| ());
        });
        Ok(())
    });
}
