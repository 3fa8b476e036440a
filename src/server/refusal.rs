//! The 503 for a client that the server has no room for.
//!
//! Clients that are refused together must not return together, so `Retry-After` is random.

use super::http::outgoing::{push_date, push_status_line};
use super::http::StatusCode;
use super::linger;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::Duration;

/// How long [`refuse_at_once`] waits for the request of a refused client: 200 refusals a second.
const REQUEST_WAIT: Duration = Duration::from_millis(5);

/// How long writing a 503 may take: it is the first thing that the client is sent, so its buffers are empty.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// Returns a random number of the range. Not for secrets.
pub fn jitter(range: Range<u64>) -> u64 {
    range.start + RandomState::new().build_hasher().finish() % (range.end - range.start)
}

/// Returns a whole `503` response with a `Retry-After` of 1 to 4 seconds.
pub fn unavailable() -> Vec<u8> {
    let mut out = Vec::new();
    push_status_line(&mut out, StatusCode::SERVICE_UNAVAILABLE);
    push_date(&mut out);
    let body = "503 Service Unavailable\n";
    let rest = format!(
        "Content-Type: text/plain; charset=utf-8\r\nRetry-After: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        jitter(1..5),
        body.len()
    );
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Sends a 503, then waits until the client has read it.
pub fn refuse_and_linger(mut stream: TcpStream) {
    let _ = stream
        .set_write_timeout(Some(WRITE_TIMEOUT))
        .and_then(|()| stream.write_all(&unavailable()));
    linger::close(&stream);
}

/// Sends a 503 and never waits for the client. The pause gives the request time to arrive: it is read, so that closing
/// the socket does not send a reset.
pub fn refuse_at_once(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&unavailable()));
    let _ = stream.shutdown(Shutdown::Write);
    thread::sleep(REQUEST_WAIT);
    let _ = stream.read(&mut [0; 4 * 1024]);
}
