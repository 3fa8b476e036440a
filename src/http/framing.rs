//! How long is the body? The rules against request smuggling, all of them, in this one place (RFC 9112 6).
//!
//! A request that two readings could cut differently is refused: nothing here is repaired, and each refusal closes the
//! connection.

use super::headers::list_members;
use super::request::Version;
use super::{ascii, Error, Headers, Request, StatusCode};

/// How the end of a request's body is found (RFC 9112 6.3), and whether the client waits for a `100 Continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    pub body: Length,
    pub expects_continue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes; none without a Content-Length (RFC 9112 6.3, rule 7).
    Exact(u64),
    /// Until the last chunk.
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
    // Transfer-Encoding overrides Content-Length by RFC 9112 6.3, "and ought to be handled as an error".
    if headers.contains("content-length") {
        return Err(Error::bad("Transfer-Encoding and Content-Length exclude each other (RFC 9112 6.3)"));
    }
    if request.version() == Version::Http10 {
        return Err(Error::bad("HTTP/1.0 has no Transfer-Encoding (RFC 9112 6.1)"));
    }
    check_chunked(headers)?;
    Ok(Length::Chunked)
}

/// `Transfer-Encoding`: exactly one `chunked` is a body that we can read.
///
/// An unknown coding is a 501 (RFC 9112 6.1). A coding that is not a token is a 400, and so is `chunked` with another
/// coding: the length is unknown if `chunked` is not the one and final coding (6.3, rule 4).
fn check_chunked(headers: &Headers) -> Result<(), Error> {
    const RULE: Error = Error::bad("Transfer-Encoding is one `chunked` (RFC 9112 6.1, 7.1)");
    const UNKNOWN: Error =
        Error::fixed(StatusCode::NOT_IMPLEMENTED, "the only transfer coding here is chunked (RFC 9112 6.1)");
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings: Vec<&[u8]> = headers.get_all("transfer-encoding").flat_map(list_members).collect();
    match codings.as_slice() {
        [only] if is_chunked(only) => Ok(()),
        codings if codings.iter().any(|coding| is_chunked(coding) || !ascii::is_token(coding)) => Err(RULE),
        _ => Err(UNKNOWN),
    }
}

/// `Content-Length = 1*DIGIT` (RFC 9110 8.6), once; 0 if there is none. A repeated field or a list is refused even if its
/// values are equal: 8.6 allows either, and a second reader may have taken another one.
fn content_length(headers: &Headers) -> Result<u64, Error> {
    let mut values = headers.get_all("content-length");
    let Some(first) = values.next() else { return Ok(0) };
    if values.next().is_some() {
        return Err(Error::bad("Content-Length comes once (RFC 9110 8.6)"));
    }
    ascii::decimal(first).ok_or(Error::bad("Content-Length is one decimal number (RFC 9110 8.6)"))
}

/// `Expect: 100-continue` is the one expectation there is (RFC 9110 10.1.1); HTTP/1.0 clients get no 100, and a server
/// "MUST ignore" it from them.
fn expects_continue(request: &Request) -> Result<bool, Error> {
    let mut expected = request.headers().get_all("expect").flat_map(list_members).peekable();
    if request.version() == Version::Http10 || expected.peek().is_none() {
        return Ok(false);
    }
    if expected.all(|expectation| expectation.eq_ignore_ascii_case(b"100-continue")) {
        return Ok(true);
    }
    Err(Error::new(StatusCode::EXPECTATION_FAILED, "the only expectation is 100-continue (RFC 9110 10.1.1)"))
}
