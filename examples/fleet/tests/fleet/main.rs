//! Tests of the fleet with real processes: Redis, nodes and nginx. Each test has its own ports and directories.
//!
//! ```text
//! cargo test --manifest-path examples/fleet/Cargo.toml
//! ```
//!
//! Every socket has a timeout, and every process ends with its test.

mod client;
mod crowd;
mod processes;
mod redis_gone;
mod relay;
mod resuming;
mod run;
mod trimmed;
