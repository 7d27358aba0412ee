//! Compiles the C side with the header that the Rust side was made from.

use std::env;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=src/baseline.c");
    println!("cargo::rerun-if-env-changed=LIBURING_LIB_DIR");
    let include = env::var_os("DEP_URING_INCLUDE").context("liburing-sys tells where the header is")?;
    cc::Build::new()
        .file("src/baseline.c")
        .includes(env::split_paths(&include))
        // What distributions compile with.
        .opt_level(2)
        .warnings_into_errors(true)
        .try_compile("baseline")
        .context("cannot compile src/baseline.c")?;
    // After the archive that needs it.
    match env::var("LIBURING_LIB_DIR") {
        Ok(folder) => {
            println!("cargo::rustc-link-search=native={folder}");
            println!("cargo::rustc-link-lib=uring");
        }
        Err(_) => {
            pkg_config::probe_library("liburing").context("pkg-config does not find liburing")?;
        }
    }
    Ok(())
}
