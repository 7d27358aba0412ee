//! R8: what borrows a ring stays on its thread, as the ring does: its completions. Each of them may go.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    let mut completions = ring.completions();
    std::thread::scope(|threads| {
        #[cfg(bad)]
        threads.spawn(|| completions.next()); //~ E0277
        let completion = completions.next();
        threads.spawn(|| drop(completion));
    });
}
