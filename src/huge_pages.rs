//! Huge pages for the queues of a ring.

use std::io;
use std::ptr::{self, NonNull};

#[cfg(not(test))]
use liburing_sys as sys;

use crate::error::{Error, Result};
#[cfg(test)]
use crate::model::liburing as sys;
#[cfg(not(liburing_2_5))]
use crate::raw_ring::header_too_old;

/// Memory for a ring's queues on huge pages. Shared, so that a fork makes no copy of it on the next write.
#[derive(Debug)]
pub(crate) struct HugePages {
    start: NonNull<u8>,
}

/// Bytes of [`HugePages`]: the smallest huge page that there is on x86 and ARM, and more than the largest queues that fit
/// into one.
const HUGE_PAGE: usize = 2 << 20;

impl HugePages {
    pub(crate) fn new() -> Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), HUGE_PAGE, access, flags, -1, 0) };
        let start = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED);
        start.map(|start| Self { start }).ok_or_else(|| {
            let error = io::Error::last_os_error();
            let doing = "map a huge page for a ring (`sysctl vm.nr_hugepages` says how many there are)";
            Error::from_io(error, doing)
        })
    }

    /// Whether liburing, header and library, can have queues in memory that it is given.
    ///
    /// # Errors
    ///
    /// That they are too old.
    pub(crate) fn check() -> Result<()> {
        #[cfg(liburing_2_5)]
        return crate::Library::require("io_uring_queue_init_mem");
        #[cfg(not(liburing_2_5))]
        return Err(header_too_old("io_uring_queue_init_mem", "2.5"));
    }

    #[cfg(liburing_2_5)]
    pub(crate) fn init(
        &self,
        entries: u32,
        ring: NonNull<sys::io_uring>,
        params: &mut sys::io_uring_params,
    ) -> libc::c_int {
        // SAFETY: the pointers are to live values that nobody else uses; the memory is ours, aligned, and stays until the ring
        // is closed.
        let used = unsafe {
            sys::io_uring_queue_init_mem(entries, ring.as_ptr(), params, self.start.as_ptr().cast(), HUGE_PAGE)
        };
        used.min(0)
    }

    #[cfg(not(liburing_2_5))]
    #[allow(clippy::unused_self)]
    pub(crate) fn init(&self, _: u32, _: NonNull<sys::io_uring>, _: &mut sys::io_uring_params) -> libc::c_int {
        -libc::EOPNOTSUPP
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; the ring that used it is closed.
        unsafe { libc::munmap(self.start.as_ptr().cast(), HUGE_PAGE) };
    }
}

// SAFETY: memory that no thread owns.
unsafe impl Send for HugePages {}
