//! Attacks on R4: every way in which a completion with a chosen `user_data` can be made, each against an operation in flight
//! that owns a lease. The lease must not come back before the operation's own completion.
//!
//! A completion that comes late, twice, or after its slot was used again: `table::tests` and `model`.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;

use sysuring::{Completion, Operations as _, Pool, Ring, Ticket, UserData, sys};

use crate::common;

/// A ring with a read in flight that ends when something is written, and what the read's `user_data` is made of.
struct Target {
    ring: Ring,
    pool: Pool,
    writer: File,
    ticket: Ticket,
    /// The number that the operation carries, tag included.
    user_data: u64,
}

impl Target {
    fn new() -> Option<Self> {
        let mut ring = common::ring(8)?;
        let (reader, writer) = common::pipe();
        let file = ring.register_file(&reader).unwrap();
        let pool = Pool::new(1, 64).unwrap();
        let ticket = ring.read(&file, pool.lease().unwrap(), 64, 0).unwrap();
        // SAFETY: looks at the entry that was filled in just now, which is the first of the queue.
        let user_data = unsafe { (*(*ring.as_raw()).sq.sqes).user_data };
        assert_eq!(user_data >> 62, 1, "the tag of the safe interface");
        ring.submit().unwrap();
        // The ring has the descriptor; the file stays registered for as long as the operation lasts.
        drop(file);
        Some(Self { ring, pool, writer, ticket, user_data })
    }

    /// The same number without the tag: as near as the raw interface gets.
    fn without_tag(&self) -> UserData {
        assert!(UserData::new(self.user_data).is_none(), "a number with our tag is no raw one");
        UserData::new(self.user_data & (u64::MAX >> 2)).unwrap()
    }

    /// What came: never the read, before it ended.
    fn must_not_have_ended(&mut self) -> Vec<(u64, i32, u32)> {
        let mut raw = Vec::new();
        for completion in self.ring.completions() {
            match completion {
                Completion::Raw(cqe) => raw.push((cqe.user_data(), cqe.raw_result(), cqe.flags())),
                other => panic!("forged: {other:?}"),
            }
        }
        assert!(self.pool.lease().is_none(), "the kernel has the lease");
        raw
    }

    /// The read's own completion comes once, with what was written.
    fn ends_by_itself(mut self) {
        self.must_not_have_ended();
        self.writer.write_all(b"by itself").unwrap();
        let done = loop {
            self.ring.submit_and_wait(1).unwrap();
            if let Some(done) = self.ring.completions().find_map(Completion::into_done) {
                break done;
            }
        };
        assert_eq!((done.ticket(), done.raw_result()), (self.ticket, 9));
        assert_eq!(done.into_buf().unwrap()[..9], *b"by itself");
        assert_eq!(self.ring.in_flight(), 0);
    }
}

#[test]
fn by_a_raw_entry_with_the_same_number() {
    let Some(mut target) = Target::new() else { return };
    let data = target.without_tag();
    target.ring.get_sqe().unwrap().prep_nop().set_data64(data);
    target.ring.submit_and_wait(1).unwrap();
    assert_eq!(target.must_not_have_ended(), [(data.get(), 0, 0)]);
    target.ends_by_itself();
}

#[test]
fn by_a_message_with_result_and_flags() {
    let Some(mut target) = Target::new() else { return };
    let data = target.without_tag();
    let mut sender = Ring::with_entries(4).unwrap();
    // SAFETY: the target is a ring of this crate, and stays open.
    unsafe { sender.get_sqe().unwrap().prep_msg_ring((*target.ring.as_raw()).ring_fd, 64, data, 0) };
    #[cfg(liburing_2_4)]
    // SAFETY: as above.
    unsafe {
        let descriptor = (*target.ring.as_raw()).ring_fd;
        sender.get_sqe().unwrap().prep_msg_ring_cqe_flags(descriptor, 64, data, 0, sys::IORING_CQE_F_BUFFER);
    }
    let sent = sender.submit_and_wait(1).unwrap();
    for completion in sender.completions() {
        if let Completion::Raw(cqe) = completion {
            if cqe.raw_result() < 0 {
                return common::skip(format_args!("no messages between rings: {}", cqe.result().unwrap_err()));
            }
        }
    }
    target.ring.submit().unwrap();
    let raw = target.must_not_have_ended();
    assert!(!raw.is_empty() && raw.len() <= sent as usize, "{raw:?}");
    assert!(raw.iter().all(|(user_data, result, _)| (*user_data, *result) == (data.get(), 64)), "{raw:?}");
    target.ends_by_itself();
}

#[test]
fn by_giving_an_operation_another_number() {
    let Some(mut target) = Target::new() else { return };
    let data = target.without_tag();
    // Neither the read nor a poll of the safe interface can be found by what a raw entry can say.
    let flags = sys::IORING_POLL_UPDATE_USER_DATA;
    target.ring.get_sqe().unwrap().prep_poll_update(data, data, 0, flags).set_data64(UserData::from(5));
    target.ring.submit_and_wait(1).unwrap();
    let raw = target.must_not_have_ended();
    assert!(matches!(raw[..], [(5, result, 0)] if result < 0), "{raw:?}");
    // One of the raw interface is renamed, and stays raw.
    let (reader, mut writer) = common::pipe();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&reader);
    // SAFETY: the pipe is open until the end of the test.
    let poll = unsafe { target.ring.get_sqe().unwrap().prep_poll_add(descriptor, libc::POLLIN as u32) };
    poll.set_data64(UserData::from(6));
    target.ring.submit().unwrap();
    target.ring.get_sqe().unwrap().prep_poll_update(UserData::from(6), data, 0, flags).set_data64(UserData::from(7));
    target.ring.submit_and_wait(1).unwrap();
    writer.write_all(b"x").unwrap();
    target.ring.submit_and_wait(1).unwrap();
    let raw = target.must_not_have_ended();
    assert!(raw.iter().all(|(user_data, ..)| [7, data.get(), 6].contains(user_data)), "{raw:?}");
    target.ends_by_itself();
}

#[test]
fn by_the_tag_of_a_registered_buffer() {
    let Some(mut target) = Target::new() else { return };
    let data = target.without_tag();
    let mut memory = vec![0_u8; 4096];
    let part = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
    // SAFETY: the memory lives until the end of the test, and no operation uses it.
    let registered = unsafe { target.ring.register_buffers_tags(&[part], &[data]) };
    if let Err(error) = registered {
        return common::skip(error);
    }
    // Its tag is a completion when it goes.
    // SAFETY: as above.
    unsafe { target.ring.register_buffers_update_tag(0, &[part], &[UserData::default()]) }.unwrap();
    target.ring.submit().unwrap();
    let raw = target.must_not_have_ended();
    assert!(raw.iter().all(|(user_data, ..)| *user_data == data.get()), "{raw:?}");
    target.ends_by_itself();
}

#[test]
fn by_the_tag_of_a_registered_file() {
    let Some(mut ring) = common::ring(8) else { return };
    // The table of files is the raw interface's, so that the operation is on a descriptor that it keeps.
    let (reader, writer) = common::pipe();
    let reader = std::sync::Arc::new(std::os::fd::OwnedFd::from(reader));
    let pool = Pool::new(1, 64).unwrap();
    let ticket = ring.read(&reader, pool.lease().unwrap(), 64, u64::MAX).unwrap();
    // SAFETY: looks at the first entry of the queue.
    let user_data = unsafe { (*(*ring.as_raw()).sq.sqes).user_data };
    ring.submit().unwrap();
    let mut target = Target { ring, pool, writer, ticket, user_data };
    let data = target.without_tag();
    let null = File::open("/dev/null").unwrap();
    if let Err(error) = target.ring.register_files_tags(&[Some(null.as_fd())], &[data]) {
        return common::skip(error);
    }
    target.ring.register_files_update_tag(0, &[None], &[UserData::default()]).unwrap();
    target.ring.submit().unwrap();
    let raw = target.must_not_have_ended();
    assert!(raw.iter().all(|(user_data, ..)| *user_data == data.get()), "{raw:?}");
    target.ends_by_itself();
}

#[test]
fn by_a_message_without_a_ring() {
    /// `IORING_REGISTER_SEND_MSG_RING`, which makes a message without a ring of one's own (since Linux 6.13).
    const SEND_MESSAGE: libc::c_uint = 31;

    let Some(mut target) = Target::new() else { return };
    let data = target.without_tag();
    // What the function of liburing sends: an entry with the message.
    // SAFETY: plain numbers.
    let mut entry = unsafe { std::mem::zeroed::<sys::io_uring_sqe>() };
    entry.opcode = sys::IORING_OP_MSG_RING as u8;
    // SAFETY: reads the descriptor's number.
    entry.fd = unsafe { (*target.ring.as_raw()).ring_fd };
    entry.len = 64;
    entry.__bindgen_anon_1.off = data.get();
    // SAFETY: the entry is read during the call; the message carries the raw tag, as the interface here makes it do.
    let sent = unsafe { libc::syscall(libc::SYS_io_uring_register, -1, SEND_MESSAGE, &raw mut entry, 1) };
    if sent < 0 {
        return common::skip(format_args!("no such messages: {}", std::io::Error::last_os_error()));
    }
    target.ring.submit().unwrap();
    assert_eq!(target.must_not_have_ended(), [(data.get(), 64, 0)]);
    target.ends_by_itself();
}
