//! A scope's operations have ended when `Ring::scope` returns: nothing starts more of them afterwards.
use sysuring::{Ring, Scope};

pub fn case(ring: &mut Ring) {
    #[cfg(bad)]
    let mut kept: Option<&mut Scope<'_, '_>> = None;
    ring.scope(|scope| {
        let _ = scope.submit();
        #[cfg(bad)]
        kept.replace(scope); //~ E0521
    });
    #[cfg(bad)]
    drop(kept);
}
