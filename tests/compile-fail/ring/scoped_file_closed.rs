//! R1: a file that an operation is on stays open until the scope has ended: its number may be another file's by then.
use std::fs::File;

use sysuring::Ring;

pub fn case(ring: &mut Ring, file: File, memory: &mut [u8]) {
    ring.scope(|scope| {
        let _ = scope.read(&file, memory, 0); //~ E0597
        #[cfg(bad)]
        drop(file); //~ E0505
    });
    #[cfg(not(bad))]
    drop(file);
}
