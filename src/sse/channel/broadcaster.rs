//! The threads that write to subscribers: one for each core, shared by all channels. They run while there are
//! subscribers.
//!
//! This is how one thread serves ten thousand sockets without epoll, which `std` does not have:
//!
//! - **To write**, it does not wait for a socket. All subscribers of a channel get the same event, so a round tries them all:
//!   one non-blocking write each, of all events since the last round. Joining events costs almost nothing (a write of 16 KB
//!   takes 1.25 times as long as one of 100 bytes), and makes a burst 15 to 25 times faster.
//! - **A client whose buffers are full** is tried again after a millisecond, and the more rarely the longer it takes nothing.
//! - **A client that left** is found by a read, which takes 0.6 us on an idle socket. A sweep reads two hundred sockets at a
//!   time, spread so that each is read every 4.5 s. It drops what a client sends, because the end comes after that.
//!
//! Two locks, never held together: the history of a channel, to copy out of it, and the inbox of a broadcaster. `publish` never
//! waits for a socket, and waits for the next round only when more than half of the history is unsent.

use super::hub::Hub;
use super::server::{catch, lock, stderr, OnStop};
use super::subscriber::{Outcome, Round, Subscriber};
use super::MIN_KEEP_ALIVE;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Each subscriber is swept once in this time, so a client that left is noticed within 5 s.
const SWEEP_TIME: Duration = Duration::from_millis(4_500);

/// How many subscribers are swept together: 120 us that an event may have to wait.
const SWEEP_BATCH: usize = 200;

/// The capacity that a round's buffer keeps after a large round, in bytes.
const USUAL_ROUND: usize = 256 * 1024;

#[derive(Default)]
pub struct Broadcaster {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

#[derive(Default)]
struct Inbox {
    added: Vec<Subscriber>,
    /// The channels that have new events, each once.
    published: Vec<Arc<Hub>>,
    /// A server has begun to stop.
    stopping: bool,
    /// How many subscribers are about to be added. The thread does not end before.
    reserved: usize,
    running: bool,
}

/// All broadcasters of the process. They are started for the first subscriber, and end after the last one.
pub fn all() -> &'static [Broadcaster] {
    static ALL: OnceLock<Vec<Broadcaster>> = OnceLock::new();
    ALL.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        (0..cores).map(|_| Broadcaster::default()).collect()
    })
}

/// Notifies the broadcasters of a channel that it has a new event. Each is notified once until it begins a round.
pub fn notify(hub: &Arc<Hub>) {
    for (index, broadcaster) in all().iter().enumerate() {
        if hub.mark_notified(index) {
            broadcaster.inbox().published.push(Arc::clone(hub));
            broadcaster.wake.notify_one();
        }
    }
}

thread_local! {
    static IS_BROADCASTER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread of a broadcaster: it runs a hook of a channel then.
pub fn is_this_thread() -> bool {
    IS_BROADCASTER.get()
}

impl Broadcaster {
    /// Reserves a place for a subscriber: the thread runs until [`add`](Broadcaster::add) or
    /// [`release`](Broadcaster::release).
    ///
    /// # Errors
    ///
    /// Returns the error of starting the thread.
    pub fn reserve(&'static self) -> io::Result<()> {
        let mut inbox = self.inbox();
        if !inbox.running {
            // With the stack that any thread has by default, because hooks of channels run in it.
            let thread = thread::Builder::new().name("brooklet-sse".to_owned());
            thread.spawn(|| self.run())?;
            inbox.running = true;
        }
        inbox.reserved += 1;
        Ok(())
    }

    /// Adds a subscriber in the reserved place.
    pub fn add(&'static self, subscriber: Subscriber) {
        subscriber.socket().notify_on_stop(self);
        let mut inbox = self.inbox();
        inbox.reserved -= 1;
        inbox.added.push(subscriber);
        drop(inbox);
        self.wake.notify_one();
    }

    /// Gives the reserved place back.
    pub fn release(&self) {
        self.inbox().reserved -= 1;
        self.wake.notify_one();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    fn run(&'static self) {
        IS_BROADCASTER.set(true);
        let index = all().iter().position(|other| std::ptr::eq(other, self)).expect("there are no others");
        let mut groups = Groups { index, ..Groups::default() };
        while catch(|| self.broadcast(&mut groups)).is_none() {
            stderr::line(format_args!(
                "a thread that sends the events of channels panicked: its subscribers are disconnected, and can reconnect"
            ));
            groups.disconnect_all();
        }
    }

    /// Returns when the thread is to end.
    fn broadcast(&self, groups: &mut Groups) {
        while let Some(mut inbox) = self.wait(groups) {
            let added = take(&mut inbox.added);
            let published = take(&mut inbox.published);
            let stopping = take(&mut inbox.stopping);
            drop(inbox);
            groups.tick(added, published, stopping);
        }
    }

    /// Waits until something is in the inbox or a group is due. Returns `None` when the thread is to end.
    fn wait(&self, groups: &Groups) -> Option<MutexGuard<'_, Inbox>> {
        let mut inbox = self.inbox();
        while inbox.added.is_empty() && inbox.published.is_empty() && !inbox.stopping {
            if groups.by_channel.is_empty() && inbox.reserved == 0 {
                inbox.running = false;
                return None;
            }
            let Some(due) = groups.next_due() else {
                inbox = self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inbox = self.wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(inbox)
    }
}

impl OnStop for Broadcaster {
    fn on_stop(&self) {
        self.inbox().stopping = true;
        self.wake.notify_one();
    }
}

/// All subscribers of one broadcaster.
#[derive(Default)]
struct Groups {
    /// The key is the number of the channel.
    by_channel: BTreeMap<usize, Group>,
    /// The index of the broadcaster.
    index: usize,
    sweep: Sweep,
    /// The bytes of a round, and of a piece for a pending subscriber: kept for their memory.
    round: Vec<u8>,
    piece: Vec<u8>,
}

/// How far the sweep for clients that left has come. One pass sweeps all subscribers, in batches.
#[derive(Default)]
struct Sweep {
    /// The channel and the subscriber in it where the pass continues, if one has begun.
    next: Option<(usize, usize)>,
    due: Option<Instant>,
    /// The time between two batches.
    pause: Duration,
    /// How many subscribers there were when the pass began.
    subscribers: usize,
}

/// The subscribers of one channel at one broadcaster.
struct Group {
    hub: Arc<Hub>,
    subscribers: Vec<Subscriber>,
    /// The offset at which the last round ended.
    round_end: u64,
    /// The id of the last event in that round, if subscribers may skip.
    last_id: Option<String>,
    /// When pending subscribers are tried again.
    retry_at: Option<Instant>,
    /// Subscribers were removed, and `on_leave` was not called yet.
    has_removed: bool,
}

impl Groups {
    fn next_due(&self) -> Option<Instant> {
        let retry_at = self.by_channel.values().filter_map(|group| group.retry_at).min();
        [self.sweep.due, retry_at].into_iter().flatten().min()
    }

    /// Disconnects all subscribers after a panic, which may have left a part of an event at any of them: their streams
    /// end without a last chunk.
    fn disconnect_all(&mut self) {
        self.sweep = Sweep::default();
        for group in take(&mut self.by_channel).into_values() {
            // Dropping a channel drops its hooks, and so values of the program.
            catch(move || {
                let hub = Arc::clone(&group.hub);
                drop(group);
                hub.call(&hub.on_leave);
            });
        }
    }

    fn tick(&mut self, added: Vec<Subscriber>, published: Vec<Arc<Hub>>, stopping: bool) {
        let now = Instant::now();
        for subscriber in added {
            self.add(subscriber, now);
        }
        for hub in published {
            hub.clear_notified(self.index);
            if let Some(group) = self.by_channel.get_mut(&hub.number()) {
                group.retry_at = Some(now);
            }
        }
        for group in self.by_channel.values_mut() {
            if stopping {
                group.subscribers.iter_mut().for_each(Subscriber::observe_stop);
            }
            if stopping || group.retry_at.is_some_and(|retry_at| retry_at <= now) {
                group.send_round(now, self.index, &mut self.round, &mut self.piece);
            }
        }
        if self.sweep.due.is_some_and(|due| due <= now) {
            self.sweep_batch();
        }
        self.round.shrink_to(USUAL_ROUND);
        self.schedule_sweep(now);
        self.report_removed();
    }

    fn add(&mut self, mut subscriber: Subscriber, now: Instant) {
        subscriber.observe_stop();
        let hub = subscriber.hub();
        let group = self.by_channel.entry(hub.number()).or_insert_with(|| {
            hub.clear_notified(self.index); // a notification from before a panic may be lost
            Group::new(Arc::clone(hub), subscriber.offset())
        });
        group.subscribers.push(subscriber);
        group.retry_at = Some(now);
    }

    /// Decides when the next batch is due: soon enough that the pass ends in time, even if it has more subscribers now than
    /// when it began, and not later because many have left.
    fn schedule_sweep(&mut self, now: Instant) {
        let mut subscribers = 0;
        let mut time = SWEEP_TIME;
        for group in self.by_channel.values() {
            subscribers += group.subscribers.len();
            time = time.min(group.keep_alive());
        }
        if subscribers == 0 {
            self.sweep = Sweep::default();
            return;
        }
        if self.sweep.next.is_none() {
            // A new pass keeps the pace of the previous one if that had more: the last subscribers are last again.
            self.sweep.pause = pause(time, subscribers.max(self.sweep.subscribers));
            self.sweep.subscribers = subscribers;
        }
        self.sweep.pause = self.sweep.pause.min(pause(time, subscribers));
        let latest = now + self.sweep.pause;
        self.sweep.due = match self.sweep.due {
            Some(due) if due > now && due < latest => Some(due),
            _ => Some(latest),
        };
    }

    /// Sweeps the next batch of subscribers.
    fn sweep_batch(&mut self) {
        let now = Instant::now();
        let mut left = SWEEP_BATCH;
        let (number, mut index) = self.sweep.next.take().unwrap_or_default();
        for (found, group) in self.by_channel.range_mut(number..) {
            if *found != number {
                index = 0;
            }
            while index < group.subscribers.len() {
                if left == 0 {
                    self.sweep.next = Some((*found, index));
                    return;
                }
                left -= 1;
                let keep_alive = group.keep_alive();
                if group.subscribers[index].sweep(now, keep_alive, group.round_end) {
                    index += 1;
                } else {
                    group.remove(index);
                }
            }
        }
    }

    /// Calls `on_leave` once for each channel whose subscribers were removed. That comes last in a tick
    /// because the hook may publish: a round that removes many subscribers does not cause many rounds.
    fn report_removed(&mut self) {
        let mut hubs = Vec::new();
        self.by_channel.retain(|_, group| {
            if take(&mut group.has_removed) {
                hubs.push(Arc::clone(&group.hub));
            }
            !group.subscribers.is_empty()
        });
        for hub in hubs {
            hub.call(&hub.on_leave);
        }
    }
}

/// The time between two batches, if a pass over that many subscribers is to take `time`.
fn pause(time: Duration, subscribers: usize) -> Duration {
    time / subscribers.div_ceil(SWEEP_BATCH) as u32
}

impl Group {
    fn new(hub: Arc<Hub>, round_end: u64) -> Group {
        Group { hub, subscribers: Vec::new(), round_end, last_id: None, retry_at: None, has_removed: false }
    }

    fn keep_alive(&self) -> Duration {
        self.hub.config().keep_alive.max(MIN_KEEP_ALIVE)
    }

    /// Sends the events since the last round to all subscribers, and earlier ones to those that are pending.
    fn send_round(&mut self, now: Instant, shard: usize, bytes: &mut Vec<u8>, piece: &mut Vec<u8>) {
        let copied = self.hub.copy_round(shard, self.round_end, bytes);
        let last_id = self.last_id.take();
        let previous = (self.round_end, last_id.as_deref());
        let round = Round { now, base: copied.base, bytes, ended: copied.ended, previous };
        self.retry_at = None;
        let mut slot = 0;
        while slot < self.subscribers.len() {
            match self.subscribers[slot].send(&round, &self.hub, piece) {
                Outcome::UpToDate => slot += 1,
                Outcome::Pending { retry_at } => {
                    self.retry_at = Some(self.retry_at.map_or(retry_at, |earlier| earlier.min(retry_at)));
                    slot += 1;
                }
                Outcome::Remove => self.remove(slot),
            }
        }
        self.round_end = copied.base + bytes.len() as u64;
        self.last_id = copied.last_id;
    }

    fn remove(&mut self, index: usize) {
        self.subscribers.swap_remove(index);
        self.has_removed = true;
    }
}
