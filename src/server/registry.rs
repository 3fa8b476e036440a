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

use super::lock::lock;
use super::log;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Registry {
    members: Mutex<Members>,
    /// Somebody left while the server stops, or it began to.
    changed: Condvar,
    stopping: AtomicBool,
    /// Whether a [`CROWD`] is served, and nobody has taken a connection over.
    is_crowded: AtomicBool,
}

/// So many connections have something to do whenever one of them has not.
const CROWD: usize = 8;

/// A slab: slots of those who left are used again.
#[derive(Default)]
struct Members {
    slots: Vec<Option<Arc<Shared>>>,
    free: Vec<usize>,
    taken_over: usize,
    /// When the grace of a shutdown is over.
    deadline: Option<Instant>,
    /// Who looks after connections of this server and does not sit in a read.
    watchers: Vec<&'static dyn OnStop>,
}

/// Wants to be told when a server begins to stop.
pub trait OnStop: Sync {
    fn on_stop(&self);
}

impl Members {
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

struct Shared {
    stream: TcpStream,
    phase: AtomicU8,
    /// Whoever took the connection over has asked whether the server stops, and knows that it does.
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
        let mut members = self.members();
        if members.len() - members.taken_over >= max {
            return Err(stream);
        }
        let phase = AtomicU8::new(Phase::Busy as u8);
        let shared = Arc::new(Shared { stream, phase, noticed: AtomicBool::new(false) });
        let member = Some(Arc::clone(&shared));
        let slot = match members.free.pop() {
            Some(slot) => {
                members.slots[slot] = member;
                slot
            }
            None => {
                members.slots.push(member);
                members.slots.len() - 1
            }
        };
        self.note(&members);
        drop(members);
        Ok(Socket { shared: Some(shared), registry: Arc::clone(self), slot })
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Tells everybody to stop until `deadline`; told twice, the earlier deadline holds.
    pub fn stop(&self, deadline: Instant) {
        self.stopping.store(true, Ordering::SeqCst);
        let mut members = self.members();
        members.deadline = Some(members.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        for member in members.slots.iter().flatten().filter(|member| !member.is(Phase::Busy)) {
            // The end of input wakes whoever reads. An error says that the peer was faster.
            let _ = member.stream.shutdown(Shutdown::Read);
        }
        let watchers = std::mem::take(&mut members.watchers);
        drop(members);
        self.changed.notify_all();
        watchers.iter().for_each(|watcher| watcher.on_stop());
    }

    /// Blocks until [`stop`](Registry::stop) was called.
    pub fn wait_for_stop(&self) {
        let members = self.members();
        drop(self.changed.wait_while(members, |members| members.deadline.is_none()));
    }

    /// Sleeps, unless the server stops.
    pub fn pause(&self, time: Duration) {
        let members = self.members();
        drop(self.changed.wait_timeout_while(members, time, |members| members.deadline.is_none()));
    }

    /// Blocks until everybody has left, or cuts those who are still here when the deadline comes. Standard error is told of
    /// those who had time to say goodbye and never looked.
    pub fn wait_for_end(&self) {
        let mut members = self.members();
        let mut had_time = false;
        while members.len() > 0 {
            let left = members.deadline.and_then(|deadline| deadline.checked_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                let mut deaf = 0;
                for member in members.slots.iter().flatten() {
                    let _ = member.stream.shutdown(Shutdown::Both);
                    deaf += usize::from(member.is(Phase::TakenOver) && !member.noticed.load(Ordering::SeqCst));
                }
                drop(members);
                if had_time && deaf > 0 {
                    log::line(format_args!(
                        "{deaf} of the connections that were taken over did not notice the shutdown, and were cut; \
                         `wait` and `is_stopping` tell a loop of it"
                    ));
                }
                return;
            };
            had_time = true;
            members = self.changed.wait_timeout(members, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// To be called when somebody has joined, left, or taken over.
    fn note(&self, members: &Members) {
        self.is_crowded
            .store(members.taken_over == 0 && members.len() >= CROWD, Ordering::Relaxed);
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }
}

impl Socket {
    fn shared(&self) -> &Shared {
        self.shared
            .as_ref()
            .expect("only into_stream and drop take it out, and both end the socket")
    }

    pub fn is_stopping(&self) -> bool {
        let is_stopping = self.registry.is_stopping();
        if is_stopping {
            self.shared().noticed.store(true, Ordering::SeqCst);
        }
        is_stopping
    }

    /// Whether others are likely to have something to do that takes no longer than a request.
    pub fn is_in_a_crowd(&self) -> bool {
        self.registry.is_crowded.load(Ordering::Relaxed)
    }

    /// Says what the connection does from now on, and whether the server goes on: if it does not, an idle connection
    /// was perhaps not seen to be idle by [`Registry::stop`], and must not begin to wait.
    pub fn enter(&self, phase: Phase) -> bool {
        self.shared().phase.store(phase as u8, Ordering::SeqCst);
        !self.is_stopping()
    }

    /// Counts this connection as taken over, unless there are `max` of those already.
    pub fn take_over(&self, max: usize) -> bool {
        let mut members = self.registry.members();
        if members.taken_over >= max {
            return false;
        }
        members.taken_over += 1;
        self.registry.note(&members);
        self.shared().phase.store(Phase::TakenOver as u8, Ordering::SeqCst);
        if members.deadline.is_some() {
            let _ = self.shutdown(Shutdown::Read); // stop has passed by already
        }
        true
    }

    /// Has somebody told when the server begins to stop; at once, if it has.
    pub fn on_stop(&self, watcher: &'static dyn OnStop) {
        let address = |watcher: &'static dyn OnStop| watcher as *const dyn OnStop as *const ();
        self.shared().noticed.store(true, Ordering::SeqCst);
        let mut members = self.registry.members();
        if members.deadline.is_some() {
            drop(members);
            watcher.on_stop();
        } else if !members.watchers.iter().any(|known| address(*known) == address(watcher)) {
            members.watchers.push(watcher);
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
        let mut members = self.registry.members();
        members.slots[self.slot] = None;
        members.free.push(self.slot);
        members.taken_over -= usize::from(shared.is(Phase::TakenOver));
        self.registry.note(&members);
        if members.deadline.is_some() {
            self.registry.changed.notify_all();
        }
        shared
    }
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
        let read = (&self.shared().stream).read(out)?;
        if read == 0 {
            self.is_stopping(); // whoever finds the end has noticed
        }
        Ok(read)
    }
}

impl io::Write for Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&self.shared().stream).write(data)
    }

    fn write_vectored(&mut self, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        (&self.shared().stream).write_vectored(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
