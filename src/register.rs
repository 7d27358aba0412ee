//! What can be registered with a ring, as liburing has it: `io_uring_register_*` and what belongs to it.
//!
//! A call is `unsafe` where it lends memory to the kernel, or frees by number what somebody else may rely on. Tags of
//! buffers and files come back as `user_data`: they are [`UserData`] here, so that none is taken for an operation's.
//!
//! A ring has one table of files and one of buffers: either the safe interface's ([`Ring::register_file`],
//! [`Ring::register_pool`]) or the raw one's. Who comes second gets [`ErrorKind::Busy`], until the first has nothing in it any
//! more and nothing is in flight.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
#[cfg(liburing_2_4)]
use std::ptr::NonNull;
use std::time::Duration;

#[cfg(not(test))]
use liburing_sys as sys;

#[cfg(liburing_2_4)]
use crate::Library;
use crate::entries::Entries;
use crate::error::{Error, ErrorKind, Result, check};
#[cfg(test)]
use crate::model::liburing as sys;
use crate::ring::{DisabledRing, Ring};
use crate::sqe::UserData;

/// # Registering, as liburing has it
///
/// Each call has C's name without `io_uring_`, and its man page says what it does. Beside the errors that are listed,
/// each fails with [`ErrorKind::Unsupported`] where the library that runs lacks the function, with the version that brought
/// it, and on a ring that can't be used any more.
impl<B, E: Entries> Ring<B, E> {
    /// The ring, for a function that every library from 2.3 on has, where it can be used.
    fn usable(&mut self) -> Result<*mut sys::io_uring> {
        self.core().check_usable()?;
        Ok(self.as_raw())
    }

    /// The ring, for a function that the library may be too old for.
    #[cfg(liburing_2_4)]
    fn ring_for(&mut self, function: &str) -> Result<*mut sys::io_uring> {
        Library::require(function)?;
        self.usable()
    }

    // ---- buffers

    /// Registers a table of `count` buffers with nothing in it, for the raw interface; excludes pools on this ring.
    ///
    #[doc = reference!(io_uring_register_buffers_sparse, "2.2", "5.19")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] where there is a table already; what the kernel reports.
    #[doc(alias = "io_uring_register_buffers_sparse")]
    pub fn register_buffers_sparse(&mut self, count: u32) -> Result<()> {
        let ring = self.with_room_for_buffers()?;
        // SAFETY: the ring is set up and ours; an empty table lends nothing.
        let returned = unsafe { sys::io_uring_register_buffers_sparse(ring, count) };
        self.made_buffers(returned)
    }

    /// As [`Ring::register_buffers`], with a tag for each: a completion with it says that the kernel let go of the buffer.
    /// A tag of 0 is none.
    ///
    #[doc = reference!(io_uring_register_buffers_tags, "2.1", "5.13")]
    ///
    /// # Safety
    ///
    /// As for [`Ring::register_buffers`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] where there is a table already, [`ErrorKind::InvalidInput`] where there are more tags or fewer
    /// than buffers; what the kernel reports.
    #[doc(alias = "io_uring_register_buffers_tags")]
    pub unsafe fn register_buffers_tags(&mut self, buffers: &[libc::iovec], tags: &[UserData]) -> Result<()> {
        let count = as_many(buffers.len(), tags)?;
        let ring = self.with_room_for_buffers()?;
        // SAFETY: the ring is set up and ours; both arrays are read during the call; the caller vouches for the memory.
        let returned =
            unsafe { sys::io_uring_register_buffers_tags(ring, buffers.as_ptr(), tags.as_ptr().cast(), count) };
        self.made_buffers(returned)
    }

    /// Replaces registered buffers from the index `first` on; the result is how many. One without an address empties its
    /// place. Before Linux 6.13 this can wait for operations that use what is replaced.
    ///
    #[doc = reference!(io_uring_register_buffers_update_tag, "2.1", "5.13")]
    ///
    /// # Safety
    ///
    /// As for [`Ring::register_buffers`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] where the table is not the raw interface's, or there are more tags or fewer than buffers;
    /// what the kernel reports.
    #[doc(alias = "io_uring_register_buffers_update_tag")]
    pub unsafe fn register_buffers_update_tag(
        &mut self,
        first: u32,
        buffers: &[libc::iovec],
        tags: &[UserData],
    ) -> Result<u32> {
        let count = as_many(buffers.len(), tags)?;
        let ring = self.usable()?;
        if !self.core().queues().raw_buffers {
            return Err(not_raw("buffers", "register_buffers"));
        }
        // SAFETY: the ring is set up and ours; both arrays are read during the call; the caller vouches for the memory. The
        // table is the raw interface's, so that no pool is replaced.
        let returned = unsafe {
            sys::io_uring_register_buffers_update_tag(ring, first, buffers.as_ptr(), tags.as_ptr().cast(), count)
        };
        check(returned, "update registered buffers")
    }

    /// Registers what another ring has registered, pools among it, for raw entries of this ring.
    ///
    /// Nothing is lent by this: a raw entry still names its memory.
    ///
    #[doc = reference!(io_uring_clone_buffers, "2.8", "6.12")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] where there is a table already; what the kernel reports.
    #[cfg(liburing_2_8)]
    #[doc(alias("io_uring_clone_buffers", "__io_uring_clone_buffers"))]
    pub fn clone_buffers<C, F: Entries>(&mut self, source: &Ring<C, F>) -> Result<()> {
        let ring = self.ring_for("io_uring_clone_buffers")?;
        self.core().give_up_buffers()?;
        // SAFETY: both rings are set up and of this thread, and the other one is only read.
        let returned = unsafe { sys::io_uring_clone_buffers(ring, source.as_raw()) };
        self.made_buffers(returned)
    }

    /// As [`Ring::clone_buffers`], for `count` buffers from `source_first` on, which become those from `first` on; into
    /// a table that the raw interface has already where `replace` says so.
    ///
    #[doc = reference!(io_uring_clone_buffers_offset, "2.9", "6.13")]
    ///
    /// # Errors
    ///
    /// As for [`Ring::clone_buffers`].
    #[cfg(liburing_2_9)]
    #[doc(alias("io_uring_clone_buffers_offset", "__io_uring_clone_buffers_offset", "IORING_REGISTER_DST_REPLACE"))]
    pub fn clone_buffers_offset<C, F: Entries>(
        &mut self,
        source: &Ring<C, F>,
        first: u32,
        source_first: u32,
        count: u32,
        replace: bool,
    ) -> Result<()> {
        let ring = self.ring_for("io_uring_clone_buffers_offset")?;
        // Pools are not replaced.
        self.core().give_up_buffers()?;
        let replace = replace && self.core().queues().raw_buffers;
        let flags = if replace { sys::IORING_REGISTER_DST_REPLACE } else { 0 };
        // SAFETY: as for `clone_buffers`.
        let returned =
            unsafe { sys::io_uring_clone_buffers_offset(ring, source.as_raw(), first, source_first, count, flags) };
        self.made_buffers(returned)
    }

    /// As [`Ring::usable`], where no pools are in the way of a table of the raw interface's.
    fn with_room_for_buffers(&mut self) -> Result<*mut sys::io_uring> {
        self.core().give_up_buffers()?;
        self.usable()
    }

    /// A table of buffers was asked for, for the raw interface.
    fn made_buffers(&mut self, returned: libc::c_int) -> Result<()> {
        made_table(returned, "buffers", "unregister_buffers")?;
        self.core().queues_mut().raw_buffers = true;
        Ok(())
    }

    // ---- files

    /// Registers these files, or empty places (since Linux 5.5), for the raw interface; excludes [`Ring::register_file`] on this ring. The
    /// kernel holds the files: the descriptors may be closed.
    ///
    #[doc = reference!(io_uring_register_files, "2.0", "5.1")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] where there is a table already; what the kernel reports.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::os::fd::AsFd;
    ///
    /// use sysuring::{ErrorKind, Ring};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let file = File::open("/dev/zero")?;
    /// let mut ring = Ring::with_entries(8)?;
    /// ring.register_files(&[Some(file.as_fd()), None])?;
    /// assert_eq!(ring.register_files_update(1, &[Some(file.as_fd())])?, 1);
    /// assert_eq!(ring.register_file(&file).unwrap_err().kind(), ErrorKind::Busy);
    /// ring.unregister_files()?;
    /// assert!(ring.register_file(&file).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "io_uring_register_files")]
    pub fn register_files(&mut self, files: &[Option<BorrowedFd<'_>>]) -> Result<()> {
        let ring = self.with_room_for_files()?;
        let files = numbers(files);
        // SAFETY: the ring is set up and ours; the array is read during the call.
        let returned = unsafe { sys::io_uring_register_files(ring, files.as_ptr(), files.len() as u32) };
        self.made_files(returned)
    }

    /// As [`Ring::register_files`], with `count` empty places.
    ///
    #[doc = reference!(io_uring_register_files_sparse, "2.2", "5.19")]
    ///
    /// # Errors
    ///
    /// As for [`Ring::register_files`].
    #[doc(alias = "io_uring_register_files_sparse")]
    pub fn register_files_sparse(&mut self, count: u32) -> Result<()> {
        let ring = self.with_room_for_files()?;
        // SAFETY: the ring is set up and ours.
        let returned = unsafe { sys::io_uring_register_files_sparse(ring, count) };
        self.made_files(returned)
    }

    /// As [`Ring::register_files`], with a tag for each: a completion with it says that the kernel let go of the file. A
    /// tag of 0 is none.
    ///
    #[doc = reference!(io_uring_register_files_tags, "2.1", "5.13")]
    ///
    /// # Errors
    ///
    /// As for [`Ring::register_files`]; [`ErrorKind::InvalidInput`] where there are more tags or fewer than files.
    #[doc(alias = "io_uring_register_files_tags")]
    pub fn register_files_tags(&mut self, files: &[Option<BorrowedFd<'_>>], tags: &[UserData]) -> Result<()> {
        let count = as_many(files.len(), tags)?;
        let ring = self.with_room_for_files()?;
        let files = numbers(files);
        // SAFETY: the ring is set up and ours; both arrays are read during the call.
        let returned = unsafe { sys::io_uring_register_files_tags(ring, files.as_ptr(), tags.as_ptr().cast(), count) };
        self.made_files(returned)
    }

    /// Replaces registered files from the index `first` on, or empties their places; the result is how many.
    ///
    #[doc = reference!(io_uring_register_files_update, "2.0", "5.5")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] where the table is not the raw interface's; what the kernel reports.
    #[doc(alias = "io_uring_register_files_update")]
    pub fn register_files_update(&mut self, first: u32, files: &[Option<BorrowedFd<'_>>]) -> Result<u32> {
        let ring = self.with_files()?;
        let files = numbers(files);
        // SAFETY: the ring is set up and ours; the array is read during the call. The table is the raw interface's.
        let returned = unsafe { sys::io_uring_register_files_update(ring, first, files.as_ptr(), files.len() as u32) };
        check(returned, "update registered files")
    }

    /// As [`Ring::register_files_update`], with tags as [`Ring::register_files_tags`] has them.
    ///
    #[doc = reference!(io_uring_register_files_update_tag, "2.1", "5.13")]
    ///
    /// # Errors
    ///
    /// As for both.
    #[doc(alias = "io_uring_register_files_update_tag")]
    pub fn register_files_update_tag(
        &mut self,
        first: u32,
        files: &[Option<BorrowedFd<'_>>],
        tags: &[UserData],
    ) -> Result<u32> {
        let count = as_many(files.len(), tags)?;
        let ring = self.with_files()?;
        let files = numbers(files);
        // SAFETY: the ring is set up and ours; both arrays are read during the call. The table is the raw interface's.
        let returned = unsafe {
            sys::io_uring_register_files_update_tag(ring, first, files.as_ptr(), tags.as_ptr().cast(), count)
        };
        check(returned, "update registered files")
    }

    /// Takes away what [`Ring::register_files`] and its like registered.
    ///
    #[doc = reference!(io_uring_unregister_files, "2.0", "5.1")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] while operations are in flight, [`ErrorKind::InvalidInput`] where the table is not the raw
    /// interface's; what the kernel reports.
    #[doc(alias = "io_uring_unregister_files")]
    pub fn unregister_files(&mut self) -> Result<()> {
        let ring = self.with_files()?;
        if !self.core().is_idle() {
            // Before Linux 6.13 the kernel waits for them, and on 6.1 for ever.
            let message = "operations are in flight on the ring; wait for them before files are unregistered";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // SAFETY: the ring is set up and ours; the table is the raw interface's.
        check(unsafe { sys::io_uring_unregister_files(ring) }, "unregister files")?;
        self.core().queues_mut().raw_files = false;
        Ok(())
    }

    /// Where the kernel looks for a free place when it is asked for any (`IORING_FILE_INDEX_ALLOC`): `count` from `first`
    /// on. For a program that keeps the other places for itself.
    ///
    #[doc = reference!(io_uring_register_file_alloc_range, "2.3", "6.0")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[doc(alias = "io_uring_register_file_alloc_range")]
    pub fn register_file_alloc_range(&mut self, first: u32, count: u32) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours; what is free is for anybody who asks.
        let returned = unsafe { sys::io_uring_register_file_alloc_range(ring, first, count) };
        check(returned, "set the range of registered files to choose from").map(drop)
    }

    /// As [`Ring::usable`], where no files of the safe interface are in the way of a table of the raw one's.
    fn with_room_for_files(&mut self) -> Result<*mut sys::io_uring> {
        self.core().give_up_files()?;
        self.usable()
    }

    fn with_files(&mut self) -> Result<*mut sys::io_uring> {
        let ring = self.usable()?;
        if self.core().queues().raw_files { Ok(ring) } else { Err(not_raw("files", "register_files")) }
    }

    fn made_files(&mut self, returned: libc::c_int) -> Result<()> {
        made_table(returned, "files", "unregister_files")?;
        self.core().queues_mut().raw_files = true;
        Ok(())
    }

    // ---- notifications

    /// Lets the kernel count completions in an eventfd, which it holds.
    ///
    #[doc = reference!(io_uring_register_eventfd, "2.0", "5.2")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] where there is one already; what the kernel reports.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::Read;
    /// use std::os::fd::FromRawFd;
    ///
    /// use sysuring::{Operations as _, Ring};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// // SAFETY: a descriptor that nobody else owns.
    /// let mut eventfd = unsafe { File::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
    /// let mut ring = Ring::with_entries(8)?;
    /// ring.register_eventfd(&eventfd)?;
    /// ring.nop()?;
    /// ring.submit()?;
    /// let mut count = [0; 8];
    /// eventfd.read_exact(&mut count)?;
    /// assert_eq!(u64::from_ne_bytes(count), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "io_uring_register_eventfd")]
    pub fn register_eventfd(&mut self, eventfd: &impl AsFd) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours; the kernel takes a reference to the file during the call.
        let returned = unsafe { sys::io_uring_register_eventfd(ring, eventfd.as_fd().as_raw_fd()) };
        check(returned, "register an eventfd").map(drop)
    }

    /// As [`Ring::register_eventfd`], for those completions only that a submit did not make at once.
    ///
    #[doc = reference!(io_uring_register_eventfd_async, "2.0", "5.6")]
    ///
    /// # Errors
    ///
    /// As for [`Ring::register_eventfd`].
    #[doc(alias = "io_uring_register_eventfd_async")]
    pub fn register_eventfd_async(&mut self, eventfd: &impl AsFd) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: as for `register_eventfd`.
        let returned = unsafe { sys::io_uring_register_eventfd_async(ring, eventfd.as_fd().as_raw_fd()) };
        check(returned, "register an eventfd").map(drop)
    }

    /// Ends [`Ring::register_eventfd`].
    ///
    #[doc = reference!(io_uring_unregister_eventfd, "2.0", "5.2")]
    ///
    /// # Errors
    ///
    /// What the kernel reports: ENXIO where there is none.
    #[doc(alias = "io_uring_unregister_eventfd")]
    pub fn unregister_eventfd(&mut self) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours.
        check(unsafe { sys::io_uring_unregister_eventfd(ring) }, "unregister the eventfd").map(drop)
    }

    /// Whether completions *would be* counted in an eventfd; as in C also true where none is registered.
    ///
    #[doc = reference!(io_uring_cq_eventfd_enabled, "2.0", "5.8")]
    #[doc(alias = "io_uring_cq_eventfd_enabled")]
    #[must_use]
    pub fn cq_eventfd_enabled(&self) -> bool {
        // SAFETY: the ring is set up and ours.
        unsafe { sys::io_uring_cq_eventfd_enabled(self.as_raw()) }
    }

    /// Stops counting completions in the registered eventfd, or goes on with it.
    ///
    #[doc = reference!(io_uring_cq_eventfd_toggle, "2.0", "5.8")]
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP where the kernel is too old.
    #[doc(alias = "io_uring_cq_eventfd_toggle")]
    pub fn cq_eventfd_toggle(&mut self, on: bool) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours.
        check(unsafe { sys::io_uring_cq_eventfd_toggle(ring, on) }, "switch the eventfd").map(drop)
    }

    // ---- the ring's own descriptor

    /// Registers the ring's own descriptor, which makes each call into the kernel cheaper.
    ///
    #[doc = reference!(io_uring_register_ring_fd, "2.2", "5.18")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`] where it is registered; what the kernel reports. The ring works without.
    #[doc(alias = "io_uring_register_ring_fd")]
    pub fn register_ring_fd(&mut self) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up; both are plain fields.
        if unsafe { (*ring).enter_ring_fd != (*ring).ring_fd } {
            // Libraries before 2.4 would register it again, and forget the first registration.
            return Err(Error::from_errno(libc::EEXIST, "register the ring's descriptor"));
        }
        // SAFETY: the ring is set up and ours. The registration is the thread's, which this ring never leaves.
        check(unsafe { sys::io_uring_register_ring_fd(ring) }, "register the ring's descriptor").map(drop)
    }

    /// Ends [`Ring::register_ring_fd`].
    ///
    #[doc = reference!(io_uring_unregister_ring_fd, "2.2", "5.18")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] after `close_ring_fd`: the registration is all that the ring has by then. What
    /// the kernel reports.
    #[doc(alias = "io_uring_unregister_ring_fd")]
    pub fn unregister_ring_fd(&mut self) -> Result<()> {
        let ring = self.usable()?;
        if self.core().queues().descriptor() < 0 {
            let message = "the ring's descriptor is closed, and its registration is all that reaches the ring";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        // SAFETY: the ring is set up and ours.
        check(unsafe { sys::io_uring_unregister_ring_fd(ring) }, "unregister the ring's descriptor").map(drop)
    }

    /// Closes the ring's descriptor after [`Ring::register_ring_fd`]: it counts against no limit any more, and nobody
    /// closes it by mistake.
    ///
    #[doc = reference!(io_uring_close_ring_fd, "2.4", "6.3")]
    ///
    /// # Errors
    ///
    /// EINVAL where the descriptor is not registered, or the kernel is too old.
    #[cfg(liburing_2_4)]
    #[doc(alias = "io_uring_close_ring_fd")]
    pub fn close_ring_fd(&mut self) -> Result<()> {
        let ring = self.ring_for("io_uring_close_ring_fd")?;
        // SAFETY: the ring is set up and ours. The library sets the descriptor to -1, which is a descriptor of nothing to
        // everybody who looks at it.
        check(unsafe { sys::io_uring_close_ring_fd(ring) }, "close the ring's descriptor").map(drop)
    }

    // ---- what the kernel may do, and with what

    /// Remembers the credentials of this thread, for entries with [`Queued::set_personality`](crate::Queued::set_personality).
    ///
    #[doc = reference!(io_uring_register_personality, "2.0", "5.6")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[doc(alias = "io_uring_register_personality")]
    pub fn register_personality(&mut self) -> Result<u16> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours.
        let number = check(unsafe { sys::io_uring_register_personality(ring) }, "register credentials")?;
        // The kernel counts to what an entry's field holds.
        Ok(number as u16)
    }

    /// Ends [`Ring::register_personality`].
    ///
    #[doc = reference!(io_uring_unregister_personality, "2.0", "5.6")]
    ///
    /// # Errors
    ///
    /// EINVAL where there is none of this number.
    #[doc(alias = "io_uring_unregister_personality")]
    pub fn unregister_personality(&mut self, personality: u16) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours; operations in flight hold their credentials.
        let returned = unsafe { sys::io_uring_unregister_personality(ring, personality.into()) };
        check(returned, "unregister credentials").map(drop)
    }

    /// The processors that the kernel's own threads for this ring run on.
    ///
    #[doc = reference!(io_uring_register_iowq_aff, "2.1", "5.14")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[doc(alias = "io_uring_register_iowq_aff")]
    pub fn register_iowq_aff(&mut self, processors: &libc::cpu_set_t) -> Result<()> {
        let ring = self.usable()?;
        let processors: *const libc::cpu_set_t = processors;
        // SAFETY: the ring is set up and ours; the set, whose size is told, is read during the call.
        let returned =
            unsafe { sys::io_uring_register_iowq_aff(ring, size_of::<libc::cpu_set_t>(), processors.cast()) };
        check(returned, "choose processors").map(drop)
    }

    /// Ends [`Ring::register_iowq_aff`].
    ///
    #[doc = reference!(io_uring_unregister_iowq_aff, "2.1", "5.14")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[doc(alias = "io_uring_unregister_iowq_aff")]
    pub fn unregister_iowq_aff(&mut self) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours.
        check(unsafe { sys::io_uring_unregister_iowq_aff(ring) }, "choose all processors").map(drop)
    }

    /// How many threads the kernel may have for this ring: for bounded work (files), and for the rest. 0 changes nothing;
    /// the result is what held before.
    ///
    #[doc = reference!(io_uring_register_iowq_max_workers, "2.1", "5.15")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[doc(alias = "io_uring_register_iowq_max_workers")]
    pub fn register_iowq_max_workers(&mut self, mut most: [u32; 2]) -> Result<[u32; 2]> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours; both numbers are read and written during the call.
        let returned = unsafe { sys::io_uring_register_iowq_max_workers(ring, most.as_mut_ptr()) };
        check(returned, "limit the kernel's threads")?;
        Ok(most)
    }

    /// Polls the network device for so long, as `napi` says, which gets what held before.
    ///
    #[doc = reference!(io_uring_register_napi, "2.6", "6.9")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_register_napi")]
    pub fn register_napi(&mut self, napi: &mut sys::io_uring_napi) -> Result<()> {
        let ring = self.ring_for("io_uring_register_napi")?;
        // SAFETY: the ring is set up and ours; the structure is read and written during the call.
        check(unsafe { sys::io_uring_register_napi(ring, napi) }, "poll the network device").map(drop)
    }

    /// Ends [`Ring::register_napi`]; `napi` gets what held before.
    ///
    #[doc = reference!(io_uring_unregister_napi, "2.6", "6.9")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_unregister_napi")]
    pub fn unregister_napi(&mut self, napi: &mut sys::io_uring_napi) -> Result<()> {
        let ring = self.ring_for("io_uring_unregister_napi")?;
        // SAFETY: as for `register_napi`.
        check(unsafe { sys::io_uring_unregister_napi(ring, napi) }, "stop polling the network device").map(drop)
    }

    /// The clock that waiting with a limit goes by: `CLOCK_MONOTONIC` or `CLOCK_BOOTTIME`.
    ///
    #[doc = reference!(io_uring_register_clock, "2.8", "6.12")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_8)]
    #[doc(alias = "io_uring_register_clock")]
    pub fn register_clock(&mut self, clock: libc::clockid_t) -> Result<()> {
        let ring = self.ring_for("io_uring_register_clock")?;
        // SAFETY: all zeroes is a value of this plain structure.
        let mut register = unsafe { std::mem::zeroed::<sys::io_uring_clock_register>() };
        register.clockid = clock as u32;
        // SAFETY: the ring is set up and ours; the structure is read during the call.
        check(unsafe { sys::io_uring_register_clock(ring, &mut register) }, "choose a clock").map(drop)
    }

    /// Whether a processor that waits for this ring's completions counts as waiting for a disk.
    ///
    #[doc = reference!(io_uring_set_iowait, "2.10", "6.15")]
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP where the kernel is too old.
    #[cfg(liburing_2_10)]
    #[doc(alias = "io_uring_set_iowait")]
    pub fn set_iowait(&mut self, on: bool) -> Result<()> {
        let ring = self.ring_for("io_uring_set_iowait")?;
        // SAFETY: the ring is set up and ours.
        check(unsafe { sys::io_uring_set_iowait(ring, on) }, "switch how waiting is counted").map(drop)
    }

    /// Whether the kernel has an operation (`IORING_OP_*`). Each call asks the kernel; [`Probe`](crate::Probe) tells all.
    ///
    #[doc = reference!(io_uring_opcode_supported, "2.0", "5.6")]
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where the kernel can't be asked.
    #[doc(alias("io_uring_opcode_supported", "io_uring_get_probe_ring", "io_uring_register_probe"))]
    pub fn opcode_supported(&mut self, opcode: u8) -> Result<bool> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours; the probe is liburing's, and is given back once.
        unsafe {
            let probe = sys::io_uring_get_probe_ring(ring);
            if probe.is_null() {
                let message = "the kernel does not tell what operations it has (since Linux 5.6)";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            let supported = sys::io_uring_opcode_supported(probe, opcode.into()) != 0;
            sys::io_uring_free_probe(probe);
            Ok(supported)
        }
    }

    // ---- operations in flight

    /// Ends operations and waits until that is done, for `limit` at most: the raw one with this `user_data`, or others as
    /// `flags` say (`IORING_ASYNC_CANCEL_FD` for those on `file`, and so on), those of the safe interface among them.
    ///
    /// Their completions come in any case.
    ///
    #[doc = reference!(io_uring_register_sync_cancel, "2.3", "6.0")]
    ///
    /// # Errors
    ///
    /// ENOENT where there is no such operation, [`ErrorKind::TimedOut`] where one has not ended in time; what the kernel
    /// reports.
    #[doc(alias = "io_uring_register_sync_cancel")]
    pub fn register_sync_cancel(
        &mut self,
        user_data: UserData,
        file: RawFd,
        flags: u32,
        limit: Option<Duration>,
    ) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: all zeroes is a value of this plain structure.
        let mut cancel = unsafe { std::mem::zeroed::<sys::io_uring_sync_cancel_reg>() };
        (cancel.addr, cancel.fd, cancel.flags) = (user_data.get(), file, flags);
        (cancel.timeout.tv_sec, cancel.timeout.tv_nsec) = match limit {
            Some(limit) => (i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), limit.subsec_nanos().into()),
            None => (-1, -1),
        };
        // SAFETY: the ring is set up and ours; the structure is read during the call. Cancelling takes nothing from
        // anybody: operations still complete.
        match unsafe { sys::io_uring_register_sync_cancel(ring, &mut cancel) } {
            returned if returned == -libc::ETIME => {
                let message = format!("an operation that was cancelled has not ended after {limit:?}");
                Err(Error::new(ErrorKind::TimedOut, message))
            }
            returned => check(returned, "cancel and wait").map(drop),
        }
    }

    // ---- buffers to choose from

    /// Registers a ring of buffers that the caller allocated, for operations that choose theirs when they need one.
    ///
    #[doc = reference!(io_uring_register_buf_ring, "2.2", "5.19")]
    ///
    /// # Safety
    ///
    /// The memory of the buffer ring stays as it is until it was unregistered; buffers that are put into it are lent to the
    /// kernel until they come with a completion or the ring of buffers was unregistered, and the final completions of
    /// operations that took one were seen, also after the ring is gone.
    ///
    /// # Errors
    ///
    /// What the kernel reports: EEXIST where the group has one.
    #[doc(alias = "io_uring_register_buf_ring")]
    pub unsafe fn register_buf_ring(&mut self, register: &mut sys::io_uring_buf_reg, flags: u32) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours; the caller vouches for the memory.
        check(unsafe { sys::io_uring_register_buf_ring(ring, register, flags) }, "register a ring of buffers").map(drop)
    }

    /// Takes the ring of buffers away from a group.
    ///
    #[doc = reference!(io_uring_unregister_buf_ring, "2.2", "5.19")]
    ///
    /// # Safety
    ///
    /// The group is the caller's: nobody else takes what comes with its buffers' numbers for his own.
    ///
    /// # Errors
    ///
    /// What the kernel reports: ENOENT where there is no such group.
    #[doc(alias = "io_uring_unregister_buf_ring")]
    pub unsafe fn unregister_buf_ring(&mut self, group: u16) -> Result<()> {
        let ring = self.usable()?;
        // SAFETY: the ring is set up and ours; the caller vouches for the group.
        check(unsafe { sys::io_uring_unregister_buf_ring(ring, group.into()) }, "unregister a ring of buffers")
            .map(drop)
    }

    /// Allocates a ring of `entries` buffers, without buffers, and registers it for `group`. [`Ring::free_buf_ring`] frees
    /// it; with nothing in it, it is as good as leaked.
    ///
    #[doc = reference!(io_uring_setup_buf_ring, "2.4", "5.19")]
    ///
    /// # Errors
    ///
    /// What the kernel reports: EEXIST where the group has one.
    #[cfg(liburing_2_4)]
    #[doc(alias = "io_uring_setup_buf_ring")]
    pub fn setup_buf_ring(&mut self, entries: u32, group: u16, flags: u32) -> Result<NonNull<sys::io_uring_buf_ring>> {
        let ring = self.ring_for("io_uring_setup_buf_ring")?;
        let mut error = 0;
        // SAFETY: the ring is set up and ours; the memory is the library's, and nobody's buffers are in it.
        let made = unsafe { sys::io_uring_setup_buf_ring(ring, entries, group.into(), flags, &mut error) };
        NonNull::new(made).ok_or_else(|| Error::from_errno(error.abs(), "set up a ring of buffers"))
    }

    /// Ends [`Ring::setup_buf_ring`].
    ///
    #[doc = reference!(io_uring_free_buf_ring, "2.4", "5.19")]
    ///
    /// # Safety
    ///
    /// `buffers` is what [`Ring::setup_buf_ring`] gave for these `entries` and this `group`, and is not used any more.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_4)]
    #[doc(alias = "io_uring_free_buf_ring")]
    pub unsafe fn free_buf_ring(
        &mut self,
        buffers: NonNull<sys::io_uring_buf_ring>,
        entries: u32,
        group: u16,
    ) -> Result<()> {
        let ring = self.ring_for("io_uring_free_buf_ring")?;
        // SAFETY: the ring is set up and ours; the caller vouches for the rest.
        let returned = unsafe { sys::io_uring_free_buf_ring(ring, buffers.as_ptr(), entries, group.into()) };
        check(returned, "free a ring of buffers").map(drop)
    }

    /// How many buffers the kernel has taken out of a group's ring so far, as a number that wraps.
    ///
    #[doc = reference!(io_uring_buf_ring_head, "2.6", "6.8")]
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_buf_ring_head")]
    pub fn buf_ring_head(&mut self, group: u16) -> Result<u16> {
        let ring = self.ring_for("io_uring_buf_ring_head")?;
        let mut head = 0;
        // SAFETY: the ring is set up and ours; the number is written during the call.
        check(unsafe { sys::io_uring_buf_ring_head(ring, group.into(), &mut head) }, "look at a ring of buffers")?;
        Ok(head)
    }

    // ---- regions and zero copy

    /// Registers memory that the kernel and the program share, for arguments of waiting.
    ///
    #[doc = reference!(io_uring_register_region, "2.9", "6.13")]
    ///
    /// # Safety
    ///
    /// What the structure leads to stays valid, and nobody else uses it, until the ring is gone and all of its operations
    /// have ended.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_9)]
    #[doc(alias = "io_uring_register_region")]
    pub unsafe fn register_region(&mut self, region: &mut sys::io_uring_mem_region_reg) -> Result<()> {
        let ring = self.ring_for("io_uring_register_region")?;
        // SAFETY: the ring is set up and ours; the caller vouches for the memory.
        check(unsafe { sys::io_uring_register_region(ring, region) }, "register a region").map(drop)
    }

    /// Registers arguments of waiting, for `io_uring_submit_and_wait_reg`.
    ///
    #[doc = reference!(io_uring_register_wait_reg, "2.9", "6.13")]
    ///
    /// # Safety
    ///
    /// As for [`Ring::register_region`], for `count` structures from `arguments` on.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_9)]
    #[doc(alias = "io_uring_register_wait_reg")]
    pub unsafe fn register_wait_reg(&mut self, arguments: *mut sys::io_uring_reg_wait, count: i32) -> Result<()> {
        let ring = self.ring_for("io_uring_register_wait_reg")?;
        // SAFETY: the ring is set up and ours; the caller vouches for the memory.
        check(unsafe { sys::io_uring_register_wait_reg(ring, arguments, count) }, "register arguments of waiting")
            .map(drop)
    }

    /// Registers a queue of a network device to receive from without a copy.
    ///
    #[doc = reference!(io_uring_register_ifq, "2.10", "6.15")]
    ///
    /// # Safety
    ///
    /// As for [`Ring::register_region`].
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_10)]
    #[doc(alias = "io_uring_register_ifq")]
    pub unsafe fn register_ifq(&mut self, queue: &mut sys::io_uring_zcrx_ifq_reg) -> Result<()> {
        let ring = self.ring_for("io_uring_register_ifq")?;
        // SAFETY: the ring is set up and ours; the caller vouches for the memory.
        check(unsafe { sys::io_uring_register_ifq(ring, queue) }, "register a queue of a network device").map(drop)
    }

    /// Acts on a queue that [`Ring::register_ifq`] registered.
    ///
    #[doc = reference!(io_uring_register_zcrx_ctrl, "2.15", "6.19")]
    ///
    /// # Safety
    ///
    /// What the structure names is the caller's to do this with.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_15)]
    #[doc(alias = "io_uring_register_zcrx_ctrl")]
    pub unsafe fn register_zcrx_ctrl(&mut self, control: &mut sys::zcrx_ctrl) -> Result<()> {
        let ring = self.ring_for("io_uring_register_zcrx_ctrl")?;
        // SAFETY: the ring is set up and ours; the caller vouches for the rest.
        check(unsafe { sys::io_uring_register_zcrx_ctrl(ring, control) }, "act on a queue of a network device")
            .map(drop)
    }

    /// Registers a program that decides which operations the ring takes.
    ///
    #[doc = reference!(io_uring_register_bpf_filter, "2.15", "7.0")]
    ///
    /// # Safety
    ///
    /// What the structure leads to is valid during the call.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    #[cfg(liburing_2_15)]
    #[doc(alias = "io_uring_register_bpf_filter")]
    pub unsafe fn register_bpf_filter(&mut self, filter: &mut sys::io_uring_bpf) -> Result<()> {
        let ring = self.ring_for("io_uring_register_bpf_filter")?;
        // SAFETY: the ring is set up and ours; the caller vouches for the rest.
        check(unsafe { sys::io_uring_register_bpf_filter(ring, filter) }, "register a filter").map(drop)
    }

    // ---- what is in the queues

    /// Entries that are in the submission queue and that the kernel has not taken.
    ///
    #[doc = reference!(io_uring_sq_ready, "2.0", "5.1")]
    #[doc(alias = "io_uring_sq_ready")]
    #[must_use]
    pub fn sq_ready(&self) -> u32 {
        // SAFETY: the ring is set up and ours.
        unsafe { sys::io_uring_sq_ready(self.as_raw()) }
    }

    /// Entries that still fit into the submission queue.
    ///
    #[doc = reference!(io_uring_sq_space_left, "2.0", "5.1")]
    #[doc(alias = "io_uring_sq_space_left")]
    #[must_use]
    pub fn sq_space_left(&self) -> u32 {
        // SAFETY: the ring is set up and ours.
        unsafe { sys::io_uring_sq_space_left(self.as_raw()) }
    }

    /// Entries that are in the completion queue.
    ///
    #[doc = reference!(io_uring_cq_ready, "2.0", "5.1")]
    #[doc(alias = "io_uring_cq_ready")]
    #[must_use]
    pub fn cq_ready(&self) -> u32 {
        // SAFETY: the ring is set up and ours.
        unsafe { sys::io_uring_cq_ready(self.as_raw()) }
    }

    /// Whether the kernel holds completions back that did not fit into the queue; they come when some were taken.
    ///
    #[doc = reference!(io_uring_cq_has_overflow, "2.3", "5.1")]
    #[doc(alias = "io_uring_cq_has_overflow")]
    #[must_use]
    pub fn cq_has_overflow(&self) -> bool {
        // SAFETY: the ring is set up and ours.
        unsafe { sys::io_uring_cq_has_overflow(self.as_raw()) }
    }
}

impl<B, E: Entries> DisabledRing<B, E> {
    /// Allows only what `restrictions` list, for good, from the moment on when the ring is enabled.
    ///
    /// What is not listed fails: an operation in its completion, a call at once. The safe interface has no way around it.
    ///
    #[doc = reference!(io_uring_register_restrictions, "2.0", "5.10")]
    ///
    /// # Errors
    ///
    /// What the kernel reports: EBUSY where that was done already.
    #[doc(alias = "io_uring_register_restrictions")]
    pub fn register_restrictions(&mut self, restrictions: &[sys::io_uring_restriction]) -> Result<()> {
        self.core().check_usable()?;
        // SAFETY: the ring is set up and ours; the array is read during the call.
        let returned = unsafe {
            sys::io_uring_register_restrictions(
                self.as_raw(),
                restrictions.as_ptr().cast_mut(),
                restrictions.len() as u32,
            )
        };
        check(returned, "restrict the ring").map(drop)
    }
}

/// One tag for each of `count`.
fn as_many(count: usize, tags: &[UserData]) -> Result<u32> {
    if count == tags.len() {
        return Ok(count as u32);
    }
    let message = format!("{} tags for {count} places; each has one, and 0 is none", tags.len());
    Err(Error::new(ErrorKind::InvalidInput, message))
}

fn numbers(files: &[Option<BorrowedFd<'_>>]) -> Vec<RawFd> {
    files.iter().map(|file| file.map_or(-1, |file| file.as_raw_fd())).collect()
}

fn made_table(returned: libc::c_int, what: &str, remedy: &str) -> Result<()> {
    if returned == -libc::EBUSY {
        let message = format!("the ring has registered {what} already; {remedy} makes room for others");
        return Err(Error::new(ErrorKind::Busy, message));
    }
    check(returned, &format!("register {what}")).map(drop)
}

#[cold]
fn not_raw(what: &str, function: &str) -> Error {
    let message = format!("no {what} were registered with {function} or its like");
    Error::new(ErrorKind::InvalidInput, message)
}
