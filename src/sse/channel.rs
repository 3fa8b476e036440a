//! One event to many subscribers: in order, once, or told.
//!
//! A channel keeps one log of what was published, and a subscriber is a socket and a position in that log. What it was not
//! sent yet is the log behind its position: nothing is queued for anybody, and memory does not grow with slow readers.
//! Subscribing and replaying are one step under one lock, so nothing falls between.

use super::broadcast::{self, Subscriber};
use super::connection::start_response;
use super::cursor::{Cursor, Progress};
use super::http::{Form, Method, Response, StatusCode};
use super::log::{Id, Log};
use super::message::{self, Message};
use super::server::{Context, Socket};
use std::fmt;
use std::io::{self, ErrorKind};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How long a publisher may be held up for a round to begin: longer than a round to ten thousand takes.
const PACE: Duration = Duration::from_millis(100);

/// How a [`Channel`] keeps its history and treats its subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// How many events are kept, for those who come back and those who are behind. Default: 1,024.
    pub max_events: usize,
    /// How many bytes of events are kept. It bounds one event too. Default: 4 MiB, which the kernel takes for one client.
    pub max_bytes: usize,
    /// After how long a silence a subscriber is sent a comment, to within 4 s. Default: 15 s, as proxies give up after 30
    /// to 60.
    pub keep_alive: Duration,
    /// How long clients are told to wait before they reconnect. Default: nothing is said, and browsers wait some 3 s.
    pub retry: Option<Duration>,
    /// What becomes of a subscriber that reads so slowly that the history no longer has what it gets next. Default:
    /// [`Lag::Disconnect`].
    pub lag: Lag,
    /// What a client gets that comes without `Last-Event-ID`. Default: [`Newcomers::FromNow`].
    pub newcomers: Newcomers,
}

/// What becomes of a subscriber that has fallen out of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// Its connection is cut. An `EventSource` reconnects by itself, and is told of the gap then.
    Disconnect,
    /// It gets the event `gap`, and goes on with the oldest event that is kept.
    Skip,
}

/// What a newcomer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomers {
    /// What is published from now on.
    FromNow,
    /// The last so many events first.
    Last(usize),
}

impl Default for ChannelConfig {
    fn default() -> ChannelConfig {
        ChannelConfig {
            max_events: 1_024,
            max_bytes: 4 * 1024 * 1024,
            keep_alive: Duration::from_secs(15),
            retry: None,
            lag: Lag::Disconnect,
            newcomers: Newcomers::FromNow,
        }
    }
}

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
    handle: Arc<Handle>,
}

/// What the clones of a channel share, and broadcasters do not: with the last of them the channel closes.
struct Handle {
    hub: Arc<Hub>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.hub.close();
    }
}

/// What a channel and its broadcasters share.
pub struct Hub {
    number: usize,
    config: ChannelConfig,
    state: Mutex<State>,
    /// A round has begun.
    round: Condvar,
    subscribers: AtomicUsize,
    /// What each broadcaster has of this channel.
    shards: Vec<Shard>,
    on_join: Mutex<Option<Hook>>,
    on_leave: Mutex<Option<Hook>>,
    handle: Mutex<Weak<Handle>>,
}

type Hook = Arc<dyn Fn(&Channel, usize) + Send + Sync>;

struct State {
    log: Log,
    closed: bool,
    /// The position that each broadcaster's last round went up to.
    rounds: Vec<u64>,
}

#[derive(Default)]
struct Shard {
    subscribers: AtomicUsize,
    /// It was told that there is news, and has not looked yet.
    told: AtomicBool,
}

impl Default for Channel {
    fn default() -> Channel {
        Channel::new()
    }
}

impl Channel {
    /// Makes a channel with the default settings.
    pub fn new() -> Channel {
        Channel::with(ChannelConfig::default())
    }

    /// Makes a channel.
    pub fn with(config: ChannelConfig) -> Channel {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let hub = Arc::new(Hub {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(State {
                log: Log::new(config.max_events, config.max_bytes),
                closed: false,
                rounds: vec![0; broadcast::all().len()],
            }),
            round: Condvar::new(),
            config,
            subscribers: AtomicUsize::new(0),
            shards: broadcast::all().iter().map(|_| Shard::default()).collect(),
            on_join: Mutex::new(None),
            on_leave: Mutex::new(None),
            handle: Mutex::new(Weak::new()),
        });
        let handle = Arc::new(Handle { hub });
        *lock(&handle.hub.handle) = Arc::downgrade(&handle);
        Channel { handle }
    }

    /// Subscribes the client that asks: takes its connection over, and returns the response that says so.
    ///
    /// A client that comes back with `Last-Event-ID`, or with `lastEventId` in the query if it cannot set fields, goes on
    /// behind that event. HEAD gets the head alone, another method than GET a 405, and a channel that is closed answers
    /// 204, on which an `EventSource` stops for good.
    pub fn subscribe(&self, ctx: Context<'_>) -> Response {
        let hub = &self.handle.hub;
        if !matches!(ctx.method(), Method::Get | Method::Head) {
            return Response::status(StatusCode::METHOD_NOT_ALLOWED).header("Allow", "GET, HEAD");
        }
        if hub.state().closed {
            return Response::status(StatusCode::NO_CONTENT);
        }
        let index = hub.next_shard();
        let broadcaster = &broadcast::all()[index];
        if let Err(error) = broadcaster.expect() {
            let mut unavailable = Response::status(StatusCode::SERVICE_UNAVAILABLE);
            unavailable.cause = Some(error);
            return unavailable;
        }
        let last_event_id = last_event_id(&ctx);
        let (conn, no_result) = ctx.takeover_conn();
        let mut first = Vec::new();
        if let Some(retry) = hub.config.retry {
            Message::new().retry(retry).encode(&mut first).expect("a number is valid");
        }
        let started = start_response(conn, &first).and_then(|conn| {
            let socket = conn.into_socket();
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match started {
            Ok(socket) => {
                let cursor = hub.join(index, last_event_id.as_deref());
                broadcaster.join(Arc::clone(hub), Subscriber::new(socket, cursor));
                hub.call(&hub.on_join);
            }
            Err(_) => broadcaster.leave(), // the client is gone, or wanted the head alone
        }
        no_result
    }

    /// Publishes an event: returns as soon as it is in the history. The event gets an id, unless the message brings one of
    /// its own; resuming works by either.
    ///
    /// This never waits for a subscriber. But who publishes faster than the machine can send, for longer than half of the
    /// history lasts, is held up until the next round of writes begins, so that a burst does not leave everybody behind;
    /// for a tenth of a second at the most.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a message that the format cannot hold, or that is larger than
    /// [`max_bytes`](ChannelConfig::max_bytes): nobody gets it. `BrokenPipe` if the channel is closed.
    pub fn publish(&self, message: impl Into<Message>) -> io::Result<Id> {
        let message = message.into();
        let hub = &self.handle.hub;
        let id = {
            let mut state = hub.paced();
            if state.closed {
                return Err(io::Error::new(ErrorKind::BrokenPipe, "the channel is closed"));
            }
            state.log.append(&message)?
        };
        hub.tell();
        Ok(id)
    }

    /// Returns how many subscribers there are. One that has left is counted until that is noticed, within 5 s.
    pub fn subscribers(&self) -> usize {
        self.handle.hub.subscribers.load(Ordering::SeqCst)
    }

    /// Calls `hook` when somebody has joined, with how many are there now; in the thread that subscribed them. It may
    /// publish. The last hook wins.
    pub fn on_join(&self, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        *lock(&self.handle.hub.on_join) = Some(Arc::new(hook));
    }

    /// Calls `hook` when somebody has left, with how many are there now; in the thread that writes to all of them, so it
    /// must be quick. It may publish. The last hook wins.
    pub fn on_leave(&self, hook: impl Fn(&Channel, usize) + Send + Sync + 'static) {
        *lock(&self.handle.hub.on_leave) = Some(Arc::new(hook));
    }

    /// Closes the channel, for all clones: everybody is sent what was published, then the event `close`, then the end.
    /// Returns at once.
    pub fn close(&self) {
        self.handle.hub.close();
    }
}

/// The header wins over the query.
fn last_event_id(ctx: &Context<'_>) -> Option<String> {
    let header = ctx.headers().get("last-event-id").map(str::to_owned);
    header.or_else(|| Form::parse(ctx.request().query()?).get("lastEventId"))
}

impl Hub {
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The broadcaster for the next subscriber: the channel's own as long as they are few, then all in turn.
    fn next_shard(&self) -> usize {
        match self.subscribers.load(Ordering::Relaxed) {
            few if few < broadcast::CROWD => self.number % self.shards.len(),
            many => many % self.shards.len(),
        }
    }

    /// The state, once no broadcaster is so far behind that what is published now may evict what it has not sent.
    fn paced(&self) -> MutexGuard<'_, State> {
        let state = self.state();
        if broadcast::is_this_thread() {
            return state; // a hook would wait for its own thread
        }
        let is_far_behind = |state: &mut State| {
            let mut rounds = self.shards.iter().zip(&state.rounds);
            let is_far = |(shard, round): (&Shard, &u64)| {
                shard.subscribers.load(Ordering::SeqCst) > 0 && state.log.is_half_behind(*round)
            };
            !state.closed && rounds.any(is_far)
        };
        let waited = self.round.wait_timeout_while(state, PACE, is_far_behind);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Counts a subscriber in and finds its place. One step: what is published before it is behind that place, and what
    /// is published after finds it counted.
    fn join(&self, index: usize, last_event_id: Option<&str>) -> Cursor {
        let mut state = self.state();
        if self.shards[index].subscribers.load(Ordering::SeqCst) == 0 {
            state.rounds[index] = state.log.end();
        }
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        self.shards[index].subscribers.fetch_add(1, Ordering::SeqCst);
        Cursor::new(&state.log, last_event_id, self.config.newcomers)
    }

    /// Counts a subscriber out.
    pub fn left(&self, index: usize) {
        self.shards[index].subscribers.fetch_sub(1, Ordering::SeqCst);
        self.subscribers.fetch_sub(1, Ordering::SeqCst);
        self.call(&self.on_leave);
    }

    fn call(&self, hook: &Mutex<Option<Hook>>) {
        let hook = lock(hook).clone();
        let handle = lock(&self.handle).upgrade();
        if let (Some(hook), Some(handle)) = (hook, handle) {
            let channel = Channel { handle };
            // A hook that panics has said so on standard error, and must not take the broadcaster along.
            let _ = catch_unwind(AssertUnwindSafe(|| hook(&channel, channel.subscribers())));
        }
    }

    /// Tells the broadcasters that have subscribers of this channel, each once until it looks.
    fn tell(self: &Arc<Hub>) {
        for (shard, broadcaster) in self.shards.iter().zip(broadcast::all()) {
            if shard.subscribers.load(Ordering::SeqCst) > 0 && !shard.told.swap(true, Ordering::SeqCst) {
                broadcaster.tell(Arc::clone(self));
            }
        }
    }

    /// The broadcaster looks now: what is published from here on, it is to be told of.
    pub fn heard(&self, index: usize) {
        self.shards[index].told.store(false, Ordering::SeqCst);
    }

    fn close(self: &Arc<Hub>) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.closed, true) {
            state.log.append_close(&message::goodbye(false));
        }
        drop(state);
        self.tell();
    }

    /// Copies what a round sends: all that was published since the last one, or as much of it as is kept. Returns where the
    /// copy begins, and whether the channel is closed.
    pub fn copy_round(&self, index: usize, position: u64, out: &mut Vec<u8>) -> (u64, bool) {
        let copied = self.copy(position, usize::MAX, out);
        self.state().rounds[index] = copied.0 + out.len() as u64;
        self.round.notify_all();
        copied
    }

    /// Copies what lies behind a position, up to the frame that byte `most` of it lies in; or behind the start, if that is later. Returns where the
    /// copy begins, and whether the channel is closed.
    pub fn copy(&self, position: u64, most: usize, out: &mut Vec<u8>) -> (u64, bool) {
        out.clear();
        let state = self.state();
        let base = position.max(state.log.start());
        let (front, back) = state.log.from(base).expect("the start and what is behind it are kept");
        let length = match most {
            usize::MAX => front.len() + back.len(),
            most => (state.log.frame_end(base + most as u64).min(state.log.end()) - base) as usize,
        };
        let (front, back) = (&front[..front.len().min(length)], &back[..length.saturating_sub(front.len())]);
        out.extend_from_slice(front);
        out.extend_from_slice(back);
        (base, state.closed)
    }

    /// Remembers for one who is behind what it had, in case it has to skip.
    pub fn note(&self, subscriber: &mut Subscriber) {
        if self.config.lag == Lag::Skip {
            subscriber.cursor().note_last_id(&self.state().log);
        }
    }

    pub fn skip(&self, cursor: &mut Cursor, socket: &mut Socket) -> io::Result<Progress> {
        cursor.skip(&self.state().log, socket)
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("subscribers", &self.subscribers())
            .finish_non_exhaustive()
    }
}
