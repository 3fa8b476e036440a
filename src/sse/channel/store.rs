//! A channel's store: it takes each event before the history does, and makes it durable. The channel knows only this trait,
//! so the code that writes files is not linked into a program whose channels have none.

use super::history::{History, Id};
use super::message::Message;
use std::io;
use std::time::Duration;

/// When a published event is synced to the disk, in a channel that was opened with a file. The event is in the file before
/// `publish` returns, and survives a crash of the process. A sync makes it survive a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Before `publish` returns. No published event is lost. Each event waits for the disk: 0.1 ms to 10 ms.
    Always,
    /// As [`Always`](SyncPolicy::Always) if the duration is zero. Otherwise at most this long after the first event that is not
    /// synced, by a thread that starts for the sync; and before the file
    /// is rotated, when `publish` waits for it. A power failure loses at most the events published in that time. A client
    /// that received a lost event receives a `gap` event. If the disk kept a later event and lost an earlier one, the file is
    /// refused as damaged.
    Every(Duration),
    /// When the operating system writes the file by itself: after half a minute on Linux. A power failure may lose the events
    /// published in that time. It may also damage the file, which is then refused.
    Never,
}

/// Takes a message in two steps, so that the history is not locked while the store writes.
pub trait Store: Send {
    /// Encodes a message as the next frame of the history.
    ///
    /// # Errors
    ///
    /// As [`History::encode`].
    fn stage(&mut self, history: &History, message: &Message) -> io::Result<Id>;

    /// Stores the staged message, and returns its frame, which the caller pushes to the history.
    ///
    /// # Errors
    ///
    /// Returns the store's own errors. The message is not stored then.
    fn commit(&mut self) -> io::Result<&[u8]>;
}
