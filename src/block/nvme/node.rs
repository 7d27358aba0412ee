//! Finds the node that commands are passed through, from whatever names the namespace.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::block::nvme::kernel::Kernel;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a transfer, whatever the queue takes.
const LONGEST: u64 = 1 << 20;

/// `BIO_MAX_VECS`.
const MOST_PAGES: u64 = 256;

/// A namespace's node, open.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Its block device; there need not be one.
    pub(super) disk: Option<PathBuf>,
    pub(super) limits: Limits,
}

/// What the kernel says of the namespace's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of a transfer, at most.
    pub(super) longest: usize,
    /// Pages of a transfer, at most.
    pub(super) pages: usize,
    /// The driver has queues that are polled.
    pub(super) can_poll: bool,
    /// Bytes that are discarded at once, at most; 0 where it can't be told, or not be done.
    pub(super) longest_discard: u64,
    /// The same of zeroes.
    pub(super) longest_zeroes: u64,
}

/// What a node turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The character device of a namespace, by its name.
    Generic(String),
    /// The block device of one.
    Disk(String),
}

impl Node {
    /// `path` is a namespace's character device, its block device, or a link to one of them.
    pub(super) fn open(path: &Path, read_only: bool) -> Result<Self> {
        Self::check_kernel(path, Kernel::running())?;
        let name = path.display();
        let metadata = fs::metadata(path).map_err(|error| Error::from_io(error, format_args!("open {name}")))?;
        let kind = metadata.file_type();
        let number = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
        let found = match (kind.is_char_device(), kind.is_block_device()) {
            (false, false) => Err("is no device".to_owned()),
            (is_char, _) => find(Path::new("/sys"), if is_char { "char" } else { "block" }, number),
        };
        let found = found.map_err(|what| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{name} {what}; give a namespace, such as /dev/ng0n1 or /dev/nvme0n1"),
            )
        })?;
        let (node, suffix) = match &found {
            Found::Generic(generic) => (path.to_owned(), generic.strip_prefix("ng")),
            Found::Disk(disk) => {
                let suffix = disk.strip_prefix("nvme");
                (PathBuf::from(format!("/dev/ng{}", suffix.unwrap_or_default())), suffix)
            }
        };
        let suffix = suffix.unwrap_or_default();
        let opened = OpenOptions::new().read(true).write(!read_only).open(&node);
        let file = opened.map_err(|error| {
            let is_refused = error.kind() == std::io::ErrorKind::PermissionDenied;
            let error = Error::from_io(error, format_args!("open {}", node.display()));
            if is_refused {
                error.with_hint("commands are passed through by whoever may open this node")
            } else {
                error
            }
        })?;
        check_number(&file, &node, suffix)?;
        let disk = format!("nvme{suffix}");
        let limits = Limits::read(&Path::new("/sys/class/block").join(&disk).join("queue"));
        let disk = Some(Path::new("/dev").join(disk)).filter(|disk| disk.exists());
        Ok(Self { path: path.to_owned(), file, disk, limits })
    }

    fn check_kernel(path: &Path, kernel: Kernel) -> Result<()> {
        if kernel.has_nodes() {
            return Ok(());
        }
        let message = format!(
            "{}: {kernel} passes no commands through: namespaces have no /dev/ngXnY before Linux 5.13; block::open uses the disk \
             by reads and writes",
            path.display()
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    }
}

/// What is behind a node of that number; what it is instead of a namespace.
fn find(sys: &Path, kind: &str, (major, minor): (u32, u32)) -> Result<Found, String> {
    let folder = fs::canonicalize(sys.join(format!("dev/{kind}/{major}:{minor}")));
    let folder = folder.map_err(|_| "is no device that the kernel knows now".to_owned())?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let class = fs::canonicalize(folder.join("subsystem")).unwrap_or_default();
    let class = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match (kind, class.as_str()) {
        ("char", "nvme-generic") if name.starts_with("ng") => Ok(Found::Generic(name)),
        ("char", "nvme") => Err("is a controller, not one of its namespaces".to_owned()),
        ("char", _) => Err("is a device of another kind".to_owned()),
        _ if folder.join("partition").exists() => {
            let disk = folder.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            Err(format!("is a partition, and commands go to all of a namespace (that of /dev/{disk})"))
        }
        _ if name.starts_with("nvme") && folder.join("nsid").exists() => Ok(Found::Disk(name)),
        _ => Err("is a disk of another kind".to_owned()),
    }
}

/// Whether what was opened is what the kernel calls so: names in `/dev` are whatever made them.
fn check_number(file: &File, node: &Path, suffix: &str) -> Result<()> {
    let opened = file.metadata().map_err(|error| Error::from_io(error, format_args!("look at {}", node.display())))?;
    let number = opened.rdev();
    let known = fs::read_to_string(format!("/sys/class/nvme-generic/ng{suffix}/dev")).unwrap_or_default();
    if known.trim() == format!("{}:{}", libc::major(number), libc::minor(number)) && opened.file_type().is_char_device()
    {
        return Ok(());
    }
    let message = format!("{} is not the node of the namespace that the kernel calls ng{suffix}", node.display());
    Err(Error::new(ErrorKind::NotFound, message))
}

impl Limits {
    /// What is not told is taken for what every disk and every kernel has.
    fn read(queue: &Path) -> Self {
        let number = |name: &str| fs::read_to_string(queue.join(name)).ok()?.trim().parse::<u64>().ok();
        let at_least_one = |name: &str| number(name).filter(|number| *number != 0);
        // Over a network there is next to no limit: shorter ones are under way together.
        let longest = at_least_one("max_hw_sectors_kb").unwrap_or(128).saturating_mul(1024).min(LONGEST);
        // One fewer: with as many, of which few lie beside each other in memory, Linux 6.12 says EINVAL now and then. And no more than
        // one piece of the kernel's own lists has: it does not put two together.
        let pages = at_least_one("max_segments").unwrap_or(32).min(MOST_PAGES).saturating_sub(1).max(1);
        Self {
            longest: usize::try_from(longest).unwrap_or(usize::MAX),
            pages: usize::try_from(pages).unwrap_or(usize::MAX),
            can_poll: number("io_poll") == Some(1),
            longest_discard: number("discard_max_bytes").unwrap_or(0),
            longest_zeroes: number("write_zeroes_max_bytes").unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A device in a tree as that in `/sys`.
    fn device(sys: &Path, kind: &str, number: &str, class: &str, folder: &str, files: &[&str]) {
        let folder = sys.join("devices").join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(sys.join("class").join(class)).unwrap();
        fs::create_dir_all(sys.join("dev").join(kind)).unwrap();
        symlink(sys.join("class").join(class), folder.join("subsystem")).unwrap();
        symlink(&folder, sys.join("dev").join(kind).join(number)).unwrap();
        for file in files {
            fs::write(folder.join(file), "1\n").unwrap();
        }
    }

    #[test]
    fn nodes_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let sys = directory.path();
        device(sys, "char", "240:0", "nvme", "nvme0", &[]);
        device(sys, "char", "241:0", "nvme-generic", "nvme0/ng0n1", &[]);
        device(sys, "char", "1:3", "mem", "null", &[]);
        device(sys, "block", "259:0", "block", "nvme0/nvme0n1", &["nsid"]);
        device(sys, "block", "259:1", "block", "nvme0/nvme0n1/nvme0n1p1", &["partition"]);
        device(sys, "block", "7:0", "block", "loop0", &[]);
        assert_eq!(find(sys, "char", (241, 0)), Ok(Found::Generic("ng0n1".to_owned())));
        assert_eq!(find(sys, "block", (259, 0)), Ok(Found::Disk("nvme0n1".to_owned())));
        let what = |kind, number| find(sys, kind, number).unwrap_err();
        assert!(what("char", (240, 0)).contains("controller"));
        assert!(what("block", (259, 1)).contains("that of /dev/nvme0n1"));
        assert!(what("char", (1, 3)).contains("another kind"));
        assert!(what("block", (7, 0)).contains("another kind"));
        assert!(what("block", (8, 0)).contains("no device"));
    }

    #[test]
    fn limits_are_read_and_what_is_missing_is_small() {
        let directory = tempfile::tempdir().unwrap();
        let queue = directory.path();
        let nothing = Limits::read(queue);
        assert_eq!((nothing.longest, nothing.pages, nothing.can_poll), (128 << 10, 31, false));
        for (name, value) in [
            ("max_hw_sectors_kb", "512"),
            ("max_segments", "127"),
            ("io_poll", "1"),
            ("discard_max_bytes", "2199023255040"),
        ] {
            fs::write(queue.join(name), format!("{value}\n")).unwrap();
        }
        let limits = Limits::read(queue);
        assert_eq!((limits.longest, limits.pages, limits.can_poll), (512 << 10, 126, true));
        assert_eq!((limits.longest_discard, limits.longest_zeroes), (2_199_023_255_040, 0));
        fs::write(queue.join("max_hw_sectors_kb"), "2147483644\n").unwrap();
        fs::write(queue.join("max_segments"), "65535\n").unwrap();
        assert_eq!((Limits::read(queue).longest, Limits::read(queue).pages), (1 << 20, 255));
    }

    #[test]
    fn old_kernels_are_told_apart_from_missing_nodes() {
        let error = Node::check_kernel(Path::new("/dev/nvme0n1"), Kernel::of(5, 10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("/dev/nvme0n1: Linux 5.10 passes no commands through"), "{error}");
        assert!(Node::check_kernel(Path::new("x"), Kernel::of(6, 1)).is_ok());
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        if !Kernel::running().has_nodes() {
            return;
        }
        for path in ["/dev/null", "/tmp"] {
            let error = Node::open(Path::new(path), true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().ends_with("give a namespace, such as /dev/ng0n1 or /dev/nvme0n1"), "{error}");
        }
        assert_eq!(Node::open(Path::new("/no/such/node"), true).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
