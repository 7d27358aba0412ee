//! R8: a ring is never `Sync`; a `SharedRing` is.
use sysuring::{Ring, SharedRing};

fn is_sync<T: Sync>(_: &T) {}

pub fn case(ring: &Ring, shared: &SharedRing) {
    #[cfg(bad)]
    is_sync(ring); //~ E0277
    println!("{}", ring.in_flight());
    is_sync(shared);
}
