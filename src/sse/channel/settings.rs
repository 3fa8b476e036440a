//! The settings of a channel.

use super::store::SyncPolicy;
use std::time::Duration;

/// The settings of a [`Channel`](super::Channel): the size of its history, and how it treats its subscribers.
///
/// ```
/// use brooklet::sse::{Channel, ChannelConfig, Newcomers};
///
/// let config = ChannelConfig { newcomers: Newcomers::Last(1), ..ChannelConfig::default() };
/// let state = Channel::with_config(config); // a client that opens the page receives the latest state at once
/// ```
///
/// Always end the struct with `..ChannelConfig::default()`, as above. A release may add fields without a new major
/// version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The maximum number of events in the history. The channel sends these events to slow subscribers and to clients
    /// that reconnect. If there are more events, the oldest events are evicted. Default: 1,024. The
    /// value 0 counts as 1.
    pub max_events: usize,
    /// The maximum number of bytes in the history. An event has about 6 bytes more than its text, because the bytes are
    /// counted as they are sent. If there are more bytes, the oldest events are evicted. An event that is larger than
    /// this is not published: [`publish`](super::Channel::publish) returns an error. Default: 4 MiB, as much as the
    /// Linux kernel lets a send buffer grow to.
    pub max_bytes: usize,
    /// The time without an event after which a subscriber is sent a keep-alive comment. The comment may be sent up to
    /// 4.5 s later. Default: 15 s, because many proxies close a silent connection after 30 to 60 s. A time below 10 ms
    /// counts as 10 ms. With [`Duration::MAX`], no comments are sent.
    pub keep_alive: Duration,
    /// How long a client waits before it reconnects, as for [`Message::retry`](super::super::Message::retry). Default:
    /// none. The client then decides, and browsers wait about 3 s.
    pub retry: Option<Duration>,
    /// The treatment of a subscriber whose next event was evicted. Default: [`Lag::Disconnect`].
    pub lag: Lag,
    /// The first events for a client that sends no `Last-Event-ID`. Default: [`Newcomers::FromNow`].
    pub newcomers: Newcomers,
    /// The longest time that one connection of a subscriber lasts. After this time, or up to a tenth of it earlier, the
    /// subscriber is sent no more events. The difference is random, so that not all clients reconnect at once. The
    /// connection ends within 5 s, without a `close` event. An `EventSource` then reconnects, passes the guards again,
    /// and resumes. Default: none, so there is no limit.
    pub max_age: Option<Duration>,
    /// The time at which an event is synced to the disk, if the channel has a file. Default: every second. With
    /// the default, [`publish`](super::Channel::publish) waits for the disk only for the first event of a file, and when it
    /// begins the next file. A crash of the process loses no event, and a power failure loses at most the events of one second.
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
    /// The subscriber is disconnected. An `EventSource` reconnects by itself, and then receives a `gap` event.
    Disconnect,
    /// The subscriber receives a `gap` event, and continues with the oldest event of the history. If a subscriber has
    /// received a part of an event that is evicted, the channel keeps that event until the subscriber has received it.
    /// All subscribers share one copy of such an event.
    Skip,
}

/// The first events for a client that sends no `Last-Event-ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Newcomers {
    /// Only events that are published after the client has subscribed.
    FromNow,
    /// At most this number of the last events in the history, and then the events that are published later.
    Last(usize),
}
