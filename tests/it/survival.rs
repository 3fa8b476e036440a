//! Servers that run out of descriptors or threads, servers that reach a limit, and servers whose standard error fails.
//!
//! Limits apply to a whole process, so each of these servers runs in a child process. A shell sets the limits with
//! `ulimit`. The shell then starts this test binary with the name of one ignored test, which is the server.
#![cfg(unix)]

use super::channel::eventually;
use super::machine::{own_loopback_address, Room};
use super::stopping::assert_goodbye;
use super::support::{Answer, Client, TIMEOUT};
use brooklet::{sse, Config, Response, Server};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const IS_CHILD: &str = "BROOKLET_TEST_CHILD";

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A server in a child process, which is killed when this value is dropped.
pub struct Child {
    process: process::Child,
    address: SocketAddr,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// Standard error, if it stays open and the test does not read it.
    unread_stderr: Option<process::ChildStderr>,
}

/// The handling of a child's standard error: the test reads it, does not read it, or closes the pipe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stderr {
    Read,
    Unread,
    Closed,
}

impl Child {
    /// Starts a shell that executes `limits` and then runs `test`. This test must call [`be_a_server`].
    pub fn start(test: &str, limits: &str) -> Child {
        Child::start_with(test, limits, Stderr::Read)
    }

    fn start_with(test: &str, limits: &str, stderr: Stderr) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limits} exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(IS_CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let mut pipe = child.stderr.take().filter(|_| stderr != Stderr::Closed);
        let unread_stderr = pipe.take_if(|_| stderr == Stderr::Unread);
        let stderr = pipe.map_or_else(|| mpsc::channel().1, lines);
        let address = loop {
            let line = stdout.recv_timeout(TIMEOUT).expect("the child prints its address");
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.parse().unwrap();
            }
        };
        Child { process: child, address, stdout, stderr, unread_stderr }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn get(&self, target: &str) -> Answer {
        self.connect().get(target)
    }

    /// Returns the path of a file in the child's `/proc` directory.
    pub fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.process.id())
    }

    /// Returns a number from `/proc/<pid>/status`, or `None` on a system without `/proc`.
    pub fn status(&self, field: &str) -> Option<usize> {
        let status = std::fs::read_to_string(self.proc("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    #[track_caller]
    pub fn assert_alive(&mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None, "the server's process has ended");
    }

    /// Waits until the child ends, and asserts that it succeeded. Returns the standard output and the standard error of
    /// the child.
    #[track_caller]
    pub fn end(mut self) -> (String, String) {
        let all = |lines: &Receiver<String>| {
            let mut said = String::new();
            loop {
                match lines.recv_timeout(TIMEOUT) {
                    Ok(line) => said = said + &line + "\n",
                    Err(mpsc::RecvTimeoutError::Disconnected) => return said,
                    Err(mpsc::RecvTimeoutError::Timeout) => panic!("the child does not end: {said}"),
                }
            }
        };
        let said = (all(&self.stdout), all(&self.stderr));
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}: {said:?}");
        said
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the lines of a pipe. A thread reads each line at once, because a full pipe would block the writer.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

/// Runs a server, if this process is a child of another test. Prints the address, serves, and then prints whether the
/// port is free again. The server stops when standard input ends, so the server does not outlive that test.
pub fn be_a_server(build: impl FnOnce(Server) -> Server) {
    if std::env::var_os(IS_CHILD).is_none() {
        return; // somebody runs all ignored tests, but this is only a server
    }
    let server = build(Server::bind((own_loopback_address(), 0)).unwrap());
    let (handle, address) = (server.handle(), server.local_addr());
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        handle.shutdown(Duration::ZERO);
    });
    println!("listening on {address}");
    server.serve().unwrap();
    println!("the port again: {:?}", Server::bind(address).map(drop));
}

/// Adds routes: `/stream` is an event stream, `/say/{n}` sends a number to all streams, `/stop` stops the server.
fn with_streams(server: Server) -> Server {
    let (handle, said) = (server.handle(), Arc::new(AtomicUsize::new(0)));
    let heard = Arc::clone(&said);
    server
        .get("/", |_| "hello")
        .get("/say/{n}", move |ctx| {
            said.store(ctx.param("n").parse().unwrap(), Ordering::SeqCst);
            "said"
        })
        .get("/stream", move |ctx| {
            sse::stream(ctx, |mut events| {
                let mut last = 0;
                loop {
                    events.wait(Duration::from_millis(10))?;
                    let now = heard.load(Ordering::SeqCst);
                    if now != last {
                        events.send_message(now.to_string())?;
                        last = now;
                    }
                }
            })
        })
        .get("/stop", move |_| {
            handle.shutdown(Duration::from_secs(60));
            "stopping"
        })
}

/// A child that has run out of descriptors or threads, and its clients.
struct Exhausted {
    child: Child,
    /// A connection for requests to the server, which accepts no new connection.
    control: Client,
    streams: Vec<Client>,
    /// Open connections, which use up the server's descriptors or threads.
    held: Vec<Client>,
    /// The last number that was sent to the streams.
    said: usize,
    /// The last field, so that the clients are dropped before the room is released.
    room: Room,
}

/// Opens streams. Then opens connections, which stay open, until a connection is refused.
fn exhaust(test: &str, limits: &str, streams: usize) -> Exhausted {
    let room = Room::for_clients(100);
    let child = Child::start(test, limits);
    let mut control = child.connect();
    assert_eq!(control.get("/").status, 200);
    let streams = (0..streams)
        .map(|_| {
            let mut client = child.connect();
            client.send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
            client.stream_head();
            client
        })
        .collect();
    let mut held = Vec::new();
    let refused = loop {
        let mut client = child.connect();
        let answer = client.get("/");
        match answer.status {
            200 => held.push(client),
            _ => break answer,
        }
        assert!(held.len() < 100, "no connection is refused");
    };
    assert!(!held.is_empty());
    assert_refused(&refused);
    Exhausted { child, control, streams, held, said: 0, room }
}

#[track_caller]
fn assert_refused(answer: &Answer) {
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&seconds));
}

impl Exhausted {
    /// Sends a number to the streams, and waits until each has received it.
    fn assert_streams_go_on(&mut self) {
        self.said += 1;
        assert_eq!(self.control.get(&format!("/say/{}", self.said)).text(), "said");
        for stream in &mut self.streams {
            assert_eq!(stream.until(b"\n\n"), format!("data: {}\n\n", self.said).as_bytes());
        }
    }

    /// Connects `clients` clients at the same time. Asserts that each client is refused before its read times out.
    fn assert_refuses(&self, clients: usize) {
        let mut clients: Vec<_> = (0..clients).map(|_| self.child.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(GET));
        clients.iter_mut().for_each(|client| assert_refused(&client.answer()));
    }

    /// Asserts that up to 50 clients are refused within [`TIMEOUT`]. A pause of a second after each refusal would exceed
    /// this limit.
    fn assert_refuses_many(&self) {
        let started = Instant::now();
        let clients = (self.room.connections - self.held.len() - self.streams.len() - 2).min(50);
        assert!(Duration::from_secs(clients as u64) > TIMEOUT, "only {clients} clients");
        self.assert_refuses(clients);
        let took = started.elapsed();
        assert!(took < TIMEOUT, "{clients} clients were refused in {took:?}");
    }

    /// Closes the held connections. Asserts that the server then serves the same number of connections again, and
    /// continues its streams.
    fn assert_recovers(&mut self) {
        let (many, started) = (self.held.len(), Instant::now());
        self.held.clear();
        while self.held.len() < many {
            let mut client = self.child.connect();
            match client.get("/").status {
                200 => self.held.push(client),
                // The server may not have noticed all closed connections yet.
                _ => assert!(started.elapsed() < 3 * TIMEOUT, "the server does not recover"),
            }
        }
        self.held.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "hello"));
        self.assert_streams_go_on();
        self.child.assert_alive();
    }

    /// Stops the server. Asserts that the server closes kept connections, sends `close` events, and frees the port.
    /// Returns the standard error of the server.
    fn assert_stops(mut self) -> String {
        let answer = self.control.get("/stop");
        assert_eq!((answer.text(), answer.header("connection")), ("stopping", Some("close")));
        drop(self.control);
        self.held.iter_mut().for_each(Client::assert_end);
        for stream in &mut self.streams {
            assert_goodbye(&stream.rest());
        }
        let (stdout, stderr) = self.child.end();
        assert!(stdout.contains("the port again: Ok(())"), "{stdout}");
        stderr
    }
}

/// Asserts that the server printed the shortage to standard error once, and not once for each client.
#[track_caller]
fn assert_complained_once(stderr: &str, of: &str) {
    let complaints: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains("New clients receive a 503 until the shortage ends"))
        .collect();
    assert!(matches!(&complaints[..], [one] if one.contains(of)), "{stderr}");
}

const WITH_STREAMS: &str = "survival::server_with_streams";

#[test]
#[ignore = "a server for other tests"]
fn server_with_streams() {
    be_a_server(with_streams);
}

/// Asserts that the server continues its streams, refuses new clients with a 503, recovers and stops. Also asserts that
/// the server has printed one line with `complaint` to standard error.
#[track_caller]
fn assert_refuses_and_recovers(mut starved: Exhausted, complaint: &str) {
    starved.assert_streams_go_on();
    starved.assert_refuses(8);
    starved.assert_streams_go_on();
    starved.child.assert_alive();
    starved.assert_recovers();
    let stderr = starved.assert_stops();
    assert_complained_once(&stderr, complaint);
}

/// A limit of 40 descriptors: 3 standard streams, the listener, the descriptor in reserve, one for the thread in
/// `accept`, and 34 for clients.
const FEW_DESCRIPTORS: &str = "ulimit -n 40;";

#[test]
fn server_out_of_descriptors_refuses_with_503_and_recovers() {
    assert_refuses_and_recovers(exhaust(WITH_STREAMS, FEW_DESCRIPTORS, 10), "cannot accept");
}

#[test]
fn server_out_of_descriptors_can_be_stopped() {
    let starved = exhaust(WITH_STREAMS, FEW_DESCRIPTORS, 10);
    starved.assert_refuses(8);
    starved.assert_stops();
}

/// On Linux, each thread in `accept` holds a descriptor, which `/proc` does not show. After many clients have left, these
/// threads must not keep all descriptors.
#[test]
fn server_after_clients_that_took_all_descriptors_serves_again_and_stops() {
    let room = Room::for_clients(60);
    let child = Child::start(WITH_STREAMS, FEW_DESCRIPTORS);
    let clients: Vec<_> = (0..45)
        .map(|_| {
            let mut client = child.connect();
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            client
        })
        .collect();
    drop(clients);
    eventually(|| (0..20).all(|_| child.get("/").status == 200));
    assert_eq!(child.get("/stop").text(), "stopping");
    let (stdout, _) = child.end();
    assert!(stdout.contains("the port again: Ok(())"), "{stdout}");
    drop(room);
}

/// The server must not pause after each refusal, because the 50th client would then wait for 49 pauses.
#[test]
fn server_out_of_descriptors_refuses_many_in_time() {
    exhaust(WITH_STREAMS, FEW_DESCRIPTORS, 10).assert_refuses_many();
}

#[cfg(target_os = "linux")]
const WITH_HUGE_STACKS: &str = "survival::server_with_huge_stacks";

#[cfg(target_os = "linux")]
#[test]
#[ignore = "a server for other tests"]
fn server_with_huge_stacks() {
    be_a_server(|server| with_streams(server).config(Config { stack_size: 1 << 30, ..Config::default() }));
}

/// About 7 GB of address space: six stacks of 1 GiB, and space for all other memory. macOS has no such limit.
#[cfg(target_os = "linux")]
const FEW_STACKS: &str = "ulimit -v 7000000;";

#[cfg(target_os = "linux")]
#[test]
fn server_out_of_threads_refuses_with_503_and_recovers() {
    assert_refuses_and_recovers(exhaust(WITH_HUGE_STACKS, FEW_STACKS, 1), "cannot start a thread");
}

#[cfg(target_os = "linux")]
#[test]
fn server_out_of_threads_can_be_stopped() {
    let starved = exhaust(WITH_HUGE_STACKS, FEW_STACKS, 1);
    starved.assert_refuses(8);
    starved.assert_stops();
}

#[cfg(target_os = "linux")]
#[test]
fn server_out_of_threads_refuses_many_in_time() {
    exhaust(WITH_HUGE_STACKS, FEW_STACKS, 1).assert_refuses_many();
}

/// The time for which the server waits for a whole head.
const PATIENCE: Duration = Duration::from_secs(3);

#[test]
#[ignore = "a server for other tests"]
fn server_for_many_clients() {
    let config = Config { read_header_timeout: PATIENCE, max_connections: 12_000, ..Config::default() };
    be_a_server(|server| server.get("/", |_| "hello").config(config));
}

/// The maximum number of threads that wait for connections.
const WAITING: usize = 64;

#[test]
fn incomplete_heads_of_ten_thousand_clients_do_not_block_others() {
    let room = Room::for_clients(10_000);
    let many = room.connections - 8; // the rest is for clients that are served
    let mut child = Child::start("survival::server_for_many_clients", "");
    assert_eq!(child.get("/").text(), "hello");
    let threads_before = child.status("Threads");
    let started = Instant::now();
    let mut hanging: Vec<_> = (0..many)
        .map(|n| {
            if n % 100 == 0 {
                assert_eq!(child.get("/").text(), "hello");
            }
            let mut client = child.connect();
            client.send("GET / HTTP/1.1\r\nHost: loc");
            client
        })
        .collect();
    let opened = started.elapsed();
    for _ in 0..100 {
        assert_eq!(child.get("/").text(), "hello");
    }
    let threads_between = child.status("Threads");
    let served = started.elapsed();
    for client in &mut hanging {
        assert_eq!(client.answer().status, 408);
    }
    let answered = started.elapsed();
    drop(hanging);
    child.assert_alive();
    println!("all opened after {opened:?}, others served after {served:?}, all answered 408 after {answered:?}");
    let Some(before) = threads_before else { return };
    // The loop sends a request between two checks, so that it does not use all CPU time. No other client is connected.
    let mut client = child.connect();
    let closed = Instant::now();
    let after = loop {
        let threads = child.status("Threads").unwrap();
        if threads <= before + WAITING {
            break threads;
        }
        assert!(closed.elapsed() < 3 * TIMEOUT, "{threads} threads left of {threads_between:?}, {before} at the start");
        assert_eq!(client.get("/").status, 200);
    };
    println!("threads: {before}, then {threads_between:?}, then {after}");
}

#[test]
#[ignore = "a server for other tests"]
fn server_with_faults() {
    be_a_server(|server| {
        server
            .get("/", |_| "hello")
            .get("/error", |_| io::Error::other("not printed"))
            .get("/long-error", |_| io::Error::other("x".repeat(1_000_000)))
            .get("/panic", |_| -> &str { panic!("not printed") })
            .get("/broken", |_| {
                Response::stream("text/plain", |out| {
                    out.write_all(&[b'x'; 100_000])?;
                    Err(io::Error::other("not printed"))
                })
            })
    });
}

#[test]
fn standard_error_that_is_closed_ends_nothing() {
    let mut child = Child::start_with("survival::server_with_faults", "", Stderr::Closed);
    let mut client = child.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/error").status, 500);
        assert_eq!(client.get("/").status, 200, "on the same connection");
        assert_eq!(child.get("/panic").status, 500);
        let mut broken = child.connect();
        broken.send("GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(broken.head().status, 200);
        assert!(!broken.rest().ends_with(b"0\r\n\r\n"));
        assert_eq!(child.get("/").status, 200);
    }
    child.assert_alive();
}

/// The first line fills the pipe. A thread that waited until it has printed another line would block forever.
#[test]
fn standard_error_that_is_not_read_blocks_no_client() {
    let child = Child::start_with("survival::server_with_faults", "", Stderr::Unread);
    assert!(child.unread_stderr.is_some());
    for _ in 0..3 {
        assert_eq!(child.get("/long-error").status, 500);
        assert_eq!(child.get("/").status, 200);
        let mut client = child.connect();
        client.send("GET /error HTTP/1.0\r\n\r\n");
        assert_eq!(client.answer().status, 500);
        client.assert_end();
    }
}

#[test]
#[ignore = "a server for other tests"]
fn server_that_is_full() {
    be_a_server(|server| {
        with_streams(server).config(Config { max_connections: 1, max_taken_over: 1, ..Config::default() })
    });
}

#[test]
fn refusals_by_each_limit_are_printed_once_a_minute() {
    let child = Child::start("survival::server_that_is_full", "");
    let get = |target: &str, status: u16| {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut client = child.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            if client.head().status == status {
                return client;
            }
            assert!(Instant::now() < deadline, "no response with status {status}");
        }
    };
    let _stream = get("/stream", 200);
    // A client whose takeover is refused needs the only connection. So these requests come before `control`, which
    // keeps the only connection open.
    (0..3).for_each(|_| drop(get("/stream", 503)));
    let mut control = get("/say/7", 200);
    (0..3).for_each(|_| drop(get("/", 503)));
    // A line is printed after the response. The process must not end before the first line of each limit.
    let mut stderr = String::new();
    while !["max_connections", "max_taken_over"].iter().all(|limit| stderr.contains(limit)) {
        stderr += &(child.stderr.recv_timeout(TIMEOUT).unwrap() + "\n");
    }
    control.send("GET /stop HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stderr += &child.end().1;
    for (limit, expected) in [("max_connections", 1), ("max_taken_over", 1)] {
        let lines = stderr.lines().filter(|line| line.contains(" 503 ") && line.contains(limit)).count();
        assert_eq!(lines, expected, "{limit}: {stderr}");
    }
}

/// The handler of `/client` writes until its client leaves. The handler of `/pipe` returns an error of the same kind,
/// but the client did not cause this error.
#[test]
#[ignore = "a server for other tests"]
fn server_whose_clients_leave() {
    be_a_server(|server| {
        let handle = server.handle();
        server
            .get("/client", |ctx| -> io::Result<Response> {
                let (mut conn, _no_result) = ctx.takeover_conn();
                loop {
                    conn.write_all(&[b'x'; 100_000])?;
                }
            })
            .get("/pipe", |ctx| -> io::Result<Response> {
                let (_conn, _no_result) = ctx.takeover_conn();
                Err(io::ErrorKind::BrokenPipe.into())
            })
            .get("/stop", move |_| {
                handle.shutdown(Duration::from_secs(60));
                "stopping"
            })
    });
}

#[test]
fn client_that_leaves_a_taken_over_connection_is_not_printed() {
    let child = Child::start("survival::server_whose_clients_leave", "");
    let mut client = child.connect();
    client.send("GET /client HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.exactly(1_000_000);
    client.reset();
    let mut client = child.connect();
    client.send("GET /pipe HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.assert_end();
    // The line is printed after the connection has ended.
    let line = child.stderr.recv_timeout(TIMEOUT).unwrap();
    assert!(line.starts_with("brooklet: ") && line.contains("GET /pipe taken over"), "{line}");
    assert_eq!(child.get("/stop").status, 200);
    let (_, stderr) = child.end();
    assert!(!stderr.contains("brooklet: "), "{stderr}");
}

/// `/fill` allocates address space until 256 to 512 MiB are left. `/feed` subscribes to a channel.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "a server for other tests"]
fn server_with_a_channel() {
    static HELD: std::sync::Mutex<Vec<Vec<u8>>> = std::sync::Mutex::new(Vec::new());
    be_a_server(|server| {
        let channel = sse::Channel::new();
        server
            .get("/feed", move |ctx| channel.subscribe(ctx))
            .get("/fill", |_| {
                let mut held = HELD.lock().unwrap();
                held.reserve(100);
                let mut piece = Vec::new();
                while piece.try_reserve_exact(1 << 28).is_ok() {
                    held.push(std::mem::take(&mut piece));
                }
                // A small allocation that fails aborts the process, so the rest is large.
                held.pop();
                "filled"
            })
            .get("/empty", |_| {
                HELD.lock().unwrap().clear();
                "emptied"
            })
    });
}

#[cfg(target_os = "linux")]
#[test]
fn channel_without_a_thread_is_503_with_retry_after() {
    // The thread of a channel has the stack size of a `std` thread, 1 GiB here.
    let child =
        Child::start("survival::server_with_a_channel", &format!("{FEW_STACKS} export RUST_MIN_STACK={};", 1 << 30));
    let mut client = child.connect();
    assert_eq!(client.get("/fill").text(), "filled");
    let answer = client.get("/feed");
    assert_eq!(answer.status, 503);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&seconds));
    assert_eq!(client.get("/empty").text(), "emptied");
    client.send("GET /feed HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
}

#[test]
#[ignore = "a server for other tests"]
fn server_with_deep_handlers() {
    /// Uses a mebibyte of stack that the compiler cannot optimize away.
    fn deep(_: brooklet::Context<'_>) -> String {
        let mut bytes = [1_u8; 1 << 20];
        std::hint::black_box(&mut bytes);
        bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>().to_string()
    }
    be_a_server(|server| server.get("/", deep));
}

/// A stack overflow aborts the whole process, so a handler has at least as much stack as a thread of `std`.
#[test]
fn handler_has_the_stack_size_of_a_std_thread() {
    let child = Child::start("survival::server_with_deep_handlers", "unset RUST_MIN_STACK;");
    assert_eq!(child.get("/").text(), (1 << 20).to_string());
}

/// The stream of `/deaf` never calls `wait`, and the stream of `/heedful` calls `wait`. The handler of `/typo/{id}`
/// asks for a parameter that this pattern does not contain.
#[test]
#[ignore = "a server for other tests"]
fn server_with_mistakes() {
    be_a_server(|server| {
        let handle = server.handle();
        let deaf = |mut events: sse::Connection| loop {
            events.send_message("tick")?;
            thread::sleep(Duration::from_millis(10));
        };
        server
            .get("/deaf", move |ctx| sse::stream(ctx, deaf))
            .get("/heedful", |ctx| sse::stream(ctx, |mut events| events.wait(Duration::from_secs(3600))))
            .get("/typo/{id}", |ctx| ctx.param("name").to_owned())
            .get("/stop/{milliseconds}", move |ctx| {
                handle.shutdown(Duration::from_millis(ctx.param("milliseconds").parse().unwrap()));
                "stopping"
            })
    });
}

/// Starts the server, requests these targets, and stops the server with this grace. Returns the standard error of the
/// server.
fn mistaken(targets: &[&str], grace: Duration) -> String {
    let stop = format!("/stop/{}", grace.as_millis());
    let child = Child::start("survival::server_with_mistakes", "");
    let open = |target: &&str| {
        let mut client = child.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.head();
        client
    };
    let _clients: Vec<_> = targets.iter().chain(&[&*stop]).map(open).collect();
    child.end().1
}

#[test]
fn streams_that_did_not_notice_the_shutdown_are_counted() {
    // On a busy machine, the loop that calls `wait` may run too late to notice the shutdown within a short grace.
    let mut graces = [Duration::from_millis(200), Duration::from_secs(2), TIMEOUT].into_iter();
    let mut told = String::new();
    while !told.contains("2 of the connections that were taken over") {
        let grace = graces.next().unwrap_or_else(|| panic!("{told}"));
        told = mistaken(&["/deaf", "/heedful", "/deaf"], grace);
    }
    assert!(told.contains("`wait`"), "{told}");
    let told = mistaken(&["/heedful"], TIMEOUT);
    assert!(!told.contains("taken over"), "{told}");
}

#[test]
fn parameter_that_the_pattern_lacks_is_printed_with_its_source_line() {
    let told = mistaken(&["/typo/7"], TIMEOUT);
    assert!(told.contains("survival.rs") && told.contains("`/typo/{id}` has no parameter `name`"), "{told}");
    assert!(told.contains("GET /typo/7 500 "), "the request is printed too: {told}");
}
