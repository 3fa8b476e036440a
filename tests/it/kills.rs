//! A server with a channel in a file, killed at random moments, a hundred times, while several publish and several listen.
//!
//! Nothing that was acknowledged may be lost in any listener's life, nothing come twice, nothing out of order. What was
//! published and not acknowledged, as the server died over it, may or may not be there.

use super::event_stream::{parse, Parser};
use super::examples::Example;
use super::journal::{testbed, Folder};
use super::support::{Random, TIMEOUT};
use std::collections::HashSet;
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
const MAX_BYTES: &str = "100000";

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
    acknowledged: Vec<String>,
    listening: usize,
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
            if !is_acknowledged(&mut stream, &data) {
                break; // killed
            }
            stage.change(|state| state.acknowledged.push(data));
        }
    }
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

/// Listens, and comes back with the last id, until it hears the end. Returns the ids and data of its whole life.
fn listen(stage: &Stage) -> Vec<(String, String)> {
    let mut heard = Vec::new();
    let mut round = 0;
    loop {
        let (this, address) = stage.wait("the next server", |state| {
            state.address.filter(|_| state.round > round).map(|address| (state.round, address))
        });
        round = this;
        if connect(address).and_then(|stream| listen_to(stream, stage, round, &mut heard)).is_ok() {
            return heard;
        }
    }
}

/// Listens to one server: an error is the end of that one.
fn listen_to(mut stream: TcpStream, stage: &Stage, round: usize, heard: &mut Vec<(String, String)>) -> io::Result<()> {
    let last = heard.last().map_or(String::new(), |(id, _)| format!("Last-Event-ID: {id}\r\n"));
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
    let mut parser = Parser::default();
    loop {
        let bytes = stream.fill_buf()?;
        let length = bytes.len();
        parser.feed(bytes);
        stream.consume(length);
        for event in parser.events.drain(..) {
            assert_eq!(event.kind, "message", "no gap: {event:?}");
            if event.data == "end" {
                return Ok(());
            }
            heard.push((event.last_event_id, event.data));
        }
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

fn start(path: &Path) -> Example {
    Example::run(testbed(&[path.to_str().unwrap(), "50", MAX_BYTES]))
}

#[test]
fn a_server_that_is_killed_a_hundred_times_loses_nothing_that_it_acknowledged() {
    let folder = Folder::new();
    let stage = Stage::default();
    let mut random = Random(1 + u64::from(std::process::id()));
    let heard: Vec<_> = thread::scope(|scope| {
        let listeners: Vec<_> = (0..LISTENERS).map(|_| scope.spawn(|| listen(&stage))).collect();
        let mut server = None;
        let mut next = || {
            stage.change(|state| (state.address, state.listening) = (None, 0));
            server = None; // SIGKILL
            let started = start(&folder.log());
            stage.change(|state| (state.address, state.round) = (Some(started.address), state.round + 1));
            server.insert(started).address
        };
        let all_listen = || stage.wait("all listen", |state| (state.listening == LISTENERS).then_some(()));
        next();
        all_listen(); // from the very first event on
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
        assert!(is_acknowledged(&mut connect(next()).unwrap(), "end"));
        listeners.into_iter().map(|listener| listener.join().unwrap()).collect()
    });

    let acknowledged = stage.state.into_inner().unwrap().acknowledged;
    for life in &heard {
        assert!(life == &heard[0], "everybody hears the same in the same order");
    }
    let data: Vec<_> = heard[0].iter().map(|(_, data)| data.as_str()).collect();
    let set: HashSet<_> = data.iter().copied().collect();
    assert_eq!(set.len(), data.len(), "nothing comes twice");
    let lost: Vec<_> = acknowledged.iter().filter(|data| !set.contains(data.as_str())).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    for publisher in 0..PUBLISHERS {
        let prefix = format!("{publisher} ");
        let numbers = data
            .iter()
            .filter_map(|data| data.strip_prefix(&prefix)?.split(' ').next()?.parse::<usize>().ok());
        assert!(numbers.collect::<Vec<_>>().windows(2).all(|pair| pair[0] < pair[1]), "each publisher's in its order");
    }
    let sequence = heard[0].iter().map(|(id, _)| id.rsplit('-').next().unwrap().parse::<usize>().unwrap());
    assert!(sequence.eq(0..data.len()), "the ids go on across all runs");
    println!("{} acknowledged, {} heard by each of {LISTENERS}", acknowledged.len(), data.len());
    let files = [folder.log().with_extension("sse.old"), folder.log()].map(|path| fs::read(path).unwrap());
    assert!(files.concat().len() > 97_000, "as much is there as the history holds");
    let kept: Vec<_> = parse(&files.concat()).into_iter().map(|event| event.last_event_id).collect();
    let ids = heard[0].iter().map(|(id, _)| id).skip(data.len() + 1 - kept.len());
    assert!(ids.eq(&kept[..kept.len() - 1]), "and it is what was heard last, up to the event that ended it");
}
