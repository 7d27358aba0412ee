//! A kernel that refuses: system calls that fail in this thread and in those that it starts, by a seccomp filter, and limits.
//! For processes of their own only: nothing of this can be taken back.

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn install(mut filter: Vec<sock_filter>) {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter is read during the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// Makes system calls fail with `errno`.
pub fn deny(calls: &[libc::c_long], errno: i32) {
    let mut filter = vec![statement(BPF_LD | BPF_W | BPF_ABS, 0)];
    for call in calls {
        // Over the next statement, where it is another one.
        filter.push(sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt: 0, jf: 1, k: *call as u32 });
        filter.push(statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    filter.push(statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW));
    install(filter);
}

/// No io_uring.
pub fn deny_rings(errno: i32) {
    deny(&[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register], errno);
}

/// Makes every open with O_DIRECT fail as on a file system that has none.
pub fn deny_direct() {
    // The low half of the third argument, which follows the number, the architecture, the address and two arguments.
    let flags = 32 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let jump =
        |condition: u32, k: u32, jf: u8| sock_filter { code: (BPF_JMP | condition | BPF_K) as u16, jt: 0, jf, k };
    install(vec![
        statement(BPF_LD | BPF_W | BPF_ABS, 0),
        jump(BPF_JEQ, libc::SYS_openat as u32, 3),
        statement(BPF_LD | BPF_W | BPF_ABS, flags),
        jump(BPF_JSET, libc::O_DIRECT as u32, 1),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW),
    ]);
}

pub fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the limit is read during the call.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// As [`limit`], and the limit can be raised again; gives the one before.
pub fn soft_limit(resource: libc::__rlimit_resource_t, value: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is written, and then read, during the calls.
    unsafe {
        assert_eq!(libc::getrlimit(resource, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, value);
        assert_eq!(libc::setrlimit(resource, &raw const limit), 0);
        before
    }
}

/// Becomes an ordinary user, whom limits bind; `false` where that can't be.
pub fn become_ordinary() -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::setgid(65532) | libc::setuid(65532) == 0 }
}
