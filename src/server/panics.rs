//! A panic ends one request and nothing else: it is caught around the program's code, and locks outlive it.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls the program's code. Returns `None` if that panics; the panic hook has printed the message.
pub fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// Locks a mutex, poisoned or not. No code here panics while it holds a lock, and none leaves the data half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
