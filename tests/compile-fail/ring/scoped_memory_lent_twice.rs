//! R1: no two operations write to one piece of memory.
use sysuring::{FixedFile, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile) {
    let mut memory = [0; 512];
    ring.scope(|scope| {
        let (first, second) = memory.split_at_mut(256);
        let _ = scope.read(file, first, 0);
        #[cfg(bad)]
        let _ = scope.read(file, first, 0); //~ E0499
        let _ = scope.read(file, second, 0);
    });
}
