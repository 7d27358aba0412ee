//! What was not started comes back once.
use sysuring::{Buf, Rejected};

pub fn case(rejected: Rejected<Buf>) -> Buf {
    let buf = rejected.into_inner();
    #[cfg(bad)]
    drop(rejected.into_inner()); //~ E0382
    buf
}
