//! The ring of one thread: operations, rejections, tags.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use sysuring::{
    Completion, Done, Entries, ErrorKind, Operations as _, Pool, RejectReason, Ring, RingBuilder, SqeFlags, Ticket,
    UserData, sys,
};

use crate::common::{self, finish, patterned_file};

#[test]
fn reads_and_writes_round_trip_registered_and_not() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    let path = directory.path().join("file");
    let contents = patterned_file(&path, 16384);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let file = ring.register_file(&file).unwrap();
    let pool = Pool::new(4, 4096).unwrap();
    ring.register_pool(&pool).unwrap();

    let fixed = ring.read_fixed(&file, pool.lease().unwrap(), 4096, 4096).unwrap();
    let plain = ring.read(&file, pool.lease().unwrap(), 1000, 8192).unwrap();
    assert_eq!(ring.in_flight(), 2);
    for done in finish(&mut ring, 2) {
        let (ticket, read) = (done.ticket(), done.result().unwrap() as usize);
        let buf = done.into_buf().unwrap();
        let at = if ticket == fixed { 4096 } else { 8192 };
        assert!(ticket == fixed || ticket == plain);
        assert_eq!(buf[..read], contents[at..at + read]);
        assert_eq!(read, if ticket == fixed { 4096 } else { 1000 });
    }
    assert_eq!(ring.in_flight(), 0);

    let mut buf = pool.lease().unwrap();
    buf.fill(0xc3);
    ring.write_fixed(&file, buf, 512, 0).unwrap();
    let mut buf = pool.lease().unwrap();
    buf.fill(0x3c);
    ring.write(&file, buf, 512, 512).unwrap();
    assert!(finish(&mut ring, 2).iter().all(|done| done.result().unwrap() == 512));
    ring.fsync(&file, true).unwrap();
    ring.fallocate(&file, 0, 0, 32768).unwrap();
    assert!(finish(&mut ring, 2).iter().all(|done| done.raw_result() == 0));
    let now = std::fs::read(&path).unwrap();
    assert_eq!(now.len(), 32768);
    assert!(now[..512].iter().all(|byte| *byte == 0xc3) && now[512..1024].iter().all(|byte| *byte == 0x3c));
}

#[test]
fn what_is_rejected_comes_back_with_the_reason() {
    let Some(mut ring) = common::ring(2) else { return };
    let mut other = Ring::with_entries(2).unwrap();
    let file = File::open("/proc/self/exe").unwrap();
    let (here, there) = (ring.register_file(&file).unwrap(), other.register_file(&file).unwrap());
    let (pool, foreign) = (Pool::new(8, 4096).unwrap(), Pool::new(1, 4096).unwrap());
    ring.register_pool(&pool).unwrap();

    let rejected = ring.read_fixed(&there, pool.lease().unwrap(), 1, 0).unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::ForeignFile);
    let rejected = ring.read_fixed(&here, rejected.into_inner(), 4097, 0).unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::TooLong);
    let rejected = ring.write_fixed(&here, foreign.lease().unwrap(), 1, 0).unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::ForeignPool);
    assert!(rejected.to_string().contains("register_pool"), "{rejected}");
    drop(rejected);
    assert!(foreign.lease().is_some(), "the lease came back");

    for _ in 0..2 {
        ring.read_fixed(&here, pool.lease().unwrap(), 512, 0).unwrap();
    }
    let rejected = ring.read_fixed(&here, pool.lease().unwrap(), 512, 0).unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::QueueFull);
    ring.submit().unwrap();
    for _ in 0..2 {
        ring.read_fixed(&here, pool.lease().unwrap(), 512, 0).unwrap();
    }
    ring.submit().unwrap();
    let rejected = ring.nop().unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::TableFull, "R11: no more in flight than completions fit");
    assert_eq!(ring.cq_entries(), 4);
    assert_eq!(finish(&mut ring, 4).len(), 4);
}

/// Raw entries told apart by 0 to 3.
fn four_raw_entries(ring: &mut Ring) {
    for number in 0..4 {
        ring.get_sqe().unwrap().prep_nop().set_data64(UserData::from(number));
    }
}

#[test]
fn a_forgotten_iterator_replays_nothing() {
    let Some(mut ring) = common::ring(8) else { return };
    let tickets: Vec<Ticket> = (0..4).map(|_| ring.nop().unwrap()).collect();
    ring.submit_and_wait(4).unwrap();
    let mut completions = ring.completions();
    let first = completions.next().and_then(Completion::into_done).unwrap().ticket();
    let _ = ManuallyDrop::new(completions);
    let rest: Vec<Ticket> = ring.completions().filter_map(Completion::into_done).map(|done| done.ticket()).collect();
    assert_eq!((first, &rest[..]), (tickets[0], &tickets[1..]));

    // Those of raw entries have nothing but the queue's head to be told by.
    four_raw_entries(&mut ring);
    ring.submit_and_wait(4).unwrap();
    for number in 0..4 {
        let mut completions = ManuallyDrop::new(ring.completions());
        let Some(Completion::Raw(cqe)) = completions.next() else { panic!("there were four") };
        assert_eq!(cqe.user_data(), number);
    }
    assert!(ring.completions().next().is_none());
}

#[test]
fn c_code_on_the_same_ring_sees_what_was_taken_and_takes_its_own() {
    let Some(mut ring) = common::ring(8) else { return };
    four_raw_entries(&mut ring);
    ring.submit_and_wait(4).unwrap();
    let raw = ring.as_raw();
    let mut completions = ring.completions();
    for number in [0, 2] {
        let Some(Completion::Raw(cqe)) = completions.next() else { panic!("there were four") };
        assert_eq!(cqe.user_data(), number);
        // SAFETY: the ring is set up, and nobody else uses it meanwhile.
        unsafe {
            assert_eq!(u64::from(sys::io_uring_cq_ready(raw)), 3 - number, "the head is published with each");
            let mut cqe = std::ptr::null_mut();
            assert_eq!(sys::io_uring_peek_cqe(raw, &raw mut cqe), 0);
            assert_eq!((*cqe).user_data, number + 1);
            sys::io_uring_cqe_seen(raw, cqe);
        }
    }
    assert!(completions.next().is_none());
}

#[test]
fn an_abandoned_entry_is_never_executed() {
    let Some(mut ring) = common::ring(4) else { return };
    let (reader, mut writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 64).unwrap();
    // Every entry of the queue once held a read of the pipe.
    for _ in 0..4 {
        writer.write_all(b"x").unwrap();
        ring.read(&file, pool.lease().unwrap(), 1, 0).unwrap();
        finish(&mut ring, 1);
    }
    writer.write_all(b"y").unwrap();
    drop(ring.get_sqe().unwrap());
    let _ = ManuallyDrop::new(ring.get_sqe().unwrap());
    assert_eq!(ring.submit().unwrap(), 0);
    let mut left = [0; 2];
    assert_eq!((&reader).read(&mut left).unwrap(), 1);
    assert_eq!(left[0], b'y');
}

#[test]
fn raw_entries_share_the_ring_under_their_own_tag() {
    let Some(mut ring) = common::ring(8) else { return };
    let ticket = ring.nop().unwrap();
    let data = UserData::new(0x1234_5678_9abc).unwrap();
    ring.get_sqe().unwrap().prep_nop().set_data64(data).set_flags(SqeFlags::ASYNC);
    ring.submit_and_wait(2).unwrap();
    let (mut raw, mut done) = (Vec::new(), Vec::new());
    for completion in ring.completions() {
        match completion {
            Completion::Raw(cqe) => raw.push(cqe.user_data()),
            Completion::Done(operation) => done.push(operation.ticket()),
            _ => unreachable!(),
        }
    }
    assert_eq!((raw, done), (vec![data.get()], vec![ticket]));
    for forged in [1 << 62, 1 << 63, u64::MAX] {
        assert_eq!(UserData::new(forged), None, "R4");
    }
}

#[test]
fn raw_operations_do_what_c_does() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    let path = directory.path().join("file");
    let contents = patterned_file(&path, 8192);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let descriptor = file.as_raw_fd();
    let mut buffers = vec![vec![0_u8; 4096]; 2];
    let iovecs: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect();
    // SAFETY: the buffers live until every completion was taken below.
    unsafe { ring.register_buffers(&iovecs) }.unwrap();
    // SAFETY: the same.
    let again = unsafe { ring.register_buffers(&iovecs) }.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Busy);
    let one = |ring: &mut Ring| -> i32 {
        ring.submit_and_wait(1).unwrap();
        match ring.completions().next() {
            Some(Completion::Raw(cqe)) => cqe.raw_result(),
            other => panic!("{other:?}"),
        }
    };
    // SAFETY: the file stays open and the buffers live; each operation ends before the next begins.
    unsafe {
        ring.get_sqe().unwrap().prep_read_fixed(descriptor, buffers[0].as_mut_ptr(), 4096, 4096, 0);
        assert_eq!(one(&mut ring), 4096);
        assert_eq!(buffers[0], contents[4096..]);
        ring.get_sqe().unwrap().prep_write_fixed(descriptor, buffers[0].as_ptr(), 100, 0, 0);
        assert_eq!(one(&mut ring), 100);
        ring.get_sqe().unwrap().prep_read(descriptor, buffers[1].as_mut_ptr(), 100, 0);
        assert_eq!(one(&mut ring), 100);
        assert_eq!(buffers[1][..100], contents[4096..4196]);
        ring.get_sqe().unwrap().prep_write(descriptor, buffers[1].as_ptr(), 10, 8192);
        assert_eq!(one(&mut ring), 10);
        ring.get_sqe().unwrap().prep_fallocate(descriptor, 0, 0, 16384);
        assert_eq!(one(&mut ring), 0);
        ring.get_sqe().unwrap().prep_fsync(descriptor, sys::IORING_FSYNC_DATASYNC);
        assert_eq!(one(&mut ring), 0);
        // A regular file has no commands: the kernel says so, having understood the entry.
        ring.get_sqe().unwrap().prep_uring_cmd(descriptor, 7, &[1; 16]);
        match one(&mut ring) {
            refused if refused == -libc::EINVAL => {
                common::skip("the kernel has no IORING_OP_URING_CMD (before Linux 5.19)")
            }
            refused => assert_eq!(refused, -libc::EOPNOTSUPP),
        }
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 16384);
    ring.get_sqe().unwrap().prep_cancel64(UserData::from(7), 0);
    assert_eq!(one(&mut ring), -libc::ENOENT);
    ring.unregister_buffers().unwrap();
    assert_eq!(ring.unregister_buffers().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_cancelled_read_gives_its_lease_back_with_its_own_completion() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, _writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 64).unwrap();
    let ticket = ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit().unwrap();
    assert!(pool.lease().is_none());
    ring.cancel(ticket).unwrap();
    let done = finish(&mut ring, 1).pop().unwrap();
    assert_eq!(done.ticket(), ticket);
    assert_eq!(done.result().unwrap_err().kind(), ErrorKind::Cancelled);
    drop(done);
    assert!(pool.lease().is_some());
    ring.cancel(ticket).unwrap();
    let again = ring.nop().unwrap();
    assert_eq!(finish(&mut ring, 1)[0].ticket(), again, "an old ticket cancels nothing and says nothing");
}

#[test]
fn a_wait_counts_the_end_of_a_cancel_that_nobody_is_told_of() {
    let Some(mut ring) = common::ring(4) else { return };
    let ended = ring.nop().unwrap();
    common::finish_one(&mut ring);
    let (reader, mut writer) = common::pipe();
    let pool = Pool::new(1, 64).unwrap();
    let file = ring.register_file(&reader).unwrap();
    let read = ring.read(&file, pool.lease().unwrap(), 1, 0).unwrap();
    ring.cancel(ended).unwrap();
    assert_eq!(ring.submit_and_wait(1).unwrap(), 2);
    assert!(ring.completions().next().is_none());
    writer.write_all(b"x").unwrap();
    assert_eq!(common::finish_one(&mut ring).ticket(), read);
}

#[test]
fn a_file_stays_until_its_last_operation_and_goes_after() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, mut writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    drop(reader);
    let pool = Pool::new(1, 64).unwrap();
    ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    // Dropped before the submit: the index must not be given to the next file.
    let index = file.index();
    drop(file);
    let other = ring.register_file(&File::open("/dev/null").unwrap()).unwrap();
    assert_ne!(other.index(), index);
    ring.submit().unwrap();
    writer.write_all(b"hello").unwrap();
    let done = finish(&mut ring, 1).pop().unwrap();
    assert_eq!(done.result().unwrap(), 5);
    assert_eq!(&done.into_buf().unwrap()[..5], b"hello");
    ring.submit().unwrap();
    let started = Instant::now();
    while writer.write_all(b"x").is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "the ring still holds the reading end");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(ring.register_file(&other_end()).unwrap().index(), index, "the place is free again");
}

fn other_end() -> impl AsFd {
    File::open("/dev/null").unwrap()
}

#[test]
fn pools_come_and_go_and_are_busy_while_in_flight() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, mut writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 4096).unwrap();
    assert_eq!(ring.unregister_pool(&pool).unwrap_err().kind(), ErrorKind::ForeignPool);
    ring.register_pool(&pool).unwrap();
    ring.register_pool(&pool).unwrap();
    ring.read_fixed(&file, pool.lease().unwrap(), 8, 0).unwrap();
    ring.submit().unwrap();
    assert_eq!(ring.unregister_pool(&pool).unwrap_err().kind(), ErrorKind::Busy);
    writer.write_all(b"12345678").unwrap();
    assert_eq!(finish(&mut ring, 1)[0].result().unwrap(), 8);
    ring.unregister_pool(&pool).unwrap();
    let rejected = ring.read_fixed(&file, pool.lease().unwrap(), 8, 0).unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::ForeignPool);
    // Far more pools than places, one after the other: those that nobody has any more make room.
    for _ in 0..600 {
        ring.register_pool(&Pool::new(1, 4096).unwrap()).unwrap();
    }
}

#[test]
fn every_kind_of_ring_completes() {
    let Some(_) = common::ring(1) else { return };
    let builders = [
        ("plain", Ring::builder(4)),
        ("single issuer", Ring::builder(4).single_issuer(true).fall_back_flags(true)),
        ("deferred", Ring::builder(4).defer_taskrun(true).fall_back_flags(true)),
        ("cooperative", Ring::builder(4).coop_taskrun(true).fall_back_flags(true)),
        ("polling thread", Ring::builder(4).sqpoll(Duration::from_millis(1))),
        ("clamped", Ring::builder(1 << 20).clamp(true)),
    ];
    for (name, builder) in builders {
        completes(name, &builder);
        completes(&format!("{name}, big entries"), &builder.big_entries());
    }
}

fn completes<E: Entries>(name: &str, builder: &RingBuilder<E>) {
    let mut ring = match builder.build() {
        Ok(ring) => ring,
        Err(error) => {
            common::skip(format_args!("{name}: {error}"));
            return;
        }
    };
    for lap in 0..100 {
        // The polling thread falls asleep in between.
        std::thread::sleep(Duration::from_micros(if lap % 10 == 0 { 3000 } else { 0 }));
        let mut expected: Vec<Ticket> = Vec::new();
        while expected.len() < 3 {
            match ring.nop() {
                Ok(ticket) => expected.push(ticket),
                // The polling thread posts completions before it says that it has taken the entries.
                Err(full) => {
                    assert_eq!(full.reason(), RejectReason::QueueFull);
                    ring.submit().unwrap();
                }
            }
        }
        let mut seen: Vec<Ticket> = finish(&mut ring, 3).iter().map(Done::ticket).collect();
        seen.sort_by_key(|ticket| expected.iter().position(|known| known == ticket));
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn big_entries_carry_a_command_and_more_of_a_completion() {
    let Some(_) = common::ring(1) else { return };
    let mut ring = match Ring::builder(2).big_entries().build() {
        Ok(ring) => ring,
        Err(error) => {
            common::skip(error);
            return;
        }
    };
    let file = tempfile::tempfile().unwrap();
    for lap in 0..5 {
        // SAFETY: the file outlives the wait, and has no commands; the payload names no memory.
        let entry = unsafe { ring.get_sqe().unwrap().prep_uring_cmd(file.as_raw_fd(), 7, &[0xff; 80]) };
        entry.set_data64(UserData::from(lap));
        ring.submit_and_wait(1).unwrap();
        let Some(Completion::Raw(cqe)) = ring.completions().next() else { panic!("one entry, one completion") };
        assert_eq!((cqe.user_data(), cqe.raw_result(), cqe.extra()), (lap.into(), -libc::EOPNOTSUPP, [0; 2]));
        // The second half of an entry is cleared for the next operation.
        // SAFETY: the entry has 128 bytes, and is looked at before anybody else gets it.
        let rest = unsafe { ring.get_sqe().unwrap().as_raw().add(1).cast::<[u64; 8]>().read() };
        assert_eq!(rest, [0; 8]);
    }
}

#[test]
fn completions_are_seen_without_waiting() {
    let Some(_) = common::ring(1) else { return };
    let mut ring = Ring::builder(4).defer_taskrun(true).fall_back_flags(true).build().unwrap();
    let (reader, mut writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 64).unwrap();
    ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit().unwrap();
    writer.write_all(b"late").unwrap();
    let started = Instant::now();
    let done = loop {
        if let Some(done) = ring.completions().find_map(Completion::into_done) {
            break done;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "a deferred completion never came");
    };
    assert_eq!(done.result().unwrap(), 4);
}

#[test]
fn setup_errors_say_what_is_wrong() {
    let Some(_) = common::ring(1) else { return };
    let error = Ring::with_entries(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("0 entries"), "{error}");
    let error = Ring::builder(4).defer_taskrun(true).build_shared().unwrap_err();
    assert!(error.to_string().contains("shared ring"), "{error}");
    let error = Ring::builder(4).sqpoll(Duration::ZERO).sqpoll_cpu(1 << 20).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn shutdown_waits_and_gives_up_in_time() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, mut writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 64).unwrap();
    ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    writer.write_all(b"x").unwrap();
    ring.shutdown(Duration::from_secs(10)).unwrap();

    // What has ended is not in flight, whether anybody took it or not.
    let mut ring = Ring::builder(4).build().unwrap();
    ring.nop().unwrap();
    ring.submit_and_wait(1).unwrap();
    ring.shutdown(Duration::ZERO).unwrap();
    assert!(pool.lease().is_some(), "drained: the lease is back");

    let mut ring = Ring::with_entries(8).unwrap();
    let file = ring.register_file(&reader).unwrap();
    ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    let started = Instant::now();
    assert_eq!(ring.shutdown(Duration::from_millis(50)).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(5));
    // The slot is given out again only where the kernel said that it is through with it.
    if let Some(mut buf) = pool.lease() {
        buf.fill(0);
        writer.write_all(b"late").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert!(buf.iter().all(|byte| *byte == 0), "the kernel wrote to a lease");
    }
}

#[test]
fn what_was_never_submitted_comes_back_when_the_ring_is_dropped() {
    let Some(mut ring) = common::ring(8) else { return };
    let file = ring.register_file(&File::open("/proc/self/exe").unwrap()).unwrap();
    let pool = Pool::new(2, 64).unwrap();
    ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    drop(ring);
    assert!(pool.lease().is_some() && pool.lease().is_some());
}

#[test]
fn flags_without_a_name_reach_no_entry() {
    let Some(mut ring) = common::ring(8) else { return };
    let file = ring.register_file(&File::open("/proc/self/exe").unwrap()).unwrap();
    let pool = Pool::new(1, 64).unwrap();
    // Linked, the failing cancel would keep the read's completion back.
    let forged = (sys::IOSQE_IO_LINK | sys::IOSQE_CQE_SKIP_SUCCESS) as u8;
    let entry = ring.get_sqe().unwrap().prep_cancel64(UserData::from(5), 0);
    entry.set_flags(SqeFlags::from_bits_retain(forged)).set_flags(SqeFlags::from_bits_retain(forged));
    ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    let done = finish(&mut ring, 1).pop().unwrap();
    assert_eq!(done.result().unwrap(), 64);
}

#[test]
fn what_a_polling_thread_was_not_shown_comes_back() {
    let Some(_) = common::ring(1) else { return };
    let mut ring = match Ring::builder(8).sqpoll(Duration::from_millis(1)).build() {
        Ok(ring) => ring,
        Err(error) => return common::skip(error),
    };
    let file = ring.register_file(&File::open("/proc/self/exe").unwrap()).unwrap();
    let pool = Pool::new(1, 64).unwrap();
    ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    drop(ring);
    assert!(pool.lease().is_some());
}

#[test]
fn limits_of_any_length_are_taken() {
    let Some(mut ring) = common::ring(8) else { return };
    assert_eq!(ring.submit_and_wait_timeout(0, Duration::from_secs(9)).unwrap(), 0);
    assert_eq!(ring.submit_and_wait_timeout(1, Duration::from_millis(1)).unwrap(), 0);
    ring.nop().unwrap();
    ring.shutdown(Duration::MAX).unwrap();
}

#[test]
fn a_full_ring_can_still_cancel_by_a_raw_entry() {
    let Some(mut ring) = common::ring(1) else { return };
    let (reader, _writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(2, 64).unwrap();
    let tickets: Vec<Ticket> = (0..2)
        .map(|_| {
            let ticket = ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
            ring.submit().unwrap();
            ticket
        })
        .collect();
    assert_eq!(ring.cancel(tickets[0]).unwrap_err().reason(), RejectReason::TableFull);
    ring.get_sqe().unwrap().prep_cancel_ticket(tickets[0]);
    let done = finish(&mut ring, 1).pop().unwrap();
    assert_eq!(done.ticket(), tickets[0]);
    assert_eq!(done.result().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_table_of_files_has_a_sensible_size() {
    let Some(_) = common::ring(1) else { return };
    for files in [0, u32::MAX] {
        let mut ring = Ring::builder(1).files(files).build().unwrap();
        let error = ring.register_file(&File::open("/dev/null").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("RingBuilder::files"), "{error}");
    }
    // As many as the kernel takes, which the process may not have open.
    let mut ring = Ring::builder(1).files(1 << 20).build().unwrap();
    if let Err(error) = ring.register_file(&File::open("/dev/null").unwrap()) {
        assert!(error.kind() == ErrorKind::Full && error.to_string().contains("ulimit -n"), "{error}");
    }
    for (builder, word) in [
        (Ring::builder(8).cq_entries(4), "cq_entries"),
        (Ring::builder(8).sqpoll_cpu(0), "needs sqpoll"),
        (Ring::builder(8).sqpoll(Duration::ZERO).defer_taskrun(true), "excludes"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let deferred = Ring::builder(8).defer_taskrun(true).coop_taskrun(false).fall_back_flags(true).build().unwrap();
    if deferred.flags().intersects(sysuring::SetupFlags::DEFER_TASKRUN | sysuring::SetupFlags::COOP_TASKRUN) {
        assert!(deferred.flags().contains(sysuring::SetupFlags::TASKRUN_FLAG));
    } else {
        common::skip("the kernel defers no work (before Linux 5.19)");
    }
}

#[test]
fn a_cancel_takes_no_place_that_a_raw_completion_needs() {
    let Some(mut ring) = common::ring(1) else { return };
    assert_eq!(ring.cq_entries(), 2);
    let (reader, _writer) = common::pipe();
    let file = ring.register_file(&reader).unwrap();
    let pool = Pool::new(1, 64).unwrap();
    let ticket = ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit().unwrap();
    ring.get_sqe().unwrap().prep_nop();
    ring.submit().unwrap();
    assert_eq!(ring.cancel(ticket).unwrap_err().reason(), RejectReason::TableFull, "R11");
    assert!(matches!(ring.completions().next(), Some(Completion::Raw(_))));
    ring.cancel(ticket).unwrap();
    assert_eq!(finish(&mut ring, 1)[0].ticket(), ticket);
}

#[test]
fn operations_with_flags_have_their_completion() {
    let Some(mut ring) = common::ring(8) else { return };
    let file = ring.register_file(&File::open("/dev/zero").unwrap()).unwrap();
    let pool = Pool::new(2, 64).unwrap();
    ring.forced_async().read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    ring.drained().read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit_and_wait_timeout(2, Duration::from_secs(10)).unwrap();
    let ended = ring.completions().filter_map(Completion::into_done).filter(|done| done.raw_result() == 64).count();
    assert_eq!(ended, 2, "R7: none is without");
}

#[test]
fn what_was_found_before_completions_were_lost_is_handed_out() {
    if !common::is_alone("uring::ring::what_was_found_before_completions_were_lost_is_handed_out")
        || common::ring(1).is_none()
    {
        return;
    }
    let mut ring: sysuring::OpRing<Vec<u8>> = Ring::builder(8).build_owned().unwrap();
    let zero = File::open("/dev/zero").unwrap();
    let (reader, mut writer) = common::pipe();
    writer.write_all(b"precious").unwrap();
    let reader = ring.register_file(&reader).unwrap();
    let read = ring.read_owned(&reader, vec![0; 8], u64::MAX).unwrap();
    let (other, _writer) = common::pipe();
    let polled = std::sync::Arc::new(std::os::fd::OwnedFd::from(other));
    ring.poll(&polled, libc::POLLIN as u32).unwrap();
    ring.submit_and_wait(1).unwrap();
    // Somebody who looks for something else finds it.
    let mut memory = [1; 4];
    ring.scope(|scope| {
        let read = scope.read(&zero, &mut memory, 0).unwrap();
        scope.wait(read).unwrap()
    });

    common::filter::deny(&[libc::SYS_io_uring_enter], libc::EBADR);
    ring.nop().unwrap();
    assert_eq!(ring.submit().unwrap_err().kind(), ErrorKind::Poisoned);
    let mut found = ring.completions().filter_map(Completion::into_done);
    let done = found.find(|done| done.ticket() == read).expect("it had ended");
    assert_eq!(found.count(), 0, "nothing else had, or it is not believed");
    assert_eq!((done.result().unwrap(), done.into_owned().unwrap()), (8, b"precious".to_vec()));
    assert_eq!((ring.in_flight(), ring.completions().count()), (0, 0));
}
