//! `error_response`: the program formats all error responses, and the server makes sure that they are valid.

use super::support::{serve, Running, TIMEOUT};
use brooklet::{Config, Error, Problem, Response, Server, StatusCode};
use std::io;
use std::sync::{mpsc, Mutex};

/// Starts an API with one error format, and with a route for each kind of error.
fn api(form: impl Fn(&Problem<'_>) -> Response + Send + Sync + 'static) -> Running {
    serve(|server| routes(server).error_response(form))
}

fn routes(server: Server) -> Server {
    server
        .config(Config { max_body_bytes: 10, max_header_bytes: 1_000, max_taken_over: 0, ..Config::default() })
        .allow_origin("https://app.example")
        .before(|ctx| ctx.path().starts_with("/private").then(|| StatusCode::FORBIDDEN.into()))
        .get("/", |_| "fine")
        .get("/things/{id}", |ctx| (ctx.param("id") == "7").then_some("seven"))
        .post("/things", |mut ctx| ctx.body_text())
        .post("/form", |mut ctx| ctx.form().map(|_| "read"))
        .get("/panic", |_| -> &str { panic!("on purpose") })
        .get("/io", |_| Err::<&str, _>(io::Error::other("a secret")))
        .get("/gone", |_| Err::<&str, _>(Error::new(StatusCode::GONE, format!("gone \"{}\"", 1))))
        .get("/busy", |_| Response::status(StatusCode::SERVICE_UNAVAILABLE).header("Retry-After", "7"))
        .get("/stream", |_| Response::stream("a/b", |_| Err(io::Error::other("a secret"))))
        .get("/own", |_| Response::html("<p>no").with_status(StatusCode::NOT_FOUND))
        .get("/taken", |ctx| ctx.takeover_conn().1)
}

fn json(problem: &Problem<'_>) -> Response {
    let path = problem.request.map_or("-", |request| request.path());
    Response::json(format!("{} {:?} {path}", problem.status.as_u16(), problem.message))
}

#[test]
fn error_response_is_used_for_each_error_that_the_program_did_not_write() {
    let server = api(json);
    let host = "Host: localhost\r\n";
    let long = format!("X: {}\r\n", "x".repeat(2_000));
    for (line, fields, status, body) in [
        ("GET /nope", host, 404, "404 \"Not Found\" /nope"),
        ("GET /things/8", host, 404, "404 \"Not Found\" /things/8"),
        ("PUT /", host, 405, "405 \"Method Not Allowed\" /"),
        ("GET /private", host, 403, "403 \"Forbidden\" /private"),
        ("GET /panic", host, 500, "500 \"Internal Server Error\" /panic"),
        ("GET /io", host, 500, "500 \"Internal Server Error\" /io"),
        ("GET /stream", host, 500, "500 \"Internal Server Error\" /stream"),
        ("GET /gone", host, 410, "410 \"gone \\\"1\\\"\" /gone"),
        ("GET /busy", host, 503, "503 \"Service Unavailable\" /busy"),
        ("GET /taken", host, 503, "503 \"Service Unavailable\" /taken"),
        ("POST /form", host, 415, "415 \"the body must be application/x-www-form-urlencoded\" /form"),
        ("POST /things", "Host: localhost\r\nContent-Length: 11\r\n", 413, "413 \"the body is too large\" /things"),
        ("BREW /", host, 501, "501 \""),
        ("GET /%zz", host, 400, "400 \""),
        ("GET /", "", 400, "400 \"an HTTP/1.1 request must have a Host field (RFC 9112 3.2)\" -"),
        ("GET /", &format!("{host}{long}"), 431, "431 \"the request head is too large\" -"),
        ("GET /", "Host: other.example\r\n", 421, "421 \""),
        ("POST /things", "Host: localhost\r\nOrigin: https://other.example\r\n", 403, "403 \"this request comes"),
    ] {
        let answer = server.ask(format!("{line} HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/json")), "{line}");
        assert!(answer.text().starts_with(body), "{line}: {}", answer.text());
        assert_eq!(answer.header("vary"), Some("Origin"), "{line}");
    }
    assert_eq!(server.get("/own").text(), "<p>no", "the program wrote this error response itself");
    assert_eq!(server.get("/").text(), "fine");
}

#[test]
fn error_response_that_sets_fields_of_the_server_does_not_replace_them() {
    let server = api(|_| {
        Response::text("short")
            .header("Allow", "BREW")
            .header("Retry-After", "99")
            .header("Access-Control-Allow-Origin", "*")
            .header("Cache-Control", "no-store")
            .append_header("Vary", "Accept")
    });
    let ask =
        |line: &str| server.ask(format!("{line} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\n\r\n"));
    let answer = ask("PUT /");
    assert_eq!((answer.status, answer.text(), answer.header("allow")), (405, "short", Some("GET, HEAD, OPTIONS")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = ask("GET /busy");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
    assert_ne!(ask("GET /taken").header("retry-after"), Some("99"));
    for line in ["GET /nope", "GET /stream", "GET /taken", "BREW /"] {
        let answer = ask(line);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"), "{line}");
    }
    let mut client = server.connect();
    for _ in 0..2 {
        let answer = client.get("/nope");
        assert_eq!((answer.text(), answer.header("connection")), ("short", None), "the connection stays open");
    }
    client.send("HEAD /nope HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("content-length")), (404, Some("5")), "the response to HEAD has no body");
    assert_eq!(client.get("/").text(), "fine");
    assert_eq!(ask("nonsense /").header("connection"), Some("close"));
}

/// HTTP/1.0 has no chunks. The test covers both places from which the server sends error responses. The context sends
/// the refusal of a takeover. The serve loop sends all other error responses.
#[test]
fn error_response_that_streams_is_sent_without_chunks_to_http_10() {
    let server = api(|problem| {
        let text = problem.status.reason();
        Response::stream("a/b", move |out| out.write_all(text.as_bytes())).header("Vary", "Origin, Accept")
    });
    for (target, text) in [("/nope", "Not Found"), ("/taken", "Service Unavailable")] {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let head = client.head();
        assert_eq!(head.header("transfer-encoding"), None, "{target}");
        assert_eq!(head.head.matches("Origin").count(), 1, "{target}: {}", head.head);
        assert_eq!(String::from_utf8(client.rest()).unwrap(), text, "{target}");
    }
}

#[test]
fn error_response_that_fails_still_answers_the_client() {
    let (report, reports) = mpsc::channel();
    let report = Mutex::new(report);
    let server = serve(|server| {
        routes(server)
            .error_response(|problem| match problem.request.map(|request| request.path()) {
                Some("/panic-in-form") => panic!("on purpose, in the form"),
                Some("/status") => Response::status(StatusCode::OK),
                Some("/error") => StatusCode::BAD_GATEWAY.into(),
                Some("/refused" | "/panic") => Response::text("x").header("X", "a\nb"),
                _ => Response::stream("a/b", |_| Err(io::Error::other("no form"))),
            })
            .on_response(move |exchange| {
                report.lock().unwrap().send(exchange.error.map(|error| error.to_string())).unwrap();
            })
    });
    for (target, status, body, cause) in [
        ("/panic-in-form", 404, "404 Not Found\n", None),
        ("/status", 404, "", None),
        ("/error", 404, "404 Not Found\n", None),
        ("/refused", 500, "500 Internal Server Error\n", Some("header \"X\": a field")),
        ("/panic", 500, "500 Internal Server Error\n", Some("the handler panicked")),
        ("/io", 500, "500 Internal Server Error\n", Some("a secret")),
        ("/stream", 500, "500 Internal Server Error\n", Some("no form")),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (status, body), "{target}");
        let reported = reports.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(reported.is_some(), cause.is_some(), "{target}: {reported:?}");
        assert!(reported.unwrap_or_default().starts_with(cause.unwrap_or_default()), "{target}");
    }
    let mut client = server.connect();
    assert_eq!(client.get("/panic").header("connection"), Some("close"), "the connection closes after a panic");
}
