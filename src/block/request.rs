//! The items of a batch.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use crate::error::{Error, Result};

/// One run of blocks to read, as part of a batch.
///
/// The buffer is kept as an address: while the kernel writes to one part of it nobody may have a reference to the whole.
pub struct ReadRequest<'a> {
    block: u64,
    start: NonNull<u8>,
    length: usize,
    result: Option<Result<()>>,
    buffer: PhantomData<&'a mut [u8]>,
}

// SAFETY: what it has is an exclusive borrow of bytes, which may be passed on and shared as one.
unsafe impl Send for ReadRequest<'_> {}
// SAFETY: as above; a shared `ReadRequest` only reads.
unsafe impl Sync for ReadRequest<'_> {}

impl<'a> ReadRequest<'a> {
    /// Reads from `block` on into `buffer`, a multiple of the block size long.
    #[must_use]
    pub fn new(block: u64, buffer: &'a mut [u8]) -> Self {
        let length = buffer.len();
        Self { block, start: NonNull::from(buffer).cast(), length, result: None, buffer: PhantomData }
    }

    /// The first block of the run.
    #[must_use]
    pub fn block(&self) -> u64 {
        self.block
    }

    /// What was read, once the batch came back and [`ReadRequest::result`] is `Ok`.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the slice that `new` was given, which this borrows exclusively. Nothing of it is in flight while anybody
        // outside of a call can reach the request.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// How this request ended; `None` before its batch was read.
    #[must_use]
    pub fn result(&self) -> Option<&Result<()>> {
        self.result.as_ref()
    }
}

/// One run of blocks to write, as part of a batch.
pub struct WriteRequest<'a> {
    block: u64,
    data: &'a [u8],
    result: Option<Result<()>>,
}

impl<'a> WriteRequest<'a> {
    /// Writes `data`, a multiple of the block size long, from `block` on.
    #[must_use]
    pub fn new(block: u64, data: &'a [u8]) -> Self {
        Self { block, data, result: None }
    }

    /// The first block of the run.
    #[must_use]
    pub fn block(&self) -> u64 {
        self.block
    }

    /// The same, without a result.
    #[cfg(uring)]
    pub(crate) fn again(&self) -> Self {
        Self::new(self.block, self.data)
    }

    /// How this request ended; `None` before its batch was written.
    #[must_use]
    pub fn result(&self) -> Option<&Result<()>> {
        self.result.as_ref()
    }
}

impl fmt::Debug for ReadRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRequest")
            .field("block", &self.block)
            .field("bytes", &self.length)
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WriteRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteRequest")
            .field("block", &self.block)
            .field("bytes", &self.data.len())
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}

/// A batch in which at least one request failed.
#[derive(Debug)]
pub struct BatchError {
    completed: usize,
    error: Error,
}

impl BatchError {
    /// None of the batch counts, for that reason.
    pub(crate) fn none(error: Error) -> Self {
        Self { completed: 0, error }
    }

    /// Requests from the start of the list that succeeded without a gap.
    #[must_use]
    pub fn completed(&self) -> usize {
        self.completed
    }

    /// How the first one that failed did so.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (request {} of the batch)", self.error, self.completed)
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<BatchError> for Error {
    fn from(batch: BatchError) -> Self {
        batch.error
    }
}

/// The two kinds of request, as the code that carries them out sees them.
pub(crate) trait Request {
    /// "read" or "write".
    const NAME: &'static str;
    /// Whether the kernel writes to the memory.
    const IS_READ: bool;
    fn first_block(&self) -> u64;
    /// Bytes.
    fn len(&self) -> usize;
    /// Where the data is or goes. Only a request that reads may be written through it.
    fn address(&self) -> *mut u8;
    fn result(&self) -> Option<&Result<()>>;
    fn set_result(&mut self, result: Result<()>);
    /// Forgets the result of an earlier batch.
    fn clear(&mut self);
    #[cfg(uring)]
    fn into_result(self) -> Option<Result<()>>;
}

impl Request for ReadRequest<'_> {
    const NAME: &'static str = "read";
    const IS_READ: bool = true;

    fn first_block(&self) -> u64 {
        self.block
    }

    fn len(&self) -> usize {
        self.length
    }

    fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn set_result(&mut self, result: Result<()>) {
        self.result = Some(result);
    }

    fn result(&self) -> Option<&Result<()>> {
        self.result.as_ref()
    }

    fn clear(&mut self) {
        self.result = None;
    }

    #[cfg(uring)]
    fn into_result(self) -> Option<Result<()>> {
        self.result
    }
}

impl Request for WriteRequest<'_> {
    const NAME: &'static str = "write";
    const IS_READ: bool = false;

    fn first_block(&self) -> u64 {
        self.block
    }

    fn len(&self) -> usize {
        self.data.len()
    }

    fn address(&self) -> *mut u8 {
        self.data.as_ptr().cast_mut()
    }

    fn set_result(&mut self, result: Result<()>) {
        self.result = Some(result);
    }

    fn result(&self) -> Option<&Result<()>> {
        self.result.as_ref()
    }

    fn clear(&mut self) {
        self.result = None;
    }

    #[cfg(uring)]
    fn into_result(self) -> Option<Result<()>> {
        self.result
    }
}

/// The answer to a batch whose requests all have a result.
pub(crate) fn answer<R: Request>(requests: &[R]) -> Result<(), BatchError> {
    let first_failure = requests.iter().enumerate().find_map(|(index, request)| match request.result() {
        Some(Err(error)) => Some((index, error)),
        _ => None,
    });
    match first_failure {
        None => Ok(()),
        Some((completed, error)) => Err(BatchError { completed, error: error.clone() }),
    }
}
