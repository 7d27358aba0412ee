//! R8: another thread can't borrow a ring for a while either.
use sysuring::{Ring, SharedRing};

pub fn case(ring: &Ring, shared: &SharedRing) {
    std::thread::scope(|threads| {
        #[cfg(bad)]
        threads.spawn(|| ring.in_flight()); //~ E0277
        threads.spawn(|| shared.submit());
        ring.in_flight();
    });
}
