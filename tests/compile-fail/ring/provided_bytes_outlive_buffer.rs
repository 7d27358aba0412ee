//! R1: a buffer that was given back to the kernel is the kernel's; no reference into it remains.
use sysuring::{ProvidedBuf, Received};

pub fn case(mut received: Received) -> u8 {
    let buf: ProvidedBuf = received.next().unwrap();
    // The buffer does not need what it came in.
    drop(received);
    let first = &buf[..1];
    #[cfg(bad)]
    drop(buf); //~ E0505
    first[0]
}
