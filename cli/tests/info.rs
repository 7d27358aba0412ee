//! `sysuring info`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::{has_ring, info, sysuring};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn is_text_or_null(value: &Value) -> bool {
    value.is_string() || value.is_null()
}

#[test]
fn keys_and_types() {
    let info = info();
    let expected = [
        "library",
        "header_version",
        "kernel",
        "ring",
        "sysctl_io_uring_disabled",
        "memlock_limit",
        "features",
        "setup_flags",
        "operations",
        "backend",
    ];
    assert_eq!(keys(info), BTreeSet::from(expected));
    let library = &info["library"];
    assert_eq!(keys(library), BTreeSet::from(["loaded", "path", "version", "error"]));
    assert!(library["loaded"].is_boolean());
    assert!(["path", "version", "error"].iter().all(|key| is_text_or_null(&library[key])), "{library}");
    assert_eq!(library["loaded"] == true, library["error"].is_null(), "{library}");
    let ring = &info["ring"];
    assert_eq!(keys(ring), BTreeSet::from(["available", "reason"]));
    assert_eq!(ring["available"] == true, ring["reason"].is_null(), "{ring}");
    assert!(ring["available"] == true || ring["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    assert!(is_text_or_null(&info["header_version"]));
    assert!(is_text_or_null(&info["kernel"]));
    assert!(info["sysctl_io_uring_disabled"].is_i64() || info["sysctl_io_uring_disabled"].is_null());
    assert!(info["memlock_limit"].is_u64() || info["memlock_limit"].is_null());
    assert!(info["features"].as_array().unwrap().iter().all(Value::is_string));
    assert!(info["setup_flags"].as_object().unwrap().values().all(Value::is_boolean));
    assert!(info["operations"].as_object().unwrap().values().all(Value::is_boolean));
    let backend = if ring["available"] == true { "uring" } else { "file" };
    assert_eq!(info["backend"], backend);
}

#[cfg(target_os = "linux")]
#[test]
fn facts_of_the_system() {
    let info = info();
    let read = |path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    assert_eq!(info["kernel"].as_str().map(str::to_owned), read("/proc/sys/kernel/osrelease"));
    let sysctl = read("/proc/sys/kernel/io_uring_disabled").and_then(|text| text.parse().ok());
    assert_eq!(info["sysctl_io_uring_disabled"].as_i64(), sysctl);
    let limits = read("/proc/self/limits").expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max locked memory")).expect("a line for locked memory");
    let limit = line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok());
    assert_eq!(info["memlock_limit"].as_u64(), limit, "{line}");
}

#[test]
fn what_every_ring_has() {
    if !has_ring() {
        return;
    }
    let info = info();
    assert_eq!(info["library"]["loaded"], true);
    assert!(info["library"]["path"].as_str().is_some_and(|path| path.contains("liburing.so.2")), "{info}");
    assert!(info["library"]["version"].as_str().is_some_and(|version| version.starts_with("2.")), "{info}");
    assert!(info["header_version"].as_str().is_some_and(|version| version.starts_with("2.")), "{info}");
    assert!(info["features"].as_array().unwrap().contains(&"IORING_FEAT_NODROP".into()), "{info}");
    assert_eq!(info["setup_flags"]["IORING_SETUP_CQSIZE"], true, "{info}");
    for operation in ["IORING_OP_NOP", "IORING_OP_READ", "IORING_OP_WRITE", "IORING_OP_FSYNC"] {
        assert_eq!(info["operations"][operation], true, "{operation} in {info}");
    }
}

#[test]
fn the_text_answers_first() {
    let info = info();
    let text = sysuring(["info"]).succeeded().output;
    let first = text.lines().next().unwrap();
    match info["ring"]["reason"].as_str() {
        None => assert_eq!(first, "io_uring works here"),
        Some(reason) => assert_eq!(first, format!("io_uring does not work here: {reason}")),
    }
    let second = text.lines().nth(1).unwrap();
    assert!(second.ends_with(info["backend"].as_str().unwrap()), "{text}");
    assert!(text.contains(info["kernel"].as_str().unwrap_or("unknown")), "{text}");
    for feature in info["features"].as_array().unwrap() {
        let name = feature.as_str().unwrap().trim_start_matches("IORING_FEAT_");
        assert!(text.contains(name), "no {name} in {text}");
    }
}

#[cfg(unix)]
#[test]
fn another_place_where_the_usual_one_cannot_be_used() {
    use crate::common::info_of;

    let mut command = std::process::Command::new(crate::common::PROGRAM);
    command.env("TMPDIR", "/absent");
    assert_eq!(info_of(command)["backend"], info()["backend"]);
}

#[cfg(target_os = "linux")]
#[test]
fn nowhere_to_make_a_device() {
    use crate::common::limited;

    // Every file is too large.
    let finished = limited("-f 0", ["info", "--json"]).succeeded();
    let info: Value = serde_json::from_str(&finished.output).unwrap();
    assert!(info["backend"].is_null(), "{info}");
    let text = limited("-f 0", ["info"]).succeeded().output;
    let second = text.lines().nth(1).unwrap();
    assert!(["unknown: ", "EFBIG", "TMPDIR"].iter().all(|word| second.contains(word)), "{text}");
}

/// There is a descriptor for a ring, and none for a ring and a file.
#[cfg(target_os = "linux")]
#[test]
fn a_ring_that_a_device_does_not_get() {
    use crate::common::limited;

    if !has_ring() {
        return;
    }
    let text = limited("-n 4", ["info"]).succeeded().output;
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("io_uring works here"), "{text}");
    let second = lines.next().unwrap();
    assert!(second.contains("the backend file: ") && second.contains("files"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn linked_only_where_asked_for() {
    use crate::common::{is_linked, skip};

    let Some(is_linked) = is_linked() else { return };
    // Cargo builds a library once for all packages that it builds together, with the features of all of them.
    let alone = std::env::var_os("SYSURING_BUILT_ALONE").is_some();
    if is_linked && !cfg!(feature = "link") && !alone {
        return skip("built together with a package that links to liburing; scripts/test builds the program alone");
    }
    assert_eq!(is_linked, cfg!(feature = "link"));
}

/// Whether the kernel gives this process a ring and the loader finds a liburing that is new enough, asked without the
/// library that is tested.
#[cfg(target_os = "linux")]
fn is_all_there() -> bool {
    // `struct io_uring_params`, whose 120 bytes may all be zero.
    let mut parameters = [0_u64; 15];
    // SAFETY: the kernel reads and writes the structure, which is as large as it expects; the name is a C string, and the
    // symbol, new in liburing 2.3, is looked up only where the library is loaded. Nothing of it is called.
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr());
        if ring < 0 {
            return false;
        }
        libc::close(i32::try_from(ring).unwrap());
        let library = libc::dlopen(c"liburing.so.2".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        !library.is_null() && !libc::dlsym(library, c"io_uring_register_sync_cancel".as_ptr()).is_null()
    }
}

/// Guards the other tests, which skip what needs a ring where `info` says that there is none.
#[cfg(target_os = "linux")]
#[test]
fn a_ring_that_can_be_had_is_used() {
    if is_all_there() {
        let info = info();
        assert_eq!(info["ring"]["available"], true, "{info}");
        assert_eq!(info["backend"], "uring", "{info}");
    } else {
        has_ring();
    }
}
