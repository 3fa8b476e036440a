//! The fleet as it runs: Redis, nodes and nginx, real processes on ports and in folders of their own.
//!
//! ```text
//! cargo test --manifest-path examples/fleet/Cargo.toml
//! ```
//!
//! Every socket has a timeout, and every process ends with its test. Nothing here sleeps to let something happen.

mod client;
mod crowd;
mod processes;
mod redis_gone;
mod relay;
mod resuming;
mod run;
mod trimmed;
