//! R8: a ring that threads share has no scope: what others wait for would come in between.
use sysuring::{Operations as _, Result, SharedRing};

pub fn case(ring: &SharedRing) -> Result<u32> {
    #[cfg(bad)]
    ring.scope(|_| ()); //~ E0599
    let mut starter = ring;
    starter.nop()?;
    ring.submit()
}
