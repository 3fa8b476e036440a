//! The frames that a channel has sent, as far back as its bounds reach. Pure: it knows neither sockets nor who appends.
//!
//! A channel's stream is one endless string of bytes, frame after frame. A position in it is an offset from its very
//! beginning, so it says at once which frame comes next and how much of it has gone already:
//!
//! ```text
//!            start                 position             end
//!   evicted  |  frame  |  frame  |  fra·me  |  frame  |
//! ```
//!
//! Ids are `<epoch>-<sequence>`. The sequence counts the log's events; the epoch is that of a run of the program, so that
//! an id which this log did not give is known for what it is. A log that was restored goes on counting in a new epoch, and
//! knows which events are of which: what a client had and the log has lost is never taken for what came later. A message may
//! bring an id of its own, which is found just as well, only not in one step.

use super::message::Message;
use super::server::jitter;
use std::collections::VecDeque;
use std::fmt;
use std::io;

/// The id of an event that was published: what a client that has it sends as `Last-Event-ID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(String);

impl Id {
    /// Returns the id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug)]
pub struct History {
    /// The runs whose events are kept, and last the present one.
    runs: VecDeque<Run>,
    bytes: VecDeque<u8>,
    /// The position of the first byte that is kept.
    start: u64,
    frames: VecDeque<Frame>,
    /// The sequence number of the first frame that is kept.
    first: u64,
    /// The id of the last frame that was evicted: whoever has that one misses nothing yet. Of one that was never here it is
    /// taken to be ours.
    before: FrameId,
    max_events: usize,
    max_bytes: usize,
    scratch: Vec<u8>,
}

/// A run of the program: it gave the ids from a sequence number up to where the next one begins.
#[derive(Debug)]
struct Run {
    epoch: String,
    first: u64,
}

impl Run {
    /// One that begins now.
    fn new(first: u64) -> Run {
        // Six letters and digits at random: short, for every event carries it, and the same again once in two billion.
        let digit = |_| char::from_digit(jitter::pick(0..36) as u32, 36).expect("below 36");
        Run { epoch: (0..6).map(digit).collect(), first }
    }
}

#[derive(Debug)]
struct Frame {
    /// The position behind it.
    end: u64,
    id: FrameId,
}

/// What id a frame has.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameId {
    /// That of its run and its sequence number.
    Given,
    /// One that the message brought along.
    Own(String),
    /// None: nobody resumes behind it.
    None,
}

impl FrameId {
    fn of(message: &Message) -> FrameId {
        match message.id_text() {
            Some(id) => FrameId::Own(id.to_owned()),
            None if message.wants_id() => FrameId::Given,
            None => FrameId::None,
        }
    }
}

impl History {
    pub fn new(max_events: usize, max_bytes: usize) -> History {
        History {
            runs: VecDeque::from([Run::new(0)]),
            bytes: VecDeque::new(),
            start: 0,
            frames: VecDeque::new(),
            first: 0,
            before: FrameId::Given,
            max_events: max_events.max(1),
            max_bytes,
            scratch: Vec::new(),
        }
    }

    /// Appends a message, with an id if it wants one, and evicts what no longer fits.
    ///
    /// # Errors
    ///
    /// Those of [`encode`](History::encode); nothing has changed then.
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

    /// Encodes a message as the next frame, with an id if it wants one; [`push`](History::push) makes it that.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, for a message that the format cannot hold, and for one that is larger than the log; what is in `out`
    /// then is no frame.
    pub fn encode(&self, message: &Message, out: &mut Vec<u8>) -> io::Result<Id> {
        let start = out.len();
        let id = message.id_text().map_or_else(|| self.next_id(), str::to_owned);
        if message.wants_id() {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(id.as_bytes());
            out.push(b'\n');
        }
        message.encode(out)?;
        let (length, max) = (out.len() - start, self.max_bytes);
        if length > max {
            let message = format!("the message has {length} bytes, and max_bytes of the channel's history is {max}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Id(id))
    }

    /// The id that the next event gets if it brings none.
    pub fn next_id(&self) -> String {
        self.id_of(self.next())
    }

    fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Appends an event of an earlier run, before this one publishes any: `sequence` is that behind the one before.
    pub fn restore(&mut self, epoch: &str, sequence: u64, frame: &[u8], id: FrameId) {
        let mut present = self.runs.pop_back().expect("the present run is always there");
        match self.runs.back() {
            // Where the run began is not known; nobody has an id of it that it did not give.
            None => {
                self.first = sequence;
                self.runs.push_back(Run { epoch: epoch.to_owned(), first: 0 });
            }
            Some(run) if run.epoch == epoch => (),
            Some(_) => self.runs.push_back(Run { epoch: epoch.to_owned(), first: sequence }),
        }
        self.take(frame, id);
        if self.bytes.len() > self.max_bytes {
            self.evict(); // the bound was another one when it was published
        }
        present.first = self.next();
        self.runs.push_back(present);
    }

    /// Appends the event that ends a stream; it may be larger than the log.
    pub fn append_close(&mut self, close: &Message) {
        let mut frame = Vec::new();
        close.encode(&mut frame).expect("our own message is valid");
        self.push(&frame, close);
    }

    /// Appends the frame of a message.
    pub fn push(&mut self, frame: &[u8], message: &Message) {
        self.take(frame, FrameId::of(message));
    }

    /// Appends a frame, and evicts what no longer fits.
    fn take(&mut self, frame: &[u8], id: FrameId) {
        while self.frames.len() >= self.max_events || self.bytes.len() + frame.len() > self.max_bytes {
            if !self.evict() {
                break;
            }
        }
        if self.bytes.capacity() - self.bytes.len() < frame.len() {
            // As a deque grows by itself, but not beyond the bound; the goodbye may be more than that allows.
            let needed = self.bytes.len() + frame.len();
            let capacity = (2 * self.bytes.capacity()).min(self.max_bytes).max(needed);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend(frame);
        self.frames.push_back(Frame { end: self.end(), id });
    }

    fn evict(&mut self) -> bool {
        let Some(frame) = self.frames.pop_front() else { return false };
        self.bytes.drain(..(frame.end - self.start) as usize);
        self.start = frame.end;
        self.first += 1;
        self.before = frame.id;
        // The last event that was evicted can still be asked for, by its id.
        while self.runs.get(1).is_some_and(|next| next.first < self.first) {
            self.runs.pop_front();
        }
        true
    }

    /// The position of the first frame that is kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The position behind the last frame.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The position of the last `frames` frames, or of as many as there are.
    pub fn last(&self, frames: usize) -> u64 {
        self.position_of(self.frames.len().saturating_sub(frames))
    }

    /// Whether so much lies behind a position that as much again would evict some of it.
    pub fn is_half_behind(&self, position: u64) -> bool {
        let frames = self.frames.len() - self.frames.partition_point(|frame| frame.end <= position);
        let bytes = self.end().saturating_sub(position.max(self.start));
        2 * frames > self.max_events || 2 * bytes > self.max_bytes as u64
    }

    /// What lies between a position and the end, in two pieces; `None` if some of it was evicted.
    pub fn from(&self, position: u64) -> Option<(&[u8], &[u8])> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        let (front, back) = self.bytes.as_slices();
        match at.checked_sub(front.len()) {
            None => Some((&front[at..], back)),
            Some(at) => Some((&[], back.get(at..)?)),
        }
    }

    /// The position right behind the event with that id: `None` if it is not known, or if something behind it was evicted.
    pub fn find(&self, id: &str) -> Option<u64> {
        self.find_given(id).or_else(|| self.find_own(id))
    }

    fn find_given(&self, id: &str) -> Option<u64> {
        let after = self.sequence_of(id)?.checked_add(1)?.checked_sub(self.first)?;
        let after = usize::try_from(after).ok().filter(|&after| after <= self.frames.len())?;
        let of_frame = after.checked_sub(1).map_or(&self.before, |at| &self.frames[at].id);
        (*of_frame == FrameId::Given).then(|| self.position_of(after))
    }

    fn find_own(&self, id: &str) -> Option<u64> {
        let is_it = |of_frame: &FrameId| matches!(of_frame, FrameId::Own(own) if own == id && !id.is_empty());
        match self.frames.iter().rposition(|frame| is_it(&frame.id)) {
            Some(at) => Some(self.frames[at].end),
            None => is_it(&self.before).then_some(self.start),
        }
    }

    /// The first id at or behind a position; `None` if there is none up to the end.
    pub fn id_from(&self, position: u64) -> Option<String> {
        let at = self.frames.partition_point(|frame| frame.end <= position);
        (at..self.frames.len()).find_map(|at| self.id_at(at))
    }

    /// The last id of the frames that end at or before a position; `None` if it is not known any more.
    pub fn id_before(&self, position: u64) -> Option<String> {
        let at = self.frames.partition_point(|frame| frame.end <= position);
        let evicted = || match &self.before {
            _ if position < self.start || self.start == 0 => None,
            id => self.text_of(id, self.first - 1),
        };
        (0..at).rev().find_map(|at| self.id_at(at)).or_else(evicted)
    }

    /// The position behind the frame that a position lies in; the position itself between two frames.
    pub fn frame_end(&self, position: u64) -> u64 {
        let at = self.frames.partition_point(|frame| frame.end <= position);
        match self.frames.get(at) {
            Some(frame) if self.position_of(at) != position => frame.end,
            _ => position,
        }
    }

    fn id_at(&self, at: usize) -> Option<String> {
        self.text_of(&self.frames[at].id, self.first + at as u64)
    }

    fn text_of(&self, id: &FrameId, sequence: u64) -> Option<String> {
        match id {
            FrameId::Given => Some(self.id_of(sequence)),
            FrameId::Own(id) => Some(id.clone()),
            FrameId::None => None,
        }
    }

    fn id_of(&self, sequence: u64) -> String {
        let run = self.runs.iter().rev().find(|run| run.first <= sequence);
        format!("{}-{sequence}", run.expect("the first began at 0, or nobody knows where").epoch)
    }

    /// The sequence number in an id that this log gave.
    fn sequence_of(&self, id: &str) -> Option<u64> {
        let (epoch, sequence) = id.split_once('-')?;
        let run = self.runs.iter().position(|run| run.epoch == epoch)?;
        let next = self.runs.get(run + 1).map_or(u64::MAX, |next| next.first);
        let number = sequence.parse().ok().filter(|number| (self.runs[run].first..next).contains(number))?;
        (sequence == number.to_string()).then_some(number)
    }

    fn position_of(&self, frame: usize) -> u64 {
        match frame.checked_sub(1) {
            Some(before) => self.frames[before].end,
            None => self.start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(max_events: usize, max_bytes: usize) -> History {
        let run = Run { epoch: "e".to_owned(), first: 0 };
        History { runs: VecDeque::from([run]), ..History::new(max_events, max_bytes) }
    }

    fn from(log: &History, position: u64) -> Option<String> {
        log.from(position).map(|(front, back)| String::from_utf8([front, back].concat()).unwrap())
    }

    #[test]
    fn frames_get_ids_and_lie_one_behind_the_other() {
        let mut log = log(10, 1_000);
        assert_eq!(log.append(&"a".into()).unwrap().as_str(), "e-0");
        let behind_a = log.end();
        assert_eq!(log.append(&Message::new().id("own").data("b")).unwrap().as_str(), "own");
        assert_eq!(from(&log, 0).unwrap(), "id: e-0\ndata: a\n\nid: own\ndata: b\n\n");
        assert_eq!(from(&log, behind_a).unwrap(), "id: own\ndata: b\n\n");
        assert_eq!(from(&log, behind_a + 3).unwrap(), " own\ndata: b\n\n");
        assert_eq!(from(&log, log.end()).unwrap(), "");
        assert_eq!(from(&log, log.end() + 1), None);
    }

    #[test]
    fn an_id_is_found_as_long_as_nothing_behind_it_is_missing() {
        let mut log = log(2, 1_000);
        assert_eq!(log.find("e-0"), None, "not yet given");
        log.append(&"a".into()).unwrap();
        log.append(&Message::new().id("own").data("b")).unwrap();
        assert_eq!((log.find("e-0"), log.find("own")), (Some(17), Some(log.end())));
        for foreign in ["", "e", "e-", "e-2", "e--1", "f-0", "e-0-0", "e-18446744073709551615", "nonsense"] {
            assert_eq!(log.find(foreign), None, "{foreign}");
        }
        log.append(&"c".into()).unwrap();
        assert_eq!((log.start(), log.find("e-0")), (17, Some(17)), "evicted, but nothing is missing behind it");
        log.append(&"d".into()).unwrap();
        assert_eq!((log.find("e-0"), log.find("own")), (None, Some(log.start())));
        log.append(&"e".into()).unwrap();
        assert_eq!(log.find("own"), None);
    }

    #[test]
    fn an_own_id_that_looks_like_one_of_ours_is_still_its_own() {
        let mut log = log(10, 1_000);
        for id in ["e-03", "e-9", "e-0"] {
            log.append(&Message::new().id(id).data("x")).unwrap();
        }
        log.append(&"ours".into()).unwrap();
        assert_eq!([log.find("e-03"), log.find("e-9"), log.find("e-0")], [Some(18), Some(35), Some(52)]);
        assert_eq!([log.find("e-3"), log.find("e-1"), log.find("e-003")], [Some(log.end()), None, None]);
    }

    #[test]
    fn bounds_hold_in_events_and_bytes_and_too_large_is_refused_by_name() {
        let mut log = log(100, 40);
        (0..9).for_each(|n| drop(log.append(&n.to_string().into()).unwrap()));
        assert_eq!(from(&log, log.start()).unwrap(), "id: e-7\ndata: 7\n\nid: e-8\ndata: 8\n\n");
        assert_eq!((from(&log, 0), log.last(1), log.last(9)), (None, log.end() - 17, log.start()));
        let error = log.append(&"x".repeat(40).into()).unwrap_err();
        assert!(error.to_string().contains("max_bytes"), "{error}");
        assert!(log.append(&Message::new().event("\n")).is_err());
        assert_eq!(log.append(&"next".into()).unwrap().as_str(), "e-9", "what was refused left no trace");
    }

    #[test]
    fn ids_and_frame_ends_around_a_position() {
        let mut log = log(2, 1_000);
        assert_eq!((log.id_before(0), log.id_from(0), log.frame_end(0)), (None, None, 0));
        (0..3).for_each(|n| drop(log.append(&n.to_string().into()).unwrap()));
        assert_eq!((log.id_before(17).unwrap(), log.id_from(17).unwrap()), ("e-0".to_owned(), "e-1".to_owned()));
        assert_eq!((log.id_before(20).unwrap(), log.id_before(34).unwrap()), ("e-0".to_owned(), "e-1".to_owned()));
        assert_eq!((log.id_from(51), log.id_before(16)), (None, None));
        assert_eq!((log.frame_end(17), log.frame_end(18), log.frame_end(33), log.frame_end(34)), (17, 34, 34, 34));
    }

    #[test]
    fn a_restored_log_goes_on_counting_in_an_epoch_of_its_own() {
        let mut log = log(3, 1_000);
        for (epoch, sequence) in [("a", 7), ("a", 8), ("b", 9), ("b", 10)] {
            log.restore(epoch, sequence, b"data: x\n\n", FrameId::Given);
        }
        assert_eq!(log.append(&"c".into()).unwrap().as_str(), "e-11");
        assert_eq!(log.append(&"d".into()).unwrap().as_str(), "e-12");
        assert_eq!(
            (log.id_before(log.end()).unwrap(), log.id_from(log.start()).unwrap()),
            ("e-12".into(), "b-10".into())
        );
        assert_eq!((log.id_before(log.start()).unwrap(), log.find("b-9")), ("b-9".into(), Some(log.start())));
        assert_eq!((log.find("b-10"), log.find("e-12")), (Some(27 + 9), Some(log.end())));
        for lost in ["a-8", "b-8", "b-11", "b-12", "a-11", "e-10", "e-13"] {
            assert_eq!(log.find(lost), None, "{lost} was evicted, or never given");
        }
        log.append(&"e".into()).unwrap();
        assert_eq!(
            (log.find("b-9"), log.find("b-10")),
            (None, Some(log.start())),
            "nothing is missing behind the last of b"
        );
        assert_eq!(log.id_before(log.start()).unwrap(), "b-10");
    }

    #[test]
    fn what_was_restored_has_own_ids_and_a_beginning() {
        let mut log = log(10, 100);
        assert_eq!(log.next_id(), "e-0");
        log.restore("a", 7, b"id: own\ndata: x\n\n", FrameId::Own("own".to_owned()));
        assert_eq!(
            (log.id_before(0), log.find("a-6"), log.find("a-5")),
            (None, Some(0), None),
            "the one before is not known"
        );
        assert_eq!((log.find("own"), log.next_id()), (Some(log.end()), "e-8".to_owned()));
        log.restore("a", 8, &[b'x'; 101], FrameId::Given);
        assert_eq!((log.find("own"), log.find("a-8"), log.next_id()), (None, Some(log.start()), "e-9".to_owned()));
    }

    #[test]
    fn behind_what_has_no_id_nobody_resumes_and_nobody_misses_it() {
        let mut log = log(3, 1_000);
        let gap = || Message::new().event("gap").data("x\n").without_id();
        log.append(&"a".into()).unwrap();
        log.append(&gap()).unwrap();
        assert_eq!(from(&log, log.find("e-0").unwrap()).unwrap(), "event: gap\ndata: x\ndata:\n\n");
        assert_eq!((log.id_before(log.end()).unwrap(), log.id_from(17)), ("e-0".to_owned(), None));
        log.append(&"b".into()).unwrap();
        assert_eq!(log.id_from(17).unwrap(), "e-2");
        log.append(&"c".into()).unwrap();
        assert_eq!((log.find("e-0"), log.id_before(log.start()).unwrap()), (Some(log.start()), "e-0".to_owned()));
        log.append(&"d".into()).unwrap();
        assert_eq!(
            (log.find("e-0"), log.id_before(log.start())),
            (None, None),
            "the gap is gone, and so is where it was"
        );
    }
}
