//! What the kernel's io_uring can do, found out by asking it.

use crate::Unavailable;

/// The features, setup flags and operations of the kernel that runs.
///
/// The names are those of the C header: `IORING_FEAT_NODROP`, `IORING_SETUP_SQPOLL`, `IORING_OP_READ`. What the header is
/// too old to know is told all the same: the numbers are the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Probe {
    /// `IORING_FEAT_*` that a new ring reports.
    pub features: Vec<&'static str>,
    /// `IORING_SETUP_*`, and whether a ring can be made with it.
    pub setup_flags: Vec<(&'static str, bool)>,
    /// `IORING_OP_*`, and whether the kernel has it.
    pub operations: Vec<(&'static str, bool)>,
}

impl Probe {
    /// Asks the kernel; makes a ring for each setup flag, which takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// Why there is no ring to ask.
    #[cfg(not(uring))]
    pub fn get() -> Result<Self, Unavailable> {
        Err(Unavailable::not_built())
    }

    /// Asks the kernel; makes a ring for each setup flag, which takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// Why there is no ring to ask.
    #[cfg(uring)]
    pub fn get() -> Result<Self, Unavailable> {
        linux::probe()
    }
}

#[cfg(uring)]
mod linux {
    use std::ptr::NonNull;

    use liburing_sys as sys;

    use super::Probe;
    use crate::raw_ring::{RawRing, SetupError};
    use crate::{Unavailable, available};

    /// By bit.
    const FEATURES: &[&str] = &[
        "IORING_FEAT_SINGLE_MMAP",
        "IORING_FEAT_NODROP",
        "IORING_FEAT_SUBMIT_STABLE",
        "IORING_FEAT_RW_CUR_POS",
        "IORING_FEAT_CUR_PERSONALITY",
        "IORING_FEAT_FAST_POLL",
        "IORING_FEAT_POLL_32BITS",
        "IORING_FEAT_SQPOLL_NONFIXED",
        "IORING_FEAT_EXT_ARG",
        "IORING_FEAT_NATIVE_WORKERS",
        "IORING_FEAT_RSRC_TAGS",
        "IORING_FEAT_CQE_SKIP",
        "IORING_FEAT_LINKED_FILE",
        "IORING_FEAT_REG_REG_RING",
        "IORING_FEAT_RECVSEND_BUNDLE",
        "IORING_FEAT_MIN_TIMEOUT",
        "IORING_FEAT_RW_ATTR",
        "IORING_FEAT_NO_IOWAIT",
    ];

    /// By name, with what each needs beside itself.
    const SETUP_FLAGS: &[(&str, u32)] = &[
        ("IORING_SETUP_IOPOLL", 1 << 0),
        ("IORING_SETUP_SQPOLL", 1 << 1),
        ("IORING_SETUP_SQ_AFF", 1 << 2 | 1 << 1),
        ("IORING_SETUP_CQSIZE", 1 << 3),
        ("IORING_SETUP_CLAMP", 1 << 4),
        ("IORING_SETUP_R_DISABLED", 1 << 6),
        ("IORING_SETUP_SUBMIT_ALL", 1 << 7),
        ("IORING_SETUP_COOP_TASKRUN", 1 << 8),
        ("IORING_SETUP_TASKRUN_FLAG", 1 << 9 | 1 << 8),
        ("IORING_SETUP_SQE128", 1 << 10),
        ("IORING_SETUP_CQE32", 1 << 11),
        ("IORING_SETUP_SINGLE_ISSUER", 1 << 12),
        ("IORING_SETUP_DEFER_TASKRUN", 1 << 13 | 1 << 12),
        ("IORING_SETUP_NO_SQARRAY", 1 << 16),
        ("IORING_SETUP_HYBRID_IOPOLL", 1 << 17 | 1 << 0),
    ];

    /// By number.
    const OPERATIONS: &[&str] = &[
        "IORING_OP_NOP",
        "IORING_OP_READV",
        "IORING_OP_WRITEV",
        "IORING_OP_FSYNC",
        "IORING_OP_READ_FIXED",
        "IORING_OP_WRITE_FIXED",
        "IORING_OP_POLL_ADD",
        "IORING_OP_POLL_REMOVE",
        "IORING_OP_SYNC_FILE_RANGE",
        "IORING_OP_SENDMSG",
        "IORING_OP_RECVMSG",
        "IORING_OP_TIMEOUT",
        "IORING_OP_TIMEOUT_REMOVE",
        "IORING_OP_ACCEPT",
        "IORING_OP_ASYNC_CANCEL",
        "IORING_OP_LINK_TIMEOUT",
        "IORING_OP_CONNECT",
        "IORING_OP_FALLOCATE",
        "IORING_OP_OPENAT",
        "IORING_OP_CLOSE",
        "IORING_OP_FILES_UPDATE",
        "IORING_OP_STATX",
        "IORING_OP_READ",
        "IORING_OP_WRITE",
        "IORING_OP_FADVISE",
        "IORING_OP_MADVISE",
        "IORING_OP_SEND",
        "IORING_OP_RECV",
        "IORING_OP_OPENAT2",
        "IORING_OP_EPOLL_CTL",
        "IORING_OP_SPLICE",
        "IORING_OP_PROVIDE_BUFFERS",
        "IORING_OP_REMOVE_BUFFERS",
        "IORING_OP_TEE",
        "IORING_OP_SHUTDOWN",
        "IORING_OP_RENAMEAT",
        "IORING_OP_UNLINKAT",
        "IORING_OP_MKDIRAT",
        "IORING_OP_SYMLINKAT",
        "IORING_OP_LINKAT",
        "IORING_OP_MSG_RING",
        "IORING_OP_FSETXATTR",
        "IORING_OP_SETXATTR",
        "IORING_OP_FGETXATTR",
        "IORING_OP_GETXATTR",
        "IORING_OP_SOCKET",
        "IORING_OP_URING_CMD",
        "IORING_OP_SEND_ZC",
        "IORING_OP_SENDMSG_ZC",
        "IORING_OP_READ_MULTISHOT",
        "IORING_OP_WAITID",
        "IORING_OP_FUTEX_WAIT",
        "IORING_OP_FUTEX_WAKE",
        "IORING_OP_FUTEX_WAITV",
        "IORING_OP_FIXED_FD_INSTALL",
        "IORING_OP_FTRUNCATE",
        "IORING_OP_BIND",
        "IORING_OP_LISTEN",
        "IORING_OP_RECV_ZC",
        "IORING_OP_EPOLL_WAIT",
        "IORING_OP_READV_FIXED",
        "IORING_OP_WRITEV_FIXED",
        "IORING_OP_PIPE",
        "IORING_OP_NOP128",
        "IORING_OP_URING_CMD128",
    ];

    pub(super) fn probe() -> Result<Probe, Unavailable> {
        available()?;
        let ring = ring_with(0).map_err(|error| match error {
            SetupError::Unavailable(reason) => reason,
            SetupError::Errno(errno) => Unavailable::from_errno("io_uring_setup", errno),
        })?;
        let features = ring.features();
        let has_feature = |bit: &usize| features >> bit & 1 != 0;
        let can_setup = |&(name, flags)| (name, ring_with(flags).is_ok());
        let operations = operations(&ring);
        Ok(Probe {
            features: (0..FEATURES.len()).filter(has_feature).map(|bit| FEATURES[bit]).collect(),
            setup_flags: SETUP_FLAGS.iter().map(can_setup).collect(),
            operations: OPERATIONS
                .iter()
                .enumerate()
                .map(|(number, name)| (*name, operations.contains(&(number as u8))))
                .collect(),
        })
    }

    fn ring_with(flags: u32) -> Result<RawRing, SetupError> {
        // SAFETY: all zeroes is a value of this C structure.
        let mut params = unsafe { std::mem::zeroed::<sys::io_uring_params>() };
        params.flags = flags;
        params.cq_entries = if flags & sys::IORING_SETUP_CQSIZE != 0 { 8 } else { 0 };
        RawRing::new(4, &mut params, None)
    }

    /// The numbers of the operations that the kernel has; none where it can't be asked (a filter forbids it).
    fn operations(ring: &RawRing) -> Vec<u8> {
        // SAFETY: the ring is set up and ours.
        let Some(probe) = NonNull::new(unsafe { sys::io_uring_get_probe_ring(ring.raw()) }) else { return Vec::new() };
        // SAFETY: liburing allocated it, and the kernel filled in `ops_len` operations.
        let known = unsafe {
            let count = (*probe.as_ptr()).ops_len as usize;
            let first = (&raw const (*probe.as_ptr()).ops).cast::<sys::io_uring_probe_op>();
            std::slice::from_raw_parts(first, count)
        };
        let supported = known.iter().filter(|operation| u32::from(operation.flags) & sys::IO_URING_OP_SUPPORTED != 0);
        let numbers = supported.map(|operation| operation.op).collect();
        // SAFETY: allocated by liburing, and given back once; `known` is not used any more.
        unsafe { sys::io_uring_free_probe(probe.as_ptr()) };
        numbers
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn names_stand_at_their_numbers() {
            for (name, number) in [
                ("IORING_OP_NOP", sys::IORING_OP_NOP),
                ("IORING_OP_ASYNC_CANCEL", sys::IORING_OP_ASYNC_CANCEL),
                ("IORING_OP_READ", sys::IORING_OP_READ),
                ("IORING_OP_URING_CMD", sys::IORING_OP_URING_CMD),
                ("IORING_OP_SENDMSG_ZC", sys::IORING_OP_SENDMSG_ZC),
            ] {
                assert_eq!(OPERATIONS[number as usize], name);
            }
            assert_eq!(FEATURES[sys::IORING_FEAT_LINKED_FILE.ilog2() as usize], "IORING_FEAT_LINKED_FILE");
            for (name, flag) in [
                ("IORING_SETUP_SQE128", sys::IORING_SETUP_SQE128),
                ("IORING_SETUP_SINGLE_ISSUER", sys::IORING_SETUP_SINGLE_ISSUER),
            ] {
                assert!(SETUP_FLAGS.contains(&(name, flag)));
            }
        }
    }
}
