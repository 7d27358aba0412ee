//! R8: nobody submits to a ring before the thread that it will be bound to has enabled it.
use sysuring::{DisabledRing, Result};

pub fn case(disabled: DisabledRing) -> Result<u32> {
    #[cfg(bad)]
    disabled.submit()?; //~ E0599
    disabled.enable()?.submit()
}
