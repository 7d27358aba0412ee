//! R8: a ring is enabled for one thread.
use sysuring::{DisabledRing, Result, Ring};

pub fn case(disabled: DisabledRing) -> Result<Ring> {
    let ring = disabled.enable()?;
    #[cfg(bad)]
    disabled.enable()?; //~ E0382
    Ok(ring)
}
