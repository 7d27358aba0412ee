//! R1: a buffer that was moved in is the operation's.
use sysuring::{FixedFile, OpRing, Operations as _};

pub fn case(ring: &mut OpRing<Vec<u8>>, file: &FixedFile, buffer: Vec<u8>) {
    let _ = ring.write_owned(file, buffer, 0);
    #[cfg(bad)]
    println!("{}", buffer.len()); //~ E0382
}
