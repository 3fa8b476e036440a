// brooklet 0.1.0
// SPDX-License-Identifier: MIT. Copyright (c) 2026 The brooklet developers. The text of the licence is in the file LICENSE.

//! A minimal blocking HTTP/1.1 server with Server-Sent Events: standard library only, no `unsafe`, a thread a connection.
//!
//! # From nothing to a live page
//!
//! ```sh
//! cargo new live && cd live
//! cargo add brooklet --path ../brooklet
//! ```
//!
//! Or without a dependency: copy `src/` to `src/vendor/brooklet/`, and begin `main.rs` with
//!
//! ```text
//! #[rustfmt::skip]
//! #[allow(dead_code, unused_imports)]
//! #[path = "vendor/brooklet/lib.rs"]
//! mod brooklet;
//! ```
//!
//! The rest of `main.rs` is the same either way:
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
//!     source.addEventListener("close", () => source.close()); // else it reconnects
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
//!             events.wait(Duration::from_secs(1))?; // a sleep that ends early when the client leaves
//!         }
//!         events.close()
//!     })
//! }
//! ```
//!
//! `cargo run`, and the page that it names counts to ten. `curl -N http://127.0.0.1:8080/count` shows what the page is
//! sent: `data: 1`, an empty line, a second later `data: 2`, and in the end `event: close`.
//!
//! A handler is a function from a [`Context`] to something that turns into a [`Response`]. It may block: the thread is its
//! connection's own. [`Server::route`] tells what patterns there are, [`sse::Connection`] what a stream can do.
//!
//! # One event for everybody
//!
//! Each stream above counts for itself, in a thread of its own. Where all get the same, a [`sse::Channel`] sends it
//! without a thread for each, and keeps it for those who come back:
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
//! [`sse::Channel::open`] keeps it in a file too, from which it comes back when the program starts again.
//!
//! # Taking the connection over
//!
//! [`Context::takeover_conn`] hands the TCP [`Connection`] out, to be answered by whichever thread, now or in an hour:
//! [`sse::start_connection`] makes an event stream of it, or you write to it what you like.
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
//!     no_result // the server neither answers nor closes
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
//! Ctrl-C ends the process without a goodbye: `std` knows no signals.
//!
//! # Testing
//!
//! [`Server::spawn`] serves in a thread until the test ends, on a port of its own.
//!
//! # Limits
//!
//! Whatever a client can have too much of has a limit: [`Config`] says of each what a client sees beyond it, and
//! [`sse::ChannelConfig`] has those of a channel. Two checks keep the pages of other sites out:
//! [`check_host`](Config::check_host) and [`check_origin`](Config::check_origin).
//!
//! # Organization
//!
//! `http` is bytes in and bytes out. `server` is sockets and threads, and uses `http`. `sse` uses both. Nothing below
//! `sse/channel/` is needed by the rest, and nothing below `sse/channel/file/` by the channel. `files` uses `http` and
//! `server`, and nothing uses it. Files without a directory are in `server/` above the line, and in `sse/channel/` below it.
//!
//! ```text
//! accept.rs ─> serve.rs: one loop for each connection, in a thread of its own
//!                ├─ buffered_socket.rs reads a head within its timeouts; http/parse.rs checks it, line ends included
//!                ├─ body.rs hands the body out; http/framing.rs and chunked.rs find its end
//!                ├─ dispatch.rs: host_and_origin.rs, the guards, router.rs, the handler with its context.rs
//!                ├─ http/outgoing.rs writes the http/response.rs; exchange.rs reports it
//!                └─ linger.rs closes. registry.rs knows every connection, and stops them all
//! context.rs, takeover_conn ─> connection.rs in your thread ─> sse/connection.rs, whose `wait` notices that the client left
//! ────
//! sse/channel/mod.rs, publish ─> hub.rs appends to history.rs, and to a store.rs: file/mod.rs with segment.rs, record.rs, syncer.rs
//!          subscribe ─> cursor.rs finds the place to begin, or makes a `gap`
//!          broadcaster.rs, a thread for many ─> subscriber.rs writes, and notices that the client left
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, elided_lifetimes_in_paths)]

mod files;
mod http;
mod server;
pub mod sse;

pub use files::Files;
pub use http::{http_date, Error, Form, Headers, Method, Request, Response, StatusCode, Version};
pub use server::{Body, Config, Connection, Context, Exchange, Handle, Problem, Running, Server, Verdict};
