//! The body of a request: the reader for handlers, and the progress of the body (RFC 9112 6).

use super::buffer::Buffer;
use super::buffered_socket::{is_timeout, BufferedSocket};
use super::config::Config;
use super::http::chunked::{Decoded, Decoder};
use super::http::framing::{Length, RequestFraming};
use super::http::{Error, StatusCode};
use super::throughput::time_budget;
use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// The maximum number of unread bytes of a body with `Content-Length` that the server reads after the response, to keep
/// the connection. Reading 64 KiB takes less time than a new connection.
const MAX_DRAIN: u64 = 64 * 1024;

const TOO_LARGE: Error = Error::fixed(StatusCode::CONTENT_TOO_LARGE, "the body is too large");

const ENDED_EARLY: Error = Error::bad("the request ended before the end of its body");

/// A reader of a request's body, returned by [`Context::body`](super::Context::body). A read blocks until bytes of the
/// body arrive, and returns the bytes without the framing of chunks. A read returns `Ok(0)` at the end of the body.
///
/// ```
/// # use brooklet::Context;
/// fn upload(mut ctx: Context<'_>) -> std::io::Result<String> {
///     let mut file = std::fs::File::create("upload")?;
///     let bytes = std::io::copy(&mut ctx.body(), &mut file)?;
///     Ok(format!("{bytes} bytes\n"))
/// }
/// ```
///
/// # Errors
///
/// The error of a read contains an [`Error`] with a status (see [`Error::of`]). If the handler returns this error with
/// `?`, the response has this status. Later reads return an error with the same status.
///
/// - Returns an error with the status 400 if the framing of the chunks is malformed.
/// - Returns an error with the status 400 if the connection ends before the end of the body. The error has the kind
///   of the socket's error, for example `ConnectionReset`. The kind is `UnexpectedEof` if the client ended the
///   connection without an error of the socket.
/// - Returns an error with the status 408 and the kind `TimedOut` after [`read_timeout`](super::Config::read_timeout).
/// - Returns an error with the status 413 if the body is larger than [`max_body_bytes`](super::Config::max_body_bytes),
///   or larger than the limit of [`limit_body`](super::Context::limit_body).
pub struct Body<'a> {
    progress: &'a mut BodyProgress,
    conn: &'a mut BufferedSocket,
}

impl<'a> Body<'a> {
    pub(super) fn new(progress: &'a mut BodyProgress, conn: &'a mut BufferedSocket) -> Body<'a> {
        Body { progress, conn }
    }

    /// Decodes bytes from the buffer. If the buffer contains no byte of the body's content, waits for more bytes.
    fn read_some(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.progress.decode(&mut self.conn.input, out)? {
                Some(length) => return Ok(length),
                None => self.wait()?,
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        if self.progress.expects_continue {
            self.progress.expects_continue = false;
            self.conn.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(ended_early)?;
        }
        let within = self.progress.time_left();
        match self.conn.fill(within) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, ENDED_EARLY)),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => {
                Err(Error::new(StatusCode::REQUEST_TIMEOUT, "the request body took too long").into())
            }
            Err(error) => Err(ended_early(error)),
        }
    }

    /// Reads and discards the rest of the body.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

/// Converts an error of the client's socket into an error with the status 400 and the same kind. After a socket error,
/// no more bytes of the body arrive.
fn ended_early(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), ENDED_EARLY)
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("received", &self.progress.received).finish_non_exhaustive()
    }
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let read = self.read_some(out);
        if let Err(error) = &read {
            self.progress.left = Left::Failed(Error::of(error).cloned().unwrap_or(ENDED_EARLY));
        }
        read
    }
}

/// The progress of a request's body. The progress is kept after the handler has returned, because the rest of the body
/// arrives before the next request.
pub struct BodyProgress {
    left: Left,
    /// `true` if the client waits for a `100 Continue` before it sends the body (RFC 9110 10.1.1).
    expects_continue: bool,
    received: u64,
    /// The maximum size of the body in bytes. [`Context::limit_body`](super::Context::limit_body) changes this size.
    pub max: u64,
    timeout: Duration,
    started: Option<Instant>,
}

/// The part of a body that the server has not decoded yet.
enum Left {
    /// The known number of bytes.
    Exact(u64),
    Chunked(Decoder),
    /// A read failed, so the server cannot find the end of the body. Each further read returns this error.
    Failed(Error),
}

/// The part of a body that is unread after the handler has returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remainder {
    Nothing,
    /// At most [`MAX_DRAIN`] bytes. The server reads these bytes after the response.
    Short,
    /// More bytes, an unknown number of bytes, or bytes that the client sends only after `100 Continue`. The server
    /// ends the connection after the response.
    Unknown,
}

impl BodyProgress {
    pub fn new(framing: RequestFraming, config: &Config) -> BodyProgress {
        let left = match framing.body {
            Length::Exact(length) => Left::Exact(length),
            Length::Chunked => Left::Chunked(Decoder::new()),
        };
        BodyProgress {
            left,
            expects_continue: framing.expects_continue && framing.body != Length::Exact(0),
            received: 0,
            max: config.max_body_bytes,
            timeout: config.read_timeout,
            started: None,
        }
    }

    /// Decodes bytes from the buffer into `out`, and returns the number of decoded bytes. Returns 0 at the end of the
    /// body. Returns `None` if more input is necessary.
    fn decode(&mut self, input: &mut Buffer, out: &mut [u8]) -> Result<Option<usize>, Error> {
        while !self.is_done() {
            if let Left::Failed(error) = &self.left {
                return Err(error.clone());
            }
            self.check_length()?;
            if input.is_empty() {
                return Ok(None);
            }
            let Decoded { consumed, produced } = self.left.decode(input.data(), out)?;
            input.consume(consumed);
            self.received += produced as u64;
            self.check_length()?;
            if produced > 0 {
                return Ok(Some(produced));
            }
        }
        Ok(Some(0))
    }

    /// Checks the length of the body. Each read calls this function, because the handler may change the limit between
    /// two reads.
    ///
    /// # Errors
    ///
    /// - Returns an error with the status 413 if the received bytes and the announced bytes together exceed the limit.
    fn check_length(&self) -> Result<(), Error> {
        if self.received.saturating_add(self.left.announced()) > self.max {
            return Err(TOO_LARGE);
        }
        Ok(())
    }

    /// Discards the bytes of the body that are in the buffer. Returns the part of the body that is still unread.
    pub fn discard_buffered(&mut self, input: &mut Buffer) -> Remainder {
        let mut scratch = [0; 1024];
        loop {
            match self.decode(input, &mut scratch) {
                Ok(Some(1..)) => (),
                Ok(Some(0) | None) => break,
                Err(_) => return Remainder::Unknown,
            }
        }
        if self.is_done() {
            return Remainder::Nothing;
        }
        match self.left {
            Left::Exact(left) if left <= MAX_DRAIN && !self.expects_continue => Remainder::Short,
            _ => Remainder::Unknown,
        }
    }

    fn is_done(&self) -> bool {
        match &self.left {
            Left::Exact(left) => *left == 0,
            Left::Chunked(decoder) => decoder.is_done(),
            Left::Failed(_) => false,
        }
    }

    /// Returns the remaining time in which the client must send the body. The time starts with the first call.
    fn time_left(&mut self) -> Duration {
        let started = *self.started.get_or_insert_with(Instant::now);
        time_budget(self.timeout, self.received).saturating_sub(started.elapsed())
    }
}

impl Left {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, Error> {
        match self {
            Left::Exact(left) => {
                let length = input.len().min(out.len()).min(usize::try_from(*left).unwrap_or(usize::MAX));
                out[..length].copy_from_slice(&input[..length]);
                *left -= length as u64;
                Ok(Decoded { consumed: length, produced: length })
            }
            Left::Chunked(decoder) => decoder.decode(input, out),
            Left::Failed(error) => Err(error.clone()),
        }
    }

    /// Returns the number of bytes that the client has announced and the server has not decoded. `Content-Length` or
    /// the size line of the current chunk announces bytes.
    fn announced(&self) -> u64 {
        match self {
            Left::Chunked(decoder) => decoder.announced(),
            Left::Exact(left) => *left,
            Left::Failed(_) => 0,
        }
    }
}
