//! Tells the code which liburing header the bindings were made from.
//!
//! `cfg(uring)`: there is a ring (Linux, and one of the features `link` and `dlopen`). `cfg(nvme)`: with that, the feature of
//! that name. `cfg(liburing_2_4)` and on: the header is at least that new.

use std::env;

use anyhow::{Context, Result};

/// Newest minor version of liburing that the code knows something about.
const NEWEST_MINOR: u32 = 15;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(uring)");
    println!("cargo::rustc-check-cfg=cfg(nvme)");
    for minor in 4..=NEWEST_MINOR {
        println!("cargo::rustc-check-cfg=cfg(liburing_2_{minor})");
    }

    // Set by cargo when liburing-sys is a dependency in this build.
    let Ok(version) = env::var("DEP_URING_VERSION") else { return Ok(()) };
    println!("cargo::rustc-cfg=uring");
    if env::var_os("CARGO_FEATURE_NVME").is_some() {
        println!("cargo::rustc-cfg=nvme");
    }
    let minor: u32 = version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok())
        .with_context(|| format!("liburing-sys reports version {version:?}; expected 2.x"))?;
    for known in 4..=minor.min(NEWEST_MINOR) {
        println!("cargo::rustc-cfg=liburing_2_{known}");
    }
    Ok(())
}
