//! What a controller says of a command that it did not carry out.

use std::fmt;

/// The status of an NVMe command that was refused, or failed: the numbers and words of the specification.
///
/// ```
/// use sysuring::block::nvme::{NvmeStatus, StatusType};
///
/// let status = NvmeStatus::from_raw(0x4080);
/// assert_eq!((status.status_type(), status.code()), (StatusType::Generic, 0x80));
/// assert!(status.do_not_retry());
/// assert_eq!(status.to_string(), "LBA out of range (generic status 0x80, not to be retried)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NvmeStatus(u16);

/// What the code of a status belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatusType {
    /// All commands have these.
    Generic,
    /// The meaning is the command's.
    CommandSpecific,
    /// The medium, or what protects the data.
    Media,
    /// The way to the namespace, or the namespace's state on it.
    Path,
    /// A type that the specification has no name for.
    Reserved(u8),
    /// The vendor's own.
    Vendor,
}

impl NvmeStatus {
    /// From the 15 bits of the status field, without the phase bit: as the kernel gives them.
    #[must_use]
    pub fn from_raw(status: u16) -> Self {
        Self(status & 0x7fff)
    }

    /// The 15 bits of the status field.
    #[must_use]
    pub fn raw(self) -> u16 {
        self.0
    }

    /// The type of the status (SCT).
    #[must_use]
    pub fn status_type(self) -> StatusType {
        match self.0 >> 8 & 7 {
            0 => StatusType::Generic,
            1 => StatusType::CommandSpecific,
            2 => StatusType::Media,
            3 => StatusType::Path,
            7 => StatusType::Vendor,
            other => StatusType::Reserved(other as u8),
        }
    }

    /// The code within the type (SC).
    #[must_use]
    pub fn code(self) -> u8 {
        self.0 as u8
    }

    /// The same command would fail again (DNR).
    #[must_use]
    pub fn do_not_retry(self) -> bool {
        self.0 & 1 << 14 != 0
    }

    /// The error log has more about it (M).
    #[must_use]
    pub fn more(self) -> bool {
        self.0 & 1 << 13 != 0
    }

    /// Which of the three delays of the controller (CRDT1 to CRDT3) to wait for before a retry (CRD); 0 for none.
    #[must_use]
    pub fn retry_delay(self) -> u8 {
        (self.0 >> 11 & 3) as u8
    }

    /// The specification's name of the code; `None` where it has none, and for what is the vendor's.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(number, _)| *number == self.0 & 0x7ff).map(|(_, name)| *name)
    }

    /// The number of the C library that comes closest.
    pub(crate) fn errno(self) -> i32 {
        match self.0 & 0x7ff {
            0x001 => libc::EOPNOTSUPP,
            0x015 | 0x286 => libc::EACCES,
            0x002 | 0x00b | 0x00d..=0x018 | 0x080 | 0x183 => libc::EINVAL,
            0x081 => libc::ENOSPC,
            0x01d | 0x082..=0x084 => libc::EBUSY,
            0x020 | 0x182 | 0x1ba => libc::EROFS,
            0x181 | 0x282..=0x285 => libc::EILSEQ,
            0x301..=0x303 => libc::ENOLINK,
            0x005 | 0x007..=0x00a | 0x371 => libc::ECANCELED,
            _ => libc::EIO,
        }
    }
}

impl fmt::Display for NvmeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.status_type() {
            StatusType::Generic => "generic status".to_owned(),
            StatusType::CommandSpecific => "command specific status".to_owned(),
            StatusType::Media => "media and data integrity error".to_owned(),
            StatusType::Path => "path related status".to_owned(),
            StatusType::Vendor => "vendor specific status".to_owned(),
            StatusType::Reserved(number) => format!("status of type {number}"),
        };
        let name = self.name().unwrap_or("the controller refuses");
        write!(f, "{name} ({kind} {:#04x}", self.code())?;
        if self.do_not_retry() {
            f.write_str(", not to be retried")?;
        }
        if self.more() {
            f.write_str(", the error log has more")?;
        }
        f.write_str(")")
    }
}

/// The names of NVM Express Base Specification 2.0, figures 94 to 98, and of the I/O command sets.
const NAMES: &[(u16, &str)] = &[
    (0x000, "successful completion"),
    (0x001, "invalid command opcode"),
    (0x002, "invalid field in command"),
    (0x003, "command ID conflict"),
    (0x004, "data transfer error"),
    (0x005, "commands aborted due to power loss notification"),
    (0x006, "internal error"),
    (0x007, "command abort requested"),
    (0x008, "command aborted due to SQ deletion"),
    (0x009, "command aborted due to failed fused command"),
    (0x00a, "command aborted due to missing fused command"),
    (0x00b, "invalid namespace or format"),
    (0x00c, "command sequence error"),
    (0x00d, "invalid SGL segment descriptor"),
    (0x00e, "invalid number of SGL descriptors"),
    (0x00f, "data SGL length invalid"),
    (0x010, "metadata SGL length invalid"),
    (0x011, "SGL descriptor type invalid"),
    (0x012, "invalid use of controller memory buffer"),
    (0x013, "PRP offset invalid"),
    (0x014, "atomic write unit exceeded"),
    (0x015, "operation denied"),
    (0x016, "SGL offset invalid"),
    (0x018, "host identifier inconsistent format"),
    (0x019, "keep alive timer expired"),
    (0x01a, "keep alive timeout invalid"),
    (0x01b, "command aborted due to preempt and abort"),
    (0x01c, "sanitize failed"),
    (0x01d, "sanitize in progress"),
    (0x01e, "SGL data block granularity invalid"),
    (0x01f, "command not supported for queue in CMB"),
    (0x020, "namespace is write protected"),
    (0x021, "command interrupted"),
    (0x022, "transient transport error"),
    (0x023, "command prohibited by command and feature lockdown"),
    (0x024, "admin command media not ready"),
    (0x080, "LBA out of range"),
    (0x081, "capacity exceeded"),
    (0x082, "namespace not ready"),
    (0x083, "reservation conflict"),
    (0x084, "format in progress"),
    (0x085, "invalid value size"),
    (0x086, "invalid key size"),
    (0x087, "KV key does not exist"),
    (0x088, "unrecovered error"),
    (0x089, "key exists"),
    (0x100, "completion queue invalid"),
    (0x101, "invalid queue identifier"),
    (0x102, "invalid queue size"),
    (0x103, "abort command limit exceeded"),
    (0x105, "asynchronous event request limit exceeded"),
    (0x106, "invalid firmware slot"),
    (0x107, "invalid firmware image"),
    (0x108, "invalid interrupt vector"),
    (0x109, "invalid log page"),
    (0x10a, "invalid format"),
    (0x10b, "firmware activation requires conventional reset"),
    (0x10c, "invalid queue deletion"),
    (0x10d, "feature identifier not saveable"),
    (0x10e, "feature not changeable"),
    (0x10f, "feature not namespace specific"),
    (0x110, "firmware activation requires NVM subsystem reset"),
    (0x111, "firmware activation requires controller level reset"),
    (0x112, "firmware activation requires maximum time violation"),
    (0x113, "firmware activation prohibited"),
    (0x114, "overlapping range"),
    (0x115, "namespace insufficient capacity"),
    (0x116, "namespace identifier unavailable"),
    (0x118, "namespace already attached"),
    (0x119, "namespace is private"),
    (0x11a, "namespace not attached"),
    (0x11b, "thin provisioning not supported"),
    (0x11c, "controller list invalid"),
    (0x11d, "device self-test in progress"),
    (0x11e, "boot partition write prohibited"),
    (0x11f, "invalid controller identifier"),
    (0x120, "invalid secondary controller state"),
    (0x121, "invalid number of controller resources"),
    (0x122, "invalid resource identifier"),
    (0x123, "sanitize prohibited while persistent memory region is enabled"),
    (0x124, "ANA group identifier invalid"),
    (0x125, "ANA attach failed"),
    (0x126, "insufficient capacity"),
    (0x127, "namespace attachment limit exceeded"),
    (0x128, "prohibition of command execution not supported"),
    (0x129, "I/O command set not supported"),
    (0x12a, "I/O command set not enabled"),
    (0x12b, "I/O command set combination rejected"),
    (0x12c, "invalid I/O command set"),
    (0x12d, "identifier unavailable"),
    (0x180, "conflicting attributes"),
    (0x181, "invalid protection information"),
    (0x182, "attempted write to read only range"),
    (0x183, "command size limit exceeded"),
    (0x1b8, "zoned boundary error"),
    (0x1b9, "zone is full"),
    (0x1ba, "zone is read only"),
    (0x1bb, "zone is offline"),
    (0x1bc, "zone invalid write"),
    (0x1bd, "too many active zones"),
    (0x1be, "too many open zones"),
    (0x1bf, "invalid zone state transition"),
    (0x280, "write fault"),
    (0x281, "unrecovered read error"),
    (0x282, "end-to-end guard check error"),
    (0x283, "end-to-end application tag check error"),
    (0x284, "end-to-end reference tag check error"),
    (0x285, "compare failure"),
    (0x286, "access denied"),
    (0x287, "deallocated or unwritten logical block"),
    (0x288, "end-to-end storage tag check error"),
    (0x300, "internal path error"),
    (0x301, "asymmetric access persistent loss"),
    (0x302, "asymmetric access inaccessible"),
    (0x303, "asymmetric access transition"),
    (0x360, "controller pathing error"),
    (0x370, "host pathing error"),
    (0x371, "command aborted by host"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let status = NvmeStatus::from_raw(0x4000 | 0x2000 | 2 << 11 | 2 << 8 | 0x81);
        assert_eq!((status.status_type(), status.code(), status.retry_delay()), (StatusType::Media, 0x81, 2));
        assert!(status.do_not_retry() && status.more());
        assert_eq!(status.name(), Some("unrecovered read error"));
        assert_eq!(
            status.to_string(),
            "unrecovered read error (media and data integrity error 0x81, not to be retried, the error log has more)"
        );
        let odd = NvmeStatus::from_raw(0x7 << 8 | 0x12);
        assert_eq!((odd.status_type(), odd.name(), odd.do_not_retry()), (StatusType::Vendor, None, false));
        assert_eq!(odd.to_string(), "the controller refuses (vendor specific status 0x12)");
        assert_eq!(NvmeStatus::from_raw(0x512).status_type(), StatusType::Reserved(5));
    }

    #[test]
    fn names_are_in_order_and_none_is_there_twice() {
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn an_error_number_comes_close() {
        let errno = |status| NvmeStatus::from_raw(status).errno();
        assert_eq!(errno(0x4080), libc::EINVAL);
        assert_eq!(errno(0x4081), libc::ENOSPC);
        assert_eq!(errno(0x4001), libc::EOPNOTSUPP);
        assert_eq!(errno(0x281), libc::EIO);
        assert_eq!(errno(0x285), libc::EILSEQ);
        assert_eq!(errno(0x41bc), libc::EIO);
    }
}
