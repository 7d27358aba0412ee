//! R1: the memory of a request is the request's, which shows it.
use sysuring::block::{BlockDevice, ReadRequest};

pub fn case(device: &dyn BlockDevice) {
    let mut memory = [0; 4096];
    let mut requests = [ReadRequest::new(0, &mut memory)];
    #[cfg(bad)]
    memory.fill(1); //~ E0499
    let _ = device.read_blocks(&mut requests);
    println!("{}", requests[0].data()[0]);
    memory.fill(1);
}
