//! Operations on memory that the caller lends.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Write as _};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use sysuring::{Completion, Operations as _, Pool, RejectReason, Ring, UserData};

use crate::common;

#[test]
fn borrowed_memory_is_read_and_written() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    let path = directory.path().join("file");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    let fixed = ring.register_file(&file).unwrap();
    let written = ring.scope(|scope| {
        let first = scope.write(&file, b"hello ", 0).unwrap();
        let second = scope.write(&fixed, b"world", 6).unwrap();
        scope.wait(second).unwrap() + scope.wait(first).unwrap()
    });
    assert_eq!(written, 11);
    let (mut first, mut second) = ([0; 6], [0; 20]);
    ring.scope(|scope| {
        scope.read(&file, &mut first, 0).unwrap();
        scope.read(&file, &mut second, 6).unwrap();
        // Not waited for: the end of the scope does that.
    });
    assert_eq!((&first, &second[..5]), (b"hello ", &b"world"[..]));

    let mut pieces = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second[..3])];
    let slices = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
    ring.scope(|scope| {
        let write = scope.write_vectored(&file, &slices, 1).unwrap();
        assert_eq!(scope.wait(write).unwrap(), 4);
        let read = scope.read_vectored(&fixed, &mut pieces, 0).unwrap();
        assert_eq!(scope.wait(read).unwrap(), 9);
    });
    assert_eq!((&first, &second[..3]), (b"habcd ", &b"wor"[..]));
    assert_eq!(ring.in_flight(), 0);
    assert!(ring.completions().next().is_none(), "what nobody waited for is discarded");
}

#[test]
fn a_scope_does_not_return_before_the_kernel_is_through() {
    let Some(mut ring) = common::ring(8) else { return };
    let (here, there) = UnixStream::pair().unwrap();
    let mut memory = [0; 16];
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        (&there).write_all(b"late").unwrap();
        there
    });
    let start = Instant::now();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        ring.scope(|scope| {
            scope.recv(&here, &mut memory, 0).unwrap();
            scope.submit().unwrap();
            panic!("asked to");
        })
    }));
    assert!(unwound.is_err() && start.elapsed() >= Duration::from_millis(50));
    assert_eq!(&memory[..4], b"late");
    let there = writer.join().unwrap();

    // One that would never end is cancelled.
    ring.scope(|scope| {
        let recv = scope.recv(&here, &mut memory, 0).unwrap();
        let send = scope.send(&there, b"", 0).unwrap();
        scope.wait(send).unwrap();
        scope.cancel(&recv).unwrap();
        assert_eq!(scope.wait(recv).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    });
}

#[test]
fn what_else_is_on_the_ring_stays_and_is_not_lost() {
    let Some(mut ring) = common::ring(8) else { return };
    let zero = File::open("/dev/zero").unwrap();
    let pool = Pool::new(2, 64).unwrap();
    let (reader, mut writer) = common::pipe();
    let reader = ring.register_file(&reader).unwrap();
    let pending = ring.read(&reader, pool.lease().unwrap(), 64, 0).unwrap();
    let nop = ring.nop().unwrap();
    ring.get_sqe().unwrap().prep_nop().set_data64(UserData::from(99));
    let mut memory = [1; 64];
    let within = ring.scope(|scope| {
        let read = scope.read(&zero, &mut memory, 0).unwrap();
        // Of the other kind, and still in flight or not taken when the scope ends.
        let within = scope.nop().unwrap();
        scope.wait(read).unwrap();
        within
    });
    assert_eq!(memory, [0; 64]);
    let mut seen = Vec::new();
    let mut raw = Vec::new();
    writer.write_all(b"now").unwrap();
    while seen.len() < 3 {
        ring.submit_and_wait(1).unwrap();
        for completion in ring.completions() {
            match completion {
                Completion::Done(done) => seen.push(done.ticket()),
                Completion::Raw(cqe) => raw.push(cqe.user_data()),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!([pending, nop, within].iter().all(|ticket| seen.contains(ticket)) && raw == [99], "{seen:?} {raw:?}");
}

#[test]
fn a_scope_takes_more_than_the_queue_holds() {
    let Some(mut ring) = common::ring(2) else { return };
    let directory = common::directory();
    let contents = common::pattern(3, 64 * 512);
    fs::write(directory.path().join("file"), &contents).unwrap();
    let file = File::open(directory.path().join("file")).unwrap();
    let mut memory = vec![0; contents.len()];
    ring.scope(|scope| {
        let mut started = VecDeque::new();
        for (number, mut block) in memory.chunks_mut(512).enumerate() {
            loop {
                match scope.read(&file, block, number as u64 * 512) {
                    Ok(read) => break started.push_back(read),
                    Err(rejected) => {
                        block = match rejected.reason() {
                            RejectReason::QueueFull | RejectReason::TableFull => rejected.into_inner(),
                            reason => panic!("{reason}"),
                        };
                        assert_eq!(scope.wait(started.pop_front().unwrap()).unwrap(), 512);
                    }
                }
            }
        }
    });
    assert_eq!(memory, contents);
}

#[test]
fn a_scope_on_a_ring_with_deferred_completions() {
    if common::ring(1).is_none() {
        return;
    }
    let builder = Ring::builder(8).defer_taskrun(true).fall_back_flags(true);
    let mut ring = builder.build().unwrap();
    let zero = File::open("/dev/zero").unwrap();
    let mut memory = [1; 4096];
    ring.scope(|scope| {
        scope.read(&zero, &mut memory, 0).unwrap();
    });
    assert_eq!(memory, [0; 4096]);
}

#[test]
fn a_scope_ends_where_nothing_is_taken_out_of_the_queue() {
    if !common::is_alone("uring::scope::a_scope_ends_where_nothing_is_taken_out_of_the_queue") {
        return;
    }
    let Some(mut ring) = common::ring(8) else { return };
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Not on this thread, which would wait as well.
        let mut ring = Ring::with_entries(8).unwrap();
        let (file, mut memory) = (File::open("/dev/zero").unwrap(), [1; 4]);
        // Entering the kernel succeeds, and does nothing.
        common::filter::deny(&[libc::SYS_io_uring_enter], 0);
        ring.scope(|scope| scope.read(&file, &mut memory, 0).map(drop).unwrap());
        ended.send(memory).unwrap();
    });
    let memory = end.recv_timeout(Duration::from_secs(20));
    assert_eq!(memory, Ok([1; 4]), "the scope waits for what the kernel never saw");
    ring.nop().unwrap();
    assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
}
