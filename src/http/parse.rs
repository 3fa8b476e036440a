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
pub fn request_head(bytes: &[u8], seen: usize, limits: &Limits) -> Result<Option<Head>, Error> {
    if seen > MAX_METHOD && !bytes[seen..].iter().any(u8::is_ascii_control) {
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
    let mut headers = Headers::with_capacity(16);
    let start = cursor.at;
    loop {
        if cursor.peek()? == b'\r' {
            headers.set_wire(&cursor.bytes[start..cursor.at]);
            cursor.crlf()?;
            return Ok(headers);
        }
        let at = cursor.at - start;
        let (name, value) = field_line(cursor)?;
        if headers.len() == limits.max_headers {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Error::new(status, "the request has too many header fields").into());
        }
        headers.note(name, at, value.start - start..value.end - start);
    }
}

/// `field-line = field-name ":" OWS field-value OWS` (RFC 9112 5). No white space before the colon (5.1), none before
/// the name either, which would be obsolete line folding (5.2): both are 400, as those sections demand.
fn field_line<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], Range<usize>), Stop> {
    let name = cursor.take_while(ascii::is_tchar)?;
    if name.is_empty() {
        return bad("a header line starts with a field name (RFC 9112 5)");
    }
    cursor.expect(b':', "a field name is a token, and a colon follows it at once (RFC 9112 5.1)")?;
    cursor.skip_ows();
    let start = cursor.at;
    let value = ascii::trim_ows(cursor.take_field()?);
    cursor.crlf()?;
    Ok((name, start..start + value.len()))
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
    #[inline]
    fn take_while(&mut self, class: impl Fn(u8) -> bool) -> Result<&'a [u8], Stop> {
        let rest = self.rest();
        let length = rest.iter().position(|&b| !class(b)).ok_or(Stop::Incomplete)?;
        self.at += length;
        Ok(&rest[..length])
    }

    /// `OWS = *( SP / HTAB )` (RFC 9110 5.6.3)
    fn skip_ows(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Takes a field's value: the bytes of [`ascii::is_field`], most of them sixteen at a time, for they are most of a head.
    fn take_field(&mut self) -> Result<&'a [u8], Stop> {
        let start = self.at;
        self.at += ascii::skip(self.rest(), |byte| (byte < b' ') | (byte == 0x7f));
        self.take_while(ascii::is_field)?;
        Ok(&self.bytes[start..self.at])
    }

    /// CRLF and nothing else ends a line. RFC 9112 2.2 lets a server accept a bare LF; those that do disagree with
    /// those that do not about where a head ends.
    fn crlf(&mut self) -> Result<(), Stop> {
        const RULE: &str = "a line holds no control characters and ends with CRLF (RFC 9112 2.2)";
        self.expect(b'\r', RULE)?;
        self.expect(b'\n', RULE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunked::Decoder;
    use super::super::measure::nanoseconds;
    use super::framing::{Framing, Length};
    use super::*;

    const LIMITS: Limits = Limits { max_headers: 8 };

    /// What a head comes to: its length, its framing and its request line, a status, or nothing yet.
    type Outcome = Result<Option<(usize, Framing, String)>, StatusCode>;

    /// Parses as a connection does that reads up to each of `ends` in turn.
    fn parse(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> Outcome {
        let mut seen = 0;
        for end in ends {
            match request_head(&bytes[..end], seen, &LIMITS) {
                Ok(None) => seen = end,
                Ok(Some(Head { request, framing, length })) => {
                    let line = format!("{} {} {:?}", request.method(), request.target(), request.version());
                    return Ok(Some((length, framing, line)));
                }
                Err(error) => return Err(error.status()),
            }
        }
        Ok(None)
    }

    /// However the bytes are cut, the outcome is the same once their last line has ended: before that, what can no longer
    /// turn out well may go unnoticed. And a head takes its own bytes and no fewer.
    fn check(bytes: &[u8], cut: usize) -> Outcome {
        let whole = parse(bytes, [bytes.len()]);
        assert_eq!(
            parse(bytes, [cut.min(bytes.len()), bytes.len()]),
            whole,
            "{:?} cut at {cut}",
            bytes.escape_ascii().to_string()
        );
        if let Ok(Some((length, ..))) = whole {
            assert_eq!(parse(bytes, [length]), whole, "{:?} without what follows", bytes.escape_ascii().to_string());
            assert_eq!(
                parse(bytes, [length - 1]),
                Ok(None),
                "{:?} without its last byte",
                bytes.escape_ascii().to_string()
            );
        }
        whole
    }

    /// Decodes a chunked body in pieces: its data, and how many bytes it took; `None` inside if there must be more.
    fn chunked(bytes: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, Error> {
        let (mut decoder, mut data, mut at) = (Decoder::new(), Vec::new(), 0);
        let mut out = [0; 64];
        while at < bytes.len() && !decoder.is_done() {
            let decoded = decoder.decode(&bytes[at..(at + piece).min(bytes.len())], &mut out)?;
            at += decoded.consumed;
            data.extend_from_slice(&out[..decoded.produced]);
        }
        Ok(decoder.is_done().then_some((data, at)))
    }

    fn with_line_end(bytes: &[u8]) -> Vec<u8> {
        [bytes, b"\n"].concat()
    }

    #[test]
    fn a_head_is_complete_partial_or_refused() {
        let get = b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\nrest";
        let none = Framing { body: Length::Exact(0), expects_continue: false };
        assert_eq!(check(get, 7), Ok(Some((get.len() - 4, none, "GET /a?b Http11".to_owned()))));
        let post = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunked = Framing { body: Length::Chunked, expects_continue: true };
        assert_eq!(check(post, 7), Ok(Some((post.len(), chunked, "POST / Http11".to_owned()))));
        assert_eq!(check(b"GET / HTTP/1.1\r\nHost: h\r\n", 7), Ok(None));
        assert_eq!(check(b"GET / HTTP/1.1\r\nHost h\r\n", 7), Err(StatusCode::BAD_REQUEST));
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(8));
        assert_eq!(check(many.as_bytes(), 7), Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }

    /// Every sequence of three nasty pieces, as a whole message and as fields of one that is well-formed otherwise.
    #[test]
    fn every_short_sequence_of_nasty_pieces_parses_alike_however_it_is_split() {
        let pieces = [
            "GET ", "/", " HTTP/1.1", "\r\n", "\r", "\n", "\r\n\r\n", "Host: h\r\n", "Host:", ":", " ", "\t", "\0",
            "\u{7f}", "\u{e9}", "*", "http://h", "Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "X: y\r\n",
            ",", "#", "%", "A", "OPTIONS ",
        ];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    let pieces = [a, b, c].concat();
                    for message in [
                        pieces.clone(),
                        format!("GET {pieces} HTTP/1.1\r\nHost: h\r\n\r\n"),
                        format!("GET / HTTP/1.1\r\nHost: h\r\n{pieces}\r\n\r\n"),
                    ] {
                        let bytes = with_line_end(message.as_bytes());
                        let whole = check(&bytes, a.len());
                        assert_eq!(parse(&bytes, 1..=bytes.len()), whole, "{message:?} byte by byte");
                    }
                }
            }
        }
    }

    /// A fuzzer for a stable compiler: valid requests, changed at random, from a fixed seed.
    #[test]
    fn two_hundred_thousand_mutations_parse_alike_however_they_are_split() {
        let corpus: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\nHost: localhost:8080\r\nAccept: text/html;q=0.9, */*\r\n\r\n",
            b"POST /form?a=b HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\nhello=world",
            b"PUT /x%20y HTTP/1.0\r\nConnection: keep-alive\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: h\r\nX-Obs: \xe9\xff\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"\r\nGET http://h:80/p HTTP/1.1\r\nhost:h\r\nCookie: a=b; c=d\r\n\r\n",
        ];
        let nasty: [&[u8]; 12] = [
            b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"\xff", b",", b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n", b"9",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13; // xorshift64
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let (mut served, mut refused) = (0, 0);
        for n in 0..200_000 {
            let mut bytes = corpus[n % corpus.len()].to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = random(256) as u8,
                    1 => drop(bytes.splice(at..at, nasty[random(nasty.len())].iter().copied())),
                    2 => drop(bytes.drain(at..(at + 1 + random(4)).min(bytes.len()))),
                    _ => bytes.extend_from_within(at..(at + random(20)).min(bytes.len())),
                }
                if bytes.is_empty() {
                    bytes.push(b'G');
                }
            }
            let bytes = with_line_end(&bytes);
            let (cut, other) = (random(bytes.len() + 1), random(bytes.len() + 1));
            let whole = check(&bytes, cut);
            let ends = [cut.min(other), cut.max(other), bytes.len()];
            assert_eq!(parse(&bytes, ends), whole, "{:?} cut at {cut} and {other}", bytes.escape_ascii().to_string());
            match whole {
                Ok(Some((length, framing, _))) => {
                    served += 1;
                    if framing.body == Length::Chunked {
                        let body = &bytes[length..];
                        assert_eq!(
                            chunked(body, body.len()),
                            chunked(body, 1 + cut % 7),
                            "{:?}",
                            body.escape_ascii().to_string()
                        );
                    }
                }
                Ok(None) => (),
                Err(_) => refused += 1,
            }
        }
        assert!(
            served > 20_000 && refused > 20_000,
            "the mutations reach both sides: {served} served, {refused} refused"
        );
    }

    /// What a browser sends: 12 fields, 600 bytes.
    const BROWSER: &[u8] = b"GET /dashboard/events?since=1024 HTTP/1.1\r\n\
        Host: localhost:8080\r\n\
        Connection: keep-alive\r\n\
        Cache-Control: max-age=0\r\n\
        sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
        sec-ch-ua-mobile: ?0\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
        Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
        Sec-Fetch-Site: same-origin\r\n\
        Sec-Fetch-Mode: navigate\r\n\
        Accept-Encoding: gzip, deflate, br\r\n\
        Accept-Language: en-GB,en;q=0.9\r\n\
        Cookie: session=2b7e151628aed2a6abf7158809cf4f3c\r\n\r\n";

    #[test]
    #[ignore = "a benchmark"]
    fn nanoseconds_to_parse_a_browsers_head() {
        assert_eq!((BROWSER.len() + 50) / 100, 6);
        let limits = Limits { max_headers: 100 };
        nanoseconds("a head of 12 fields and 600 bytes", || {
            assert!(request_head(std::hint::black_box(BROWSER), 0, &limits).unwrap().is_some());
        });
    }
}
