//! R5: a completion frees its place in the table at once: nothing is started while somebody is in the middle of taking them.
use sysuring::{Operations as _, Ring};

pub fn case(ring: &mut Ring) {
    let mut completions = ring.completions();
    #[cfg(bad)]
    let _ = ring.nop(); //~ E0499
    let _ = completions.next();
    let _ = ring.nop();
}
