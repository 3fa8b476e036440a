//! A request's body: how much of it has come, and the reader that a handler gets (RFC 9112 6).

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

/// The rest of a body that the handler did not read is read, to keep the connection, up to this size: reading 64 KiB costs
/// less than a new connection.
const MAX_DRAIN: u64 = 64 * 1024;

const TOO_LARGE: Error = Error::fixed(StatusCode::CONTENT_TOO_LARGE, "the body is too large");

const ENDED_EARLY: Error = Error::bad("the request ended in its body");

/// The request's body, without its framing. Reads block until something comes; `Ok(0)` is the body's end.
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
/// A read returns an error that carries the status to answer with (see [`Error::of`]), and returns it again when asked
/// again: 400 for broken chunks, and of kind `UnexpectedEof` or `ConnectionReset` where the client ended before its body did;
/// 408, kind `TimedOut`, past [`read_timeout`](super::Config::read_timeout); 413 past
/// [`max_body_bytes`](super::Config::max_body_bytes). A body that ends early is never taken for a whole one.
pub struct Body<'a> {
    progress: &'a mut BodyProgress,
    conn: &'a mut BufferedSocket,
}

impl<'a> Body<'a> {
    pub(super) fn new(progress: &'a mut BodyProgress, conn: &'a mut BufferedSocket) -> Body<'a> {
        Body { progress, conn }
    }

    /// Reads what is in the buffer, and waits for more if that is nothing.
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

    /// Reads what the handler did not read, and drops it.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

/// A reset is an end too, and so is whatever else becomes of the client's socket.
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

/// How far the body of a request has come. It outlives the handler, because what the handler did not read has to be dealt
/// with before the next request.
pub struct BodyProgress {
    left: Left,
    /// The client waits for a `100 Continue` before it sends the body (RFC 9110 10.1.1).
    expects_continue: bool,
    received: u64,
    /// What [`Context::limit_body`](super::Context::limit_body) changes.
    pub max: u64,
    timeout: Duration,
    started: Option<Instant>,
}

/// The part of a body that is still to come.
enum Left {
    /// A number of bytes.
    Exact(u64),
    Chunked(Decoder),
    /// The end of the body cannot be found any more: each further read returns this error.
    Failed(Error),
}

/// How much is left of a body after its handler has returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remainder {
    Nothing,
    /// Little enough to read it.
    Short,
    /// Too much, or of unknown length: the connection ends.
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

    /// Decodes from the buffer; 0 is the end. `None` if the buffer holds nothing of the body but the body goes on.
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

    /// # Errors
    ///
    /// 413 if more came or was announced than is allowed. A length is checked when the body is read, because the handler may
    /// allow more, and not if nobody reads it.
    fn check_length(&self) -> Result<(), Error> {
        if self.received.saturating_add(self.left.announced()) > self.max {
            return Err(TOO_LARGE);
        }
        Ok(())
    }

    /// Drops what the handler did not read, as far as it is in the buffer, and returns what is left then.
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

    /// Returns how much longer the client may take. Its time starts with the first call.
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

    /// Returns how many bytes are known to be still to come, by Content-Length or by the size line of the current chunk.
    fn announced(&self) -> u64 {
        match self {
            Left::Chunked(decoder) => decoder.announced(),
            Left::Exact(left) => *left,
            Left::Failed(_) => 0,
        }
    }
}
