//! One event stream to one client.
//!
//! A frame is whole or the connection is dead: a write that failed or timed out may have sent a part of the frame, and the
//! next byte would land in the middle of it. So the first error shuts the socket down.
//!
//! Each frame is a chunk of its own, also if several are joined into one write: a client that passes on chunk by chunk does
//! not hold an event back until a later one has arrived.

use super::framing::Framing;
use super::http::outgoing::{push_date, push_status_line};
use super::http::{Method, Response, StatusCode};
use super::message::{self, Message};
use super::server::{self, linger, Context};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The standard registers the parameter with this one value. Without it, some clients read the stream as Latin-1.
const CONTENT_TYPE: &str = "text/event-stream; charset=utf-8";

/// Proxies give up on a connection that is silent for 30 to 60 seconds, browsers not at all.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// More frequent keep-alives would leave a thread no time for anything else.
pub const MIN_KEEP_ALIVE: Duration = Duration::from_millis(10);

/// What a write waits for a client that does not read; the server's own default.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Joined messages go out when they come to this: one write of 64 KiB costs less than two of 100 bytes.
const BATCH: usize = 64 * 1024;

/// A larger frame goes out in writes of this size, so that a client which reads slowly has the write timeout for each of them.
const MAX_WRITE: usize = 2 * BATCH;

/// How much a client may send in the whole time of its stream: as much as [`Connection::close`] reads. Only a body that the
/// handler did not read comes here with good reason.
const MAX_INPUT: usize = 16 * 1024 * 1024;

/// How often [`Connection::forward`] and [`Connection::wait_for`] read the client's input. They sleep on a channel and so
/// cannot sleep on the socket.
const INPUT_INTERVAL: Duration = Duration::from_millis(500);

/// An event stream to one client. [`close`](Connection::close) sends a last event and ends the stream; dropping it ends
/// the stream without one.
///
/// Import the module and write `sse::Connection`, because [`brooklet::Connection`](server::Connection) has the same name.
///
/// An `EventSource` reconnects after any end until the page calls its `close()`, or the server answers 204. To other
/// clients, a stream that was closed or dropped is whole: to HTTP/1.1 it ends with the last chunk. After an error of
/// writing, after a panic, after an error that a closure of [`stream`] returns, or if the process dies, the last chunk is
/// missing, and the client gets an error. An HTTP/1.0 client cannot tell the two apart, and
/// neither can the `fetch` of Node before 22.23 and 24.21.
/// They know that a stream was whole only from a `close` event or a mark in the data.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<Stream>,
    last_event_id: Option<String>,
    out: Vec<u8>,
    keep_alive: Duration,
    last_write: Instant,
    /// When the client's input was last read.
    last_read: Instant,
    /// How many bytes the client may still send.
    input_left: usize,
}

/// The client's connection, and how its stream ends. It ends when this is dropped: by the [`Connection`], or later by
/// [`stream`], because only that knows whether the closure has failed.
#[derive(Debug)]
struct Stream {
    conn: server::Connection,
    framing: Framing,
    /// Nothing more may be written: it failed once, or the stream is closed.
    ended: AtomicBool,
    /// The closure has failed: the client must not take the stream for a whole one.
    failed: AtomicBool,
}

/// Why a stream ended: its own client left, stalled or sent without end, or the server stops. Every such error has this in it,
/// so that [`stream`] can tell it from the errors of other streams, sockets and files, which have the same kinds.
#[derive(Debug)]
struct StreamEnd {
    stream: Weak<Stream>,
    error: io::Error,
}

/// Starts an event stream on a connection that was taken over. Sends the response's head and a comment at once, so that
/// `onopen` fires before the first event, also behind a proxy that forwards a head with the first byte of its body. The
/// fields that were set with [`Context::set_response_header`](super::super::Context::set_response_header) are sent too, and
/// replace the default ones of the same name.
///
/// From then on, writes wait 30 s for a client that does not read: see
/// [`set_write_timeout`](Connection::set_write_timeout).
///
/// # Errors
///
/// - Returns `ConnectionAborted` for a HEAD request. It was answered with the head.
/// - Returns the error of the socket, of any kind, if the client has left.
pub fn start_connection(conn: server::Connection) -> io::Result<Connection> {
    let conn = start_response(conn, None)?;
    let framing = Framing::of(conn.request());
    let last_event_id = conn.request().last_event_id();
    let stream = Stream { conn, framing, ended: AtomicBool::new(false), failed: AtomicBool::new(false) };
    Ok(Connection {
        stream: Arc::new(stream),
        last_event_id,
        out: Vec::new(),
        keep_alive: KEEP_ALIVE,
        last_write: Instant::now(),
        last_read: Instant::now(),
        input_left: MAX_INPUT,
    })
}

/// Sends the head of an event stream, and in the same write a comment and the delay before the client reconnects.
pub fn start_response(conn: server::Connection, retry: Option<Duration>) -> io::Result<server::Connection> {
    let framing = Framing::of(conn.request());
    let mut out = Vec::with_capacity(512);
    push_head(&conn, framing, &mut out);
    conn.tcp_stream().set_write_timeout(Some(WRITE_TIMEOUT))?;
    let is_head = conn.request().method() == Method::Head;
    if !is_head {
        framing.push_frame(message::KEEP_ALIVE, &mut out);
        if let Some(retry) = retry {
            framing.push_message(&Message::new().retry(retry), &mut out);
        }
    }
    write_frames(conn.tcp_stream(), &out).map_err(server::mark_client_error)?;
    if is_head {
        linger::close(conn.tcp_stream());
        let error = io::Error::new(ErrorKind::ConnectionAborted, "the request was HEAD: its answer has no events");
        return Err(server::mark_client_error(error));
    }
    Ok(conn)
}

/// Takes a request's connection over, starts an event stream on it, and runs `events` with that stream. The closure runs in the
/// calling thread, which serves this connection alone. Returns the response that the handler must return.
///
/// The closure cannot borrow from the context. Copy what it needs first:
///
/// ```
/// # use brooklet::{sse, Context, Response};
/// fn room(ctx: Context<'_>) -> Response {
///     let name = ctx.param("room").to_owned();
///     sse::stream(ctx, move |mut events| {
///         events.send_message(format!("welcome to {name}"))?;
///         events.close()
///     })
/// }
/// ```
///
/// If the closure returns `Ok`, the stream ends as a whole one, as after [`close`](Connection::close) but without an event. If
/// it returns an error or panics, the last chunk is missing, and the client gets an error. There is one exception: the error
/// that reports a shutdown of the server ends the stream with a `close` event. A [`Connection`] that the closure drops
/// earlier ends when the closure returns.
///
/// # Errors of the closure
///
/// - An error with which this stream ended is an ordinary end, and is not reported: its client left, stalled or sent too much,
///   or the server is shutting down. The methods of [`Connection`] return such errors. They may be wrapped in another error
///   that returns them from [`source`](std::error::Error::source).
/// - Every other error is reported to [`on_response`](super::super::Server::on_response), or printed to standard error without
///   such a hook, whatever its kind. Examples are an error of a database, of another stream or connection, of a channel that is
///   closed, of the bare [`tcp_stream`](Connection::tcp_stream), and `InvalidInput` for a message that was refused.
pub fn stream(ctx: Context<'_>, events: impl FnOnce(Connection) -> io::Result<()>) -> Response {
    let (conn, mut no_result) = ctx.takeover_conn();
    no_result.cause = run(conn, events).err();
    no_result
}

/// Runs the closure, and then ends the stream as its result says, if the closure has not given it to another thread. Returns
/// the error to report.
fn run(conn: server::Connection, events: impl FnOnce(Connection) -> io::Result<()>) -> io::Result<()> {
    // Otherwise the client has left, or has asked for the head alone.
    let Ok(connection) = start_connection(conn) else { return Ok(()) };
    let stream = Arc::clone(&connection.stream);
    let Err(error) = events(connection) else { return Ok(()) };
    let is_end = is_end_of(&stream, &error);
    let is_stop = is_end && stream.conn.is_stopping();
    stream.failed.store(!is_stop, Ordering::SeqCst);
    if is_end {
        return Ok(());
    }
    Err(without_mark(error))
}

/// Hides the mark of another connection's error, which the server would take for one of this client and not print.
fn without_mark(error: io::Error) -> io::Error {
    if server::is_client_error(&error) {
        return io::Error::new(error.kind(), error);
    }
    error
}

/// Whether this stream ended with the error, or with one of its sources.
fn is_end_of(stream: &Arc<Stream>, error: &io::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(end) = error.downcast_ref::<StreamEnd>() {
            return Weak::as_ptr(&end.stream) == Arc::as_ptr(stream);
        }
        next = match error.downcast_ref::<io::Error>() {
            // Its `source` would leave out the error that is in it, and return the source of that error.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}

/// The fields that make an event stream of a response, and keep proxies from holding it back.
fn push_head(conn: &server::Connection, framing: Framing, out: &mut Vec<u8>) {
    const OURS: [(&str, &str); 3] =
        [("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-cache, no-transform"), ("X-Accel-Buffering", "no")];
    push_status_line(out, StatusCode::OK);
    if !conn.response_headers().contains("date") {
        push_date(out);
    }
    for (name, value) in OURS.iter().filter(|(name, _)| !conn.response_headers().contains(name)) {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(conn.response_headers().section());
    if framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(b"Connection: close\r\n\r\n");
}

impl Connection {
    /// Sends an event, with one write unless it is longer than 128 KiB. Blocks while the client does not read, up to the
    /// [write timeout](Connection::set_write_timeout).
    ///
    /// The first write to a client that just left often succeeds; [`wait`](Connection::wait) notices the end at once.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` for a message that the format cannot hold. Nothing was written, and the stream goes on.
    /// - Returns `TimedOut` if the client stopped reading. The stream has ended.
    /// - Returns the error of the socket, of any kind, if the client has left. The stream has ended.
    /// - Returns `BrokenPipe` if the stream has ended with an earlier error.
    pub fn send_message(&mut self, message: impl Into<Message>) -> io::Result<()> {
        let message = message.into();
        message.check()?;
        self.stream.framing.push_message(&message, &mut self.out);
        self.write()
    }

    /// Sends many events, joined into writes of 64 KiB. The last of them are sent when the iterator ends.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send_message`](Connection::send_message). The messages before one that is refused are sent.
    pub fn send_messages<M: Into<Message>>(&mut self, messages: impl IntoIterator<Item = M>) -> io::Result<()> {
        for message in messages {
            self.push(message)?;
            if self.out.len() >= BATCH {
                self.write()?;
            }
        }
        self.write()
    }

    /// Sends a comment, which clients skip. A text with line breaks becomes several comments.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send_message`](Connection::send_message), except `InvalidInput`.
    pub fn send_comment(&mut self, text: &str) -> io::Result<()> {
        self.stream.framing.push_frame(&message::comment(text), &mut self.out);
        self.write()
    }

    /// Blocks for `duration`, or until the client leaves or the server stops. Sends a keep-alive comment whenever nothing was
    /// sent for 15 s ([`set_keep_alive`](Connection::set_keep_alive)). Reads the client's input and drops it.
    ///
    /// A client that has ended only its sending half counts as one that has left.
    ///
    /// # Errors
    ///
    /// - Returns `ConnectionAborted` as soon as the client leaves.
    /// - Returns `ConnectionAborted` as soon as the server shuts down. The stream has not ended then: end it with
    ///   [`close`](Connection::close), or drop it, which sends the `close` event too.
    /// - Returns `ConnectionAborted` if the client has sent more than 16 MiB on this stream. The stream has ended.
    /// - Returns the error of the socket, of any kind, if the connection is broken.
    /// - Returns the errors of [`send_comment`](Connection::send_comment), if a keep-alive comment cannot be sent.
    pub fn wait(&mut self, duration: Duration) -> io::Result<()> {
        let deadline = Instant::now().checked_add(duration);
        loop {
            self.drain_input(time_until(deadline).min(self.until_keep_alive()))?;
            self.send_keep_alive_if_due()?;
            if time_until(deadline).is_zero() {
                return Ok(());
            }
        }
    }

    /// Blocks until another thread sends a value, and returns that value: a [`wait`](Connection::wait) that another thread can
    /// end. A reply that arrives with another request wakes a stream in this way, and so does a cancellation: drop the
    /// sender. Sends keep-alive comments as `wait` does.
    ///
    /// A value is received at once. This thread sleeps on the channel and not on the socket, so it notices within half a
    /// second that the client has left or that the server is shutting down.
    ///
    /// ```
    /// # use brooklet::{sse, Context, Response};
    /// use std::sync::mpsc::{Receiver, RecvTimeoutError};
    /// use std::time::Duration;
    ///
    /// fn ask(ctx: Context<'_>, answers: Receiver<String>) -> Response {
    ///     sse::stream(ctx, move |mut events| {
    ///         events.send_message("continue?")?;
    ///         match events.wait_for(&answers, Duration::from_secs(60))? {
    ///             Ok(answer) => events.send_message(answer)?,
    ///             Err(RecvTimeoutError::Timeout) => events.send_message("no answer came")?,
    ///             Err(RecvTimeoutError::Disconnected) => events.send_message("canceled")?,
    ///         }
    ///         events.close()
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The outer result is `Err` with the errors of [`wait`](Connection::wait). The inner result has the
    /// errors of [`recv_timeout`](Receiver::recv_timeout):
    ///
    /// - Returns `Ok(Err(Timeout))` if no value came within `duration`.
    /// - Returns `Ok(Err(Disconnected))` if all senders are gone and every value was received.
    pub fn wait_for<T>(
        &mut self,
        receiver: &Receiver<T>,
        duration: Duration,
    ) -> io::Result<Result<T, RecvTimeoutError>> {
        if self.stream.conn.is_stopping() {
            return Err(self.end());
        }
        self.receive(receiver, Instant::now().checked_add(duration))
    }

    /// Sends the messages that come out of a channel: each time all that are waiting in it, in one write. Sends keep-alive
    /// comments as [`wait`](Connection::wait) does. Returns when all senders are gone, so another thread ends it by dropping
    /// the sender.
    ///
    /// A message is sent at once. The next write notices that the client has left; if there is none, this notices it within
    /// half a second.
    ///
    /// ```
    /// # use brooklet::{sse, Context, Response};
    /// fn progress(ctx: Context<'_>) -> Response {
    ///     let (sender, steps) = std::sync::mpsc::channel();
    ///     std::thread::spawn(move || (0..=100).try_for_each(|percent| sender.send(format!("{percent} %"))));
    ///     sse::stream(ctx, |mut events| {
    ///         events.forward(&steps)?;
    ///         events.close()
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`wait`](Connection::wait).
    /// - Returns the errors of [`send_messages`](Connection::send_messages).
    pub fn forward<M: Into<Message>>(&mut self, messages: &Receiver<M>) -> io::Result<()> {
        while let Ok(message) = self.receive(messages, None)? {
            self.push(message)?;
            while self.out.len() < BATCH {
                let Ok(message) = messages.try_recv() else { break };
                self.push(message)?;
            }
            self.write()?;
            if self.stream.conn.is_stopping() {
                return Err(self.end());
            }
        }
        Ok(())
    }

    /// Waits for a value until `deadline`. Looks for the end of the client's input, and sends keep-alive comments, also if
    /// values come all the time and the program sends nothing for them.
    fn receive<T>(
        &mut self,
        receiver: &Receiver<T>,
        deadline: Option<Instant>,
    ) -> io::Result<Result<T, RecvTimeoutError>> {
        loop {
            if self.until_input().is_zero() {
                self.drain_input(Duration::ZERO)?;
            }
            self.send_keep_alive_if_due()?;
            let within = time_until(deadline).min(self.until_keep_alive()).min(self.until_input());
            let received = receiver.recv_timeout(within);
            if !matches!(received, Err(RecvTimeoutError::Timeout)) || time_until(deadline).is_zero() {
                return Ok(received);
            }
        }
    }

    /// Returns the id of the last event that the client received before it reconnected: the value of `Last-Event-ID`, or
    /// without that field the value of `lastEventId` in the query. Returns `None` for a new client, and for an empty id.
    ///
    /// An id that is not UTF-8 is read as Latin-1, in which many clients send their header fields.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Returns the connection of this stream, which has the request and the client's address.
    pub fn connection(&self) -> &server::Connection {
        &self.stream.conn
    }

    /// Returns the socket. Use it to set options; or to shut the socket down, which ends the stream as one that is not whole.
    ///
    /// Bytes that are written to the socket break the stream unless they are whole chunks (RFC 9112 7.1), or whole frames to
    /// an HTTP/1.0 client. [`stream`] reports an error of the socket itself as an error of the program.
    pub fn tcp_stream(&self) -> &TcpStream {
        self.stream.conn.tcp_stream()
    }

    /// Sets the silence after which [`wait`](Connection::wait), [`wait_for`](Connection::wait_for) and
    /// [`forward`](Connection::forward) send a keep-alive comment. The default is 15 s, and the least is 10 ms. With
    /// [`Duration::MAX`] they send none.
    pub fn set_keep_alive(&mut self, silence: Duration) {
        self.keep_alive = silence.max(MIN_KEEP_ALIVE);
    }

    /// Sets how long one write waits for a client that does not read. The default is 30 s. With `None` it waits until TCP
    /// gives up, which may be never.
    ///
    /// A client that takes only a part of a write in this time is disconnected too: a client that stops reading is disconnected
    /// after one timeout. An event of more than 128 KiB has the timeout for each 128 KiB.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` for [`Duration::ZERO`], as [`TcpStream::set_write_timeout`] does.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp_stream().set_write_timeout(timeout)
    }

    /// Sends an event named `close`, with `close` as its data, and ends the stream with the last chunk. A page calls the
    /// `close()` of its `EventSource` on this event. Other pages reconnect: if the server is shutting down, the event
    /// has a random `retry` of 1 to 5 s, which spreads these reconnections.
    ///
    /// Blocks until the client has closed the connection too, or has sent nothing for a second; at most for 5 s or 16 MiB of
    /// input.
    ///
    /// ```compile_fail,E0382
    /// fn on_and_on(mut events: brooklet::sse::Connection) -> std::io::Result<()> {
    ///     events.close()?;
    ///     events.send_message("nothing comes after the end")
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send_message`](Connection::send_message), except `InvalidInput`.
    pub fn close(mut self) -> io::Result<()> {
        let message = message::close_event(self.stream.conn.is_stopping());
        self.stream.framing.push_message(&message, &mut self.out);
        self.stream.framing.push_end(&mut self.out);
        self.write()?;
        self.stream.ended.store(true, Ordering::SeqCst);
        linger::close(self.tcp_stream());
        Ok(())
    }

    /// Adds a message to those that the next write sends.
    fn push(&mut self, message: impl Into<Message>) -> io::Result<()> {
        let message = message.into();
        if let Err(refused) = message.check() {
            self.write()?;
            return Err(refused);
        }
        self.stream.framing.push_message(&message, &mut self.out);
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.stream.ended.load(Ordering::SeqCst) {
            self.out.clear();
            let message = "the event stream has ended with an earlier error: hand that one on with `?`";
            return Err(self.mark(io::Error::new(ErrorKind::BrokenPipe, message)));
        }
        if self.out.is_empty() {
            return Ok(());
        }
        let written = write_frames(self.tcp_stream(), &self.out);
        self.out.clear();
        self.last_write = Instant::now();
        written.map_err(|error| self.fail(error))
    }

    /// Ends the stream after an error, because nothing may follow half a frame. Returns the error for the caller.
    fn fail(&self, error: io::Error) -> io::Error {
        self.stream.ended.store(true, Ordering::SeqCst);
        let _ = self.tcp_stream().shutdown(Shutdown::Both);
        self.mark(error)
    }

    /// The error for a client that ended its input, or a server that did so to stop.
    fn end(&self) -> io::Error {
        let is_stopping = self.stream.conn.is_stopping();
        let why = if is_stopping { "the server is shutting down" } else { "the client has left" };
        self.mark(io::Error::new(ErrorKind::ConnectionAborted, why))
    }

    /// Marks an error as an end of this stream, and as no fault of the program.
    fn mark(&self, error: io::Error) -> io::Error {
        let end = StreamEnd { stream: Arc::downgrade(&self.stream), error };
        server::mark_client_error(io::Error::new(end.error.kind(), end))
    }

    /// Waits at most `within` for input of the client, and drops it. Returns an error if the client left or the server stops.
    fn drain_input(&mut self, within: Duration) -> io::Result<()> {
        let drained = drain(self.stream.conn.tcp_stream(), within, &mut self.input_left);
        self.last_read = Instant::now();
        match drained {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.end()),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn until_input(&self) -> Duration {
        INPUT_INTERVAL.saturating_sub(self.last_read.elapsed())
    }

    fn until_keep_alive(&self) -> Duration {
        self.keep_alive.saturating_sub(self.last_write.elapsed())
    }

    fn send_keep_alive_if_due(&mut self) -> io::Result<()> {
        if self.until_keep_alive().is_zero() {
            self.send_comment("")?;
        }
        Ok(())
    }
}

fn time_until(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Reads and drops the client's input, which has no meaning in an event stream: once, after a wait of at most `within`; or
/// without a wait everything that has arrived, because the end of the input comes after it. Returns `false` at that end.
fn drain(mut socket: &TcpStream, within: Duration, left: &mut usize) -> io::Result<bool> {
    let waits = !within.is_zero();
    if waits {
        socket.set_read_timeout(Some(within))?;
        return read_away(&mut socket, left).map(|input| input != Input::End);
    }
    socket.set_nonblocking(true)?;
    let input = loop {
        match read_away(&mut socket, left) {
            Ok(Input::Some) => (),
            input => break input,
        }
    };
    socket.set_nonblocking(false)?;
    input.map(|input| input != Input::End)
}

/// The result of a read.
#[derive(PartialEq, Eq)]
enum Input {
    Some,
    Nothing,
    End,
}

/// Reads once, and drops what was read; fails if that is more than is `left`.
fn read_away(socket: &mut impl Read, left: &mut usize) -> io::Result<Input> {
    match socket.read(&mut [0; 2 * 1024]) {
        Ok(0) => Ok(Input::End),
        Ok(read) if read > *left => {
            Err(io::Error::new(ErrorKind::ConnectionAborted, "the client sent more than 16 MiB on an event stream"))
        }
        Ok(read) => {
            *left -= read;
            Ok(Input::Some)
        }
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(Input::Nothing),
            _ => Err(error),
        },
    }
}

/// Writes frames. A slow client has the socket's write timeout for each piece of them.
fn write_frames(socket: &TcpStream, frames: &[u8]) -> io::Result<()> {
    write_in_pieces(socket, frames, || socket.write_timeout())
}

/// A write that times out in the middle of its piece succeeds with a short length, and the next write would wait for as long
/// again. So a write that took the timeout and moved only a part of its piece is a timeout.
fn write_in_pieces(
    mut socket: impl Write,
    bytes: &[u8],
    timeout: impl Fn() -> io::Result<Option<Duration>>,
) -> io::Result<()> {
    let stopped_reading = || io::Error::new(ErrorKind::TimedOut, "the client stopped reading");
    for mut piece in bytes.chunks(MAX_WRITE) {
        while !piece.is_empty() {
            let started = Instant::now();
            match socket.write(piece) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => piece = &piece[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(stopped_reading()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let elapsed = started.elapsed();
            if !piece.is_empty() && timeout()?.is_some_and(|timeout| elapsed >= timeout) {
                return Err(stopped_reading());
            }
        }
    }
    Ok(())
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for StreamEnd {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Drop for Stream {
    /// Ends the stream, without waiting for a client that is not reading. A stream that ends because the server stops ends
    /// with a `close` event, because otherwise a page takes its end for a broken connection.
    fn drop(&mut self) {
        let mut socket = self.conn.tcp_stream();
        if self.ended.load(Ordering::SeqCst) || socket.set_nonblocking(true).is_err() {
            return;
        }
        if !self.failed.load(Ordering::SeqCst) && !thread::panicking() {
            let mut out = Vec::new();
            if self.conn.is_stopping() {
                self.framing.push_message(&message::close_event(true), &mut out);
            }
            self.framing.push_end(&mut out);
            let _ = socket.write_all(&out); // the client is left without the end if it does not take it now
        }
        // What the client sent, the body of a POST say, is read away: unread, it would turn the close into a reset.
        let _ = socket.shutdown(Shutdown::Write);
        let mut left = MAX_INPUT;
        while matches!(read_away(&mut socket, &mut left), Ok(Input::Some)) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(5);

    /// Takes at most `room` bytes with each write, after a pause.
    struct Slow {
        room: usize,
        writes: Vec<usize>,
    }

    impl Slow {
        fn new(room: usize) -> Slow {
            Slow { room, writes: Vec::new() }
        }
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            thread::sleep(PAUSE);
            let taken = bytes.len().min(self.room);
            self.writes.push(taken);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn error_of_another_connection_is_not_taken_for_one_of_the_client() {
        for error in [server::mark_client_error(ErrorKind::BrokenPipe.into()), ErrorKind::BrokenPipe.into()] {
            let message = error.to_string();
            let error = without_mark(error);
            assert!(!server::is_client_error(&error));
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::BrokenPipe, message));
        }
    }

    #[test]
    fn write_that_takes_its_time_and_moves_a_part_times_out() {
        let mut slow = Slow::new(1);
        let written = write_in_pieces(&mut slow, &[0; 10], || Ok(Some(PAUSE)));
        assert_eq!((written.unwrap_err().kind(), slow.writes), (ErrorKind::TimedOut, vec![1]));
    }

    #[test]
    fn write_that_moves_a_part_in_time_goes_on() {
        for timeout in [None, Some(Duration::from_secs(3600))] {
            let mut slow = Slow::new(1);
            write_in_pieces(&mut slow, &[0; 3], || Ok(timeout)).unwrap();
            assert_eq!(slow.writes, [1, 1, 1]);
        }
    }

    #[test]
    fn long_frame_has_the_timeout_for_each_128_kib() {
        let mut slow = Slow::new(usize::MAX);
        write_in_pieces(&mut slow, &[0; 300 * 1024], || Ok(Some(PAUSE))).unwrap();
        assert_eq!(slow.writes, [128, 128, 44].map(|kib| kib * 1024));
        let mut slow = Slow::new(100 * 1024);
        let written = write_in_pieces(&mut slow, &[0; 300 * 1024], || Ok(Some(PAUSE)));
        assert_eq!(written.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
