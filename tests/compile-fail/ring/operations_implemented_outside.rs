//! What starts operations is sealed: it hands out the inside of a ring.
use sysuring::{Operations, Ring};

pub struct Mine(pub Ring);

#[cfg(bad)]
impl Operations for Mine {} //~ E0277

pub fn case(mine: &mut Mine) {
    let operations: &mut _ = &mut mine.0;
    let _ = Operations::nop(operations);
}
