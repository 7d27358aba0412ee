//! An operation of a scope is waited for in that scope: two rings may have equal tickets.
use sysuring::{FixedFile, Ring};

pub fn case(first: &mut Ring, second: &mut Ring, file: &FixedFile, memory: &mut [u8]) {
    first.scope(|outer| {
        let operation = outer.read(file, memory, 0).unwrap();
        second.scope(|inner| {
            let _ = inner.submit();
            #[cfg(bad)]
            let _ = inner.wait(operation); //~ E0521
            #[cfg(not(bad))]
            let _ = outer.wait(operation);
        });
    });
}
