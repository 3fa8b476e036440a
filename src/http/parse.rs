//! The request head: request line and field lines, whole or not at all (RFC 9112 2 to 5).
//!
//! Strict on purpose. Whatever one party repairs, another reads differently, and the difference is a smuggled request;
//! so every line ends with CRLF, one SP stands where one SP belongs, and the rest is refused.
//!
//! Each rule below is a function of its own size, in the grammar's order. A rule that runs out of bytes returns
//! [`ParseError::Incomplete`]: the caller reads more and calls again with the whole head so far. It must not do that for
//! every byte; see `seen` in [`request_head`].

use super::request::Version;
use super::target::Target;
use super::{ascii, authority, framing, Error, Headers, Method, Request, StatusCode};
use std::ops::Range;

/// Empty lines that are skipped before a request line (RFC 9112 2.2 says at least one): some old clients send a CRLF
/// after a body. More than a few are no accident.
const MAX_EMPTY_LINES: usize = 4;

/// The longest method registered with IANA has 17 letters; past this it is noise.
const MAX_METHOD: usize = 32;

/// What the parser bounds by itself: the number of field lines. The bytes are bounded by whoever owns the buffer.
pub struct Limits {
    pub max_headers: usize,
}

/// Parses a request head.
///
/// Returns the request, how its body is framed, and how many bytes the head takes; `None` if `bytes` is a prefix of a
/// head that may still turn out well. The first `seen` bytes were seen by an earlier call that returned `None`: unless
/// a control character has come since, a line's end above all, nothing can have changed, and nothing is parsed again.
/// That keeps a head which comes byte by byte at lines x bytes of work instead of bytes x bytes.
///
/// # Errors
///
/// 400 for a malformed head, 431 for too many fields, 501 for a method or coding that nobody here knows, 505 for
/// another major version, 417 for an expectation other than `100-continue`.
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

/// A whole head, and where it ended.
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

/// `HTTP-message = start-line CRLF *( field-line CRLF ) CRLF` (RFC 9112 2.1)
fn parse_head(scanner: &mut Scanner<'_>, limits: &Limits) -> Result<ParsedHead, ParseError> {
    empty_lines(scanner)?;
    let method = method(scanner)?;
    let target = target(scanner)?;
    let version = version(scanner)?;
    let headers = field_lines(scanner, limits)?;
    // Only now is an unknown method the worst thing about this request, and its target of a form that we know.
    let Some(method) = Method::from_token(method) else {
        let message = "this server does not know the method (RFC 9110 9.1)";
        return Err(Error::new(StatusCode::NOT_IMPLEMENTED, message).into());
    };
    let target = Target::parse(target, method)?;
    let request = Request { method, target, version, headers };
    check_host(&request)?;
    check_content_type(&request)?;
    let framing = framing::of(&request)?;
    Ok(ParsedHead { request, framing, length: scanner.at })
}

/// "A server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line (CRLF)
/// received prior to the request-line" (RFC 9112 2.2).
fn empty_lines(scanner: &mut Scanner<'_>) -> Result<(), ParseError> {
    for _ in 0..MAX_EMPTY_LINES {
        if scanner.peek()? != b'\r' {
            return Ok(());
        }
        scanner.take_crlf()?;
    }
    Ok(())
}

/// `method = token` (RFC 9112 3.1), followed by exactly one SP.
fn method<'a>(scanner: &mut Scanner<'a>) -> Result<&'a [u8], ParseError> {
    let start = scanner.at;
    let method = match scanner.take_while(ascii::is_tchar) {
        // Refused while it is still coming in: a client that does not speak HTTP, but TLS say, may never end a line.
        Err(ParseError::Incomplete) if scanner.bytes.len() - start > MAX_METHOD => {
            return bad("the method is too long")
        }
        result => result?,
    };
    if method.is_empty() {
        return bad("a request starts with a method (RFC 9112 3)");
    }
    if method.len() > MAX_METHOD {
        return bad("the method is too long");
    }
    scanner.take_byte(b' ', "one space follows the method (RFC 9112 3)")?;
    Ok(method)
}

/// The request target's characters, followed by exactly one SP; its form is checked once the method is known.
fn target<'a>(scanner: &mut Scanner<'a>) -> Result<&'a [u8], ParseError> {
    let target = scanner.take_while(ascii::is_target)?;
    if target.is_empty() {
        return bad("a target follows the method (RFC 9112 3)");
    }
    scanner
        .take_byte(b' ', "a target is visible ASCII without \" # < > \\, and one space follows it (RFC 9112 3.2)")?;
    Ok(target)
}

/// `HTTP-version = HTTP-name "/" DIGIT "." DIGIT` (RFC 9112 2.3). A minor version above 1 is served as 1.1
/// (RFC 9110 2.5), another major version is not (RFC 9110 15.6.6).
fn version(scanner: &mut Scanner<'_>) -> Result<Version, ParseError> {
    const RULE: &str = "the request line ends with HTTP/1.1 or HTTP/1.0 (RFC 9112 2.3)";
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
        _ => Err(Error::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1 and HTTP/1.0").into()),
    }
}

/// `*( field-line CRLF ) CRLF`
fn field_lines(scanner: &mut Scanner<'_>, limits: &Limits) -> Result<Headers, ParseError> {
    // A browser's head has 10 to 20 fields; what is there already bounds the bytes.
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

/// `field-line = field-name ":" OWS field-value OWS` (RFC 9112 5). No white space before the colon (5.1), none before
/// the name either, which would be obsolete line folding (5.2): both are 400, as those sections demand.
fn field_line<'a>(scanner: &mut Scanner<'a>) -> Result<(&'a [u8], Range<usize>), ParseError> {
    let name = scanner.take_while(ascii::is_tchar)?;
    if name.is_empty() {
        return bad("a header line starts with a field name (RFC 9112 5)");
    }
    scanner.take_byte(b':', "a field name is a token, and a colon follows it at once (RFC 9112 5.1)")?;
    scanner.skip_ows();
    let start = scanner.at;
    let value = ascii::trim_ows(scanner.take_while(ascii::is_field)?);
    scanner.take_crlf()?;
    Ok((name, start..start + value.len()))
}

/// "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a Host header field and to
/// any request message that contains more than one Host header field line or a Host header field with an invalid field
/// value" (RFC 9112 3.2). An absolute-form target wins over `Host`, and spares nobody the field (3.2.2).
fn check_host(request: &Request) -> Result<(), Error> {
    let mut hosts = request.headers().get_all("host");
    let Some(host) = hosts.next() else {
        return match request.version() {
            Version::Http10 => Ok(()),
            Version::Http11 => Err(Error::bad("HTTP/1.1 requests have a Host field (RFC 9112 3.2)")),
        };
    };
    if hosts.next().is_some() {
        return Err(Error::bad("a request has one Host field (RFC 9112 3.2)"));
    }
    authority::check(host)
}

/// `Content-Type` "is defined as a singleton field"; taking one of several leads to "potential interoperability and
/// security issues" (RFC 9110 8.3), so nobody here takes one.
fn check_content_type(request: &Request) -> Result<(), Error> {
    if request.headers().get_all("content-type").nth(1).is_some() {
        return Err(Error::bad("a request has one Content-Type field (RFC 9110 8.3)"));
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

    /// Takes bytes of a class, up to one that is not of it; which must be there, else the class may go on.
    #[inline]
    fn take_while(&mut self, class: impl Fn(u8) -> bool) -> Result<&'a [u8], ParseError> {
        let bytes = self.remaining();
        let length = bytes.iter().position(|&b| !class(b)).ok_or(ParseError::Incomplete)?;
        self.at += length;
        Ok(&bytes[..length])
    }

    /// `OWS = *( SP / HTAB )` (RFC 9110 5.6.3)
    fn skip_ows(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// CRLF and nothing else ends a line. RFC 9112 2.2 lets a server accept a bare LF; those that do disagree with
    /// those that do not about where a head ends.
    fn take_crlf(&mut self) -> Result<(), ParseError> {
        const RULE: &str = "a line holds no control characters and ends with CRLF (RFC 9112 2.2)";
        self.take_byte(b'\r', RULE)?;
        self.take_byte(b'\n', RULE)
    }
}

#[cfg(test)]
mod tests {
    use super::framing::{Length, RequestFraming};
    use super::*;

    /// The length, the framing and the request line of a head, or its status, or `None` if it is incomplete.
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
