//! Messages of sockets, with addresses and descriptors.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::ptr::NonNull;
use std::sync::Arc;

use sysuring::{Buf, Done, Message, OpRing, Operations as _, Pool, RejectReason, Ring, SendMessage, StableBuf, Ticket};

use crate::common;

/// Submits, and waits for one operation.
fn finish<B>(ring: &mut Ring<B>) -> Done<B> {
    loop {
        ring.submit_and_wait(1).unwrap();
        if let Some(done) = ring.completions().find_map(|completion| completion.into_done()) {
            return done;
        }
    }
}

fn shared(descriptor: impl Into<OwnedFd>) -> Arc<OwnedFd> {
    Arc::new(descriptor.into())
}

fn filled(pool: &Pool, bytes: &[u8]) -> Buf {
    let mut buf = pool.lease().unwrap();
    buf[..bytes.len()].copy_from_slice(bytes);
    buf
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Sends some bytes with descriptors. `false` where the kernel takes none through a ring, which is said.
#[track_caller]
fn send(ring: &mut Ring, socket: &Arc<OwnedFd>, pool: &Pool, bytes: &[u8], descriptors: &[Arc<OwnedFd>]) -> bool {
    let message = SendMessage { descriptors, ..SendMessage::default() };
    ring.sendmsg(socket, vec![filled(pool, bytes)], bytes.len(), &message).unwrap();
    let sent = finish(ring).result();
    if let Err(error) = &sent {
        common::skip(format_args!("no descriptors through a ring (before Linux 5.12): {error}"));
        return false;
    }
    assert_eq!(sent.unwrap() as usize, bytes.len());
    true
}

fn receive(ring: &mut Ring, socket: &Arc<OwnedFd>, pool: &Pool, descriptors: usize) -> Ticket {
    ring.recvmsg(socket, vec![pool.lease().unwrap()], 64, descriptors, 0).unwrap()
}

#[test]
fn datagrams_have_addresses_and_say_where_they_were_cut() {
    let Some(mut ring) = common::ring(8) else { return };
    let (here, there) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (from, to) = (here.local_addr().unwrap(), there.local_addr().unwrap().into());
    let here = ring.register_file(&here).unwrap();
    let there = shared(there);
    let pool = Pool::new(4, 64).unwrap();
    for (sent, is_cut) in [(100, false), (128, true)] {
        let mut bufs = vec![pool.lease().unwrap(), pool.lease().unwrap()];
        bufs[0].fill(1);
        bufs[1].fill(2);
        // Both are gone before the kernel has seen the message.
        {
            let to = Box::new(to);
            ring.sendmsg(&here, bufs, sent, &SendMessage { to: Some(&to), ..SendMessage::default() }).unwrap();
        }
        let done = finish(&mut ring);
        assert_eq!(done.result().unwrap() as usize, sent);
        assert_eq!(done.into_bufs().iter().map(|buf| buf[0]).collect::<Vec<_>>(), [1, 2], "in their order");

        let bufs = vec![pool.lease().unwrap(), pool.lease().unwrap()];
        ring.recvmsg(&there, bufs, 110, 0, 0).unwrap();
        let done = finish(&mut ring);
        assert_eq!(done.result().unwrap() as usize, sent.min(110));
        let Message { bufs, from: sender, flags, descriptors, .. } = done.into_message().unwrap();
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let length = sent.min(110);
        assert_eq!(bytes[..length], [[1; 64], [2; 64]].concat()[..length]);
        assert_eq!(sender.unwrap().to_ip(), Some(from));
        assert_eq!(flags, if is_cut { libc::MSG_TRUNC } else { 0 });
        assert!(descriptors.is_empty());
    }
}

#[test]
fn buffers_are_moved_in_and_paths_are_addresses() {
    if common::ring(1).is_none() {
        return;
    }
    let mut ring: OpRing<Vec<u8>> = Ring::builder(8).build_owned().unwrap();
    let directory = common::directory();
    let (named, to) = (directory.path().join("named"), directory.path().join("to"));
    let there = shared(UnixDatagram::bind(&to).unwrap());
    let to = sysuring::SocketAddress::unix(&to).unwrap();
    let message = SendMessage { to: Some(&to), ..SendMessage::default() };
    for (here, name) in
        [(UnixDatagram::bind(&named).unwrap(), Some(named.as_path())), (UnixDatagram::unbound().unwrap(), None)]
    {
        let here = shared(here);
        ring.sendmsg_owned(&here, vec![b"some".to_vec(), Vec::new(), b" words".to_vec()], &message).unwrap();
        let done = finish(&mut ring);
        assert_eq!(done.result().unwrap(), 10);
        assert_eq!(done.into_several()[2], b" words");
        ring.recvmsg_owned(&there, vec![vec![0; 6], vec![0; 6]], 0, 0).unwrap();
        let done = finish(&mut ring);
        assert_eq!(done.result().unwrap(), 10);
        let message = done.into_message().unwrap();
        assert_eq!(message.several, [b"some w", b"ords\0\0"]);
        assert_eq!(message.from.as_ref().and_then(|from| from.to_path()), name);
    }
}

#[test]
fn descriptors_are_sent_and_received() {
    let Some(mut ring) = common::ring(8) else { return };
    let (here, there) = UnixStream::pair().unwrap();
    let (here, there) = (shared(here), shared(there));
    let pool = Pool::new(2, 64).unwrap();
    let (mut reader, writer) = common::pipe();
    let writer = shared(writer);
    let kept = Arc::downgrade(&writer);
    let null = shared(File::open("/dev/null").unwrap());

    let sent = vec![writer, null];
    let message = SendMessage { descriptors: &sent, ..SendMessage::default() };
    ring.sendmsg(&here, vec![filled(&pool, b"two")], 3, &message).unwrap();
    drop(sent);
    assert!(kept.upgrade().is_some(), "the operation keeps it open");
    if let Err(error) = finish(&mut ring).result() {
        return common::skip(format_args!("no descriptors through a ring (before Linux 5.12): {error}"));
    }
    assert!(kept.upgrade().is_none(), "and lets go of it");

    receive(&mut ring, &there, &pool, 5);
    let done = finish(&mut ring);
    assert_eq!(done.result().unwrap(), 3);
    let mut message = done.into_message().unwrap();
    assert_eq!((message.flags, message.descriptors.len(), &message.bufs[0][..3]), (0, 2, &b"two"[..]));
    for descriptor in &message.descriptors {
        // SAFETY: asks about a descriptor.
        assert_eq!(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
    }
    let mut writer = File::from(message.descriptors.remove(0));
    writer.write_all(b"through it").unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through it", "the last writer of the pipe is gone");
}

#[test]
fn descriptors_that_nobody_takes_are_closed() {
    if !common::is_alone("uring::message::descriptors_that_nobody_takes_are_closed") {
        return;
    }
    let Some(mut ring) = common::ring(8) else { return };
    let (here, there) = UnixStream::pair().unwrap();
    let (here, there) = (shared(here), shared(there));
    let pool = Pool::new(4, 64).unwrap();
    let sent = [shared(File::open("/dev/null").unwrap()), shared(File::open("/dev/zero").unwrap())];
    let before = open_descriptors();

    for count in [2, 1, 0] {
        if !send(&mut ring, &here, &pool, b"x", &sent) {
            return;
        }
        receive(&mut ring, &there, &pool, count);
        let done = finish(&mut ring);
        let message = done.into_message().unwrap();
        assert_eq!(message.descriptors.len(), count);
        assert_eq!(message.flags, if count == 2 { 0 } else { libc::MSG_CTRUNC }, "room for {count}");
        assert_eq!(open_descriptors(), before + count);
        drop(message);
        assert_eq!(open_descriptors(), before);
    }

    // A completion that is dropped, also where its buffers are taken.
    for takes_bufs in [false, true] {
        assert!(send(&mut ring, &here, &pool, b"x", &sent));
        receive(&mut ring, &there, &pool, 2);
        let done = finish(&mut ring);
        assert_eq!(open_descriptors(), before + 2);
        if takes_bufs {
            assert_eq!(done.into_bufs().len(), 1)
        } else {
            drop(done)
        }
        assert_eq!(open_descriptors(), before);
    }

    // Seen while somebody else is waited for, and a completion that stays in the queue: neither is taken before the ring goes.
    assert!(send(&mut ring, &here, &pool, b"x", &sent));
    receive(&mut ring, &there, &pool, 2);
    ring.submit().unwrap();
    let (mut byte, zero) = ([1], File::open("/dev/zero").unwrap());
    ring.scope(|scope| {
        let read = scope.read(&zero, &mut byte, 0).unwrap();
        scope.wait(read).unwrap();
    });
    drop(zero);
    let mut other = Ring::with_entries(8).unwrap();
    assert!(send(&mut other, &here, &pool, b"x", &sent));
    drop(other);
    receive(&mut ring, &there, &pool, 2);
    ring.submit_and_wait(2).unwrap();
    assert_eq!(open_descriptors(), before + 4);
    // One more that is still in flight.
    receive(&mut ring, &there, &pool, 2);
    ring.submit().unwrap();
    assert_eq!(ring.in_flight(), 2, "the one in the queue, and the one that waits");
    drop(ring);
    assert_eq!(open_descriptors(), before - 1, "the ring's own is gone as well");
    assert_eq!(sysuring::leaked_operations(), 0);
}

#[test]
fn descriptors_that_come_in_several_steps_are_all_owned() {
    if !common::is_alone("uring::message::descriptors_that_come_in_several_steps_are_all_owned") {
        return;
    }
    let Some(mut ring) = common::ring(8) else { return };
    let (here, there) = UnixStream::pair().unwrap();
    let (here, there) = (shared(here), shared(there));
    let pool = Pool::new(4, 64).unwrap();
    let sent = [shared(File::open("/dev/null").unwrap())];
    let before = open_descriptors();
    let mut other = Ring::with_entries(8).unwrap();
    for order in [[true, true], [true, false], [false, true]] {
        // A receive ends at each message that has descriptors. Kernels differ in whether one with room for them goes on then.
        let mut missing = 8;
        let receive = |ring: &mut Ring, missing| {
            ring.recvmsg(&there, vec![pool.lease().unwrap()], missing, 16, libc::MSG_WAITALL).unwrap();
            ring.submit().unwrap();
        };
        receive(&mut ring, missing);
        for has_descriptor in order {
            let descriptors = if has_descriptor { &sent[..] } else { &[] };
            if !send(&mut other, &here, &pool, b"four", descriptors) {
                return;
            }
            let _ = ring.submit_and_wait_timeout(1, std::time::Duration::from_millis(20));
        }
        let mut received = Vec::new();
        loop {
            let done = finish(&mut ring);
            missing -= done.result().unwrap() as usize;
            received.extend(done.into_message().unwrap().descriptors);
            if missing == 0 {
                break;
            }
            receive(&mut ring, missing);
        }
        assert_eq!(received.len(), order.iter().filter(|has| **has).count(), "{order:?}");
        drop(received);
        assert_eq!(open_descriptors(), before + 1, "{order:?}: the other ring's own is left");
    }
}

#[test]
fn what_is_not_started_is_given_back_and_leaves_no_trace() {
    let Some(ring) = common::ring(1) else { return };
    drop(ring);
    let mut ring = Ring::builder(1).build().unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    let (here, there) = (shared(here), shared(there));
    let pool = Pool::new(3, 64).unwrap();
    let sent = [shared(File::open("/dev/null").unwrap())];
    let message = SendMessage { descriptors: &sent, ..SendMessage::default() };
    ring.nop().unwrap();
    let rejected = ring.sendmsg(&here, vec![pool.lease().unwrap()], 1, &message).unwrap_err();
    assert_eq!((rejected.reason(), Arc::strong_count(&sent[0])), (RejectReason::QueueFull, 1));
    assert_eq!(rejected.into_inner().len(), 1);
    let rejected = ring.recvmsg(&there, vec![pool.lease().unwrap()], 64, 9, 0).unwrap_err();
    assert_eq!((rejected.reason(), rejected.into_inner().len()), (RejectReason::QueueFull, 1));
    let rejected = ring.recvmsg(&there, vec![pool.lease().unwrap()], 65, 9, 0).unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::TooLong);
    drop((rejected, finish(&mut ring)));

    // Operations that get the same parcel are no messages.
    let (mut reader, writer) = common::pipe();
    ring.write_vectored(&shared(writer), vec![filled(&pool, b"plain")], 5, 0).unwrap();
    let done = finish(&mut ring);
    assert_eq!(done.result().unwrap(), 5);
    assert!(done.into_message().is_none());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "plain");
    ring.timeout(std::time::Duration::from_millis(1)).unwrap();
    assert!(finish(&mut ring).into_message().is_none());

    // One that fails gives its memory back, and nothing that somebody else received.
    receive(&mut ring, &shared(File::open("/dev/null").unwrap()), &pool, 1);
    let done = finish(&mut ring);
    assert_eq!(done.raw_result(), -libc::ENOTSOCK);
    let message = done.into_message().unwrap();
    assert_eq!((message.bufs.len(), message.flags, message.descriptors.len()), (1, 0, 0));
    assert!(message.from.is_none());
}

/// Unwinds when it is asked for its memory.
struct Unwinds;

// SAFETY: it names no memory at all.
unsafe impl StableBuf for Unwinds {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        panic!("asked to unwind");
    }
}

/// Both ways in which a parcel with a message of descriptors comes to be used again: the message was sent, or rejected.
#[test]
fn a_receive_that_unwinds_owns_no_descriptor_that_was_sent() {
    let Some(ring) = common::ring(1) else { return };
    drop(ring);
    let mut ring: OpRing<Unwinds> = Ring::builder(1).build_owned().unwrap();
    let (here, there) = UnixDatagram::pair().unwrap();
    let (here, there) = (shared(here), shared(there));
    let pool = Pool::new(1, 64).unwrap();
    for is_rejected in [false, true] {
        let sent = [shared(File::open("/dev/null").unwrap())];
        let message = SendMessage { descriptors: &sent, ..SendMessage::default() };
        if is_rejected {
            ring.nop().unwrap();
            ring.sendmsg(&here, vec![pool.lease().unwrap()], 0, &message).unwrap_err();
        } else {
            ring.sendmsg_owned(&here, Vec::new(), &message).unwrap_or_else(|_| panic!("rejected"));
        }
        drop(finish(&mut ring));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ring.recvmsg_owned(&there, vec![Unwinds], 1, 0).map(drop).ok();
        }));
        assert!(unwound.is_err());
        assert!(sent[0].try_clone().is_ok(), "somebody closed it (rejected: {is_rejected})");
    }
}
