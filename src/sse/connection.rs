//! An event stream to one client.
//!
//! A write that fails or times out may have sent only a part of a frame, and the bytes of a later write would continue
//! this part. So the first error shuts the socket down.
//!
//! Each frame is a separate chunk, even if one write sends several frames. So a proxy that forwards chunk by chunk does
//! not delay an event until a later event arrives.

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

/// The media type of an event stream. Without the parameter `charset`, some clients read the stream as Latin-1.
const CONTENT_TYPE: &str = "text/event-stream; charset=utf-8";

/// The default time without a write before a keep-alive comment. Many proxies close a connection after 30 to 60 s of
/// silence.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The shortest time without a write before a keep-alive comment. With a shorter time, a thread would be busy with
/// comments.
pub const MIN_KEEP_ALIVE: Duration = Duration::from_millis(10);

/// The maximum time of a write to a client that does not read, by default. The default of `Config::write_timeout` is
/// the same.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of bytes at which collected messages are written. One write of 64 KiB takes less time than two writes of
/// 100 bytes.
const BATCH: usize = 64 * 1024;

/// The largest write, in bytes. More bytes take several writes. So a client that reads slowly has the whole write
/// timeout for each of these writes.
const MAX_WRITE: usize = 2 * BATCH;

/// The maximum number of bytes that a client may send during its stream. [`Connection::close`] has the same limit. The
/// only expected input is a request body that the handler has not read.
const MAX_INPUT: usize = 16 * 1024 * 1024;

/// The time between two reads of the client's input by [`Connection::forward`] and [`Connection::wait_for`]. These
/// methods block on a receiver, so they cannot block on the socket.
const INPUT_INTERVAL: Duration = Duration::from_millis(500);

/// An event stream to one client. [`start_connection`] returns a `Connection`, and [`stream`] calls a closure with a
/// `Connection`.
///
/// - [`send_message`](Connection::send_message) sends an event. [`send_messages`](Connection::send_messages) sends many
///   events in few writes. [`send_comment`](Connection::send_comment) sends a comment, which clients skip.
/// - [`wait`](Connection::wait) sleeps, and returns an error early if the client leaves or the server shuts down.
///   [`wait_for`](Connection::wait_for) waits for a value from another thread, such as a reply.
///   [`forward`](Connection::forward) sends the messages of a [`Receiver`](std::sync::mpsc::Receiver). These three
///   methods send a keep-alive comment after 15 s without a write.
/// - [`close`](Connection::close) sends a `close` event and ends the stream. Dropping the `Connection` ends the stream
///   without this event, unless the server is shutting down.
///
/// Import the module and write `sse::Connection`, because [`brooklet::Connection`](server::Connection) has the same
/// name.
///
/// # Resuming
///
/// When a client reconnects, it sends the id of the last event that it received. The handler in this example gives each
/// event an id, and continues after the event whose id [`last_event_id`](Connection::last_event_id) returns:
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
/// An `EventSource` reconnects when a stream ends, even if the stream is complete. An `EventSource` stops reconnecting
/// if the page calls `close()`, or if the response is not an event stream, such as a 204.
///
/// Other clients can see whether a stream is complete. For an HTTP/1.1 client, a stream that the program closes or
/// drops ends with the last chunk (RFC 9112 7.1). The last chunk is missing in these cases:
///
/// - A write has failed, or the client has stopped reading.
/// - The closure of [`stream`] has panicked, or has returned an error that does not report a shutdown of the server.
/// - The process has died.
///
/// If the last chunk is missing, curl exits with status 18. Reading the body of a `fetch` then fails in Chromium, in
/// Firefox, in Node 22 from version 22.23 on, and in Node 24 from version 24.21 on.
///
/// An HTTP/1.0 client receives no chunks, and older versions of Node do not report a missing last chunk. To show such
/// clients that a stream is complete, call [`close`](Connection::close), or send a last event with data such as
/// `[DONE]`.
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

/// A client's connection, and the state of the stream on this connection. The stream ends when this value is dropped.
/// The function [`stream`] holds a second reference until the closure has returned, because the result of the closure
/// decides how the stream ends.
#[derive(Debug)]
struct Stream {
    conn: server::Connection,
    framing: Framing,
    /// Is `true` if nothing more may be written, because of an earlier error or because the stream is closed.
    ended: AtomicBool,
    /// Is `true` if the closure returned an error and the stream must end without the last chunk.
    failed: AtomicBool,
}

/// An error that ends a stream: the client left, stopped reading or sent too much, or the server is stopping. Every
/// such error contains this type. So [`stream`] can distinguish such an error from an error of another stream, socket
/// or file with the same kind.
#[derive(Debug)]
struct StreamEnd {
    stream: Weak<Stream>,
    error: io::Error,
}

/// Starts an event stream on a connection that was taken over. The stream can run in any thread. In this example, each
/// stream has a thread of its own:
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
/// Sends the response's head and an empty comment before the function returns. Some proxies forward a head only
/// together with the first byte of the body. With the comment, `onopen` fires in the browser before the first event.
/// The head contains the fields that were set with
/// [`Context::set_response_header`](super::super::Context::set_response_header). These fields replace default fields of
/// the same name.
///
/// A write to the stream waits at most 30 s for a client that does not read.
/// [`set_write_timeout`](Connection::set_write_timeout) changes that time.
///
/// # Errors
///
/// - Returns `ConnectionAborted` for a HEAD request, after the head was sent.
/// - Returns the error of the socket, of any kind, if the head cannot be sent, for example because the client has left.
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

/// Sends the head of an event stream, an empty comment, and the reconnection time if there is one, in one write. For a
/// HEAD request, sends only the head, and returns an error.
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

/// Takes over the connection of a request, starts an event stream, and calls the closure `events` with this stream. The
/// closure runs in the calling thread, which serves only this connection. Does not call the closure if the client has
/// left, if the request was HEAD, or if [`max_taken_over`](super::super::Config::max_taken_over) connections are
/// already taken over. Returns the response that the handler must return.
///
/// The closure cannot borrow from the context. Before the call, copy the values that the closure needs:
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
/// If the closure returns `Ok`, the stream is complete, unless a write has failed. The stream then ends without a
/// `close` event, unless the server is shutting down. If the closure returns an error or panics, the last chunk is
/// missing, and an HTTP/1.1 client can report an error. There is one exception. If the closure returns the error that
/// reports a shutdown of the server, the stream is complete and ends with a `close` event. If the closure drops the
/// [`Connection`], the stream still ends only when the closure returns.
///
/// # Errors of the closure
///
/// - An error that ended this stream is not reported. Such an error means that the client left, stopped reading or sent
///   too much, or that the server is shutting down. The methods of [`Connection`] return such errors. If a
///   [`source`](std::error::Error::source) of the returned error is such an error, the returned error is also not
///   reported.
/// - Every other error is reported to the hook [`on_response`](super::super::Server::on_response), or printed to
///   standard error if there is no hook. Examples are an error of a database, of another stream, of a closed channel,
///   or of the socket that [`tcp_stream`](Connection::tcp_stream) returns. Another example is the error `InvalidInput`
///   for a message that is not valid.
pub fn stream(ctx: Context<'_>, events: impl FnOnce(Connection) -> io::Result<()>) -> Response {
    let (conn, mut no_result) = ctx.takeover_conn();
    no_result.cause = run(conn, events).err();
    no_result
}

/// Calls the closure, and records whether the stream must end without the last chunk. Returns the error that the server
/// must report.
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

/// Hides the mark of an error of another connection. The server would treat a marked error as an error of this client,
/// and would not report the error.
fn without_mark(error: io::Error) -> io::Error {
    if server::is_client_error(&error) {
        return io::Error::new(error.kind(), error);
    }
    error
}

/// Returns whether this stream ended with `error`, or with one of the sources of `error`.
fn is_end_of(stream: &Arc<Stream>, error: &io::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(end) = error.downcast_ref::<StreamEnd>() {
            return Weak::as_ptr(&end.stream) == Arc::as_ptr(stream);
        }
        next = match error.downcast_ref::<io::Error>() {
            // `io::Error::source` returns the source of the inner error, and not the inner error itself.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    false
}

/// Appends the head of an event stream. Some fields of the head keep proxies from buffering the stream.
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
    /// Sends an event. An event of more than 128 KiB is sent in several writes. Each write blocks while the client does
    /// not read, at most for the [write timeout](Connection::set_write_timeout).
    ///
    /// The first write to a client that has just left often succeeds. [`wait`](Connection::wait) notices at once that
    /// the client has left.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` if the message is not valid. Nothing was written, and the stream continues.
    /// - Returns `TimedOut` if a write is not complete after the write timeout. The stream has ended.
    /// - Returns the error of the socket, of any kind, if the client has left. The stream has ended.
    /// - Returns `BrokenPipe` if the stream has already ended with an earlier error.
    pub fn send_message(&mut self, message: impl Into<Message>) -> io::Result<()> {
        let message = message.into();
        message.check()?;
        self.stream.framing.push_message(&message, &mut self.out);
        self.write()
    }

    /// Sends all events of an iterator. Collects at least 64 KiB of events before each write, except before the last
    /// write.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send_message`](Connection::send_message). If a message is not valid, all earlier
    /// messages are sent.
    pub fn send_messages<M: Into<Message>>(&mut self, messages: impl IntoIterator<Item = M>) -> io::Result<()> {
        for message in messages {
            self.push(message)?;
            if self.out.len() >= BATCH {
                self.write()?;
            }
        }
        self.write()
    }

    /// Sends a comment, which clients skip. Each line of the text is sent as a separate comment.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send_message`](Connection::send_message), except `InvalidInput`.
    pub fn send_comment(&mut self, text: &str) -> io::Result<()> {
        self.stream.framing.push_frame(&message::comment(text), &mut self.out);
        self.write()
    }

    /// Blocks for `duration`, or until the client leaves or the server shuts down. Sends a keep-alive comment after
    /// each 15 s without a write. [`set_keep_alive`](Connection::set_keep_alive) changes this time. Reads and drops the
    /// client's input.
    ///
    /// A client that shuts down only its sending side is treated as a client that has left.
    ///
    /// # Errors
    ///
    /// - Returns `ConnectionAborted` as soon as the client closes its connection.
    /// - Returns `ConnectionAborted` as soon as the server shuts down. The stream has not ended yet.
    ///   [Closing](Connection::close) or dropping the `Connection` then sends a `close` event, and ends the stream.
    /// - Returns `ConnectionAborted` if the client has sent more than 16 MiB on this stream. The stream has ended.
    /// - Returns the error of the socket, of any kind, if the connection is broken, for example by a reset. The stream
    ///   has ended.
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

    /// Blocks until another thread sends a value, at most for `duration`. Returns the value. For example, the handler
    /// of another request can send a reply, or drop the sender to report a cancellation. Sends keep-alive comments as
    /// [`wait`](Connection::wait) does.
    ///
    /// Returns as soon as a value arrives. Notices within half a second that the client has left or that the server is
    /// shutting down. In contrast, [`wait`](Connection::wait) returns at once in these cases.
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
    /// - Returns the errors of [`wait`](Connection::wait) as the outer `Err`.
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

    /// Sends the messages of a [`Receiver`](std::sync::mpsc::Receiver) as events, until all its senders are dropped.
    /// Joins the messages that are already waiting into writes of about 64 KiB. Sends keep-alive comments as
    /// [`wait`](Connection::wait) does.
    ///
    /// Does not wait for further messages before a write. Notices within half a second that the client has left or that
    /// the server is shutting down, even if no message arrives.
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
    /// receiver always has a value.
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
    /// header field `Last-Event-ID`. If this field is missing or empty, the id is the value of `lastEventId` in the
    /// query. Returns `None` if both values are missing or empty, or if the value in the query contains a line break or
    /// NUL.
    ///
    /// A field that is not UTF-8 is read as Latin-1, because many clients send header fields in Latin-1.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Returns the connection of this stream, for example for the request and the client's address.
    pub fn connection(&self) -> &server::Connection {
        &self.stream.conn
    }

    /// Returns the socket, for example to set options. Shutting the socket down ends the stream without the last chunk.
    ///
    /// Bytes that the program writes to the socket break the stream, unless these bytes are complete chunks (RFC 9112
    /// 7.1). For an HTTP/1.0 client, write complete frames instead. If a write to this socket fails, and the closure
    /// of [`stream`] returns the error, the error is reported as an error of the program.
    pub fn tcp_stream(&self) -> &TcpStream {
        self.stream.conn.tcp_stream()
    }

    /// Sets the time without a write after which [`wait`](Connection::wait), [`wait_for`](Connection::wait_for) and
    /// [`forward`](Connection::forward) send a keep-alive comment. The default is 15 s. A time below 10 ms counts as 10
    /// ms. With [`Duration::MAX`], no keep-alive comments are sent.
    pub fn set_keep_alive(&mut self, silence: Duration) {
        self.keep_alive = silence.max(MIN_KEEP_ALIVE);
    }

    /// Sets the maximum time that one write waits for a client that does not read. The default is 30 s. With `None`, a
    /// write has no time limit, and may block forever.
    ///
    /// A client that has received only a part of a write after this time is also disconnected. An event of more than
    /// 128 KiB is sent in several writes, and this timeout applies to each write.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` for [`Duration::ZERO`], as [`TcpStream::set_write_timeout`] does.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp_stream().set_write_timeout(timeout)
    }

    /// Sends an event with the name `close` and the data `close`, and ends the stream with the last chunk.
    ///
    /// When this event arrives, a page should call `close()` on its `EventSource`. If a page ignores this event, the
    /// `EventSource` reconnects, which is useful after a restart of the server. If the server is shutting down, the
    /// event has a random `retry` of 1 to 5 s, so that not all clients reconnect at once.
    ///
    /// Writes the event as [`send_message`](Connection::send_message) does. Then blocks until the client has closed the
    /// connection, has sent nothing for 1 s, or has sent 16 MiB. This second step takes at most 6 s.
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

    /// Adds a message to the next write. If the message is not valid, writes the earlier messages and returns an error.
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

    /// Marks an error as the end of this stream, so that [`stream`] does not report the error.
    fn mark(&self, error: io::Error) -> io::Error {
        let end = StreamEnd { stream: Arc::downgrade(&self.stream), error };
        server::mark_client_error(io::Error::new(end.error.kind(), end))
    }

    /// Waits at most `within` for input from the client, and drops the input.
    ///
    /// # Errors
    ///
    /// Returns an error if the client has left, if the server is stopping, or if the client has sent too much.
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
/// If `within` is zero, does not wait, and reads all input that has arrived. Returns `false` if the input has ended.
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

/// Reads once, and drops the bytes. Returns an error after a read of more than `left` bytes.
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

/// Writes frames, in pieces of at most [`MAX_WRITE`] bytes. The socket's write timeout applies to each piece.
fn write_frames(socket: &TcpStream, frames: &[u8]) -> io::Result<()> {
    write_in_pieces(socket, frames, || socket.write_timeout())
}

/// Writes bytes in pieces. A write may time out after the kernel has taken a part of the piece. The write then returns
/// the length of this part and no error, and the next write would wait for the whole timeout again. So this function
/// returns `TimedOut` after a short write that took at least as long as the timeout.
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
    /// event first. Without this event, a page could not distinguish a shutdown from a broken connection.
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
        // Unread input, such as the body of a POST, would make the kernel send a reset. So this function reads and
        // drops the input.
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
