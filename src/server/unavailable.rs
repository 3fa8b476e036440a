//! What a client is told for whom there is no room.

use super::http::outgoing::{push_date, push_status_line};
use super::http::StatusCode;
use super::jitter;

/// `503` with a `Retry-After` of 1 to 4 seconds: clients that were refused together should not come back together.
pub fn unavailable() -> Vec<u8> {
    let mut out = Vec::new();
    push_status_line(&mut out, StatusCode::SERVICE_UNAVAILABLE);
    push_date(&mut out);
    let body = "503 Service Unavailable\n";
    let rest = format!(
        "Content-Type: text/plain; charset=utf-8\r\nRetry-After: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        jitter::pick(1..5),
        body.len()
    );
    out.extend_from_slice(rest.as_bytes());
    out
}
