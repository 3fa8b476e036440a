//! The registry of all connections. The registry counts the connections, limits their number, and stops them.
//!
//! The registry contains each connection until the connection is closed, even if a handler took the connection over.
//! Otherwise an open event stream would keep the server from stopping. The registry and the connection share one
//! socket, because a clone of the socket would take a second file descriptor.
//!
//! The effect of a shutdown on a connection depends on the phase of the connection:
//!
//! ```text
//! Idle      no byte of a request has arrived      closed at once
//! Busy      the server reads or answers a request closed after the response, which has `Connection: close`
//! TakenOver the program owns the connection       the input ends; the program may still send
//! ```
//!
//! When the grace is over, the registry disconnects all remaining clients.

use super::client_error::mark;
use super::panics::lock;
use super::stderr;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Registry {
    connections: Mutex<Connections>,
    /// Notified when the server begins to stop, and when a connection leaves the registry after that.
    changed: Condvar,
    stopping: AtomicBool,
}

/// A slab of connections. New connections reuse the slots of connections that left.
#[derive(Default)]
struct Connections {
    slots: Vec<Option<Arc<Shared>>>,
    free: Vec<usize>,
    taken_over: usize,
    /// The end of the grace. `None` before a shutdown.
    deadline: Option<Instant>,
    /// Objects that own taken-over connections and never block in a read. The registry calls each object when a
    /// shutdown begins.
    stop_listeners: Vec<&'static dyn OnStop>,
}

/// A listener that is called when a server begins to stop.
pub trait OnStop: Sync {
    fn on_stop(&self);
}

impl Connections {
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Shared>> {
        self.slots.iter().flatten()
    }

    /// Disconnects all clients. Returns the number of taken-over connections whose owner has not noticed the shutdown.
    fn disconnect_all(&self) -> usize {
        let mut unnoticed = 0;
        for connection in self.iter() {
            let _ = connection.stream.shutdown(Shutdown::Both);
            if connection.is(Phase::TakenOver) && !connection.noticed.load(Ordering::SeqCst) {
                unnoticed += 1;
            }
        }
        unnoticed
    }
}

struct Shared {
    stream: TcpStream,
    phase: AtomicU8,
    /// `true` if the code that owns a taken-over connection has noticed the shutdown, or will be notified of a
    /// shutdown.
    noticed: AtomicBool,
}

/// The phase of a connection. The table in the module documentation explains the phases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    Idle,
    Busy,
    TakenOver,
}

impl Shared {
    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) == phase as u8
    }
}

/// A socket in the registry. Dropping a `Socket` closes the socket and removes it from the registry.
pub struct Socket {
    shared: Option<Arc<Shared>>,
    registry: Arc<Registry>,
    slot: usize,
}

impl Registry {
    /// Adds a connection. Returns the stream in `Err` if the registry already contains `max` connections that are not
    /// taken over.
    pub fn join(self: &Arc<Registry>, stream: TcpStream, max: usize) -> Result<Socket, TcpStream> {
        let mut connections = self.connections();
        if connections.len() - connections.taken_over >= max {
            return Err(stream);
        }
        let phase = AtomicU8::new(Phase::Busy as u8);
        let shared = Arc::new(Shared { stream, phase, noticed: AtomicBool::new(false) });
        let connection = Some(Arc::clone(&shared));
        let slot = match connections.free.pop() {
            Some(slot) => {
                connections.slots[slot] = connection;
                slot
            }
            None => {
                connections.slots.push(connection);
                connections.slots.len() - 1
            }
        };
        drop(connections);
        Ok(Socket { shared: Some(shared), registry: Arc::clone(self), slot })
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Begins a shutdown with a grace that ends at `deadline`. If `stop` is called several times, the earliest deadline
    /// counts.
    pub fn stop(&self, deadline: Instant) {
        self.stopping.store(true, Ordering::SeqCst);
        let mut connections = self.connections();
        connections.deadline = Some(connections.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        for connection in connections.iter().filter(|connection| !connection.is(Phase::Busy)) {
            // This call wakes a thread that blocks in a read. An error means that the connection has already ended.
            let _ = connection.stream.shutdown(Shutdown::Read);
        }
        let stop_listeners = std::mem::take(&mut connections.stop_listeners);
        drop(connections);
        self.changed.notify_all();
        for listener in stop_listeners {
            listener.on_stop();
        }
    }

    /// Blocks until [`stop`](Registry::stop) is called.
    pub fn wait_for_stop(&self) {
        let connections = self.connections();
        drop(self.changed.wait_while(connections, |connections| connections.deadline.is_none()));
    }

    /// Blocks for `time`. Returns early if the server begins to stop.
    pub fn pause(&self, time: Duration) {
        let connections = self.connections();
        drop(
            self.changed
                .wait_timeout_while(connections, time, |connections| connections.deadline.is_none()),
        );
    }

    /// Blocks until all connections have left, or until the deadline. At the deadline, disconnects the remaining
    /// clients, and prints the number of taken-over connections that have not noticed the shutdown. If there was no
    /// grace, prints nothing, because the connections had no time to notice the shutdown.
    pub fn wait_until_empty(&self) {
        let mut connections = self.connections();
        let mut had_time = false;
        while connections.len() > 0 {
            let left = connections
                .deadline
                .map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                let unnoticed = connections.disconnect_all();
                drop(connections);
                if had_time && unnoticed > 0 {
                    stderr::line(format_args!(
                        "{unnoticed} of the connections that were taken over did not notice the shutdown and were \
                         disconnected; call `wait` or `is_stopping` in the loops that serve them"
                    ));
                }
                return;
            }
            had_time = true;
            connections = self.changed.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        lock(&self.connections)
    }
}

impl Socket {
    fn shared(&self) -> &Shared {
        self.shared
            .as_ref()
            .expect("only `into_stream` and `drop` empty this field, and both consume the socket")
    }

    pub fn is_stopping(&self) -> bool {
        self.registry.is_stopping()
    }

    /// Returns whether the server is stopping. If so, records that the code that owns this connection has noticed the
    /// shutdown.
    pub fn observe_stop(&self) -> bool {
        let is_stopping = self.is_stopping();
        if is_stopping {
            self.shared().noticed.store(true, Ordering::SeqCst);
        }
        is_stopping
    }

    /// Sets the phase of the connection.
    pub fn enter(&self, phase: Phase) {
        self.shared().phase.store(phase as u8, Ordering::SeqCst);
    }

    /// Marks this connection as taken over. Returns `false`, and changes nothing, if `max` connections are already
    /// taken over.
    pub fn take_over(&self, max: usize) -> bool {
        let mut connections = self.registry.connections();
        if connections.taken_over >= max {
            return false;
        }
        connections.taken_over += 1;
        self.enter(Phase::TakenOver);
        if connections.deadline.is_some() {
            let _ = self.shutdown(Shutdown::Read); // `stop` did not do this, because the connection was busy
        }
        true
    }

    /// Calls `listener` when the server begins to stop, or at once if the server is already stopping.
    pub fn notify_on_stop(&self, listener: &'static dyn OnStop) {
        self.shared().noticed.store(true, Ordering::SeqCst);
        let mut connections = self.registry.connections();
        if connections.deadline.is_some() {
            drop(connections);
            return listener.on_stop();
        }
        if !connections.stop_listeners.iter().any(|known| is_same(*known, listener)) {
            connections.stop_listeners.push(listener);
        }
    }

    /// Removes the socket from the registry, and returns the stream.
    pub fn into_stream(mut self) -> TcpStream {
        let shared = self.leave();
        Arc::into_inner(shared)
            .expect("the registry had the only other reference, and `leave` has dropped that reference")
            .stream
    }

    fn leave(&mut self) -> Arc<Shared> {
        let shared = self.shared.take().expect("a socket leaves only once");
        let mut connections = self.registry.connections();
        connections.slots[self.slot] = None;
        connections.free.push(self.slot);
        connections.taken_over -= usize::from(shared.is(Phase::TakenOver));
        if connections.deadline.is_some() {
            self.registry.changed.notify_all();
        }
        shared
    }
}

/// Returns whether two listeners are the same object. Compares the addresses but not the vtables. `ptr::addr_eq` would
/// do the same, but needs Rust 1.76.
fn is_same(one: &'static dyn OnStop, other: &'static dyn OnStop) -> bool {
    let (one, other): (*const dyn OnStop, *const dyn OnStop) = (one, other);
    one.cast::<()>() == other.cast::<()>()
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.shared().stream
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.shared.is_some() {
            self.leave();
        }
    }
}

impl io::Read for Socket {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = (&self.shared().stream).read(out).map_err(mark)?;
        if read == 0 {
            self.observe_stop(); // code that reads the end of the input has noticed the shutdown
        }
        Ok(read)
    }
}

impl io::Write for Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&self.shared().stream).write(data).map_err(mark)
    }

    fn write_vectored(&mut self, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        (&self.shared().stream).write_vectored(data).map_err(mark)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
