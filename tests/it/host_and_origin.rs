//! The checks of `Host` and `Origin`, and CORS.

use super::support::{serve, Answer, Running};
use brooklet::{sse, Config, Response, Server, StatusCode};
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
fn foreign_host_on_loopback_is_421() {
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
    assert_eq!(answer.status, 421, "the host of an absolute target wins over the `Host` field");
}

#[test]
fn foreign_host_is_421_for_every_path_before_guards() {
    let server = serve(|server| server.before(|_| Some("a guard".into())).get("/", |_| "read"));
    assert_eq!(ask(&server, "GET /nope", &["Host: evil.example"]).status, 421);
    assert_eq!(ask(&server, "GET /nope", &["Host: localhost"]).text(), "a guard");
}

#[test]
fn allowed_host_is_answered_and_check_host_may_be_off() {
    let server = guarded(|server| server.allow_host("box.example"));
    assert_eq!(ask(&server, "GET /", &["Host: Box.Example:8080"]).text(), "read");
    assert_eq!(ask(&server, "GET /", &["Host: other.example"]).status, 421);
    let server = guarded(|server| server.config(Config { check_host: false, ..Config::default() }));
    assert_eq!(ask(&server, "GET /", &["Host: evil.example"]).text(), "read");
}

/// The server checks `Host` on every connection to a loopback address, even if the server listens on 0.0.0.0.
#[test]
fn foreign_host_on_loopback_is_421_if_bound_to_all_addresses() {
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
fn foreign_origin_is_403_for_post_and_unreadable_for_get() {
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
        assert_eq!((answer.text(), answer.header("access-control-allow-origin")), ("read", None), "GET, {fields:?}");
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
fn allowed_origin_may_read_and_change() {
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
fn preflight_is_answered_for_allowed_origin_only() {
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
    assert_eq!((answer.header("vary"), answer.header("access-control-allow-credentials")), (Some("Origin"), None));
    let answer = preflight("https://other.example");
    assert_eq!((answer.text(), answer.header("access-control-allow-origin")), ("a guard", None));
}

/// If the server allowed no method, a page would see a failed request instead of the 404.
#[test]
fn preflight_for_path_without_routes_allows_every_method() {
    let server = guarded(|server| server.allow_origin("https://app.example"));
    let fields = ["Host: localhost", "Origin: https://app.example", "Access-Control-Request-Method: PUT"];
    let answer = ask(&server, "OPTIONS /nope", &fields);
    let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";
    assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some(methods)));
}

/// A cache may store the response to a script tag, whose request has no `Origin`. Without `Vary`, the cache could
/// return this response to a `fetch` of an allowed page.
#[test]
fn vary_is_origin_on_every_response_if_an_origin_is_allowed() {
    let build = |server: Server| server.get("/panic", |_| -> &str { panic!("on purpose") });
    let server = guarded(|server| build(server).allow_origin("https://app.example"));
    let host = "Host: localhost";
    for (line, fields, status) in [
        ("GET /", vec![host], 200),
        ("GET /", vec![host, "Origin: https://app.example"], 200),
        ("GET /", vec![host, "Origin: https://other.example"], 200),
        ("GET /sse", vec![host], 200),
        ("GET /nope", vec![host], 404),
        ("PUT /", vec![host], 405),
        ("OPTIONS /", vec![host], 204),
        ("GET /panic", vec![host], 500),
        ("POST /", vec![host, "Origin: https://other.example"], 403),
        ("GET /", vec!["Host: other.example"], 421),
    ] {
        let answer = ask(&server, line, &fields);
        assert_eq!((answer.status, answer.header("vary")), (status, Some("Origin")), "{line} {fields:?}");
    }
    assert_eq!(ask(&guarded(build), "GET /", &[host, "Origin: https://app.example"]).header("vary"), None);
}

#[test]
fn vary_lists_origin_once_beside_values_of_program() {
    let server = guarded(|server| {
        server
            .allow_origin("https://app.example")
            .before(|ctx| {
                if let Some(vary) = ctx.query("guard") {
                    ctx.set_response_header("vary", &vary).unwrap();
                }
                None
            })
            .get("/own", |ctx| match ctx.query("handler") {
                Some(vary) => Response::text("own").header("Vary", vary),
                None => Response::text("own"),
            })
    });
    let vary = |target: &str| {
        let answer = ask(&server, &format!("GET {target}"), &["Host: localhost"]);
        let fields = answer.head.lines().filter_map(|line| line.split_once(": "));
        let values = fields.filter(|field| field.0.eq_ignore_ascii_case("vary")).map(|field| field.1);
        values.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(vary("/own?handler=Accept"), "Origin, Accept");
    assert_eq!(vary("/own?handler=Origin"), "Origin");
    assert_eq!(vary("/own?handler=Accept,origin"), "Accept,origin");
    assert_eq!(vary("/own?guard=Accept"), "Accept, Origin");
    for target in ["/own", "/sse", "/nope"] {
        assert_eq!(vary(&format!("{target}?guard=Origin")), "Origin", "{target}");
    }
}

/// The guard requires a cookie. A preflight has no cookie (WHATWG Fetch, "CORS-preflight fetch"), so the server answers
/// preflights before the guard runs.
#[test]
fn credentials_are_allowed_for_allowed_origins_only() {
    let build = |server: Server| {
        server.allow_origin("https://app.example").before(|ctx| {
            let is_known = ctx.headers().get("cookie") == Some("session=1");
            (!is_known).then(|| StatusCode::UNAUTHORIZED.into())
        })
    };
    let server = guarded(|server| build(server).allow_credentials());
    let (host, origin, cookie) = ("Host: localhost", "Origin: https://app.example", "Cookie: session=1");
    let preflight = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"];
    for (line, fields, status) in [
        ("OPTIONS /", vec![host, origin, preflight[0], preflight[1]], 204),
        ("POST /", vec![host, origin, cookie], 200),
        ("GET /sse", vec![host, origin, cookie], 200),
        ("GET /", vec![host, origin], 401),
    ] {
        let answer = ask(&server, line, &fields);
        assert_eq!(
            (answer.status, answer.header("access-control-allow-credentials")),
            (status, Some("true")),
            "{line}"
        );
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("https://app.example"),
            "{line}: `*` does not allow credentials"
        );
    }
    for fields in [vec![host, cookie], vec![host, cookie, "Origin: https://other.example"]] {
        let answer = ask(&server, "GET /", &fields);
        assert_eq!((answer.status, answer.header("access-control-allow-credentials")), (200, None), "{fields:?}");
    }
    let answer = ask(&guarded(build), "GET /", &[host, origin, cookie]);
    assert_eq!(answer.header("access-control-allow-credentials"), None, "credentials are not allowed by default");
}

#[test]
fn serve_with_invalid_host_or_origin_fails_with_its_value() {
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
