//! A ring that takes no buffers of the caller's own gives none back: there is no such value.
use sysuring::{Done, NoBuffers};

pub fn case(done: Done) -> Option<NoBuffers> {
    #[cfg(bad)]
    return Some(NoBuffers); //~ E0423
    #[cfg(not(bad))]
    done.into_owned()
}
