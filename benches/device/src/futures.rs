//! The device's futures under tokio, and what else there is to read with from a task.
//!
//! Tasks take the next block from a counter, so that each has as many reads as it has time for.

use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use compio::io::AsyncReadAt;
use sysuring::block::{AlignedBuffer, Backend, BlockDevice, Device, Reactor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};

use crate::blocks::{BLOCK, Blocks, Page, Target, number};
use crate::device;
use crate::side::{Clock, Sample, Side};

/// What is left to be read, for tasks on several threads.
struct Left {
    blocks: Blocks,
    next: AtomicU64,
}

impl Left {
    fn new(blocks: Blocks) -> Arc<Self> {
        Arc::new(Self { blocks, next: AtomicU64::new(0) })
    }

    #[inline]
    fn next(&self) -> Option<u64> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.blocks.count).then(|| self.blocks.at(index))
    }
}

/// As [`Left`], for those on one.
#[derive(Clone)]
struct LocalLeft {
    blocks: Blocks,
    next: Rc<Cell<u64>>,
}

impl LocalLeft {
    fn new(blocks: Blocks) -> Self {
        Self { blocks, next: Rc::default() }
    }

    #[inline]
    fn next(&self) -> Option<u64> {
        let index = self.next.replace(self.next.get() + 1);
        (index < self.blocks.count).then(|| self.blocks.at(index))
    }
}

fn current_thread() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_io().build()?)
}

fn multi_thread() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_io().build()?)
}

/// Spawns a task for each of `parts`, waits for all of them, and adds up what they give.
async fn sum_of<P, F>(parts: impl IntoIterator<Item = P>, task: impl Fn(P) -> F) -> Result<u64>
where
    F: Future<Output = Result<u64>> + Send + 'static,
{
    let spawned: Vec<_> = parts.into_iter().map(|part| tokio::spawn(task(part))).collect();
    let mut sum = 0;
    for task in spawned {
        sum += task.await??;
    }
    Ok(sum)
}

/// The device's futures.
struct Futures {
    runtime: Runtime,
    device: Arc<Device>,
    tasks: usize,
    has_reactor: bool,
}

impl Futures {
    fn open(target: &Target, runtime: Runtime, tasks: usize, has_reactor: bool) -> Result<Box<dyn Side>> {
        let device = Arc::new(device::open(target, Backend::Uring)?);
        Ok(Box::new(Self { runtime, device, tasks, has_reactor }))
    }

    async fn read_all(&self, blocks: Blocks) -> Result<Sample> {
        let buffers: Result<Vec<_>, _> = (0..self.tasks).map(|_| self.device.aligned_buffer(BLOCK)).collect();
        let left = Left::new(blocks);
        let read = |mut buffer: AlignedBuffer| {
            let (device, left) = (Arc::clone(&self.device), Arc::clone(&left));
            async move {
                let mut sum = 0;
                while let Some(block) = left.next() {
                    buffer = device.read_async(block, buffer).await?;
                    sum += number(&buffer);
                }
                Ok(sum)
            }
        };
        let buffers = buffers?;
        let clock = Clock::start();
        let sum = sum_of(buffers, read).await?;
        Ok(clock.stop(sum))
    }

    /// As the documentation of [`Reactor`] has it.
    async fn beside_a_reactor(&self, blocks: Blocks) -> Result<Sample> {
        let reactor = Reactor::new()?;
        // SAFETY: the descriptor is the reactor's, which outlives this.
        let descriptor = unsafe { AsyncFd::register_with_interest(reactor.completion_fd(), Interest::READABLE) };
        let descriptor = descriptor.map_err(io::Error::from)?;
        let readable = || async {
            descriptor.readable().await?.clear_ready();
            Ok(())
        };
        tokio::select! {
            gone = reactor.run(readable) => match gone {
                Ok(never) => match never {},
                Err(error) => Err(error.into()),
            },
            done = self.read_all(blocks) => done,
        }
    }
}

impl Side for Futures {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        if self.has_reactor {
            return self.runtime.block_on(self.beside_a_reactor(blocks));
        }
        self.runtime.block_on(self.read_all(blocks))
    }
}

/// Beside a reactor.
pub(crate) fn with_reactor(target: &Target) -> Result<Box<dyn Side>> {
    Futures::open(target, current_thread()?, 32, true)
}

/// Beside a reactor, one at a time.
pub(crate) fn with_reactor_1(target: &Target) -> Result<Box<dyn Side>> {
    Futures::open(target, current_thread()?, 1, true)
}

/// Under the current-thread runtime without a reactor.
pub(crate) fn without_reactor(target: &Target) -> Result<Box<dyn Side>> {
    Futures::open(target, current_thread()?, 32, false)
}

/// Under the multi-thread runtime.
pub(crate) fn on_two_threads(target: &Target) -> Result<Box<dyn Side>> {
    Futures::open(target, multi_thread()?, 32, false)
}

/// `pread` on tokio's threads for what blocks.
struct BlockingPool {
    runtime: Runtime,
    file: Arc<File>,
    tasks: usize,
}

impl BlockingPool {
    fn open(target: &Target, runtime: Runtime, tasks: usize) -> Result<Box<dyn Side>> {
        Ok(Box::new(Self { runtime, file: Arc::new(target.open()?), tasks }))
    }
}

impl Side for BlockingPool {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        let (file, left) = (Arc::clone(&self.file), Left::new(blocks));
        let read = |mut page: Box<Page>| {
            let (file, left) = (Arc::clone(&file), Arc::clone(&left));
            async move {
                let mut sum = 0;
                while let Some(block) = left.next() {
                    let file = Arc::clone(&file);
                    let reading = tokio::task::spawn_blocking(move || {
                        file.read_exact_at(&mut page.0, block * BLOCK as u64).map(|()| page)
                    });
                    page = reading.await??;
                    sum += number(&page.0);
                }
                Ok(sum)
            }
        };
        let pages: Vec<_> = (0..self.tasks).map(|_| Page::new()).collect();
        self.runtime.block_on(async {
            let clock = Clock::start();
            let sum = sum_of(pages, read).await?;
            Ok(clock.stop(sum))
        })
    }
}

/// Under the current-thread runtime.
pub(crate) fn blocking_pool(target: &Target) -> Result<Box<dyn Side>> {
    BlockingPool::open(target, current_thread()?, 32)
}

/// Under the multi-thread runtime.
pub(crate) fn blocking_pool_on_two_threads(target: &Target) -> Result<Box<dyn Side>> {
    BlockingPool::open(target, multi_thread()?, 32)
}

/// One at a time.
pub(crate) fn blocking_pool_1(target: &Target) -> Result<Box<dyn Side>> {
    BlockingPool::open(target, current_thread()?, 1)
}

/// Memory that other runtimes can move around.
struct Memory(Box<Page>);

// SAFETY: the page stays where it is when the box moves, and all of it is initialised.
unsafe impl tokio_uring::buf::IoBuf for Memory {
    fn stable_ptr(&self) -> *const u8 {
        self.0.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        BLOCK
    }

    fn bytes_total(&self) -> usize {
        BLOCK
    }
}

// SAFETY: as above.
unsafe impl tokio_uring::buf::IoBufMut for Memory {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.0.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

impl compio::buf::IoBuf for Memory {
    fn as_init(&self) -> &[u8] {
        &self.0.0
    }
}

impl compio::buf::SetLen for Memory {
    unsafe fn set_len(&mut self, _: usize) {}
}

impl compio::buf::IoBufMut for Memory {
    fn as_uninit(&mut self) -> &mut [std::mem::MaybeUninit<u8>] {
        let page: *mut [u8] = &raw mut self.0.0;
        // SAFETY: as many bytes, borrowed as `self` is; those who get them are to write no uninitialised ones.
        unsafe { &mut *(page as *mut [std::mem::MaybeUninit<u8>]) }
    }
}

/// tokio-uring, with registered buffers.
struct TokioUring {
    runtime: tokio_uring::Runtime,
    target: Target,
    tasks: usize,
}

impl Side for TokioUring {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        self.runtime.block_on(async {
            let file = Rc::new(tokio_uring::fs::File::from_std(self.target.open()?));
            let pages = (0..self.tasks).map(|_| Memory(Page::new()));
            let registry = tokio_uring::buf::fixed::FixedBufRegistry::new(pages);
            registry.register()?;
            let left = LocalLeft::new(blocks);
            let buffers: Option<Vec<_>> = (0..self.tasks).map(|index| registry.check_out(index)).collect();
            let buffers = buffers.context("all buffers are there")?;
            let clock = Clock::start();
            let spawned: Vec<_> = buffers
                .into_iter()
                .map(|mut buffer| {
                    let (file, left) = (Rc::clone(&file), left.clone());
                    tokio_uring::spawn(async move {
                        let mut sum = 0;
                        while let Some(block) = left.next() {
                            let (length, given_back) = file.read_fixed_at(buffer, block * BLOCK as u64).await;
                            ensure!(length? == BLOCK, "a short read");
                            buffer = given_back;
                            sum += number(&buffer);
                        }
                        Ok(sum)
                    })
                })
                .collect();
            let mut sum = 0;
            for task in spawned {
                sum += task.await??;
            }
            let sample = clock.stop(sum);
            registry.unregister()?;
            if let Ok(file) = Rc::try_unwrap(file) {
                file.close().await?;
            }
            Ok(sample)
        })
    }
}

fn tokio_uring_with(target: &Target, tasks: usize) -> Result<Box<dyn Side>> {
    let mut ring = tokio_uring::uring_builder();
    // What it does best with, of what works: DEFER_TASKRUN does not.
    ring.setup_coop_taskrun().setup_single_issuer();
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().uring_builder(&ring))?;
    Ok(Box::new(TokioUring { runtime, target: target.clone(), tasks }))
}

/// tokio-uring.
pub(crate) fn tokio_uring(target: &Target) -> Result<Box<dyn Side>> {
    tokio_uring_with(target, 32)
}

/// tokio-uring, one at a time.
pub(crate) fn tokio_uring_1(target: &Target) -> Result<Box<dyn Side>> {
    tokio_uring_with(target, 1)
}

/// compio, which has a runtime of its own.
struct Compio {
    runtime: compio::runtime::Runtime,
    file: compio::fs::File,
    tasks: usize,
}

impl Side for Compio {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        self.runtime.block_on(async {
            let left = LocalLeft::new(blocks);
            let pages: Vec<_> = (0..self.tasks).map(|_| Memory(Page::new())).collect();
            let clock = Clock::start();
            let spawned: Vec<_> = pages
                .into_iter()
                .map(|mut page| {
                    let (file, left) = (self.file.clone(), left.clone());
                    compio::runtime::spawn(async move {
                        let mut sum = 0;
                        while let Some(block) = left.next() {
                            let compio::buf::BufResult(length, given_back) =
                                file.read_at(page, block * BLOCK as u64).await;
                            ensure!(length? == BLOCK, "a short read");
                            page = given_back;
                            sum += number(&page.0.0);
                        }
                        Ok(sum)
                    })
                })
                .collect();
            let mut sum = 0;
            for task in spawned {
                match task.await {
                    Ok(read) => sum += read?,
                    Err(_) => bail!("a task of compio panicked"),
                }
            }
            Ok(clock.stop(sum))
        })
    }
}

fn compio_with(target: &Target, tasks: usize) -> Result<Box<dyn Side>> {
    let mut ring = compio::driver::ProactorBuilder::new();
    // What it does best with; DEFER_TASKRUN works and is no faster.
    ring.coop_taskrun(true);
    let runtime = compio::runtime::Runtime::builder().with_proactor(ring).build()?;
    ensure!(runtime.driver_type().is_iouring(), "compio is not on io_uring here");
    let flags = if target.direct { libc::O_DIRECT } else { 0 };
    let file = runtime
        .block_on(async { compio::fs::OpenOptions::new().read(true).custom_flags(flags).open(&target.path).await })?;
    Ok(Box::new(Compio { runtime, file, tasks }))
}

/// compio.
pub(crate) fn compio(target: &Target) -> Result<Box<dyn Side>> {
    compio_with(target, 32)
}

/// compio, one at a time.
pub(crate) fn compio_1(target: &Target) -> Result<Box<dyn Side>> {
    compio_with(target, 1)
}
