//! The inside of a ring is out of reach: the field is private.
use sysuring::{Operations as _, Ring};

pub fn case(first: &mut Ring, second: &mut Ring) {
    let _ = (first.nop(), second.nop());
    #[cfg(bad)]
    std::mem::swap(&mut first.core, &mut second.core); //~ E0616
    // Two rings may be exchanged as a whole.
    std::mem::swap(first, second);
}
