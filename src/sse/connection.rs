//! An event stream to one client.
//!
//! A write that fails or times out may have sent a part of a frame, and the next byte would land inside that frame. So
//! the first error shuts the socket down.
//!
//! Each frame is a separate chunk, even if one write sends several frames. So a client that forwards chunk by chunk
//! never holds an event back until a later event arrives.

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

/// The media type of an event stream. Without the parameter, some clients read the stream as Latin-1.
const CONTENT_TYPE: &str = "text/event-stream; charset=utf-8";

/// The default silence before a keep-alive comment. Proxies close a connection that is silent for 30 to 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The shortest silence before a keep-alive comment. If it were shorter, a thread would spend its time on comments.
pub const MIN_KEEP_ALIVE: Duration = Duration::from_millis(10);

/// The default time that a write waits for a client that does not read. Responses have the same default.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The size at which joined messages are sent, in bytes. One write of 64 KiB costs less than two writes of 100 bytes.
const BATCH: usize = 64 * 1024;

/// The largest write, in bytes. A larger frame takes several writes, so that a client that reads slowly has the write
/// timeout for each of them.
const MAX_WRITE: usize = 2 * BATCH;

/// How many bytes a client may send while its stream lasts. [`Connection::close`] reads the same number of bytes. The
/// only useful input is a request body that the handler has not read.
const MAX_INPUT: usize = 16 * 1024 * 1024;

/// How often [`Connection::forward`] and [`Connection::wait_for`] read the client's input. They block on a channel, so
/// they cannot block on the socket.
const INPUT_INTERVAL: Duration = Duration::from_millis(500);

/// An event stream to one client. [`stream`] and [`start_connection`] create it.
///
/// - [`send_message`](Connection::send_message) sends an event. [`send_messages`](Connection::send_messages) sends many
///   events in few writes. [`send_comment`](Connection::send_comment) sends a comment, which clients skip.
/// - [`wait`](Connection::wait) is a sleep that ends early when the client leaves. [`wait_for`](Connection::wait_for)
///   waits for a value from another thread: a reply or a cancellation. [`forward`](Connection::forward) sends the
///   messages from an [`mpsc`](std::sync::mpsc) channel. All three send a keep-alive comment after 15 s of silence.
/// - [`close`](Connection::close) sends a `close` event and ends the stream. Dropping the `Connection` ends the stream
///   without an event.
///
/// Import the module and write `sse::Connection`, because [`brooklet::Connection`](server::Connection) has the same
/// name.
///
/// # Resuming
///
/// A client that lost its connection reconnects with the id of the last event that it received. This stream sends an id
/// with each event, and continues after [`last_event_id`](Connection::last_event_id):
///
/// ```
/// use brooklet::{sse, Context, Response};
/// use std::time::Duration;
///
/// fn count(ctx: Context<'_>) -> Response {
///     sse::stream(ctx, |mut events| {
///         let last: Option<u32> = events.last_event_id().and_then(|id| id.parse().ok());
///         let next = last.map_or(0, |last| u64::from(last) + 1);
///         for n in next.. {
///             events.send_message(sse::Message::new().id(n).data(n))?;
///             events.wait(Duration::from_secs(1))?;
///         }
///         Ok(())
///     })
/// }
/// ```
///
/// # The end of a stream
///
/// An `EventSource` reconnects whenever a stream ends. It stops when the page calls its `close()`, or when the response
/// is not an event stream, such as a 204.
///
/// Other clients can see whether a stream is complete. A stream that is closed or dropped is complete: for an HTTP/1.1
/// client, it ends with the last chunk (RFC 9112 7.1). The last chunk is missing if a write failed, if the client
/// stopped reading, if the closure of [`stream`] returned an error or panicked, or if the process died. Then curl exits
/// with status 18, and reading the body of a `fetch` fails in Chromium, in Firefox, in Node 22 from version
/// 22.23 and in Node 24 from version 24.21.
///
/// An HTTP/1.0 client receives no chunks, and older versions of Node do not report a missing last chunk. For these
/// clients, end the stream with [`close`](Connection::close), or with a mark in the data such as `[DONE]`.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<Stream>,
    last_event_id: Option<String>,
    out: Vec<u8>,
    keep_alive: Duration,
    last_write: Instant,
    /// The time at which the client's input was last read.
    last_read: Instant,
    /// The number of bytes that the client may still send.
    input_left: usize,
}

/// A client's connection, and the state of its stream. The stream ends when this value is dropped. [`stream`] holds a
/// second reference, because the end depends on the result of the closure.
#[derive(Debug)]
struct Stream {
    conn: server::Connection,
    framing: Framing,
    /// Nothing more may be written, because a write failed or the stream is closed.
    ended: AtomicBool,
    /// The closure failed, so the stream must end without the last chunk.
    failed: AtomicBool,
}

/// The reason why a stream ended: its client left, stopped reading or sent too much, or the server is stopping. Every
/// such error contains this type. So [`stream`] can distinguish it from an error of another stream, socket or file,
/// which may have the same kind.
#[derive(Debug)]
struct StreamEnd {
    stream: Weak<Stream>,
    error: io::Error,
}

/// Starts an event stream on a connection that was taken over. The stream can run in any thread:
///
/// ```
/// use brooklet::{sse, Connection, Context, Response};
/// use std::{io, thread, time::Duration};
///
/// fn clock(ctx: Context<'_>) -> Response {
///     let (conn, no_result) = ctx.takeover_conn();
///     thread::spawn(move || ticks(conn)); // the result of `ticks` is discarded
///     no_result
/// }
///
/// fn ticks(conn: Connection) -> io::Result<()> {
///     let mut events = sse::start_connection(conn)?;
///     for n in 0..3 {
///         events.wait(Duration::from_secs(1))?;
///         events.send_message(sse::Message::new().event("tick").id(n).data("ping"))?;
///     }
///     events.close()
/// }
/// ```
///
/// Sends the response's head and an empty comment at once. The comment is there because some proxies forward a head
/// only with the first byte of the body. So `onopen` fires in the browser before the first event. The head has the
/// fields that were set with [`Context::set_response_header`](super::super::Context::set_response_header), which
/// replace default fields of the same name.
///
/// A write to the stream waits at most 30 s for a client that does not read.
/// [`set_write_timeout`](Connection::set_write_timeout) changes that time.
///
/// # Errors
///
/// - Returns `ConnectionAborted` for a HEAD request, after it has sent the head.
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

/// Sends the head of an event stream, an empty comment, and the reconnection time if there is one, in one write.
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
        let error = io::Error::new(ErrorKind::ConnectionAborted, "the request was HEAD: the response has no events");
        return Err(server::mark_client_error(error));
    }
    Ok(conn)
}

/// Takes a request's connection over, starts an event stream on it, and calls `events` with that stream. The closure
/// runs in the calling thread, which serves only this connection. Returns the response that the handler must return.
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
/// If the closure returns `Ok`, the stream is complete and ends without a `close` event. If the closure returns an
/// error or panics, the last chunk is missing, and the client reports an error. There is one exception: if the closure
/// returns the error that reports a shutdown of the server, the stream is complete and ends with a `close` event. If
/// the closure drops the [`Connection`] earlier, the stream still ends when the closure returns.
///
/// # Errors of the closure
///
/// - An error that ended this stream is not reported. Such an error means that the client left, stopped reading or sent
///   too much, or that the server is shutting down. The methods of [`Connection`] return such errors. The closure may
///   return an error of its own whose [`source`](std::error::Error::source) is such an error.
/// - Every other error is reported to the hook [`on_response`](super::super::Server::on_response), or printed to
///   standard error if there is no hook. Examples are an error of a database, of another stream or connection, of a
///   channel that is closed, of the socket that [`tcp_stream`](Connection::tcp_stream) returns, and `InvalidInput` for
///   a message that is not valid.
pub fn stream(ctx: Context<'_>, events: impl FnOnce(Connection) -> io::Result<()>) -> Response {
    let (conn, mut no_result) = ctx.takeover_conn();
    no_result.cause = run(conn, events).err();
    no_result
}

/// Runs the closure, and records whether it failed, which decides how the stream ends. Returns the error to report.
fn run(conn: server::Connection, events: impl FnOnce(Connection) -> io::Result<()>) -> io::Result<()> {
    // An error means that the client has left, or that the request was HEAD.
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

/// Hides the mark on an error of another connection. The server would treat a marked error as an error of this client,
/// and would not print it.
fn without_mark(error: io::Error) -> io::Error {
    if server::is_client_error(&error) {
        return io::Error::new(error.kind(), error);
    }
    error
}

/// Returns whether this stream ended with the error, or with one of the error's sources.
fn is_end_of(stream: &Arc<Stream>, error: &io::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(end) = error.downcast_ref::<StreamEnd>() {
            return Weak::as_ptr(&end.stream) == Arc::as_ptr(stream);
        }
        next = match error.downcast_ref::<io::Error>() {
            // `io::Error::source` skips the inner error, and returns the source of the inner error.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}

/// Appends the head, with the fields that make the response an event stream and keep proxies from buffering it.
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
    /// Sends an event. Takes one write, unless the event is longer than 128 KiB. Blocks while the client does not read,
    /// at most for the [write timeout](Connection::set_write_timeout).
    ///
    /// The first write to a client that has just left often succeeds. [`wait`](Connection::wait) notices at once that
    /// the client has left.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` if the format cannot hold the message. Nothing was written, and the stream continues.
    /// - Returns `TimedOut` if the client stopped reading. The stream has ended.
    /// - Returns the error of the socket, of any kind, if the client has left. The stream has ended.
    /// - Returns `BrokenPipe` if the stream has already ended with an earlier error.
    pub fn send_message(&mut self, message: impl Into<Message>) -> io::Result<()> {
        let message = message.into();
        message.check()?;
        self.stream.framing.push_message(&message, &mut self.out);
        self.write()
    }

    /// Sends many events, in writes of about 64 KiB. Sends the remaining events when the iterator ends.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send_message`](Connection::send_message). If a message is not valid, the messages before
    /// it are sent.
    pub fn send_messages<M: Into<Message>>(&mut self, messages: impl IntoIterator<Item = M>) -> io::Result<()> {
        for message in messages {
            self.push(message)?;
            if self.out.len() >= BATCH {
                self.write()?;
            }
        }
        self.write()
    }

    /// Sends a comment, which clients skip. A text with line breaks is sent as several comments.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send_message`](Connection::send_message), except `InvalidInput`.
    pub fn send_comment(&mut self, text: &str) -> io::Result<()> {
        self.stream.framing.push_frame(&message::comment(text), &mut self.out);
        self.write()
    }

    /// Blocks for `duration`, or until the client leaves or the server shuts down. Sends a keep-alive comment after
    /// each 15 s without a write ([`set_keep_alive`](Connection::set_keep_alive) changes that time). Reads and drops
    /// the client's input.
    ///
    /// A client that shuts down only its sending side is treated as a client that has left.
    ///
    /// # Errors
    ///
    /// - Returns `ConnectionAborted` as soon as the client leaves.
    /// - Returns `ConnectionAborted` as soon as the server shuts down. The stream has not ended yet. Call
    ///   [`close`](Connection::close), or drop the stream. Both send the `close` event.
    /// - Returns `ConnectionAborted` if the client has sent more than 16 MiB on this stream. The stream has ended.
    /// - Returns the error of the socket, of any kind, if the connection is broken.
    /// - Returns the errors of [`send_comment`](Connection::send_comment) if a keep-alive comment cannot be sent.
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

    /// Blocks until another thread sends a value, and returns that value. Blocks at most for `duration`. Another
    /// request can send a reply to this stream in this way, or cancel it by dropping the sender. Sends keep-alive
    /// comments as [`wait`](Connection::wait) does.
    ///
    /// Receives a value at once. This method blocks on the channel and not on the socket, so it takes up to half a
    /// second to notice that the client has left or that the server is shutting down.
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
    /// - Returns the errors of [`wait`](Connection::wait) in the outer result.
    /// - Returns `Ok(Err(Timeout))` if no value arrived within `duration`.
    /// - Returns `Ok(Err(Disconnected))` if every value was received and all senders were dropped.
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

    /// Sends the messages of a [`Receiver`](std::sync::mpsc::Receiver) as events, until all its senders are dropped. Sends
    /// all messages that are waiting there with one write. Sends keep-alive comments as [`wait`](Connection::wait) does.
    ///
    /// Sends a message at once. Notices within half a second that the client has left, even if there is no message to
    /// send.
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

    /// Waits for a value until `deadline`. Also reads the client's input and sends keep-alive comments, even if the
    /// channel always has a value.
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

    /// Returns the id of the last event that the client received before it reconnected. The id is the value of the
    /// header field `Last-Event-ID`, or of `lastEventId` in the query if there is no such field. Returns `None` for a
    /// new client, and for an empty id.
    ///
    /// An id that is not UTF-8 is read as Latin-1, because many clients send header fields in Latin-1.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Returns the connection of this stream. It has the request and the client's address.
    pub fn connection(&self) -> &server::Connection {
        &self.stream.conn
    }

    /// Returns the socket, for example to set options. Shutting the socket down ends the stream without the last chunk.
    ///
    /// Bytes that the program writes to the socket break the stream, unless they are complete chunks (RFC 9112 7.1), or
    /// complete frames for an HTTP/1.0 client. [`stream`] reports an error of such a write as an error of the program.
    pub fn tcp_stream(&self) -> &TcpStream {
        self.stream.conn.tcp_stream()
    }

    /// Sets the silence after which [`wait`](Connection::wait), [`wait_for`](Connection::wait_for) and
    /// [`forward`](Connection::forward) send a keep-alive comment. The default is 15 s. A time below 10 ms counts as
    /// 10 ms. With [`Duration::MAX`], no comments are sent.
    pub fn set_keep_alive(&mut self, silence: Duration) {
        self.keep_alive = silence.max(MIN_KEEP_ALIVE);
    }

    /// Sets how long one write waits for a client that does not read. The default is 30 s. With `None`, a write waits
    /// until the kernel ends the connection, which may never happen.
    ///
    /// A client that has taken only a part of a write after this time is disconnected too. An event of more than 128
    /// KiB is sent in several writes, and each of them has this timeout.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` for [`Duration::ZERO`], as [`TcpStream::set_write_timeout`] does.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp_stream().set_write_timeout(timeout)
    }

    /// Sends an event with the name `close` and the data `close`, and ends the stream with the last chunk.
    ///
    /// On this event, a page should call the `close()` of its `EventSource`. A page that should reconnect, for example
    /// after a restart of the server, ignores the event. If the server is shutting down, the event has a random `retry`
    /// of 1 to 5 s, so that these pages do not all reconnect at once.
    ///
    /// Blocks until the client has closed the connection, or has sent nothing for a second. Blocks at most for 5 s, or
    /// until the client has sent 16 MiB.
    ///
    /// ```compile_fail,E0382
    /// fn on_and_on(mut events: brooklet::sse::Connection) -> std::io::Result<()> {
    ///     events.close()?;
    ///     events.send_message("the stream has ended") // does not compile, because `close` takes `events`
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

    /// Adds a message to the next write.
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
            let message = "the event stream ended with an earlier error: return that error, for example with `?`";
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

    /// Ends the stream after an error, because nothing may follow a part of a frame. Returns the marked error.
    fn fail(&self, error: io::Error) -> io::Error {
        self.stream.ended.store(true, Ordering::SeqCst);
        let _ = self.tcp_stream().shutdown(Shutdown::Both);
        self.mark(error)
    }

    /// Returns the error for the end of the input. The input ends when the client leaves or the server stops.
    fn end(&self) -> io::Error {
        let is_stopping = self.stream.conn.is_stopping();
        let why = if is_stopping { "the server is shutting down" } else { "the client has left" };
        self.mark(io::Error::new(ErrorKind::ConnectionAborted, why))
    }

    /// Marks an error as the end of this stream, so that it is not reported as an error of the program.
    fn mark(&self, error: io::Error) -> io::Error {
        let end = StreamEnd { stream: Arc::downgrade(&self.stream), error };
        server::mark_client_error(io::Error::new(end.error.kind(), end))
    }

    /// Waits at most `within` for input from the client, and drops it.
    ///
    /// # Errors
    ///
    /// Returns an error if the client has left or the server is stopping.
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

/// Reads and drops the client's input, which has no meaning in an event stream. Waits at most `within`, and reads once.
/// If `within` is zero, reads all input that has arrived, to find the end of the input. Returns `false`
/// at the end of the input.
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

/// The result of one read.
#[derive(PartialEq, Eq)]
enum Input {
    Some,
    Nothing,
    End,
}

/// Reads once, and drops the bytes. Returns an error if there are more than `left`.
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

/// Writes frames, in pieces of [`MAX_WRITE`] bytes. The socket's write timeout applies to each piece.
fn write_frames(socket: &TcpStream, frames: &[u8]) -> io::Result<()> {
    write_in_pieces(socket, frames, || socket.write_timeout())
}

/// Writes bytes in pieces. If a write times out after it has sent a part of its piece, the socket returns a short
/// length and no error, and the next write would wait for the timeout again. So a short write that took as long as the
/// timeout is an error.
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
    /// Ends the stream, without waiting for a client that does not read. If the server is stopping, sends a `close`
    /// event first. Without that event, a page would treat the end as a broken connection.
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
            let _ = socket.write_all(&out); // a client that does not read now does not receive the end
        }
        // Unread input, such as the body of a POST, would turn the close into a reset. So it is read and dropped.
        let _ = socket.shutdown(Shutdown::Write);
        let mut left = MAX_INPUT;
        while matches!(read_away(&mut socket, &mut left), Ok(Input::Some)) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(5);

    /// A socket that takes at most `room` bytes of each write, after a pause.
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
    fn error_of_another_connection_loses_its_mark() {
        for error in [server::mark_client_error(ErrorKind::BrokenPipe.into()), ErrorKind::BrokenPipe.into()] {
            let message = error.to_string();
            let error = without_mark(error);
            assert!(!server::is_client_error(&error));
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::BrokenPipe, message));
        }
    }

    #[test]
    fn short_write_as_long_as_the_timeout_times_out() {
        let mut slow = Slow::new(1);
        let written = write_in_pieces(&mut slow, &[0; 10], || Ok(Some(PAUSE)));
        assert_eq!((written.unwrap_err().kind(), slow.writes), (ErrorKind::TimedOut, vec![1]));
    }

    #[test]
    fn short_write_within_the_timeout_continues() {
        for timeout in [None, Some(Duration::from_secs(3600))] {
            let mut slow = Slow::new(1);
            write_in_pieces(&mut slow, &[0; 3], || Ok(timeout)).unwrap();
            assert_eq!(slow.writes, [1, 1, 1]);
        }
    }

    #[test]
    fn long_frame_has_the_timeout_for_each_piece() {
        let mut slow = Slow::new(usize::MAX);
        write_in_pieces(&mut slow, &[0; 300 * 1024], || Ok(Some(PAUSE))).unwrap();
        assert_eq!(slow.writes, [128, 128, 44].map(|kib| kib * 1024));
        let mut slow = Slow::new(100 * 1024);
        let written = write_in_pieces(&mut slow, &[0; 300 * 1024], || Ok(Some(PAUSE)));
        assert_eq!(written.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
