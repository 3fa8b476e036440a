//! The settings of a channel.

use super::store::SyncPolicy;
use std::time::Duration;

/// How a [`Channel`](super::Channel) keeps its history and treats its subscribers.
///
/// ```
/// use brooklet::sse::{Channel, ChannelConfig, Newcomers};
///
/// let config = ChannelConfig { newcomers: Newcomers::Last(1), ..ChannelConfig::default() };
/// let state = Channel::with_config(config); // a client that opens the page receives the latest state at once
/// ```
///
/// Always end the struct with `..ChannelConfig::default()`, as above: a release may add fields, and that is not a breaking
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The number of events that the history keeps, to send them to slow subscribers and to clients that
    /// reconnect. The oldest are evicted beyond it. Default: 1,024.
    pub max_events: usize,
    /// The number of bytes that the events of the history may have, as they go over the wire: an event takes about 6 bytes more
    /// than its text. The oldest are evicted beyond it, and a larger event is refused. Default: 4 MiB, as much as the kernel
    /// buffers for one client.
    pub max_bytes: usize,
    /// After how long a silence a subscriber is sent a comment, to within 4 s. Default: 15 s, because proxies give up after
    /// 30 to 60 s. At least 10 ms; [`Duration::MAX`] for never.
    pub keep_alive: Duration,
    /// How long a client waits before it reconnects, as with [`Message::retry`](super::super::Message::retry). Default: not
    /// sent, and browsers wait about 3 s.
    pub retry: Option<Duration>,
    /// The treatment of a subscriber whose next event was evicted. Default: [`Lag::Disconnect`].
    pub lag: Lag,
    /// Which events a client first receives if it sends no `Last-Event-ID`. Default: [`Newcomers::FromNow`].
    pub newcomers: Newcomers,
    /// The longest time that one connection of a subscriber lasts. At its end, or up to a tenth earlier so that not all
    /// reconnect at once, the subscriber is sent no more events. Its connection ends within 5 s, without a `close` event: an
    /// `EventSource` reconnects, passes the guards again, and resumes. Default: none.
    pub max_age: Option<Duration>,
    /// When an event is synced to the disk, in a channel that was opened with a file. Default: every second. `publish` then
    /// waits for the disk only when the file is rotated. A crash of the process loses nothing, and a power failure loses at
    /// most one second.
    pub sync: SyncPolicy,
}

impl Default for ChannelConfig {
    fn default() -> ChannelConfig {
        ChannelConfig {
            max_events: 1_024,
            max_bytes: 4 * 1024 * 1024,
            keep_alive: Duration::from_secs(15),
            retry: None,
            lag: Lag::Disconnect,
            newcomers: Newcomers::FromNow,
            max_age: None,
            sync: SyncPolicy::Every(Duration::from_secs(1)),
        }
    }
}

/// The treatment of a subscriber whose next event was evicted from the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lag {
    /// It is disconnected. An `EventSource` reconnects by itself, and receives a `gap` event then.
    Disconnect,
    /// It receives a `gap` event, and continues with the oldest event of the history. The channel keeps an
    /// event that a subscriber has begun to receive until the subscriber has taken it: one copy, however many have begun it.
    Skip,
}

/// Which events a client first receives if it sends no `Last-Event-ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Newcomers {
    /// None: it receives the events that are published from now on.
    FromNow,
    /// At most this many of the last events.
    Last(usize),
}
