//! Buffers that the kernel picks by itself.

use std::collections::VecDeque;
use std::io::{ErrorKind as IoErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use sysuring::{Completion, ErrorKind, Pool, ProvidedBuf, ProvidedBuffers, RejectReason, Ring, Ticket};

use crate::common::{self, random::Random, random::run_programs};

/// A ring with a group of buffers, or a visible skip.
#[track_caller]
fn group(count: u16, size: u32, is_incremental: bool) -> Option<(Ring, ProvidedBuffers)> {
    let mut ring = common::ring(8)?;
    match ring.provide_buffers(count, size, is_incremental) {
        Ok(buffers) => Some((ring, buffers)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            common::skip(error);
            None
        }
    }
}

/// What a multishot operation has to say: some buffers, or its end.
enum Event {
    Some(Vec<ProvidedBuf>),
    End(i32),
}

fn next(ring: &mut Ring, waiting: &mut VecDeque<Event>) -> Event {
    loop {
        if let Some(event) = waiting.pop_front() {
            return event;
        }
        ring.submit_and_wait(1).unwrap();
        for completion in ring.completions() {
            match completion {
                Completion::More(more) => {
                    let result = more.result().unwrap();
                    let bufs: Vec<ProvidedBuf> = more.into_received().expect("a buffer").collect();
                    assert_eq!(bufs.iter().map(|buf| buf.len()).sum::<usize>(), result as usize);
                    waiting.push_back(Event::Some(bufs));
                }
                Completion::Done(done) => {
                    let result = done.raw_result();
                    // The last one may have data as well.
                    let bufs: Vec<ProvidedBuf> = done.into_received().into_iter().flatten().collect();
                    if result > 0 {
                        waiting.push_back(Event::Some(bufs));
                        waiting.push_back(Event::End(0));
                    } else {
                        waiting.push_back(Event::End(result));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn text(bufs: &[ProvidedBuf]) -> String {
    bufs.iter().map(|buf| String::from_utf8_lossy(buf)).collect()
}

#[test]
fn each_result_has_a_buffer_until_none_is_left() {
    let Some((mut ring, buffers)) = group(4, 64, false) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    let here = Arc::new(OwnedFd::from(here));
    let mut waiting = VecDeque::new();
    let mut kept = Vec::new();
    ring.recv_multishot(&here, &buffers, 0, false).unwrap();
    ring.submit().unwrap();
    for number in 0..4 {
        there.write_all(format!("number {number}").as_bytes()).unwrap();
        match next(&mut ring, &mut waiting) {
            Event::Some(bufs) => kept.push(bufs),
            Event::End(result) => return common::skip(format_args!("no multishot recv (before Linux 6.0): {result}")),
        }
    }
    let texts: Vec<String> = kept.iter().map(|bufs| text(bufs)).collect();
    assert_eq!(texts, ["number 0", "number 1", "number 2", "number 3"]);
    there.write_all(b"one more").unwrap();
    let Event::End(result) = next(&mut ring, &mut waiting) else { panic!("there was no fifth buffer") };
    assert_eq!(result, -libc::ENOBUFS);

    // One comes back from another thread, and is used again.
    let one = kept.remove(2);
    std::thread::spawn(move || drop(one)).join().unwrap();
    ring.recv_multishot(&here, &buffers, 0, false).unwrap();
    let Event::Some(bufs) = next(&mut ring, &mut waiting) else { panic!("a buffer came back") };
    assert_eq!(text(&bufs), "one more");
    assert_eq!(
        kept.iter().map(|bufs| text(bufs)).collect::<String>(),
        "number 0number 1number 3",
        "nobody wrote to them"
    );
    drop((bufs, kept, there));
    while !matches!(next(&mut ring, &mut waiting), Event::End(_)) {}
    ring.remove_buffers(buffers).unwrap();
}

#[test]
fn buffers_go_round_and_round() {
    let Some((mut ring, buffers)) = group(2, 16, false) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    let here = Arc::new(OwnedFd::from(here));
    for round in 0..1000_u32 {
        ring.recv_provided(&here, &buffers, 0).unwrap();
        there.write_all(&round.to_le_bytes()).unwrap();
        ring.submit_and_wait(1).unwrap();
        let done = ring.completions().find_map(Completion::into_done).unwrap();
        assert_eq!(done.result().unwrap(), 4);
        let bufs: Vec<ProvidedBuf> = done.into_received().unwrap().collect();
        assert_eq!(bufs[0][..], round.to_le_bytes());
    }
}

#[test]
fn a_bundle_spans_buffers() {
    let Some((mut ring, buffers)) = group(8, 16, false) else { return };
    // Linux 6.12 fills one buffer at a time from sockets that don't say how much there is, which Unix's did later.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut there = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    there.set_nodelay(true).unwrap();
    let (here, _) = listener.accept().unwrap();
    let here = Arc::new(OwnedFd::from(here));
    let mut waiting = VecDeque::new();
    let mut spanned = 0;
    for round in 0..50_u8 {
        let sent: Vec<u8> = (0..40).map(|at| round.wrapping_mul(7).wrapping_add(at)).collect();
        there.write_all(&sent).unwrap();
        if round == 0 {
            ring.recv_multishot(&here, &buffers, 0, true).unwrap();
        }
        let mut received = Vec::new();
        while received.len() < sent.len() {
            match next(&mut ring, &mut waiting) {
                Event::Some(bufs) => {
                    spanned += usize::from(bufs.len() > 1);
                    received.extend(bufs.iter().flat_map(|buf| buf.iter().copied()));
                }
                Event::End(result) if result == -libc::EINVAL => {
                    return common::skip("no bundles (before Linux 6.10)");
                }
                Event::End(_) => drop(ring.recv_multishot(&here, &buffers, 0, true).unwrap()),
            }
        }
        assert_eq!(received, sent, "round {round}");
    }
    assert!(spanned > 0, "no result ever had several buffers");
}

#[test]
fn an_incremental_buffer_has_several_results() {
    let Some((mut ring, buffers)) = group(2, 64, true) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    let here = Arc::new(OwnedFd::from(here));
    let mut waiting = VecDeque::new();
    let mut kept: VecDeque<(u8, ProvidedBuf)> = VecDeque::new();
    ring.recv_multishot(&here, &buffers, 0, false).unwrap();
    ring.submit().unwrap();
    for round in 0..200_u8 {
        there.write_all(&[round; 20]).unwrap();
        let mut missing = 20;
        while missing > 0 {
            match next(&mut ring, &mut waiting) {
                Event::Some(bufs) => {
                    for buf in bufs {
                        assert!(buf.iter().all(|byte| *byte == round));
                        missing -= buf.len();
                        kept.push_back((round, buf));
                    }
                }
                Event::End(_) => drop(ring.recv_multishot(&here, &buffers, 0, false).unwrap()),
            }
        }
        // Some are kept while their neighbours in the same buffer come and go.
        while kept.len() > 2 {
            kept.pop_front();
        }
        assert!(kept.iter().all(|(round, buf)| buf.iter().all(|byte| byte == round)), "a kept piece was written to");
    }
}

#[test]
fn pipes_are_read_again_and_again() {
    let Some((mut ring, buffers)) = group(4, 64, false) else { return };
    let (reader, mut writer) = common::pipe();
    let reader = Arc::new(OwnedFd::from(reader));
    let mut waiting = VecDeque::new();
    ring.read_multishot(&reader, &buffers).unwrap();
    ring.submit().unwrap();
    for word in ["first", "second", "third"] {
        writer.write_all(word.as_bytes()).unwrap();
        match next(&mut ring, &mut waiting) {
            Event::Some(bufs) => assert_eq!(text(&bufs), word),
            Event::End(result) => return common::skip(format_args!("no multishot read (before Linux 6.7): {result}")),
        }
    }
}

#[test]
fn a_group_belongs_to_its_ring() {
    let Some((mut ring, buffers)) = group(2, 64, false) else { return };
    let mut other = Ring::with_entries(2).unwrap();
    let (here, _there) = UnixStream::pair().unwrap();
    let here = Arc::new(OwnedFd::from(here));
    assert_eq!(other.recv_provided(&here, &buffers, 0).unwrap_err().reason(), RejectReason::ForeignGroup);
    assert_eq!(other.remove_buffers(buffers.clone()).unwrap_err().kind(), ErrorKind::ForeignPool);
    let again = other.provide_buffers(2, 64, false).unwrap();
    assert_eq!(ring.recv_provided(&here, &again, 0).unwrap_err().reason(), RejectReason::ForeignGroup);
    let pending: Ticket = ring.recv_provided(&here, &buffers, 0).unwrap();
    assert_eq!(ring.remove_buffers(buffers.clone()).unwrap_err().kind(), ErrorKind::Busy);
    ring.submit().unwrap();
    ring.cancel(pending).unwrap();
    while ring.in_flight() > 0 {
        ring.submit_and_wait(1).unwrap();
        ring.completions().for_each(drop);
    }
    ring.remove_buffers(buffers.clone()).unwrap();
    assert_eq!(ring.recv_provided(&here, &buffers, 0).unwrap_err().reason(), RejectReason::ForeignGroup);
    for (count, size) in [(0, 64), (3, 64), (1, 0), (u16::MAX, 64)] {
        assert_eq!(ring.provide_buffers(count, size, false).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn the_memory_is_retired_where_the_kernel_may_still_use_it() {
    let Some((mut ring, buffers)) = group(2, 4096, false) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    let here = ring.register_file(&here).unwrap();
    ring.recv_multishot(&here, &buffers, 0, false).unwrap();
    ring.submit().unwrap();
    let before = Pool::retired_bytes();
    drop((ring, buffers, here));
    assert!(Pool::retired_bytes() >= before + 2 * 4096);
    // Whatever the kernel still does with this, it reaches no memory that is somebody's.
    let _ = there.write_all(&[0xaa; 4096]);
}

#[test]
fn a_datagram_longer_than_the_buffer_has_one_buffer() {
    let Some((mut ring, buffers)) = group(4, 16, false) else { return };
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let socket = Arc::new(OwnedFd::from(socket));
    let mut kept = Vec::new();
    for round in 1..=3_u8 {
        sender.send_to(&[round; 40], address).unwrap();
        ring.recv_provided(&socket, &buffers, libc::MSG_TRUNC).unwrap();
        ring.submit_and_wait(1).unwrap();
        let done = ring.completions().find_map(Completion::into_done).unwrap();
        let bufs: Vec<ProvidedBuf> = done.into_received().unwrap().collect();
        assert_eq!(bufs.iter().map(|buf| buf.len()).collect::<Vec<_>>(), [16]);
        kept.extend(bufs);
    }
    // Three buffers, each with its own.
    assert!(kept.iter().zip(1..).all(|(buf, round)| buf.iter().all(|byte| *byte == round)));
}

#[test]
fn a_group_that_replaced_another_gives_out_none_of_its_buffers() {
    let Some((mut ring, first)) = group(2, 64, false) else { return };
    let (here, mut there) = UnixStream::pair().unwrap();
    let here = Arc::new(OwnedFd::from(here));
    ring.recv_provided(&here, &first, 0).unwrap();
    there.write_all(b"of the first").unwrap();
    ring.submit().unwrap();
    let (mut byte, zero) = ([1], std::fs::File::open("/dev/zero").unwrap());
    ring.scope(|scope| {
        // Finds the other completion on its way.
        let read = scope.read(&zero, &mut byte, 0).unwrap();
        scope.wait(read).unwrap();
    });
    ring.remove_buffers(first).unwrap();
    let _second = ring.provide_buffers(2, 64, false).unwrap();
    let done = ring.completions().find_map(Completion::into_done).unwrap();
    let bufs: Vec<ProvidedBuf> = done.into_received().unwrap().collect();
    assert_eq!(text(&bufs), "of the first");
}

#[test]
fn pieces_of_an_incremental_buffer_are_told_apart_by_the_order_of_completions() {
    let Some((mut ring, buffers)) = group(2, 4096, true) else { return };
    let (single, mut to_single) = UnixStream::pair().unwrap();
    let (several, mut to_several) = UnixStream::pair().unwrap();
    let (single, several) = (Arc::new(OwnedFd::from(single)), Arc::new(OwnedFd::from(several)));
    let one = ring.recv_provided(&single, &buffers, libc::MSG_WAITALL).unwrap();
    let many = ring.recv_multishot(&several, &buffers, 0, false).unwrap();
    ring.submit().unwrap();
    to_single.write_all(b"for the single one").unwrap();
    let (mut byte, zero) = ([1], std::fs::File::open("/dev/zero").unwrap());
    ring.scope(|scope| scope.read(&zero, &mut byte, 0).map(drop).unwrap());
    to_several.write_all(b"FOR THE OTHER").unwrap();
    ring.scope(|scope| scope.read(&zero, &mut byte, 0).map(drop).unwrap());
    let mut seen = Vec::new();
    while seen.len() < 2 {
        ring.submit_and_wait(1).unwrap();
        for completion in ring.completions() {
            let (ticket, received) = match completion {
                Completion::Done(done) => (done.ticket(), done.into_received()),
                Completion::More(more) => (more.ticket(), more.into_received()),
                other => panic!("{other:?}"),
            };
            let bufs: Vec<ProvidedBuf> = received.unwrap().collect();
            seen.push((ticket, text(&bufs)));
        }
    }
    assert!(seen.contains(&(one, "for the single one".to_owned())), "{seen:?}");
    assert!(seen.contains(&(many, "FOR THE OTHER".to_owned())), "{seen:?}");
}

#[test]
fn a_number_that_the_raw_interface_has_is_left_alone() {
    let Some((mut ring, buffers)) = group(2, 64, false) else { return };
    ring.remove_buffers(buffers).unwrap();
    let memory = Pool::new(1, 4096).unwrap().lease().unwrap();
    // SAFETY: all zeroes is a value of this C structure.
    let mut registration = unsafe { std::mem::zeroed::<sysuring::sys::io_uring_buf_reg>() };
    registration.ring_addr = memory.as_ptr().expose_provenance() as u64;
    registration.ring_entries = 1;
    // SAFETY: the memory outlives the ring, and no operation uses the group.
    assert_eq!(unsafe { sysuring::sys::io_uring_register_buf_ring(ring.as_raw(), &raw mut registration, 0) }, 0);
    let buffers = ring.provide_buffers(2, 64, false).unwrap();
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(b"x").unwrap();
    ring.recv_provided(&Arc::new(OwnedFd::from(here)), &buffers, 0).unwrap();
    ring.submit_and_wait(1).unwrap();
    let done = ring.completions().find_map(Completion::into_done).unwrap();
    assert_eq!(done.into_received().unwrap().next().unwrap()[..], *b"x");
}

/// A stream of bytes that depend on their place, received into buffers of which some are kept for a while.
struct Stream {
    ring: Ring,
    socket: Arc<OwnedFd>,
    buffers: ProvidedBuffers,
    writer: UnixStream,
    written: usize,
    received: usize,
    /// A buffer in somebody's hands, and where in the stream its bytes were.
    kept: Vec<(ProvidedBuf, usize)>,
    is_receiving: bool,
}

fn byte_at(place: usize) -> u8 {
    (place ^ place >> 8).wrapping_mul(31) as u8
}

impl Stream {
    fn write(&mut self, random: &mut Random) {
        let bytes: Vec<u8> = (self.written..self.written + 1 + random.below(200)).map(byte_at).collect();
        match self.writer.write(&bytes) {
            Ok(written) => self.written += written,
            Err(error) => assert_eq!(error.kind(), IoErrorKind::WouldBlock),
        }
    }

    fn receive(&mut self, random: &mut Random) {
        if self.is_receiving {
            return;
        }
        let (socket, buffers) = (&self.socket, &self.buffers);
        let started = match random.below(3) {
            0 => self.ring.recv_provided(socket, buffers, 0),
            one => self.ring.recv_multishot(socket, buffers, 0, one == 1),
        };
        started.unwrap();
        self.ring.submit().unwrap();
        self.is_receiving = true;
    }

    fn completions(&mut self) {
        let mut results = Vec::new();
        for completion in self.ring.completions() {
            match completion {
                Completion::More(more) => results.push((more.raw_result(), more.into_received())),
                Completion::Done(done) => {
                    self.is_receiving = false;
                    results.push((done.raw_result(), done.into_received()));
                }
                other => panic!("{other:?}"),
            }
        }
        for (result, received) in results {
            assert!(result > 0 || matches!(-result, libc::ENOBUFS | libc::EINVAL), "{result}");
            let before = self.received;
            for buf in received.into_iter().flatten() {
                self.kept.push((buf, self.received));
                self.received += self.kept.last().map_or(0, |(buf, _)| buf.len());
            }
            assert_eq!((self.received - before) as i32, result.max(0));
        }
    }

    fn check(&self) {
        for (buf, place) in &self.kept {
            assert!((*place..).zip(buf.iter()).all(|(place, byte)| byte_at(place) == *byte), "the bytes at {place}");
        }
    }

    /// Gives some buffers up, here or elsewhere.
    fn give_up(&mut self, random: &mut Random) {
        for _ in 0..random.below(self.kept.len() + 1) {
            let (buf, _) = self.kept.swap_remove(random.below(self.kept.len()));
            match random.below(8) {
                0 => std::thread::spawn(move || drop(buf)).join().unwrap(),
                _ => drop(buf),
            }
        }
    }
}

#[test]
fn random_streams_are_received_as_they_were_sent() {
    let Some((ring, _)) = group(1, 1, false) else { return };
    drop(ring);
    run_programs(10_000, |mut random| {
        let mut ring = common::ring(8).unwrap();
        let (count, size) = (random.pick(&[1, 2, 8]), random.pick(&[1, 16, 100]));
        let incremental = ring.provide_buffers(count, size, random.once_in(2));
        let buffers = incremental.or_else(|_| ring.provide_buffers(count, size, false)).unwrap();
        let (socket, writer) = UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let socket = Arc::new(OwnedFd::from(socket));
        let mut stream =
            Stream { ring, socket, buffers, writer, written: 0, received: 0, kept: Vec::new(), is_receiving: false };
        let steps = 20 + random.below(200);
        for _ in 0..steps {
            match random.below(5) {
                0 | 1 => stream.write(&mut random),
                2 => stream.receive(&mut random),
                3 => stream.completions(),
                _ => stream.give_up(&mut random),
            }
            stream.check();
        }
        stream.kept.clear();
        while stream.received < stream.written {
            // A kernel without multishot receives has one of its operations for each buffer.
            stream.receive(&mut random);
            let limit = std::time::Duration::from_secs(20);
            stream.ring.submit_and_wait_timeout(1, limit).unwrap();
            let before = (stream.received, stream.is_receiving);
            stream.completions();
            assert_ne!(before, (stream.received, stream.is_receiving), "nothing came in {limit:?}");
            stream.check();
            stream.kept.clear();
        }
        steps as u64
    });
}
