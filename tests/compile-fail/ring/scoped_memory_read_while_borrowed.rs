//! R1: memory that is lent for a read is nobody else's until the scope has ended.
use sysuring::{FixedFile, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile) {
    let mut memory = [0; 512];
    ring.scope(|scope| {
        let operation = scope.read(file, &mut memory, 0).unwrap();
        let _ = scope.wait(operation);
        #[cfg(bad)]
        println!("{}", memory[0]); //~ E0502
    });
    println!("{}", memory[0]);
}
