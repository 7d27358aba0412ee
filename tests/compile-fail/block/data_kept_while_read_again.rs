//! R1: what a request shows is not looked at while it is read again.
use sysuring::block::{BlockDevice, ReadRequest};

pub fn case(device: &dyn BlockDevice, requests: &mut [ReadRequest<'_>]) -> u8 {
    let data = requests[0].data();
    #[cfg(not(bad))]
    let data = data.to_vec();
    let _ = device.read_blocks(requests); //~ E0502
    data[0]
}
