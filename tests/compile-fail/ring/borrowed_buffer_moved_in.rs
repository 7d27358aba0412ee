//! R9: an operation may outlast everything but the program: what it owns borrows nothing.
use sysuring::{FixedFile, OpRing, Operations as _};

pub fn case(ring: &mut OpRing<Vec<u8>>, file: &FixedFile, memory: &mut Vec<u8>) {
    #[cfg(bad)]
    let _ = ring.read_owned(file, memory, 0); //~ E0308
    #[cfg(not(bad))]
    let _ = ring.read_owned(file, std::mem::take(memory), 0);
}
