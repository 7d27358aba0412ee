//! Telling the child of a `fork` from its parent, without a system call.
//!
//! The child shares the parent's rings page by page: one submission from there and both are corrupt. So every ring
//! remembers a page that the kernel wipes in a child (`MADV_WIPEONFORK`): where it reads zero, the ring is somebody
//! else's and is not touched.

use std::cell::UnsafeCell;
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::mapping::Mapping;

const ALIVE: u32 = 1;

/// Large enough for a page everywhere; the kernel rounds up.
const PAGE: usize = 4096;

/// The page that rings made now remember. Never unmapped: rings point to it.
static CURRENT: AtomicPtr<Mark> = AtomicPtr::new(ptr::null_mut());

/// What a fork wipes. Written to once, before anybody else knows of it; changed by the kernel alone, in a child, whose one
/// thread is in `fork` meanwhile. So it is read without any ceremony.
struct Mark(UnsafeCell<u32>);

// SAFETY: never written to while it is shared.
unsafe impl Sync for Mark {}

impl Mark {
    #[inline(always)]
    fn is_alive(&self) -> bool {
        // SAFETY: nobody writes to it.
        unsafe { *self.0.get() == ALIVE }
    }
}

/// Whether the process that made this mark is the one that asks.
#[derive(Clone, Copy)]
pub(crate) struct ForkMark(&'static Mark);

impl ForkMark {
    /// The mark of the process that calls.
    pub(crate) fn current() -> io::Result<Self> {
        let seen = CURRENT.load(Ordering::Acquire);
        // SAFETY: what is stored in CURRENT points to a page that is never unmapped.
        if let Some(mark) = unsafe { seen.as_ref() } {
            if mark.is_alive() {
                return Ok(Self(mark));
            }
        }
        // A mapping of ours reads zero in a child.
        let page = Mapping::new(PAGE)?;
        let mark = page.start().cast::<Mark>();
        // SAFETY: the page is mapped, aligned, and known to nobody else.
        unsafe { mark.write(Mark(UnsafeCell::new(ALIVE))) };
        match CURRENT.compare_exchange(seen, mark, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                mem::forget(page);
                // SAFETY: mapped just now, initialised, and never unmapped from here on.
                Ok(Self(unsafe { &*mark }))
            }
            // SAFETY: another thread's page, which is never unmapped; not null, since it differs from `seen` after an exchange
            // that only ever stores pages. Ours goes: nobody but us knows it.
            Err(theirs) => Ok(Self(unsafe { &*theirs })),
        }
    }

    /// False in a child of the process that made the mark.
    #[inline(always)]
    pub(crate) fn is_alive(self) -> bool {
        self.0.is_alive() || cfg!(sysuring_break = "r12_fork")
    }
}

/// A value of each process: the child of a `fork` makes its own, since a lock in its parent's may be held by a thread that the
/// child has not got. Never freed: one for each process that a fork made and that used it.
pub(crate) struct PerProcess<T>(AtomicPtr<Owned<T>>);

struct Owned<T> {
    mark: ForkMark,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value of this process, which `make` makes where there is none.
    pub(crate) fn get(&'static self, make: impl FnOnce() -> T) -> io::Result<&'static T> {
        let seen = self.0.load(Ordering::Acquire);
        // SAFETY: what is stored is a leaked box.
        if let Some(owned) = unsafe { seen.as_ref() } {
            if owned.mark.is_alive() {
                return Ok(&owned.value);
            }
        }
        let new = Box::into_raw(Box::new(Owned { mark: ForkMark::current()?, value: make() }));
        match self.0.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked above, and freed by nobody from here on.
            Ok(_) => Ok(unsafe { &(*new).value }),
            Err(theirs) => {
                // SAFETY: leaked above, and known to nobody else.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: another thread's leaked box.
                Ok(unsafe { &(*theirs).value })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_not_its_parent() {
        let mark = ForkMark::current().unwrap();
        assert!(mark.is_alive());
        // SAFETY: the child calls nothing but what is listed here, none of which takes a lock.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let its_own = ForkMark::current().is_ok_and(ForkMark::is_alive);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(mark.is_alive() || !its_own)) }
        }
        assert!(child > 0);
        let mut status = 0;
        // SAFETY: `status` is live.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child saw its parent's mark, or could not make its own");
        assert!(mark.is_alive());
    }
}
