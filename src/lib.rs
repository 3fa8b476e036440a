//! A minimal blocking HTTP/1.1 server with Server-Sent Events: standard library only, no `unsafe`, a thread a connection.
//!
//! ```no_run
//! use brooklet::{sse, Context, Response, Server};
//! use std::{io, thread, time::Duration};
//!
//! fn main() -> io::Result<()> {
//!     Server::bind("127.0.0.1:8080")?
//!         .get("/", |_| "hello\n")
//!         .get("/hello/{name}", |ctx| format!("hello {}\n", ctx.param("name")))
//!         .get("/sse", clock)
//!         .serve()
//! }
//!
//! fn clock(ctx: Context<'_>) -> Response {
//!     let (conn, no_result) = ctx.takeover_conn();
//!     thread::spawn(move || -> io::Result<()> {
//!         let mut events = sse::start_connection(conn)?;
//!         for n in 0..3 {
//!             events.wait(Duration::from_secs(1))?;
//!             events.send_message(sse::Message::new().event("tick").id(n).data("ping"))?;
//!         }
//!         events.close()
//!     });
//!     no_result
//! }
//! ```
//!
//! - [`Server`] listens, routes and serves; [`Config`] has its limits and timeouts, [`Handle`] stops it.
//! - A handler is a function from a [`Context`] to something that turns into a [`Response`]. It answers, or calls
//!   [`Context::takeover_conn`] and owns the TCP [`Connection`] from then on.
//! - [`sse`] writes event streams to such connections.
//!
//! # Organization
//!
//! `http` is bytes in and bytes out, and uses nothing; `server` is sockets and threads, and uses `http`; `sse` uses both.
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, elided_lifetimes_in_paths)]

mod http;
mod server;
pub mod sse;

pub use http::{Error, Form, Headers, Method, Request, Response, StatusCode, Version};
pub use server::{Body, Config, Connection, Context, Exchange, Handle, Server};
