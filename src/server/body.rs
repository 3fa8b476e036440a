//! A request's body, read as the handler asks for it (RFC 9112 6).

use super::http::{Error, StatusCode};
use super::wire::{is_timeout, Wire};
use std::fmt;
use std::io::{self, Read};

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
    wire: &'a mut Wire,
}

impl<'a> Body<'a> {
    pub(super) fn new(wire: &'a mut Wire) -> Body<'a> {
        Body { wire }
    }

    /// Reads what is in the buffer, and only if that is nothing waits for more.
    fn read_some(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.wire.body.decode(&mut self.wire.input, out)? {
                Some(length) => return Ok(length),
                None => self.wait()?,
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        if self.wire.body.take_expectation() {
            self.wire.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let within = self.wire.body.time_left();
        match self.wire.fill(within) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, ENDED_EARLY)),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => {
                Err(Error::new(StatusCode::REQUEST_TIMEOUT, "the request body took too long").into())
            }
            Err(error) => Err(io::Error::new(error.kind(), ENDED_EARLY)), // a reset is an end too
        }
    }

    /// Reads a short rest.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("received", &self.wire.body.received())
            .finish_non_exhaustive()
    }
}

const ENDED_EARLY: Error = Error::bad("the request ended in its body");

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let read = self.read_some(out);
        if let Err(error) = &read {
            self.wire.body.fail(Error::of(error).unwrap_or(ENDED_EARLY));
        }
        read
    }
}
