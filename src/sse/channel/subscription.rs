//! How one client is subscribed: its first event, the end of its subscription, and its tag.

use super::message::Message;
use super::server::lock;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// How one client is subscribed by [`Channel::subscribe_with`](super::Channel::subscribe_with).
///
/// ```
/// use brooklet::{sse, Context, Response};
/// use std::sync::Mutex;
///
/// /// The state, and the id of the event that published it.
/// type State = Mutex<(String, Option<sse::Id>)>;
///
/// fn set(state: &State, channel: &sse::Channel, text: &str) -> std::io::Result<()> {
///     let mut state = state.lock().unwrap();
///     state.1 = Some(channel.publish(text)?);
///     state.0 = text.to_owned();
///     Ok(())
/// }
///
/// fn listen(ctx: Context<'_>, state: &State, channel: &sse::Channel) -> Response {
///     let first = || {
///         let state = state.lock().unwrap();
///         let message = sse::Message::new().data(&state.0);
///         match &state.1 {
///             Some(id) => message.id(id),
///             None => message,
///         }
///     };
///     channel.subscribe_with(ctx, sse::Subscription::new().first(first))
/// }
/// ```
#[derive(Default)]
pub struct Subscription<'a> {
    pub(super) first: Option<First<'a>>,
    pub(super) until: Option<Instant>,
    pub(super) tag: Option<String>,
}

type First<'a> = Box<dyn FnOnce() -> Message + 'a>;

impl<'a> Subscription<'a> {
    /// Returns a subscription as [`Channel::subscribe`](super::Channel::subscribe) makes it.
    pub fn new() -> Subscription<'a> {
        Subscription::default()
    }

    /// Sends the message that `first` returns to this client before any event that is published from then on: the present
    /// state, for example, where events are changes. It takes the place of [`newcomers`](super::ChannelConfig::newcomers).
    ///
    /// `first` is not called for a client that resumes, because that client has missed nothing. A client that cannot resume
    /// receives a `gap` event, whose second line is empty, and then the message in place of the history.
    ///
    /// No lock is held while `first` runs, so it may lock the state, publish, or wait for a thread that does. No event is lost:
    /// those that are published meanwhile are sent after the message. An event that is in the state already may so come twice.
    /// To prevent that, give the message the [id](Message::id) of the last event that is in the state, as in the example: the
    /// client then receives the events after that event.
    #[must_use]
    pub fn first<M: Into<Message>>(self, first: impl FnOnce() -> M + 'a) -> Subscription<'a> {
        Subscription { first: Some(Box::new(|| first().into())), ..self }
    }

    /// Ends the subscription at this time, for example when a token expires. The client is sent no event after it, and is
    /// disconnected within 5 s as with [`max_age`](super::ChannelConfig::max_age).
    #[must_use]
    pub fn until(self, until: Instant) -> Subscription<'a> {
        Subscription { until: Some(until), ..self }
    }

    /// Sets by what [`Channel::disconnect`](super::Channel::disconnect) finds the client: the name of a user or a session,
    /// for example. Several clients may have the same tag.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Subscription<'a> {
        Subscription { tag: Some(tag.into()), ..self }
    }
}

impl fmt::Debug for Subscription<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("until", &self.until).finish_non_exhaustive()
    }
}

/// The tag of one subscriber.
pub struct Tag {
    text: String,
    disconnected: AtomicBool,
}

impl Tag {
    pub fn is_disconnected(&self) -> bool {
        self.disconnected.load(Ordering::SeqCst)
    }
}

/// The tags of a channel's subscribers.
#[derive(Default)]
pub struct Tags {
    /// Those of subscribers that left are removed before the list grows.
    tags: Mutex<Vec<Weak<Tag>>>,
}

impl Tags {
    pub fn add(&self, text: String) -> Arc<Tag> {
        let tag = Arc::new(Tag { text, disconnected: AtomicBool::new(false) });
        let mut tags = lock(&self.tags);
        if tags.len() == tags.capacity() {
            tags.retain(|tag| tag.strong_count() > 0);
        }
        tags.push(Arc::downgrade(&tag));
        tag
    }

    /// Marks the tags for which `select` returns `true`, and returns how many. The tags are not locked while `select` runs.
    pub fn disconnect(&self, mut select: impl FnMut(&str) -> bool) -> usize {
        let mut live: Vec<_> = lock(&self.tags).iter().filter_map(Weak::upgrade).collect();
        live.retain(|tag| !tag.is_disconnected() && select(&tag.text));
        for tag in &live {
            tag.disconnected.store(true, Ordering::SeqCst);
        }
        live.len()
    }
}
