//! R1: memory belongs to the table from before its entry is visible: `read_fixed` takes the lease.
use sysuring::{Buf, FixedFile, Operations as _, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile, buf: Buf) {
    let _ = ring.read_fixed(file, buf, 512, 0);
    #[cfg(bad)]
    println!("{}", buf[0]); //~ E0382
}
