//! R9: an operation may outlast everything but the program: what it owns borrows nothing.
use std::ptr::NonNull;

use sysuring::StableBuf;

pub struct Mine<'a>(pub &'a mut [u8]);

#[cfg(bad)]
// SAFETY: it is not.
unsafe impl<'a> StableBuf for Mine<'a> {
    //~^ E0478
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        unreachable!()
    }
}

#[cfg(not(bad))]
// SAFETY: bytes that are never given back.
unsafe impl StableBuf for Mine<'static> {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        (NonNull::from(&mut *self.0).cast(), self.0.len())
    }
}
