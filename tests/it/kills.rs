//! A server with a channel in a file, killed at random moments, a hundred times, while several publish and several listen.
//!
//! Each listener receives what was acknowledged, once and in order. An event that was published and not acknowledged, because
//! the server died first, may or may not be there. On a busy machine a listener can fall behind by more than the history
//! holds: the `gap` that it receives then must be one that the history explains.

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

/// Small, so that the file is cut many times, and the kill may come in the middle of that.
const MAX_BYTES: usize = 100_000;

/// More than the largest event has.
const LARGEST: usize = 2_100;

/// What comes first and last.
const BEGIN: &str = "begin";
const END: &str = "end";

/// What all of them know of the server.
#[derive(Default)]
struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the server is, and which one.
    address: Option<SocketAddr>,
    round: usize,
    /// What publishers have sent, whether it has arrived or not, in the order of sending.
    sent: Vec<String>,
    acknowledged: Vec<String>,
    listening: usize,
    /// How many listeners have the first event.
    begun: usize,
    /// Nobody publishes any more.
    over: bool,
}

impl Stage {
    /// Waits for something to be so, and returns what `take` makes of it.
    fn wait<T>(&self, what: &str, mut take: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + 4 * TIMEOUT;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(taken) = take(&mut state) {
                return taken;
            }
            assert!(Instant::now() < deadline, "{what}");
            state = self.changed.wait_timeout(state, TIMEOUT).unwrap().0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// The server of a round behind that one; `None` when it is over.
    fn server_after(&self, round: usize) -> Option<(usize, SocketAddr)> {
        self.wait("a server", |state| match state.address {
            _ if state.over => Some(None),
            Some(address) if state.round > round => Some(Some((state.round, address))),
            _ => None,
        })
    }
}

/// Publishes one event after the other, and notes which were acknowledged.
fn publish(stage: &Stage, publisher: usize) {
    let (mut round, mut n) = (0, 0);
    while let Some((this, address)) = stage.server_after(round) {
        round = this;
        let Ok(mut stream) = connect(address) else { continue };
        loop {
            // Of unequal size, so that a large one may take the place of many.
            let data = format!("{publisher} {n} {}", "x".repeat(if n % 16 == 0 { 2_000 } else { 0 }));
            n += 1; // whatever becomes of this one, it is not sent again
            if !publish_one(stage, &mut stream, data) {
                break; // killed
            }
        }
    }
}

/// Publishes an event, and notes that it was sent, and whether it was acknowledged.
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

/// What a listener has received in its whole life.
#[derive(Default)]
struct Life {
    /// Sequence numbers and data.
    events: Vec<(usize, String)>,
    gaps: Vec<Gap>,
    last_id: Option<String>,
}

/// A `gap` event: the history did not reach back to what the listener had.
struct Gap {
    /// The sequence number of the last event that the listener had, and that of the next one that it received.
    had: usize,
    next: usize,
    /// How many events publishers had sent by then: the server knew no others.
    sent: usize,
}

impl Life {
    fn receive(&mut self, event: Event, stage: &Stage) {
        if event.kind == "gap" {
            let (had, next) = event.data.split_once('\n').unwrap();
            assert_eq!(Some(had), self.last_id.as_deref(), "the gap names the last event that the client had");
            let (had, next) = (sequence(had), sequence(next));
            assert!(next > had + 1, "nothing is missing between {had} and {next}");
            let sent = stage.state.lock().unwrap().sent.len();
            self.gaps.push(Gap { had, next, sent });
            return;
        }
        assert_eq!(event.kind, "message", "{event:?}");
        self.events.push((sequence(&event.last_event_id), event.data));
        self.last_id = Some(event.last_event_id);
    }
}

/// The sequence number in an id, which goes on across all runs of the server.
fn sequence(id: &str) -> usize {
    id.rsplit('-').next().unwrap().parse().unwrap()
}

/// Listens, and comes back with the last id, until it receives the end.
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

/// Listens to one server: an error is the end of that one.
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
    // Its server may have been killed by now, and another round begun.
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
        let all_listen = || stage.wait("all listen", |state| (state.listening == LISTENERS).then_some(()));
        let first = next();
        all_listen();
        // From here on each of them has an id to come back with.
        assert!(publish_one(&stage, &mut connect(first).unwrap(), BEGIN.to_owned()));
        stage.wait("all have the first event", |state| (state.begun == LISTENERS).then_some(()));
        for publisher in 0..PUBLISHERS {
            let stage = &stage;
            scope.spawn(move || publish(stage, publisher));
        }
        for round in 0..ROUNDS {
            if round % 4 > 0 {
                all_listen(); // and sometimes it is over before
            }
            let enough = stage.state.lock().unwrap().acknowledged.len() + random.below(200);
            stage.wait("progress", |state| (state.acknowledged.len() >= enough).then_some(()));
            next();
        }
        stage.change(|state| state.over = true);
        next(); // over which the publishers notice
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
        "{} acknowledged, {} received by {LISTENERS} listeners, {gaps} gaps that the history explains",
        state.acknowledged.len(),
        events.len()
    );
}

/// What all listeners have received, by sequence number. Nothing comes twice under two numbers, and nothing in two forms.
fn union(lives: &[Life]) -> BTreeMap<usize, String> {
    let mut events = BTreeMap::new();
    for (number, data) in lives.iter().flat_map(|life| &life.events) {
        let known = events.entry(*number).or_insert_with(|| data.clone());
        assert_eq!(known, data, "all receive the same event {number}");
    }
    let distinct: HashSet<_> = events.values().collect();
    assert_eq!(distinct.len(), events.len(), "nothing comes twice");
    for publisher in 0..PUBLISHERS {
        let prefix = format!("{publisher} ");
        let numbers = events
            .values()
            .filter_map(|data| data.strip_prefix(&prefix)?.split(' ').next()?.parse().ok());
        let numbers: Vec<usize> = numbers.collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "the events of each publisher are in its order");
    }
    events
}

/// A listener received every event after its first one, once and in order, except where a gap says what is missing.
fn assert_whole(life: &Life, events: &BTreeMap<usize, String>, sent: &[String]) {
    let numbers: BTreeMap<&str, usize> = events.iter().map(|(number, data)| (data.as_str(), *number)).collect();
    for pair in life.events.windows(2) {
        let (had, next) = (pair[0].0, pair[1].0);
        if next == had + 1 {
            continue;
        }
        let gap = life.gaps.iter().rfind(|gap| gap.had == had);
        let gap = gap.unwrap_or_else(|| panic!("{next} came after {had} without a gap"));
        assert_eq!(gap.next, next, "the gap names the event that comes next");
        let newest = sent[..gap.sent].iter().filter_map(|data| numbers.get(data.as_str())).max();
        let newest = *newest.expect("the first event is among them");
        // With the event before `next`, the history would have been larger than it may be.
        let kept: usize = (next - 1..=newest)
            .map(|number| events.get(&number).map_or(LARGEST, |data| chunk_length(data)))
            .sum();
        assert!(
            kept + LARGEST > MAX_BYTES,
            "a gap from {had} to {next}, though {kept} bytes up to event {newest} would have fitted into {MAX_BYTES}"
        );
    }
    assert_eq!(life.events[0], (0, BEGIN.to_owned()));
    assert_eq!(life.events.last().unwrap().0, *events.keys().last().unwrap(), "up to the end");
}

/// The bytes of an event in the history: its frame, and the framing of the chunk around that.
fn chunk_length(data: &str) -> usize {
    let frame = data.len() + "data: \nid: abcdef-00000\n\n".len();
    format!("{frame:x}\r\n\r\n").len() + frame
}

/// An acknowledged event was received by somebody, or it was evicted before anybody could: then its number is missing in
/// all lives.
fn assert_acknowledged_are_there(acknowledged: &[String], events: &BTreeMap<usize, String>) {
    let received: HashSet<_> = events.values().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|data| !received.contains(data)).collect();
    let evicted = events.keys().last().unwrap() + 1 - events.len();
    assert!(lost.len() <= evicted, "{evicted} were evicted before anybody received them, and lost are {lost:?}");
}

fn assert_files_hold_the_history(folder: &Folder, events: &BTreeMap<usize, String>) {
    let files = [folder.log().with_extension("sse.old"), folder.log()].map(|path| fs::read(path).unwrap());
    assert!(files.concat().len() > MAX_BYTES - LARGEST, "the files hold as much as the history");
    let mut kept = parse(&files.concat());
    assert_eq!(kept.pop().unwrap().data, END);
    for (event, (number, data)) in kept.iter().rev().zip(events.iter().rev()) {
        assert_eq!((sequence(&event.last_event_id), &event.data), (*number, data), "and what was received last");
    }
}
