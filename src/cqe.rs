//! What the kernel says of an entry.

use crate::entries::{Entries, SmallEntries};
use crate::error::{Result, check};

/// A completion queue entry, copied out of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cqe<E: Entries = SmallEntries> {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
    pub(crate) extra: E::Extra,
}

impl<E: Entries> Cqe<E> {
    /// What the entry was given by [`Queued::set_data64`](crate::Queued::set_data64).
    #[doc(alias("io_uring_cqe_get_data64", "io_uring_cqe_get_data"))]
    #[must_use]
    #[inline]
    pub fn user_data(&self) -> u64 {
        self.user_data
    }

    /// The kernel's result: for most operations a count, or `-errno`.
    #[must_use]
    #[inline]
    pub fn raw_result(&self) -> i32 {
        self.result
    }

    /// The result, with `-errno` as an error.
    ///
    /// # Errors
    ///
    /// What the kernel reported.
    #[inline]
    pub fn result(&self) -> Result<u32> {
        check(self.result, "io_uring operation")
    }

    /// `IORING_CQE_F_*`.
    #[must_use]
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// The rest of a big entry: for NVMe passthrough, the result that the device gave (`u64`) and nothing.
    #[doc(alias = "big_cqe")]
    #[must_use]
    #[inline]
    pub fn extra(&self) -> E::Extra {
        self.extra
    }
}
