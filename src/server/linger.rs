//! The lingering close (RFC 9112 9.6): a socket that is closed with input unread sends a reset, and a reset can destroy
//! the response before the client has read it. So: end our half, read what still comes for a while, then close.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// A client that is still sending needs a round trip or two to see the response; Go waits half of this. One that neither
/// sends nor closes has nothing under way that could be lost.
const SILENCE: Duration = Duration::from_secs(1);

/// Many clients read only when they have sent their whole body. This is as long as we listen to it,
const TIME: Duration = Duration::from_secs(5);

/// and as much of it as we read: 64 bodies of the default limit.
const BYTES: usize = 16 * 1024 * 1024;

/// Ends the stream's write half and drains it: until the client closes too, or sends nothing for a second, or for five
/// seconds or 16 MiB at the most.
pub fn close(mut stream: &TcpStream) {
    let started = Instant::now();
    let mut scratch = [0; 16 * 1024];
    let mut bytes = 0;
    // Errors are ignored: the connection is closed either way. Some systems refuse to end a half that has ended already.
    let _ = stream.shutdown(Shutdown::Write);
    if stream.set_read_timeout(Some(SILENCE)).is_err() {
        return;
    }
    while bytes < BYTES && started.elapsed() < TIME {
        match stream.read(&mut scratch) {
            Ok(0) => return,
            Ok(read) => bytes += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => (), // a program that starts others has signals
            Err(_) => return,
        }
    }
}
