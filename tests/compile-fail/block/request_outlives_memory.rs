//! R1: the memory of a request lives as long as the request.
use sysuring::block::{BlockDevice, ReadRequest};

pub fn case(device: &dyn BlockDevice) {
    #[cfg(not(bad))]
    let mut memory = [0; 4096];
    let mut requests = Vec::new();
    {
        #[cfg(bad)]
        let mut memory = [0; 4096];
        requests.push(ReadRequest::new(0, &mut memory)); //~ E0597
    }
    let _ = device.read_blocks(&mut requests);
}
