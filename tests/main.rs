//! The library from outside: what a user can do, and what must not happen whatever they do.
//!
//! The rules of the ring, and where each is attacked. `scripts/mutants` builds a mistake against most of them into the library,
//! and requires that a test notices.
//!
//! | rule | tests |
//! |---|---|
//! | memory is the table's until the final completion; an error of a submit gives nothing back | `model`, `drop`, `table` |
//! | final is a completion without F_MORE | `table`, `model`, `operations::sockets_connect_send_and_receive` |
//! | a ring that goes gives nothing back that the kernel may use | `drop`, `teardown`, `model` |
//! | no stale or foreign completion finds an operation | `forge`, `table`, `model` |
//! | no head of the queue beside the kernel's | `ring::a_forgotten_iterator_replays_nothing`, `model` |
//! | the tail moves when an entry is complete, for a chain when all are | `ring::an_abandoned_entry_is_never_executed`, `chain`, `model` |
//! | CQE_SKIP_SUCCESS is for raw entries only | `tests/compile-fail` |
//! | a ring is its thread's | `tests/compile-fail`, `setup` |
//! | nothing relies on a destructor of the user's values | `drop::a_forgotten_ring_and_forgotten_leases_are_leaks_and_no_more`, `model` |
//! | no code of the user runs while the table is borrowed | `operations::a_buffer_that_unwinds_when_asked_for_its_memory_starts_nothing` |
//! | in flight is at most what completions fit | `ring::a_cancel_takes_no_place_that_a_raw_completion_needs`, `model` |
//! | the child of a fork has no ring | `fork` |

mod common;

#[cfg(feature = "block")]
mod device;
#[cfg(target_os = "linux")]
#[cfg(any(feature = "link", feature = "dlopen"))]
mod uring {
    mod chain;
    #[cfg(feature = "block")]
    mod disabled;
    #[cfg(feature = "block")]
    mod disk;
    mod drop;
    mod forge;
    mod fork;
    #[cfg(feature = "block")]
    mod hung;
    mod model;
    mod operations;
    #[cfg(feature = "block")]
    mod process;
    mod provided;
    mod raw;
    mod register;
    mod ring;
    mod scope;
    mod setup;
    mod shared;
    mod teardown;
    #[cfg(feature = "block")]
    mod threads;
}
