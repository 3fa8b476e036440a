//! Errors of handlers: the response to the client, and the report to the program.

use super::support::{serve, Running, TIMEOUT};
use brooklet::{Error, Response, StatusCode};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::sync::Mutex;
use std::{fmt, io};

/// Starts a server. For each response, the receiver yields the status and the error at the end of the log line.
fn reporting(build: impl FnOnce(brooklet::Server) -> brooklet::Server) -> (Running, Receiver<(u16, String)>) {
    let (report, reports) = mpsc::channel();
    let report = Mutex::new(report);
    let server = serve(|server| {
        build(server).on_response(move |exchange| {
            let line = exchange.to_string();
            let error = line.split_once(" ms: ").map_or("", |parts| parts.1).to_owned();
            report.lock().unwrap().send((exchange.status.unwrap().as_u16(), error)).unwrap();
        })
    });
    (server, reports)
}

/// An error type of a program, with a source, like a type that derives `thiserror::Error`.
#[derive(Debug)]
struct Failed(&'static str, io::Error);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.1)
    }
}

impl From<Failed> for Response {
    fn from(error: Failed) -> Response {
        Response::json("{}").with_status(StatusCode::BAD_GATEWAY).with_cause(error)
    }
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

fn fire() -> Failed {
    Failed("cannot save", io::Error::other("disk on fire"))
}

#[test]
fn handler_error_is_reported_with_sources_and_not_sent() {
    let (server, reports) = reporting(|server| {
        server
            .get("/own", |_| Err::<&str, _>(fire()))
            .get("/box", |_| Err::<&str, Boxed>(fire().into()))
            .get("/local", |_| Err::<&str, Box<dyn std::error::Error>>(fire().into()))
            .get("/text", |_| -> Result<&str, Boxed> { Err("out of paper")? })
            .get("/parse", |_| -> Result<String, Boxed> { Ok("x".parse::<u8>()?.to_string()) })
            .get("/fault", |_| Response::status(StatusCode::BAD_REQUEST).with_cause("no comma"))
            .get("/first", |_| Response::from(io::Error::other("first")).with_cause("second"))
            .get("/bare", |_| StatusCode::INTERNAL_SERVER_ERROR)
            .get("/busy", |_| StatusCode::SERVICE_UNAVAILABLE)
    });
    for (target, status, error) in [
        ("/own", 502, "cannot save: disk on fire"),
        ("/box", 500, "cannot save: disk on fire"),
        ("/local", 500, "cannot save: disk on fire"),
        ("/text", 500, "out of paper"),
        ("/parse", 500, "invalid digit found in string"),
        ("/fault", 400, "no comma"),
        ("/first", 500, "first"),
        ("/bare", 500, "the handler returned a 500 without a cause; add one with Response::with_cause"),
        ("/busy", 503, ""),
    ] {
        let answer = server.get(target);
        let text = answer.text();
        assert!(text == "{}\n" || text == "{}" || text.starts_with(&format!("{status} ")), "{target}: {text}");
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), (status, error.to_owned()), "{target}");
    }
}

#[test]
fn error_with_status_keeps_it_when_boxed_or_nested() {
    let gone = || Error::new(StatusCode::GONE, format!("nothing since {}", 2019));
    let (server, reports) = reporting(|server| {
        server
            .get("/plain", move |_| Err::<&str, _>(gone()))
            .get("/io", move |_| Err::<&str, io::Error>(gone().into()))
            .get("/box", move |_| Err::<&str, Boxed>(gone().into()))
            .get("/io-in-box", move |_| Err::<&str, Boxed>(io::Error::from(gone()).into()))
            .get("/local", move |_| Err::<&str, Box<dyn std::error::Error>>(gone().into()))
            .get("/below", move |_| Err::<&str, Boxed>(Failed("cannot read", gone().into()).into()))
            .post("/body", |mut ctx| -> Result<String, Boxed> { Ok(ctx.body_text()?) })
            .get("/503", move |_| {
                let error = Error::new(StatusCode::SERVICE_UNAVAILABLE, "later").with_source("the pool is empty");
                Err::<&str, Boxed>(Failed("cannot query", error.into()).into())
            })
    });
    for target in ["/plain", "/io", "/box", "/io-in-box", "/local", "/below"] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (410, "nothing since 2019\n"), "{target}");
        assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), (410, String::new()), "{target}");
    }
    let answer = server.ask(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n\xff");
    assert_eq!((answer.status, answer.text()), (400, "the body is not UTF-8\n"));
    assert_eq!(reports.recv_timeout(TIMEOUT).unwrap().0, 400);
    let answer = server.get("/503");
    assert_eq!((answer.status, answer.text()), (503, "later\n"), "the client does not receive the source");
    let cause = "cannot query: 503 Service Unavailable: later: the pool is empty".to_owned();
    assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), (503, cause));
}

/// A client often disconnects while a slow handler fails. The program still receives the cause.
#[test]
fn cause_is_reported_after_client_has_left() {
    let (enter, entered) = mpsc::channel();
    let enter = Mutex::new(enter);
    let (server, reports) = reporting(|server| {
        server.get("/first", |_| "unread").get("/", move |mut ctx| -> Result<&str, Failed> {
            enter.lock().unwrap().send(()).unwrap();
            while !ctx.client_left() {
                std::thread::yield_now();
            }
            Err(fire())
        })
    });
    let mut client = server.connect();
    client.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    entered.recv_timeout(TIMEOUT).unwrap();
    client.reset();
    assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), (200, String::new()));
    assert_eq!(reports.recv_timeout(TIMEOUT).unwrap(), (502, "cannot save: disk on fire".to_owned()));
}

/// Starts the server in a child process, because the test reads the standard error of the server.
#[test]
fn cause_without_hook_is_printed_except_for_4xx() {
    let mut process = Command::new(std::env::current_exe().unwrap());
    let output = process
        .args(["--exact", "errors::server_without_hook", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let lines: Vec<_> = text.lines().filter_map(|line| Some(line.split_once(" ms: ")?.1)).collect();
    let no_cause = "the handler returned a 500 without a cause; add one with Response::with_cause";
    assert_eq!(lines, ["cannot save: disk on fire", no_cause, "torn"]);
}

#[test]
#[ignore = "another test starts it as a child process"]
fn server_without_hook() {
    let server = serve(|server| {
        server
            .get("/own", |_| Err::<&str, _>(fire()))
            .get("/fault", |_| Response::status(StatusCode::BAD_REQUEST).with_cause("no comma"))
            .get("/busy", |_| StatusCode::SERVICE_UNAVAILABLE)
            .get("/bare", |_| StatusCode::INTERNAL_SERVER_ERROR)
            .get("/torn", |_| {
                let torn = Response::stream("text/csv", |_| Err(io::Error::other("torn")));
                torn.with_status(StatusCode::BAD_REQUEST).with_cause("no comma")
            })
    });
    let mut client = server.connect();
    // The server prints the error of `/torn` after its response, and before it reads the last request.
    let statuses = ["/own", "/fault", "/bare", "/torn", "/busy"].map(|target| client.get(target).status);
    assert_eq!(statuses, [502, 400, 500, 500, 503]);
}
