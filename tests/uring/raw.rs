//! Raw entries do what their man pages say: one test for each part of the list, on the real kernel.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sysuring::{Completion, Probe, Queued, Ring, Sqe, SqeFlags, UserData, sys};

use crate::common;

/// A ring, where the kernel has these operations.
#[track_caller]
fn ring_with(operations: &[&str]) -> Option<Ring> {
    let ring = common::ring(8)?;
    let probe = Probe::get().expect("there is a ring");
    let lacks = |name: &&&str| !probe.operations.contains(&(**name, true));
    match operations.iter().find(lacks) {
        Some(name) => {
            common::skip(format_args!("the kernel lacks {name}"));
            None
        }
        None => Some(ring),
    }
}

/// The results of the next `count` raw completions, by `user_data`.
fn results(ring: &mut Ring, count: usize) -> Vec<(u64, i32, u32)> {
    let mut results = Vec::new();
    while results.len() < count {
        ring.submit_and_wait(1).unwrap();
        for completion in ring.completions() {
            let Completion::Raw(cqe) = completion else { panic!("{completion:?}") };
            results.push((cqe.user_data(), cqe.raw_result(), cqe.flags()));
        }
    }
    results.sort_unstable();
    assert_eq!(results.len(), count, "{results:?}");
    results
}

/// The result of one entry.
#[track_caller]
fn one(ring: &mut Ring, prepare: impl FnOnce(Sqe<'_>) -> Queued<'_>) -> i32 {
    prepare(ring.get_sqe().expect("the queue is empty"));
    results(ring, 1)[0].1
}

fn path_of(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no zero in a path")
}

fn number(value: u32) -> UserData {
    UserData::from(value)
}

const SOON: sys::__kernel_timespec = sys::__kernel_timespec { tv_sec: 0, tv_nsec: 1_000_000 };
const LATE: sys::__kernel_timespec = sys::__kernel_timespec { tv_sec: 1000, tv_nsec: 0 };

#[test]
fn time_polls_and_cancels() {
    let Some(mut ring) = ring_with(&["IORING_OP_TIMEOUT", "IORING_OP_POLL_ADD", "IORING_OP_ASYNC_CANCEL"]) else {
        return;
    };
    let (reader, mut writer) = common::pipe();
    let reader = reader.as_raw_fd();
    // SAFETY: the times are constants in memory, and the pipe outlives every entry.
    unsafe {
        assert_eq!(one(&mut ring, |sqe| sqe.prep_timeout(&SOON, 0, 0)), -libc::ETIME);

        // A timeout that gets another time, one that is taken back.
        ring.get_sqe().unwrap().prep_timeout(&LATE, 0, 0).set_data64(number(1));
        ring.get_sqe().unwrap().prep_timeout_update(&SOON, number(1), 0).set_data64(number(2));
        assert_eq!(results(&mut ring, 2).iter().map(|one| one.1).collect::<Vec<_>>(), [-libc::ETIME, 0]);
        ring.get_sqe().unwrap().prep_timeout(&LATE, 0, 0).set_data64(number(1));
        ring.get_sqe().unwrap().prep_timeout_remove(number(1), 0).set_data64(number(2));
        assert_eq!(results(&mut ring, 2).iter().map(|one| one.1).collect::<Vec<_>>(), [-libc::ECANCELED, 0]);

        // A chain of raw entries: the second limits the first.
        let link = sys::IOSQE_IO_LINK as u8;
        let poll = ring.get_sqe().unwrap().prep_poll_add(reader, libc::POLLIN as u32);
        poll.set_flags_unchecked(link).set_data64(number(1));
        ring.get_sqe().unwrap().prep_link_timeout(&SOON, 0).set_data64(number(2));
        assert_eq!(results(&mut ring, 2).iter().map(|one| one.1).collect::<Vec<_>>(), [-libc::ECANCELED, -libc::ETIME]);

        // A poll that gets another number, and is ended by it.
        ring.get_sqe().unwrap().prep_poll_add(reader, libc::POLLIN as u32).set_data64(number(1));
        let rename = sys::IORING_POLL_UPDATE_USER_DATA;
        let update = ring.get_sqe().unwrap().prep_poll_update(number(1), number(9), 0, rename);
        update.set_data64(number(2));
        assert_eq!(results(&mut ring, 1)[0].1, 0);
        ring.get_sqe().unwrap().prep_poll_remove(number(9)).set_data64(number(3));
        let ended = results(&mut ring, 2);
        assert_eq!(ended.iter().map(|one| (one.0, one.1)).collect::<Vec<_>>(), [(3, 0), (9, -libc::ECANCELED)]);

        if one(&mut ring, |sqe| sqe.prep_cancel_fd(reader, sys::IORING_ASYNC_CANCEL_ALL)) == -libc::EINVAL {
            return common::skip("the kernel cancels by number only (before Linux 5.19)");
        }
        // Several completions of one entry, until it is cancelled.
        ring.get_sqe().unwrap().prep_poll_multishot(reader, libc::POLLIN as u32).set_data64(number(1));
        ring.submit().unwrap();
        for _ in 0..2 {
            writer.write_all(b"x").unwrap();
            let (_, events, flags) = results(&mut ring, 1)[0];
            assert_ne!(events & i32::from(libc::POLLIN), 0);
            assert_ne!(flags & sys::IORING_CQE_F_MORE, 0);
        }
    }
    ring.get_sqe().unwrap().prep_cancel_fd(reader, sys::IORING_ASYNC_CANCEL_ALL).set_data64(number(2));
    let ended: Vec<_> = results(&mut ring, 2).iter().map(|one| (one.0, one.1)).collect();
    assert_eq!(ended, [(1, -libc::ECANCELED), (2, 1)]);
    assert_eq!(one(&mut ring, |sqe| sqe.prep_cancel64(number(7), 0)), -libc::ENOENT);
}

#[test]
fn contents_of_files() {
    let Some(mut ring) = ring_with(&["IORING_OP_READV", "IORING_OP_SPLICE", "IORING_OP_TEE", "IORING_OP_FADVISE"])
    else {
        return;
    };
    let directory = common::directory();
    let path = directory.path().join("file");
    let contents = common::patterned_file(&path, 8192);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let file = file.as_raw_fd();
    let mut buffers = [[0_u8; 100], [0; 100]];
    let vectors = buffers.each_mut().map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 100 });
    let (mut from, into) = common::pipe();
    let (mut from_copy, into_copy) = common::pipe();
    // SAFETY: everything outlives its entry, whose completion is waited for.
    unsafe {
        assert_eq!(one(&mut ring, |sqe| sqe.prep_readv(file, vectors.as_ptr(), 2, 0)), 200);
        assert_eq!(*buffers.as_flattened(), contents[..200]);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_readv2(file, vectors.as_ptr(), 1, 4096, 0)), 100);
        assert_eq!(buffers[0], contents[4096..4196]);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_writev(file, vectors.as_ptr(), 1, 0)), 100);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_writev2(file, vectors.as_ptr(), 2, 8192, 0)), 200);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 8392);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_sync_file_range(file, 100, 0, 0)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_fsync(file, 0)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_fadvise(file, 0, 4096, libc::POSIX_FADV_WILLNEED)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_splice(file, 4096, into.as_raw_fd(), -1, 50, 0)), 50);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_tee(from.as_raw_fd(), into_copy.as_raw_fd(), 50, 0)), 50);
    }
    let mut halves = [[0; 50]; 2];
    from.read_exact(&mut halves[0]).unwrap();
    from_copy.read_exact(&mut halves[1]).unwrap();
    for half in halves {
        assert_eq!(half, contents[4096..4146]);
    }
    // SAFETY: a mapping of the test's own, which is emptied and then unmapped.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page =
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0).cast::<u8>();
        assert_ne!(page.cast(), libc::MAP_FAILED);
        page.write(7);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_madvise(page, 4096, libc::MADV_DONTNEED)), 0);
        assert_eq!(page.read(), 0);
        #[cfg(liburing_2_7)]
        {
            page.write(7);
            let result = one(&mut ring, |sqe| sqe.prep_madvise64(page, 4096, libc::MADV_DONTNEED));
            assert!([0, -libc::EINVAL].contains(&result), "before Linux 6.11 the length is refused: {result}");
            let result = one(&mut ring, |sqe| sqe.prep_fadvise64(file, 0, 4096, libc::POSIX_FADV_WILLNEED));
            assert!([0, -libc::EINVAL].contains(&result), "before Linux 6.11 the length is refused: {result}");
        }
        assert_eq!(libc::munmap(page.cast(), 4096), 0);
    }
    #[cfg(liburing_2_6)]
    {
        let Some(mut ring) = ring_with(&["IORING_OP_FTRUNCATE"]) else { return };
        // SAFETY: the file is open.
        assert_eq!(one(&mut ring, |sqe| unsafe { sqe.prep_ftruncate(file, 10) }), 0);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 10);
    }
    #[cfg(liburing_2_8)]
    // SAFETY: the file is open. It is no block device, and the kernel says so, having understood the entry.
    assert_eq!(one(&mut ring, |sqe| unsafe { sqe.prep_cmd_discard(file, 0, 512) }), -libc::EOPNOTSUPP);
    #[cfg(liburing_2_10)]
    {
        let Some(mut ring) = ring_with(&["IORING_OP_READV_FIXED", "IORING_OP_WRITEV_FIXED"]) else { return };
        // SAFETY: the buffers outlive the ring's entries.
        unsafe {
            ring.register_buffers(&vectors).unwrap();
            assert_eq!(one(&mut ring, |sqe| sqe.prep_writev_fixed(file, vectors[1..].as_ptr(), 1, 0, 0, 1)), 100);
            assert_eq!(one(&mut ring, |sqe| sqe.prep_readv_fixed(file, vectors.as_ptr(), 1, 0, 0, 0)), 100);
        }
        assert_eq!(buffers[0], buffers[1]);
    }
}

#[test]
fn descriptors_and_registered_files() {
    let Some(mut ring) = ring_with(&["IORING_OP_OPENAT", "IORING_OP_OPENAT2", "IORING_OP_CLOSE"]) else { return };
    let path = c"/proc/self/exe";
    let how = sys::open_how { flags: libc::O_RDONLY as u64, mode: 0, resolve: 0 };
    // A table with one file of the safe interface in it, and room for more.
    let kept = ring.register_file(&File::open("/dev/null").unwrap()).unwrap();
    let free = kept.index() + 1;
    let any = sys::IORING_FILE_INDEX_ALLOC;
    // SAFETY: what is closed was opened here, and the indices are none that the ring gave out.
    unsafe {
        let file = one(&mut ring, |sqe| sqe.prep_openat(libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY, 0));
        assert!(file >= 0, "{file}");
        assert_eq!(one(&mut ring, |sqe| sqe.prep_close(file)), 0);
        let file = one(&mut ring, |sqe| sqe.prep_openat2(libc::AT_FDCWD, path.as_ptr(), &how));
        assert!(file >= 0, "{file}");
        assert_eq!(one(&mut ring, |sqe| sqe.prep_close(file)), 0);

        let opened =
            one(&mut ring, |sqe| sqe.prep_openat_direct(libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY, 0, free));
        assert_eq!(opened, 0);
        let chosen = one(&mut ring, |sqe| sqe.prep_openat2_direct(libc::AT_FDCWD, path.as_ptr(), &how, any));
        if chosen == -libc::EINVAL {
            return common::skip("the kernel chooses no places in a table of files (before Linux 5.19)");
        }
        assert!(chosen > 0 && chosen as u32 != free && chosen as u32 != kept.index(), "{chosen}");
        let mut start = [0_u8; 4];
        let read =
            one(&mut ring, |sqe| sqe.prep_read(chosen, start.as_mut_ptr(), 4, 0).set_flags(SqeFlags::FIXED_FILE));
        assert_eq!((read, &start), (4, b"\x7fELF"));
        assert_eq!(one(&mut ring, |sqe| sqe.prep_close_direct(chosen as u32)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_close_direct(chosen as u32)), -libc::EBADF);

        let other = File::open("/dev/zero").unwrap();
        let mut files = [other.as_raw_fd()];
        assert_eq!(one(&mut ring, |sqe| sqe.prep_files_update(files.as_mut_ptr(), 1, free as i32)), 1);
        let read = one(&mut ring, |sqe| {
            sqe.prep_read(free as RawFd, start.as_mut_ptr(), 4, 0).set_flags(SqeFlags::FIXED_FILE)
        });
        assert_eq!((read, &start), (4, &[0; 4]));
        #[cfg(liburing_2_6)]
        if ring_with(&["IORING_OP_FIXED_FD_INSTALL"]).is_some() {
            // The entry wants its index marked as one, which its preparation does.
            let file = one(&mut ring, |sqe| sqe.prep_fixed_fd_install(free as i32, 0));
            assert!(file >= 0, "{file}");
            let mut byte = [1];
            File::from_raw_fd(file).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [0]);
        }
        #[cfg(liburing_2_8)]
        {
            let file = one(&mut ring, |sqe| sqe.prep_open(path.as_ptr(), libc::O_RDONLY, 0));
            drop(OwnedFd::from_raw_fd(file));
            assert_eq!(one(&mut ring, |sqe| sqe.prep_open_direct(path.as_ptr(), libc::O_RDONLY, 0, free)), 0);
        }
        #[cfg(liburing_2_12)]
        if ring_with(&["IORING_OP_PIPE"]).is_some() {
            let mut ends = [-1; 2];
            assert_eq!(one(&mut ring, |sqe| sqe.prep_pipe(ends.as_mut_ptr(), libc::O_CLOEXEC)), 0);
            let [mut from, mut into] = ends.map(|end| File::from_raw_fd(end));
            into.write_all(b"!").unwrap();
            let mut byte = [0];
            from.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"!");
            assert_eq!(one(&mut ring, |sqe| sqe.prep_pipe_direct(ends.as_mut_ptr(), 0, any)), 0);
            assert!(ends.iter().all(|end| *end as u32 != kept.index()), "{ends:?}");
        }
    }
}

#[test]
fn names_in_file_systems() {
    let needed = ["IORING_OP_STATX", "IORING_OP_RENAMEAT", "IORING_OP_LINKAT", "IORING_OP_GETXATTR"];
    let Some(mut ring) = ring_with(&needed) else { return };
    let directory = common::directory();
    let path = |name: &str| path_of(&directory.path().join(name));
    let here = File::open(directory.path()).unwrap();
    let here = here.as_raw_fd();
    std::fs::write(directory.path().join("a"), "12345").unwrap();
    let (a, b, c, d) = (path("a"), path("b"), path("c"), path("d"));
    let mut status = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let attribute: &CStr = c"user.color";
    let mut value = [0_u8; 8];
    // SAFETY: everything outlives its entry, whose completion is waited for.
    unsafe {
        let status_of = status.as_mut_ptr();
        assert_eq!(one(&mut ring, |sqe| sqe.prep_statx(here, c"a".as_ptr(), 0, libc::STATX_SIZE, status_of)), 0);
        assert_eq!(status.assume_init().stx_size, 5);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_rename(a.as_ptr(), b.as_ptr())), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_renameat(here, c"b".as_ptr(), here, c"a".as_ptr(), 0)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_link(a.as_ptr(), b.as_ptr(), 0)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_linkat(here, c"a".as_ptr(), here, c"c".as_ptr(), 0)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_unlink(b.as_ptr(), 0)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_unlinkat(here, c"c".as_ptr(), 0)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_symlink(c"a".as_ptr(), c.as_ptr())), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_symlinkat(c"a".as_ptr(), here, c"b".as_ptr())), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_mkdir(d.as_ptr(), 0o700)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_mkdirat(here, c"e".as_ptr(), 0o700)), 0);

        let set = one(&mut ring, |sqe| sqe.prep_setxattr(attribute.as_ptr(), b"blue".as_ptr(), a.as_ptr(), 0, 4));
        if set == -libc::EOPNOTSUPP {
            return common::skip("the file system has no attributes of users");
        }
        assert_eq!(set, 0);
        let into = value.as_mut_ptr();
        assert_eq!(one(&mut ring, |sqe| sqe.prep_getxattr(attribute.as_ptr(), into, a.as_ptr(), 8)), 4);
        let file = File::open(directory.path().join("a")).unwrap();
        let file = file.as_raw_fd();
        let set = one(&mut ring, |sqe| sqe.prep_fsetxattr(file, attribute.as_ptr(), b"red!!".as_ptr(), 0, 5));
        assert_eq!(set, 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_fgetxattr(file, attribute.as_ptr(), into, 8)), 5);
    }
    assert_eq!(&value, b"red!!\0\0\0");
    let mut names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

fn socket_pair(kind: i32) -> [OwnedFd; 2] {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors, which nobody else owns.
    unsafe {
        assert_eq!(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()), 0);
        ends.map(|end| OwnedFd::from_raw_fd(end))
    }
}

#[test]
fn sockets() {
    let Some(mut ring) = ring_with(&["IORING_OP_SOCKET", "IORING_OP_SENDMSG", "IORING_OP_ACCEPT"]) else { return };
    let [one_end, other_end] = socket_pair(libc::SOCK_STREAM);
    let (here, there) = (one_end.as_raw_fd(), other_end.as_raw_fd());
    let mut received = [0_u8; 8];
    let into = received.as_mut_ptr();
    // SAFETY: everything outlives its entry, whose completion is waited for.
    unsafe {
        assert_eq!(one(&mut ring, |sqe| sqe.prep_send(here, b"hello".as_ptr(), 5, 0)), 5);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_recv(there, into, 8, 0)), 5);
        assert_eq!(&received[..5], b"hello");
        let mut part = libc::iovec { iov_base: received.as_mut_ptr().cast(), iov_len: 8 };
        let mut message = std::mem::zeroed::<libc::msghdr>();
        (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_sendmsg(here, &message, 0)), 8);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_recvmsg(there, &mut message, 0)), 8);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_shutdown(here, libc::SHUT_WR)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_recv(there, into, 8, 0)), 0);
    }

    // A connection over the loopback device, as a plain and as a registered file.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: listener.local_addr().unwrap().port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let address = (&raw mut address).cast::<libc::sockaddr>();
    let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // Makes the table of files; index 7 of it is free.
    let kept = ring.register_file(&listener).unwrap();
    assert_eq!(kept.index(), 0);
    let kind = libc::SOCK_STREAM;
    let client = one(&mut ring, |sqe| sqe.prep_socket(libc::AF_INET, kind, 0, 0));
    assert!(client >= 0, "{client}");
    // SAFETY: made by the operation, for us.
    let client = unsafe { OwnedFd::from_raw_fd(client) };
    let nowhere = std::ptr::null_mut::<libc::sockaddr>();
    let none = std::ptr::null_mut::<libc::socklen_t>();
    // SAFETY: as above; the addresses are read, or null.
    unsafe {
        ring.get_sqe().unwrap().prep_multishot_accept(listener.as_raw_fd(), nowhere, none, 0).set_data64(number(1));
        ring.get_sqe().unwrap().prep_connect(client.as_raw_fd(), address, size).set_data64(number(2));
        let both = results(&mut ring, 2);
        assert!(both[0].1 >= 0 && both[0].2 & sys::IORING_CQE_F_MORE != 0, "{both:?}");
        assert_eq!(both[1].1, 0);
        let server = OwnedFd::from_raw_fd(both[0].1);
        ring.get_sqe().unwrap().prep_cancel64(number(1), 0).set_data64(number(2));
        assert_eq!(results(&mut ring, 2)[1].1, 0);

        let sent = one(&mut ring, |sqe| sqe.prep_send(server.as_raw_fd(), b"x".as_ptr(), 1, 0));
        assert_eq!(sent, 1);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_recv(client.as_raw_fd(), into, 1, 0)), 1);

        let index = one(&mut ring, |sqe| sqe.prep_socket_direct_alloc(libc::AF_INET, kind, 0, 0));
        assert!(index >= 0, "{index}");
        ring.get_sqe().unwrap().prep_accept_direct(listener.as_raw_fd(), nowhere, none, 0, 7).set_data64(number(1));
        let connect = ring.get_sqe().unwrap().prep_connect(index, address, size);
        connect.set_flags(SqeFlags::FIXED_FILE).set_data64(number(2));
        assert_eq!(results(&mut ring, 2).iter().map(|one| one.1).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_socket_direct(libc::AF_INET, kind, 0, 7, 0)), 0);

        ring.get_sqe().unwrap().prep_accept(listener.as_raw_fd(), nowhere, none, 0).set_data64(number(1));
        let cancel = sys::IORING_ASYNC_CANCEL_ANY;
        ring.get_sqe().unwrap().prep_cancel64(number(0), cancel as i32).set_data64(number(2));
        assert_eq!(results(&mut ring, 2)[0].1, -libc::ECANCELED);
    }
}

#[test]
fn sending_without_a_copy_has_two_completions() {
    let Some(mut ring) = ring_with(&["IORING_OP_SEND_ZC", "IORING_OP_SENDMSG_ZC"]) else { return };
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: receiver.local_addr().unwrap().port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let address = (&raw const address).cast::<libc::sockaddr>();
    let size = size_of::<libc::sockaddr_in>() as u16;
    let bytes = *b"zero copy";
    let mut received = [0; 16];
    let mut check = |ring: &mut Ring| {
        let both = results(ring, 2);
        let is_notification = |one: &&(u64, i32, u32)| one.2 & sys::IORING_CQE_F_NOTIF != 0;
        assert_eq!(both.iter().filter(is_notification).count(), 1, "{both:?}");
        assert!(both.iter().any(|one| one.1 == 9), "{both:?}");
        assert_eq!(receiver.recv(&mut received).unwrap(), 9);
        assert_eq!(received[..9], bytes);
    };
    // SAFETY: everything outlives its entry, whose final completion is waited for.
    unsafe {
        let entry = ring.get_sqe().unwrap().prep_send_zc(sender.as_raw_fd(), bytes.as_ptr(), 9, 0, 0);
        entry.prep_send_set_addr(address, size);
        check(&mut ring);
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: 9 };
        let mut message = std::mem::zeroed::<libc::msghdr>();
        (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
        (message.msg_name, message.msg_namelen) = (address.cast_mut().cast(), size.into());
        ring.get_sqe().unwrap().prep_sendmsg_zc(sender.as_raw_fd(), &message, 0);
        check(&mut ring);
        ring.register_buffers(&[part]).unwrap();
        let entry = ring.get_sqe().unwrap().prep_send_zc_fixed(sender.as_raw_fd(), bytes.as_ptr(), 9, 0, 0, 0);
        entry.prep_send_set_addr(address, size);
        check(&mut ring);
        #[cfg(liburing_2_10)]
        if ring_with(&["IORING_OP_READV_FIXED"]).is_some() {
            // The same kernel brought both.
            ring.get_sqe().unwrap().prep_sendmsg_zc_fixed(sender.as_raw_fd(), &message, 0, 0);
            check(&mut ring);
        }
        #[cfg(liburing_2_4)]
        {
            let sent =
                one(&mut ring, |sqe| sqe.prep_sendto(sender.as_raw_fd(), bytes.as_ptr(), 9, 0, address, size.into()));
            assert_eq!(sent, 9);
            assert_eq!(receiver.recv(&mut received).unwrap(), 9);
        }
    }
}

#[test]
fn buffers_to_choose_from() {
    let Some(mut ring) = ring_with(&["IORING_OP_PROVIDE_BUFFERS", "IORING_OP_SEND_ZC"]) else { return };
    let (reader, mut writer) = common::pipe();
    let mut buffers = [[0_u8; 16]; 4];
    let null = std::ptr::null_mut();
    // SAFETY: the buffers outlive the ring's entries, and what is left of them is removed.
    unsafe {
        let first = buffers.as_mut_ptr().cast();
        let provided = one(&mut ring, |sqe| sqe.prep_provide_buffers(first, 16, 4, 3, 10));
        assert_eq!(provided, 0);
        writer.write_all(b"chosen").unwrap();
        let read = ring.get_sqe().unwrap().prep_read(reader.as_raw_fd(), null, 16, u64::MAX);
        read.set_flags(SqeFlags::BUFFER_SELECT).set_buf_group(3);
        let (_, length, flags) = results(&mut ring, 1)[0];
        assert_eq!(length, 6);
        let chosen = (flags >> sys::IORING_CQE_BUFFER_SHIFT) as usize - 10;
        assert_eq!(&buffers[chosen][..6], b"chosen");

        // Two packets, one after the other, by one entry.
        let [here, there] = socket_pair(libc::SOCK_SEQPACKET);
        let receive = ring.get_sqe().unwrap().prep_recv_multishot(there.as_raw_fd(), null, 0, 0);
        receive.set_flags(SqeFlags::BUFFER_SELECT).set_buf_group(3);
        ring.submit().unwrap();
        for _ in 0..2 {
            assert_eq!(libc::send(here.as_raw_fd(), b"packet".as_ptr().cast(), 6, 0), 6);
            let (_, length, flags) = results(&mut ring, 1)[0];
            assert_eq!(length, 6);
            assert_ne!(flags & sys::IORING_CQE_F_MORE, 0);
        }
        ring.get_sqe().unwrap().prep_cancel64(number(0), 0).set_data64(number(1));
        results(&mut ring, 2);
    }
    assert_eq!(one(&mut ring, |sqe| sqe.prep_remove_buffers(100, 3)), 1);
}

#[test]
fn messages_to_other_rings() {
    let Some(mut ring) = ring_with(&["IORING_OP_MSG_RING"]) else { return };
    let mut other = common::ring(8).unwrap();
    // SAFETY: the ring is set up; its descriptor is a plain field.
    let target = unsafe { (*other.as_raw()).ring_fd };
    // SAFETY: the other ring takes the completion for what it is, below.
    assert_eq!(one(&mut ring, |sqe| unsafe { sqe.prep_msg_ring(target, 42, number(7), 0) }), 0);
    assert_eq!(results(&mut other, 1)[0], (7, 42, 0));
    #[cfg(liburing_2_4)]
    {
        let kept = ring.register_file(&File::open("/proc/self/exe").unwrap()).unwrap();
        let theirs = other.register_file(&File::open("/dev/null").unwrap()).unwrap();
        let (source, free) = (kept.index() as i32, theirs.index() as i32 + 1);
        // SAFETY: as above; the place in the other ring's table is free.
        unsafe {
            let flags = sys::IORING_MSG_RING_FLAGS_PASS;
            assert_eq!(one(&mut ring, |sqe| sqe.prep_msg_ring_cqe_flags(target, 1, number(8), flags, 1 << 20)), 0);
            assert_eq!(results(&mut other, 1)[0], (8, 1, 1 << 20));
            assert_eq!(one(&mut ring, |sqe| sqe.prep_msg_ring_fd(target, source, free, number(9), 0)), 0);
            assert_eq!(results(&mut other, 1)[0].0, 9);
            let chosen = one(&mut ring, |sqe| sqe.prep_msg_ring_fd_alloc(target, source, number(9), 0));
            assert!(chosen >= 0 && chosen != free && chosen != theirs.index() as i32, "{chosen}");
            assert_eq!(results(&mut other, 1)[0].0, 9);
        }
    }
}

#[test]
fn epoll_processes_and_futexes() {
    let Some(mut ring) = ring_with(&["IORING_OP_EPOLL_CTL"]) else { return };
    let (reader, mut writer) = common::pipe();
    // SAFETY: a descriptor that nobody else owns.
    let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 7 };
    let (set, file) = (epoll.as_raw_fd(), reader.as_raw_fd());
    // SAFETY: both stay open, and the event is read.
    assert_eq!(one(&mut ring, |sqe| unsafe { sqe.prep_epoll_ctl(set, file, libc::EPOLL_CTL_ADD, &event) }), 0);
    writer.write_all(b"x").unwrap();
    // SAFETY: room for one event.
    assert_eq!(unsafe { libc::epoll_wait(set, &mut event, 1, 1000) }, 1);
    #[cfg(liburing_2_10)]
    if let Some(mut ring) = ring_with(&["IORING_OP_EPOLL_WAIT"]) {
        // SAFETY: as above.
        assert_eq!(one(&mut ring, |sqe| unsafe { sqe.prep_epoll_wait(set, &mut event, 1, 0) }), 1);
    }
    #[cfg(liburing_2_6)]
    if let Some(mut ring) = ring_with(&["IORING_OP_WAITID", "IORING_OP_FUTEX_WAIT", "IORING_OP_FUTEX_WAKE"]) {
        #[expect(clippy::zombie_processes, reason = "the ring waits for it")]
        let child = std::process::Command::new("/bin/true").spawn().unwrap();
        let mut information = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        let into = information.as_mut_ptr();
        // SAFETY: nobody else waits for the child; the information is read when it is there.
        unsafe {
            let waited = one(&mut ring, |sqe| sqe.prep_waitid(libc::P_PID, child.id(), into, libc::WEXITED, 0));
            assert_eq!(waited, 0);
            assert_eq!(information.assume_init().si_pid() as u32, child.id());
        }
        /// `FUTEX2_SIZE_U32 | FUTEX2_PRIVATE`.
        const FUTEX: u32 = 2 | 128;
        let futex = 5_u32;
        let any = u64::from(u32::MAX);
        // SAFETY: the futex is the test's own, and outlives both entries.
        unsafe {
            ring.get_sqe().unwrap().prep_futex_wait(&futex, 5, any, FUTEX, 0).set_data64(number(1));
            ring.get_sqe().unwrap().prep_futex_wake(&futex, 1, any, FUTEX, 0).set_data64(number(2));
        }
        assert_eq!(results(&mut ring, 2).iter().map(|one| one.1).collect::<Vec<_>>(), [0, 1]);
        // `struct futex_waitv`: value, address, flags.
        let wait = [5, (&raw const futex) as u64, u64::from(FUTEX)];
        // SAFETY: the same; the description is read when the entry is submitted.
        unsafe {
            ring.get_sqe().unwrap().prep_futex_waitv(wait.as_ptr().cast(), 1, 0).set_data64(number(1));
            ring.get_sqe().unwrap().prep_futex_wake(&futex, 1, any, FUTEX, 0).set_data64(number(2));
        }
        assert_eq!(results(&mut ring, 2).iter().map(|one| one.1).collect::<Vec<_>>(), [0, 1]);
    }
}

#[test]
fn setters_and_the_general_preparation() {
    let Some(mut ring) = common::ring(8) else { return };
    // SAFETY: an entry that names nothing.
    let done = one(&mut ring, |sqe| unsafe { sqe.prep_rw(sys::IORING_OP_NOP as u8, -1, std::ptr::null(), 0, 0) });
    assert_eq!(done, 0);
    // Nobody registered these credentials.
    let refused = one(&mut ring, |sqe| sqe.prep_socket(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0).set_personality(77));
    assert_eq!(refused, -libc::EINVAL);
    if ring.features() & sys::IORING_FEAT_CQE_SKIP == 0 {
        return common::skip("the kernel keeps no completions back (before Linux 5.17)");
    }
    // A completion that is kept back is not waited for; one that is wanted after all is.
    ring.get_sqe().unwrap().prep_nop().set_flags(SqeFlags::CQE_SKIP_SUCCESS).set_data64(number(1));
    let again = ring.get_sqe().unwrap().prep_nop().set_flags(SqeFlags::CQE_SKIP_SUCCESS);
    again.set_flags(SqeFlags::empty()).set_data64(number(2));
    assert_eq!(results(&mut ring, 1)[0].0, 2);
    #[cfg(liburing_2_13)]
    if let Some(mut ring) = ring_with(&["IORING_OP_NOP128"]) {
        assert_eq!(one(&mut ring, |sqe| sqe.prep_nop128()), -libc::EINVAL, "entries of 64 bytes");
    }
}

#[test]
fn the_same_buffers_again_and_again() {
    let Some(mut ring) = ring_with(&["IORING_OP_PROVIDE_BUFFERS", "IORING_OP_SEND_ZC"]) else { return };
    let mut buffers = [[0_u8; 128]; 4];
    // SAFETY: the buffers outlive the ring's entries.
    let provided = unsafe {
        let first = buffers.as_mut_ptr().cast();
        one(&mut ring, |sqe| sqe.prep_provide_buffers(first, 128, 4, 3, 0))
    };
    assert_eq!(provided, 0);
    let end = |ring: &mut Ring| {
        ring.get_sqe().unwrap().prep_cancel64(number(1), 0).set_data64(number(2));
        let ended = results(ring, 2);
        assert_eq!((ended[0].1, ended[1].1), (-libc::ECANCELED, 0), "{ended:?}");
    };
    let [here, there] = socket_pair(libc::SOCK_DGRAM);
    // SAFETY: all zeroes is a message header without parts.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_controllen = 16;
    // SAFETY: the sockets and the header outlive the entry, which is ended.
    unsafe {
        let receive = ring.get_sqe().unwrap().prep_recvmsg_multishot(there.as_raw_fd(), &mut message, 0);
        receive.set_flags(SqeFlags::BUFFER_SELECT).set_buf_group(3).set_data64(number(1));
        ring.submit().unwrap();
        for text in [b"one", b"two"] {
            assert_eq!(libc::send(here.as_raw_fd(), text.as_ptr().cast(), 3, 0), 3);
            let (_, length, flags) = results(&mut ring, 1)[0];
            assert_ne!(flags & sys::IORING_CQE_F_MORE, 0);
            let buffer = &mut buffers[(flags >> sys::IORING_CQE_BUFFER_SHIFT) as usize];
            let start = buffer.as_mut_ptr().cast();
            let out = sys::io_uring_recvmsg_validate(start, length, &mut message);
            assert!(!out.is_null());
            assert_eq!(sys::io_uring_recvmsg_payload_length(out, length, &mut message), 3);
            let payload = sys::io_uring_recvmsg_payload(out, &mut message).cast::<u8>();
            assert_eq!(std::slice::from_raw_parts(payload, 3), text);
        }
    }
    end(&mut ring);
    #[cfg(liburing_2_6)]
    if ring_with(&["IORING_OP_READ_MULTISHOT"]).is_some() {
        let (reader, mut writer) = common::pipe();
        // SAFETY: as above. The preparation asks for a buffer itself.
        unsafe { ring.get_sqe().unwrap().prep_read_multishot(reader.as_raw_fd(), 0, 0, 3).set_data64(number(1)) };
        ring.submit().unwrap();
        writer.write_all(b"three").unwrap();
        let (_, length, flags) = results(&mut ring, 1)[0];
        assert_eq!(length, 5);
        assert_eq!(&buffers[(flags >> sys::IORING_CQE_BUFFER_SHIFT) as usize][..5], b"three");
        end(&mut ring);
    }
}

#[cfg(liburing_2_7)]
#[test]
fn sockets_of_newer_kernels() {
    let Some(mut ring) = ring_with(&["IORING_OP_BIND", "IORING_OP_LISTEN"]) else { return };
    let mut address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    #[cfg_attr(not(liburing_2_13), expect(unused_mut, reason = "read again by what is since 2.13"))]
    let mut size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let socket = one(&mut ring, |sqe| sqe.prep_socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0));
    // SAFETY: made by the operation, for us.
    let socket = unsafe { std::net::TcpListener::from_raw_fd(socket) };
    let number_of = socket.as_raw_fd();
    // SAFETY: the socket and the address outlive each entry.
    unsafe {
        let to = (&raw mut address).cast::<libc::sockaddr>();
        assert_eq!(one(&mut ring, |sqe| sqe.prep_bind(number_of, to, size)), 0);
        assert_eq!(one(&mut ring, |sqe| sqe.prep_listen(number_of, 8)), 0);
        let port = socket.local_addr().unwrap().port();
        let mut kind = 0_i32;
        let asked = one(&mut ring, |sqe| {
            let into = (&raw mut kind).cast();
            sqe.prep_cmd_sock(
                sys::SOCKET_URING_OP_GETSOCKOPT as i32,
                number_of,
                libc::SOL_SOCKET,
                libc::SO_TYPE,
                into,
                size_of::<i32>() as i32,
            )
        });
        assert_eq!((asked, kind), (size_of::<i32>() as i32, libc::SOCK_STREAM));
        #[cfg(liburing_2_13)]
        {
            let asked = one(&mut ring, |sqe| sqe.prep_cmd_getsockname(number_of, to, &mut size, 0));
            assert!([0, -libc::EOPNOTSUPP].contains(&asked), "{asked}");
            assert!(asked != 0 || u16::from_be(address.sin_port) == port);
        }

        // Connections as registered files, wherever there is room.
        let kept = ring.register_file(&socket).unwrap();
        let (nowhere, none) = (std::ptr::null_mut(), std::ptr::null_mut());
        let accept = ring.get_sqe().unwrap().prep_multishot_accept_direct(number_of, nowhere, none, 0);
        accept.set_data64(number(1));
        ring.submit().unwrap();
        for _ in 0..2 {
            let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (_, index, flags) = results(&mut ring, 1)[0];
            assert!(index >= 0 && index as u32 != kept.index(), "{index}");
            assert_ne!(flags & sys::IORING_CQE_F_MORE, 0);
        }
        ring.get_sqe().unwrap().prep_cancel64(number(1), 0).set_data64(number(2));
        results(&mut ring, 2);

        // As many buffers of a group as there are, as one.
        let [here, there] = socket_pair(libc::SOCK_STREAM);
        let mut buffers = *b"ABCDEFGH";
        let group = match ring.setup_buf_ring(2, 3, 0) {
            Ok(group) => group,
            Err(error) => return common::skip(error),
        };
        for (place, half) in buffers.chunks_mut(4).enumerate() {
            let (start, mask) = (half.as_mut_ptr().cast(), sys::io_uring_buf_ring_mask(2));
            sys::io_uring_buf_ring_add(group.as_ptr(), start, 4, place as u16, mask, place as i32);
        }
        sys::io_uring_buf_ring_advance(group.as_ptr(), 2);
        let send = ring.get_sqe().unwrap().prep_send_bundle(here.as_raw_fd(), 0, 0);
        send.set_flags(SqeFlags::BUFFER_SELECT).set_buf_group(3);
        assert_eq!(results(&mut ring, 1)[0].1, 8);
        let mut received = [0; 8];
        assert_eq!(libc::recv(there.as_raw_fd(), received.as_mut_ptr().cast(), 8, 0), 8);
        assert_eq!(received, buffers);
        ring.free_buf_ring(group, 2, 3).unwrap();
    }
}
