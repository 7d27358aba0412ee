//! R1: the kernel reads the list of pieces when the entry is submitted: it outlives the scope as the pieces do.
use std::io::IoSlice;

use sysuring::{FixedFile, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile, memory: &[u8]) {
    #[cfg(not(bad))]
    let pieces = [IoSlice::new(memory)];
    ring.scope(|scope| {
        #[cfg(bad)]
        let pieces = [IoSlice::new(memory)];
        let _ = scope.write_vectored(file, &pieces, 0); //~ E0597
    });
}
