//! Handling of panics. The server catches a panic in code of the program, so that the panic ends at most one
//! connection.

pub use super::http::panics::catch;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. Ignores poisoning, because no code of this crate panics while it changes locked data.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
