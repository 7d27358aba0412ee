//! liburing from your distribution, in safe Rust, and a block device that works everywhere and says why when it falls back.
//!
//! * **A block device.** [`block::open`] gives numbered blocks over a file or a disk, through io_uring where it works and
//!   through `pread`/`pwrite` where it does not. Start here.
//! * **A safe ring.** [`Ring`] lends memory to the kernel and gets it back with the completion; no use of it, and no way of
//!   ending it, lets the kernel write to memory that is somebody else's by then. [`SharedRing`] is one for several threads,
//!   [`ThreadRings`] gives each thread its own.
//! * **A raw ring.** [`Ring::get_sqe`] has liburing's own helpers, under their own names and obligations, on the same ring;
//!   [`sys`] is all of liburing as C declares it.
//! * **An answer.** [`available`] says whether io_uring can be used here, and if not, why and what to do.
//!
//! # How a ring works
//!
//! A ring is two queues in memory that the program and the kernel share. An operation is started by filling an entry of the
//! *submission queue*: a method of [`Operations`] does that, and answers with a [`Ticket`]. Nothing has happened yet.
//! [`Ring::submit`] tells the kernel of all that was started, in one system call. When an operation ends, in whatever order,
//! the kernel puts its result into the *completion queue*, and [`Ring::completions`] takes it from there, without a call:
//! a [`Done`] with the ticket, the result, and what the operation had taken.
//!
//! Between the two the kernel may use the memory at any time. Neither asking for an end ([`Ring::cancel`]) nor closing the
//! ring changes that; only the completion does. So the ring's *table* owns what an operation uses until then, and there are
//! three ways to lend memory:
//!
//! | | the memory | the price |
//! |---|---|---|
//! | [leases](Pool): [`Operations::read_fixed`], [`Operations::read`] … | slots of a pool; [`Done::into_buf`] gives them back | data lives in the pool; no other way is as fast |
//! | [by move](OpRing): [`Operations::read_owned`] … | a `Vec<u8>`, or whatever is [`StableBuf`]; [`Done::into_owned`] gives it back | a ring dropped too early waits, and leaks what does not end |
//! | [`Ring::scope`] | borrowed, as with `std::thread::scope` | returns when the last operation has ended, however long that takes |
//!
//! Buffers that the kernel picks itself when something arrives are [`Ring::provide_buffers`]. Operations that depend on each
//! other are a [`Ring::chain`]; those that report more than once (accept, receive, poll) say [`Completion::More`] until they
//! are [`Completion::Done`].
//!
//! NVMe passthrough needs larger entries in both queues: that is another type of ring, [`RingBuilder::big_entries`].
//!
//! What can fail: an operation that could not be started ([`Rejected`] gives back what it was given, with the reason), the
//! submit ([`Ring::submit`]; what was started stays so), and the operation itself ([`Done::result`]).
//!
//! # The library
//!
//! liburing is the distribution's. With the feature `dlopen` (the default) a program finds `liburing.so.2` when it runs, and
//! goes on without; with `link` it is linked to it. Both together are linked, and called by pointer. The header that the
//! program was built with and the library that it runs with may differ, from liburing 2.3 on: [`Library`] tells both.
//!
//! # Words
//!
//! * A *lease* ([`Buf`]) is a slot of a [`Pool`] in somebody's hands. The kernel takes it for the time of an operation and the
//!   completion gives it back; a call that starts nothing gives it back at once, inside of [`Rejected`].
//! * The *table* of a ring has an entry for each operation that was started and has not been taken, and owns what the operation
//!   uses; it has as many entries as the completion queue.
//! * *Raw* is what goes through [`Ring::get_sqe`]: liburing's helpers and obligations. A *tag* in the top two bits of
//!   `user_data` keeps it apart from the rest.
//! * A pool is *retired* when its last handle goes while the kernel may still write to it: its addresses are never used again.
//! * A ring is *poisoned* when the kernel had to drop completions; it cannot be used any more.
//!
//! # What is shared, and how many
//!
//! | | unless set | by |
//! |---|---|---|
//! | operations in flight of calls that block, per device and thread | 64 | `block::Options::queue_depth` |
//! | requests in flight on a queue of a device | | `block::Device::queue`, each for itself |
//! | futures in flight, all devices together, on each ring that the process has for them: one for each processor, 8 at most | 256 | |
//! | futures in flight of a device on `pread`/`pwrite` | 64 | `block::Options::queue_depth` |
//! | memory that a device registers on each of its rings | 1 MiB | `block::Options::pool_size` |
//! | threads with a ring of their own; others share one, which is no fault and not reported | the number of processors | [`ThreadRings::set_limit`] |
//! | files registered on a ring | 64 | [`RingBuilder::files`] |
//!
//! # Features
//!
//! * `dlopen` (default), `link`: how liburing is reached. With neither, and on other systems than Linux, there is no ring,
//!   and the block device has its `pread`/`pwrite` backend only.
//! * `block` (default): the block device.
//! * `nvme`: NVMe commands passed through to a namespace, as a block device and beyond (`block::nvme`); nothing without a ring.
#![cfg_attr(not(all(uring, feature = "block")), allow(rustdoc::broken_intra_doc_links))]

/// The examples of the README are compiled.
#[cfg(all(doctest, uring, feature = "block"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(uring)]
#[macro_use]
mod reference;

mod available;
mod error;
mod library;
mod probe;

#[cfg(feature = "block")]
pub mod block;

#[cfg(uring)]
mod address;
#[cfg(uring)]
mod builder;
#[cfg(uring)]
mod chain;
#[cfg(uring)]
mod completion;
#[cfg(uring)]
mod core;
#[cfg(all(test, uring))]
mod coverage;
#[cfg(uring)]
mod cqe;
#[cfg(uring)]
mod entries;
#[cfg(uring)]
mod file;
#[cfg(uring)]
mod fork;
#[cfg(uring)]
mod free_list;
#[cfg(uring)]
mod huge_pages;
#[cfg(uring)]
mod leader;
#[cfg(uring)]
mod mailbox;
#[cfg(uring)]
mod mapping;
#[cfg(uring)]
mod message;
#[cfg(all(test, uring))]
mod model;
#[cfg(uring)]
mod multishot;
#[cfg(uring)]
mod operations;
#[cfg(uring)]
mod parcel;
#[cfg(uring)]
pub mod pool;
#[cfg(uring)]
mod provided;
#[cfg(uring)]
mod queues;
/// Shared with the integration tests, which use all of it.
#[allow(dead_code)]
#[cfg(test)]
#[path = "../tests/common/random.rs"]
mod random;
#[cfg(uring)]
mod raw_ring;
#[cfg(uring)]
mod register;
#[cfg(uring)]
mod registered;
#[cfg(uring)]
mod rejected;
#[cfg(uring)]
mod ring;
#[cfg(uring)]
mod scope;
#[cfg(uring)]
mod shared;
#[cfg(uring)]
mod sqe;
#[cfg(uring)]
mod stable;
#[cfg(uring)]
mod sync;
#[cfg(uring)]
mod table;
#[cfg(uring)]
mod thread_rings;

pub use available::{Reason, Unavailable, available};
pub use error::{Error, ErrorKind, Result};
pub use library::Library;
pub use probe::Probe;

#[cfg(uring)]
pub use {
    self::core::leaked_operations,
    address::SocketAddress,
    builder::{RingBuilder, SetupFlags},
    chain::{Chain, WithFlags},
    completion::{Completion, Completions, Done, More},
    cqe::Cqe,
    entries::{BigEntries, Entries, SmallEntries},
    file::FixedFile,
    mailbox::Mailbox,
    message::{Message, SendMessage},
    operations::{Directory, FileRef, OpenHow, Operations},
    pool::{Buf, Pool},
    provided::{ProvidedBuf, ProvidedBuffers, Received},
    rejected::{RejectReason, Rejected},
    ring::{DisabledRing, OpRing, Ring},
    scope::{Scope, ScopedFile, ScopedOperation},
    shared::SharedRing,
    sqe::{Queued, Sqe, SqeFlags, UserData},
    stable::StableBuf,
    table::{NoBuffers, Ticket},
    thread_rings::ThreadRings,
};

/// All of liburing as C declares it.
#[cfg(uring)]
pub use liburing_sys as sys;

/// The numbers and structures of C that operations speak of (`O_RDONLY`, `MSG_TRUNC`, `statx`), in the version whose types
/// this crate has.
#[cfg(uring)]
pub use libc;
