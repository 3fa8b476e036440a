//! The 503 for a client that the server has no room for.
//!
//! Clients that are refused together must not return together, so `Retry-After` is random.

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

/// How long [`refuse_at_once`] waits for the request of a refused client: 200 refusals a second.
const REQUEST_WAIT: Duration = Duration::from_millis(5);

/// How long [`refuse_with_cors`] waits for the head of a refused client, which most clients send as soon as they are
/// connected.
const HEAD_WAIT: Duration = Duration::from_millis(100);

/// How long writing a 503 may take: it is the first thing that the client is sent, so its buffers are empty.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// Returns a random number of the range. Not for secrets.
pub fn jitter(range: Range<u64>) -> u64 {
    range.start + RandomState::new().build_hasher().finish() % (range.end - range.start)
}

/// Returns a `503` response with a `Retry-After` of 1 to 4 seconds.
pub fn unavailable_response() -> Response {
    Response::status(StatusCode::SERVICE_UNAVAILABLE).header("Retry-After", jitter(1..5).to_string())
}

/// Sends a 503 that has these fields too, and ends the connection. Returns the number of bytes that its body has.
pub fn refuse(socket: &mut dyn Write, head_only: bool, headers: &Headers) -> u64 {
    let options = SendOptions { version: Version::Http11, head_only, keep_alive: false, headers };
    // A client that leaves meanwhile needs no 503.
    outgoing::send(unavailable_response(), &options, &mut Vec::new(), socket).map_or(0, |sent| sent.body_bytes)
}

/// Sends a 503 to a new connection, which is to be closed with [`linger`](super::linger). Waits first, at most [`HEAD_WAIT`],
/// until the client's head is here: a page reads the response only if that has the CORS fields of the page's origin.
pub fn refuse_with_cors(stream: &mut TcpStream, allowed: &HostAndOrigin) -> u64 {
    let mut head = [0; 4 * 1024];
    let length = read_head(stream, &mut head);
    let mut headers = Headers::new();
    allowed.set_cors_fields(origin(&head[..length]), &mut headers);
    // An error would be one of a socket that is closed already.
    let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let body_bytes = refuse(stream, false, &headers);
    let _ = stream.shutdown(Shutdown::Write);
    body_bytes
}

/// Reads until the head has ended, `head` is full, or [`HEAD_WAIT`] is over. Returns how many bytes were read.
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

/// Sends a 503 to a new connection and never waits for the client. The pause gives the request time to arrive: it is read,
/// so that closing the socket does not send a reset. Without CORS fields, because they would have to wait for the head: a
/// client that is still sending has to receive the 503 a while before the reset.
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

/// Finds the value of `Origin` in the head of a request that was not parsed, because it is malformed, too large, or not
/// whole. It is compared with the origins that were named, and nothing else becomes of it.
pub fn origin(head: &[u8]) -> Option<&str> {
    let text = |line| std::str::from_utf8(line).unwrap_or("not UTF-8").trim();
    let mut lines = head.split(|&byte| byte == b'\n').map(text).skip_while(|line| line.is_empty());
    let _request_line = lines.next();
    let mut fields = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    fields
        .find(|(name, _)| name.eq_ignore_ascii_case("origin"))
        .map(|(_, value)| value.trim())
}
