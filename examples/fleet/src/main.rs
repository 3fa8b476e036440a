//! One node of a fleet: any number of these, behind nginx, share one Redis stream as their log. What is published at one
//! is sent by all, and who loses one goes on at another where it left off.
//!
//! `examples/fleet/run` starts Redis, three nodes and nginx, and prints an address to open and a `curl` line to try. By
//! hand, a node is `cargo run -- 127.0.0.1:8081 redis://127.0.0.1:6379/ one`; then `curl -N http://127.0.0.1:8081/events`
//! listens, and `curl -d hello http://127.0.0.1:8081/publish` speaks.
//!
//! An event's id is that of its entry in the stream, the same at every node. So `Last-Event-ID` means the same at every
//! node, and what this file has to see to is that it never means more than the node knows.

mod stream;

use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers};
use brooklet::{Config, Context, Response, Server, StatusCode};
use redis::{Connection, RedisResult};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{env, io, process, thread};
use stream::{Entry, Id, Log};

/// How many bytes an event may have. As lines that are all empty they become six times as many.
const MAX_BODY: usize = 4_096;

/// How long a client waits before it comes back. A browser's three seconds are long where another node is there already.
const RETRY: Duration = Duration::from_secs(1);

/// How long a client that is ahead of this node is kept waiting for it. Nodes are some milliseconds apart.
const CATCH_UP: Duration = Duration::from_secs(1);

/// How often a Redis that is gone is looked for.
const RECONNECT: Duration = Duration::from_millis(200);

/// nginx gives up what is silent for 15 s, so that it notices a node that hangs. This leaves room for two comments.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

struct Node {
    name: String,
    log: Log,
    /// Has all that the log has: whom it tells of a gap, nobody could have told better.
    channel: Channel,
    /// The event that the channel was told last.
    told: Mutex<Option<Id>>,
    news: Condvar,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or(default.to_owned());
    let (address, url) = (argument("127.0.0.1:8080"), argument("redis://127.0.0.1:6379/"));
    let channel = Channel::with_config(ChannelConfig {
        max_events: stream::MOST,
        max_bytes: stream::MOST * 7 * MAX_BODY,
        keep_alive: KEEP_ALIVE,
        retry: Some(RETRY),
        newcomers: Newcomers::Last(20), // a page shows at once what this is about
        ..ChannelConfig::default()
    });
    let (told, news) = (Mutex::default(), Condvar::new());
    let node = Arc::new(Node { name: argument("one"), log: Log::at(&url)?, channel, told, news });

    // Nobody is served before the history is there: a client with an id would be told of a gap that is none. Until then
    // the port is closed, and nginx sends everybody elsewhere.
    let mut follower = Follower { node: node.clone(), redis: None, place: None, sure: false, idle: false };
    follower.go_on();
    thread::spawn(move || loop {
        follower.go_on();
    });
    let (listen, speak, die) = (node.clone(), node.clone(), node.clone());
    let server = Server::bind(&address)?
        .config(Config { max_body_bytes: MAX_BODY as u64, ..Config::default() })
        .get("/", |_| Response::html(include_str!("fleet.html")))
        .get("/events", move |ctx| listen.subscribe(ctx))
        .post("/publish", move |ctx| speak.publish(ctx))
        .post("/kill/{node}", move |ctx| die.kill(ctx.param("node")));
    println!("node {1}: curl -N http://{0}/events & curl -d hello http://{0}/publish", server.local_addr(), node.name);
    Ok(server.serve()?)
}

impl Node {
    fn publish(&self, mut ctx: Context<'_>) -> io::Result<Response> {
        let text = ctx.body_text()?;
        if text.is_empty() {
            return Ok(Response::text("an event has a text\n").with_status(StatusCode::BAD_REQUEST));
        }
        Ok(match self.log.append(&text) {
            Ok(id) => Response::text(id + "\n"),
            Err(error) => {
                eprintln!("node {}: not published: {error}", self.name);
                Response::text("Redis does not answer: the event is not acknowledged, and may yet appear\n")
                    .with_status(StatusCode::SERVICE_UNAVAILABLE)
                    .header("Retry-After", "1")
            }
        })
    }

    /// The channel knows all that this node has read, which is not all that a client may have from another: that client
    /// it would tell of a gap, and send what it has already.
    fn subscribe(&self, mut ctx: Context<'_>) -> io::Result<Response> {
        // An `EventSource` shows its page no fields of the answer. A cookie it can read.
        ctx.append_response_header("Set-Cookie", &format!("node={}; Path=/; SameSite=Strict", self.name))?;
        let asked = ctx.headers().get("last-event-id").filter(|id| !id.is_empty()).map(str::to_owned);
        let asked = asked.or_else(|| ctx.query("lastEventId")).unwrap_or_default();
        // Only an id that the log does not have, for sure, is a gap for every node.
        let is_early = |id: Id| !self.catches_up(id) && !matches!(self.log.has(id), Ok(false));
        if asked.parse().is_ok_and(is_early) {
            return Ok(come_back());
        }
        Ok(self.channel.subscribe(ctx))
    }

    /// Waits until the channel has been told of that event, or of a later one.
    fn catches_up(&self, id: Id) -> bool {
        let is_behind = |told: &mut Option<Id>| *told < Some(id);
        let (_told, waited) = self.news.wait_timeout_while(self.told.lock().unwrap(), CATCH_UP, is_behind).unwrap();
        !waited.timed_out()
    }

    /// Ends as with SIGKILL: no goodbye to anybody.
    fn kill(&self, name: &str) -> StatusCode {
        if name == self.name {
            process::exit(137);
        }
        StatusCode::NOT_FOUND
    }
}

/// An event stream that ends at once. Its client comes back with the id that it had, and perhaps to another node. After any
/// other answer than a stream an `EventSource` would give up for good.
fn come_back() -> Response {
    let stream = Message::new().retry(RETRY).to_string();
    Response::bytes("text/event-stream", stream.into_bytes()).header("Cache-Control", "no-store")
}

/// Reads the log, and tells the channel.
struct Follower {
    node: Arc<Node>,
    redis: Option<Connection>,
    /// What is read next lies behind this; `None` before the history has been read.
    place: Option<Id>,
    /// The entry at the place was read. If the log does not have it any more, something else may be missing too.
    sure: bool,
    /// There was no news the last time.
    idle: bool,
}

impl Follower {
    /// Reads what there is, however often Redis goes meanwhile.
    fn go_on(&mut self) {
        let Err(error) = self.read() else { return };
        eprintln!("node {}: Redis is gone: {error}", self.node.name);
        while self.read().is_err() {
            thread::sleep(RECONNECT);
        }
        eprintln!("node {}: Redis is back", self.node.name);
    }

    fn read(&mut self) -> RedisResult<()> {
        let mut redis = self.redis.take().map_or_else(|| self.node.log.connect(), Ok)?;
        let entries = match self.place {
            Some(place) => self.news(&mut redis, place)?,
            None => stream::newest(&mut redis, stream::MOST)?,
        };
        self.place.get_or_insert_default();
        self.idle = entries.is_empty();
        self.publish(entries);
        self.redis = Some(redis);
        Ok(())
    }

    /// Each time from the last entry on, and with it: if that is still there, nothing behind it is gone, for Redis trims
    /// from the old end and answers at one point in time. So there is nothing else to look after when a connection is new,
    /// when Redis is, or when this process slept while others trimmed.
    fn news(&mut self, redis: &mut Connection, place: Id) -> RedisResult<Vec<Entry>> {
        if self.idle {
            stream::wait(redis, place)?;
        }
        let mut entries = stream::from(redis, place)?;
        if entries.first().is_some_and(|entry| entry.id == place) {
            entries.remove(0);
        } else if self.sure {
            if entries.is_empty() {
                // Redis has begun anew, with nothing or with an older copy. What comes next lies behind what is there;
                // but not behind what has come since it was asked.
                let newest = stream::newest(redis, 1)?.last().map_or(Id::default(), |entry| entry.id);
                self.place = Some(place.min(newest));
                self.sure = false;
            }
            self.tell_gap();
        }
        Ok(entries)
    }

    fn publish(&mut self, entries: Vec<Entry>) {
        for Entry { id, text } in entries {
            let message = Message::new().id(id).data(text);
            if let Err(error) = self.node.channel.publish(message) {
                // Not from one of us: `publish` takes no text that would not fit.
                eprintln!("node {}: {id} is left out: {error}", self.node.name);
                self.tell_gap();
            }
            (self.place, self.sure) = (Some(id), true);
            *self.node.told.lock().unwrap() = Some(id);
        }
        self.node.news.notify_all();
    }

    /// To whom had nothing, nothing is lost.
    fn tell_gap(&self) {
        if self.node.told.lock().unwrap().is_some() {
            // It fails only when the channel is closed, which nobody does.
            let _ = self.node.channel.publish_gap();
        }
    }
}
