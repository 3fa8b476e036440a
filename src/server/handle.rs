//! A hold on a running server, from outside.

use super::registry::Registry;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Stops a server. Clones stop the same one.
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

    /// Stops the server: returns at once, and [`Server::serve`](super::Server::serve) returns when the last connection
    /// has ended, or when `grace` is over.
    ///
    /// No connection is accepted any more, and idle ones are closed. Requests that have begun are answered, with
    /// `Connection: close`. Connections that were taken over find the end of what they read, so `wait` on an event stream
    /// returns and it can say goodbye. After `grace` whatever is left is cut; a handler that does not look at its connection
    /// runs on in its thread.
    ///
    /// Threads that wait for connections are woken, so that the port is free when `serve` returns. If they cannot be woken
    /// (see [`Server::from`](super::Server#impl-From<TcpListener>-for-Server)), `serve` returns all the same, at most two
    /// seconds later than above, and a line on standard error says that the port stays in use.
    ///
    /// Called again, the earlier end holds. Called before `serve`, that returns at once. May be called from a handler.
    pub fn shutdown(&self, grace: Duration) {
        let now = Instant::now();
        // A grace without end is a century or so: `Instant` cannot hold much more.
        let deadline = now.checked_add(grace).unwrap_or_else(|| now + Duration::from_secs(3_000_000_000));
        self.registry.stop(deadline);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("local_addr", &self.address).finish_non_exhaustive()
    }
}
