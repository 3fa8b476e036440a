//! The server on the wire: real sockets on ports of their own, each with a timeout.
//!
//! ```text
//! cargo test --manifest-path examples/mcp/Cargo.toml
//! ```

mod calls;
mod client;
mod conformance;
mod example;
#[allow(dead_code)] // `main` and the two tools
#[path = "../../src/main.rs"]
mod mcp;
mod messages;
mod sessions;
mod tools;
