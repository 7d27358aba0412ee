//! The ring that threads share.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use sysuring::{ErrorKind, FixedFile, Operations as _, Pool, RejectReason, Ring, SharedRing, Ticket};

use crate::common::{self, patterned_file, random::Random, random::run_programs};

fn assert_send_and_sync<T: Send + Sync>() {}

#[test]
fn threads_get_each_their_own_completion() {
    let Some(_) = common::ring(1) else { return };
    assert_send_and_sync::<SharedRing>();
    let directory = common::directory();
    let path = directory.path().join("file");
    let contents = patterned_file(&path, 256 * 512);
    let ring = Ring::builder(16).build_shared().unwrap();
    let pool = Pool::new(8, 512).unwrap();
    ring.register_pool(&pool).unwrap();
    let file = ring.register_file(&File::open(&path).unwrap()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (ring, pool, file, contents) = (&ring, &pool, &file, &contents);
            scope.spawn(move || {
                for lap in 0..500 {
                    let block = (thread * 31 + lap * 7) % 256;
                    let buf = pool.lease().expect("eight threads, eight slots");
                    let ticket = ring.read_fixed(file, buf, 512, block as u64 * 512).unwrap();
                    ring.submit().unwrap();
                    let done = ring.wait(ticket).unwrap();
                    assert_eq!(done.result().unwrap(), 512);
                    assert_eq!(*done.into_buf().unwrap(), contents[block * 512..][..512]);
                }
            });
        }
    });
}

#[test]
fn a_thread_that_waits_long_holds_nobody_up() {
    let Some(_) = common::ring(1) else { return };
    let ring = Ring::builder(8).build_shared().unwrap();
    let pool = Pool::new(2, 64).unwrap();
    let (slow, mut slow_writer) = common::pipe();
    let (fast, mut fast_writer) = common::pipe();
    let (slow, fast) = (ring.register_file(&slow).unwrap(), ring.register_file(&fast).unwrap());
    std::thread::scope(|scope| {
        let (ring, pool) = (&ring, &pool);
        let waiting = scope.spawn(move || {
            let ticket = ring.read(&slow, pool.lease().unwrap(), 64, 0).unwrap();
            ring.submit().unwrap();
            ring.wait(ticket).unwrap().result().unwrap()
        });
        std::thread::sleep(Duration::from_millis(20));
        for _ in 0..100 {
            let ticket = ring.read(&fast, pool.lease().unwrap(), 64, 0).unwrap();
            ring.submit().unwrap();
            fast_writer.write_all(b"fast").unwrap();
            assert_eq!(ring.wait(ticket).unwrap().result().unwrap(), 4);
        }
        assert!(!waiting.is_finished());
        slow_writer.write_all(b"slow!").unwrap();
        assert_eq!(waiting.join().unwrap(), 5);
    });
}

#[test]
fn a_ticket_is_waited_for_once() {
    let Some(mut other) = common::ring(4) else { return };
    let ring = Ring::builder(8).build_shared().unwrap();
    let pool = Pool::new(1, 64).unwrap();
    let file = ring.register_file(&File::open("/dev/zero").unwrap()).unwrap();
    let ticket = ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit().unwrap();
    assert_eq!(ring.wait(ticket).unwrap().result().unwrap(), 64);
    assert_eq!(ring.wait(ticket).unwrap_err().kind(), ErrorKind::InvalidInput);
    let foreign = other.nop().unwrap();
    assert_eq!(ring.wait(foreign).unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// What one of several threads does with the ring that they share.
struct Thread<'a> {
    ring: &'a SharedRing,
    pool: &'a Pool,
    file: &'a FixedFile,
    contents: &'a [u8],
    pipe: FixedFile,
    writer: File,
    random: Random,
    /// In flight, and where in the file they read; of the pipe there is one at a time.
    reads: Vec<(Ticket, usize)>,
    of_pipe: Option<Ticket>,
}

impl Thread<'_> {
    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below(6) {
                0 | 1 => self.read_file(),
                2 => self.read_pipe(),
                3 => drop(self.ring.submit().unwrap()),
                4 => self.wait_for_file(),
                _ => self.wait_for_pipe(),
            }
        }
        while !self.reads.is_empty() || self.of_pipe.is_some() {
            self.wait_for_file();
            self.wait_for_pipe();
        }
    }

    fn read_file(&mut self) {
        let Some(buf) = self.pool.lease() else { return };
        let at = self.random.below(self.contents.len() - 512);
        match self.ring.read(self.file, buf, 512, at as u64) {
            Ok(ticket) => self.reads.push((ticket, at)),
            Err(rejected) => self.make_room(rejected.reason()),
        }
    }

    fn read_pipe(&mut self) {
        let (None, Some(buf)) = (self.of_pipe, self.pool.lease()) else { return };
        match self.ring.read(&self.pipe, buf, 512, 0) {
            Ok(ticket) => self.of_pipe = Some(ticket),
            Err(rejected) => self.make_room(rejected.reason()),
        }
    }

    fn make_room(&mut self, reason: RejectReason) {
        match reason {
            RejectReason::QueueFull => drop(self.ring.submit().unwrap()),
            RejectReason::TableFull => self.wait_for_file(),
            reason => panic!("{reason}"),
        }
    }

    fn wait_for_file(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let (ticket, at) = self.reads.swap_remove(self.random.below(self.reads.len()));
        self.ring.submit().unwrap();
        let done = self.ring.wait(ticket).unwrap();
        assert_eq!((done.ticket(), done.raw_result()), (ticket, 512));
        assert_eq!(done.into_buf().unwrap()[..], self.contents[at..at + 512]);
    }

    fn wait_for_pipe(&mut self) {
        let Some(ticket) = self.of_pipe.take() else { return };
        self.ring.submit().unwrap();
        let bytes = [self.random.next() as u8; 100];
        self.writer.write_all(&bytes).unwrap();
        let done = self.ring.wait(ticket).unwrap();
        if done.raw_result() == -libc::ECANCELED {
            // Submitted by a thread that has ended since: what was written is for the next.
            return self.take_bytes();
        }
        assert_eq!((done.ticket(), done.raw_result()), (ticket, 100));
        assert_eq!(done.into_buf().unwrap()[..100], bytes);
    }

    /// What nobody read is read by this thread, which is there until it ends.
    fn take_bytes(&mut self) {
        while self.of_pipe.is_none() {
            let Some(buf) = self.pool.lease() else {
                self.wait_for_file();
                continue;
            };
            match self.ring.read(&self.pipe, buf, 512, 0) {
                Ok(ticket) => self.of_pipe = Some(ticket),
                Err(rejected) => self.make_room(rejected.reason()),
            }
        }
        let ticket = self.of_pipe.take().unwrap();
        self.ring.submit().unwrap();
        assert_eq!(self.ring.wait(ticket).unwrap().raw_result(), 100);
    }
}

#[test]
fn random_threads_share_a_ring() {
    if common::ring(1).is_none() {
        return;
    }
    let directory = common::directory();
    let path = directory.path().join("file");
    let contents = patterned_file(&path, 1 << 16);
    let source = File::open(&path).unwrap();
    run_programs(20_000, |mut random| {
        // More operations in all than the ring of a few entries has room for.
        let (entries, steps) = (random.pick(&[4, 8, 32]), 10 + random.below(100));
        let ring = Ring::builder(entries).build_shared().unwrap();
        let pool = Pool::new(32, 512).unwrap();
        let file = ring.register_file(&source).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (reader, writer) = common::pipe();
                let (ring, pool, file, contents) = (&ring, &pool, &file, &contents[..]);
                let pipe = ring.register_file(&reader).unwrap();
                let random = Random::new(random.next());
                let (reads, of_pipe) = (Vec::new(), None);
                let mut thread = Thread { ring, pool, file, contents, pipe, writer, random, reads, of_pipe };
                scope.spawn(move || thread.run(steps));
            }
        });
        drop(ring);
        let leases: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
        assert_eq!(leases.len(), 32, "all leases are back");
        4 * steps as u64
    });
}

#[test]
fn what_never_comes_can_be_cancelled_by_another_thread() {
    let Some(_) = common::ring(1) else { return };
    let ring = Ring::builder(8).build_shared().unwrap();
    let (reader, _writer) = common::pipe();
    let reader = Arc::new(OwnedFd::from(reader));
    let pool = Pool::new(1, 64).unwrap();
    let ticket = ring.read(&reader, pool.lease().unwrap(), 64, u64::MAX).unwrap();
    ring.submit().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ring.wait(ticket).unwrap().raw_result());
        std::thread::sleep(std::time::Duration::from_millis(20));
        ring.cancel(ticket).unwrap();
        ring.submit().unwrap();
        let result = waiting.join().unwrap();
        assert!([-libc::ECANCELED, -libc::EINTR].contains(&result), "{result}");
    });
    // One that has ended is no error, nor is its cancel's end anybody's.
    ring.cancel(ticket).unwrap();
    ring.submit().unwrap();
    assert_eq!(pool.lease().map(|buf| buf.len()), Some(64));
}

/// A file whose owner looks after the ring whenever somebody asks for its descriptor.
struct Busy(File, Arc<SharedRing>);

impl AsFd for Busy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.submit().unwrap();
        self.0.as_fd()
    }
}

#[test]
fn a_file_that_uses_the_ring_itself_is_asked_for_its_descriptor_without_the_lock() {
    let Some(_) = common::ring(1) else { return };
    let ring = Arc::new(Ring::builder(8).build_shared().unwrap());
    let file = Busy(File::open("/dev/zero").unwrap(), Arc::clone(&ring));
    let (done, is_done) = mpsc::channel();
    // Where it locks twice it never ends: another thread, so that the test does.
    std::thread::spawn(move || done.send(ring.register_file(&file).map(drop)).unwrap());
    is_done.recv_timeout(Duration::from_secs(10)).expect("registering a file hangs").unwrap();
}
