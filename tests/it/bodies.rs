//! Request bodies: with a length, chunked, after `Expect: 100-continue`, incomplete, too large, and not read.

use super::support::{serve, Running, TIMEOUT};
use brooklet::{Config, Context, Error, Server, StatusCode};
use std::io::{ErrorKind, Read};
use std::sync::{mpsc, Mutex};

fn echo() -> Running {
    serve(|server| {
        server
            .config(Config { max_body_bytes: 100_000, ..Config::default() })
            .post("/", |mut ctx| {
                ctx.body_bytes()
                    .map(|bytes| format!("{}:{}", bytes.len(), String::from_utf8_lossy(&bytes)))
            })
            .post("/text", |mut ctx| ctx.body_text())
            .post("/ignore", |_| "ignored")
            .post("/three", |mut ctx| {
                let mut three = [0; 3];
                ctx.body().read_exact(&mut three)?;
                std::io::Result::Ok(String::from_utf8_lossy(&three).into_owned())
            })
            .post("/twice", |mut ctx| {
                let first = ctx.body_bytes().map_err(|error| (error.kind(), Error::of(&error).map(Error::status)));
                let second = ctx.body_bytes().map_err(|error| (error.kind(), Error::of(&error).map(Error::status)));
                format!("{first:?} {second:?}")
            })
    })
}

fn post(target: &str, rest: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{rest}")
}

#[test]
fn body_by_length_or_chunked_is_read_whole() {
    let server = echo();
    let mut client = server.connect();
    let mut check = |rest: &str, body: &str| {
        client.send(post("/", rest));
        assert_eq!(client.answer().text(), body);
    };
    check("Content-Length: 5\r\n\r\nhello", "5:hello");
    check("Content-Length: 005\r\n\r\nhello", "5:hello");
    check("Content-Length: 0\r\n\r\n", "0:");
    check("\r\n", "0:");
    check("Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n", "6:hello!");
    check("Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "0:");
}

#[test]
fn body_sent_byte_by_byte_is_read_whole() {
    let server = echo();
    for rest in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let mut client = server.connect();
        for byte in post("/", rest).bytes() {
            client.send([byte]);
        }
        assert_eq!(client.answer().text(), "5:hello");
    }
}

#[test]
fn body_as_large_as_limit_is_read_whole() {
    let server = echo();
    let body = "x".repeat(100_000);
    let answer = server.ask(post("/", &format!("Content-Length: 100000\r\n\r\n{body}")));
    assert_eq!(answer.text(), format!("100000:{body}"));
}

#[test]
fn continue_is_sent_only_when_handler_reads() {
    let server = echo();
    let mut client = server.connect();
    client.send(post("/", "Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n"));
    assert_eq!(client.until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    assert_eq!(client.answer().text(), "5:hello");

    // The handler does not read the body, so the server sends no `100 Continue`. The server closes the connection after
    // the response, because it cannot know whether the client will send the body.
    client.send(post("/ignore", "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("ignored", Some("close")));
    client.finish();
    client.assert_end();
}

#[test]
fn continue_is_not_sent_for_received_body_or_to_http_10() {
    let server = echo();
    let answer = server.ask(post("/", "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"));
    assert_eq!((answer.status, answer.text()), (200, "5:hello"));
    let mut client = server.connect();
    client.send("POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    client.send("hello");
    assert_eq!(client.answer().text(), "5:hello");
}

#[test]
fn incomplete_body_is_unexpected_eof_and_400() {
    let server = echo();
    for rest in [
        "Content-Length: 9\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n9\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut client = server.connect();
        client.send(post("/", rest));
        client.finish();
        assert_eq!(client.answer().status, 400, "{rest:?}");
        let mut client = server.connect();
        client.send(post("/twice", rest));
        client.finish();
        let error = format!("Err(({:?}, Some({:?})))", ErrorKind::UnexpectedEof, StatusCode::BAD_REQUEST);
        assert!(client.answer().text().starts_with(&error), "{rest:?}");
    }
}

#[test]
fn malformed_body_fails_each_read_and_closes_connection() {
    let server = echo();
    let mut client = server.connect();
    client.send(post("/twice", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n"));
    let error = format!("Err(({:?}, Some({:?})))", ErrorKind::InvalidData, StatusCode::BAD_REQUEST);
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("connection")), (&*format!("{error} {error}"), Some("close")));
    client.finish();
    client.assert_end();
}

#[test]
fn body_over_limit_is_413_by_length_and_chunked() {
    let server = echo();
    let mut client = server.connect();
    client.send(post("/", "Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(client.answer().status, 413, "the response comes before the body");
    client.finish();
    client.assert_end();
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let answer = server.ask(post("/", &format!("Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(7))));
    assert_eq!(answer.status, 413);
}

#[test]
fn limit_body_in_handler_or_guard_replaces_max_body_bytes() {
    let limits = |server: Server| {
        server
            .config(Config { max_body_bytes: 1_000, ..Config::default() })
            .before(|ctx| {
                if let Some(limit) = ctx.query("guard") {
                    ctx.limit_body(limit.parse().unwrap());
                }
            })
            .post("/read", |mut ctx| ctx.body_bytes().map(|body| body.len().to_string()))
            .post("/upload", |mut ctx| {
                ctx.limit_body(200_000);
                ctx.body_bytes().map(|body| body.len().to_string())
            })
            .post("/late", |mut ctx| {
                let mut first = [0; 3];
                ctx.body().read_exact(&mut first)?;
                ctx.limit_body(3);
                ctx.body_bytes().map(|body| body.len().to_string())
            })
            .post("/ignored", |_| "done")
    };
    let server = serve(limits);
    for (target, length, status) in [
        ("/read", 1_000, 200),
        ("/read", 1_001, 413),
        ("/upload", 200_000, 200),
        ("/upload", 200_001, 413),
        ("/read?guard=5", 5, 200),
        ("/read?guard=5", 6, 413),
        ("/read?guard=70000", 70_000, 200),
        ("/late", 3, 200),
        ("/late", 4, 413),
        ("/nope", 1_001, 404),
        ("/ignored", 1_001, 200),
    ] {
        let body = "x".repeat(length);
        let plain = server.ask(post(target, &format!("Content-Length: {length}\r\n\r\n{body}")));
        assert_eq!(plain.status, status, "{target} {length}");
        let chunks = format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        assert_eq!(server.ask(post(target, &chunks)).status, status, "{target} {length}, chunked");
    }
    // The server sends `100 Continue` only if the body is not larger than the limit.
    let mut client = server.connect();
    client.send(post("/upload", "Content-Length: 2000\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(client.until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n");
    let answer = server.ask(post("/read", "Content-Length: 2000\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
}

#[test]
fn unread_body_does_not_become_next_request() {
    let server = echo();
    let mut client = server.connect();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for target in ["/ignore", "/three"] {
        // Each of these bodies arrives together with the head of its request.
        client.send(post(target, &format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len())));
        assert_eq!(client.answer().status, 200);
        client.send(post(
            target,
            &format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
        ));
        assert_eq!(client.answer().status, 200);
    }
    // This body arrives after the response.
    client.send(post("/ignore", "Content-Length: 60000\r\n\r\n"));
    assert_eq!(client.answer().text(), "ignored");
    client.send("x".repeat(60_000));
    client.send(post("/", "Content-Length: 2\r\n\r\nhi"));
    assert_eq!(client.answer().text(), "2:hi");
}

#[test]
fn long_unread_body_closes_connection_after_response() {
    let server = echo();
    let mut client = server.connect();
    client.send(post("/ignore", "Content-Length: 90000\r\n\r\n"));
    client.send("x".repeat(90_000));
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("ignored", Some("close")));
    client.finish();
    client.assert_end();
}

#[test]
fn body_text_that_is_not_utf_8_is_400() {
    let server = echo();
    let mut client = server.connect();
    client.send(post("/text", "Content-Length: 1\r\n\r\n"));
    client.send([0xff]);
    assert_eq!(client.answer().status, 400);
}

#[test]
fn response_does_not_wait_for_unread_body() {
    let server = echo();
    for piece in ["", "5", "5\r\n", "5\r\nhe", "5\r\nhello\r\n"] {
        let answer = server.ask(post("/nope", &format!("Transfer-Encoding: chunked\r\n\r\n{piece}")));
        assert_eq!((answer.status, answer.header("connection")), (404, Some("close")), "{piece:?}");
    }
}

/// Many clients read the response only after they have sent the whole request.
#[test]
fn response_reaches_client_that_sends_whole_body_first() {
    let server = echo();
    for connection in ["", "Connection: close\r\n"] {
        for (target, length, status) in [("/nope", 90_000, 404), ("/", 3_000_000, 413)] {
            let mut client = server.connect();
            client.send(post(target, &format!("{connection}Content-Length: {length}\r\n\r\n")));
            (0..length / 10_000).for_each(|_| client.send(vec![b'x'; 10_000]));
            assert_eq!(client.answer().status, status, "{connection}{length}");
        }
    }
}

/// A browser resets the connection when its user cancels an upload. The client has caused this error, so the status in
/// the report is 400.
#[test]
fn reset_within_body_is_reported_with_400() {
    let (tell, told) = mpsc::channel();
    let (start, reading) = mpsc::channel();
    let (tell, start) = (Mutex::new(tell), Mutex::new(start));
    let server = serve(|server| {
        let server = server.post("/", move |mut ctx: Context<'_>| {
            start.lock().unwrap().send(()).unwrap();
            ctx.body_text()
        });
        server.on_response(move |exchange| {
            let error = exchange.error.map(std::io::Error::kind);
            tell.lock().unwrap().send((exchange.status, error)).unwrap();
        })
    });
    let mut client = server.connect();
    client.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    client.stream.peek(&mut [0]).unwrap();
    reading.recv_timeout(TIMEOUT).unwrap();
    client.reset(); // the first response is unread, so this sends RST
    assert_eq!(told.recv_timeout(TIMEOUT).unwrap(), (Some(StatusCode::NO_CONTENT), None));
    let (status, error) = told.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(status, Some(StatusCode::BAD_REQUEST));
    assert!(matches!(error, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)), "the write fails: {error:?}");
}
