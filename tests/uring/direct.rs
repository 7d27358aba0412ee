//! Files that are opened into the ring's own table.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

use sysuring::{Done, ErrorKind, FixedFile, Operations as _, Pool, Probe, RejectReason, Ring, Ticket, sys};

use crate::common;

/// A ring with places for some files, where the kernel can fill them; prints why there is none.
#[track_caller]
fn ring(files: u32) -> Option<Ring> {
    common::ring(1)?;
    let ring = Ring::builder(8).files(files).build().unwrap();
    if ring.features() & sys::IORING_FEAT_CQE_SKIP == 0 {
        common::skip("the kernel is too old for files in the ring's own table (before Linux 5.17)");
        let mut ring = ring;
        let rejected = ring.open_direct(None, c"/dev/null", libc::O_RDONLY, 0).unwrap_err();
        assert_eq!(rejected.reason(), RejectReason::Unsupported);
        return None;
    }
    Some(ring)
}

/// Submits, and waits for one operation.
fn finish(ring: &mut Ring) -> Done {
    loop {
        ring.submit_and_wait(1).unwrap();
        if let Some(done) = ring.completions().find_map(|completion| completion.into_done()) {
            return done;
        }
    }
}

fn open(ring: &mut Ring, path: &std::ffi::CStr) -> Result<Ticket, RejectReason> {
    ring.open_direct(None, path, libc::O_RDONLY | libc::O_CLOEXEC, 0).map_err(|rejected| {
        let reason = rejected.reason();
        assert_eq!(rejected.into_inner().as_c_str(), path, "what is rejected comes back");
        reason
    })
}

fn first_bytes(ring: &mut Ring, file: &FixedFile) -> Vec<u8> {
    let pool = Pool::new(1, 64).unwrap();
    ring.read(file, pool.lease().unwrap(), 4, 0).unwrap();
    let done = finish(ring);
    assert_eq!(done.result().unwrap(), 4);
    done.into_buf().unwrap()[..4].to_vec()
}

#[test]
fn files_are_opened_without_a_descriptor() {
    if !common::is_alone("uring::direct::files_are_opened_without_a_descriptor") {
        return;
    }
    let Some(mut ring) = ring(2) else { return };
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    open(&mut ring, c"/proc/self/exe").unwrap();
    let file = finish(&mut ring).into_fixed_file().unwrap();
    assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count(), before);
    assert_eq!(first_bytes(&mut ring, &file), b"\x7fELF");

    // One in the table, and one that is being opened.
    open(&mut ring, c"/dev/zero").unwrap();
    assert_eq!(open(&mut ring, c"/dev/null"), Err(RejectReason::FilesFull));
    let error = ring.register_file(&File::open("/dev/null").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let zero = finish(&mut ring).into_fixed_file().unwrap();
    assert_ne!(zero.index(), file.index());
    assert_eq!((first_bytes(&mut ring, &zero), first_bytes(&mut ring, &file)), (vec![0; 4], b"\x7fELF".to_vec()));
    assert_eq!(open(&mut ring, c"/dev/null"), Err(RejectReason::FilesFull));
    drop(file);
    open(&mut ring, c"/proc/self/exe").unwrap();
    let file = finish(&mut ring).into_fixed_file().unwrap();
    assert_eq!((first_bytes(&mut ring, &zero), first_bytes(&mut ring, &file)), (vec![0; 4], b"\x7fELF".to_vec()));
}

#[test]
fn a_place_is_free_again_where_there_is_no_file_or_nobody_takes_it() {
    let Some(mut ring) = ring(1) else { return };
    let mut other = Ring::with_entries(1).unwrap();
    for _ in 0..10 {
        open(&mut ring, c"/none").unwrap();
        let error = finish(&mut ring).into_fixed_file().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);

        open(&mut ring, c"/dev/null").unwrap();
        drop(finish(&mut ring));

        open(&mut ring, c"/dev/null").unwrap();
        let error = finish(&mut ring).into_fd().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "there is no descriptor");

        ring.nop().unwrap();
        let error = finish(&mut ring).into_fixed_file().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "a nop makes no file");

        // Never started: a chain that is given up, and a full queue.
        let given_up: Result<(), _> = ring.chain(|chain| {
            chain.open_direct(None, c"/dev/null", libc::O_RDONLY, 0).map_err(|rejected| rejected.reason())?;
            Err(RejectReason::TooLong)
        });
        assert_eq!(given_up, Err(RejectReason::TooLong));
        other.nop().unwrap();
        assert_eq!(open(&mut other, c"/dev/null"), Err(RejectReason::QueueFull));
        finish(&mut other);
        open(&mut other, c"/dev/null").unwrap();
        finish(&mut other).into_fixed_file().unwrap();
    }
    open(&mut ring, c"/dev/zero").unwrap();
    let file = finish(&mut ring).into_fixed_file().unwrap();
    assert_eq!(first_bytes(&mut ring, &file), [0; 4]);
}

#[test]
fn sockets_are_made_and_taken_without_a_descriptor() {
    let Some(mut ring) = ring(4) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listener = ring.register_file(&listener).unwrap();
    let mut clients = Vec::new();
    for is_taken in [true, false] {
        ring.accept_direct(&listener, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).unwrap();
        ring.submit().unwrap();
        clients.push(TcpStream::connect(address).unwrap());
        let done = finish(&mut ring);
        done.result().unwrap();
        if !is_taken {
            continue;
        }
        let socket = done.into_fixed_file().unwrap();
        let pool = Pool::new(1, 64).unwrap();
        let mut buf = pool.lease().unwrap();
        buf[..5].copy_from_slice(b"hello");
        ring.send(&socket, buf, 5, 0).unwrap();
        assert_eq!(finish(&mut ring).result().unwrap(), 5);
    }
    // Both sockets are closed: one was used and dropped, the other one never taken.
    ring.submit().unwrap();
    let mut texts = [String::new(), String::new()];
    for (client, text) in clients.iter_mut().zip(&mut texts) {
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        client.read_to_string(text).unwrap();
    }
    assert_eq!(texts, ["hello", ""]);

    // One that nobody looked at when the ring goes.
    ring.accept_direct(&listener, 0).unwrap();
    ring.submit().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    ring.submit_and_wait(1).unwrap();
    if Probe::get().is_ok_and(|probe| probe.operations.contains(&("IORING_OP_SOCKET", true))) {
        ring.socket_direct(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0).unwrap();
        ring.submit_and_wait(2).unwrap();
        let mut done = ring.completions().filter_map(|completion| completion.into_done());
        let (accepted, made) = (done.next().unwrap(), done.next().unwrap());
        drop(done);
        let socket = made.into_fixed_file().unwrap();
        ring.connect(&socket, &address.into()).unwrap();
        assert_eq!(finish(&mut ring).raw_result(), 0);
        drop(accepted);
    } else {
        common::skip("the kernel has no IORING_OP_SOCKET");
    }
    drop((ring, listener));
    client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn a_table_of_the_raw_interface_is_left_alone() {
    let Some(mut ring) = ring(4) else { return };
    let null = File::open("/dev/null").unwrap();
    ring.register_files(&[Some(std::os::fd::AsFd::as_fd(&null))]).unwrap();
    assert_eq!(open(&mut ring, c"/dev/null"), Err(RejectReason::NoFiles));
    assert_eq!(ring.accept_direct(&std::sync::Arc::new(null.into()), 0).unwrap_err().reason(), RejectReason::NoFiles);
    assert_eq!(ring.in_flight(), 0);
}
