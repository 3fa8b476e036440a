//! The history: the events that a channel keeps. This module does no I/O.
//!
//! The stream of a channel is the sequence of chunks that the channel sends. Each chunk contains the frame of one
//! event. An offset is the number of bytes since the start of this stream. A subscriber's offset shows which chunk is
//! next, and how much of the chunk was sent:
//!
//! ```text
//!            start                  offset              end
//!   evicted  |  chunk  |  chunk  |  chu·nk  |  chunk  |
//! ```
//!
//! Ids have the form `<epoch>-<sequence>`. The sequence number counts the events of the history. The epoch is a random
//! text for each channel in each run of the program. So a history recognizes an id from another history. A restored
//! history continues the sequence numbers in a new epoch, and keeps the epoch of each restored event. So the id of a
//! lost event is never mistaken for the id of a later event. A message may have its own id. The history searches all
//! frames for such an id. An id that the history gave is found without a search.

use super::http::chunked::{chunk_length, push_size_line, CHUNK_END, LAST_CHUNK};
use super::http::Response;
use super::message::Message;
use super::server::jitter;
use std::collections::VecDeque;
use std::fmt;
use std::io;

/// The id of a published event. A client that reconnects sends the id of the last event that it received as
/// `Last-Event-ID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(String);

impl Id {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Id> for Response {
    /// Returns a response with the id as its text.
    fn from(id: Id) -> Response {
        Response::from(id.0)
    }
}

#[derive(Debug)]
pub struct History {
    /// The runs whose events are kept. The last run is the current run.
    runs: VecDeque<Run>,
    /// The chunks that are kept.
    bytes: VecDeque<u8>,
    /// The offset of the first byte that is kept.
    start: u64,
    frames: VecDeque<Frame>,
    /// The sequence number of the first frame that is kept.
    first_sequence: u64,
    /// The id of the last frame that was evicted. A client with this id can still resume. The value is `Given` before
    /// the first eviction.
    last_evicted: FrameId,
    max_events: usize,
    max_bytes: usize,
    scratch: Vec<u8>,
}

/// A run of the program. The sequence numbers of a run begin at `first_sequence`, and end before the `first_sequence`
/// of the next run.
#[derive(Debug)]
struct Run {
    epoch: String,
    first_sequence: u64,
}

impl Run {
    /// Returns a run that begins now.
    fn new(first_sequence: u64) -> Run {
        // The epoch has six random letters and digits. The epoch is short because every event contains it. The
        // probability that two runs have the same epoch is one in two billion.
        let digit = |_| char::from_digit(jitter(0..36) as u32, 36).expect("below 36");
        Run { epoch: (0..6).map(digit).collect(), first_sequence }
    }
}

#[derive(Debug)]
struct Frame {
    /// The offset of the end of the frame's chunk.
    end: u64,
    id: FrameId,
}

#[derive(Debug, PartialEq, Eq)]
pub enum FrameId {
    /// The history gave the event its id: the epoch and the sequence number.
    Given,
    /// The message had its own id.
    Own(String),
    /// The event has no id, so a client cannot resume after this event.
    Absent,
}

impl FrameId {
    fn of(message: &Message) -> FrameId {
        match message.id_text() {
            Some(id) => FrameId::Own(id.to_owned()),
            None if message.wants_id() => FrameId::Given,
            None => FrameId::Absent,
        }
    }

    fn is_own(&self, id: &str) -> bool {
        matches!(self, FrameId::Own(own) if own == id && !id.is_empty())
    }
}

impl History {
    pub fn new(max_events: usize, max_bytes: usize) -> History {
        History {
            runs: VecDeque::from([Run::new(0)]),
            bytes: VecDeque::new(),
            start: 0,
            frames: VecDeque::new(),
            first_sequence: 0,
            last_evicted: FrameId::Given,
            max_events: max_events.max(1),
            max_bytes,
            scratch: Vec::new(),
        }
    }

    /// Appends a message. Gives an id to a message that has none, except to a message made with `without_id`. Evicts
    /// the oldest events if the history would exceed a limit.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`encode`](History::encode). After an error, the history is unchanged.
    pub fn append(&mut self, message: &Message) -> io::Result<Id> {
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        let encoded = self.encode(message, &mut frame);
        if encoded.is_ok() {
            self.push(&frame, message);
        }
        self.scratch = frame;
        encoded
    }

    /// Encodes a message as the next frame. Gives an id to a message that has none, except to a message made with
    /// `without_id`. [`push`](History::push) then appends the frame.
    ///
    /// # Errors
    ///
    /// After an error, `out` may end with an incomplete frame.
    ///
    /// - Returns `InvalidInput` if the message is not valid.
    /// - Returns `InvalidInput` if the chunk is larger than `max_bytes`.
    pub fn encode(&self, message: &Message, out: &mut Vec<u8>) -> io::Result<Id> {
        message.check()?;
        let start = out.len();
        let id = message.id_text().map_or_else(|| self.next_id(), str::to_owned);
        if message.wants_id() {
            message.encode_with_id(&id, out);
        } else {
            message.encode(out);
        }
        let length = chunk_length(out.len() - start);
        let max = self.max_bytes;
        if length > max {
            let message = format!("the event has {length} bytes, more than ChannelConfig::max_bytes ({max}) allows");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Id(id))
    }

    /// Returns the id for the next event, if that event has no id of its own.
    pub fn next_id(&self) -> String {
        self.given_id(self.next_sequence())
    }

    fn next_sequence(&self) -> u64 {
        self.first_sequence + self.frames.len() as u64
    }

    /// Appends an event of an earlier run. The caller must restore all events before it appends events of this run.
    /// `sequence` must be one more than in the previous call.
    #[allow(dead_code)] // unused in a copy without `file`
    pub fn restore(&mut self, epoch: &str, sequence: u64, frame: &[u8], id: FrameId) {
        let mut present = self.runs.pop_back().expect("there is always a current run");
        match self.runs.back() {
            // The first sequence number of this run is not known. Zero is safe, because clients have only ids that the
            // run gave.
            None => {
                self.first_sequence = sequence;
                self.runs.push_back(Run { epoch: epoch.to_owned(), first_sequence: 0 });
            }
            Some(run) if run.epoch == epoch => (),
            Some(_) => self.runs.push_back(Run { epoch: epoch.to_owned(), first_sequence: sequence }),
        }
        self.append_frame(frame, id);
        if self.bytes.len() > self.max_bytes {
            self.evict_oldest(); // the event is too large, because max_bytes was larger when it was published
        }
        present.first_sequence = self.next_sequence();
        self.runs.push_back(present);
    }

    /// Appends the `close` event, which may be larger than `max_bytes`.
    pub fn push_close(&mut self, close: &Message) {
        let mut frame = Vec::new();
        close.encode(&mut frame);
        self.push(&frame, close);
    }

    /// Appends the last chunk of the stream, as a part of the last event if there is one.
    pub fn push_last_chunk(&mut self) {
        self.bytes.extend(LAST_CHUNK);
        let end = self.end();
        if let Some(last) = self.frames.back_mut() {
            last.end = end;
        }
    }

    /// Appends the frame of a message.
    pub fn push(&mut self, frame: &[u8], message: &Message) {
        self.append_frame(frame, FrameId::of(message));
    }

    /// Appends a frame as a chunk. Before that, evicts the oldest events if the history would exceed a limit.
    fn append_frame(&mut self, frame: &[u8], id: FrameId) {
        let length = chunk_length(frame.len());
        while self.frames.len() >= self.max_events || self.bytes.len() + length > self.max_bytes {
            if !self.evict_oldest() {
                break;
            }
        }
        if self.bytes.capacity() - self.bytes.len() < length {
            // The capacity doubles, as in a `VecDeque`, but only up to `max_bytes`, unless one event needs more.
            let needed = self.bytes.len() + length;
            let capacity = (2 * self.bytes.capacity()).min(self.max_bytes).max(needed);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        push_size_line(&mut self.bytes, frame.len());
        self.bytes.extend(frame);
        self.bytes.extend(CHUNK_END);
        self.frames.push_back(Frame { end: self.end(), id });
    }

    /// Evicts the oldest event. Returns `false` if the history is empty.
    fn evict_oldest(&mut self) -> bool {
        let Some(frame) = self.frames.pop_front() else { return false };
        self.bytes.drain(..(frame.end - self.start) as usize);
        self.start = frame.end;
        self.first_sequence += 1;
        self.last_evicted = frame.id;
        // The run of the last evicted event is kept, because a client may still resume after that event.
        while self.runs.get(1).is_some_and(|next| next.first_sequence < self.first_sequence) {
            self.runs.pop_front();
        }
        true
    }

    /// Returns the offset of the first chunk that is kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Returns the offset past the last chunk.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Returns the offset at which the last `frames` frames begin, or the start if there are fewer frames.
    pub fn start_of_last(&self, frames: usize) -> u64 {
        self.offset_of(self.frames.len().saturating_sub(frames))
    }

    /// Returns whether the events past `offset` take more than half of `max_events` or `max_bytes`. If so, the same
    /// number of new events would evict some of these events.
    pub fn is_half_past(&self, offset: u64) -> bool {
        let frames = self.frames.len() - self.frame_at(offset);
        let bytes = self.end().saturating_sub(offset.max(self.start));
        2 * frames > self.max_events || 2 * bytes > self.max_bytes as u64
    }

    /// Returns whether there are events at or past `offset`.
    pub fn has_events_from(&self, offset: u64) -> bool {
        self.frame_at(offset) < self.frames.len()
    }

    /// Returns the bytes from `offset` to the end, in two slices. Returns `None` if some of these bytes were evicted,
    /// or if `offset` is past the end.
    pub fn since(&self, offset: u64) -> Option<(&[u8], &[u8])> {
        let skipped = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let (front, back) = self.bytes.as_slices();
        if skipped < front.len() {
            return Some((&front[skipped..], back));
        }
        Some((&[], back.get(skipped - front.len()..)?))
    }

    /// Returns the offset after the event with this id. Returns `None` if the id is not known, or if a later event was
    /// evicted.
    pub fn find(&self, id: &str) -> Option<u64> {
        // An event's own id may look like an id that the history gave. So this function searches the own ids before it
        // compares the id of the last evicted event. A restored history does not know the id of the last evicted event,
        // and assumes that the earlier run gave this id.
        self.find_given(id).or_else(|| self.find_own(id)).or_else(|| self.find_evicted(id))
    }

    fn find_given(&self, id: &str) -> Option<u64> {
        let index = usize::try_from(self.sequence_of(id)?.checked_sub(self.first_sequence)?).ok()?;
        let frame = self.frames.get(index)?;
        (frame.id == FrameId::Given).then_some(frame.end)
    }

    fn find_own(&self, id: &str) -> Option<u64> {
        let frame = self.frames.iter().rev().find(|frame| frame.id.is_own(id))?;
        Some(frame.end)
    }

    /// Returns the start, if the last evicted event has this id.
    fn find_evicted(&self, id: &str) -> Option<u64> {
        let is_last_evicted = match self.last_evicted {
            FrameId::Given => self.sequence_of(id)? == self.first_sequence.checked_sub(1)?,
            _ => self.last_evicted.is_own(id),
        };
        is_last_evicted.then_some(self.start)
    }

    /// Returns the first id of the events at or past `offset`. Returns `None` if none of these events has an id.
    pub fn first_id_from(&self, offset: u64) -> Option<String> {
        (self.frame_at(offset)..self.frames.len()).find_map(|index| self.id_of(index))
    }

    /// Returns the last id of the frames whose chunks end at or before `offset`. Returns `None` if no such id is known.
    pub fn last_id_before(&self, offset: u64) -> Option<String> {
        if let Some(id) = (0..self.frame_at(offset)).rev().find_map(|index| self.id_of(index)) {
            return Some(id);
        }
        if offset < self.start || self.start == 0 {
            return None;
        }
        self.id_text(&self.last_evicted, self.first_sequence - 1)
    }

    /// Returns the end of the chunk that contains `offset`. Returns `offset` itself if it is not inside a chunk.
    pub fn chunk_end(&self, offset: u64) -> u64 {
        let index = self.frame_at(offset);
        match self.frames.get(index) {
            Some(frame) if self.offset_of(index) != offset => frame.end,
            _ => offset,
        }
    }

    /// Returns the index of the frame whose chunk contains the byte at `offset`, or the number of frames if `offset` is
    /// at or past the end.
    fn frame_at(&self, offset: u64) -> usize {
        self.frames.partition_point(|frame| frame.end <= offset)
    }

    fn offset_of(&self, index: usize) -> u64 {
        if index == 0 {
            return self.start;
        }
        self.frames[index - 1].end
    }

    fn id_of(&self, index: usize) -> Option<String> {
        self.id_text(&self.frames[index].id, self.first_sequence + index as u64)
    }

    fn id_text(&self, id: &FrameId, sequence: u64) -> Option<String> {
        match id {
            FrameId::Given => Some(self.given_id(sequence)),
            FrameId::Own(id) => Some(id.clone()),
            FrameId::Absent => None,
        }
    }

    fn given_id(&self, sequence: u64) -> String {
        let run = self.runs.iter().rev().find(|run| run.first_sequence <= sequence);
        format!("{}-{sequence}", run.expect("a run is not removed while its events are known").epoch)
    }

    /// Returns the sequence number in an id, if this history gave that id.
    fn sequence_of(&self, id: &str) -> Option<u64> {
        let (epoch, digits) = id.split_once('-')?;
        let index = self.runs.iter().position(|run| run.epoch == epoch)?;
        let first = self.runs[index].first_sequence;
        let next = self.runs.get(index + 1).map_or(u64::MAX, |next| next.first_sequence);
        let sequence = digits.parse().ok()?;
        if !(first..next).contains(&sequence) || digits != sequence.to_string() {
            return None;
        }
        Some(sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(max_events: usize, max_bytes: usize) -> History {
        let run = Run { epoch: "e".to_owned(), first_sequence: 0 };
        History { runs: VecDeque::from([run]), ..History::new(max_events, max_bytes) }
    }

    fn since(history: &History, offset: u64) -> Option<String> {
        history
            .since(offset)
            .map(|(front, back)| String::from_utf8([front, back].concat()).unwrap())
    }

    #[test]
    fn append_gives_ids_and_joins_frames() {
        let mut history = history(10, 1_000);
        assert_eq!(history.append(&"a".into()).unwrap().as_str(), "e-0");
        let after_a = history.end();
        assert_eq!(history.append(&Message::new().id("own").data("b")).unwrap().as_str(), "own");
        assert_eq!(since(&history, 0).unwrap(), "11\r\ndata: a\nid: e-0\n\n\r\n11\r\ndata: b\nid: own\n\n\r\n");
        assert_eq!(since(&history, after_a).unwrap(), "11\r\ndata: b\nid: own\n\n\r\n");
        assert_eq!(since(&history, after_a + 5).unwrap(), "ata: b\nid: own\n\n\r\n");
        assert_eq!(since(&history, history.end()).unwrap(), "");
        assert_eq!(since(&history, history.end() + 1), None);
    }

    #[test]
    fn find_returns_none_after_a_later_event_was_evicted() {
        let mut history = history(2, 1_000);
        assert_eq!(history.find("e-0"), None, "the history has not given this id yet");
        history.append(&"a".into()).unwrap();
        history.append(&Message::new().id("own").data("b")).unwrap();
        assert_eq!((history.find("e-0"), history.find("own")), (Some(23), Some(history.end())));
        for foreign in ["", "e", "e-", "e-2", "e--1", "f-0", "e-0-0", "e-18446744073709551615", "nonsense"] {
            assert_eq!(history.find(foreign), None, "{foreign}");
        }
        history.append(&"c".into()).unwrap();
        assert_eq!((history.start(), history.find("e-0")), (23, Some(23)), "evicted, but no event after it");
        history.append(&"d".into()).unwrap();
        assert_eq!((history.find("e-0"), history.find("own")), (None, Some(history.start())));
        assert_eq!(history.find("e-1"), None, "this event has its own id");
        history.append(&"e".into()).unwrap();
        assert_eq!(history.find("own"), None);
    }

    #[test]
    fn own_id_in_the_given_format_stays_an_own_id() {
        let mut history = history(10, 1_000);
        for id in ["e-03", "e-9", "e-0"] {
            history.append(&Message::new().id(id).data("x")).unwrap();
        }
        history.append(&"ours".into()).unwrap();
        assert_eq!([history.find("e-03"), history.find("e-9"), history.find("e-0")], [Some(24), Some(47), Some(70)]);
        assert_eq!(
            [history.find("e-3"), history.find("e-1"), history.find("e-003")],
            [Some(history.end()), None, None]
        );
    }

    #[test]
    fn append_beyond_a_limit_evicts_or_returns_an_error() {
        let mut history = history(100, 50);
        (0..9).for_each(|n| drop(history.append(&n.to_string().into()).unwrap()));
        assert_eq!(
            since(&history, history.start()).unwrap(),
            "11\r\ndata: 7\nid: e-7\n\n\r\n11\r\ndata: 8\nid: e-8\n\n\r\n"
        );
        assert_eq!(
            (since(&history, 0), history.start_of_last(1), history.start_of_last(9)),
            (None, history.end() - 23, history.start())
        );
        let largest = "x".repeat(50 - "2c\r\ndata: \nid: e-9\n\n\r\n".len());
        let error = history.append(&format!("{largest}x").into()).unwrap_err();
        assert!(error.to_string().contains("51 bytes") && error.to_string().contains("max_bytes"), "{error}");
        assert!(history.append(&Message::new().event("\n")).is_err());
        assert_eq!(history.append(&largest.into()).unwrap().as_str(), "e-9", "an error leaves the history unchanged");
        assert_eq!(history.end() - history.start(), 50);
    }

    #[test]
    fn offset_between_or_inside_chunks_has_ids_and_a_chunk_end() {
        let mut history = history(2, 1_000);
        assert_eq!((history.last_id_before(0), history.first_id_from(0), history.chunk_end(0)), (None, None, 0));
        (0..3).for_each(|n| drop(history.append(&n.to_string().into()).unwrap()));
        assert_eq!(
            (history.last_id_before(23).unwrap(), history.first_id_from(23).unwrap()),
            ("e-0".to_owned(), "e-1".to_owned())
        );
        assert_eq!(
            (history.last_id_before(26).unwrap(), history.last_id_before(46).unwrap()),
            ("e-0".to_owned(), "e-1".to_owned())
        );
        assert_eq!((history.first_id_from(69), history.last_id_before(22)), (None, None));
        assert_eq!(
            (history.chunk_end(23), history.chunk_end(24), history.chunk_end(45), history.chunk_end(46)),
            (23, 46, 46, 46)
        );
    }

    #[test]
    fn restored_history_continues_sequence_in_a_new_epoch() {
        let mut history = history(3, 1_000);
        for (epoch, sequence) in [("a", 7), ("a", 8), ("b", 9), ("b", 10)] {
            history.restore(epoch, sequence, b"data: x\n\n", FrameId::Given);
        }
        assert_eq!(history.append(&"c".into()).unwrap().as_str(), "e-11");
        assert_eq!(history.append(&"d".into()).unwrap().as_str(), "e-12");
        assert_eq!(
            (history.last_id_before(history.end()).unwrap(), history.first_id_from(history.start()).unwrap()),
            ("e-12".into(), "b-10".into())
        );
        assert_eq!(
            (history.last_id_before(history.start()).unwrap(), history.find("b-9")),
            ("b-9".into(), Some(history.start()))
        );
        assert_eq!((history.find("b-10"), history.find("e-12")), (Some(4 * 14), Some(history.end())));
        for lost in ["a-8", "b-8", "b-11", "b-12", "a-11", "e-10", "e-13"] {
            assert_eq!(history.find(lost), None, "{lost} was evicted or never given");
        }
        history.append(&"e".into()).unwrap();
        assert_eq!(
            (history.find("b-9"), history.find("b-10")),
            (None, Some(history.start())),
            "the last event of run b was evicted, but no event after it"
        );
        assert_eq!(history.last_id_before(history.start()).unwrap(), "b-10");
    }

    #[test]
    fn restored_history_keeps_own_ids_and_its_start() {
        let mut history = history(10, 100);
        assert_eq!(history.next_id(), "e-0");
        history.restore("a", 7, b"id: own\ndata: x\n\n", FrameId::Own("own".to_owned()));
        assert_eq!(
            (history.last_id_before(0), history.find("a-6"), history.find("a-5")),
            (None, Some(0), None),
            "the event before the first one is not known"
        );
        assert_eq!((history.find("own"), history.next_id()), (Some(history.end()), "e-8".to_owned()));
        history.restore("a", 8, &[b'x'; 101], FrameId::Given);
        assert_eq!(
            (history.find("own"), history.find("a-8"), history.next_id()),
            (None, Some(history.start()), "e-9".to_owned())
        );
    }

    /// A restored history does not know the event before its first event, and assumes that this event had a given id.
    /// If another event has the same id as its own id, `find` returns the offset after that other event.
    #[test]
    fn own_id_with_the_number_before_a_restored_history_is_found() {
        let mut history = history(10, 1_000);
        history.restore("a", 7, b"data: x\n\n", FrameId::Given);
        history.restore("a", 8, b"id: a-6\ndata: x\n\n", FrameId::Own("a-6".to_owned()));
        history.restore("a", 9, b"data: y\n\n", FrameId::Given);
        assert_eq!(history.find("a-6"), Some(history.frames[1].end));
    }

    #[test]
    fn event_without_id_is_skipped_on_resume() {
        let mut history = history(3, 1_000);
        let gap = || Message::new().event("gap").data("x\n").without_id();
        history.append(&"a".into()).unwrap();
        history.append(&gap()).unwrap();
        assert_eq!(since(&history, history.find("e-0").unwrap()).unwrap(), "1a\r\nevent: gap\ndata: x\ndata:\n\n\r\n");
        assert_eq!(
            (history.last_id_before(history.end()).unwrap(), history.first_id_from(23)),
            ("e-0".to_owned(), None)
        );
        history.append(&"b".into()).unwrap();
        assert_eq!(history.first_id_from(23).unwrap(), "e-2");
        history.append(&"c".into()).unwrap();
        assert_eq!(
            (history.find("e-0"), history.last_id_before(history.start()).unwrap()),
            (Some(history.start()), "e-0".to_owned())
        );
        history.append(&"d".into()).unwrap();
        assert_eq!(
            (history.find("e-0"), history.last_id_before(history.start())),
            (None, None),
            "the last evicted event is the gap event, which has no id"
        );
    }
}
