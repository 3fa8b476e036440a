//! A client on a bare socket. It sends HTTP/1.0, so that a response ends with its connection.

use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Shorter than the 15 s after which a stream that should not be there sends its next comment.
const TIMEOUT: Duration = Duration::from_secs(12);

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        assert!(self.head.contains("\r\nContent-Type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The status, and the code of the JSON-RPC error.
    #[track_caller]
    pub fn refusal(&self) -> (u16, i64) {
        let message = self.json();
        assert_eq!(message["jsonrpc"], "2.0");
        (self.status, message["error"]["code"].as_i64().unwrap_or_else(|| panic!("{message}")))
    }
}

/// Sends a request with these header fields, each of them with its line end.
#[track_caller]
pub fn send(address: SocketAddr, method: &str, fields: &str, body: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(TIMEOUT)).unwrap();
    let host = if fields.contains("Host: ") { String::new() } else { format!("Host: {address}\r\n") };
    let head = format!("{method} /mcp HTTP/1.0\r\n{host}{fields}Content-Length: {}\r\n\r\n", body.len());
    socket.write_all(&[head.as_bytes(), body].concat()).unwrap();
    socket
}

#[track_caller]
pub fn ask(address: SocketAddr, method: &str, fields: &str, body: &[u8]) -> Answer {
    let mut answer = String::new();
    send(address, method, fields, body).read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A client with a session.
pub struct Client {
    pub address: SocketAddr,
    /// The header fields of each request.
    pub fields: String,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        Client::with_revision(address, "2025-11-25")
    }

    #[track_caller]
    pub fn with_revision(address: SocketAddr, revision: &str) -> Client {
        let answer = ask(address, "POST", "", initialize(revision).as_bytes());
        assert_eq!(answer.json()["result"]["protocolVersion"], revision);
        let session = answer.head.split("\r\nMcp-Session-Id: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let fields = format!("Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: {revision}\r\n");
        Client { address, fields }
    }

    #[track_caller]
    pub fn post(&self, body: impl ToString) -> Answer {
        ask(self.address, "POST", &self.fields, body.to_string().as_bytes())
    }

    /// Sends a request with the id 1, and returns the response.
    #[track_caller]
    pub fn request(&self, method: &str, params: Value) -> Value {
        let answer = self.post(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(1)));
        answer.json()
    }

    #[track_caller]
    pub fn notify(&self, method: &str, params: Value) {
        let answer = self.post(json!({"jsonrpc": "2.0", "method": method, "params": params}));
        assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    }

    /// Calls a slow tool.
    #[track_caller]
    pub fn call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Events {
        let params = json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": "token"}});
        let body = json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params});
        Events::read(send(self.address, "POST", &self.fields, body.to_string().as_bytes()))
    }

    #[track_caller]
    pub fn listen(&self) -> Events {
        Events::read(send(self.address, "GET", &self.fields, b""))
    }

    #[track_caller]
    pub fn resume(&self, id: &str) -> Events {
        Events::read(send(self.address, "GET", &format!("{}Last-Event-ID: {id}\r\n", self.fields), b""))
    }
}

pub fn initialize(revision: &str) -> String {
    let info = json!({"name": "test", "version": "0"});
    let params = json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": info});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string()
}

/// An event stream.
pub struct Events(BufReader<TcpStream>);

impl Events {
    #[track_caller]
    fn read(socket: TcpStream) -> Events {
        let mut events = Events(BufReader::new(socket));
        let head = events.block();
        assert!(head.contains(" 200 OK\r\n") && head.contains("\r\nContent-Type: text/event-stream"), "{head}");
        events
    }

    /// Reads up to a blank line, or to the end of the stream.
    #[track_caller]
    fn block(&mut self) -> String {
        let deadline = Instant::now() + TIMEOUT; // comments keep each single read from timing out
        let mut block = String::new();
        while Instant::now() < deadline {
            let start = block.len();
            self.0.read_line(&mut block).unwrap();
            if block[start..].trim_end().is_empty() {
                return block;
            }
        }
        panic!("no event within {TIMEOUT:?}");
    }

    /// Reads an event: its id and its data. `None` at the end of the stream.
    #[track_caller]
    pub fn next(&mut self) -> Option<(String, String)> {
        let block = self.block();
        let field = |name: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };
        assert_eq!(field("event:"), None, "only messages: {block}");
        Some((field("id:")?, field("data:").unwrap_or_else(|| panic!("{block}"))))
    }

    /// Reads an event, and returns its data.
    #[track_caller]
    pub fn message(&mut self) -> Value {
        let (_, data) = self.next().expect("the stream goes on");
        serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data:?}"))
    }

    /// Reads to the end, and returns the text of the result, which is the last event.
    #[track_caller]
    pub fn result(&mut self) -> String {
        let mut last = None;
        while let Some((_, data)) = self.next() {
            last = Some(data);
        }
        let message: Value = serde_json::from_str(&last.expect("there is a result")).unwrap();
        message["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{message}"))
            .to_owned()
    }
}
