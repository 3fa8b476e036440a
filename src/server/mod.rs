//! Sockets and threads: who is served, by whom, and for how long.

use super::http;

mod accept;
mod body;
mod buffer;
mod builder;
mod config;
mod connection;
mod context;
mod exchange;
mod guard;
mod handle;
mod incoming;
pub mod jitter;
pub mod linger;
pub mod lock;
pub mod log;
mod registry;
mod router;
mod serve;
mod spares;
mod unavailable;
mod wire;

pub use body::Body;
pub use builder::Server;
pub use config::Config;
pub use connection::Connection;
pub use context::Context;
pub use exchange::Exchange;
pub use handle::Handle;
pub use registry::{OnStop, Socket};
