//! How large the entries of a ring's queues are.

use std::fmt::Debug;

use liburing_sys as sys;

/// The size of a ring's entries: [`SmallEntries`] or [`BigEntries`].
pub trait Entries: layout::Layout {}

/// Submission entries of 64 bytes and completion entries of 16, as most operations need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SmallEntries {}

/// Submission entries of 128 bytes and completion entries of 32, as NVMe passthrough needs (since Linux 5.19); see
/// [`RingBuilder::big_entries`](crate::RingBuilder::big_entries).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BigEntries {}

impl Entries for SmallEntries {}
impl Entries for BigEntries {}

pub(crate) mod layout {
    use super::{BigEntries, Debug, SmallEntries, sys};

    /// Only this crate implements it.
    pub trait Layout: Debug + Copy + Eq + 'static {
        /// What a ring with such entries is set up with.
        #[doc(hidden)]
        const FLAGS: u32;

        /// log2 of the size of an entry in units of the small one, in either queue.
        #[doc(hidden)]
        const SHIFT: u32;

        /// What a command has room for in an entry.
        type Payload: AsRef<[u8]>;

        /// What a completion has beyond the small one.
        type Extra: Debug + Copy + Eq;

        /// Copies the rest of a completion.
        ///
        /// # Safety
        ///
        /// `cqe` is an entry of a ring that was set up with `FLAGS`, and the kernel has filled it.
        #[doc(hidden)]
        unsafe fn extra(cqe: *const sys::io_uring_cqe) -> Self::Extra;
    }

    impl Layout for SmallEntries {
        const FLAGS: u32 = 0;
        const SHIFT: u32 = 0;
        type Payload = [u8; 16];
        type Extra = ();

        #[inline(always)]
        unsafe fn extra(_: *const sys::io_uring_cqe) {}
    }

    impl Layout for BigEntries {
        const FLAGS: u32 = sys::IORING_SETUP_SQE128 | sys::IORING_SETUP_CQE32;
        const SHIFT: u32 = 1;
        type Payload = [u8; 80];
        type Extra = [u64; 2];

        #[inline(always)]
        unsafe fn extra(cqe: *const sys::io_uring_cqe) -> [u64; 2] {
            // SAFETY: an entry of this ring is twice as large as the structure, which the caller vouches for.
            unsafe { cqe.add(1).cast::<[u64; 2]>().read() }
        }
    }
}
