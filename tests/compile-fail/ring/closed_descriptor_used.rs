//! R1: a descriptor that an operation closes is the operation's.
use std::os::fd::{AsRawFd as _, OwnedFd};

use sysuring::{Operations as _, Ring};

pub fn case(ring: &mut Ring, descriptor: OwnedFd) {
    println!("{}", descriptor.as_raw_fd());
    let _ = ring.close(descriptor);
    #[cfg(bad)]
    println!("{}", descriptor.as_raw_fd()); //~ E0382
}
