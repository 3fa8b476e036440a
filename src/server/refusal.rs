//! The 503 response to a client beyond a limit.
//!
//! The time in `Retry-After` is random. Otherwise all clients that were refused at the same time would return at the
//! same time.

use super::host_and_origin::HostAndOrigin;
use super::http::outgoing::{self, SendOptions};
use super::http::{Headers, Response, StatusCode, Version};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

/// The time for which [`refuse_at_once`] waits for the request of a refused client. With 5 ms, a thread can refuse at
/// most 200 clients per second.
const REQUEST_WAIT: Duration = Duration::from_millis(5);

/// The maximum time for which [`refuse_with_cors`] waits for the request head of a refused client. Most clients send
/// the head immediately after they have connected.
const HEAD_WAIT: Duration = Duration::from_millis(100);

/// The maximum time for writing a 503. A write usually does not block, because the 503 is the first data that the
/// server sends on the connection.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// Returns a random number in the range. The number is not suitable for secrets.
pub fn jitter(range: Range<u64>) -> u64 {
    range.start + RandomState::new().build_hasher().finish() % (range.end - range.start)
}

/// Returns a `503` response with a `Retry-After` of 1 to 4 seconds.
pub fn unavailable_response() -> Response {
    Response::status(StatusCode::SERVICE_UNAVAILABLE).header("Retry-After", jitter(1..5).to_string())
}

/// Sends a 503 that also has the fields in `headers`. The 503 announces the end of the connection. Returns the length
/// of the body in bytes, or 0 if the write failed.
pub fn refuse(socket: &mut dyn Write, head_only: bool, headers: &Headers) -> u64 {
    let options = SendOptions { version: Version::Http11, head_only, keep_alive: false, headers };
    // A write error is ignored, because the client has left or does not read.
    outgoing::send(unavailable_response(), &options, &mut Vec::new(), socket).map_or(0, |sent| sent.body_bytes)
}

/// Sends a 503 on a new connection, and returns the length of the body in bytes. The caller must close the connection
/// with [`linger`](super::linger).
///
/// First waits for the head of the client's request, at most for [`HEAD_WAIT`]. The head contains the origin of a page.
/// The page can read the 503 only if the 503 has the CORS fields for this origin.
pub fn refuse_with_cors(stream: &mut TcpStream, allowed: &HostAndOrigin) -> u64 {
    let mut head = [0; 4 * 1024];
    let length = read_head(stream, &mut head);
    let mut headers = Headers::new();
    allowed.set_cors_fields(origin(&head[..length]), &mut headers);
    // An error is ignored. The call fails only if the connection has already ended.
    let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let body_bytes = refuse(stream, false, &headers);
    let _ = stream.shutdown(Shutdown::Write);
    body_bytes
}

/// Reads the head of a request into `head`. Stops at the end of the request head, when `head` is full, at the end of
/// the input, or after [`HEAD_WAIT`]. Returns the number of bytes that were read.
fn read_head(stream: &mut TcpStream, head: &mut [u8]) -> usize {
    let started = Instant::now();
    let mut length = 0;
    while length < head.len() && !head[..length].windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let left = HEAD_WAIT.saturating_sub(started.elapsed());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            break;
        }
        match stream.read(&mut head[length..]) {
            Ok(read @ 1..) => length += read,
            _ => break,
        }
    }
    length
}

/// Sends a 503 on a new connection without waiting for the request, and returns the length of the body in bytes.
///
/// After a pause of [`REQUEST_WAIT`], reads at most 4 KiB of the request. Closing a socket with unread input sends a
/// reset. The 503 is sent before the pause, so that a client that is still sending receives the 503 before the reset.
/// The 503 has no CORS fields, because these fields depend on the request.
pub fn refuse_at_once(stream: &mut TcpStream) -> u64 {
    let body_bytes = match stream.set_nonblocking(true) {
        Ok(()) => refuse(stream, false, &Headers::new()),
        Err(_) => 0,
    };
    let _ = stream.shutdown(Shutdown::Write);
    thread::sleep(REQUEST_WAIT);
    let _ = stream.read(&mut [0; 4 * 1024]);
    body_bytes
}

/// Returns the value of `Origin` in a head that was not parsed. The head may be malformed, too large or incomplete. So
/// use the value only to compare it with the allowed origins.
pub fn origin(head: &[u8]) -> Option<&str> {
    let text = |line| std::str::from_utf8(line).unwrap_or("not UTF-8").trim();
    let mut lines = head.split(|&byte| byte == b'\n').map(text).skip_while(|line| line.is_empty());
    let _request_line = lines.next();
    let mut fields = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    fields
        .find(|(name, _)| name.eq_ignore_ascii_case("origin"))
        .map(|(_, value)| value.trim())
}
