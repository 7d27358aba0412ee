//! A registered file that was let go of may be another one by the time.
use sysuring::{FixedFile, Operations as _, Ring};

pub fn case(ring: &mut Ring, file: FixedFile) {
    let _ = ring.fsync(&file, true);
    drop(file);
    #[cfg(bad)]
    let _ = ring.fsync(&file, true); //~ E0382
}
