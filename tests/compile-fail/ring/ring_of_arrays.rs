//! The bytes of an array move along with it: the kernel would write to where they were.
use sysuring::{OpRing, Result, Ring};

pub fn case() -> Result<OpRing<Box<[u8]>>> {
    #[cfg(bad)]
    let _: OpRing<[u8; 512]> = Ring::builder(8).build_owned()?; //~ E0277
    Ring::builder(8).build_owned()
}
