//! The threads that write to subscribers: as many as the machine has cores, for all channels together, and none while
//! nobody subscribes.
//!
//! This is how one thread serves ten thousand sockets without epoll, which `std` does not have:
//!
//! - **To write**, it need not wait for a socket. An event is news for everybody in the channel, so a round tries them all:
//!   one non-blocking write each, of everything that was published since the last round. What queued up meanwhile costs
//!   nearly nothing to join (a 16 KB write is 1.25 times a 100-byte one), and is worth a factor of 15 to 25.
//! - **Whose buffers are full** is tried again after a millisecond, and the more rarely the longer it takes nothing.
//! - **Who has left** is found by reading, 0.6 us for an idle socket: two hundred of them at a time, spread so that
//!   everybody is looked at within 4.5 s. What a client sends is dropped, for its end would hide behind it.
//!
//! Two locks, never held together: a channel's log, for as long as it takes to copy out of it, and a broadcaster's inbox.
//! Publishing waits for no socket; and for the next round only when it is half a history ahead.

use super::hub::Hub;
use super::server::lock::lock;
use super::server::OnStop;
use super::subscriber::{Fate, Round, Subscriber};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Everybody is looked at once in this time; so one that left is noticed within 5 s.
const PASS: Duration = Duration::from_millis(4_500);

/// Looked at together: 120 us that an event may have to wait.
const LOOK: usize = 200;

/// What is kept of the memory that a large round took.
const USUAL_BATCH: usize = 256 * 1024;

/// Keep-alives more often than this would be all that a broadcaster does.
const MIN_KEEP_ALIVE: Duration = Duration::from_millis(10);

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
        subscriber.socket().on_stop(self);
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
        lock(&self.inbox)
    }

    fn run(&'static self) {
        IS_BROADCASTER.set(true);
        let index = all().iter().position(|other| std::ptr::eq(other, self)).expect("there are no others");
        let mut crowd = Crowd { index, ..Crowd::default() };
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
            let stopping = std::mem::take(&mut inbox.stop);
            drop(inbox);
            crowd.turn(joining, news, stopping);
        }
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
    /// Where its broadcaster stands among all of them.
    index: usize,
    look: Look,
    batch: Vec<u8>,
    piece: Vec<u8>,
}

/// Where the look for those who have left stands.
#[derive(Default)]
struct Look {
    /// The channel and the place in it where the pass goes on, if one has begun.
    at: Option<(usize, usize)>,
    next: Option<Instant>,
    pause: Duration,
    /// How many there were when the pass began.
    counted: usize,
}

/// The subscribers of one channel at one broadcaster.
struct Group {
    hub: Arc<Hub>,
    subscribers: Vec<Subscriber>,
    /// The position that the last round went up to.
    synced: u64,
    /// The id of the last event before that, for those who may skip.
    last_id: Option<String>,
    /// When to try those again who are behind.
    again: Option<Instant>,
    /// How many have left whom nobody was told of.
    left: usize,
}

impl Crowd {
    fn next_turn(&self) -> Option<Instant> {
        let again = self.groups.values().filter_map(|group| group.again).min();
        [self.look.next, again].into_iter().flatten().min()
    }

    fn turn(&mut self, joining: Vec<(Arc<Hub>, Subscriber)>, news: Vec<Arc<Hub>>, stopping: bool) {
        let now = Instant::now();
        for (hub, mut subscriber) in joining {
            subscriber.note_stop();
            let group = self.groups.entry(hub.number()).or_insert_with(|| Group::new(hub, subscriber.position()));
            group.subscribers.push(subscriber);
            group.again = Some(now);
        }
        for hub in news {
            hub.heard(self.index);
            if let Some(group) = self.groups.get_mut(&hub.number()) {
                group.again = Some(now);
            }
        }
        for group in self.groups.values_mut() {
            if stopping {
                group.subscribers.iter_mut().for_each(Subscriber::note_stop);
            }
            if stopping || group.again.is_some_and(|again| again <= now) {
                group.round(now, self.index, &mut self.batch, &mut self.piece);
            }
        }
        if self.look.next.is_some_and(|next| next <= now) {
            self.look();
        }
        self.batch.shrink_to(USUAL_BATCH);
        self.schedule(now);
        self.tell_of_those_who_left();
    }

    /// When to look next: often enough to be through in time, also if many have come since the pass began, and no more
    /// rarely because many have left.
    fn schedule(&mut self, now: Instant) {
        let subscribers: usize = self.groups.values().map(|group| group.subscribers.len()).sum();
        let keep_alive = self.groups.values().map(|group| group.keep_alive()).min();
        let pass = keep_alive.filter(|_| subscribers > 0).map(|keep_alive| keep_alive.min(PASS));
        let Some(pass) = pass else {
            self.look = Look::default();
            return;
        };
        let pause = |subscribers: usize| pass / subscribers.div_ceil(LOOK) as u32;
        if self.look.at.is_none() {
            // At the pace of the pass before, if that had more: its last come last in this one too.
            self.look.pause = pause(subscribers.max(self.look.counted));
            self.look.counted = subscribers;
        }
        self.look.pause = self.look.pause.min(pause(subscribers));
        let next = now + self.look.pause;
        self.look.next = Some(self.look.next.filter(|at| *at > now).map_or(next, |at| at.min(next)));
    }

    /// Looks at some more subscribers, whether they are still there, and sends a keep-alive where one is due.
    fn look(&mut self) {
        let now = Instant::now();
        let mut left = LOOK;
        let (number, mut at) = self.look.at.take().unwrap_or_default();
        for (found, group) in self.groups.range_mut(number..) {
            if *found != number {
                at = 0;
            }
            while at < group.subscribers.len() {
                if left == 0 {
                    self.look.at = Some((*found, at));
                    return;
                }
                left -= 1;
                let keep_alive = group.keep_alive();
                if group.subscribers[at].look(now, keep_alive, group.synced) {
                    at += 1;
                } else {
                    group.remove(at);
                }
            }
        }
    }

    /// Counts out those who left, and then calls the hooks, once for each channel: they may publish, and a round that many
    /// leave in should not become many rounds.
    fn tell_of_those_who_left(&mut self) {
        let mut hubs = Vec::new();
        self.groups.retain(|_, group| {
            if group.left > 0 {
                group.hub.leave(self.index, std::mem::take(&mut group.left));
                hubs.push(Arc::clone(&group.hub));
            }
            !group.subscribers.is_empty()
        });
        hubs.iter().for_each(|hub| hub.call(&hub.on_leave));
    }
}

impl Group {
    fn new(hub: Arc<Hub>, synced: u64) -> Group {
        Group { hub, subscribers: Vec::new(), synced, last_id: None, again: None, left: 0 }
    }

    fn keep_alive(&self) -> Duration {
        self.hub.config().keep_alive.max(MIN_KEEP_ALIVE)
    }

    /// Sends everybody what was published since the last round, and the rest to those who are behind.
    fn round(&mut self, now: Instant, index: usize, batch: &mut Vec<u8>, piece: &mut Vec<u8>) {
        let copied = self.hub.copy_round(index, self.synced, batch);
        let last_id = self.last_id.take();
        let before = (self.synced, last_id.as_deref());
        let round = Round { now, base: copied.base, bytes: batch, closed: copied.closed, before };
        self.again = None;
        let mut at = 0;
        while at < self.subscribers.len() {
            match self.subscribers[at].send(&round, &self.hub, piece) {
                Fate::InStep => at += 1,
                Fate::Behind { again } => {
                    self.again = Some(self.again.map_or(again, |earlier| earlier.min(again)));
                    at += 1;
                }
                Fate::Leaves => self.remove(at),
            }
        }
        self.synced = copied.base + batch.len() as u64;
        self.last_id = copied.last_id;
    }

    fn remove(&mut self, at: usize) {
        self.subscribers.swap_remove(at);
        self.left += 1;
    }
}
