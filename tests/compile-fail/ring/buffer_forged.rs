//! R1: only a pool makes leases.
use sysuring::{Buf, Pool};

pub fn case(pool: &Pool) -> Option<Buf> {
    #[cfg(bad)]
    let _ = Buf { ..todo!() }; //~ E0451
    pool.lease()
}
