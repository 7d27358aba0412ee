//! R8: a thread's ring is used on that thread.
use sysuring::{Result, ThreadRings};

pub fn case() -> Result<()> {
    ThreadRings::with(8, |ring| {
        std::thread::scope(|threads| {
            #[cfg(bad)]
            threads.spawn(|| ring.submit()); //~ E0277
            threads.spawn(|| ThreadRings::with(8, |ring| ring.submit()));
            let _ = ring.sq_entries();
        });
    })
}
