//! R1: memory that is lent is not freed inside of the scope.
use sysuring::{FixedFile, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile) {
    let memory = vec![0; 512];
    ring.scope(|scope| {
        let _ = scope.write(file, &memory, 0); //~ E0597
        #[cfg(bad)]
        drop(memory); //~ E0505
    });
    #[cfg(not(bad))]
    drop(memory);
}
