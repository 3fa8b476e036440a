//! The threads that write to subscribers. There is one broadcaster for each core, and all channels share the
//! broadcasters. The thread of a broadcaster runs only while the broadcaster has subscribers.
//!
//! `std` has no interface to epoll. One thread can still serve ten thousand sockets, for these reasons:
//!
//! - **Writes** do not block. All subscribers of a channel receive the same events. So a round makes one write for each
//!   subscriber, with all events since the last round. A write of 16 KB takes only 1.25 times as long as a write of 100
//!   bytes. So joining the events of a burst makes the burst 15 to 25 times faster.
//! - **Full buffers** of a client delay the next write to this client by 1 ms. The delay grows to at most 500 ms while
//!   the buffers stay full.
//! - **Clients that have left** are found by reads. A read of an idle socket takes 0.6 µs. A sweep reads 200 sockets at
//!   a time, and each socket once in 4.5 s. The sweep drops the input, because only the end of the input shows that a
//!   client has left.
//!
//! A broadcaster uses the lock of a channel's history and the lock of the broadcaster's inbox, but never holds both
//! locks at once. `publish` never waits for a socket. `publish` waits for the next round only if more than half of the
//! history is unsent.

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

/// The maximum time in which each subscriber is swept once. So the broadcaster notices within 5 s that a client has
/// left.
const SWEEP_TIME: Duration = Duration::from_millis(4_500);

/// The number of subscribers in one batch of a sweep. A batch takes 120 µs, and may delay an event by this time.
const SWEEP_BATCH: usize = 200;

/// The maximum capacity, in bytes, that the buffer of a round keeps after the round.
const USUAL_ROUND: usize = 256 * 1024;

#[derive(Default)]
pub struct Broadcaster {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

#[derive(Default)]
struct Inbox {
    added: Vec<Subscriber>,
    /// The channels that have new events. Each channel is in the list once.
    published: Vec<Arc<Hub>>,
    /// Is `true` if a server has begun to stop since the last tick.
    stopping: bool,
    /// The number of subscribers that are about to be added. The thread does not end while this number is above zero.
    reserved: usize,
    running: bool,
}

/// Returns all broadcasters of the process. A broadcaster's thread starts for its first subscriber, and ends after its
/// last subscriber has left.
pub fn all() -> &'static [Broadcaster] {
    static ALL: OnceLock<Vec<Broadcaster>> = OnceLock::new();
    ALL.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        (0..cores).map(|_| Broadcaster::default()).collect()
    })
}

/// Notifies the broadcasters of a channel after a new event. Does not notify a broadcaster twice before its next round.
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

/// Returns whether the current thread is a broadcaster's thread. If so, the caller is a hook of a channel.
pub fn is_this_thread() -> bool {
    IS_BROADCASTER.get()
}

impl Broadcaster {
    /// Reserves a place for a subscriber. Starts the thread if the thread is not running. The thread does not end
    /// before [`add`](Broadcaster::add) or [`release`](Broadcaster::release) is called.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be started.
    pub fn reserve(&'static self) -> io::Result<()> {
        let mut inbox = self.inbox();
        if !inbox.running {
            // The thread has the default stack size, because it runs the hooks of channels.
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

    /// Gives a reserved place back.
    pub fn release(&self) {
        self.inbox().reserved -= 1;
        self.wake.notify_one();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    fn run(&'static self) {
        IS_BROADCASTER.set(true);
        let index = all().iter().position(|other| std::ptr::eq(other, self)).expect("`all` contains self");
        let mut groups = Groups { index, ..Groups::default() };
        while catch(|| self.broadcast(&mut groups)).is_none() {
            stderr::line(format_args!(
                "a thread that sends events of channels panicked: its subscribers are disconnected, and can reconnect"
            ));
            groups.disconnect_all();
        }
    }

    /// Sends events to subscribers. Returns when no subscriber is left and the thread must end.
    fn broadcast(&self, groups: &mut Groups) {
        while let Some(mut inbox) = self.wait(groups) {
            let added = take(&mut inbox.added);
            let published = take(&mut inbox.published);
            let stopping = take(&mut inbox.stopping);
            drop(inbox);
            groups.tick(added, published, stopping);
        }
    }

    /// Waits until the inbox has an entry, or until a write or a sweep is due. Returns the locked inbox. Returns `None`
    /// if the thread must end.
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
    /// The groups, by the number of the channel.
    by_channel: BTreeMap<usize, Group>,
    /// The index of the broadcaster.
    index: usize,
    sweep: Sweep,
    /// The bytes of a round. All rounds use the same buffer.
    round: Vec<u8>,
    /// A piece of the history for a pending subscriber. All pieces use the same buffer.
    piece: Vec<u8>,
}

/// The progress of the sweep for clients that have left. One pass sweeps all subscribers, in batches.
#[derive(Default)]
struct Sweep {
    /// The number of the channel and the index of the subscriber at which the current pass continues. Is `None` between
    /// two passes.
    next: Option<(usize, usize)>,
    due: Option<Instant>,
    /// The time between two batches.
    pause: Duration,
    /// The number of subscribers when the pass began.
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
    /// The time of the next round. A new event sets this time to the current time.
    retry_at: Option<Instant>,
    /// Is `true` if subscribers were removed and `on_leave` was not called yet.
    has_removed: bool,
}

impl Groups {
    fn next_due(&self) -> Option<Instant> {
        let retry_at = self.by_channel.values().filter_map(|group| group.retry_at).min();
        [self.sweep.due, retry_at].into_iter().flatten().min()
    }

    /// Disconnects all subscribers after a panic. The streams end without the last chunk, because each subscriber may
    /// have received only a part of an event before the panic.
    fn disconnect_all(&mut self) {
        self.sweep = Sweep::default();
        for group in take(&mut self.by_channel).into_values() {
            // Dropping a channel drops its hooks, which may run code of the program.
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
        self.round.clear();
        self.round.shrink_to(USUAL_ROUND);
        self.schedule_sweep(now);
        self.report_removed();
    }

    fn add(&mut self, mut subscriber: Subscriber, now: Instant) {
        subscriber.observe_stop();
        let hub = subscriber.hub();
        let group = self.by_channel.entry(hub.number()).or_insert_with(|| {
            hub.clear_notified(self.index); // a notification before a panic may be lost
            Group::new(Arc::clone(hub), subscriber.offset())
        });
        group.subscribers.push(subscriber);
        group.retry_at = Some(now);
    }

    /// Sets the time of the next batch, so that the pass ends in time even if subscribers were added since the pass
    /// began. Subscribers that have left do not make the pause longer.
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
            // If the previous pass had more subscribers, the new pass keeps the shorter pause of the previous pass.
            // With a longer pause, the last subscribers would wait too long.
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

    /// Calls `on_leave` once for each channel whose subscribers were removed. This is the last step of a tick, because
    /// the hook may publish. So a round that removes many subscribers causes only one more round.
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

/// Returns the pause between two batches if a pass over this number of subscribers takes `time`.
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

    /// Sends the events since the last round to all subscribers, and earlier events to pending subscribers.
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
