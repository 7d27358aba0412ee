//! Every operation of the safe interface, on real files and sockets.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use std::ffi::CString;

use sysuring::{
    Done, ErrorKind, NoBuffers, OpRing, OpenHow, Operations as _, Pool, Probe, RejectReason, Ring, SocketAddress,
};

use crate::common::{self, finish_one};

/// Submits, and waits for one operation.
/// Whether the kernel has an operation; prints why a part of the test is left out.
#[track_caller]
fn has(operation: &'static str) -> bool {
    let is_known = Probe::get().is_ok_and(|probe| probe.operations.contains(&(operation, true)));
    if !is_known {
        common::skip(format_args!("the kernel has no {operation}"));
    }
    is_known
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn files_are_opened_asked_about_renamed_and_removed() {
    let Some(mut ring) = common::ring(8) else { return };
    if !has("IORING_OP_MKDIRAT") || !has("IORING_OP_LINKAT") || !has("IORING_OP_SYMLINKAT") {
        return;
    }
    let directory = common::directory();
    let at = Arc::new(OwnedFd::from(File::open(directory.path()).unwrap()));

    ring.mkdir(Some(&at), c"below", 0o755).unwrap();
    finish_one(&mut ring).result().unwrap();
    ring.open(Some(&at), c"below/a", libc::O_CREAT | libc::O_WRONLY, 0o600).unwrap();
    let mut file = File::from(finish_one(&mut ring).into_fd().unwrap());
    // SAFETY: asks about a descriptor.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) } & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    file.write_all(b"twelve bytes").unwrap();

    ring.statx(Some(&at), c"below/a", 0, libc::STATX_SIZE).unwrap();
    assert_eq!(finish_one(&mut ring).into_status().unwrap().stx_size, 12);
    ring.statx(Some(&at), c"below/none", 0, libc::STATX_SIZE).unwrap();
    assert_eq!(finish_one(&mut ring).into_status().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let of = Arc::new(OwnedFd::from(File::open(directory.path().join("below/a")).unwrap()));
    ring.statx(Some(&of), c"", libc::AT_EMPTY_PATH, libc::STATX_SIZE).unwrap();
    assert_eq!(finish_one(&mut ring).into_status().unwrap().stx_size, 12);
    ring.mkdir(Some(&at), c"below/more", 0o755).unwrap();
    assert_eq!(finish_one(&mut ring).into_status().unwrap_err().kind(), ErrorKind::InvalidInput, "no such operation");
    ring.unlink(Some(&at), c"below/more", libc::AT_REMOVEDIR).unwrap();
    finish_one(&mut ring).result().unwrap();

    ring.rename((Some(&at), c"below/a".into()), (Some(&at), c"b".into()), 0).unwrap();
    finish_one(&mut ring).result().unwrap();
    ring.link((Some(&at), c"b".into()), (None, c_path(&directory.path().join("c"))), 0).unwrap();
    finish_one(&mut ring).result().unwrap();
    ring.symlink(c"c", Some(&at), c"d").unwrap();
    finish_one(&mut ring).result().unwrap();
    assert_eq!(fs::read(directory.path().join("d")).unwrap(), b"twelve bytes");

    let how = OpenHow { flags: libc::O_RDONLY as u64, resolve: libc::RESOLVE_NO_SYMLINKS, ..OpenHow::default() };
    ring.open_how(Some(&at), c"d", how).unwrap();
    assert_eq!(finish_one(&mut ring).raw_result(), -libc::ELOOP);
    ring.open_how(Some(&at), c"c", how).unwrap();
    let mut text = String::new();
    File::from(finish_one(&mut ring).into_fd().unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "twelve bytes");

    for name in [c"b", c"c", c"d"] {
        ring.unlink(Some(&at), name, 0).unwrap();
        finish_one(&mut ring).result().unwrap();
    }
    ring.unlink(Some(&at), c"below", libc::AT_REMOVEDIR).unwrap();
    finish_one(&mut ring).result().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    ring.unlink(Some(&at), c"none", 0).unwrap();
    let error = finish_one(&mut ring).into_fd().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn a_directory_may_be_dropped_as_soon_as_the_operation_has_it() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    fs::write(directory.path().join("a"), "there").unwrap();
    let at = Arc::new(OwnedFd::from(File::open(directory.path()).unwrap()));
    ring.open(Some(&at), c"a", libc::O_RDONLY, 0).unwrap();
    ring.rename((Some(&at), c"a".into()), (Some(&at), c"b".into()), 0).unwrap();
    let held = Arc::downgrade(&at);
    drop(at);
    assert!(held.upgrade().is_some(), "the operations keep it open");
    ring.submit_and_wait(2).unwrap();
    let done: Vec<Done> = ring.completions().filter_map(|completion| completion.into_done()).collect();
    assert!(done.iter().all(|done| done.raw_result() >= 0), "{done:?}");
    assert!(held.upgrade().is_none(), "and let go of it");
}

#[test]
fn lengths_change() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    let file = Arc::new(OwnedFd::from(File::create(directory.path().join("file")).unwrap()));
    let length = || fs::metadata(directory.path().join("file")).unwrap().len();
    ring.fallocate(&file, 0, 0, 8192).unwrap();
    finish_one(&mut ring).result().unwrap();
    assert_eq!(length(), 8192);
    ring.sync_file_range(&file, 4096, 0, libc::SYNC_FILE_RANGE_WRITE).unwrap();
    finish_one(&mut ring).result().unwrap();
    ring.fsync(&file, false).unwrap();
    finish_one(&mut ring).result().unwrap();
    if has("IORING_OP_FTRUNCATE") {
        ring.ftruncate(&file, 100).unwrap();
        finish_one(&mut ring).result().unwrap();
        assert_eq!(length(), 100);
    }
}

#[test]
fn a_result_that_is_a_descriptor_is_closed_when_nobody_takes_it() {
    if !common::is_alone("uring::operations::a_result_that_is_a_descriptor_is_closed_when_nobody_takes_it") {
        return;
    }
    let Some(mut ring) = common::ring(8) else { return };
    let before = open_descriptors();
    ring.open(None, c"/dev/null", libc::O_RDONLY, 0).unwrap();
    drop(finish_one(&mut ring));
    assert_eq!(open_descriptors(), before, "a completion that was looked at and dropped");

    ring.open(None, c"/dev/null", libc::O_RDONLY, 0).unwrap();
    ring.submit_and_wait(1).unwrap();
    drop(ring);
    assert_eq!(open_descriptors(), before - 1, "a completion that nobody looked at, and the ring's own descriptor");
}

#[test]
fn a_descriptor_is_closed_once() {
    if !common::is_alone("uring::operations::a_descriptor_is_closed_once") {
        return;
    }
    let Some(mut ring) = common::ring(8) else { return };
    let before = open_descriptors();
    ring.close(File::open("/dev/null").unwrap().into()).unwrap();
    assert_eq!(finish_one(&mut ring).raw_result(), 0);
    assert_eq!(open_descriptors(), before);

    // Withdrawn before the kernel saw it, and refused by a full queue.
    let mut one = Ring::builder(1).build().unwrap();
    one.close(File::open("/dev/null").unwrap().into()).unwrap();
    let rejected = one.close(File::open("/dev/null").unwrap().into()).unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::QueueFull);
    drop(rejected);
    drop(one);
    assert_eq!(open_descriptors(), before);
}

#[test]
fn a_close_that_fails_closes_no_number_again() {
    if !common::is_alone("uring::operations::a_close_that_fails_closes_no_number_again") {
        return;
    }
    let Some(ring) = common::ring(1) else { return };
    drop(ring);
    let mut disabled = Ring::builder(8).build_disabled().unwrap();
    // SAFETY: all zeroes is a value of this C structure.
    let mut only = unsafe { std::mem::zeroed::<sysuring::sys::io_uring_restriction>() };
    only.opcode = sysuring::sys::IORING_RESTRICTION_SQE_OP as u16;
    only.__bindgen_anon_1.sqe_op = sysuring::sys::IORING_OP_NOP as u8;
    disabled.register_restrictions(&[only]).unwrap();
    let mut ring = disabled.enable().unwrap();
    let before = open_descriptors();
    // Refused here; for all that the number tells, the file system closed the file and then complained.
    ring.close(File::open("/dev/null").unwrap().into()).unwrap();
    assert_eq!(finish_one(&mut ring).raw_result(), -libc::EACCES);
    assert_eq!(open_descriptors(), before + 1);
}

#[test]
fn waiting_goes_on_behind_an_entry_that_is_refused() {
    let Some(mut ring) = common::ring(8) else { return };
    let file = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
    for _ in 0..5 {
        ring.nop().unwrap();
        // The kernel refuses these flags, and stops there.
        ring.splice((&file, None), (&file, None), 1, 0x7fff_0000).unwrap();
        ring.nop().unwrap();
        ring.timeout(Duration::from_millis(5)).unwrap();
        assert_eq!(ring.submit_and_wait(4).unwrap(), 4);
        assert_eq!(ring.completions().count(), 4);
    }
}

#[test]
fn vectored_transfers_of_leases() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    let path = directory.path().join("file");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    let file = ring.register_file(&file).unwrap();
    let pool = Pool::new(3, 64).unwrap();
    for _ in 0..3 {
        let mut bufs: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
        assert_eq!(bufs.len(), 3);
        for (value, buf) in bufs.iter_mut().enumerate() {
            buf.fill(value as u8 + 1);
        }
        let rejected = ring.write_vectored(&file, bufs, 3 * 64 + 1, 0).unwrap_err();
        assert_eq!(rejected.reason(), RejectReason::TooLong);
        ring.write_vectored(&file, rejected.into_inner(), 100, 10).unwrap();
        let done = finish_one(&mut ring);
        assert_eq!(done.result().unwrap(), 100);
        let bufs = done.into_bufs();
        assert_eq!(bufs.iter().map(|buf| buf[0]).collect::<Vec<_>>(), [1, 2, 3], "in their order");
        ring.read_vectored(&file, bufs, 192, 0).unwrap();
        let done = finish_one(&mut ring);
        assert_eq!(done.result().unwrap(), 110);
        let bufs = done.into_bufs();
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        assert_eq!(bytes[..110], [vec![0; 10], vec![1; 64], vec![2; 36]].concat());
    }
    assert!(pool.lease().is_some(), "dropping the completion gave them back");
}

#[test]
fn buffers_of_the_callers_own_are_moved_in_and_out() {
    if common::ring(1).is_none() {
        return;
    }
    let directory = common::directory();
    let path = directory.path().join("file");
    fs::write(&path, "some words").unwrap();
    let mut ring: OpRing<Vec<u8>> = Ring::builder(8).build_owned().unwrap();
    let file = Arc::new(OwnedFd::from(File::options().read(true).write(true).open(&path).unwrap()));

    ring.read_owned(&file, vec![0; 4], 5).unwrap();
    let done = finish_one(&mut ring);
    assert_eq!(done.result().unwrap(), 4);
    assert_eq!(done.into_owned().unwrap(), b"word");

    ring.write_vectored_owned(&file, vec![b"more".to_vec(), b" than ".to_vec(), b"that".to_vec()], 0).unwrap();
    let done = finish_one(&mut ring);
    assert_eq!(done.result().unwrap(), 14);
    assert_eq!(done.into_several()[1], b" than ");
    ring.read_vectored_owned(&file, vec![vec![0; 5], vec![0; 5]], 0).unwrap();
    assert_eq!(finish_one(&mut ring).into_several(), [b"more ", b"than "]);

    // A lease of a pool still can be used, and a ring that is full gives the buffer back.
    let pool = Pool::new(1, 64).unwrap();
    ring.read(&file, pool.lease().unwrap(), 4, 0).unwrap();
    assert_eq!(finish_one(&mut ring).into_buf().unwrap()[..4], *b"more");
    for _ in 0..8 {
        ring.write_owned(&file, b"x".to_vec(), 0).unwrap();
    }
    let rejected = ring.write_owned(&file, b"mine".to_vec(), 0).unwrap_err();
    assert_eq!(rejected.reason(), RejectReason::QueueFull);
    assert_eq!(rejected.into_inner(), b"mine");
}

/// Counts how many of its kind exist, and unwinds where it is told to.
struct Counted {
    bytes: Box<[u8]>,
    alive: Arc<()>,
    unwinds: bool,
}

// SAFETY: the bytes are on the heap, and only this value has them.
unsafe impl sysuring::StableBuf for Counted {
    fn memory(&mut self) -> (std::ptr::NonNull<u8>, usize) {
        assert!(!self.unwinds, "asked to unwind");
        self.bytes.memory()
    }
}

#[test]
fn a_buffer_that_unwinds_when_asked_for_its_memory_starts_nothing() {
    if common::ring(1).is_none() {
        return;
    }
    let mut ring: OpRing<Counted> = Ring::builder(4).build_owned().unwrap();
    let file = Arc::new(OwnedFd::from(File::open("/dev/zero").unwrap()));
    let alive = Arc::new(());
    let counted = |unwinds| Counted { bytes: vec![1; 64].into(), alive: Arc::clone(&alive), unwinds };
    for _ in 0..100 {
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ring.read_owned(&file, counted(true), 0).map(drop).unwrap_or_else(|_| panic!("rejected"));
        }));
        assert!(unwound.is_err());
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ring.read_vectored_owned(&file, vec![counted(false), counted(true)], 0).map(drop).ok();
        }));
        assert!(unwound.is_err());
    }
    assert_eq!((ring.in_flight(), Arc::strong_count(&alive)), (0, 1), "nothing is left of them");
    assert_eq!(ring.submit().unwrap(), 0);
    ring.read_owned(&file, counted(false), 0).unwrap_or_else(|_| panic!("rejected"));
    let done = finish_one(&mut ring);
    assert_eq!(done.raw_result(), 64);
    let counted = done.into_owned().unwrap();
    assert!(counted.bytes.iter().all(|byte| *byte == 0) && Arc::strong_count(&counted.alive) == 2);
}

#[test]
fn time_passes_and_events_are_seen() {
    let Some(mut ring) = common::ring(8) else { return };
    let start = Instant::now();
    ring.timeout(Duration::from_millis(30)).unwrap();
    let error = finish_one(&mut ring).result().unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::TimedOut, Some(libc::ETIME)));
    assert!(start.elapsed() >= Duration::from_millis(30));

    let (reader, mut writer) = common::pipe();
    let reader = Arc::new(OwnedFd::from(reader));
    ring.poll(&reader, libc::POLLIN as u32).unwrap();
    ring.submit().unwrap();
    assert!(ring.completions().next().is_none());
    writer.write_all(b"x").unwrap();
    let done = finish_one(&mut ring);
    assert_eq!(done.result().unwrap() & libc::POLLIN as u32, libc::POLLIN as u32);
}

#[test]
fn bytes_are_spliced_through_a_pipe() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    fs::write(directory.path().join("from"), "0123456789").unwrap();
    let from = Arc::new(OwnedFd::from(File::open(directory.path().join("from")).unwrap()));
    let to = ring.register_file(&File::create(directory.path().join("to")).unwrap()).unwrap();
    let (reader, writer) = common::pipe();
    let (reader, writer) = (Arc::new(OwnedFd::from(reader)), Arc::new(OwnedFd::from(writer)));
    ring.splice((&from, Some(2)), (&writer, None), 5, 0).unwrap();
    drop(from);
    assert_eq!(finish_one(&mut ring).result().unwrap(), 5);
    ring.splice((&reader, None), (&to, Some(1)), 5, libc::SPLICE_F_MOVE).unwrap();
    assert_eq!(finish_one(&mut ring).result().unwrap(), 5);
    assert_eq!(fs::read(directory.path().join("to")).unwrap(), b"\x0023456");
}

#[test]
fn sockets_connect_send_and_receive() {
    let Some(mut ring) = common::ring(8) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = SocketAddress::from(listener.local_addr().unwrap());
    let listener = ring.register_file(&listener).unwrap();
    ring.accept(&listener, 0).unwrap();
    ring.submit().unwrap();

    let client = if has("IORING_OP_SOCKET") {
        ring.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        finish_one(&mut ring).into_fd().unwrap()
    } else {
        // SAFETY: makes a descriptor.
        let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        // SAFETY: just made, and nobody else's.
        unsafe { std::os::fd::FromRawFd::from_raw_fd(descriptor) }
    };
    let client = Arc::new(client);
    ring.connect(&client, &address).unwrap();
    let mut server = None;
    for _ in 0..2 {
        let done = finish_one(&mut ring);
        if done.raw_result() > 0 {
            server = Some(TcpStream::from(done.into_fd().unwrap()));
        }
    }
    let mut server = server.expect("accepted");
    let pool = Pool::new(2, 4096).unwrap();
    let mut buf = pool.lease().unwrap();
    buf[..5].copy_from_slice(b"hello");
    ring.send(&client, buf, 5, 0).unwrap();
    assert_eq!(finish_one(&mut ring).result().unwrap(), 5);
    let mut five = [0; 5];
    server.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"hello");

    server.write_all(b"there").unwrap();
    ring.recv(&client, pool.lease().unwrap(), 5, libc::MSG_WAITALL).unwrap();
    assert_eq!(finish_one(&mut ring).into_buf().unwrap()[..5], *b"there");

    if has("IORING_OP_SEND_ZC") {
        let mut buf = pool.lease().unwrap();
        buf.fill(7);
        let ticket = ring.send_zero_copy(&client, buf, 4096, 0).unwrap();
        let done = finish_one(&mut ring);
        assert_eq!((done.ticket(), done.result().unwrap()), (ticket, 4096), "the result, not that of the notification");
        assert!(done.into_buf().is_some());
        let mut received = vec![0; 4096];
        server.read_exact(&mut received).unwrap();
        assert!(received.iter().all(|byte| *byte == 7));
        assert_eq!(ring.in_flight(), 0);
    }

    ring.shutdown_socket(&client, Shutdown::Write as i32 + 1).unwrap();
    finish_one(&mut ring).result().unwrap();
    assert_eq!(server.read(&mut five).unwrap(), 0);
}

#[test]
fn sockets_are_bound_by_path() {
    let Some(mut ring) = common::ring(8) else { return };
    let directory = common::directory();
    let path = directory.path().join("socket");
    let address = SocketAddress::unix(&path).unwrap();
    if has("IORING_OP_BIND") && has("IORING_OP_LISTEN") {
        ring.socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
        let socket = Arc::new(finish_one(&mut ring).into_fd().unwrap());
        ring.bind(&socket, &address).unwrap();
        finish_one(&mut ring).result().unwrap();
        ring.listen(&socket, 4).unwrap();
        finish_one(&mut ring).result().unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        fs::remove_file(&path).unwrap();
    }
    if !has("IORING_OP_SOCKET") {
        return;
    }
    let _listener = UnixListener::bind(&path).unwrap();
    ring.socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
    let socket = Arc::new(finish_one(&mut ring).into_fd().unwrap());
    ring.connect(&socket, &address).unwrap();
    finish_one(&mut ring).result().unwrap();

    let long = Path::new("/").join("x".repeat(200));
    assert_eq!(SocketAddress::unix(&long).unwrap_err().kind(), ErrorKind::InvalidInput);
    let ipv6: std::net::SocketAddr = "[::1]:7".parse().unwrap();
    assert_eq!(SocketAddress::from(ipv6).to_ip(), Some(ipv6));
}

#[test]
fn accept_goes_on_and_closes_what_nobody_takes() {
    if !common::is_alone("uring::operations::accept_goes_on_and_closes_what_nobody_takes") {
        return;
    }
    let Some(mut ring) = common::ring(8) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let file = Arc::new(OwnedFd::from(listener));
    let ticket = ring.accept_multishot(&file, 0).unwrap();
    ring.submit().unwrap();
    let before = open_descriptors();
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut accepted = Vec::new();
    while accepted.len() < 3 {
        ring.submit_and_wait(1).unwrap();
        for completion in ring.completions() {
            match completion {
                sysuring::Completion::More(more) => {
                    assert_eq!(more.ticket(), ticket);
                    accepted.push(more.into_fd().unwrap());
                }
                other => {
                    assert_eq!(other.into_done().unwrap().raw_result(), -libc::EINVAL);
                    return common::skip("the kernel has no multishot accept (before Linux 5.19)");
                }
            }
        }
    }
    assert_eq!(ring.in_flight(), 1);
    // Seen while somebody else is waited for, and never taken.
    let more = TcpStream::connect(address).unwrap();
    let (mut byte, zero) = ([1], File::open("/dev/zero").unwrap());
    ring.scope(|scope| {
        let read = scope.read(&zero, &mut byte, 0).unwrap();
        scope.wait(read).unwrap();
    });
    ring.cancel(ticket).unwrap();
    let done = finish_one(&mut ring);
    assert_eq!((done.ticket(), done.raw_result()), (ticket, -libc::ECANCELED));
    drop((accepted, clients, more, zero, ring));
    assert_eq!(open_descriptors(), before - 1, "a socket is left, beside the ring's own descriptor");
}

#[test]
fn a_ring_without_buffers_of_its_own_says_so_in_its_type() {
    fn is_uninhabited(_: Option<NoBuffers>) -> usize {
        size_of::<Option<NoBuffers>>()
    }
    assert_eq!(is_uninhabited(None), 0);
}
