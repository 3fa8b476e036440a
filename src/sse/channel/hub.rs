//! The state that a channel shares with its broadcasters: the history and its lock, and the number of subscribers of
//! each broadcaster.
//!
//! The history is locked while events are appended or copied, and never while a file is written. The history is not
//! locked during a write to a socket, except for the `gap` event of a subscriber that skips. This write does not block.
//! Publishers to a channel with a store also lock the store. A broadcaster locks the store only if a hook publishes.

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

/// The maximum time that `publish` waits until a round begins. A round to ten thousand subscribers takes less time.
const PUBLISH_WAIT: Duration = Duration::from_millis(100);

/// A channel with fewer subscribers than this number uses one broadcaster. With two broadcasters, each write contains
/// fewer events. With 100 subscribers, 100 events a second and two cores, a second broadcaster shortens the median time
/// of a delivery by 11 %. A burst of events then takes 1.5 times as long.
const ONE_BROADCASTER: usize = 32;

/// The shared state of a channel.
pub struct Hub {
    number: usize,
    config: ChannelConfig,
    state: Mutex<State>,
    /// The store, if the channel has one. The inner value is `None` after the channel has ended. Publishers lock the
    /// store before the state.
    store: Option<Mutex<Option<Box<dyn Store>>>>,
    round_begun: Condvar,
    begun: BegunChunks,
    pub tags: Tags,
    subscribers: AtomicUsize,
    /// The shards, one for each broadcaster.
    shards: Vec<Shard>,
    pub on_join: Mutex<Option<Hook>>,
    pub on_leave: Mutex<Option<Hook>>,
}

/// How a channel ends its streams.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The streams end with a `close` event. The response to a client that subscribes later is 204.
    Close,
    /// The streams end without a `close` event. A client that subscribes later receives the events that it missed. If
    /// the client missed no event, the response is 204.
    Finish,
}

/// A function of the program that is called with the number of subscribers.
pub type Hook = Arc<dyn Fn(usize) + Send + Sync>;

struct State {
    history: History,
    /// How the channel ended, or `None` while events can be published.
    end: Option<End>,
    /// The offset at which the last round of each broadcaster ended.
    round_ends: Vec<u64>,
    /// The value of `round_ends` when a publisher last waited without success. No publisher waits for a broadcaster
    /// again until the broadcaster's round end changes. So a hook that blocks a broadcaster delays one event by
    /// `PUBLISH_WAIT`, and not every event.
    given_up: Vec<u64>,
}

/// The subscribers of a channel that one broadcaster serves.
#[derive(Default)]
struct Shard {
    subscribers: AtomicUsize,
    /// Is `true` if the broadcaster was notified of a new event, and has not begun the next round.
    notified: AtomicBool,
}

impl Hub {
    /// Returns the state of a new channel. `broadcasters` is the number of broadcasters in the process.
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

    /// Returns the number of this channel. No other channel of this process has the same number.
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::SeqCst)
    }

    /// Returns whether the channel has ended and `offset` is the end of its history.
    pub fn has_ended_at(&self, offset: u64) -> bool {
        let state = self.state();
        state.end.is_some() && offset == state.history.end()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns the index of the broadcaster for the next subscriber. A channel with fewer than [`ONE_BROADCASTER`]
    /// subscribers uses one broadcaster. Otherwise this function chooses the broadcaster with the fewest subscribers of
    /// this channel, because a round takes longer with more subscribers.
    pub fn next_shard(&self) -> usize {
        if self.subscribers() < ONE_BROADCASTER {
            return self.number % self.shards.len();
        }
        let subscribers = |index: &usize| self.shards[*index].subscribers.load(Ordering::Relaxed);
        (0..self.shards.len()).min_by_key(subscribers).unwrap_or(0)
    }

    /// Appends a message to the store, if there is one, and to the history. If the caller is not a broadcaster, first
    /// waits until no broadcaster has more than half of the history to send, at most for [`PUBLISH_WAIT`]. The closure
    /// `message` receives the history of the earlier events.
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
        drop(state); // so that broadcasters can send earlier events while the store writes this event
        let frame = store.commit()?;
        self.state().history.push(frame, &message);
        Ok(id)
    }

    /// Waits until no broadcaster has more than half of the history to send, at most for `PUBLISH_WAIT`. Returns the
    /// locked state. Without this wait, a loop that publishes 200,000 events evicts most of the events before any of 50
    /// subscribers receives an event. With this wait, all subscribers receive all events.
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

    /// Ends the channel: refuses later messages, appends the `close` event (for [`End::Close`]) and the last chunk, and
    /// closes the store. A second call has no effect.
    pub fn end(&self, end: End) {
        let mut store = self.store.as_ref().map(lock); // so a second call also waits until the store is closed
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

    /// Marks a broadcaster as notified if it has subscribers. Returns `true` if the mark is new. The caller must then
    /// notify the broadcaster.
    pub fn mark_notified(&self, index: usize) -> bool {
        let shard = &self.shards[index];
        !shard.is_empty() && !shard.notified.swap(true, Ordering::SeqCst)
    }

    /// Clears the mark of a broadcaster. Each broadcaster calls this function before a round, so that later events set
    /// the mark again.
    pub fn clear_notified(&self, index: usize) {
        self.shards[index].notified.store(false, Ordering::SeqCst);
    }

    /// Returns the cursor of a new subscriber, which also receives all events that are published later. Returns `None`
    /// if the channel was closed, or if it was finished and has no events for the subscriber.
    pub fn cursor(&self, last_event_id: Option<&str>) -> Option<Cursor> {
        self.state().cursor(last_event_id, self.config.newcomers)
    }

    /// Returns the cursor of a new subscriber that receives the message of `first`, and then the events that are
    /// published later. If the message has the id of an event in the history, the subscriber receives the events after
    /// that event. Does not call `first` if the subscriber can resume, or if the channel was closed.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` if the message is not valid.
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
        drop(state); // because `first` runs code of the program
        let first = first();
        first.check()?;
        let state = self.state();
        cursor.push_first(&state.history, &first);
        if state.end.is_some() && cursor.offset() == state.history.end() {
            cursor.push_last_chunk(); // because the last chunk of the history is before the cursor
        }
        Ok(Some(cursor))
    }

    /// Counts a subscriber of the broadcaster with this index. Events that are published after this call notify the
    /// broadcaster. The broadcaster sends earlier events past the cursor when it adds the subscriber.
    pub fn count_subscriber(self: &Arc<Hub>, index: usize) -> Counted {
        let mut state = self.state();
        if self.shards[index].is_empty() {
            state.round_ends[index] = state.history.end();
        }
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        self.shards[index].subscribers.fetch_add(1, Ordering::SeqCst);
        Counted { hub: Arc::clone(self), index }
    }

    /// Calls a hook, if there is one. Does not hold the lock during the call, because the hook may set another hook.
    pub fn call(&self, hook: &Mutex<Option<Hook>>) {
        let hook = lock(hook).clone();
        if let Some(hook) = hook {
            // The closure owns the hook. If the hook is replaced during the call, `catch` also catches a panic in the
            // destructor of the replaced hook.
            catch(move || hook(self.subscribers()));
        }
    }

    /// Copies the bytes of a broadcaster's next round into `out`. The bytes begin at `offset`, or at the start of the
    /// history if `offset` is before the start. The bytes end at the end of the history.
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

    /// Copies `max` bytes of the history, and the rest of the last copied chunk. Copies fewer bytes if the history ends
    /// earlier. The bytes begin at `offset`, or at the start of the history if `offset` is before the start. Returns
    /// the offset of the first byte.
    pub fn copy(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> u64 {
        self.state().copy(offset, max, out)
    }

    /// Returns the chunks that subscribers have received in part, if subscribers may skip.
    pub fn begun(&self) -> Option<&BegunChunks> {
        (self.config.lag == Lag::Skip).then_some(&self.begun)
    }

    /// Stores the id of the last event that a pending subscriber was sent. Does nothing if subscribers may not skip.
    pub fn remember_last_id(&self, cursor: &mut Cursor) {
        if self.config.lag == Lag::Skip {
            cursor.remember_last_id(&self.state().history);
        }
    }

    pub fn skip(&self, cursor: &mut Cursor, socket: &mut impl Write) -> io::Result<Progress> {
        cursor.skip(&self.state().history, socket)
    }
}

/// A guard that counts one subscriber. Dropping this value decreases the number of subscribers.
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
    let message = "the channel was closed or finished: create another channel, or open the file again";
    io::Error::new(ErrorKind::BrokenPipe, message)
}

/// The result of [`Hub::copy_round`].
pub struct Copied {
    /// The offset of the first byte.
    pub base: u64,
    /// Is `true` if the channel has ended.
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
        let (front, back) = self.history.since(base).expect("the bytes from the start on are in the history");
        let end = self.history.chunk_end(base.saturating_add(max as u64)).min(self.history.end());
        let length = (end - base) as usize;
        out.extend_from_slice(&front[..front.len().min(length)]);
        out.extend_from_slice(&back[..length.saturating_sub(front.len())]);
        base
    }
}
