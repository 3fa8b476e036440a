//! Accepts connections. All idle threads wait in `accept` on one listener (the leader-followers pattern).
//!
//! A new connection wakes one thread. This thread makes sure that another thread waits in `accept`. The woken thread
//! then serves the connection until the connection ends or a handler takes the connection over. After that, the thread
//! waits again, or ends if [`MAX_WAITING`] threads already wait. The server never moves a connection to another thread.
//! A connection takes 24 us of CPU time. With a pool of threads, a connection takes 29 us. With a new thread for each
//! connection, a connection takes 57 us.
//!
//! `std` can set no timeout for `accept`, and cannot cancel `accept`. So on Linux, a shutdown of the server also shuts
//! the listener down, and `accept` then fails. On other systems, the server connects to its own address once for each
//! thread, to wake the thread. If the program created the listener, the server wakes the threads in this way on all
//! systems, because another process such as systemd may hold the listener too. Such a connection can fail, so the time
//! for waking is bounded.
//!
//! If `accept` fails because of the peer, the thread calls `accept` again. If `accept` fails because the process has no
//! file descriptors left, the connection stays in the queue of the kernel. The server then closes a descriptor that it
//! holds in reserve. With the free descriptor, the server accepts one client at a time and sends a 503 to this client.

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

/// The maximum number of threads that wait in `accept`. A further thread ends after its connection, because an idle
/// thread takes about 33 KiB of memory. Clients that open a new connection for each request were measured. With this
/// limit, 64 such clients take no more CPU time than without a limit. With this limit, 256 such clients take a fifth
/// more CPU time, because most of the connections start a thread.
const MAX_WAITING: usize = 64;

/// The maximum number of threads that wait for the request of a client beyond `max_connections`, and then linger.
/// Further clients receive the 503 from [`refuse_at_once`], which does not wait for the client.
const MAX_REFUSING: usize = 64;

/// The maximum number of refused clients for which the server calls the hook at the same time. Further clients are not
/// reported. Otherwise each of these clients would hold a thread while the hook blocks, and the number of threads would
/// have no limit.
const MAX_REPORTING: usize = 128;

/// The pause after an `accept` that failed while the reserve was empty. The pause doubles after each further failure,
/// up to one second, as in Go.
const BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The timeout of a connection that wakes a thread. A handshake over loopback takes much less time.
const WAKE_TIMEOUT: Duration = Duration::from_millis(100);

/// The maximum time for which a shutdown tries to wake the threads in `accept`. A shutdown tries this once before the
/// grace and once after the grace. The connections that wake the threads can fail, for example because a firewall drops
/// the packets.
const WAKE_LIMIT: Duration = Duration::from_secs(1);

pub struct Acceptor {
    /// The listener. Only the threads in `accept` hold clones of the `Arc`. `None` after the server has begun to stop.
    listener: Mutex<Option<Arc<TcpListener>>>,
    /// `true` if no other process holds this listener. Only then may the server shut the listener down.
    owns_listener: bool,
    service: Service,
    registry: Arc<Registry>,
    /// The number of threads that wait in `accept` or will call `accept` next. A thread that has accepted a connection
    /// subtracts 1. If the number is then 0, this thread starts another thread, and then serves the connection.
    waiting: AtomicUsize,
    /// The number of threads that refuse a client beyond `max_connections`.
    refusing: AtomicUsize,
    /// The file descriptor in reserve. `None` while the process has no descriptors left, and after the server has begun
    /// to stop.
    spare: Mutex<Option<TcpListener>>,
    /// The throttle for messages about a lack of file descriptors or threads.
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

    /// Accepts and serves connections, one after another. Returns when the server stops, or when [`MAX_WAITING`] other
    /// threads wait.
    fn run(self: Arc<Acceptor>) {
        while let Some((mut stream, peer)) = self.accept() {
            let was_last = self.waiting.fetch_sub(1, Ordering::SeqCst) == 1;
            if was_last {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                if let Err(error) = self.add_thread() {
                    // While this thread serves the client, no thread would accept connections. So this thread refuses
                    // the client.
                    self.warn_throttled("start a thread", &error, "`Config::max_connections` limits the threads.");
                    refuse_at_once(&mut stream);
                    continue;
                }
            }
            // A `Drop` of the program may panic. The panic is caught, so that this thread continues and `waiting` stays
            // correct.
            catch(|| self.serve(stream, peer));
            if !self.wait_again() {
                return;
            }
        }
    }

    /// Adds this thread to the waiting threads. Returns `false` and adds nothing if [`MAX_WAITING`] threads already
    /// wait. After `false`, this thread must end.
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

    /// Sends a 503 to a client beyond `max_connections`. If fewer than [`MAX_REFUSING`] other threads refuse a client,
    /// waits for the request before the 503, and lingers after the 503.
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

    /// Blocks until a client connects. Returns `None` if the server is stopping. Also returns `None` if the process has
    /// no descriptors left and other threads wait: on Linux, each thread in `accept` holds a descriptor.
    fn accept(&self) -> Option<(TcpStream, SocketAddr)> {
        let mut backoff = BACKOFF;
        let mut has_failed = false;
        // The clone is dropped at the end of this function, because a thread that serves a connection must not keep the
        // port in use.
        let listener = lock(&self.listener).clone()?;
        while !self.registry.is_stopping() {
            let accepted = listener.accept();
            if self.registry.is_stopping() {
                return None; // this connection came from the server to wake this thread, or came too late
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
                // The first error of another kind may belong to one connection, such as "host unreachable". After a
                // second such error, the server assumes that the process lacks a resource.
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

    /// Fills the reserve if the reserve is empty and the server is not stopping. Returns whether the reserve is full.
    fn restore_reserve(&self, listener: &TcpListener) -> bool {
        let mut spare = lock(&self.spare);
        // A server that is stopping does not fill the reserve, because the new descriptor would keep the port in use.
        if spare.is_none() && !self.registry.is_stopping() {
            *spare = listener.try_clone().ok();
        }
        spare.is_some()
    }

    fn warn_throttled(&self, what: &str, error: &io::Error, advice: &str) {
        self.shortage_lines
            .line(format_args!("cannot {what}: {error}. New clients receive a 503 until the shortage ends. {advice}"));
    }

    /// Removes the listener, and shuts the listener down or wakes the threads in `accept`. The threads then notice that
    /// the server is stopping.
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

/// A listener that is closed when the last thread leaves `accept`.
pub struct Closing {
    listener: Weak<TcpListener>,
    address: Option<SocketAddr>,
}

impl Closing {
    /// Wakes each thread in `accept` with a connection. Returns the number of threads that were in `accept` before
    /// this call.
    fn wake(&self, deadline: Instant) -> usize {
        let in_accept = self.listener.strong_count();
        wake_acceptors(self.address, in_accept, deadline, || self.listener.strong_count() > 0);
        in_accept
    }

    /// Wakes the threads again until all threads have left `accept`, so that the port is free when `serve` returns.
    /// After [`WAKE_LIMIT`], prints the number of threads that are still in `accept`, and returns. Each of these
    /// threads keeps the port in use.
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
                     client connects, or when the process ends."
                ));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Shuts a listener down, and returns whether that succeeded. `std` can shut only a stream down, so the listener is
/// converted into a stream. On Linux, `accept` then fails in all threads, and the kernel refuses new clients. Other
/// systems return an error.
#[cfg(unix)]
fn shut_down(listener: TcpListener) -> bool {
    let stream = TcpStream::from(std::os::fd::OwnedFd::from(listener));
    stream.shutdown(Shutdown::Both).is_ok()
}

#[cfg(not(unix))]
fn shut_down(_: TcpListener) -> bool {
    false
}

/// Wakes `threads` threads in `accept`. Opens a connection for each thread and sends no request. Returns early at the
/// deadline, or if `has_acceptors` returns `false`. A further connection could then block for [`WAKE_TIMEOUT`].
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
        // This call fails if the process has no file descriptors left. Each connection that ends frees a descriptor.
        let _ = TcpStream::connect_timeout(&address, WAKE_TIMEOUT);
    }
}

/// Returns whether `accept` failed because the peer has left or because a signal interrupted the call. The next call
/// can succeed.
fn is_peer_error(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
