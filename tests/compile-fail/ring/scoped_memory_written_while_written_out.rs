//! R1: memory that the kernel reads from is not changed until the scope has ended. Reading along is fine.
use sysuring::{FixedFile, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile) {
    let mut memory = [0; 512];
    ring.scope(|scope| {
        let operation = scope.write(file, &memory, 0).unwrap();
        println!("{}", memory[0]);
        #[cfg(bad)]
        memory.fill(1); //~ E0502
        let _ = scope.wait(operation);
    });
    memory.fill(1);
}
