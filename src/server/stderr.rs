//! Messages for which the program has no hook: they are printed to standard error.

use std::fmt;
use std::io::{self, Write};

/// Prints a line. `eprintln!` panics if standard error is closed, and a panic would end a thread of the server.
pub fn line(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "brooklet: {message}");
}
