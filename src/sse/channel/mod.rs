//! Channels, which send each event to many subscribers.
//!
//! A channel keeps one history of the published events. A subscriber is a socket and an offset in that history. The
//! bytes past this offset have not been sent to the subscriber. So a slow subscriber needs no queue. The same lock is
//! held while an event is appended and while the offset of a new subscriber is determined. So a new subscriber misses
//! no event.

use super::connection::{start_response, MIN_KEEP_ALIVE};
use super::framing::Framing;
use super::http::{Response, StatusCode};
use super::message::Message;
use super::server::lock;
use super::server::{Connection, Context, Socket};
use super::{framing, http, message, server};
use history::History;
use hub::{End, Hook, Hub};
use output::Output;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::Store;
use subscriber::Subscriber;

mod begun;
mod broadcaster;
mod cursor;
mod file;
mod history;
mod hub;
mod output;
mod settings;
mod store;
mod subscriber;
mod subscription;

pub use history::Id;
pub use settings::{ChannelConfig, Lag, Newcomers};
pub use store::SyncPolicy;
pub use subscription::Subscription;

/// Sends the same events to any number of clients.
///
/// ```no_run
/// use brooklet::{sse, Server};
///
/// # fn main() -> std::io::Result<()> {
/// let news = sse::Channel::new();
/// let feed = news.clone();
/// Server::bind("127.0.0.1:8080")?
///     .get("/news", move |ctx| feed.subscribe(ctx))
///     .post("/news", move |mut ctx| news.publish(ctx.body_text()?)) // answers with the event's id
///     .serve()
/// # }
/// ```
///
/// - [`subscribe`](Channel::subscribe) adds a client. [`subscribe_with`](Channel::subscribe_with) adds a client with a
///   first message, an end time or a tag. [`disconnect`](Channel::disconnect) disconnects clients by their tags.
/// - [`publish`](Channel::publish) sends an event to all subscribers.
/// - [`on_join`](Channel::on_join), [`on_leave`](Channel::on_leave) and [`subscribers`](Channel::subscribers) report
///   how many subscribers there are.
/// - [`close`](Channel::close) ends all streams with a `close` event, and [`finish`](Channel::finish) ends all streams
///   without this event.
///
/// Clones are handles to the same channel. When the last handle is dropped, the channel ends its streams as
/// [`finish`](Channel::finish) does. An `EventSource` then reconnects.
///
/// # Resuming and the gap event
///
/// A channel gives an id to each event without an id, and keeps the last events in its history. When a client
/// reconnects, it sends the id of the last event that it received, and the channel sends the later events. So the
/// client receives every event once and in order, as long as the history has the events.
///
/// If the history no longer has an event that the client missed, the client receives a `gap` event first, and then the
/// events of the history. The data of the `gap` event has two lines: the id of the last event that the client received,
/// and the id of the first event that follows. A line is empty if the id is not known.
///
/// ```text
/// GET /news HTTP/1.1
/// Last-Event-ID: k3j9x2-1
///
/// event: gap
/// data: k3j9x2-1
/// data: k3j9x2-5
///
/// data: the oldest event of the history
/// id: k3j9x2-5
/// ```
///
/// A page that shows the current state should load that state again after a `gap` event:
///
/// ```js
/// source.addEventListener("gap", () => location.reload());
/// ```
///
/// [`max_events`](ChannelConfig::max_events) and [`max_bytes`](ChannelConfig::max_bytes) limit the history.
/// [`Channel::open`] keeps the history in a file, so that clients can also resume after a restart of the program.
/// Without a file, a client that reconnects after a restart receives a `gap` event.
///
/// # Slow subscribers
///
/// A slow subscriber does not delay [`publish`](Channel::publish) or the other subscribers. The setting
/// [`lag`](ChannelConfig::lag) applies to a subscriber whose next event was evicted from the history. A subscriber that
/// has unsent events and receives no bytes for 30 s is disconnected. After a disconnection, the kernel may keep up to
/// 1.8 MiB of unsent bytes for this client, until the client closes its connection or the kernel gives up. The socket
/// option `TCP_USER_TIMEOUT` bounds that time: see [Streams that end](super#streams-that-end).
///
/// # Costs
///
/// A subscriber uses one file descriptor, 380 bytes of memory in the process and about 2 KB in the kernel, but no
/// thread. Each subscriber counts against [`max_taken_over`](super::super::Config::max_taken_over), which is 10,000 by
/// default. One thread for each core sends the events of all channels.
///
/// The numbers in this table were measured with a release build of version 0.1.0 and with events of 110 bytes. The
/// server and the clients ran together on two cores of a virtual machine.
///
/// | load or call | result |
/// |---|---|
/// | 9,500 subscribers, events published as fast as possible | 3.6 million deliveries a second |
/// | 1,000 subscribers, events published as fast as possible | 2.6 million deliveries a second, also with a file |
/// | 9,500 subscribers, two events a second | 50 % of the deliveries within 27 ms, 99 % within 61 ms |
/// | `publish` without a file | 0.2 µs |
/// | `publish` with a file | 1.8 µs, and a few milliseconds when the file is rotated |
/// | `publish` with a file and [`SyncPolicy::Always`] | 0.2 ms, which is the time of one sync on this disk |
///
/// # A channel for each user or topic
///
/// A program with a map of channels must remove channels without subscribers, because the map would otherwise grow
/// without bound. The program must not remove a channel that another thread has just looked up to subscribe a client.
/// The program in this example removes unused channels before the map grows. A channel stays in the map while it has
/// subscribers or a reference outside the map:
///
/// ```
/// use brooklet::sse::Channel;
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
///
/// #[derive(Default)]
/// struct Topics(Mutex<HashMap<String, Arc<Channel>>>);
///
/// impl Topics {
///     fn channel(&self, topic: &str) -> Arc<Channel> {
///         let mut topics = self.0.lock().unwrap();
///         if topics.len() == topics.capacity() {
///             topics.retain(|_, channel| Arc::strong_count(channel) > 1 || channel.subscribers() > 0);
///         }
///         Arc::clone(topics.entry(topic.to_owned()).or_default())
///     }
/// }
///
/// let topics = Topics::default();
/// let handler = move |ctx: brooklet::Context<'_>| topics.channel(ctx.param("topic")).subscribe(ctx);
/// # let _ = brooklet::Server::bind("127.0.0.1:0").unwrap().get("/topics/{topic}", handler);
/// ```
#[derive(Clone)]
pub struct Channel {
    publisher: Arc<Publisher>,
}

/// The part of a channel that its clones share. Broadcasters reference only the hub, so dropping the last clone
/// finishes the channel.
struct Publisher {
    hub: Arc<Hub>,
}

impl Publisher {
    fn end(&self, end: End) {
        self.hub.end(end);
        broadcaster::notify(&self.hub);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.end(End::Finish);
    }
}

impl Default for Channel {
    fn default() -> Channel {
        Channel::new()
    }
}

impl Channel {
    /// Returns a channel with the default settings.
    pub fn new() -> Channel {
        Channel::with_config(ChannelConfig::default())
    }

    /// Returns a channel with these settings.
    pub fn with_config(config: ChannelConfig) -> Channel {
        let history = History::new(config.max_events, config.max_bytes);
        Channel::with_history(config, history, None)
    }

    /// Returns a channel with this history, and with the store from which the history was restored.
    fn with_history(config: ChannelConfig, history: History, store: Option<Box<dyn Store>>) -> Channel {
        let hub = Arc::new(Hub::new(config, history, store, broadcaster::all().len()));
        Channel { publisher: Arc::new(Publisher { hub }) }
    }

    /// Subscribes the client of a request. Takes over the connection, and returns the response that the handler must
    /// return.
    ///
    /// A client that sends an id in the field `Last-Event-ID` resumes after the event with this id. A client that
    /// cannot set header fields can send the id as `lastEventId` in the query.
    /// [`last_event_id`](super::super::Request::last_event_id) describes the field and the query.
    ///
    /// The response is 204 if the channel was closed, or if it was finished and has no events for the client. An
    /// `EventSource` does not reconnect after a 204. The response is 503 if the thread that sends the events cannot be
    /// started, or if [`max_taken_over`](super::super::Config::max_taken_over) connections are already taken over.
    ///
    /// The response to a HEAD request is only the head. The response to a request with any other method is the stream.
    /// A handler for POST must read the body before it subscribes the client. The channel disconnects a client with 64
    /// KiB or more of unread input.
    pub fn subscribe(&self, ctx: Context<'_>) -> Response {
        self.subscribe_with(ctx, Subscription::new())
    }

    /// Subscribes the client as [`subscribe`](Channel::subscribe) does, with a first message, an end time or a tag. The
    /// response is 500 if the first message is not valid.
    ///
    /// ```
    /// use brooklet::{sse, Context, Response};
    /// use std::time::{Duration, Instant};
    ///
    /// fn listen(ctx: Context<'_>, news: &sse::Channel) -> Response {
    ///     let end = Instant::now() + Duration::from_secs(3600);
    ///     let user = ctx.param("user").to_owned();
    ///     news.subscribe_with(ctx, sse::Subscription::new().until(end).tag(user))
    /// }
    /// ```
    pub fn subscribe_with(&self, ctx: Context<'_>, subscription: Subscription<'_>) -> Response {
        let hub = &self.publisher.hub;
        let tag = subscription.tag.map(|tag| hub.tags.add(tag));
        // The cursor is set before the head is sent, so that a client whose stream is open misses no event.
        let last_event_id = ctx.last_event_id();
        let cursor = match subscription.first {
            Some(first) => hub.cursor_with(last_event_id.as_deref(), first),
            None => Ok(hub.cursor(last_event_id.as_deref())),
        };
        let cursor = match cursor {
            Ok(Some(cursor)) => cursor,
            Ok(None) => return Response::status(StatusCode::NO_CONTENT),
            Err(error) => return error.into(),
        };
        let index = hub.next_shard();
        let broadcaster = &broadcaster::all()[index];
        if let Err(error) = broadcaster.reserve() {
            let mut unavailable = server::unavailable_response();
            unavailable.cause = Some(error);
            return unavailable;
        }
        let (conn, no_result) = ctx.takeover_conn();
        match start_stream(conn, hub.config().retry) {
            Ok(output) => {
                let until = [subscription.until, end_of_age(hub.config().max_age)].into_iter().flatten().min();
                let subscriber = Subscriber::new(output, cursor, hub.count_subscriber(index));
                broadcaster.add(subscriber.with_bounds(until, tag));
                hub.call(&hub.on_join);
            }
            Err(_) => broadcaster.release(), // the client left, or the request was HEAD
        }
        no_result
    }

    /// Publishes an event, and returns its id. If the message has no id, the channel gives an id to the event. If the
    /// message has an id, no other event may have the same id.
    ///
    /// Returns as soon as the event is in the history. If the channel has a file, the event is then also in the file. A
    /// channel with a file publishes one event at a time, and waits for the disk if the setting
    /// [`sync`](ChannelConfig::sync) requires a sync.
    ///
    /// Does not wait until subscribers receive the event. If the unsent events take more than half of the history,
    /// blocks until the channel begins to send them, at most for 100 ms. So a burst of events usually does not evict
    /// events that no subscriber has received.
    ///
    /// ```
    /// use brooklet::sse::{Channel, Message};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let news = Channel::new();
    /// let id = news.publish("some text")?; // the channel gives the event an id
    /// news.publish(Message::new().event("price").id("order-7").data("21.50"))?;
    /// println!("{}", id.as_str());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After an error, the event is not in the history, and a later call may succeed. The channel also removes the
    /// event from the file. If the disk reports an error for this removal, the event may still be in the file.
    ///
    /// - Returns `InvalidInput` if the message is not valid.
    /// - Returns `InvalidInput` if the event is larger than [`max_bytes`](ChannelConfig::max_bytes).
    /// - Returns `BrokenPipe` if the channel was closed or finished.
    /// - Returns the error of the file system if the file cannot be written, for example because the disk is full.
    /// - Returns `Other` or `AlreadyExists` if another program has truncated, removed or replaced a file of the
    ///   channel.
    /// - Returns the error of a sync that failed since the last call. Subscribers receive the earlier events, but a
    ///   power failure may lose these events.
    pub fn publish(&self, message: impl Into<Message>) -> io::Result<Id> {
        let message = message.into();
        self.append(|_| message)
    }

    /// Publishes a `gap` event. Call this method if the channel relays events from another source, and the source has
    /// lost events.
    ///
    /// Every subscriber receives the `gap` event. A client that reconnects with the id of an event before the gap also
    /// receives the `gap` event. The data has two lines: the id of the last event before the gap, and an empty line,
    /// because the next id is not known. A `gap` event has no id, so a client that reconnects directly after this event
    /// receives the event again.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Channel::publish).
    pub fn publish_gap(&self) -> io::Result<()> {
        self.append(|history| cursor::gap(history.last_id_before(history.end()).as_deref(), None))
            .map(drop)
    }

    fn append(&self, message: impl FnOnce(&History) -> Message) -> io::Result<Id> {
        let hub = &self.publisher.hub;
        let id = hub.append(message, broadcaster::is_this_thread())?;
        broadcaster::notify(hub);
        Ok(id)
    }

    /// Returns the number of subscribers. A client that has closed its connection is counted for at most 5 s more.
    pub fn subscribers(&self) -> usize {
        self.publisher.hub.subscribers()
    }

    /// Calls `select` with the [tag](Subscription::tag) of each subscriber, and disconnects the subscriber if `select`
    /// returns `true`. Returns the number of disconnected subscribers. Subscribers without a tag stay connected.
    ///
    /// A disconnected subscriber receives no event that is published after this method has returned. The subscriber
    /// also receives no `close` event. So an `EventSource` reconnects, and a guard or the handler can refuse the new
    /// request.
    ///
    /// This method does not find a client whose handler has checked the user but has not yet called `subscribe_with`.
    /// So a handler should check the user again after `subscribe_with`. If the user was banned after the first check,
    /// the handler should call this method.
    ///
    /// ```
    /// # fn logout(channel: &brooklet::sse::Channel, user: &str) {
    /// channel.disconnect(|tag| tag == user);
    /// # }
    /// ```
    pub fn disconnect(&self, select: impl FnMut(&str) -> bool) -> usize {
        let hub = &self.publisher.hub;
        let disconnected = hub.tags.disconnect(select);
        if disconnected > 0 {
            broadcaster::notify(hub);
        }
        disconnected
    }

    /// Sets a hook, which runs after each new subscription in the thread that subscribed the client. The hook receives
    /// the channel and the number of subscribers. The hook may publish. A second call replaces the first hook.
    ///
    /// ```
    /// # let room = brooklet::sse::Channel::new();
    /// room.on_join(|room, subscribers| {
    ///     // An error means that the room is closed.
    ///     let _ = room.publish(format!("{subscribers} people are here"));
    /// });
    /// ```
    pub fn on_join(&self, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        self.set_hook(&self.publisher.hub.on_join, hook);
    }

    /// Sets a hook, which runs after one or more subscribers were removed. The hook receives the channel and the number
    /// of subscribers. A second call replaces the first hook.
    ///
    /// The hook runs in a thread that sends the events of channels, so the hook must be quick. The hook may publish. If
    /// the channel has a file, the subscribers of this thread then wait for the file. The hook should use the channel
    /// that it receives, because a hook that owns a clone keeps the channel open forever.
    ///
    /// ```
    /// # let room = brooklet::sse::Channel::new();
    /// room.on_leave(|room, subscribers| {
    ///     let _ = room.publish(format!("{subscribers} people are here"));
    /// });
    /// ```
    pub fn on_leave(&self, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        self.set_hook(&self.publisher.hub.on_leave, hook);
    }

    /// Closes the channel and all its clones. Each subscriber receives the published events, a `close` event, and the
    /// last chunk of the stream. Has no effect if the channel was already closed or finished.
    ///
    /// Does not wait for the subscribers. If the channel has a file, runs a pending sync and closes the file. Another
    /// channel can then open the file.
    pub fn close(&self) {
        self.publisher.end(End::Close);
    }

    /// Ends the channel as [`close`](Channel::close) does, but without a `close` event. Use this method for clients
    /// that treat an unknown event as an error.
    ///
    /// A client that subscribes later still receives the events that it has missed, and then the end of the stream. The
    /// response is 204 if the client has missed no event. The channel recognizes such a client by the id that the
    /// client sends. So the last event must have an id, and a [first](Subscription::first) message must also have an
    /// id. The setting [`newcomers`](ChannelConfig::newcomers) selects the events for a client without an id.
    ///
    /// ```
    /// use brooklet::sse::{Channel, ChannelConfig, Newcomers};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let config = ChannelConfig { newcomers: Newcomers::Last(usize::MAX), ..ChannelConfig::default() };
    /// let job = Channel::with_config(config); // a client that subscribes late receives all events
    /// job.publish("half done")?;
    /// job.publish("done")?;
    /// job.finish();
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish(&self) {
        self.publisher.end(End::Finish);
    }

    /// Stores a hook in `slot`. The stored hook has only a weak reference to the channel, because a channel that owned
    /// a reference to itself would never be dropped.
    fn set_hook(&self, slot: &Mutex<Option<Hook>>, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        let publisher = Arc::downgrade(&self.publisher);
        let hook: Hook = Arc::new(move |subscribers| {
            if let Some(publisher) = publisher.upgrade() {
                hook(&Channel { publisher }, subscribers);
            }
        });
        let replaced = lock(slot).replace(hook);
        drop(replaced); // after the lock is released, because this may run code of the program
    }
}

/// Returns the end time of a subscription that begins now: after `max_age`, or after a random time that is up to a
/// tenth shorter.
fn end_of_age(max_age: Option<Duration>) -> Option<Instant> {
    let max_age = max_age?;
    Instant::now().checked_add(max_age - max_age / 1_000 * server::jitter(0..100) as u32)
}

/// Sends the head of a subscriber's response, and the reconnection time if there is one. Returns the socket, which is
/// then non-blocking.
fn start_stream(conn: Connection, retry: Option<Duration>) -> io::Result<Output<Socket>> {
    let conn = start_response(conn, retry)?;
    let framing = Framing::of(conn.request());
    let socket = conn.into_socket();
    socket.set_nonblocking(true)?;
    Ok(Output::new(socket, framing))
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("subscribers", &self.subscribers())
            .finish_non_exhaustive()
    }
}
