//! The library from outside: what a user can do, and what must not happen whatever they do.
//!
//! The rules of the ring, and where each is attacked. `scripts/mutants` builds mistakes against them into the library, one at
//! a time, and requires that a test notices. What the kernel does that makes them necessary is in `uring/facts.rs`; what
//! threads share is tried in all the ways in which they can meet by `scripts/loom`.
//!
//! | | rule | tests | mistakes |
//! |---|---|---|---|
//! | R1 | memory is the table's until the final completion; an error of a submit gives nothing back | `model`, `drop`, `table` | `r1_error`, `r1_file` |
//! | R2 | final is a completion without F_MORE | `table`, `model`, `operations::sockets_connect_send_and_receive` | `r2_more` |
//! | R3 | a ring that goes gives nothing back that the kernel may use | `drop`, `teardown`, `model` | `r3_unmap`, `r3_free` |
//! | R4 | no stale or foreign completion finds an operation | `forge`, `table`, `model` | `r4_generation`, `r4_twice`, `r4_tag` |
//! | R5 | no head of the queue beside the kernel's | `ring::a_forgotten_iterator_replays_nothing`, `ring::c_code_on_the_same_ring_…`, `model` | `r5_head` |
//! | R6 | the tail moves when an entry is complete, for a chain when all are | `ring::an_abandoned_entry_is_never_executed`, `chain`, `model` | `r6_tail`, `r6_cut` |
//! | R7 | CQE_SKIP_SUCCESS is for raw entries only | `tests/compile-fail`, `ring::operations_with_flags_have_their_completion`, `model` | `r7_flags`, `r7_skip` |
//! | R8 | a ring is its thread's | `tests/compile-fail`, `setup` | `r8_send` |
//! | R9 | nothing relies on a destructor of the user's values | `drop::a_forgotten_ring_and_forgotten_leases_are_leaks_and_no_more`, `scope`, `model` | `r5_head`, `r9_scope` |
//! | R10 | no code of the user runs while the table is borrowed | `chain::buffers_of_a_chain_that_is_given_up_…`, `operations::a_buffer_that_unwinds_…` | `r10_chain`, `r10_unwind` |
//! | R11 | in flight is at most what completions fit | `ring::a_cancel_takes_no_place_that_a_raw_completion_needs`, `model` | `r11_limit` |
//! | R12 | the child of a fork has no ring | `fork` | `r12_fork`, `r12_wipe` |

mod common;

#[cfg(feature = "block")]
mod device;
#[cfg(target_os = "linux")]
#[cfg(all(feature = "nvme", any(feature = "link", feature = "dlopen")))]
mod nvme;
#[cfg(target_os = "linux")]
#[cfg(any(feature = "link", feature = "dlopen"))]
mod uring {
    mod chain;
    mod direct;
    #[cfg(feature = "block")]
    mod disabled;
    #[cfg(feature = "block")]
    mod disk;
    mod drop;
    mod facts;
    mod forge;
    mod fork;
    #[cfg(feature = "block")]
    mod hung;
    mod mailbox;
    mod message;
    mod mixed;
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
