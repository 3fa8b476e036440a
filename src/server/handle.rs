//! The handle with which any thread can stop a server.

use super::registry::Registry;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A handle that stops a server from any thread, returned by [`Server::handle`](super::Server::handle).
///
/// Clones stop the same server.
///
/// ```no_run
/// # use brooklet::Server;
/// # use std::{io, thread, time::Duration};
/// # fn main() -> io::Result<()> {
/// let server = Server::bind("127.0.0.1:8080")?.get("/", |_| "hello\n");
/// let handle = server.handle();
/// thread::spawn(move || {
///     let _ = io::stdin().read_line(&mut String::new());
///     handle.shutdown(Duration::from_secs(5));
/// });
/// server.serve() // returns when the last connection has ended, or five seconds after Enter
/// # }
/// ```
///
/// Ctrl-C ends the process without a shutdown, because `std` does not handle signals. Event streams then end without a
/// `close` event. To stop the server on Ctrl-C, call [`shutdown`](Handle::shutdown) in the handler of the `ctrlc`
/// crate.
#[derive(Clone)]
pub struct Handle {
    address: SocketAddr,
    registry: Arc<Registry>,
}

impl Handle {
    pub(super) fn new(address: SocketAddr) -> Handle {
        Handle { address, registry: Arc::default() }
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// Returns the address that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Begins to stop the server, and returns without waiting. [`Server::serve`](super::Server::serve) returns when the
    /// last connection has ended, or when `grace` is over.
    ///
    /// - The server accepts no more connections.
    /// - Idle connections are closed.
    /// - Requests that have begun are answered, with `Connection: close`.
    /// - The input of a connection that was taken over ends. Reads return the bytes that have already arrived, and then
    ///   `Ok(0)`.
    /// - `wait` on an event stream returns an error. An event stream that is dropped after that sends a `close` event.
    ///   Channels send the `close` event to their subscribers.
    /// - After `grace`, the server disconnects all remaining clients. A handler that is still running continues to run
    ///   in its thread.
    ///
    /// The loop of an event stream notices the shutdown if the loop calls `wait`. Other loops call
    /// [`Connection::is_stopping`](super::Connection::is_stopping). When `grace` is over, the server prints to standard
    /// error how many of the connections that were taken over have not noticed the shutdown. If `grace` is zero, the
    /// server does not print this number.
    ///
    /// A page that closes its `EventSource` on the `close` event does not reconnect. A page that should reconnect after
    /// a restart of the server must ignore the `close` event. The browser then reconnects after the `retry` time of the
    /// event, which is 1 to 5 s.
    ///
    /// The port is free when `serve` returns, unless the server cannot wake its threads that wait for connections. In
    /// that case, `serve` tries for up to two seconds longer to wake the threads, then prints to standard error that
    /// the port stays in use, and returns. This case can occur on systems other than Linux, and with
    /// [`Server::from`](super::Server#impl-From<TcpListener>-for-Server).
    ///
    /// A handler may call this method. If the method is called several times, the grace that ends first counts. If the
    /// method is called before `serve`, then `serve` returns at once.
    pub fn shutdown(&self, grace: Duration) {
        let now = Instant::now();
        // A grace whose end `Instant` cannot represent becomes about 95 years.
        let deadline = now.checked_add(grace).unwrap_or_else(|| now + Duration::from_secs(3_000_000_000));
        self.registry.stop(deadline);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("local_addr", &self.address).finish_non_exhaustive()
    }
}
