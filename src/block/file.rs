//! The backend that works everywhere: `pread` and `pwrite`.
//!
//! A batch is carried out by the calling thread and a few helpers, each of which takes the next request when it is through with
//! one: nobody holds anything while it waits, so that batches can be of any length.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::block::AlignedBuffer;
use crate::block::futures::jobs::Jobs;
use crate::block::request::Request;
use crate::block::stats::count;
use crate::block::target::Target;
use crate::block::workers::Workers;
use crate::error::Result;

/// Longest piece that goes through a bounce buffer at once, in bytes. A multiple of every block size.
const BOUNCE: usize = 1 << 20;
/// Most threads that help with batches.
const MOST_HELPERS: usize = 7;
/// Bytes that a batch through the page cache must have to be worth a helper: what is cached is copied faster than handed over.
pub(super) const WORTH_HELP: usize = 256 << 10;

/// Transfers by `pread` and `pwrite`, with the bounce buffers that O_DIRECT needs for unaligned memory.
///
/// The io_uring device has one too, for threads that can get no ring.
#[derive(Debug)]
pub(super) struct Blocking {
    pub(super) target: Target,
    /// Bounce buffers that nobody uses now; as many as ever were used at once.
    bounce: Mutex<Vec<AlignedBuffer>>,
    pub(super) workers: Workers,
    pub(super) jobs: Jobs,
    /// Queues of the device that are alive.
    pub(super) queues: AtomicUsize,
}

/// Requests for several threads, each of which is taken by one.
struct List<R>(*mut R);

// SAFETY: it is used to take each request once, so that threads get different ones, and requests may go to other threads.
unsafe impl<R: Send> Sync for List<R> {}

impl Blocking {
    pub(super) fn new(target: Target) -> Self {
        let workers = Workers::new(MOST_HELPERS.min(target.queue_depth as usize - 1));
        Self { target, bounce: Mutex::new(Vec::new()), workers, jobs: Jobs::default(), queues: AtomicUsize::new(0) }
    }

    /// Carries out every request that has no result.
    pub(super) fn run<R: Request + Send>(&self, requests: &mut [R], durable: bool) {
        let is_worth_it = self.target.direct || requests.iter().map(Request::len).sum::<usize>() >= WORTH_HELP;
        // The blocks of a zone are written one after the other.
        let is_worth_it = is_worth_it && (R::IS_READ || !self.target.is_zoned());
        let helpers = if is_worth_it { requests.len().saturating_sub(1) } else { 0 };
        let (list, length, next) = (List(requests.as_mut_ptr()), requests.len(), AtomicUsize::new(0));
        self.workers.run(helpers, &|| {
            let list = &list;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= length {
                    return;
                }
                // SAFETY: in bounds, taken by nobody else, and borrowed exclusively until `run` returns, when all helpers
                // have.
                let request = unsafe { &mut *list.0.add(index) };
                if request.result().is_none() {
                    let offset = request.first_block() * u64::from(self.target.block_size);
                    let result = self.one(request, offset, durable);
                    request.set_result(result);
                }
            }
        });
    }

    #[inline]
    pub(super) fn one<R: Request>(&self, request: &R, offset: u64, durable: bool) -> Result<()> {
        let (address, length) = (request.address(), request.len());
        if R::IS_READ {
            // SAFETY: a request that reads gives memory that may be written through; `request` is borrowed exclusively.
            self.read(unsafe { std::slice::from_raw_parts_mut(address, length) }, offset)
        } else {
            // SAFETY: a request gives the address and length of the slice that it borrows.
            self.write(unsafe { std::slice::from_raw_parts(address, length) }, offset, durable)
        }
    }

    #[inline]
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match self.target.pread(buffer, offset)? {
            done if done == buffer.len() => Ok(()),
            done => self.read_rest(&mut buffer[done..], offset + done as u64),
        }
    }

    /// All of it, or what a short transfer left, is not aligned.
    #[cold]
    fn read_rest(&self, rest: &mut [u8], mut offset: u64) -> Result<()> {
        self.with_bounce(|bounce| {
            for piece in rest.chunks_mut(BOUNCE) {
                let mut done = 0;
                while done < piece.len() {
                    let left = piece.len() - done;
                    let read = self.target.pread(&mut bounce[..left], offset)?;
                    piece[done..done + read].copy_from_slice(&bounce[..read]);
                    (done, offset) = (done + read, offset + read as u64);
                }
            }
            Ok(())
        })
    }

    #[inline]
    pub(super) fn write(&self, data: &[u8], offset: u64, durable: bool) -> Result<()> {
        match self.target.pwrite(data, offset, durable)? {
            done if done == data.len() => Ok(()),
            done => self.write_rest(&data[done..], offset + done as u64, durable),
        }
    }

    #[cold]
    fn write_rest(&self, rest: &[u8], mut offset: u64, durable: bool) -> Result<()> {
        self.with_bounce(|bounce| {
            for piece in rest.chunks(BOUNCE) {
                let mut done = 0;
                while done < piece.len() {
                    let bounce = &mut bounce[..piece.len() - done];
                    bounce.copy_from_slice(&piece[done..]);
                    let written = self.target.pwrite(bounce, offset, durable)?;
                    (done, offset) = (done + written, offset + written as u64);
                }
            }
            Ok(())
        })
    }

    fn with_bounce(&self, work: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        count(&self.target.counters.bounces, 1);
        let idle = self.bounce.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = match idle {
            Some(buffer) => buffer,
            None => AlignedBuffer::for_transfers(BOUNCE, self.target.alignment)?,
        };
        let result = work(&mut buffer);
        self.bounce.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        result
    }
}
