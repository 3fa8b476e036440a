//! The store of a channel, which makes an event durable before the event enters the history. The channel uses only this
//! trait, so a program without files does not contain the code that writes them.

use super::history::{History, Id};
use super::message::Message;
use std::io;
use std::time::Duration;

/// The time at which a published event is synced to the disk, if the channel has a file. Without a sync, the event
/// survives a crash of the process, because it is in the file before [`publish`](super::Channel::publish) returns.
/// After a sync, the event also survives a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Before [`publish`](super::Channel::publish) returns. No published event is lost. Each call waits for the disk,
    /// which takes 0.1 ms to 10 ms.
    Always,
    /// This long after the first event that is not synced, in a thread that is started for the sync. The file is also
    /// synced before it is rotated, and `publish` waits for that sync. [`Duration::ZERO`] means
    /// [`Always`](SyncPolicy::Always).
    ///
    /// A power failure loses at most the events that were published in this time. A client that had received a lost
    /// event receives a `gap` event. If the disk has lost an earlier event and kept a later one, the file is damaged,
    /// and [`Channel::open`](super::Channel::open) returns an error.
    Every(Duration),
    /// When the operating system writes the file: on Linux within about half a minute. A power failure may lose the
    /// events that were published in this time. It may also damage the file, and
    /// [`Channel::open`](super::Channel::open) returns an error then.
    Never,
}

/// A durable store of messages. It takes a message in two steps, so that the history is not locked during the write.
pub trait Store: Send {
    /// Encodes a message as the next frame of the history.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`History::encode`].
    fn stage(&mut self, history: &History, message: &Message) -> io::Result<Id>;

    /// Stores the staged message, and returns its frame. The caller pushes the frame to the history.
    ///
    /// # Errors
    ///
    /// Returns an error if the message was not stored.
    fn commit(&mut self) -> io::Result<&[u8]>;
}
