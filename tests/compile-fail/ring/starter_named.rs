//! What starts operations is sealed: the trait below it can't be named, and so not implemented.
#[cfg(bad)]
use sysuring::operations::Starter; //~ E0603
use sysuring::{Operations, Ring};

pub fn case(ring: &mut Ring) {
    let _ = Operations::nop(ring);
}
