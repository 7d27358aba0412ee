//! The inside of a ring is out of reach: what opens it can't be made without its name either.
use sysuring::Operations;

pub fn case<S: Operations>(starter: &mut S) {
    let _ = starter.nop();
    #[cfg(bad)]
    let _ = starter.core_guard(Default::default()); //~ E0277
}
