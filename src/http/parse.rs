//! The request head: request line and field lines, whole or not at all (RFC 9112 2 to 5).
//!
//! Strict on purpose. Whatever one party repairs, another reads differently, and the difference is a smuggled request;
//! so every line ends with CRLF, one SP stands where one SP belongs, and the rest is refused.
//!
//! Each rule below is a function of its own size, in the grammar's order. A rule that runs out of bytes says
//! [`Stop::Incomplete`], which is no error: the caller reads more and comes back. It comes back with the whole head so
//! far, so it must not do that for every byte; see `seen` in [`request_head`].

use super::request::Version;
use super::target::Target;
use super::{ascii, authority, framing, Error, Headers, Method, Request, StatusCode};

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
pub fn request_head(bytes: &[u8], seen: usize, limits: &Limits) -> Result<Option<Head>, Error> {
    let may_differ = bytes[seen..].iter().any(u8::is_ascii_control);
    if !may_differ && seen > MAX_METHOD {
        return Ok(None);
    }
    match head(&mut Cursor { bytes, at: 0 }, limits) {
        Ok(head) => Ok(Some(head)),
        Err(Stop::Incomplete) => Ok(None),
        Err(Stop::Bad(error)) => Err(error),
    }
}

/// A whole head, and where it ended.
#[derive(Debug)]
pub struct Head {
    pub request: Request,
    pub framing: framing::Framing,
    pub length: usize,
}

enum Stop {
    Incomplete,
    Bad(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Bad(error)
    }
}

fn bad<T>(message: &'static str) -> Result<T, Stop> {
    Err(Stop::Bad(Error::bad(message)))
}

/// `HTTP-message = start-line CRLF *( field-line CRLF ) CRLF` (RFC 9112 2.1)
fn head(cursor: &mut Cursor<'_>, limits: &Limits) -> Result<Head, Stop> {
    empty_lines(cursor)?;
    let method = method(cursor)?;
    let target = target(cursor)?;
    let version = version(cursor)?;
    let headers = field_lines(cursor, limits)?;
    // Only now is an unknown method the worst thing about this request, and its target of a form that we know.
    let method = Method::from_token(method)
        .ok_or(Error::new(StatusCode::NOT_IMPLEMENTED, "this server does not know the method (RFC 9110 9.1)"))?;
    let target = Target::parse(target, method)?;
    let request = Request { method, target, version, headers };
    host(&request)?;
    content_type(&request)?;
    let framing = framing::of(&request)?;
    Ok(Head { request, framing, length: cursor.at })
}

/// "A server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line (CRLF)
/// received prior to the request-line" (RFC 9112 2.2).
fn empty_lines(cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    for _ in 0..MAX_EMPTY_LINES {
        if cursor.peek()? != b'\r' {
            return Ok(());
        }
        cursor.crlf()?;
    }
    Ok(())
}

/// `method = token` (RFC 9112 3.1), followed by exactly one SP.
fn method<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Stop> {
    let start = cursor.at;
    let method = match cursor.take_while(ascii::is_tchar) {
        // Refused while it is still coming in: what speaks no HTTP at all, TLS say, may never end a line.
        Err(Stop::Incomplete) if cursor.bytes.len() - start > MAX_METHOD => return bad("the method is too long"),
        result => result?,
    };
    match method.len() {
        0 => bad("a request starts with a method (RFC 9112 3)"),
        1..=MAX_METHOD => cursor.expect(b' ', "one space follows the method (RFC 9112 3)").map(|()| method),
        _ => bad("the method is too long"),
    }
}

/// The request target's characters, followed by exactly one SP; its form is checked once the method is known.
fn target<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Stop> {
    let target = cursor.take_while(ascii::is_target)?;
    if target.is_empty() {
        return bad("a target follows the method (RFC 9112 3)");
    }
    cursor.expect(b' ', "a target is visible ASCII without \" # < > \\, and one space follows it (RFC 9112 3.2)")?;
    Ok(target)
}

/// `HTTP-version = HTTP-name "/" DIGIT "." DIGIT` (RFC 9112 2.3). A minor version above 1 is served as 1.1
/// (RFC 9110 2.5), another major version is not (RFC 9110 15.6.6).
fn version(cursor: &mut Cursor<'_>) -> Result<Version, Stop> {
    const RULE: &str = "the request line ends with HTTP/1.1 or HTTP/1.0 (RFC 9112 2.3)";
    for &byte in b"HTTP/" {
        cursor.expect(byte, RULE)?;
    }
    let major = cursor.digit(RULE)?;
    cursor.expect(b'.', RULE)?;
    let minor = cursor.digit(RULE)?;
    cursor.crlf()?;
    match (major, minor) {
        (b'1', b'0') => Ok(Version::Http10),
        (b'1', _) => Ok(Version::Http11),
        _ => Err(Error::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1 and HTTP/1.0").into()),
    }
}

/// `*( field-line CRLF ) CRLF`
fn field_lines(cursor: &mut Cursor<'_>, limits: &Limits) -> Result<Headers, Stop> {
    // A browser's head has 10 to 20 fields; what is there already bounds the bytes.
    let mut headers = Headers::with_capacity(cursor.rest().len() + 32, 16);
    loop {
        if cursor.peek()? == b'\r' {
            cursor.crlf()?;
            return Ok(headers);
        }
        let (name, value) = field_line(cursor)?;
        if headers.len() == limits.max_headers {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Error::new(status, "the request has too many header fields").into());
        }
        headers.push(name, value);
    }
}

/// `field-line = field-name ":" OWS field-value OWS` (RFC 9112 5). No white space before the colon (5.1), none before
/// the name either, which would be obsolete line folding (5.2): both are 400, as those sections demand.
fn field_line<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], &'a [u8]), Stop> {
    let name = cursor.take_while(ascii::is_tchar)?;
    if name.is_empty() {
        return bad("a header line starts with a field name (RFC 9112 5)");
    }
    cursor.expect(b':', "a field name is a token, and a colon follows it at once (RFC 9112 5.1)")?;
    let value = cursor.take_while(ascii::is_field)?;
    cursor.crlf()?;
    Ok((name, ascii::trim_ows(value)))
}

/// "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a Host header field and to
/// any request message that contains more than one Host header field line or a Host header field with an invalid field
/// value" (RFC 9112 3.2). An absolute-form target wins over `Host`, and spares nobody the field (3.2.2).
fn host(request: &Request) -> Result<(), Error> {
    let mut hosts = request.headers().get_all("host");
    match (hosts.next(), hosts.next(), request.version()) {
        (Some(host), None, _) => authority::check(host),
        (None, _, Version::Http10) => Ok(()),
        (None, _, Version::Http11) => Err(Error::bad("HTTP/1.1 requests have a Host field (RFC 9112 3.2)")),
        (Some(_), Some(_), _) => Err(Error::bad("a request has one Host field (RFC 9112 3.2)")),
    }
}

/// `Content-Type` "is defined as a singleton field"; taking one of several leads to "potential interoperability and
/// security issues" (RFC 9110 8.3), so nobody here takes one.
fn content_type(request: &Request) -> Result<(), Error> {
    match request.headers().get_all("content-type").nth(1) {
        Some(_) => Err(Error::bad("a request has one Content-Type field (RFC 9110 8.3)")),
        None => Ok(()),
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Incomplete)
    }

    fn expect(&mut self, byte: u8, rule: &'static str) -> Result<(), Stop> {
        if self.peek()? != byte {
            return bad(rule);
        }
        self.at += 1;
        Ok(())
    }

    fn digit(&mut self, rule: &'static str) -> Result<u8, Stop> {
        let byte = self.peek()?;
        if !byte.is_ascii_digit() {
            return bad(rule);
        }
        self.at += 1;
        Ok(byte)
    }

    /// Takes bytes of a class, up to one that is not of it; which must be there, else the class may go on.
    fn take_while(&mut self, class: fn(u8) -> bool) -> Result<&'a [u8], Stop> {
        let rest = self.rest();
        let length = rest.iter().position(|&b| !class(b)).ok_or(Stop::Incomplete)?;
        self.at += length;
        Ok(&rest[..length])
    }

    /// CRLF and nothing else ends a line. RFC 9112 2.2 lets a server accept a bare LF; those that do disagree with
    /// those that do not about where a head ends.
    fn crlf(&mut self) -> Result<(), Stop> {
        const RULE: &str = "a line holds no control characters and ends with CRLF (RFC 9112 2.2)";
        self.expect(b'\r', RULE)?;
        self.expect(b'\n', RULE)
    }
}
