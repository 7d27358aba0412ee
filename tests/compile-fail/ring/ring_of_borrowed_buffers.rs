//! R9: an operation may outlast everything but the program: no ring owns borrowed memory.
use sysuring::{OpRing, Result, Ring};

pub fn case() -> Result<OpRing<Vec<u8>>> {
    #[cfg(bad)]
    let _: OpRing<&mut [u8]> = Ring::builder(8).build_owned()?; //~ E0277
    Ring::builder(8).build_owned()
}
