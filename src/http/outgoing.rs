//! Sends a response: writes the head and the body with as few writes as possible (RFC 9112 6).
//!
//! ```text
//! a body up to MAX_COLLECTED  one write of a buffer with head and body
//! a larger body               one vectored write of head and body
//! a stream                    one write of the head with the first piece of the body, then one write for each piece
//! ```

use super::chunked::{push_chunk, LAST_CHUNK};
use super::panics::catch;
use super::request::Version;
use super::response::{Payload, Producer, Response};
use super::{ascii, date, Headers, StatusCode};
use std::io::{self, IoSlice, Write};

/// The maximum length in bytes of a body that is copied into the buffer of the head, so that one write sends both. The
/// bytes of a stream are collected, and are sent when there are at least as many bytes as this. Copying 16 KiB takes
/// about 1 µs, and a second write takes about 5 µs.
const MAX_COLLECTED: usize = 16 * 1024;

/// The properties of a request and its connection on which the bytes of the response depend.
pub struct SendOptions<'a> {
    pub version: Version,
    /// `true` if the request method is HEAD. Then the head of the response is sent without the body (RFC 9110 9.3.2).
    pub head_only: bool,
    pub keep_alive: bool,
    /// The fields that guards and handlers set on the context.
    pub headers: &'a Headers,
}

/// The result of sending a response to a socket that did not fail.
pub struct SendReport {
    pub status: StatusCode,
    pub body_bytes: u64,
    /// `true` if the connection stays open for another request. `false` if the options or the response close the
    /// connection, if the body is incomplete, or if the body ends with the connection.
    pub keep_alive: bool,
    /// The error that ended the body early, or else the cause of the response.
    pub error: Option<io::Error>,
}

/// The rule by which a client finds the end of the body of a response (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum ResponseFraming {
    /// No body follows, because the status is 204 or 304.
    Bodiless,
    Length(u64),
    Chunked,
    UntilClose,
}

impl ResponseFraming {
    fn of(response: &Response, version: Version) -> ResponseFraming {
        if response.status_code().is_bodiless() {
            return ResponseFraming::Bodiless;
        }
        match &response.payload {
            Payload::Bytes(bytes) => ResponseFraming::Length(bytes.len() as u64),
            Payload::Stream(stream) => match stream.0 {
                Some(length) => ResponseFraming::Length(length),
                None if version == Version::Http10 => ResponseFraming::UntilClose,
                None => ResponseFraming::Chunked,
            },
            Payload::Problem(_) => unreachable!("`write_problem` has replaced the problem"),
            Payload::TakenOver | Payload::Refused(_) => {
                unreachable!("the server sends no response on a connection that was taken over")
            }
        }
    }
}

/// An error of [`try_send`].
pub enum SendError {
    /// A write to the socket failed.
    Socket(io::Error),
    /// The producer of the body failed before any byte was sent. Another response can be sent instead.
    Unsent(io::Error),
}

/// Writes the response to `socket`. If the producer of the body fails before any byte was sent, writes a 500 instead.
/// `out` is a buffer, which must be empty before the call and is empty after the call.
///
/// # Errors
///
/// - Returns the error of a write to `socket`.
pub fn send(
    response: Response,
    options: &SendOptions<'_>,
    out: &mut Vec<u8>,
    socket: &mut dyn Write,
) -> io::Result<SendReport> {
    match try_send(response, options, out, socket) {
        Ok(report) => Ok(report),
        Err(SendError::Socket(error)) => Err(error),
        Err(SendError::Unsent(error)) => send(Response::from(error), options, out, socket),
    }
}

/// Writes the response to `socket` as [`send`] does, but returns [`SendError::Unsent`] if the producer of the body
/// fails before any byte was sent.
pub fn try_send(
    mut response: Response,
    options: &SendOptions<'_>,
    out: &mut Vec<u8>,
    socket: &mut dyn Write,
) -> Result<SendReport, SendError> {
    response.write_problem();
    let framing = ResponseFraming::of(&response, options.version);
    let mut report = SendReport {
        status: response.status_code(),
        body_bytes: 0,
        keep_alive: options.keep_alive && !response.closes() && framing != ResponseFraming::UntilClose,
        error: response.cause.take(),
    };
    push_head(out, &response, options, framing, report.keep_alive);
    if options.head_only || framing == ResponseFraming::Bodiless {
        write_and_clear(socket, out).map_err(SendError::Socket)?;
        return Ok(report);
    }
    match response.payload {
        Payload::Bytes(bytes) => {
            report.body_bytes = bytes.len() as u64;
            if bytes.len() <= MAX_COLLECTED {
                out.extend_from_slice(&bytes);
                write_and_clear(socket, out).map_err(SendError::Socket)?;
            } else {
                write_head_and_body(socket, std::mem::take(out), &bytes).map_err(SendError::Socket)?;
            }
        }
        Payload::Stream(stream) => {
            let mut body = BodyWriter::new(out, socket, framing);
            let produced = body.run(stream.1);
            report.body_bytes = body.bytes;
            if let Err(error) = produced {
                match body.state {
                    WriterState::SocketFailed => return Err(SendError::Socket(error)),
                    WriterState::Unsent => {
                        out.clear();
                        return Err(SendError::Unsent(error));
                    }
                    WriterState::Sending => {
                        report.keep_alive = false;
                        report.error = Some(error);
                    }
                }
            }
        }
        Payload::Problem(_) | Payload::TakenOver | Payload::Refused(_) => (),
    }
    Ok(report)
}

/// Appends the status line and the fields (RFC 9112 4, 5). The status line contains `HTTP/1.1` even for an HTTP/1.0
/// client, because the status line states the version of the server (RFC 9110 6.2).
fn push_head(
    out: &mut Vec<u8>,
    response: &Response,
    options: &SendOptions<'_>,
    framing: ResponseFraming,
    keep_alive: bool,
) {
    let has = |name: &str| response.headers().contains(name) || options.headers.contains(name);
    push_status_line(out, response.status_code());
    if !has("date") {
        push_date(out);
    }
    if let Some(content_type) = response.content_type() {
        if !has("content-type") {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(content_type.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(options.headers.section());
    out.extend_from_slice(response.headers().section());
    match framing {
        ResponseFraming::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            ascii::push_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        ResponseFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        ResponseFraming::Bodiless | ResponseFraming::UntilClose => (),
    }
    if !keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if options.version == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends `status-line = HTTP-version SP status-code SP [ reason-phrase ] CRLF` (RFC 9112 4).
pub fn push_status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    ascii::push_decimal(out, status.as_u16().into());
    out.push(b' ');
    out.extend_from_slice(status.reason().as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub fn push_date(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Date: ");
    date::push_now(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the bytes of `out`, and then clears `out`, even after an error. So no byte is sent twice.
fn write_and_clear(socket: &mut dyn Write, out: &mut Vec<u8>) -> io::Result<()> {
    let written = socket.write_all(out);
    out.clear();
    written
}

/// Writes `head` and `body`. Makes one system call if the socket accepts all bytes at once.
fn write_head_and_body(socket: &mut dyn Write, head: Vec<u8>, body: &[u8]) -> io::Result<()> {
    let mut head = &head[..];
    let mut body = body;
    while !head.is_empty() {
        match socket.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                let of_head = written.min(head.len());
                head = &head[of_head..];
                body = &body[written - of_head..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    socket.write_all(body)
}

/// The writer to which a producer writes a body. `BodyWriter` frames the bytes of the body, and sends the framed bytes.
struct BodyWriter<'a> {
    out: &'a mut Vec<u8>,
    socket: &'a mut dyn Write,
    framing: ResponseFraming,
    /// The bytes from the producer that are not framed yet.
    pending: Vec<u8>,
    bytes: u64,
    state: WriterState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriterState {
    /// No byte of the head or the body was sent. Another response can be sent instead.
    Unsent,
    Sending,
    /// A write to the socket failed, for example because the client has left or has stopped reading. Later flushes fail
    /// too.
    SocketFailed,
}

impl<'a> BodyWriter<'a> {
    fn new(out: &'a mut Vec<u8>, socket: &'a mut dyn Write, framing: ResponseFraming) -> BodyWriter<'a> {
        BodyWriter { out, socket, framing, pending: Vec::new(), bytes: 0, state: WriterState::Unsent }
    }

    /// Calls the producer, and then writes the rest of the body.
    ///
    /// # Errors
    ///
    /// - Returns the error of the producer, or an error if the producer panics.
    /// - Returns `UnexpectedEof` if the producer wrote fewer or more bytes than the announced length.
    /// - Returns the error of a write to the socket.
    fn run(&mut self, producer: Producer) -> io::Result<()> {
        catch(|| producer(self)).unwrap_or_else(|| Err(io::Error::other("the code that writes the body panicked")))?;
        self.frame_pending()?;
        match self.framing {
            ResponseFraming::Length(length) if length != self.bytes => {
                let message = format!("the body ended after {} of {length} bytes", self.bytes);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            ResponseFraming::Chunked => self.out.extend_from_slice(LAST_CHUNK),
            _ => (),
        }
        self.write_out()
    }

    /// Moves the pending bytes to `out`, as one chunk if the body is chunked. Returns an error if a write to the socket
    /// has failed.
    fn frame_pending(&mut self) -> io::Result<()> {
        if self.state == WriterState::SocketFailed {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "an earlier write to the client failed"));
        }
        self.bytes += self.pending.len() as u64;
        if self.framing == ResponseFraming::Chunked {
            push_chunk(self.out, &self.pending);
        } else {
            self.out.extend_from_slice(&self.pending);
        }
        self.pending.clear();
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        let written = write_and_clear(self.socket, self.out);
        self.state = if written.is_ok() { WriterState::Sending } else { WriterState::SocketFailed };
        written
    }
}

impl Write for BodyWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(data);
        if self.pending.len() >= MAX_COLLECTED {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.frame_pending()?;
        self.write_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_HEADERS: &Headers = &Headers::new();

    const HTTP_11: SendOptions<'_> =
        SendOptions { version: Version::Http11, head_only: false, keep_alive: true, headers: NO_HEADERS };
    const HTTP_10: SendOptions<'_> = SendOptions { version: Version::Http10, keep_alive: false, ..HTTP_11 };

    /// Returns the bytes of the response without the `Date` field.
    fn wire(response: Response, options: &SendOptions<'_>) -> String {
        let (mut out, mut socket) = (Vec::new(), Vec::new());
        send(response, options, &mut out, &mut socket).unwrap();
        assert!(out.is_empty(), "`out` is empty after `send`");
        let text = String::from_utf8(socket).unwrap();
        let (before, date) = text.split_once("Date: ").unwrap();
        [before, date.split_once("\r\n").unwrap().1].concat()
    }

    #[test]
    fn bytes_are_sent_with_their_length() {
        assert_eq!(
            wire(Response::text("hi"), &HTTP_11),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nhi"
        );
        assert_eq!(
            wire(Response::status(StatusCode::ACCEPTED), &HTTP_11),
            "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
        );
        let keep_alive_10 = SendOptions { keep_alive: true, ..HTTP_10 };
        assert_eq!(
            wire(Response::json("[]").header("content-type", "a/b"), &keep_alive_10),
            "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n[]"
        );
    }

    #[test]
    fn large_body_is_sent_after_its_head() {
        let page = "x".repeat(100_000);
        assert!(
            wire(Response::html(page.clone()), &HTTP_11).ends_with(&format!("Content-Length: 100000\r\n\r\n{page}"))
        );
    }

    #[test]
    fn response_to_head_or_with_204_has_no_body() {
        let head = SendOptions { head_only: true, ..HTTP_11 };
        assert!(wire(Response::text("hi"), &head).ends_with("Content-Length: 2\r\n\r\n"));
        assert!(wire(Response::stream("a/b", |_| Ok(())), &head).ends_with("Transfer-Encoding: chunked\r\n\r\n"));
        assert_eq!(
            wire(Response::text("hi").with_status(StatusCode::NO_CONTENT).close(), &HTTP_11),
            "HTTP/1.1 204 No Content\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn stream_is_chunked_for_http_11_and_ends_with_connection_for_http_10() {
        let stream = || {
            Response::stream("a/b", |out| {
                out.write_all(b"he")?;
                out.flush()?;
                out.flush()?;
                out.write_all(b"llo")
            })
        };
        assert!(
            wire(stream(), &HTTP_11).ends_with("Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
        );
        assert!(wire(stream(), &HTTP_10).ends_with("Content-Type: a/b\r\nConnection: close\r\n\r\nhello"));
    }

    #[test]
    fn producer_that_fails_before_first_byte_sends_500() {
        let failing = || Response::stream("a/b", |out| out.write_all(b"half").and(Err(io::Error::other("no more"))));
        assert!(wire(failing(), &HTTP_11).starts_with("HTTP/1.1 500 "));
        assert!(wire(Response::stream("a/b", |_| panic!("on purpose")), &HTTP_11).starts_with("HTTP/1.1 500 "));
        assert!(wire(Response::reader("a/b", 3, &b"ab"[..]), &HTTP_11).starts_with("HTTP/1.1 500 "));
        assert!(wire(Response::reader("a/b", 1, &b"ab"[..]), &HTTP_11).ends_with("Content-Length: 1\r\n\r\na"));
    }

    #[test]
    fn refused_field_is_not_sent_and_response_is_500() {
        let text = wire(Response::text("hi").header("X", "a\r\nY: b"), &HTTP_11);
        assert!(text.starts_with("HTTP/1.1 500 ") && !text.contains("Y: b"), "{text}");
        assert!(wire(Response::text("hi").header("content-length", "7"), &HTTP_11).starts_with("HTTP/1.1 500 "));
        assert!(wire(Response::bytes("a/b\r\nY: b", b"hi"), &HTTP_11).starts_with("HTTP/1.1 500 "));
    }
}
