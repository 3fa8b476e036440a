// brooklet 0.1.0
// SPDX-License-Identifier: MIT. Copyright (c) 2026 The brooklet developers. The text of the license is in the file LICENSE.

//! A minimal blocking HTTP/1.1 server with Server-Sent Events. The crate depends only on the standard library and
//! contains no `unsafe` code. A thread serves one connection at a time.
//!
//! # From nothing to a live page
//!
//! ```sh
//! cargo new live && cd live
//! cargo add brooklet --path ../brooklet
//! ```
//!
//! You can also copy the crate instead of adding a dependency. Copy `src/` to `src/vendor/brooklet/` in your project,
//! and begin `main.rs` with these lines:
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
//! Call `cargo run`, and open the printed address in a browser: the page counts to ten.
//! `curl -N http://127.0.0.1:8080/count` prints the events of the stream: first `data: 1`, a second later `data: 2`,
//! and at the end `event: close`.
//!
//! A handler is a function that receives a [`Context`] and returns a [`Response`], or another value that converts into
//! a `Response`. A handler may block, because each connection has a thread of its own. [`Server::route`] describes the
//! patterns of routes. [`sse::Connection`] describes the methods of a stream.
//!
//! # The same events for all clients
//!
//! In the example above, each stream has a counter and a thread of its own. An [`sse::Channel`] sends the same events
//! to all clients, and a stream of a channel needs no thread of its own. The channel also keeps the latest events for
//! clients that reconnect:
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
//! [`sse::Channel::open`] opens a channel that also keeps the latest events in a file. So a client can resume after the
//! program has restarted.
//!
//! # Taking a connection over
//!
//! [`Context::takeover_conn`] returns the TCP [`Connection`] of the request to the handler. Any thread may then answer
//! the request later: [`sse::start_connection`] begins an event stream on the connection, or the program writes the
//! bytes of a response itself.
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
//! [`Handle::shutdown`] describes what happens to each connection. Ctrl-C ends the process without such a shutdown,
//! because `std` cannot handle signals.
//!
//! # Testing
//!
//! [`Server::spawn`] starts a server in a new thread, and returns a [`Running`]. The server stops when the test drops
//! this `Running`. If the address has the port 0, the system chooses a free port.
//!
//! # What happens when
//!
//! | event | effect |
//! |---|---|
//! | a client leaves | [`wait`](sse::Connection::wait) returns an error at once, [`wait_for`](sse::Connection::wait_for) and [`forward`](sse::Connection::forward) within half a second. [`Context::client_left`] returns `true`. A channel notices within 5 s that the client has left, and calls [`on_leave`](sse::Channel::on_leave) |
//! | the network of a client fails | the server notices the failure after about 15 minutes, or earlier with `TCP_USER_TIMEOUT`: see [`Server::from`](Server#impl-From<TcpListener>-for-Server) |
//! | a client reconnects | the client sends the id of the last event that it received ([`last_event_id`](Context::last_event_id)). A channel sends the later events. If some of the later events are no longer in the history, the channel sends a `gap` event first |
//! | a client does not read | the server's thread for this client blocks, and the client is disconnected after 30 s. A channel does not block, and disconnects the client after 30 s. If the next event for the client is no longer in the history, [`Lag`](sse::Lag) decides whether the channel disconnects the client |
//! | a client sends nothing, or half a request | after a timeout of [`Config`], a client that has sent nothing is disconnected, and the response to half a request is a 408. The thread can then serve another connection |
//! | a handler panics | the client receives a 500 and is disconnected. A stream of [`sse::stream`] ends without the last chunk. All other connections continue |
//! | a handler overflows its stack | Rust aborts the process. [`Config::stack_size`] is the size of the stack in bytes |
//! | the server stops | requests that have begun are answered. Streams that notice the shutdown end with a `close` event. The connections that remain after the grace period are disconnected |
//! | the server starts again | a channel does not know the ids of the earlier run. A client that sends such an id receives a `gap` event and then the events of the history. A channel [with a file](sse::Channel::open) knows the ids of the events in the file |
//! | file descriptors or threads run out | new clients receive a 503 with `Retry-After`, and connected clients are served. A line is printed to standard error, at most once a minute. New clients are served again as soon as descriptors and threads are available |
//! | memory runs out | `std` aborts the process if an allocation fails. The server cannot prevent this |
//!
//! # Security
//!
//! [`Config`] describes the limits for clients, and the response to a client that exceeds a limit. By default, two
//! checks reject requests of web pages of other sites. [`Config::check_host`] prevents a page from using a server on a
//! loopback address under the page's own name (DNS rebinding). [`Config::check_origin`] rejects a request from a page
//! of another origin if the method of the request may change data.
//!
//! # Copying
//!
//! A copy of `src/` builds without warnings in the 2021 and 2024 editions. The command `cargo test` of your project
//! also runs the unit tests of the copy. The first lines of `lib.rs` name the version and the license. Copy the file
//! `LICENSE` too, because it contains the text of the license.
//!
//! If your project is a library, `cargo test` also runs the examples of this documentation as documentation tests.
//! These tests fail, because there is no crate named `brooklet`. There are two cases:
//!
//! - If your library has no documentation tests of its own, set `doctest = false` under `[lib]` in `Cargo.toml`.
//! - If your library has documentation tests of its own, write `#[cfg(not(doctest))]` above the four lines that declare
//!   `mod brooklet`. Write the same attribute above each item that names `brooklet` outside of a function body, such as
//!   a `use` or a function with a type of this crate in its signature.
//!
//! # Organization
//!
//! - `http` parses requests and writes responses, without sockets and threads. This directory uses no other directory.
//! - `server` accepts connections and runs handlers. This directory uses `http`.
//! - `sse` sends event streams. This directory uses `http` and `server`. A copy can leave out `sse/channel/`, or only
//!   `sse/channel/file/`.
//! - `files` serves the files of a directory. This directory uses `http` and `server`. A copy can leave out `files`.
//!
//! In this map, a file without a directory is in `server/` if the name stands above the line `────`, and in
//! `sse/channel/` if the name stands below this line:
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
