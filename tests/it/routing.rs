//! The choice of a handler for a request, and the response if there is none.

use super::support::{serve, Running};
use brooklet::{Method, Response, Server, StatusCode};
use std::io;

fn routes() -> Running {
    serve(|server| {
        server
            .get("/", |_| "root")
            .get("/a/{*rest}", |ctx| format!("rest {}", ctx.param("rest")))
            .get("/a/{id}", |ctx| format!("id {}", ctx.param("id")))
            .get("/a/static", |_| "static")
            .post("/a/{id}", |ctx| format!("post {}", ctx.param("id")))
            .put("/m", |_| "put")
            .patch("/m", |_| "patch")
            .delete("/m", |_| StatusCode::NO_CONTENT)
            .route(Method::Options, "/own", |_| "own options")
            .route(Method::Head, "/own", |_| Response::text("").header("X-Head", "own"))
            .get("/own", |_| "own get")
            .get("/typo/{id}", |ctx| ctx.param("name").to_owned())
    })
}

fn ask(server: &Running, method: &str, target: &str) -> super::support::Answer {
    let mut client = server.connect();
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    if method == "HEAD" {
        client.head()
    } else {
        client.answer()
    }
}

#[test]
fn static_route_wins_over_parameter_and_rest() {
    let server = routes();
    assert_eq!(server.get("/").text(), "root");
    assert_eq!(server.get("/a/static").text(), "static");
    assert_eq!(server.get("/a/7?x=y").text(), "id 7");
    assert_eq!(server.get("/a/7/8").text(), "rest 7/8");
    assert_eq!(ask(&server, "POST", "/a/static").text(), "post static");
}

#[test]
fn request_with_each_method_reaches_its_route() {
    let server = routes();
    assert_eq!(ask(&server, "PUT", "/m").text(), "put");
    assert_eq!(ask(&server, "PATCH", "/m").text(), "patch");
    assert_eq!(ask(&server, "DELETE", "/m").status, 204);
}

#[test]
fn unknown_path_is_404_and_unknown_method_is_405_with_allow() {
    let server = routes();
    assert_eq!(server.get("/nope").status, 404);
    let answer = ask(&server, "GET", "/m");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("PUT, PATCH, DELETE, OPTIONS")));
    let answer = ask(&server, "TRACE", "/a/7");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
}

#[test]
fn head_without_a_route_is_answered_by_get() {
    let server = routes();
    let mut client = server.connect();
    client.send("HEAD /a/static HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("6")));
    assert_eq!(client.answer().text(), "root", "the response to HEAD has no body");
    assert_eq!(ask(&server, "HEAD", "/own").header("x-head"), Some("own"));
}

#[test]
fn options_without_a_route_lists_the_allowed_methods() {
    let server = routes();
    let answer = ask(&server, "OPTIONS", "/a/7");
    assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, HEAD, POST, OPTIONS")));
    let answer = ask(&server, "OPTIONS", "*");
    assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")));
    assert_eq!(ask(&server, "OPTIONS", "/own").text(), "own options");
    assert_eq!(ask(&server, "OPTIONS", "/nope").status, 404);
}

#[test]
fn parameter_is_decoded_once() {
    let server = routes();
    assert_eq!(server.get("/a/caf%C3%A9%20%3F").text(), "id café ?");
    assert_eq!(server.get("/a/%2570").text(), "id %70");
    assert_eq!(server.get("/a/x/caf%c3%a9%2520/").text(), "rest x/café%20/");
    assert_eq!(server.get("/a/+").text(), "id +", "a plus sign in a path is not a space");
    assert_eq!(server.get("//").status, 404);
}

/// A handler may join a parameter to the path of a directory. No handler receives a parameter that would lead out of
/// this directory.
#[test]
fn parameter_that_leaves_its_directory_is_400() {
    let server = routes();
    let outside = [
        "..%2Foutside.txt", "..%2f..%2f..%2fetc%2fhostname", "%2Fetc%2Fhostname", "%2F", "a%2Fb", "..%5Coutside.txt",
        "%5c", "..", "%2e%2e", "%2E.", ".%2e", ".", "%2E", "%00", "a%00", "%FF", "%", "%2", "%zz",
    ];
    for value in outside {
        for target in [format!("/a/{value}"), format!("/a/b/{value}"), format!("/a/b/{value}/c")] {
            assert_eq!(server.get(&target).status, 400, "{target}");
        }
    }
    for target in ["/a//etc", "/a/b//c", "/a//"] {
        assert_eq!(server.get(target).status, 400, "{target}");
    }
    let drive = server.get("/a/C:").status;
    assert_eq!(drive, if cfg!(windows) { 400 } else { 200 });
    assert_eq!(server.get("/a/...").text(), "id ...");
    assert_eq!(server.get("/a/..a/b..").text(), "rest ..a/b..");
}

#[test]
fn escaped_character_of_a_static_segment_is_found() {
    let server = serve(|server| server.get("/%7Euser/a%2Bb", |_| "tilde").get("/caf%c3%a9", |_| "café"));
    for target in ["/~user/a+b", "/%7euser/a%2bb", "/~%75ser/%61%2Bb"] {
        assert_eq!(server.get(target).text(), "tilde", "{target}");
    }
    assert_eq!(server.get("/caf%C3%A9").text(), "café");
    assert_eq!(server.get("/%2Fcaf%C3%A9").status, 404);
}

#[test]
fn parameter_that_the_pattern_lacks_is_500() {
    assert_eq!(routes().get("/typo/7").status, 500);
}

/// Calls `serve`, which must refuse to start. Returns the message of the error.
fn fault(server: Server) -> String {
    // If the server had no fault, `serve` would return `Ok` because of this shutdown, and the test would fail.
    server.handle().shutdown(std::time::Duration::ZERO);
    let error = server.serve().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    error.to_string()
}

#[test]
fn pattern_that_is_malformed_or_taken_is_an_error_of_serve() {
    let bind = || Server::bind("127.0.0.1:0").unwrap();
    let message = fault(bind().get("/a/{id", |_| ""));
    assert!(message.contains("`GET /a/{id`") && message.contains("routing.rs"), "{message}");
    let message = fault(bind().post("/a/{x}", |_| "").post("/a/{y}", |_| "").get("bad", |_| ""));
    assert!(message.contains("`POST /a/{y}`") && message.contains("`/a/{x}`"), "names both patterns: {message}");
    let message = fault(bind().get("/~a", |_| "").get("/%7Ea", |_| ""));
    assert!(message.contains("`GET /%7Ea`") && message.contains("`/~a`"), "another spelling: {message}");
    let message = fault(bind().get("/a/%2E.", |_| ""));
    assert!(message.contains("`GET /a/%2E.`"), "no request can have this path: {message}");
}

#[test]
fn routes_are_all_found_among_a_thousand() {
    let server = serve(|mut server| {
        for n in 0..1_000 {
            server = server.get(&format!("/static/{n}"), move |_| n.to_string());
            server = server.get(&format!("/p{n}/{{x}}"), move |ctx| format!("{n} {}", ctx.param("x")));
        }
        server
    });
    let mut client = server.connect();
    for n in [0, 1, 499, 999] {
        assert_eq!(client.get(&format!("/static/{n}")).text(), n.to_string());
        assert_eq!(client.get(&format!("/p{n}/y")).text(), format!("{n} y"));
    }
    assert_eq!(client.get("/static/1000").status, 404);
}
