// brooklet 0.1.0
// SPDX-License-Identifier: MIT. Copyright (c) 2026 The brooklet developers. The text of the licence is in the file LICENSE.

//! A minimal blocking HTTP/1.1 server with Server-Sent Events. It uses the standard library only and no `unsafe` code, and gives
//! each connection a thread.
//!
//! # From nothing to a live page
//!
//! ```sh
//! cargo new live && cd live
//! cargo add brooklet --path ../brooklet
//! ```
//!
//! Instead of adding a dependency, you can copy `src/` to `src/vendor/brooklet/` and begin `main.rs` with these lines:
//!
//! ```text
//! #[rustfmt::skip]
//! #[allow(dead_code, unused_imports, clippy::all)]
//! #[path = "vendor/brooklet/lib.rs"]
//! mod brooklet;
//! ```
//!
//! The rest of `main.rs` is the same in both cases:
//!
//! ```no_run
//! use brooklet::{sse, Context, Response, Server};
//! use std::{io, time::Duration};
//!
//! const PAGE: &str = r#"<!doctype html>
//! <title>live</title>
//! <h1 id="count">waiting</h1>
//! <script>
//!     const source = new EventSource("/count");
//!     source.onmessage = event => document.getElementById("count").textContent = event.data;
//!     source.addEventListener("close", () => source.close()); // otherwise the browser reconnects
//! </script>"#;
//!
//! fn main() -> io::Result<()> {
//!     let server = Server::bind("127.0.0.1:8080")?.get("/", |_| Response::html(PAGE)).get("/count", count);
//!     println!("open http://{}/", server.local_addr());
//!     server.serve()
//! }
//!
//! fn count(ctx: Context<'_>) -> Response {
//!     sse::stream(ctx, |mut events| {
//!         for n in 1..=10 {
//!             events.send_message(n.to_string())?;
//!             events.wait(Duration::from_secs(1))?; // returns an error as soon as the client leaves
//!         }
//!         events.close()
//!     })
//! }
//! ```
//!
//! Call `cargo run` and open the address that it prints: the page counts to ten. `curl -N http://127.0.0.1:8080/count` prints the
//! stream: `data: 1` and an empty line, a second later `data: 2`, and at the end `event: close`.
//!
//! A handler is a function from a [`Context`] to a [`Response`], or to a value that converts into one. It may block, because its
//! connection has a thread of its own. [`Server::route`] describes the patterns of routes, and [`sse::Connection`] the methods of
//! a stream.
//!
//! # The same events for all clients
//!
//! In the example above, each stream has a counter and a thread of its own. A [`sse::Channel`] sends the same events to all clients, without a
//! thread for each of them. It also keeps the latest events for clients that reconnect:
//!
//! ```no_run
//! # use brooklet::{sse, Server};
//! # use std::{io, thread, time::Duration};
//! # fn measure() -> String { "21.5".to_owned() }
//! # fn main() -> io::Result<()> {
//! let sensor = sse::Channel::new();
//! let feed = sensor.clone();
//! thread::spawn(move || -> io::Result<()> {
//!     loop {
//!         sensor.publish(measure())?;
//!         thread::sleep(Duration::from_secs(1));
//!     }
//! });
//! Server::bind("127.0.0.1:8080")?.get("/sensor", move |ctx| feed.subscribe(ctx)).serve()
//! # }
//! ```
//!
//! [`sse::Channel::open`] also keeps the events in a file, so that they survive the end of the process.
//!
//! # Taking a connection over
//!
//! [`Context::takeover_conn`] gives the handler its TCP [`Connection`], and any thread may answer on it later.
//! [`sse::start_connection`] begins an event stream on it. You can also write the bytes of a response yourself.
//!
//! ```no_run
//! # use brooklet::{sse, Context, Response};
//! # use std::{io, thread, time::Duration};
//! fn later(ctx: Context<'_>) -> Response {
//!     let (conn, no_result) = ctx.takeover_conn();
//!     thread::spawn(move || -> io::Result<()> {
//!         let mut events = sse::start_connection(conn)?;
//!         events.wait(Duration::from_secs(3600))?;
//!         events.send_message(sse::Message::new().event("done").id(1).data("an hour later"))?;
//!         events.close()
//!     });
//!     no_result // the server neither answers nor closes the connection
//! }
//! ```
//!
//! # Stopping
//!
//! ```no_run
//! # use brooklet::Server;
//! # use std::{io, thread, time::Duration};
//! # fn main() -> io::Result<()> {
//! let server = Server::bind("127.0.0.1:8080")?.get("/", |_| "hello\n");
//! let handle = server.handle();
//! thread::spawn(move || {
//!     let _ = io::stdin().read_line(&mut String::new());
//!     handle.shutdown(Duration::from_secs(5));
//! });
//! server.serve() // returns when the last connection has ended, or five seconds after Enter
//! # }
//! ```
//!
//! [`Handle::shutdown`] describes what happens to each connection. Ctrl-C ends the process at once, because `std` cannot handle
//! signals.
//!
//! # Testing
//!
//! [`Server::spawn`] starts a server in a thread of its own, on any free port. The server stops when the test ends.
//!
//! # What happens when
//!
//! | event | effect |
//! |---|---|
//! | a client leaves | [`wait`](sse::Connection::wait) returns an error at once, [`wait_for`](sse::Connection::wait_for) and [`forward`](sse::Connection::forward) within half a second. [`Context::client_left`] returns `true`. A channel notices within 5 s and calls [`on_leave`](sse::Channel::on_leave) |
//! | the network of a client fails | the server notices after about 15 minutes, or earlier with `TCP_USER_TIMEOUT`: see [`Server::from`](Server#impl-From<TcpListener>-for-Server) |
//! | a client reconnects | it sends the id of the last event that it received ([`last_event_id`](Context::last_event_id)). A channel sends the later events. If some of them are no longer kept, the channel sends a `gap` event first |
//! | a client does not read | the server's thread for this client blocks, and the client is disconnected after 30 s. A channel does not block, and disconnects the client after 30 s, or when the next event for the client is no longer in the history ([`Lag`](sse::Lag)) |
//! | a client sends nothing, or half a request | the server closes the connection, or answers 408, and the thread is free again |
//! | a handler panics | the client receives a 500, or its stream breaks off, and the connection ends. All other connections continue |
//! | a handler overflows its stack | Rust aborts the process. [`Config::stack_size`] is the size of the stack |
//! | the server stops | requests that have begun are answered, streams end with a `close` event, and the connections that remain after the grace period are disconnected |
//! | the server starts again | a channel does not know the ids of the earlier run. A client that sends such an id receives a `gap` event and then the history. A channel [with a file](sse::Channel::open) knows the earlier ids |
//! | file descriptors or threads run out | new clients receive a 503 with `Retry-After`, and connected clients are served. A line is printed to standard error once a minute. The server recovers by itself |
//! | memory runs out | `std` aborts the process if an allocation fails, and the server cannot prevent that |
//!
//! # Security
//!
//! [`Config`] limits all resources that a client can use, and describes the response to a client that exceeds a limit. Pages of
//! other sites cannot use the server, because it checks [`Host`](Config::check_host) and [`Origin`](Config::check_origin).
//!
//! # Copying
//!
//! A copy of `src/` builds without warnings in the 2021 and 2024 editions. Its unit tests run with those of your project. The first
//! lines of `lib.rs` name the version and the licence; the text of the licence is in the file `LICENSE`, which belongs to the copy.
//!
//! In a library, the examples of this documentation would become documentation tests, and fail because the crate `brooklet` does
//! not exist there:
//!
//! - If your library has no documentation tests of its own, set `doctest = false` under `[lib]` in `Cargo.toml`.
//! - If it has such tests, write `#[cfg(not(doctest))]` above the lines that mount the copy, and above each item outside of a
//!   function body that names `brooklet`: a `use`, a signature, a `pub use`.
//!
//! # Organization
//!
//! - `http` parses requests and writes responses, without sockets and threads. It uses no other directory.
//! - `server` accepts connections and runs handlers. It uses `http`.
//! - `sse` sends event streams. It uses `http` and `server`. `sse/channel/` can be deleted, or only `sse/channel/file/`.
//! - `files` serves a directory. It uses `http` and `server`, and can be deleted.
//!
//! Files without a directory in this map are in `server/` above the line `────`, and in `sse/channel/` below it:
//!
//! ```text
//! accept.rs ─> serve.rs: one loop for each connection, in a thread of its own
//!                ├─ buffered_socket.rs reads a head within its timeouts; http/parse.rs checks it, line ends included
//!                ├─ body.rs reads the body; http/framing.rs and chunked.rs find its end
//!                ├─ dispatch.rs: host_and_origin.rs, the guards, router.rs, the handler with its context.rs
//!                ├─ http/outgoing.rs writes the http/response.rs; exchange.rs reports it
//!                └─ linger.rs closes. registry.rs knows every connection, and stops them all
//! context.rs, takeover_conn ─> connection.rs in your thread ─> sse/connection.rs, whose `wait` notices that the client left
//! ────
//! sse/channel/mod.rs, publish ─> hub.rs appends to history.rs, and to a store.rs: file/mod.rs with segment.rs, record.rs, syncer.rs
//!          subscribe ─> cursor.rs finds the offset to begin at, or makes a `gap` event
//!          broadcaster.rs, a thread for many ─> subscriber.rs writes, and notices that the client left
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, elided_lifetimes_in_paths)]

mod files;
mod http;
mod server;
pub mod sse;

pub use files::Files;
pub use http::{http_date, Error, Form, Headers, HeadersIter, Method, Request, Response, StatusCode, Version};
pub use server::{Body, Config, Connection, Context, Exchange, Handle, Problem, Running, Server, Verdict};
