//! R1: nobody may look at memory that the kernel writes to, through a reference from before either.
use sysuring::{Buf, FixedFile, Operations as _, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile, buf: Buf) {
    #[cfg(bad)]
    let before: &[u8] = &buf;
    #[cfg(not(bad))]
    let before: Vec<u8> = buf.to_vec();
    let _ = ring.read_fixed(file, buf, 512, 0); //~ E0505
    println!("{}", before[0]);
}
