//! The lingering close (RFC 9112 9.6).
//!
//! If a socket with unread input is closed, it sends a reset, and a reset can destroy the response before the client
//! has read it. So the server first ends its half of the connection, then reads for a while, and then closes the
//! socket.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The time without input after which the close ends. A client that is still sending needs one or two round trips to
/// see the response. Go waits for half of this time.
const SILENCE: Duration = Duration::from_secs(1);

/// The maximum time of the whole close. Many clients read the response only after they have sent their whole body.
const TIME: Duration = Duration::from_secs(5);

/// The most bytes that the close reads: 64 bodies of the default maximum size.
const BYTES: usize = 16 * 1024 * 1024;

/// Ends the write half of the stream, and reads until the client closes its half. Stops earlier after [`SILENCE`]
/// without input, after [`TIME`], or after [`BYTES`].
pub fn close(mut stream: &TcpStream) {
    let started = Instant::now();
    let mut scratch = [0; 16 * 1024];
    let mut bytes = 0;
    // Errors are ignored, because the connection is closed anyway. Some systems fail if the half has already ended.
    let _ = stream.shutdown(Shutdown::Write);
    if stream.set_read_timeout(Some(SILENCE)).is_err() {
        return;
    }
    while bytes < BYTES && started.elapsed() < TIME {
        match stream.read(&mut scratch) {
            Ok(0) => return,
            Ok(read) => bytes += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => (), // by a signal
            Err(_) => return,
        }
    }
}
