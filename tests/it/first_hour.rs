//! Code that a newcomer may write in the first hour. The tests show that this code compiles and does what a newcomer
//! expects.

use super::machine::own_loopback_address;
use super::support::serve;
use brooklet::sse::*;
use brooklet::{Context, Error, Headers, Method, Response, Server, StatusCode, Version};
use std::borrow::Cow;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

#[derive(Clone, PartialEq, Debug)]
struct User(String);

/// Compiles only if the names of `sse` do not shadow names of the prelude.
fn send_and_sync<T: Send + Sync>() {}

#[test]
fn handler_values_become_responses() {
    send_and_sync::<Channel>();
    let server = serve(|server| {
        server
            .get("/unit", |_| ())
            .get("/none", |_| None::<&str>)
            .get("/some", |_| Some("here"))
            .get("/vec", |_| vec![0, 1])
            .get("/cow", |_| Cow::from("moo"))
            .get("/nested", |_| io::Result::Ok(Some(StatusCode::CREATED)))
            .post("/typed", |mut ctx| -> io::Result<_> { ctx.body_text() })
    });
    for (target, status, content_type, body) in [
        ("/unit", 204, None, ""),
        ("/none", 404, Some("text/plain; charset=utf-8"), "404 Not Found\n"),
        ("/some", 200, Some("text/plain; charset=utf-8"), "here"),
        ("/vec", 200, Some("application/octet-stream"), "\0\u{1}"),
        ("/cow", 200, Some("text/plain; charset=utf-8"), "moo"),
        ("/nested", 201, None, ""),
    ] {
        let answer = server.get(target);
        let got = (answer.status, answer.header("content-type"), answer.text());
        assert_eq!(got, (status, content_type, body), "{target}");
    }
}

#[test]
fn strings_and_numbers_convert_to_methods_and_statuses() {
    assert_eq!("GET".parse::<Method>().unwrap(), Method::Get);
    assert_eq!("get".parse::<Method>().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(StatusCode::try_from(404).unwrap(), StatusCode::NOT_FOUND);
    let status: Result<StatusCode, _> = 101u16.try_into();
    assert_eq!(status.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(StatusCode::NOT_FOUND == 404 && u16::from(StatusCode::GONE) == 410);
    assert!(Version::Http10 < Version::Http11 && Version::Http11.to_string() == "HTTP/1.1");
    let mut headers = Headers::new();
    headers.append("A", "1").unwrap();
    headers.append("B", "2").unwrap();
    let mut names = String::new();
    for (name, value) in &headers {
        names += &format!("{name}={}", value.len());
    }
    assert_eq!(names, "A=1B=1");
    assert_eq!(Error::new(StatusCode::BAD_REQUEST, format!("no {}", "tea")).message(), "no tea");
}

#[test]
fn guard_stores_value_for_handler_and_uses_question_mark() {
    let server = serve(|server| {
        server
            .before(|ctx| -> io::Result<()> {
                ctx.set_response_header("X-Frame-Options", "DENY")?;
                Ok(())
            })
            .before(|ctx| -> Result<(), Response> {
                let name = ctx.cookie("user").ok_or(StatusCode::UNAUTHORIZED)?.to_owned();
                assert_eq!(ctx.insert(User("old".to_owned())), None);
                assert_eq!(ctx.insert(User(name)), Some(User("old".to_owned())));
                Ok(())
            })
            .before(|ctx| -> Result<Option<Response>, Error> {
                let is_banned = ctx.get::<User>() == Some(&User("mallory".to_owned()));
                Ok(is_banned.then(|| Response::text("not you").with_status(StatusCode::FORBIDDEN)))
            })
            .before(|ctx| {
                ctx.insert(7_u32);
            })
            .get("/", |mut ctx| {
                let number = *ctx.get::<u32>().unwrap();
                let user = ctx.remove::<User>();
                assert!(ctx.get::<User>().is_none() && ctx.get::<String>().is_none());
                format!("{user:?} {number}")
            })
    });
    let ask = |cookie: &str| server.ask(format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"));
    let answer = ask("user=ada");
    assert_eq!((answer.text(), answer.header("x-frame-options")), ("Some(User(\"ada\")) 7", Some("DENY")));
    assert_eq!(ask("user=mallory").text(), "not you");
    assert_eq!(ask("name=ada").status, 401);
}

#[test]
fn cookie_is_found_by_exact_name_in_every_field() {
    let server =
        serve(|server| server.get("/{name}", |ctx: Context<'_>| ctx.cookie(ctx.param("name")).map(str::to_owned)));
    let fields = "Cookie: xa=0; a=1; a=2;b=\"q;\r\ncookie: c= sp ;d; e==; A=3; f=\r\n";
    for (name, value) in [
        ("a", Some("1")),
        ("b", Some("\"q")),
        ("c", Some(" sp")),
        ("e", Some("=")),
        ("A", Some("3")),
        ("f", Some("")),
        ("d", None),
        ("x", None),
    ] {
        let answer = server.ask(format!("GET /{name} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        assert_eq!((answer.status == 200).then_some(answer.text()), value, "{name}");
    }
}

#[test]
fn last_event_id_is_read_from_field_or_query() {
    let server = serve(|server| server.get("/", |ctx| ctx.last_event_id()));
    let ask = |target: &str, field: &str| {
        let answer = server.ask(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n"));
        (answer.status == 200).then(|| answer.text().to_owned())
    };
    assert_eq!(ask("/?lastEventId=%C3%A9", "").as_deref(), Some("é"));
    assert_eq!(ask("/?lastEventId=a", "Last-Event-ID: b\r\n").as_deref(), Some("b"));
    assert_eq!(ask("/?lastEventId=a", "Last-Event-ID:\r\n").as_deref(), Some("a"));
    assert_eq!(ask("/", ""), None);
}

#[test]
fn spawned_server_stops_when_dropped_and_frees_its_port() {
    let running = Server::bind((own_loopback_address(), 0)).unwrap().get("/", |_| "hello").spawn().unwrap();
    let address = running.local_addr();
    assert_eq!(super::support::Client::connect(address).get("/").text(), "hello");
    let mut idle = super::support::Client::connect(address);
    assert_eq!(idle.get("/").text(), "hello");
    drop(running);
    idle.assert_end();
    let listener = TcpListener::bind(address).expect("the port is free");
    let running = Server::from(listener).get("/", |_| "again").spawn().unwrap();
    assert_eq!(super::support::Client::connect(address).get("/").text(), "again");
    running.shutdown(Duration::from_secs(5)).unwrap();
    let running = Server::bind("127.0.0.1:0").unwrap().get("/", |_| "hello").spawn().unwrap();
    running.handle().shutdown(Duration::ZERO);
    running.join().unwrap();
}

#[test]
fn spawn_with_invalid_route_returns_error() {
    let error = Server::bind("127.0.0.1:0").unwrap().get("no-slash", |_| "hello").spawn().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no-slash") && error.to_string().contains(file!()), "{error}");
}
