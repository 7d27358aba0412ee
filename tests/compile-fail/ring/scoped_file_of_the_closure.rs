//! R1: a file that is closed before the scope has ended can't be used in it.
use std::fs::File;

use sysuring::Ring;

pub fn case(ring: &mut Ring, memory: &mut [u8]) {
    #[cfg(not(bad))]
    let file = File::open("/dev/zero").unwrap();
    ring.scope(|scope| {
        #[cfg(bad)]
        let file = File::open("/dev/zero").unwrap();
        let _ = scope.read(&file, memory, 0); //~ E0597
    });
}
