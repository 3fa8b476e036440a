//! The cursor of a subscriber: how much of the history was sent, and which bytes are next. A cursor writes to any
//! [`Write`].
//!
//! ```text
//! up to date  The offset is the end of the last round. All such subscribers receive the same bytes, in one write each.
//! pending     The client took only a part. The offset is the end of that part, and the history keeps the rest.
//! evicted     The next event is no longer in the history. The subscriber is disconnected, or skips with a `gap` event.
//! ```
//! With `Lag::Disconnect`, the offset can be inside a chunk. If this chunk is evicted, the subscriber is disconnected.
//! A subscriber that may skip must receive the rest of a chunk even if the chunk is evicted. So the cursor then keeps a
//! reference to a copy of the chunk. All subscribers share this copy.

use super::begun::BegunChunks;
use super::framing::Framing;
use super::history::History;
use super::http::chunked::chunk_length;
use super::message::Message;
use super::settings::Newcomers;
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::sync::Arc;

pub struct Cursor {
    offset: u64,
    /// The offset at which the subscriber began, or continued after a `gap` event. The value is 0 if the subscriber
    /// resumed. If `offset` is past `start`, the client has received the event before `offset`.
    start: u64,
    /// The state of a pending subscriber. Is `None` for most subscribers.
    carry: Option<Box<Carry>>,
}

/// The state that only a pending subscriber needs.
#[derive(Default)]
struct Carry {
    /// The bytes to send before the bytes at the offset.
    unsent: Unsent,
    /// The id of the last event before the offset, for the `gap` event of a subscriber that skips.
    last_id: Option<String>,
}

/// The rest of a chunk.
#[derive(Default)]
struct Unsent {
    chunk: Arc<Vec<u8>>,
    /// The number of bytes of the chunk that were sent.
    sent: usize,
}

impl Unsent {
    fn new(chunk: Vec<u8>) -> Unsent {
        Unsent { chunk: Arc::new(chunk), sent: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.chunk[self.sent..]
    }
}

/// The result of an attempt to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// All bytes were sent.
    UpToDate,
    /// The client's buffers are full.
    Pending,
    /// The history no longer has the next bytes.
    Evicted,
}

impl Cursor {
    /// Returns a cursor after the event with the id `last_event_id`. If that id is not known, returns a cursor that
    /// sends a `gap` event and then the whole history. Without an id, returns a cursor at the offset that `newcomers`
    /// selects.
    pub fn new(history: &History, last_event_id: Option<&str>, newcomers: Newcomers) -> Cursor {
        if let Some(id) = last_event_id {
            return match history.find(id) {
                Some(offset) => Cursor { offset, start: 0, carry: None },
                None => Cursor::after_gap(history, gap_chunk(Some(id), history), Some(id.to_owned())),
            };
        }
        let offset = match newcomers {
            Newcomers::FromNow => history.end(),
            Newcomers::Last(events) => history.start_of_last(events),
        };
        Cursor { offset, start: offset, carry: None }
    }

    /// Returns a cursor at the oldest event in the history. The cursor first sends `unsent`, which is the rest of the
    /// chunk of a `gap` event.
    fn after_gap(history: &History, unsent: Vec<u8>, last_id: Option<String>) -> Cursor {
        let carry = Some(Box::new(Carry { unsent: Unsent::new(unsent), last_id }));
        Cursor { offset: history.start(), start: history.start(), carry }
    }

    /// Returns a cursor at the end of the history. If there is a `last_event_id`, the cursor first sends a `gap` event.
    /// The history must not contain this id.
    pub fn from_now(history: &History, last_event_id: Option<&str>) -> Cursor {
        let mut cursor = Cursor { offset: history.end(), start: history.end(), carry: None };
        if let Some(id) = last_event_id {
            let mut chunk = Vec::new();
            Framing::Chunked.push_message(&gap(Some(id), None), &mut chunk);
            cursor.carry = Some(Box::new(Carry { unsent: Unsent::new(chunk), last_id: Some(id.to_owned()) }));
        }
        cursor
    }

    /// Adds a message to the carry. If the message has the id of an event in the history, moves the cursor to the end
    /// of the event in the history.
    pub fn push_first(&mut self, history: &History, message: &Message) {
        let carry = self.carry.get_or_insert_with(Box::default);
        let mut unsent = carry.unsent.bytes().to_vec();
        Framing::Chunked.push_message(message, &mut unsent);
        carry.unsent = Unsent::new(unsent);
        let Some(id) = message.id_text() else { return };
        carry.last_id = Some(id.to_owned());
        if let Some(offset) = history.find(id) {
            self.offset = offset;
            self.start = offset;
        }
    }

    /// Adds the last chunk to the carry. The offset must be the end of a history that has ended.
    pub fn push_last_chunk(&mut self) {
        let carry = self.carry.get_or_insert_with(Box::default);
        let mut unsent = carry.unsent.bytes().to_vec();
        Framing::Chunked.push_end(&mut unsent);
        carry.unsent = Unsent::new(unsent);
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the offset, and the number of carried bytes to send before the bytes at that offset. A write that sends
    /// bytes changes one of these values.
    pub fn progress_key(&self) -> (u64, usize) {
        (self.offset, self.carry.as_ref().map_or(0, |carry| carry.unsent.bytes().len()))
    }

    /// Returns whether all bytes up to `end` were sent.
    pub fn has_sent_up_to(&self, end: u64) -> bool {
        self.offset == end && !self.has_unsent()
    }

    fn has_unsent(&self) -> bool {
        self.carry.as_ref().is_some_and(|carry| !carry.unsent.bytes().is_empty())
    }

    /// Sends the carry, and then the part of `bytes` that was not sent yet. The first byte of `bytes` is at offset
    /// `base` of the history. `begun` is `Some` if the subscriber may skip.
    ///
    /// # Errors
    ///
    /// Returns the errors of the socket, except `WouldBlock`.
    pub fn send(
        &mut self,
        base: u64,
        bytes: &[u8],
        begun: Option<&BegunChunks>,
        socket: &mut impl Write,
    ) -> io::Result<Progress> {
        if !self.send_carry(socket)? {
            return Ok(Progress::Pending);
        }
        let Some(next) = self.offset.checked_sub(base).and_then(|sent| bytes.get(sent as usize..)) else {
            return Ok(Progress::Evicted);
        };
        let start = self.offset;
        let sent = write(socket, next)?;
        self.offset += sent as u64;
        if sent == next.len() {
            self.carry = None;
            return Ok(Progress::UpToDate);
        }
        if let Some(begun) = begun {
            let chunk = chunk_at(next, sent);
            if chunk.start < sent {
                self.offset = start + chunk.end as u64;
                let shared = begun.share(self.offset, &next[chunk.clone()]);
                let carry = self.carry.get_or_insert_with(Box::default);
                carry.unsent = Unsent { chunk: shared, sent: sent - chunk.start };
            }
        }
        Ok(Progress::Pending)
    }

    /// Remembers the id of the last event that was sent, if the history still has this id. Only subscribers that may
    /// skip need this id.
    pub fn remember_last_id(&mut self, history: &History) {
        if self.offset <= self.start {
            return;
        }
        if let Some(id) = history.last_id_before(self.offset) {
            self.carry.get_or_insert_with(Box::default).last_id = Some(id);
        }
    }

    /// Remembers `id` as the id of the last event before `offset`, if the cursor is at `offset` and has remembered no
    /// other id.
    pub fn remember_id_at(&mut self, offset: u64, id: &str) {
        if self.offset == offset && self.offset > self.start && self.carry.is_none() {
            self.carry = Some(Box::new(Carry { last_id: Some(id.to_owned()), ..Carry::default() }));
        }
    }

    /// Sends a `gap` event, and continues at the oldest event in the history. If the client takes no bytes, the cursor
    /// does not change. The `gap` event of the next attempt may then stand for more events.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send`](Cursor::send).
    pub fn skip(&mut self, history: &History, socket: &mut impl Write) -> io::Result<Progress> {
        let last_id = self.carry.as_ref().and_then(|carry| carry.last_id.clone());
        let chunk = gap_chunk(last_id.as_deref(), history);
        let sent = write(socket, &chunk)?;
        if sent > 0 {
            *self = Cursor::after_gap(history, chunk[sent..].to_vec(), last_id);
        }
        Ok(if sent == chunk.len() { Progress::UpToDate } else { Progress::Pending })
    }

    /// Sends the carry, and returns whether the whole carry was sent.
    fn send_carry(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        if let Some(carry) = &mut self.carry {
            carry.unsent.sent += write(socket, carry.unsent.bytes())?;
            if carry.unsent.bytes().is_empty() {
                carry.unsent = Unsent::default(); // releases the chunk, which other subscribers may share
            }
        }
        Ok(!self.has_unsent())
    }
}

/// Returns a `gap` event, which stands for missing events. Its data has two lines: the id of the last event before the
/// gap, and the id of the first event after the gap. A line is empty if its id is not known.
pub fn gap(before: Option<&str>, after: Option<&str>) -> Message {
    let data = format_args!("{}\n{}", before.unwrap_or(""), after.unwrap_or(""));
    Message::new().event("gap").data(data).without_id()
}

/// Returns the chunk of a `gap` event between the last event that a subscriber received and the oldest event in the
/// history.
fn gap_chunk(last_id: Option<&str>, history: &History) -> Vec<u8> {
    let mut chunk = Vec::new();
    let message = gap(last_id, history.first_id_from(history.start()).as_deref());
    Framing::Chunked.push_message(&message, &mut chunk);
    chunk
}

/// Writes once, and retries only after an interruption. Returns 0 if the client's buffers are full or `bytes` is empty.
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

/// Returns the range of the chunk that contains byte `index`. `bytes` must begin with a chunk, and contain complete
/// chunks.
fn chunk_at(bytes: &[u8], index: usize) -> Range<usize> {
    let mut start = 0;
    loop {
        let size_line = bytes[start..].split(|byte| *byte == b'\r').next().unwrap_or_default();
        let size = std::str::from_utf8(size_line).ok().and_then(|line| usize::from_str_radix(line, 16).ok());
        let end = start + chunk_length(size.expect("a history has complete chunks"));
        if end > index {
            return start..end;
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::Socket;
    use super::super::output::Output;
    use super::super::settings::Lag;
    use super::*;
    use std::rc::Rc;

    /// The number of random histories. More histories would slow down the tests of a program with a copy of `src/`.
    const ROUNDS: usize = 60;

    struct Event {
        id: String,
        data: String,
        is_gap: bool,
    }

    /// A client that reconnects, and then resumes after the last id that it received in a complete frame.
    struct Client {
        cursor: Cursor,
        lag: Lag,
        begun: Rc<BegunChunks>,
        framing: Framing,
        /// The current connection. The received bytes may end with an incomplete chunk, or with an incomplete frame for
        /// HTTP/1.0.
        output: Output<Socket>,
        /// The events of all connections.
        events: Vec<Event>,
    }

    impl Client {
        fn new(cursor: Cursor, lag: Lag, begun: &Rc<BegunChunks>, framing: Framing) -> Client {
            let begun = Rc::clone(begun);
            Client { cursor, lag, begun, framing, output: Output::new(Socket::default(), framing), events: Vec::new() }
        }

        /// Tries once to send `piece` bytes of the history to a socket that takes `room` bytes.
        fn send(&mut self, history: &History, piece: usize, room: usize) {
            let base = self.cursor.offset().max(history.start());
            self.output.socket.room = room;
            let is_evicted = base > self.cursor.offset() && !self.cursor.has_unsent();
            if is_evicted && self.lag == Lag::Skip {
                self.cursor.skip(history, &mut self.output).unwrap();
                return;
            }
            if is_evicted {
                self.reconnect(history);
                return;
            }
            let (front, back) = history.since(base).unwrap();
            let end = history.chunk_end(base + piece as u64).min(history.end());
            let bytes = &[front, back].concat()[..(end - base) as usize];
            let begun = (self.lag == Lag::Skip).then_some(&*self.begun);
            if self.cursor.send(base, bytes, begun, &mut self.output).unwrap() == Progress::Pending {
                self.cursor.remember_last_id(history);
            }
        }

        fn reconnect(&mut self, history: &History) {
            self.take_events();
            self.output = Output::new(Socket::default(), self.framing);
            let last = self.events.iter().rev().find(|event| !event.is_gap);
            self.cursor = Cursor::new(history, last.map(|event| event.id.as_str()), Newcomers::FromNow);
        }

        /// Takes the complete frames out of the socket. Each frame must be an event.
        fn take_events(&mut self) {
            let text = String::from_utf8(std::mem::take(&mut self.output.socket.received)).unwrap();
            let end = if self.framing == Framing::Chunked { "\n\n\r\n" } else { "\n\n" };
            let mut frames: Vec<&str> = text.split(end).collect();
            self.output.socket.received = frames.pop().unwrap().as_bytes().to_vec();
            for mut frame in frames {
                if self.framing == Framing::Chunked {
                    let (size, text) = frame.split_once("\r\n").unwrap();
                    assert_eq!(usize::from_str_radix(size, 16), Ok(text.len() + 2), "{frame:?}");
                    frame = text;
                }
                let mut event = Event { id: String::new(), data: String::new(), is_gap: false };
                let mut data = Vec::new();
                for line in frame.lines() {
                    match line.split_once(':') {
                        Some(("id", id)) => event.id = id.trim_start().to_owned(),
                        Some(("data", line)) => data.push(line.trim_start()),
                        Some(("event", " gap")) => event.is_gap = true,
                        _ => panic!("this is not a complete frame: {frame:?}"),
                    }
                }
                event.data = data.join("\n");
                self.events.push(event);
            }
        }

        /// Checks that each event arrived once and in order, with a `gap` event exactly where events are missing. The
        /// data of event `n` is `n`. Returns the number of gaps.
        fn check(&self, ids: &[String]) -> usize {
            let mut gaps = 0;
            let mut next: Option<usize> = None;
            let mut last_id = "";
            let mut id_after_gap: Option<&str> = None;
            for event in &self.events {
                if event.is_gap {
                    let (before, after) = event.data.split_once('\n').unwrap();
                    assert!(before == last_id || before.is_empty(), "the gap is after {before}, not {last_id}");
                    id_after_gap = Some(after);
                    gaps += 1;
                    continue;
                }
                let n: usize = event.data.parse().unwrap();
                assert_eq!(event.id, ids[n]);
                if let Some(next) = next {
                    match id_after_gap {
                        None => assert_eq!(n, next, "an event was lost or sent twice, without a gap"),
                        Some(id) => assert!(n > next && id == event.id, "a gap from {next} to {n}, before {id}"),
                    }
                }
                id_after_gap = None;
                next = Some(n + 1);
                last_id = &event.id;
            }
            if next.is_some() && id_after_gap.is_none() {
                assert_eq!(next, Some(ids.len()), "the last event is missing");
            }
            gaps
        }
    }

    /// A pseudorandom number generator: xorshift64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }

        fn client(&mut self, history: &History, begun: &Rc<BegunChunks>) -> Client {
            let newcomers = if self.below(2) == 0 { Newcomers::FromNow } else { Newcomers::Last(self.below(5)) };
            let lag = if self.below(2) == 0 { Lag::Skip } else { Lag::Disconnect };
            let framing = if self.below(3) == 0 { Framing::UntilClose } else { Framing::Chunked };
            Client::new(Cursor::new(history, None, newcomers), lag, begun, framing)
        }

        fn message(&mut self, n: usize) -> Message {
            if self.below(3) == 0 {
                return Message::new().id(format_args!("own{n}")).data(n);
            }
            Message::new().data(n)
        }
    }

    #[test]
    fn slow_subscribers_that_may_skip_share_one_copy_of_an_event() {
        let mut history = History::new(10, 1_000_000);
        let begun = BegunChunks::default();
        history.append(&"before".into()).unwrap();
        history.append(&"x".repeat(100_000).into()).unwrap();
        history.append(&"after".into()).unwrap();
        let (bytes, _) = history.since(0).unwrap();
        let newcomers = Newcomers::Last(10);
        let mut slow: Vec<_> = (0..50).map(|_| Cursor::new(&history, None, newcomers)).collect();
        for (n, cursor) in slow.iter_mut().enumerate() {
            let mut socket = Socket { room: 1_000 * (n + 1), ..Socket::default() };
            assert_eq!(cursor.send(0, bytes, Some(&begun), &mut socket).unwrap(), Progress::Pending);
        }
        let carried = |cursor: &Cursor| Arc::downgrade(&cursor.carry.as_ref().unwrap().unsent.chunk);
        let shared = carried(&slow[0]);
        assert!(slow.iter().all(|cursor| carried(cursor).ptr_eq(&shared)));
        assert!(shared.upgrade().unwrap().len() < 100_100, "the copy has only this event");
        for (n, mut cursor) in slow.into_iter().enumerate() {
            let mut socket = Socket { room: usize::MAX, ..Socket::default() };
            assert_eq!(cursor.send(0, bytes, Some(&begun), &mut socket).unwrap(), Progress::UpToDate);
            assert_eq!(socket.received, bytes[1_000 * (n + 1)..]);
        }
        assert!(shared.upgrade().is_none(), "the copy is freed");
    }

    /// Appends, subscribes, sends, evicts and resumes in a random order, with writes of random sizes.
    #[test]
    fn events_in_any_interleaving_arrive_once_and_in_order_or_after_a_gap() {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut gaps = 0;
        let mut resumed = 0;
        for _ in 0..ROUNDS {
            let mut history = History::new(1 + random.below(8), 60 + random.below(200));
            let begun = Rc::default();
            let mut ids: Vec<String> = Vec::new();
            let mut clients: Vec<Client> = Vec::new();
            for _ in 0..300 {
                let action = random.below(8);
                if action == 0 && clients.len() < 6 {
                    clients.push(random.client(&history, &begun));
                    continue;
                }
                if action == 1 || action == 2 {
                    let message = random.message(ids.len());
                    ids.push(history.append(&message).unwrap().to_string());
                    continue;
                }
                if clients.is_empty() {
                    continue;
                }
                let index = random.below(clients.len());
                let client = &mut clients[index];
                if action == 3 && random.below(10) == 0 {
                    if client.events.iter().any(|event| !event.is_gap) {
                        client.reconnect(&history); // perhaps inside a frame
                        resumed += 1;
                    }
                    continue;
                }
                client.send(&history, 1 + random.below(80), random.below(50));
                client.take_events();
            }
            for client in &mut clients {
                while !client.cursor.has_sent_up_to(history.end()) {
                    client.send(&history, 1_000, 1_000);
                }
                client.take_events();
                assert_eq!(client.output.socket.received, b"", "the last frame is not complete");
                gaps += client.check(&ids);
            }
        }
        assert!(gaps > ROUNDS && resumed > ROUNDS / 3, "{gaps} gaps, {resumed} resumed");
    }
}
