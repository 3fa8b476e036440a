//! The settings of a channel.

use super::store::SyncPolicy;
use std::time::Duration;

/// The settings of a [`Channel`](super::Channel): limits of the history, and the treatment of subscribers.
///
/// ```
/// use brooklet::sse::{Channel, ChannelConfig, Newcomers};
///
/// let config = ChannelConfig { newcomers: Newcomers::Last(1), ..ChannelConfig::default() };
/// let state = Channel::with_config(config); // a client that opens the page receives the latest state at once
/// ```
///
/// End the struct expression with `..ChannelConfig::default()`, as above, because a minor release may add fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The maximum number of events in the history. The channel sends the events of the history to slow subscribers and
    /// to clients that reconnect. If there are more events, the oldest events are evicted. Default: 1,024. The value 0
    /// counts as 1.
    pub max_events: usize,
    /// The maximum number of bytes in the history. The size of an event includes the field names, the id, and about 6
    /// bytes for the chunk in which the event is sent. If there are more bytes, the oldest events are evicted. If one
    /// event has more bytes than the maximum, [`publish`](super::Channel::publish) returns `InvalidInput`. Default: 4
    /// MiB, which is the default maximum of a send buffer in Linux.
    pub max_bytes: usize,
    /// The time without a write to a subscriber after which the channel sends a keep-alive comment. The comment may be
    /// sent up to 4.5 s later. Default: 15 s, because many proxies close a silent connection after 30 to 60 s. A time
    /// below 10 ms counts as 10 ms. With [`Duration::MAX`], no keep-alive comments are sent.
    pub keep_alive: Duration,
    /// The time that a client waits before it reconnects, as in [`Message::retry`](super::super::Message::retry). The
    /// channel sends this time at the start of each stream. Default: none. Browsers then wait about 3 s.
    pub retry: Option<Duration>,
    /// The treatment of a subscriber whose next event was evicted. Default: [`Lag::Disconnect`].
    pub lag: Lag,
    /// The first events that a client without a last id receives. Default: [`Newcomers::FromNow`].
    pub newcomers: Newcomers,
    /// The maximum duration of a subscription. The actual duration is up to a tenth shorter, at random, so that not all
    /// clients reconnect at once. After this duration, the subscriber is sent no more events, and its connection ends
    /// within 5 s without a `close` event. An `EventSource` then reconnects, passes the guards again, and resumes.
    /// Default: none, which means no limit.
    pub max_age: Option<Duration>,
    /// The time at which an event is synced to the disk, if the channel has a file. Default: every second. With this
    /// default, [`publish`](super::Channel::publish) waits for the disk only at the first event in a new file, and at a
    /// rotation of the file. A crash of the process loses no event. With this default, a power failure loses only the
    /// events since the last sync, usually the events of about one second.
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
    /// The subscriber is disconnected. An `EventSource` reconnects, and then receives a `gap` event.
    Disconnect,
    /// The subscriber receives a `gap` event, and continues with the oldest event of the history. If a subscriber has
    /// received a part of an event that is evicted, the channel keeps that event until the subscriber has received the
    /// rest of the event. All subscribers share one copy of such an event.
    Skip,
}

/// The first events that a client without a last id receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Newcomers {
    /// The client receives only events that are published after it has subscribed.
    FromNow,
    /// The client receives the last events in the history, at most this number, and then all later events.
    Last(usize),
}
