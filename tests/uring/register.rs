//! What can be registered does what its man page says, and keeps out of the safe interface's way.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sysuring::{Completion, Error, ErrorKind, Operations as _, Pool, Result, Ring, SqeFlags, UserData, sys};

use crate::common;

/// Says that the kernel or the library is too old for a call, where that is the error.
#[track_caller]
fn can<T>(what: &str, result: Result<T>) -> Option<T> {
    match result {
        Err(error)
            if error.kind() == ErrorKind::Unsupported
                || [Some(libc::EINVAL), Some(libc::EOPNOTSUPP)].contains(&error.raw_os_error()) =>
        {
            common::skip(format_args!("no {what}: {error}"));
            None
        }
        result => Some(result.expect(what)),
    }
}

/// The next raw completion: `user_data` and result.
fn next(ring: &mut Ring) -> (u64, i32) {
    ring.submit_and_wait(1).unwrap();
    match ring.completions().next() {
        Some(Completion::Raw(cqe)) => (cqe.user_data(), cqe.raw_result()),
        other => panic!("{other:?}"),
    }
}

fn kind(result: Result<impl Sized>) -> Option<ErrorKind> {
    result.err().as_ref().map(Error::kind)
}

/// Four bytes of the registered file `index`.
fn read(ring: &mut Ring, index: u32) -> (i32, [u8; 4]) {
    let mut bytes = [0; 4];
    // SAFETY: the buffer outlives the wait, and the file stays registered.
    let entry = unsafe { ring.get_sqe().unwrap().prep_read(index as i32, bytes.as_mut_ptr(), 4, 0) };
    entry.set_flags(SqeFlags::FIXED_FILE);
    (next(ring).1, bytes)
}

#[test]
fn files_of_the_raw_interface() {
    let Some(mut ring) = common::ring(8) else { return };
    let (program, zero) = (File::open("/proc/self/exe").unwrap(), File::open("/dev/zero").unwrap());
    ring.register_files(&[Some(program.as_fd()), None]).unwrap();
    assert_eq!(read(&mut ring, 0), (4, *b"\x7fELF"));
    assert_eq!(read(&mut ring, 1).0, -libc::EBADF);
    assert_eq!(ring.register_files_update(1, &[Some(zero.as_fd())]).unwrap(), 1);
    assert_eq!(read(&mut ring, 1), (4, [0; 4]));

    let error = ring.register_file(&zero).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("unregister_files"), "{error}");
    assert_eq!(kind(ring.register_files(&[None])), Some(ErrorKind::Busy));
    // Not while one may be used.
    let (reader, mut writer) = common::pipe();
    // SAFETY: the pipe outlives the entry.
    unsafe { ring.get_sqe().unwrap().prep_poll_add(reader.as_raw_fd(), libc::POLLIN as u32) };
    ring.submit().unwrap();
    assert_eq!(kind(ring.unregister_files()), Some(ErrorKind::Busy));
    writer.write_all(b"x").unwrap();
    next(&mut ring);
    ring.unregister_files().unwrap();
    assert_eq!(kind(ring.unregister_files()), Some(ErrorKind::InvalidInput));

    let tags = [UserData::from(7), UserData::default()];
    ring.register_files_tags(&[Some(program.as_fd()), Some(zero.as_fd())], &tags).unwrap();
    assert_eq!(kind(ring.register_files_update_tag(0, &[None], &tags)), Some(ErrorKind::InvalidInput));
    assert_eq!(ring.register_files_update_tag(0, &[None], &tags[1..]).unwrap(), 1);
    assert_eq!(next(&mut ring), (7, 0), "the file is not used any more");
    ring.unregister_files().unwrap();

    if can("empty tables", ring.register_files_sparse(8)).is_some() {
        if can("ranges", ring.register_file_alloc_range(5, 1)).is_some() {
            ring.get_sqe().unwrap().prep_socket_direct_alloc(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0);
            assert_eq!(next(&mut ring).1, 5);
        }
        ring.unregister_files().unwrap();
    }

    // The table of the safe interface is not touched.
    let file = ring.register_file(&program).unwrap();
    assert_eq!(kind(ring.register_files(&[None])), Some(ErrorKind::Busy));
    assert_eq!(kind(ring.register_files_update(0, &[None])), Some(ErrorKind::InvalidInput));
    assert_eq!(kind(ring.unregister_files()), Some(ErrorKind::InvalidInput));
    assert_eq!(read(&mut ring, file.index()), (4, *b"\x7fELF"));
}

#[test]
fn buffers_of_the_raw_interface() {
    let Some(mut ring) = common::ring(8) else { return };
    let zero = File::open("/dev/zero").unwrap();
    let mut memory = vec![1_u8; 8192];
    let part = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: 4096 };
    let pool = Pool::new(1, 4096).unwrap();
    let mut fill = |ring: &mut Ring, index: u16| {
        memory[0] = 1;
        // SAFETY: the buffer outlives the wait.
        unsafe { ring.get_sqe().unwrap().prep_read_fixed(zero.as_raw_fd(), memory.as_mut_ptr(), 64, 0, index) };
        (next(ring).1, memory[0])
    };
    // SAFETY: the memory outlives the ring's entries.
    unsafe {
        ring.register_buffers_tags(&[part], &[UserData::from(7)]).unwrap();
        assert_eq!(fill(&mut ring, 0), (64, 0));
        let error = ring.register_pool(&pool).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("unregister_buffers"), "{error}");
        assert_eq!(kind(ring.register_buffers(&[part])), Some(ErrorKind::Busy));
        assert_eq!(kind(ring.register_buffers_tags(&[part], &[])), Some(ErrorKind::InvalidInput));
        assert_eq!(ring.register_buffers_update_tag(0, &[part], &[UserData::from(8)]).unwrap(), 1);
        assert_eq!(next(&mut ring), (7, 0), "the buffer is not used any more");
        ring.unregister_buffers().unwrap();
        // Kernels that have no list of the users of each buffer say nothing of buffers that go all at once.
        ring.submit_and_wait_timeout(1, Duration::from_secs(2)).unwrap();
        match ring.completions().next() {
            Some(Completion::Raw(cqe)) => assert_eq!((cqe.user_data(), cqe.raw_result()), (8, 0)),
            None => common::skip(
                "the kernel does not say when buffers that were unregistered all at once are not used any more",
            ),
            other => panic!("{other:?}"),
        }
        assert_eq!(kind(ring.unregister_buffers()), Some(ErrorKind::InvalidInput));

        if can("empty tables", ring.register_buffers_sparse(4)).is_some() {
            assert_eq!(fill(&mut ring, 2).0, -libc::EFAULT);
            assert_eq!(ring.register_buffers_update_tag(2, &[part], &[UserData::default()]).unwrap(), 1);
            assert_eq!(fill(&mut ring, 2), (64, 0));
            #[cfg(liburing_2_8)]
            {
                let mut other = common::ring(8).unwrap();
                if can("cloning", other.clone_buffers(&ring)).is_some() {
                    assert_eq!(fill(&mut other, 2), (64, 0));
                    assert_eq!(kind(other.clone_buffers(&ring)), Some(ErrorKind::Busy));
                    #[cfg(liburing_2_9)]
                    if can("replacing", other.clone_buffers_offset(&ring, 0, 2, 1, true)).is_some() {
                        assert_eq!(fill(&mut other, 0), (64, 0));
                    }
                    other.unregister_buffers().unwrap();
                    let mut third = common::ring(8).unwrap();
                    third.register_pool(&pool).unwrap();
                    #[cfg(liburing_2_9)]
                    assert_eq!(
                        kind(third.clone_buffers_offset(&ring, 0, 2, 1, true)),
                        Some(ErrorKind::Busy),
                        "no pool is replaced"
                    );
                    assert_eq!(kind(third.clone_buffers(&ring)), Some(ErrorKind::Busy));
                }
            }
            ring.unregister_buffers().unwrap();
        }
        // The table of the safe interface is not touched.
        ring.register_pool(&pool).unwrap();
        assert_eq!(kind(ring.register_buffers_tags(&[part], &[UserData::default()])), Some(ErrorKind::Busy));
        let update = ring.register_buffers_update_tag(0, &[part], &[UserData::default()]);
        assert_eq!(kind(update), Some(ErrorKind::InvalidInput));
        assert_eq!(kind(ring.unregister_buffers()), Some(ErrorKind::InvalidInput));
    }
}

#[test]
fn an_eventfd_counts_completions() {
    let Some(mut ring) = common::ring(8) else { return };
    // SAFETY: a descriptor that nobody else owns.
    let eventfd = unsafe { File::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)) };
    let counted = |ring: &mut Ring| {
        ring.get_sqe().unwrap().prep_nop();
        next(ring);
        let mut bytes = [0; 8];
        (&eventfd).read(&mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    };
    ring.register_eventfd(&eventfd).unwrap();
    assert_eq!(kind(ring.register_eventfd(&eventfd)), Some(ErrorKind::Busy));
    assert_eq!(counted(&mut ring), 1);
    assert!(ring.cq_eventfd_enabled());
    ring.cq_eventfd_toggle(false).unwrap();
    assert!(!ring.cq_eventfd_enabled());
    assert_eq!(counted(&mut ring), 0);
    ring.cq_eventfd_toggle(true).unwrap();
    ring.unregister_eventfd().unwrap();
    ring.register_eventfd_async(&eventfd).unwrap();
    assert_eq!(counted(&mut ring), 0, "completed at once");
    ring.unregister_eventfd().unwrap();
    assert_eq!(ring.unregister_eventfd().unwrap_err().raw_os_error(), Some(libc::ENXIO));
}

#[test]
fn the_descriptor_is_registered_and_closed() {
    let Some(mut ring) = common::ring(8) else { return };
    if can("registered rings", ring.register_ring_fd()).is_none() {
        return;
    }
    ring.nop().unwrap();
    ring.submit_and_wait(1).unwrap();
    assert!(ring.completions().next().is_some());
    assert_eq!(kind(ring.register_ring_fd()), Some(ErrorKind::AlreadyExists));
    ring.unregister_ring_fd().unwrap();
    #[cfg(liburing_2_4)]
    {
        assert!(ring.close_ring_fd().is_err(), "not registered");
        ring.register_ring_fd().unwrap();
        if can("closed rings", ring.close_ring_fd()).is_none() {
            return;
        }
        // SAFETY: the ring is set up; its descriptor is a plain field.
        assert_eq!(unsafe { (*ring.as_raw()).ring_fd }, -1);
        // Everything else works on, the safe interface's registrations among it.
        let file = ring.register_file(&File::open("/proc/self/exe").unwrap()).unwrap();
        let pool = Pool::new(1, 64).unwrap();
        ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
        ring.submit_and_wait(1).unwrap();
        let done = ring.completions().find_map(Completion::into_done).unwrap();
        assert_eq!(done.result().unwrap(), 64);
        assert_eq!(kind(ring.unregister_ring_fd()), Some(ErrorKind::InvalidInput));
        ring.nop().unwrap();
        drop(file);
        ring.submit_and_wait(1).unwrap();
    }
}

#[test]
fn credentials_processors_and_workers() {
    let Some(mut ring) = common::ring(8) else { return };
    let personality = ring.register_personality().unwrap();
    ring.get_sqe().unwrap().prep_nop().set_personality(personality);
    assert_eq!(next(&mut ring).1, 0);
    ring.unregister_personality(personality).unwrap();
    assert_eq!(ring.unregister_personality(personality).unwrap_err().raw_os_error(), Some(libc::EINVAL));

    // SAFETY: an empty set, to which a processor of this program is added.
    let processors = unsafe {
        let mut processors = std::mem::zeroed::<libc::cpu_set_t>();
        assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut processors), 0);
        processors
    };
    ring.register_iowq_aff(&processors).unwrap();
    ring.unregister_iowq_aff().unwrap();
    let before = ring.register_iowq_max_workers([2, 3]).unwrap();
    assert!(before.iter().all(|most| *most > 0), "{before:?}");
    assert_eq!(ring.register_iowq_max_workers([0, 0]).unwrap(), [2, 3]);

    #[cfg(liburing_2_6)]
    {
        // SAFETY: all zeroes is a value of this plain structure.
        let mut napi = unsafe { std::mem::zeroed::<sys::io_uring_napi>() };
        napi.busy_poll_to = 50;
        if can("polling of network devices", ring.register_napi(&mut napi)).is_some() {
            ring.unregister_napi(&mut napi).unwrap();
            assert_eq!(napi.busy_poll_to, 50);
        }
    }
    #[cfg(liburing_2_8)]
    can("clocks", ring.register_clock(libc::CLOCK_BOOTTIME));
    #[cfg(liburing_2_10)]
    can("iowait", ring.set_iowait(false));
    assert!(ring.opcode_supported(sys::IORING_OP_NOP as u8).unwrap());
    assert!(!ring.opcode_supported(255).unwrap());
}

#[test]
fn a_restricted_ring_does_what_is_listed() {
    let Some(_) = common::ring(1) else { return };
    let mut disabled = Ring::builder(8).build_disabled().unwrap();
    // SAFETY: all zeroes is a value of this plain structure.
    let mut only = unsafe { std::mem::zeroed::<sys::io_uring_restriction>() };
    only.opcode = sys::IORING_RESTRICTION_SQE_OP as u16;
    only.__bindgen_anon_1.sqe_op = sys::IORING_OP_NOP as u8;
    // Linux 7.3: what is not listed at all is not restricted: of the registrations, one is.
    // SAFETY: as above.
    let mut asking = unsafe { std::mem::zeroed::<sys::io_uring_restriction>() };
    asking.opcode = sys::IORING_RESTRICTION_REGISTER_OP as u16;
    asking.__bindgen_anon_1.register_op = sys::IORING_REGISTER_PROBE as u8;
    disabled.register_restrictions(&[only, asking]).unwrap();
    assert_eq!(kind(disabled.register_restrictions(&[only])), Some(ErrorKind::Busy));
    let mut ring = disabled.enable().unwrap();
    ring.get_sqe().unwrap().prep_nop();
    assert_eq!(next(&mut ring).1, 0);
    ring.get_sqe().unwrap().prep_cancel64(UserData::from(1), 0);
    assert_eq!(next(&mut ring).1, -libc::EACCES);
    let error = ring.register_files(&[None]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    // The safe interface as well, and what it was given comes back.
    let pool = Pool::new(1, 64).unwrap();
    let zero = std::sync::Arc::new(std::os::fd::OwnedFd::from(File::open("/dev/zero").unwrap()));
    ring.read(&zero, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit_and_wait(1).unwrap();
    let done = ring.completions().find_map(Completion::into_done).unwrap();
    assert_eq!(kind(done.result()), Some(ErrorKind::PermissionDenied));
    drop(done);
    assert!(pool.lease().is_some());
}

#[test]
fn a_restricted_ring_ends_its_operations_one_by_one() {
    let Some(_) = common::ring(1) else { return };
    let mut disabled = Ring::builder(8).drop_limit(Duration::from_secs(20)).build_disabled().unwrap();
    let only = [sys::IORING_OP_TIMEOUT, sys::IORING_OP_ASYNC_CANCEL].map(|operation| {
        // SAFETY: all zeroes is a value of this plain structure.
        let mut only = unsafe { std::mem::zeroed::<sys::io_uring_restriction>() };
        only.opcode = sys::IORING_RESTRICTION_SQE_OP as u16;
        only.__bindgen_anon_1.sqe_op = operation as u8;
        only
    });
    disabled.register_restrictions(&only).unwrap();
    let mut ring = disabled.enable().unwrap();
    ring.timeout(Duration::from_secs(1000)).unwrap();
    ring.submit().unwrap();
    let start = std::time::Instant::now();
    drop(ring);
    assert!(start.elapsed() < Duration::from_secs(10), "it waited for what it was not to wait for");
}

#[test]
fn cancelling_waits_and_leaves_completions() {
    let Some(mut ring) = common::ring(8) else { return };
    let (reader, _writer) = common::pipe();
    // SAFETY: the pipe outlives the entry.
    let poll = unsafe { ring.get_sqe().unwrap().prep_poll_add(reader.as_raw_fd(), libc::POLLIN as u32) };
    poll.set_data64(UserData::from(7));
    let pool = Pool::new(1, 64).unwrap();
    let file = ring.register_file(&reader).unwrap();
    let ticket = ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
    ring.submit().unwrap();
    let limit = Some(Duration::from_secs(10));
    if can("cancelling", ring.register_sync_cancel(UserData::from(7), -1, 0, limit)).is_none() {
        return;
    }
    assert_eq!(next(&mut ring), (7, -libc::ECANCELED));
    assert_eq!(kind(ring.register_sync_cancel(UserData::from(7), -1, 0, limit)), Some(ErrorKind::NotFound));
    // An operation of the safe interface ends as well, and gives back what it was lent.
    assert!(pool.lease().is_none());
    let any = sys::IORING_ASYNC_CANCEL_ANY;
    ring.register_sync_cancel(UserData::default(), -1, any, None).unwrap();
    let done = ring.completions().find_map(Completion::into_done).unwrap();
    assert_eq!(done.ticket(), ticket);
    assert_eq!(kind(done.result()), Some(ErrorKind::Cancelled));
    drop(done);
    assert!(pool.lease().is_some());
}

#[cfg(liburing_2_4)]
#[test]
fn rings_of_buffers_come_and_go() {
    let Some(mut ring) = common::ring(8) else { return };
    let Some(buffers) = can("rings of buffers", ring.setup_buf_ring(4, 3, 0)) else { return };
    assert_eq!(kind(ring.setup_buf_ring(4, 3, 0)), Some(ErrorKind::AlreadyExists));
    let (reader, mut writer) = common::pipe();
    let mut memory = [0_u8; 64];
    // SAFETY: the memory outlives the buffer ring, which has four places.
    unsafe {
        let mask = sys::io_uring_buf_ring_mask(4);
        sys::io_uring_buf_ring_add(buffers.as_ptr(), memory.as_mut_ptr().cast(), 64, 9, mask, 0);
        sys::io_uring_buf_ring_advance(buffers.as_ptr(), 1);
        writer.write_all(b"chosen").unwrap();
        let read = ring.get_sqe().unwrap().prep_read(reader.as_raw_fd(), std::ptr::null_mut(), 64, u64::MAX);
        read.set_flags(SqeFlags::BUFFER_SELECT).set_buf_group(3);
    }
    assert_eq!(next(&mut ring).1, 6);
    assert_eq!(&memory[..6], b"chosen");
    #[cfg(liburing_2_6)]
    if let Some(head) = can("heads of rings of buffers", ring.buf_ring_head(3)) {
        assert_eq!(head, 1);
    }
    // The group is not of the older kind.
    ring.get_sqe().unwrap().prep_remove_buffers(1, 3);
    assert_eq!(next(&mut ring).1, -libc::EINVAL);
    // SAFETY: made above, and not used any more.
    unsafe { ring.free_buf_ring(buffers, 4, 3) }.unwrap();
}

#[test]
fn a_ring_of_buffers_in_memory_of_the_caller() {
    let Some(mut ring) = common::ring(8) else { return };
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let mut page = Box::new(Page([0; 4096]));
    let mut memory = [0_u8; 64];
    let (reader, mut writer) = common::pipe();
    writer.write_all(b"own").unwrap();
    // SAFETY: page and memory outlive the registration.
    unsafe {
        let buffers = page.0.as_mut_ptr().cast::<sys::io_uring_buf_ring>();
        let mut registration = std::mem::zeroed::<sys::io_uring_buf_reg>();
        (registration.ring_addr, registration.ring_entries, registration.bgid) = (buffers as u64, 4, 7);
        if can("rings of buffers", ring.register_buf_ring(&mut registration, 0)).is_none() {
            return;
        }
        sys::io_uring_buf_ring_init(buffers);
        sys::io_uring_buf_ring_add(buffers, memory.as_mut_ptr().cast(), 64, 9, sys::io_uring_buf_ring_mask(4), 0);
        sys::io_uring_buf_ring_advance(buffers, 1);
        let read = ring.get_sqe().unwrap().prep_read(reader.as_raw_fd(), std::ptr::null_mut(), 64, u64::MAX);
        read.set_flags(SqeFlags::BUFFER_SELECT).set_buf_group(7);
        assert_eq!(next(&mut ring).1, 3);
        assert_eq!(&memory[..3], b"own");
        ring.unregister_buf_ring(7).unwrap();
        // Linux 6.1 still knows the group.
        let again = kind(ring.unregister_buf_ring(7));
        assert!(matches!(again, Some(ErrorKind::NotFound | ErrorKind::InvalidInput)), "{again:?}");
    }
}

/// What makes no sense is the kernel's to refuse: the call reached it.
#[cfg(liburing_2_9)]
#[test]
fn regions_and_queues_are_checked_by_the_kernel() {
    let Some(mut ring) = common::ring(8) else { return };
    // SAFETY: all zeroes describes nothing, and is refused.
    unsafe {
        assert!(ring.register_region(&mut std::mem::zeroed()).is_err());
        assert!(ring.register_wait_reg(std::ptr::null_mut(), 1).is_err());
        #[cfg(liburing_2_10)]
        assert!(ring.register_ifq(&mut std::mem::zeroed()).is_err());
        #[cfg(liburing_2_15)]
        {
            assert!(ring.register_zcrx_ctrl(&mut std::mem::zeroed()).is_err());
            assert!(ring.register_bpf_filter(&mut std::mem::zeroed()).is_err());
        }
    }
}

#[test]
fn the_state_of_the_queues() {
    let Some(mut ring) = common::ring(4) else { return };
    assert_eq!((ring.sq_ready(), ring.sq_space_left(), ring.cq_ready()), (0, 4, 0));
    ring.get_sqe().unwrap().prep_nop();
    assert_eq!((ring.sq_ready(), ring.sq_space_left()), (1, 3));
    ring.submit().unwrap();
    assert_eq!((ring.sq_ready(), ring.cq_ready()), (0, 1));
    assert!(!ring.cq_has_overflow());
    for _ in 0..2 * ring.cq_entries() {
        ring.get_sqe().unwrap().prep_nop();
        ring.submit().unwrap();
    }
    assert!(ring.cq_has_overflow(), "raw entries are the caller's to count");
    assert_eq!(ring.completions().count(), 8);
}

#[test]
fn tables_of_the_safe_interface_with_nothing_in_them_make_room_for_raw_ones() {
    let Some(mut ring) = common::ring(8) else { return };
    let zero = File::open("/dev/zero").unwrap();
    let (pool, memory) = (Pool::new(1, 4096).unwrap(), Pool::new(1, 4096).unwrap());
    let mut memory = memory.lease().unwrap();
    let vector = [libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: 4096 }];
    for _ in 0..3 {
        ring.register_pool(&pool).unwrap();
        // SAFETY: the memory outlives the ring's use of it.
        let error = unsafe { ring.register_buffers(&vector) }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("unregister_pool"), "{error}");
        ring.unregister_pool(&pool).unwrap();
        // The kernel may wait for what is in flight, and on some versions for ever.
        let (reader, mut writer) = common::pipe();
        ring.poll(&Arc::new(OwnedFd::from(reader)), libc::POLLIN as u32).unwrap();
        ring.submit().unwrap();
        // SAFETY: as above.
        match unsafe { ring.register_buffers(&vector) } {
            // Before Linux 5.19 a pool was the whole table, which is gone.
            Ok(()) => assert!(!common::is_kernel(5, 19)),
            Err(error) => assert!(error.to_string().contains("in flight"), "{error}"),
        }
        writer.write_all(b"x").unwrap();
        common::finish_one(&mut ring).result().unwrap();
        if common::is_kernel(5, 19) {
            // SAFETY: as above.
            unsafe { ring.register_buffers(&vector) }.unwrap();
        }
        ring.unregister_buffers().unwrap();
        ring.register_pool(&pool).unwrap();
        ring.unregister_pool(&pool).unwrap();
        if can("empty tables", ring.register_buffers_sparse(4)).is_some() {
            ring.unregister_buffers().unwrap();
        }

        let file = ring.register_file(&zero).unwrap();
        let error = ring.register_files(&[None]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("register_file"), "{error}");
        drop(file);
        ring.register_files(&[Some(zero.as_fd())]).unwrap();
        ring.unregister_files().unwrap();
    }
}

#[test]
fn an_eventfd_would_be_counted_in_before_there_is_one() {
    let Some(mut ring) = common::ring(8) else { return };
    assert!(ring.cq_eventfd_enabled(), "as in C");
    if can("switching", ring.cq_eventfd_toggle(false)).is_some() {
        assert!(!ring.cq_eventfd_enabled());
    }
}
