//! The inside of a ring is out of reach, also by way of a closure that would be given it.
use sysuring::Operations;

pub fn case<S: Operations>(starter: &mut S) {
    let _ = starter.nop();
    #[cfg(bad)]
    let _ = starter.start_on_core((), (), |_core, ()| unreachable!()); //~ E0308
}
