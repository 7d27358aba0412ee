//! R6: a chain is completed on the ring that it was begun on.
use sysuring::{Operations as _, Rejected, Ring};

pub fn case(first: &mut Ring, second: &mut Ring) {
    let _ = first.chain(|outer| -> Result<(), Rejected<()>> {
        second.chain(|inner| -> Result<(), Rejected<()>> {
            inner.nop()?;
            #[cfg(bad)]
            std::mem::swap(outer, inner); //~ E0521
            Ok(())
        })?;
        outer.nop().map(drop)
    });
}
