//! Guards before, the hook after, and panics anywhere.

use super::support::{serve, TIMEOUT};
use brooklet::{sse, Response, StatusCode};
use std::sync::mpsc;
use std::sync::Mutex;

#[test]
fn a_guard_answers_or_lets_pass_and_sees_every_path() {
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
    assert_eq!(ask("/nope", "").status, 401, "ahead of routing");
    assert_eq!(ask("/", "Authorization: secret\r\n").text(), "in");
    assert_eq!(ask("/private", "Authorization: secret\r\n").status, 403);
}

/// The guard of the documentation and three routes that would answer.
#[test]
fn guard_by_path_sees_every_spelling() {
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
    assert_eq!(server.get("/%2570rivate/x").text(), "%70rivate x", "decoded once");
    assert_eq!(server.get("/%50rivate/x").text(), "Private x", "case counts");
}

/// Each byte of a path, escaped or not: where a handler sees the same value, a guard has seen the same path.
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
        let escaped = client.get(&format!("/a%{byte:02X}"));
        let lower = client.get(&format!("/a%{byte:02x}"));
        assert_eq!(escaped, lower, "{byte:02x}");
        if matches!(byte, b' ' | b'"' | b'#' | b'<' | b'>' | b'\\' | b'/' | b'?' | b'%') {
            assert_eq!(escaped.header("path"), Some(&*format!("/a%{byte:02X}")));
            continue;
        }
        assert_eq!(escaped.text(), format!("a{}", char::from(byte)));
        assert_eq!(escaped, client.get(&format!("/a{}", char::from(byte))), "{:?}", char::from(byte));
        raw += 1;
    }
    assert_eq!(raw, 95 - 9);
}

#[test]
fn fields_that_a_guard_sets_go_with_the_response() {
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
fn a_guard_may_read_the_body_first() {
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
fn the_hook_is_told_of_each_response() {
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
                // address, then the rest up to the duration, which differs each time
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
fn a_panic_is_a_500_on_its_connection_alone() {
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
        ("/stream", None, "the body's producer panicked"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.header("connection")), (500, connection), "{target}");
        assert_eq!(tellings.recv_timeout(TIMEOUT).unwrap().as_deref(), Some(said), "{target}");
    }
    let mut client = server.connect();
    client.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.stream_head();
    assert_eq!(client.rest_of_broken_stream(), b"", "its head is sent, so it can only break off");
    assert_eq!(tellings.recv_timeout(TIMEOUT).unwrap().as_deref(), Some("the handler panicked"));
    let mut client = server.connect();
    assert_eq!(client.get("/hook").text(), "answered before");
    assert_eq!(client.get("/").text(), "fine", "a hook's panic costs nobody the connection");
    assert_eq!(other.get("/").text(), "fine");
}
