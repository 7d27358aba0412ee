//! `sysuring nvme` as far as that needs no disk: `tests/vm` has some.

use crate::common::sysuring;

#[test]
fn usage_of_nvme() {
    for (arguments, word) in [
        (&["nvme"][..], "identify"),
        (&["nvme", "identify"], "<DEVICE>"),
        (&["nvme", "read", "x", "--blocks", "0"], "--blocks"),
        (&["nvme", "read", "x", "--json", "--output", "y"], "--output"),
        (&["nvme", "write", "x"], "--start"),
        (&["nvme", "zones", "x", "--action", "burn"], "--action"),
        (&["nvme", "zones", "x", "--all"], "--action"),
        (&["nvme", "zones", "x", "--action", "reset", "--all", "--zone", "1"], "--all"),
    ] {
        let finished = sysuring(arguments);
        assert_eq!(finished.status, Some(2), "{arguments:?}: {finished:?}");
        assert!(finished.errors.contains(word), "{arguments:?}: {finished:?}");
    }
}

#[test]
fn what_is_no_namespace_is_told() {
    for arguments in [&["nvme", "identify", "/dev/null"][..], &["nvme", "smart", "/dev/null", "--json"]] {
        // Or that the kernel has no such nodes.
        sysuring(arguments).failed_with(&["/dev/null"]);
    }
    sysuring(["nvme", "zones", "/dev/absent"]).failed_with(&["/dev/absent"]);
    sysuring(["nvme", "write", "/dev/null", "--start", "0", "--input", "-"]).failed_with(&["say --yes"]);
}
