//! The length of a request body, and the rules against request smuggling (RFC 9112 6).
//!
//! If two programs could disagree about the length of a request's body, the response is an error. The server never
//! repairs such a request, and closes the connection after the response.

use super::headers::list_members;
use super::request::Version;
use super::{ascii, Error, Headers, Request, StatusCode};

/// The length of a request body (RFC 9112 6.3). `expects_continue` is `true` if the client waits for a `100 Continue`
/// before it sends the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFraming {
    pub body: Length,
    pub expects_continue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A number of bytes. The number is 0 if the request has neither `Content-Length` nor `Transfer-Encoding` (RFC 9112
    /// 6.3, rule 7).
    Exact(u64),
    /// An unknown length. The body is chunked, and ends with the last chunk.
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

/// Returns an error unless `Transfer-Encoding` lists exactly one coding, and this coding is `chunked`.
///
/// # Errors
///
/// - Returns 501 if all codings are tokens and none of them is `chunked` (RFC 9112 6.1).
/// - Returns 400 if a coding is not a token.
/// - Returns 400 if `chunked` is listed twice or together with another coding (RFC 9112 6.3, rule 4, and 7.1).
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

/// Parses `Content-Length = 1*DIGIT` (RFC 9110 8.6). Returns 0 if the request has no such field.
///
/// Returns an error with the status 400 for a repeated field or a list, even if all values are equal. RFC 9110 8.6
/// allows a server to accept equal values or to refuse them. Refusing is safer, because another program may use another
/// one of the values.
fn content_length(headers: &Headers) -> Result<u64, Error> {
    let mut values = headers.get_all("content-length");
    let Some(first) = values.next() else { return Ok(0) };
    if values.next().is_some() {
        return Err(Error::bad("a request must have only one Content-Length field (RFC 9110 8.6)"));
    }
    ascii::decimal(first).ok_or(Error::bad("Content-Length must be one decimal number (RFC 9110 8.6)"))
}

/// Returns whether the request has `Expect: 100-continue` (RFC 9110 10.1.1). Returns `false` for an HTTP/1.0 request,
/// because a server "MUST ignore" this expectation in such a request. Returns an error with the status 417 for any
/// other expectation.
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
