//! One subscriber of a channel: a non-blocking socket, and how far it has come.
//!
//! ```text
//! in step   gets each round as it comes, in one write
//! behind    its buffers were full: it is tried again, the more rarely the longer it takes nothing
//! leaves    it is gone; or took nothing for half a minute; or fell out of the history and may not skip
//! ```

use super::cursor::{Cursor, Progress};
use super::hub::Hub;
use super::message;
use super::server::Socket;
use super::settings::Lag;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// One that takes nothing for so long has stalled for good, as with any other write of this server.
const STALL: Duration = Duration::from_secs(30);

/// When to try again one whose buffers are full: first after so long, and then after an eighth of the time that it took
/// nothing. A failed try costs some 2 us, so a stalled subscriber soon costs nothing, and a slow one is not kept waiting.
const RETRY: Duration = Duration::from_millis(1);
const MAX_RETRY: Duration = Duration::from_millis(500);

/// One that is behind is offered a little first, for it may take nothing, then four times as much each time it takes all;
/// and no more than this in one turn, for others wait.
const FIRST_PIECE: usize = 4 * 1024;
const LAST_PIECE: usize = 256 * 1024;

pub struct Subscriber {
    socket: Socket,
    cursor: Cursor,
    /// When something was sent last, for the keep-alive.
    sent: Instant,
    /// Where its buffers are full.
    behind: Option<Behind>,
    /// Its server had begun to stop before the round was copied: it is to be told once it has that.
    stopping: bool,
}

#[derive(Clone, Copy)]
struct Behind {
    /// When it took something last.
    since: Instant,
    again: Instant,
}

impl Behind {
    /// What follows a try at which nothing went, or at which something did and `before` does not count any more; `None` if
    /// that is enough.
    fn after(before: Option<Behind>, now: Instant) -> Option<Behind> {
        let since = before.map_or(now, |before| before.since);
        let silence = now.saturating_duration_since(since);
        (silence < STALL).then(|| Behind { since, again: now + (silence / 8).clamp(RETRY, MAX_RETRY) })
    }
}

/// What everybody gets who is in step.
pub struct Round<'a> {
    pub now: Instant,
    /// The position of the first byte.
    pub base: u64,
    pub bytes: &'a [u8],
    /// The channel is closed, and these bytes are its last.
    pub closed: bool,
    /// Where the round before ended, and the id of the last event in it, for those who may skip.
    pub before: (u64, Option<&'a str>),
}

/// Whether a subscriber stays, and when it wants to be tried again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    InStep,
    Behind { again: Instant },
    Leaves,
}

impl Subscriber {
    /// `socket` is non-blocking.
    pub fn new(socket: Socket, cursor: Cursor) -> Subscriber {
        Subscriber { socket, cursor, sent: Instant::now(), behind: None, stopping: false }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Looks whether its server stops. Not later than what is to come before the goodbye is copied: in the middle of a
    /// round, something may have been published behind that, before the stop.
    pub fn note_stop(&mut self) {
        self.stopping = self.socket.is_stopping();
    }

    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// Sends a round, and what is missing before it.
    pub fn send(&mut self, round: &Round<'_>, hub: &Hub, piece: &mut Vec<u8>) -> Fate {
        if let Some(Behind { again, .. }) = self.behind.filter(|behind| behind.again > round.now) {
            return Fate::Behind { again };
        }
        let end = round.base + round.bytes.len() as u64;
        if round.bytes.is_empty() && self.cursor.is_at(end) {
            return self.settle(round);
        }
        let before = self.cursor.mark();
        let progress = match self.cursor.send(round.base, round.bytes, hub.config().lag, &mut self.socket) {
            Ok(Progress::Lost) => self.catch_up(round, hub, piece),
            progress => progress,
        };
        let moved = self.cursor.mark() != before;
        if moved {
            self.sent = round.now;
        }
        match progress {
            Ok(Progress::InStep) => {
                self.behind = None;
                self.settle(round)
            }
            Ok(Progress::Behind) => {
                hub.note(&mut self.cursor);
                self.behind = Behind::after(self.behind.filter(|_| !moved), round.now);
                self.behind.map_or(Fate::Leaves, |Behind { again, .. }| Fate::Behind { again })
            }
            Ok(Progress::Lost) | Err(_) => Fate::Leaves,
        }
    }

    /// Sends some of what lies between the subscriber's position and the end.
    fn catch_up(&mut self, round: &Round<'_>, hub: &Hub, piece: &mut Vec<u8>) -> io::Result<Progress> {
        let lag = hub.config().lag;
        let mut size = FIRST_PIECE;
        while size <= LAST_PIECE {
            let position = self.cursor.position();
            let base = hub.copy(position, size, piece);
            let progress = if base == position {
                self.cursor.send(base, piece, lag, &mut self.socket)?
            } else if lag == Lag::Skip {
                if let (at, Some(id)) = round.before {
                    self.cursor.note_id_at(at, id);
                }
                hub.skip(&mut self.cursor, &mut self.socket)?
            } else {
                return Ok(Progress::Lost); // it resumes by itself, and is told of the gap then
            };
            if progress != Progress::InStep || (base == position && piece.is_empty()) {
                return Ok(progress);
            }
            size *= 4;
        }
        Ok(Progress::Behind)
    }

    /// Says goodbye to one who has everything, if the channel is closed or the server stops.
    fn settle(&mut self, round: &Round<'_>) -> Fate {
        if !round.closed && !self.stopping {
            return Fate::InStep;
        }
        if !round.closed {
            let mut goodbye = Vec::new();
            message::goodbye(true).encode(&mut goodbye).expect("our own message is valid");
            let _ = self.socket.write(&goodbye);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        self.is_there(); // what it sent and nobody read would turn the close into a reset
        Fate::Leaves
    }

    /// Looks whether the client is still there, and sends a comment if nothing was sent for so long and all was up to
    /// `end`.
    pub fn look(&mut self, now: Instant, keep_alive: Duration, end: u64) -> bool {
        if !self.is_there() {
            return false;
        }
        if now.saturating_duration_since(self.sent) < keep_alive || !self.cursor.is_at(end) {
            return true;
        }
        self.sent = now;
        match self.socket.write(b":\n\n") {
            Ok(written) => written == 3, // a part of a comment is as bad as a part of a frame
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Reads away what the client sent. Nothing belongs there; a client that goes on and on would hide its own end.
    fn is_there(&mut self) -> bool {
        let mut scratch = [0; 1024];
        for _ in 0..64 {
            match self.socket.read(&mut scratch) {
                Ok(0) => return self.socket.is_stopping(), // then the end is ours, and not the client's
                Ok(_) => (),
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_subscriber_is_tried_more_and_more_rarely_and_leaves_in_the_end() {
        let start = Instant::now();
        let (mut now, mut behind, mut tries) = (start, Behind::after(None, start), 0);
        while let Some(Behind { again, .. }) = behind {
            assert!(again - now >= RETRY && again - now <= MAX_RETRY);
            now = again;
            behind = Behind::after(behind, now);
            tries += 1;
        }
        assert!(now - start >= STALL && now - start <= STALL + MAX_RETRY);
        assert!(tries < 150, "{tries} tries");
    }
}
