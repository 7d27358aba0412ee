//! Disks to test on: loop devices, detached when they are dropped.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A loop device over a file in a directory of its own.
pub struct Loop {
    pub path: PathBuf,
    /// The file below.
    pub file: PathBuf,
    is_attached: bool,
    _directory: TempDir,
}

impl Loop {
    /// A disk of `bytes` bytes with sectors of that size, or a visible skip.
    #[track_caller]
    pub fn new(bytes: u64, sector: u32) -> Option<Self> {
        Self::with_contents(bytes, sector, |_| ())
    }

    /// As [`Loop::new`], over a file that `fill` has filled; partitions that are on it are found.
    #[track_caller]
    pub fn with_contents(bytes: u64, sector: u32, fill: impl FnOnce(&File)) -> Option<Self> {
        let directory = super::directory();
        let file = directory.path().join("below");
        let below = File::create(&file).unwrap();
        below.set_len(bytes).unwrap();
        fill(&below);
        let output = Command::new("losetup")
            .args(["--find", "--show", "--partscan", "--sector-size", &sector.to_string()])
            .arg(&file)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
                Some(Self { path, file, is_attached: true, _directory: directory })
            }
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                super::skip(format_args!("no loop device to be had: {}", why.trim()));
                None
            }
            Err(error) => {
                super::skip(format_args!("no loop device to be had: losetup: {error}"));
                None
            }
        }
    }

    fn folder(&self) -> PathBuf {
        Path::new("/sys/block").join(self.path.file_name().unwrap())
    }

    /// Takes it away: the kernel does so at once, or when nobody has it open any more.
    pub fn detach(&mut self) {
        self.is_attached = false;
        let status = Command::new("losetup").arg("--detach").arg(&self.path).status();
        assert!(status.unwrap().success(), "{} can't be detached", self.path.display());
    }

    /// Gives it the size that the file below has now.
    pub fn follow_file(&self) {
        assert!(Command::new("losetup").arg("--set-capacity").arg(&self.path).status().unwrap().success());
    }

    /// How many flushes the disk has got.
    pub fn flushes(&self) -> u64 {
        let numbers = std::fs::read_to_string(self.folder().join("stat")).unwrap();
        numbers.split_whitespace().nth(15).map_or(0, |number| number.parse().unwrap())
    }

    /// The first partition; its node is made where nobody does that.
    pub fn partition(&self) -> Option<PathBuf> {
        let name = format!("{}p1", self.path.file_name().unwrap().to_str().unwrap());
        let numbers = self.folder().join(&name).join("dev");
        if !numbers.exists() {
            // A kernel that reads no such tables takes partitions that it is told of.
            let place = [PARTITION.0.to_string(), PARTITION.1.to_string()];
            Command::new("addpart").arg(&self.path).arg("1").args(place).status().ok()?;
        }
        let numbers = std::fs::read_to_string(numbers).ok()?;
        let (major, minor) = numbers.trim().split_once(':').unwrap();
        let node = self.file.with_file_name(name);
        let path = CString::new(node.to_str().unwrap()).unwrap();
        let number = libc::makedev(major.parse().unwrap(), minor.parse().unwrap());
        // SAFETY: the path is read during the call.
        let made = unsafe { libc::mknod(path.as_ptr(), libc::S_IFBLK | 0o600, number) };
        (made == 0).then_some(node)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if !self.is_attached {
            return;
        }
        let detached = Command::new("losetup").arg("--detach").arg(&self.path).status();
        if !detached.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            panic!("{} can't be detached", self.path.display());
        }
    }
}

/// A file system in a directory, unmounted when it is dropped.
pub struct Mount {
    pub path: PathBuf,
    _directory: TempDir,
}

impl Mount {
    /// What `mount` does with these words and a directory; a visible skip where it can't.
    #[track_caller]
    pub fn new(words: &[&str]) -> Option<Self> {
        let directory = super::directory();
        let path = directory.path().join("mounted");
        std::fs::create_dir(&path).unwrap();
        let output = Command::new("mount").args(words).arg(&path).output();
        match output {
            Ok(output) if output.status.success() => Some(Self { path, _directory: directory }),
            Ok(output) => {
                super::skip(format_args!("mount {words:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
                None
            }
            Err(error) => {
                super::skip(format_args!("mount: {error}"));
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            panic!("{} can't be unmounted", self.path.display());
        }
    }
}

/// Where the partition begins, and its length, in sectors of 512 bytes.
pub const PARTITION: (u32, u32) = (2048, 8192);

/// A partition table with one partition.
pub fn write_partition_table(disk: &File) {
    let mut entry = [0; 16];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&PARTITION.0.to_le_bytes());
    entry[12..].copy_from_slice(&PARTITION.1.to_le_bytes());
    disk.write_all_at(&entry, 446).unwrap();
    disk.write_all_at(&[0x55, 0xaa], 510).unwrap();
}
