//! R1: memory that is gone before the scope has ended can't be lent.
use sysuring::{FixedFile, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile) {
    let mut outside = [0; 512];
    ring.scope(|scope| {
        #[cfg(bad)]
        let mut inside = [0; 512];
        #[cfg(bad)]
        let _ = scope.read(file, &mut inside, 0); //~ E0597
        let _ = scope.read(file, &mut outside, 0);
    });
}
