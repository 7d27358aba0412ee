//! The inside of a ring is out of reach: who had two could exchange them, with all that their tables hold.
use sysuring::Operations;

pub fn case<S: Operations>(starter: &mut S) {
    let _ = starter.nop();
    #[cfg(bad)]
    let _ = starter.core_guard(()); //~ E0308
}
