//! R8: what borrows a ring stays on its thread, as the ring does: a raw entry.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    let sqe = ring.get_sqe().unwrap();
    std::thread::scope(|threads| {
        #[cfg(bad)]
        threads.spawn(|| drop(sqe.prep_nop())); //~ E0277
        #[cfg(not(bad))]
        drop(sqe.prep_nop());
        threads.spawn(|| ());
    });
}
