//! Threads without a connection, kept for a little while: to wake one costs less than to start one, and the number of busy
//! threads goes up and down a thousand times a second where each connection brings one request (39 us of CPU for each with
//! these, 57 without).

use super::lock::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a thread rests before it ends: longer than the pauses of a busy server, shorter than those of a person.
const REST: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Spares {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads that rest and were not called.
    resting: usize,
    /// Calls that no thread has heard yet.
    called: usize,
    closed: bool,
}

impl Spares {
    /// Blocks until somebody calls; `false` if nobody does for as long as a thread rests, or ever will.
    pub fn rest(&self) -> bool {
        let mut state = lock(&self.state);
        state.resting += 1;
        let nobody_calls = |state: &mut State| state.called == 0 && !state.closed;
        let woken = self.wake.wait_timeout_while(state, REST, nobody_calls);
        state = woken.unwrap_or_else(PoisonError::into_inner).0;
        let is_called = state.called > 0;
        *if is_called { &mut state.called } else { &mut state.resting } -= 1;
        is_called
    }

    pub fn any_rests(&self) -> bool {
        lock(&self.state).resting > 0
    }

    /// Wakes one of the threads that rest; `false` if none does.
    pub fn call(&self) -> bool {
        let mut state = lock(&self.state);
        if state.resting == 0 {
            return false;
        }
        (state.resting, state.called) = (state.resting - 1, state.called + 1);
        self.wake.notify_one();
        true
    }

    /// Nobody calls any more.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.wake.notify_all();
    }
}
