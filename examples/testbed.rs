//! A server for conformance suites and load generators.
//!
//! Run `cargo run --release --example testbed 8080`, then for example `curl -i http://127.0.0.1:8080/echo`. After the
//! port, three more arguments may follow: a file for the channel; when the file is synced, which is `always`, `never`
//! or a number of milliseconds; and `max_bytes`.

use brooklet::{sse, Config, Context, Method, Response, Server};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or("8080".to_owned());
    let hub = match std::env::args().nth(2) {
        Some(file) => sse::Channel::open(file, config())?,
        None => sse::Channel::new(),
    };
    let feed = hub.clone();
    let mut server = Server::bind(format!("127.0.0.1:{port}"))?
        // Suites open thousands of connections, and send hosts and origins that do not exist.
        .config(Config {
            max_connections: 20_000,
            max_taken_over: 100_000,
            check_host: false,
            check_origin: false,
            ..Config::default()
        })
        .get("/", |_| "hello world")
        .get("/sse", stream)
        .get("/hub", move |ctx| feed.subscribe(ctx))
        .post("/publish", move |mut ctx| hub.publish(ctx.body_text()?).map(|_| "ok"))
        .post("/", |mut ctx: Context<'_>| ctx.body_bytes().map(|body| Response::bytes("text/plain", body)));
    for method in [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete] {
        server = server.route(method, "/echo", echo).route(method, "/cookie", cookies);
    }
    println!("try: curl -i http://{}/echo", server.local_addr());
    server.serve()
}

/// Returns the settings of a channel with a file, from the arguments of the program.
fn config() -> sse::ChannelConfig {
    let mut config = sse::ChannelConfig::default();
    let mut arguments = std::env::args().skip(3);
    match arguments.next().as_deref() {
        Some("always") => config.sync = sse::SyncPolicy::Always,
        Some("never") => config.sync = sse::SyncPolicy::Never,
        Some(interval) => {
            let milliseconds = interval.parse().expect("argument 3 must be always, never or milliseconds");
            config.sync = sse::SyncPolicy::Every(std::time::Duration::from_millis(milliseconds));
        }
        None => (),
    }
    if let Some(max_bytes) = arguments.next() {
        config.max_bytes = max_bytes.parse().expect("argument 4 must be a number of bytes");
    }
    config
}

/// Sends `n` small events as fast as possible. With `how=each`, each event is one write. With `how=forward`, another
/// thread makes the events. Otherwise, many events share one write.
fn stream(ctx: Context<'_>) -> Response {
    let count = ctx.query("n").and_then(|n| n.parse().ok()).unwrap_or(10);
    let event = |n: u64| {
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        sse::Message::new().id(n).data(format_args!("{{\"seq\":{n},\"t\":{nanoseconds}}}"))
    };
    let how = ctx.query("how");
    sse::stream(ctx, |mut events| match how.as_deref() {
        Some("each") => (0..count).try_for_each(|n| events.send_message(event(n))),
        Some("forward") => {
            let (sender, messages) = std::sync::mpsc::sync_channel(10_000);
            std::thread::spawn(move || (0..count).try_for_each(|n| sender.send(event(n))));
            events.forward(&messages)
        }
        _ => events.send_messages((0..count).map(event)),
    })
}

/// Answers with the body of the request, or with its header fields if the body is empty.
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

/// Answers with the cookies of the request, one per line.
fn cookies(ctx: Context<'_>) -> String {
    let lists = ctx.headers().get_all("cookie").map(String::from_utf8_lossy);
    lists
        .flat_map(|list| list.split(';').map(|pair| format!("{}\n", pair.trim())).collect::<Vec<_>>())
        .collect()
}
