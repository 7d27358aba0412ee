//! Buffers of the caller's own types that can be moved into an operation.

use std::ptr::NonNull;

use crate::pool::Buf;

/// A buffer whose memory stays where it is when the value moves.
///
/// # Safety
///
/// [`StableBuf::memory`] names bytes that are initialised, may be read and written, belong to this value alone, and stay at
/// their address until the value is used again or dropped, wherever it is moved to meanwhile. It does not fork.
pub unsafe trait StableBuf: 'static {
    /// The first byte, and how many there are.
    ///
    /// Asked for once per operation, when the value is in its place in the ring's table. Where this unwinds nothing was
    /// started.
    fn memory(&mut self) -> (NonNull<u8>, usize);
}

// SAFETY: a vector's bytes up to its length are initialised and on the heap; moving the vector leaves them there.
unsafe impl StableBuf for Vec<u8> {
    #[inline]
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        let length = self.len();
        // SAFETY: the pointer of a vector is never null.
        (unsafe { NonNull::new_unchecked(self.as_mut_ptr()) }, length)
    }
}

// SAFETY: as for a vector.
unsafe impl StableBuf for Box<[u8]> {
    #[inline]
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        let length = self.len();
        // SAFETY: the pointer of a box is never null.
        (unsafe { NonNull::new_unchecked(self.as_mut_ptr()) }, length)
    }
}

// SAFETY: a slot of a pool, which this handle owns; moving the handle leaves the slot where it is.
unsafe impl StableBuf for Buf {
    #[inline]
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        let length = self.len();
        // SAFETY: slots lie inside of a mapping, so that their address is not null.
        (unsafe { NonNull::new_unchecked(self.address()) }, length)
    }
}
