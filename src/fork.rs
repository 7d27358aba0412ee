//! Telling the child of a `fork` from its parent, without a system call.
//!
//! The child shares the parent's rings page by page: one submission from there and both are corrupt. So every ring
//! remembers a page that the kernel wipes in a child (`MADV_WIPEONFORK`): where it reads zero, the ring is somebody
//! else's and is not touched.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

const ALIVE: u32 = 1;

/// Large enough for a page everywhere; the kernel rounds up.
const PAGE: usize = 4096;

/// The page that rings made now remember. Never unmapped: rings point to it.
static CURRENT: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// Whether the process that made this mark is the one that asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForkMark(&'static AtomicU32);

impl ForkMark {
    /// The mark of the process that calls.
    pub(crate) fn current() -> io::Result<Self> {
        let seen = CURRENT.load(Ordering::Acquire);
        // SAFETY: what is stored in CURRENT points to a page that is never unmapped.
        if let Some(mark) = unsafe { seen.as_ref() } {
            if mark.load(Ordering::Relaxed) == ALIVE {
                return Ok(Self(mark));
            }
        }
        let page = map_wiped_on_fork()?;
        match CURRENT.compare_exchange(seen, page.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: mapped just now, initialised, and never unmapped from here on.
            Ok(_) => Ok(Self(unsafe { page.as_ref() })),
            Err(theirs) => {
                // SAFETY: nobody but us knows this page.
                unsafe { libc::munmap(page.as_ptr().cast(), PAGE) };
                // SAFETY: another thread's page, which is never unmapped; not null, since it differs from `seen` after an
                // exchange that only ever stores pages.
                Ok(Self(unsafe { &*theirs }))
            }
        }
    }

    /// False in a child of the process that made the mark.
    #[inline]
    pub(crate) fn is_alive(self) -> bool {
        self.0.load(Ordering::Relaxed) == ALIVE || cfg!(sysuring_break = "r12_fork")
    }
}

fn map_wiped_on_fork() -> io::Result<NonNull<AtomicU32>> {
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range is the mapping made above.
    if unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: nobody but us knows this page.
        unsafe { libc::munmap(page, PAGE) };
        return Err(error);
    }
    let mark = NonNull::new(page.cast::<AtomicU32>()).ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: the page is mapped, aligned, and zeroed, which is an AtomicU32.
    unsafe { mark.as_ref() }.store(ALIVE, Ordering::Relaxed);
    Ok(mark)
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
