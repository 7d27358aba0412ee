//! An operation of a scope is waited for in that scope, and means nothing outside.
use sysuring::{FixedFile, Ring, Scope};

pub fn case(ring: &mut Ring, file: &FixedFile, memory: &mut [u8]) {
    #[cfg(bad)]
    let _ = ring.scope(|scope| scope.read(file, memory, 0)); //~ lifetime may not live long enough
    #[cfg(not(bad))]
    let _ = ring.scope(|scope| {
        let operation = scope.read(file, memory, 0).unwrap();
        scope.wait(operation)
    });
    // The type of a scope can be named all the same.
    let _: Option<Scope<'_, '_>> = None;
}
