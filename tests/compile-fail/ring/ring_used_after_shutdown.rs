//! R3: closing a ring ends its use.
use std::time::Duration;

use sysuring::Ring;

pub fn case(mut ring: Ring) {
    let _ = ring.submit();
    let _ = ring.shutdown(Duration::from_secs(1));
    #[cfg(bad)]
    let _ = ring.submit(); //~ E0382
}
