//! Messages from ring to ring.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sysuring::{Completion, ErrorKind, Mailbox, Operations as _, Pool, Probe, RejectReason, Ring, UserData};

use crate::common;

/// A ring, where the kernel has messages; prints why there is none.
#[track_caller]
fn ring(entries: u32) -> Option<Ring> {
    let ring = common::ring(entries)?;
    if !Probe::get().is_ok_and(|probe| probe.operations.contains(&("IORING_OP_MSG_RING", true))) {
        common::skip("the kernel has no IORING_OP_MSG_RING (before Linux 5.18)");
        return None;
    }
    Some(ring)
}

/// Sends one message for each number, and waits until all are there.
fn send(ring: &mut Ring, to: &Mailbox, data: impl IntoIterator<Item = u32>) {
    for number in data {
        ring.message(to, UserData::from(number), number as i32).unwrap();
        ring.submit_and_wait(1).unwrap();
        let done = ring.completions().find_map(Completion::into_done).unwrap();
        assert_eq!(done.result().unwrap(), 0);
    }
}

/// Takes what is there, sorted: the results of the ring's own operations, and the messages.
fn take(ring: &mut Ring, expected: usize) -> (Vec<i32>, Vec<u64>) {
    let (mut own, mut messages) = (Vec::new(), Vec::new());
    while own.len() + messages.len() < expected {
        ring.submit_and_wait(1).unwrap();
        for completion in ring.completions() {
            match completion {
                Completion::Done(done) => own.push(done.raw_result()),
                Completion::Raw(message) => {
                    assert_eq!((message.raw_result() as u64, message.flags()), (message.user_data(), 0));
                    messages.push(message.user_data());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    messages.sort_unstable();
    (own, messages)
}

#[test]
fn a_message_says_what_it_was_given() {
    let Some(mut here) = ring(8) else { return };
    let mut there = Ring::with_entries(8).unwrap();
    let mailbox = there.mailbox().unwrap();
    let most = UserData::new(u64::MAX >> 2).unwrap();
    for (data, value) in
        [(UserData::default(), 0), (UserData::from(7), 42), (most, -1), (most, i32::MIN), (most, i32::MAX)]
    {
        here.message(&mailbox, data, value).unwrap();
        here.submit_and_wait(1).unwrap();
        assert_eq!(here.completions().find_map(Completion::into_done).unwrap().result().unwrap(), 0);
        let Some(Completion::Raw(message)) = there.completions().next() else { panic!("it was sent") };
        assert_eq!((message.user_data(), message.raw_result(), message.flags()), (data.get(), value, 0));
    }
    // To itself, and from a ring that threads share.
    let own = here.mailbox().unwrap();
    send(&mut here, &mailbox, [1]);
    here.message(&own, UserData::from(2), 2).unwrap();
    assert_eq!(take(&mut here, 2), (vec![0], vec![2]));
    let shared = Ring::builder(8).build_shared().unwrap();
    let ticket = (&shared).message(&mailbox, UserData::from(3), 3).unwrap();
    shared.submit().unwrap();
    assert_eq!(shared.wait(ticket).unwrap().result().unwrap(), 0);
    assert_eq!(take(&mut there, 2), (vec![], vec![1, 3]));
}

#[test]
fn a_message_wakes_who_waits_whatever_the_flags_of_the_ring() {
    let Some(first) = ring(8) else { return };
    drop(first);
    let builder = Ring::builder(8);
    for builder in [
        builder.clone(),
        builder.clone().single_issuer(true).fall_back_flags(true),
        builder.clone().defer_taskrun(true).fall_back_flags(true),
        builder.clone().sqpoll(std::time::Duration::from_millis(1)),
    ] {
        let mut there = builder.build().unwrap();
        let mailbox = there.mailbox().unwrap();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    let mut ring = Ring::with_entries(4).unwrap();
                    send(&mut ring, &mailbox, thread * 100..thread * 100 + 50);
                })
            })
            .collect();
        let (own, messages) = take(&mut there, 200);
        assert!(own.is_empty());
        let sent: Vec<u64> = (0..4).flat_map(|thread| thread * 100..thread * 100 + 50).collect();
        assert_eq!(messages, sent, "{:?}", there.flags());
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn no_completion_is_lost_where_messages_overflow_the_queue() {
    let Some(mut here) = ring(8) else { return };
    for deferred in [false, true] {
        let builder = Ring::builder(4).defer_taskrun(deferred).fall_back_flags(true);
        for messages_first in [false, true] {
            let mut there = builder.build().unwrap();
            let mailbox = there.mailbox().unwrap();
            let pool = Pool::new(4, 64).unwrap();
            let (reader, mut writer) = common::pipe();
            let reader = Arc::new(OwnedFd::from(reader));
            // As many operations as completions fit: nops that end at once, reads that end when something is written.
            for _ in 0..4 {
                there.nop().unwrap();
            }
            there.submit().unwrap();
            for _ in 0..4 {
                there.read(&reader, pool.lease().unwrap(), 1, 0).unwrap();
            }
            there.submit().unwrap();
            assert_eq!((there.in_flight(), there.cq_entries()), (8, 8));
            if messages_first {
                send(&mut here, &mailbox, 0..100);
                writer.write_all(b"four").unwrap();
            } else {
                writer.write_all(b"four").unwrap();
                send(&mut here, &mailbox, 0..100);
            }
            let (mut own, messages) = take(&mut there, 108);
            own.sort_unstable();
            assert_eq!(own, [0, 0, 0, 0, 1, 1, 1, 1], "deferred {deferred}, messages first {messages_first}");
            assert_eq!(messages, (0..100).collect::<Vec<_>>());
            let leases: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
            assert_eq!((there.in_flight(), leases.len()), (0, 4));
            there.shutdown(std::time::Duration::from_secs(1)).unwrap();
        }
    }
}

#[test]
fn no_message_ends_an_operation() {
    let Some(mut here) = ring(8) else { return };
    let mut there = Ring::with_entries(8).unwrap();
    let mailbox = there.mailbox().unwrap();
    let (reader, mut writer) = common::pipe();
    let pool = Pool::new(1, 64).unwrap();
    there.read(&Arc::new(OwnedFd::from(reader)), pool.lease().unwrap(), 64, 0).unwrap();
    // SAFETY: looks at the entry that was filled in just now, which is the first of the queue.
    let user_data = unsafe { (*(*there.as_raw()).sq.sqes).user_data };
    there.submit().unwrap();
    assert!(UserData::new(user_data).is_none(), "the tag is the safe interface's");
    let nearest = UserData::new(user_data & (u64::MAX >> 2)).unwrap();
    here.message(&mailbox, nearest, 64).unwrap();
    here.submit_and_wait(1).unwrap();
    there.submit_and_wait(1).unwrap();
    let completions: Vec<_> = there.completions().collect();
    assert!(matches!(completions[..], [Completion::Raw(_)]), "{completions:?}");
    assert!(pool.lease().is_none(), "the kernel has the lease");
    writer.write_all(b"ends it").unwrap();
    assert_eq!(take(&mut there, 1).0, [7]);
}

#[test]
fn a_ring_that_is_gone_gets_no_messages_and_nobody_else_does() {
    if !common::is_alone("uring::mailbox::a_ring_that_is_gone_gets_no_messages_and_nobody_else_does") {
        return;
    }
    let Some(mut here) = ring(8) else { return };
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let mut there = Ring::with_entries(8).unwrap();
    let mailbox = there.mailbox().unwrap();
    let again = there.mailbox().unwrap();
    assert_eq!(descriptors(), before + 2, "the ring's own, and one for all of its mailboxes");
    // Started, not submitted: the number that the entry has must stay the ring's.
    here.message(&mailbox, UserData::from(1), 1).unwrap();
    drop(there);
    assert_eq!(descriptors(), before + 1, "the message keeps it");
    let mut others: Vec<Ring> = (0..4).map(|_| Ring::with_entries(2).unwrap()).collect();
    here.submit_and_wait(1).unwrap();
    let done = here.completions().find_map(Completion::into_done).unwrap();
    assert!([0, -libc::EBADFD, -libc::EOWNERDEAD].contains(&done.raw_result()), "{done:?}");
    assert!(others.iter_mut().all(|ring| ring.completions().next().is_none()), "somebody else's message");
    drop(others);
    assert_eq!(descriptors(), before);
    for mailbox in [mailbox, again] {
        let rejected = here.message(&mailbox, UserData::from(1), 1).unwrap_err();
        assert_eq!(rejected.reason(), RejectReason::RingGone);
        assert_eq!(sysuring::Error::from(rejected).kind(), ErrorKind::NotFound);
    }
    assert_eq!(here.in_flight(), 0);
}

#[test]
fn the_child_of_a_fork_closes_what_is_its_own() {
    let Some(mut ring) = ring(8) else { return };
    let mailbox = ring.mailbox().unwrap();
    let number = |name: &str| -> Vec<i32> {
        let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
            let entry = entry.ok()?;
            let is_it = fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().contains(name));
            is_it.then(|| entry.file_name().to_string_lossy().parse().unwrap())
        });
        links.collect()
    };
    assert!(!number("io_uring").is_empty());
    // SAFETY: the child calls nothing that another thread's locks could stop, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // As a daemon does, and then the numbers are other files'.
        for descriptor in 3..64 {
            // SAFETY: closes copies of the parent's.
            unsafe { libc::close(descriptor) };
        }
        // SAFETY: makes descriptors.
        let made = (3..64).all(|_| unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) } >= 0);
        let is_refused = ring.mailbox().is_err();
        drop(ring);
        // SAFETY: asks about numbers.
        let all_there = (3..64).all(|descriptor| unsafe { libc::fcntl(descriptor, libc::F_GETFD) } >= 0);
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!(made && is_refused && all_there))) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child closed what is somebody else's");
    let mut other = Ring::with_entries(2).unwrap();
    send(&mut other, &mailbox, [5]);
    assert_eq!(take(&mut ring, 1).1, [5]);
}

#[test]
fn a_mailbox_is_of_no_use_in_the_child_of_a_fork() {
    let Some(mut ring) = ring(8) else { return };
    let mailbox = ring.mailbox().unwrap();
    // SAFETY: the child allocates at most, which glibc supports after fork, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let is_refused = Ring::with_entries(2).is_ok_and(|mut own| {
            let rejected = own.message(&mailbox, UserData::from(4), 2).err();
            let _ = own.submit();
            rejected.is_some_and(|rejected| rejected.reason() == RejectReason::Forked)
        });
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!is_refused)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child sends messages to a ring of its parent");
    let mut other = Ring::with_entries(2).unwrap();
    send(&mut other, &mailbox, [5]);
    assert_eq!(take(&mut ring, 1).1, [5], "and nothing else");
}
