//! How far one subscriber has come in a channel's log, and what to send it next. Pure: it writes to any `Write`.
//!
//! ```text
//! in step   the position is where the last round ended: everybody gets the same bytes, in one write each
//! behind    the client took only a part: the position says which, and the log keeps the rest
//! lost      the log has evicted what comes next: the subscriber goes, or skips and is told of the gap
//! ```
//! A position inside a frame is as good as any while the frame is in the log. A subscriber that may skip must be able to
//! finish a frame that is evicted meanwhile, so for it the rest of the frame is kept aside.

use super::channel::{Lag, Newcomers};
use super::log::Log;
use super::message::Message;
use std::io::{self, ErrorKind, Write};

pub struct Cursor {
    position: u64,
    /// Nearly everybody is in step and has none of this.
    aside: Option<Box<Aside>>,
}

/// What a subscriber gets besides the log.
#[derive(Default)]
struct Aside {
    /// To be sent before what lies at the position.
    owed: Vec<u8>,
    /// The id of the last event before the position, for the gap event of a subscriber that skips.
    last_id: Option<String>,
}

/// What came of an attempt to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Everything that was there is sent.
    InStep,
    /// The client's buffers are full.
    Behind,
    /// The log no longer has what comes next.
    Lost,
}

impl Cursor {
    /// Where a subscriber starts: behind the event that it got last; or, if nobody knows that one any more, at the oldest
    /// that is kept, with a gap event first; or as a newcomer.
    pub fn new(log: &Log, last_event_id: Option<&str>, newcomers: Newcomers) -> Cursor {
        let known = last_event_id.map(|id| (id, log.find(id)));
        let (position, owed) = match (known, newcomers) {
            (Some((_, Some(position))), _) => (position, None),
            (Some((id, None)), _) => (log.start(), Some(gap(Some(id), log))),
            (None, Newcomers::FromNow) => (log.end(), None),
            (None, Newcomers::Last(events)) => (log.last(events), None),
        };
        let aside = owed.map(|owed| Box::new(Aside { owed, last_id: last_event_id.map(str::to_owned) }));
        Cursor { position, aside }
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether everything up to `end` was sent.
    pub fn is_at(&self, end: u64) -> bool {
        self.position == end && self.owes_nothing()
    }

    fn owes_nothing(&self) -> bool {
        self.aside.as_ref().map_or(true, |aside| aside.owed.is_empty())
    }

    /// Sends what is owed, and then `bytes`, which are those of the log from `base` on: one write, if the client takes it.
    ///
    /// # Errors
    ///
    /// Those of the socket, but for `WouldBlock`.
    pub fn send(&mut self, base: u64, bytes: &[u8], lag: Lag, socket: &mut impl Write) -> io::Result<Progress> {
        if !self.send_owed(socket)? {
            return Ok(Progress::Behind);
        }
        let Some(rest) = self.position.checked_sub(base).and_then(|at| bytes.get(at as usize..)) else {
            return Ok(Progress::Lost);
        };
        let sent = write(socket, rest)?;
        self.position += sent as u64;
        if sent == rest.len() {
            self.aside = None;
            return Ok(Progress::InStep);
        }
        if lag == Lag::Skip {
            let end = frame_end(rest, sent);
            self.aside.get_or_insert_with(Box::default).owed.extend_from_slice(&rest[sent..end]);
            self.position += (end - sent) as u64;
        }
        Ok(Progress::Behind)
    }

    /// Remembers, for a subscriber that may skip, which event it had last; as long as the log knows.
    pub fn note_last_id(&mut self, log: &Log) {
        if let Some(id) = log.id_before(self.position) {
            self.aside.get_or_insert_with(Box::default).last_id = Some(id);
        }
    }

    /// Goes on at the oldest event that is kept, and tells of the gap first. Nothing changes while the client takes
    /// nothing: what the gap is, is known when it is sent.
    ///
    /// # Errors
    ///
    /// As [`send`](Cursor::send).
    pub fn skip(&mut self, log: &Log, socket: &mut impl Write) -> io::Result<Progress> {
        let last_id = self.aside.as_ref().and_then(|aside| aside.last_id.clone());
        let gap = gap(last_id.as_deref(), log);
        let sent = write(socket, &gap)?;
        if sent > 0 {
            self.position = log.start();
            self.aside = Some(Box::new(Aside { owed: gap[sent..].to_vec(), last_id }));
        }
        Ok(if sent == gap.len() { Progress::InStep } else { Progress::Behind })
    }

    /// Whether nothing is owed any more.
    fn send_owed(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        match &mut self.aside {
            Some(aside) if !aside.owed.is_empty() => {
                let sent = write(socket, &aside.owed)?;
                aside.owed.drain(..sent);
                Ok(aside.owed.is_empty())
            }
            _ => Ok(true),
        }
    }
}

/// Tells a subscriber that it missed events: the id of the last one that it had, and on the next line that of the first
/// that it gets now. Either line is empty where nobody knows.
fn gap(last_id: Option<&str>, log: &Log) -> Vec<u8> {
    let first_id = log.id_from(log.start()).unwrap_or_default();
    let message = Message::new().event("gap").data(format_args!("{}\n{first_id}", last_id.unwrap_or("")));
    let mut frame = Vec::new();
    message.encode(&mut frame).expect("data can be anything");
    frame
}

/// Writes once, and again only after an interruption; 0 if the client's buffers are full.
fn write(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
    Ok(0)
}

/// The end of the frame that byte `at` lies in, `at` itself between two frames. A frame ends with an empty line and has no
/// other, and `bytes` begin and end with frames.
fn frame_end(bytes: &[u8], at: usize) -> usize {
    if at == 0 || bytes[..at].ends_with(b"\n\n") {
        return at;
    }
    let line_breaks = bytes[at - 1..].windows(2).position(|pair| pair == b"\n\n");
    line_breaks.map_or(bytes.len(), |found| at - 1 + found + 2)
}
