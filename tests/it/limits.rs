//! The responses of a server at each of its limits and timeouts.

use super::channel::eventually;
use super::machine::Room;
use super::support::{serve, Client, Running, TIMEOUT};
use brooklet::{sse, Config, Response, Server};
use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(100);

fn limited(config: Config) -> Running {
    serve(|server| routes(server, config))
}

fn routes(server: Server, config: Config) -> Server {
    server
        .config(config)
        .get("/", |_| "hello")
        .post("/", |mut ctx| ctx.body_text())
        .get("/sse", |ctx| {
            sse::stream(ctx, |mut events| {
                events.send_message("open")?;
                events.wait(Duration::from_secs(3600))
            })
        })
}

/// Starts a server after a client has connected and sent these bytes. So the bytes arrive before a short time of the
/// server begins, even if the client must wait for the processor.
fn serve_after(bytes: impl AsRef<[u8]>, build: impl FnOnce(Server) -> Server) -> (Running, Client) {
    let mut early = None;
    let server = serve(|server| {
        let client = early.insert(Client::connect(server.local_addr()));
        client.send(bytes);
        build(server)
    });
    (server, early.unwrap())
}

#[test]
fn head_too_large_is_431_and_target_too_long_is_414() {
    let server = limited(Config { max_header_bytes: 10_000, ..Config::default() });
    for length in [10_000, 100_000, 1_000_000] {
        let long = "x".repeat(length);
        assert_eq!(server.get(&format!("/{long}")).status, 414);
        assert_eq!(server.ask(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n")).status, 431);
        assert_eq!(server.ask(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{long}: x\r\n\r\n")).status, 431);
        assert_eq!(server.ask(format!("{long} / HTTP/1.1\r\nHost: localhost\r\n\r\n")).status, 400, "a long method");
    }
    let head = |length: usize| format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(length - 40));
    let (fits, one_more) = (head(10_000), head(10_001));
    assert_eq!((fits.len(), one_more.len()), (10_000, 10_001));
    assert_eq!((server.ask(fits).status, server.ask(one_more).status), (200, 431), "the limit is exact");
}

#[test]
fn too_many_fields_are_431() {
    let server = limited(Config { max_headers: 10, ..Config::default() });
    let head = |fields: usize| format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(fields - 1));
    assert_eq!((server.ask(head(10)).status, server.ask(head(11)).status), (200, 431));
}

#[test]
fn head_not_complete_by_its_deadline_is_408() {
    let config = Config { read_header_timeout: Duration::from_millis(300), ..Config::default() };
    let (_server, mut client) = serve_after("G", |server| routes(server, config));
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let started = Instant::now();
    // The client sends a byte every 20 ms until a response arrives. 20 ms is the timeout of the read before each byte.
    let mut first = [0];
    let mut bytes = b"ET / HTTP/1.1\r\nHost: localhost\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
    while client.stream.read(&mut first).is_err() {
        assert!(started.elapsed() < TIMEOUT);
        client.send([*bytes.next().unwrap()]);
    }
    client.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.finish();
    assert!(client.rest().starts_with(b"TTP/1.1 408 "));
}

#[test]
fn client_that_sends_nothing_is_closed_without_a_response() {
    let server = limited(Config { read_header_timeout: SHORT, ..Config::default() });
    server.connect().assert_end();
    let server = limited(Config { idle_timeout: SHORT, ..Config::default() });
    for empty_lines in ["", "\r\n"] {
        let mut client = server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n{empty_lines}"));
        assert_eq!(client.answer().text(), "hello");
        client.assert_end();
    }
}

#[test]
fn body_not_complete_by_its_deadline_is_408() {
    let server = limited(Config { read_timeout: SHORT, ..Config::default() });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
}

/// A write that times out may have sent a part of its bytes. The bytes that the client receives must be a prefix of the
/// body.
#[test]
fn client_that_reads_nothing_is_disconnected_and_gets_no_byte_twice() {
    let (told, tellings) = mpsc::channel();
    let told = Mutex::new(told);
    let body: Vec<u8> = (0..8_000_000u32).map(|n| n.wrapping_mul(7919) as u8).collect();
    let expected = body.clone();
    let server = serve(|server| {
        server
            .config(Config { write_timeout: SHORT, ..Config::default() })
            .get("/", move |_| Response::reader("a/b", body.len() as u64, io::Cursor::new(body.clone())))
            .on_response(move |exchange| told.lock().unwrap().send(exchange.error.map(io::Error::kind)).unwrap())
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let kind = tellings.recv_timeout(TIMEOUT).unwrap();
    assert!(matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{kind:?}");
    client.head();
    let got = client.rest();
    assert!(got.len() < expected.len() && expected.starts_with(&got));
}

#[test]
fn client_beyond_max_connections_is_503_with_retry_after() {
    let server = limited(Config { max_connections: 2, ..Config::default() });
    let mut held = [server.connect(), server.connect()];
    held.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    for body in [0, 20_000, 200_000] {
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {body}\r\n\r\n"));
        (0..body / 2_000).for_each(|_| client.send(vec![b'x'; 2_000]));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
        assert!((1..=4).contains(&answer.header("retry-after").unwrap().parse().unwrap()));
    }
    let [first, _second] = held;
    drop(first);
    // The server serves a new client as soon as it has noticed that the first connection ended.
    let deadline = Instant::now() + TIMEOUT;
    while server.get("/").status != 200 {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn takeover_is_not_counted_in_max_connections() {
    let server = limited(Config { max_connections: 1, max_taken_over: 2, ..Config::default() });
    let open = || {
        let mut client = server.connect();
        client.send("GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n");
        (client.head(), client)
    };
    let wait = |expected: u16| {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (answer, client) = open();
            if answer.status == expected {
                return (answer, client);
            }
            assert!(Instant::now() < deadline, "{answer:?}");
        }
    };
    let (mut streams, mut last) = (Vec::new(), None);
    while streams.len() < 2 {
        streams.push(wait(200).1);
    }
    // A further takeover is refused. A request without a takeover is still answered.
    last.get_or_insert(wait(503));
    assert!(last.unwrap().0.header("retry-after").is_some());
    let deadline = Instant::now() + TIMEOUT;
    while server.get("/").status != 200 {
        assert!(Instant::now() < deadline);
    }
    streams.pop();
    wait(200);
}

#[test]
fn timeout_of_zero_is_refused_and_of_duration_max_never_ends() {
    let zero = Config { write_timeout: Duration::ZERO, ..Config::default() };
    let error = Server::bind("127.0.0.1:0").unwrap().config(zero).serve().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("write_timeout"), "{error}");
    let none = Duration::MAX;
    let config = Config {
        read_header_timeout: none,
        read_timeout: none,
        write_timeout: none,
        idle_timeout: none,
        ..Config::default()
    };
    let server = limited(config);
    let mut client = server.connect();
    for byte in b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "hi");
}

/// Starts a server that refuses each takeover. The receiver yields a pair for each response: the log line without the
/// address and the duration, and whether the hook received a request.
fn full(max_connections: usize) -> (Running, Receiver<(String, bool)>) {
    let (called, calls) = mpsc::channel();
    let called = Mutex::new(called);
    let server = serve(|server| {
        server
            .config(Config { max_connections, max_taken_over: 0, ..Config::default() })
            .get("/", |_| "hello")
            .get("/sse", |ctx| sse::stream(ctx, |events| events.close()))
            .on_response(move |exchange| {
                let line = exchange.to_string();
                let (_, line) = line.split_once(' ').unwrap();
                let (before, after) = line.split_once(" ms").unwrap();
                let (before, _duration) = before.rsplit_once(' ').unwrap();
                called
                    .lock()
                    .unwrap()
                    .send((format!("{before}{after}"), exchange.request.is_some()))
                    .unwrap();
            })
    });
    (server, calls)
}

#[test]
fn connection_beyond_max_connections_is_reported_as_503() {
    let (server, calls) = full(1);
    let mut held = server.connect();
    assert_eq!(held.get("/").status, 200);
    assert_eq!(calls.recv_timeout(TIMEOUT).unwrap(), ("GET / 200 5 B".to_owned(), true));
    for _ in 0..2 {
        let answer = server.get("/");
        assert_eq!((answer.status, answer.body.len()), (503, 24));
        let (line, has_request) = calls.recv_timeout(TIMEOUT).unwrap();
        assert!(line.starts_with("- - 503 24 B: Config::max_connections is 1"), "{line}");
        assert!(!has_request, "the request is not read");
    }
}

#[test]
fn clients_beyond_max_connections_hold_no_more_than_128_threads_while_the_hook_blocks() {
    let _room = Room::for_clients(130); // the server keeps up to 128 refused connections open while the hook blocks
    let gate = Arc::new(Mutex::new(()));
    let called = Arc::new(AtomicUsize::new(0));
    let (hook_gate, hook_called) = (Arc::clone(&gate), Arc::clone(&called));
    let server = serve(|server| {
        server
            .config(Config { max_connections: 1, ..Config::default() })
            .get("/", |_| "hello")
            .on_response(move |exchange| {
                if exchange.request.is_none() {
                    hook_called.fetch_add(1, Ordering::SeqCst);
                    drop(hook_gate.lock());
                }
            })
    });
    let mut held = server.connect();
    assert_eq!(held.get("/").status, 200);
    let closed = gate.lock().unwrap();
    for _ in 0..300 {
        assert_eq!(server.get("/").status, 503);
    }
    let hooks = called.load(Ordering::SeqCst);
    drop(closed);
    assert!((1..=128).contains(&hooks), "{hooks} threads");
}

#[test]
fn takeover_beyond_max_taken_over_is_reported_as_503() {
    let (server, calls) = full(8);
    for (method, length) in [("GET", 24), ("HEAD", 0)] {
        let mut client = server.connect();
        client.send(format!("{method} /sse HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = client.head();
        assert_eq!((head.status, head.header("content-length")), (503, Some("24")));
        assert_eq!(client.rest().len(), length, "{method}");
        let (line, has_request) = calls.recv_timeout(TIMEOUT).unwrap();
        let expected = format!("{method} /sse 503 {length} B: Config::max_taken_over is 0");
        assert!(line.starts_with(&expected) && has_request, "{line}");
    }
}

/// Without the CORS fields, a page sees "Failed to fetch" instead of the status.
#[test]
fn error_before_routing_has_the_cors_fields_of_an_allowed_origin() {
    let build = |server: Server, read_header_timeout| {
        server
            .config(Config {
                read_header_timeout,
                max_header_bytes: 1_000,
                max_headers: 10,
                max_body_bytes: 10,
                max_taken_over: 0,
                ..Config::default()
            })
            .allow_origin("https://app.example")
            .get("/", |mut ctx| ctx.body_text())
            .get("/sse", |ctx| sse::stream(ctx, |events| events.close()))
    };
    let server = serve(|server| build(server, TIMEOUT));
    let long = "x".repeat(1_000);
    for (status, line, fields) in [
        (400, "GET / HTTP/1.1", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1", "no colon\r\n\r\n".to_owned()),
        (400, "\r\nGET /", "\r\n".to_owned()),
        (408, "GET / HTTP/1.1", "half-a-he".to_owned()),
        (413, "GET / HTTP/1.1", "Content-Length: 11\r\n\r\n".to_owned()),
        (417, "POST / HTTP/1.1", "Expect: the best\r\n\r\n".to_owned()),
        (431, "GET / HTTP/1.1", format!("X: {long}")),
        (431, "GET / HTTP/1.1", format!("X: {long}\r\n\r\n")),
        (431, "GET / HTTP/1.1", "X: y\r\n".repeat(9) + "\r\n"),
        (501, "BREW / HTTP/1.1", "\r\n".to_owned()),
        (503, "GET /sse HTTP/1.1", "\r\n".to_owned()),
        (505, "GET / HTTP/2.0", "\r\n".to_owned()),
    ] {
        for (origin, allowed) in [("https://app.example", true), ("https://other.example", false)] {
            let request = format!("{line}\r\nHost: localhost\r\norigin:{origin} \r\n{fields}");
            let answer = match status {
                408 => serve_after(request, |server| build(server, SHORT)).1.answer(),
                _ => server.ask(request),
            };
            let expected = (status, allowed.then_some(origin), Some("Origin"));
            let fields = (answer.header("access-control-allow-origin"), answer.header("vary"));
            assert_eq!((answer.status, fields.0, fields.1), expected, "{line}: {}", answer.text());
        }
    }
    let body = "BREW / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nOrigin: https://app.example\r\n";
    assert_eq!(server.ask(body).header("access-control-allow-origin"), None, "the body is not searched");
}

/// A server that refuses every connection, and allows one origin.
fn closed(server: Server) -> Server {
    server
        .config(Config { max_connections: 0, ..Config::default() })
        .allow_origin("https://app.example")
        .on_response(|_| ()) // keeps the refusals off standard error
}

#[test]
fn refusal_beyond_max_connections_has_the_cors_fields_of_an_allowed_origin() {
    for (origin, allowed) in [("https://app.example", true), ("https://other.example", false)] {
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
        let (_server, mut client) = serve_after(request, closed);
        let answer = client.answer();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("access-control-allow-origin"), allowed.then_some(origin));
    }
}

#[test]
fn refusal_beyond_max_connections_has_the_cors_fields_if_the_head_arrives_in_pieces() {
    const HEAD_WAIT: Duration = Duration::from_millis(100);
    let is_allowed = || {
        let started = Instant::now();
        let (_server, mut client) = serve_after("GET / HTTP/1.1\r\nHost: localhost\r\n", closed);
        // In 20 ms, the server usually reads the first piece, so that the pieces arrive in two reads.
        client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let is_answered = client.stream.peek(&mut [0]).is_ok();
        assert!(!is_answered || started.elapsed() >= HEAD_WAIT, "the server does not wait for the rest of the head");
        client.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        client.send("Origin: https://app.example\r\n\r\n");
        client.answer().header("access-control-allow-origin").is_some()
    };
    // On a busy machine, an attempt may take longer than the server waits for the head of a refused request.
    eventually(is_allowed);
}

#[test]
fn client_beyond_max_connections_that_sends_nothing_is_503() {
    let (server, _calls) = full(1);
    let mut held = server.connect();
    assert_eq!(held.get("/").status, 200);
    assert_eq!(server.connect().answer().status, 503);
}
