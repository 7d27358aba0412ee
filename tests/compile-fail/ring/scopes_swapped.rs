//! Each scope waits for its own operations: they can't be exchanged for those of another ring.
use sysuring::Ring;

pub fn case(first: &mut Ring, second: &mut Ring) {
    first.scope(|outer| {
        second.scope(|inner| {
            let _ = (inner.submit(), outer.submit());
            #[cfg(bad)]
            std::mem::swap(outer, inner); //~ E0521
        });
    });
}
