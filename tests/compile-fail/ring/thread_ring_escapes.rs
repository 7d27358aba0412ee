//! R8: a thread's ring ends with the thread, and is used by others on it: nobody keeps it.
use sysuring::{Result, ThreadRings};

pub fn case() -> Result<()> {
    #[cfg(bad)]
    let _ = ThreadRings::with(8, |ring| ring)?; //~ lifetime may not live long enough
    let _ = ThreadRings::with(8, |ring| ring.sq_entries())?;
    Ok(())
}
