//! Tells the list which functions the header has: `cfg(liburing_2_4)` and on.

use std::env;

use anyhow::{Context, Result};

/// Newest minor version of liburing that brought a function of the list, or more.
const NEWEST_MINOR: u32 = 15;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("DEP_URING_VERSION").context("liburing-sys tells the header's version")?;
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    let minor = minor.with_context(|| format!("liburing-sys reports version {version:?}; expected 2.x"))?;
    for known in 4..=NEWEST_MINOR {
        println!("cargo::rustc-check-cfg=cfg(liburing_2_{known})");
        if known <= minor {
            println!("cargo::rustc-cfg=liburing_2_{known}");
        }
    }
    Ok(())
}
