//! `Handle::shutdown`: how requests, streams and other connections end, and when `serve` returns.

use super::machine::{own_loopback_address, Room};
use super::support::{serve, serve_on, Client, Running, TIMEOUT};
use super::takeover::{take, taking};
use brooklet::{sse, Context, Handle, Response, Server};
use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A grace that is much longer than a test. `serve` must return earlier, because no connection is left.
const LONG: Duration = Duration::from_secs(60);

/// A short grace for tests that wait for the end of the grace.
const SHORT: Duration = Duration::from_millis(300);

/// The delay that a busy machine may add before `serve` returns.
const SLACK: Duration = TIMEOUT;

const HOUR: Duration = Duration::from_secs(3600);

/// Asserts that `stream` consists of the `close` event of a shutdown. Returns the `retry` of this event: the delay in
/// milliseconds before the client reconnects.
#[track_caller]
pub fn assert_goodbye(stream: &[u8]) -> u64 {
    let stream = String::from_utf8_lossy(stream);
    let retry = stream
        .strip_prefix("event: close\ndata: close\nretry: ")
        .and_then(|rest| rest.strip_suffix("\n\n"));
    let retry = retry.unwrap_or_else(|| panic!("no `close` event: {stream:?}")).parse().unwrap();
    assert!((1_000..5_000).contains(&retry), "{retry}");
    retry
}

/// Waits until `serve` returns. Returns the time that this took. Panics after [`TIMEOUT`].
#[track_caller]
fn returned(server: Running) -> Duration {
    let (done, returns) = mpsc::channel();
    let waited = Instant::now();
    thread::spawn(move || done.send(server.join()));
    returns.recv_timeout(TIMEOUT).expect("serve has not returned").unwrap();
    waited.elapsed()
}

/// Asserts that `serve` returns before the grace ends, within [`SLACK`].
#[track_caller]
fn assert_at_once(server: Running) {
    let took = returned(server);
    assert!(took < SLACK, "no connection is left, but serve took {took:?}");
}

/// Asserts that `serve` returns after the grace, and at most [`SLACK`] later.
#[track_caller]
fn assert_after(grace: Duration, stopped: Instant, server: Running) {
    returned(server);
    let took = stopped.elapsed();
    assert!(took >= grace, "a connection was left, but serve took only {took:?}");
    assert!(took < grace + SLACK, "the grace was {grace:?}, but serve took {took:?}");
}

/// A server that answers `/` at once, and `/slow` when the test allows it.
struct Slow {
    server: Running,
    /// The receiver that yields a value when a request for `/slow` has reached its handler.
    entered: Receiver<()>,
    /// The sender that lets handlers finish: one handler for each value, and all handlers when this sender is dropped.
    go: Sender<()>,
}

fn slow() -> Slow {
    let (enter, entered) = mpsc::channel();
    let (go, gate) = mpsc::channel();
    let (enter, gate) = (Mutex::new(enter), Mutex::new(gate));
    // Some tests check that the port is free afterwards, so no other test may use this address.
    let server = serve_on(own_loopback_address(), |server| {
        server.get("/", |_| "hello").get("/slow", move |_| {
            let _ = enter.lock().unwrap().send(());
            let _ = gate.lock().unwrap().recv();
            "at last"
        })
    });
    Slow { server, entered, go }
}

impl Slow {
    /// Returns a client whose request for `/slow` has reached its handler.
    fn ask(&self) -> Client {
        let mut client = self.server.connect();
        client.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.entered.recv_timeout(TIMEOUT).unwrap();
        client
    }
}

#[test]
fn shutdown_of_an_idle_server_returns_at_once() {
    let server = serve(|server| server.get("/", |_| "hello"));
    server.handle().shutdown(LONG);
    assert_at_once(server);
}

#[test]
fn shutdown_wakes_all_threads_that_wait_for_connections() {
    let room = Room::for_both_ends(40);
    let server = serve(|server| server.get("/", |_| "hello"));
    // Each of these connections has a thread. Many of these threads wait for further connections after their connection
    // has ended.
    let mut clients: Vec<_> = (0..room.connections).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "hello"));
    drop(clients);
    assert_eq!(server.get("/").text(), "hello");
    server.handle().shutdown(LONG);
    assert_at_once(server);
}

#[test]
fn shutdown_closes_idle_connections_at_once() {
    let room = Room::for_both_ends(120);
    let server = serve(|server| server.get("/", |_| "hello"));
    // Connections are accepted in order. If the server has answered the later connections, it has also accepted the
    // silent connections.
    let mut silent: Vec<_> = (0..room.connections / 6).map(|_| server.connect()).collect();
    let mut asking: Vec<_> = (silent.len()..room.connections).map(|_| server.connect()).collect();
    for client in &mut asking {
        assert_eq!(client.get("/").header("connection"), None);
    }
    server.handle().shutdown(LONG);
    assert_at_once(server);
    silent.iter_mut().chain(&mut asking).for_each(Client::assert_end);
}

#[test]
fn shutdown_during_a_handler_answers_with_connection_close() {
    let slow = slow();
    let mut idle = slow.server.connect();
    assert_eq!(idle.get("/").text(), "hello");
    let mut client = slow.ask();
    slow.server.handle().shutdown(LONG);
    idle.assert_end(); // while the other request is still in its handler
    slow.go.send(()).unwrap();
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.header("connection")), (200, "at last", Some("close")));
    client.assert_end();
    drop(client);
    assert_at_once(slow.server);
}

#[test]
fn shutdown_returns_after_the_grace_while_a_handler_runs() {
    let slow = slow();
    let mut client = slow.ask();
    let stopped = Instant::now();
    slow.server.handle().shutdown(SHORT);
    assert_after(SHORT, stopped, slow.server);
    client.assert_end();
    drop(slow.go); // until here the request was in its handler
}

#[test]
fn shutdown_during_a_request_waits_for_the_rest_of_it() {
    let server = serve(|server| server.get("/", |_| "hello").post("/", |mut ctx| ctx.body_text()));
    let (head, rest) = ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Le", "ngth: 5\r\n\r\n");
    // For `in_head`, the response to the first request shows that the server has also read the start of the second
    // request. For `in_body`, the 100 (Continue) shows that the server has read the head.
    let mut in_head = server.connect();
    in_head.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n{head}"));
    assert_eq!(in_head.answer().text(), "hello");
    let mut in_body = server.connect();
    in_body.send(format!("{head}ngth: 5\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(in_body.head().status, 100);
    server.handle().shutdown(LONG);
    in_head.send(rest);
    for mut client in [in_head, in_body] {
        client.send("whole");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text(), answer.header("connection")), (200, "whole", Some("close")));
        client.assert_end();
    }
    assert_at_once(server);
}

#[test]
fn shutdown_during_a_response_sends_the_rest_of_it() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let server = serve(|server| {
        server.get("/", move |_| {
            let gate = Arc::clone(&gate);
            Response::stream("text/plain", move |out| {
                out.write_all(&[b'x'; 100_000])?;
                let _ = gate.lock().unwrap().recv();
                out.write_all(b"the end")
            })
        })
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, Some("chunked")));
    server.handle().shutdown(LONG);
    drop(go);
    assert!(client.rest().ends_with(b"the end\r\n0\r\n\r\n"));
    drop(client);
    assert_at_once(server);
}

/// The server must not process a request after a response with `Connection: close` (RFC 9112 9.6). A reset must not
/// discard this response.
#[test]
fn shutdown_with_a_pipelined_request_ends_after_the_response_before_it() {
    for behind in [true, false] {
        let slow = slow();
        let mut client = slow.server.connect();
        let next = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let (with, after) = if behind { (next, "") } else { ("", next) };
        client.send(format!("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n{with}"));
        slow.entered.recv_timeout(TIMEOUT).unwrap();
        slow.server.handle().shutdown(LONG);
        client.send(after);
        slow.go.send(()).unwrap();
        let answer = client.answer();
        assert_eq!((answer.text(), answer.header("connection")), ("at last", Some("close")));
        client.assert_end();
        drop(client);
        assert_at_once(slow.server);
    }
}

#[test]
fn shutdown_sends_a_close_event_to_a_thousand_streams() {
    let room = Room::for_both_ends(1_000);
    let streams = room.connections;
    let server = serve(|server| server.get("/", |ctx| sse::stream(ctx, |mut events| events.wait(HOUR))));
    let mut clients: Vec<_> = (0..streams)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            client.stream_head();
            client
        })
        .collect();
    server.handle().shutdown(LONG);
    let retries: HashSet<_> = clients.iter_mut().map(|client| assert_goodbye(&client.rest())).collect();
    assert!(retries.len() > streams / 4, "clients must reconnect at different times");
    assert_at_once(server);
}

/// The senders with which a writer reports to the test.
#[derive(Clone)]
struct Telling {
    path: &'static str,
    wrote: Sender<&'static str>,
    ended: Sender<ErrorKind>,
}

impl Telling {
    fn write_on(&self, mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            if let Err(error) = write() {
                self.ended.send(error.kind()).unwrap();
                return Err(error);
            }
            let _ = self.wrote.send(self.path);
        }
    }
}

/// The writers are an event stream, a response body and a connection that was taken over.
#[test]
fn shutdown_ends_blocked_writes_after_the_grace() {
    static FRAME: [u8; 200_000] = [b'x'; 200_000];
    let (wrote, writes) = mpsc::channel();
    let (ended, ends) = mpsc::channel();
    const PATHS: [&str; 3] = ["/stream", "/body", "/raw"];
    let [by_stream, by_body, by_raw] = PATHS.map(|path| Telling { path, wrote: wrote.clone(), ended: ended.clone() });
    let server = serve(|server| {
        server
            .get("/stream", move |ctx| {
                let frame = String::from_utf8_lossy(&FRAME);
                sse::stream(ctx, |mut events| by_stream.write_on(|| events.send_message(&*frame)))
            })
            .get("/body", move |_| {
                let telling = by_body.clone();
                Response::stream("text/plain", move |out| telling.write_on(|| out.write_all(&FRAME)))
            })
            .get("/raw", move |ctx| {
                let (mut conn, no_result) = ctx.takeover_conn();
                let telling = by_raw.clone();
                thread::spawn(move || telling.write_on(|| conn.write_all(&FRAME)));
                no_result
            })
            .on_response(|_| ()) // keeps the errors out of standard error
    });
    let clients = PATHS.map(|path| {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        while writes.recv_timeout(TIMEOUT).unwrap() != path {}
        client
    });
    // If no write succeeds for 200 ms, the kernel's buffers are full and all three writers are blocked.
    while writes.recv_timeout(Duration::from_millis(200)).is_ok() {}
    assert!(ends.try_recv().is_err());
    let stopped = Instant::now();
    server.handle().shutdown(SHORT);
    assert_after(SHORT, stopped, server);
    for _ in &clients {
        let kind = ends.recv_timeout(TIMEOUT).expect("the end of the connection ends a blocked write");
        assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind:?}");
    }
}

#[test]
fn shutdown_ends_the_input_of_a_taken_over_connection_that_can_still_write() {
    let (tell, told) = mpsc::channel();
    let (server, taken) = taking();
    let (mut client, mut conn) = take(&server, &taken, "\r\n");
    thread::spawn(move || {
        let read = conn.read(&mut [0]); // has no timeout, so it blocks until the shutdown
        tell.send((read, conn.is_stopping(), conn.write_all(b"bye"))).unwrap();
        tell.send((conn.read(&mut [0]), true, Ok(()))).unwrap();
        conn // dropped only here
    });
    server.handle().shutdown(LONG);
    let (read, stopping, said_goodbye) = told.recv_timeout(TIMEOUT).unwrap();
    assert_eq!((read.unwrap(), stopping), (0, true));
    said_goodbye.unwrap();
    assert_at_once(server);
    assert_eq!(client.rest(), b"bye");
}

#[test]
fn shutdown_closes_a_taken_over_connection_after_the_grace() {
    let (server, taken) = taking();
    let (mut client, mut conn) = take(&server, &taken, "\r\n");
    let stopped = Instant::now();
    server.handle().shutdown(SHORT);
    assert_after(SHORT, stopped, server);
    client.assert_end();
    let kind = conn.write(b"too late").map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::BrokenPipe));
}

#[test]
fn shutdown_called_twice_uses_the_shorter_grace() {
    for graces in [[LONG, Duration::ZERO], [Duration::ZERO, LONG]] {
        let slow = slow();
        let mut client = slow.ask();
        graces.iter().for_each(|grace| slow.server.handle().shutdown(*grace));
        assert_at_once(slow.server);
        client.assert_end();
        drop(slow.go);
    }
}

#[test]
fn shutdown_called_by_several_threads_uses_the_shortest_grace() {
    let slow = slow();
    let mut client = slow.ask();
    let together = Arc::new(Barrier::new(9));
    for n in 0..8 {
        let (handle, together) = (slow.server.handle().clone(), Arc::clone(&together));
        thread::spawn(move || {
            together.wait();
            handle.shutdown(if n == 5 { SHORT } else { LONG });
            handle.shutdown(LONG);
        });
    }
    let stopped = Instant::now();
    together.wait();
    assert_after(SHORT, stopped, slow.server);
    client.assert_end();
    drop(slow.go);
}

#[test]
fn shutdown_before_serve_makes_serve_return_at_once() {
    let server = Server::bind("127.0.0.1:0").unwrap().get("/", |_| "hello");
    let mut early = Client::connect(server.local_addr());
    early.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    server.handle().shutdown(LONG);
    let (done, returns) = mpsc::channel();
    let started = Instant::now();
    thread::spawn(move || done.send(server.serve()));
    returns.recv_timeout(TIMEOUT).unwrap().unwrap();
    assert!(started.elapsed() < SLACK);
    // A client that connected before the shutdown receives the end of the connection or a reset, so the client does not
    // hang.
    let read = early.stream.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)), "{read:?}");
}

#[test]
fn shutdown_called_by_a_handler_answers_its_request() {
    for grace in [LONG, Duration::MAX] {
        let server = serve(|server| {
            let handle = server.handle();
            server.get("/stop", move |_| {
                handle.shutdown(grace);
                "stopping"
            })
        });
        let mut client = server.connect();
        let answer = client.get("/stop");
        assert_eq!((answer.text(), answer.header("connection")), ("stopping", Some("close")));
        client.assert_end();
        drop(client);
        assert_at_once(server);
    }
}

#[test]
fn shutdown_called_by_a_stream_a_guard_or_a_hook_stops_the_server() {
    let stopping = |is_stream: bool, build: fn(Server, Handle) -> Server| {
        let server = serve(|server| {
            let handle = server.handle();
            build(server, handle)
        });
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if is_stream {
            client.stream_head();
        } else {
            client.head();
        }
        let rest = String::from_utf8(client.rest()).unwrap();
        drop(client);
        assert_at_once(server);
        rest
    };
    let by_stream = stopping(true, |server, handle| {
        server.get("/", move |ctx: Context<'_>| {
            let handle = handle.clone();
            sse::stream(ctx, move |mut events| {
                handle.shutdown(LONG);
                events.wait(HOUR)
            })
        })
    });
    assert_goodbye(by_stream.as_bytes());
    let by_guard = stopping(false, |server, handle| {
        server
            .before(move |_| {
                handle.shutdown(LONG);
                None
            })
            .get("/", |_| "hello")
    });
    assert_eq!(by_guard, "hello");
    let by_hook =
        stopping(false, |server, handle| server.get("/", |_| "hello").on_response(move |_| handle.shutdown(LONG)));
    assert_eq!(by_hook, "hello");
}

#[test]
fn shutdown_without_a_limit_ends_with_the_last_connection() {
    let slow = slow();
    let mut client = slow.ask();
    slow.server.handle().shutdown(Duration::MAX);
    slow.server.handle().shutdown(Duration::from_secs(u64::MAX));
    let (done, returns) = mpsc::channel();
    thread::spawn(move || done.send(slow.server.join()));
    let early = returns.recv_timeout(SHORT);
    assert!(early.is_err(), "a connection is left");
    slow.go.send(()).unwrap();
    assert_eq!(client.answer().text(), "at last");
    drop(client);
    returns.recv_timeout(TIMEOUT).unwrap().unwrap();
}

/// Sends three requests on a connection, the last with `Connection: close`. Returns whether all three were answered.
fn round_trips(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    for last in [false, false, true] {
        let connection = if last { "Connection: close\r\n" } else { "" };
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{connection}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nhello") {
            let mut some = [0; 1024];
            match stream.read(&mut some)? {
                0 => return Ok(false),
                read => answer.extend_from_slice(&some[..read]),
            }
        }
    }
    Ok(true)
}

#[test]
fn port_of_a_busy_server_is_free_after_serve_returns() {
    let start = |server: Server| {
        let server = server.get("/", |_| "hello");
        let (handle, (done, returns)) = (server.handle(), mpsc::channel());
        thread::spawn(move || done.send(server.serve()));
        (handle, returns)
    };
    let (mut handle, mut returns) = start(Server::bind((own_loopback_address(), 0)).unwrap());
    let address = handle.local_addr();
    for round in 0..20 {
        let over = Arc::new(AtomicBool::new(false));
        let (asked, askings) = mpsc::channel();
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (over, asked) = (Arc::clone(&over), asked.clone());
                thread::spawn(move || {
                    // A client stops after its first failure. If the client continued to connect, the system could
                    // choose the server's former port as the client's own port. The client would then connect to
                    // itself.
                    while !over.load(Ordering::SeqCst) && round_trips(address).is_ok_and(|all| all) {
                        asked.send(()).unwrap();
                    }
                })
            })
            .collect();
        (0..50).for_each(|_| askings.recv_timeout(TIMEOUT).unwrap());
        let stopped = Instant::now();
        handle.shutdown(LONG);
        returns.recv_timeout(TIMEOUT).expect("serve has not returned").unwrap();
        let took = stopped.elapsed();
        assert!(took < SLACK, "round {round} took {took:?}");
        let again = Server::bind(address).unwrap_or_else(|error| panic!("round {round}: {error}"));
        (handle, returns) = start(again);
        over.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
    }
    handle.shutdown(Duration::ZERO);
    returns.recv_timeout(TIMEOUT).unwrap().unwrap();
}

/// Another process may hold the same listener, so the server must not shut down the listening socket.
#[test]
fn listener_held_by_others_still_accepts_after_a_shutdown() {
    let listener = TcpListener::bind((own_loopback_address(), 0)).unwrap();
    let of_other_process = listener.try_clone().unwrap();
    for _ in 0..2 {
        let server = Server::from(of_other_process.try_clone().unwrap()).get("/", |_| "hello");
        let (handle, address) = (server.handle(), server.local_addr());
        assert_eq!(address, listener.local_addr().unwrap());
        let (done, returns) = mpsc::channel();
        thread::spawn(move || done.send(server.serve()));
        assert_eq!(Client::connect(address).get("/").text(), "hello");
        handle.shutdown(LONG);
        returns.recv_timeout(TIMEOUT).expect("serve has not returned").unwrap();
    }
    let waiting = TcpStream::connect_timeout(&listener.local_addr().unwrap(), TIMEOUT).unwrap();
    // The server connects to itself to wake its threads. These connections may be in the queue before the connection of
    // `waiting`.
    while of_other_process.accept().unwrap().1 != waiting.local_addr().unwrap() {}
}

#[test]
fn listener_that_is_nonblocking_is_made_blocking() {
    let listener = TcpListener::bind((own_loopback_address(), 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let same = listener.try_clone().unwrap();
    let _server = Server::from(listener);
    let address = same.local_addr().unwrap();
    let (done, accepted) = mpsc::channel();
    thread::spawn(move || done.send(same.accept().map(drop).map_err(|error| error.kind())));
    let _client = TcpStream::connect_timeout(&address, TIMEOUT).unwrap();
    assert_eq!(accepted.recv_timeout(TIMEOUT).unwrap(), Ok(()));
}

#[cfg(unix)]
#[test]
fn listener_that_is_a_unix_socket_is_an_error_of_serve() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let server = Server::from(TcpListener::from(std::os::fd::OwnedFd::from(one))).get("/", |_| "hello");
    assert_eq!(server.local_addr(), SocketAddr::from(([0, 0, 0, 0], 0)));
    let (done, returns) = mpsc::channel();
    thread::spawn(move || done.send(server.serve()));
    assert!(returns.recv_timeout(TIMEOUT).expect("serve has not returned").is_err());
}

#[test]
fn port_is_free_after_serve_returns_while_a_handler_runs() {
    let slow = slow();
    let address = slow.server.address();
    let mut client = slow.ask();
    slow.server.handle().shutdown(Duration::ZERO);
    assert_at_once(slow.server);
    client.assert_end();
    let kind = TcpStream::connect(address).map_err(|error| error.kind()).err();
    assert_eq!(kind, Some(ErrorKind::ConnectionRefused));
    drop(Server::bind(address).unwrap());
    drop(slow.go); // until here the request was in its handler
}

/// A client that connects during the grace must receive an error at once. The client must not wait in the queue of the
/// listener, from which the server accepts no more connections.
#[test]
fn connection_during_the_grace_is_refused() {
    let slow = slow();
    let address = slow.server.address();
    let mut client = slow.ask();
    slow.server.handle().shutdown(LONG);
    let stopped = Instant::now();
    // The listener closes a moment after the call. Until then the queue of the listener may fill, so each attempt to
    // connect has a short timeout.
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(50)).map_err(|error| error.kind());
    while connect().err() != Some(ErrorKind::ConnectionRefused) {
        assert!(stopped.elapsed() < SLACK, "connections are still accepted");
    }
    slow.go.send(()).unwrap();
    assert_eq!(client.answer().text(), "at last");
    drop(client);
    assert_at_once(slow.server);
}
