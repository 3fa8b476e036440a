//! A server whose system calls fail. strace injects the errors, at several moments for each call.
//!
//! While calls fail, clients publish, subscribe and send requests. A listener whose connection ends early resumes. The
//! function `survive` asserts that:
//!
//! - the process continues to serve clients;
//! - every listener has received every acknowledged event and no refused event;
//! - every listener has received each event once and in order;
//! - the server has released its descriptors and threads.
//!
//! The function also prints the number of failed calls for each fault.
//!
//! strace counts the calls of each thread separately.
#![cfg(target_os = "linux")]

use super::channel::eventually;
use super::event_stream::{parse, Event, Parser};
use super::examples::{program, Example};
use super::journal::{history, open_with, testbed, Folder};
use super::machine::TemporaryDirectory;
use super::support::{Chunks, TIMEOUT};
use brooklet::sse::{ChannelConfig, Newcomers};
use std::collections::HashSet;
use std::fmt::{self, Display};
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The minimum number of events that are published while calls fail.
const ROUNDS: usize = 40;

/// If no call has failed after `ROUNDS` events, more events are published until this time has passed.
const PATIENCE: Duration = Duration::from_secs(2);

const LISTENERS: usize = 3;

/// The `max_bytes` of the channel: room for about 20 events, so that the channel rotates its file often.
const MAX_BYTES: usize = 5_000;

/// The maximum number of acknowledged events that a listener has not yet received. With this limit, the channel evicts
/// no event that a listener needs.
const LAG: usize = 5;

/// The number of concurrent requests in every twentieth round. This number is larger than [`WAITING`]. Each of the
/// other rounds has one request.
const CROWD: usize = 72;

/// The maximum number of threads that wait for connections.
const WAITING: usize = 64;

/// A running strace, which is attached to a process.
struct Strace {
    process: Child,
    log: PathBuf,
}

impl Strace {
    /// Attaches strace to a process. strace makes calls fail until it is detached. A fault names a call, an error and a
    /// moment, for example `write:error=EIO:when=1`.
    fn attach(process: u32, faults: &[&str], log: &Path) -> Strace {
        let mut strace = strace(faults, log);
        strace.args(["-p", &process.to_string()]).stderr(Stdio::piped());
        let mut strace = strace.spawn().expect("the tests run strace: install it");
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "strace cannot attach to a process here: {line}");
        thread::spawn(move || io::copy(&mut said, &mut io::sink())); // strace prints a line for each new thread
        Strace { process: strace, log: log.to_owned() }
    }

    /// Stops strace. Returns the number of calls that strace made fail.
    fn detach(mut self) -> usize {
        // Before strace ends, strace must resume the calls that it has stopped. `Child::kill` would prevent this.
        let killed = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        assert!(killed.unwrap().success());
        self.process.wait().unwrap();
        self.injected()
    }

    fn injected(&self) -> usize {
        injected(&self.log)
    }
}

/// Returns a command that runs strace. strace logs only the calls that `faults` name, and makes these calls fail.
fn strace(faults: &[&str], log: &Path) -> Command {
    let calls: Vec<_> = faults.iter().map(|fault| fault.split(':').next().unwrap()).collect();
    let mut command = Command::new("strace");
    command
        .arg("-f")
        .arg("-o")
        .arg(log)
        .args(["-e", "signal=none", "-e", &format!("trace={}", calls.join(","))]);
    for fault in faults {
        command.args(["-e", &format!("inject={fault}")]);
    }
    command
}

fn injected(log: &Path) -> usize {
    String::from_utf8_lossy(&fs::read(log).unwrap()).matches("(INJECTED)").count()
}

/// The events that the clients have published and received. All clients share this value.
#[derive(Default)]
struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    acknowledged: Vec<String>,
    refused: HashSet<String>,
    /// The events that each listener has received.
    received: [Vec<Event>; LISTENERS],
    listening: usize,
    /// The number of streams that ended before the last event.
    broken: usize,
}

/// The data of the last event.
const END: &str = "end";

impl Stage {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    #[track_caller]
    fn wait(&self, what: &str, mut is_so: impl FnMut(&State) -> bool) {
        let deadline = Instant::now() + 2 * TIMEOUT;
        let mut state = self.state.lock().unwrap();
        while !is_so(&state) {
            assert!(Instant::now() < deadline, "{what}");
            state = self.changed.wait_timeout(state, TIMEOUT).unwrap().0;
        }
    }

    /// Blocks until each listener has received all acknowledged events except the last `lag`.
    #[track_caller]
    fn wait_for_listeners(&self, lag: usize) {
        self.wait("a listener does not receive its events", |state| {
            let Some(last) = state.acknowledged.len().checked_sub(lag + 1) else { return true };
            let last = &state.acknowledged[last];
            state.received.iter().all(|events| events.iter().rev().any(|event| event.data == *last))
        });
    }
}

/// Subscribes. When the stream ends, resumes after the last received event. Returns after the event [`END`], or when
/// the server refuses a connection.
fn listen(stage: &Stage, address: SocketAddr, listener: usize) {
    let mut last_id = None;
    let mut is_over = false;
    while !is_over {
        let read = read_events(address, last_id.clone(), stage, |event| {
            last_id = Some(event.last_event_id.clone());
            is_over = event.data == END;
            stage.change(|state| state.received[listener].push(event));
            !is_over
        });
        if read.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return;
        }
        stage.change(|state| state.broken += 1);
    }
}

/// Subscribes and calls `take` with each event. Returns when `take` returns `false` or the stream ends.
fn read_events(
    address: SocketAddr,
    last_id: Option<String>,
    stage: &Stage,
    mut take: impl FnMut(Event) -> bool,
) -> io::Result<()> {
    let mut stream = connect(address)?;
    let id_field = last_id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
    write!(stream, "GET /hub HTTP/1.1\r\nHost: localhost\r\n{id_field}\r\n")?;
    let mut stream = BufReader::new(stream);
    if read_head(&mut stream)?.0 != 200 {
        return Err(io::Error::other("the server refuses the subscription"));
    }
    stage.change(|state| state.listening += 1);
    let mut chunks = Chunks::default();
    let mut parser = Parser::default();
    loop {
        let bytes = stream.fill_buf()?;
        let length = bytes.len();
        if length == 0 {
            return Ok(());
        }
        let mut frames = Vec::new();
        chunks.feed(bytes, &mut frames);
        parser.feed(&frames);
        stream.consume(length);
        if !parser.events.drain(..).all(&mut take) {
            return Ok(());
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Reads the head of a response. Returns the status and the length of the body.
fn read_head(stream: &mut impl BufRead) -> io::Result<(u16, usize)> {
    let mut status = None;
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if status.is_none() {
            status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
            assert!(status.is_some(), "no status line: {line:?}");
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            return Ok((status.unwrap(), length));
        }
    }
}

/// Sends a request. Returns the status of the response.
fn ask(stream: &TcpStream, request: &str) -> io::Result<u16> {
    (&mut &*stream).write_all(request.as_bytes())?;
    let mut answer = BufReader::new(stream);
    let (status, length) = read_head(&mut answer)?;
    answer.read_exact(&mut vec![0; length])?;
    Ok(status)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The clients that publish events and send requests. This struct also counts the results.
struct Clients<'a> {
    address: SocketAddr,
    stage: &'a Stage,
    folder: &'a Folder,
    /// Whether every refused event must be removed from the files. If the server can neither sync nor truncate a file,
    /// the file may keep a refused event.
    leaves_nothing: bool,
    /// The connection of the publisher, if it is open.
    publisher: Option<TcpStream>,
    published: usize,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    requests: usize,
    unserved: usize,
    events: usize,
    refused: usize,
    /// The number of events that were neither acknowledged nor refused, because the connection ended.
    unknown: usize,
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { requests, unserved, events, refused, unknown } = self;
        write!(f, "{requests:>4} requests, {unserved:>3} unserved; {events:>3} events, {refused:>2} refused, {unknown:>2} unknown")
    }
}

impl Clients<'_> {
    fn publish_next(&mut self) -> bool {
        self.published += 1;
        self.publish(&format!("{} {}", self.published, "x".repeat(200)))
    }

    /// Publishes an event with a single attempt. Returns whether the server acknowledged the event.
    fn publish(&mut self, data: &str) -> bool {
        self.stage.wait_for_listeners(LAG);
        let length = data.len();
        let request = format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{data}");
        let stream = self.publisher.take().map_or_else(|| connect(self.address), Ok);
        let Ok(stream) = stream else { return false };
        self.counts.events += 1;
        match ask(&stream, &request) {
            Ok(200) => {
                self.publisher = Some(stream);
                assert_eq!(kept(self.folder).last().unwrap().data, data, "an acknowledged event is in the file");
                self.stage.change(|state| state.acknowledged.push(data.to_owned()));
                return true;
            }
            Ok(status) => {
                self.publisher = (status == 500).then_some(stream);
                let is_kept = kept(self.folder).iter().any(|event| event.data == data);
                assert!(!is_kept || !self.leaves_nothing, "a refused event is not in the file: {data}");
                self.counts.refused += 1;
                self.stage.change(|state| state.refused.extend([data.to_owned()]));
            }
            Err(_) => self.counts.unknown += 1,
        }
        false
    }

    /// Sends `clients` requests at once, each on its own connection. Returns whether every response has the status 200.
    fn ask(&mut self, clients: usize) -> bool {
        let streams: Vec<_> = (0..clients).map(|_| connect(self.address)).collect();
        for stream in streams.iter().flatten() {
            let _ = (&mut &*stream).write_all(GET.as_bytes());
        }
        let is_served = |stream: &io::Result<TcpStream>| {
            let stream = stream.as_ref().ok()?;
            read_head(&mut BufReader::new(stream)).ok().filter(|(status, _)| *status == 200)
        };
        let unserved = streams.iter().filter(|stream| is_served(stream).is_none()).count();
        self.counts.requests += clients;
        self.counts.unserved += unserved;
        unserved == 0
    }

    /// Publishes events and sends requests while calls fail.
    fn keep_busy(&mut self, strace: &Strace) {
        let started = Instant::now();
        let mut round = 0;
        while round < ROUNDS || (started.elapsed() < PATIENCE && strace.injected() == 0) {
            self.publish_next();
            self.ask(if round % 20 == 0 { CROWD } else { 1 });
            round += 1;
        }
    }
}

/// A server, its clients, and the log of strace.
struct Run<'a> {
    server: Example,
    clients: Clients<'a>,
    log: PathBuf,
}

/// The calls that fail, and the sync policy of the server's channel.
struct Faults<'a> {
    /// The calls, each with the errors that strace injects.
    calls: &'a [(&'a str, &'a [&'a str])],
    /// The numbers of the failing calls in each thread, in the syntax of strace. `7+20` means the seventh call and then
    /// every twentieth call.
    moments: &'a [&'a str],
    /// Further faults, which strace injects together with each fault of `calls`.
    besides: &'a [&'a str],
    sync: &'a str,
}

const FAULTS: Faults<'_> = Faults { calls: &[], moments: &["1", "3", "7+20"], besides: &[], sync: "always" };

/// Makes each call fail with each of its errors at each moment. Asserts that the server recovers each time.
fn survive(faults: &Faults<'_>) {
    let folder = Folder::new();
    let logs = TemporaryDirectory::new();
    let complaints = logs.path().join("stderr");
    let stage = Stage::default();
    thread::scope(|scope| {
        let mut command = testbed(&[folder.log().to_str().unwrap(), faults.sync, &MAX_BYTES.to_string()]);
        command.stderr(fs::File::create(&complaints).unwrap());
        let server = Example::run(command);
        let address = server.address;
        for listener in 0..LISTENERS {
            let stage = &stage;
            scope.spawn(move || listen(stage, address, listener));
        }
        stage.wait("a listener cannot subscribe", |state| state.listening == LISTENERS);
        let clients = Clients {
            address,
            stage: &stage,
            folder: &folder,
            leaves_nothing: faults.besides.is_empty(),
            publisher: None,
            published: 0,
            counts: Counts::default(),
        };
        let mut run = Run { server, clients, log: logs.path().join("log") };
        for _ in 0..3 * MAX_BYTES / 200 {
            assert!(run.clients.publish_next());
        }
        let descriptors = run.count("fd"); // while no client sends a request
        let threads = run.count("task");
        for (call, errors) in faults.calls {
            for error in *errors {
                let fail = |moment: &&str| run.fail(&format!("{call}:error={error}:when={moment}"), faults.besides);
                let hits: usize = faults.moments.iter().map(fail).sum();
                assert!(hits > 0, "no {call} has failed with {error}");
            }
        }
        eventually(|| run.count("fd") <= descriptors);
        eventually(|| run.count("task") <= threads + WAITING);
        assert!(run.clients.publish(END));
        stage.wait_for_listeners(0);
    });
    assert_whole(&stage.state.into_inner().unwrap(), &folder);
    let complaints = fs::read_to_string(complaints).unwrap();
    assert!(!complaints.contains("has truncated"), "no other process has changed the files: {complaints}");
    assert!(!complaints.contains(" away"), "no foreign file is in the directory: {complaints}");
}

impl Run<'_> {
    /// Makes calls fail while clients publish events and send requests. Asserts that the server recovers. Returns the
    /// number of failed calls.
    fn fail(&mut self, fault: &str, besides: &[&str]) -> usize {
        let faults = &[&[fault], besides].concat();
        let stage = self.clients.stage;
        self.clients.counts = Counts::default();
        stage.change(|state| state.broken = 0);
        let strace = Strace::attach(self.server.child.id(), faults, &self.log);
        self.clients.keep_busy(&strace);
        let hits = strace.detach();

        assert_eq!(self.server.child.try_wait().unwrap(), None, "the process still runs: {faults:?}");
        let counts = std::mem::take(&mut self.clients.counts);
        // Some attempts may fail: the connection may be closed, and `publish` may report an earlier failed sync.
        let is_published = (0..3).any(|_| self.clients.publish_next());
        assert!(is_published && self.clients.publish_next(), "the server accepts events again: {faults:?}");
        stage.wait_for_listeners(0);
        self.serves_again(faults);
        let resumed = stage.state.lock().unwrap().broken;
        println!("{:<52} {hits:>5} faults; {counts}; {resumed:>2} streams resumed", fault);
        hits
    }

    /// Blocks until the server has served [`CROWD`] requests at once. Panics after [`TIMEOUT`].
    fn serves_again(&mut self, faults: &[&str]) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.clients.ask(CROWD) {
            assert!(Instant::now() < deadline, "the server serves many clients again: {faults:?}");
        }
    }

    /// Returns the number of entries in the directory `/proc/{pid}/{directory}`.
    fn count(&self, directory: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{directory}", self.server.child.id())).unwrap().count()
    }
}

/// Asserts that every listener has received each event once and in order, and that the files contain the last events.
fn assert_whole(state: &State, folder: &Folder) {
    let first = &state.received[0];
    for events in &state.received {
        assert_eq!(data(events), data(first), "all listeners receive the same events");
        for pair in events.windows(2) {
            let (had, next) = (sequence(&pair[0]), sequence(&pair[1]));
            assert_eq!(next, had + 1, "{:?} after {:?}", pair[1], pair[0]);
        }
    }
    let received: HashSet<_> = data(first).into_iter().collect();
    assert_eq!(received.len(), first.len(), "no event is received twice");
    let lost: Vec<_> = state.acknowledged.iter().filter(|data| !received.contains(data.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged events were lost: {lost:?}");
    let refused: Vec<_> = state.refused.iter().filter(|data| received.contains(data.as_str())).collect();
    assert!(refused.is_empty(), "refused events were sent: {refused:?}");

    let kept = kept(folder);
    assert!(kept.len() >= MAX_BYTES / 300, "the files contain only {} events", kept.len());
    assert_eq!(kept, first[first.len() - kept.len()..]);
    let config = ChannelConfig { max_bytes: MAX_BYTES, newcomers: Newcomers::Last(10), ..ChannelConfig::default() };
    let restored = history(&open_with(&folder.log(), config), 10);
    assert_eq!(restored, first[first.len() - 10..]);
}

fn data(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.data.as_str()).collect()
}

fn sequence(event: &Event) -> usize {
    event.last_event_id.rsplit('-').next().unwrap().parse().unwrap()
}

/// Returns the events in the files of a channel. If a rotation was not finished, `log.sse.new` contains the newest
/// events.
fn kept(folder: &Folder) -> Vec<Event> {
    let read = |name| fs::read(folder.join(name)).unwrap_or_default();
    let present = if folder.log().exists() { "log.sse" } else { "log.sse.new" };
    parse(&[read("log.sse.old"), read(present)].concat())
}

#[test]
#[ignore = "needs strace"]
fn accept_that_fails_leaves_server_serving() {
    survive(&Faults { calls: &[("accept4", &["ECONNABORTED", "EMFILE", "ENFILE", "ENOMEM", "EPROTO"])], ..FAULTS });
}

#[test]
#[ignore = "needs strace"]
fn receive_that_fails_ends_one_connection() {
    survive(&Faults { calls: &[("recvfrom", &["EINTR", "ECONNRESET", "ENOBUFS"])], ..FAULTS });
}

#[test]
#[ignore = "needs strace"]
fn send_that_fails_duplicates_no_event() {
    survive(&Faults { calls: &[("sendto", &["EINTR", "ECONNRESET", "ENOBUFS"])], ..FAULTS });
}

#[test]
#[ignore = "needs strace"]
fn event_stream_to_unreachable_client_prints_no_error() {
    let folder = Folder::new();
    let logs = TemporaryDirectory::new();
    let complaints = logs.path().join("stderr");
    let mut command = testbed(&[folder.log().to_str().unwrap(), "never", "300"]);
    command.stderr(fs::File::create(&complaints).unwrap());
    let server = Example::run(command);
    for how in ["each", "joined", "forward"] {
        let unreachable = "sendto:error=EHOSTUNREACH:when=2+"; // the first call sends the head
        let strace = Strace::attach(server.child.id(), &[unreachable], &logs.path().join("log"));
        server.open(&format!("/sse?how={how}")).rest_of_broken_stream();
        assert!(strace.detach() > 0, "{how}");
    }
    // The server prints the error of this request. If the server printed an error of a stream, that line would come
    // first.
    assert_eq!(server.post("/publish", &"x".repeat(300)), 500);
    let said = || fs::read_to_string(&complaints).unwrap();
    eventually(|| said().contains("max_bytes"));
    assert_eq!(said().lines().count(), 1, "{}", said());
}

#[test]
#[ignore = "needs strace"]
fn write_that_fails_refuses_the_event() {
    survive(&Faults { calls: &[("write", &["EIO", "ENOSPC", "EINTR"])], ..FAULTS });
}

#[test]
#[ignore = "needs strace"]
fn sync_that_fails_refuses_the_event() {
    survive(&Faults { calls: &[("fdatasync", &["EIO", "ENOSPC", "EINTR"])], ..FAULTS });
}

#[test]
#[ignore = "needs strace"]
fn background_sync_that_fails_is_reported_by_next_publish() {
    survive(&Faults { calls: &[("fdatasync", &["EIO"])], moments: &["1"], sync: "20", ..FAULTS });
}

#[test]
#[ignore = "needs strace"]
fn truncation_that_fails_is_tried_again() {
    survive(&Faults {
        calls: &[("ftruncate", &["EIO", "ENOSPC", "EINTR"])],
        besides: &["fdatasync:error=EIO:when=2+3"],
        ..FAULTS
    });
}

/// The moments include the second rename of a rotation, and the renames that later calls of `publish` repeat.
#[test]
#[ignore = "needs strace"]
fn rename_that_fails_loses_no_event() {
    survive(&Faults {
        calls: &[("/^rename", &["EIO", "ENOSPC", "EINTR"])],
        moments: &["1", "2", "2..3", "2..5", "3+3", "7+20"],
        ..FAULTS
    });
}

/// Without syncs, the server calls `statx` only in a rotation. Each of the first seven calls fails once.
#[test]
#[ignore = "needs strace"]
fn rotation_with_failed_statx_loses_no_event() {
    survive(&Faults {
        calls: &[("statx", &["EIO"])],
        moments: &["1", "2", "3", "4", "5", "6", "7"],
        sync: "never",
        ..FAULTS
    });
}

#[test]
#[ignore = "needs strace"]
fn rotation_that_fails_loses_no_event() {
    survive(&Faults {
        calls: &[
            ("statx", &["EIO"]),
            ("openat", &["EMFILE"]),
            ("flock", &["ENOLCK"]),
            ("fchmod", &["EIO"]),
            ("fsync", &["EIO"]),
            ("pread64", &["EIO"]),
        ],
        ..FAULTS
    });
}

#[test]
#[ignore = "needs strace"]
fn thread_start_that_fails_leaves_server_serving() {
    survive(&Faults { calls: &[("clone3", &["EAGAIN"])], sync: "20", ..FAULTS });
}

/// The number of events in the files of [`arranged`].
const ARRANGED: usize = 20;

/// Creates the files that a process may leave: no files (`new`), a file with an incomplete record at its end (`torn`),
/// or the files of a rotation that ended between its two renames (`unfinished`).
fn arranged(arrangement: &str) -> Folder {
    let folder = Folder::new();
    if arrangement == "new" {
        return folder;
    }
    let channel = open_with(&folder.log(), ChannelConfig { max_bytes: 300, ..ChannelConfig::default() });
    (0..ARRANGED).for_each(|n| drop(channel.publish(n.to_string()).unwrap()));
    drop(channel);
    if arrangement == "torn" {
        fs::OpenOptions::new()
            .append(true)
            .open(folder.log())
            .unwrap()
            .write_all(b": 0123")
            .unwrap();
    } else {
        fs::rename(folder.log(), folder.join("log.sse.new")).unwrap();
    }
    folder
}

/// Opens a channel in a child process in which calls on the channel's files fail. Returns the error message and the
/// number of failed calls. The message is `None` if the channel was opened.
fn open_with_fault(folder: &Folder, fault: &str, log: &Path) -> (Option<String>, usize) {
    let mut command = strace(&[fault], log);
    for name in ["log.sse", "log.sse.old", "log.sse.new"] {
        command.arg("-P").arg(folder.join(name));
    }
    // The process opens the channel. Then the process ends, because `no port` is not a port.
    let output = command
        .arg("-qq")
        .arg(program("testbed"))
        .arg("no port")
        .arg(folder.log())
        .arg("never")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Error: "), "{fault}: {said}");
    let error = (!said.contains("invalid port value")).then_some(said);
    (error, injected(log))
}

#[test]
#[ignore = "needs strace"]
fn open_that_fails_changes_no_file() {
    let logs = TemporaryDirectory::new();
    let log = logs.path().join("log");
    let config = ChannelConfig { max_bytes: 300, newcomers: Newcomers::Last(usize::MAX), ..ChannelConfig::default() };
    for arrangement in ["new", "torn", "unfinished"] {
        let mut outcomes = Vec::new();
        for fault in [
            "statx:error=EIO", "openat:error=EMFILE", "flock:error=ENOLCK", "read:error=EIO", "lseek:error=EIO",
            "ftruncate:error=EIO", "/^rename:error=EIO",
        ] {
            for moment in 1.. {
                let folder = arranged(arrangement);
                let (files, events) = (folder.files(), kept(&folder));
                let (error, hits) = open_with_fault(&folder, &format!("{fault}:when={moment}"), &log);
                if hits == 0 {
                    break;
                }
                let what = format!("{arrangement}, {fault}, call {moment}: {error:?}");
                outcomes.push(format!("{fault} {moment}: {}", if error.is_some() { "refused" } else { "opened" }));
                if let Some(error) = error {
                    assert!(error.contains("log.sse"), "the error names the file: {what}");
                    assert_eq!(folder.files(), files, "{what}");
                }
                let channel = open_with(&folder.log(), config.clone());
                channel.publish("next").unwrap();
                assert!(kept(&folder).starts_with(&events), "{what}");
                assert_eq!(kept(&folder).len(), events.len() + 1, "{what}");
            }
        }
        println!("{arrangement}: {}", outcomes.join(", "));
        assert!(outcomes.len() >= 3, "at least three calls fail: {outcomes:?}");
    }
}
