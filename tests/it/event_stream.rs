//! An event-stream parser that follows the WHATWG algorithm (HTML 9.2.6). The parser and the encoder of the library
//! share no code. The tests read the events of the server with this parser.

use super::support::serve;
use brooklet::sse::{self, Message};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

/// An event as a browser dispatches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub data: String,
    pub last_event_id: String,
}

/// The state of the algorithm "interpreting an event stream".
#[derive(Default)]
pub struct Parser {
    /// The bytes of the unfinished line.
    line: Vec<u8>,
    /// Whether the last byte was a CR. An LF directly after this CR belongs to the same line break.
    after_cr: bool,
    started: bool,
    data: String,
    kind: String,
    id_buffer: String,
    pub retry: Option<u64>,
    pub events: Vec<Event>,
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.after_cr) => (),
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    // "Streams must be decoded using the UTF-8 decode algorithm", which strips one leading BOM.
                    let line =
                        if self.started { &line[..] } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) };
                    self.started = true;
                    self.line(&String::from_utf8_lossy(line));
                }
                byte => {
                    self.after_cr = false;
                    self.line.push(byte);
                }
            }
        }
    }

    fn line(&mut self, line: &str) {
        match line.split_once(':') {
            _ if line.is_empty() => self.dispatch(),
            Some(("", _)) => (),
            Some((field, value)) => self.field(field, value.strip_prefix(' ').unwrap_or(value)),
            None => self.field(line, ""),
        }
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => self.kind = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id_buffer = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok()
            }
            _ => (),
        }
    }

    fn dispatch(&mut self) {
        let (mut data, kind) = (std::mem::take(&mut self.data), std::mem::take(&mut self.kind));
        if data.is_empty() {
            return;
        }
        if data.ends_with('\n') {
            data.pop();
        }
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        self.events.push(Event { kind, data, last_event_id: self.id_buffer.clone() });
    }
}

pub fn parse(stream: &[u8]) -> Vec<Event> {
    let mut parser = Parser::default();
    parser.feed(stream);
    parser.events
}

#[test]
fn parser_reads_examples_of_specification() {
    let event =
        |kind: &str, data: &str, id: &str| Event { kind: kind.into(), data: data.into(), last_event_id: id.into() };
    assert_eq!(parse(b"data: YHOO\ndata: +2\ndata: 10\n\n"), [event("message", "YHOO\n+2\n10", "")]);
    let stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    let third = event("message", " third event", "");
    assert_eq!(parse(stream), [event("message", "first event", "1"), event("message", "second event", ""), third]);
    assert_eq!(parse(b"data\n\ndata\ndata\n\ndata:"), [event("message", "", ""), event("message", "\n", "")]);
    assert_eq!(parse(b"data:test\n\ndata: test\n\n"), [event("message", "test", ""), event("message", "test", "")]);
    assert_eq!(
        parse(b"\xef\xbb\xbfevent: add\rdata: 1\r\rdata: 2\r\n\r\n"),
        [event("add", "1", ""), event("message", "2", "")]
    );
}

/// Returns the text with `\n` for every line break, as a client receives the text.
fn with_plain_breaks(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Returns all texts that consist of up to `pieces` pieces. The pieces are hard to encode.
pub fn nasty_texts(pieces: usize) -> Vec<String> {
    const PIECES: [&str; 15] =
        ["", "\n", "\r", "\r\n", " ", ":", "data:", "id: 1", "\0", "\u{feff}", "é", "\u{1f600}", "x", "\t", "event"];
    let mut texts = vec![String::new()];
    for _ in 0..pieces {
        texts = texts.iter().flat_map(|text| PIECES.map(|piece| format!("{text}{piece}"))).collect();
    }
    texts.sort();
    texts.dedup();
    texts
}

/// Sends each text in three messages: as data, as an event name and as an id. Returns the number of messages that the
/// server refused.
pub fn send_nasty(events: &mut sse::Connection, texts: &[String]) -> io::Result<usize> {
    let mut refused = 0;
    for text in texts {
        let data = Message::new().data(text);
        for message in [data, Message::new().event(text).data("event"), Message::new().id(text).data("id")] {
            match events.send_messages([message]) {
                Err(error) if error.kind() == ErrorKind::InvalidInput => refused += 1,
                result => result?,
            }
        }
    }
    Ok(refused)
}

#[test]
fn message_round_trips_or_is_refused_without_output() {
    let texts = Arc::new(nasty_texts(4));
    let refused = Arc::new(Mutex::new(0));
    let (sent, count) = (Arc::clone(&texts), Arc::clone(&refused));
    let server = serve(|server| {
        server.get("/", move |ctx| {
            let (texts, refused) = (Arc::clone(&sent), Arc::clone(&count));
            sse::stream(ctx, move |mut events| {
                *refused.lock().unwrap() = send_nasty(&mut events, &texts)?;
                events.close()
            })
        })
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.stream_head();
    let got = parse(&client.rest());

    let (mut expected, mut id, mut impossible) = (Vec::new(), String::new(), 0);
    for text in texts.iter() {
        let broken = text.contains(['\n', '\r']);
        let mut expect = |kind: &str, data: String, id: &str| {
            expected.push(Event { kind: kind.to_owned(), data, last_event_id: id.to_owned() });
        };
        expect("message", with_plain_breaks(text), &id);
        if broken {
            impossible += 1;
        } else {
            expect(if text.is_empty() { "message" } else { text }, "event".to_owned(), &id);
        }
        if broken || text.contains('\0') || text != text.trim_matches([' ', '\t']) {
            impossible += 1;
        } else {
            id.clone_from(text);
            expect("message", "id".to_owned(), &id);
        }
    }
    expected.push(Event { kind: "close".to_owned(), data: "close".to_owned(), last_event_id: id });
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected);
    }
    assert_eq!(*refused.lock().unwrap(), impossible);
}
