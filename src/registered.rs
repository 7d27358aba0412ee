//! What a ring has registered with the kernel: files and pools, or the caller's own buffers.
//!
//! A pool is registered in chunks that no slot straddles. Where the kernel has a table that can be filled entry by entry
//! (since Linux 5.19) pools come and go; before, one pool is the whole table. Nothing is taken out of the tables while
//! operations are in flight that may use it: before Linux 6.13 that can wait for them, and on 6.1 for ever.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Weak};

#[cfg(not(test))]
use liburing_sys as sys;

use crate::entries::Entries;
use crate::error::{Error, ErrorKind, Result, check};
use crate::file::{FileTable, FixedFile, Release};
#[cfg(test)]
use crate::model::liburing as sys;
use crate::pool::{Pool, PoolMemory};
use crate::raw_ring::RawRing;
use crate::rejected::RejectReason;
use crate::ring::Ring;
use crate::table::Table;

/// Entries of the table of registered buffers, where the kernel can fill them one by one.
const BUFFERS: u32 = 256;

/// What the kernel takes at most.
const MOST_FILES: u32 = 1 << 20;

/// See [`Registered::in_flight`].
const NOT_COUNTED: u32 = u32::MAX;

/// The iovec that empties an entry of the buffer table.
const EMPTY: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// A pool, and the index of its first chunk among the registered buffers.
struct RegisteredPool {
    memory: Arc<PoolMemory>,
    /// Dead when nobody has the pool any more.
    handles: Weak<()>,
    first: u32,
    chunks: u32,
}

impl RegisteredPool {
    fn new(pool: &Pool, first: u32) -> Self {
        Self {
            memory: Arc::clone(&pool.memory),
            handles: Arc::downgrade(&pool.handles),
            first,
            chunks: pool.memory.chunk_count(),
        }
    }

    /// The same at the same place of another ring's table.
    fn again(&self) -> Self {
        let Self { memory, handles, first, chunks } = self;
        Self { memory: Arc::clone(memory), handles: Weak::clone(handles), first: *first, chunks: *chunks }
    }

    fn is_unused(&self) -> bool {
        self.handles.strong_count() == 0 && self.memory.is_idle()
    }
}

/// How pools can be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BufferTable {
    /// Not tried yet.
    None,
    /// An empty table was registered; pools come and go (since Linux 5.19).
    Sparse,
    /// One pool was registered as the whole table.
    Whole,
}

/// The tables of one ring. Every method is called with that ring.
pub(crate) struct Registered {
    /// Empty until a file is registered.
    files: Arc<FileTable>,
    file_slots: u32,
    /// For each of the files whose [`FixedFile`] is gone, how many operations on it have not ended; [`NOT_COUNTED`] before
    /// somebody asked, and for all others.
    in_flight: Box<[u32]>,
    pools: Vec<RegisteredPool>,
    /// The pool, where there is one only, and its first index. Never followed.
    only_pool: (*const PoolMemory, u32),
    buffers: BufferTable,
}

// SAFETY: the pointer is only compared; everything else may be sent.
unsafe impl Send for Registered {}

impl Registered {
    /// Nothing yet; `file_slots` is how many files there will be room for.
    pub(crate) fn new(file_slots: u32) -> Self {
        let in_flight = Box::default();
        let only_pool = (ptr::null(), 0);
        Self {
            files: Arc::new(FileTable::new(0)),
            file_slots,
            in_flight,
            pools: Vec::new(),
            only_pool,
            buffers: BufferTable::None,
        }
    }

    // ---- registered files

    /// The index of a file of this ring.
    #[inline]
    pub(crate) fn index_of(&self, file: &FixedFile) -> Option<u32> {
        file.index_in(&self.files)
    }

    /// The last completion was taken of an operation that tells of its file; see [`Table::watch_file`].
    #[inline]
    pub(crate) fn end(&mut self, file: u32) {
        // One that is no index, for operations that tell of none, is beyond the end.
        if let Some(count) = self.in_flight.get_mut(file as usize) {
            *count -= 1;
            if *count == 0 {
                self.files.look_again();
            }
        }
    }

    pub(crate) fn register_file<B>(
        &mut self,
        raw_ring: &mut RawRing,
        table: &mut Table<B>,
        file: BorrowedFd<'_>,
    ) -> Result<FixedFile> {
        raw_ring.check_usable()?;
        if self.files.is_empty() {
            self.make_file_table(raw_ring)?;
        }
        self.release_files(raw_ring, table);
        let files = &self.files;
        let Some(index) = files.claim() else {
            let message = format!("all {} registered files of the ring are taken; drop one", self.file_slots);
            return Err(Error::new(ErrorKind::Full, message));
        };
        let registered = Self::update_file(raw_ring, index, file.as_raw_fd());
        if registered.is_err() {
            files.free(index);
        }
        registered.map(|()| FixedFile::new(Arc::clone(files), index))
    }

    /// A place that an operation is to put a file into.
    pub(crate) fn claim_file<B>(
        &mut self,
        raw_ring: &mut RawRing,
        table: &mut Table<B>,
    ) -> std::result::Result<FixedFile, RejectReason> {
        if !raw_ring.is_usable() {
            return Err(raw_ring.why_unusable());
        }
        // Linux 5.15 brought it, 5.17 something that can be asked for. Older kernels make a descriptor instead.
        if raw_ring.features() & sys::IORING_FEAT_CQE_SKIP == 0 {
            return Err(RejectReason::Unsupported);
        }
        if self.files.is_empty() {
            self.make_file_table(raw_ring).map_err(|_| RejectReason::NoFiles)?;
        }
        self.release_files(raw_ring, table);
        let index = self.files.claim().ok_or(RejectReason::FilesFull)?;
        Ok(FixedFile::new(Arc::clone(&self.files), index))
    }

    fn make_file_table(&mut self, raw_ring: &mut RawRing) -> Result<()> {
        if raw_ring.raw_files {
            let message = "the ring has registered files of the raw interface; unregister_files makes room for others";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if !(1..=MOST_FILES).contains(&self.file_slots) {
            let message = format!("a table of {} files; RingBuilder::files takes 1 to {MOST_FILES}", self.file_slots);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let empty = vec![-1; self.file_slots as usize];
        // SAFETY: the ring is set up and ours; the array is read during the call.
        let returned = unsafe { sys::io_uring_register_files(raw_ring.raw(), empty.as_ptr(), self.file_slots) };
        let remedy = if returned == -libc::EMFILE { "; fewer, or a higher `ulimit -n`, would do" } else { "" };
        check(returned, &format!("register a table of {} files (RingBuilder::files{remedy})", self.file_slots))?;
        self.in_flight = vec![NOT_COUNTED; self.file_slots as usize].into();
        self.files = Arc::new(FileTable::new(self.file_slots));
        Ok(())
    }

    /// Takes the table away where no file is in it, so that the raw interface can have one; says what is in the way.
    pub(crate) fn give_up_files<B>(
        &mut self,
        raw_ring: &mut RawRing,
        is_idle: bool,
        table: &mut Table<B>,
    ) -> Result<()> {
        raw_ring.check_usable()?;
        if self.files.is_empty() {
            return Ok(());
        }
        self.release_files(raw_ring, table);
        if !self.files.is_unused() {
            let message = "files are registered on the ring (register_file); drop them, and take the completions of what uses \
                           them, to make room for a table of the raw interface";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if !is_idle {
            // Before Linux 6.13 the kernel waits for them, and on 6.1 for ever.
            let message = "files were registered on the ring, and operations are in flight; wait for them, which makes room for a \
                           table of the raw interface";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // SAFETY: the ring is set up and ours, and has nothing in flight; nobody has an entry of the table.
        check(unsafe { sys::io_uring_unregister_files(raw_ring.raw()) }, "unregister an empty table of files")?;
        self.files = Arc::new(FileTable::new(0));
        self.in_flight = Box::default();
        Ok(())
    }

    fn update_file(raw_ring: &mut RawRing, index: u32, descriptor: RawFd) -> Result<()> {
        // SAFETY: the ring is set up and ours; the one descriptor is read during the call.
        let returned = unsafe { sys::io_uring_register_files_update(raw_ring.raw(), index, &raw const descriptor, 1) };
        check(returned, "register a file").map(|_| ())
    }

    /// Whether a [`FixedFile`] is gone whose entry may be freed.
    #[inline]
    pub(crate) fn has_released(&self) -> bool {
        self.files.has_released()
    }

    /// Frees the entries whose [`FixedFile`] is gone and that no operation of `table` uses.
    #[inline]
    pub(crate) fn release_files<B>(&mut self, raw_ring: &mut RawRing, table: &mut Table<B>) {
        if self.files.has_released() {
            self.sweep_files(raw_ring, table);
        }
    }

    #[cold]
    fn sweep_files<B>(&mut self, raw_ring: &mut RawRing, table: &mut Table<B>) {
        let in_flight = &mut self.in_flight;
        self.files.sweep(|index| {
            let left = &mut in_flight[index as usize];
            if *left == NOT_COUNTED {
                // Nobody can start another one.
                *left = table.watch_file(index);
            }
            if *left != 0 && !cfg!(sysuring_break = "r1_file") {
                return Release::InUse;
            }
            // Where it fails to be taken out the file stays open until the next attempt.
            if Self::update_file(raw_ring, index, -1).is_err() {
                return Release::Failed;
            }
            *left = NOT_COUNTED;
            Release::Free
        });
    }

    // ---- registered buffers

    /// The registered buffer that holds a chunk of a pool.
    #[inline(always)]
    pub(crate) fn buffer_of(&self, memory: *const PoolMemory, chunk: u32) -> Option<u16> {
        if ptr::eq(memory, self.only_pool.0) {
            return Some((self.only_pool.1 + chunk) as u16);
        }
        self.search_buffer(memory, chunk)
    }

    #[inline(never)]
    fn search_buffer(&self, memory: *const PoolMemory, chunk: u32) -> Option<u16> {
        let pool = self.pools.iter().find(|pool| ptr::eq(Arc::as_ptr(&pool.memory), memory))?;
        Some((pool.first + chunk) as u16)
    }

    /// Keeps at hand what most rings have: one pool.
    fn pools_changed(&mut self) {
        self.only_pool = match self.pools.as_slice() {
            [pool] => (Arc::as_ptr(&pool.memory), pool.first),
            _ => (ptr::null(), 0),
        };
    }

    pub(crate) fn register_pool(&mut self, raw_ring: &mut RawRing, is_idle: bool, pool: &Pool) -> Result<()> {
        raw_ring.check_usable()?;
        let memory = &pool.memory;
        if self.buffer_of(Arc::as_ptr(memory), 0).is_some() {
            return Ok(());
        }
        if raw_ring.raw_buffers {
            let message =
                "the ring has registered buffers of the raw interface; unregister_buffers makes room for pools";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        self.forget_unused_pools(raw_ring, is_idle);
        let chunks: Vec<libc::iovec> = memory.chunks().collect();
        if self.buffers == BufferTable::None {
            self.buffers = Self::make_buffer_table(raw_ring, &chunks)?;
            if self.buffers == BufferTable::Whole {
                self.pools.push(RegisteredPool::new(pool, 0));
                self.pools_changed();
                return Ok(());
            }
        }
        if self.buffers != BufferTable::Sparse {
            let message =
                "the ring has registered buffers already, and this kernel can't add to them (since Linux 5.19)";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let first = self.find_room(memory.chunk_count())?;
        Self::update_buffers(raw_ring, first, &chunks).inspect_err(|_| {
            // Some may be in: take them out again, so that the table says what we believe.
            let _ = Self::update_buffers(raw_ring, first, &vec![EMPTY; chunks.len()]);
        })?;
        self.pools.push(RegisteredPool::new(pool, first));
        self.pools_changed();
        Ok(())
    }

    #[cfg(feature = "block")]
    pub(crate) fn has_buffer_table(&self) -> bool {
        self.buffers != BufferTable::None
    }

    /// Takes over all pools of another ring, at the same places.
    pub(crate) fn clone_pools(&mut self, raw_ring: &mut RawRing, from: &Self, from_ring: &RawRing) -> Result<()> {
        raw_ring.check_usable()?;
        from_ring.check_usable()?;
        if from.pools.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the other ring has no pools registered; call register_pool",
            ));
        }
        if self.buffers != BufferTable::None || raw_ring.raw_buffers {
            let message = "the ring has registered buffers already; clone pools before any is registered";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        clone_buffers(raw_ring, from_ring)?;
        // The memory stays mapped while it is registered here, too: `pools` keeps it.
        self.pools = from.pools.iter().map(RegisteredPool::again).collect();
        self.buffers = from.buffers;
        self.pools_changed();
        Ok(())
    }

    /// An empty table where the kernel can have one, else all of `chunks` as the table.
    fn make_buffer_table(raw_ring: &mut RawRing, chunks: &[libc::iovec]) -> Result<BufferTable> {
        // SAFETY: the ring is set up and ours.
        let returned = unsafe { sys::io_uring_register_buffers_sparse(raw_ring.raw(), BUFFERS) };
        if returned == 0 {
            return Ok(BufferTable::Sparse);
        }
        if returned != -libc::EINVAL {
            check(returned, "register a table of buffers")?;
        }
        // SAFETY: as above; the array is read during the call, and the memory that it names stays mapped for as long as it
        // is registered, since `pools` keeps it.
        let returned = unsafe { sys::io_uring_register_buffers(raw_ring.raw(), chunks.as_ptr(), chunks.len() as u32) };
        check(returned, "register a pool")?;
        Ok(BufferTable::Whole)
    }

    fn update_buffers(raw_ring: &mut RawRing, first: u32, chunks: &[libc::iovec]) -> Result<()> {
        let tags = vec![0_u64; chunks.len()];
        // SAFETY: the ring is set up and ours; both arrays are read during the call. The memory stays mapped while it is
        // registered: `pools` keeps it, and it is taken out of `pools` only after its entries were emptied.
        let returned = unsafe {
            sys::io_uring_register_buffers_update_tag(
                raw_ring.raw(),
                first,
                chunks.as_ptr(),
                tags.as_ptr(),
                chunks.len() as u32,
            )
        };
        check(returned, "register a pool").map(|_| ())
    }

    /// The first index from which on `count` entries are free.
    fn find_room(&self, count: u32) -> Result<u32> {
        let overlaps =
            |first: u32| self.pools.iter().find(|pool| first < pool.first + pool.chunks && pool.first < first + count);
        let mut first = 0;
        while let Some(pool) = overlaps(first) {
            first = pool.first + pool.chunks;
        }
        if first + count <= BUFFERS {
            return Ok(first);
        }
        let message = format!("no room for {count} more among the {BUFFERS} registered buffers; unregister a pool");
        Err(Error::new(ErrorKind::Full, message))
    }

    /// Takes a pool out of the registered buffers. Its operations in flight keep their pages.
    pub(crate) fn unregister_pool(&mut self, raw_ring: &mut RawRing, is_idle: bool, pool: &Pool) -> Result<()> {
        raw_ring.check_usable()?;
        let Some(position) = self.pools.iter().position(|known| Arc::ptr_eq(&known.memory, &pool.memory)) else {
            return Err(Error::new(ErrorKind::ForeignPool, "the pool is not registered on this ring"));
        };
        self.unregister_at(raw_ring, is_idle, position)
    }

    fn unregister_at(&mut self, raw_ring: &mut RawRing, is_idle: bool, position: usize) -> Result<()> {
        if !is_idle {
            // Before Linux 6.13 taking a buffer away can wait for its operations, and on 6.1 for ever.
            let message = "operations are in flight on the ring; wait for them before a pool is unregistered";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let (first, chunks) = (self.pools[position].first, self.pools[position].chunks);
        if self.buffers == BufferTable::Sparse {
            Self::update_buffers(raw_ring, first, &vec![EMPTY; chunks as usize])?;
        } else {
            // SAFETY: the ring is set up and ours, and has nothing in flight.
            check(unsafe { sys::io_uring_unregister_buffers(raw_ring.raw()) }, "unregister a pool")?;
            self.buffers = BufferTable::None;
        }
        self.pools.swap_remove(position);
        self.pools_changed();
        Ok(())
    }

    /// Lets go of pools that nobody can use any more; false where one of them has to stay for now.
    pub(crate) fn forget_unused_pools(&mut self, raw_ring: &mut RawRing, is_idle: bool) -> bool {
        if raw_ring.check_usable().is_err() {
            // In the child of a fork the registrations are the parent's.
            return true;
        }
        let (mut position, mut are_gone) = (0, true);
        while position < self.pools.len() {
            let unused = self.pools[position].is_unused();
            if unused && self.unregister_at(raw_ring, is_idle, position).is_ok() {
                continue;
            }
            are_gone &= !unused;
            position += 1;
        }
        are_gone
    }

    /// Takes the table away where no pool is in it, so that the raw interface can have one; says what is in the way.
    pub(crate) fn give_up_buffers(&mut self, raw_ring: &mut RawRing, is_idle: bool) -> Result<()> {
        raw_ring.check_usable()?;
        self.forget_unused_pools(raw_ring, is_idle);
        if !self.pools.is_empty() {
            let message = "the ring has pools registered; unregister_pool makes room for buffers of the raw interface";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if self.buffers == BufferTable::None {
            return Ok(());
        }
        if !is_idle {
            let message = "pools were registered on the ring, and operations are in flight; wait for them, which makes room for \
                           buffers of the raw interface";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // SAFETY: the ring is set up and ours, and has nothing in flight.
        check(unsafe { sys::io_uring_unregister_buffers(raw_ring.raw()) }, "unregister an empty table of buffers")?;
        self.buffers = BufferTable::None;
        Ok(())
    }

    /// Registers the caller's own buffers.
    ///
    /// # Safety
    ///
    /// As for [`crate::Ring::register_buffers`].
    pub(crate) unsafe fn register_buffers(&mut self, raw_ring: &mut RawRing, buffers: &[libc::iovec]) -> Result<()> {
        raw_ring.check_usable()?;
        if self.buffers != BufferTable::None || raw_ring.raw_buffers {
            let message = "the ring has registered buffers already; unregister_buffers makes room for others";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // SAFETY: the ring is set up and ours; the array is read during the call; the caller vouches for the memory.
        let returned =
            unsafe { sys::io_uring_register_buffers(raw_ring.raw(), buffers.as_ptr(), buffers.len() as u32) };
        check(returned, "register buffers")?;
        raw_ring.raw_buffers = true;
        Ok(())
    }

    pub(crate) fn unregister_buffers(&mut self, raw_ring: &mut RawRing, is_idle: bool) -> Result<()> {
        raw_ring.check_usable()?;
        if !raw_ring.raw_buffers {
            let message =
                "no buffers were registered with register_buffers; a pool is unregistered with unregister_pool";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if !is_idle {
            let message = "operations are in flight on the ring; wait for them before buffers are unregistered";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        // SAFETY: the ring is set up and ours, and has nothing in flight.
        check(unsafe { sys::io_uring_unregister_buffers(raw_ring.raw()) }, "unregister buffers")?;
        raw_ring.raw_buffers = false;
        Ok(())
    }
}

#[cfg(liburing_2_8)]
fn clone_buffers(to: &mut RawRing, from: &RawRing) -> Result<()> {
    crate::Library::require("io_uring_clone_buffers")?;
    // SAFETY: both rings are set up, and the other one is only read.
    let returned = unsafe { sys::io_uring_clone_buffers(to.raw(), from.raw()) };
    if returned == -libc::EINVAL {
        let message = "this kernel can't clone registered buffers (since Linux 6.12); register the pools on this ring";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    check(returned, "clone the registered buffers of another ring").map(|_| ())
}

#[cfg(not(liburing_2_8))]
fn clone_buffers(_to: &mut RawRing, _from: &RawRing) -> Result<()> {
    Err(crate::raw_ring::header_too_old("io_uring_clone_buffers", "2.8"))
}

impl<B, E: Entries> Ring<B, E> {
    /// Registers all pools that another ring has registered, at once: the kernel neither looks up their pages nor locks them
    /// again (since Linux 6.12; liburing 2.8, header and library). From then on each ring has its own registration: pools
    /// come and go on one without the other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where the kernel or liburing is too old (then [`Ring::register_pool`] does it);
    /// [`ErrorKind::Busy`] where this ring has, or had, registered buffers; [`ErrorKind::InvalidInput`] where the other one has
    /// no pools; what the kernel reports.
    ///
    /// ```
    /// use sysuring::{ErrorKind, Operations as _, Pool, Ring};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # if sysuring::available().is_err() { return Ok(()) }
    /// let pool = Pool::new(4, 4096)?;
    /// let mut first = Ring::with_entries(8)?;
    /// first.register_pool(&pool)?;
    /// let mut second = Ring::with_entries(8)?;
    /// match second.clone_pools(&first) {
    ///     Err(error) if error.kind() == ErrorKind::Unsupported => second.register_pool(&pool)?,
    ///     cloned => cloned?,
    /// }
    /// let file = second.register_file(&std::fs::File::open("/proc/self/exe")?)?;
    /// second.read_fixed(&file, pool.lease().expect("the first of four"), 4096, 0)?;
    /// # second.submit_and_wait(1)?;
    /// # assert_eq!(second.completions().find_map(|completion| completion.into_done()).unwrap().result()?, 4096);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("io_uring_clone_buffers", "IORING_REGISTER_CLONE_BUFFERS"))]
    pub fn clone_pools<C, F: Entries>(&mut self, from: &Ring<C, F>) -> Result<()> {
        self.core().clone_pools(from.core_ref())
    }
}
