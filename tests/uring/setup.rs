//! How rings are set up.

use std::fs::File;
use std::time::Duration;

use sysuring::{ErrorKind, Operations as _, Pool, Ring, SetupFlags};

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
fn flags_that_do_not_go_together_are_refused_with_a_hint() {
    if common::ring(1).is_none() {
        return;
    }
    let error = Ring::builder(4).sqpoll(Duration::from_secs(1)).defer_taskrun(true).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("sqpoll excludes defer_taskrun"), "{error}");
    assert_eq!(Ring::builder(4).defer_taskrun(true).build_shared().unwrap_err().kind(), ErrorKind::InvalidInput);
}
