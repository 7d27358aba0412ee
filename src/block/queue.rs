//! A thread's own way to a device: requests are started, handed over together, and taken as they end.
//!
//! On io_uring a queue has a ring of its own, bound to its thread, with the file and memory for a request each registered.
//! On `pread`/`pwrite` the device's threads carry requests out; what goes through the page cache is carried out when it is
//! submitted, since a copy is done before another thread has heard of it.
//!
//! A request that the kernel carries out in part goes on by itself: it is handed over again with what is left.

#[cfg(uring)]
mod ring;
mod threads;

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
#[cfg(target_os = "linux")]
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::block::command::{Action, Command, TransferError, check, refuse};
#[cfg(nvme)]
use crate::block::nvme::Passthrough;
use crate::block::queue::threads::Threads;
use crate::block::stats::Tally;
use crate::block::target::Target;
#[cfg(nvme)]
use crate::block::wire::Wire as _;
use crate::block::{AlignedBuffer, Device, Picked};
use crate::error::{Error, ErrorKind, Result};

#[cfg(doc)]
use crate::block::{BlockDevice, Fallback};

/// What the kernel registers in one piece, at most.
const LARGEST_BUFFER: usize = 1 << 30;

/// Starts requests on a device and takes them as they end, without waiting for each; for one thread.
///
/// Requests own their memory: a buffer goes in with [`Queue::read`] and comes back with [`Completed`]. Those that
/// [`Queue::buffer`] gives are registered with the kernel; nothing is copied on the way. Nothing begins before
/// [`Queue::submit`], [`Queue::submit_and_wait`] or [`Queue::wait`] hands over all that was started.
///
/// ```
/// use sysuring::block::{self, Options};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("disk.img");
/// let device = block::open(&path, &Options::new().create(1 << 20))?;
/// let mut queue = device.queue(8, 4096)?;
/// for block in 0..8 {
///     let mut buffer = queue.buffer().expect("there are eight");
///     buffer.fill(block as u8);
///     queue.write(block, buffer, block)?;
/// }
/// while let Some(completed) = queue.wait()? {
///     completed.result?;
///     println!("block {} is written", completed.user_data);
/// }
/// queue.flush(0)?;
/// queue.wait()?.expect("the flush").result?;
/// # Ok(())
/// # }
/// ```
///
/// A queue keeps its device open. Dropping it gives up what is in flight: whether that is carried out is not known, and on
/// `pread` and `pwrite` threads that are at it keep the device open until they are through. In the child of a `fork`
/// whatever starts or waits is an error, and nothing can be taken.
pub struct Queue {
    lane: Lane,
    /// After the ring, which may wait for what is in flight: the lock is held until then.
    device: Arc<Picked>,
    depth: usize,
    /// Requests that were started and not given out.
    in_flight: usize,
    /// Those that ended without anybody's help.
    ready: VecDeque<(Command, Result<()>)>,
    tally: Tally,
    /// A thread's own, whatever it is made of.
    one_thread: PhantomData<*mut ()>,
}

/// A request that ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed {
    /// What the request was started with.
    pub user_data: u64,
    /// How it ended; all of it, where it succeeded.
    pub result: Result<()>,
    /// The buffer; `None` for a flush.
    pub buffer: Option<AlignedBuffer>,
}

/// How requests get to the target.
enum Lane {
    Threads(Threads),
    #[cfg(uring)]
    Ring(Box<ring::RingLane>),
    #[cfg(nvme)]
    Nvme(Box<ring::RingLane<Passthrough>>),
}

impl Lane {
    /// Whether flushes can go along with transfers: on a ring that polls a command without data can't (Linux 6.1 dereferences a null
    /// pointer).
    fn flushes(&self) -> bool {
        match self {
            #[cfg(nvme)]
            Self::Nvme(lane) => !lane.is_polled(),
            _ => true,
        }
    }
}

impl Device {
    /// A queue for this thread: up to `depth` requests in flight (1 to 4096), and as many buffers of `buffer_size` bytes, which
    /// is a multiple of the block size, and 1 GiB at most.
    ///
    /// On io_uring it has a ring of its own, which [`ThreadRings::limit`](crate::ThreadRings::limit) does not count. Where
    /// there is none to be had it uses `pread`/`pwrite`, and where buffers can't be registered it goes without: both are told
    /// in the device's report, and can be forbidden ([`Fallback::PreadAtTimes`], [`Fallback::UnregisteredBuffers`]).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for another depth or size, [`ErrorKind::Degraded`] where a step down is forbidden;
    /// [`ErrorKind::Full`], or what the kernel reports, where there is no memory for the buffers.
    pub fn queue(&self, depth: u32, buffer_size: usize) -> Result<Queue> {
        let block_size = self.target().block_size as usize;
        if !(1..=4096).contains(&depth) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a queue of depth {depth}: it must be from 1 to 4096"),
            ));
        }
        if buffer_size == 0 || buffer_size % block_size != 0 {
            let message = format!("buffers of {buffer_size} bytes are no multiple of the block size {block_size}");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if buffer_size > LARGEST_BUFFER {
            let message = format!("buffers of {buffer_size} bytes are larger than {LARGEST_BUFFER}");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let lane = match &*self.0 {
            Picked::File(..) => Lane::Threads(Threads::new(depth, buffer_size)),
            #[cfg(uring)]
            Picked::Uring(uring) => match ring::RingLane::new(uring, depth, buffer_size)? {
                Some(lane) => Lane::Ring(Box::new(lane)),
                None => Lane::Threads(Threads::new(depth, buffer_size)),
            },
            #[cfg(nvme)]
            Picked::Nvme(uring) => match ring::RingLane::new(uring, depth, buffer_size)? {
                Some(lane) => Lane::Nvme(Box::new(lane)),
                None => Lane::Threads(Threads::new(depth, buffer_size)),
            },
        };
        self.0.blocking().queues.fetch_add(1, Ordering::Relaxed);
        Ok(Queue {
            device: Arc::clone(&self.0),
            lane,
            depth: depth as usize,
            in_flight: 0,
            ready: VecDeque::new(),
            tally: Tally::default(),
            one_thread: PhantomData,
        })
    }
}

impl Queue {
    /// Most requests that can be in flight.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Requests that were started and not taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// One of the queue's own buffers, holding whatever it last held; `None` while all of them, as many as the queue is deep, are
    /// out, or where there is no memory for one. Others, such as those
    /// of [`BlockDevice::aligned_buffer`], work too; those of the queue cost least.
    #[must_use]
    pub fn buffer(&self) -> Option<AlignedBuffer> {
        match &self.lane {
            Lane::Threads(threads) => threads.buffer(self.target().alignment),
            #[cfg(uring)]
            Lane::Ring(lane) => lane.buffer(),
            #[cfg(nvme)]
            Lane::Nvme(lane) => lane.buffer(),
        }
    }

    /// Starts a read of as many blocks from `block` on as the buffer holds. `user_data` comes back with the buffer.
    ///
    /// # Errors
    ///
    /// Gives the buffer back: [`ErrorKind::Full`] where [`Queue::depth`] requests are in flight (take some), and as for
    /// [`BlockDevice`]; [`ErrorKind::Misaligned`] for a buffer with another alignment than the device's.
    #[inline]
    pub fn read(&mut self, block: u64, buffer: AlignedBuffer, user_data: u64) -> Result<(), TransferError> {
        self.transfer(Action::Read, block, buffer, user_data)
    }

    /// Starts a write of as many blocks from `block` on as the buffer holds.
    ///
    /// # Errors
    ///
    /// As for [`Queue::read`].
    #[inline]
    pub fn write(&mut self, block: u64, buffer: AlignedBuffer, user_data: u64) -> Result<(), TransferError> {
        self.transfer(Action::Write, block, buffer, user_data)
    }

    /// As [`Queue::write`], and the data is on stable storage when it ends (Force Unit Access).
    ///
    /// # Errors
    ///
    /// As for [`Queue::read`].
    pub fn write_fua(&mut self, block: u64, buffer: AlignedBuffer, user_data: u64) -> Result<(), TransferError> {
        self.transfer(Action::WriteFua, block, buffer, user_data)
    }

    /// Starts a flush: when it has ended, all writes that had ended before it was started are on stable storage. It says
    /// nothing of those that are in flight with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`], as for [`Queue::read`].
    pub fn flush(&mut self, user_data: u64) -> Result<()> {
        if self.in_flight == self.depth {
            return Err(self.full());
        }
        let mut command = Command::flush(user_data);
        let result = match self.lane.flushes() && self.target().may_need_flush() {
            true => None,
            // There is nothing to do, or it can't be done on the way of the others.
            false => Some(if self.target().read_only { Ok(()) } else { self.target().sync() }),
        };
        if let Some(result) = result {
            command.since = self.target().begin();
            self.in_flight += 1;
            self.ready.push_back((command, result));
            match &self.lane {
                Lane::Threads(threads) => threads.tell(),
                #[cfg(uring)]
                Lane::Ring(lane) => lane.tell(),
                #[cfg(nvme)]
                Lane::Nvme(lane) => lane.tell(),
            }
        } else {
            self.start(command)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn transfer(&mut self, action: Action, block: u64, buffer: AlignedBuffer, tag: u64) -> Result<(), TransferError> {
        if self.in_flight == self.depth {
            return Err(refuse(self.full(), buffer));
        }
        let offset = match check(self.target(), action, block, &buffer) {
            Ok(offset) => offset,
            Err(error) => return Err(refuse(error, buffer)),
        };
        #[cfg(uring)]
        if let Lane::Ring(lane) = &mut self.lane {
            if let Some(room) = lane.room() {
                let (bytes, since) = (buffer.len(), self.device.target().begin());
                // SAFETY: it was given by this ring, to which nothing was done since.
                unsafe { lane.start_in(room, action, offset, buffer, tag, since) };
                self.in_flight += 1;
                self.tally.start(action, bytes);
                return Ok(());
            }
        }
        self.start(Command::new(action, tag, 0, offset, Some(buffer)))
    }

    /// Starts a command in no hurry.
    fn start(&mut self, mut command: Command) -> Result<(), TransferError> {
        command.since = self.target().begin();
        let (action, bytes) = (command.action, command.bytes());
        match &mut self.lane {
            Lane::Threads(threads) => threads.start(command)?,
            #[cfg(uring)]
            Lane::Ring(lane) => lane.start(self.device.target(), command)?,
            #[cfg(nvme)]
            Lane::Nvme(lane) => lane.start(self.device.target(), command)?,
        }
        self.in_flight += 1;
        self.tally.start(action, bytes);
        Ok(())
    }

    /// Hands over what was started, without waiting.
    ///
    /// # Errors
    ///
    /// What the kernel reports, where it goes on reporting it: nothing is lost, and all that was started stays so.
    pub fn submit(&mut self) -> Result<()> {
        self.submit_and_wait(0)
    }

    /// Hands over what was started, and waits until `count` requests, or all that are in flight, can be taken by
    /// [`Queue::poll`]. One that has to go on, after a short transfer, is counted too: so there may be fewer. To be sure of
    /// `count`, call [`Queue::wait`] as often.
    ///
    /// # Errors
    ///
    /// As for [`Queue::submit`].
    pub fn submit_and_wait(&mut self, count: usize) -> Result<()> {
        self.hand_over(count, None)
    }

    /// As [`Queue::submit_and_wait`], for `limit` at most, or until a signal comes. It is no error when the time passes.
    ///
    /// # Errors
    ///
    /// As for [`Queue::submit`].
    pub fn submit_and_wait_timeout(&mut self, count: usize, limit: Duration) -> Result<()> {
        self.hand_over(count, Some(limit))
    }

    fn hand_over(&mut self, count: usize, limit: Option<Duration>) -> Result<()> {
        self.tell();
        let count = count.min(self.in_flight);
        match &mut self.lane {
            Lane::Threads(threads) => {
                threads.submit(&self.device, &mut self.ready)?;
                threads.wait(count, limit, &mut self.ready);
                Ok(())
            }
            #[cfg(uring)]
            Lane::Ring(lane) => lane.submit(count.saturating_sub(self.ready.len()) as u32, limit),
            #[cfg(nvme)]
            Lane::Nvme(lane) => lane.submit(count.saturating_sub(self.ready.len()) as u32, limit),
        }
    }

    /// Takes a request that ended, without waiting.
    ///
    /// While something that was started has not been submitted, it may be left to the submit to have the kernel tell what has
    /// ended; asked a second time before that, the kernel tells.
    #[inline]
    pub fn poll(&mut self) -> Option<Completed> {
        if let Some((command, result)) = self.ready.pop_front() {
            return Some(self.give_out(command, result));
        }
        match &mut self.lane {
            Lane::Threads(threads) => {
                let (command, result) = threads.poll(&mut self.ready)?;
                Some(self.give_out(command, result))
            }
            #[cfg(uring)]
            Lane::Ring(lane) => loop {
                let (command, result) = lane.next()?;
                // By value, and apart: what is whole need not be in memory in between.
                if command.is_whole(result) {
                    return Some(self.completed(command, Ok(())));
                }
                if let Some((command, result)) = lane.go_on(&self.device, command, result) {
                    return Some(self.give_out(command, result));
                }
            },
            #[cfg(nvme)]
            Lane::Nvme(lane) => loop {
                let (command, result) = lane.next()?;
                if Passthrough::is_whole(self.device.target(), &command, result) {
                    return Some(self.completed(command, Ok(())));
                }
                if let Some((command, result)) = lane.go_on(&self.device, command, result) {
                    return Some(self.give_out(command, result));
                }
            },
        }
    }

    #[cold]
    #[inline(never)]
    fn give_out(&mut self, command: Command, result: Result<()>) -> Completed {
        self.completed(command, result)
    }

    #[inline(always)]
    fn completed(&mut self, command: Command, result: Result<()>) -> Completed {
        self.in_flight -= 1;
        if result.is_err() {
            self.tally.fail();
        }
        self.target().end(command.action, command.since);
        if self.in_flight == 0 {
            self.tell();
        }
        Completed { user_data: command.tag, result, buffer: command.buffer }
    }

    /// Takes a request that ended; where there is none, hands over what was started and waits for one. `None` when nothing is
    /// in flight.
    ///
    /// # Errors
    ///
    /// As for [`Queue::submit`].
    pub fn wait(&mut self) -> Result<Option<Completed>> {
        loop {
            if let Some(completed) = self.poll() {
                return Ok(Some(completed));
            }
            if self.in_flight == 0 {
                return Ok(None);
            }
            self.submit_and_wait(1)?;
        }
    }

    /// Level-triggered: a descriptor (an eventfd) for other event loops, readable when requests may have ended. [`Queue::poll`] resets it when
    /// there is none to take: watch it, poll until there is no more, and leave the reading to that. It tells of nothing that was
    /// not submitted. (That of a `Reactor` is edge-triggered.)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] on a device that polls for completions, which nothing tells; what the kernel reports of
    /// making one.
    #[cfg(target_os = "linux")]
    pub fn completion_fd(&mut self) -> Result<BorrowedFd<'_>> {
        match &mut self.lane {
            Lane::Threads(threads) => threads.completion_fd(),
            #[cfg(uring)]
            Lane::Ring(lane) => lane.completion_fd(),
            #[cfg(nvme)]
            Lane::Nvme(lane) => lane.completion_fd(),
        }
    }

    fn target(&self) -> &Target {
        self.device.target()
    }

    /// Tells the device what was done.
    #[cold]
    #[inline(never)]
    fn tell(&mut self) {
        self.tally.tell(&self.device.target().counters, self.in_flight as u64);
    }

    #[cold]
    fn full(&self) -> Error {
        let message =
            format!("{} requests are in flight on the queue, which is its depth; take some first", self.depth);
        Error::new(ErrorKind::Full, message)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Nobody will hear of what is in flight.
        self.tally.tell(&self.device.target().counters, 0);
        self.device.blocking().queues.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.target().path;
        f.debug_struct("Queue")
            .field("path", path)
            .field("depth", &self.depth)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
