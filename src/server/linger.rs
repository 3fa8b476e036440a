//! The lingering close (RFC 9112 9.6): a socket that is closed with input unread sends a reset, and a reset can destroy
//! the response before the client has read it. So: end our half, read what still comes for a while, then close.

use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// A client that is still sending needs a round trip or two to see the response; Go waits half of this.
const TIME: Duration = Duration::from_secs(1);

/// What a client sends during that time over a usual line; Go reads as much of a body that no handler wanted.
const BYTES: usize = 256 * 1024;

/// Ends the stream's write half and drains it, until the client closes too, one second is over, or 256 KiB came.
pub fn close(mut stream: &TcpStream) {
    let deadline = Instant::now() + TIME;
    let mut scratch = [0; 4 * 1024];
    let mut bytes = 0;
    // Whatever fails here, there is nobody left to tell: the connection ends either way.
    let _ = (|| -> io::Result<()> {
        stream.shutdown(Shutdown::Write)?;
        while bytes < BYTES {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut scratch)? {
                0 => break,
                read => bytes += read,
            }
        }
        Ok(())
    })();
}
