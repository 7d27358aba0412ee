//! The C side, `baseline.c`.

use std::ffi::{CString, c_char, c_int, c_uint};
use std::io;
use std::ptr::NonNull;

use anyhow::{Context, Result};

use crate::workloads::{FILE, LENGTH, Work};

/// `struct baseline`.
#[repr(C)]
struct Opaque {
    private: [u8; 0],
}

type Step = unsafe extern "C" fn(*mut Opaque) -> c_int;

unsafe extern "C" {
    fn baseline_open(depth: c_uint, length: c_uint, path: *const c_char, error: *mut c_int) -> *mut Opaque;
    fn baseline_close(baseline: *mut Opaque);
    fn baseline_total(baseline: *const Opaque) -> u64;
    fn baseline_fill_read_fixed(baseline: *mut Opaque) -> c_int;
    fn baseline_fill_read(baseline: *mut Opaque) -> c_int;
    fn baseline_fill_nop_with_request(baseline: *mut Opaque) -> c_int;
    fn baseline_fill_nop(baseline: *mut Opaque) -> c_int;
    fn baseline_submit(baseline: *mut Opaque) -> c_int;
    fn baseline_reap_requests(baseline: *mut Opaque) -> c_int;
    fn baseline_reap_numbers(baseline: *mut Opaque) -> c_int;
}

struct Baseline {
    state: NonNull<Opaque>,
    fill: Step,
    reap: Step,
}

impl Baseline {
    fn open(depth: u32, fill: Step, reap: Step) -> Result<Box<dyn Work>> {
        let path = CString::new(FILE)?;
        let mut error = 0;
        // SAFETY: `path` and `error` are live during the call.
        let state = unsafe { baseline_open(depth, LENGTH, path.as_ptr(), &raw mut error) };
        let state = NonNull::new(state)
            .ok_or_else(|| io::Error::from_raw_os_error(-error))
            .with_context(|| format!("cannot set up a ring of {depth} entries in C"))?;
        Ok(Box::new(Self { state, fill, reap }))
    }

    #[inline]
    fn step(&mut self, step: Step) -> Result<()> {
        // SAFETY: `state` is open until it is dropped, and all steps take one.
        let returned = unsafe { step(self.state.as_ptr()) };
        if returned < 0 { Err(io::Error::from_raw_os_error(-returned).into()) } else { Ok(()) }
    }
}

impl Work for Baseline {
    fn fill(&mut self) -> Result<()> {
        self.step(self.fill)
    }

    fn submit(&mut self) -> Result<()> {
        self.step(baseline_submit)
    }

    fn reap(&mut self) -> Result<()> {
        self.step(self.reap)
    }

    fn total(&self) -> u64 {
        // SAFETY: `state` is open until it is dropped.
        unsafe { baseline_total(self.state.as_ptr()) }
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once, with nothing in flight: every submit waits for all.
        unsafe { baseline_close(self.state.as_ptr()) };
    }
}

/// Reads into a registered buffer.
pub(crate) fn read_fixed(depth: u32) -> Result<Box<dyn Work>> {
    Baseline::open(depth, baseline_fill_read_fixed, baseline_reap_requests)
}

/// Reads into memory that is not registered.
pub(crate) fn read(depth: u32) -> Result<Box<dyn Work>> {
    Baseline::open(depth, baseline_fill_read, baseline_reap_requests)
}

/// No operation, with a request for each.
pub(crate) fn nop_with_request(depth: u32) -> Result<Box<dyn Work>> {
    Baseline::open(depth, baseline_fill_nop_with_request, baseline_reap_requests)
}

/// No operation, and nothing kept of it.
pub(crate) fn nop(depth: u32) -> Result<Box<dyn Work>> {
    Baseline::open(depth, baseline_fill_nop, baseline_reap_numbers)
}
