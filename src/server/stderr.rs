//! Messages for which the program has no hook: they are printed to standard error.

use super::panics::lock;
use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a [`Throttle`] prints.
const INTERVAL: Duration = Duration::from_secs(60);

/// Prints a line, with one write. `eprintln!` panics if standard error is closed, and a panic would end a thread of the server.
/// The message is formatted first: its `Display` may be the program's, and standard error is locked while it is written.
pub fn line(message: fmt::Arguments<'_>) {
    let line = format!("brooklet: {message}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Prints a line once a minute at most: for what happens to each of many clients.
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
        drop(last); // printing blocks while nobody reads standard error
        line(message);
    }
}
