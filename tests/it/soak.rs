//! A server serves all kinds of clients for ten minutes. Afterwards the server may hold at most 2 MiB more memory than
//! after the warm-up, at most 64 more threads than at the start, and no more descriptors.
//!
//! ```text
//! BROOKLET_SOAK_SECONDS=60 cargo test --test it soak -- --ignored --nocapture
//! ```
#![cfg(target_os = "linux")]

use super::support::{Client, Random, TIMEOUT};
use super::survival::{be_a_server, Child};
use brooklet::{sse, Config, Response};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

const SECONDS: &str = "BROOKLET_SOAK_SECONDS";

/// The number of threads for each kind of client.
const EACH: usize = 3;

/// The pause of a client between two connections. All clients together then open about 300 connections per second, so
/// that the system does not run out of ports.
const REST: Duration = Duration::from_millis(50);

/// The timeout of the server for a head, a read, a write and an idle connection, and the read timeout of a connection
/// that was taken over.
const PATIENCE: Duration = Duration::from_secs(2);

/// A shell command with which glibc uses a single heap. By default glibc uses several heaps for its threads, and the
/// sizes of these heaps vary from run to run.
const ONE_HEAP: &str = "export MALLOC_ARENA_MAX=1;";

/// The limit on the growth of memory after the warm-up, in KiB. In ten minutes, a leak of 20 bytes per connection
/// exceeds this limit.
const RSS_KB: usize = 2 * 1024;

/// The maximum number of threads that wait for connections. The actual number varies from run to run.
const WAITING: usize = 64;

#[test]
#[ignore = "a server for the test below"]
fn server_for_all_clients() {
    let config = Config {
        read_header_timeout: PATIENCE,
        read_timeout: PATIENCE,
        write_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        ..Config::default()
    };
    be_a_server(|server| {
        server
            .config(config)
            .get("/", |_| "hello")
            .get("/n/{n}", |ctx| ctx.param("n").to_owned())
            .get("/large", |_| "x".repeat(1_000_000))
            .get("/chunked", |_| Response::stream("text/plain", |out| (0..100).try_for_each(|n| writeln!(out, "{n}"))))
            .post("/echo", |mut ctx| ctx.body_text())
            .get("/error", |_| std::io::Error::other("as asked"))
            .get("/stream", |ctx| {
                sse::stream(ctx, |mut events| {
                    for n in 0..20 {
                        events.wait(Duration::from_millis(5))?;
                        events.send_message(sse::Message::new().id(n).data("ping"))?;
                    }
                    events.close()
                })
            })
            .get("/take", |ctx| {
                let (mut conn, no_result) = ctx.takeover_conn();
                thread::spawn(move || {
                    let mut line = [0; 5];
                    conn.tcp_stream().set_read_timeout(Some(PATIENCE))?;
                    conn.read_exact(&mut line)?;
                    conn.write_all(&line)
                });
                no_result
            })
            .on_response(|_| ()) // otherwise the server would print a line for each client that left
    });
}

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn keeps_alive(client: &mut Client, random: &mut Random) {
    for _ in 0..random.below(20) {
        let n = random.below(1_000_000).to_string();
        assert_eq!(client.get(&format!("/n/{n}")).text(), n);
    }
    assert_eq!(client.get("/chunked").body.len(), 290);
    assert_eq!(client.get("/error").status, 500);
    assert_eq!(client.get("/nowhere").status, 404);
}

fn goes_byte_by_byte(client: &mut Client, random: &mut Random) {
    let body = "slowly";
    let request = format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for byte in request.bytes() {
        client.send([byte]);
        thread::sleep(Duration::from_millis(random.below(8) as u64)); // a slow client
    }
    assert_eq!(client.answer().text(), body);
}

fn never_finishes(client: &mut Client, random: &mut Random) {
    let request = request("/n/1");
    client.send(&request[..1 + random.below(request.len() - 1)]);
    assert_eq!(client.answer().status, 408);
}

fn closes_its_half(client: &mut Client, random: &mut Random) {
    let body = "x".repeat(random.below(100_000));
    client.send(format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    client.finish();
    assert_eq!(client.answer().text(), body);
    client.assert_end();
}

/// Closes the connection while the response is unread, so that the kernel sends a reset.
fn resets(client: &mut Client, random: &mut Random) {
    client.send(request(["/large", "/", "/stream", "/chunked"][random.below(4)]));
    let _ = client.stream.peek(&mut [0]);
}

fn pipelines(client: &mut Client, random: &mut Random) {
    let many = 1 + random.below(100);
    client.send((0..many).map(|n| request(&format!("/n/{n}"))).collect::<String>());
    (0..many).for_each(|n| assert_eq!(client.answer().text(), n.to_string()));
}

/// Sends random bytes, or a request with up to three random bytes inserted. If the server answers, the answer must be
/// HTTP.
fn talks_garbage(client: &mut Client, random: &mut Random) {
    let mut bytes: Vec<u8> = match random.below(2) {
        0 => (0..random.below(3_000)).map(|_| random.below(256) as u8).collect(),
        _ => {
            "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into()
        }
    };
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() + 1);
        bytes.insert(at, random.below(256) as u8);
    }
    client.send(&bytes);
    let _ = client.stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    // The kernel sends a reset if bytes arrive after the server has closed the connection.
    let _ = client.stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{bytes:?}");
}

fn leaves_a_stream(client: &mut Client, random: &mut Random) {
    client.send(request("/stream"));
    client.stream_head();
    match random.below(4) {
        0 => assert!(client.rest().ends_with(b"event: close\ndata: close\n\n")),
        events => (0..events).for_each(|_| drop(client.until(b"\n\n"))),
    }
}

fn is_taken_over(client: &mut Client, random: &mut Random) {
    client.send(request("/take"));
    match random.below(3) {
        0 => return, // the client leaves
        1 => client.send("aloha"),
        _ => client.send("aloha, and more than was asked for"),
    }
    assert_eq!(client.exactly(5), b"aloha");
}

fn says_nothing(client: &mut Client, _: &mut Random) {
    client.assert_end();
}

type Kind = (&'static str, fn(&mut Client, &mut Random));

const KINDS: [Kind; 10] = [
    ("keeps alive", keeps_alive),
    ("goes byte by byte", goes_byte_by_byte),
    ("never finishes", never_finishes),
    ("closes its half", closes_its_half),
    ("resets", resets),
    ("pipelines", pipelines),
    ("talks garbage", talks_garbage),
    ("leaves a stream", leaves_a_stream),
    ("is taken over", is_taken_over),
    ("says nothing", says_nothing),
];

/// Runs [`EACH`] clients of each kind for `time`. Returns the number of connections of each kind.
fn run_all(address: SocketAddr, time: Duration, seed: u64) -> [usize; KINDS.len()] {
    let end = Instant::now() + time;
    let mut seed = Random(seed | 1);
    let threads = KINDS.map(|(name, kind)| {
        [(); EACH].map(|()| {
            let client = move |mut random: Random| {
                let mut connections = 0;
                while Instant::now() < end {
                    kind(&mut Client::connect(address), &mut random);
                    connections += 1;
                    thread::sleep(REST);
                }
                connections
            };
            let random = Random(1 + seed.below(usize::MAX) as u64);
            thread::Builder::new().name(name.to_owned()).spawn(move || client(random)).unwrap()
        })
    });
    threads.map(|threads| threads.map(|thread| thread.join().unwrap()).iter().sum())
}

#[derive(Debug, Clone, Copy)]
struct Held {
    rss_kb: usize,
    threads: usize,
    descriptors: usize,
}

fn held(child: &Child) -> Held {
    Held {
        rss_kb: child.status("VmRSS").unwrap(),
        threads: child.status("Threads").unwrap(),
        descriptors: std::fs::read_dir(child.proc("fd")).unwrap().count(),
    }
}

/// Waits until the server has at most `descriptors` open descriptors. Returns the memory, threads and descriptors that
/// the server then holds.
fn settled(child: &Child, descriptors: usize) -> Held {
    let waited = Instant::now();
    loop {
        let now = held(child);
        if now.descriptors <= descriptors {
            return now;
        }
        assert!(waited.elapsed() < TIMEOUT + PATIENCE, "{now:?}, with {descriptors} descriptors at the start");
        thread::sleep(REST); // the server cannot notify this process
    }
}

#[test]
#[ignore = "ten minutes"]
fn server_after_ten_minutes_holds_what_it_held_before() {
    let seconds = std::env::var(SECONDS).map_or(600, |seconds| seconds.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let seed = u64::from(std::process::id()) << 20;
    let mut child = Child::start("soak::server_for_all_clients", ONE_HEAP);
    // The response shows that the server runs. The end of the connection shows that the server has closed the
    // descriptor of this connection.
    let mut first = child.connect();
    first.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(first.rest().ends_with(b"hello"));
    let at_start = held(&child);
    println!("{time:?} of clients, seed {seed:#x}\nat the start   {at_start:?}");

    run_all(child.address(), (time / 4).min(Duration::from_secs(60)), seed);
    let warm = settled(&child, at_start.descriptors);
    println!("after warm-up  {warm:?}");

    let connections = run_all(child.address(), time, !seed);
    child.assert_alive();
    let end = settled(&child, at_start.descriptors);
    println!("at the end     {end:?}");
    for ((name, _), connections) in KINDS.iter().zip(connections) {
        println!("{connections:>8} connections: {name}");
        assert!(connections > 0, "{name}");
    }
    assert_eq!(child.get("/").text(), "hello");
    assert_eq!(end.descriptors, warm.descriptors);
    assert!(end.threads <= at_start.threads + WAITING, "{end:?}");
    assert!(end.rss_kb <= warm.rss_kb + RSS_KB, "{end:?}");
}
