//! A function that calls code of the program and catches its panics.

use std::mem;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Calls a closure that runs code of the program, and returns the result of the closure. Returns `None` if the closure
/// panics. The panic hook has then run, which prints the panic's message by default.
///
/// Drops the payload of the panic. The program created the payload, so this drop may panic too.
pub fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            // The payload of the second panic is leaked, because its drop may panic too.
            let _ = dropped.map_err(mem::forget);
            None
        }
    }
}
