//! R8: nothing is started on a ring before it was enabled.
use sysuring::{DisabledRing, Operations as _, Result};

pub fn case(mut disabled: DisabledRing) -> Result<()> {
    #[cfg(bad)]
    let _ = disabled.nop(); //~ E0599
    disabled = std::convert::identity(disabled);
    disabled.enable()?.nop()?;
    Ok(())
}
