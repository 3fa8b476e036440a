//! The state that a channel shares with its broadcasters: the history and its lock, and the number of subscribers at each
//! broadcaster.
//!
//! The history's lock is held to append to it or to copy out of it, and never while a file is written, or a socket except for a
//! `gap` event to a subscriber that skips, which never blocks. Publishers to a channel with a store also hold the store's lock,
//! which broadcasters never take.

use super::begun::BegunChunks;
use super::cursor::{Cursor, Progress};
use super::history::{History, Id};
use super::message::{self, Message};
use super::server::{catch, lock};
use super::settings::{ChannelConfig, Lag, Newcomers};
use super::store::Store;
use super::subscription::Tags;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long `publish` waits for a round to begin: longer than a round to ten thousand subscribers takes.
const PUBLISH_WAIT: Duration = Duration::from_millis(100);

/// A channel with fewer subscribers than this has one broadcaster: two would each put fewer events into one write. With 100
/// subscribers, 100 events a second and two cores, a second broadcaster makes half of the deliveries 11 % faster. A burst of
/// events then takes 1.5 times as long.
const ONE_BROADCASTER: usize = 32;

/// See the module.
pub struct Hub {
    number: usize,
    config: ChannelConfig,
    state: Mutex<State>,
    /// The store of a channel that has one, until the channel is closed. Publishers lock it before the state.
    store: Option<Mutex<Option<Box<dyn Store>>>>,
    round_begun: Condvar,
    begun: BegunChunks,
    pub tags: Tags,
    subscribers: AtomicUsize,
    /// One for each broadcaster.
    shards: Vec<Shard>,
    pub on_join: Mutex<Option<Hook>>,
    pub on_leave: Mutex<Option<Hook>>,
}

/// How a channel ends its streams.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a `close` event. A client that subscribes later is answered with 204.
    Close,
    /// Without one. A client that subscribes later receives the events that it missed, and is answered with 204 if there are
    /// none.
    Finish,
}

/// Is called with the number of subscribers.
pub type Hook = Arc<dyn Fn(usize) + Send + Sync>;

struct State {
    history: History,
    /// `Some` when no more events are published.
    end: Option<End>,
    /// The offset at which each broadcaster's last round ended.
    round_ends: Vec<u64>,
    /// The round end of each broadcaster that a publisher waited for in vain. No publisher waits again until it changes. So a
    /// hook that blocks a broadcaster delays one event, and not each of them by `PUBLISH_WAIT`.
    given_up: Vec<u64>,
}

/// The part of a channel's subscribers that one broadcaster has.
#[derive(Default)]
struct Shard {
    subscribers: AtomicUsize,
    /// The broadcaster was notified of a new event, and has not begun to send it.
    notified: AtomicBool,
}

impl Hub {
    /// `broadcasters` is how many there are.
    pub fn new(config: ChannelConfig, history: History, store: Option<Box<dyn Store>>, broadcasters: usize) -> Hub {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let round_ends = vec![0; broadcasters];
        let given_up = vec![u64::MAX; broadcasters];
        Hub {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            config,
            state: Mutex::new(State { history, end: None, round_ends, given_up }),
            store: store.map(|store| Mutex::new(Some(store))),
            round_begun: Condvar::new(),
            begun: BegunChunks::default(),
            tags: Tags::default(),
            subscribers: AtomicUsize::new(0),
            shards: (0..broadcasters).map(|_| Shard::default()).collect(),
            on_join: Mutex::new(None),
            on_leave: Mutex::new(None),
        }
    }

    /// A number that no other channel of this process has.
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::SeqCst)
    }

    /// Whether the channel has ended, and everything up to an offset is everything that it has to send.
    pub fn has_ended_at(&self, offset: u64) -> bool {
        let state = self.state();
        state.end.is_some() && offset == state.history.end()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The index of the broadcaster for the next subscriber: the channel's own while there are few, then the one that has
    /// fewest, because the last subscriber of the longest round waits longest.
    pub fn next_shard(&self) -> usize {
        if self.subscribers() < ONE_BROADCASTER {
            return self.number % self.shards.len();
        }
        let subscribers = |index: &usize| self.shards[*index].subscribers.load(Ordering::Relaxed);
        (0..self.shards.len()).min_by_key(subscribers).unwrap_or(0)
    }

    /// Appends a message to the store, if there is one, and to the history. First waits for broadcasters that have more
    /// than half of the history to send, unless the caller is one of them. `message` may depend on the events before it.
    pub fn append(&self, message: impl FnOnce(&History) -> Message, is_broadcaster: bool) -> io::Result<Id> {
        let state = if is_broadcaster { self.state() } else { self.wait_for_broadcasters() };
        match &self.store {
            None => append_in_memory(state, message),
            Some(store) => {
                drop(state); // the store is locked before the state
                self.append_stored(store, message)
            }
        }
    }

    fn append_stored(
        &self,
        store: &Mutex<Option<Box<dyn Store>>>,
        message: impl FnOnce(&History) -> Message,
    ) -> io::Result<Id> {
        let mut store = lock(store);
        let Some(store) = store.as_mut() else { return Err(ended()) };
        let state = self.state();
        let message = message(&state.history);
        let id = store.stage(&state.history, &message)?;
        drop(state); // broadcasters can send earlier events while the store writes this one
        let frame = store.commit()?;
        self.state().history.push(frame, &message);
        Ok(id)
    }

    /// Locks the state, after every broadcaster has sent enough that the next events do not evict unsent ones; or after
    /// `PUBLISH_WAIT`. Without this, a loop that publishes 200,000 events leaves all of 50 subscribers without most of them.
    /// With it, all of them receive all events.
    fn wait_for_broadcasters(&self) -> MutexGuard<'_, State> {
        let waited = self
            .round_begun
            .wait_timeout_while(self.state(), PUBLISH_WAIT, |state| self.must_wait(state));
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            state.given_up = state.round_ends.clone();
        }
        state
    }

    fn must_wait(&self, state: &State) -> bool {
        if state.end.is_some() {
            return false;
        }
        for (index, shard) in self.shards.iter().enumerate() {
            let round_end = state.round_ends[index];
            if round_end != state.given_up[index] && !shard.is_empty() && state.history.is_half_past(round_end) {
                return true;
            }
        }
        false
    }

    /// Refuses later messages, appends the end of the streams, and closes the store. A second end has no effect.
    pub fn end(&self, end: End) {
        let mut store = self.store.as_ref().map(lock); // a second call also returns after the store is closed
        let mut state = self.state();
        if state.end.is_none() {
            state.end = Some(end);
            if end == End::Close {
                state.history.push_close(&message::close_event(false));
            }
            state.history.push_last_chunk();
        }
        drop(state);
        if let Some(store) = &mut store {
            store.take();
        }
    }

    /// Marks a broadcaster as notified. Returns whether to notify it: it has subscribers, and was not notified yet.
    pub fn mark_notified(&self, index: usize) -> bool {
        let shard = &self.shards[index];
        !shard.is_empty() && !shard.notified.swap(true, Ordering::SeqCst)
    }

    /// A broadcaster calls this before a round, so that it is notified of the events that are published from then on.
    pub fn clear_notified(&self, index: usize) {
        self.shards[index].notified.store(false, Ordering::SeqCst);
    }

    /// The cursor of a new subscriber. Events that are published from now on are past it. `None` if there is nothing to send,
    /// now and later.
    pub fn cursor(&self, last_event_id: Option<&str>) -> Option<Cursor> {
        self.state().cursor(last_event_id, self.config.newcomers)
    }

    /// The cursor of a new subscriber to which `first` is sent before the events that are published from now on; or from the
    /// event that has the id of `first`. If the subscriber can resume, `first` is not called.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` if the format cannot hold the message.
    pub fn cursor_with(
        &self,
        last_event_id: Option<&str>,
        first: impl FnOnce() -> Message,
    ) -> io::Result<Option<Cursor>> {
        let state = self.state();
        if state.end == Some(End::Close) || last_event_id.is_some_and(|id| state.history.find(id).is_some()) {
            return Ok(state.cursor(last_event_id, self.config.newcomers));
        }
        let mut cursor = Cursor::from_now(&state.history, last_event_id);
        drop(state); // `first` is the program's
        let first = first();
        first.check()?;
        let state = self.state();
        cursor.push_first(&state.history, &first);
        if state.end.is_some() && cursor.offset() == state.history.end() {
            cursor.push_last_chunk(); // the one of the history is before the cursor
        }
        Ok(Some(cursor))
    }

    /// Counts a subscriber at a broadcaster, which is notified of the events that are published from now on. Earlier events
    /// past the subscriber's cursor are sent when the broadcaster adds it.
    pub fn count_subscriber(self: &Arc<Hub>, index: usize) -> Counted {
        let mut state = self.state();
        if self.shards[index].is_empty() {
            state.round_ends[index] = state.history.end();
        }
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        self.shards[index].subscribers.fetch_add(1, Ordering::SeqCst);
        Counted { hub: Arc::clone(self), index }
    }

    /// Calls a hook, if there is one. The lock of its slot is not held meanwhile, because the hook may set a hook.
    pub fn call(&self, hook: &Mutex<Option<Hook>>) {
        let hook = lock(hook).clone();
        if let Some(hook) = hook {
            // The closure owns the hook: it may be replaced meanwhile, and dropping it runs code of the program too.
            catch(move || hook(self.subscribers()));
        }
    }

    /// Copies the bytes of a broadcaster's next round: from an offset to the end, without those that were evicted.
    pub fn copy_round(&self, index: usize, offset: u64, out: &mut Vec<u8>) -> Copied {
        let mut state = self.state();
        let base = state.copy(offset, usize::MAX, out);
        let end = state.history.end();
        state.round_ends[index] = end;
        self.round_begun.notify_all();
        let mut last_id = None;
        if self.config.lag == Lag::Skip {
            last_id = state.history.last_id_before(end);
        }
        Copied { base, ended: state.end.is_some(), last_id }
    }

    /// Copies about `max` bytes from an offset, up to the end of a chunk; or from the start of the history, if that is later.
    /// Returns the offset of the copy.
    pub fn copy(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> u64 {
        self.state().copy(offset, max, out)
    }

    /// The chunks that subscribers have begun to receive, if they may skip.
    pub fn begun(&self) -> Option<&BegunChunks> {
        (self.config.lag == Lag::Skip).then_some(&self.begun)
    }

    /// Lets the cursor of a pending subscriber remember the last event that was sent, in case it has to skip.
    pub fn remember_last_id(&self, cursor: &mut Cursor) {
        if self.config.lag == Lag::Skip {
            cursor.remember_last_id(&self.state().history);
        }
    }

    pub fn skip(&self, cursor: &mut Cursor, socket: &mut impl Write) -> io::Result<Progress> {
        cursor.skip(&self.state().history, socket)
    }
}

/// One of a channel's subscribers, which is counted until this is dropped, however that comes about.
pub struct Counted {
    pub hub: Arc<Hub>,
    /// The index of the subscriber's broadcaster.
    index: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.hub.shards[self.index].subscribers.fetch_sub(1, Ordering::SeqCst);
        self.hub.subscribers.fetch_sub(1, Ordering::SeqCst);
    }
}

fn append_in_memory(mut state: MutexGuard<'_, State>, message: impl FnOnce(&History) -> Message) -> io::Result<Id> {
    let message = message(&state.history);
    if state.end.is_some() {
        return Err(ended());
    }
    state.history.append(&message)
}

fn ended() -> io::Error {
    let message = "the channel was closed or finished, for good: make a new one, or open it again";
    io::Error::new(ErrorKind::BrokenPipe, message)
}

/// What [`Hub::copy_round`] found.
pub struct Copied {
    /// The offset of the first byte.
    pub base: u64,
    pub ended: bool,
    /// The id of the last event, if subscribers may skip.
    pub last_id: Option<String>,
}

impl Shard {
    fn is_empty(&self) -> bool {
        self.subscribers.load(Ordering::SeqCst) == 0
    }
}

impl State {
    fn cursor(&self, last_event_id: Option<&str>, newcomers: Newcomers) -> Option<Cursor> {
        let cursor = Cursor::new(&self.history, last_event_id, newcomers);
        match self.end {
            Some(End::Close) => None,
            Some(End::Finish) if !self.history.has_events_from(cursor.offset()) => None,
            _ => Some(cursor),
        }
    }

    fn copy(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> u64 {
        out.clear();
        let base = offset.max(self.history.start());
        let (front, back) = self.history.since(base).expect("nothing past the start is evicted");
        let end = self.history.chunk_end(base.saturating_add(max as u64)).min(self.history.end());
        let length = (end - base) as usize;
        out.extend_from_slice(&front[..front.len().min(length)]);
        out.extend_from_slice(&back[..length.saturating_sub(front.len())]);
        base
    }
}
