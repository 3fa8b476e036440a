//! Requests from other HTTP clients: ureq and curl.

use super::event_stream::parse;
use super::machine::{run_if_installed, TemporaryDirectory};
use super::support::{serve, Running};
use brooklet::{sse, Config, Response};
use std::process::{Command, Output};
use std::time::Duration;

fn start_server() -> Running {
    serve(|server| {
        server
            .config(Config { max_body_bytes: 1_000_000, ..Config::default() })
            .get("/", |_| "hello")
            .get("/chunked", |_| {
                Response::stream("text/plain", |out| (0..1_000).try_for_each(|n| writeln!(out, "{n}")))
            })
            .post("/echo", |mut ctx| ctx.body_text())
            .get("/fails", |ctx| {
                sse::stream(ctx, |mut events| {
                    events.send_message("half")?;
                    Err(std::io::Error::other("on purpose"))
                })
            })
            .on_response(|_| ()) // keeps the error of `/fails` off standard error
            .get("/sse", |ctx| {
                sse::stream(ctx, |mut events| {
                    for n in 0..3 {
                        events.wait(Duration::from_millis(1))?;
                        events.send_message(sse::Message::new().event("tick").id(n).data("ping"))?;
                    }
                    events.close()
                })
            })
    })
}

#[test]
fn ureq_request_receives_response_or_stream() {
    let server = start_server();
    let url = |path: &str| format!("http://{}{path}", server.address());
    let agent = ureq::Agent::from(ureq::Agent::config_builder().proxy(None).build());
    assert_eq!(agent.get(url("/")).call().unwrap().body_mut().read_to_string().unwrap(), "hello");
    let lines: String = (0..1_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(agent.get(url("/chunked")).call().unwrap().body_mut().read_to_string().unwrap(), lines);
    assert_eq!(agent.post(url("/echo")).send("é").unwrap().body_mut().read_to_string().unwrap(), "é");
    assert_eq!(agent.head(url("/")).call().unwrap().status(), 200);
    let stream = agent.get(url("/sse")).call().unwrap().body_mut().read_to_vec().unwrap();
    assert_eq!(parse(&stream).len(), 4);
}

/// Returns `None` if this machine has no curl.
fn curl(server: &Running, arguments: &[&str], path: &str) -> Option<Output> {
    let url = format!("http://{}{path}", server.address());
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "9", "--noproxy", "*"]).args(arguments).arg(url);
    run_if_installed(&mut command, "everything")
}

/// curl exits with 18 if a transfer is incomplete.
#[test]
fn curl_of_failed_stream_exits_with_18() {
    let server = start_server();
    let Some(output) = curl(&server, &["-N"], "/fails") else { return };
    assert_eq!((output.status.code(), &*output.stdout), (Some(18), &b":\ndata: half\n\n"[..]));
    let output = curl(&server, &["-N", "--http1.0"], "/fails").unwrap();
    assert_eq!(output.status.code(), Some(0), "curl cannot detect the failure in HTTP/1.0, which has no chunks");
}

#[test]
fn curl_of_closed_stream_exits_with_0() {
    let server = start_server();
    let Some(_) = curl(&server, &["--version"], "/") else { return };
    let curl = |arguments: &[&str], path: &str| {
        let output = curl(&server, arguments, path).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let stream =
        ":\nevent: tick\ndata: ping\nid: 0\n\nevent: tick\ndata: ping\nid: 1\n\nevent: tick\ndata: ping\nid: 2\n\n\
                  event: close\ndata: close\n\n";
    assert_eq!(curl(&["-N"], "/sse"), stream);
    assert_eq!(curl(&["-N", "--http1.0"], "/sse"), stream);
    assert!(curl(&["-I"], "/sse").contains("text/event-stream"));
    assert_eq!(curl(&["-d", "posted"], "/echo"), "posted");
    // With a body of 1 MB, curl sends `Expect: 100-continue`.
    let directory = TemporaryDirectory::new();
    let large = directory.path().join("large");
    std::fs::write(&large, "x".repeat(1_000_000)).unwrap();
    assert_eq!(curl(&["--data-binary", &format!("@{}", large.display())], "/echo").len(), 1_000_000);
}
