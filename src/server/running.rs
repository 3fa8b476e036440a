//! A server that runs in a separate thread.

use super::handle::Handle;
use super::stderr;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io, panic};

/// A server that [`Server::spawn`](super::Server::spawn) has started in a new thread.
///
/// Dropping a `Running` calls [`Handle::shutdown`] with a grace of zero, and blocks until the server has stopped. The
/// shutdown disconnects all clients. An error of the server is printed to standard error. A test that panics also drops
/// the `Running`.
///
/// ```
/// # use brooklet::Server;
/// # use std::time::Duration;
/// # fn main() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:0")?.get("/", |_| "hello\n").spawn()?;
/// println!("http://{}/", server.local_addr());
/// server.shutdown(Duration::from_secs(5))?; // gives running requests five seconds, unlike dropping the server
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it stops the server"]
pub struct Running {
    handle: Handle,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Calls `serve` in a new thread.
    pub(super) fn spawn(
        handle: Handle,
        serve: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Running> {
        let thread = thread::Builder::new().name("brooklet-serve".to_owned()).spawn(serve)?;
        Ok(Running { handle, thread: Some(thread) })
    }

    /// Returns the address that the server listens on. If the program passed port 0, the address has the port that the
    /// system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// Returns a handle that can stop the server from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops the server with [`Handle::shutdown`], and blocks until the server has stopped.
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`join`](Running::join).
    pub fn shutdown(self, grace: Duration) -> io::Result<()> {
        self.handle.shutdown(grace);
        self.join()
    }

    /// Blocks until another thread calls [`Handle::shutdown`] and the server has stopped.
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`Server::serve`](super::Server::serve).
    pub fn join(mut self) -> io::Result<()> {
        let thread = self.thread.take().expect("`join` and `drop` both consume the server");
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.handle.shutdown(Duration::ZERO);
        if let Ok(Err(error)) = thread.join() {
            stderr::line(format_args!("{error}"));
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}
