//! Leader and followers: all idle threads wait in `accept` on the one listener.
//!
//! The thread that a connection wakes first makes sure that another one waits, then serves the connection itself, to its
//! end or its takeover, and waits again. No queue and no hand-over: 24 us of CPU a connection, against 29 for a pool and
//! 57 for a thread spawned each time. It is still one thread a connection, and reads that way.
//!
//! `std` can neither time out nor cancel an `accept`. So a shutdown shuts the listener down on Linux. Where it cannot (on
//! other systems, and with a listener that the program made, which systemd or another process may hold too) it wakes each
//! thread with a connection to this server itself. Such a connection does not always arrive, so the time for waking is
//! bounded.
//!
//! `accept` fails for reasons that are the peer's (try again) or ours: the process has no descriptors left, and the queue is
//! as full as before. Then a descriptor held in reserve is given up, so that one client at a time receives a 503 and does
//! not hang.

use super::linger;
use super::panics::{catch, lock};
use super::refusal::{refuse_at_once, refuse_with_cors};
use super::registry::Registry;
use super::serve::Service;
use super::stderr::{self, Throttle};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The most threads that wait in `accept`. Further threads end after their connection. An idle thread takes about 33 KiB.
/// 256 clients that each connect for one request at a time cost a fifth more CPU for it, because most of their threads are
/// started again; 64 clients cost nothing more.
const MAX_WAITING: usize = 64;

/// Clients beyond `max_connections` that may hold a thread while they read their 503. The others are sent it and closed.
const MAX_REFUSING: usize = 64;

/// Refused clients that may hold a thread because the hook has not returned. The others are not reported: each of them would
/// hold a thread more for as long as the hook blocks, and no limit would be left.
const MAX_REPORTING: usize = 128;

/// How long to wait when not even a client can be refused: doubling up to a second, as Go does.
const BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Long enough for any loopback handshake.
const WAKE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a shutdown tries to wake the threads in `accept`: before the grace, and after it. A firewall may drop each of
/// those connections.
const WAKE_LIMIT: Duration = Duration::from_secs(1);

pub struct Acceptor {
    /// Shared with the threads that are in `accept` and with nobody else; `None` once the server stops.
    listener: Mutex<Option<Arc<TcpListener>>>,
    /// Whether no other process has this listener, so that it may be shut down for everyone.
    owns_listener: bool,
    service: Service,
    registry: Arc<Registry>,
    /// Threads in `accept`, or on their way there. The one that leaves takes its own place off, and whoever took the
    /// last one off puts a new thread there: nobody counts a thread that somebody else has counted on.
    waiting: AtomicUsize,
    refusing: AtomicUsize,
    /// A spare descriptor: gone while the process is out of them.
    spare: Mutex<Option<TcpListener>>,
    /// The lines about missing descriptors or threads.
    shortage_lines: Throttle,
}

impl Acceptor {
    pub fn new(listener: TcpListener, owns_listener: bool, service: Service, registry: Arc<Registry>) -> Arc<Acceptor> {
        Arc::new(Acceptor {
            spare: Mutex::new(listener.try_clone().ok()),
            shortage_lines: Throttle::default(),
            listener: Mutex::new(Some(Arc::new(listener))),
            owns_listener,
            service,
            registry,
            waiting: AtomicUsize::new(0),
            refusing: AtomicUsize::new(0),
        })
    }

    /// Puts the first thread into `accept`.
    pub fn start(self: &Arc<Acceptor>) -> io::Result<()> {
        self.waiting.store(1, Ordering::SeqCst);
        self.add_thread()
    }

    /// Starts a thread that waits in `accept`.
    fn add_thread(self: &Arc<Acceptor>) -> io::Result<()> {
        let acceptor = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("brooklet".to_owned())
            .stack_size(self.service.config.stack_size);
        thread.spawn(move || acceptor.run()).map(drop)
    }

    /// The life of a thread: accepts a connection, serves it, and waits for the next one.
    fn run(self: Arc<Acceptor>) {
        while let Some((mut stream, peer)) = self.accept() {
            let was_last = self.waiting.fetch_sub(1, Ordering::SeqCst) == 1;
            if was_last {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                if let Err(error) = self.add_thread() {
                    // No thread would accept while this one serves. So this client is refused, and this thread stays.
                    self.warn_throttled("start a thread", &error, "`Config::max_connections` bounds the threads.");
                    refuse_at_once(&mut stream);
                    continue;
                }
            }
            // A last resort for a panic in a `Drop` of the program: this thread goes on and stays counted.
            catch(|| self.serve(stream, peer));
            if !self.wait_again() {
                return;
            }
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts this thread as waiting again. `false` if enough threads wait, and this one is to end.
    fn wait_again(&self) -> bool {
        let one_more = |waiting: usize| (waiting < MAX_WAITING).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        match self.registry.join(stream, self.service.config.max_connections) {
            Ok(socket) => self.service.serve(socket, peer),
            Err(stream) => self.refuse(stream, peer),
        }
    }

    /// Sends a 503. Waits until the client has read it, if not too many threads do that already.
    fn refuse(&self, mut stream: TcpStream, peer: SocketAddr) {
        let refusing = self.refusing.fetch_add(1, Ordering::SeqCst);
        if refusing < MAX_REFUSING {
            self.service.refuse_connection(peer, |allowed| refuse_with_cors(&mut stream, allowed));
            linger::close(&stream);
        } else if refusing < MAX_REPORTING {
            self.service.refuse_connection(peer, |_| refuse_at_once(&mut stream));
        } else {
            refuse_at_once(&mut stream);
        }
        self.refusing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits for a connection; `None` when the server stops.
    fn accept(&self) -> Option<(TcpStream, SocketAddr)> {
        let mut backoff = BACKOFF;
        let mut has_failed = false;
        // Held only in here: a thread that serves must not keep the port.
        let listener = lock(&self.listener).clone()?;
        while !self.registry.is_stopping() {
            let accepted = listener.accept();
            if self.registry.is_stopping() {
                return None; // the connection is one that woke this thread, or came too late
            }
            match accepted {
                Ok((mut stream, mut peer)) => {
                    // A listener on `[::]` sees an IPv4 client as `::ffff:192.0.2.1`.
                    peer.set_ip(peer.ip().to_canonical());
                    if self.restore_reserve(&listener) {
                        return Some((stream, peer));
                    }
                    refuse_at_once(&mut stream);
                    self.restore_reserve(&listener);
                }
                Err(error) if is_peer_error(&error) => (),
                // An error of one connection, "host unreachable" for example, is gone with it. A shortage stays.
                Err(_) if !has_failed => has_failed = true,
                Err(error) => {
                    self.warn_throttled("accept a connection", &error, "`ulimit -n` raises the number of open files.");
                    if lock(&self.spare).take().is_none() {
                        self.registry.pause(backoff);
                        backoff = (backoff * 2).min(MAX_BACKOFF);
                    }
                }
            }
        }
        None
    }

    /// Takes a descriptor into reserve, unless there is one. Returns whether there is one now, as there nearly always is.
    fn restore_reserve(&self, listener: &TcpListener) -> bool {
        let mut spare = lock(&self.spare);
        // Not once the server stops: then this would keep the port.
        if spare.is_none() && !self.registry.is_stopping() {
            *spare = listener.try_clone().ok();
        }
        spare.is_some()
    }

    fn warn_throttled(&self, what: &str, error: &io::Error, advice: &str) {
        self.shortage_lines
            .line(format_args!("cannot {what}: {error}. New clients get a 503 until this ends. {advice}"));
    }

    /// Takes the listener away and ends every `accept`, so that the threads there find that the server stops.
    pub fn close(&self) -> Closing {
        let spare = lock(&self.spare).take();
        let listener = lock(&self.listener).take();
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let closing = Closing { listener: listener.as_ref().map_or_else(Weak::new, Arc::downgrade), address };
        let clone = spare.or_else(|| listener.as_ref().and_then(|listener| listener.try_clone().ok()));
        let is_shut_down = self.owns_listener && clone.is_some_and(shut_down);
        drop(listener);
        if !is_shut_down {
            closing.wake(Instant::now() + WAKE_LIMIT);
        }
        closing
    }
}

/// A listener that closes as soon as the last thread has left `accept`.
pub struct Closing {
    listener: Weak<TcpListener>,
    address: Option<SocketAddr>,
}

impl Closing {
    /// Wakes the threads in `accept` with a connection each. Returns how many there were.
    fn wake(&self, deadline: Instant) -> usize {
        let in_accept = self.listener.strong_count();
        wake_acceptors(self.address, in_accept, deadline, || self.listener.strong_count() > 0);
        in_accept
    }

    /// Waits until the threads have let go of the listener, and wakes them again, so that its port is free when `serve`
    /// returns. Prints how many are left when the time is up: each keeps the port.
    pub fn finish(self) {
        let deadline = Instant::now() + WAKE_LIMIT;
        loop {
            let in_accept = self.wake(deadline);
            if in_accept == 0 {
                return;
            }
            if Instant::now() >= deadline {
                let address = self.address.map_or("an unknown address".to_owned(), |address| address.to_string());
                return stderr::line(format_args!(
                    "the server has stopped, but {address} stays in use: {in_accept} of its threads are blocked in \
                     `accept`, because connections from this machine to that address fail. Each thread ends when a \
                     client connects, or with the process."
                ));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Shuts a listener down, in the one way that `std` has: as a stream. On Linux that ends `accept` in all threads, and
/// clients are refused from then on. Other systems return an error.
#[cfg(unix)]
fn shut_down(listener: TcpListener) -> bool {
    let stream = TcpStream::from(std::os::fd::OwnedFd::from(listener));
    stream.shutdown(Shutdown::Both).is_ok()
}

#[cfg(not(unix))]
fn shut_down(_: TcpListener) -> bool {
    false
}

/// Wakes `threads` threads in `accept`, each with a connection that has no request. Stops at the deadline, and when
/// `has_acceptors` is false, because connecting would then last until its timeout.
fn wake_acceptors(address: Option<SocketAddr>, threads: usize, deadline: Instant, has_acceptors: impl Fn() -> bool) {
    let Some(mut address) = address else { return };
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(_) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        }
    }
    for _ in 0..threads {
        if !has_acceptors() || Instant::now() >= deadline {
            return;
        }
        // It fails while descriptors are out; the last connections of a server that stops give some back.
        let _ = TcpStream::connect_timeout(&address, WAKE_TIMEOUT);
    }
}

/// Whether the connection that was to be accepted is gone again. The next one can still be accepted.
fn is_peer_error(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
