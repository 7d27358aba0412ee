//! Tells the programs which functions the header declares.

use std::env;

const NEWEST_MINOR: u32 = 15;

fn main() {
    let header = env::var("DEP_URING_VERSION").expect("liburing-sys tells the header's version");
    let (major, minor) = header.split_once('.').expect("a version of two numbers");
    let minor: u32 = minor.parse().expect("a number");
    assert_eq!(major, "2");
    for known in 4..=NEWEST_MINOR {
        println!("cargo::rustc-check-cfg=cfg(liburing_2_{known})");
        if minor >= known {
            println!("cargo::rustc-cfg=liburing_2_{known}");
        }
    }
}
