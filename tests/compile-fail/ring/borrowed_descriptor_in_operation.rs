//! R1: an operation keeps its file open. It can't do that with one that it only borrows; a scope can wait instead.
use std::fs::File;

use sysuring::{Operations as _, Ring};

pub fn case(ring: &mut Ring, file: &File, memory: &mut [u8]) {
    #[cfg(bad)]
    let _ = ring.fsync(file, true); //~ E0277
    ring.scope(|scope| drop(scope.read(file, memory, 0)));
    let _ = ring.nop();
}
