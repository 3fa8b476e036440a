//! One subscriber of a channel: a non-blocking socket, and a cursor.
//!
//! ```text
//! up to date  The subscriber receives each round in one write.
//! pending     The client's buffers were full. The write is tried again, at growing intervals.
//! removed     The client has left or has taken no bytes for 30 s, the subscription or the channel has ended,
//!             or the next event was evicted and the subscriber may not skip.
//! ```

use super::cursor::{Cursor, Progress};
use super::framing::Framing;
use super::hub::{Counted, Hub};
use super::message;
use super::output::Output;
use super::server::Socket;
use super::settings::Lag;
use super::subscription::Tag;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time after which a client that takes no bytes is disconnected. The default write timeout of a stream is the
/// same.
const STALL: Duration = Duration::from_secs(30);

/// The minimum and the maximum time after which a write to full buffers is tried again. Between these bounds, the time
/// is an eighth of the time in which the client has taken no bytes. A failed write takes about 2 µs, so stalled
/// subscribers take little time.
const MIN_RETRY: Duration = Duration::from_millis(1);
const MAX_RETRY: Duration = Duration::from_millis(500);

/// The sizes of the first and the last piece that a pending subscriber is sent in one round, in bytes. The first piece
/// is small, because the client may take no bytes. After a complete piece, the next piece is four times as large. After
/// a piece of `LAST_PIECE` bytes, the broadcaster continues with the other subscribers.
const FIRST_PIECE: usize = 4 * 1024;
const LAST_PIECE: usize = 256 * 1024;

pub struct Subscriber {
    /// The socket, which is non-blocking.
    output: Output<Socket>,
    cursor: Cursor,
    /// The time of the last write, for the keep-alive comments.
    last_sent: Instant,
    /// `Some` while the client's buffers are full.
    backoff: Option<Backoff>,
    /// Is `true` if the server had begun to stop before the round was copied. The stream then ends after this round.
    stopping: bool,
    /// The time at which the subscription ends.
    until: Option<Instant>,
    tag: Option<Arc<Tag>>,
    counted: Counted,
}

#[derive(Clone, Copy)]
struct Backoff {
    /// The time of the first write that would block since the client last took bytes.
    since: Instant,
    retry_at: Instant,
}

impl Backoff {
    /// Returns the backoff after a write that would block. `before` is the current backoff, or `None` if the client has
    /// taken bytes since the last call. Returns `None` if the client has taken no bytes for `STALL`.
    fn next(before: Option<Backoff>, now: Instant) -> Option<Backoff> {
        let since = before.map_or(now, |before| before.since);
        let silence = now.saturating_duration_since(since);
        (silence < STALL).then(|| Backoff { since, retry_at: now + (silence / 8).clamp(MIN_RETRY, MAX_RETRY) })
    }
}

/// The bytes that a broadcaster sends to every subscriber that is up to date.
pub struct Round<'a> {
    pub now: Instant,
    /// The offset of the first byte.
    pub base: u64,
    pub bytes: &'a [u8],
    /// Is `true` if the channel has ended. The round then has the last bytes of the channel.
    pub ended: bool,
    /// The offset at which the previous round ended, and the id of the last event in that round. The id is `None` if
    /// subscribers may not skip.
    pub previous: (u64, Option<&'a str>),
}

/// The state of a subscriber after a round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    UpToDate,
    Pending { retry_at: Instant },
    Remove,
}

impl Subscriber {
    pub fn new(output: Output<Socket>, cursor: Cursor, counted: Counted) -> Subscriber {
        let last_sent = Instant::now();
        Subscriber { output, cursor, last_sent, backoff: None, stopping: false, until: None, tag: None, counted }
    }

    /// Limits the subscription. A subscription ends at the time `until`, or when its tag is disconnected.
    pub fn with_bounds(self, until: Option<Instant>, tag: Option<Arc<Tag>>) -> Subscriber {
        Subscriber { until, tag, ..self }
    }

    pub fn hub(&self) -> &Arc<Hub> {
        &self.counted.hub
    }

    pub fn socket(&self) -> &Socket {
        &self.output.socket
    }

    /// Checks whether the server is stopping. The caller must call this function before it copies the round. An event
    /// that was published before the stop is then in the round, and is sent before the `close` event.
    pub fn observe_stop(&mut self) {
        self.stopping = self.output.socket.observe_stop();
    }

    pub fn offset(&self) -> u64 {
        self.cursor.offset()
    }

    /// Sends the bytes that were not sent yet, up to the end of the round.
    pub fn send(&mut self, round: &Round<'_>, hub: &Hub, piece: &mut Vec<u8>) -> Outcome {
        if self.is_over() {
            self.end_stream(round.base);
            return Outcome::Remove;
        }
        if let Some(Backoff { retry_at, .. }) = self.backoff {
            if retry_at > round.now {
                return Outcome::Pending { retry_at };
            }
        }
        let end = round.base + round.bytes.len() as u64;
        if round.bytes.is_empty() && self.cursor.has_sent_up_to(end) {
            return self.finish_if_over(round, hub);
        }
        let before = self.cursor.progress_key();
        let mut progress = self.cursor.send(round.base, round.bytes, hub.begun(), &mut self.output);
        if let Ok(Progress::Evicted) = progress {
            progress = self.catch_up(round, hub, piece);
        }
        if self.cursor.progress_key() != before {
            self.last_sent = round.now;
            self.backoff = None;
        }
        match progress {
            Ok(Progress::UpToDate) => {
                self.backoff = None;
                self.finish_if_over(round, hub)
            }
            Ok(Progress::Pending) => {
                hub.remember_last_id(&mut self.cursor);
                self.backoff = Backoff::next(self.backoff, round.now);
                match self.backoff {
                    Some(Backoff { retry_at, .. }) => Outcome::Pending { retry_at },
                    None => Outcome::Remove,
                }
            }
            Ok(Progress::Evicted) | Err(_) => Outcome::Remove,
        }
    }

    /// Sends the bytes from the cursor to the end of the history, in pieces of growing size. Stops after the largest
    /// piece.
    fn catch_up(&mut self, round: &Round<'_>, hub: &Hub, piece: &mut Vec<u8>) -> io::Result<Progress> {
        let lag = hub.config().lag;
        let mut size = FIRST_PIECE;
        while size <= LAST_PIECE {
            let offset = self.cursor.offset();
            let base = hub.copy(offset, size, piece);
            if self.is_over() {
                return Ok(Progress::Evicted); // the copied events may have been published after the end
            }
            let is_evicted = base != offset;
            if is_evicted && lag != Lag::Skip {
                return Ok(Progress::Evicted); // the client reconnects, and then receives a `gap` event
            }
            let progress = if is_evicted {
                self.skip(round, hub)?
            } else {
                self.cursor.send(base, piece, hub.begun(), &mut self.output)?
            };
            let is_at_end = !is_evicted && piece.is_empty();
            if progress != Progress::UpToDate || is_at_end {
                return Ok(progress);
            }
            size *= 4;
        }
        Ok(Progress::Pending)
    }

    fn skip(&mut self, round: &Round<'_>, hub: &Hub) -> io::Result<Progress> {
        if let (offset, Some(id)) = round.previous {
            self.cursor.remember_id_at(offset, id);
        }
        hub.skip(&mut self.cursor, &mut self.output)
    }

    /// Ends the stream of a subscriber that is up to date, if the channel has ended or the server is stopping. The
    /// history of a channel that has ended contains the last chunk. If only the server is stopping, this function sends
    /// a `close` event and the last chunk.
    fn finish_if_over(&mut self, round: &Round<'_>, hub: &Hub) -> Outcome {
        if !round.ended && !self.stopping {
            return Outcome::UpToDate;
        }
        // If the channel ended after the round was copied, `catch_up` may already have sent the end of the stream.
        let mut chunks = Vec::new();
        if !round.ended && !hub.has_ended_at(self.cursor.offset()) {
            Framing::Chunked.push_message(&message::close_event(true), &mut chunks);
            Framing::Chunked.push_end(&mut chunks);
        }
        self.finish(&chunks);
        Outcome::Remove
    }

    /// Returns whether the subscription is over because of its end time or its tag. The caller must copy events first.
    /// This function reads the clock, because an event may be published after the start of a round and still be in it.
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
            || self.tag.as_ref().is_some_and(|tag| tag.is_disconnected())
    }

    /// Ends a stream whose subscription is over. Sends the last chunk if all bytes up to `end` were sent. Otherwise the
    /// client may have received a part of an event, and the stream ends without the last chunk. The client can resume
    /// in both cases.
    fn end_stream(&mut self, end: u64) {
        let mut chunks = Vec::new();
        if self.cursor.has_sent_up_to(end) {
            Framing::Chunked.push_end(&mut chunks);
        }
        self.finish(&chunks);
    }

    /// Sends the last bytes, and ends the server's half of the connection. Dropping the subscriber then closes the
    /// socket.
    fn finish(&mut self, chunks: &[u8]) {
        let _ = self.output.write(chunks);
        let _ = self.socket().shutdown(Shutdown::Write);
        self.drain_input(); // unread input would turn the close into a reset
    }

    /// Drops the client's input. Sends a keep-alive comment if all bytes up to `end` were sent, and if no bytes were
    /// sent for `keep_alive`. Returns `false` if the subscriber must be removed: the client has left, the subscription
    /// is over, or a keep-alive comment cannot be sent. If the client's buffers are full, the function tries again for
    /// the time `STALL`.
    pub fn sweep(&mut self, now: Instant, keep_alive: Duration, end: u64) -> bool {
        if !self.drain_input() {
            return false;
        }
        if self.is_over() {
            self.end_stream(end);
            return false;
        }
        if now.saturating_duration_since(self.last_sent) < keep_alive || !self.cursor.has_sent_up_to(end) {
            return true;
        }
        let mut chunk = Vec::new();
        Framing::Chunked.push_frame(message::KEEP_ALIVE, &mut chunk);
        match self.output.write(&chunk) {
            Ok(written) => {
                self.last_sent = now;
                self.backoff = None;
                written == chunk.len() // another chunk cannot follow a part of this one
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.backoff = Backoff::next(self.backoff, now);
                self.backoff.is_some()
            }
            Err(_) => false,
        }
    }

    /// Reads and drops the client's input, which has no meaning in an event stream. Returns `false` if the client has
    /// left. Also returns `false` after 64 reads with input (64 KiB), because unread input would hide the end of the
    /// input.
    fn drain_input(&mut self) -> bool {
        let mut scratch = [0; 1024];
        for _ in 0..64 {
            match self.output.socket.read(&mut scratch) {
                Ok(0) => return self.socket().is_stopping(), // if so, the server ended the input, and not the client
                Ok(_) => (),
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::History;
    use super::super::hub::End;
    use super::super::server::Registry;
    use super::super::settings::{ChannelConfig, Newcomers};
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    /// A hub with one broadcaster, and the connection of a subscriber.
    struct Fixture {
        hub: Arc<Hub>,
        registry: Arc<Registry>,
        client: TcpStream,
    }

    /// Returns a new subscriber, which is sent the whole history.
    fn subscriber() -> (Fixture, Subscriber) {
        let config = ChannelConfig { newcomers: Newcomers::Last(usize::MAX), ..ChannelConfig::default() };
        let history = History::new(config.max_events, config.max_bytes);
        let hub = Arc::new(Hub::new(config, history, None, 1));
        hub.append(|_| "event".into(), false).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
        let registry = Arc::new(Registry::default());
        let Ok(socket) = registry.join(listener.accept().unwrap().0, 1) else { panic!("there is room for one") };
        socket.set_nonblocking(true).unwrap();
        let cursor = hub.cursor(None).unwrap();
        let subscriber = Subscriber::new(Output::new(socket, Framing::Chunked), cursor, hub.count_subscriber(0));
        (Fixture { hub, registry, client }, subscriber)
    }

    impl Fixture {
        /// Copies a round from an offset.
        fn round<'a>(&self, from: u64, bytes: &'a mut Vec<u8>) -> Round<'a> {
            let copied = self.hub.copy_round(0, from, bytes);
            Round { now: Instant::now(), base: copied.base, bytes, ended: copied.ended, previous: (from, None) }
        }
    }

    #[test]
    fn event_published_after_the_end_of_the_subscription_is_not_sent() {
        let round_began = Instant::now();
        let (mut fixture, subscriber) = subscriber();
        let mut subscriber = subscriber.with_bounds(Some(Instant::now()), None);
        fixture.hub.append(|_| "too late".into(), false).unwrap();
        let mut bytes = Vec::new();
        let round = Round { now: round_began, ..fixture.round(subscriber.offset(), &mut bytes) };
        assert!(subscriber.send(&round, &fixture.hub, &mut Vec::new()) == Outcome::Remove);
        let mut received = String::new();
        fixture.client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "0\r\n\r\n");
    }

    #[test]
    fn channel_that_closes_while_the_server_stops_sends_one_close_event() {
        let (mut fixture, mut subscriber) = subscriber();
        let mut bytes = Vec::new();
        fixture.hub.copy(0, usize::MAX, &mut bytes);
        let end = bytes.len() as u64;
        let round = fixture.round(end, &mut bytes);
        fixture.registry.stop(Instant::now() + Duration::from_secs(9));
        subscriber.observe_stop();
        fixture.hub.end(End::Close); // after the round was copied, and before the subscriber receives it
        assert!(subscriber.send(&round, &fixture.hub, &mut Vec::new()) == Outcome::Remove);
        drop(subscriber);
        let mut received = String::new();
        fixture.client.read_to_string(&mut received).unwrap();
        assert_eq!(received.matches("event: close").count(), 1, "{received}");
        assert!(received.contains("data: event") && received.ends_with("\r\n0\r\n\r\n"), "{received}");
    }

    #[test]
    fn client_that_takes_no_keep_alive_is_removed_without_an_event() {
        let (fixture, mut subscriber) = subscriber();
        let mut bytes = Vec::new();
        let round = fixture.round(0, &mut bytes);
        let end = round.base + round.bytes.len() as u64;
        assert!(subscriber.send(&round, &fixture.hub, &mut Vec::new()) == Outcome::UpToDate);
        while subscriber.output.socket.write(&[b'x'; 64 * 1024]).is_ok() {}
        let keep_alive = Duration::from_secs(15);
        let start = Instant::now();
        let mut stayed = Duration::ZERO;
        while subscriber.sweep(start + stayed, keep_alive, end) {
            stayed += Duration::from_secs(5);
            assert!(stayed <= keep_alive + STALL + Duration::from_secs(10));
        }
        assert!(stayed >= keep_alive + STALL);
    }

    #[test]
    fn stalled_subscriber_is_tried_less_often_and_then_removed() {
        let start = Instant::now();
        let mut now = start;
        let mut backoff = Backoff::next(None, start);
        let mut tries = 0;
        while let Some(Backoff { retry_at, .. }) = backoff {
            assert!(retry_at - now >= MIN_RETRY && retry_at - now <= MAX_RETRY);
            now = retry_at;
            backoff = Backoff::next(backoff, now);
            tries += 1;
        }
        assert!(now - start >= STALL && now - start <= STALL + MAX_RETRY);
        assert!(tries < 150, "{tries} tries");
    }
}
