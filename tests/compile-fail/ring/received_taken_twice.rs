//! What an operation received comes out once.
use sysuring::{More, Received};

pub fn case(more: More) -> (Option<Received>, Option<Received>) {
    let first = more.into_received();
    #[cfg(bad)]
    let second = more.into_received(); //~ E0382
    #[cfg(not(bad))]
    let second = None;
    (first, second)
}
