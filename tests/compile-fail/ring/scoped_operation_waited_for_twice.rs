//! An operation ends once.
use sysuring::{FixedFile, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile, memory: &mut [u8]) {
    ring.scope(|scope| {
        let operation = scope.read(file, memory, 0).unwrap();
        let _ = scope.wait(operation);
        #[cfg(bad)]
        let _ = scope.wait(operation); //~ E0382
    });
}
