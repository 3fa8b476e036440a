//! The responses of handlers, and their bytes on the wire.

use super::support::{serve, Running, TIMEOUT};
use brooklet::{Config, Error, Request, Response, StatusCode};
use std::io;
use std::sync::mpsc;
use std::sync::Mutex;

fn all() -> Running {
    serve(|server| {
        server
            .get("/str", |_| "a str")
            .get("/string", |_| String::from("a string"))
            .get("/status", |_| StatusCode::ACCEPTED)
            .get("/html", |_| Response::html("<p>"))
            .get("/json", |_| Response::json("{}"))
            .get("/bytes", |_| Response::bytes("image/png", vec![0, 255]))
            .get("/redirect", |_| Response::redirect("/elsewhere"))
            .get("/created", |_| Response::text("made").with_status(StatusCode::CREATED).header("Location", "/x"))
            .get("/cookies", |_| {
                Response::text("").append_header("Set-Cookie", "a=1").append_header("Set-Cookie", "b=2")
            })
            .get("/type", |_| Response::text("a,b").header("Content-Type", "text/csv"))
            .get("/date", |_| Response::text("").header("Date", "Sun, 06 Nov 1994 08:49:37 GMT"))
            .get("/204", |_| Response::text("no body").with_status(StatusCode::NO_CONTENT))
            .get("/304", |_| Response::text("no body").with_status(StatusCode::NOT_MODIFIED))
            .get("/injected", |ctx| Response::text("").header("X", ctx.query("v").unwrap()))
            .get("/framed", |_| Response::text("abc").header("Content-Length", "1"))
            .get("/reader", |_| Response::reader("text/plain", 5, &b"hello world"[..]))
            .get("/large", |_| "0123456789".repeat(100_000))
            .get("/cut", |_| Response::reader("text/plain", 100_000, io::Read::take(io::repeat(b'x'), 50_000)))
            .get("/fails", |_| {
                Response::stream("text/plain", |out| {
                    out.write_all(b"some")?;
                    out.flush()?;
                    Err(io::Error::other("no more"))
                })
            })
            .get("/err", |_| Err::<&str, _>(io::Error::other("a secret")))
            .get("/our-err", |_| Err::<&str, _>(Error::new(StatusCode::CONFLICT, "the entry exists")))
            .get("/status-err", |_| Err::<&str, _>(StatusCode::GONE))
    })
}

#[test]
fn return_value_of_each_type_becomes_a_response() {
    let server = all();
    let check = |target: &str, status: u16, content_type: Option<&str>, body: &str| {
        let answer = server.get(target);
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.text()),
            (status, content_type, body),
            "{target}"
        );
        assert!(answer.header("date").unwrap().ends_with(" GMT"));
    };
    const TEXT: Option<&str> = Some("text/plain; charset=utf-8");
    check("/str", 200, TEXT, "a str");
    check("/string", 200, TEXT, "a string");
    check("/status", 202, None, "");
    check("/html", 200, Some("text/html; charset=utf-8"), "<p>");
    check("/json", 200, Some("application/json"), "{}");
    check("/created", 201, TEXT, "made");
    check("/type", 200, Some("text/csv"), "a,b");
    check("/reader", 200, Some("text/plain"), "hello");
    check("/our-err", 409, TEXT, "the entry exists\n");
    check("/status-err", 410, TEXT, "410 Gone\n");
    assert_eq!(server.get("/bytes").body, [0, 255]);
    assert_eq!(server.get("/created").header("location"), Some("/x"));
    assert_eq!(server.get("/date").header("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let answer = server.get("/redirect");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/elsewhere")));
    assert!(server.get("/cookies").head.contains("Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"));
}

#[test]
fn io_error_of_a_handler_is_500_without_its_message() {
    let answer = all().get("/err");
    assert_eq!((answer.status, answer.text()), (500, "500 Internal Server Error\n"));
}

#[test]
fn response_204_or_304_has_no_body_and_no_length() {
    let server = all();
    let mut client = server.connect();
    for target in ["/204", "/304"] {
        let answer = client.get(target);
        assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (None, None), "{target}");
    }
    assert_eq!(client.get("/str").text(), "a str");
}

#[test]
fn header_with_a_control_character_is_500() {
    let server = all();
    for value in ["a%0d%0aSet-Cookie:%20x", "%0a", "%0d", "%00", "%7f"] {
        let answer = server.get(&format!("/injected?v={value}"));
        assert_eq!(answer.status, 500, "{value}");
        assert!(answer.header("set-cookie").is_none() && answer.header("x").is_none());
    }
    assert_eq!(server.get("/injected?v=fine").header("x"), Some("fine"));
    assert_eq!(server.get("/framed").status, 500, "the server sets the length itself");
}

#[test]
fn header_with_a_control_character_is_reported_with_any_later_status() {
    let (called, calls) = mpsc::channel();
    let called = Mutex::new(called);
    let server = serve(|server| {
        server
            .get("/header", |_| Response::text("").header("X", "a\nb").with_status(StatusCode::NOT_FOUND))
            .get("/append", |_| Response::text("").append_header("X", "a\nb").with_status(StatusCode::CREATED))
            .get("/type", |_| Response::bytes("a\nb", vec![]).with_status(StatusCode::NO_CONTENT))
            .on_response(move |exchange| {
                let error = exchange.error.map(io::Error::kind);
                called.lock().unwrap().send((exchange.status.map(StatusCode::as_u16), error)).unwrap();
            })
    });
    for target in ["/header", "/append", "/type"] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (500, "500 Internal Server Error\n"), "{target}");
        let reported = calls.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(reported, (Some(500), Some(io::ErrorKind::InvalidInput)), "{target}");
    }
}

#[test]
fn large_body_arrives_whole() {
    assert_eq!(all().get("/large").text(), "0123456789".repeat(100_000));
}

#[test]
fn body_that_fails_is_visibly_incomplete() {
    let server = all();
    let mut client = server.connect();
    client.send("GET /cut HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().header("content-length"), Some("100000"));
    client.finish();
    assert!(client.rest().len() < 100_000);

    let mut client = server.connect();
    client.send("GET /fails HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().header("transfer-encoding"), Some("chunked"));
    client.finish();
    assert_eq!(client.rest(), b"4\r\nsome\r\n", "the last chunk is missing");
}

#[test]
fn streamed_body_arrives_when_it_is_flushed() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let server = serve(|server| {
        server.get("/", move |_| {
            let wait = wait.lock().unwrap().take();
            Response::stream("text/plain", move |out| {
                out.write_all(b"first")?;
                out.flush()?;
                if let Some(wait) = wait {
                    wait.recv().unwrap(); // until the test has received the first piece
                }
                out.write_all(b"second")
            })
        })
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.until(b"first\r\n"), b"5\r\nfirst\r\n");
    go.send(()).unwrap();
    assert_eq!(client.until(b"0\r\n\r\n"), b"6\r\nsecond\r\n0\r\n\r\n");
    assert_eq!(client.get("/").text(), "firstsecond", "the connection stays open");

    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = client.head();
    assert_eq!((head.header("transfer-encoding"), head.header("connection")), (None, Some("close")));
    assert_eq!(client.rest(), b"firstsecond", "in HTTP/1.0 the end of the connection ends the body");
}

/// How a client recognizes the end of a response.
enum End {
    /// The client reads up to the end that the framing gives. The connection stays open.
    Framing,
    /// The client reads up to the end of the connection.
    Connection,
}

#[test]
fn response_is_whole_before_the_hook_is_called() {
    let (called, calls) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let (called, gate) = (Mutex::new(called), Mutex::new(gate));
    let server = serve(|server| {
        server
            .config(Config { max_body_bytes: 10, ..Config::default() })
            .get("/small", |_| "small")
            .get("/read", |mut ctx| ctx.body_text())
            .get("/large", |_| "0123456789".repeat(100_000))
            .get("/reader", |_| Response::reader("text/plain", 5, &b"hello world"[..]))
            .get("/stream", |_| Response::stream("text/plain", |out| out.write_all(b"streamed")))
            .get("/pieces", |_| {
                Response::stream("text/plain", |out| {
                    out.write_all(b"one ")?;
                    out.flush()?;
                    out.write_all(b"two")
                })
            })
            .get("/error", |_| Err::<&str, _>(io::Error::other("disk on fire")))
            .get("/panic", |_| -> &str { panic!("on purpose") })
            .get("/bye", |_| Response::text("bye").close())
            .on_response(move |exchange| {
                called.lock().unwrap().send(exchange.status.map(StatusCode::as_u16)).unwrap();
                gate.lock().unwrap().recv().unwrap();
            })
    });
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    for (request, status, length, end) in [
        (get("/small", ""), 200, 5, End::Framing),
        (get("/large", ""), 200, 1_000_000, End::Framing),
        (get("/reader", ""), 200, 5, End::Framing),
        (get("/stream", ""), 200, 8, End::Framing),
        (get("/pieces", ""), 200, 7, End::Framing),
        (get("/error", ""), 500, 26, End::Framing),
        (get("/nope", ""), 404, 14, End::Framing),
        (get("/panic", ""), 500, 26, End::Connection),
        (get("/bye", ""), 200, 3, End::Connection),
        (get("/small", "Connection: close\r\n"), 200, 5, End::Connection),
        ("GET /pieces HTTP/1.0\r\n\r\n".to_owned(), 200, 7, End::Connection),
        (get("/read", "Content-Length: 11\r\n"), 413, 22, End::Connection),
        ("nonsense\r\n\r\n".to_owned(), 400, 54, End::Connection),
    ] {
        let mut client = server.connect();
        client.send(&request);
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (status, length), "{request}: {}", answer.text());
        if matches!(end, End::Connection) {
            client.assert_end();
        }
        assert_eq!(calls.recv_timeout(TIMEOUT).unwrap(), Some(status), "{request}");
        go.send(()).unwrap();
    }
}

#[test]
fn hook_receives_the_request_with_its_query_and_fields() {
    let (called, calls) = mpsc::channel();
    let called = Mutex::new(called);
    let server = serve(|server| {
        server
            .get("/", |_| "hello")
            .get("/taken", |ctx| ctx.takeover_conn().1)
            .on_response(move |exchange| {
                let query = exchange.request.and_then(Request::query).map(str::to_owned);
                let client = exchange.request.and_then(|request| request.headers().get("x-forwarded-for"));
                called.lock().unwrap().send((query, client.map(str::to_owned))).unwrap();
            })
    });
    for target in ["/?q=tea", "/taken?q=tea"] {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"));
        let expected = (Some("q=tea".to_owned()), Some("192.0.2.7".to_owned()));
        assert_eq!(calls.recv_timeout(TIMEOUT).unwrap(), expected, "{target}");
    }
    server.ask("nonsense\r\n\r\n");
    assert_eq!(calls.recv_timeout(TIMEOUT).unwrap(), (None, None));
}
