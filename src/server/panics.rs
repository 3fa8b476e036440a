//! A panic ends one request and nothing else: it is caught around the program's code, and locks outlive it.

pub use super::http::panics::catch;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, poisoned or not. No code here panics while it holds a lock, and none leaves the data half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
