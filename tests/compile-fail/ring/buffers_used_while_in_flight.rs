//! R1: a vectored operation takes all of its leases.
use sysuring::{Buf, FixedFile, Operations as _, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile, bufs: Vec<Buf>) {
    let _ = ring.read_vectored(file, bufs, 512, 0);
    #[cfg(bad)]
    println!("{}", bufs.len()); //~ E0382
}
