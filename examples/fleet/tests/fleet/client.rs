//! A client that works like a browser's `EventSource` (WHATWG HTML 9.2). The client reads an event stream, and can
//! resume the stream with the id of the last event.

use super::processes::{local, TIMEOUT};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends a request in HTTP/1.0, so that the end of the connection ends the response.
pub fn ask(port: u16, request: &str) -> io::Result<Answer> {
    let mut stream = connect(port)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(ErrorKind::InvalidData)?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&local(port), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub data: String,
    pub id: String,
}

/// One connection of an `EventSource`.
pub struct Source {
    stream: TcpStream,
    unread: Vec<u8>,
    /// The event type of the unfinished event.
    kind: String,
    /// The data lines of the unfinished event.
    data: Vec<String>,
    pub head: String,
    pub last_event_id: String,
    pub retry: Option<u64>,
}

impl Source {
    #[track_caller]
    pub fn connect(port: u16, last_event_id: &str) -> Source {
        Source::try_connect(port, last_event_id).unwrap()
    }

    /// Connects. Returns an error if an `EventSource` would reconnect. Panics if an `EventSource` would give up.
    #[track_caller]
    pub fn try_connect(port: u16, last_event_id: &str) -> io::Result<Source> {
        let mut source = Source::request(port, last_event_id)?;
        source.read_head()?;
        Ok(source)
    }

    /// Sends the request, and does not wait for the response.
    pub fn request(port: u16, last_event_id: &str) -> io::Result<Source> {
        let mut stream = connect(port)?;
        let id = if last_event_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_event_id}\r\n") };
        write!(stream, "GET /events HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n{id}\r\n")?;
        let last_event_id = last_event_id.to_owned();
        Ok(Source {
            stream,
            unread: Vec::new(),
            kind: String::new(),
            data: Vec::new(),
            head: String::new(),
            last_event_id,
            retry: None,
        })
    }

    pub fn read_head(&mut self) -> io::Result<()> {
        self.head = self.block(b"\r\n\r\n")?.ok_or(ErrorKind::UnexpectedEof)?;
        let is_stream = self.head.contains(" 200 OK\r\n") && self.head.contains("\r\nContent-Type: text/event-stream");
        assert!(is_stream, "an EventSource would give up: {}", self.head);
        Ok(())
    }

    /// Reads one event. Returns `None` at the end of the stream.
    pub fn read(&mut self) -> io::Result<Option<Event>> {
        // Keep-alive comments keep each read from timing out, so the loop has its own deadline.
        let deadline = Instant::now() + TIMEOUT;
        while let Some(line) = self.block(b"\n")? {
            if Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            let line = line.trim_end_matches('\n');
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "id" => self.last_event_id = value,
                "event" => self.kind = value,
                "data" => self.data.push(value),
                "retry" => self.retry = value.parse().ok(),
                _ => (),
            }
            if line.is_empty() {
                let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
                if !data.is_empty() {
                    let kind = if kind.is_empty() { "message".to_owned() } else { kind };
                    return Ok(Some(Event { kind, data: data.join("\n"), id: self.last_event_id.clone() }));
                }
            }
        }
        Ok(None)
    }

    /// Reads `count` events, and returns their data. The data of a `gap` event has the prefix `gap: `.
    #[track_caller]
    pub fn next(&mut self, count: usize) -> Vec<String> {
        let mut read = Vec::new();
        while read.len() < count {
            let event = self.read().unwrap_or_else(|error| panic!("{error}, after {read:?}"));
            let event = event.unwrap_or_else(|| panic!("the stream ends after {read:?}"));
            let data = event.data.replace('\n', " ");
            read.push(if event.kind == "gap" { format!("gap: {data}") } else { data });
        }
        read
    }

    /// Asserts that the stream ends without another event.
    #[track_caller]
    pub fn assert_end(&mut self) {
        assert_eq!(self.read().unwrap(), None);
    }

    /// Asserts that no event and no end of the stream have arrived.
    #[track_caller]
    pub fn assert_silence(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = self.read().map_err(|error| error.kind());
        assert!(matches!(error, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{error:?}");
        self.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    }

    /// Reads up to and including `end`. Returns `None` if the connection ends first.
    fn block(&mut self, end: &[u8]) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                let block = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8(block).map(Some).map_err(io::Error::other);
            }
            let mut scratch = [0; 4_096];
            match self.stream.read(&mut scratch)? {
                0 => return Ok(None),
                read => self.unread.extend_from_slice(&scratch[..read]),
            }
        }
    }
}
