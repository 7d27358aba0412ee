//! The ring that threads share.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use sysuring::{ErrorKind, Operations as _, Pool, Ring, SharedRing};

use crate::common::{self, patterned_file};

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
