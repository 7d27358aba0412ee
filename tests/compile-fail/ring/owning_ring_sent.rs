//! R8: a ring that owns buffers is not `Send` either, whatever the buffers are.
use sysuring::OpRing;

pub fn case(ring: OpRing<Vec<u8>>, buffer: Vec<u8>) {
    #[cfg(bad)]
    std::thread::spawn(move || drop(ring)); //~ E0277
    #[cfg(not(bad))]
    drop(ring);
    std::thread::spawn(move || drop(buffer));
}
