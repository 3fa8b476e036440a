//! Threads without a connection, kept for a little while: to wake one costs less than to start one, and the number of busy
//! threads goes up and down a thousand times a second where each connection brings one request (39 us of CPU for each with
//! these, 57 without).

use super::panics::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a thread is parked before it ends: longer than the pauses of a busy server, shorter than a person's pauses.
const PARK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct ParkedThreads {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    /// Threads that are parked and that no call of `unpark_one` has chosen.
    parked: usize,
    /// Calls of `unpark_one` that no thread has returned for yet.
    unparked: usize,
    closed: bool,
}

impl ParkedThreads {
    /// Blocks until [`unpark_one`](ParkedThreads::unpark_one) wakes this thread. `false` after two seconds, or when the
    /// server stops.
    pub fn park(&self) -> bool {
        let mut counts = lock(&self.counts);
        counts.parked += 1;
        let woken = self
            .changed
            .wait_timeout_while(counts, PARK_TIMEOUT, |counts| counts.unparked == 0 && !counts.closed);
        counts = woken.unwrap_or_else(PoisonError::into_inner).0;
        if counts.unparked > 0 {
            counts.unparked -= 1;
            return true;
        }
        counts.parked -= 1;
        false
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.counts).parked == 0
    }

    /// Wakes one parked thread. `false` if there is none.
    pub fn unpark_one(&self) -> bool {
        let mut counts = lock(&self.counts);
        if counts.parked == 0 {
            return false;
        }
        counts.parked -= 1;
        counts.unparked += 1;
        self.changed.notify_one();
        true
    }

    /// Wakes all: `park` returns `false` from now on.
    pub fn close(&self) {
        lock(&self.counts).closed = true;
        self.changed.notify_all();
    }
}
