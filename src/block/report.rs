//! What a device picked, and why.

use std::fmt;

use crate::Unavailable;
use crate::block::Backend;

/// What a device picked when it was opened and since, and why. Printed, it is a line for each thing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The way that the blocks are reached.
    pub backend: Backend,
    /// Why it is not io_uring, where it could have been.
    pub fallback_reason: Option<Unavailable>,
    /// Past the page cache.
    pub direct: bool,
    /// Registered buffers are in use on every ring that was made so far.
    pub registered_buffers: bool,
    /// A sentence for each thing that was asked for and could not be had, in the order in which it was found out.
    pub degraded: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend: {}", self.backend)?;
        if let Some(reason) = &self.fallback_reason {
            write!(f, " ({reason})")?;
        }
        write!(f, "\npage cache: {}", if self.direct { "bypassed (O_DIRECT)" } else { "used" })?;
        if self.backend == Backend::Uring {
            let registered = if self.registered_buffers { "registered" } else { "not registered" };
            write!(f, "\nbuffers: {registered}")?;
        }
        self.degraded.iter().try_for_each(|sentence| write!(f, "\ndegraded: {sentence}"))
    }
}
