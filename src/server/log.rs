//! What goes to standard error: what nobody else is told.

use std::fmt;
use std::io::{self, Write};

/// Writes a line. Not with `eprintln!`, which panics if standard error is closed, and takes a thread of the server along.
pub fn line(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "brooklet: {message}");
}
