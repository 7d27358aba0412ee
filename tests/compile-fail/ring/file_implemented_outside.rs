//! R1: what an operation can be on is sealed: it has to keep the file open.
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sysuring::{FileRef, FixedFile};

pub struct Mine(pub i32);

#[cfg(bad)]
impl FileRef for Mine {} //~ E0277

fn is_file<T: FileRef>(_: &T) {}

pub fn case(fixed: &FixedFile, kept: &Arc<OwnedFd>) {
    is_file(fixed);
    is_file(kept);
}
