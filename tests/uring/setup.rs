//! How rings are set up.

use std::fs::File;
use std::time::Duration;

use sysuring::{
    Completion, ErrorKind, Operations as _, Pool, Reason, RejectReason, Ring, SetupFlags, SqeFlags, ThreadRings,
    UserData,
};

use crate::common;

#[test]
fn a_kernel_thread_takes_submissions_and_is_woken() {
    if common::ring(1).is_none() {
        return;
    }
    let builder = Ring::builder(8).sqpoll(Duration::from_millis(1));
    let mut ring = match builder.build() {
        Ok(ring) => ring,
        Err(error) => return common::skip(error),
    };
    let mut other = builder.build_attached(&ring).unwrap();
    assert!(other.flags().contains(SetupFlags::SQPOLL | SetupFlags::ATTACH_WQ));
    let pool = Pool::new(8, 512).unwrap();
    for round in 0..20 {
        for ring in [&mut ring, &mut other] {
            let file = ring.register_file(&File::open("/dev/zero").unwrap()).unwrap();
            for _ in 0..4 {
                ring.read(&file, pool.lease().unwrap(), 512, 0).unwrap();
            }
            let mut ended = 0;
            while ended < 4 {
                ring.submit_and_wait(1).unwrap();
                ended += ring.completions().count();
            }
        }
        if round % 5 == 0 {
            // Longer than the thread stays awake.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // The thread takes eight entries of each ring at a time, and would cut a chain there.
    for ring in [&mut ring, &mut other] {
        let refused = ring.chain(|chain| chain.nop()).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::SharedPoller);
        ring.nop().unwrap();
    }
    // Both leave what is in flight to the kernel thread.
    let (reader, _writer) = common::pipe();
    let reader = ring.register_file(&reader).unwrap();
    ring.read(&reader, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit().unwrap();
    drop((ring, other));
    assert!(pool.slots() == 8 && pool.lease().is_some());
}

#[test]
fn a_ring_of_a_single_issuer_is_bound_to_the_thread_that_enables_it() {
    if common::ring(1).is_none() {
        return;
    }
    let disabled = match Ring::builder(4).single_issuer(true).build_disabled() {
        Ok(disabled) => disabled,
        Err(error) => return common::skip(error),
    };
    std::thread::spawn(move || {
        let mut ring = disabled.enable().unwrap();
        assert!(ring.flags().contains(SetupFlags::SINGLE_ISSUER));
        ring.nop().unwrap();
        assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
    })
    .join()
    .unwrap();
}

#[test]
fn what_is_refused_names_the_size_of_entries() {
    let Some(_) = common::ring(1) else { return };
    let refused = Ring::builder(0).big_entries().build().unwrap_err().to_string();
    assert!(refused.contains("SQE128 | CQE32"), "{refused}");
}

#[test]
fn flags_that_do_not_go_together_are_refused_with_a_hint() {
    if common::ring(1).is_none() {
        return;
    }
    let builder = || Ring::builder(4);
    for (builder, hint) in [
        (builder().sqpoll(Duration::from_secs(1)).defer_taskrun(true), "sqpoll excludes defer_taskrun"),
        (builder().defer_taskrun(true).single_issuer(false), "needs single_issuer"),
        (builder().cq_entries(65537), "up to 65536 cq_entries"),
        (builder().cq_entries(2), "at least the entries"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(hint), "{error}");
    }
    assert_eq!(Ring::builder(4).defer_taskrun(true).build_shared().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn queues_change_their_size_between_operations() {
    if common::ring(1).is_none() {
        return;
    }
    let builder = Ring::builder(4).defer_taskrun(true);
    let mut ring = match builder.build() {
        Ok(ring) => ring,
        Err(error) => return common::skip(error),
    };
    let old = ring.nop().unwrap();
    assert_eq!(ring.resize(64, 128).unwrap_err().kind(), ErrorKind::Busy);
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.resize(64, 128).unwrap_err().kind(), ErrorKind::Busy, "a completion waits");
    assert_eq!(ring.completions().count(), 1);
    match ring.resize(64, 128) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(libc::EINVAL) => {
            return common::skip(error);
        }
        Err(error) => panic!("{error}"),
    }
    assert_eq!((ring.sq_entries(), ring.cq_entries()), (64, 128));
    for _ in 0..3 {
        let tickets: Vec<_> = (0..64).map(|_| ring.nop().unwrap()).collect();
        assert!(!tickets.contains(&old));
        assert_eq!(ring.submit_and_wait(64).unwrap(), 64);
        assert_eq!(ring.completions().count(), 64);
    }
    ring.resize(8, 8).unwrap();
    for _ in 0..8 {
        ring.nop().unwrap();
    }
    assert!(ring.nop().is_err());
}

#[test]
fn queues_lie_on_a_huge_page_where_there_is_one() {
    if common::ring(1).is_none() {
        return;
    }
    let mut ring = match Ring::builder(64).huge_pages(true).build() {
        Ok(ring) => ring,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unsupported), "{error}");
            return common::skip(error);
        }
    };
    for _ in 0..10 {
        for _ in 0..64 {
            ring.nop().unwrap();
        }
        assert_eq!(ring.submit_and_wait(64).unwrap(), 64);
        assert_eq!(ring.completions().count(), 64);
    }
}

#[test]
fn pools_are_cloned_to_another_ring() {
    let Some(mut first) = common::ring(8) else { return };
    let directory = common::directory();
    let path = directory.path().join("file");
    std::fs::write(&path, "0123456789").unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let pools = [Pool::new(2, 4096).unwrap(), Pool::new(2, 64).unwrap()];
    let mut second = Ring::with_entries(8).unwrap();
    assert_eq!(second.clone_pools(&first).unwrap_err().kind(), ErrorKind::InvalidInput, "there are none yet");
    let registered = pools.iter().try_for_each(|pool| first.register_pool(pool));
    if let Err(error) = registered.and_then(|()| second.clone_pools(&first)) {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        return common::skip(error);
    }
    assert_eq!(second.clone_pools(&first).unwrap_err().kind(), ErrorKind::Busy);

    let read = |ring: &mut Ring, pool: &Pool, offset| {
        let file = ring.register_file(&file).unwrap();
        ring.read_fixed(&file, pool.lease().unwrap(), 4, offset).map_err(|rejected| rejected.reason())?;
        ring.submit_and_wait(1).unwrap();
        let done = ring.completions().find_map(|completion| completion.into_done()).unwrap();
        assert_eq!(done.result().unwrap(), 4);
        Ok(done.into_buf().unwrap()[..4].to_vec())
    };
    // A table of its own: what happens to one changes nothing in the other.
    let third = Pool::new(2, 64).unwrap();
    second.register_pool(&third).unwrap();
    assert_eq!(read(&mut first, &third, 0), Err(RejectReason::ForeignPool));
    first.unregister_pool(&pools[0]).unwrap();
    assert_eq!(read(&mut first, &pools[0], 0), Err(RejectReason::ForeignPool));
    assert_eq!(read(&mut second, &pools[0], 1), Ok(b"1234".to_vec()));
    drop(first);
    for (pool, offset) in [(&pools[0], 2), (&pools[1], 3), (&third, 4)] {
        let expected: Vec<u8> = (b'0' + offset..).take(4).collect();
        assert_eq!(read(&mut second, pool, offset.into()), Ok(expected));
    }
    second.unregister_pool(&pools[1]).unwrap();
    assert_eq!(read(&mut second, &pools[1], 0), Err(RejectReason::ForeignPool));
    assert_eq!(read(&mut second, &pools[0], 0), Ok(b"0123".to_vec()));

    // Its memory is retired, as if it had been registered here, when the kernel may still use it.
    let (reader, mut writer) = common::pipe();
    let reader = second.register_file(&reader).unwrap();
    second.read_fixed(&reader, pools[0].lease().unwrap(), 4096, 0).unwrap();
    second.submit().unwrap();
    assert_eq!(second.unregister_pool(&pools[0]).unwrap_err().kind(), ErrorKind::Busy);
    let before = Pool::retired_bytes();
    drop((second, pools));
    assert!(Pool::retired_bytes() >= before + 2 * 4096);
    let _ = std::io::Write::write_all(&mut writer, &[0xaa; 64]);
}

#[test]
fn a_queue_without_an_array_of_indices_works_as_any_other() {
    if common::ring(1).is_none() {
        return;
    }
    let mut ring = match Ring::builder(4).no_sqarray(true).build() {
        Ok(ring) => ring,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput), "{error}");
            return common::skip(error);
        }
    };
    assert!(ring.flags().contains(SetupFlags::NO_SQARRAY));
    for _ in 0..10 {
        for _ in 0..4 {
            ring.nop().unwrap();
        }
        assert_eq!(ring.submit_and_wait(4).unwrap(), 4);
        assert_eq!(ring.completions().count(), 4);
    }
    // Entries that are withdrawn, and a chain that is cut, move the tail as well.
    let (reader, _writer) = common::pipe();
    let pool = Pool::new(4, 64).unwrap();
    let reader = ring.register_file(&reader).unwrap();
    ring.read(&reader, pool.lease().unwrap(), 64, 0).unwrap();
    ring.chain(|chain| -> Result<(), RejectReason> {
        chain.nop().map_err(|rejected| rejected.reason())?;
        Err(RejectReason::TooLong)
    })
    .unwrap_err();
    drop(ring);
    assert_eq!(std::iter::from_fn(|| pool.lease()).collect::<Vec<_>>().len(), 4, "not submitted");
}

#[test]
fn queues_keep_their_size_while_entries_wait_to_be_submitted() {
    if common::ring(1).is_none() {
        return;
    }
    let mut ring = match Ring::builder(4).defer_taskrun(true).build() {
        Ok(ring) => ring,
        Err(error) => return common::skip(error),
    };
    let kind = |resized: sysuring::Result<()>| resized.map_err(|error| error.kind());
    // One that no count has, since it posts no completion.
    let entry = ring.get_sqe().unwrap().prep_nop();
    entry.set_data64(UserData::from(1)).set_flags(SqeFlags::CQE_SKIP_SUCCESS);
    assert_eq!(kind(ring.resize(16, 32)), Err(ErrorKind::Busy));
    assert_eq!(ring.submit().unwrap(), 1);
    assert_eq!(ring.completions().count(), 0);

    // One that was in a count, until a message of another ring came.
    ring.get_sqe().unwrap().prep_nop().set_data64(UserData::from(5));
    if let Ok(mailbox) = ring.mailbox() {
        let mut other = common::ring(2).unwrap();
        match other.message(&mailbox, UserData::from(6), 0) {
            Ok(_) => {
                other.submit_and_wait(1).unwrap();
                assert_eq!(ring.completions().count(), 1, "the message");
            }
            Err(error) => common::skip(error),
        }
    }
    assert_eq!(kind(ring.resize(16, 32)), Err(ErrorKind::Busy));
    ring.submit_and_wait(1).unwrap();
    let Some(Completion::Raw(cqe)) = ring.completions().next() else { panic!("the entry is executed") };
    assert_eq!(cqe.user_data(), 5);
    match kind(ring.resize(16, 32)) {
        Err(ErrorKind::Unsupported | ErrorKind::InvalidInput) => {
            common::skip("a kernel or a liburing that resizes no ring");
        }
        resized => assert_eq!(resized, Ok(())),
    }
}

/// Bytes of address space that the process has.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() << 12
}

/// The soft limit of the address space.
fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is read during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

#[test]
fn too_little_memory_is_asked_about_again() {
    if std::env::var_os("LSAN_OPTIONS").is_some() {
        return common::skip("a sanitizer does not live with so little address space");
    }
    // In a process that asks for the first time, before the library is loaded.
    if !common::is_alone("uring::setup::too_little_memory_is_asked_about_again") {
        return;
    }
    let mut refusals = 0;
    for room in (0..64).map(|pages| pages << 12) {
        limit_address_space(address_space() + room);
        let answer = sysuring::available();
        limit_address_space(libc::RLIM_INFINITY);
        let Err(reason) = answer else { break };
        refusals += 1;
        if reason.reason() != Reason::Memlock {
            // Where there is none without the limit, either, the reason is another one.
            return assert!(Ring::with_entries(2).is_err(), "{room} bytes of room: {reason}");
        }
        assert!(!reason.to_string().contains("LD_LIBRARY_PATH"), "{reason}");
        assert!(!reason.to_string().contains("RLIMIT_MEMLOCK is"), "{reason}");
    }
    assert!(refusals > 0, "there is always room for a ring");
    sysuring::available().unwrap();
}

#[test]
fn what_one_asks_for_wrongly_is_not_answered_to_the_next() {
    let Some(_) = common::ring(1) else { return };
    // A thread that has no ring yet.
    let ring = std::thread::spawn(|| {
        assert_eq!(ThreadRings::with(0, |_| ()).unwrap_err().kind(), ErrorKind::InvalidInput);
        ThreadRings::with(8, |ring| ring.sq_entries())
    });
    match ring.join().unwrap() {
        Ok(entries) => assert_eq!(entries, 8),
        // Other tests have theirs.
        Err(error) => assert_eq!(error.kind(), ErrorKind::Full, "{error}"),
    }
}

#[test]
fn a_ring_that_lost_its_queues_to_a_resize_says_so() {
    if !common::is_alone("uring::setup::a_ring_that_lost_its_queues_to_a_resize_says_so") || common::ring(1).is_none() {
        return;
    }
    let resizable = || Ring::builder(8).defer_taskrun(true).build();
    let mut ring = match resizable() {
        Ok(ring) => ring,
        Err(error) => return common::skip(error),
    };
    // What the kernel refuses leaves the ring as it was.
    let refused = ring.resize(1 << 20, 1 << 21).unwrap_err();
    assert_ne!(refused.kind(), ErrorKind::Poisoned);
    ring.nop().unwrap();
    assert_eq!(ring.submit_and_wait(1).unwrap(), 1, "after {refused}");
    assert_eq!(ring.completions().count(), 1);
    if let Err(error) = resizable().unwrap().resize(16, 32) {
        return common::skip(error);
    }

    // Too little room among the addresses for the new queues, which the kernel has made by then.
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    let before = common::filter::soft_limit(libc::RLIMIT_AS, pages * 4096 + 2_000_000);
    let error = ring.resize(32768, 65536).unwrap_err();
    common::filter::soft_limit(libc::RLIMIT_AS, before);
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    assert!(error.to_string().contains("make another ring"), "{error}");
    assert_eq!(ring.nop().unwrap_err().reason(), RejectReason::Poisoned);
    assert_eq!(ring.submit_and_wait(1).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(ring.completions().count(), 0);
    assert_eq!(ring.resize(16, 32).unwrap_err().kind(), ErrorKind::Poisoned);
    let (file, mut memory) = (File::open("/dev/zero").unwrap(), [1; 4]);
    let reason = ring.scope(|scope| scope.read(&file, &mut memory, 0).unwrap_err().reason());
    assert_eq!(reason, RejectReason::Poisoned);
    drop(ring);
    let mut ring = resizable().unwrap();
    ring.nop().unwrap();
    assert_eq!(ring.submit_and_wait(1).unwrap(), 1);
}

#[test]
fn a_polling_thread_that_is_not_there_cannot_be_shared() {
    let Some(other) = common::ring(8) else { return };
    let error = Ring::builder(8).sqpoll(Duration::from_millis(10)).build_attached(&other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("make it with sqpoll, too"), "{error}");
}
