//! The C side, `baseline.c`.

use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use anyhow::{Context, Result};

use crate::blocks::{Blocks, Page, Target};
use crate::side::{Clock, Sample, Side};

/// `struct baseline`.
#[repr(C)]
struct Opaque {
    private: [u8; 0],
}

unsafe extern "C" {
    fn baseline_open(file: c_int, depth: c_uint, is_write: c_int, in_batches: c_int, error: *mut c_int) -> *mut Opaque;
    fn baseline_close(baseline: *mut Opaque);
    fn baseline_run(baseline: *mut Opaque, blocks: *const Blocks, sum: *mut u64) -> c_int;
    fn baseline_pread(file: c_int, buffer: *mut c_void, blocks: *const Blocks, sum: *mut u64) -> c_int;
}

fn check(returned: c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::from_raw_os_error(-returned)) } else { Ok(()) }
}

struct Ring(NonNull<Opaque>);

impl Ring {
    fn open(target: &Target, depth: u32, is_write: bool, in_batches: bool) -> Result<Box<dyn Side>> {
        // The ring has it registered.
        let file = target.open()?;
        let mut error = 0;
        // SAFETY: `error` is live during the call.
        let state =
            unsafe { baseline_open(file.as_raw_fd(), depth, is_write.into(), in_batches.into(), &raw mut error) };
        let state = NonNull::new(state)
            .ok_or_else(|| io::Error::from_raw_os_error(-error))
            .with_context(|| format!("cannot set up a ring of {depth} entries in C"))?;
        Ok(Box::new(Self(state)))
    }
}

impl Side for Ring {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        let mut sum = 0;
        let clock = Clock::start();
        // SAFETY: the state is open until it is dropped, and the others are live during the call.
        check(unsafe { baseline_run(self.0.as_ptr(), &raw const blocks, &raw mut sum) })?;
        Ok(clock.stop(sum))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; closing the ring waits for nothing that could still write to the memory, since
        // every run that succeeds ends with nothing in flight, and one that fails ends the program.
        unsafe { baseline_close(self.0.as_ptr()) };
    }
}

struct Pread {
    file: File,
    page: Box<Page>,
}

impl Side for Pread {
    fn run(&mut self, blocks: Blocks) -> Result<Sample> {
        let mut sum = 0;
        let clock = Clock::start();
        let buffer = self.page.0.as_mut_ptr().cast();
        // SAFETY: all are live during the call, and the page has room for a block.
        check(unsafe { baseline_pread(self.file.as_raw_fd(), buffer, &raw const blocks, &raw mut sum) })?;
        Ok(clock.stop(sum))
    }
}

/// Reads, 32 in flight.
pub(crate) fn read_32(target: &Target) -> Result<Box<dyn Side>> {
    Ring::open(target, 32, false, false)
}

/// Writes, 32 in flight.
pub(crate) fn write_32(target: &Target) -> Result<Box<dyn Side>> {
    Ring::open(target, 32, true, false)
}

/// Reads, one at a time.
pub(crate) fn read_1(target: &Target) -> Result<Box<dyn Side>> {
    Ring::open(target, 1, false, false)
}

/// Reads batches of 32, each of which ends before the next begins.
pub(crate) fn read_batches(target: &Target) -> Result<Box<dyn Side>> {
    Ring::open(target, 32, false, true)
}

/// Reads by `pread`, one at a time.
pub(crate) fn pread(target: &Target) -> Result<Box<dyn Side>> {
    Ok(Box::new(Pread { file: target.open()?, page: Page::new() }))
}
