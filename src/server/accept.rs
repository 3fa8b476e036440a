//! Leader and followers: all idle threads wait in `accept` on the one listener.
//!
//! A connection wakes one thread. This thread makes sure that another thread waits, serves the connection to its end or
//! its takeover, and waits again. Connections are neither queued nor handed over. A connection takes 24 us of CPU
//! time; with a pool of threads it takes 29 us, and with a new thread for each connection 57 us.
//!
//! `std` can neither time out nor cancel an `accept`. On Linux, a shutdown therefore shuts the listener down. On other
//! systems, it wakes each thread with a connection to the server itself. It also does so if the program made the
//! listener, because systemd or another process may hold that listener too. Such a connection does not always arrive,
//! so the time for waking is bounded.
//!
//! If `accept` fails because of the peer, the thread tries again. If it fails because the process has no file
//! descriptors left, the connection stays in the queue. The server then closes a descriptor that it holds in reserve,
//! so that one client at a time receives a 503 and does not hang.

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

/// The most threads that wait in `accept`. Further threads end after their connection, because an idle thread takes
/// about 33 KiB. 64 clients that open a new connection for each request cost no more CPU time with this limit. 256 such
/// clients cost a fifth more, because most of their connections start a thread.
const MAX_WAITING: usize = 64;

/// The most clients beyond `max_connections` that hold a thread while they read their 503. Further clients are sent the
/// 503, and their connections are closed at once.
const MAX_REFUSING: usize = 64;

/// The most refused clients for which the hook is called at the same time. Further clients are not reported. Otherwise
/// each of them would hold a thread while the hook blocks, and the number of threads would have no limit.
const MAX_REPORTING: usize = 128;

/// The pause after an `accept` that failed while the reserve was empty. It doubles up to a second, as in Go.
const BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The timeout of a connection that wakes a thread. A handshake over loopback takes much less.
const WAKE_TIMEOUT: Duration = Duration::from_millis(100);

/// The maximum time in which a shutdown tries to wake the threads in `accept`, once before the grace and once after it.
/// A firewall may drop the connections that wake them.
const WAKE_LIMIT: Duration = Duration::from_secs(1);

pub struct Acceptor {
    /// Shared only with the threads in `accept`. `None` after the server has begun to stop.
    listener: Mutex<Option<Arc<TcpListener>>>,
    /// `true` if no other process holds this listener, so that the server may shut it down.
    owns_listener: bool,
    service: Service,
    registry: Arc<Registry>,
    /// The number of threads in `accept` or about to call it. A thread that receives a connection subtracts itself.
    /// If no thread is left, it starts a new thread before it serves the connection.
    waiting: AtomicUsize,
    /// The number of threads that refuse a client.
    refusing: AtomicUsize,
    /// The file descriptor in reserve. `None` while the process has no descriptors left.
    spare: Mutex<Option<TcpListener>>,
    /// Limits the messages about missing descriptors or threads.
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

    /// Starts the first thread that waits in `accept`.
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

    /// Accepts a connection, serves it, and waits for the next one, until the server stops or enough other threads
    /// wait.
    fn run(self: Arc<Acceptor>) {
        while let Some((mut stream, peer)) = self.accept() {
            let was_last = self.waiting.fetch_sub(1, Ordering::SeqCst) == 1;
            if was_last {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                if let Err(error) = self.add_thread() {
                    // No thread would accept connections while this one serves. So this thread refuses the client.
                    self.warn_throttled("start a thread", &error, "`Config::max_connections` limits the threads.");
                    refuse_at_once(&mut stream);
                    continue;
                }
            }
            // A `Drop` of the program may panic. Then this thread continues, and `waiting` stays correct.
            catch(|| self.serve(stream, peer));
            if !self.wait_again() {
                return;
            }
        }
    }

    /// Counts this thread as waiting again. Returns `false` if enough threads wait, so that this thread must end.
    fn wait_again(&self) -> bool {
        let one_more = |waiting: usize| (waiting < MAX_WAITING).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    /// Subtracts this thread from the waiting threads, unless it is the last one. Returns `true` if the thread must end.
    fn leave(&self) -> bool {
        let one_less = |waiting: usize| (waiting > 1).then(|| waiting - 1);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        match self.registry.join(stream, self.service.config.max_connections) {
            Ok(socket) => self.service.serve(socket, peer),
            Err(stream) => self.refuse(stream, peer),
        }
    }

    /// Sends a 503. Waits until the client has read it, unless [`MAX_REFUSING`] threads already wait.
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

    /// Waits for a connection. Returns `None` when the server stops, or when this thread has left because the process has
    /// no descriptors left: on Linux, each thread in `accept` holds a descriptor for the next connection.
    fn accept(&self) -> Option<(TcpStream, SocketAddr)> {
        let mut backoff = BACKOFF;
        let mut has_failed = false;
        // The listener is dropped at the end of this function: a thread that serves must not keep the port in use.
        let listener = lock(&self.listener).clone()?;
        while !self.registry.is_stopping() {
            let accepted = listener.accept();
            if self.registry.is_stopping() {
                return None; // the connection woke this thread, or came too late
            }
            match accepted {
                Ok((mut stream, mut peer)) => {
                    // A listener on `[::]` sees an IPv4 client as `::ffff:192.0.2.1`.
                    peer.set_ip(peer.ip().to_canonical());
                    if self.restore_reserve(&listener) {
                        return Some((stream, peer));
                    }
                    refuse_at_once(&mut stream);
                    drop(stream); // the reserve takes the descriptor
                    self.restore_reserve(&listener);
                    if self.leave() {
                        return None;
                    }
                }
                Err(error) if is_peer_error(&error) => (),
                // An error of one connection, such as "host unreachable", does not come again. A shortage does.
                Err(_) if !has_failed => has_failed = true,
                Err(_) if self.leave() => return None,
                Err(error) => {
                    self.warn_throttled("accept a connection", &error, "`ulimit -n` raises the limit of open files.");
                    if lock(&self.spare).take().is_none() {
                        self.registry.pause(backoff);
                        backoff = (backoff * 2).min(MAX_BACKOFF);
                    }
                }
            }
        }
        None
    }

    /// Fills the reserve if it is empty. Returns whether it is full now. It nearly always is.
    fn restore_reserve(&self, listener: &TcpListener) -> bool {
        let mut spare = lock(&self.spare);
        // A server that stops does not fill the reserve, because that would keep the port in use.
        if spare.is_none() && !self.registry.is_stopping() {
            *spare = listener.try_clone().ok();
        }
        spare.is_some()
    }

    fn warn_throttled(&self, what: &str, error: &io::Error, advice: &str) {
        self.shortage_lines
            .line(format_args!("cannot {what}: {error}. New clients get a 503 until this ends. {advice}"));
    }

    /// Removes the listener and ends every `accept`, so that the threads notice that the server stops.
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

/// A listener that closes when the last thread leaves `accept`.
pub struct Closing {
    listener: Weak<TcpListener>,
    address: Option<SocketAddr>,
}

impl Closing {
    /// Wakes each thread in `accept` with a connection. Returns the number of these threads.
    fn wake(&self, deadline: Instant) -> usize {
        let in_accept = self.listener.strong_count();
        wake_acceptors(self.address, in_accept, deadline, || self.listener.strong_count() > 0);
        in_accept
    }

    /// Wakes the threads again until all of them have left `accept`, so that the port is free when `serve` returns.
    /// After [`WAKE_LIMIT`], prints the number of threads that are left. Each of them keeps the port in use.
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

/// Shuts a listener down. `std` can do that only with a stream, so the listener is converted to one. On Linux, this
/// ends `accept` in all threads, and the kernel refuses new clients. Other systems return an error.
#[cfg(unix)]
fn shut_down(listener: TcpListener) -> bool {
    let stream = TcpStream::from(std::os::fd::OwnedFd::from(listener));
    stream.shutdown(Shutdown::Both).is_ok()
}

#[cfg(not(unix))]
fn shut_down(_: TcpListener) -> bool {
    false
}

/// Wakes `threads` threads in `accept`, each with a connection without a request. Stops at the deadline, and when
/// `has_acceptors` returns `false`, because a further connection would block until its timeout.
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
        // This fails while the process has no descriptors left. Each connection that ends returns one.
        let _ = TcpStream::connect_timeout(&address, WAKE_TIMEOUT);
    }
}

/// Returns whether `accept` failed because of the peer: its connection is gone, and the next one can be accepted.
fn is_peer_error(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
