//! Stands for the system calls below a device in this crate's own tests: all of them, but those on the file of a [`Disk`] go
//! there.

use std::fs::File;
use std::io;

pub(in crate::block) use crate::block::platform::*;

use super::disk::Disk;
use crate::block::platform as real;

fn answer<T>(result: Result<T, i32>) -> io::Result<T> {
    result.map_err(io::Error::from_raw_os_error)
}

pub(in crate::block) fn pread(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match Disk::of(file) {
        Some(disk) => answer(disk.read(buffer.as_mut_ptr(), buffer.len(), offset, false)),
        None => real::pread(file, buffer, offset),
    }
}

pub(in crate::block) fn pread_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match Disk::of(file) {
        Some(disk) => answer(disk.read_cached(buffer, offset)),
        None => real::pread_cached(file, buffer, offset),
    }
}

pub(in crate::block) fn pwrite(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    match Disk::of(file) {
        Some(disk) => answer(disk.write(data, offset, false, false)),
        None => real::pwrite(file, data, offset),
    }
}

pub(in crate::block) fn pwrite_durable(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    match Disk::of(file) {
        Some(disk) => answer(disk.write(data, offset, true, false)),
        None => real::pwrite_durable(file, data, offset),
    }
}

pub(in crate::block) fn flush(file: &File) -> io::Result<()> {
    match Disk::of(file) {
        Some(disk) => answer(disk.flush(false)),
        None => real::flush(file),
    }
}

pub(in crate::block) fn clear(file: &File, how: Clear, offset: u64, length: u64) -> io::Result<()> {
    match Disk::of(file) {
        Some(disk) => answer(disk.clear(how, offset, length)),
        None => real::clear(file, how, offset, length),
    }
}

pub(in crate::block) fn size(file: &File) -> io::Result<u64> {
    match Disk::of(file) {
        Some(disk) => Ok(disk.state().end as u64),
        None => real::size(file),
    }
}
