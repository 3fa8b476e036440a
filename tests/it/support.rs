//! A server on a port of its own, and a client that speaks in bytes.
//!
//! Every socket has a timeout: what hangs fails. Nothing here sleeps to let something happen.

use brooklet::{Handle, Server};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// After this a test fails. It is long, because a busy machine may keep a thread waiting, and shorter than the timeouts of a
/// server with default settings, which would end some hangs by themselves.
pub const TIMEOUT: Duration = Duration::from_secs(9);

/// A server that runs until this is dropped.
pub struct Running(brooklet::Running);

/// Starts a server on a free port of 127.0.0.1, with the routes that `build` adds.
pub fn serve(build: impl FnOnce(Server) -> Server) -> Running {
    serve_on(Ipv4Addr::LOCALHOST, build)
}

/// Starts a server on a free port of an address.
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

    /// Sends one request on a connection of its own.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    pub fn get(&self, target: &str) -> Answer {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Waits for `serve` to return by itself.
    pub fn join(self) -> io::Result<()> {
        self.0.join()
    }
}

pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
    /// `Some` after the head of an event stream that is chunked: `unread` is then what the chunks hold.
    chunks: Option<Chunks>,
}

/// Takes the chunks of a body apart (RFC 9112 7.1), however they are split.
#[derive(Default)]
pub struct Chunks {
    /// A size line, or the line break after data, that has not ended.
    line: Vec<u8>,
    is_in_chunk: bool,
    /// The bytes of the chunk's data that are to come.
    left: usize,
    is_last: bool,
    /// The last chunk has ended.
    pub is_whole: bool,
}

impl Chunks {
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            assert!(!self.is_whole, "after the last chunk: {:?}", String::from_utf8_lossy(bytes));
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
            assert_eq!(line, b"", "data is followed by a line break");
            self.is_whole = self.is_last;
        } else {
            self.left = usize::from_str_radix(std::str::from_utf8(line).unwrap(), 16).unwrap();
            self.is_last = self.left == 0;
        }
        self.is_in_chunk = !self.is_in_chunk;
        self.line.clear();
    }
}

/// A response, taken apart.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields, as they came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The only field of that name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field line: {line:?}"));
            field.eq_ignore_ascii_case(name).then_some(value)
        });
        let first = values.next();
        assert_eq!(values.next(), None, "{name} comes twice: {}", self.head);
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

    /// Sends bytes. A server that has already refused and closed may not take them all.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }

    /// Ends what we send.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset: input is unread, so the kernel sends RST.
    pub fn reset(self) {
        self.stream.set_nonblocking(true).unwrap();
        let _ = self.stream.peek(&mut [0]);
    }

    /// Reads one response; the body by Content-Length, chunked, or up to the end, as the head says.
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

    /// Reads a response's head and leaves what follows it: for HEAD, and for streams.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        let head = String::from_utf8(self.until(b"\r\n\r\n")).unwrap();
        let head = head.strip_suffix("\r\n\r\n").unwrap().to_owned();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("no status line: {head:?}"));
        let status = status[..3].parse().unwrap();
        Answer { status, head, body: Vec::new() }
    }

    /// Reads the head of an event stream, and the comment that is sent with it. From then on this reads what the chunks
    /// hold, or the bytes as they are if there are no chunks.
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

    /// Reads up to and with `end`.
    #[track_caller]
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            assert!(self.more().unwrap() > 0, "ended after {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Reads up to and with the event that has this text.
    #[track_caller]
    pub fn until_event(&mut self, text: &[u8]) -> Vec<u8> {
        let mut read = self.until(text);
        if !read.ends_with(b"\n\n") {
            read.extend(self.until(b"\n\n"));
        }
        read
    }

    /// The same as [`until`](Client::until), or `None` if the read times out first.
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
            assert!(self.more().unwrap() > 0, "ended after {} of {length} bytes", self.unread.len());
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

    /// Reads to the end of the connection, which must be an end and no reset. A chunked stream must be whole.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let rest = self.read_to_end();
        assert!(self.is_whole(), "without a last chunk, after {:?}", String::from_utf8_lossy(&rest));
        rest
    }

    /// The same of a chunked stream that must not be whole.
    #[track_caller]
    pub fn rest_of_broken_stream(&mut self) -> Vec<u8> {
        let rest = self.read_to_end();
        assert!(!self.is_whole(), "a last chunk, after {:?}", String::from_utf8_lossy(&rest));
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

    /// Asserts that the server closes without another word.
    #[track_caller]
    pub fn assert_end(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest()), "");
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut scratch = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut scratch) {
                // By a signal, such as the end of a process that another test has started.
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

/// Random numbers (xorshift64*): the same ones for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}
