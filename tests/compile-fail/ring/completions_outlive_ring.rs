//! R5: completions are the ring's.
use sysuring::Ring;

pub fn case(ring: Ring) {
    let mut ring = ring;
    let mut completions = ring.completions();
    #[cfg(bad)]
    drop(ring); //~ E0505
    let _ = completions.next();
    #[cfg(not(bad))]
    drop(ring);
}
