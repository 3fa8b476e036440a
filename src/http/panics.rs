//! A panic of the program's code ends there.

use std::mem;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Calls the program's code. Returns `None` if that panics; the panic hook has printed the message.
///
/// The payload of a panic is a value of the program too, and its `Drop` may panic.
pub fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            // A second payload is leaked, because its `Drop` may panic again.
            let _ = dropped.map_err(mem::forget);
            None
        }
    }
}
