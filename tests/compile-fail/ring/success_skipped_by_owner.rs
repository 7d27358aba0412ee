//! R7: an operation that owns something has a completion: it can't be told to post none.
use sysuring::{Buf, FixedFile, Operations as _, Ring, SqeFlags};

pub fn case(ring: &mut Ring, file: &FixedFile, buf: Buf) {
    let started = ring.read_fixed(file, buf, 512, 0).unwrap();
    #[cfg(bad)]
    started.set_flags(SqeFlags::CQE_SKIP_SUCCESS); //~ E0599
    println!("{started:?}");
    // A raw entry owns nothing.
    ring.get_sqe().unwrap().prep_nop().set_flags(SqeFlags::CQE_SKIP_SUCCESS);
}
