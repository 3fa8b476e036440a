//! The server that conformance suites and load generators are pointed at.
//!
//! Run `cargo run --release --example testbed 8080`, then for example `curl -i http://127.0.0.1:8080/echo`.

use brooklet::{Config, Context, Method, Response, Server};
use std::io;

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or("8080".to_owned());
    let mut server = Server::bind(format!("127.0.0.1:{port}"))?
        // Suites open thousands of connections, and make up hosts and origins.
        .config(Config {
            max_connections: 20_000,
            max_taken_over: 100_000,
            check_host: false,
            check_origin: false,
            ..Config::default()
        })
        .get("/", |_| "hello world")
        .post("/", |mut ctx: Context<'_>| ctx.body_bytes().map(|body| Response::bytes("text/plain", body)));
    for method in [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete] {
        server = server.route(method, "/echo", echo).route(method, "/cookie", cookies);
    }
    println!("try: curl -i http://{}/echo", server.local_addr());
    server.serve()
}

/// The body, or the field lines that came.
fn echo(mut ctx: Context<'_>) -> io::Result<Response> {
    let body = ctx.body_bytes()?;
    if !body.is_empty() {
        return Ok(Response::bytes("text/plain", body));
    }
    let fields = ctx
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)));
    Ok(Response::text(fields.collect::<String>()))
}

/// The cookies that came, a line each.
fn cookies(ctx: Context<'_>) -> String {
    let lists = ctx.headers().get_all("cookie").map(String::from_utf8_lossy);
    lists
        .flat_map(|list| list.split(';').map(|pair| format!("{}\n", pair.trim())).collect::<Vec<_>>())
        .collect()
}
