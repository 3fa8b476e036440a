//! What a channel and its broadcasters share: the log behind its lock, and who has subscribed where.
//!
//! The log's lock is held for as long as it takes to append to it or to copy out of it; never while a socket is written to,
//! nor a file: who publishes in a channel that has one holds that, which those who send never need.

use super::cursor::{Cursor, Progress};
use super::history::{History, Id};
use super::message::{self, Message};
use super::server::lock::lock;
use super::settings::{ChannelConfig, Lag, Newcomers};
use super::store::Store;
use std::io::{self, ErrorKind, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a publisher may be held up for a round to begin: longer than a round to ten thousand takes.
const PACE: Duration = Duration::from_millis(100);

/// See the module.
pub struct Hub {
    number: usize,
    config: ChannelConfig,
    state: Mutex<State>,
    /// The file of a channel that has one, until it is closed. Locked before the state, by those who publish.
    store: Option<Mutex<Option<Box<dyn Store>>>>,
    /// A round has begun.
    round: Condvar,
    subscribers: AtomicUsize,
    /// What each broadcaster has of this channel.
    shards: Vec<Shard>,
    pub on_join: Mutex<Option<Hook>>,
    pub on_leave: Mutex<Option<Hook>>,
}

/// Is told how many subscribers there are.
pub type Hook = Arc<dyn Fn(usize) + Send + Sync>;

struct State {
    log: History,
    closed: bool,
    /// The position that each broadcaster's last round went up to.
    rounds: Vec<u64>,
    /// The same, when a publisher waited for that broadcaster in vain: none waits again until it has moved.
    given_up: Vec<u64>,
}

#[derive(Default)]
struct Shard {
    subscribers: AtomicUsize,
    /// It was told that there is news, and has not looked yet.
    told: AtomicBool,
}

/// A channel with fewer subscribers than this has one broadcaster: with a second, each would join less.
const CROWD: usize = 256;

impl Hub {
    /// `broadcasters` is how many there are.
    pub fn new(config: ChannelConfig, log: History, store: Option<Box<dyn Store>>, broadcasters: usize) -> Hub {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Hub {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            config,
            state: Mutex::new(State {
                log,
                closed: false,
                rounds: vec![0; broadcasters],
                given_up: vec![u64::MAX; broadcasters],
            }),
            store: store.map(|store| Mutex::new(Some(store))),
            round: Condvar::new(),
            subscribers: AtomicUsize::new(0),
            shards: (0..broadcasters).map(|_| Shard::default()).collect(),
            on_join: Mutex::new(None),
            on_leave: Mutex::new(None),
        }
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    pub fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::SeqCst)
    }

    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The broadcaster for the next subscriber: the channel's own as long as they are few, then the one that has fewest,
    /// for the last of the longest round is the one who waits.
    pub fn next_shard(&self) -> usize {
        if self.subscribers() < CROWD {
            return self.number % self.shards.len();
        }
        let subscribers = |index: &usize| self.shards[*index].subscribers.load(Ordering::Relaxed);
        (0..self.shards.len()).min_by_key(subscribers).unwrap_or(0)
    }

    /// Appends a message to the log, and to the file before that; first waits for the broadcasters if they are far behind,
    /// unless this is one of them. The message may depend on what comes before it.
    pub fn append(&self, message: impl FnOnce(&History) -> Message, is_broadcaster: bool) -> io::Result<Id> {
        let mut state = if is_broadcaster { self.state() } else { self.paced() };
        let closed = || {
            io::Error::new(ErrorKind::BrokenPipe, "the channel is closed, for good: make a new one, or open it again")
        };
        let Some(store) = &self.store else {
            let message = message(&state.log);
            return if state.closed { Err(closed()) } else { state.log.append(&message) };
        };
        drop(state);
        let mut store = lock(store);
        let store = store.as_mut().ok_or_else(closed)?;
        let state = self.state();
        let message = message(&state.log);
        let id = store.stage(&state.log, &message)?;
        drop(state); // as long as the next line takes, nobody else publishes, and all get what was published
        let frame = store.commit()?;
        self.state().log.push(frame, &message);
        Ok(id)
    }

    /// The state, once no broadcaster is so far behind that what is published now may evict what it has not sent.
    fn paced(&self) -> MutexGuard<'_, State> {
        let is_far_behind = |state: &mut State| {
            let mut rounds = state.rounds.iter().zip(&state.given_up).zip(&self.shards);
            !state.closed
                && rounds.any(|((round, given_up), shard)| {
                    round != given_up && !shard.is_empty() && state.log.is_half_behind(*round)
                })
        };
        let waited = self.round.wait_timeout_while(self.state(), PACE, is_far_behind);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            let State { rounds, given_up, .. } = &mut *state;
            given_up.clone_from(rounds);
        }
        state
    }

    /// Refuses later messages, and says goodbye to those who have got this far. The file is free then.
    pub fn close(&self) {
        let mut store = self.store.as_ref().map(lock); // whoever else closes waits until the file is free, too
        let mut state = self.state();
        if !std::mem::replace(&mut state.closed, true) {
            state.log.append_close(&message::goodbye(false));
        }
        drop(state);
        if let Some(store) = &mut store {
            store.take();
        }
    }

    /// Whether a broadcaster is to be told of news: it has subscribers, and was not told since it looked last.
    pub fn is_to_be_told(&self, index: usize) -> bool {
        !self.shards[index].is_empty() && !self.shards[index].told.swap(true, Ordering::SeqCst)
    }

    /// The broadcaster looks now: what is published from here on, it is to be told of.
    pub fn heard(&self, index: usize) {
        self.shards[index].told.store(false, Ordering::SeqCst);
    }

    /// Finds a subscriber's place: what is published from here on is behind it.
    pub fn place(&self, last_event_id: Option<&str>) -> Cursor {
        let state = self.state();
        // Who comes while the channel closes gets the goodbye at least.
        let newcomers = if state.closed { Newcomers::Last(1) } else { self.config.newcomers };
        Cursor::new(&state.log, last_event_id, newcomers)
    }

    /// Counts a subscriber in: its broadcaster is told of what is published from here on. What was published since its
    /// place was found, it sends when it takes the subscriber in.
    pub fn join(&self, index: usize) {
        let mut state = self.state();
        if self.shards[index].is_empty() {
            state.rounds[index] = state.log.end();
        }
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        self.shards[index].subscribers.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts subscribers out.
    pub fn leave(&self, index: usize, count: usize) {
        self.shards[index].subscribers.fetch_sub(count, Ordering::SeqCst);
        self.subscribers.fetch_sub(count, Ordering::SeqCst);
    }

    pub fn call(&self, hook: &Mutex<Option<Hook>>) {
        if let Some(hook) = lock(hook).clone() {
            // A hook that panics has said so on standard error, and must not take the broadcaster along.
            let _ = catch_unwind(AssertUnwindSafe(|| hook(self.subscribers())));
        }
    }

    /// Copies what a round sends: all that was published since the last one, or as much of it as is kept.
    pub fn copy_round(&self, index: usize, position: u64, out: &mut Vec<u8>) -> Copied {
        let mut state = self.state();
        let base = state.copy(position, usize::MAX, out);
        let end = state.log.end();
        state.rounds[index] = end;
        self.round.notify_all();
        let last_id = (self.config.lag == Lag::Skip).then(|| state.log.id_before(end)).flatten();
        Copied { base, closed: state.closed, last_id }
    }

    /// Copies what lies behind a position, up to the frame that byte `most` of it lies in; or behind the start, if that is
    /// later. Returns where the copy begins.
    pub fn copy(&self, position: u64, most: usize, out: &mut Vec<u8>) -> u64 {
        self.state().copy(position, most, out)
    }

    /// Remembers for one who is behind what it had, in case it has to skip.
    pub fn note(&self, cursor: &mut Cursor) {
        if self.config.lag == Lag::Skip {
            cursor.note_last_id(&self.state().log);
        }
    }

    pub fn skip(&self, cursor: &mut Cursor, socket: &mut impl Write) -> io::Result<Progress> {
        cursor.skip(&self.state().log, socket)
    }
}

/// What [`Hub::copy_round`] found.
pub struct Copied {
    /// The position of the first byte.
    pub base: u64,
    pub closed: bool,
    /// The id of the last event, where subscribers may skip.
    pub last_id: Option<String>,
}

impl Shard {
    fn is_empty(&self) -> bool {
        self.subscribers.load(Ordering::SeqCst) == 0
    }
}

impl State {
    fn copy(&self, position: u64, most: usize, out: &mut Vec<u8>) -> u64 {
        out.clear();
        let base = position.max(self.log.start());
        let (front, back) = self.log.from(base).expect("the start and what is behind it are kept");
        let end = self.log.frame_end(base.saturating_add(most as u64)).min(self.log.end());
        let length = (end - base) as usize;
        out.extend_from_slice(&front[..front.len().min(length)]);
        out.extend_from_slice(&back[..length.saturating_sub(front.len())]);
        base
    }
}
