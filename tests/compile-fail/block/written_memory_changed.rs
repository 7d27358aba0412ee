//! R1: memory that a request writes out is not changed while the request is there.
use sysuring::block::{BlockDevice, WriteRequest};

pub fn case(device: &dyn BlockDevice) {
    let mut memory = [0; 4096];
    let mut requests = [WriteRequest::new(0, &memory)];
    #[cfg(bad)]
    memory.fill(1); //~ E0502
    let _ = device.write_blocks(&mut requests);
    memory.fill(1);
}
