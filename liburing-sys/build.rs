//! Finds liburing, binds its header and compiles shims for its `static inline` functions.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bindgen::callbacks::{ItemInfo, MacroParsingBehavior, ParseCallbacks};

/// Oldest liburing that works; (major, minor).
const OLDEST: (u32, u32) = (2, 3);

/// Newest minor version of liburing that the code knows something about.
const NEWEST_MINOR: u32 = 15;

/// Exported functions that liburing's `static inline` functions call.
///
/// Without `link` nothing defines these for the linker, so the shims call a trampoline in Rust.
/// A newer header that needs one more makes the link fail with that name: add it here.
const CALLED_BY_INLINES: &[&str] = &["__io_uring_get_cqe", "__io_uring_sqring_wait", "io_uring_buf_ring_head"];

/// Keeps another crate's shims for the same functions from clashing with these.
const SHIM_SUFFIX: &str = "__liburing_sys";

const INSTALL: &str = "\
liburing's header, pkg-config, libclang and a C compiler are needed to build:

    apt install liburing-dev pkg-config libclang-dev gcc             # Debian, Ubuntu
    dnf install liburing-devel pkgconf-pkg-config clang-devel gcc    # Fedora, RHEL
    pacman -S --needed liburing pkgconf clang gcc                    # Arch Linux
    zypper install liburing-devel pkg-config clang-devel gcc         # openSUSE
    apk add liburing-dev linux-headers pkgconf clang-dev build-base  # Alpine Linux

LIBURING_INCLUDE_DIR and LIBURING_LIB_DIR name folders to use instead of pkg-config's, and
LIBCLANG_PATH the folder of libclang. With the target in front, as in
AARCH64_UNKNOWN_LINUX_GNU_LIBURING_INCLUDE_DIR, the first two hold for that target only.
The first may be several, with colons between them: those of the kernel's headers, say.
";

fn main() -> Result<()> {
    let target_os = env::var("CARGO_CFG_TARGET_OS").context("cargo sets CARGO_CFG_TARGET_OS")?;
    ensure!(target_os == "linux", "io_uring exists on linux only, and the target is {target_os}");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let link = env::var_os("CARGO_FEATURE_LINK").is_some();
    let dlopen = env::var_os("CARGO_FEATURE_DLOPEN").is_some();
    println!("cargo::rerun-if-changed=wrapper.h");

    let functions = functions()?;
    fs::write(out.join("reference.rs"), reference_macro(&functions)).context("cannot write reference.rs")?;

    let include_paths = find(link)?;
    let mut bindings = with_references(&generate(&include_paths, &out)?, &functions);
    let (major, minor) = header_version(&bindings)?;
    let inline = format!("pub(crate) const INLINE: &[&str] = &{:?};\n", inline_functions(&bindings));
    if dlopen {
        bindings = through_pointers(&bindings);
    }
    bindings += &format!("pub(crate) const HEADER: (u32, u32) = ({major}, {minor});\n");
    bindings += &inline;
    fs::write(out.join("bindings.rs"), &bindings).context("cannot write bindings.rs")?;
    compile_shims(&include_paths, &out, &bindings, dlopen)?;

    for known in 4..=NEWEST_MINOR {
        println!("cargo::rustc-check-cfg=cfg(liburing_2_{known})");
        if (major, minor) >= (2, known) {
            println!("cargo::rustc-cfg=liburing_2_{known}");
        }
    }
    // DEP_URING_VERSION and DEP_URING_INCLUDE in the build scripts of dependents.
    println!("cargo::metadata=version={major}.{minor}");
    let include = env::join_paths(&include_paths).context("a folder's name contains a colon")?;
    println!("cargo::metadata=include={}", Path::new(&include).display());
    Ok(())
}

/// Returns the folders of the header; asks the linker for the library if `link`.
fn find(link: bool) -> Result<Vec<PathBuf>> {
    let include_dir = override_for_target("LIBURING_INCLUDE_DIR")?;
    let lib_dir = override_for_target("LIBURING_LIB_DIR")?;
    let by_hand = include_dir.is_some() || lib_dir.is_some();
    if link && by_hand {
        if let Some((_, dir)) = &lib_dir {
            println!("cargo::rustc-link-search=native={}", Path::new(dir).display());
        }
        println!("cargo::rustc-link-lib=uring");
    }
    if let Some((variable, dirs)) = include_dir {
        let dirs: Vec<_> = env::split_paths(&dirs).collect();
        let found = dirs.iter().any(|dir| dir.join("liburing.h").exists());
        let names: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        ensure!(found, "{variable} is set, but there is no liburing.h in {}", names.join(" or "));
        return Ok(dirs);
    }
    // The header says which version it is; pkg-config's word is not needed for that.
    let library = pkg_config::Config::new().cargo_metadata(link && !by_hand).probe("liburing").map_err(|error| {
        let what = match error {
            pkg_config::Error::Command { .. } => "pkg-config cannot be run",
            _ => "pkg-config does not find liburing",
        };
        anyhow::Error::new(error).context(format!("{what}\n\n{INSTALL}"))
    })?;
    Ok(library.include_paths)
}

/// Reads `<TARGET>_NAME`, in both spellings of the target, then `NAME`: the variable that is set, and its value.
fn override_for_target(name: &str) -> Result<Option<(String, OsString)>> {
    let target = env::var("TARGET").context("cargo sets TARGET")?.to_uppercase();
    let variables = [format!("{target}_{name}"), format!("{}_{name}", target.replace('-', "_")), name.into()];
    Ok(variables.into_iter().find_map(|variable| {
        println!("cargo::rerun-if-env-changed={variable}");
        let value = env::var_os(&variable).filter(|value| !value.is_empty())?;
        Some((variable, value))
    }))
}

/// Runs bindgen; leaves `shims.c` in `out`.
fn generate(include_paths: &[PathBuf], out: &Path) -> Result<String> {
    let msrv = env::var("CARGO_PKG_RUST_VERSION").context("cargo sets CARGO_PKG_RUST_VERSION")?;
    let wrapper = fs::read_to_string("wrapper.h").context("cannot read wrapper.h")?;
    let builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(include_paths.iter().map(|path| format!("-I{}", path.display())))
        // The header's comments become rustdoc; a header in /usr/include counts as the system's.
        .clang_args(["-fparse-all-comments", "-fretain-comments-from-system-headers"])
        .rust_target(msrv.parse().ok().context("rust-version is not one that bindgen knows")?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        // Not rustfmt, which need not be installed: `through_pointers` depends on the form.
        .formatter(bindgen::Formatter::Prettyplease)
        .use_core()
        .wrap_unsafe_ops(true)
        .allowlist_file(r".*/liburing(/.*)?\.h")
        .allowlist_type("nvme_uring_cmd")
        .allowlist_var(format!("{}.*", TypedMacros::PREFIX))
        // The C library's own types come from libc, not from a second copy here.
        .blocklist_type("cmsghdr|cpu_set_t|epoll_event|iovec|msghdr|sockaddr")
        .blocklist_type("(__)?sigset_t|statx|statx_timestamp")
        // The C library changes it after liburing.h has defined it.
        .blocklist_var("_XOPEN_SOURCE")
        .raw_line("use libc::{cmsghdr, cpu_set_t, epoll_event, iovec};")
        .raw_line("use libc::{msghdr, sigset_t, sockaddr, statx};")
        .prepend_enum_name(false)
        .wrap_static_fns(true)
        .wrap_static_fns_suffix(SHIM_SUFFIX)
        .wrap_static_fns_path(out.join("shims"))
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .parse_callbacks(Box::new(TypedMacros::listed_in(&wrapper)));

    // bindgen panics when it finds no libclang. The report below replaces the hook's.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let generated = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
    panic::set_hook(hook);
    match generated {
        Ok(Ok(bindings)) => Ok(bindings.to_string()),
        Ok(Err(error)) => bail!("bindgen cannot read liburing.h: {error}\n\n{INSTALL}"),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            bail!("bindgen cannot run: {text}\n\n{INSTALL}")
        }
    }
}

/// Reads the header's version out of what was bound.
///
/// The header that was read is the truth: pkg-config may describe another one.
fn header_version(bindings: &str) -> Result<(u32, u32)> {
    let constant = |name: &str| {
        let (_, rest) = bindings.split_once(&format!("pub const {name}: u32 = "))?;
        rest.split(';').next()?.parse::<u32>().ok()
    };
    let (needed_major, needed_minor) = OLDEST;
    match (constant("IO_URING_VERSION_MAJOR"), constant("IO_URING_VERSION_MINOR")) {
        (Some(major), Some(minor)) => {
            ensure!(
                (major, minor) >= OLDEST && major == needed_major,
                "liburing.h is version {major}.{minor}; \
                 {needed_major}.{needed_minor} or a later {needed_major}.x is needed"
            );
            Ok((major, minor))
        }
        // 2.4 brought the two constants, 2.3 this function.
        _ if bindings.contains("pub fn io_uring_register_sync_cancel(") => Ok(OLDEST),
        _ => bail!(
            "liburing.h is version 2.2 or older; {needed_major}.{needed_minor} is needed \
             (it has no io_uring_register_sync_cancel)"
        ),
    }
}

/// What a function's documentation refers to, by the function's name: see `functions.txt`.
fn functions() -> Result<BTreeMap<String, String>> {
    println!("cargo::rerun-if-changed=functions.txt");
    let list = fs::read_to_string("functions.txt").context("cannot read functions.txt")?;
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let &[name, since, section] = fields.as_slice() else { bail!("functions.txt: not three fields: {line}") };
            let page = format!("https://man7.org/linux/man-pages/man{section}/{name}.{section}.html");
            let reference = match section {
                "-" => format!("Since liburing {since}."),
                _ => format!("Since liburing {since}; see [{name}({section})]({page})."),
            };
            Ok((name.to_owned(), reference))
        })
        .collect()
}

/// A macro that gives the functions written in Rust the same reference: `#[doc = reference!(name)]`.
fn reference_macro(functions: &BTreeMap<String, String>) -> String {
    let arms = functions.iter().map(|(name, reference)| format!("    ({name}) => {{ {reference:?} }};\n"));
    format!("#[allow(unused_macro_rules)]\nmacro_rules! reference {{\n{}}}\n", arms.collect::<String>())
}

/// Adds to each function's documentation since when liburing has it, and where its manual page is.
///
/// bindgen has no callback for this. Functions that came after this crate are left as they are.
fn with_references(bindings: &str, functions: &BTreeMap<String, String>) -> String {
    let mut text = String::with_capacity(bindings.len() + functions.len() * 128);
    for line in bindings.lines() {
        let declaration = line.strip_prefix("    pub fn ").and_then(|rest| rest.split_once('('));
        if let Some(reference) = declaration.and_then(|(name, _)| functions.get(name)) {
            // The empty line ends the paragraph of the header's comment.
            text += &format!("    #[doc = \"\"]\n    #[doc = {reference:?}]\n");
        }
        text += line;
        text.push('\n');
    }
    text
}

/// bindgen writes one `extern` block per function.
const BLOCK: &str = "unsafe extern \"C\" {\n";

/// Names of the functions that the header defines: bindgen names the shim of each in a `link_name` attribute.
fn inline_functions(bindings: &str) -> Vec<&str> {
    let blocks = bindings.split(BLOCK).skip(1).filter_map(|block| block.split_once("pub fn "));
    let inline = blocks.filter(|(attributes, _)| attributes.contains("#[link_name"));
    inline.filter_map(|(_, declaration)| declaration.split('(').next()).collect()
}

/// Hands every function that the library exports to the `library_function!` macro.
fn through_pointers(bindings: &str) -> String {
    let mut blocks = bindings.split(BLOCK);
    let mut text = blocks.next().unwrap_or_default().to_owned();
    for block in blocks {
        let (attributes, declaration) = block.split_once("pub fn ").unwrap_or((block, ""));
        let name = declaration.split('(').next().unwrap_or_default();
        if name.is_empty() || attributes.contains("#[link_name") {
            text += BLOCK;
        } else {
            text += "library_function! {\n";
            if CALLED_BY_INLINES.contains(&name) {
                text += &format!("    trampoline {:?};\n", trampoline(name));
            }
        }
        text += block;
    }
    text
}

fn trampoline(name: &str) -> String {
    format!("liburing_sys_{name}")
}

fn compile_shims(include_paths: &[PathBuf], out: &Path, bindings: &str, dlopen: bool) -> Result<()> {
    // CFLAGS made for a C program would leave undefined references, or an archive of bytecode, in
    // a rust one. cc puts them last, those for the very target at the very end.
    if env::var_os("CARGO_CFG_SANITIZE").is_none() {
        let variable = format!("CFLAGS_{}", env::var("TARGET").context("cargo sets TARGET")?);
        let flags = env::var(&variable).unwrap_or_default();
        // SAFETY: this program has no other thread.
        unsafe { env::set_var(variable, flags + " -fno-sanitize=all -fno-lto") };
    }
    let mut shims = cc::Build::new();
    shims.file(out.join("shims.c")).include(".").includes(include_paths).warnings(false);
    if dlopen {
        // A cdylib exports what has an export_name, unless somebody asks for less: the narrowest visibility wins. In
        // Rust only unstable options can ask; the shims, which are all that calls the trampolines, do it in C.
        let mut hidden = String::from("#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n#include <liburing.h>\n");
        for name in CALLED_BY_INLINES {
            shims.define(name, trampoline(name).as_str());
            if bindings.contains(&format!("pub fn {name}(")) {
                hidden += &format!("extern __typeof__({name}) {name} __attribute__((visibility(\"hidden\")));\n");
            }
        }
        let header = out.join("trampolines.h");
        fs::write(&header, hidden).context("cannot write trampolines.h")?;
        shims.flag("-include").flag(header);
    }
    shims
        .try_compile("uring_shims")
        .with_context(|| format!("cannot compile the shims for the inline functions\n\n{INSTALL}"))
}

/// Replaces macros by the typed constants of `wrapper.h`.
#[derive(Debug)]
struct TypedMacros {
    names: Vec<String>,
}

impl TypedMacros {
    const PREFIX: &str = "liburing_sys_typed_";

    fn listed_in(wrapper: &str) -> Self {
        let entries = wrapper.lines().filter_map(|line| line.strip_prefix("TYPED("));
        let names = entries.filter_map(|entry| entry.split(')').next());
        Self { names: names.map(str::to_owned).collect() }
    }
}

impl ParseCallbacks for TypedMacros {
    fn will_parse_macro(&self, name: &str) -> MacroParsingBehavior {
        if self.names.iter().any(|typed| typed == name) {
            MacroParsingBehavior::Ignore
        } else {
            MacroParsingBehavior::Default
        }
    }

    fn item_name(&self, item: ItemInfo) -> Option<String> {
        item.name.strip_prefix(Self::PREFIX).map(str::to_owned)
    }
}
