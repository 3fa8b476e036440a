//! A request's body, read as the handler asks for it (RFC 9112 6).

use super::config::{allowance, Config};
use super::http::chunked::{Decoded, Decoder};
use super::http::framing::{Framing, Length};
use super::http::{Error, StatusCode};
use super::wire::{is_timeout, Wire};
use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// A rest of a body that nobody wanted is read, to keep the connection, if it is no longer than this: 64 KiB cost less
/// than a new connection.
const MAX_DRAIN: u64 = 64 * 1024;

/// The state of the body of the request that is being answered. It outlives the handler, because the rest of a body that
/// the handler left has to be dealt with before the next request.
pub struct Incoming {
    state: State,
    /// The client waits for a `100 Continue` before it sends the body (RFC 9110 10.1.1).
    expects_continue: bool,
    received: u64,
    max: u64,
    timeout: Duration,
    started: Option<Instant>,
}

enum State {
    /// So many bytes are to come.
    Exact(u64),
    Chunked(Decoder),
    /// Reading on would read nonsense: each further read says this again.
    Failed(Error),
}

/// What is left of a body when its handler is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    Nothing,
    /// Little enough to read on.
    Short,
    /// Too much, or nobody can tell: the connection ends.
    Unknown,
}

impl Incoming {
    pub fn none() -> Incoming {
        Incoming {
            state: State::Exact(0),
            expects_continue: false,
            received: 0,
            max: 0,
            timeout: Duration::ZERO,
            started: None,
        }
    }

    /// # Errors
    ///
    /// 413 if the length is known and too much.
    pub fn new(framing: Framing, config: &Config) -> Result<Incoming, Error> {
        let state = match framing.body {
            Length::Exact(length) if length > config.max_body_bytes => return Err(TOO_LARGE),
            Length::Exact(length) => State::Exact(length),
            Length::Chunked => State::Chunked(Decoder::new()),
        };
        let expects_continue = framing.expects_continue && framing.body != Length::Exact(0);
        let (max, timeout) = (config.max_body_bytes, config.read_timeout);
        Ok(Incoming { state, expects_continue, received: 0, max, timeout, started: None })
    }

    fn is_done(&self) -> bool {
        match &self.state {
            State::Exact(left) => *left == 0,
            State::Chunked(decoder) => decoder.is_done(),
            State::Failed(_) => false,
        }
    }

    /// How much longer the client has.
    fn time_left(&mut self) -> Duration {
        let started = *self.started.get_or_insert_with(Instant::now);
        allowance(self.timeout, self.received).saturating_sub(started.elapsed())
    }
}

const TOO_LARGE: Error = Error::new(StatusCode::CONTENT_TOO_LARGE, "the body is too large");

/// The request's body, without its framing. Reads block until something comes; `Ok(0)` is the body's end.
///
/// # Errors
///
/// A read returns an error that carries the status to answer with (see [`Error::of`]), and returns it again when asked
/// again: 400 for broken chunks, and of kind `UnexpectedEof` where the client ended before its body did; 408, kind
/// `TimedOut`, past [`read_timeout`](super::Config::read_timeout); 413 past
/// [`max_body_bytes`](super::Config::max_body_bytes). A body that ends early is never taken for a whole one.
pub struct Body<'a> {
    wire: &'a mut Wire,
}

impl<'a> Body<'a> {
    pub(super) fn new(wire: &'a mut Wire) -> Body<'a> {
        Body { wire }
    }

    fn read_some(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.decode(out)? {
                Some(length) => return Ok(length),
                None => self.wait()?,
            }
        }
    }

    /// Takes from what is in the buffer. `None` if that holds nothing of the body but the body goes on.
    fn decode(&mut self, out: &mut [u8]) -> io::Result<Option<usize>> {
        let Wire { input, body, .. } = &mut *self.wire;
        while !body.is_done() {
            if input.is_empty() && !matches!(body.state, State::Failed(_)) {
                return Ok(None);
            }
            let data = input.data();
            let decoded = match &mut body.state {
                State::Failed(error) => return Err((*error).into()),
                State::Chunked(decoder) => decoder.decode(data, out)?,
                State::Exact(left) => {
                    let length = data.len().min(out.len()).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    out[..length].copy_from_slice(&data[..length]);
                    *left -= length as u64;
                    Decoded { consumed: length, produced: length }
                }
            };
            input.consume(decoded.consumed);
            body.received += decoded.produced as u64;
            // A chunk's size line says what is coming, as Content-Length does.
            let announced = if let State::Chunked(decoder) = &body.state { decoder.announced() } else { 0 };
            if body.received.saturating_add(announced) > body.max {
                return Err(TOO_LARGE.into());
            }
            if decoded.produced > 0 {
                return Ok(Some(decoded.produced));
            }
        }
        Ok(Some(0))
    }

    fn wait(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.wire.body.expects_continue) {
            self.wire.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let within = self.wire.body.time_left();
        match self.wire.fill(within) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, ENDED_EARLY)),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => {
                Err(Error::new(StatusCode::REQUEST_TIMEOUT, "the request body took too long").into())
            }
            Err(error) => Err(error),
        }
    }

    /// Deals with what the handler left of the body, as far as that can be done without waiting for the client.
    pub(super) fn rest(&mut self) -> Rest {
        let mut scratch = [0; 1024];
        let outcome = loop {
            match self.decode(&mut scratch) {
                Ok(Some(1..)) => (),
                outcome => break outcome,
            }
        };
        match self.wire.body.state {
            _ if outcome.is_err() => Rest::Unknown,
            _ if self.wire.body.is_done() => Rest::Nothing,
            State::Exact(left) if left <= MAX_DRAIN && !self.wire.body.expects_continue => Rest::Short,
            _ => Rest::Unknown,
        }
    }

    /// Reads a short rest.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("received", &self.wire.body.received).finish_non_exhaustive()
    }
}

const ENDED_EARLY: Error = Error::bad("the request ended in its body");

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.read_some(out).inspect_err(|error| {
            self.wire.body.state = State::Failed(Error::of(error).unwrap_or(ENDED_EARLY));
        })
    }
}
