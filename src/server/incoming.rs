//! How much of a request's body has come, and what is left of it (RFC 9112 6).

use super::buffer::Buffer;
use super::config::{allowance, Config};
use super::http::chunked::{Decoded, Decoder};
use super::http::framing::{Framing, Length};
use super::http::{Error, StatusCode};
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

    /// Takes from what is in the buffer; 0 is the end. `None` if that holds nothing of the body but the body goes on.
    pub fn decode(&mut self, input: &mut Buffer, out: &mut [u8]) -> Result<Option<usize>, Error> {
        while !self.is_done() {
            let decoded = match &mut self.state {
                State::Failed(error) => return Err(*error),
                _ if input.is_empty() => return Ok(None),
                State::Chunked(decoder) => decoder.decode(input.data(), out)?,
                State::Exact(left) => {
                    let length = input.data().len().min(out.len()).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    out[..length].copy_from_slice(&input.data()[..length]);
                    *left -= length as u64;
                    Decoded { consumed: length, produced: length }
                }
            };
            input.consume(decoded.consumed);
            self.received += decoded.produced as u64;
            // A chunk's size line says what is coming, as Content-Length does.
            let announced = if let State::Chunked(decoder) = &self.state { decoder.announced() } else { 0 };
            if self.received.saturating_add(announced) > self.max {
                return Err(TOO_LARGE);
            }
            if decoded.produced > 0 {
                return Ok(Some(decoded.produced));
            }
        }
        Ok(Some(0))
    }

    /// Deals with what the handler left of the body, as far as that can be done without waiting for the client.
    pub fn rest(&mut self, input: &mut Buffer) -> Rest {
        let mut scratch = [0; 1024];
        let outcome = loop {
            match self.decode(input, &mut scratch) {
                Ok(Some(1..)) => (),
                outcome => break outcome,
            }
        };
        match self.state {
            _ if outcome.is_err() => Rest::Unknown,
            _ if self.is_done() => Rest::Nothing,
            State::Exact(left) if left <= MAX_DRAIN && !self.expects_continue => Rest::Short,
            _ => Rest::Unknown,
        }
    }

    /// Each further read says this.
    pub fn fail(&mut self, error: Error) {
        self.state = State::Failed(error);
    }

    /// Whether the client is to be told to go on; once.
    pub fn take_expectation(&mut self) -> bool {
        std::mem::take(&mut self.expects_continue)
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    fn is_done(&self) -> bool {
        match &self.state {
            State::Exact(left) => *left == 0,
            State::Chunked(decoder) => decoder.is_done(),
            State::Failed(_) => false,
        }
    }

    /// How much longer the client has.
    pub fn time_left(&mut self) -> Duration {
        let started = *self.started.get_or_insert_with(Instant::now);
        allowance(self.timeout, self.received).saturating_sub(started.elapsed())
    }
}

const TOO_LARGE: Error = Error::new(StatusCode::CONTENT_TOO_LARGE, "the body is too large");
