//! The inside of a ring is out of reach: what opens it can't be named.
use sysuring::Operations;
#[cfg(bad)]
use sysuring::operations::Seal; //~ E0603

pub fn case<S: Operations>(starter: &mut S) {
    let _ = starter.nop();
}
