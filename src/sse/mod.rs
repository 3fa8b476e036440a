//! Server-Sent Events (WHATWG HTML 9.2): a one-way stream of events that a browser reads with `EventSource`, and a person
//! with `curl -N`.
//!
//! [`stream`] runs a closure on a client's stream. [`start_connection`] makes a stream of a connection that was taken over, in
//! any thread. Both give a [`Connection`], which sends [`Message`]s. A [`Channel`] sends the same messages to all clients that
//! subscribe, without a thread for each.

use super::{http, server};

mod channel;
mod connection;
mod framing;
mod message;

pub use channel::{Channel, ChannelConfig, Id, Lag, Newcomers, Subscription, SyncPolicy};
pub use connection::{start_connection, stream, Connection};
pub use message::Message;
