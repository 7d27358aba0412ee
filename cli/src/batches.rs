//! Work on all blocks of a device, shared among threads a batch at a time.

use std::ops::Range;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::Result;

/// How many blocks there are, and how they are shared out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Blocks to work on, numbered from 0.
    pub(crate) blocks: u64,
    /// Blocks in a batch: what a thread takes at once.
    pub(crate) batch: u64,
    /// Threads to start at most.
    pub(crate) threads: usize,
}

/// Calls `step` for every batch of the plan, on several threads, each with its own state from `prepare`.
///
/// Batches are handed out in order, and none any more after an error: the error that is returned is that of the lowest
/// batch that has one.
pub(crate) fn for_each_batch<State>(
    plan: &Plan,
    prepare: impl Fn() -> Result<State> + Sync,
    step: impl Fn(&mut State, Range<u64>) -> Result<()> + Sync,
) -> Result<()> {
    let batches = plan.blocks.div_ceil(plan.batch);
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> Result<(), (u64, anyhow::Error)> {
        let mut state = None;
        while !failed.load(Ordering::Relaxed) {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= batches {
                break;
            }
            let first = batch * plan.batch;
            let range = first..(first + plan.batch).min(plan.blocks);
            let result = match &mut state {
                Some(state) => step(state, range),
                None => prepare().and_then(|prepared| step(state.insert(prepared), range)),
            };
            if let Err(error) = result {
                failed.store(true, Ordering::Relaxed);
                return Err((batch, error));
            }
        }
        Ok(())
    };

    let threads = plan.threads.min(usize::try_from(batches).unwrap_or(usize::MAX));
    let errors: Vec<_> = thread::scope(|scope| {
        // This thread works as well; where there may be no more of them, those that there are do all of it.
        let others: Vec<_> =
            (1..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let own = work();
        let others =
            others.into_iter().map(|thread| thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload)));
        [own].into_iter().chain(others).filter_map(Result::err).collect()
    });
    match errors.into_iter().min_by_key(|(batch, _)| *batch) {
        None => Ok(()),
        Some((_, error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use anyhow::bail;

    use super::*;

    #[test]
    fn every_block_is_worked_on_once() {
        for (blocks, batch, threads) in [(0, 8, 4), (1, 8, 4), (7, 8, 1), (8, 8, 2), (1001, 8, 5)] {
            let seen = Mutex::new(Vec::new());
            let step = |(): &mut (), range| {
                seen.lock().unwrap().extend(range);
                Ok(())
            };
            for_each_batch(&Plan { blocks, batch, threads }, || Ok(()), step).unwrap();
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, (0..blocks).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_lowest_failure_wins_and_ends_the_work() {
        let steps = AtomicU64::new(0);
        let step = |(): &mut (), range: Range<u64>| {
            steps.fetch_add(1, Ordering::Relaxed);
            if range.start >= 50 {
                bail!("{}", range.start)
            }
            Ok(())
        };
        let plan = Plan { blocks: 1_000_000, batch: 1, threads: 4 };
        let error = for_each_batch(&plan, || Ok(()), step).unwrap_err();
        assert_eq!(error.to_string(), "50");
        assert!(steps.into_inner() <= 50 + 4);
    }

    #[test]
    fn a_state_that_cannot_be_made_is_an_error() {
        let plan = Plan { blocks: 10, batch: 1, threads: 2 };
        let error = for_each_batch::<()>(&plan, || bail!("no memory"), |(), _| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "no memory");
    }
}
