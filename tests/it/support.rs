//! A server on its own port, and a client that sends and reads bytes.
//!
//! Every socket has a timeout, so a test that hangs fails. This module never sleeps to wait for another thread.

use brooklet::{Handle, Server};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The timeout of each socket. The timeout is long, because a thread may have to wait on a busy machine. The timeout is
/// shorter than the default timeouts of a server. Otherwise the server could end a connection that hangs, and the test
/// would not fail.
pub const TIMEOUT: Duration = Duration::from_secs(9);

/// A server that runs until this value is dropped.
pub struct Running(brooklet::Running);

/// Starts a server on a free port of 127.0.0.1, with the routes that `build` adds.
pub fn serve(build: impl FnOnce(Server) -> Server) -> Running {
    serve_on(Ipv4Addr::LOCALHOST, build)
}

/// Starts a server on a free port of `address`, with the routes that `build` adds.
pub fn serve_on(address: Ipv4Addr, build: impl FnOnce(Server) -> Server) -> Running {
    Running(build(Server::bind((address, 0)).unwrap()).spawn().unwrap())
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr()
    }

    pub fn handle(&self) -> Handle {
        self.0.handle()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// Sends one request on a new connection, and returns the response.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    pub fn get(&self, target: &str) -> Answer {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Blocks until `serve` returns. Returns the result of `serve`.
    pub fn join(self) -> io::Result<()> {
        self.0.join()
    }
}

pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
    /// The decoder of a chunked event stream. This field is set when the head of the stream has been read. From then
    /// on, `unread` contains decoded bytes.
    chunks: Option<Chunks>,
}

/// A decoder of a chunked body (RFC 9112 7.1) that arrives in pieces of any size.
#[derive(Default)]
pub struct Chunks {
    /// The unfinished size line, or the unfinished line break after data.
    line: Vec<u8>,
    is_in_chunk: bool,
    /// The number of data bytes of the current chunk that have not yet arrived.
    left: usize,
    is_last: bool,
    /// Whether the last chunk has arrived.
    pub is_whole: bool,
}

impl Chunks {
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            assert!(!self.is_whole, "bytes after the last chunk: {:?}", String::from_utf8_lossy(bytes));
            let (data, rest) = bytes.split_at(self.left.min(bytes.len()));
            out.extend_from_slice(data);
            self.left -= data.len();
            bytes = rest;
            if let Some((byte, rest)) = bytes.split_first() {
                self.framing(*byte);
                bytes = rest;
            }
        }
    }

    fn framing(&mut self, byte: u8) {
        self.line.push(byte);
        let Some(line) = self.line.strip_suffix(b"\r\n") else { return };
        if self.is_in_chunk {
            assert_eq!(line, b"", "a line break follows the data of a chunk");
            self.is_whole = self.is_last;
        } else {
            self.left = usize::from_str_radix(std::str::from_utf8(line).unwrap(), 16).unwrap();
            self.is_last = self.left == 0;
        }
        self.is_in_chunk = !self.is_in_chunk;
        self.line.clear();
    }
}

/// A parsed response.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Answer {
    pub status: u16,
    /// The status line and the fields, as received.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Returns the value of the field with this name. Panics if the response has two such fields.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("not a field line: {line:?}"));
            field.eq_ignore_ascii_case(name).then_some(value)
        });
        let first = values.next();
        assert_eq!(values.next(), None, "{name} is sent twice: {}", self.head);
        first
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Client { stream, unread: Vec::new(), chunks: None }
    }

    /// Sends bytes. Ignores errors, because a server may refuse a request and close the connection before it has read
    /// the whole request.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }

    /// Shuts down the sending half of the connection. Ignores that the connection has already ended, because a server
    /// waits only one second for a client that is still sending. Afterwards, the kernel answers further bytes with a
    /// reset.
    pub fn finish(&mut self) {
        if let Err(error) = self.stream.shutdown(Shutdown::Write) {
            assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        }
    }

    /// Closes the connection while input is unread, so that the kernel sends a reset.
    pub fn reset(self) {
        self.stream.set_nonblocking(true).unwrap();
        let _ = self.stream.peek(&mut [0]);
    }

    /// Reads one response. The head determines the end of the body: `Content-Length`, the last chunk, or the end of the
    /// connection.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let length = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
        let chunked = answer.header("transfer-encoding").is_some();
        assert!(length.is_none() || !chunked, "a response has one framing: {}", answer.head);
        answer.body = match length {
            _ if matches!(answer.status, 204 | 304) => Vec::new(),
            Some(length) => self.exactly(length),
            None if chunked => self.chunks(),
            None => self.rest(),
        };
        answer
    }

    /// Reads the head of a response, and nothing after it. Tests use this method for responses to HEAD and for streams.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        let head = String::from_utf8(self.until(b"\r\n\r\n")).unwrap();
        let head = head.strip_suffix("\r\n\r\n").unwrap().to_owned();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("not a status line: {head:?}"));
        let status = status[..3].parse().unwrap();
        Answer { status, head, body: Vec::new() }
    }

    /// Reads the head of an event stream, and the comment after the head. If the stream is chunked, this client decodes
    /// the chunks from then on.
    #[track_caller]
    pub fn stream_head(&mut self) -> Answer {
        let answer = self.head();
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"), "{}", answer.head);
        if answer.header("transfer-encoding") == Some("chunked") {
            let mut chunks = Chunks::default();
            let bytes = std::mem::take(&mut self.unread);
            chunks.feed(&bytes, &mut self.unread);
            self.chunks = Some(chunks);
        }
        assert_eq!(self.exactly(2), b":\n");
        answer
    }

    /// Reads up to and including `end`. Panics if the connection ends or a read times out first.
    #[track_caller]
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            assert!(self.more().unwrap() > 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Reads up to and including the event that contains `text`.
    #[track_caller]
    pub fn until_event(&mut self, text: &[u8]) -> Vec<u8> {
        let mut read = self.until(text);
        if !read.ends_with(b"\n\n") {
            read.extend(self.until(b"\n\n"));
        }
        read
    }

    /// Reads up to and including `end`. Returns `None` if the connection ends or a read times out first.
    pub fn try_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        while !self.unread.windows(end.len()).any(|window| window == end) {
            if self.more().ok()? == 0 {
                return None;
            }
        }
        Some(self.until(end))
    }

    #[track_caller]
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            assert!(self.more().unwrap() > 0, "the connection ended after {} of {length} bytes", self.unread.len());
        }
        self.unread.drain(..length).collect()
    }

    #[track_caller]
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n")).unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n");
            if size == 0 {
                return body;
            }
        }
    }

    /// Reads to the end of the connection. Panics if the connection is reset, or if a chunked stream ends without the
    /// last chunk.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let rest = self.read_to_end();
        assert!(self.is_whole(), "no last chunk after {:?}", String::from_utf8_lossy(&rest));
        rest
    }

    /// Reads to the end of the connection. Panics if the connection is reset, or if a chunked stream ends with the last
    /// chunk.
    #[track_caller]
    pub fn rest_of_broken_stream(&mut self) -> Vec<u8> {
        let rest = self.read_to_end();
        assert!(!self.is_whole(), "a last chunk after {:?}", String::from_utf8_lossy(&rest));
        rest
    }

    #[track_caller]
    fn read_to_end(&mut self) -> Vec<u8> {
        while self.more().unwrap() > 0 {}
        std::mem::take(&mut self.unread)
    }

    fn is_whole(&self) -> bool {
        self.chunks.as_ref().map_or(true, |chunks| chunks.is_whole)
    }

    /// Asserts that the server closes the connection and sends nothing more.
    #[track_caller]
    pub fn assert_end(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest()), "");
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut scratch = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut scratch) {
                // A signal can interrupt the read, for example SIGCHLD from a process that another test started.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
                Ok(read) => {
                    match &mut self.chunks {
                        Some(chunks) => chunks.feed(&scratch[..read], &mut self.unread),
                        None => self.unread.extend_from_slice(&scratch[..read]),
                    }
                    return Ok(read);
                }
            }
        }
    }
}

/// A generator of random numbers (xorshift64*). The same seed gives the same numbers.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}
