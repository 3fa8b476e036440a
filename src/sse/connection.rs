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
use super::last_event_id::last_event_id;
use super::message::{self, Message};
use super::server::{self, linger, Context};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::Arc;
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

/// How often [`Connection::forward`] reads the client's input while there is nothing to forward. It sleeps on a channel and
/// so cannot sleep on the socket.
const INPUT_INTERVAL: Duration = Duration::from_millis(500);

/// An event stream to one client. [`close`](Connection::close) sends a last event and ends the stream; dropping it ends
/// the stream without one.
///
/// An `EventSource` reconnects after any end until the page calls its `close()`, or the server answers 204. To other
/// clients, a stream that was closed or dropped is whole: to HTTP/1.1 it ends with the last chunk. After an error of
/// writing, after a panic, after an error that a closure of [`stream`] returns, or if the process dies, the last chunk is
/// missing, and the client gets an error. An HTTP/1.0 client cannot tell the two apart: it
/// knows that a stream was whole only from a `close` event or a mark in the data.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<Stream>,
    last_event_id: Option<String>,
    out: Vec<u8>,
    keep_alive: Duration,
    last_write: Instant,
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

/// Starts an event stream on a connection that was taken over: sends the response's head and a comment, at once, so that
/// `onopen` fires before the first event, also behind a proxy that forwards a head with the first byte of its body. The
/// fields that were set with [`Context::set_response_header`](super::super::Context::set_response_header) are sent too, and
/// win over ours.
///
/// Writes wait 30 s for a client that does not read ([`set_write_timeout`](Connection::set_write_timeout)).
///
/// # Errors
///
/// - Returns the error of writing.
/// - Returns `ConnectionAborted` for a HEAD request, to which the head is the whole answer.
pub fn start_connection(conn: server::Connection) -> io::Result<Connection> {
    let conn = start_response(conn, None)?;
    let framing = Framing::of(conn.request());
    let last_event_id = last_event_id(conn.request());
    let stream = Stream { conn, framing, ended: AtomicBool::new(false), failed: AtomicBool::new(false) };
    Ok(Connection {
        stream: Arc::new(stream),
        last_event_id,
        out: Vec::new(),
        keep_alive: KEEP_ALIVE,
        last_write: Instant::now(),
    })
}

/// Sends the head of an event stream, and in the same write a comment and the delay before the client reconnects.
pub fn start_response(mut conn: server::Connection, retry: Option<Duration>) -> io::Result<server::Connection> {
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
    conn.write_all(&out)?;
    if is_head {
        linger::close(conn.tcp_stream());
        return Err(io::Error::new(ErrorKind::ConnectionAborted, "the request was HEAD: its answer has no events"));
    }
    Ok(conn)
}

/// Takes a request's connection over and runs `events` on it, in the thread that this is called in: a thread for this
/// stream alone, for the server has one for each connection. Returns what the handler is to return.
///
/// If the closure returns `Ok`, the stream ends as a whole one, as after [`close`](Connection::close) but without an event. If
/// it returns an error or panics, the last chunk is missing, and the client gets an error; except if the error is that the
/// server is shutting down, and the stream ends with a `close` event. A [`Connection`] that the closure drops earlier ends
/// when the closure returns.
///
/// An error that means that the client is gone is as good an end as any. Others, a field that was refused for example, are
/// reported to [`on_response`](super::super::Server::on_response), or printed to standard error where there is none.
pub fn stream(ctx: Context<'_>, events: impl FnOnce(Connection) -> io::Result<()>) -> Response {
    let (conn, mut no_result) = ctx.takeover_conn();
    no_result.cause = run(conn, events).err().filter(|error| !is_gone(error));
    no_result
}

/// Runs the closure, and then ends the stream as its result says, if the closure has not given it to another thread.
fn run(conn: server::Connection, events: impl FnOnce(Connection) -> io::Result<()>) -> io::Result<()> {
    let connection = start_connection(conn)?;
    let stream = Arc::clone(&connection.stream);
    let result = events(connection);
    if let Err(error) = &result {
        let is_stop = error.kind() == ErrorKind::ConnectionAborted && stream.conn.is_stopping();
        stream.failed.store(!is_stop, Ordering::SeqCst);
    }
    result
}

/// Whether an error means no more than that the client went away, as clients do.
fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::*;
    server::is_client_error(error)
        || matches!(error.kind(), ConnectionAborted | ConnectionReset | BrokenPipe | NotConnected | TimedOut)
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
    // No `Connection: close` for chunks: with it, Node's `fetch` takes an end without the last chunk for a whole one. The
    // connection ends with the stream all the same, and a client may close too once it has the last chunk.
    out.extend_from_slice(match framing {
        Framing::Chunked => b"Transfer-Encoding: chunked\r\n\r\n".as_slice(),
        Framing::UntilClose => b"Connection: close\r\n\r\n",
    });
}

impl Connection {
    /// Sends an event, with one write. Blocks while the client does not read, up to the write timeout.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a message that the format cannot hold: nothing was written, and the stream goes on. Any other
    /// error means that the client is gone, or is as good as gone, and the stream has ended. The first write to a client
    /// that just left often succeeds; [`wait`](Connection::wait) finds out at once.
    pub fn send_message(&mut self, message: impl Into<Message>) -> io::Result<()> {
        let message = message.into();
        message.check()?;
        self.stream.framing.push_message(&message, &mut self.out);
        self.write()
    }

    /// Sends many events, joined into writes of 64 KiB; the last of them when the iterator ends.
    ///
    /// # Errors
    ///
    /// As [`send_message`](Connection::send_message). What came before a message that is refused is sent.
    pub fn send_messages<M: Into<Message>>(&mut self, messages: impl IntoIterator<Item = M>) -> io::Result<()> {
        for message in messages {
            self.push(message)?;
            if self.out.len() >= BATCH {
                self.write()?;
            }
        }
        self.write()
    }

    /// Sends a comment, which clients skip. Line breaks make it several.
    ///
    /// # Errors
    ///
    /// As [`send_message`](Connection::send_message).
    pub fn send_comment(&mut self, text: &str) -> io::Result<()> {
        self.stream.framing.push_frame(&message::comment(text), &mut self.out);
        self.write()
    }

    /// Sleeps, but only as long as somebody listens. Sends a keep-alive comment whenever nothing was sent for 15 s
    /// ([`set_keep_alive`](Connection::set_keep_alive)).
    ///
    /// # Errors
    ///
    /// `ConnectionAborted` as soon as the client leaves, or the server shuts down. In the second case the stream is
    /// still good: [`close`](Connection::close) it, or drop it, which then does the same.
    pub fn wait(&mut self, duration: Duration) -> io::Result<()> {
        let deadline = Instant::now().checked_add(duration);
        loop {
            let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            self.drain_input(left.min(self.until_keep_alive()))?;
            self.send_keep_alive_if_due()?;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(());
            }
        }
    }

    /// Sends what comes out of a channel: each time everything that waits in it, in one write; a keep-alive comment when
    /// nothing does. Returns when all senders are gone. A client that leaves is noticed by the next write, or within half a
    /// second if there is none.
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
    /// As [`wait`](Connection::wait) and [`send_messages`](Connection::send_messages).
    pub fn forward<M: Into<Message>>(&mut self, messages: &Receiver<M>) -> io::Result<()> {
        loop {
            match messages.recv_timeout(INPUT_INTERVAL.min(self.until_keep_alive())) {
                Ok(message) => {
                    self.push(message)?;
                    while self.out.len() < BATCH {
                        let Ok(message) = messages.try_recv() else { break };
                        self.push(message)?;
                    }
                    self.write()?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.drain_input(Duration::ZERO)?;
                    self.send_keep_alive_if_due()?;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.stream.conn.is_stopping() {
                return Err(end_error(true));
            }
        }
    }

    /// Returns the id of the last event that a client which reconnects has received: that in its `Last-Event-ID`, or else
    /// in `lastEventId` in the query. Returns `None` for a new client, and if the id is empty.
    ///
    /// An id that is not UTF-8 is read as Latin-1, in which many clients send their header fields.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Returns the connection beneath: the request, the client's address, the socket.
    pub fn connection(&self) -> &server::Connection {
        &self.stream.conn
    }

    /// Returns the socket, to set its options, or to shut it down and so end the stream as one that is not whole. Bytes
    /// that are written to it directly break the stream unless they are whole chunks (RFC 9112 7.1), or whole frames
    /// to an HTTP/1.0 client.
    pub fn tcp_stream(&self) -> &TcpStream {
        self.stream.conn.tcp_stream()
    }

    /// Sets after how long a silence [`wait`](Connection::wait) and [`forward`](Connection::forward) send a keep-alive
    /// comment. Default: 15 s. At least 10 ms. [`Duration::MAX`] for never.
    pub fn set_keep_alive(&mut self, silence: Duration) {
        self.keep_alive = silence.max(MIN_KEEP_ALIVE);
    }

    /// Sets how long a write waits for a client that does not read; `None` for as long as TCP does. Default: 30 s.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` for [`Duration::ZERO`], as [`TcpStream::set_write_timeout`].
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp_stream().set_write_timeout(timeout)
    }

    /// Sends an event named `close`, with `close` as its data, on which a page calls the `close()` of its `EventSource`, and ends
    /// the stream with the last chunk. If the server is shutting down, the event has a `retry` of 1 to 5 s for pages that do
    /// not call it, another one for each client. Blocks until the client has closed too, or has sent nothing for a second;
    /// at most for 5 s or 16 MiB of input.
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
    /// As [`send_message`](Connection::send_message).
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
            return Err(io::Error::new(ErrorKind::BrokenPipe, message));
        }
        if self.out.is_empty() {
            return Ok(());
        }
        let written = self.tcp_stream().write_all(&self.out);
        self.out.clear();
        self.last_write = Instant::now();
        written.map_err(|error| self.fail(error))
    }

    /// Ends the stream after an error, because nothing may follow half a frame. Returns the error for the caller.
    fn fail(&mut self, error: io::Error) -> io::Error {
        self.stream.ended.store(true, Ordering::SeqCst);
        let _ = self.tcp_stream().shutdown(Shutdown::Both);
        match error.kind() {
            ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "the client stopped reading"),
            _ => server::mark_client_error(error),
        }
    }

    /// Waits at most `within` for input of the client, and drops it: it has no meaning in an event stream. Returns an error
    /// if the client left or the server stops.
    fn drain_input(&mut self, within: Duration) -> io::Result<()> {
        let mut scratch = [0; 512];
        let read = if within.is_zero() {
            self.tcp_stream().set_nonblocking(true)?;
            let read = self.tcp_stream().read(&mut scratch);
            self.tcp_stream().set_nonblocking(false)?;
            read
        } else {
            self.tcp_stream().set_read_timeout(Some(within))?;
            self.tcp_stream().read(&mut scratch)
        };
        let error = match read {
            Ok(0) => return Err(end_error(self.stream.conn.is_stopping())),
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
            _ => Err(self.fail(error)),
        }
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

fn end_error(stopping: bool) -> io::Error {
    let why = if stopping { "the server is shutting down" } else { "the client has left" };
    io::Error::new(ErrorKind::ConnectionAborted, why)
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
        while matches!(socket.read(&mut [0; 4 * 1024]), Ok(1..)) {}
    }
}
