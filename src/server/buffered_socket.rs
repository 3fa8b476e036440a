//! A socket with a buffer for bytes that the server has read ahead.

use super::buffer::Buffer;
use super::config::Config;
use super::http::parse::{self, Limits, ParsedHead};
use super::http::{Error, StatusCode};
use super::registry::{Phase, Socket};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The maximum memory in bytes for responses that an idle connection keeps.
const IDLE_SCRATCH: usize = 2 * 1024;

/// The number of bytes in `input` beyond which [`BufferedSocket::poll_end`] does not read more bytes.
const MAX_READ_AHEAD: usize = 64 * 1024;

pub struct BufferedSocket {
    pub socket: Socket,
    pub peer: SocketAddr,
    /// `true` if the server's end of the connection may have a loopback address.
    pub on_loopback: bool,
    /// The bytes that were read and are not consumed yet.
    pub input: Buffer,
    /// The buffer in which responses are built. The buffer is empty between two responses.
    pub scratch: Vec<u8>,
    read_timeout: Option<Duration>,
}

impl BufferedSocket {
    pub fn new(socket: Socket, peer: SocketAddr, on_loopback: bool, config: &Config) -> io::Result<BufferedSocket> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(config.write_timeout))?;
        let (input, scratch) = (Buffer::new(), Vec::new());
        Ok(BufferedSocket { socket, peer, on_loopback, input, scratch, read_timeout: None })
    }

    /// Reads the next request head. Reads from the socket only if `input` does not contain a whole head.
    ///
    /// Returns `None` if no head arrives: the client left, the socket failed, no byte of the head arrived within
    /// `idle`, or the server is stopping.
    ///
    /// # Errors
    ///
    /// - Returns an error if the head is malformed, incomplete, too large or too slow. The caller must send the error
    ///   as the response, and end the connection. The bytes of the head stay in `input`.
    pub fn read_head(&mut self, config: &Config, idle: Duration) -> Result<Option<ParsedHead>, Error> {
        let limits = Limits { max_headers: config.max_headers };
        let mut seen = 0;
        let mut started = None;
        loop {
            let head = parse::request_head(self.input.data(), seen, &limits)?;
            seen = self.input.data().len();
            let length = head.as_ref().map_or(seen, |head| head.length);
            if length > config.max_header_bytes {
                return Err(head_too_large(&self.input.data()[..config.max_header_bytes]));
            }
            if let Some(head) = head {
                self.input.consume(head.length);
                return Ok(Some(head));
            }
            // Some clients send an empty line after a body. Such a line does not begin a request.
            let has_begun = self.input.data().iter().any(|b| !matches!(b, b'\r' | b'\n'));
            let has_more = if has_begun {
                let started: &Instant = started.get_or_insert_with(Instant::now);
                self.continue_head(config.read_header_timeout.saturating_sub(started.elapsed()))?
            } else {
                self.wait_for_head(idle)
            };
            if !has_more {
                return Ok(None);
            }
        }
    }

    /// Waits for the first bytes of a head. Returns `false` if no bytes arrived and the connection must be closed.
    fn wait_for_head(&mut self, idle: Duration) -> bool {
        self.socket.enter(Phase::Idle);
        if self.socket.is_stopping() {
            return false; // `Registry::stop` may have run before this connection was idle, and would not end the read
        }
        self.input.shrink();
        self.scratch.shrink_to(IDLE_SCRATCH);
        let read = self.fill(idle);
        self.socket.enter(Phase::Busy);
        matches!(read, Ok(1..))
    }

    /// Reads more bytes of a head that has begun. Returns `false` if the socket failed.
    ///
    /// # Errors
    ///
    /// - Returns an error with the status 400 if the client ended the connection.
    /// - Returns an error with the status 408 if no bytes arrive within `within`.
    fn continue_head(&mut self, within: Duration) -> Result<bool, Error> {
        match self.fill(within) {
            Ok(1..) => Ok(true),
            Ok(0) => Err(Error::bad("the request ended before the end of its head")),
            Err(error) if is_timeout(&error) => {
                Err(Error::new(StatusCode::REQUEST_TIMEOUT, "the request head took too long"))
            }
            Err(_) => Ok(false),
        }
    }

    /// Reads once into `input`. Blocks until bytes arrive, at most for `within`.
    pub fn fill(&mut self, within: Duration) -> io::Result<usize> {
        if within.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Most reads have the same timeout as the previous read. The system call is then unnecessary.
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

    /// Reads once without blocking. Returns whether the read succeeded and `input` contains bytes.
    pub fn poll_input(&mut self) -> bool {
        let polled = self.socket.set_nonblocking(true).and_then(|()| self.input.fill(&mut self.socket));
        let restored = self.socket.set_nonblocking(false);
        !self.input.is_empty() && polled.is_ok() && restored.is_ok()
    }

    /// Reads the bytes that have arrived into `input`, without blocking. Returns whether the input has ended or the
    /// socket has failed. Does not read, and so does not notice the end, while `input` contains more than
    /// [`MAX_READ_AHEAD`] bytes.
    pub fn poll_end(&mut self) -> bool {
        if self.socket.set_nonblocking(true).is_err() {
            return true;
        }
        let mut has_ended = false;
        while !has_ended && self.input.data().len() <= MAX_READ_AHEAD {
            match self.input.fill(&mut self.socket) {
                Ok(read) => has_ended = read == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => has_ended = error.kind() != io::ErrorKind::Interrupted,
            }
        }
        self.socket.set_nonblocking(false).is_err() || has_ended
    }
}

/// Returns the error for a head that is too large. Returns a 414 if the request line does not end within `head` (RFC
/// 9112 3), or else a 431 (RFC 6585 5).
fn head_too_large(head: &[u8]) -> Error {
    let line = head.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    if head[line..].contains(&b'\n') {
        return Error::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large");
    }
    Error::new(StatusCode::URI_TOO_LONG, "the request target is too long")
}

/// Returns whether `error` means that a read timed out. The kind is `WouldBlock` on Unix and `TimedOut` on Windows.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    #[test]
    fn poll_end_keeps_a_bounded_part_of_the_input() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        while client.write(&[b'x'; 16 * 1024]).is_ok() {}
        let (stream, peer) = listener.accept().unwrap();
        let socket = Arc::new(Registry::default())
            .join(stream, 1)
            .unwrap_or_else(|_| panic!("one connection is allowed"));
        let mut socket = BufferedSocket::new(socket, peer, true, &Config::default()).unwrap();
        for _ in 0..2 {
            assert!(!socket.poll_end());
            assert!(socket.input.data().len() <= 2 * MAX_READ_AHEAD, "{}", socket.input.data().len());
        }
    }
}
