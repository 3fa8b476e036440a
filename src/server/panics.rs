//! Handling of panics. A panic in code of the program is caught, so that it ends only one request.

pub use super::http::panics::catch;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. Ignores poison, because no code here panics in the middle of a change to locked data.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
