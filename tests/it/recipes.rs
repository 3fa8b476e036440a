//! The recipes of the README, as they stand there, and what they answer.

use super::machine::TemporaryDirectory;
use super::support::Client;
use brooklet::{sse, Context, Error, Files, Response, Server, StatusCode};
use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\n";

fn recipes(directory: &std::path::Path) -> io::Result<Server> {
    let files = Files::new(directory)?;
    #[rustfmt::skip]
    let server = {
let visits = AtomicU64::new(0); // shared state is an atomic or has a lock, because handlers run in many threads
Server::bind("127.0.0.1:0")?
    .get("/hello/{name}", |ctx| format!("hello, {}\n", ctx.param("name")))
    .get("/search", |ctx| ctx.query("q")) // without `q` this is `None`, which is a 404
    .get("/status", |_| Response::json(r#"{"status":"ok"}"#)) // a crate such as `serde_json` makes JSON from a type
    .post("/greet", |mut ctx| -> io::Result<String> {
        let form = ctx.form()?; // `?` answers a body that is too large with 413
        Ok(format!("hello, {}\n", form.get("name").unwrap_or_default()))
    })
    .post("/dark", |_| Response::redirect("/").header("Set-Cookie", "theme=dark; HttpOnly; SameSite=Lax"))
    .get("/theme", |ctx| ctx.cookie("theme").map(str::to_owned))
    .get("/assets/{*path}", move |ctx| files.respond(&ctx, ctx.param("path"))) // `let files = Files::new("public")?`
    .post("/visits", move |_| format!("{}\n", visits.fetch_add(1, Relaxed) + 1))
    // An error has a status. Any other error is a 500, whose text only standard error receives.
    .get("/notes/{id}", |_| -> Result<String, Error> { Err(Error::new(StatusCode::NOT_FOUND, "no such note")) })
    // A guard runs before every handler.
    .before(|ctx| ctx.path().starts_with("/private").then(|| StatusCode::FORBIDDEN.into()))
    };
    Ok(server)
}

#[test]
fn recipes_answer_as_their_comments_say() {
    let directory = TemporaryDirectory::new();
    fs::write(directory.path().join("a.txt"), "a file").unwrap();
    let server = recipes(directory.path()).unwrap().spawn().unwrap();
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/hello/Ada%20L").text(), "hello, Ada L\n");
    assert_eq!(client.get("/search?q=a+b").text(), "a b");
    assert_eq!(client.get("/search").status, 404);
    assert_eq!(client.get("/status").header("content-type"), Some("application/json"));
    client.send(format!("POST /greet HTTP/1.1\r\nHost: localhost\r\n{FORM}name=Ada+L"));
    assert_eq!(client.answer().text(), "hello, Ada L\n");
    client.send("POST /dark HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let dark = client.answer();
    assert_eq!((dark.status, dark.header("set-cookie")), (303, Some("theme=dark; HttpOnly; SameSite=Lax")));
    client.send("GET /theme HTTP/1.1\r\nHost: localhost\r\nCookie: theme=dark\r\n\r\n");
    assert_eq!(client.answer().text(), "dark");
    assert_eq!(client.get("/theme").status, 404);
    assert_eq!(client.get("/assets/a.txt").text(), "a file");
    for visits in ["1\n", "2\n"] {
        client.send("POST /visits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.answer().text(), visits);
    }
    let missing = client.get("/notes/2");
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("no such note"));
    assert_eq!(client.get("/private/x").status, 403);
}

#[rustfmt::skip]
fn stream(ctx: Context<'_>) -> Response {
sse::stream(ctx, |mut events| {
    for percent in (0..=100).step_by(10) {
        events.send_message(format!("{percent} %"))?;
        events.wait(Duration::from_secs(1))?; // returns an error as soon as the client leaves
    }
    events.close() // sends a `close` event, at which the page calls `source.close()`
})
}

#[test]
fn recipe_of_a_stream_sends_its_first_event() {
    let server = Server::bind("127.0.0.1:0").unwrap().get("/", stream).spawn().unwrap();
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.stream_head();
    assert_eq!(String::from_utf8(client.until(b"\n\n")).unwrap(), "data: 0 %\n\n");
}

#[rustfmt::skip]
fn hello_is_greeted() -> io::Result<()> {
let server = Server::bind("127.0.0.1:0")?.get("/", |_| "hello\n").spawn()?; // dropping it stops it
let mut client = TcpStream::connect(server.local_addr())?;
client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
assert!(io::read_to_string(client)?.ends_with("\r\n\r\nhello\n"));
Ok(())
}

#[test]
fn recipe_of_a_test_passes() {
    hello_is_greeted().unwrap();
}
