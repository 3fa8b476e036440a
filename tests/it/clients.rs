//! Clients that other people wrote: ureq, and curl where there is one.

use super::event_stream::parse;
use super::machine::TemporaryDirectory;
use super::support::{serve, Running};
use brooklet::{sse, Config, Response};
use std::process::Command;
use std::time::Duration;

fn everything() -> Running {
    serve(|server| {
        server
            .config(Config { max_body_bytes: 1_000_000, ..Config::default() })
            .get("/", |_| "hello")
            .get("/chunked", |_| {
                Response::stream("text/plain", |out| (0..1_000).try_for_each(|n| writeln!(out, "{n}")))
            })
            .post("/echo", |mut ctx| ctx.body_text())
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
fn ureq_gets_posts_and_streams() {
    let server = everything();
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

#[test]
fn curl_ends_by_itself_with_status_0() {
    let server = everything();
    let curl = |arguments: &[&str], path: &str| {
        let url = format!("http://{}{path}", server.address());
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "9", "--noproxy", "*"])
            .args(arguments)
            .arg(url)
            .output();
        let output = output.expect("curl is a part of this suite: install it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let stream =
        "event: tick\nid: 0\ndata: ping\n\nevent: tick\nid: 1\ndata: ping\n\nevent: tick\nid: 2\ndata: ping\n\n\
                  event: close\ndata: close\n\n";
    assert_eq!(curl(&["-N"], "/sse"), stream);
    assert_eq!(curl(&["-N", "--http1.0"], "/sse"), stream);
    assert!(curl(&["-I"], "/sse").contains("text/event-stream"));
    assert_eq!(curl(&["-d", "posted"], "/echo"), "posted");
    // 1 MB of body: curl asks for 100-continue first.
    let directory = TemporaryDirectory::new();
    let large = directory.path().join("large");
    std::fs::write(&large, "x".repeat(1_000_000)).unwrap();
    assert_eq!(curl(&["--data-binary", &format!("@{}", large.display())], "/echo").len(), 1_000_000);
}
