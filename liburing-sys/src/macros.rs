//! The header's macros that take arguments, which bindgen cannot see.

use std::ffi::c_uint;
use std::iter::FusedIterator;
use std::sync::atomic::{self, Ordering};

use crate::bindings::{IORING_SETUP_CQE32, io_uring, io_uring_cqe};
use crate::library::{HEADER_VERSION, Version};

/// The header's `IORING_CQE_F_32`, which those before 2.13 do not have: an entry of twice the size.
const CQE_F_32: u32 = 1 << 15;

/// The first header that knows of rings with entries of two sizes.
pub(crate) const KNOWS_MIXED_ENTRIES: bool = header_is_at_least(2, 13);

pub(crate) const fn header_is_at_least(major: u32, minor: u32) -> bool {
    !IO_URING_CHECK_VERSION(major, minor)
}

/// Whether the header is *older* than `major.minor`, as in C.
///
/// Since liburing 2.4; see
/// [IO_URING_CHECK_VERSION(3)](https://man7.org/linux/man-pages/man3/IO_URING_CHECK_VERSION.3.html).
///
/// ```
/// use liburing_sys::{HEADER_VERSION, IO_URING_CHECK_VERSION};
///
/// assert!(!IO_URING_CHECK_VERSION(HEADER_VERSION.major, HEADER_VERSION.minor));
/// assert!(IO_URING_CHECK_VERSION(HEADER_VERSION.major, HEADER_VERSION.minor + 1));
/// ```
#[expect(non_snake_case, reason = "the name in C")]
pub const fn IO_URING_CHECK_VERSION(major: u32, minor: u32) -> bool {
    let Version { major: header_major, minor: header_minor } = HEADER_VERSION;
    major > header_major || (major == header_major && minor > header_minor)
}

/// 1 where the ring's completion queue entries have 32 bytes, 0 where they have 16.
///
/// A macro from 2.2 to 2.9.
///
#[doc = reference!(io_uring_cqe_shift)]
///
/// # Safety
///
/// `ring` must point to an initialised ring.
#[inline]
pub unsafe fn io_uring_cqe_shift(ring: *const io_uring) -> c_uint {
    // SAFETY: the caller's ring.
    let flags = unsafe { (*ring).flags };
    c_uint::from(flags & IORING_SETUP_CQE32 != 0)
}

/// Where an entry is in the array of completion queue entries.
///
/// Since liburing 2.2, until 2.9.
///
/// # Safety
///
/// `ring` must point to an initialised ring.
#[inline]
pub unsafe fn io_uring_cqe_index(ring: *const io_uring, position: c_uint, mask: c_uint) -> c_uint {
    // SAFETY: the caller's ring.
    (position & mask) << unsafe { io_uring_cqe_shift(ring) }
}

/// How many places an entry takes in its queue: what `io_uring_cq_advance` counts.
///
#[doc = reference!(io_uring_cqe_nr)]
///
/// # Safety
///
/// `cqe` must point to a completion queue entry that has not been given back.
#[inline]
pub unsafe fn io_uring_cqe_nr(cqe: *const io_uring_cqe) -> c_uint {
    // SAFETY: the caller's entry.
    let flags = unsafe { (*cqe).flags };
    1 << c_uint::from(KNOWS_MIXED_ENTRIES && flags & CQE_F_32 != 0)
}

/// The completions that are there now, in their order, as C's `for` macro walks them.
///
/// As in C they stay in the queue: `io_uring_cq_advance` gives them back afterwards. Completions
/// that arrive meanwhile wait for the next walk.
///
/// Since liburing 2.0; see
/// [io_uring_for_each_cqe(3)](https://man7.org/linux/man-pages/man3/io_uring_for_each_cqe.3.html).
///
/// # Safety
///
/// `ring` must point to an initialised ring whose completion queue no other thread uses. While the
/// iterator is in use the ring must be neither closed nor resized, and no completion given back.
#[inline]
pub unsafe fn io_uring_for_each_cqe(ring: *const io_uring) -> CompletionQueueEntries {
    // SAFETY: the caller's ring, whose pointers lead into its mapped queues.
    unsafe {
        let cq = &raw const (*ring).cq;
        CompletionQueueEntries {
            cqes: (*cq).cqes,
            mask: (*cq).ring_mask,
            shift: io_uring_cqe_shift(ring),
            head: IO_URING_READ_ONCE((*cq).khead),
            tail: io_uring_smp_load_acquire((*cq).ktail),
        }
    }
}

/// Iterator of [`io_uring_for_each_cqe`].
#[derive(Debug)]
pub struct CompletionQueueEntries {
    cqes: *mut io_uring_cqe,
    mask: c_uint,
    shift: c_uint,
    head: c_uint,
    tail: c_uint,
}

impl Iterator for CompletionQueueEntries {
    type Item = *mut io_uring_cqe;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.head == self.tail {
            return None;
        }
        let index = (self.head & self.mask) << self.shift;
        // SAFETY: the mask keeps the index inside the queue, which is mapped while the caller of
        // io_uring_for_each_cqe uses this; the kernel wrote the entry before it moved the tail.
        let (cqe, places) = unsafe {
            let cqe = self.cqes.add(index as usize);
            (cqe, io_uring_cqe_nr(cqe))
        };
        self.head = self.head.wrapping_add(places);
        Some(cqe)
    }
}

impl FusedIterator for CompletionQueueEntries {}

/// What the macros below take: integers that another thread, or the kernel, may change meanwhile.
pub trait Shared: Copy {
    /// # Safety
    ///
    /// `place` must be aligned and mapped, and nobody may access it other than atomically.
    unsafe fn load(place: *const Self, ordering: Ordering) -> Self;

    /// # Safety
    ///
    /// That of `load`.
    unsafe fn store(place: *mut Self, value: Self, ordering: Ordering);
}

macro_rules! shared {
    ( $($integer:ty, $atomic:ident;)* ) => { $(
        impl Shared for $integer {
            #[inline]
            unsafe fn load(place: *const Self, ordering: Ordering) -> Self {
                // SAFETY: the caller's place.
                unsafe { atomic::$atomic::from_ptr(place.cast_mut()) }.load(ordering)
            }

            #[inline]
            unsafe fn store(place: *mut Self, value: Self, ordering: Ordering) {
                // SAFETY: the caller's place.
                unsafe { atomic::$atomic::from_ptr(place) }.store(value, ordering);
            }
        }
    )* };
}

shared! {
    u8, AtomicU8;
    i8, AtomicI8;
    u16, AtomicU16;
    i16, AtomicI16;
    u32, AtomicU32;
    i32, AtomicI32;
    usize, AtomicUsize;
    isize, AtomicIsize;
}

#[cfg(target_has_atomic = "64")]
shared! {
    u64, AtomicU64;
    i64, AtomicI64;
}

/// Reads an integer as it is at one moment; C's macro takes the variable, this one its address.
///
/// Since liburing 2.0.
///
/// # Safety
///
/// `var` must be aligned and mapped, and nobody may access it other than atomically.
#[inline]
#[expect(non_snake_case, reason = "the name in C")]
pub unsafe fn IO_URING_READ_ONCE<T: Shared>(var: *const T) -> T {
    // SAFETY: the caller's variable.
    unsafe { T::load(var, Ordering::Relaxed) }
}

/// Writes an integer at one moment; C's macro takes the variable, this one its address.
///
/// Since liburing 2.0.
///
/// # Safety
///
/// `var` must be aligned and mapped to be written, and nobody may access it other than atomically.
#[inline]
#[expect(non_snake_case, reason = "the name in C")]
pub unsafe fn IO_URING_WRITE_ONCE<T: Shared>(var: *mut T, val: T) {
    // SAFETY: the caller's variable.
    unsafe { T::store(var, val, Ordering::Relaxed) };
}

/// Reads an integer; what was written before [`io_uring_smp_store_release`] stored it is seen afterwards.
///
/// Since liburing 2.0.
///
/// # Safety
///
/// `p` must be aligned and mapped, and nobody may access it other than atomically.
#[inline]
pub unsafe fn io_uring_smp_load_acquire<T: Shared>(p: *const T) -> T {
    // SAFETY: the caller's place.
    unsafe { T::load(p, Ordering::Acquire) }
}

/// Writes an integer after all that was read and written before.
///
/// Since liburing 2.0.
///
/// ```
/// use liburing_sys::{io_uring_smp_load_acquire, io_uring_smp_store_release};
///
/// let mut tail = 7_u32;
/// // SAFETY: a place of our own.
/// let read = unsafe {
///     io_uring_smp_store_release(&raw mut tail, 8);
///     io_uring_smp_load_acquire(&raw const tail)
/// };
/// assert_eq!(read, 8);
/// ```
///
/// # Safety
///
/// `p` must be aligned and mapped to be written, and nobody may access it other than atomically.
#[inline]
pub unsafe fn io_uring_smp_store_release<T: Shared>(p: *mut T, v: T) {
    // SAFETY: the caller's place.
    unsafe { T::store(p, v, Ordering::Release) };
}

/// Keeps what is read afterwards behind what was written before: a full barrier.
///
/// Since liburing 2.2.
#[inline]
pub fn io_uring_smp_mb() {
    atomic::fence(Ordering::SeqCst);
}
