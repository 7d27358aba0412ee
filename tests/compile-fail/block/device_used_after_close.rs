//! R3: closing a device ends its use.
use sysuring::block::{BlockDevice as _, Device};

pub fn case(device: Device) {
    let _ = device.flush();
    let _ = device.close();
    #[cfg(bad)]
    let _ = device.flush(); //~ E0382
}
