//! One event to many subscribers: in order, once, or with a `gap` event in its place.
//!
//! A channel keeps one history of the published events, and a subscriber is a socket and an offset in that history. The bytes
//! past the offset are still to be sent: no subscriber has a queue, and memory does not grow with slow readers. One lock
//! covers both finding the offset of a new subscriber and appending an event, so no event is lost between the two.

use super::connection::start_response;
use super::http::{Form, Method, Response, StatusCode};
use super::message::Message;
use super::server::lock::lock;
use super::server::{Connection, Context, Socket};
use super::{message, server};
use history::History;
use hub::{Hook, Hub};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Store;
use subscriber::Subscriber;

mod broadcaster;
mod cursor;
mod file;
mod history;
mod hub;
mod settings;
mod store;
mod subscriber;

pub use history::Id;
pub use settings::{ChannelConfig, Lag, Newcomers};
pub use store::SyncPolicy;

/// Events for as many as want them. A handle: clones are the same channel, and when the last one is dropped its streams
/// end as with [`close`](Channel::close).
///
/// ```no_run
/// use brooklet::{sse, Server};
///
/// # fn main() -> std::io::Result<()> {
/// let news = sse::Channel::new();
/// let feed = news.clone();
/// Server::bind("127.0.0.1:8080")?
///     .get("/news", move |ctx| feed.subscribe(ctx))
///     .post("/news", move |mut ctx| news.publish(ctx.body_text()?).map(|id| id.to_string()))
///     .serve()
/// # }
/// ```
///
/// Every subscriber gets every event once and in order, across reconnections too, as far back as the history reaches.
/// Where something is missing it gets an event named `gap` in its place; its data is two lines, the id of the last event
/// that it had and of the first that it gets now, each empty if nobody knows it.
#[derive(Clone)]
pub struct Channel {
    publisher: Arc<Publisher>,
}

/// Shared by the clones of a channel, but not by its broadcasters: the channel closes with the last clone.
struct Publisher {
    hub: Arc<Hub>,
}

impl Publisher {
    fn close(&self) {
        self.hub.close();
        broadcaster::notify(&self.hub);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.close();
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

    /// Subscribes the client that asks: takes its connection over, and returns the response that says so.
    ///
    /// A client that comes back with `Last-Event-ID`, or with `lastEventId` in the query if it cannot set fields, goes on
    /// behind that event. HEAD gets the head alone, another method than GET a 405, and a channel that is closed answers
    /// 204, on which an `EventSource` stops for good.
    pub fn subscribe(&self, ctx: Context<'_>) -> Response {
        let hub = &self.publisher.hub;
        if !matches!(ctx.method(), Method::Get | Method::Head) {
            return Response::status(StatusCode::METHOD_NOT_ALLOWED).header("Allow", "GET, HEAD");
        }
        if hub.is_closed() {
            return Response::status(StatusCode::NO_CONTENT);
        }
        let index = hub.next_shard();
        let broadcaster = &broadcaster::all()[index];
        if let Err(error) = broadcaster.reserve() {
            let mut unavailable = Response::status(StatusCode::SERVICE_UNAVAILABLE);
            unavailable.cause = Some(error);
            return unavailable;
        }
        // Before the head is sent: a client whose stream is open misses no event from then on.
        let cursor = hub.cursor(last_event_id(&ctx).as_deref());
        let (conn, no_result) = ctx.takeover_conn();
        match start_stream(conn, hub.config().retry) {
            Ok(socket) => {
                hub.add_subscriber(index);
                broadcaster.add(Arc::clone(hub), Subscriber::new(socket, cursor));
                hub.call(&hub.on_join);
            }
            Err(_) => broadcaster.release(), // the client left, or the request was HEAD
        }
        no_result
    }

    /// Publishes an event: returns as soon as it is in the history. The event gets an id, unless the message brings one of
    /// its own; resuming works by either, if no two events have the same.
    ///
    /// In a channel that was [opened](Channel::open) it is in the file by then, too. This waits for others who publish at the
    /// same time and for the disk, as long as [`sync`](ChannelConfig::sync) says.
    ///
    /// It never waits for a subscriber. But who publishes faster than the machine can send, for longer than half of the
    /// history lasts, is held up until the next round of writes begins, so that a burst does not leave everybody behind;
    /// for a tenth of a second at the most.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a message that the format cannot hold, or that is larger than
    /// [`max_bytes`](ChannelConfig::max_bytes), and `BrokenPipe` if the channel is closed. Those of writing the file, as
    /// when the disk is full; and once, if the sync of what was published before has failed, which was sent and may not
    /// outlive the machine. In any case nobody gets this event, and it is not in the file; the next may fare better.
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

    /// Returns how many subscribers there are. One that has left is counted until that is noticed, within 5 s.
    pub fn subscribers(&self) -> usize {
        self.publisher.hub.subscribers()
    }

    /// Calls `hook` when somebody has joined, with how many are there now; in the thread that subscribed them. It may
    /// publish. The last hook wins.
    pub fn on_join(&self, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        self.set_hook(&self.publisher.hub.on_join, hook);
    }

    /// Calls `hook` when somebody has left, or several have together, with how many are there now; in the thread that writes
    /// to all of them, so it must be quick. It may publish; if the channel has a file, all wait for that. The last hook wins.
    /// It should use the channel that it is handed: one that holds a clone keeps the channel alive for ever.
    pub fn on_leave(&self, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        self.set_hook(&self.publisher.hub.on_leave, hook);
    }

    /// Closes the channel, for all clones: everybody is sent what was published, then the event `close`, then the end.
    /// Returns at once, but for a file: that is synced if something is due, and free for whoever opens it next.
    pub fn close(&self) {
        self.publisher.close();
    }

    /// The hook receives the channel. The slot holds the channel weakly: a channel that held itself would never close.
    fn set_hook(&self, slot: &Mutex<Option<Hook>>, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        let publisher = Arc::downgrade(&self.publisher);
        *lock(slot) = Some(Arc::new(move |subscribers| {
            if let Some(publisher) = publisher.upgrade() {
                hook(&Channel { publisher }, subscribers);
            }
        }));
    }
}

/// Sends the head of a subscriber's response, and the delay before it reconnects. Returns a non-blocking socket.
fn start_stream(conn: Connection, retry: Option<Duration>) -> io::Result<Socket> {
    let mut first = Vec::new();
    if let Some(retry) = retry {
        Message::new().retry(retry).encode(&mut first).expect("a number is valid");
    }
    let socket = start_response(conn, &first)?.into_socket();
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The id in the header field, or else in the query. An empty id counts as none (WHATWG HTML 9.2.4).
fn last_event_id(ctx: &Context<'_>) -> Option<String> {
    let id = match ctx.headers().get_all("last-event-id").next() {
        // An id that is not UTF-8 is not known either: the client receives a `gap` event, as with any unknown id.
        Some(id) => String::from_utf8_lossy(id).into_owned(),
        None => Form::parse(ctx.request().query()?).get("lastEventId")?,
    };
    (!id.is_empty()).then_some(id)
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("subscribers", &self.subscribers())
            .finish_non_exhaustive()
    }
}
