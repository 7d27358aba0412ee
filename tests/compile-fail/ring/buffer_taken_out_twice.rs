//! What an operation holds comes out once.
use sysuring::{Buf, Done};

pub fn case(done: Done) -> (Option<Buf>, Option<Buf>) {
    let first = done.into_buf();
    #[cfg(bad)]
    let second = done.into_buf(); //~ E0382
    #[cfg(not(bad))]
    let second = None;
    (first, second)
}
