//! Server-Sent Events (WHATWG HTML 9.2): a one-way stream of events from the server to a client. A browser reads the
//! stream with `EventSource`, and `curl -N` prints the stream.
//!
//! [`stream`] takes over a client's connection, and calls a closure with an event stream to this client.
//! [`start_connection`] can run in any thread, and starts an event stream on a connection that was taken over earlier.
//! Both functions provide a [`Connection`], which sends [`Message`]s. A [`Channel`] sends the same messages to all its
//! subscribers, without a thread for each subscriber.
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
//! `curl -N http://127.0.0.1:8080/clock` prints these lines, and exits:
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
//! If all clients receive the same events, use a [`Channel`]. A subscriber uses one file descriptor and about 400 bytes
//! of memory, but no thread. This program publishes the body of each POST request:
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
//! `curl -N http://127.0.0.1:8080/news` subscribes, and `curl -d hello http://127.0.0.1:8080/news` publishes an event.
//! [`ChannelConfig`] has the settings of a channel, and [`Subscription`] has the options of one subscriber.
//!
//! # Reconnecting and resuming
//!
//! An `EventSource` reconnects when a stream ends. The `EventSource` first waits for the time that [`Message::retry`]
//! or [`ChannelConfig::retry`] has set. If no time was set, browsers wait about 3 s. The new request contains the id of
//! the last event that the `EventSource` received. A [`Channel`] then sends the later events. If the history no longer
//! has all later events, the channel sends a `gap` event, and then the whole history. In a stream without a channel,
//! [`Connection::last_event_id`] returns the id.
//!
//! An `EventSource` stops reconnecting in two cases: the page calls `close()`, or the response is not an event stream.
//! A server that wants to stop an `EventSource` responds with 204. After a 503, the page must create a new
//! `EventSource`, which does not know the last id. So the page must put the last id into the query. Otherwise the page
//! misses all events between the last id and the new connection:
//!
//! ```js
//! source = new EventSource("/news?lastEventId=" + encodeURIComponent(id));
//! ```
//!
//! [The end of a stream](Connection#the-end-of-a-stream) describes how other clients detect that a stream is complete.
//!
//! # A file
//!
//! A channel with a file keeps its history when the program restarts. A client that reconnects after the restart
//! receives the events that it missed:
//!
//! ```no_run
//! # use brooklet::sse;
//! # fn main() -> std::io::Result<()> {
//! let news = sse::Channel::open("news.sse", sse::ChannelConfig::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Channel::open`] describes the file, and [`SyncPolicy`] describes which events a power failure can lose.
//!
//! # Several servers
//!
//! A channel belongs to one process. Use several servers in two cases: one machine has too few file descriptors or too
//! little bandwidth, or the service must survive the failure of a machine. The servers must then share one history. In
//! the repository, `examples/fleet` is an example with several servers behind nginx, and with the history in a Redis
//! stream. This table compares a channel without a file, a channel with a file, and the example:
//!
//! | | [`Channel::new`] | [`Channel::open`] | `examples/fleet` |
//! |---|---|---|---|
//! | clients connect to | one process | one process at a time | any number of servers |
//! | an event is published when it is in | memory | the file | Redis |
//! | a client that reconnects in time misses | no event | no event | no event, at any server |
//! | a crash of the process loses | the history | no event | no event |
//! | a power failure loses | the history | the events of about one second | the events that Redis has not saved |
//!
//! With [`SyncPolicy::Always`], a channel with a file loses no event in a power failure. In all three columns, a client
//! receives a `gap` event if an event that it missed was lost or evicted.
//!
//! If the disk is full, [`publish`](Channel::publish) returns an error and no client receives the event. If Redis is
//! down, the example responds with a 503 to a request that publishes an event, but may still publish this event later.
//! The streams continue in both cases.
//!
//! `examples/fleet/README.md` describes how to run the example on one machine and on several machines.
//!
//! # Six connections to a site
//!
//! A browser opens at most six HTTP/1.1 connections to a site. All tabs share these connections, and each stream uses
//! one connection. While six streams are open, every other request to the site waits, and the browser shows no error.
//! There are three solutions:
//!
//! - A proxy with HTTP/2, as described [below](#proxies). All streams of a browser then share one connection.
//! - One stream for all tabs. One tab receives the events, and passes the events to the other tabs through a
//!   `BroadcastChannel`, as in the example `dashboard`. A `SharedWorker` can receive the events instead of a tab.
//! - A different host name in some tabs, such as `http://two.localhost:8080/`. Browsers resolve this name to the same
//!   machine, but treat the name as another site.
//!
//! # Streams that end
//!
//! - **A client closes its connection.** [`wait`](Connection::wait) returns an error at once.
//!   [`wait_for`](Connection::wait_for) and [`forward`](Connection::forward) return an error within half a second. A
//!   [`Channel`] removes the subscriber within 5 s, and calls the hook of [`on_leave`](Channel::on_leave).
//! - **A client stops reading.** When the buffers are full, a write to the [`Connection`] blocks, and returns an error
//!   after 30 s. A [`Channel`] does not block, and disconnects the subscriber after 30 s. With [`Lag::Disconnect`], a
//!   channel also disconnects a subscriber whose next event was evicted.
//! - **The server shuts down.** [`wait`](Connection::wait) returns an error. Closing or dropping the [`Connection`]
//!   then sends a `close` event. A [`Channel`] sends the events that are already published, and then a `close` event.
//! - **The program restarts.** Clients reconnect. A [`Channel`] without a file sends a `gap` event to each client that
//!   sends an id.
//! - **The code that sends a stream panics.** An HTTP/1.1 client can see that the stream is incomplete. All other
//!   streams continue.
//!
//! A client vanishes if its network fails or its computer sleeps. The server notices this when its buffers for the
//! client have been full for 30 s. If the buffers do not fill, the server notices this when the kernel gives up, after
//! 15 to 17 minutes (measured on Linux: 925 to 1,040 s). Until then, the client counts against
//! [`max_taken_over`](super::Config::max_taken_over), and the thread of its [`Connection`] keeps running. If 11 clients
//! vanish each second, they use up the default limit of 10,000 connections. Keep-alive comments do not shorten this
//! time. The socket option `SO_KEEPALIVE` has no effect, because the kernel sends no probes while it waits for an
//! acknowledgment of sent data.
//!
//! On Linux, the socket option `TCP_USER_TIMEOUT` shortens this time. With an option of 30 s, the kernel ended such
//! connections after 31 to 48 s (measured). With this option, the kernel also ends the connection of a client that does
//! not read for 30 s. Set the option on the listener, as
//! [`Server::from`](super::Server#impl-From<TcpListener>-for-Server) describes.
//!
//! # Proxies
//!
//! The head of a stream contains `X-Accel-Buffering: no` and `Cache-Control: no-cache, no-transform`. These fields ask
//! proxies not to buffer or compress the stream. A [`Channel`] and the waiting methods of a [`Connection`] send a
//! keep-alive comment after 15 s without a write, so that proxies do not close the stream.
//!
//! In the repository, `examples/fleet/README.md` has a complete configuration for nginx. A test runs nginx with this
//! configuration. These lines of the configuration matter most for streams:
//!
//! - `http2` lets all streams of a browser share one connection.
//! - `proxy_http_version 1.1` lets clients see whether a stream is complete. With the default of 1.0, clients cannot
//!   see this.
//! - `error_page 502` leads to `return 444`, which closes the connection without a response while the server restarts.
//!   An `EventSource` then tries again. After a response with the status 502, an `EventSource` never reconnects.
//!
//! The same file describes HAProxy, Apache, Varnish, Caddy and Envoy, and the development proxies of Vite and Node.
//!
//! # Pages without JavaScript of their own
//!
//! Some frameworks receive HTML from a server, and insert the HTML into a page. htmx, Turbo and Datastar can read the
//! streams of this module. htmx 4 inserts the data of each event without a name, as in the example `htmx`.
//!
//! In Turbo, the element `<turbo-stream-source src="/events"></turbo-stream-source>` opens an `EventSource`, and reads
//! events without a name. The data of each event is one or more `<turbo-stream>` elements:
//!
//! ```
//! # use brooklet::sse::Message;
//! # let _ =
//! Message::new().data(r#"<turbo-stream action="append" target="log"><template><li>new</li></template></turbo-stream>"#)
//! # ;
//! ```
//!
//! In Datastar 1.0, the element `<div data-init="@get('/events', {retry: 'always'})">` reads events with the name
//! `datastar-patch-elements`. Without `retry`, Datastar does not reconnect after a complete stream. In the data of an
//! event, each line of HTML follows the word `elements`:
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
