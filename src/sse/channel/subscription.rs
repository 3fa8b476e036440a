//! The options of one client's subscription: a first message, an end time and a tag.

use super::message::Message;
use super::server::lock;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// Options for [`Channel::subscribe_with`](super::Channel::subscribe_with). In this example, a new client first
/// receives the current state, and then each change:
///
/// ```
/// use brooklet::{sse, Context, Response};
/// use std::sync::Mutex;
///
/// /// The current state, and the id of the event that published it.
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
    /// Returns a subscription without options, as for [`Channel::subscribe`](super::Channel::subscribe).
    pub fn new() -> Subscription<'a> {
        Subscription::default()
    }

    /// Sets the first message for this client, which the closure `first` returns. Later events follow the first
    /// message. The client receives the first message instead of the events that
    /// [`newcomers`](super::ChannelConfig::newcomers) selects.
    ///
    /// `first` is not called for a client that resumes, because the channel sends that client the events that it
    /// missed. If a client sends an id but cannot resume, the client receives a `gap` event with an empty second line,
    /// and then the first message.
    ///
    /// `first` may lock the program's state, publish, or wait for a thread that locks or publishes. Events that are
    /// published while `first` runs are sent after the first message, even if the first message already contains the
    /// changes. To prevent such duplicates, give the message the [id](Message::id) of the last event that changed the
    /// state, as in the example above. The client then receives only the events after that event.
    #[must_use]
    pub fn first<M: Into<Message>>(self, first: impl FnOnce() -> M + 'a) -> Subscription<'a> {
        Subscription { first: Some(Box::new(|| first().into())), ..self }
    }

    /// Ends the subscription at this time, for example when a token expires. The client is sent no event after this
    /// time, and its connection ends within 5 s without a `close` event. If the channel has a
    /// [`max_age`](super::ChannelConfig::max_age), the earlier of the two times applies.
    #[must_use]
    pub fn until(self, until: Instant) -> Subscription<'a> {
        Subscription { until: Some(until), ..self }
    }

    /// Sets the tag by which [`Channel::disconnect`](super::Channel::disconnect) finds the client. Examples are a
    /// user's name or the id of a session. Several clients may have the same tag.
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
    /// The list also has tags of subscribers that have left. These tags are removed before the list grows.
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

    /// Marks the tags for which `select` returns `true`. Returns the number of newly marked tags. The list is not
    /// locked while `select` runs.
    pub fn disconnect(&self, mut select: impl FnMut(&str) -> bool) -> usize {
        let mut live: Vec<_> = lock(&self.tags).iter().filter_map(Weak::upgrade).collect();
        live.retain(|tag| !tag.is_disconnected() && select(&tag.text));
        for tag in &live {
            tag.disconnected.store(true, Ordering::SeqCst);
        }
        live.len()
    }
}
