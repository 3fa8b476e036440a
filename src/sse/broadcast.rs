//! The threads that write to subscribers: as many as the machine has cores, for all channels together, and none while
//! nobody subscribes.
//!
//! This is how one thread serves ten thousand sockets without epoll, which `std` does not have:
//!
//! - **To write**, it need not wait for a socket. An event is news for everybody in the channel, so a round tries them all:
//!   one non-blocking write each, of everything that was published since the last round. What queued up meanwhile costs
//!   nearly nothing to join (a 16 KB write is 1.25 times a 100-byte one), and is worth a factor of 15 to 25.
//! - **Whose buffers are full** is tried again with each round; and, only while there is somebody like that, every 1 to
//!   5 ms: a failed try costs 0.6 us.
//! - **Who has left** is found by reading, 0.6 us for an idle socket: a hundred of them at a time, spread so that everybody
//!   is looked at within 4 s. What a client sends is dropped, for its end would hide behind it.
//!
//! Two locks, never held together: a channel's log, for as long as it takes to copy out of it, and a broadcaster's inbox.
//! Publishing waits for neither a socket nor a round.

use super::cursor::{Cursor, Lag, Progress};
use super::hub::Hub;
use super::message;
use super::server::{OnStop, Socket};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Everybody is looked at once in this time; so a subscriber that left is noticed within 5 s.
const PASS: Duration = Duration::from_secs(4);

/// Looked at together: 60 us that an event may have to wait.
const LOOK: usize = 100;

/// How soon, and at the latest how soon, to try again those whose buffers are full.
const RETRY: Duration = Duration::from_millis(1);
const MAX_RETRY: Duration = Duration::from_millis(5);

/// What a subscriber that is behind gets in one write: enough to fill its buffers, little enough to copy.
const CATCH_UP: usize = 256 * 1024;

/// A broadcaster's stack: its calls are few and shallow, but for the hooks of channels.
const STACK: usize = 256 * 1024;

#[derive(Default)]
pub struct Broadcaster {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

#[derive(Default)]
struct Inbox {
    joining: Vec<(Arc<Hub>, Subscriber)>,
    /// Channels in which something was published, each once.
    news: Vec<Arc<Hub>>,
    /// A server has begun to stop.
    stop: bool,
    /// Those who are about to join. The thread does not end under them.
    expected: usize,
    running: bool,
}

/// A socket, and how far it has come; its thread ended when it was handed over.
pub struct Subscriber {
    socket: Socket,
    cursor: Cursor,
    /// When something was sent last, for the keep-alive.
    written: Instant,
}

impl Subscriber {
    /// `socket` is non-blocking.
    pub fn new(socket: Socket, cursor: Cursor) -> Subscriber {
        Subscriber { socket, cursor, written: Instant::now() }
    }
}

/// All broadcasters of the process. They are started when somebody subscribes, and end when nobody does.
pub fn all() -> &'static [Broadcaster] {
    static ALL: OnceLock<Vec<Broadcaster>> = OnceLock::new();
    ALL.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        (0..cores).map(|_| Broadcaster::default()).collect()
    })
}

/// Tells the broadcasters of a channel that there is news in it, each once until it looks.
pub fn tell(hub: &Arc<Hub>) {
    for (index, broadcaster) in all().iter().enumerate() {
        if hub.is_to_be_told(index) {
            broadcaster.inbox().news.push(Arc::clone(hub));
            broadcaster.wake.notify_one();
        }
    }
}

thread_local! {
    static IS_BROADCASTER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread of a broadcaster, in a hook of a channel then.
pub fn is_this_thread() -> bool {
    IS_BROADCASTER.get()
}

impl Broadcaster {
    /// Sees to it that the thread runs, until [`join`](Broadcaster::join) or [`leave`](Broadcaster::leave).
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn expect(&'static self) -> io::Result<()> {
        let mut inbox = self.inbox();
        if !inbox.running {
            let thread = thread::Builder::new().name("brooklet-sse".to_owned()).stack_size(STACK);
            thread.spawn(|| self.run())?;
            inbox.running = true;
        }
        inbox.expected += 1;
        Ok(())
    }

    /// Takes a subscriber in, after [`expect`](Broadcaster::expect).
    pub fn join(&'static self, hub: Arc<Hub>, subscriber: Subscriber) {
        subscriber.socket.on_stop(self);
        let mut inbox = self.inbox();
        inbox.expected -= 1;
        inbox.joining.push((hub, subscriber));
        drop(inbox);
        self.wake.notify_one();
    }

    /// The one who was expected does not come.
    pub fn leave(&self) {
        self.inbox().expected -= 1;
        self.wake.notify_one();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&'static self) {
        IS_BROADCASTER.set(true);
        let mut crowd = Crowd::default();
        loop {
            let mut inbox = self.inbox();
            while inbox.joining.is_empty() && inbox.news.is_empty() && !inbox.stop {
                if crowd.groups.is_empty() && inbox.expected == 0 {
                    inbox.running = false;
                    return;
                }
                let Some(left) = crowd.next_turn().map(|turn| turn.saturating_duration_since(Instant::now())) else {
                    inbox = self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                    continue;
                };
                if left.is_zero() {
                    break;
                }
                inbox = self.wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            let (joining, news) = (std::mem::take(&mut inbox.joining), std::mem::take(&mut inbox.news));
            crowd.stopping |= std::mem::take(&mut inbox.stop);
            drop(inbox);
            crowd.turn(self, joining, news);
        }
    }

    /// Where this one stands among all of them.
    fn index(&'static self) -> usize {
        all().iter().position(|other| std::ptr::eq(other, self)).expect("there are no others")
    }
}

impl OnStop for Broadcaster {
    fn on_stop(&self) {
        self.inbox().stop = true;
        self.wake.notify_one();
    }
}

/// The subscribers of one broadcaster.
#[derive(Default)]
struct Crowd {
    /// By channel, under its number.
    groups: BTreeMap<usize, Group>,
    stopping: bool,
    /// Where the look for those who have left goes on.
    looked: (usize, usize),
    next_look: Option<Instant>,
    retry: Option<(Instant, Duration)>,
    batch: Vec<u8>,
}

/// The subscribers of one channel at one broadcaster.
struct Group {
    hub: Arc<Hub>,
    subscribers: Vec<Subscriber>,
    /// The position that the last round went up to.
    synced: u64,
    behind: bool,
}

/// Whether a subscriber stays.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays { behind: bool },
    Leaves,
}

impl Crowd {
    fn next_turn(&self) -> Option<Instant> {
        let retry = self.retry.map(|(at, _)| at);
        [self.next_look, retry].into_iter().flatten().min()
    }

    fn turn(&mut self, this: &'static Broadcaster, joining: Vec<(Arc<Hub>, Subscriber)>, news: Vec<Arc<Hub>>) {
        let now = Instant::now();
        let retrying = self.retry.is_some_and(|(at, _)| at <= now);
        let mut rounds: Vec<usize> = Vec::new();
        for (hub, subscriber) in joining {
            let number = hub.number();
            let group = self.groups.entry(number).or_insert_with(|| Group {
                synced: subscriber.cursor.position(),
                hub,
                subscribers: Vec::new(),
                behind: false,
            });
            group.subscribers.push(subscriber);
            rounds.push(number);
        }
        for hub in news {
            hub.heard(this.index());
            rounds.push(hub.number());
        }
        rounds.sort_unstable();
        rounds.dedup();
        let stopping = std::mem::take(&mut self.stopping);
        for (number, group) in &mut self.groups {
            let is_due = stopping || (retrying && group.behind) || rounds.binary_search(number).is_ok();
            if is_due {
                group.round(now, &mut self.batch, this.index());
            }
        }
        if self.next_look.is_some_and(|at| at <= now) {
            self.look(now, this.index());
        }
        self.groups.retain(|_, group| !group.subscribers.is_empty());
        self.schedule(now, retrying);
    }

    /// When to look, and when to retry.
    fn schedule(&mut self, now: Instant, retried: bool) {
        self.retry = self.groups.values().any(|group| group.behind).then(|| match self.retry {
            Some((_, pause)) if retried => (now + pause, (pause * 2).min(MAX_RETRY)),
            Some(retry) => retry,
            None => (now + RETRY, RETRY),
        });
        let subscribers: usize = self.groups.values().map(|group| group.subscribers.len()).sum();
        let pass = self
            .groups
            .values()
            .map(|group| group.hub.config().keep_alive)
            .min()
            .map(|pass| pass.min(PASS));
        self.next_look = pass.map(|pass| {
            let pause = pass / (subscribers.div_ceil(LOOK) as u32);
            match self.next_look {
                Some(at) if at > now => at.min(now + pause),
                _ => now + pause,
            }
        });
    }

    /// Looks at some more subscribers, whether they are still there, and sends a keep-alive where one is due.
    fn look(&mut self, now: Instant, index: usize) {
        let mut left = LOOK;
        let (number, mut at) = self.looked;
        let mut next = self.groups.range_mut(number..);
        self.looked = (0, 0); // from the beginning, unless we stop before the end
        for (found, group) in next.by_ref() {
            if *found != number {
                at = 0;
            }
            while at < group.subscribers.len() {
                if left == 0 {
                    self.looked = (*found, at);
                    return;
                }
                left -= 1;
                match group.look(at, now) {
                    true => at += 1,
                    false => group.remove(at, index),
                }
            }
        }
    }
}

impl Group {
    /// Sends everybody what was published since the last round, and the rest to those who are behind.
    fn round(&mut self, now: Instant, batch: &mut Vec<u8>, index: usize) {
        let (base, closed) = self.hub.copy_round(index, self.synced, batch);
        let end = base + batch.len() as u64;
        self.synced = end;
        self.behind = false;
        let mut late = Vec::new();
        let mut at = 0;
        while at < self.subscribers.len() {
            let subscriber = &mut self.subscribers[at];
            let sent = if batch.is_empty() && subscriber.cursor.is_at(end) {
                Ok(Progress::InStep)
            } else {
                subscriber.written = now;
                subscriber.cursor.send(base, batch, self.hub.config().lag, &mut subscriber.socket)
            };
            let fate = match sent {
                Ok(Progress::InStep) => subscriber.settle(closed),
                Ok(Progress::Behind) => {
                    self.hub.note(&mut subscriber.cursor);
                    Fate::Stays { behind: true }
                }
                Ok(Progress::Lost) => subscriber.catch_up(&self.hub, closed, &mut late),
                Err(_) => Fate::Leaves,
            };
            match fate {
                Fate::Stays { behind } => {
                    self.behind |= behind;
                    at += 1;
                }
                Fate::Leaves => self.remove(at, index),
            }
        }
    }

    /// Whether the subscriber is still there.
    fn look(&mut self, at: usize, now: Instant) -> bool {
        let subscriber = &mut self.subscribers[at];
        if !subscriber.is_there() {
            return false;
        }
        let is_silent = now.saturating_duration_since(subscriber.written) >= self.hub.config().keep_alive;
        if is_silent && subscriber.cursor.is_at(self.synced) {
            subscriber.written = now;
            // A part of a comment is as bad as a part of a frame.
            let comment = b":\n\n";
            return matches!(subscriber.socket.write(comment), Ok(3));
        }
        true
    }

    fn remove(&mut self, at: usize, index: usize) {
        drop(self.subscribers.swap_remove(at));
        self.hub.left(index);
    }
}

impl Subscriber {
    /// Sends a subscriber what lies between its position and the end, a piece at a time.
    fn catch_up(&mut self, hub: &Hub, closed: bool, piece: &mut Vec<u8>) -> Fate {
        loop {
            let position = self.cursor.position();
            let base = hub.copy(position, CATCH_UP, piece);
            let sent = if base == position {
                self.cursor.send(base, piece, hub.config().lag, &mut self.socket)
            } else if hub.config().lag == Lag::Skip {
                hub.skip(&mut self.cursor, &mut self.socket)
            } else {
                return Fate::Leaves; // it resumes by itself, and is told of the gap then
            };
            match sent {
                Ok(Progress::InStep) if base == position && piece.is_empty() => return self.settle(closed),
                Ok(Progress::InStep) => (),
                Ok(Progress::Behind | Progress::Lost) => {
                    hub.note(&mut self.cursor);
                    return Fate::Stays { behind: true };
                }
                Err(_) => return Fate::Leaves,
            }
        }
    }

    /// Says goodbye to one who has everything, if the channel is closed or the server stops.
    fn settle(&mut self, closed: bool) -> Fate {
        if !closed && !self.socket.is_stopping() {
            return Fate::Stays { behind: false };
        }
        if !closed {
            let mut goodbye = Vec::new();
            message::goodbye(true).encode(&mut goodbye).expect("our own message is valid");
            let _ = self.socket.write(&goodbye);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        self.is_there(); // what it sent and nobody read would turn the close into a reset
        Fate::Leaves
    }

    /// Reads away what the client sent, up to a bound: there may be always more.
    fn is_there(&mut self) -> bool {
        let mut scratch = [0; 1024];
        for _ in 0..4 {
            match self.socket.read(&mut scratch) {
                Ok(0) => return self.socket.is_stopping(), // then the end is ours, and not the client's
                Ok(_) => (),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}
