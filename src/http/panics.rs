//! A function that calls the program's code and catches a panic.

use std::mem;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Calls the program's code and returns its result. Returns `None` if the code panics, after the panic hook has printed
/// the message.
///
/// The payload of the panic comes from the program too, so dropping the payload may also panic.
pub fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            // The second payload is leaked, because dropping it may panic again.
            let _ = dropped.map_err(mem::forget);
            None
        }
    }
}
