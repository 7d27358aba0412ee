//! A ring for each thread, made when it is first used.
//!
//! A thread has one ring of each kind, whatever it is used for; it is closed when the thread ends. There are as many as
//! [`ThreadRings::limit`] allows, over all threads; those that come later, and those that the kernel gives none, share one.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::LocalKey;
use std::time::{Duration, Instant};

use crate::builder::RingBuilder;
use crate::core::Core;
#[cfg(nvme)]
use crate::entries::BigEntries;
use crate::entries::{Entries, SmallEntries};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::ring::Ring;
use crate::shared::SharedRing;
use crate::table::NoBuffers;

/// Entries of a ring that threads share.
const SHARED_ENTRIES: u32 = 256;
/// How long a thread that could get no ring does not ask for one again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Rings that exist now. The child of a fork has none: neither its parent's rings, nor the threads that they are of.
static COUNT: PerProcess<AtomicUsize> = PerProcess::new();
/// 0: not set.
static LIMIT: AtomicUsize = AtomicUsize::new(0);
/// Counts the pools that devices gave up, so that rings know when to look for some of theirs.
static POOLS_GIVEN_UP: AtomicU64 = AtomicU64::new(0);

/// The rings for threads that have none of their own, for as long as anybody uses them.
type KnownRings<E> = Vec<(RingKind, Weak<SharedRing<E>>)>;

/// What is kept of rings with entries of one size.
pub(crate) trait OfThreads: Entries {
    /// This thread's own.
    fn local() -> &'static LocalKey<RefCell<Local<Self>>>;

    fn shared() -> &'static PerProcess<Mutex<KnownRings<Self>>>;

    /// As `builder`, with such entries.
    fn sized(builder: RingBuilder) -> RingBuilder<Self>;
}

impl OfThreads for SmallEntries {
    #[inline]
    fn local() -> &'static LocalKey<RefCell<Local<Self>>> {
        thread_local! {
            static LOCAL: RefCell<Local<SmallEntries>> = const { RefCell::new(Local::new()) };
        }
        &LOCAL
    }

    fn shared() -> &'static PerProcess<Mutex<KnownRings<Self>>> {
        static SHARED: PerProcess<Mutex<KnownRings<SmallEntries>>> = PerProcess::new();
        &SHARED
    }

    fn sized(builder: RingBuilder) -> RingBuilder {
        builder
    }
}

#[cfg(nvme)]
impl OfThreads for BigEntries {
    #[inline]
    fn local() -> &'static LocalKey<RefCell<Local<Self>>> {
        thread_local! {
            static LOCAL: RefCell<Local<BigEntries>> = const { RefCell::new(Local::new()) };
        }
        &LOCAL
    }

    fn shared() -> &'static PerProcess<Mutex<KnownRings<Self>>> {
        static SHARED: PerProcess<Mutex<KnownRings<BigEntries>>> = PerProcess::new();
        &SHARED
    }

    fn sized(builder: RingBuilder) -> RingBuilder<Self> {
        builder.big_entries()
    }
}

/// A value of this process.
fn of_process<T: Default + Send + Sync>(value: &'static PerProcess<T>) -> Result<&'static T> {
    value.get(T::default).map_err(|error| Error::from_io(error, "map a page that a fork wipes"))
}

fn shared_rings<E: OfThreads>() -> Result<MutexGuard<'static, KnownRings<E>>> {
    let rings = of_process(E::shared())?;
    Ok(rings.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The ring of that kind that somebody has.
fn find<E: Entries>(rings: &[(RingKind, Weak<SharedRing<E>>)], kind: RingKind) -> Option<Arc<SharedRing<E>>> {
    rings.iter().filter(|(known, _)| *known == kind).find_map(|(_, ring)| ring.upgrade())
}

/// What tells the rings of one thread apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RingKind {
    pub(crate) sqpoll: Option<Duration>,
    pub(crate) iopoll: bool,
    /// Used by block devices alone, so that nobody else's completions are on it.
    pub(crate) of_devices: bool,
    /// Which kernel of [`crate::block::faults`] it is on; 0 for the real one.
    #[cfg(all(test, feature = "block"))]
    pub(crate) faults: u32,
}

impl RingKind {
    pub(crate) fn builder(self, entries: u32) -> RingBuilder {
        let builder = Ring::builder(entries).iopoll(self.iopoll).submit_all(true).clamp(true).fall_back_flags(true);
        match self.sqpoll {
            Some(idle) => builder.sqpoll(idle),
            None => builder,
        }
    }

    fn make<E: OfThreads>(self, entries: u32) -> Result<Ring<NoBuffers, E>> {
        self.make_core(entries).map(Ring::new)
    }

    /// A ring for the thread that calls.
    pub(crate) fn make_core<B, E: OfThreads>(self, entries: u32) -> Result<Core<B, E>> {
        // A kernel thread that submits leaves nothing to defer.
        let defer = self.sqpoll.is_none();
        let mut core = E::sized(self.builder(entries).single_issuer(true).defer_taskrun(defer)).core()?;
        if self.of_devices {
            core.queues_mut().register_descriptor();
        }
        Ok(core)
    }
}

/// What a thread has.
#[derive(Debug)]
pub(crate) struct Local<E: Entries> {
    rings: Vec<LocalRing<E>>,
    /// When this thread was last refused a ring, and why.
    refused: Option<RefusedRing>,
}

/// That the kernel gave no ring, which it will not a moment later, either.
#[derive(Debug)]
struct RefusedRing {
    when: Instant,
    kind: RingKind,
    /// There may be memory for fewer.
    entries: u32,
    why: Error,
}

impl RefusedRing {
    fn holds_for(&self, kind: RingKind, entries: u32) -> bool {
        self.kind == kind && self.entries <= entries && self.when.elapsed() < PATIENCE
    }
}

#[derive(Debug)]
struct LocalRing<E: Entries> {
    kind: RingKind,
    ring: Ring<NoBuffers, E>,
    /// [`POOLS_GIVEN_UP`] when the ring was last rid of pools that nobody has any more.
    swept: u64,
    /// Dropped after the ring.
    _place: Place,
}

/// One of the rings that a [`COUNT`] counts: that of the process which made it.
#[derive(Debug)]
struct Place(&'static AtomicUsize);

/// Why a thread got no ring. Made without an allocation where that is how things are meant to be.
#[derive(Debug)]
pub(crate) enum Refused {
    /// As many threads as may have rings do.
    OverLimit,
    /// In use further up the stack.
    InUse,
    /// The thread is ending.
    Ended,
    /// Anything else; also when it was asked for a moment ago.
    Failed(Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::OverLimit => {
                let limit = ThreadRings::limit();
                Self::new(ErrorKind::Full, format!("{limit} threads have rings already (ThreadRings::set_limit)"))
            }
            Refused::InUse => Self::new(ErrorKind::Busy, "this thread's ring is in use further up the stack"),
            Refused::Ended => Self::new(ErrorKind::Unavailable, "the thread is ending, and its rings are closed"),
            Refused::Failed(error) => error,
        }
    }
}

impl Place {
    fn take() -> Result<Self, Refused> {
        let count = of_process(&COUNT).map_err(Refused::Failed)?;
        let limit = ThreadRings::limit();
        let more = |count| (count < limit).then_some(count + 1);
        match count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self(count)),
            Err(_) => Err(Refused::OverLimit),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<E: OfThreads> Local<E> {
    const fn new() -> Self {
        Self { rings: Vec::new(), refused: None }
    }

    /// The ring of that kind; made with at least that many entries where there is none.
    #[inline]
    fn ring(&mut self, kind: RingKind, entries: u32) -> Result<&mut Ring<NoBuffers, E>, Refused> {
        let index = match self.rings.iter().position(|local| local.kind == kind) {
            Some(index) if self.rings[index].can_be_used(entries) => index,
            known => self.make(known, kind, entries)?,
        };
        let local = &mut self.rings[index];
        local.sweep_pools();
        Ok(&mut local.ring)
    }

    /// Makes a ring, in place of one that can't be used any more; the answer is its index.
    #[cold]
    #[inline(never)]
    fn make(&mut self, unusable: Option<usize>, kind: RingKind, entries: u32) -> Result<usize, Refused> {
        if let Some(index) = unusable {
            self.rings.swap_remove(index);
        }
        if let Some(refused) = self.refused.as_ref().filter(|refused| refused.holds_for(kind, entries)) {
            return Err(Refused::Failed(refused.why.clone()));
        }
        let place = Place::take()?;
        match kind.make(entries) {
            Ok(ring) => {
                let swept = POOLS_GIVEN_UP.load(Ordering::Relaxed);
                self.rings.push(LocalRing { kind, ring, swept, _place: place });
                Ok(self.rings.len() - 1)
            }
            Err(error) => {
                // One that asks for what nobody can have says nothing about the next.
                if error.kind() != ErrorKind::InvalidInput {
                    self.refused = Some(RefusedRing { when: Instant::now(), kind, entries, why: error.clone() });
                }
                Err(Refused::Failed(error))
            }
        }
    }
}

impl<E: Entries> LocalRing<E> {
    /// False for a parent's ring, and for one that is too small, idle, and used by devices alone: those can have another.
    #[inline]
    fn can_be_used(&mut self, entries: u32) -> bool {
        let is_large_enough = self.ring.sq_entries() >= entries || !self.kind.of_devices;
        let core = self.ring.core();
        core.queues().is_usable() && (is_large_enough || !core.is_idle())
    }

    /// Lets go of pools that devices gave up since this was last asked for. One relaxed load where none did.
    #[inline]
    fn sweep_pools(&mut self) {
        let given_up = POOLS_GIVEN_UP.load(Ordering::Relaxed);
        if self.swept != given_up && self.ring.core().forget_unused_pools() {
            self.swept = given_up;
        }
    }
}

/// Changes when a device gave up its pool.
#[cfg(feature = "block")]
pub(crate) fn pools_given_up() -> u64 {
    POOLS_GIVEN_UP.load(Ordering::Relaxed)
}

/// To be dropped after a device's pool, and after the last lease of it: lets the rings that have it registered let go of it.
#[cfg(feature = "block")]
#[derive(Debug)]
pub(crate) struct PoolGivenUp;

#[cfg(feature = "block")]
impl Drop for PoolGivenUp {
    fn drop(&mut self) {
        POOLS_GIVEN_UP.fetch_add(1, Ordering::Relaxed);
        sweep_pools::<SmallEntries>();
        #[cfg(nvme)]
        sweep_pools::<BigEntries>();
    }
}

/// Lets this thread's rings go of pools that are given up, now, and those that threads share; other threads' do so when they are
/// used next.
#[cfg(feature = "block")]
fn sweep_pools<E: OfThreads>() {
    let _ = E::local().try_with(|local| {
        if let Ok(mut local) = local.try_borrow_mut() {
            for ring in &mut local.rings {
                ring.sweep_pools();
            }
        }
    });
    let shared = shared_rings::<E>().map(|rings| rings.clone()).unwrap_or_default();
    for ring in shared.iter().filter_map(|(_, ring)| ring.upgrade()) {
        // In the child of a fork it is the parent's.
        let _ = ring.with(Core::forget_unused_pools);
    }
}

/// The rings of this process's threads.
///
/// ```
/// use sysuring::{Operations as _, ThreadRings};
///
/// # fn main() -> sysuring::Result<()> {
/// # if sysuring::available().is_err() { return Ok(()) }
/// let submitted = ThreadRings::with(8, |ring| {
///     ring.nop()?;
///     ring.submit_and_wait(1)
/// })??;
/// assert_eq!(submitted, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ThreadRings;

impl ThreadRings {
    /// Works on this thread's ring. Where there is none it is made, with at least `entries` submission queue entries, which are
    /// rounded up to a power of two, and cut down to 32768; one that is there is used as it is, however few it has, since somebody
    /// else's files, pools and operations may be on it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] where a ring is to be made with 0 entries; [`ErrorKind::Full`] when as many threads have rings as
    /// [`ThreadRings::limit`] says; [`ErrorKind::Busy`] inside of `work`; [`ErrorKind::Unavailable`] where the kernel gives none, or
    /// the thread is ending and its rings are gone.
    pub fn with<R>(entries: u32, work: impl FnOnce(&mut Ring) -> R) -> Result<R> {
        Ok(Self::with_kind::<SmallEntries, R>(RingKind::default(), entries, work)?)
    }

    #[inline]
    pub(crate) fn with_kind<E: OfThreads, R>(
        kind: RingKind,
        entries: u32,
        work: impl FnOnce(&mut Ring<NoBuffers, E>) -> R,
    ) -> Result<R, Refused> {
        E::local()
            .try_with(|local| {
                let mut local = local.try_borrow_mut().map_err(|_| Refused::InUse)?;
                local.ring(kind, entries).map(work)
            })
            .map_err(|_| Refused::Ended)?
    }

    /// The ring that threads share which have none of their own; made where there is none, and closed when nobody has it
    /// any more.
    ///
    /// # Errors
    ///
    /// As for [`RingBuilder::build_shared`].
    pub fn shared() -> Result<Arc<SharedRing>> {
        Self::shared_of_kind(RingKind::default())
    }

    pub(crate) fn shared_of_kind<E: OfThreads>(kind: RingKind) -> Result<Arc<SharedRing<E>>> {
        let known = find(&shared_rings()?, kind);
        if let Some(ring) = known {
            return Ok(ring);
        }
        // Made without the lock; where another thread was faster its ring is used, and this one closed.
        let ring = Arc::new(E::sized(kind.builder(SHARED_ENTRIES)).build_shared()?);
        let mut rings = shared_rings()?;
        if let Some(theirs) = find(&rings, kind) {
            return Ok(theirs);
        }
        rings.retain(|(_, ring)| ring.strong_count() != 0);
        rings.push((kind, Arc::downgrade(&ring)));
        Ok(ring)
    }

    /// Rings that threads of this process have now.
    #[must_use]
    pub fn count() -> usize {
        of_process(&COUNT).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Rings that threads may have at once; the number of processors unless set.
    #[must_use]
    pub fn limit() -> usize {
        match LIMIT.load(Ordering::Relaxed) {
            0 => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                LIMIT.store(processors, Ordering::Relaxed);
                processors
            }
            limit => limit,
        }
    }

    /// Sets how many rings threads may have at once (at least 1). Rings that exist stay.
    pub fn set_limit(rings: usize) {
        LIMIT.store(rings.max(1), Ordering::Relaxed);
    }
}

#[cfg(all(test, feature = "block"))]
mod tests {
    use super::*;

    #[test]
    fn rings_of_devices_are_entered_by_a_registered_descriptor() {
        let kind = RingKind { of_devices: true, ..RingKind::default() };
        let Ok(core) = kind.make_core::<NoBuffers, SmallEntries>(4) else {
            return println!("skipped: no io_uring here");
        };
        // SAFETY: the ring is set up; both are plain fields.
        let (registered, own) = unsafe { ((*core.queues().raw()).enter_ring_fd, (*core.queues().raw()).ring_fd) };
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        if release.starts_with("5.1") && !release.starts_with("5.19") && !release.starts_with("5.18") {
            assert_eq!(registered, own);
        } else {
            assert_ne!(registered, own, "Linux {release}");
        }
    }
}
