//! Guards, the `on_response` hook, and panics in guards, handlers and hooks.

use super::support::{serve, Running, TIMEOUT};
use brooklet::{sse, Config, Response, Server, StatusCode};
use std::panic::panic_any;
use std::sync::mpsc;
use std::sync::Mutex;
use std::time::Instant;
use std::{error, fmt, io};

#[test]
fn guard_runs_before_routing_and_may_answer() {
    let server = serve(|server| {
        server
            .before(|ctx| {
                let authorized = ctx.headers().get("authorization") == Some("secret");
                (!authorized).then(|| Response::status(StatusCode::UNAUTHORIZED).header("WWW-Authenticate", "Basic"))
            })
            .before(|ctx| ctx.path().starts_with("/private").then(|| StatusCode::FORBIDDEN.into()))
            .get("/", |_| "in")
            .get("/private", |_| "never")
    });
    let ask =
        |target: &str, field: &str| server.ask(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n"));
    assert_eq!(ask("/", "").status, 401);
    assert_eq!(ask("/nope", "").status, 401, "guards run before routing");
    assert_eq!(ask("/", "Authorization: secret\r\n").text(), "in");
    assert_eq!(ask("/private", "Authorization: secret\r\n").status, 403);
}

/// The guard is an example in the documentation. Without this guard, the three routes would answer the requests.
#[test]
fn guard_by_path_matches_every_spelling() {
    let server = serve(|server| {
        server
            .before(|ctx| ctx.path().starts_with("/private").then(|| StatusCode::FORBIDDEN.into()))
            .get("/private", |_| "static")
            .get("/{dir}/{file}", |ctx| format!("{} {}", ctx.param("dir"), ctx.param("file")))
            .get("/{*path}", |ctx| ctx.param("path").to_owned())
    });
    for target in [
        "/private", "/%70rivate", "/%70rivate/x", "/privat%65/x/y", "/%70%72%69%76%61%74%65/x", "/priv%61te/%78",
        "/%70rivate%2Fx", "http://localhost/%70rivate/x", "HTTP://localhost/private/x", "/private//x",
    ] {
        assert_eq!(server.get(target).status, 403, "{target}");
    }
    for target in ["/x/../private", "/./private", "/x/%2e%2E/private/y", "/%2e/private", "//private/x", "/%2Fprivate/x"]
    {
        assert_eq!(server.get(target).status, 400, "{target}");
    }
    assert_eq!(server.get("/%2570rivate/x").text(), "%70rivate x", "a path is decoded once");
    assert_eq!(server.get("/%50rivate/x").text(), "Private x", "paths are case-sensitive");
}

/// Sends each byte in a path, both escaped and plain. If the handler receives the same value for two requests, the
/// guard must receive the same path for these two requests.
#[test]
fn path_has_one_spelling_for_each_value() {
    let server = serve(|server| {
        server
            .before(|ctx| {
                let path = ctx.path().to_owned();
                ctx.set_response_header("Path", &path).unwrap();
                None
            })
            .get("/{value}", |ctx| ctx.param("value").to_owned())
    });
    let mut client = server.connect();
    let mut raw = 0;
    for byte in 0x20..0x7f_u8 {
        // Removes `Date`, because its value may differ between two responses.
        let mut get = |target: String| {
            let mut answer = client.get(&target);
            answer.head = answer
                .head
                .lines()
                .filter(|line| !line.starts_with("Date: "))
                .collect::<Vec<_>>()
                .join("\r\n");
            answer
        };
        let escaped = get(format!("/a%{byte:02X}"));
        let lower = get(format!("/a%{byte:02x}"));
        assert_eq!(escaped, lower, "{byte:02x}");
        if matches!(byte, b' ' | b'"' | b'#' | b'<' | b'>' | b'\\' | b'/' | b'?' | b'%') {
            assert_eq!(escaped.header("path"), Some(&*format!("/a%{byte:02X}")));
            continue;
        }
        assert_eq!(escaped.text(), format!("a{}", char::from(byte)));
        assert_eq!(escaped, get(format!("/a{}", char::from(byte))), "{:?}", char::from(byte));
        raw += 1;
    }
    assert_eq!(raw, 95 - 9);
}

#[test]
fn guard_field_is_sent_with_every_response() {
    let server = serve(|server| {
        server
            .before(|ctx| {
                ctx.set_response_header("Access-Control-Allow-Origin", "https://app.example").unwrap();
                assert!(ctx.set_response_header("X", "a\nb").is_err());
                None
            })
            .get("/", |_| "cors")
    });
    for target in ["/", "/nope"] {
        assert_eq!(server.get(target).header("access-control-allow-origin"), Some("https://app.example"));
    }
}

#[test]
fn guard_may_read_body() {
    let server = serve(|server| {
        server
            .before(|ctx| {
                ctx.body_text()
                    .map_or_else(|error| Some(error.into()), |text| (text == "stop").then(|| "stopped".into()))
            })
            .post("/", |_| "passed")
    });
    let post = |body: &str| {
        server.ask(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    };
    assert_eq!(post("stop").text(), "stopped");
    assert_eq!(post("go").text(), "passed");
}

#[test]
fn on_response_is_called_for_each_response() {
    let (line, lines) = mpsc::channel();
    let line = Mutex::new(line);
    let server = serve(|server| {
        server
            .get("/hello", |_| "hello")
            .get("/fail", |_| Err::<&str, _>(std::io::Error::other("disk on fire")))
            .get("/taken", |ctx| ctx.takeover_conn().1)
            .get("/stream", |_| Response::stream("a/b", |out| out.write_all(b"123")))
            .on_response(move |exchange| {
                let text = exchange.to_string();
                // Removes the address and the duration, because they differ for each request.
                let (peer, rest) = text.split_once(' ').unwrap();
                assert_eq!(peer, exchange.peer.to_string());
                let (rest, error) = rest.split_once(" ms").unwrap();
                let (rest, duration) = rest.rsplit_once(' ').unwrap();
                assert!(duration.parse::<f64>().unwrap() >= 0.0);
                line.lock().unwrap().send(format!("{rest}{error}")).unwrap();
            })
    });
    let told = || lines.recv_timeout(TIMEOUT).unwrap();
    server.get("/hello?q=1");
    assert_eq!(told(), "GET /hello 200 5 B");
    server.get("/nope");
    assert_eq!(told(), "GET /nope 404 14 B");
    server.get("/fail");
    assert_eq!(told(), "GET /fail 500 26 B: disk on fire");
    server.get("/stream");
    assert_eq!(told(), "GET /stream 200 3 B");
    server.ask("nonsense\r\n\r\n");
    assert!(told().starts_with("- - 400 "));
    let mut client = server.connect();
    client.send("GET /taken HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(told(), "GET /taken taken over");
}

#[test]
fn panic_is_500_and_other_connections_continue() {
    let (told, tellings) = mpsc::channel();
    let told = Mutex::new(told);
    let server = serve(|server| {
        server
            .before(|ctx| if ctx.path() == "/guard" { panic!("on purpose, in a guard") } else { None })
            .get("/", |_| "fine")
            .get("/handler", |_| -> &str { panic!("on purpose, in a handler") })
            .get("/stream", |_| Response::stream("a/b", |_| panic!("on purpose, in a producer")))
            .get("/events", |ctx| sse::stream(ctx, |_| panic!("on purpose, in an event stream")))
            .on_response(move |exchange| {
                if exchange.path == Some("/hook") {
                    panic!("on purpose, in the hook");
                }
                told.lock().unwrap().send(exchange.error.map(|error| error.to_string())).unwrap();
            })
            .get("/hook", |_| "answered before")
    });
    let mut other = server.connect();
    assert_eq!(other.get("/").text(), "fine");
    assert_eq!(tellings.recv_timeout(TIMEOUT).unwrap(), None);
    for (target, connection, said) in [
        ("/guard", Some("close"), "the handler panicked"),
        ("/handler", Some("close"), "the handler panicked"),
        ("/stream", None, "the code that writes the body panicked"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.header("connection")), (500, connection), "{target}");
        assert_eq!(tellings.recv_timeout(TIMEOUT).unwrap().as_deref(), Some(said), "{target}");
    }
    let mut client = server.connect();
    client.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.stream_head();
    assert_eq!(client.rest_of_broken_stream(), b"");
    assert_eq!(tellings.recv_timeout(TIMEOUT).unwrap().as_deref(), Some("the handler panicked"));
    // The hook panics after the response has been sent. The connection stays open.
    let mut client = server.connect();
    assert_eq!(client.get("/hook").text(), "answered before");
    assert_eq!(client.get("/").text(), "fine");
    assert_eq!(other.get("/").text(), "fine");
}

/// A value whose `Drop` panics. If `in_display` is `true`, the `Display` of the value panics instead.
#[derive(Debug)]
struct Bomb {
    in_display: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if !self.in_display {
            panic_any(Bomb { in_display: false }); // the `Drop` of this payload panics too
        }
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(!self.in_display, "on purpose, in a Display");
        f.write_str("bomb")
    }
}

impl error::Error for Bomb {}

const IN_DROP: Bomb = Bomb { in_display: false };

/// Adds a guard, routes and a hook that pass a [`Bomb`] to the server: as the payload of a panic, as an error, or in a
/// body.
fn bombs(server: Server) -> Server {
    let body = |status| {
        let bomb = IN_DROP;
        let body = Response::stream("a/b", move |_| {
            let _bomb = &bomb;
            Ok(())
        });
        body.with_status(status)
    };
    server
        .config(Config { max_connections: 2, ..Config::default() })
        .before(|ctx| if ctx.path() == "/guard" { panic_any(IN_DROP) } else { None })
        .get("/", |_| "fine")
        .get("/handler", |_| -> &str { panic_any(IN_DROP) })
        .get("/producer", |_| Response::stream("a/b", |_| panic_any(IN_DROP)))
        .get("/error", |_| io::Error::other(IN_DROP))
        .get("/display", |_| io::Error::other(Bomb { in_display: true }))
        .get("/body", move |_| body(StatusCode::OK))
        .get("/no-body", move |_| body(StatusCode::NO_CONTENT))
        .get("/taken", move |ctx| {
            drop(ctx.takeover_conn());
            body(StatusCode::OK)
        })
}

impl Running {
    /// Repeats a request until the status is not 503 or [`TIMEOUT`] has passed. The status is 503 until the server
    /// notices that the previous client has left. Returns the last status, or `None` if a connection ends without a
    /// response.
    fn get_in_turn(&self, target: &str) -> Option<u16> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut client = self.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let head = String::from_utf8(client.try_until(b"\r\n")?).unwrap();
            if !head.contains(" 503 ") || Instant::now() > deadline {
                return head.split(' ').nth(1).unwrap().parse().ok();
            }
        }
    }
}

/// Asserts that each client receives its response. Also asserts that the server serves a new connection after each
/// connection that has ended.
#[track_caller]
fn assert_survives_bombs(server: &Running) {
    let mut other = server.connect();
    assert_eq!(other.get("/").text(), "fine");
    for _ in 0..2 {
        for (target, status) in [
            ("/guard", 500),
            ("/handler", 500),
            ("/producer", 500),
            ("/error", 500),
            ("/display", 500),
            ("/body", 500),
            ("/no-body", 204),
            ("/hook", 404),
        ] {
            assert_eq!(server.get_in_turn(target), Some(status), "{target}");
        }
        assert_eq!(server.get_in_turn("/taken"), None);
        // If the panic occurs after the response, the connection stays open.
        for (target, status) in [("/error", 500), ("/display", 500), ("/hook", 404)] {
            assert_eq!(other.get(target).status, status, "{target}");
        }
        assert_eq!(other.get("/").text(), "fine");
    }
}

#[test]
fn panic_in_drop_or_display_ends_one_connection_after_response() {
    assert_survives_bombs(&serve(bombs));
    let hooked = |server| {
        bombs(server).on_response(|exchange| {
            let _line = exchange.to_string();
            if exchange.path == Some("/hook") {
                panic_any(IN_DROP);
            }
        })
    };
    assert_survives_bombs(&serve(hooked));
}
