//! Locks that outlive a panic. Nothing here panics while it holds one; and if it did, each state behind them is a whole one.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
