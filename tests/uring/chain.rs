//! Operations that start one after another.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sysuring::{Done, Error, ErrorKind, OpRing, Operations as _, Pool, RejectReason, Ring, StableBuf, UserData};

use crate::common::{self, finish};

fn result_of(done: &[Done], ticket: sysuring::Ticket) -> i32 {
    done.iter().find(|done| done.ticket() == ticket).expect("it has ended").raw_result()
}

#[test]
fn operations_of_a_chain_come_one_after_another() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    let path = directory.path().join("file");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    let file = ring.register_file(&file).unwrap();
    let pool = Pool::new(2, 4096).unwrap();
    for round in 0..20 {
        let (mut buf, other) = (pool.lease().unwrap(), pool.lease().unwrap());
        buf.fill(round);
        let read = ring
            .chain(|chain| -> Result<_, Error> {
                chain.write(&file, buf, 4096, 0)?;
                chain.fsync(&file, true)?;
                Ok(chain.read(&file, other, 4096, 0)?)
            })
            .unwrap();
        let done = finish(&mut ring, 3);
        assert!(done.iter().all(|done| done.raw_result() >= 0), "{done:?}");
        let buf = done.into_iter().find(|done| done.ticket() == read).unwrap().into_buf().unwrap();
        assert!(buf.iter().all(|byte| *byte == round), "the read came after the write");
    }
}

#[test]
fn what_fails_ends_a_chain_but_not_a_hard_one() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    fs::write(directory.path().join("file"), "short").unwrap();
    let file = ring.register_file(&File::open(directory.path().join("file")).unwrap()).unwrap();
    let pool = Pool::new(1, 4096).unwrap();
    // Less than was asked for is a failure as well.
    let chain = |chain: &mut sysuring::Chain<'_>| -> Result<_, Error> {
        Ok((chain.read(&file, pool.lease().unwrap(), 4096, 0)?, chain.nop()?, chain.nop()?))
    };
    let (read, first, second) = ring.chain(chain).unwrap();
    let done = finish(&mut ring, 3);
    assert_eq!([read, first, second].map(|ticket| result_of(&done, ticket)), [5, -libc::ECANCELED, -libc::ECANCELED]);
    drop(done);
    let (read, first, second) = ring.hard_chain(chain).unwrap();
    let done = finish(&mut ring, 3);
    assert_eq!([read, first, second].map(|ticket| result_of(&done, ticket)), [5, 0, 0]);
}

#[test]
fn a_chain_that_is_given_up_never_happens() {
    let Some(mut ring) = common::ring(4) else { return };
    let directory = common::directory();
    let path = directory.path().join("file");
    let file = ring.register_file(&File::create(&path).unwrap()).unwrap();
    let pool = Pool::new(3, 64).unwrap();
    // A raw entry and one of the safe interface are in the queue already.
    ring.get_sqe().unwrap().prep_nop().set_data64(UserData::from(7));
    let before = ring.nop().unwrap();

    let given_up = ring.chain(|chain| -> Result<(), Error> {
        chain.write(&file, pool.lease().unwrap(), 64, 0)?;
        chain.write(&file, pool.lease().unwrap(), 64, 0)?;
        // There is no room for a third.
        Ok(chain.write(&file, pool.lease().unwrap(), 64, 0).map(drop)?)
    });
    assert_eq!(given_up.unwrap_err().kind(), ErrorKind::Full);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring.chain(|chain| -> Result<(), Error> {
            chain.write(&file, pool.lease().unwrap(), 64, 0)?;
            chain.close(File::open("/dev/null").unwrap().into()).unwrap();
            panic!("asked to")
        })
    }));
    assert!(unwound.is_err());
    let leases: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
    assert_eq!((leases.len(), ring.in_flight()), (3, 1), "all leases are back");
    drop(leases);

    // The file's entry is free again when its handle goes: nothing of the chain counts on it.
    drop(file);
    let done = finish(&mut ring, 1);
    assert_eq!(done[0].ticket(), before);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "nothing was written");
    let (mut first, mut second) = (0, 0);
    ring.chain(|chain| -> Result<(), Error> {
        first = usize::from(chain.nop().is_ok());
        second = usize::from(chain.nop().is_ok());
        Ok(())
    })
    .unwrap();
    assert_eq!(finish(&mut ring, 2).len(), first + second);
}

/// Unwinds when it is dropped, the first of its kind.
struct Unwinding(Box<[u8]>, Arc<AtomicU32>);

// SAFETY: the bytes are on the heap, and only this value has them.
unsafe impl StableBuf for Unwinding {
    fn memory(&mut self) -> (NonNull<u8>, usize) {
        self.0.memory()
    }
}

impl Drop for Unwinding {
    fn drop(&mut self) {
        assert!(self.1.fetch_add(1, Ordering::Relaxed) > 0, "asked to unwind");
    }
}

#[test]
fn buffers_of_a_chain_that_is_given_up_are_dropped_when_it_is_gone() {
    if common::ring(1).is_none() {
        return;
    }
    let mut ring: OpRing<Unwinding> = Ring::builder(8).build_owned().unwrap();
    let directory = common::directory();
    let path = directory.path().join("file");
    let file = Arc::new(OwnedFd::from(File::create(&path).unwrap()));
    let dropped = Arc::new(AtomicU32::new(0));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring.chain(|chain| -> Result<(), ()> {
            for _ in 0..3 {
                let buffer = Unwinding(vec![1; 64].into(), Arc::clone(&dropped));
                chain.write_owned(&file, buffer, 0).map(drop).unwrap_or_else(|_| panic!("rejected"));
            }
            Err(())
        })
    }));
    assert!(unwound.is_err());
    assert_eq!((dropped.load(Ordering::Relaxed), ring.in_flight()), (3, 0), "nothing of the chain is left");
    ring.nop().unwrap();
    assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_refused_entry_ends_its_chain_and_nothing_else() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    let path = directory.path().join("file");
    let file = Arc::new(OwnedFd::from(File::create(&path).unwrap()));
    let pool = Pool::new(4, 64).unwrap();
    for round in 0..5 {
        let (first, refused, written) = ring
            .chain(|chain| -> Result<_, Error> {
                let first = chain.nop()?;
                // The kernel refuses these flags, and leaves what is behind in the queue.
                let refused = chain.splice((&file, None), (&file, None), 1, 0x7fff_0000)?;
                chain.write(&file, pool.lease().unwrap(), 64, 0)?;
                Ok((first, refused, chain.write(&file, pool.lease().unwrap(), 64, 64)?))
            })
            .unwrap();
        let after = ring.nop().unwrap();
        let read = ring.chain(|chain| -> Result<_, Error> { Ok((chain.nop()?, chain.nop()?)) }).unwrap();
        let done = finish(&mut ring, 7);
        assert_eq!(result_of(&done, refused), -libc::EINVAL);
        assert_eq!(result_of(&done, written), -libc::ECANCELED, "round {round}");
        assert!(matches!(result_of(&done, first), 0 | -125));
        assert_eq!([after, read.0, read.1].map(|ticket| result_of(&done, ticket)), [0, 0, 0]);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0, "what came behind the refused one was written");
        drop(done);
        assert_eq!(std::iter::from_fn(|| pool.lease()).collect::<Vec<_>>().len(), 4);
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn a_chain_longer_than_the_queue_is_an_error_of_its_own() {
    let Some(mut ring) = common::ring(2) else { return };
    let too_long = ring.chain(|chain| {
        chain.nop()?;
        chain.nop()?;
        chain.nop().map(drop)
    });
    assert_eq!(too_long.unwrap_err().reason(), RejectReason::ChainTooLong);
    ring.nop().unwrap();
    let no_room = ring.chain(|chain| {
        chain.nop()?;
        chain.nop().map(drop)
    });
    assert_eq!(no_room.unwrap_err().reason(), RejectReason::QueueFull);
    ring.chain(|_| Ok::<_, ()>(())).unwrap();
    assert_eq!(ring.submit().unwrap(), 1, "the one that was there before");
}

#[test]
fn a_link_timeout_ends_what_takes_too_long() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, _writer) = common::pipe();
    let reader = Arc::new(OwnedFd::from(reader));
    let pool = Pool::new(1, 64).unwrap();
    let start = Instant::now();
    let (read, limit) = ring
        .chain(|chain| -> Result<_, Error> {
            let read = chain.read(&reader, pool.lease().unwrap(), 64, 0)?;
            Ok((read, chain.link_timeout(Duration::from_millis(20))?))
        })
        .unwrap();
    let done = finish(&mut ring, 2);
    assert_eq!(result_of(&done, read), -libc::ECANCELED);
    assert_eq!(result_of(&done, limit), -libc::ETIME);
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_drained_operation_waits_for_those_before() {
    let Some(mut ring) = common::ring(8) else { return };
    let first = ring.timeout(Duration::from_millis(20)).unwrap();
    let last = ring.drained().nop().unwrap();
    let forced = ring.forced_async().nop().unwrap();
    let done = finish(&mut ring, 3);
    let order: Vec<_> = done.iter().map(Done::ticket).collect();
    if order == [first, forced, last] {
        // Linux 6.1 begins those that waited in no order of their own.
        common::skip("the kernel does not keep back what comes after a drained operation until that has ended");
    } else {
        assert_eq!(order, [first, last, forced], "what comes after a drained one waits as well");
    }
    ring.nop().unwrap();
    assert_eq!(finish(&mut ring, 1)[0].raw_result(), 0);
}

#[test]
fn a_chain_is_told_whether_it_has_room_before_anything_is_given_to_it() {
    let Some(_) = common::ring(1) else { return };
    let file = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
    let mut ring: OpRing<Vec<u8>> = Ring::builder(4).cq_entries(8).build_owned().unwrap();
    // What a chain of that length meets, which is given up where it has room.
    let meets = |ring: &mut OpRing<Vec<u8>>, length: u32| {
        let mut met = None;
        let _ = ring.chain(|chain| -> Result<(), ()> {
            met = (0..length).find_map(|_| chain.nop().err()).map(|rejected| rejected.reason());
            Err(())
        });
        met
    };
    let mut seen = Vec::new();
    for started in 0..8 {
        for length in 1..=5 {
            let said = ring.check_chain(length).err().map(|rejected| rejected.reason());
            let met = meets(&mut ring, length);
            // Which of two reasons comes first may differ.
            assert_eq!(said.is_none(), met.is_none(), "{length} behind {started}: {said:?}, {met:?}");
            seen.extend(said);
        }
        // Every other operation is a raw one.
        if started % 2 == 0 {
            ring.get_sqe().unwrap().prep_nop();
        } else {
            ring.nop().unwrap();
        }
        if started % 4 == 3 {
            // Still not taken.
            ring.submit_and_wait(started + 1).unwrap();
        }
    }
    for reason in [RejectReason::QueueFull, RejectReason::TableFull, RejectReason::ChainTooLong] {
        assert!(seen.contains(&reason), "{reason:?}");
    }
    assert!(ring.check_chain(1).is_err());
    assert_eq!(ring.completions().count(), 8);

    ring.nop().unwrap();
    ring.nop().unwrap();
    ring.nop().unwrap();
    let (data, to_close) = (b"the only copy".to_vec(), OwnedFd::from(File::open("/dev/null").unwrap()));
    assert_eq!(ring.check_chain(2).unwrap_err().reason(), RejectReason::QueueFull);
    ring.submit().unwrap();
    ring.check_chain(2).unwrap();
    ring.chain(|chain| -> Result<_, Error> {
        chain.write_owned(&file, data, 0)?;
        Ok(chain.close(to_close)?)
    })
    .unwrap();
    assert!(finish(&mut ring, 5).iter().all(|done| [0, 13].contains(&done.raw_result())));
}
