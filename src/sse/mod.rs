//! Server-Sent Events (WHATWG HTML 9.2): a one-way stream of events that a browser reads with `EventSource`, and a person
//! with `curl -N`.
//!
//! [`stream`] runs a closure on a client's stream. [`start_connection`] makes a stream of a connection that was taken over, in
//! any thread. Both give a [`Connection`], which sends [`Message`]s. A [`Channel`] sends the same messages to all clients that
//! subscribe, without a thread for each.
//!
//! # Pages without JavaScript of their own
//!
//! Frameworks that put HTML from a server into a page read these streams untouched. htmx 4 puts the data of an event without a
//! name into the page: the example `htmx` shows how.
//!
//! Turbo reads events without a name in `<turbo-stream-source src="/events"></turbo-stream-source>`, an `EventSource`. The data
//! is any number of `<turbo-stream>` elements:
//!
//! ```
//! # use brooklet::sse::Message;
//! # let _ =
//! Message::new().data(r#"<turbo-stream action="append" target="log"><template><li>new</li></template></turbo-stream>"#)
//! # ;
//! ```
//!
//! Datastar 1.0 reads `datastar-patch-elements` in `<div data-init="@get('/events', {retry: 'always'})">`. Each line of the HTML
//! begins with `elements`. Without `retry`, it does not reconnect after a stream that ended as a whole one:
//!
//! ```
//! # use brooklet::sse::Message;
//! # let message = Message::new();
//! # let _ =
//! message.event("datastar-patch-elements").data("selector #log").data("mode append").data("elements <li>new</li>")
//! # ;
//! ```

use super::{http, server};

mod channel;
mod connection;
mod framing;
mod message;

pub use channel::{Channel, ChannelConfig, Id, Lag, Newcomers, Subscription, SyncPolicy};
pub use connection::{start_connection, stream, Connection};
pub use message::Message;
