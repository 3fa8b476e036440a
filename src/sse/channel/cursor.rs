//! How much of a channel's history one subscriber was sent, and what to send it next. Pure: it writes to any `Write`.
//!
//! ```text
//! up to date  the offset is where the last round ended: all such subscribers get the same bytes, in one write each
//! pending     the client took only a part: the offset says how much, and the history keeps the rest
//! evicted     the next event is no longer in the history: the subscriber is disconnected, or skips with a `gap` event
//! ```
//! The offset may lie inside a frame while the frame is in the history. A subscriber that may skip must be able to finish a
//! frame that is evicted meanwhile, so it carries the rest of the frame.

use super::history::History;
use super::message::Message;
use super::settings::{Lag, Newcomers};
use std::io::{self, ErrorKind, Write};

pub struct Cursor {
    offset: u64,
    /// Where the subscriber began: as a newcomer, or after it skipped. The last event that it received is not before this.
    start: u64,
    /// `None` for nearly all subscribers, which are up to date.
    carry: Option<Box<Carry>>,
}

/// What a subscriber needs besides the history.
#[derive(Default)]
struct Carry {
    /// Sent before the bytes at the offset.
    unsent: Vec<u8>,
    /// The id of the last event before the offset, for the `gap` event of a subscriber that skips.
    last_id: Option<String>,
}

/// What an attempt to send achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Everything that was there is sent.
    UpToDate,
    /// The client's buffers are full.
    Pending,
    /// The history no longer has the next bytes.
    Evicted,
}

impl Cursor {
    /// A cursor after the event with the id `last_event_id`. If that event is not known, at the oldest event in the history,
    /// after a `gap` event. Without an id, where `newcomers` says.
    pub fn new(history: &History, last_event_id: Option<&str>, newcomers: Newcomers) -> Cursor {
        if let Some(id) = last_event_id {
            return match history.find(id) {
                Some(offset) => Cursor { offset, start: 0, carry: None },
                None => Cursor::after_gap(history, gap_frame(Some(id), history), Some(id.to_owned())),
            };
        }
        let offset = match newcomers {
            Newcomers::FromNow => history.end(),
            Newcomers::Last(events) => history.start_of_last(events),
        };
        Cursor { offset, start: offset, carry: None }
    }

    /// A cursor at the oldest event in the history, with the frame of a `gap` event to send first.
    fn after_gap(history: &History, unsent: Vec<u8>, last_id: Option<String>) -> Cursor {
        let carry = Some(Box::new(Carry { unsent, last_id }));
        Cursor { offset: history.start(), start: history.start(), carry }
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The offset and how much is to be sent before it: a write that sent anything changes one of the two.
    pub fn progress_key(&self) -> (u64, usize) {
        (self.offset, self.carry.as_ref().map_or(0, |carry| carry.unsent.len()))
    }

    /// Whether everything up to `end` was sent.
    pub fn has_sent_up_to(&self, end: u64) -> bool {
        self.offset == end && !self.has_unsent()
    }

    fn has_unsent(&self) -> bool {
        self.carry.as_ref().is_some_and(|carry| !carry.unsent.is_empty())
    }

    /// Sends the carry, and then `bytes`, which the history has at offset `base`: in one write, if the client takes it.
    ///
    /// # Errors
    ///
    /// Returns the socket's errors except `WouldBlock`.
    pub fn send(&mut self, base: u64, bytes: &[u8], lag: Lag, socket: &mut impl Write) -> io::Result<Progress> {
        if !self.send_carry(socket)? {
            return Ok(Progress::Pending);
        }
        let Some(next) = self.offset.checked_sub(base).and_then(|sent| bytes.get(sent as usize..)) else {
            return Ok(Progress::Evicted);
        };
        let sent = write(socket, next)?;
        self.offset += sent as u64;
        if sent == next.len() {
            self.carry = None;
            return Ok(Progress::UpToDate);
        }
        if lag == Lag::Skip {
            let end = frame_end(next, sent);
            self.carry.get_or_insert_with(Box::default).unsent.extend_from_slice(&next[sent..end]);
            self.offset += (end - sent) as u64;
        }
        Ok(Progress::Pending)
    }

    /// Remembers the last event that was sent, for a subscriber that may skip, as long as the history has its id.
    pub fn remember_last_id(&mut self, history: &History) {
        if self.offset <= self.start {
            return;
        }
        if let Some(id) = history.last_id_before(self.offset) {
            self.carry.get_or_insert_with(Box::default).last_id = Some(id);
        }
    }

    /// Remembers the id of the last event before `offset`, for a subscriber that is there and has remembered none.
    pub fn remember_id_at(&mut self, offset: u64, id: &str) {
        if self.offset == offset && self.offset > self.start && self.carry.is_none() {
            self.carry = Some(Box::new(Carry { unsent: Vec::new(), last_id: Some(id.to_owned()) }));
        }
    }

    /// Sends a `gap` event, and continues at the oldest event in the history. Nothing changes if the client takes nothing:
    /// the next attempt may send a longer gap.
    ///
    /// # Errors
    ///
    /// As [`send`](Cursor::send).
    pub fn skip(&mut self, history: &History, socket: &mut impl Write) -> io::Result<Progress> {
        let last_id = self.carry.as_ref().and_then(|carry| carry.last_id.clone());
        let frame = gap_frame(last_id.as_deref(), history);
        let sent = write(socket, &frame)?;
        if sent > 0 {
            *self = Cursor::after_gap(history, frame[sent..].to_vec(), last_id);
        }
        Ok(if sent == frame.len() { Progress::UpToDate } else { Progress::Pending })
    }

    /// Returns whether the whole carry is sent.
    fn send_carry(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        if let Some(carry) = &mut self.carry {
            let sent = write(socket, &carry.unsent)?;
            carry.unsent.drain(..sent);
        }
        Ok(!self.has_unsent())
    }
}

/// The event `gap`, sent in the place of missing events. Its data is two lines: the id of the last event before them, and the
/// id of the first event after them. A line is empty if its id is not known.
pub fn gap(before: Option<&str>, after: Option<&str>) -> Message {
    let data = format_args!("{}\n{}", before.unwrap_or(""), after.unwrap_or(""));
    Message::new().event("gap").data(data).without_id()
}

/// The frame of a `gap` event between the last event that a subscriber received and the oldest one in the history.
fn gap_frame(last_id: Option<&str>, history: &History) -> Vec<u8> {
    let mut frame = Vec::new();
    let message = gap(last_id, history.first_id_from(history.start()).as_deref());
    message.encode(&mut frame).expect("data can be anything");
    frame
}

/// Writes once, and again only after an interruption. Returns 0 if the client's buffers are full, or there are no bytes.
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

/// The end of the frame in which byte `sent` is; `sent` itself between two frames. A frame ends with an empty line and has
/// no other, and `bytes` begin and end with frames.
fn frame_end(bytes: &[u8], sent: usize) -> usize {
    if sent == 0 || bytes[..sent].ends_with(b"\n\n") {
        return sent;
    }
    let line_breaks = bytes[sent - 1..].windows(2).position(|pair| pair == b"\n\n");
    line_breaks.map_or(bytes.len(), |found| sent - 1 + found + 2)
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
        /// One try to send, of at most `piece` bytes from the history into a socket that has so much room.
        fn send(&mut self, history: &History, piece: usize, room: usize) -> Progress {
            let base = self.cursor.offset().max(history.start());
            let mut socket = Socket { room, got: &mut self.got };
            if base > self.cursor.offset() && !self.cursor.has_unsent() {
                if self.lag == Lag::Skip {
                    return self.cursor.skip(history, &mut socket).unwrap();
                }
                self.reconnect(history);
                return Progress::Evicted;
            }
            let (front, back) = history.since(base).unwrap();
            let all = [front, back].concat();
            let end = history.frame_end(base + piece as u64).min(history.end());
            let progress = self.cursor.send(base, &all[..(end - base) as usize], self.lag, &mut socket).unwrap();
            if progress == Progress::Pending {
                self.cursor.remember_last_id(history);
            }
            progress
        }

        fn reconnect(&mut self, history: &History) {
            self.take_events();
            self.got.clear();
            let last_id = self.events.iter().rev().find(|event| !event.2).map(|event| event.0.as_str());
            self.cursor = Cursor::new(history, last_id, Newcomers::FromNow);
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
            let mut history = History::new(1 + random(8) as usize, 60 + random(200) as usize);
            let mut ids: Vec<String> = Vec::new();
            let mut clients: Vec<Client> = Vec::new();
            for _ in 0..300 {
                match random(8) {
                    0 if clients.len() < 6 => {
                        let newcomers =
                            if random(2) == 0 { Newcomers::FromNow } else { Newcomers::Last(random(5) as usize) };
                        let lag = if random(2) == 0 { Lag::Skip } else { Lag::Disconnect };
                        clients.push(Client {
                            cursor: Cursor::new(&history, None, newcomers),
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
                        ids.push(history.append(&message).unwrap().to_string());
                    }
                    3 if !clients.is_empty() && random(10) == 0 => {
                        let at = random(clients.len() as u64) as usize;
                        if clients[at].events.iter().any(|event| !event.2) {
                            clients[at].reconnect(&history); // in the middle of anything
                            resumed += 1;
                        }
                    }
                    _ if !clients.is_empty() => {
                        let at = random(clients.len() as u64) as usize;
                        clients[at].send(&history, 1 + random(80) as usize, random(50) as usize);
                        clients[at].take_events();
                    }
                    _ => (),
                }
            }
            for client in &mut clients {
                while client.cursor.offset() < history.end() || client.cursor.has_unsent() {
                    client.send(&history, 1_000, 1_000);
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
