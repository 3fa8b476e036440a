//! Messages that the server prints to standard error.

use super::panics::lock;
use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The minimum time between two lines of a [`Throttle`].
const INTERVAL: Duration = Duration::from_secs(60);

/// Prints a line with one write. Ignores errors: `eprintln!` would panic if standard error is closed, and end a thread
/// of the server. The message is formatted before standard error is locked, because its `Display` may be code of the
/// program.
pub fn line(message: fmt::Arguments<'_>) {
    let line = format!("brooklet: {message}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// A printer of messages about many clients. Prints at most one line a minute.
#[derive(Default)]
pub struct Throttle {
    last: Mutex<Option<Instant>>,
}

impl Throttle {
    pub fn line(&self, message: fmt::Arguments<'_>) {
        let mut last = lock(&self.last);
        if last.is_some_and(|last| last.elapsed() <= INTERVAL) {
            return;
        }
        *last = Some(Instant::now());
        drop(last); // printing may block if standard error is a pipe
        line(message);
    }
}
