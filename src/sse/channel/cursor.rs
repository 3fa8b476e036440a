//! How far one subscriber has come in a channel's log, and what to send it next. Pure: it writes to any `Write`.
//!
//! ```text
//! in step   the position is where the last round ended: everybody gets the same bytes, in one write each
//! behind    the client took only a part: the position says which, and the log keeps the rest
//! lost      the log has evicted what comes next: the subscriber goes, or skips and is told of the gap
//! ```
//! A position inside a frame is as good as any while the frame is in the log. A subscriber that may skip must be able to
//! finish a frame that is evicted meanwhile, so for it the rest of the frame is kept aside.

use super::history::History;
use super::message::Message;
use super::settings::{Lag, Newcomers};
use std::io::{self, ErrorKind, Write};

pub struct Cursor {
    position: u64,
    /// What lies before this was not sent, as the subscriber is new or has skipped: its last event is none of those.
    since: u64,
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
    pub fn new(log: &History, last_event_id: Option<&str>, newcomers: Newcomers) -> Cursor {
        let known = last_event_id.map(|id| (id, log.find(id)));
        match (known, newcomers) {
            (Some((_, Some(position))), _) => Cursor { position, since: 0, aside: None },
            (Some((id, None)), _) => Cursor::behind_gap(log, gap_frame(Some(id), log), Some(id.to_owned())),
            (None, Newcomers::FromNow) => Cursor { position: log.end(), since: log.end(), aside: None },
            (None, Newcomers::Last(events)) => {
                Cursor { position: log.last(events), since: log.last(events), aside: None }
            }
        }
    }

    /// At the oldest event that is kept, with a gap event before it.
    fn behind_gap(log: &History, owed: Vec<u8>, last_id: Option<String>) -> Cursor {
        let aside = Some(Box::new(Aside { owed, last_id }));
        Cursor { position: log.start(), since: log.start(), aside }
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where it stands to the byte: it has moved if this is another one.
    pub fn mark(&self) -> (u64, usize) {
        (self.position, self.aside.as_ref().map_or(0, |aside| aside.owed.len()))
    }

    /// Whether everything up to `end` was sent.
    pub fn is_at(&self, end: u64) -> bool {
        self.position == end && self.owes_nothing()
    }

    fn owes_nothing(&self) -> bool {
        !self.aside.as_ref().is_some_and(|aside| !aside.owed.is_empty())
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
    pub fn note_last_id(&mut self, log: &History) {
        if let Some(id) = log.id_before(self.position).filter(|_| self.position > self.since) {
            self.aside.get_or_insert_with(Box::default).last_id = Some(id);
        }
    }

    /// Remembers the id of the last event before `position`, for a subscriber that stands there and has noted none.
    pub fn note_id_at(&mut self, position: u64, id: &str) {
        if self.position == position && self.position > self.since && self.aside.is_none() {
            self.aside = Some(Box::new(Aside { owed: Vec::new(), last_id: Some(id.to_owned()) }));
        }
    }

    /// Goes on at the oldest event that is kept, and tells of the gap first. Nothing changes while the client takes
    /// nothing: what the gap is, is known when it is sent.
    ///
    /// # Errors
    ///
    /// As [`send`](Cursor::send).
    pub fn skip(&mut self, log: &History, socket: &mut impl Write) -> io::Result<Progress> {
        let last_id = self.aside.as_ref().and_then(|aside| aside.last_id.clone());
        let gap = gap_frame(last_id.as_deref(), log);
        let sent = write(socket, &gap)?;
        if sent > 0 {
            *self = Cursor::behind_gap(log, gap[sent..].to_vec(), last_id);
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

/// The event `gap`, sent in the place of missing events. Its data is two lines: the id of the last event before them, and the
/// id of the first event after them. A line is empty if its id is not known.
pub fn gap(before: Option<&str>, after: Option<&str>) -> Message {
    let data = format_args!("{}\n{}", before.unwrap_or(""), after.unwrap_or(""));
    Message::new().event("gap").data(data).without_id()
}

/// The frame of a gap between the last event that a subscriber received and the oldest in the history.
fn gap_frame(last_id: Option<&str>, log: &History) -> Vec<u8> {
    let mut frame = Vec::new();
    let message = gap(last_id, log.id_from(log.start()).as_deref());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then no more.
    struct Socket<'a> {
        room: usize,
        got: &'a mut Vec<u8>,
    }

    impl Write for Socket<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= taken;
            self.got.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A client, through all its connections: it resumes by the last id that it got in a whole frame.
    struct Client {
        cursor: Cursor,
        lag: Lag,
        /// The bytes of the present connection.
        got: Vec<u8>,
        /// `(id, data, is a gap)` of each event of its life.
        events: Vec<(String, String, bool)>,
    }

    impl Client {
        /// One try to send, of at most `piece` bytes from the log into a socket that has so much room.
        fn send(&mut self, log: &History, piece: usize, room: usize) -> Progress {
            let base = self.cursor.position().max(log.start());
            let mut socket = Socket { room, got: &mut self.got };
            if base > self.cursor.position() && self.cursor.owes_nothing() {
                if self.lag == Lag::Skip {
                    return self.cursor.skip(log, &mut socket).unwrap();
                }
                self.reconnect(log);
                return Progress::Lost;
            }
            let (front, back) = log.from(base).unwrap();
            let all = [front, back].concat();
            let end = log.frame_end(base + piece as u64).min(log.end());
            let progress = self.cursor.send(base, &all[..(end - base) as usize], self.lag, &mut socket).unwrap();
            if progress == Progress::Behind {
                self.cursor.note_last_id(log);
            }
            progress
        }

        fn reconnect(&mut self, log: &History) {
            self.take_events();
            self.got.clear();
            let last_id = self.events.iter().rev().find(|event| !event.2).map(|event| event.0.as_str());
            self.cursor = Cursor::new(log, last_id, Newcomers::FromNow);
        }

        /// Reads the whole frames of the connection, each of which must be a whole event.
        fn take_events(&mut self) {
            let text = String::from_utf8(std::mem::take(&mut self.got)).unwrap();
            let mut frames: Vec<&str> = text.split("\n\n").collect();
            self.got = frames.pop().unwrap().as_bytes().to_vec();
            for frame in frames {
                let field =
                    |name: &str| -> Vec<&str> { frame.lines().filter_map(|line| line.strip_prefix(name)).collect() };
                let known =
                    |line: &str| ["id: ", "data: ", "data:", "event: gap"].iter().any(|start| line.starts_with(start));
                assert!(frame.lines().all(known), "no whole frame: {frame:?}");
                let data = frame
                    .lines()
                    .filter_map(|line| line.strip_prefix("data:"))
                    .map(str::trim_start)
                    .collect::<Vec<_>>();
                let is_gap = !field("event: gap").is_empty();
                self.events
                    .push((field("id: ").first().unwrap_or(&"").to_string(), data.join("\n"), is_gap));
            }
        }
    }

    /// Random appends, subscribers, partial writes of every size, evictions and resumes, against a model that is only this:
    /// the n-th event's data is n.
    #[test]
    fn every_client_gets_every_event_once_and_in_order_or_a_gap_event_exactly_where_some_are_missing() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: u64| {
            state ^= state << 13; // xorshift64
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (mut gaps, mut resumed) = (0, 0);
        for round in 0..300 {
            let mut log = History::new(1 + random(8) as usize, 60 + random(200) as usize);
            let mut ids: Vec<String> = Vec::new();
            let mut clients: Vec<Client> = Vec::new();
            for _ in 0..300 {
                match random(8) {
                    0 if clients.len() < 6 => {
                        let newcomers =
                            if random(2) == 0 { Newcomers::FromNow } else { Newcomers::Last(random(5) as usize) };
                        let lag = if random(2) == 0 { Lag::Skip } else { Lag::Disconnect };
                        clients.push(Client {
                            cursor: Cursor::new(&log, None, newcomers),
                            lag,
                            got: Vec::new(),
                            events: Vec::new(),
                        });
                    }
                    1 | 2 => {
                        let number = ids.len().to_string();
                        let message = match random(3) {
                            0 => Message::new().id(format_args!("own{number}")).data(&number),
                            _ => Message::new().data(&number),
                        };
                        ids.push(log.append(&message).unwrap().to_string());
                    }
                    3 if !clients.is_empty() && random(10) == 0 => {
                        let at = random(clients.len() as u64) as usize;
                        if clients[at].events.iter().any(|event| !event.2) {
                            clients[at].reconnect(&log); // in the middle of anything
                            resumed += 1;
                        }
                    }
                    _ if !clients.is_empty() => {
                        let at = random(clients.len() as u64) as usize;
                        clients[at].send(&log, 1 + random(80) as usize, random(50) as usize);
                        clients[at].take_events();
                    }
                    _ => (),
                }
            }
            for client in &mut clients {
                while client.cursor.position() < log.end() || !client.cursor.owes_nothing() {
                    client.send(&log, 1_000, 1_000);
                }
                client.take_events();
                assert_eq!(client.got, b"", "whole frames to the end");
                let (mut next, mut last_id, mut gap): (Option<usize>, String, Option<&str>) =
                    (None, String::new(), None);
                for (id, data, is_gap) in &client.events {
                    if *is_gap {
                        let (had, gets) = data.split_once('\n').unwrap();
                        assert!(had == last_id || had.is_empty(), "round {round}: had {had}, not {last_id}");
                        gap = Some(gets);
                        gaps += 1;
                        continue;
                    }
                    let n: usize = data.parse().unwrap();
                    assert_eq!(id, &ids[n]);
                    match (next, gap.take()) {
                        (Some(next), None) => assert_eq!(n, next, "round {round}: nothing lost or doubled in silence"),
                        (Some(next), Some(gets)) => {
                            assert!(n > next && gets == id, "round {round}: a gap, {next} to {n}, {gets}")
                        }
                        (None, _) => (),
                    }
                    (next, last_id) = (Some(n + 1), id.clone());
                }
                if let (Some(next), None) = (next, gap) {
                    assert_eq!(next, ids.len(), "round {round}: and up to the last");
                }
            }
        }
        assert!(gaps > 100 && resumed > 100, "{gaps} gaps, {resumed} resumed");
    }
}
