//! A ring for each thread, made when it is first used.
//!
//! A thread has one ring of each kind, whatever it is used for; it is closed when the thread ends. There are as many as
//! [`ThreadRings::limit`] allows, over all threads; those that come later, and those that the kernel gives none, share one.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::builder::RingBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::ring::Ring;
use crate::shared::SharedRing;

/// Entries of a ring that threads share.
const SHARED_ENTRIES: u32 = 256;
/// How long a thread that could get no ring does not ask for one again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Rings that exist now.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// 0: not set.
static LIMIT: AtomicUsize = AtomicUsize::new(0);
/// The rings for threads that have none of their own, for as long as anybody uses them.
static SHARED: Mutex<Vec<(RingKind, Weak<SharedRing>)>> = Mutex::new(Vec::new());

thread_local! {
    static LOCAL: RefCell<Local> = const { RefCell::new(Local { rings: Vec::new(), refused: None }) };
}

/// What tells the rings of one thread apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RingKind {
    pub(crate) sqpoll: Option<Duration>,
    pub(crate) iopoll: bool,
    /// Used by block devices alone, so that nobody else's completions are on it.
    pub(crate) of_devices: bool,
}

impl RingKind {
    fn builder(self, entries: u32) -> RingBuilder {
        let builder = Ring::builder(entries).iopoll(self.iopoll).submit_all(true).clamp(true).fall_back_flags(true);
        match self.sqpoll {
            Some(idle) => builder.sqpoll(idle),
            None => builder,
        }
    }

    fn make(self, entries: u32) -> Result<Ring> {
        // A kernel thread that submits leaves nothing to defer.
        let defer = self.sqpoll.is_none();
        self.builder(entries).single_issuer(true).defer_taskrun(defer).build()
    }
}

struct Local {
    rings: Vec<LocalRing>,
    /// When this thread was last refused a ring, and why.
    refused: Option<(Instant, Error)>,
}

struct LocalRing {
    kind: RingKind,
    ring: Ring,
    /// Dropped after the ring.
    _place: Place,
}

/// One of the rings that [`COUNT`] counts.
struct Place;

impl Place {
    fn take() -> Result<Self> {
        let limit = ThreadRings::limit();
        let more = |count| (count < limit).then_some(count + 1);
        match COUNT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self),
            Err(_) => {
                Err(Error::new(ErrorKind::Full, format!("{limit} threads have rings already (ThreadRings::set_limit)")))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Local {
    /// The ring of that kind, with at least that many entries.
    fn ring(&mut self, kind: RingKind, entries: u32) -> Result<&mut Ring> {
        let found = self.rings.iter().position(|local| local.kind == kind);
        if let Some(index) = found {
            let ring = &mut self.rings[index].ring;
            let is_usable = ring.core().check_usable().is_ok();
            let is_large_enough = ring.sq_entries() >= entries || ring.in_flight() != 0;
            if is_usable && is_large_enough {
                return Ok(&mut self.rings[index].ring);
            }
            // A parent's, or too small and idle.
            self.rings.swap_remove(index);
        }
        if let Some((when, why)) = &self.refused {
            if when.elapsed() < PATIENCE {
                return Err(why.clone());
            }
        }
        let place = Place::take()?;
        match kind.make(entries) {
            Ok(ring) => {
                self.rings.push(LocalRing { kind, ring, _place: place });
                let last = self.rings.len() - 1;
                Ok(&mut self.rings[last].ring)
            }
            Err(error) => {
                self.refused = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// The rings of this process's threads.
///
/// ```
/// use sysuring::ThreadRings;
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
    /// Works on this thread's ring, which has at least `entries` submission queue entries unless it was in use when more
    /// were asked for; it is made where there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`] when as many threads have rings as [`ThreadRings::limit`] says; [`ErrorKind::Busy`] inside of
    /// `work`; [`ErrorKind::Unavailable`] where the kernel gives none, or the thread is ending and its rings are gone.
    pub fn with<R>(entries: u32, work: impl FnOnce(&mut Ring) -> R) -> Result<R> {
        Self::with_kind(RingKind::default(), entries, work)
    }

    pub(crate) fn with_kind<R>(kind: RingKind, entries: u32, work: impl FnOnce(&mut Ring) -> R) -> Result<R> {
        let ended = |_| Error::new(ErrorKind::Unavailable, "the thread is ending, and its rings are closed");
        LOCAL
            .try_with(|local| {
                let mut local = local
                    .try_borrow_mut()
                    .map_err(|_| Error::new(ErrorKind::Busy, "this thread's ring is in use further up the stack"))?;
                local.ring(kind, entries).map(work)
            })
            .map_err(ended)?
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

    pub(crate) fn shared_of_kind(kind: RingKind) -> Result<Arc<SharedRing>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(_, ring)| ring.strong_count() != 0);
        let known = shared.iter().filter(|(known, _)| *known == kind).find_map(|(_, ring)| ring.upgrade());
        if let Some(ring) = known.filter(|ring| ring.is_alive()) {
            return Ok(ring);
        }
        let ring = Arc::new(kind.builder(SHARED_ENTRIES).build_shared()?);
        shared.push((kind, Arc::downgrade(&ring)));
        Ok(ring)
    }

    /// Rings that threads have now.
    #[must_use]
    pub fn count() -> usize {
        COUNT.load(Ordering::Relaxed)
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
