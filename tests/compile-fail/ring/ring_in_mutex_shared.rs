//! R8: a lock does not make a ring one for several threads.
use std::sync::Mutex;

use sysuring::Ring;

fn is_sync<T: Sync>(_: &T) {}

pub fn case(ring: Mutex<Ring>, other: Mutex<u8>) {
    #[cfg(bad)]
    is_sync(&ring); //~ E0277
    let _ = ring.lock().unwrap().submit();
    is_sync(&other);
}
