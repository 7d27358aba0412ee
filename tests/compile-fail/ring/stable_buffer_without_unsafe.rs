//! That memory stays where it is, is a promise that the compiler can't check.
use std::ptr::NonNull;

use sysuring::StableBuf;

pub struct Mine(pub Vec<u8>);

#[cfg(bad)]
impl StableBuf for Mine {
    //~^ E0200
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        self.0.memory()
    }
}

#[cfg(not(bad))]
// SAFETY: the bytes of a vector.
unsafe impl StableBuf for Mine {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        self.0.memory()
    }
}
