//! How long is the body? The rules against request smuggling, all of them, in this one place (RFC 9112 6).
//!
//! A request that two readings could cut differently is refused: nothing here is repaired, and each refusal closes the
//! connection.

use super::headers::list_members;
use super::request::Version;
use super::{ascii, Error, Headers, Request, StatusCode};

/// How the end of a request's body is found (RFC 9112 6.3), and whether the client waits for a `100 Continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
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

pub fn of(request: &Request) -> Result<Framing, Error> {
    let body = match (transfer_encoding(request.headers()), content_length(request.headers())) {
        (None, None) => Length::Exact(0),
        (None, Some(length)) => Length::Exact(length?),
        // Transfer-Encoding overrides Content-Length by RFC 9112 6.3, "and ought to be handled as an error".
        (Some(_), Some(_)) => {
            return Err(Error::bad("Transfer-Encoding and Content-Length exclude each other (RFC 9112 6.3)"))
        }
        (Some(_), None) if request.version() == Version::Http10 => {
            return Err(Error::bad("HTTP/1.0 has no Transfer-Encoding (RFC 9112 6.1)"));
        }
        (Some(coding), None) => coding.map(|()| Length::Chunked)?,
    };
    Ok(Framing { body, expects_continue: expects_continue(request)? })
}

/// `Transfer-Encoding`: exactly one `chunked` is a body that we can read.
///
/// An unknown coding is a 501 (RFC 9112 6.1). But where `chunked` is there and is not the one and final coding the
/// length cannot be told, which is a 400 (6.3, rule 4), and so are codings that are no tokens.
fn transfer_encoding(headers: &Headers) -> Option<Result<(), Error>> {
    const RULE: Error = Error::bad("Transfer-Encoding is one `chunked` (RFC 9112 6.1, 7.1)");
    const UNKNOWN: Error =
        Error::new(StatusCode::NOT_IMPLEMENTED, "the only transfer coding here is chunked (RFC 9112 6.1)");
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let codings: Vec<&[u8]> = headers.get_all("transfer-encoding").flat_map(list_members).collect();
    match codings.as_slice() {
        [] => None,
        [only] if is_chunked(only) => Some(Ok(())),
        codings if codings.iter().any(|coding| is_chunked(coding) || !ascii::is_token(coding)) => Some(Err(RULE)),
        _ => Some(Err(UNKNOWN)),
    }
}

/// `Content-Length = 1*DIGIT` (RFC 9110 8.6), once. A repeated field or a list is refused even where its values are
/// equal: 8.6 allows either, and a second reader may have taken another one.
fn content_length(headers: &Headers) -> Option<Result<u64, Error>> {
    let mut values = headers.get_all("content-length");
    let first = values.next()?;
    if values.next().is_some() {
        return Some(Err(Error::bad("Content-Length comes once (RFC 9110 8.6)")));
    }
    Some(ascii::decimal(first).ok_or(Error::bad("Content-Length is one decimal number (RFC 9110 8.6)")))
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
