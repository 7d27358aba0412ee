//! What an operation needs beside one buffer: several buffers, paths, a time, an address.
//!
//! The kernel reads and writes a parcel by its address while the operation is in flight; it is in the table of operations
//! then, and nobody looks inside. A ring keeps the parcels of operations that ended for later ones, so that none is
//! allocated once as many were in flight as ever will be.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use liburing_sys as sys;

use crate::file::FixedFile;
use crate::message::Header;
use crate::pool::Buf;

/// A box of [`Parameters`] that may be moved while the kernel has its address.
pub(crate) struct Parcel<B>(NonNull<Parameters<B>>);

/// What is in a parcel. Each operation uses some of it.
pub(crate) struct Parameters<B> {
    pub(crate) time: sys::__kernel_timespec,
    pub(crate) how: sys::open_how,
    pub(crate) address: libc::sockaddr_storage,
    /// Filled in by the kernel, all of it, where `has_status` and the operation succeeded.
    pub(crate) status: MaybeUninit<libc::statx>,
    pub(crate) has_status: bool,
    pub(crate) closing: Option<OwnedFd>,
    pub(crate) paths: [Option<CString>; 2],
    pub(crate) descriptors: [Option<Arc<OwnedFd>>; 2],
    pub(crate) iovecs: Vec<libc::iovec>,
    pub(crate) leases: Vec<Buf>,
    pub(crate) several: Vec<B>,
    pub(crate) message: Header,
    /// The place of the ring's table that a file is put into.
    pub(crate) direct: Option<FixedFile>,
}

impl<B> Parcel<B> {
    pub(crate) fn new() -> Self {
        // SAFETY: plain C structures, for which all zeroes is a value.
        let (time, how, address) = unsafe { std::mem::zeroed() };
        let parameters = Parameters {
            time,
            how,
            address,
            status: MaybeUninit::uninit(),
            has_status: false,
            closing: None,
            paths: [None, None],
            descriptors: [None, None],
            iovecs: Vec::new(),
            leases: Vec::new(),
            several: Vec::new(),
            message: Header::empty(),
            direct: None,
        };
        Self(NonNull::from(Box::leak(Box::new(parameters))))
    }

    /// What is inside. Nobody has it while the kernel may use it: the parcel is in the table then.
    pub(crate) fn parameters(&mut self) -> &mut Parameters<B> {
        // SAFETY: allocated in `new`, and borrowed as `self` is.
        unsafe { self.0.as_mut() }
    }

    /// Empties it, but for what the operation's owner gets back; whether there is anything of that.
    pub(crate) fn empty(&mut self) -> bool {
        let parameters = self.parameters();
        parameters.closing = None;
        parameters.paths = [None, None];
        parameters.descriptors = [None, None];
        parameters.iovecs.clear();
        let is_received = parameters.message.let_go();
        let is_rare = is_received || parameters.has_status || parameters.direct.is_some();
        is_rare || !parameters.leases.is_empty() || !parameters.several.is_empty()
    }
}

impl<B> Parameters<B> {
    /// Sets the time, and gives its address.
    pub(crate) fn set_time(&mut self, time: Duration) -> u64 {
        self.time = timespec(time);
        address_of(&raw const self.time)
    }

    /// Keeps a path, and gives its address.
    pub(crate) fn set_path(&mut self, index: usize, path: CString) -> u64 {
        address_of(self.paths[index].insert(path).as_ptr())
    }
}

/// A time as the kernel takes it; one that is too long for that is the longest.
pub(crate) fn timespec(time: Duration) -> sys::__kernel_timespec {
    let tv_sec = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    sys::__kernel_timespec { tv_sec, tv_nsec: time.subsec_nanos().into() }
}

/// An address as the kernel takes it.
#[inline]
pub(crate) fn address_of<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

impl<B> Drop for Parcel<B> {
    #[inline(always)]
    fn drop(&mut self) {
        free(self.0);
    }
}

/// Out of line and by value: what may have a parcel, and has none, stays in registers.
#[cold]
#[inline(never)]
fn free<B>(parameters: NonNull<Parameters<B>>) {
    // SAFETY: leaked in `new`, and the kernel is through with it: one that it may still use is forgotten, not dropped.
    drop(unsafe { Box::from_raw(parameters.as_ptr()) });
}

impl<B> std::fmt::Debug for Parcel<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parcel").finish_non_exhaustive()
    }
}

// SAFETY: as a box of its contents, of which only the buffers could belong to a thread; the addresses in it are of what the
// parcel itself owns.
unsafe impl<B: Send> Send for Parcel<B> {}
