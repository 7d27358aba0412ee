//! A buffer of the caller's own that is bound to a thread stays there, also inside of what an operation gave back.
use std::ptr::NonNull;
use std::rc::Rc;

use sysuring::{Completion, StableBuf};

pub struct Counted {
    pub bytes: Vec<u8>,
    pub uses: Rc<u32>,
}

// SAFETY: the bytes are on the heap, and this value's alone.
unsafe impl StableBuf for Counted {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        self.bytes.memory()
    }
}

pub fn case(completion: Completion<Counted>, other: Completion<Vec<u8>>) {
    #[cfg(bad)]
    std::thread::spawn(move || drop(completion)); //~ E0277
    #[cfg(not(bad))]
    drop(completion);
    std::thread::spawn(move || drop(other));
}
