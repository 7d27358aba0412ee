//! What threads share is made of these: the standard library's, or loom's, which tries all the ways in which threads can
//! meet (`scripts/loom`).

#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

#[cfg(all(test, loom))]
pub(crate) use {
    loom::sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    std::sync::PoisonError,
};

/// Tries `program` in all the ways in which its threads can meet, and says how many those were. `switches` is how often a
/// thread is stopped that could go on: what more of that shows is little, and takes long.
#[cfg(all(test, loom))]
#[track_caller]
pub(crate) fn model(switches: usize, program: impl Fn() + Sync + Send + 'static) {
    use std::sync::{Arc, atomic::AtomicUsize};

    let place = std::panic::Location::caller();
    let (started, ways) = (std::time::Instant::now(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&ways);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        program();
    });
    let ways = ways.load(Ordering::Relaxed);
    println!("{}:{}: {ways} ways in {:?}", place.file(), place.line(), started.elapsed());
}
