//! A buffer that is moved in has one owner, so that nobody looks at it meanwhile.
use std::sync::Arc;

use sysuring::{OpRing, Result, Ring};

pub fn case() -> Result<OpRing<Vec<u8>>> {
    #[cfg(bad)]
    let _: OpRing<Arc<[u8]>> = Ring::builder(8).build_owned()?; //~ E0277
    println!("{}", Arc::<[u8]>::default().len());
    Ring::builder(8).build_owned()
}
