//! A ring of the kernel's.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use liburing_sys as sys;

const ROUNDS: u64 = 100;

/// Runs `body` with a ring of 8 entries, or says why there is none.
fn with_ring(body: impl FnOnce(*mut sys::io_uring)) {
    let mut ring = MaybeUninit::<sys::io_uring>::zeroed();
    let ring = ring.as_mut_ptr();
    // SAFETY: the ring stays where it is until queue_exit, and only this thread uses it.
    unsafe {
        let result = sys::io_uring_queue_init(8, ring, 0);
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            eprintln!("skipped: io_uring_setup is refused here: {error}");
            return;
        }
        body(ring);
        sys::io_uring_queue_exit(ring);
    }
}

#[test]
fn nops_come_back_one_by_one() {
    with_ring(|ring| {
        let mut cqe = ptr::null_mut();
        for round in 0..ROUNDS {
            // SAFETY: the ring is this thread's, a nop names no memory, and entries are given back
            // once.
            unsafe {
                let sqe = sys::io_uring_get_sqe(ring);
                assert!(!sqe.is_null());
                sys::io_uring_prep_nop(sqe);
                sys::io_uring_sqe_set_data64(sqe, round);
                assert_eq!(sys::io_uring_sq_ready(ring), 1);
                assert_eq!(sys::io_uring_submit(ring), 1);
                let waited = match round % 3 {
                    0 => sys::io_uring_wait_cqe(ring, &mut cqe),
                    1 => sys::io_uring_wait_cqe_nr(ring, &mut cqe, 1),
                    _ => sys::io_uring_peek_cqe(ring, &mut cqe),
                };
                assert_eq!(waited, 0);
                assert_eq!(((*cqe).res, sys::io_uring_cqe_get_data64(cqe)), (0, round));
                sys::io_uring_cqe_seen(ring, cqe);
                assert_eq!(sys::io_uring_peek_cqe(ring, &mut cqe), -libc::EAGAIN);
            }
        }
    });
}

#[test]
fn nops_come_back_in_batches() {
    with_ring(|ring| {
        let mut expected = 0;
        for _ in 0..ROUNDS {
            // SAFETY: as above; the entries are read before they are given back.
            unsafe {
                while sys::io_uring_sq_space_left(ring) > 0 {
                    let sqe = sys::io_uring_get_sqe(ring);
                    sys::io_uring_prep_nop(sqe);
                    sys::io_uring_sqe_set_data64(sqe, expected + u64::from(sys::io_uring_sq_ready(ring)));
                }
                assert!(sys::io_uring_get_sqe(ring).is_null());
                assert_eq!(sys::io_uring_submit_and_wait(ring, 8), 8);
                assert_eq!(sys::io_uring_cq_ready(ring), 8);
                assert!(!sys::io_uring_cq_has_overflow(ring));
                for cqe in sys::io_uring_for_each_cqe(ring) {
                    expected += 1;
                    assert_eq!(sys::io_uring_cqe_get_data64(cqe), expected);
                }
                sys::io_uring_cq_advance(ring, 8);
                assert_eq!(sys::io_uring_cq_ready(ring), 0);
            }
        }
        assert_eq!(expected, 8 * ROUNDS);
    });
}

#[test]
fn fields_that_the_ports_read_are_filled() {
    with_ring(|ring| {
        // SAFETY: an initialised ring.
        let (sq, cq) = unsafe { (&raw const (*ring).sq, &raw const (*ring).cq) };
        // SAFETY: fields of that ring, which nobody writes meanwhile.
        unsafe {
            assert_eq!(((*sq).ring_entries, (*sq).ring_mask), (8, 7));
            assert_eq!(((*cq).ring_entries, (*cq).ring_mask), (16, 15));
        }
    });
}
