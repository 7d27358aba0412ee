//! R1: a lease is exclusive: there are no two owners of one slot.
use sysuring::{Buf, Pool};

pub fn case(pool: &Pool, buf: &Buf) -> (Option<Buf>, usize) {
    #[cfg(bad)]
    let _: Buf = buf.clone(); //~ E0308
    (pool.lease(), buf.len())
}
