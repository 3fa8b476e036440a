//! The loop of one connection, in the thread that accepted it.
//!
//! ```text
//!        ┌──────────────────────────── keep-alive ───────────────────────────┐
//!        v                                                                   │
//! accept ──> head ──> guards ──> handler ──> rest of the body ──> response ──┤
//!             │                     │                                        │
//!             │ malformed           │ takeover_conn                          └──> close
//!             v                     v
//!        4xx, linger          somebody else's
//! ```
//!
//! A panic in guard, handler or hook is caught here: it ends one request with a 500 and one connection, and poisons
//! nothing, for nothing that is shared is locked while their code runs.

use super::body::{Body, BodyProgress, Remainder};
use super::buffered_socket::BufferedSocket;
use super::config::Config;
use super::context::Context;
use super::dispatch::Dispatcher;
use super::exchange::{Exchange, Hook};
use super::host_and_origin::{is_loopback, merge_vary};
use super::http::outgoing::{self, SendOptions};
use super::http::parse::ParsedHead;
use super::http::response::Payload;
use super::http::{Error, Headers, Method, Request, Response, StatusCode, Version};
use super::panics::catch;
use super::registry::Socket;
use super::throughput::ThroughputLimit;
use super::{linger, stderr};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// What it takes to answer requests.
#[derive(Default)]
pub struct Service {
    pub config: Config,
    pub dispatcher: Dispatcher,
    pub hook: Option<Hook>,
    /// Where the server listens, if that is one address.
    pub address: Option<IpAddr>,
}

/// What a client's kernel takes at once, so that nothing of it waits in ours.
const KERNEL_BUFFER: u64 = 16 * 1024;

/// Why a connection ends, which decides how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CloseReason {
    /// The handler took it over: not ours to end.
    TakenOver,
    /// The client is gone, or stalls: nothing can be sent any more.
    ClientGone,
    /// It was announced, and everything that the client sent was read.
    Announced,
    /// No request came for a while, or the server stops.
    Idle,
    /// The client may still be sending, and a reset would cost it the response.
    Linger,
}

/// The part of a request that is needed after its handler has consumed it.
struct RequestSummary {
    method: Option<Method>,
    path: Option<String>,
    version: Version,
    keep_alive: bool,
    started: Instant,
}

/// What went wrong with a request, and on whose side.
enum Failure {
    Server(io::Error),
    /// The client left, or reads too slowly: no reason to print a line.
    Client(io::Error),
}

impl Service {
    /// Serves one connection to its end, or until it is taken over.
    pub fn serve(&self, socket: Socket, peer: SocketAddr) {
        let address = self.address.or_else(|| socket.local_addr().ok().map(|address| address.ip()));
        let on_loopback = address.is_some_and(is_loopback);
        // It fails if the client is gone again already.
        let Ok(conn) = BufferedSocket::new(socket, peer, on_loopback, &self.config) else { return };
        let mut slot = Some(conn);
        let reason = self.serve_requests(&mut slot);
        let Some(mut conn) = slot else { return };
        let lingers = match reason {
            CloseReason::TakenOver | CloseReason::ClientGone => return,
            CloseReason::Announced => !conn.input.is_empty(),
            CloseReason::Idle => conn.poll_input(),
            CloseReason::Linger => true,
        };
        if conn.flush().is_ok() && lingers {
            linger::close(&conn.socket);
        }
    }

    /// Answers request after request. The slot is empty afterwards if a handler took the connection over.
    fn serve_requests(&self, slot: &mut Option<BufferedSocket>) -> CloseReason {
        let mut idle = self.config.read_header_timeout;
        loop {
            let Some(conn) = slot else { return CloseReason::TakenOver };
            let answered = match conn.read_head(&self.config, idle) {
                Ok(Some(head)) => self.answer(slot, head),
                Ok(None) => return CloseReason::Idle,
                Err(error) => self.refuse(conn, &RequestSummary::unknown(), error),
            };
            if let Err(reason) = answered {
                return reason;
            }
            idle = self.config.idle_timeout;
        }
    }

    /// Answers one request; `Err` if the connection ends after it.
    fn answer(&self, slot: &mut Option<BufferedSocket>, head: ParsedHead) -> Result<(), CloseReason> {
        let Some(conn) = slot else { return Err(CloseReason::TakenOver) };
        let ParsedHead { request, framing, .. } = head;
        let summary = RequestSummary::of(&request);
        let peer = conn.peer;
        let mut headers = Headers::new();
        self.dispatcher.allowed.set_cors_fields(Some(&request), &mut headers);
        let mut body = match BodyProgress::new(framing, &self.config) {
            Ok(body) => body,
            Err(error) => return self.refuse(conn, &summary, error),
        };
        let mut response = self.handle(slot, request, &mut body, &mut headers);
        let Some(conn) = slot else {
            self.report_takeover(&summary, response, peer);
            return Err(CloseReason::TakenOver);
        };
        if matches!(response.payload, Payload::TakenOver) {
            response = io::Error::other("the handler returned `no_result` of another connection").into();
        }
        let remainder = body.discard_buffered(&mut conn.input);
        let keep_alive = summary.keep_alive && remainder != Remainder::Unknown && !conn.socket.is_stopping();
        if let Err(reason) = self.send(conn, response, &summary, keep_alive, &headers) {
            // Closing a socket with unread input sends a reset.
            let is_unread = reason == CloseReason::Announced && remainder != Remainder::Nothing;
            return Err(if is_unread { CloseReason::Linger } else { reason });
        }
        let done = match remainder {
            Remainder::Nothing => conn.flush_if_large(),
            Remainder::Short => Body::new(&mut body, conn).drain(),
            Remainder::Unknown => return Err(CloseReason::Linger),
        };
        done.map_err(|_| CloseReason::ClientGone)
    }

    /// Calls guards and handler. A panic in them is a 500.
    fn handle(
        &self,
        slot: &mut Option<BufferedSocket>,
        request: Request,
        body: &mut BodyProgress,
        headers: &mut Headers,
    ) -> Response {
        let context = Context::new(slot, request, body, headers, self.config.max_taken_over);
        let response = catch(|| self.dispatcher.dispatch(context, &self.config));
        let response = response.unwrap_or_else(|| Response::from(io::Error::other("the handler panicked")).close());
        merge_vary(headers, response.headers());
        response
    }

    /// Answers a request that is malformed or too large, and ends the connection: where the next request would begin is
    /// unknown.
    fn refuse(&self, conn: &mut BufferedSocket, summary: &RequestSummary, error: Error) -> Result<(), CloseReason> {
        self.send(conn, Response::from(error).close(), summary, false, &Headers::new())
    }

    /// Sends a response and reports it; `Err` if the connection ends after it.
    fn send(
        &self,
        conn: &mut BufferedSocket,
        response: Response,
        summary: &RequestSummary,
        keep_alive: bool,
        headers: &Headers,
    ) -> Result<(), CloseReason> {
        let head_only = summary.method == Some(Method::Head);
        let options = SendOptions { version: summary.version, head_only, keep_alive, headers };
        let mut socket = ThroughputLimit::new(&mut conn.socket, self.config.write_timeout);
        let closes = response.closes();
        let status = response.status_code();
        let sent = match catch(|| outgoing::send(response, &options, &mut conn.output, &mut socket)) {
            Some(Ok(sent)) => sent,
            Some(Err(error)) => {
                self.report(conn.peer, summary, Some(status), 0, Some(Failure::Client(error)));
                return Err(CloseReason::ClientGone);
            }
            None => {
                let error = io::Error::other("the response's body panicked when it was dropped");
                self.report(conn.peer, summary, Some(status), 0, Some(Failure::Server(error)));
                return Err(CloseReason::ClientGone);
            }
        };
        self.report(conn.peer, summary, Some(sent.status), sent.body_bytes, sent.error.map(Failure::Server));
        if sent.keep_alive {
            return Ok(());
        }
        // A client that did not ask for the end may be sending its next request; and much of a large response is still
        // here, where a reset would take it away.
        if closes || summary.keep_alive || sent.body_bytes > KERNEL_BUFFER {
            return Err(CloseReason::Linger);
        }
        Err(CloseReason::Announced)
    }

    fn report_takeover(&self, summary: &RequestSummary, response: Response, peer: SocketAddr) {
        let status = response.status_code();
        let is_taken_over = matches!(response.payload, Payload::TakenOver);
        let mut error = response.cause;
        if !is_taken_over && error.is_none() {
            error = Some(io::Error::other(format!(
                "the handler took the connection over and then answered {status}, which nobody gets: return `no_result`"
            )));
        }
        self.report(peer, summary, None, 0, error.map(Failure::Server));
    }

    /// Calls the hook. Without one, a failure of the server is printed to standard error.
    fn report(
        &self,
        peer: SocketAddr,
        summary: &RequestSummary,
        status: Option<StatusCode>,
        bytes: u64,
        failure: Option<Failure>,
    ) {
        let is_ours = matches!(failure, Some(Failure::Server(_)));
        if self.hook.is_none() && !is_ours {
            return; // without asking the clock
        }
        let exchange = Exchange {
            peer,
            method: summary.method,
            path: summary.path.as_deref(),
            status,
            bytes,
            duration: summary.started.elapsed(),
            error: failure.as_ref().map(Failure::error),
        };
        match &self.hook {
            // The message of a hook that panics is on standard error; the response is on its way.
            Some(hook) => drop(catch(|| hook(&exchange))),
            None => stderr::line(format_args!("{exchange}")),
        }
    }
}

impl RequestSummary {
    fn of(request: &Request) -> RequestSummary {
        RequestSummary {
            method: Some(request.method()),
            path: Some(request.path().to_owned()),
            version: request.version(),
            keep_alive: request.wants_keep_alive(),
            started: Instant::now(),
        }
    }

    /// The summary of a head that could not be parsed.
    fn unknown() -> RequestSummary {
        RequestSummary {
            method: None,
            path: None,
            version: Version::Http11,
            keep_alive: false,
            started: Instant::now(),
        }
    }
}

impl Failure {
    fn error(&self) -> &io::Error {
        match self {
            Failure::Server(error) | Failure::Client(error) => error,
        }
    }
}
