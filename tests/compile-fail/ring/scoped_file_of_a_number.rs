//! R1: what an operation of a scope can be on is open for as long: not a mere number.
use std::fs::File;

use sysuring::Ring;

pub fn case(ring: &mut Ring, number: i32, file: &File, memory: &mut [u8]) {
    ring.scope(|scope| {
        #[cfg(bad)]
        let _ = scope.read(&number, memory, 0); //~ E0277
        #[cfg(not(bad))]
        let _ = scope.read(file, memory, 0);
    });
    println!("{number} {file:?}");
}
