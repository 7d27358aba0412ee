//! What threads share is made of these: the standard library's, or loom's, which tries all the ways in which threads can
//! meet (`scripts/loom`).

#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
