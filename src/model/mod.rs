//! A model of the ring: programs that chance writes, on rings in memory whose kernel does whatever a kernel may do.
//!
//! What is looked at after every step: no memory has two owners, and the kernel finds what it was lent for as long as it was
//! lent ([`world`]); each final completion gives exactly one [`Done`], with its own result and its own memory; the crate
//! counts what is in flight as the model does; what is rejected comes back, for a reason that holds; nothing is executed that
//! was not started, or whose chain failed; descriptors are closed once.
//!
//! `cargo test -p sysuring --lib model` runs some, with a seed from the clock; see [`crate::random`] for what to set.

pub(crate) mod liburing;
pub(crate) mod memory;
mod world;

use std::ffi::CString;
use std::fs::File;
use std::io::IoSliceMut;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use liburing_sys as sys;

use self::world::{
    Expected, Field, Kind, On, Operation, Owner, PoolModel, Result as ResultKind, Setup, Stage, Temper, World, check,
    is_unclosed, set_world, world,
};
use crate::core::Core;
use crate::entries::{BigEntries, Entries, SmallEntries};
use crate::operations::to_target::ToTarget;
use crate::random::{Random, run_programs};
use crate::raw_ring::RawRing;
use crate::scope::Scope;
use crate::{
    Buf, Completion, Done, ErrorKind, FileRef, FixedFile, OpenHow, Operations, Pool, RejectReason, Rejected, Ring,
    SocketAddress, SqeFlags, StableBuf, Ticket, UserData,
};

type Model<E> = Ring<Tracked, E>;

/// A buffer of the user's own type, of which the world knows.
#[derive(Debug)]
struct Tracked {
    memory: Box<[u8]>,
    /// Asked for its memory it unwinds.
    unwinds: bool,
}

impl Tracked {
    fn new(random: &mut Random) -> Self {
        let memory = vec![0; 1 + random.below(48)].into_boxed_slice();
        world(|world| world.add_region(memory.as_ptr().expose_provenance(), memory.len(), Owner::User, Kind::Tracked));
        Self { memory, unwinds: random.once_in(64) }
    }

    fn address(&self) -> usize {
        self.memory.as_ptr().addr()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        world(|world| world.tracked_dropped(self.address()));
    }
}

// SAFETY: a boxed slice, all of it initialised, which moving the box leaves where it is.
unsafe impl StableBuf for Tracked {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        if self.unwinds {
            resume_unwind(Box::new("a buffer that unwinds"));
        }
        (NonNull::from(&mut *self.memory).cast(), self.memory.len())
    }
}

/// Either kind of file.
enum AnyFile<'a> {
    Fixed(&'a FixedFile),
    Shared(&'a Arc<OwnedFd>),
}

impl ToTarget for AnyFile<'_> {
    fn place<B, E: Entries>(&self, core: &Core<B, E>) -> Result<(u32, RawFd), RejectReason> {
        match self {
            Self::Fixed(file) => file.place(core),
            Self::Shared(file) => file.place(core),
        }
    }

    fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }

    fn to_keep(&self) -> Option<Arc<OwnedFd>> {
        match self {
            Self::Fixed(file) => file.to_keep(),
            Self::Shared(file) => file.to_keep(),
        }
    }
}

impl FileRef for AnyFile<'_> {}

/// A registered file in the user's hands.
struct HeldFile {
    file: FixedFile,
    ring: usize,
    index: u32,
    registration: u64,
}

/// What the user has.
struct User<E: Entries> {
    random: Random,
    rings: Vec<Option<Model<E>>>,
    pools: Vec<Option<Pool>>,
    /// Which pools are registered on which rings.
    registered: Vec<(usize, usize)>,
    bufs: Vec<Buf>,
    tracked: Vec<Tracked>,
    dones: Vec<(Done<Tracked>, Operation)>,
    files: Vec<HeldFile>,
    shared: Vec<Arc<OwnedFd>>,
    descriptors: Vec<OwnedFd>,
    /// Of all times, for cancels.
    tickets: Vec<Ticket>,
    next_raw: u32,
    /// Why a scope rejects something is not foreseen.
    in_scope: bool,
}

impl<E: Entries> User<E> {
    fn new(random: Random) -> Self {
        let shared = (0..2).map(|_| Arc::new(OwnedFd::from(File::open("/dev/null").expect("/dev/null")))).collect();
        Self {
            random,
            rings: Vec::new(),
            pools: Vec::new(),
            registered: Vec::new(),
            bufs: Vec::new(),
            tracked: Vec::new(),
            dones: Vec::new(),
            files: Vec::new(),
            shared,
            descriptors: Vec::new(),
            tickets: Vec::new(),
            next_raw: 0,
            in_scope: false,
        }
    }

    // ---- rings and pools

    fn make_ring(&mut self) -> usize {
        let random = &mut self.random;
        let sq_entries = 1 << random.below(4);
        let flags = E::FLAGS | if random.once_in(4) { sys::IORING_SETUP_SQPOLL } else { 0 };
        let setup = Setup {
            sq_entries,
            cq_entries: sq_entries << random.below(2),
            flags,
            is_deferred: random.once_in(4),
            has_sparse_buffers: !random.once_in(4),
        };
        let (number, raw) = world(|world| world.make_ring(setup));
        let mut core = Core::new(RawRing::over(raw), 3);
        if random.once_in(2) {
            core.set_drop_limit(Some(Duration::ZERO));
        }
        self.rings.push(Some(Ring::new(core)));
        number
    }

    /// A ring that is there.
    fn any_ring(&mut self) -> usize {
        let alive: Vec<usize> = (0..self.rings.len()).filter(|ring| self.rings[*ring].is_some()).collect();
        if alive.is_empty() { self.make_ring() } else { self.random.pick(&alive) }
    }

    fn make_pool(&mut self) {
        world(World::check_pools);
        let slots = 1 + self.random.below(6) as u32;
        let pool = Pool::new(slots, self.random.pick(&[64, 64, 4096])).expect("a pool");
        let leases: Vec<Buf> = std::iter::from_fn(|| pool.lease()).collect();
        assert_eq!(leases.len(), slots as usize);
        let number = self.pools.len();
        world(|world| {
            let addresses = leases.iter().map(|buf| buf.as_ptr().expose_provenance());
            let (start, length) = (addresses.clone().min().unwrap(), slots as usize * pool.slot_size());
            let memory = Arc::downgrade(&pool.memory);
            for address in addresses {
                world.add_region(address, pool.slot_size(), Owner::Free, Kind::Slot(number));
            }
            world.pools.push(PoolModel {
                memory,
                start,
                length: length.next_multiple_of(4096),
                is_gone: false,
                is_retired: false,
            });
        });
        drop(leases);
        self.pools.push(Some(pool));
    }

    fn any_pool(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.pools.len()).filter(|pool| self.pools[*pool].is_some()).collect();
        (!alive.is_empty()).then(|| self.random.pick(&alive))
    }

    fn lease(&mut self) -> Option<()> {
        let number = self.any_pool()?;
        let buf = self.pools[number].as_ref()?.lease();
        world(|world| {
            let Some(buf) = &buf else {
                let free = world.regions.iter().any(|region| is_free_slot(region, number));
                check!(world, !free, "no lease is to be had, and some are free");
                return;
            };
            let region = world.region(buf.as_ptr().addr());
            let owner = mem::replace(&mut region.owner, Owner::User);
            check!(world, owner == Owner::Free, "memory of {owner:?} was leased");
        });
        self.bufs.extend(buf);
        Some(())
    }

    fn drop_buf(&mut self, buf: Buf) {
        let forgets = self.random.once_in(32);
        world(|world| {
            let region = world.region(buf.as_ptr().addr());
            region.owner = if forgets { Owner::Forgotten } else { Owner::Free };
        });
        if forgets { mem::forget(buf) } else { drop(buf) }
    }

    fn take_buf(&mut self) -> Option<Buf> {
        if self.bufs.is_empty() || self.random.once_in(3) {
            self.lease();
        }
        let count = self.bufs.len();
        (count > 0).then(|| self.bufs.swap_remove(self.random.below(count)))
    }

    fn take_tracked(&mut self) -> Tracked {
        let count = self.tracked.len();
        if count == 0 || self.random.once_in(4) {
            return Tracked::new(&mut self.random);
        }
        self.tracked.swap_remove(self.random.below(count))
    }

    // ---- starting operations

    /// Starts something; `stage` is where its entry goes.
    fn start<S: Operations<Owned = Tracked> + ?Sized>(&mut self, ring: usize, on: &mut S, stage: Stage) {
        let fixed = self.random.below(self.files.len() + 2);
        let file = (fixed < self.files.len()).then(|| self.files.swap_remove(fixed));
        let shared = Arc::clone(&self.shared[self.random.below(self.shared.len())]);
        let (target, place) = match &file {
            Some(file) => (AnyFile::Fixed(&file.file), On::Registered(file.index, file.registration)),
            None => (AnyFile::Shared(&shared), On::Kept(shared.as_raw_fd(), Arc::downgrade(&shared))),
        };
        let is_foreign = file.as_ref().is_some_and(|file| file.ring != ring);
        let fill = self.random.next() as u8;
        let start = Start { ring, stage, is_foreign, fill };
        match self.random.below(10) {
            0 => self.start_plain(&start, on, &target, &place),
            1..=4 => self.start_lease(&start, on, &target, &place),
            5 => self.start_tracked(&start, on, &target, &place),
            6 => self.start_vectored(&start, on, &target, &place),
            7 => self.start_several(&start, on, &target, &place),
            8 => self.start_descriptor(&start, on, &target, &place),
            _ => self.start_path(&start, on, &place),
        }
        self.files.extend(file);
    }

    fn start_plain<S: Operations<Owned = Tracked> + ?Sized>(
        &mut self,
        start: &Start,
        on: &mut S,
        file: &AnyFile<'_>,
        place: &On,
    ) {
        let with = |opcode, on: &On| Expected { on: on.clone(), ..Expected::new(opcode) };
        let room = Room::of(start.ring);
        let seconds = self.random.below(1000);
        let time = Duration::from_secs(seconds as u64);
        let nowhere = On::Number(-1);
        let (expected, started) = match self.random.below(6) {
            0 => (with(sys::IORING_OP_NOP, &nowhere), on.nop()),
            1 => (with(sys::IORING_OP_FSYNC, place), on.fsync(file, true)),
            2 => (with(sys::IORING_OP_POLL_ADD, place), on.poll(file, libc::POLLIN as u32)),
            3 => {
                let expected = with(sys::IORING_OP_TIMEOUT, &nowhere);
                (Expected { seconds: Some(seconds as i64), ..expected }, on.timeout(time))
            }
            4 => {
                let address = SocketAddress::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
                (with(sys::IORING_OP_CONNECT, place), on.connect(file, &address))
            }
            _ => {
                let from = Arc::clone(&self.shared[0]);
                let expected = Expected { second: Some(Arc::downgrade(&from)), ..with(sys::IORING_OP_SPLICE, place) };
                (expected, on.splice((&from, None), (file, Some(0)), 10, 0))
            }
        };
        self.account(start, &room, expected, started);
    }

    fn start_lease<S: Operations<Owned = Tracked> + ?Sized>(
        &mut self,
        start: &Start,
        on: &mut S,
        file: &AnyFile<'_>,
        place: &On,
    ) {
        let Some(mut buf) = self.take_buf() else { return };
        let address = buf.as_ptr().addr();
        let kind = self.random.below(7);
        let is_fixed = kind < 2;
        let is_written = matches!(kind, 0 | 2 | 4);
        buf.fill(if is_written { !start.fill } else { start.fill });
        let too_long = self.random.once_in(32);
        let length = if too_long { buf.len() + 1 } else { self.random.below(buf.len() + 1) };
        let pool = world(|world| world.region(address).kind);
        let is_registered = matches!(pool, Kind::Slot(pool) if self.registered.contains(&(start.ring, pool)));
        let room = Room { too_long, foreign_pool: is_fixed && !is_registered, ..Room::of(start.ring) };
        let expected = |opcode| Expected {
            on: place.clone(),
            memory: vec![(address, length)],
            is_written,
            fill: start.fill,
            regions: vec![address],
            ..Expected::new(opcode)
        };
        let size = length as u32;
        let (expected, started) = match kind {
            0 => (expected(sys::IORING_OP_READ_FIXED), on.read_fixed(file, buf, size, 0)),
            1 => (expected(sys::IORING_OP_WRITE_FIXED), on.write_fixed(file, buf, size, 0)),
            2 => (expected(sys::IORING_OP_READ), on.read(file, buf, size, 0)),
            3 => (expected(sys::IORING_OP_WRITE), on.write(file, buf, size, 0)),
            4 => (expected(sys::IORING_OP_RECV), on.recv(file, buf, size, 0)),
            5 => (expected(sys::IORING_OP_SEND), on.send(file, buf, size, 0)),
            _ => {
                let expected = Expected { result: ResultKind::ZeroCopy, ..expected(sys::IORING_OP_SEND_ZC) };
                (expected, on.send_zero_copy(file, buf, size, 0))
            }
        };
        if let Some(buf) = self.account(start, &room, expected, started) {
            assert_eq!(buf.as_ptr().addr(), address, "what is rejected comes back");
            self.bufs.push(buf);
        }
    }

    fn start_tracked<S: Operations<Owned = Tracked> + ?Sized>(
        &mut self,
        start: &Start,
        on: &mut S,
        file: &AnyFile<'_>,
        place: &On,
    ) {
        let mut buffer = self.take_tracked();
        let kind = self.random.below(4);
        let is_written = matches!(kind, 0 | 2);
        buffer.memory.fill(if is_written { !start.fill } else { start.fill });
        let (address, unwinds) = (buffer.address(), buffer.unwinds);
        let expected = Expected {
            on: place.clone(),
            memory: vec![(address, buffer.memory.len())],
            is_written,
            fill: start.fill,
            regions: vec![address],
            ..Expected::new([sys::IORING_OP_READ, sys::IORING_OP_WRITE, sys::IORING_OP_RECV, sys::IORING_OP_SEND][kind])
        };
        let room = Room::of(start.ring);
        let started = catch_unwind(AssertUnwindSafe(|| match kind {
            0 => on.read_owned(file, buffer, 0),
            1 => on.write_owned(file, buffer, 0),
            2 => on.recv_owned(file, buffer, 0),
            _ => on.send_owned(file, buffer, 0),
        }));
        match started {
            Ok(started) => {
                if let Some(buffer) = self.account(start, &room, expected, started) {
                    assert_eq!(buffer.address(), address, "what is rejected comes back");
                    self.tracked.push(buffer);
                }
            }
            Err(panic) => pass_on_unless(unwinds, panic),
        }
    }

    fn start_vectored<S: Operations<Owned = Tracked> + ?Sized>(
        &mut self,
        start: &Start,
        on: &mut S,
        file: &AnyFile<'_>,
        place: &On,
    ) {
        let is_written = self.random.once_in(2);
        let mut bufs: Vec<Buf> = (0..self.random.below(4)).filter_map(|_| self.take_buf()).collect();
        bufs.iter_mut().for_each(|buf| buf.fill(if is_written { !start.fill } else { start.fill }));
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let too_long = self.random.once_in(16);
        let length = if too_long { total + 1 } else { self.random.below(total + 1) };
        let mut left = length;
        let pieces = bufs.iter().map(|buf| {
            let part = buf.len().min(left);
            left -= part;
            (buf.as_ptr().addr(), part)
        });
        let memory: Vec<(usize, usize)> = pieces.collect();
        let regions: Vec<usize> = memory.iter().map(|(address, _)| *address).collect();
        let expected = Expected {
            on: place.clone(),
            memory,
            is_vectored: true,
            is_written,
            fill: start.fill,
            regions: regions.clone(),
            ..Expected::new(if is_written { sys::IORING_OP_READV } else { sys::IORING_OP_WRITEV })
        };
        let room = Room { too_long, ..Room::of(start.ring) };
        let started = match is_written {
            true => on.read_vectored(file, bufs, length, 0),
            false => on.write_vectored(file, bufs, length, 0),
        };
        if let Some(bufs) = self.account(start, &room, expected, started) {
            assert!(bufs.iter().map(|buf| buf.as_ptr().addr()).eq(regions), "what is rejected comes back");
            self.bufs.extend(bufs);
        }
    }

    fn start_several<S: Operations<Owned = Tracked> + ?Sized>(
        &mut self,
        start: &Start,
        on: &mut S,
        file: &AnyFile<'_>,
        place: &On,
    ) {
        let is_written = self.random.once_in(2);
        let mut buffers: Vec<Tracked> = (0..self.random.below(4)).map(|_| self.take_tracked()).collect();
        let fill = if is_written { !start.fill } else { start.fill };
        buffers.iter_mut().for_each(|buffer| buffer.memory.fill(fill));
        let unwinds = buffers.iter().any(|buffer| buffer.unwinds);
        let memory: Vec<(usize, usize)> =
            buffers.iter().map(|buffer| (buffer.address(), buffer.memory.len())).collect();
        let regions: Vec<usize> = memory.iter().map(|(address, _)| *address).collect();
        let expected = Expected {
            on: place.clone(),
            memory,
            is_vectored: true,
            is_written,
            fill: start.fill,
            regions: regions.clone(),
            ..Expected::new(if is_written { sys::IORING_OP_READV } else { sys::IORING_OP_WRITEV })
        };
        let room = Room::of(start.ring);
        let started = catch_unwind(AssertUnwindSafe(|| match is_written {
            true => on.read_vectored_owned(file, buffers, 0),
            false => on.write_vectored_owned(file, buffers, 0),
        }));
        match started {
            Ok(started) => {
                if let Some(buffers) = self.account(start, &room, expected, started) {
                    assert!(buffers.iter().map(Tracked::address).eq(regions), "what is rejected comes back");
                    self.tracked.extend(buffers);
                }
            }
            Err(panic) => pass_on_unless(unwinds, panic),
        }
    }

    fn start_descriptor<S: Operations<Owned = Tracked> + ?Sized>(
        &mut self,
        start: &Start,
        on: &mut S,
        file: &AnyFile<'_>,
        place: &On,
    ) {
        let room = Room::of(start.ring);
        let of = |opcode, place, result| Expected { on: place, result, ..Expected::new(opcode) };
        match self.random.below(3) {
            0 => {
                let expected = of(sys::IORING_OP_ACCEPT, place.clone(), ResultKind::Descriptor);
                self.account(start, &room, Expected { is_multishot: true, ..expected }, on.accept(file, 0));
            }
            1 => {
                let expected = of(sys::IORING_OP_SOCKET, On::Number(libc::AF_INET), ResultKind::Descriptor);
                self.account(
                    start,
                    &Room { is_foreign_ignored: true, ..room },
                    expected,
                    on.socket(libc::AF_INET, libc::SOCK_STREAM, 0),
                );
            }
            _ => {
                let number = world(World::descriptor);
                // SAFETY: made just now, for this one.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                let expected = of(sys::IORING_OP_CLOSE, On::Number(number), ResultKind::Close(number));
                let room = Room { is_foreign_ignored: true, ..room };
                if let Some(descriptor) = self.account(start, &room, expected, on.close(descriptor)) {
                    assert_eq!(descriptor.as_raw_fd(), number);
                    self.descriptors.push(descriptor);
                }
            }
        }
    }

    fn start_path<S: Operations<Owned = Tracked> + ?Sized>(&mut self, start: &Start, on: &mut S, _place: &On) {
        let room = Room { is_foreign_ignored: true, ..Room::of(start.ring) };
        let mut name = || CString::new(format!("name-{}", self.random.below(1 << 30))).expect("no zero in it");
        let (first, second) = (name(), name());
        let directory = Arc::clone(&self.shared[0]);
        let here = On::Kept(directory.as_raw_fd(), Arc::downgrade(&directory));
        let texts = vec![(Field::Address, first.clone())];
        let of = |opcode, texts| Expected { on: here.clone(), texts, ..Expected::new(opcode) };
        let at = Some(&directory);
        match self.random.below(5) {
            0 => {
                let expected = Expected { result: ResultKind::Descriptor, ..of(sys::IORING_OP_OPENAT, texts) };
                self.account(start, &room, expected, on.open(at, first, 0, 0));
            }
            1 => {
                let expected = Expected { result: ResultKind::Descriptor, ..of(sys::IORING_OP_OPENAT2, texts) };
                self.account(start, &room, expected, on.open_how(at, first, OpenHow::default()));
            }
            2 => {
                let expected = Expected { has_status: true, fill: start.fill, ..of(sys::IORING_OP_STATX, texts) };
                let given = self.account(start, &room, expected, on.statx(at, first.clone(), 0, 0));
                assert!(given.is_none_or(|given| given == first), "what is rejected comes back");
            }
            3 => {
                let texts = vec![(Field::Address, first.clone()), (Field::Offset, second.clone())];
                let paths = ((at, first.clone()), (at, second.clone()));
                let expected =
                    Expected { second: Some(Arc::downgrade(&directory)), ..of(sys::IORING_OP_RENAMEAT, texts) };
                let given = self.account(start, &room, expected, on.rename(paths.0, paths.1, 0));
                assert!(given.is_none_or(|given| given == (first, second)), "what is rejected comes back");
            }
            _ => {
                let expected = of(sys::IORING_OP_UNLINKAT, texts);
                let given = self.account(start, &room, expected, on.unlink(at, first.clone(), 0));
                assert!(given.is_none_or(|given| given == first), "what is rejected comes back");
            }
        }
    }

    /// Tells the world of what was started; gives what was rejected.
    fn account<T>(
        &mut self,
        start: &Start,
        room: &Room,
        expected: Expected,
        started: Result<Ticket, Rejected<T>>,
    ) -> Option<T> {
        let is_foreign = start.is_foreign && !room.is_foreign_ignored && !matches!(expected.on, On::Number(_));
        match started {
            Ok(ticket) => {
                let fits = room.reasons(is_foreign).is_empty();
                assert!(fits || self.in_scope, "started, where {:?} held", room.reasons(is_foreign));
                world(|world| world.started(start.ring, ticket.user_data(), expected, start.stage));
                self.tickets.push(ticket);
                None
            }
            Err(rejected) => {
                let (reason, reasons) = (rejected.reason(), room.reasons(is_foreign));
                assert!(reasons.contains(&reason) || self.in_scope, "{reason:?}, where {reasons:?} held");
                Some(rejected.into_inner())
            }
        }
    }

    // ---- other things that a user does

    fn cancel(&mut self, ring: usize, on: &mut Model<E>) {
        let count = self.tickets.len();
        if count == 0 {
            return;
        }
        let recent = count - 1 - self.random.below(count.min(8));
        let ticket = self.tickets[if self.random.once_in(4) { self.random.below(count) } else { recent }];
        if self.random.once_in(4) {
            return self.start_raw(ring, on, Some(ticket));
        }
        let room = Room::of(ring);
        match on.cancel(ticket) {
            Ok(()) => {
                assert!(room.reasons(false).is_empty(), "cancelled, where {:?} held", room.reasons(false));
                world(|world| Self::silent(world, ring));
            }
            Err(rejected) => {
                let (reason, reasons) = (rejected.reason(), room.reasons(false));
                assert!(reasons.contains(&reason), "{reason:?}, where {reasons:?} held");
            }
        }
    }

    /// Accounts for a cancel, which has no ticket that anybody gets.
    fn silent(world: &mut World, ring: usize) {
        let user_data = world.last_queued(ring);
        let expected = Expected { on: On::Number(-1), ..Expected::new(sys::IORING_OP_ASYNC_CANCEL) };
        let number = world.started(ring, user_data, expected, Stage::Queued);
        if let Some(operation) = world.operation(number) {
            operation.is_silent = true;
        }
    }

    fn start_raw(&mut self, ring: usize, on: &mut Model<E>, cancelled: Option<Ticket>) {
        let fits = Room::of(ring).sq_free > 0;
        let is_poisoned = world(|world| world.rings[ring].is_poisoned);
        let Some(sqe) = on.get_sqe() else {
            assert!(!fits || is_poisoned, "no entry, where the queue has room");
            return;
        };
        assert!(fits && !is_poisoned, "an entry, where the queue is full");
        match (self.random.below(4), cancelled) {
            (0, _) => return drop(sqe),
            (1, _) => {
                let _ = ManuallyDrop::new(sqe);
                return;
            }
            _ => {}
        }
        self.next_raw += 1;
        let data = UserData::from(self.next_raw);
        let queued = match cancelled {
            Some(ticket) => sqe.prep_cancel_ticket(ticket),
            None => sqe.prep_nop(),
        };
        queued.set_data64(data).set_flags(SqeFlags::ASYNC);
        world(|world| {
            let model = &mut world.rings[ring];
            model.queue.push_back(data.get());
            model.raw_in_flight += 1;
        });
    }

    fn chain(&mut self, ring: usize, on: &mut Model<E>) {
        let (length, end) = (self.random.below(5), self.random.below(4));
        let is_hard = self.random.once_in(3);
        let built = catch_unwind(AssertUnwindSafe(|| {
            let build = |chain: &mut crate::Chain<'_, Tracked, E>| {
                for _ in 0..length {
                    self.start(ring, chain, Stage::Building);
                }
                world(|world| world.chain_fails = end >= 2);
                match end {
                    2 => Err(()),
                    3 => resume_unwind(Box::new("a chain that unwinds")),
                    _ => Ok(()),
                }
            };
            if is_hard { on.hard_chain(build) } else { on.chain(build) }
        }));
        let is_complete = matches!(built, Ok(Ok(())));
        world(|world| {
            world.chain_fails = false;
            world.end_chain(ring, is_complete);
        });
        if let Err(panic) = built {
            pass_on_unless(end == 3, panic);
        } else {
            assert_eq!(is_complete, end < 2);
        }
    }

    fn scope(&mut self, ring: usize, on: &mut Model<E>) {
        let mut memory = [[0_u8; 16]; 3];
        let addresses = memory.each_mut().map(|piece| piece.as_mut_ptr().expose_provenance());
        let file = Arc::clone(&self.shared[0]);
        let place = On::Kept(file.as_raw_fd(), Arc::downgrade(&file));
        if world(|world| world.rings[ring].is_poisoned) {
            return;
        }
        world(|world| {
            world.in_scope = true;
            addresses.iter().for_each(|address| world.add_region(*address, 16, Owner::User, Kind::Borrowed));
        });
        self.in_scope = true;
        let (end, waits, steps) = (self.random.below(4), self.random.once_in(2), self.random.below(4));
        let fill = self.random.next() as u8;
        let expected = |opcode, index: usize| Expected {
            on: place.clone(),
            memory: vec![(addresses[index], 16)],
            is_written: true,
            fill,
            regions: vec![addresses[index]],
            ..Expected::new(opcode)
        };
        let [first, second, third] = &mut memory;
        let (mut seconds, mut thirds) = ([IoSliceMut::new(second)], [IoSliceMut::new(third)]);
        let (second, third, user, file) = (&mut seconds, &mut thirds, &mut *self, &file);
        let left = catch_unwind(AssertUnwindSafe(move || {
            on.scope(move |scope| {
                let borrowed = |expected| {
                    world(|world| {
                        let user_data = world.last_queued(ring);
                        let number = world.started(ring, user_data, expected, Stage::Queued);
                        if let Some(operation) = world.operation(number) {
                            operation.is_borrowed = true;
                        }
                        number
                    })
                };
                let started = scope.read(file, first, 0);
                let first = started.map(|operation| (operation, borrowed(expected(sys::IORING_OP_READ, 0))));
                user.in_scope_steps(ring, scope, steps);
                if let Ok(operation) = scope.read_vectored(file, second, 0) {
                    borrowed(Expected { is_vectored: true, ..expected(sys::IORING_OP_READV, 1) });
                    if scope.cancel(&operation).is_ok() {
                        world(|world| Self::silent(world, ring));
                    }
                    let _ = ManuallyDrop::new(operation);
                }
                if let (Ok((operation, number)), true) = (first, waits) {
                    let waited = scope.wait(operation);
                    world(|world| Self::waited(world, number, waited));
                }
                if scope.read_vectored(file, third, 0).is_ok() {
                    borrowed(Expected { is_vectored: true, ..expected(sys::IORING_OP_READV, 2) });
                }
                if end == 3 {
                    resume_unwind(Box::new("a scope that unwinds"));
                }
            });
        }));
        self.in_scope = false;
        world(|world| {
            world.settle(ring);
            world.in_scope = false;
            let left = world.operations.iter().find(|known| known.is_borrowed && !known.is_popped).cloned();
            check!(world, left.is_none(), "a scope was left with an operation in flight: {left:?}");
            world.operations.retain(|operation| !operation.is_borrowed);
            world.regions.retain(|region| region.kind != Kind::Borrowed);
        });
        if let Err(panic) = left {
            pass_on_unless(end == 3, panic);
        }
    }

    fn in_scope_steps(&mut self, ring: usize, scope: &mut Scope<'_, '_, Tracked, E>, steps: usize) {
        for _ in 0..steps {
            self.start(ring, scope, Stage::Queued);
        }
        if self.random.once_in(2) {
            let _ = scope.submit();
        }
    }

    /// Somebody waited for an operation of a scope.
    fn waited(world: &mut World, number: u64, waited: crate::Result<u32>) {
        let Some(operation) = world.operation(number).cloned() else { return };
        let ring = operation.ring;
        world.settle(ring);
        let Some(operation) = world.operation(number).cloned() else { return };
        let result = match &waited {
            Ok(count) => *count as i32,
            Err(error) => -error.raw_os_error().unwrap_or(0),
        };
        if operation.is_popped && result == operation.result {
            // The scope gives the memory back; it is lent until then all the same.
            world.operations.retain(|known| known.number != number);
        } else {
            check!(world, waited.is_err(), "{waited:?} for {operation:?}");
        }
    }

    /// Takes up to `most` completions.
    fn completions(&mut self, ring: usize, on: &mut Model<E>, most: usize) {
        let mut completions = on.completions();
        for _ in 0..most {
            match completions.next() {
                Some(completion) => self.completed(ring, completion),
                None => {
                    world(|world| {
                        let left = world.visible(ring);
                        let is_poisoned = world.rings[ring].is_poisoned;
                        check!(world, left == 0 || is_poisoned, "{left} completions are there, and none is to be had");
                        let due = world.operations.iter().find(|known| known.ring == ring && known.is_popped).cloned();
                        check!(world, due.is_none() || is_poisoned, "nobody heard of {due:?}");
                        let model = &world.rings[ring];
                        let is_told = model.raw_due.is_empty() && model.more_due.is_empty();
                        check!(
                            world,
                            is_told || is_poisoned,
                            "nobody heard of {:?} {:?}",
                            model.raw_due,
                            model.more_due
                        );
                    });
                    break;
                }
            }
        }
        if self.random.once_in(2) {
            let _ = ManuallyDrop::new(completions);
        }
    }

    fn completed(&mut self, ring: usize, completion: Completion<Tracked, E>) {
        match completion {
            Completion::Raw(cqe) => world(|world| {
                world.settle(ring);
                let due = &mut world.rings[ring].raw_due;
                let position = due.iter().position(|user_data| *user_data == cqe.user_data());
                let known = position.and_then(|position| due.remove(position)).is_some();
                check!(world, known, "raw completion {:#x}, which is not due", cqe.user_data());
            }),
            Completion::More(more) => {
                let due = world(|world| {
                    world.settle(ring);
                    let due = &mut world.rings[ring].more_due;
                    let is_this =
                        |due: &(u64, i32, bool)| (due.0, due.1) == (more.ticket().user_data(), more.raw_result());
                    let position = due.iter().position(is_this);
                    let found = position.and_then(|position| due.remove(position));
                    check!(world, found.is_some(), "{more:?} is not due");
                    found
                });
                if let Some((_, descriptor, true)) = due {
                    if self.random.once_in(2) {
                        let descriptor = more.into_fd().expect("a new descriptor");
                        self.descriptors.push(descriptor);
                    } else {
                        drop(more);
                        world(|world| world.closed(descriptor));
                    }
                }
            }
            Completion::Done(done) => self.done(ring, done),
        }
    }

    fn done(&mut self, ring: usize, done: Done<Tracked>) {
        let ended = world(|world| {
            world.settle(ring);
            let position = world.position(ring, done.ticket().user_data());
            check!(world, position.is_some(), "{done:?} is of no operation");
            let operation = world.operations.remove(position?);
            check!(world, operation.is_popped, "{done:?}, and the completion was not taken: {operation:?}");
            let is_right = (done.raw_result(), done.flags()) == (operation.result, operation.flags);
            check!(world, is_right, "{done:?} for {operation:?}");
            check!(world, !operation.is_silent && !operation.is_borrowed, "{done:?} is not for the user");
            world.hand_over(&operation);
            match operation.expected.result {
                // Nobody can ask for it any more.
                ResultKind::Close(descriptor) if is_unclosed(operation.result) => world.closed(descriptor),
                _ => {}
            }
            Some(operation)
        });
        if let Some(operation) = ended {
            self.dones.push((done, operation));
            if self.random.once_in(2) {
                self.use_done();
            }
        }
    }

    /// Takes something out of a completion, drops it or forgets it.
    fn use_done(&mut self) {
        let count = self.dones.len();
        if count == 0 {
            return;
        }
        let (done, operation) = self.dones.swap_remove(self.random.below(count));
        let Operation { expected, result, .. } = &operation;
        let makes_descriptor = expected.result == ResultKind::Descriptor && *result >= 0;
        let kept = makes_descriptor.then_some(*result);
        let kinds: Vec<Kind> = world(|world| expected.regions.iter().map(|at| world.region(*at).kind).collect());
        match self.random.below(8) {
            0 => {
                // Forgotten: a leak, and no more.
                mem::forget(done);
                world(|world| {
                    expected.regions.iter().for_each(|address| world.region(*address).owner = Owner::Forgotten);
                    kept.into_iter().for_each(|descriptor| world.forget_descriptor(descriptor));
                });
                return;
            }
            1 => {
                world(|world| {
                    for (address, kind) in expected.regions.iter().zip(&kinds) {
                        match kind {
                            Kind::Slot(_) => world.region(*address).owner = Owner::Free,
                            Kind::Tracked | Kind::Borrowed => {}
                        }
                    }
                });
                drop(done);
                kept.into_iter().for_each(|descriptor| world(|world| world.closed(descriptor)));
                return;
            }
            _ => {}
        }
        match kinds.first() {
            Some(Kind::Slot(_)) => {
                let bufs = done.into_bufs();
                check_contents(&operation, bufs.iter().map(|buf| &**buf));
                self.bufs.extend(bufs);
            }
            Some(Kind::Tracked) => {
                let buffers =
                    if expected.is_vectored { done.into_several() } else { Vec::from_iter(done.into_owned()) };
                check_contents(&operation, buffers.iter().map(|buffer| &*buffer.memory));
                self.tracked.extend(buffers);
            }
            Some(Kind::Borrowed) => unreachable!("a scope's operations are not for the user"),
            None if expected.has_status && *result >= 0 => {
                let status = done.into_status().expect("a status");
                assert_eq!(status.stx_size, u64::from_ne_bytes([expected.fill; 8]), "what the kernel filled in");
            }
            None if makes_descriptor => self.descriptors.push(done.into_fd().expect("a new descriptor")),
            None => {
                drop(done);
                kept.into_iter().for_each(|descriptor| world(|world| world.closed(descriptor)));
            }
        }
    }

    /// Looks for one operation's end, as the threads of a shared ring do.
    fn take_one(&mut self, ring: usize, on: &mut Model<E>) {
        on.core().reap();
        let due = world(|world| {
            world.settle(ring);
            let due: Vec<u64> = world
                .operations
                .iter()
                .filter(|known| known.ring == ring && known.is_popped)
                .map(|known| known.user_data)
                .collect();
            (!due.is_empty()).then(|| world.random.pick(&due))
        });
        let is_poisoned = world(|world| world.rings[ring].is_poisoned);
        if let (Some(user_data), false) = (due, is_poisoned) {
            let taken = on.core().take(Ticket::of(user_data)).expect("an operation that ended");
            let done = on.core().done(taken);
            self.done(ring, done);
        }
        if let Some(old) = self.tickets.first() {
            let known = world(|world| world.position(ring, old.user_data()).is_some());
            assert!(known || on.core().take(*old).is_none(), "an old ticket finds something");
        }
    }

    fn submit(&mut self, ring: usize, on: &mut Model<E>) {
        let wait = self.random.below(3) as u32;
        let submitted = match self.random.below(3) {
            0 => on.submit(),
            1 => on.submit_and_wait(wait),
            _ => on.submit_and_wait_timeout(wait, Duration::from_millis(1)),
        };
        let is_poisoned = world(|world| world.rings[ring].is_poisoned);
        if let Err(error) = &submitted {
            assert_eq!(error.kind() == ErrorKind::Poisoned, is_poisoned, "{error}");
        }
        if self.random.once_in(2) {
            // A storm: whoever is interrupted tries again.
            for _ in 0..3 {
                let _ = on.submit();
            }
        }
    }

    fn register_file(&mut self, ring: usize, on: &mut Model<E>) {
        let Ok(file) = on.register_file(&self.shared[0]) else { return };
        let index = file.index();
        let registration = world(|world| {
            let registration = world.rings[ring].files[index as usize];
            check!(world, registration.is_some(), "the kernel does not know file {index}");
            registration
        });
        let held = self.files.iter().find(|held| held.ring == ring && held.index == index);
        assert!(held.is_none(), "two files have index {index}");
        self.files.push(HeldFile { file, ring, index, registration: registration.unwrap_or(0) });
    }

    fn pools_on_ring(&mut self, ring: usize, on: &mut Model<E>) {
        let Some(number) = self.any_pool() else { return };
        let Some(pool) = &self.pools[number] else { return };
        if self.random.once_in(3) {
            if on.unregister_pool(pool).is_ok() {
                self.registered.retain(|known| *known != (ring, number));
            }
        } else if on.register_pool(pool).is_ok() && !self.registered.contains(&(ring, number)) {
            self.registered.push((ring, number));
        }
    }

    fn end_ring(&mut self, ring: usize) {
        let Some(on) = self.rings[ring].take() else { return };
        self.registered.retain(|known| known.0 != ring);
        world(|world| world.may_withdraw = true);
        match self.random.below(8) {
            0 => {
                mem::forget(on);
                return world(|world| world.forget_ring(ring));
            }
            1 => {
                let limit = self.random.pick(&[Duration::ZERO, Duration::from_secs(3600)]);
                let _ = on.shutdown(limit);
            }
            _ => drop(on),
        }
        world(|world| world.ring_gone(ring));
    }

    // ---- one step

    fn step(&mut self) {
        let ring = self.any_ring();
        let choice = self.random.below(64);
        match choice {
            0 => return self.end_ring(ring),
            1 if self.rings.iter().flatten().count() < 2 => {
                self.make_ring();
                return;
            }
            2 => return self.make_pool(),
            3 => {
                if let Some(number) = self.any_pool() {
                    self.pools[number] = None;
                }
                return;
            }
            4..=7 => {
                self.lease();
                return;
            }
            8 | 9 => {
                if let Some(buf) = self.bufs.pop() {
                    self.drop_buf(buf);
                }
                return;
            }
            10 => return drop(self.tracked.pop()),
            11..=14 => return self.use_done(),
            15 => {
                let count = self.files.len();
                if count > 0 {
                    drop(self.files.swap_remove(self.random.below(count)));
                }
                return;
            }
            16 => {
                if let Some(descriptor) = self.descriptors.pop() {
                    let number = descriptor.as_raw_fd();
                    drop(descriptor);
                    world(|world| world.closed(number));
                }
                return;
            }
            17..=20 => return world(|world| world.run(3)),
            _ => {}
        }
        let Some(mut on) = self.rings[ring].take() else { return };
        match choice {
            21..=36 => self.start(ring, &mut on, Stage::Queued),
            37 | 38 => {
                if self.random.once_in(2) {
                    self.start(ring, &mut on.drained(), Stage::Queued);
                } else {
                    self.start(ring, &mut on.forced_async(), Stage::Queued);
                }
            }
            39 | 40 => self.cancel(ring, &mut on),
            41 | 42 => self.start_raw(ring, &mut on, None),
            43 | 44 => self.chain(ring, &mut on),
            45 => self.scope(ring, &mut on),
            46 | 47 => self.take_one(ring, &mut on),
            48 => self.register_file(ring, &mut on),
            49 => self.pools_on_ring(ring, &mut on),
            50..=56 => self.submit(ring, &mut on),
            _ => {
                let most = self.random.below(6);
                self.completions(ring, &mut on, most);
            }
        }
        self.check_counts(ring, &mut on);
        self.rings[ring] = Some(on);
    }

    fn check_counts(&mut self, ring: usize, on: &mut Model<E>) {
        let raw = on.core().queues().raw_in_flight();
        world(|world| {
            let expected = world.in_flight(ring);
            let (is_poisoned, raw_expected) = (world.rings[ring].is_poisoned, world.rings[ring].raw_in_flight);
            let is_right = is_poisoned || (on.in_flight(), raw) == (expected, raw_expected);
            check!(world, is_right, "{} + {raw} in flight, not {expected} + {raw_expected}", on.in_flight());
            check!(world, !is_poisoned || on.in_flight() == 0, "a poisoned ring has operations in flight");
            check!(world, on.in_flight() <= on.cq_entries(), "more in flight than completions fit");
            world.check_pools();
        });
    }

    /// Waits for everything, with a kernel that makes no trouble: all is as it was at the beginning.
    fn drain(&mut self, ring: usize) {
        let Some(mut on) = self.rings[ring].take() else { return };
        self.files.clear();
        for _ in 0..1000 {
            let _ = on.submit_and_wait(1);
            self.completions(ring, &mut on, usize::MAX);
            if on.core().is_idle() {
                break;
            }
        }
        let _ = on.submit();
        world(|world| {
            let (left, model) = (world.live(ring), &world.rings[ring]);
            let files = model.files.iter().flatten().count();
            let is_usable = !model.is_poisoned;
            check!(world, left == 0 || !is_usable, "{left} operations did not end: {:?}", world.operations);
            check!(world, files == 0 || !is_usable, "{files} files are registered that nobody has any more");
        });
        self.rings[ring] = Some(on);
    }

    fn end(&mut self) {
        world(|world| world.temper = Temper { errors: 0, is_forging: false, loses_completions: false });
        for ring in 0..self.rings.len() {
            if self.random.once_in(2) {
                self.drain(ring);
            }
            self.end_ring(ring);
        }
        while !self.dones.is_empty() {
            self.use_done();
        }
        while let Some(buf) = self.bufs.pop() {
            self.drop_buf(buf);
        }
        for number in 0..self.pools.len() {
            if let Some(pool) = &self.pools[number] {
                let mut back: Vec<usize> = Vec::new();
                let leases: Vec<Buf> = std::iter::from_fn(|| pool.lease()).collect();
                back.extend(leases.iter().map(|buf| buf.as_ptr().addr()));
                back.sort_unstable();
                let mut free: Vec<usize> = world(|world| {
                    let of_pool = world.regions.iter().filter(|region| is_free_slot(region, number));
                    of_pool.map(|region| region.address).collect()
                });
                free.sort_unstable();
                assert_eq!(back, free, "the leases that came back are not those that were to");
            }
        }
        self.pools.clear();
        self.files.clear();
        self.tracked.clear();
        for descriptor in mem::take(&mut self.descriptors) {
            let number = descriptor.as_raw_fd();
            drop(descriptor);
            world(|world| world.closed(number));
        }
        world(|world| {
            world.check_pools();
            world.finish_all();
        });
        for file in mem::take(&mut self.shared) {
            if let Err(leaked) = Arc::try_unwrap(file) {
                // SAFETY: operations that will never end keep it open, and are over.
                unsafe { libc::close(leaked.as_raw_fd()) };
                mem::forget(leaked);
            }
        }
    }
}

/// An operation that is about to be started.
struct Start {
    ring: usize,
    stage: Stage,
    is_foreign: bool,
    fill: u8,
}

/// Why an operation could be rejected now.
#[derive(Debug, Default)]
struct Room {
    sq_free: u32,
    chain_is_full: bool,
    table_is_full: bool,
    is_poisoned: bool,
    too_long: bool,
    foreign_pool: bool,
    is_foreign_ignored: bool,
}

impl Room {
    fn of(ring: usize) -> Self {
        world(|world| {
            let in_flight = world.in_flight(ring);
            let (live, building) = (world.live(ring), world.building(ring));
            let model = &world.rings[ring];
            let (raw, entries) = (model.raw_in_flight, model.setup.cq_entries);
            Self {
                sq_free: model.setup.sq_entries - (model.queue.len() as u32 + building).min(model.setup.sq_entries),
                chain_is_full: building >= model.setup.sq_entries,
                table_is_full: live >= entries || raw != 0 && in_flight + raw >= entries,
                is_poisoned: model.is_poisoned,
                ..Self::default()
            }
        })
    }

    fn reasons(&self, is_foreign: bool) -> Vec<RejectReason> {
        let all = [
            (self.is_poisoned, RejectReason::Poisoned),
            (self.sq_free == 0 && self.chain_is_full, RejectReason::ChainTooLong),
            (self.sq_free == 0 && !self.chain_is_full, RejectReason::QueueFull),
            (self.table_is_full && !self.is_poisoned, RejectReason::TableFull),
            (self.is_poisoned, RejectReason::TableFull),
            (self.too_long, RejectReason::TooLong),
            (self.foreign_pool, RejectReason::ForeignPool),
            (is_foreign, RejectReason::ForeignFile),
        ];
        all.iter().filter(|(holds, _)| *holds).map(|(_, reason)| *reason).collect()
    }
}

fn is_free_slot(region: &world::Region, pool: usize) -> bool {
    region.kind == Kind::Slot(pool) && region.owner == Owner::Free
}

/// The memory that came back is that of the operation, and holds what the kernel wrote.
fn check_contents<'a>(operation: &Operation, memory: impl ExactSizeIterator<Item = &'a [u8]>) {
    let expected = &operation.expected;
    assert_eq!(memory.len(), expected.memory.len(), "as many pieces as there were: {operation:?}");
    for (piece, (address, length)) in memory.zip(&expected.memory) {
        assert_eq!(piece.as_ptr().addr(), *address, "its own memory: {operation:?}");
        if operation.result > 0 {
            assert!(piece[..*length].iter().all(|byte| *byte == expected.fill), "{operation:?}");
        }
    }
}

fn pass_on_unless(is_expected: bool, panic: Box<dyn std::any::Any + Send>) {
    if !(is_expected && panic.is::<&str>()) {
        resume_unwind(panic);
    }
}

/// Runs one program; says how many steps it took.
fn run_program(mut random: Random) -> u64 {
    if random.once_in(3) { run_program_on::<BigEntries>(random) } else { run_program_on::<SmallEntries>(random) }
}

fn run_program_on<E: Entries>(mut random: Random) -> u64 {
    let temper =
        Temper { errors: random.pick(&[0, 8, 2]), is_forging: random.once_in(2), loses_completions: random.once_in(4) };
    let steps = 50 + random.below(300);
    let mut user = User::<E>::new(Random::new(random.next()));
    set_world(Some(World::new(random, temper)));
    user.make_ring();
    user.make_pool();
    for _ in 0..steps {
        user.step();
    }
    user.end();
    world(World::end);
    set_world(None);
    steps as u64
}

#[test]
fn random_programs_break_no_rule() {
    run_programs(200_000, run_program);
}
