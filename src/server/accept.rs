//! Leader and followers: all idle threads wait in `accept` on the one listener.
//!
//! The thread that a connection wakes first makes sure that another one waits, then serves the connection itself, to its
//! end or its takeover, and waits again. No queue and no hand-over: 24 us of CPU a connection, against 29 for a pool and
//! 57 for a thread spawned each time. It is still one thread a connection, and reads that way.
//!
//! The ugly part: `std` can neither time out nor cancel an `accept`. So threads that wait there stay until a connection
//! comes; a shutdown, or quiet after a crowd, wakes those who are too many by connecting to itself, once for each of them.
//! And `accept` fails for reasons that are the peer's (try again) or ours: out of descriptors, and the queue is as full as
//! before. Then a descriptor held in reserve is given up, so that one client at a time can be told 503 instead of hanging.

use super::lock::lock;
use super::registry::Registry;
use super::serve::Service;
use super::spares::Spares;
use super::unavailable::unavailable;
use super::{linger, log};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Threads that wait in `accept` while little happens: more than a browser's six connections want.
const MAX_WAITING: usize = 16;

/// The same while so many come and go that threads rest too: to wake one of those costs more than to find one in `accept`.
const MAX_WAITING_BUSY: usize = 64;

/// Clients beyond `max_connections` that may hold a thread while they read their 503. The rest are told, and left alone
/// with what comes of it.
const MAX_REFUSING: usize = 64;

/// How long to wait when not even a client can be refused: doubling up to a second, as Go does.
const BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// How long a refused client's request has to come, so that it can be read away; 200 of them a second.
const REFUSAL: Duration = Duration::from_millis(5);

/// How long writing a 503 may take: it is the first thing that the client is sent, so its buffers are empty.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(100);

/// How often standard error is told that descriptors or threads have run out.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Long enough for any loopback handshake.
const WAKE_TIMEOUT: Duration = Duration::from_millis(100);

/// How often a shutdown tries to wake the threads in `accept`, a millisecond apart.
const WAKE_TRIES: usize = 50;

pub struct Acceptor {
    /// Shared with the threads that are in `accept` and with nobody else; `None` once the server stops.
    listener: Mutex<Option<Arc<TcpListener>>>,
    service: Service,
    registry: Arc<Registry>,
    /// Threads in `accept`, or on their way there. The one that leaves takes its own place off, and whoever took the
    /// last one off puts a new thread there: nobody counts a thread that somebody else has counted on.
    waiting: AtomicUsize,
    spares: Spares,
    /// Threads in `accept` that are too many since it is quiet again: whoever is served next by one, ends it.
    leaving: AtomicUsize,
    refusing: AtomicUsize,
    reserve: Mutex<Reserve>,
}

/// A spare descriptor: gone while the process is out of them.
struct Reserve {
    spare: Option<TcpListener>,
    complained: Option<Instant>,
}

impl Acceptor {
    pub fn new(listener: TcpListener, service: Service, registry: Arc<Registry>) -> Arc<Acceptor> {
        Arc::new(Acceptor {
            reserve: Mutex::new(Reserve { spare: listener.try_clone().ok(), complained: None }),
            listener: Mutex::new(Some(Arc::new(listener))),
            service,
            registry,
            waiting: AtomicUsize::new(0),
            spares: Spares::default(),
            leaving: AtomicUsize::new(0),
            refusing: AtomicUsize::new(0),
        })
    }

    /// Puts the first thread into `accept`.
    pub fn start(self: &Arc<Acceptor>) -> io::Result<()> {
        self.waiting.store(1, Ordering::SeqCst);
        self.find_follower()
    }

    /// Sends a thread that rests into `accept`, or a new one.
    fn find_follower(self: &Arc<Acceptor>) -> io::Result<()> {
        if self.spares.call() {
            return Ok(());
        }
        let acceptor = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("brooklet".to_owned())
            .stack_size(self.service.config.stack_size);
        thread.spawn(move || acceptor.lead()).map(drop)
    }

    fn lead(self: Arc<Acceptor>) {
        while let Some((stream, peer)) = self.accept() {
            let was_last = self.waiting.fetch_sub(1, Ordering::SeqCst) == 1;
            if was_last {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                if let Err(error) = self.find_follower() {
                    // Nobody else would accept while we serve; so this one client is told, and we stay.
                    self.complain("start a thread", &error);
                    refuse(stream);
                    continue;
                }
            }
            self.serve(stream, peer);
            if !self.stays() {
                return;
            }
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Finds a thread that has served its connection something else to do: to wait for another, or to rest until it is
    /// called to that. `false` if it is to end.
    fn stays(&self) -> bool {
        let leave = |leaving: usize| leaving.checked_sub(1);
        if self.leaving.fetch_update(Ordering::SeqCst, Ordering::SeqCst, leave).is_ok() {
            return false;
        }
        let most = if self.spares.any_rests() { MAX_WAITING_BUSY } else { MAX_WAITING };
        let wait_again = |waiting| (waiting < most).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, wait_again).is_ok() || self.spares.rest() {
            return true;
        }
        self.thin_out();
        false
    }

    /// Ends those in `accept` who are too many, when nobody was called for as long as a thread rests. So long as there are
    /// some, one rests, and gets here.
    fn thin_out(&self) {
        let surplus = self.waiting.load(Ordering::SeqCst).saturating_sub(MAX_WAITING);
        let is_first = || self.leaving.compare_exchange(0, surplus, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if surplus > 0 && is_first() {
            let address = lock(&self.listener).as_ref().and_then(|listener| listener.local_addr().ok());
            knock(address, surplus, || !self.registry.is_stopping());
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        match self.registry.join(stream, self.service.config.max_connections) {
            Ok(socket) => self.service.serve(socket, peer),
            Err(stream) => self.refuse_patiently(stream),
        }
    }

    /// Tells a client 503 and waits until it has read that, as long as not too many are told at once.
    fn refuse_patiently(&self, mut stream: TcpStream) {
        if self.refusing.fetch_add(1, Ordering::SeqCst) < MAX_REFUSING {
            let _ = stream
                .set_write_timeout(Some(REFUSAL_TIMEOUT))
                .and_then(|()| stream.write_all(&unavailable()));
            linger::close(&stream);
        } else {
            refuse(stream);
        }
        self.refusing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits for a connection; `None` when the server stops.
    fn accept(&self) -> Option<(TcpStream, SocketAddr)> {
        let mut backoff = BACKOFF;
        // Held only in here: a thread that serves must not keep the port.
        let listener = lock(&self.listener).clone()?;
        while !self.registry.is_stopping() {
            match listener.accept() {
                _ if self.registry.is_stopping() => break,
                Ok((stream, peer)) if self.restore_reserve(&listener) => return Some((stream, peer)),
                Ok((stream, _)) => {
                    refuse(stream);
                    self.restore_reserve(&listener);
                }
                Err(error) if is_the_peers(&error) => (),
                Err(error) => {
                    self.complain("accept", &error);
                    if lock(&self.reserve).spare.take().is_none() {
                        self.registry.pause(backoff);
                        backoff = (backoff * 2).min(MAX_BACKOFF);
                    }
                }
            }
        }
        None
    }

    /// Whether there is a descriptor to spare, as there is nearly always.
    fn restore_reserve(&self, listener: &TcpListener) -> bool {
        let mut reserve = lock(&self.reserve);
        // Not once the server stops: then this would keep the port.
        if reserve.spare.is_none() && !self.registry.is_stopping() {
            reserve.spare = listener.try_clone().ok();
        }
        reserve.spare.is_some()
    }

    fn complain(&self, what: &str, error: &io::Error) {
        let mut reserve = lock(&self.reserve);
        let has_just = reserve.complained.is_some_and(|last| last.elapsed() <= COMPLAIN_EVERY);
        if !has_just {
            reserve.complained = Some(Instant::now());
            log::line(format_args!("cannot {what}, answering 503 while that lasts: {error}"));
        }
    }

    /// Takes the listener away and wakes every thread in `accept`, which then finds that the server stops. Each
    /// connection wakes one.
    pub fn close(&self) -> Closing {
        lock(&self.reserve).spare = None;
        self.spares.close();
        let listener = lock(&self.listener).take();
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let closing = Closing { listener: listener.as_ref().map_or_else(Weak::new, Arc::downgrade), address };
        drop(listener);
        closing.wake();
        closing
    }
}

/// A listener that closes as soon as the last thread has left `accept`.
pub struct Closing {
    listener: Weak<TcpListener>,
    address: Option<SocketAddr>,
}

impl Closing {
    fn wake(&self) -> usize {
        let in_accept = self.listener.strong_count();
        knock(self.address, in_accept, || self.listener.strong_count() > 0);
        in_accept
    }

    /// Waits for the woken threads to let go of the listener, waking them again, so that its port is free when `serve`
    /// returns.
    pub fn finish(self) {
        for _ in 0..WAKE_TRIES {
            if self.wake() == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Wakes so many threads in `accept`, each with a connection that has no request; as long as somebody is there to hear,
/// for else a knock may wait out its time.
fn knock(address: Option<SocketAddr>, times: usize, somebody_hears: impl Fn() -> bool) {
    let Some(mut address) = address else { return };
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => (),
    }
    for _ in (0..times).take_while(|_| somebody_hears()) {
        // It fails while descriptors are out; the last connections of a server that stops give some back.
        let _ = TcpStream::connect_timeout(&address, WAKE_TIMEOUT);
    }
}

/// Whether the connection that was to be accepted is gone again. The next one is none the worse.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

/// Tells a client 503 without ever waiting for it: the pause is ours, and gives its request time to come, so that it can
/// be read away and the close is no reset.
fn refuse(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&unavailable()));
    let _ = stream.shutdown(Shutdown::Write);
    thread::sleep(REFUSAL);
    let _ = stream.read(&mut [0; 4 * 1024]);
}
