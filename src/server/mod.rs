//! Sockets and threads: who is served, by whom, and for how long.

use super::http;

// What a program holds.
mod builder;
mod config;
mod exchange;
mod handle;

// Who accepts a connection, who is connected, and who is refused.
mod accept;
mod parked;
mod refusal;
mod registry;

// One connection: its loop, its socket with two buffers, and its end.
mod buffer;
mod buffered_socket;
pub mod linger;
mod serve;
mod throughput;

// One request: the checks and the route that lead to its handler.
mod dispatch;
mod host_and_origin;
mod router;

// What a handler gets.
mod body;
mod connection;
mod context;

// What the program's code must not break, and what no hook is called for.
mod panics;
pub mod stderr;

pub use body::Body;
pub use builder::Server;
pub use config::Config;
pub use connection::Connection;
pub use context::Context;
pub use exchange::Exchange;
pub use handle::Handle;
pub use panics::lock;
pub use refusal::jitter;
pub use registry::{OnStop, Socket};
