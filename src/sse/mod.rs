//! Server-Sent Events (WHATWG HTML 9.2): a one-way stream of events from the server to a client. A browser reads the
//! stream with `EventSource`, and `curl -N` prints it.
//!
//! [`stream`] runs a closure on a client's stream. [`start_connection`] starts a stream on a connection that was taken
//! over, in any thread. Both give a [`Connection`], which sends [`Message`]s. A [`Channel`] sends the same messages to
//! all clients that subscribe, without a thread for each client.
//!
//! # One stream
//!
//! This handler sends three events, one each second:
//!
//! ```
//! use brooklet::{sse, Context, Response};
//! use std::time::Duration;
//!
//! fn clock(ctx: Context<'_>) -> Response {
//!     sse::stream(ctx, |mut events| {
//!         for n in 0..3 {
//!             events.wait(Duration::from_secs(1))?; // a sleep that ends early when the client leaves
//!             events.send_message(sse::Message::new().event("tick").id(n).data("ping"))?;
//!         }
//!         events.close()
//!     })
//! }
//! # let _ = brooklet::Server::bind("127.0.0.1:0").unwrap().get("/clock", clock);
//! ```
//!
//! `curl -N http://127.0.0.1:8080/clock` prints the events, and ends by itself:
//!
//! ```text
//! :
//! event: tick
//! data: ping
//! id: 0
//!
//! event: tick
//! data: ping
//! id: 1
//!
//! event: tick
//! data: ping
//! id: 2
//!
//! event: close
//! data: close
//!
//! ```
//!
//! The first line is an empty comment, which clients skip. A page reads the same stream with an `EventSource`:
//!
//! ```js
//! const source = new EventSource("/clock");
//! source.addEventListener("tick", event => console.log(event.data, event.lastEventId));
//! source.addEventListener("close", () => source.close()); // otherwise the EventSource reconnects
//! ```
//!
//! # The same events for all clients
//!
//! If all clients receive the same events, use a [`Channel`]. A subscriber takes a file descriptor and about 400 bytes,
//! and no thread:
//!
//! ```no_run
//! # use brooklet::{sse, Server};
//! # fn main() -> std::io::Result<()> {
//! let news = sse::Channel::new();
//! let feed = news.clone();
//! Server::bind("127.0.0.1:8080")?
//!     .get("/news", move |ctx| feed.subscribe(ctx))
//!     .post("/news", move |mut ctx| news.publish(ctx.body_text()?))
//!     .serve()
//! # }
//! ```
//!
//! `curl -N http://127.0.0.1:8080/news` listens, and `curl -d hello http://127.0.0.1:8080/news` publishes an event.
//! [`ChannelConfig`] has the settings of a channel, and [`Subscription`] has the options of one subscriber.
//!
//! # Reconnecting and resuming
//!
//! An `EventSource` reconnects whenever a stream ends. It waits for the time that [`Message::retry`] or
//! [`ChannelConfig::retry`] has set, or for about 3 s. It sends the id of the last event that it received. A
//! [`Channel`] then sends the later events, or a `gap` event if its history no longer has them. In a stream of your
//! own, [`Connection::last_event_id`] returns the id.
//!
//! An `EventSource` stops reconnecting in two cases: the page calls its `close()`, or the response is not an event
//! stream. To stop it on purpose, respond with 204. After a 503, the page must create another `EventSource`. It should
//! send the last id in the query, because otherwise it misses the events since then:
//!
//! ```js
//! source = new EventSource("/news?lastEventId=" + encodeURIComponent(id));
//! ```
//!
//! [`Connection`] describes how other clients detect that a stream is complete.
//!
//! # A file
//!
//! A channel with a file keeps its history when the program restarts. Clients then resume as if nothing had happened:
//!
//! ```no_run
//! # use brooklet::sse;
//! # fn main() -> std::io::Result<()> {
//! let news = sse::Channel::open("news.sse", sse::ChannelConfig::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Channel::open`] describes the file, and [`SyncPolicy`] describes how much a power failure can lose.
//!
//! # Several servers
//!
//! A channel belongs to one process. Use several servers if one machine has too few file descriptors or too little
//! bandwidth, or if the service must survive the loss of a machine. Several servers need a common log of events. The
//! example `examples/fleet` in the repository has a Redis stream as its log, and nginx in front of the servers:
//!
//! | | [`Channel::new`] | [`Channel::open`] | `examples/fleet` |
//! |---|---|---|---|
//! | clients connect to | one process | one process at a time | any number of servers |
//! | an event is published when it is in | memory | the file | Redis |
//! | lost when a client reconnects in time | nothing | nothing | nothing, at any server |
//! | lost when a process dies | the history | nothing | nothing |
//! | lost in a power failure | the history | at most the last second | the events that Redis has not saved |
//!
//! With [`SyncPolicy::Always`], a file loses nothing in a power failure. In all three cases, a client receives a `gap`
//! event if the events that it missed are no longer in the history, or are lost.
//!
//! If the disk is full, [`publish`](Channel::publish) returns an error and no client receives the event. If Redis is
//! down, the example responds with a 503, and the event may still be published later. The streams continue in both
//! cases.
//!
//! `examples/fleet/README.md` describes how to run the example on one machine and on several machines.
//!
//! # Six connections to a site
//!
//! A browser opens at most six HTTP/1.1 connections to a site, for all its tabs together. Each stream takes one of
//! them. With six streams open, the next request to the site waits, and the browser shows no error. There are three
//! solutions:
//!
//! - A proxy with HTTP/2, as described [below](#proxies). All streams of a browser then share one connection.
//! - One stream for all tabs, which share it through a `BroadcastChannel` or a `SharedWorker`, as in the example
//!   `dashboard`.
//! - Another host name for other tabs, such as `http://two.localhost:8080/`. The name also means this machine, but a
//!   browser treats it as another site.
//!
//! # Streams that end
//!
//! - **A client closes its connection.** [`wait`](Connection::wait) returns an error at once.
//!   [`wait_for`](Connection::wait_for) and [`forward`](Connection::forward) return the error within half a second. A
//!   [`Channel`] removes the subscriber within 5 s, and calls [`on_leave`](Channel::on_leave).
//! - **A client stops reading.** A write to its [`Connection`] blocks, and returns an error after 30 s. A [`Channel`]
//!   does not wait. It disconnects the subscriber after 30 s. Unless [`Lag`] is `Skip`, it also disconnects the
//!   subscriber when its next event is evicted.
//! - **The server shuts down.** `wait` returns an error, and a stream that is closed or dropped ends with a `close`
//!   event. A [`Channel`] sends the published events, and then a `close` event.
//! - **The program restarts.** Clients reconnect. A [`Channel`] without a file sends them a `gap` event, and then its
//!   history.
//! - **A handler or closure panics.** The client sees an incomplete stream. All other streams continue.
//!
//! A client vanishes if its network fails or its computer sleeps. Its connection then stays open, and the kernel
//! notices this after about 15 minutes (Linux, measured: 925 to 1,040 s). Until then, the client counts against
//! [`max_taken_over`](super::Config::max_taken_over), and a [`Connection`] keeps its thread. If 11 clients vanish each
//! second, they fill the default of 10,000 connections. Keep-alive comments do not help. The socket option
//! `SO_KEEPALIVE` does not help either, because the kernel sends no probes while sent data is not acknowledged.
//!
//! On Linux, the socket option `TCP_USER_TIMEOUT` helps. With 30 s, the kernel ended such connections after 31 to 48 s.
//! With this option, the kernel also ends a connection whose client has not read for that time. Set the option on the listener, as
//! [`Server::from`](super::Server#impl-From<TcpListener>-for-Server) describes.
//!
//! # Proxies
//!
//! A stream asks proxies not to buffer or compress it: its head has `X-Accel-Buffering: no` and
//! `Cache-Control: no-cache, no-transform`. Keep-alive comments after 15 s of silence keep proxies from closing it.
//!
//! For nginx, the file `examples/fleet/README.md` in the repository has a complete configuration, which is tested. Its
//! most important lines for streams are:
//!
//! - `http2` lets all streams of a browser share one connection.
//! - `proxy_http_version 1.1` lets clients see whether a stream is complete. With 1.0, the default, they cannot see
//!   this.
//! - `error_page 502` leads to `return 444`, which closes the connection without a response. So an `EventSource` tries
//!   again while the server restarts. After a 502, it never reconnects.
//!
//! The same file describes HAProxy, Apache, Varnish, Caddy and Envoy, and the development proxies of Vite and Node.
//!
//! # Pages without JavaScript of their own
//!
//! Frameworks that put HTML from a server into a page read these streams without an adapter. htmx 4 puts the data of an event
//! without a name into the page: the example `htmx` shows how.
//!
//! Turbo reads events without a name in `<turbo-stream-source src="/events"></turbo-stream-source>`, an `EventSource`.
//! The data of an event is one or more `<turbo-stream>` elements:
//!
//! ```
//! # use brooklet::sse::Message;
//! # let _ =
//! Message::new().data(r#"<turbo-stream action="append" target="log"><template><li>new</li></template></turbo-stream>"#)
//! # ;
//! ```
//!
//! Datastar 1.0 reads `datastar-patch-elements` in `<div data-init="@get('/events', {retry: 'always'})">`. Each line of
//! the HTML begins with `elements`. Without `retry`, Datastar does not reconnect after a complete stream:
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
