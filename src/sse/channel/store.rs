//! The trait of a channel's store, which stores each event before the event enters the history. A channel uses its file
//! only through this trait. So a program that opens no file does not contain the code for files.

use super::history::{History, Id};
use super::message::Message;
use std::io;
use std::time::Duration;

/// The time at which a published event is synced to the disk, if the channel has a file. Without a sync, the event
/// survives a crash of the process, because [`publish`](super::Channel::publish) writes the event to the file. After a
/// sync, the event also survives a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Each event is synced before [`publish`](super::Channel::publish) returns, so a power failure loses no published
    /// event. Each call waits for the disk, usually for 0.1 ms to 10 ms.
    Always,
    /// The file is synced this long after the first event that is not synced. A thread is started for each sync, so
    /// [`publish`](super::Channel::publish) does not wait for the sync. The file is also synced before a rotation, and
    /// `publish` waits for such a sync. [`Duration::ZERO`] means [`Always`](SyncPolicy::Always).
    ///
    /// A power failure loses only events that were published after the last sync began. A client that had received a
    /// lost event receives a `gap` event when it reconnects. If the disk has lost an earlier event and kept a later
    /// event, the file is damaged, and [`Channel::open`](super::Channel::open) returns an error.
    Every(Duration),
    /// The channel never syncs the file. The operating system writes the events to the disk later, on Linux within
    /// about half a minute. A power failure may lose the events of this time. A power failure may also damage the file,
    /// so that [`Channel::open`](super::Channel::open) returns an error.
    Never,
}

/// A durable store of messages. Storing a message has two steps, so that the history is not locked during the write.
pub trait Store: Send {
    /// Encodes a message as the next frame of the history.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`History::encode`].
    fn stage(&mut self, history: &History, message: &Message) -> io::Result<Id>;

    /// Stores the staged message, and returns its frame. The caller then pushes the frame to the history.
    ///
    /// # Errors
    ///
    /// Returns an error if the message was not stored.
    fn commit(&mut self) -> io::Result<&[u8]>;
}
