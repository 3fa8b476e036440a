//! The server: sockets, threads, and the dispatch of requests to handlers.

use super::http;

// The types with which a program builds and stops a server.
mod builder;
mod config;
mod exchange;
mod handle;
mod problem;
mod running;

// Accepting, counting and refusing connections.
mod accept;
mod refusal;
mod registry;

// Serving one connection: the loop, the socket, the time limits, and the end of a connection.
mod buffer;
mod buffered_socket;
mod client_error;
pub mod linger;
mod serve;
mod throughput;

// Dispatch of a request: checks, guards and routes.
mod dispatch;
mod host_and_origin;
mod router;
mod verdict;

// The types that a handler receives.
mod body;
mod connection;
mod context;
mod extensions;

// Functions for panics, and for messages to standard error.
mod panics;
pub mod stderr;

pub use body::Body;
pub use builder::Server;
pub use client_error::{is_client_error, mark as mark_client_error};
pub use config::Config;
pub use connection::Connection;
pub use context::Context;
pub use exchange::Exchange;
pub use handle::Handle;
pub use panics::{catch, lock};
pub use problem::Problem;
pub use refusal::{jitter, unavailable_response};
#[cfg(test)]
pub use registry::Registry;
pub use registry::{OnStop, Socket};
pub use running::Running;
pub use verdict::Verdict;
