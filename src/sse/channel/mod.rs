//! One event to many subscribers: in order, once, or with a `gap` event in its place.
//!
//! A channel keeps one history of the published events, and a subscriber is a socket and an offset in that history. The bytes
//! past the offset are still to be sent: no subscriber has a queue, and memory does not grow with slow readers. One lock
//! covers both finding the offset of a new subscriber and appending an event, so no event is lost between the two.

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

/// Sends the same events to any number of clients. Clones are handles to the same channel. When the last one is dropped, the
/// channel ends its streams as [`finish`](Channel::finish) does: a page reconnects, and may find another channel there.
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
/// Every subscriber receives every event once and in order, also after it reconnects, as far back as the history reaches. If
/// events are missing, it receives a `gap` event in their place. Its data is two lines: the id of the last event that
/// the client received, and the id of the first event that follows. A line is empty if its id is not known.
///
/// # A channel for each user or topic
///
/// A map of channels removes those that nobody listens to, or it grows without bound. It must not remove a channel that
/// another thread has just found in it, and is about to subscribe to. This map removes channels before it grows, and keeps
/// a channel that has subscribers, or is held outside of the map:
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

/// Shared by the clones of a channel, but not by its broadcasters: the channel finishes with the last clone.
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

    /// A channel with a history, and a store that the history was restored from.
    fn with_history(config: ChannelConfig, history: History, store: Option<Box<dyn Store>>) -> Channel {
        let hub = Arc::new(Hub::new(config, history, store, broadcaster::all().len()));
        Channel { publisher: Arc::new(Publisher { hub }) }
    }

    /// Subscribes the client: takes the request's connection over, and returns the response for the handler to return.
    ///
    /// A client that sends `Last-Event-ID` resumes after that event. A client that cannot set header fields may send
    /// `lastEventId` in the query ([`last_event_id`](super::super::Request::last_event_id) says how both are read). A HEAD
    /// request receives only the head. Every other method receives the stream, so a POST may ask and listen: its handler must
    /// read the body first, or a client that sends more than 64 KiB is disconnected. The response is 204 if the channel was
    /// closed, or if it was finished and has no more events for the client. An `EventSource` does not reconnect after that.
    pub fn subscribe(&self, ctx: Context<'_>) -> Response {
        self.subscribe_with(ctx, Subscription::new())
    }

    /// Subscribes the client as [`subscribe`](Channel::subscribe) does, with a first message, an end or a tag of its own. The
    /// response is 500 if the format cannot hold the first message.
    pub fn subscribe_with(&self, ctx: Context<'_>, subscription: Subscription<'_>) -> Response {
        let hub = &self.publisher.hub;
        let tag = subscription.tag.map(|tag| hub.tags.add(tag));
        // Before the head is sent: a client whose stream is open misses no event from then on.
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

    /// Publishes an event, and returns its id. The channel gives it one unless the message brings its own. A client can
    /// resume by either, if no two events have the same id.
    ///
    /// Returns as soon as the event is in the history. In a channel that was opened with a file, the event is also in the file
    /// by then: this waits for concurrent publishers, and for the disk if [`sync`](ChannelConfig::sync) says so.
    ///
    /// It never waits for a subscriber. If more than half of the history is still to be sent, this blocks until the next round
    /// of writes begins, for at most 100 ms. That keeps a burst from evicting the next event of every subscriber.
    ///
    /// # Errors
    ///
    /// After an error the event is neither in the history nor in the file, and the next one may succeed.
    ///
    /// - Returns `InvalidInput` if the format cannot hold the message, or if its frame is larger than
    ///   [`max_bytes`](ChannelConfig::max_bytes).
    /// - Returns `BrokenPipe` if the channel was closed or finished.
    /// - Returns the error of writing to the file, for example if the disk is full.
    /// - Returns the error of a sync that failed since the last call. The earlier events were sent, and a power failure may
    ///   lose them.
    pub fn publish(&self, message: impl Into<Message>) -> io::Result<Id> {
        let message = message.into();
        self.append(|_| message)
    }

    /// Publishes a `gap` event in the place of events that were lost, after the last published event: for a channel whose
    /// events come from elsewhere. Every subscriber receives it, and so does a client that reconnects with an earlier id. Its
    /// data is the id of the last published event, and an empty line because the next id is not known. It has no id of its
    /// own, so a client that reconnects right after it receives it again.
    ///
    /// # Errors
    ///
    /// As [`publish`](Channel::publish).
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

    /// Returns the number of subscribers. A client that left is counted for at most 5 s.
    pub fn subscribers(&self) -> usize {
        self.publisher.hub.subscribers()
    }

    /// Disconnects the subscribers for whose [tag](Subscription::tag) `select` returns `true`, and returns how many they are.
    /// They are sent no event that is published after this returns, and no `close` event, so an `EventSource` reconnects: a
    /// guard decides whether it may. Subscribers without a tag stay.
    ///
    /// A handler may be between its check of the user and `subscribe_with` when this is called. If it checks again after
    /// `subscribe_with`, and calls this itself for a user that was banned meanwhile, none is overlooked.
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

    /// Calls `hook` after a client has subscribed, with the number of subscribers, in the thread that subscribed it. The hook
    /// may publish. A later hook replaces an earlier one.
    pub fn on_join(&self, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        self.set_hook(&self.publisher.hub.on_join, hook);
    }

    /// Calls `hook` after one or more clients have left, with the number of subscribers. It runs in a thread that writes to
    /// all subscribers, so it must be quick. The hook may publish; if the channel has a file, all subscribers wait for that. A
    /// later hook replaces an earlier one. The hook should use the channel that it receives: a hook that holds a clone keeps
    /// the channel open forever.
    pub fn on_leave(&self, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        self.set_hook(&self.publisher.hub.on_leave, hook);
    }

    /// Closes the channel and all its clones. Each subscriber receives the events that were published, then the event `close`,
    /// and then the last chunk, which ends the stream as a whole one. Returns at once; with a file, after a sync that is due.
    /// The file can then be opened again. No effect if the channel was closed or finished before.
    pub fn close(&self) {
        self.publisher.end(End::Close);
    }

    /// Ends the channel as [`close`](Channel::close) does, but without a `close` event: for clients that treat an unknown event
    /// as an error. A client that subscribes later still receives the events that it missed, and then the end of the stream. If
    /// it has missed none, the response is 204. A client that missed the last event reconnects with its id, so the last event
    /// needs one, and so does a [first](Subscription::first) message. A newcomer receives the events that
    /// [`newcomers`](ChannelConfig::newcomers) says.
    ///
    /// ```
    /// use brooklet::sse::{Channel, ChannelConfig, Newcomers};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let config = ChannelConfig { newcomers: Newcomers::Last(usize::MAX), ..ChannelConfig::default() };
    /// let job = Channel::with_config(config); // a client that comes late receives everything
    /// job.publish("half done")?;
    /// job.publish("done")?;
    /// job.finish();
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish(&self) {
        self.publisher.end(End::Finish);
    }

    /// The hook receives the channel. The slot holds the channel weakly: a channel that held itself would never close.
    fn set_hook(&self, slot: &Mutex<Option<Hook>>, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        let publisher = Arc::downgrade(&self.publisher);
        let hook: Hook = Arc::new(move |subscribers| {
            if let Some(publisher) = publisher.upgrade() {
                hook(&Channel { publisher }, subscribers);
            }
        });
        let replaced = lock(slot).replace(hook);
        drop(replaced); // without the lock, because this drops values of the program
    }
}

/// When a connection that begins now has its greatest age, or up to a tenth earlier.
fn end_of_age(max_age: Option<Duration>) -> Option<Instant> {
    let max_age = max_age?;
    Instant::now().checked_add(max_age - max_age / 1_000 * server::jitter(0..100) as u32)
}

/// Sends the head of a subscriber's response, and the delay before it reconnects.
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
