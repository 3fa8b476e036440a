//! Header fields of responses: a field that the handler sets replaces the field of the same name that a guard has set.

use super::support::{serve, Answer};
use brooklet::{sse, Response};

/// Returns the values of all fields with this name, in the order of the response.
fn values<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let fields = answer.head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1).collect()
}

#[test]
fn guard_field_is_default_that_handler_replaces() {
    let server = serve(|server| {
        server
            .before(|ctx| {
                ctx.set_response_header("Cache-Control", "no-store").unwrap();
                ctx.append_response_header("Set-Cookie", "seen=1").unwrap();
                ctx.append_response_header("set-cookie", "theme=dark").unwrap();
                None
            })
            .get("/default", |_| "hello")
            .get("/own", |_| Response::text("hello").header("cache-control", "max-age=60").header("Set-Cookie", "a=1"))
            .get("/both", |_| Response::text("hello").append_header("Cache-Control", "private"))
            .get("/last", |_| Response::text("hello").header("Cache-Control", "a").header("Cache-Control", "b"))
            .get("/removed", |_| Response::text("hello").header("Cache-Control", "a").remove_header("cache-control"))
            .get("/untyped", |_| Response::text("hello").remove_header("Content-Type"))
            .get("/sse", |ctx| sse::stream(ctx, |events| events.close()))
    });
    for (target, cache_control, cookies) in [
        ("/default", vec!["no-store"], vec!["seen=1", "theme=dark"]),
        ("/own", vec!["max-age=60"], vec!["seen=1", "theme=dark", "a=1"]),
        ("/both", vec!["no-store", "private"], vec!["seen=1", "theme=dark"]),
        ("/last", vec!["b"], vec!["seen=1", "theme=dark"]),
        ("/removed", vec!["no-store"], vec!["seen=1", "theme=dark"]),
        ("/sse", vec!["no-store"], vec!["seen=1", "theme=dark"]),
        ("/nope", vec!["no-store"], vec!["seen=1", "theme=dark"]),
    ] {
        let answer = server.get(target);
        assert_eq!(values(&answer, "Cache-Control"), cache_control, "{target}");
        assert_eq!(values(&answer, "Set-Cookie"), cookies, "{target}");
    }
    assert_eq!(values(&server.get("/untyped"), "Content-Type"), [""; 0]);
    assert_eq!(values(&server.get("/default"), "Content-Type").len(), 1);
}

#[test]
fn guard_field_is_replaced_or_removed_through_context() {
    let server = serve(|server| {
        server
            .allow_origin("https://app.example")
            .before(|ctx| {
                ctx.append_response_header("X", "1").unwrap();
                ctx.append_response_header("x", "2").unwrap();
                None
            })
            .get("/kept", |_| "hello")
            .get("/set", |mut ctx| ctx.set_response_header("X", "3").map(|()| "hello"))
            .get("/refused", |mut ctx| {
                let refused = ["a\nb", "\0"].iter().all(|value| ctx.set_response_header("X", value).is_err());
                let framing = ctx.append_response_header("Content-Length", "1");
                (refused && framing.is_err()).then_some(Response::text("hello")).unwrap()
            })
            .get("/removed", |mut ctx| {
                ctx.remove_response_header("X");
                ctx.remove_response_header("Vary");
                "hello"
            })
            .get("/own-origin", |_| Response::text("hello").header("Access-Control-Allow-Origin", "*"))
    });
    let mut client = server.connect();
    for (target, x) in
        [("/kept", vec!["1", "2"]), ("/set", vec!["3"]), ("/refused", vec!["1", "2"]), ("/removed", vec![])]
    {
        let answer = client.get(target);
        assert_eq!((answer.status, values(&answer, "X")), (200, x), "{target}");
        assert_eq!(values(&answer, "Vary"), ["Origin"], "a handler cannot remove the server's `Vary`: {target}");
    }
    let answer = server.ask("GET /own-origin HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\n\r\n");
    assert_eq!(values(&answer, "Access-Control-Allow-Origin"), ["*"]);
}
