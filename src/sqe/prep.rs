//! liburing's preparations, as one list: what each takes, what its caller owes, and since when it is there.
//!
//! A preparation is `unsafe` where one of these holds; the contracts below say which, and what the caller owes then:
//!
//! * the kernel may use something after the call that the caller could take away: memory, or a descriptor;
//! * it acts on something by its number, which may be somebody else's: a descriptor, an index of a registered file, an
//!   address, a process;
//! * it can make a completion on a ring with a `user_data` that somebody takes for his own. On this ring it cannot, since
//!   what becomes a `user_data` here is a [`UserData`].
//!
//! Cancelling, also of everything, takes nothing from anybody: an operation that was cancelled still completes.

use std::ffi::c_char;
use std::os::fd::RawFd;

use liburing_sys as sys;

use super::{Queued, Sqe, UserData};
use crate::entries::Entries;

/// What the caller of a preparation owes.
macro_rules! contract {
    (file) => {
        "* Each descriptor that is named stays open until the final completion was seen."
    };
    (memory) => {
        "* What the pointers lead to stays valid until the final completion was seen, also after the ring is gone. Until \
         then nobody else writes to what the kernel reads, and nobody else uses what it writes."
    };
    (group) => {
        "* With [`SqeFlags::BUFFER_SELECT`](crate::SqeFlags::BUFFER_SELECT), the buffers of the group that it takes its \
         buffers from are lent to it in the same way."
    };
    (number) => {
        "* What it names by number (a descriptor, an index of a registered file, an address, a process) is the caller's to \
         do this with: nobody else relies on it, a [`FixedFile`](crate::FixedFile) of the ring among them."
    };
    (message) => {
        "* A completion with `data` is made on another ring. Whoever takes it there knows it for a message."
    };
}

macro_rules! prep {
    (
        safe
        $(#[$attribute:meta])*
        $name:ident($($parameter:ident: $type:ty),*) = $function:ident($($argument:expr),*), $since:literal, $linux:literal
    ) => {
        $(#[$attribute])*
        #[doc = ""]
        #[doc = reference!($function, $since, $linux)]
        #[inline]
        pub fn $name(self, $($parameter: $type),*) -> Queued<'ring, E> {
            // SAFETY: the entry is the free one at the tail; the kernel gets nothing that somebody could take away.
            unsafe { sys::$function(self.entry.as_ptr(), $($argument),*) };
            self.into_queue()
        }
    };
    (
        unsafe($($contract:ident),+)
        $(#[$attribute:meta])*
        $name:ident($($parameter:ident: $type:ty),*) = $function:ident($($argument:expr),*), $since:literal, $linux:literal
    ) => {
        $(#[$attribute])*
        #[doc = ""]
        #[doc = reference!($function, $since, $linux)]
        #[doc = ""]
        #[doc = "# Safety"]
        #[doc = ""]
        $(#[doc = contract!($contract)])+
        #[allow(trivial_numeric_casts, clippy::too_many_arguments, reason = "the widths of C, in every header; C's list")]
        #[inline]
        pub unsafe fn $name(self, $($parameter: $type),*) -> Queued<'ring, E> {
            // SAFETY: the entry is the free one at the tail; the caller vouches for the rest.
            unsafe { sys::$function(self.entry.as_ptr(), $($argument),*) };
            self.into_queue()
        }
    };
}

/// What the list says of one preparation.
#[cfg(test)]
pub(crate) struct Listed {
    pub(crate) name: &'static str,
    pub(crate) function: &'static str,
    /// `safe`, or `unsafe(...)` with the contracts.
    pub(crate) contract: &'static str,
    pub(crate) since: &'static str,
    pub(crate) linux: &'static str,
    /// The attributes, to see that the alias is the function's name.
    pub(crate) attributes: &'static str,
}

macro_rules! preps {
    ( $(
        $(#[$attribute:meta])*
        $safety:ident $(($($contract:ident),+))? fn $name:ident($($parameter:ident: $type:ty),* $(,)?)
            = $function:ident($($argument:expr),*), since $since:literal, Linux $linux:literal;
    )* ) => {
        impl<'ring, E: Entries> Sqe<'ring, E> { $(
            prep! {
                $safety $(($($contract),+))?
                $(#[$attribute])*
                $name($($parameter: $type),*) = $function($($argument),*), $since, $linux
            }
        )* }

        /// The list, for the ledger; with those that this header does not have.
        #[cfg(test)]
        pub(crate) const LISTED: &[Listed] = &[ $( Listed {
            name: stringify!($name),
            function: stringify!($function),
            contract: stringify!($safety $(($($contract),+))?),
            since: $since,
            linux: $linux,
            attributes: stringify!($($attribute)*),
        } ),* ];
    };
}

preps! {
    // ---- nothing, time, polls, cancels

    /// Does nothing, and completes.
    #[doc(alias = "io_uring_prep_nop")]
    safe fn prep_nop() = io_uring_prep_nop(), since "2.0", Linux "5.1";

    /// Does nothing in an entry of 128 bytes, on a ring with such entries ([`RingBuilder::big_entries`]).
    ///
    /// [`RingBuilder::big_entries`]: crate::RingBuilder::big_entries
    #[cfg(liburing_2_13)]
    #[doc(alias = "io_uring_prep_nop128")]
    safe fn prep_nop128() = io_uring_prep_nop128(), since "2.13", Linux "6.19";

    /// Completes after `time`, or after `count` other completions where that is not 0.
    ///
    /// ```
    /// use sysuring::{Completion, Ring, sys};
    /// # fn main() -> sysuring::Result<()> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// let time = sys::__kernel_timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    /// // SAFETY: the time outlives the wait.
    /// unsafe { ring.get_sqe().expect("the queue is empty").prep_timeout(&time, 0, 0) };
    /// ring.submit_and_wait(1)?;
    /// let Some(Completion::Raw(completion)) = ring.completions().next() else { panic!("one entry, one completion") };
    /// assert_eq!(completion.raw_result(), -libc::ETIME);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "io_uring_prep_timeout")]
    unsafe(memory) fn prep_timeout(time: *const sys::__kernel_timespec, count: u32, flags: u32)
        = io_uring_prep_timeout(time.cast_mut(), count, flags), since "2.0", Linux "5.4";

    /// Ends the raw timeout with this `user_data`.
    #[doc(alias = "io_uring_prep_timeout_remove")]
    safe fn prep_timeout_remove(user_data: UserData, flags: u32)
        = io_uring_prep_timeout_remove(user_data.get(), flags), since "2.0", Linux "5.5";

    /// Gives the raw timeout with this `user_data` another time; with `IORING_LINK_TIMEOUT_UPDATE` a linked one.
    #[doc(alias = "io_uring_prep_timeout_update")]
    unsafe(memory) fn prep_timeout_update(time: *const sys::__kernel_timespec, user_data: UserData, flags: u32)
        = io_uring_prep_timeout_update(time.cast_mut(), user_data.get(), flags), since "2.0", Linux "5.11";

    /// Limits the time of the entry before, which links to this one ([`Queued::set_flags_unchecked`]).
    #[doc(alias = "io_uring_prep_link_timeout")]
    unsafe(memory) fn prep_link_timeout(time: *const sys::__kernel_timespec, flags: u32)
        = io_uring_prep_link_timeout(time.cast_mut(), flags), since "2.0", Linux "5.5";

    /// Completes when one of `events` (`POLLIN` and so on) is there.
    #[doc(alias = "io_uring_prep_poll_add")]
    unsafe(file) fn prep_poll_add(file: RawFd, events: u32)
        = io_uring_prep_poll_add(file, events), since "2.0", Linux "5.1";

    /// As [`Sqe::prep_poll_add`], with a completion each time.
    #[doc(alias = "io_uring_prep_poll_multishot")]
    unsafe(file) fn prep_poll_multishot(file: RawFd, events: u32)
        = io_uring_prep_poll_multishot(file, events), since "2.1", Linux "5.13";

    /// Ends the raw poll with this `user_data`.
    #[doc(alias = "io_uring_prep_poll_remove")]
    safe fn prep_poll_remove(user_data: UserData)
        = io_uring_prep_poll_remove(user_data.get()), since "2.0", Linux "5.1";

    /// Changes the events of the raw poll with this `user_data`, or the `user_data`, or both, as `flags` say
    /// (`IORING_POLL_UPDATE_EVENTS`, `IORING_POLL_UPDATE_USER_DATA`).
    ///
    /// Both values are of the raw interface: no operation of the safe one is found, and none is imitated.
    #[doc(alias = "io_uring_prep_poll_update")]
    safe fn prep_poll_update(old: UserData, new: UserData, events: u32, flags: u32)
        = io_uring_prep_poll_update(old.get(), new.get(), events, flags), since "2.1", Linux "5.13";

    /// Asks the kernel to end operations: the raw one with this `user_data`, or others as `flags` say
    /// (`IORING_ASYNC_CANCEL_ANY` and so on), those of the safe interface among them.
    ///
    /// The answer is this entry's completion; the operation's own one comes in any case.
    #[doc(alias("io_uring_prep_cancel", "io_uring_prep_cancel64"))]
    safe fn prep_cancel64(user_data: UserData, flags: i32)
        = io_uring_prep_cancel64(user_data.get(), flags), since "2.2", Linux "5.5";

    /// As [`Sqe::prep_cancel64`], for operations on a descriptor, or on a registered file with
    /// `IORING_ASYNC_CANCEL_FD_FIXED`.
    #[doc(alias = "io_uring_prep_cancel_fd")]
    safe fn prep_cancel_fd(file: RawFd, flags: u32)
        = io_uring_prep_cancel_fd(file, flags), since "2.2", Linux "5.19";

    // ---- contents of files

    /// Reads `length` bytes at `offset`; at the file's own position where that is `u64::MAX`.
    #[doc(alias = "io_uring_prep_read")]
    unsafe(file, memory, group) fn prep_read(file: RawFd, buffer: *mut u8, length: u32, offset: u64)
        = io_uring_prep_read(file, buffer.cast(), length, offset), since "2.0", Linux "5.6";

    /// Writes `length` bytes at `offset`; at the file's own position where that is `u64::MAX`.
    #[doc(alias = "io_uring_prep_write")]
    unsafe(file, memory) fn prep_write(file: RawFd, buffer: *const u8, length: u32, offset: u64)
        = io_uring_prep_write(file, buffer.cast(), length, offset), since "2.0", Linux "5.6";

    /// As [`Sqe::prep_read`], into the registered buffer `index`, which does not keep the memory from being unmapped.
    #[doc(alias = "io_uring_prep_read_fixed")]
    unsafe(file, memory) fn prep_read_fixed(file: RawFd, buffer: *mut u8, length: u32, offset: u64, index: u16)
        = io_uring_prep_read_fixed(file, buffer.cast(), length, offset, index.into()), since "2.0", Linux "5.1";

    /// As [`Sqe::prep_write`], from the registered buffer `index`, which does not keep the memory from being unmapped.
    #[doc(alias = "io_uring_prep_write_fixed")]
    unsafe(file, memory) fn prep_write_fixed(file: RawFd, buffer: *const u8, length: u32, offset: u64, index: u16)
        = io_uring_prep_write_fixed(file, buffer.cast(), length, offset, index.into()), since "2.0", Linux "5.1";

    /// Reads into several buffers, one after the other.
    #[doc(alias = "io_uring_prep_readv")]
    unsafe(file, memory, group) fn prep_readv(file: RawFd, vectors: *const libc::iovec, count: u32, offset: u64)
        = io_uring_prep_readv(file, vectors, count, offset), since "2.0", Linux "5.1";

    /// As [`Sqe::prep_readv`], with `RWF_*` flags.
    #[doc(alias = "io_uring_prep_readv2")]
    unsafe(file, memory, group) fn prep_readv2(
        file: RawFd, vectors: *const libc::iovec, count: u32, offset: u64, flags: i32,
    ) = io_uring_prep_readv2(file, vectors, count, offset, flags), since "2.2", Linux "5.1";

    /// Writes out of several buffers, one after the other.
    #[doc(alias = "io_uring_prep_writev")]
    unsafe(file, memory) fn prep_writev(file: RawFd, vectors: *const libc::iovec, count: u32, offset: u64)
        = io_uring_prep_writev(file, vectors, count, offset), since "2.0", Linux "5.1";

    /// As [`Sqe::prep_writev`], with `RWF_*` flags.
    #[doc(alias = "io_uring_prep_writev2")]
    unsafe(file, memory) fn prep_writev2(file: RawFd, vectors: *const libc::iovec, count: u32, offset: u64, flags: i32)
        = io_uring_prep_writev2(file, vectors, count, offset, flags), since "2.2", Linux "5.1";

    /// As [`Sqe::prep_readv2`], into parts of the registered buffer `index`.
    #[cfg(liburing_2_10)]
    #[doc(alias = "io_uring_prep_readv_fixed")]
    unsafe(file, memory) fn prep_readv_fixed(
        file: RawFd, vectors: *const libc::iovec, count: u32, offset: u64, flags: i32, index: u16,
    ) = io_uring_prep_readv_fixed(file, vectors, count, offset, flags, index.into()), since "2.10", Linux "6.15";

    /// As [`Sqe::prep_writev2`], out of parts of the registered buffer `index`.
    #[cfg(liburing_2_10)]
    #[doc(alias = "io_uring_prep_writev_fixed")]
    unsafe(file, memory) fn prep_writev_fixed(
        file: RawFd, vectors: *const libc::iovec, count: u32, offset: u64, flags: i32, index: u16,
    ) = io_uring_prep_writev_fixed(file, vectors, count, offset, flags, index.into()), since "2.10", Linux "6.15";

    /// Reads again and again, into provided buffers of `group`, of a file that can be polled.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_prep_read_multishot")]
    unsafe(file, memory, group) fn prep_read_multishot(file: RawFd, length: u32, offset: u64, group: u16)
        = io_uring_prep_read_multishot(file, length, offset, group.into()), since "2.6", Linux "6.7";

    /// Moves `length` bytes from one file to another, one of which is a pipe. An offset of -1 is the file's own position,
    /// and that of a pipe.
    #[doc(alias = "io_uring_prep_splice")]
    unsafe(file) fn prep_splice(from: RawFd, from_offset: i64, to: RawFd, to_offset: i64, length: u32, flags: u32)
        = io_uring_prep_splice(from, from_offset, to, to_offset, length, flags), since "2.0", Linux "5.7";

    /// Copies `length` bytes from one pipe to another.
    #[doc(alias = "io_uring_prep_tee")]
    unsafe(file) fn prep_tee(from: RawFd, to: RawFd, length: u32, flags: u32)
        = io_uring_prep_tee(from, to, length, flags), since "2.0", Linux "5.8";

    /// Brings a file to stable storage; `flags` is 0 or `IORING_FSYNC_DATASYNC`.
    #[doc(alias = "io_uring_prep_fsync")]
    unsafe(file) fn prep_fsync(file: RawFd, flags: u32)
        = io_uring_prep_fsync(file, flags), since "2.0", Linux "5.1";

    /// Begins or ends writing a range of a file out, as `sync_file_range(2)` does.
    #[doc(alias = "io_uring_prep_sync_file_range")]
    unsafe(file) fn prep_sync_file_range(file: RawFd, length: u32, offset: u64, flags: i32)
        = io_uring_prep_sync_file_range(file, length, offset, flags), since "2.0", Linux "5.2";

    /// Allocates, punches or zeroes a range of a file, as `fallocate(2)` does.
    #[doc(alias = "io_uring_prep_fallocate")]
    unsafe(file) fn prep_fallocate(file: RawFd, mode: i32, offset: u64, length: u64)
        = io_uring_prep_fallocate(file, mode, offset, length), since "2.0", Linux "5.6";

    /// Makes a file as long as this.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_prep_ftruncate")]
    unsafe(file) fn prep_ftruncate(file: RawFd, length: i64)
        = io_uring_prep_ftruncate(file, length), since "2.6", Linux "6.9";

    /// Says how a range of a file will be used.
    #[doc(alias = "io_uring_prep_fadvise")]
    unsafe(file) fn prep_fadvise(file: RawFd, offset: u64, length: u32, advice: i32)
        = io_uring_prep_fadvise(file, offset, length as _, advice), since "2.0", Linux "5.6";

    /// As [`Sqe::prep_fadvise`], of any length.
    #[cfg(liburing_2_7)]
    #[doc(alias = "io_uring_prep_fadvise64")]
    unsafe(file) fn prep_fadvise64(file: RawFd, offset: u64, length: i64, advice: i32)
        = io_uring_prep_fadvise64(file, offset, length as _, advice), since "2.7", Linux "6.11";

    /// Says how memory will be used, which may also empty it.
    #[doc(alias = "io_uring_prep_madvise")]
    unsafe(memory, number) fn prep_madvise(address: *mut u8, length: u32, advice: i32)
        = io_uring_prep_madvise(address.cast(), length as _, advice), since "2.0", Linux "5.6";

    /// As [`Sqe::prep_madvise`], of any length.
    #[cfg(liburing_2_7)]
    #[doc(alias = "io_uring_prep_madvise64")]
    unsafe(memory, number) fn prep_madvise64(address: *mut u8, length: i64, advice: i32)
        = io_uring_prep_madvise64(address.cast(), length as _, advice), since "2.7", Linux "6.11";

    /// Discards a range of a block device.
    #[cfg(liburing_2_8)]
    #[doc(alias = "io_uring_prep_cmd_discard")]
    unsafe(file) fn prep_cmd_discard(file: RawFd, offset: u64, length: u64)
        = io_uring_prep_cmd_discard(file, offset, length), since "2.8", Linux "6.12";

    // ---- descriptors and registered files

    /// Opens a file below a directory; the result is its descriptor.
    ///
    /// ```
    /// use sysuring::{Completion, Ring};
    /// use std::os::fd::{FromRawFd, OwnedFd};
    /// # fn main() -> sysuring::Result<()> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// let path = c"/proc/self/exe";
    /// // SAFETY: the path is a constant.
    /// unsafe { ring.get_sqe().expect("the queue is empty").prep_openat(libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY, 0) };
    /// ring.submit_and_wait(1)?;
    /// let Some(Completion::Raw(completion)) = ring.completions().next() else { panic!("one entry, one completion") };
    /// let descriptor = completion.result()?;
    /// // SAFETY: opened for us just now.
    /// let file = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
    /// # drop(file);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "io_uring_prep_openat")]
    unsafe(file, memory) fn prep_openat(directory: RawFd, path: *const c_char, flags: i32, mode: libc::mode_t)
        = io_uring_prep_openat(directory, path, flags, mode), since "2.0", Linux "5.6";

    /// As [`Sqe::prep_openat`], as the registered file `index`, or any free one with `IORING_FILE_INDEX_ALLOC`.
    #[doc(alias = "io_uring_prep_openat_direct")]
    unsafe(file, memory, number) fn prep_openat_direct(
        directory: RawFd, path: *const c_char, flags: i32, mode: libc::mode_t, index: u32,
    ) = io_uring_prep_openat_direct(directory, path, flags, mode, index), since "2.1", Linux "5.15";

    /// Opens a file; the result is its descriptor.
    #[cfg(liburing_2_8)]
    #[doc(alias = "io_uring_prep_open")]
    unsafe(memory) fn prep_open(path: *const c_char, flags: i32, mode: libc::mode_t)
        = io_uring_prep_open(path, flags, mode), since "2.8", Linux "5.6";

    /// As [`Sqe::prep_open`], as the registered file `index`, or any free one with `IORING_FILE_INDEX_ALLOC`.
    #[cfg(liburing_2_8)]
    #[doc(alias = "io_uring_prep_open_direct")]
    unsafe(memory, number) fn prep_open_direct(path: *const c_char, flags: i32, mode: libc::mode_t, index: u32)
        = io_uring_prep_open_direct(path, flags, mode, index), since "2.8", Linux "5.15";

    /// As [`Sqe::prep_openat`], with all that `openat2(2)` takes.
    #[doc(alias = "io_uring_prep_openat2")]
    unsafe(file, memory) fn prep_openat2(directory: RawFd, path: *const c_char, how: *const sys::open_how)
        = io_uring_prep_openat2(directory, path, how.cast_mut()), since "2.0", Linux "5.6";

    /// As [`Sqe::prep_openat2`], as the registered file `index`, or any free one with `IORING_FILE_INDEX_ALLOC`.
    #[doc(alias = "io_uring_prep_openat2_direct")]
    unsafe(file, memory, number) fn prep_openat2_direct(
        directory: RawFd, path: *const c_char, how: *const sys::open_how, index: u32,
    ) = io_uring_prep_openat2_direct(directory, path, how.cast_mut(), index), since "2.1", Linux "5.15";

    /// Closes a descriptor.
    #[doc(alias = "io_uring_prep_close")]
    unsafe(number) fn prep_close(file: RawFd)
        = io_uring_prep_close(file), since "2.0", Linux "5.6";

    /// Lets go of the registered file `index`.
    #[doc(alias = "io_uring_prep_close_direct")]
    unsafe(number) fn prep_close_direct(index: u32)
        = io_uring_prep_close_direct(index), since "2.2", Linux "5.15";

    /// Replaces registered files from the index `first` on.
    #[doc(alias = "io_uring_prep_files_update")]
    unsafe(file, memory, number) fn prep_files_update(files: *mut RawFd, count: u32, first: i32)
        = io_uring_prep_files_update(files, count, first), since "2.0", Linux "5.6";

    /// Makes a descriptor of the registered file `index`; the result is the descriptor.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_prep_fixed_fd_install")]
    unsafe(number) fn prep_fixed_fd_install(index: i32, flags: u32)
        = io_uring_prep_fixed_fd_install(index, flags), since "2.6", Linux "6.8";

    /// Makes a pipe, and writes its two descriptors to `ends`.
    #[cfg(liburing_2_12)]
    #[doc(alias = "io_uring_prep_pipe")]
    unsafe(memory) fn prep_pipe(ends: *mut RawFd, flags: i32)
        = io_uring_prep_pipe(ends, flags), since "2.12", Linux "6.16";

    /// As [`Sqe::prep_pipe`], as the registered files `index` and the next one, or any free ones with
    /// `IORING_FILE_INDEX_ALLOC`.
    #[cfg(liburing_2_12)]
    #[doc(alias = "io_uring_prep_pipe_direct")]
    unsafe(memory, number) fn prep_pipe_direct(ends: *mut RawFd, flags: i32, index: u32)
        = io_uring_prep_pipe_direct(ends, flags, index), since "2.12", Linux "6.16";

    // ---- names in file systems

    /// Writes what `statx(2)` tells of a file to `status`.
    ///
    /// ```
    /// use sysuring::{Completion, Ring};
    /// # fn main() -> sysuring::Result<()> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// let mut status = std::mem::MaybeUninit::<libc::statx>::zeroed();
    /// let entry = ring.get_sqe().expect("the queue is empty");
    /// // SAFETY: the path is a constant, and the place for the answer outlives the wait.
    /// unsafe { entry.prep_statx(libc::AT_FDCWD, c"/".as_ptr(), 0, libc::STATX_TYPE, status.as_mut_ptr()) };
    /// ring.submit_and_wait(1)?;
    /// let Some(Completion::Raw(completion)) = ring.completions().next() else { panic!("one entry, one completion") };
    /// completion.result()?;
    /// // SAFETY: the kernel filled it in.
    /// let status = unsafe { status.assume_init() };
    /// assert_eq!(u32::from(status.stx_mode) & libc::S_IFMT, libc::S_IFDIR);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "io_uring_prep_statx")]
    unsafe(file, memory) fn prep_statx(
        directory: RawFd, path: *const c_char, flags: i32, mask: u32, status: *mut libc::statx,
    ) = io_uring_prep_statx(directory, path, flags, mask, status), since "2.0", Linux "5.6";

    /// Renames a file below a directory.
    #[doc(alias = "io_uring_prep_renameat")]
    unsafe(file, memory) fn prep_renameat(
        old_directory: RawFd, old_path: *const c_char, new_directory: RawFd, new_path: *const c_char, flags: u32,
    ) = io_uring_prep_renameat(old_directory, old_path, new_directory, new_path, flags as _), since "2.0", Linux "5.11";

    /// Renames a file.
    #[doc(alias = "io_uring_prep_rename")]
    unsafe(memory) fn prep_rename(old_path: *const c_char, new_path: *const c_char)
        = io_uring_prep_rename(old_path, new_path), since "2.2", Linux "5.11";

    /// Gives a file below a directory a second name.
    #[doc(alias = "io_uring_prep_linkat")]
    unsafe(file, memory) fn prep_linkat(
        old_directory: RawFd, old_path: *const c_char, new_directory: RawFd, new_path: *const c_char, flags: i32,
    ) = io_uring_prep_linkat(old_directory, old_path, new_directory, new_path, flags), since "2.1", Linux "5.15";

    /// Gives a file a second name.
    #[doc(alias = "io_uring_prep_link")]
    unsafe(memory) fn prep_link(old_path: *const c_char, new_path: *const c_char, flags: i32)
        = io_uring_prep_link(old_path, new_path, flags), since "2.2", Linux "5.15";

    /// Makes a symbolic link below a directory.
    #[doc(alias = "io_uring_prep_symlinkat")]
    unsafe(file, memory) fn prep_symlinkat(target: *const c_char, directory: RawFd, path: *const c_char)
        = io_uring_prep_symlinkat(target, directory, path), since "2.1", Linux "5.15";

    /// Makes a symbolic link.
    #[doc(alias = "io_uring_prep_symlink")]
    unsafe(memory) fn prep_symlink(target: *const c_char, path: *const c_char)
        = io_uring_prep_symlink(target, path), since "2.2", Linux "5.15";

    /// Removes a name below a directory.
    #[doc(alias = "io_uring_prep_unlinkat")]
    unsafe(file, memory) fn prep_unlinkat(directory: RawFd, path: *const c_char, flags: i32)
        = io_uring_prep_unlinkat(directory, path, flags), since "2.0", Linux "5.11";

    /// Removes a name.
    #[doc(alias = "io_uring_prep_unlink")]
    unsafe(memory) fn prep_unlink(path: *const c_char, flags: i32)
        = io_uring_prep_unlink(path, flags), since "2.2", Linux "5.11";

    /// Makes a directory below a directory.
    #[doc(alias = "io_uring_prep_mkdirat")]
    unsafe(file, memory) fn prep_mkdirat(directory: RawFd, path: *const c_char, mode: libc::mode_t)
        = io_uring_prep_mkdirat(directory, path, mode), since "2.1", Linux "5.15";

    /// Makes a directory.
    #[doc(alias = "io_uring_prep_mkdir")]
    unsafe(memory) fn prep_mkdir(path: *const c_char, mode: libc::mode_t)
        = io_uring_prep_mkdir(path, mode), since "2.2", Linux "5.15";

    /// Writes an extended attribute of a file to `value`.
    #[doc(alias = "io_uring_prep_getxattr")]
    unsafe(memory) fn prep_getxattr(name: *const c_char, value: *mut u8, path: *const c_char, length: u32)
        = io_uring_prep_getxattr(name, value.cast(), path, length), since "2.2", Linux "5.19";

    /// Sets an extended attribute of a file.
    #[doc(alias = "io_uring_prep_setxattr")]
    unsafe(memory) fn prep_setxattr(
        name: *const c_char, value: *const u8, path: *const c_char, flags: i32, length: u32,
    ) = io_uring_prep_setxattr(name, value.cast(), path, flags, length), since "2.2", Linux "5.19";

    /// As [`Sqe::prep_getxattr`], of an open file.
    #[doc(alias = "io_uring_prep_fgetxattr")]
    unsafe(file, memory) fn prep_fgetxattr(file: RawFd, name: *const c_char, value: *mut u8, length: u32)
        = io_uring_prep_fgetxattr(file, name, value.cast(), length), since "2.2", Linux "5.19";

    /// As [`Sqe::prep_setxattr`], of an open file.
    #[doc(alias = "io_uring_prep_fsetxattr")]
    unsafe(file, memory) fn prep_fsetxattr(
        file: RawFd, name: *const c_char, value: *const u8, flags: i32, length: u32,
    ) = io_uring_prep_fsetxattr(file, name, value.cast(), flags, length), since "2.2", Linux "5.19";

    // ---- sockets

    /// Makes a socket; the result is its descriptor.
    #[doc(alias = "io_uring_prep_socket")]
    safe fn prep_socket(domain: i32, kind: i32, protocol: i32, flags: u32)
        = io_uring_prep_socket(domain, kind, protocol, flags), since "2.2", Linux "5.19";

    /// As [`Sqe::prep_socket`], as the registered file `index`, or any free one with `IORING_FILE_INDEX_ALLOC`.
    #[doc(alias = "io_uring_prep_socket_direct")]
    unsafe(number) fn prep_socket_direct(domain: i32, kind: i32, protocol: i32, index: u32, flags: u32)
        = io_uring_prep_socket_direct(domain, kind, protocol, index, flags), since "2.2", Linux "5.19";

    /// As [`Sqe::prep_socket`], as any registered file that is free; the result is its index.
    ///
    /// ```
    /// use sysuring::{Completion, Ring};
    /// # fn main() -> sysuring::Result<()> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// ring.get_sqe().expect("the queue is empty").prep_socket_direct_alloc(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0);
    /// ring.submit_and_wait(1)?;
    /// let Some(Completion::Raw(completion)) = ring.completions().next() else { panic!("one entry, one completion") };
    /// assert!(completion.result().is_err(), "the ring has no table of files");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "io_uring_prep_socket_direct_alloc")]
    safe fn prep_socket_direct_alloc(domain: i32, kind: i32, protocol: i32, flags: u32)
        = io_uring_prep_socket_direct_alloc(domain, kind, protocol, flags), since "2.2", Linux "5.19";

    /// Accepts a connection; the result is its descriptor. The peer's address goes to `address`, unless that is null.
    #[doc(alias = "io_uring_prep_accept")]
    unsafe(file, memory) fn prep_accept(
        socket: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t, flags: i32,
    ) = io_uring_prep_accept(socket, address, length, flags), since "2.0", Linux "5.5";

    /// As [`Sqe::prep_accept`], as the registered file `index`, or any free one with `IORING_FILE_INDEX_ALLOC`.
    #[doc(alias = "io_uring_prep_accept_direct")]
    unsafe(file, memory, number) fn prep_accept_direct(
        socket: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t, flags: i32, index: u32,
    ) = io_uring_prep_accept_direct(socket, address, length, flags, index), since "2.1", Linux "5.15";

    /// As [`Sqe::prep_accept`], again and again.
    #[doc(alias = "io_uring_prep_multishot_accept")]
    unsafe(file, memory) fn prep_multishot_accept(
        socket: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t, flags: i32,
    ) = io_uring_prep_multishot_accept(socket, address, length, flags), since "2.2", Linux "5.19";

    /// As [`Sqe::prep_multishot_accept`], as registered files that are free.
    #[doc(alias = "io_uring_prep_multishot_accept_direct")]
    unsafe(file, memory) fn prep_multishot_accept_direct(
        socket: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t, flags: i32,
    ) = io_uring_prep_multishot_accept_direct(socket, address, length, flags), since "2.2", Linux "5.19";

    /// Connects a socket.
    #[doc(alias = "io_uring_prep_connect")]
    unsafe(file, memory) fn prep_connect(socket: RawFd, address: *const libc::sockaddr, length: libc::socklen_t)
        = io_uring_prep_connect(socket, address, length), since "2.0", Linux "5.5";

    /// Gives a socket an address.
    #[cfg(liburing_2_7)]
    #[doc(alias = "io_uring_prep_bind")]
    unsafe(file, memory) fn prep_bind(socket: RawFd, address: *const libc::sockaddr, length: libc::socklen_t)
        = io_uring_prep_bind(socket, address.cast_mut(), length), since "2.7", Linux "6.11";

    /// Lets a socket take connections.
    #[cfg(liburing_2_7)]
    #[doc(alias = "io_uring_prep_listen")]
    unsafe(file) fn prep_listen(socket: RawFd, backlog: i32)
        = io_uring_prep_listen(socket, backlog), since "2.7", Linux "6.11";

    /// Ends one or both directions of a connection.
    #[doc(alias = "io_uring_prep_shutdown")]
    unsafe(file) fn prep_shutdown(socket: RawFd, how: i32)
        = io_uring_prep_shutdown(socket, how), since "2.0", Linux "5.11";

    /// Receives at most `length` bytes.
    #[doc(alias = "io_uring_prep_recv")]
    unsafe(file, memory, group) fn prep_recv(socket: RawFd, buffer: *mut u8, length: usize, flags: i32)
        = io_uring_prep_recv(socket, buffer.cast(), length, flags), since "2.0", Linux "5.6";

    /// Receives again and again, into provided buffers of the group that [`Queued::set_buf_group`] sets.
    #[doc(alias = "io_uring_prep_recv_multishot")]
    unsafe(file, memory, group) fn prep_recv_multishot(socket: RawFd, buffer: *mut u8, length: usize, flags: i32)
        = io_uring_prep_recv_multishot(socket, buffer.cast(), length, flags), since "2.3", Linux "6.0";

    /// Receives a message with its address and control data.
    #[doc(alias = "io_uring_prep_recvmsg")]
    unsafe(file, memory, group) fn prep_recvmsg(socket: RawFd, message: *mut libc::msghdr, flags: u32)
        = io_uring_prep_recvmsg(socket, message, flags), since "2.0", Linux "5.3";

    /// Receives messages again and again, into provided buffers of the group that [`Queued::set_buf_group`] sets.
    #[doc(alias = "io_uring_prep_recvmsg_multishot")]
    unsafe(file, memory, group) fn prep_recvmsg_multishot(socket: RawFd, message: *mut libc::msghdr, flags: u32)
        = io_uring_prep_recvmsg_multishot(socket, message, flags), since "2.3", Linux "6.0";

    /// Sends `length` bytes.
    #[doc(alias = "io_uring_prep_send")]
    unsafe(file, memory, group) fn prep_send(socket: RawFd, buffer: *const u8, length: usize, flags: i32)
        = io_uring_prep_send(socket, buffer.cast(), length, flags), since "2.0", Linux "5.6";

    /// Sends as many provided buffers of the group that [`Queued::set_buf_group`] sets as there are, or `length` bytes.
    #[cfg(liburing_2_7)]
    #[doc(alias = "io_uring_prep_send_bundle")]
    unsafe(file, memory, group) fn prep_send_bundle(socket: RawFd, length: usize, flags: i32)
        = io_uring_prep_send_bundle(socket, length, flags), since "2.7", Linux "6.10";

    /// Sends `length` bytes to `address`.
    #[cfg(liburing_2_4)]
    #[doc(alias = "io_uring_prep_sendto")]
    unsafe(file, memory) fn prep_sendto(
        socket: RawFd, buffer: *const u8, length: usize, flags: i32,
        address: *const libc::sockaddr, address_length: libc::socklen_t,
    ) = io_uring_prep_sendto(socket, buffer.cast(), length, flags, address, address_length), since "2.4", Linux "6.1";

    /// Sends a message with its address and control data.
    #[doc(alias = "io_uring_prep_sendmsg")]
    unsafe(file, memory, group) fn prep_sendmsg(socket: RawFd, message: *const libc::msghdr, flags: u32)
        = io_uring_prep_sendmsg(socket, message, flags), since "2.0", Linux "5.3";

    /// Sends `length` bytes without a copy. The final completion, a second one, says that the buffer is free.
    #[doc(alias = "io_uring_prep_send_zc")]
    unsafe(file, memory) fn prep_send_zc(socket: RawFd, buffer: *const u8, length: usize, flags: i32, zc_flags: u32)
        = io_uring_prep_send_zc(socket, buffer.cast(), length, flags, zc_flags), since "2.3", Linux "6.0";

    /// As [`Sqe::prep_send_zc`], out of the registered buffer `index`.
    #[doc(alias = "io_uring_prep_send_zc_fixed")]
    unsafe(file, memory) fn prep_send_zc_fixed(
        socket: RawFd, buffer: *const u8, length: usize, flags: i32, zc_flags: u32, index: u16,
    ) = io_uring_prep_send_zc_fixed(socket, buffer.cast(), length, flags, zc_flags, index.into()),
        since "2.3", Linux "6.0";

    /// As [`Sqe::prep_sendmsg`], without a copy; see [`Sqe::prep_send_zc`].
    #[doc(alias = "io_uring_prep_sendmsg_zc")]
    unsafe(file, memory) fn prep_sendmsg_zc(socket: RawFd, message: *const libc::msghdr, flags: u32)
        = io_uring_prep_sendmsg_zc(socket, message, flags), since "2.3", Linux "6.1";

    /// As [`Sqe::prep_sendmsg_zc`], out of parts of the registered buffer `index`.
    #[cfg(liburing_2_10)]
    #[doc(alias = "io_uring_prep_sendmsg_zc_fixed")]
    unsafe(file, memory) fn prep_sendmsg_zc_fixed(socket: RawFd, message: *const libc::msghdr, flags: u32, index: u16)
        = io_uring_prep_sendmsg_zc_fixed(socket, message, flags, index.into()), since "2.10", Linux "6.15";

    /// A command for a socket (`SOCKET_URING_OP_*`), such as setting an option (since Linux 6.7).
    #[cfg(liburing_2_5)]
    #[doc(alias = "io_uring_prep_cmd_sock")]
    unsafe(file, memory) fn prep_cmd_sock(
        command: i32, socket: RawFd, level: i32, option: i32, value: *mut u8, length: i32,
    ) = io_uring_prep_cmd_sock(command, socket, level, option, value.cast(), length), since "2.5", Linux "6.5";

    /// Writes the address of a socket, or of its peer where `peer` is not 0.
    #[cfg(liburing_2_13)]
    #[doc(alias = "io_uring_prep_cmd_getsockname")]
    unsafe(file, memory) fn prep_cmd_getsockname(
        socket: RawFd, address: *mut libc::sockaddr, length: *mut libc::socklen_t, peer: i32,
    ) = io_uring_prep_cmd_getsockname(socket, address, length, peer), since "2.13", Linux "6.19";

    // ---- buffers to choose from

    /// Adds `count` buffers of `length` bytes each, numbered from `first` on, to a group, for operations that choose theirs
    /// when they need one. They are lent to the kernel until they come with a completion, or are removed.
    ///
    /// ```
    /// use sysuring::{Completion, Ring, SqeFlags};
    /// # fn main() -> sysuring::Result<()> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// let mut buffers = [[0; 16]; 4];
    /// let entry = ring.get_sqe().expect("the queue is empty");
    /// // SAFETY: the buffers outlive everything that is waited for below, and are removed.
    /// unsafe { entry.prep_provide_buffers(buffers.as_mut_ptr().cast(), 16, 4, 1, 0) };
    /// ring.get_sqe().expect("there is room").prep_remove_buffers(4, 1).set_flags(SqeFlags::IO_DRAIN);
    /// ring.submit_and_wait(2)?;
    /// let results: Vec<_> = ring
    ///     .completions()
    ///     .map(|completion| match completion {
    ///         Completion::Raw(completion) => completion.raw_result(),
    ///         _ => unreachable!("only raw entries were started"),
    ///     })
    ///     .collect();
    /// assert_eq!(results, [0, 4]);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "io_uring_prep_provide_buffers")]
    unsafe(memory) fn prep_provide_buffers(buffers: *mut u8, length: i32, count: i32, group: u16, first: u16)
        = io_uring_prep_provide_buffers(buffers.cast(), length, count, group.into(), first.into()),
        since "2.0", Linux "5.7";

    /// Takes up to `count` buffers out of a group again; the result is how many. A group that is a buffer ring refuses.
    #[doc(alias = "io_uring_prep_remove_buffers")]
    safe fn prep_remove_buffers(count: i32, group: u16)
        = io_uring_prep_remove_buffers(count, group.into()), since "2.0", Linux "5.7";

    // ---- other rings

    /// Makes a completion with `result` and `data` on the ring `ring`.
    ///
    /// ```
    /// use sysuring::{Completion, Ring, UserData};
    /// # fn main() -> sysuring::Result<()> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let mut ring = Ring::with_entries(8)?;
    /// let mut other = Ring::with_entries(8)?;
    /// let entry = ring.get_sqe().expect("the queue is empty");
    /// // SAFETY: the other ring is open, and what comes there is looked at below.
    /// unsafe { entry.prep_msg_ring((*other.as_raw()).ring_fd, 42, UserData::from(7), 0) };
    /// ring.submit_and_wait(1)?;
    /// let Some(Completion::Raw(sent)) = ring.completions().next() else { panic!("one entry, one completion") };
    /// # if sent.result().is_err() { return Ok(()) }
    /// let Some(Completion::Raw(message)) = other.completions().next() else { panic!("one message, one completion") };
    /// assert_eq!((message.user_data(), message.raw_result()), (7, 42));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "io_uring_prep_msg_ring")]
    unsafe(file, message) fn prep_msg_ring(ring: RawFd, result: u32, data: UserData, flags: u32)
        = io_uring_prep_msg_ring(ring, result, data.get(), flags), since "2.2", Linux "5.18";

    /// As [`Sqe::prep_msg_ring`], with the flags of the completion.
    #[cfg(liburing_2_4)]
    #[doc(alias = "io_uring_prep_msg_ring_cqe_flags")]
    unsafe(file, message) fn prep_msg_ring_cqe_flags(
        ring: RawFd, result: u32, data: UserData, flags: u32, completion_flags: u32,
    ) = io_uring_prep_msg_ring_cqe_flags(ring, result, data.get(), flags, completion_flags),
        since "2.4", Linux "6.3";

    /// Gives the registered file `source` to the ring `ring`, as its registered file `target`.
    #[cfg(liburing_2_4)]
    #[doc(alias = "io_uring_prep_msg_ring_fd")]
    unsafe(file, message, number) fn prep_msg_ring_fd(
        ring: RawFd, source: i32, target: i32, data: UserData, flags: u32,
    ) = io_uring_prep_msg_ring_fd(ring, source, target, data.get(), flags), since "2.4", Linux "6.0";

    /// As [`Sqe::prep_msg_ring_fd`], as any registered file that is free there.
    #[cfg(liburing_2_4)]
    #[doc(alias = "io_uring_prep_msg_ring_fd_alloc")]
    unsafe(file, message, number) fn prep_msg_ring_fd_alloc(ring: RawFd, source: i32, data: UserData, flags: u32)
        = io_uring_prep_msg_ring_fd_alloc(ring, source, data.get(), flags), since "2.4", Linux "6.2";

    // ---- processes, futexes, epoll

    /// Changes what an epoll instance waits for.
    #[doc(alias = "io_uring_prep_epoll_ctl")]
    unsafe(file, memory, number) fn prep_epoll_ctl(
        epoll: RawFd, file: RawFd, operation: i32, event: *const libc::epoll_event,
    ) = io_uring_prep_epoll_ctl(epoll, file, operation, event.cast_mut()), since "2.0", Linux "5.6";

    /// Waits for events of an epoll instance; the result is how many.
    #[cfg(liburing_2_10)]
    #[doc(alias = "io_uring_prep_epoll_wait")]
    unsafe(file, memory) fn prep_epoll_wait(epoll: RawFd, events: *mut libc::epoll_event, most: i32, flags: u32)
        = io_uring_prep_epoll_wait(epoll, events, most, flags), since "2.10", Linux "6.15";

    /// Waits for a change of a child process, which this takes from everybody else who waits for it.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_prep_waitid")]
    unsafe(memory, number) fn prep_waitid(
        kind: libc::idtype_t, id: libc::id_t, information: *mut libc::siginfo_t, options: i32, flags: u32,
    ) = io_uring_prep_waitid(kind, id, information.cast(), options, flags), since "2.6", Linux "6.7";

    /// Wakes up to `count` waiters of a futex.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_prep_futex_wake")]
    unsafe(memory, number) fn prep_futex_wake(futex: *const u32, count: u64, mask: u64, futex_flags: u32, flags: u32)
        = io_uring_prep_futex_wake(futex.cast_mut(), count, mask, futex_flags, flags), since "2.6", Linux "6.7";

    /// Waits on a futex while its value is `value`. Others may change it, atomically.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_prep_futex_wait")]
    unsafe(memory) fn prep_futex_wait(futex: *const u32, value: u64, mask: u64, futex_flags: u32, flags: u32)
        = io_uring_prep_futex_wait(futex.cast_mut(), value, mask, futex_flags, flags), since "2.6", Linux "6.7";

    /// Waits on several futexes. Others may change their values, atomically.
    #[cfg(liburing_2_6)]
    #[doc(alias = "io_uring_prep_futex_waitv")]
    unsafe(memory) fn prep_futex_waitv(futexes: *const sys::futex_waitv, count: u32, flags: u32)
        = io_uring_prep_futex_waitv(futexes.cast_mut(), count, flags), since "2.6", Linux "6.7";
}

#[cfg(test)]
mod tests {
    use super::LISTED;

    #[test]
    fn the_list_agrees_with_itself_and_with_liburings() {
        for listed in LISTED {
            let function = listed.function;
            assert_eq!(function.strip_prefix("io_uring_"), Some(listed.name), "C's name without the prefix");
            assert!(listed.attributes.contains(&format!("\"{function}\"")), "{function} has no alias");
            let since = liburing_sys::since(function).expect(function);
            assert_eq!(since.to_string(), listed.since, "{function}");
            assert!(["5.", "6."].iter().any(|major| listed.linux.starts_with(major)), "{function}: {}", listed.linux);
            assert!(listed.contract == "safe" || listed.contract.starts_with("unsafe"), "{}", listed.contract);
            let minor = since.minor;
            let gated = listed.attributes.contains(&format!("liburing_2_{minor})"));
            assert_eq!(gated, minor > 3, "{function} is of liburing {since}: {}", listed.attributes);
        }
    }
}
