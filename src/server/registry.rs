//! Who is connected, how many there may be, and how they are told to stop.
//!
//! Every connection of the server is known here from accept to close, also one that was taken over: an open event stream
//! that hangs the shutdown is the best-known fault of this field. What is known is the socket itself, shared and not
//! cloned, for a clone would cost a second descriptor.
//!
//! ```text
//! Idle      no byte of a request is here      on shutdown: closed at once
//! Busy      a request is read or answered     on shutdown: may finish, with `Connection: close`
//! TakenOver somebody else answers             on shutdown: told by the end of what it reads, may say goodbye
//! ```
//! When the grace is over whoever is left is cut.

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
    /// Somebody left while the server stops, or it began to.
    changed: Condvar,
    stopping: AtomicBool,
}

/// A slab: slots of those who left are used again.
#[derive(Default)]
struct Connections {
    slots: Vec<Option<Arc<Shared>>>,
    free: Vec<usize>,
    taken_over: usize,
    /// When the grace of a shutdown is over.
    deadline: Option<Instant>,
    /// Called when a shutdown begins: they own connections of this server and do not block in a read.
    stop_listeners: Vec<&'static dyn OnStop>,
}

/// Is called when a server begins to stop.
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

    /// Returns how many were taken over and had not noticed the shutdown.
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
    /// The code that took the connection over has asked whether the server stops, while it did.
    noticed: AtomicBool,
}

/// What a connection is doing; see the module's table.
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

/// A socket that the registry knows; dropped, it closes and is forgotten.
pub struct Socket {
    shared: Option<Arc<Shared>>,
    registry: Arc<Registry>,
    slot: usize,
}

impl Registry {
    /// Takes a connection in, unless there are `max` already that were not taken over: then it comes back.
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

    /// Stops all connections until `deadline`. Called again, the earlier deadline holds.
    pub fn stop(&self, deadline: Instant) {
        self.stopping.store(true, Ordering::SeqCst);
        let mut connections = self.connections();
        connections.deadline = Some(connections.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        for connection in connections.iter().filter(|connection| !connection.is(Phase::Busy)) {
            // The end of input wakes a thread that reads. It fails if the peer has closed already.
            let _ = connection.stream.shutdown(Shutdown::Read);
        }
        let stop_listeners = std::mem::take(&mut connections.stop_listeners);
        drop(connections);
        self.changed.notify_all();
        for listener in stop_listeners {
            listener.on_stop();
        }
    }

    /// Blocks until [`stop`](Registry::stop) was called.
    pub fn wait_for_stop(&self) {
        let connections = self.connections();
        drop(self.changed.wait_while(connections, |connections| connections.deadline.is_none()));
    }

    /// Sleeps, unless the server stops.
    pub fn pause(&self, time: Duration) {
        let connections = self.connections();
        drop(
            self.changed
                .wait_timeout_while(connections, time, |connections| connections.deadline.is_none()),
        );
    }

    /// Blocks until every connection has left, or disconnects those that are left at the deadline. Prints how many of
    /// those were taken over and did not notice the shutdown in the time that they had.
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
                        "{unnoticed} of the connections that were taken over did not notice the shutdown, and were cut; \
                         `wait` and `is_stopping` tell a loop of it"
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
            .expect("only into_stream and drop take it out, and both end the socket")
    }

    pub fn is_stopping(&self) -> bool {
        self.registry.is_stopping()
    }

    /// Returns whether the server stops, for the code that took the connection over. From then on it counts as a
    /// connection that has noticed the shutdown.
    pub fn observe_stop(&self) -> bool {
        let is_stopping = self.is_stopping();
        if is_stopping {
            self.shared().noticed.store(true, Ordering::SeqCst);
        }
        is_stopping
    }

    /// Sets what the connection does from now on.
    pub fn enter(&self, phase: Phase) {
        self.shared().phase.store(phase as u8, Ordering::SeqCst);
    }

    /// Counts this connection as taken over, unless there are `max` of those already.
    pub fn take_over(&self, max: usize) -> bool {
        let mut connections = self.registry.connections();
        if connections.taken_over >= max {
            return false;
        }
        connections.taken_over += 1;
        self.enter(Phase::TakenOver);
        if connections.deadline.is_some() {
            let _ = self.shutdown(Shutdown::Read); // stop has passed by already
        }
        true
    }

    /// Calls `listener` when the server begins to stop; at once, if it has begun.
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

    /// Gives the bare stream away; from here on the server does not know it.
    pub fn into_stream(mut self) -> TcpStream {
        let shared = self.leave();
        Arc::into_inner(shared)
            .expect("the registry had the only other reference, and leave dropped it")
            .stream
    }

    fn leave(&mut self) -> Arc<Shared> {
        let shared = self.shared.take().expect("a socket leaves once");
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

/// Whether two listeners are one object, whatever their vtables (`ptr::addr_eq` needs Rust 1.76).
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
            self.observe_stop(); // a reader that finds the end has noticed
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
