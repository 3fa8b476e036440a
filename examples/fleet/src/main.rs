//! One node of a fleet. The nodes run behind nginx and share one Redis stream as their log. Each node sends the events
//! of all nodes. If a client loses its node, it continues at another node with the next event.
//!
//! `examples/fleet/run` starts Redis, three nodes and nginx, and prints an address to open and a `curl` command to try.
//! `cargo run -- 127.0.0.1:8081 redis://127.0.0.1:6379/ one` starts a single node. Then
//! `curl -N http://127.0.0.1:8081/events` prints the events, and `curl -d hello http://127.0.0.1:8081/publish`
//! publishes one.
//!
//! The id of an event is the id of its entry in the stream, so `Last-Event-ID` means the same at every node. A client
//! may send an id that its new node has not read yet. The node then waits for this entry.

mod stream;

use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers};
use brooklet::{Config, Context, Response, Server, StatusCode};
use redis::{Connection, RedisResult};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{env, io, process, thread};
use stream::{Entry, Id, Log};

/// The maximum number of bytes of an event. A frame can have six times as many bytes, if all lines of the event are
/// empty.
const MAX_BODY: usize = 4_096;

/// How long a client waits before it reconnects. The three seconds of a browser are too long, because another node can
/// serve the client at once.
const RETRY: Duration = Duration::from_secs(1);

/// How long a client waits for a node that has not read the client's last event yet. Nodes are a few milliseconds
/// apart.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The time between two attempts to connect to Redis again.
const RECONNECT: Duration = Duration::from_millis(200);

/// The time without an event after which a stream sends a comment. To notice a node that hangs, nginx closes a stream
/// after 15 s of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

struct Node {
    name: String,
    log: Log,
    /// The channel keeps as many events as the log, so a client that receives a `gap` event here would receive it
    /// everywhere.
    channel: Channel,
    /// The last event that was published to the channel.
    last_published: Mutex<Option<Id>>,
    published: Condvar,
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
        newcomers: Newcomers::Last(20), // a new page shows these events at once
        ..ChannelConfig::default()
    });
    let node = Arc::new(Node {
        name: argument("one"),
        log: Log::at(&url)?,
        channel,
        last_published: Mutex::default(),
        published: Condvar::new(),
    });

    // The node reads the log before it accepts clients. Otherwise, a client with an id would receive a `gap` event
    // although no event is lost. Until then the port is closed, and nginx sends clients to other nodes.
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
            return Ok(Response::text("the body must not be empty\n").with_status(StatusCode::BAD_REQUEST));
        }
        Ok(match self.log.append(&text) {
            Ok(id) => Response::text(id + "\n"),
            Err(error) => {
                eprintln!("node {}: not published: {error}", self.name);
                Response::text("Redis does not answer: the event may or may not be published\n")
                    .with_status(StatusCode::SERVICE_UNAVAILABLE)
                    .header("Retry-After", "1")
            }
        })
    }

    /// Subscribes a client to the channel. The client may have received an event from another node that this node has
    /// not read yet. The channel would send such a client a `gap` event, and then events again. So the node first waits
    /// for the event.
    fn subscribe(&self, mut ctx: Context<'_>) -> io::Result<Response> {
        // A page cannot read the header fields that an `EventSource` receives, but it can read a cookie.
        ctx.append_response_header("Set-Cookie", &format!("node={}; Path=/; SameSite=Strict", self.name))?;
        let asked = ctx.headers().get("last-event-id").filter(|id| !id.is_empty()).map(str::to_owned);
        let asked = asked.or_else(|| ctx.query("lastEventId")).unwrap_or_default();
        // If the log does not have the id, waiting is useless: the client receives a `gap` event at every node.
        let is_early = |id: Id| !self.catches_up(id) && !matches!(self.log.has(id), Ok(false));
        if asked.parse().is_ok_and(is_early) {
            return Ok(come_back());
        }
        Ok(self.channel.subscribe(ctx))
    }

    /// Waits until that event or a later one was published to the channel. Returns `false` after [`CATCH_UP`].
    fn catches_up(&self, id: Id) -> bool {
        let last = self.last_published.lock().unwrap();
        let (_last, waited) = self.published.wait_timeout_while(last, CATCH_UP, |last| *last < Some(id)).unwrap();
        !waited.timed_out()
    }

    /// Ends the process at once, as SIGKILL does. Streams end without a `close` event.
    fn kill(&self, name: &str) -> StatusCode {
        if name == self.name {
            process::exit(137);
        }
        StatusCode::NOT_FOUND
    }
}

/// Returns an event stream that ends at once. The client reconnects with the same id, perhaps to another node. After
/// any other response, an `EventSource` would not reconnect.
fn come_back() -> Response {
    let stream = Message::new().retry(RETRY).to_string();
    Response::bytes("text/event-stream", stream.into_bytes()).header("Cache-Control", "no-store")
}

/// Reads the log, and publishes its entries to the channel.
struct Follower {
    node: Arc<Node>,
    redis: Option<Connection>,
    /// The id after which the next read begins. `None` until the log was read for the first time.
    place: Option<Id>,
    /// Whether the entry at `place` was read. If the log no longer has this entry, later entries may be missing too.
    sure: bool,
    /// Whether the last read returned no new entries.
    idle: bool,
}

impl Follower {
    /// Reads the new entries. If Redis fails, tries again until a read succeeds.
    fn go_on(&mut self) {
        let Err(error) = self.read() else { return };
        eprintln!("node {}: cannot read from Redis, trying again: {error}", self.node.name);
        while self.read().is_err() {
            thread::sleep(RECONNECT);
        }
        eprintln!("node {}: reads from Redis again", self.node.name);
    }

    fn read(&mut self) -> RedisResult<()> {
        let mut redis = self.redis.take().map_or_else(|| self.node.log.connect(), Ok)?;
        let entries = match self.place {
            Some(place) => self.new_entries(&mut redis, place)?,
            None => stream::newest(&mut redis, stream::MOST)?,
        };
        self.place.get_or_insert_default();
        self.idle = entries.is_empty();
        self.publish(entries);
        self.redis = Some(redis);
        Ok(())
    }

    /// Reads the entries after `place`, and the entry at `place` itself. If this entry is still in the log, no later
    /// entry was trimmed, because Redis trims the oldest entries first and reads all entries at the same moment. This
    /// one check is enough after a new connection, after a restart of Redis, and after a pause of this process.
    fn new_entries(&mut self, redis: &mut Connection, place: Id) -> RedisResult<Vec<Entry>> {
        if self.idle {
            stream::wait(redis, place)?;
        }
        let mut entries = stream::from(redis, place)?;
        if entries.first().is_some_and(|entry| entry.id == place) {
            entries.remove(0);
        } else if self.sure {
            if entries.is_empty() {
                // Redis has restarted with an empty stream or an older copy. The next read begins after the newest
                // entry of the copy. With `min`, it also returns entries that were added after the first read.
                let newest = stream::newest(redis, 1)?.last().map_or(Id::default(), |entry| entry.id);
                self.place = Some(place.min(newest));
                self.sure = false;
            }
            self.publish_gap();
        }
        Ok(entries)
    }

    fn publish(&mut self, entries: Vec<Entry>) {
        for Entry { id, text } in entries {
            let message = Message::new().id(id).data(text);
            if let Err(error) = self.node.channel.publish(message) {
                // Another program wrote this entry: `Node::publish` accepts only texts that fit into the channel.
                eprintln!("node {}: the entry {id} was not sent to clients: {error}", self.node.name);
                self.publish_gap();
            }
            self.place = Some(id);
            self.sure = true;
            *self.node.last_published.lock().unwrap() = Some(id);
        }
        self.node.published.notify_all();
    }

    /// Publishes a `gap` event, unless no event was published before it. Without earlier events, no client has missed
    /// one.
    fn publish_gap(&self) {
        if self.node.last_published.lock().unwrap().is_some() {
            // This fails only if the channel is closed, and this program does not close it.
            let _ = self.node.channel.publish_gap();
        }
    }
}
