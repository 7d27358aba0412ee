//! What is compared with what.

use crate::side::Open;
use crate::{baseline, device, futures};

/// What the ratio of two sides is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// Time, as a multiple of the peer's.
    TimeAtMost(f64),
    /// Operations in a second, as a multiple of the peer's.
    RateAtLeast(f64),
}

/// Something that is measured, with the name that it has in a table.
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) open: Open,
}

/// One way to use the device, and what it is compared with: all are measured in turn.
pub(crate) struct Group {
    pub(crate) subject: Named,
    pub(crate) peers: Vec<(Named, Option<Goal>)>,
}

fn group(name: &'static str, open: Open) -> Group {
    Group { subject: Named { name, open }, peers: Vec::new() }
}

impl Group {
    fn against(mut self, name: &'static str, open: Open, goal: impl Into<Option<Goal>>) -> Self {
        self.peers.push((Named { name, open }, goal.into()));
        self
    }

    pub(crate) fn sides(&self) -> impl Iterator<Item = &Named> {
        std::iter::once(&self.subject).chain(self.peers.iter().map(|(peer, _)| peer))
    }
}

const C_32: &str = "C, 32 in flight";
const C_1: &str = "C, one at a time";
const PREAD: &str = "`pread`";
const QUEUE: &str = "`Queue`, 32 in flight";

/// With goals: past the page cache, or through it.
pub(crate) fn with_goals(direct: bool) -> Vec<Group> {
    use Goal::{RateAtLeast, TimeAtMost};

    let mut groups = vec![
        group(QUEUE, device::queue_read).against(C_32, baseline::read_32, TimeAtMost(1.02)),
        group("`read_block`", device::read_block).against(C_1, baseline::read_1, TimeAtMost(1.05)).against(
            PREAD,
            baseline::pread,
            None,
        ),
        group("`read_blocks`, 32 of them", device::read_blocks)
            .against("32 times `pread`", baseline::pread, direct.then_some(RateAtLeast(3.0)))
            .against("C, batches of 32", baseline::read_batches, None),
        group("futures with a `Reactor`, 32 tasks", futures::with_reactor)
            .against("tokio-uring, 32 tasks", futures::tokio_uring, TimeAtMost(1.0))
            .against("compio, 32 tasks", futures::compio, TimeAtMost(1.0))
            .against("tokio's blocking pool, 32 tasks", futures::blocking_pool, None),
        group("futures, two threads, 32 tasks", futures::on_two_threads).against(
            "tokio's blocking pool, two threads, 32 tasks",
            futures::blocking_pool_on_two_threads,
            (!direct).then_some(RateAtLeast(3.0)),
        ),
        group("file backend, `read_block`", device::read_block_of_file).against(
            PREAD,
            baseline::pread,
            TimeAtMost(1.03),
        ),
    ];
    if direct {
        groups.insert(
            1,
            group("`Queue`, 32 writes in flight", device::queue_write).against(
                "C, 32 writes in flight",
                baseline::write_32,
                TimeAtMost(1.02),
            ),
        );
    }
    groups
}

/// What costs more than it might, without a goal.
pub(crate) fn without_goals() -> Vec<Group> {
    vec![
        group("`read_block`, unaligned memory", device::read_block_unaligned)
            .against("`read_block`", device::read_block, None)
            .against(PREAD, baseline::pread, None),
        group("futures, one thread, no `Reactor`, 32 tasks", futures::without_reactor)
            .against("futures with a `Reactor`, 32 tasks", futures::with_reactor, None)
            .against("tokio's blocking pool, 32 tasks", futures::blocking_pool, None),
        group("futures with a `Reactor`, one task", futures::with_reactor_1)
            .against("tokio-uring, one task", futures::tokio_uring_1, None)
            .against("compio, one task", futures::compio_1, None)
            .against("tokio's blocking pool, one task", futures::blocking_pool_1, None)
            .against(PREAD, baseline::pread, None),
        group("file backend, `read_blocks`, 32 of them", device::read_blocks_of_file).against(
            "32 times `pread`",
            baseline::pread,
            None,
        ),
    ]
}
