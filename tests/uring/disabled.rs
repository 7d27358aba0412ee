//! Where `kernel.io_uring_disabled` (since Linux 6.6) forbids io_uring, that is said, and the device falls back.
//!
//! The setting is the whole machine's, so that no test changes it: `tests/vm/run` does.

use sysuring::block::{self, Backend, BlockDevice, Options};
use sysuring::{ErrorKind, Reason};

use crate::common;

/// Whether the kernel lets this process have rings where the setting is 1: it has CAP_SYS_ADMIN, as an ordinary root.
fn is_privileged() -> bool {
    // SAFETY: asks who this is.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn a_disabled_io_uring_is_told_and_replaced() {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let value = match setting.as_deref().map(str::trim) {
        Ok("0") => return common::skip("kernel.io_uring_disabled is 0"),
        Ok("1") if is_privileged() => {
            sysuring::available().expect("1 forbids it to the unprivileged only");
            return common::skip("kernel.io_uring_disabled is 1, which does not concern this user");
        }
        Ok(value) => value,
        Err(_) => return common::skip("no kernel.io_uring_disabled (before Linux 6.6)"),
    };
    let reason = sysuring::available().unwrap_err();
    assert_eq!(reason.reason(), Reason::Sysctl, "{reason}");
    let name = format!("kernel.io_uring_disabled={value}");
    assert!(reason.to_string().contains(&name), "{reason}");
    assert!(reason.to_string().contains("sysctl kernel.io_uring_disabled=0"), "the remedy: {reason}");

    let directory = common::directory();
    let options = Options::new().create(8 * 4096);
    let device = block::open(directory.path().join("disk"), &options).unwrap();
    assert_eq!(device.backend(), Backend::File);
    assert_eq!(device.fallback_reason(), Some(&reason));
    assert!(device.report().to_string().contains(&name), "{}", device.report());
    device.write_block(7, &[7; 4096]).unwrap();
    let mut back = [0; 4096];
    device.read_block(7, &mut back).unwrap();
    assert_eq!(back, [7; 4096]);

    let error = block::open(directory.path().join("other"), &options.backend(Backend::Uring)).unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, Some(&reason)));
    let error = sysuring::Ring::with_entries(8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
