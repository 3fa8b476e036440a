//! The length of a request body, and the rules against request smuggling (RFC 9112 6).
//!
//! A request is refused if two programs could disagree about the length of its body. Such a request is never repaired,
//! and the connection is closed.

use super::headers::list_members;
use super::request::Version;
use super::{ascii, Error, Headers, Request, StatusCode};

/// The length of a request body (RFC 9112 6.3), and whether the client waits for `100 Continue` before it sends the
/// body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    pub body: Length,
    pub expects_continue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The length in bytes. The length is 0 if there is no `Content-Length` field (RFC 9112 6.3, rule 7).
    Exact(u64),
    /// An unknown length. The body ends with the last chunk.
    Chunked,
}

pub fn of(request: &Request) -> Result<RequestFraming, Error> {
    Ok(RequestFraming { body: body_length(request)?, expects_continue: expects_continue(request)? })
}

fn body_length(request: &Request) -> Result<Length, Error> {
    let headers = request.headers();
    if !headers.contains("transfer-encoding") {
        return content_length(headers).map(Length::Exact);
    }
    // RFC 9112 6.3: a request with both fields "ought to be handled as an error".
    if headers.contains("content-length") {
        return Err(Error::bad("a request must not have both Transfer-Encoding and Content-Length (RFC 9112 6.3)"));
    }
    if request.version() == Version::Http10 {
        return Err(Error::bad("an HTTP/1.0 request must not have Transfer-Encoding (RFC 9112 6.1)"));
    }
    check_chunked(headers)?;
    Ok(Length::Chunked)
}

/// Returns an error unless `Transfer-Encoding` is exactly one `chunked`.
///
/// # Errors
///
/// - Returns 501 for an unknown coding (RFC 9112 6.1).
/// - Returns 400 for a coding that is not a token.
/// - Returns 400 for `chunked` with another coding or twice (RFC 9112 6.3, rule 4, and 7.1).
fn check_chunked(headers: &Headers) -> Result<(), Error> {
    const RULE: Error = Error::bad("Transfer-Encoding must be exactly one `chunked` (RFC 9112 6.1, 7.1)");
    const UNKNOWN: Error =
        Error::fixed(StatusCode::NOT_IMPLEMENTED, "the only supported transfer coding is chunked (RFC 9112 6.1)");
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings: Vec<&[u8]> = headers.get_all("transfer-encoding").flat_map(list_members).collect();
    match codings.as_slice() {
        [only] if is_chunked(only) => Ok(()),
        codings if codings.iter().any(|coding| is_chunked(coding) || !ascii::is_token(coding)) => Err(RULE),
        _ => Err(UNKNOWN),
    }
}

/// Parses `Content-Length = 1*DIGIT` (RFC 9110 8.6). Returns 0 if there is no such field.
///
/// A repeated field or a list is refused even if all values are equal. RFC 9110 8.6 allows accepting or refusing equal
/// values. Refusing is safer, because another program may read a different value.
fn content_length(headers: &Headers) -> Result<u64, Error> {
    let mut values = headers.get_all("content-length");
    let Some(first) = values.next() else { return Ok(0) };
    if values.next().is_some() {
        return Err(Error::bad("a request must have only one Content-Length field (RFC 9110 8.6)"));
    }
    ascii::decimal(first).ok_or(Error::bad("Content-Length must be one decimal number (RFC 9110 8.6)"))
}

/// Returns whether the request has `Expect: 100-continue`, the only expectation that exists (RFC 9110 10.1.1). Returns
/// `false` for HTTP/1.0, because a server "MUST ignore" that expectation from an HTTP/1.0 client.
fn expects_continue(request: &Request) -> Result<bool, Error> {
    let mut expected = request.headers().get_all("expect").flat_map(list_members).peekable();
    if request.version() == Version::Http10 || expected.peek().is_none() {
        return Ok(false);
    }
    if expected.all(|expectation| expectation.eq_ignore_ascii_case(b"100-continue")) {
        return Ok(true);
    }
    Err(Error::new(StatusCode::EXPECTATION_FAILED, "the only supported expectation is 100-continue (RFC 9110 10.1.1)"))
}
