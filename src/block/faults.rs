//! Faults below a block device: a disk in memory whose kernel does whatever a kernel may do with a transfer.
//!
//! [`platform`] stands for the system calls below a [`Target`](super::target::Target), [`kernel`] for the kernel below rings:
//! both carry out transfers on a [`Disk`](disk::Disk), which has them fail, end short and end at last as its seed wills it.
//!
//! [`programs`] are programs that chance writes of calls that block, and what is looked at after every step; [`queues`] and
//! [`tasks`] those of queues and of futures, with many requests in flight, of which [`flight`] knows what they may find.
//! [`watch`] ends what hangs, and prints the last steps of what fails.
//!
//! What the kernel can do: read, write, flush and cancel, in any order, in part, late, or not at all; post completions when it is
//! asked, or before; take a part of what is submitted, none of it, or fail for good; register files, buffers and an eventfd,
//! or refuse to; and carry out what a ring that was closed left behind. What it can't: lose completions, poll, have a thread of
//! its own, or let time pass: a wait with a limit ends when chance says so. A ring of several threads is entered by them in any
//! order, and what comes of that is not the same for the same seed; what becomes of a transfer is.
//!
//! `cargo test -p sysuring --lib faults` runs some, with seeds from the clock; see [`crate::random`] for what to set.

pub(crate) mod disk;
mod flight;
#[cfg(uring)]
pub(crate) mod kernel;
pub(crate) mod platform;
mod programs;
mod queues;
mod tasks;
mod watch;
