//! Messages for which the program has no hook: they are printed to standard error.

use super::panics::lock;
use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often a [`Throttle`] prints.
const INTERVAL: Duration = Duration::from_secs(60);

/// Prints a line. `eprintln!` panics if standard error is closed, and a panic would end a thread of the server.
pub fn line(message: fmt::Arguments<'_>) {
    // In one write: lines of several processes stay apart, and an error whose `Display` panics leaves no half of one.
    let _ = io::stderr().write_all(format!("brooklet: {message}\n").as_bytes());
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
