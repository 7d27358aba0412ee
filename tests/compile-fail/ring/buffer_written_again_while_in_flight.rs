//! R1: a slot has one owner: it can't be lent to two operations.
use sysuring::{Buf, FixedFile, Operations as _, Ring};

pub fn case(ring: &mut Ring, file: &FixedFile, buf: Buf) {
    let _ = ring.write_fixed(file, buf, 512, 0);
    #[cfg(bad)]
    let _ = ring.read_fixed(file, buf, 512, 0); //~ E0382
}
