//! The backend that works everywhere: `pread` and `pwrite`.

use std::sync::{Mutex, PoisonError};

use crate::Unavailable;
use crate::block::request::{Request, answer};
use crate::block::target::Target;
use crate::block::{AlignedBuffer, Backend, BatchError, BlockDevice, ReadRequest, Report, WriteRequest};
use crate::error::Result;

/// Longest piece that goes through a bounce buffer at once, in bytes. A multiple of every block size.
const BOUNCE: usize = 1 << 20;

/// A block device on `pread` and `pwrite`: the fallback, and the only backend where there is no io_uring.
#[derive(Debug)]
pub struct FileBlockDevice {
    blocking: Blocking,
    fallback_reason: Option<Unavailable>,
}

impl FileBlockDevice {
    pub(crate) fn new(target: Target, fallback_reason: Option<Unavailable>) -> Self {
        Self { blocking: Blocking::new(target), fallback_reason }
    }
}

/// Transfers one after the other, with the bounce buffers that O_DIRECT needs for unaligned memory.
///
/// The io_uring device has one too, for threads that can get no ring.
#[derive(Debug)]
pub(crate) struct Blocking {
    pub(crate) target: Target,
    /// Bounce buffers that nobody uses now; as many as ever were used at once.
    bounce: Mutex<Vec<AlignedBuffer>>,
}

impl Blocking {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, bounce: Mutex::new(Vec::new()) }
    }

    pub(crate) fn run<R: Request>(&self, requests: &mut [R]) {
        for request in requests {
            let result = self.one(request);
            request.set_result(result);
        }
    }

    fn one<R: Request>(&self, request: &mut R) -> Result<()> {
        let block = request.first_block();
        if !R::IS_READ {
            self.target.check_writable(block)?;
        }
        let offset = self.target.check(R::NAME, block, request.len())?;
        let (address, length) = (request.address(), request.len());
        if R::IS_READ {
            // SAFETY: a request that reads gives memory that may be written through; `request` is borrowed exclusively.
            self.read(unsafe { std::slice::from_raw_parts_mut(address, length) }, offset)
        } else {
            // SAFETY: a request gives the address and length of the slice that it borrows.
            self.write(unsafe { std::slice::from_raw_parts(address, length) }, offset)
        }
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        if buffer.as_ptr().addr() % self.target.alignment == 0 {
            return self.target.pread_exact(buffer, offset);
        }
        self.with_bounce(|bounce| {
            let mut offset = offset;
            for piece in buffer.chunks_mut(BOUNCE) {
                let bounce = &mut bounce[..piece.len()];
                self.target.pread_exact(bounce, offset)?;
                piece.copy_from_slice(bounce);
                offset += piece.len() as u64;
            }
            Ok(())
        })
    }

    pub(crate) fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        if data.as_ptr().addr() % self.target.alignment == 0 {
            return self.target.pwrite_all(data, offset);
        }
        self.with_bounce(|bounce| {
            let mut offset = offset;
            for piece in data.chunks(BOUNCE) {
                let bounce = &mut bounce[..piece.len()];
                bounce.copy_from_slice(piece);
                self.target.pwrite_all(bounce, offset)?;
                offset += piece.len() as u64;
            }
            Ok(())
        })
    }

    fn with_bounce(&self, work: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let idle = self.bounce.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = match idle {
            Some(buffer) => buffer,
            None => AlignedBuffer::new(BOUNCE, self.target.alignment)?,
        };
        let result = work(&mut buffer);
        self.bounce.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        result
    }
}

impl BlockDevice for FileBlockDevice {
    fn block_size(&self) -> usize {
        self.blocking.target.block_size as usize
    }

    fn block_count(&self) -> u64 {
        self.blocking.target.block_count
    }

    fn alignment(&self) -> usize {
        self.blocking.target.alignment
    }

    fn max_batch(&self) -> usize {
        self.blocking.target.queue_depth as usize
    }

    fn backend(&self) -> Backend {
        Backend::File
    }

    fn fallback_reason(&self) -> Option<&Unavailable> {
        self.fallback_reason.as_ref()
    }

    fn report(&self) -> Report {
        Report {
            backend: Backend::File,
            fallback_reason: self.fallback_reason.clone(),
            direct: self.blocking.target.direct,
            registered_buffers: false,
            degraded: self.blocking.target.degraded.clone(),
        }
    }

    fn read_block(&self, block: u64, buffer: &mut [u8]) -> Result<()> {
        self.blocking.target.check_one("read", block, buffer.len())?;
        self.read_run(block, buffer)
    }

    fn write_block(&self, block: u64, data: &[u8]) -> Result<()> {
        self.blocking.target.check_one("write", block, data.len())?;
        self.write_run(block, data)
    }

    fn read_run(&self, first: u64, buffer: &mut [u8]) -> Result<()> {
        self.blocking.one(&mut ReadRequest::new(first, buffer))
    }

    fn write_run(&self, first: u64, data: &[u8]) -> Result<()> {
        self.blocking.one(&mut WriteRequest::new(first, data))
    }

    fn read_blocks(&self, requests: &mut [ReadRequest<'_>]) -> Result<(), BatchError> {
        self.blocking.run(requests);
        answer(requests)
    }

    fn write_blocks(&self, requests: &mut [WriteRequest<'_>]) -> Result<(), BatchError> {
        self.blocking.run(requests);
        answer(requests)
    }

    fn flush(&self) -> Result<()> {
        self.blocking.target.flush()
    }
}
