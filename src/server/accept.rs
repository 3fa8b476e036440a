//! Leader and followers: all idle threads wait in `accept` on the one listener.
//!
//! The thread that a connection wakes first makes sure that another one waits, then serves the connection itself, to its
//! end or its takeover, and waits again. No queue and no hand-over: 24 us of CPU a connection, against 29 for a pool and
//! 57 for a thread spawned each time. It is still one thread a connection, and reads that way.
//!
//! The ugly part: `std` can neither time out nor cancel an `accept`. So threads that wait there stay until a connection
//! comes, and a shutdown wakes them by connecting to itself, once for each of them. And `accept` fails for reasons that
//! are the peer's (try again) or ours: out of descriptors, and the queue is as full as before. Then a descriptor held in
//! reserve is given up, so that one client at a time can be told 503 instead of hanging.

use super::http::outgoing::{push_date, push_status_line};
use super::http::StatusCode;
use super::registry::Registry;
use super::serve::Service;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Threads that may wait in `accept` at once. More than that many connections that come and go together spawn threads;
/// fewer would do so for a browser's six.
const MAX_WAITING: usize = 16;

/// How long to wait when descriptors or threads have run out: doubling up to a second, as Go does.
const BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Long enough for any loopback handshake.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Acceptor {
    listener: TcpListener,
    service: Service,
    registry: Arc<Registry>,
    /// Threads in `accept`, or on their way there. The one that leaves takes its own place off, and whoever took the
    /// last one off puts a new thread there: nobody counts a thread that somebody else has counted on.
    waiting: AtomicUsize,
    /// A spare descriptor. `None` while the process is out of them.
    reserve: Mutex<Option<TcpListener>>,
}

impl Acceptor {
    pub fn new(listener: TcpListener, service: Service, registry: Arc<Registry>) -> Arc<Acceptor> {
        let reserve = Mutex::new(listener.try_clone().ok());
        Arc::new(Acceptor { listener, service, registry, waiting: AtomicUsize::new(0), reserve })
    }

    /// Puts the first thread into `accept`.
    pub fn start(self: &Arc<Acceptor>) -> io::Result<()> {
        self.waiting.store(1, Ordering::SeqCst);
        self.spawn_follower()
    }

    fn spawn_follower(self: &Arc<Acceptor>) -> io::Result<()> {
        let acceptor = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("brooklet".to_owned())
            .stack_size(self.service.config.stack_size);
        thread.spawn(move || acceptor.lead()).map(drop)
    }

    fn lead(self: Arc<Acceptor>) {
        let mut backoff = BACKOFF;
        while let Some((stream, peer)) = self.accept(&mut backoff) {
            let was_last = self.waiting.fetch_sub(1, Ordering::SeqCst) == 1;
            if was_last {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                if let Err(error) = self.spawn_follower() {
                    // Nobody else would accept while we serve; so this one client is told, and we stay.
                    eprintln!("brooklet: cannot start a thread, answering 503: {error}");
                    refuse(stream, &mut backoff);
                    continue;
                }
            }
            backoff = BACKOFF;
            self.serve(stream, peer);
            let wait_again = |waiting| (waiting < MAX_WAITING).then_some(waiting + 1);
            if self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, wait_again).is_err() {
                return;
            }
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        match self.registry.join(stream, self.service.config.max_connections) {
            Ok(socket) => self.service.serve(socket, peer),
            Err(stream) => refuse(stream, &mut BACKOFF.clone()),
        }
    }

    /// Waits for a connection; `None` when the server stops.
    fn accept(&self, backoff: &mut Duration) -> Option<(TcpStream, SocketAddr)> {
        // Asked also before the first wait: a thread that comes back while the server stops may not have been counted
        // among those to wake.
        while !self.registry.is_stopping() {
            match self.listener.accept() {
                _ if self.registry.is_stopping() => break,
                Ok((stream, peer)) if self.restore_reserve() => return Some((stream, peer)),
                Ok((stream, _)) => {
                    refuse(stream, backoff);
                    self.restore_reserve();
                }
                Err(error) if is_the_peers(&error) => (),
                Err(error) => match self.reserve().take() {
                    Some(_) => eprintln!("brooklet: cannot accept, answering 503 until that is over: {error}"),
                    None => pause(backoff),
                },
            }
        }
        None
    }

    /// Whether there is a descriptor to spare, as there is nearly always.
    fn restore_reserve(&self) -> bool {
        let mut reserve = self.reserve();
        if reserve.is_none() {
            *reserve = self.listener.try_clone().ok();
        }
        reserve.is_some()
    }

    fn reserve(&self) -> std::sync::MutexGuard<'_, Option<TcpListener>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes every thread in `accept`, which then finds that the server stops. Each connection wakes one.
    pub fn wake(&self) {
        drop(self.reserve().take());
        let Ok(mut address) = self.listener.local_addr() else { return };
        match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => (),
        }
        for _ in 0..self.waiting.load(Ordering::SeqCst) {
            let _ = TcpStream::connect_timeout(&address, WAKE_TIMEOUT);
        }
    }

    /// Waits a moment for the woken threads to let go of the listener, so that its port is free when `serve` returns.
    pub fn wait_for_waiting(&self) {
        for _ in 0..50 {
            if self.waiting.load(Ordering::SeqCst) == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether the connection that was to be accepted is gone again. The next one is none the worse.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

fn pause(backoff: &mut Duration) {
    thread::sleep(*backoff);
    *backoff = (*backoff * 2).min(MAX_BACKOFF);
}

/// Tells a client 503 without ever waiting for it: the pause is ours, and gives its request time to come, so that it can
/// be read away and the close is no reset.
fn refuse(mut stream: TcpStream, backoff: &mut Duration) {
    let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&unavailable()));
    let _ = stream.shutdown(Shutdown::Write);
    pause(backoff);
    let _ = stream.read(&mut [0; 4 * 1024]);
}

/// `503` with a `Retry-After` of 1 to 4 seconds: clients that were refused together should not come back together.
pub fn unavailable() -> Vec<u8> {
    let jitter = RandomState::new().build_hasher().finish() % 4;
    let mut out = Vec::new();
    push_status_line(&mut out, StatusCode::SERVICE_UNAVAILABLE);
    push_date(&mut out);
    let body = "503 Service Unavailable\n";
    let rest = format!(
        "Content-Type: text/plain; charset=utf-8\r\nRetry-After: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        1 + jitter,
        body.len()
    );
    out.extend_from_slice(rest.as_bytes());
    out
}
