//! R1: a slot that was given back is somebody else's; no reference into it remains.
use sysuring::{Buf, Pool};

pub fn case(pool: &Pool) {
    #[cfg(bad)]
    let bytes: &[u8];
    #[cfg(not(bad))]
    let bytes: Vec<u8>;
    {
        let buf: Buf = pool.lease().unwrap();
        #[cfg(bad)]
        let taken = &buf; //~ E0597
        #[cfg(not(bad))]
        let taken = buf.to_vec();
        bytes = taken;
    }
    println!("{}", bytes[0]);
}
