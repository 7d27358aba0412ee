//! The Rust side, written as a user of the crate would.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use sysuring::{Buf, Completion, FixedFile, OpRing, Operations as _, Pool, Ring, UserData, sys};

use crate::workloads::{FILE, LENGTH, Work};

/// A ring with a registered file and a registered pool of as many slots as a batch has operations.
struct Reader {
    ring: Ring,
    file: FixedFile,
    pool: Pool,
    depth: u32,
    bytes: u64,
}

impl Reader {
    fn open(depth: u32) -> Result<Self> {
        let mut ring = Ring::with_entries(depth)?;
        let pool = Pool::new(depth, LENGTH as usize)?;
        ring.register_pool(&pool)?;
        let file = ring.register_file(&File::open(FILE).with_context(|| format!("cannot open {FILE}"))?)?;
        Ok(Self { ring, file, pool, depth, bytes: 0 })
    }

    /// All slots of the pool.
    fn leases(&self) -> Vec<Buf> {
        std::iter::from_fn(|| self.pool.lease()).collect()
    }

    fn submit(&mut self) -> Result<()> {
        self.ring.submit_and_wait(self.depth)?;
        Ok(())
    }
}

/// Keeps its leases, as C keeps its requests.
struct ReadFixed {
    reader: Reader,
    leases: Vec<Buf>,
}

/// Reads into leases of a registered pool.
pub(crate) fn read_fixed(depth: u32) -> Result<Box<dyn Work>> {
    let reader = Reader::open(depth)?;
    let leases = reader.leases();
    Ok(Box::new(ReadFixed { reader, leases }))
}

impl Work for ReadFixed {
    fn fill(&mut self) -> Result<()> {
        let mut offset = 0;
        while let Some(lease) = self.leases.pop() {
            self.reader.ring.read_fixed(&self.reader.file, lease, LENGTH, offset)?;
            offset += u64::from(LENGTH);
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        self.reader.submit()
    }

    fn reap(&mut self) -> Result<()> {
        for completion in self.reader.ring.completions() {
            let Completion::Done(done) = completion else { continue };
            self.reader.bytes += u64::from(done.result()?);
            if let Some(lease) = done.into_buf() {
                self.leases.push(lease);
            }
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.reader.bytes
    }
}

/// Leases a slot for every operation and gives it back after: what any thread may do costs more than a list of one's own.
struct LeaseAndReadFixed(Reader);

/// As [`read_fixed`], with a lease for every operation.
pub(crate) fn lease_and_read_fixed(depth: u32) -> Result<Box<dyn Work>> {
    Ok(Box::new(LeaseAndReadFixed(Reader::open(depth)?)))
}

impl Work for LeaseAndReadFixed {
    fn fill(&mut self) -> Result<()> {
        let Self(reader) = self;
        let mut offset = 0;
        while let Some(lease) = reader.pool.lease() {
            reader.ring.read_fixed(&reader.file, lease, LENGTH, offset)?;
            offset += u64::from(LENGTH);
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        self.0.submit()
    }

    fn reap(&mut self) -> Result<()> {
        let Self(reader) = self;
        for completion in reader.ring.completions() {
            let Completion::Done(done) = completion else { continue };
            reader.bytes += u64::from(done.result()?);
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.0.bytes
    }
}

/// As [`ReadFixed`], by address.
struct Read(ReadFixed);

/// Reads into leases by address, as if their pool were not registered.
pub(crate) fn read(depth: u32) -> Result<Box<dyn Work>> {
    let reader = Reader::open(depth)?;
    let leases = reader.leases();
    Ok(Box::new(Read(ReadFixed { reader, leases })))
}

impl Work for Read {
    fn fill(&mut self) -> Result<()> {
        let Self(ReadFixed { reader, leases }) = self;
        let mut offset = 0;
        while let Some(lease) = leases.pop() {
            reader.ring.read(&reader.file, lease, LENGTH, offset)?;
            offset += u64::from(LENGTH);
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        self.0.submit()
    }

    fn reap(&mut self) -> Result<()> {
        self.0.reap()
    }

    fn total(&self) -> u64 {
        self.0.total()
    }
}

/// Buffers of one's own, moved in and out.
struct ReadOwned {
    ring: OpRing<Box<[u8]>>,
    file: FixedFile,
    buffers: Vec<Box<[u8]>>,
    depth: u32,
    bytes: u64,
}

/// Reads into buffers that the ring owns meanwhile.
pub(crate) fn read_owned(depth: u32) -> Result<Box<dyn Work>> {
    let mut ring: OpRing<Box<[u8]>> = Ring::builder(depth).build_owned()?;
    let file = ring.register_file(&File::open(FILE).with_context(|| format!("cannot open {FILE}"))?)?;
    let buffers = (0..depth).map(|_| vec![0; LENGTH as usize].into()).collect();
    Ok(Box::new(ReadOwned { ring, file, buffers, depth, bytes: 0 }))
}

impl Work for ReadOwned {
    fn fill(&mut self) -> Result<()> {
        let mut offset = 0;
        while let Some(buffer) = self.buffers.pop() {
            self.ring.read_owned(&self.file, buffer, offset)?;
            offset += u64::from(LENGTH);
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        self.ring.submit_and_wait(self.depth)?;
        Ok(())
    }

    fn reap(&mut self) -> Result<()> {
        for completion in self.ring.completions() {
            let Completion::Done(done) = completion else { continue };
            self.bytes += u64::from(done.result()?);
            self.buffers.extend(done.into_owned());
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.bytes
    }
}

/// Borrowed memory; all of a round is one call.
struct ReadScope {
    ring: Ring,
    file: FixedFile,
    memory: Vec<u8>,
    depth: u32,
    bytes: u64,
}

/// Reads into memory that a scope borrows.
pub(crate) fn read_scope(depth: u32) -> Result<Box<dyn Work>> {
    let mut ring = Ring::with_entries(depth)?;
    let file = ring.register_file(&File::open(FILE).with_context(|| format!("cannot open {FILE}"))?)?;
    Ok(Box::new(ReadScope { ring, file, memory: vec![0; depth as usize * LENGTH as usize], depth, bytes: 0 }))
}

impl Work for ReadScope {
    fn fill(&mut self) -> Result<()> {
        let Self { ring, file, memory, depth, bytes } = self;
        ring.scope(|scope| -> sysuring::Result<()> {
            let mut started = Vec::with_capacity(*depth as usize);
            let mut offset = 0;
            for piece in memory.chunks_exact_mut(LENGTH as usize) {
                started.push(scope.read(&*file, piece, offset)?);
                offset += u64::from(LENGTH);
            }
            for operation in started {
                *bytes += u64::from(scope.wait(operation)?);
            }
            Ok(())
        })?;
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        Ok(())
    }

    fn reap(&mut self) -> Result<()> {
        Ok(())
    }

    fn total(&self) -> u64 {
        self.bytes
    }
}

/// The table keeps an entry of each operation.
struct Nop {
    ring: Ring,
    depth: u32,
    total: u64,
}

/// No operation, through the safe interface.
pub(crate) fn nop(depth: u32) -> Result<Box<dyn Work>> {
    Ok(Box::new(Nop { ring: Ring::with_entries(depth)?, depth, total: 0 }))
}

impl Work for Nop {
    fn fill(&mut self) -> Result<()> {
        for _ in 0..self.depth {
            self.ring.nop()?;
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        self.ring.submit_and_wait(self.depth)?;
        Ok(())
    }

    fn reap(&mut self) -> Result<()> {
        for completion in self.ring.completions() {
            let Completion::Done(done) = completion else { continue };
            self.total += u64::from(done.result()?);
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.total
    }
}

/// As in C: `user_data` is a number, and nothing is kept of an operation.
struct RawNop {
    ring: Ring,
    depth: u32,
    total: u64,
}

/// No operation, through the raw interface of the safe ring.
pub(crate) fn raw_nop(depth: u32) -> Result<Box<dyn Work>> {
    Ok(Box::new(RawNop { ring: Ring::with_entries(depth)?, depth, total: 0 }))
}

impl Work for RawNop {
    fn fill(&mut self) -> Result<()> {
        for number in 0..self.depth {
            let entry = self.ring.get_sqe().context("the submission queue is full")?;
            entry.prep_nop().set_data64(UserData::from(number));
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        self.ring.submit_and_wait(self.depth)?;
        Ok(())
    }

    fn reap(&mut self) -> Result<()> {
        for completion in self.ring.completions() {
            let Completion::Raw(entry) = completion else { continue };
            entry.result()?;
            self.total += entry.user_data();
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.total
    }
}

/// C's calls under C's names.
struct BindingsNop {
    /// For its set-up and its end.
    ring: Ring,
    depth: u32,
    total: u64,
}

/// No operation, through the bindings alone.
pub(crate) fn bindings_nop(depth: u32) -> Result<Box<dyn Work>> {
    Ok(Box::new(BindingsNop { ring: Ring::with_entries(depth)?, depth, total: 0 }))
}

impl Work for BindingsNop {
    fn fill(&mut self) -> Result<()> {
        let ring = self.ring.as_raw();
        for number in 0..self.depth {
            // SAFETY: the ring is set up and nobody else uses it; the entry is complete when the tail is published, which
            // is at the next submit, and concerns no memory. The number has no tag.
            unsafe {
                let entry = sys::io_uring_get_sqe(ring);
                ensure!(!entry.is_null(), "the submission queue is full");
                sys::io_uring_prep_nop(entry);
                sys::io_uring_sqe_set_data64(entry, number.into());
            }
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<()> {
        // SAFETY: the ring is set up and nobody else uses it.
        let returned = unsafe { sys::io_uring_submit_and_wait(self.ring.as_raw(), self.depth) };
        ensure!(returned >= 0, "the submit failed with errno {}", -returned);
        Ok(())
    }

    fn reap(&mut self) -> Result<()> {
        let ring = self.ring.as_raw();
        let mut seen = 0;
        // SAFETY: the ring is set up and nobody else uses it; each entry is read before it is given back.
        unsafe {
            for entry in sys::io_uring_for_each_cqe(ring) {
                ensure!((*entry).res >= 0, "an operation failed with errno {}", -(*entry).res);
                self.total += sys::io_uring_cqe_get_data64(entry);
                seen += 1;
            }
            sys::io_uring_cq_advance(ring, seen);
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.total
    }
}
