//! The lingering close (RFC 9112 9.6).
//!
//! If the server closes a socket with unread input, the kernel sends a reset. A reset can destroy the response before
//! the client has read the response. So the server first ends its half of the connection, then reads and discards input
//! for a limited time, and then closes the socket.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The maximum time to wait for further input. A client that is still sending needs one or two round trips to notice
/// the response. Go waits for half of this time.
const SILENCE: Duration = Duration::from_secs(1);

/// The time after which no further read begins. The time is long, because many clients read the response only after
/// they have sent the whole body.
const TIME: Duration = Duration::from_secs(5);

/// The number of bytes after which no further read begins. The number is 64 times the default maximum size of a body.
const BYTES: usize = 16 * 1024 * 1024;

/// Ends the write half of the stream. Then reads and discards input until the client ends its half or the socket fails.
/// Returns earlier after [`SILENCE`] without input, or if [`TIME`] or [`BYTES`] is reached.
pub fn close(mut stream: &TcpStream) {
    let started = Instant::now();
    let mut scratch = [0; 16 * 1024];
    let mut bytes = 0;
    // An error is ignored, because the caller closes the connection in any case. Some systems return an error if the
    // write half has already ended.
    let _ = stream.shutdown(Shutdown::Write);
    if stream.set_read_timeout(Some(SILENCE)).is_err() {
        return;
    }
    while bytes < BYTES && started.elapsed() < TIME {
        match stream.read(&mut scratch) {
            Ok(0) => return,
            Ok(read) => bytes += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => (), // a signal arrived
            Err(_) => return,
        }
    }
}
