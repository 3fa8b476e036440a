//! The connection as the serve loop has it: a socket with what was read ahead and what waits to be written.

use super::buffer::Buffer;
use super::config::{allowance, Config};
use super::http::parse::{self, Head, Limits};
use super::http::{Error, StatusCode};
use super::incoming::Incoming;
use super::registry::{Phase, Socket};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Responses that wait for a common write are written when they come to this.
const MAX_PENDING: usize = 64 * 1024;

/// What an idle connection keeps of the memory for responses.
const IDLE_PENDING: usize = 2 * 1024;

pub struct Wire {
    pub socket: Socket,
    pub peer: SocketAddr,
    /// Whether our end has a loopback address.
    pub on_loopback: bool,
    /// Bytes read past what was used.
    pub input: Buffer,
    /// Responses not yet written. Written before anything blocks on the client, so neither waits for the other; but a
    /// response to a pipelined request waits for the handlers of those behind it that came in the same read.
    pub out: Vec<u8>,
    /// The body of the request that is being answered.
    pub body: Incoming,
    read_timeout: Option<Duration>,
}

impl Wire {
    pub fn new(socket: Socket, peer: SocketAddr, on_loopback: bool, config: &Config) -> io::Result<Wire> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(config.write_timeout))?;
        let (input, out, body) = (Buffer::new(), Vec::new(), Incoming::none());
        Ok(Wire { socket, peer, on_loopback, input, out, body, read_timeout: None })
    }

    /// Reads the next request head. `None` if there will be none: the client left, or said nothing for `idle`, or the
    /// server stops.
    ///
    /// Parses first and reads only then: as long as whole requests are in the buffer, the responses to them collect in
    /// `out` and go out in one write.
    ///
    /// # Errors
    ///
    /// What to answer before the connection is closed.
    pub fn read_head(&mut self, config: &Config, idle: Duration) -> Result<Option<Head>, Error> {
        let limits = Limits { max_headers: config.max_headers };
        let (mut seen, mut started) = (0, None);
        loop {
            let head = parse::request_head(self.input.data(), seen, &limits)?;
            seen = self.input.data().len();
            if head.as_ref().map_or(seen, |head| head.length) > config.max_header_bytes {
                return Err(too_large(&self.input.data()[..config.max_header_bytes]));
            }
            if let Some(head) = head {
                self.input.consume(head.length);
                return Ok(Some(head));
            }
            // Empty lines are no request yet: some clients end a body with one.
            let begun = self.input.data().iter().any(|b| !matches!(b, b'\r' | b'\n'));
            let read = if !begun {
                let answered = !self.out.is_empty();
                if self.flush().is_err() || !self.socket.enter(Phase::Idle) {
                    return Ok(None);
                }
                self.input.shrink();
                self.out.shrink_to(IDLE_PENDING);
                if answered && self.socket.is_in_a_crowd() {
                    // The next request is here by the time that this thread runs again, which spares it a sleep and the
                    // kernel a wake-up: a third more requests a second on 64 connections. Not where streams are written:
                    // their threads would be let run for a whole time slice after each event that is published, so there
                    // would be nothing to join, and a fifth of the events were left of a flood.
                    thread::yield_now();
                }
                let read = self.fill(idle);
                self.socket.enter(Phase::Busy);
                read
            } else {
                let started: &Instant = started.get_or_insert_with(Instant::now);
                self.fill(config.read_header_timeout.saturating_sub(started.elapsed()))
            };
            match read {
                Ok(0) if begun => return Err(Error::bad("the request ended in its head")),
                Ok(0) => return Ok(None),
                Ok(_) => (),
                Err(error) if is_timeout(&error) && begun => {
                    return Err(Error::new(StatusCode::REQUEST_TIMEOUT, "the request head took too long"));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Reads once more into `input`, after writing what waits in `out`; for `within` at the longest.
    pub fn fill(&mut self, within: Duration) -> io::Result<usize> {
        self.flush()?;
        if within.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // A system call saved for each request that comes whole: those all wait equally long.
        if self.read_timeout != Some(within) {
            self.socket.set_read_timeout(Some(within))?;
            self.read_timeout = Some(within);
        }
        loop {
            match self.input.fill(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                result => return result,
            }
        }
    }

    /// Writes what waits in `out`.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            let written = self.socket.write_all(&self.out);
            self.out.clear();
            written?;
        }
        Ok(())
    }

    /// Whether the client has sent something that was not read; without waiting for it.
    pub fn has_input(&mut self) -> bool {
        let looked = self.socket.set_nonblocking(true).and_then(|()| self.input.fill(&mut self.socket));
        let restored = self.socket.set_nonblocking(false);
        !self.input.is_empty() && looked.and(restored).is_ok()
    }

    pub fn flush_if_large(&mut self) -> io::Result<()> {
        match self.out.len() {
            0..=MAX_PENDING => Ok(()),
            _ => self.flush(),
        }
    }
}

/// A socket that takes the body of one response, and measures how long it waited for the client. The timeout of the socket
/// itself starts anew with each byte that a slow client takes.
pub struct Paced<'a, W> {
    socket: &'a mut W,
    timeout: Duration,
    written: u64,
    waited: Duration,
}

impl<'a, W: Write> Paced<'a, W> {
    pub fn new(socket: &'a mut W, timeout: Duration) -> Paced<'a, W> {
        Paced { socket, timeout, written: 0, waited: Duration::ZERO }
    }

    fn measure(&mut self, write: impl FnOnce(&mut W) -> io::Result<usize>) -> io::Result<usize> {
        if self.waited > allowance(self.timeout, self.written) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"));
        }
        let started = Instant::now();
        let written = write(self.socket)?;
        self.waited += started.elapsed();
        self.written += written as u64;
        Ok(written)
    }
}

impl<W: Write> Write for Paced<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.measure(|socket| socket.write(data))
    }

    fn write_vectored(&mut self, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.measure(|socket| socket.write_vectored(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// 414 while not even the request line has ended, else 431 (RFC 9112 3, RFC 6585 5).
fn too_large(head: &[u8]) -> Error {
    let line = head.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    match head[line..].contains(&b'\n') {
        true => Error::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large"),
        false => Error::new(StatusCode::URI_TOO_LONG, "the request target is too long"),
    }
}

/// A socket's timeout is `WouldBlock` on Unix and `TimedOut` on Windows.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one byte at a time, each after a while.
    struct Trickle;

    impl Write for Trickle {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            thread::sleep(Duration::from_millis(2));
            Ok(1)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_client_that_takes_a_byte_now_and_then_is_cut() {
        let mut body = [0; 1_000].as_slice();
        let copied = io::copy(&mut body, &mut Paced::new(&mut Trickle, Duration::from_millis(20)));
        assert_eq!(copied.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut body = [0; 5].as_slice();
        assert_eq!(io::copy(&mut body, &mut Paced::new(&mut Trickle, Duration::MAX)).unwrap(), 5);
    }
}
