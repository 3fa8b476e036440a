//! Parses the head of a request: the request line and the field lines (RFC 9112 2 to 5).
//!
//! The parser is strict, because repairing malformed requests allows request smuggling: two programs that repair a
//! request differently can disagree about the end of the request. So every line must end with CRLF, and exactly one
//! space must separate the parts of a request line. Every request that breaks a rule is refused.
//!
//! Each function parses one rule of the grammar, and the functions have the order of the grammar. A function that needs
//! more bytes returns [`ParseError::Incomplete`]. Then [`request_head`] returns `None`. The server reads more bytes,
//! and calls [`request_head`] again with all bytes of the head that have arrived.

use super::request::Version;
use super::target::Target;
use super::{ascii, authority, framing, Error, Headers, Method, Request, StatusCode};
use std::ops::Range;

/// The maximum number of empty lines before a request line. A server should skip at least one empty line (RFC 9112
/// 2.2), because some old clients send a CRLF after a body. More empty lines are an error.
const MAX_EMPTY_LINES: usize = 4;

/// The maximum length of a method in bytes. The longest method in the registry of IANA has 17 letters.
const MAX_METHOD: usize = 32;

/// The limits that the parser enforces. The caller of [`request_head`] limits the number of bytes in a head.
pub struct Limits {
    pub max_headers: usize,
}

/// Parses the head of a request. Returns `None` if the head is incomplete and the parser has found no error so far.
///
/// `seen` is the length of `bytes` in the previous call, or 0 in the first call. If more than 32 bytes were seen, the
/// head is parsed again only if the new bytes contain a control character, because every line ends with control
/// characters. So a head that arrives byte by byte is parsed about twice for each line, and not once for each byte.
///
/// # Errors
///
/// - Returns 400 for a malformed head, or for a head that breaks a rule about `Host`, `Content-Type` or the length of
///   the body.
/// - Returns 417 for an expectation other than `100-continue`.
/// - Returns 431 for more than `limits.max_headers` fields.
/// - Returns 501 for a method or a transfer coding that the server does not support.
/// - Returns 505 for a major version other than 1 (RFC 9110 15.6.6).
pub fn request_head(bytes: &[u8], seen: usize, limits: &Limits) -> Result<Option<ParsedHead>, Error> {
    if seen > MAX_METHOD && !bytes[seen..].iter().any(u8::is_ascii_control) {
        return Ok(None);
    }
    match parse_head(&mut Scanner { bytes, at: 0 }, limits) {
        Ok(head) => Ok(Some(head)),
        Err(ParseError::Incomplete) => Ok(None),
        Err(ParseError::Bad(error)) => Err(error),
    }
}

/// A complete head: the request, the framing of its body, and the length of the head in bytes.
#[derive(Debug)]
pub struct ParsedHead {
    pub request: Request,
    pub framing: framing::RequestFraming,
    pub length: usize,
}

enum ParseError {
    Incomplete,
    Bad(Error),
}

impl From<Error> for ParseError {
    fn from(error: Error) -> ParseError {
        ParseError::Bad(error)
    }
}

fn bad<T>(message: &'static str) -> Result<T, ParseError> {
    Err(ParseError::Bad(Error::bad(message)))
}

/// Parses `start-line CRLF *( field-line CRLF ) CRLF` (RFC 9112 2.1).
fn parse_head(scanner: &mut Scanner<'_>, limits: &Limits) -> Result<ParsedHead, ParseError> {
    empty_lines(scanner)?;
    let method = method(scanner)?;
    let target = target(scanner)?;
    let version = version(scanner)?;
    let headers = field_lines(scanner, limits)?;
    // The method is checked after the syntax of all lines of the head, but before the form of the target. So a head
    // with a malformed line and an unknown method is answered with a 400.
    let Some(method) = Method::from_token(method) else {
        let message = "this server does not support the method (RFC 9110 9.1)";
        return Err(Error::new(StatusCode::NOT_IMPLEMENTED, message).into());
    };
    let target = Target::parse(target, method)?;
    let request = Request { method, target, version, headers };
    check_host(&request)?;
    check_content_type(&request)?;
    let framing = framing::of(&request)?;
    Ok(ParsedHead { request, framing, length: scanner.at })
}

/// Skips up to [`MAX_EMPTY_LINES`] empty lines. "A server that is expecting to receive and parse a request-line SHOULD
/// ignore at least one empty line (CRLF) received prior to the request-line" (RFC 9112 2.2).
fn empty_lines(scanner: &mut Scanner<'_>) -> Result<(), ParseError> {
    for _ in 0..MAX_EMPTY_LINES {
        if scanner.peek()? != b'\r' {
            return Ok(());
        }
        scanner.take_crlf()?;
    }
    Ok(())
}

/// Parses `method = token` (RFC 9112 3.1) and the space after the method.
fn method<'a>(scanner: &mut Scanner<'a>) -> Result<&'a [u8], ParseError> {
    let start = scanner.at;
    let method = match scanner.take_while(ascii::is_tchar) {
        // A method that is too long is refused before its end arrives, because a client of another protocol may never
        // send a space.
        Err(ParseError::Incomplete) if scanner.bytes.len() - start > MAX_METHOD => {
            return bad("the method is too long")
        }
        result => result?,
    };
    if method.is_empty() {
        return bad("a request must start with a method (RFC 9112 3)");
    }
    if method.len() > MAX_METHOD {
        return bad("the method is too long");
    }
    scanner.take_byte(b' ', "exactly one space must follow the method (RFC 9112 3)")?;
    Ok(method)
}

/// Parses the bytes of a request target and the space after the target. [`Target::parse`] later checks the form of the
/// target.
fn target<'a>(scanner: &mut Scanner<'a>) -> Result<&'a [u8], ParseError> {
    let target = scanner.take_while(ascii::is_target)?;
    if target.is_empty() {
        return bad("a target must follow the method (RFC 9112 3)");
    }
    scanner
        .take_byte(b' ', "a target must be visible ASCII without \" # < > \\, followed by one space (RFC 9112 3.2)")?;
    Ok(target)
}

/// Parses `HTTP-version = HTTP-name "/" DIGIT "." DIGIT` (RFC 9112 2.3) and the line end. The versions 1.2 to 1.9 count
/// as 1.1 (RFC 9110 2.5). Returns an error with the status 505 if the major version is not 1 (RFC 9110 15.6.6).
fn version(scanner: &mut Scanner<'_>) -> Result<Version, ParseError> {
    const RULE: &str = "a request line must end with HTTP/1.1 or HTTP/1.0 (RFC 9112 2.3)";
    for &byte in b"HTTP/" {
        scanner.take_byte(byte, RULE)?;
    }
    let major = scanner.take_digit(RULE)?;
    scanner.take_byte(b'.', RULE)?;
    let minor = scanner.take_digit(RULE)?;
    scanner.take_crlf()?;
    match (major, minor) {
        (b'1', b'0') => Ok(Version::Http10),
        (b'1', _) => Ok(Version::Http11),
        _ => Err(Error::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "this server supports HTTP/1.1 and 1.0").into()),
    }
}

/// Parses `*( field-line CRLF ) CRLF` (RFC 9112 2.1).
fn field_lines(scanner: &mut Scanner<'_>, limits: &Limits) -> Result<Headers, ParseError> {
    // The capacity is 16, because a browser sends 10 to 20 fields.
    let mut headers = Headers::with_capacity(16);
    let start = scanner.at;
    loop {
        if scanner.peek()? == b'\r' {
            headers.set_section(&scanner.bytes[start..scanner.at]);
            scanner.take_crlf()?;
            return Ok(headers);
        }
        let at = scanner.at - start;
        let (name, value) = field_line(scanner)?;
        if headers.len() == limits.max_headers {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Error::new(status, "the request has too many header fields").into());
        }
        headers.push_range(at..at + name.len(), value.start - start..value.end - start, false);
    }
}

/// Parses `field-line = field-name ":" OWS field-value OWS` (RFC 9112 5) and the line end. Returns the name, and the
/// range of the value in the head.
///
/// Returns an error with the status 400 for white space before the name (obsolete line folding, RFC 9112 5.2) and for
/// white space before the colon (RFC 9112 5.1). Both sections require this status.
fn field_line<'a>(scanner: &mut Scanner<'a>) -> Result<(&'a [u8], Range<usize>), ParseError> {
    let name = scanner.take_while(ascii::is_tchar)?;
    if name.is_empty() {
        return bad("a header line must start with a field name (RFC 9112 5)");
    }
    scanner.take_byte(b':', "a field name must be a token with a colon directly after it (RFC 9112 5.1)")?;
    scanner.skip_ows();
    let start = scanner.at;
    let value = ascii::trim_ows(scanner.take_while(ascii::is_field)?);
    scanner.take_crlf()?;
    Ok((name, start..start + value.len()))
}

/// Checks the `Host` fields of a request. "A server MUST respond with a 400 status code to any HTTP/1.1 request message
/// that lacks a Host header field and to any request message that contains more than one Host header field line or a
/// Host header field with an invalid field value" (RFC 9112 3.2).
///
/// The check also applies to a request with an absolute-form target, although such a target takes precedence over
/// `Host` (RFC 9112 3.2.2).
fn check_host(request: &Request) -> Result<(), Error> {
    let mut hosts = request.headers().get_all("host");
    let Some(host) = hosts.next() else {
        return match request.version() {
            Version::Http10 => Ok(()),
            Version::Http11 => Err(Error::bad("an HTTP/1.1 request must have a Host field (RFC 9112 3.2)")),
        };
    };
    if hosts.next().is_some() {
        return Err(Error::bad("a request must have only one Host field (RFC 9112 3.2)"));
    }
    authority::check(host)
}

/// Returns an error with the status 400 for more than one `Content-Type` field. The field "is defined as a singleton
/// field", and choosing one of several values leads to "potential interoperability and security issues" (RFC 9110 8.3).
fn check_content_type(request: &Request) -> Result<(), Error> {
    if request.headers().get_all("content-type").nth(1).is_some() {
        return Err(Error::bad("a request must have only one Content-Type field (RFC 9110 8.3)"));
    }
    Ok(())
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn remaining(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn peek(&self) -> Result<u8, ParseError> {
        self.bytes.get(self.at).copied().ok_or(ParseError::Incomplete)
    }

    fn take_byte(&mut self, byte: u8, rule: &'static str) -> Result<(), ParseError> {
        if self.peek()? != byte {
            return bad(rule);
        }
        self.at += 1;
        Ok(())
    }

    fn take_digit(&mut self, rule: &'static str) -> Result<u8, ParseError> {
        let byte = self.peek()?;
        if !byte.is_ascii_digit() {
            return bad(rule);
        }
        self.at += 1;
        Ok(byte)
    }

    /// Consumes the bytes before the first byte for which `class` returns `false`, and returns the consumed bytes.
    /// Returns `Incomplete` if `class` returns `true` for all remaining bytes.
    #[inline]
    fn take_while(&mut self, class: impl Fn(u8) -> bool) -> Result<&'a [u8], ParseError> {
        let bytes = self.remaining();
        let length = bytes.iter().position(|&b| !class(b)).ok_or(ParseError::Incomplete)?;
        self.at += length;
        Ok(&bytes[..length])
    }

    /// Consumes spaces and tabs: `OWS = *( SP / HTAB )` (RFC 9110 5.6.3).
    fn skip_ows(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Consumes CRLF. RFC 9112 2.2 allows a server to accept a bare LF as a line end too. This parser refuses a bare
    /// LF: if one of two programs accepts a bare LF and the other does not, the programs disagree about the end of a
    /// head.
    fn take_crlf(&mut self) -> Result<(), ParseError> {
        const RULE: &str = "a line must not contain control characters and must end with CRLF (RFC 9112 2.2)";
        self.take_byte(b'\r', RULE)?;
        self.take_byte(b'\n', RULE)
    }
}

#[cfg(test)]
mod tests {
    use super::framing::{Length, RequestFraming};
    use super::*;

    /// The length of a head, its framing and its request line. `None` if the head is incomplete. If the head is
    /// refused, the error is the status of the response.
    type Outcome = Result<Option<(usize, RequestFraming, String)>, StatusCode>;

    fn parse(bytes: &[u8]) -> Outcome {
        match request_head(bytes, 0, &Limits { max_headers: 8 }) {
            Ok(None) => Ok(None),
            Ok(Some(ParsedHead { request, framing, length })) => {
                let line = format!("{} {} {:?}", request.method(), request.target(), request.version());
                Ok(Some((length, framing, line)))
            }
            Err(error) => Err(error.status()),
        }
    }

    #[test]
    fn head_is_complete_incomplete_or_refused() {
        let get = b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\nrest";
        let none = RequestFraming { body: Length::Exact(0), expects_continue: false };
        assert_eq!(parse(get), Ok(Some((get.len() - 4, none, "GET /a?b Http11".to_owned()))));
        let post = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunked = RequestFraming { body: Length::Chunked, expects_continue: true };
        assert_eq!(parse(post), Ok(Some((post.len(), chunked, "POST / Http11".to_owned()))));
        for length in 0..post.len() {
            assert_eq!(parse(&post[..length]), Ok(None), "{length} bytes");
        }
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost h\r\n"), Err(StatusCode::BAD_REQUEST));
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(8));
        assert_eq!(parse(many.as_bytes()), Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
}
