//! All kinds of operations in one small table, while the files that they are on go: in the end every place of the ring's table
//! of files, every slot of the pool and every descriptor is there again.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use sysuring::{Buf, Completion, FixedFile, Operations as _, Pool, Ring, SendMessage, Ticket, UserData, sys};

use crate::common::{self, random::Random, random::run_programs};

const FILES: u32 = 4;
const SLOTS: u32 = 6;

struct Program {
    random: Random,
    ring: Ring<Vec<u8>>,
    pool: Pool,
    zero: Arc<OwnedFd>,
    /// Nothing comes out of it until something was written.
    pipe: Arc<OwnedFd>,
    pipe_writer: File,
    sockets: (Arc<OwnedFd>, Arc<OwnedFd>),
    /// Not through the ring.
    sender: UnixStream,
    files: Vec<FixedFile>,
    leases: Vec<Buf>,
    tickets: Vec<Ticket>,
    has_direct: bool,
}

impl Program {
    fn new(random: Random) -> Self {
        let builder = Ring::builder(8).cq_entries(8).files(FILES).fall_back_flags(true);
        let mut random = random;
        let builder = if random.once_in(2) { builder.defer_taskrun(true) } else { builder };
        let mut ring: Ring<Vec<u8>> = builder.build_owned().unwrap();
        let pool = Pool::new(SLOTS, 64).unwrap();
        if random.once_in(2) {
            ring.register_pool(&pool).unwrap();
        }
        let (reader, pipe_writer) = common::pipe();
        let sockets = UnixStream::pair().unwrap();
        let sender = sockets.0.try_clone().unwrap();
        let leases = std::iter::from_fn(|| pool.lease()).collect();
        let has_direct = ring.features() & sys::IORING_FEAT_CQE_SKIP != 0;
        Self {
            random,
            ring,
            pool,
            zero: Arc::new(File::open("/dev/zero").unwrap().into()),
            pipe: Arc::new(reader.into()),
            pipe_writer,
            sender,
            sockets: (Arc::new(sockets.0.into()), Arc::new(sockets.1.into())),
            files: Vec::new(),
            leases,
            tickets: Vec::new(),
            has_direct,
        }
    }

    fn file(&mut self) -> Option<FixedFile> {
        let from = if self.random.once_in(2) { &self.zero } else { &self.pipe };
        self.ring.register_file(from).ok()
    }

    /// Reads into a lease, from a registered file or another one; the file may go at once.
    fn read(&mut self) {
        let Some(buf) = self.leases.pop() else { return };
        let is_fixed = self.random.once_in(2);
        let file = if self.files.is_empty() || self.random.once_in(4) { self.file() } else { self.files.pop() };
        let started = match &file {
            Some(file) if is_fixed => self.ring.read_fixed(file, buf, 64, 0),
            Some(file) => self.ring.read(file, buf, 64, 0),
            None => self.ring.read(&self.zero, buf, 64, 0),
        };
        if self.random.once_in(2) {
            self.files.extend(file);
        }
        match started {
            Ok(ticket) => self.tickets.push(ticket),
            Err(rejected) => self.leases.push(rejected.into_inner()),
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=4 => self.read(),
            5 => {
                let file = self.file();
                self.files.extend(file);
            }
            6 => drop(self.files.pop()),
            7 => {
                let file = self.files.pop();
                let started = match &file {
                    Some(file) => self.ring.read_owned(file, vec![0; 32], 0),
                    None => self.ring.read_owned(&self.zero, vec![0; 32], 0),
                };
                self.tickets.extend(started);
            }
            8 if self.has_direct => {
                let _ = self.ring.open_direct(None, c"/dev/zero", libc::O_RDONLY, 0);
            }
            9 => {
                let message = SendMessage { descriptors: &[Arc::clone(&self.zero)], ..SendMessage::default() };
                let _ = self.ring.sendmsg_owned(&self.sockets.0, vec![vec![1]], &message);
                let _ = self.ring.recvmsg_owned(&self.sockets.1, vec![vec![0; 8]], 2, 0);
            }
            10 => {
                let ticket = if self.tickets.is_empty() { None } else { Some(self.random.pick(&self.tickets)) };
                let _ = ticket.map(|ticket| self.ring.cancel(ticket));
            }
            11 => {
                if let Some(entry) = self.ring.get_sqe() {
                    entry.prep_nop().set_data64(UserData::from(1));
                }
            }
            12 => {
                let gives_up = self.random.once_in(2);
                let file = self.files.pop();
                let zero = &self.zero;
                let _ = self.ring.chain(|chain| -> Result<(), ()> {
                    match &file {
                        Some(file) => chain.read_owned(file, vec![0; 8], 0).map_err(|_| ())?,
                        None => chain.read_owned(zero, vec![0; 8], 0).map_err(|_| ())?,
                    };
                    drop(file);
                    chain.nop().map_err(|_| ())?;
                    if gives_up { Err(()) } else { Ok(()) }
                });
            }
            13 => self.scope(),
            14 => {
                self.ring.submit().unwrap();
                let _ = self.pipe_writer.write_all(&[7; 40]);
            }
            _ => self.completions(),
        }
    }

    /// Reads zeroes into borrowed memory, and may unwind.
    fn scope(&mut self) {
        let (unwinds, waits) = (self.random.once_in(3), self.random.once_in(2));
        let file = self.files.pop().or_else(|| self.file());
        let (mut first, mut second) = ([1; 16], [1; 16]);
        let (ring, zero) = (&mut self.ring, &self.zero);
        let is_whole = catch_unwind(AssertUnwindSafe(|| {
            ring.scope(|scope| {
                // A registered pipe may have nothing to read.
                let Ok(first) = scope.read(zero, &mut first, 0) else { return };
                let _ = scope.write(zero, b"nothing", 0);
                let second = scope.read(zero, &mut second, 0);
                if unwinds {
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
                if let (Ok(second), true) = (second, waits) {
                    assert_eq!((scope.wait(second).unwrap(), scope.wait(first).unwrap()), (16, 16));
                }
            });
        }));
        assert_eq!(is_whole.is_err(), unwinds && first == [0; 16]);
        drop(file);
    }

    fn completions(&mut self) {
        let most = self.random.below(6);
        for completion in self.ring.completions().take(most) {
            let Completion::Done(done) = completion else { continue };
            let is_message = self.random.once_in(2);
            if is_message {
                let message = done.into_message();
                assert!(message.is_none_or(|message| message.descriptors.len() <= 2));
            } else {
                self.leases.extend(done.into_buf());
            }
        }
    }

    fn end(mut self) {
        self.files.clear();
        self.leases.clear();
        if self.random.once_in(4) {
            // With whatever is in flight.
            return;
        }
        self.sender.set_nonblocking(true).unwrap();
        let mut laps = 0;
        while self.ring.in_flight() != 0 {
            // For reads and receives that nothing came for.
            let _ = self.pipe_writer.write_all(&[7; 64]);
            let _ = self.ring.submit_and_wait_timeout(1, Duration::from_millis(1));
            self.ring.completions().for_each(drop);
            let _ = self.sender.write(&[1]);
            laps += 1;
            assert!(laps < 200, "{} are still in flight", self.ring.in_flight());
        }
        // What ended while a scope waited for its own.
        self.ring.completions().for_each(drop);
        self.ring.submit().unwrap();
        let files: Vec<FixedFile> = (0..FILES).map(|_| self.ring.register_file(&self.zero).unwrap()).collect();
        assert!(self.ring.register_file(&self.zero).is_err(), "{} places", files.len());
        let leases: Vec<Buf> = std::iter::from_fn(|| self.pool.lease()).collect();
        assert_eq!(leases.len(), SLOTS as usize);
    }
}

#[test]
fn everything_comes_back_whatever_goes() {
    let Some(_) = common::ring(1) else { return };
    run_programs(20_000, |mut random| {
        let steps = 20 + random.below(200);
        let mut program = Program::new(random);
        for _ in 0..steps {
            program.step();
        }
        program.end();
        steps as u64
    });
}
