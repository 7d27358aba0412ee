//! A ring does nothing else while a scope is open on it: it could be dropped, or the scope's completions taken.
use sysuring::Ring;

pub fn case(ring: &mut Ring) {
    #[cfg(bad)]
    ring.scope(|scope| {
        //~^ E0500 E0501
        let _ = scope.submit();
        let _ = ring.submit();
    });
    #[cfg(not(bad))]
    ring.scope(|scope| {
        let _ = scope.submit();
    });
    let _ = ring.submit();
}
