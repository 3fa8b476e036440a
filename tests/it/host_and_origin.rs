//! Who may talk to the server: hosts, origins, and CORS.

use super::support::{serve, Answer, Running};
use brooklet::{sse, Config, Server};
use std::io::ErrorKind;

fn guarded(build: impl FnOnce(Server) -> Server) -> Running {
    serve(|server| {
        build(server)
            .get("/", |_| "read")
            .post("/", |_| "changed")
            .get("/sse", |ctx| sse::stream(ctx, |events| events.close()))
    })
}

fn ask(server: &Running, line: &str, fields: &[&str]) -> Answer {
    server.ask(format!("{line} HTTP/1.1\r\n{}\r\n\r\n", fields.join("\r\n")))
}

#[test]
fn on_loopback_only_loopback_names_are_answered() {
    let server = guarded(|server| server);
    let own = [
        "localhost", "LOCALHOST:1", "localhost.", "app.localhost:80", "127.0.0.1", "127.9.9.9:8080", "[::1]",
        "[::1]:80", "[::ffff:127.0.0.1]",
    ];
    for host in own {
        assert_eq!(ask(&server, "GET /", &[&format!("Host: {host}")]).text(), "read", "{host}");
    }
    let foreign = [
        "evil.example", "localhost.evil.example", "evillocalhost", "10.0.0.1", "0.0.0.0", "[::]",
        "127.0.0.1.evil.example",
    ];
    for host in foreign {
        let answer = ask(&server, "GET /", &[&format!("Host: {host}")]);
        assert_eq!(answer.status, 421, "{host}");
        assert!(answer.text().contains("allow_host") && !answer.text().contains(host), "{}", answer.text());
    }
    let answer = ask(&server, "GET http://evil.example/", &["Host: localhost"]);
    assert_eq!(answer.status, 421, "the absolute target's host is the one that counts");
}

#[test]
fn it_holds_for_every_path_and_ahead_of_guards() {
    let server = serve(|server| server.before(|_| Some("a guard".into())).get("/", |_| "read"));
    assert_eq!(ask(&server, "GET /nope", &["Host: evil.example"]).status, 421);
    assert_eq!(ask(&server, "GET /nope", &["Host: localhost"]).text(), "a guard");
}

#[test]
fn a_host_that_was_named_is_answered_and_the_check_can_be_switched_off() {
    let server = guarded(|server| server.allow_host("box.example"));
    assert_eq!(ask(&server, "GET /", &["Host: Box.Example:8080"]).text(), "read");
    assert_eq!(ask(&server, "GET /", &["Host: other.example"]).status, 421);
    let server = guarded(|server| server.config(Config { check_host: false, ..Config::default() }));
    assert_eq!(ask(&server, "GET /", &["Host: evil.example"]).text(), "read");
}

/// On another address anybody may have a name for it. 0.0.0.0 listens on both: what counts is where a connection arrives.
#[test]
fn a_connection_that_arrives_on_loopback_counts_though_the_server_listens_everywhere() {
    let server = Server::bind("0.0.0.0:0").unwrap().get("/", |_| "read");
    let (port, handle) = (server.local_addr().port(), server.handle());
    let thread = std::thread::spawn(move || server.serve());
    let mut client = super::support::Client::connect(([127, 0, 0, 1], port).into());
    client.send("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(client.answer().status, 421);
    handle.shutdown(std::time::Duration::ZERO);
    thread.join().unwrap().unwrap();
}

#[test]
fn another_origin_may_read_nothing_and_change_nothing() {
    let server = guarded(|server| server);
    let host = "Host: localhost:8080";
    let refused = [
        vec!["Sec-Fetch-Site: cross-site"],
        vec!["Sec-Fetch-Site: same-site", "Origin: http://localhost:3000"],
        vec!["Sec-Fetch-Site: nonsense"],
        vec!["Origin: https://evil.example"],
        vec!["Origin: http://localhost:3000"],
        vec!["Origin: null"],
        vec!["Origin: localhost:8080"],
    ];
    for fields in refused {
        let answer = ask(&server, "POST /", &[&[host], &fields[..]].concat());
        assert_eq!(answer.status, 403, "{fields:?}");
        assert!(answer.text().contains("allow_origin"));
        let answer = ask(&server, "GET /", &[&[host], &fields[..]].concat());
        assert_eq!((answer.text(), answer.header("access-control-allow-origin")), ("read", None), "{fields:?}: safe");
    }
    let passing = [
        vec![],
        vec!["Sec-Fetch-Site: same-origin", "Origin: https://behind-a-proxy.example"],
        vec!["Sec-Fetch-Site: none"],
        vec!["Origin: http://localhost:8080"],
        vec!["Origin: HTTP://LOCALHOST:8080"],
    ];
    for fields in passing {
        assert_eq!(ask(&server, "POST /", &[&[host], &fields[..]].concat()).text(), "changed", "{fields:?}");
    }
    let server = guarded(|server| server.config(Config { check_origin: false, ..Config::default() }));
    assert_eq!(ask(&server, "POST /", &[host, "Origin: https://evil.example"]).text(), "changed");
}

#[test]
fn an_origin_that_was_named_may_change_and_read_streams_included() {
    let server = guarded(|server| server.allow_origin("https://app.example").allow_origin("http://localhost:3000"));
    for origin in ["https://app.example", "http://localhost:3000"] {
        let fields = ["Host: localhost", "Sec-Fetch-Site: cross-site", &format!("Origin: {origin}")];
        for line in ["GET /", "POST /", "GET /sse", "GET /nope"] {
            let answer = ask(&server, line, &fields);
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{line}");
            assert_eq!(answer.header("vary"), Some("Origin"));
            assert_ne!(answer.status, 403);
        }
    }
    let answer = ask(&server, "POST /", &["Host: localhost", "Origin: https://app.example.evil.example"]);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
}

#[test]
fn its_preflights_are_answered_and_nobody_elses() {
    let server = guarded(|server| server.allow_origin("https://app.example").before(|_| Some("a guard".into())));
    let preflight = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let wanted = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type, x-token"];
        ask(&server, "OPTIONS /", &["Host: localhost", &origin, wanted[0], wanted[1]])
    };
    let answer = preflight("https://app.example");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST, OPTIONS"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type, x-token"));
    let answer = preflight("https://other.example");
    assert_eq!((answer.text(), answer.header("access-control-allow-origin")), ("a guard", None));
}

#[test]
fn what_is_no_host_or_origin_is_an_error_of_serve_that_names_it() {
    let bind = || Server::bind("127.0.0.1:0").unwrap();
    for bad in ["", "a:80", "http://a", "a b", "u@a"] {
        let error = bind().allow_host(bad).serve().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("allow_host({bad:?})")), "{error}");
    }
    for bad in ["", "*", "null", "app.example", "https://app.example/", "https://u@app.example", "://a"] {
        let error = bind().allow_origin(bad).serve().unwrap_err();
        assert!(error.to_string().contains(&format!("allow_origin({bad:?})")), "{error}");
    }
}
