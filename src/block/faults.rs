//! Faults below a block device: a disk in memory whose kernel does whatever a kernel may do with a transfer.
//!
//! [`platform`] stands for the system calls below a [`Target`](super::target::Target), [`kernel`] for the kernel below rings:
//! both carry out transfers on a [`Disk`], which has them fail, end short and end at last as its seed wills it. [`programs`] are
//! programs that chance writes, and what is looked at after every step.
//!
//! `cargo test -p sysuring --lib faults` runs some, with seeds from the clock; see [`crate::random`] for what to set.

pub(crate) mod disk;
#[cfg(uring)]
pub(crate) mod kernel;
pub(crate) mod platform;
mod programs;
