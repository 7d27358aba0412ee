//! A ring that takes no buffers of the caller's own takes none.
use sysuring::{FixedFile, OpRing, Operations as _, Ring};

pub fn case(ring: &mut Ring, owning: &mut OpRing<Vec<u8>>, file: &FixedFile) {
    #[cfg(bad)]
    let _ = ring.read_owned(file, vec![0; 512], 0); //~ E0308 E0277
    let _ = ring.submit();
    let _ = owning.read_owned(file, vec![0; 512], 0);
}
