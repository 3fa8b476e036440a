//! Functions that print messages of the server to standard error.

use super::panics::lock;
use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The minimum time between two lines of a [`Throttle`].
const INTERVAL: Duration = Duration::from_secs(60);

/// Prints a line to standard error with one `write_all`, and ignores errors. If standard error is closed, `eprintln!`
/// would panic and end a thread of the server. The message is formatted before standard error is locked, because the
/// `Display` of an argument may be code of the program.
pub fn line(message: fmt::Arguments<'_>) {
    let line = format!("brooklet: {message}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// A printer for messages that many clients can cause. A `Throttle` prints at most one line per minute, and drops
/// further lines.
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
