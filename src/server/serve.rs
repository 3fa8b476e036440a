//! The loop that serves one connection. The loop runs in the thread that accepted the connection.
//!
//! ```text
//!        ┌──────────────────────────── keep-alive ───────────────────────────┐
//!        v                                                                   │
//! accept ──> head ──> guards ──> handler ──> response ──> hook ──> rest of ──┤
//!             │                     │                             the body   │
//!             │ malformed           │ takeover_conn                          └──> close
//!             v                     v
//!        error, linger        the program's
//! ```
//!
//! The server writes the whole response before it calls the hook, so that the client does not wait for the hook.
//!
//! A panic in a guard, handler or hook is caught here. After a panic in a guard or handler, the response is a 500 and
//! the connection ends. The server holds no lock while it calls the program's code. So a panic in that code poisons no
//! lock.

use super::body::{Body, BodyProgress, Remainder};
use super::buffered_socket::BufferedSocket;
use super::client_error::is_client_error;
use super::config::Config;
use super::context::Context;
use super::dispatch::Dispatcher;
use super::exchange::{Exchange, Hook};
use super::host_and_origin::{is_loopback, HostAndOrigin};
use super::http::outgoing::{self, SendError, SendOptions};
use super::http::parse::ParsedHead;
use super::http::response::Payload;
use super::http::{Error, Headers, Method, Request, Response, StatusCode, Version};
use super::panics::catch;
use super::problem::{self, ErrorForm};
use super::registry::Socket;
use super::stderr::{self, Throttle};
use super::throughput::ThroughputLimit;
use super::{linger, refusal};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Instant;

/// The settings, the routes and the functions of the program that all threads use to answer requests.
#[derive(Default)]
pub struct Service {
    pub config: Config,
    pub dispatcher: Dispatcher,
    pub hook: Option<Hook>,
    pub form: Option<ErrorForm>,
    /// The address that the server listens on. `None` if the server listens on all addresses of the machine.
    pub address: Option<IpAddr>,
    /// The throttles for the messages about refused clients. Each of the two limits has a throttle.
    pub max_connections_lines: Throttle,
    pub max_taken_over_lines: Throttle,
}

/// The length in bytes up to which a response body fits into the buffers of most clients' kernels. A part of a longer
/// body may wait in the server's kernel.
const KERNEL_BUFFER: u64 = 16 * 1024;

/// The error that is reported for a 500 without a cause. Other 5xx responses, such as a 503, are not errors of the
/// program.
const NO_CAUSE: &str = "the handler returned a 500 without a cause; add one with Response::with_cause";

/// The reason why a connection ends. The reason decides how the server closes the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CloseReason {
    /// The handler took the connection over, so the server does not close it.
    TakenOver,
    /// The server can send nothing more, because the client is gone or does not read, or because the response's body
    /// panicked.
    ClientGone,
    /// A response announced the end of the connection, and the client had asked for this end. The server lingers only
    /// if the buffer contains unread input.
    Announced,
    /// The client left before the first byte of a request, no request arrived in time, or the server stops.
    Idle,
    /// The client may still send data, or a part of the response may wait in the server's kernel. If the server closed
    /// the socket at once, the kernel could send a reset. A reset can destroy the response.
    Linger,
}

/// A request that is reported to the hook.
struct Incoming<'r> {
    /// `None` if the head cannot be parsed.
    request: Option<&'r Request>,
    /// The time at which the server finished parsing the head, or began to refuse the client.
    started: Instant,
}

/// An error of one request. If the program has set no hook, the variant decides whether the server prints the error to
/// standard error.
enum Failure<'s> {
    /// An error of the program. The server prints this error.
    Server(io::Error),
    /// An error of the client: the client left, reads too slowly, or sent a request that is answered with a 4xx. The
    /// server does not print this error.
    Client(io::Error),
    /// A limit of [`Config`] that was reached. The server prints this error at most once per minute, because many
    /// clients may be refused at the same time.
    Limit(io::Error, &'s Throttle),
}

impl Service {
    /// Serves one connection until the connection ends or a handler takes it over.
    pub fn serve(&self, socket: Socket, peer: SocketAddr) {
        let address = self.address.or_else(|| socket.local_addr().ok().map(|address| address.ip()));
        let on_loopback = may_be_loopback(address);
        // This call fails if the client has already left.
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
        if lingers {
            linger::close(&conn.socket);
        }
    }

    /// Answers the requests of a connection, one after another. Returns the reason why the connection ends. If a
    /// handler took the connection over, the slot is empty after this call.
    fn serve_requests(&self, slot: &mut Option<BufferedSocket>) -> CloseReason {
        let mut idle = self.config.read_header_timeout;
        loop {
            let Some(conn) = slot else { return CloseReason::TakenOver };
            let answered = match conn.read_head(&self.config, idle) {
                Ok(Some(head)) => self.answer(slot, head),
                Ok(None) => return CloseReason::Idle,
                Err(error) => self.refuse_unparsed(conn, error),
            };
            if let Err(reason) = answered {
                return reason;
            }
            idle = self.config.idle_timeout;
        }
    }

    /// Answers one request. Returns `Err` if no further request can follow on the connection.
    fn answer(&self, slot: &mut Option<BufferedSocket>, head: ParsedHead) -> Result<(), CloseReason> {
        let Some(conn) = slot else { return Err(CloseReason::TakenOver) };
        let ParsedHead { request, framing, .. } = head;
        let incoming = Incoming { request: Some(&request), started: Instant::now() };
        let peer = conn.peer;
        let mut headers = self.cors_fields(request.headers().get("origin"));
        let mut body = BodyProgress::new(framing, &self.config);
        let mut response = self.handle(slot, &request, &mut body, &mut headers);
        let Some(conn) = slot else {
            self.report_takeover(&incoming, response, peer);
            return Err(CloseReason::TakenOver);
        };
        if matches!(response.payload, Payload::TakenOver | Payload::Refused(_)) {
            response = io::Error::other("the handler returned the `no_result` of another connection").into();
        }
        let remainder = body.discard_buffered(&mut conn.input);
        let keep_alive = request.wants_keep_alive() && remainder != Remainder::Unknown && !conn.socket.is_stopping();
        if let Err(reason) = self.send(conn, response, &incoming, keep_alive, headers) {
            // Closing a socket with unread input sends a reset.
            let is_unread = reason == CloseReason::Announced && remainder != Remainder::Nothing;
            return Err(if is_unread { CloseReason::Linger } else { reason });
        }
        match remainder {
            Remainder::Nothing => Ok(()),
            Remainder::Short => Body::new(&mut body, conn).drain().map_err(|_| CloseReason::ClientGone),
            Remainder::Unknown => Err(CloseReason::Linger),
        }
    }

    /// Runs the checks, the guards and the handler. Returns a 500 if a guard or the handler panics.
    fn handle(
        &self,
        slot: &mut Option<BufferedSocket>,
        request: &Request,
        body: &mut BodyProgress,
        headers: &mut Headers,
    ) -> Response {
        let context = Context::new(slot, request, body, headers, self.form.as_ref(), self.config.max_taken_over);
        let response = catch(|| self.dispatcher.dispatch(context, &self.config));
        response.unwrap_or_else(|| Response::from(io::Error::other("the handler panicked")).close())
    }

    /// Returns the CORS fields for a response to a request from this origin. Error responses also have these fields.
    /// Without CORS fields, a page receives "Failed to fetch" instead of the status.
    fn cors_fields(&self, origin: Option<&str>) -> Headers {
        let mut headers = Headers::new();
        self.dispatcher.allowed.set_cors_fields(origin, &mut headers);
        headers
    }

    /// Answers a head that is malformed, too large or too slow, and ends the connection.
    fn refuse_unparsed(&self, conn: &mut BufferedSocket, error: Error) -> Result<(), CloseReason> {
        let headers = self.cors_fields(refusal::origin(conn.input.data()));
        let incoming = Incoming { request: None, started: Instant::now() };
        // The connection ends, because the server cannot find the beginning of the next request.
        self.send(conn, Response::from(error).close(), &incoming, false, headers)
    }

    /// Sends a response, and reports the exchange. Returns `Err` if the connection ends after the response.
    fn send(
        &self,
        conn: &mut BufferedSocket,
        response: Response,
        incoming: &Incoming<'_>,
        keep_alive: bool,
        mut headers: Headers,
    ) -> Result<(), CloseReason> {
        let mut response = problem::complete(self.form.as_ref(), response, incoming.request, &mut headers);
        let head_only = incoming.request.map(Request::method) == Some(Method::Head);
        let version = incoming.request.map_or(Version::Http11, Request::version);
        let options = SendOptions { version, head_only, keep_alive, headers: &headers };
        let mut socket = ThroughputLimit::new(&mut conn.socket, self.config.write_timeout);
        let closes = response.closes();
        let status = response.status_code();
        // The cause is moved out of the response, because the server reports the cause even if the response is replaced
        // or cannot be sent.
        let cause = response.cause.take().map(|error| match status.as_u16() {
            400..=499 => Failure::Client(error),
            _ => Failure::of(error),
        });
        let out = &mut conn.scratch;
        let send = || match outgoing::try_send(response, &options, out, &mut socket) {
            Ok(sent) => Ok(sent),
            Err(SendError::Socket(error)) => Err(error),
            Err(SendError::Unsent(error)) => {
                let response = problem::apply(self.form.as_ref(), error.into(), incoming.request, &headers);
                outgoing::send(response, &options, out, &mut socket)
            }
        };
        let sent = match catch(send) {
            Some(Ok(sent)) => sent,
            Some(Err(error)) => {
                let failure = cause.unwrap_or(Failure::Client(error));
                self.report(conn.peer, incoming, Some(status), 0, Some(failure));
                return Err(CloseReason::ClientGone);
            }
            None => {
                let error = io::Error::other("the response's body panicked when it was dropped");
                self.report(conn.peer, incoming, Some(status), 0, Some(Failure::Server(error)));
                return Err(CloseReason::ClientGone);
            }
        };
        // The server reports only one error of a response. An error of the program in `cause` has priority over an
        // error of the body, because the error in `cause` occurred first.
        let failure = match cause {
            Some(Failure::Server(_)) => cause,
            _ => sent.error.map(Failure::of).or(cause),
        };
        let failure = match failure {
            None if sent.status == StatusCode::INTERNAL_SERVER_ERROR => {
                Some(Failure::Server(io::Error::other(NO_CAUSE)))
            }
            failure => failure,
        };
        if !sent.keep_alive {
            // A client may need the end of the connection to find the end of the response. So the server ends its half
            // of the connection before it reports the exchange. Without this end, a client that has sent more than the
            // request receives a reset, and reports an error.
            let _ = conn.socket.shutdown(Shutdown::Write);
        }
        self.report(conn.peer, incoming, Some(sent.status), sent.body_bytes, failure);
        if sent.keep_alive {
            return Ok(());
        }
        // A client that wants to keep the connection may already send the next request. A part of a large response may
        // still be in the server's kernel. In both cases, a reset could destroy the response.
        let wants_keep_alive = incoming.request.is_some_and(Request::wants_keep_alive);
        if closes || wants_keep_alive || sent.body_bytes > KERNEL_BUFFER {
            return Err(CloseReason::Linger);
        }
        Err(CloseReason::Announced)
    }

    fn report_takeover(&self, incoming: &Incoming<'_>, response: Response, peer: SocketAddr) {
        let status = response.status_code();
        match response.payload {
            Payload::TakenOver => self.report(peer, incoming, None, 0, response.cause.map(Failure::of)),
            Payload::Refused(bytes) => {
                let max = self.config.max_taken_over;
                let message = format!("Config::max_taken_over is {max}, and this limit is reached");
                let failure = Failure::Limit(io::Error::other(message), &self.max_taken_over_lines);
                self.report(peer, incoming, Some(status), bytes, Some(failure));
            }
            _ => {
                let error = response.cause.unwrap_or_else(|| {
                    io::Error::other(format!(
                        "the handler took the connection over and then returned a response ({status}), which was not \
                         sent; return `no_result` instead"
                    ))
                });
                self.report(peer, incoming, None, 0, Some(Failure::of(error)));
            }
        }
    }

    /// Refuses a connection beyond `max_connections`. `refuse` sends the 503, and returns the length of the body in
    /// bytes.
    pub fn refuse_connection(&self, peer: SocketAddr, refuse: impl FnOnce(&HostAndOrigin) -> u64) {
        let incoming = Incoming { request: None, started: Instant::now() };
        let bytes = refuse(&self.dispatcher.allowed);
        let max = self.config.max_connections;
        let message = format!("Config::max_connections is {max}, and this limit is reached");
        let failure = Failure::Limit(io::Error::other(message), &self.max_connections_lines);
        self.report(peer, &incoming, Some(StatusCode::SERVICE_UNAVAILABLE), bytes, Some(failure));
    }

    /// Calls the hook. If there is no hook, prints an error of the program or a limit that was reached to standard
    /// error.
    fn report(
        &self,
        peer: SocketAddr,
        incoming: &Incoming<'_>,
        status: Option<StatusCode>,
        bytes: u64,
        failure: Option<Failure<'_>>,
    ) {
        if self.hook.is_none() && matches!(failure, None | Some(Failure::Client(_))) {
            return; // returns before the clock is read, because there is nothing to print
        }
        let exchange = Exchange {
            peer,
            request: incoming.request,
            method: incoming.request.map(Request::method),
            path: incoming.request.map(Request::path),
            status,
            bytes,
            duration: incoming.started.elapsed(),
            error: failure.as_ref().map(Failure::error),
        };
        // The hook may panic. The error may contain an error of the program whose `Display` or `Drop` panics.
        catch(|| match (&self.hook, &failure) {
            (Some(hook), _) => hook(&exchange),
            (None, Some(Failure::Limit(_, throttle))) => {
                throttle.line(format_args!("{exchange}. This message is printed at most once a minute."));
            }
            (None, _) => stderr::line(format_args!("{exchange}")),
        });
        catch(|| drop(failure));
    }
}

/// Returns whether `address`, the server's address of a connection, may be a loopback address. Returns `true` if the
/// address is unknown, so that the server checks the `Host`.
fn may_be_loopback(address: Option<IpAddr>) -> bool {
    address.map_or(true, is_loopback)
}

impl Failure<'_> {
    /// Returns `Client` for an error of the client's socket, and `Server` for any other error.
    fn of(error: io::Error) -> Self {
        if is_client_error(&error) {
            return Failure::Client(error);
        }
        Failure::Server(error)
    }

    fn error(&self) -> &io::Error {
        match self {
            Failure::Server(error) | Failure::Client(error) | Failure::Limit(error, _) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn host_check_with_an_unknown_address_is_on() {
        assert!(may_be_loopback(None));
        assert!(may_be_loopback(Some(Ipv4Addr::LOCALHOST.into())));
        assert!(!may_be_loopback(Some(Ipv4Addr::new(192, 0, 2, 1).into())));
    }
}
