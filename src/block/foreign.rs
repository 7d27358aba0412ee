//! Code of others that runs in the middle of ours: loggers and wakers.
//!
//! A panic of it is its owner's, and must not end what others wait for, or leave something uncounted.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs it; `None` where it panicked.
pub(super) fn call<R>(code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Some(value),
        Err(payload) => {
            // Dropping it is their code as well, and may panic again; what that comes with is left.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(payload);
            }
            None
        }
    }
}
