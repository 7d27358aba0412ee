//! R1: no two requests read into one piece of memory.
use sysuring::block::{BlockDevice, ReadRequest};

pub fn case(device: &dyn BlockDevice) {
    let mut memory = [0; 8192];
    let (first, second) = memory.split_at_mut(4096);
    #[cfg(bad)]
    let mut requests = [ReadRequest::new(0, first), ReadRequest::new(1, first)]; //~ E0499
    #[cfg(not(bad))]
    let mut requests = [ReadRequest::new(0, first), ReadRequest::new(1, second)];
    let _ = device.read_blocks(&mut requests);
}
