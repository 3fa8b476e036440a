//! The test kills a server a hundred times at random moments, while threads publish and listen. The server's channel
//! has a file.
//!
//! Each listener receives the acknowledged events once and in order. A listener may also receive an event that was not
//! acknowledged, because the server was killed before it sent the acknowledgement. On a busy machine, the history may
//! have evicted the next event of a slow listener. This listener then receives a `gap`. The test checks that the
//! history had no room for the missing events.

use super::event_stream::{parse, Event, Parser};
use super::examples::Example;
use super::journal::{testbed, Folder};
use super::support::{Chunks, Random, TIMEOUT};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Instant;

const ROUNDS: usize = 100;
const PUBLISHERS: usize = 3;
const LISTENERS: usize = 4;

/// The maximum size of the history in bytes. The size is small, so that the server often rotates the file and is
/// sometimes killed during a rotation.
const MAX_BYTES: usize = 100_000;

/// An upper bound on the size of an event in bytes.
const LARGEST: usize = 2_100;

/// The data of the first and of the last event.
const BEGIN: &str = "begin";
const END: &str = "end";

/// The state that publishers and listeners share.
#[derive(Default)]
struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The address of the server. `None` while the server restarts.
    address: Option<SocketAddr>,
    /// The number of servers that have been started.
    round: usize,
    /// The data of all events that publishers have sent, in order. The server may not have received every event.
    sent: Vec<String>,
    acknowledged: Vec<String>,
    listening: usize,
    /// The number of listeners that have received the first event.
    begun: usize,
    /// Whether publishers must stop.
    over: bool,
}

impl Stage {
    /// Waits until `take` returns a value, and returns this value. Panics after four times [`TIMEOUT`].
    fn wait<T>(&self, what: &str, mut take: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + 4 * TIMEOUT;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(taken) = take(&mut state) {
                return taken;
            }
            assert!(Instant::now() < deadline, "timed out waiting for {what}");
            state = self.changed.wait_timeout(state, TIMEOUT).unwrap().0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// Waits for a server of a later round. Returns the number of this round and the address of the server, or `None`
    /// if publishers must stop.
    fn server_after(&self, round: usize) -> Option<(usize, SocketAddr)> {
        self.wait("a server", |state| match state.address {
            _ if state.over => Some(None),
            Some(address) if state.round > round => Some(Some((state.round, address))),
            _ => None,
        })
    }
}

/// Publishes events one after another until publishers must stop, and records each acknowledgement.
fn publish(stage: &Stage, publisher: usize) {
    let (mut round, mut n) = (0, 0);
    while let Some((this, address)) = stage.server_after(round) {
        round = this;
        let Ok(mut stream) = connect(address) else { continue };
        loop {
            // Sizes differ, so that a large event can evict many small events.
            let data = format!("{publisher} {n} {}", "x".repeat(if n % 16 == 0 { 2_000 } else { 0 }));
            n += 1; // an event is never sent again, even if it fails
            if !publish_one(stage, &mut stream, data) {
                break; // the server was killed
            }
        }
    }
}

/// Publishes an event, and records the event. If the server acknowledges the event, also records this and returns
/// `true`.
fn publish_one(stage: &Stage, stream: &mut TcpStream, data: String) -> bool {
    stage.change(|state| state.sent.push(data.clone()));
    let acknowledged = is_acknowledged(stream, &data);
    if acknowledged {
        stage.change(|state| state.acknowledged.push(data));
    }
    acknowledged
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(2 * TIMEOUT))?;
    Ok(stream)
}

fn is_acknowledged(stream: &mut TcpStream, data: &str) -> bool {
    let length = data.len();
    let request = format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{data}");
    let (mut answer, mut scratch) = (Vec::new(), [0; 1024]);
    let mut went_well = stream.write_all(request.as_bytes()).is_ok();
    while went_well && !answer.ends_with(b"\r\n\r\nok") {
        let read = stream.read(&mut scratch).unwrap_or(0);
        answer.extend_from_slice(&scratch[..read]);
        went_well = read > 0;
    }
    went_well && answer.starts_with(b"HTTP/1.1 200 ")
}

/// The events and gaps that a listener has received, and its last event id.
#[derive(Default)]
struct Life {
    /// The sequence number and the data of each event.
    events: Vec<(usize, String)>,
    gaps: Vec<Gap>,
    last_id: Option<String>,
}

/// A `gap` event. The server sends this event if the history no longer contains the listener's next event.
struct Gap {
    /// The sequence number of the last event before the gap.
    had: usize,
    /// The sequence number of the first event after the gap.
    next: usize,
    /// The number of events that publishers had sent when the listener received the gap. The server had received no
    /// other events.
    sent: usize,
}

impl Life {
    fn receive(&mut self, event: Event, stage: &Stage) {
        if event.kind == "gap" {
            let (had, next) = event.data.split_once('\n').unwrap();
            assert_eq!(Some(had), self.last_id.as_deref(), "the gap begins after the last received event");
            let (had, next) = (sequence(had), sequence(next));
            assert!(next > had + 1, "the gap from {had} to {next} skips no event");
            let sent = stage.state.lock().unwrap().sent.len();
            self.gaps.push(Gap { had, next, sent });
            return;
        }
        assert_eq!(event.kind, "message", "{event:?}");
        self.events.push((sequence(&event.last_event_id), event.data));
        self.last_id = Some(event.last_event_id);
    }
}

/// Returns the sequence number in an id. Numbering continues when the server restarts.
fn sequence(id: &str) -> usize {
    id.rsplit('-').next().unwrap().parse().unwrap()
}

/// Listens until the last event arrives. When a server ends, reconnects to the next server with the id of the last
/// received event.
fn listen(stage: &Stage) -> Life {
    let mut life = Life::default();
    let mut round = 0;
    loop {
        let (this, address) = stage.wait("the next server", |state| {
            state.address.filter(|_| state.round > round).map(|address| (state.round, address))
        });
        round = this;
        if connect(address).and_then(|stream| listen_to(stream, stage, round, &mut life)).is_ok() {
            return life;
        }
    }
}

/// Listens to one server until the last event arrives. Returns an error if the connection ends before the last event.
fn listen_to(mut stream: TcpStream, stage: &Stage, round: usize, life: &mut Life) -> io::Result<()> {
    let last = life.last_id.as_ref().map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
    stream.write_all(format!("GET /hub HTTP/1.1\r\nHost: localhost\r\n{last}\r\n").as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    // By now the server may have been killed, and the next round may have begun.
    stage.change(|state| state.listening += usize::from(state.address.is_some() && state.round == round));
    let (mut chunks, mut parser) = (Chunks::default(), Parser::default());
    loop {
        let bytes = stream.fill_buf()?;
        let length = bytes.len();
        let mut frames = Vec::new();
        chunks.feed(bytes, &mut frames);
        parser.feed(&frames);
        stream.consume(length);
        for event in parser.events.drain(..) {
            if event.data == END {
                return Ok(());
            }
            if event.data == BEGIN {
                stage.change(|state| state.begun += 1);
            }
            life.receive(event, stage);
        }
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

fn start(path: &Path) -> Example {
    Example::run(testbed(&[path.to_str().unwrap(), "50", &MAX_BYTES.to_string()]))
}

#[test]
fn server_killed_a_hundred_times_loses_nothing_that_it_acknowledged() {
    let folder = Folder::new();
    let stage = Stage::default();
    let mut random = Random(1 + u64::from(std::process::id()));
    let lives: Vec<Life> = thread::scope(|scope| {
        let listeners: Vec<_> = (0..LISTENERS).map(|_| scope.spawn(|| listen(&stage))).collect();
        let mut server = None;
        let mut next = || {
            stage.change(|state| {
                state.address = None;
                state.listening = 0;
            });
            server = None; // SIGKILL
            let started = start(&folder.log());
            stage.change(|state| {
                state.address = Some(started.address);
                state.round += 1;
            });
            server.insert(started).address
        };
        let all_listen = || stage.wait("all listeners", |state| (state.listening == LISTENERS).then_some(()));
        let first = next();
        all_listen();
        // Each listener needs the id of an event to resume, so the first event is published before the first kill.
        assert!(publish_one(&stage, &mut connect(first).unwrap(), BEGIN.to_owned()));
        stage.wait("the first event at all listeners", |state| (state.begun == LISTENERS).then_some(()));
        for publisher in 0..PUBLISHERS {
            let stage = &stage;
            scope.spawn(move || publish(stage, publisher));
        }
        for round in 0..ROUNDS {
            if round % 4 > 0 {
                all_listen(); // in every fourth round the server may be killed before all listeners have connected
            }
            let enough = stage.state.lock().unwrap().acknowledged.len() + random.below(200);
            stage.wait("progress", |state| (state.acknowledged.len() >= enough).then_some(()));
            next();
        }
        stage.change(|state| state.over = true);
        next(); // publishers read `over` only after their server was killed
        assert!(is_acknowledged(&mut connect(next()).unwrap(), END));
        listeners.into_iter().map(|listener| listener.join().unwrap()).collect()
    });

    let state = stage.state.into_inner().unwrap();
    let events = union(&lives);
    lives.iter().for_each(|life| assert_whole(life, &events, &state.sent));
    assert_acknowledged_are_there(&state.acknowledged, &events);
    assert_files_hold_the_history(&folder, &events);
    let gaps: usize = lives.iter().map(|life| life.gaps.len()).sum();
    println!(
        "{} events acknowledged, {} received by {LISTENERS} listeners, {gaps} gaps",
        state.acknowledged.len(),
        events.len()
    );
}

/// Returns the events of all listeners by sequence number. Asserts that all listeners received the same event for a
/// number, that no event has two numbers, and that the events of each publisher are in order.
fn union(lives: &[Life]) -> BTreeMap<usize, String> {
    let mut events = BTreeMap::new();
    for (number, data) in lives.iter().flat_map(|life| &life.events) {
        let known = events.entry(*number).or_insert_with(|| data.clone());
        assert_eq!(known, data, "all listeners receive the same event {number}");
    }
    let distinct: HashSet<_> = events.values().collect();
    assert_eq!(distinct.len(), events.len(), "no event has two numbers");
    for publisher in 0..PUBLISHERS {
        let prefix = format!("{publisher} ");
        let numbers = events
            .values()
            .filter_map(|data| data.strip_prefix(&prefix)?.split(' ').next()?.parse().ok());
        let numbers: Vec<usize> = numbers.collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "the events of each publisher are in order");
    }
    events
}

/// Asserts that a listener received every event once and in order. Events may be missing only between the two ids of a
/// gap. At such a gap, the history must have had no room for the last missing event.
fn assert_whole(life: &Life, events: &BTreeMap<usize, String>, sent: &[String]) {
    let numbers: BTreeMap<&str, usize> = events.iter().map(|(number, data)| (data.as_str(), *number)).collect();
    for pair in life.events.windows(2) {
        let (had, next) = (pair[0].0, pair[1].0);
        if next == had + 1 {
            continue;
        }
        let gap = life.gaps.iter().rfind(|gap| gap.had == had);
        let gap = gap.unwrap_or_else(|| panic!("{next} came after {had} without a gap"));
        assert_eq!(gap.next, next, "the gap ends before the next received event");
        let newest = sent[..gap.sent].iter().filter_map(|data| numbers.get(data.as_str())).max();
        let newest = *newest.expect("at least the first event was sent");
        // If the history still contained the event before `next`, the history would exceed its limit.
        let kept: usize = (next - 1..=newest)
            .map(|number| events.get(&number).map_or(LARGEST, |data| chunk_length(data)))
            .sum();
        assert!(
            kept + LARGEST > MAX_BYTES,
            "a gap from {had} to {next}, though the {kept} bytes up to event {newest} fit into {MAX_BYTES}"
        );
    }
    assert_eq!(life.events[0], (0, BEGIN.to_owned()));
    assert_eq!(life.events.last().unwrap().0, *events.keys().last().unwrap(), "the listener received the last event");
}

/// Returns the size of an event in the history, in bytes. The size includes the frame and the framing of the chunk.
fn chunk_length(data: &str) -> usize {
    let frame = data.len() + "data: \nid: abcdef-00000\n\n".len();
    format!("{frame:x}\r\n\r\n").len() + frame
}

/// Asserts that each acknowledged event was received by a listener or was evicted. The number of evicted events is the
/// number of sequence numbers that no listener received.
fn assert_acknowledged_are_there(acknowledged: &[String], events: &BTreeMap<usize, String>) {
    let received: HashSet<_> = events.values().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|data| !received.contains(data)).collect();
    let evicted = events.keys().last().unwrap() + 1 - events.len();
    assert!(lost.len() <= evicted, "only {evicted} events were evicted unseen, but these were lost: {lost:?}");
}

fn assert_files_hold_the_history(folder: &Folder, events: &BTreeMap<usize, String>) {
    let files = [folder.log().with_extension("sse.old"), folder.log()].map(|path| fs::read(path).unwrap());
    assert!(files.concat().len() > MAX_BYTES - LARGEST, "the files hold the whole history");
    let mut kept = parse(&files.concat());
    assert_eq!(kept.pop().unwrap().data, END);
    for (event, (number, data)) in kept.iter().rev().zip(events.iter().rev()) {
        assert_eq!((sequence(&event.last_event_id), &event.data), (*number, data), "the files hold the last events");
    }
}
