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
/// Ctrl-C ends the process without such a shutdown, because `std` does not handle signals. Its event streams end
/// without a `close` event. To stop the server on Ctrl-C, call [`shutdown`](Handle::shutdown) in the handler of the
/// `ctrlc` crate.
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

    /// Stops the server. This call does not block. [`Server::serve`](super::Server::serve) returns when the last
    /// connection has ended, at the latest after `grace`.
    ///
    /// - The server accepts no more connections.
    /// - Idle connections are closed.
    /// - Requests that have begun are answered, with `Connection: close`.
    /// - Reads from a connection that was taken over return `Ok(0)`, and `wait` on an event stream returns an error. An
    ///   event stream that is dropped then sends a `close` event. Channels also send this event.
    /// - After `grace`, all remaining connections are disconnected. A handler that does not use its connection keeps
    ///   running in its thread.
    ///
    /// The loop of a stream notices the shutdown if it calls `wait`; other loops call
    /// [`Connection::is_stopping`](super::Connection::is_stopping). If `grace` ends before a loop has noticed the
    /// shutdown, its connection is disconnected. The number of such connections is printed to standard error, unless
    /// `grace` is zero.
    ///
    /// A page that closes its `EventSource` on the `close` event does not reconnect. If a page should reconnect after
    /// the server starts again, it must not listen for `close`. Its browser then reconnects after the `retry` time of
    /// the event, which is 1 to 5 s.
    ///
    /// When `serve` returns, the port is free. If the server cannot wake its threads that wait for connections, `serve`
    /// returns at most two seconds later, and a line on standard error says that the port stays in use. That can happen
    /// on systems other than Linux, and with [`Server::from`](super::Server#impl-From<TcpListener>-for-Server).
    ///
    /// A handler may call this method. After several calls, the earliest end of a grace counts. If the method is called
    /// before `serve`, then `serve` returns at once.
    pub fn shutdown(&self, grace: Duration) {
        let now = Instant::now();
        // A grace that `Instant` cannot hold becomes about a century.
        let deadline = now.checked_add(grace).unwrap_or_else(|| now + Duration::from_secs(3_000_000_000));
        self.registry.stop(deadline);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("local_addr", &self.address).finish_non_exhaustive()
    }
}
