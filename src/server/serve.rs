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

use super::body::Body;
use super::config::Config;
use super::context::Context;
use super::exchange::Exchange;
use super::guard::{self, Allowed};
use super::http::outgoing::{self, Delivery};
use super::http::parse::Head;
use super::http::response::Payload;
use super::http::{Error, Headers, Method, Request, Response, StatusCode, Version};
use super::incoming::{Incoming, Rest};
use super::registry::Socket;
use super::router::{Found, Router};
use super::wire::{Paced, Wire};
use super::{linger, log};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Instant;

pub type Guard = Box<dyn for<'c, 'a> Fn(&'c mut Context<'a>) -> Option<Response> + Send + Sync>;
pub type Hook = Box<dyn for<'e> Fn(&Exchange<'e>) + Send + Sync>;

/// What it takes to answer requests.
#[derive(Default)]
pub struct Service {
    pub config: Config,
    pub router: Router,
    pub allowed: Allowed,
    pub guards: Vec<Guard>,
    pub hook: Option<Hook>,
    /// Where the server listens, if that is one address.
    pub address: Option<IpAddr>,
}

/// What a client's kernel takes at once, so that nothing of it waits in ours.
const LARGE: u64 = 16 * 1024;

const HELD: &str = "a connection that was taken over ended the loop";

/// Why a connection ends, which decides how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Close {
    /// The handler took it over: not ours to end.
    TakenOver,
    /// The client is gone, or stalls: nothing can be sent any more.
    ClientGone,
    /// It was announced, and everything that the client sent was read.
    Announced,
    /// Nobody said anything for a while, or the server stops.
    Idle,
    /// The client may still be sending, and a reset would cost it the response.
    Linger,
}

/// The part of a request that is needed when its handler is done with it.
struct Asked {
    method: Option<Method>,
    path: Option<String>,
    version: Version,
    keep_alive: bool,
    started: Instant,
}

/// What went wrong with a request, and on whose side.
#[derive(Clone, Copy)]
enum Fault<'e> {
    Ours(&'e io::Error),
    /// It went, or reads too slowly: nothing to wake anybody for.
    TheClients(&'e io::Error),
}

impl Service {
    /// Serves one connection to its end, or until it is taken over.
    pub fn serve(&self, socket: Socket, peer: SocketAddr) {
        let address = self.address.or_else(|| Some(socket.local_addr().ok()?.ip()));
        // It fails where the client has gone again already.
        let Ok(wire) = Wire::new(socket, peer, address.is_some_and(guard::is_loopback), &self.config) else { return };
        let mut slot = Some(wire);
        let mut idle = self.config.read_header_timeout;
        let close = loop {
            let wire = slot.as_mut().expect(HELD);
            let answered = match wire.read_head(&self.config, idle) {
                Ok(Some(head)) => self.exchange(&mut slot, head),
                Ok(None) => Err(Close::Idle),
                Err(error) => self.refuse(wire, error),
            };
            match answered {
                Ok(()) => idle = self.config.idle_timeout,
                Err(close) => break close,
            }
        };
        let Some(mut wire) = slot else { return };
        let lingers = match close {
            Close::TakenOver | Close::ClientGone => false,
            Close::Announced => !wire.input.is_empty(),
            Close::Idle => wire.has_input(),
            Close::Linger => true,
        };
        if close != Close::ClientGone && wire.flush().is_ok() && lingers {
            linger::close(&wire.socket);
        }
    }

    /// Answers one request; `Err` if the connection ends after it.
    fn exchange(&self, slot: &mut Option<Wire>, head: Head) -> Result<(), Close> {
        let Head { request, framing, .. } = head;
        let asked = Asked {
            method: Some(request.method()),
            path: Some(request.path().to_owned()),
            version: request.version(),
            keep_alive: request.wants_keep_alive(),
            started: Instant::now(),
        };
        let peer = slot.as_ref().expect(HELD).peer;
        let mut extra = Headers::EMPTY;
        let mut response = match Incoming::new(framing, &self.config) {
            Ok(body) => {
                slot.as_mut().expect(HELD).body = body;
                self.answer(slot, request, &mut extra)
            }
            Err(error) => Response::from(error).close(),
        };
        let Some(wire) = slot else {
            self.report_takeover(&asked, response, peer);
            return Err(Close::TakenOver);
        };
        if matches!(response.payload, Payload::TakenOver) {
            response = io::Error::other("the handler returned `no_result` of another connection").into();
        }
        let rest = wire.body.rest(&mut wire.input);
        let keep_alive = asked.keep_alive && rest != Rest::Unknown && !wire.socket.is_stopping();
        match (self.send(wire, response, &asked, keep_alive, &extra), rest) {
            (Ok(()), Rest::Nothing) => wire.flush_if_large(),
            (Ok(()), Rest::Short) => Body::new(wire).drain(),
            (Ok(()), Rest::Unknown) => return Err(Close::Linger),
            (Err(Close::Announced), Rest::Short | Rest::Unknown) => return Err(Close::Linger),
            (Err(close), _) => return Err(close),
        }
        .map_err(|_| Close::ClientGone)
    }

    /// Guards, then the handler.
    fn answer(&self, slot: &mut Option<Wire>, request: Request, extra: &mut Headers) -> Response {
        let context = Context::new(slot, request, extra, self.config.max_taken_over);
        catch_unwind(AssertUnwindSafe(|| self.dispatch(context)))
            .unwrap_or_else(|_| Response::from(io::Error::other("the handler panicked")).close())
    }

    fn dispatch<'a>(&'a self, mut context: Context<'a>) -> Response {
        let origin = match self.allowed.check(context.request(), &self.config, context.is_on_loopback()) {
            Ok(origin) => origin.map(str::to_owned),
            Err(error) => return error.into(),
        };
        if let Some(origin) = origin {
            for (name, value) in [("Access-Control-Allow-Origin", origin.as_str()), ("Vary", "Origin")] {
                context.set_response_header(name, value).expect("a value that came whole can be sent");
            }
            if let Some(response) = guard::preflight(context.request(), |path| self.methods(path)) {
                return response;
            }
        }
        if let Some(response) = self.guards.iter().find_map(|guard| guard(&mut context)) {
            return response;
        }
        match self.router.find(context.method(), context.path()) {
            Ok(Found::Route(route, params)) => {
                context.set_params(params);
                (route.handler)(context)
            }
            Ok(Found::Otherwise(allowed)) => otherwise(context.method(), &allowed),
            Err(error) => error.into(),
        }
    }

    /// The methods that a path has.
    fn methods(&self, path: &str) -> String {
        match self.router.find(Method::Options, path) {
            Ok(Found::Otherwise(allowed)) => join(&allowed),
            _ => join(Method::ALL), // it has a route for OPTIONS, or a parameter that does not decode
        }
    }

    /// Answers what is no request, and ends the connection: nobody knows where the next one would begin.
    fn refuse(&self, wire: &mut Wire, error: Error) -> Result<(), Close> {
        let (version, started) = (Version::Http11, Instant::now());
        let asked = Asked { method: None, path: None, version, keep_alive: false, started };
        self.send(wire, error.into(), &asked, false, &Headers::EMPTY)?;
        Err(Close::Linger)
    }

    fn send(
        &self,
        wire: &mut Wire,
        response: Response,
        asked: &Asked,
        keep_alive: bool,
        extra: &Headers,
    ) -> Result<(), Close> {
        let head_only = asked.method == Some(Method::Head);
        let delivery = Delivery { version: asked.version, head_only, keep_alive, extra };
        let mut socket = Paced::new(&mut wire.socket, self.config.write_timeout);
        let closes = response.closes();
        let status = response.status_code();
        match catch_unwind(AssertUnwindSafe(|| outgoing::send(response, &delivery, &mut wire.out, &mut socket))) {
            Ok(Ok(sent)) => {
                self.report(wire.peer, asked, Some(sent.status), sent.body_bytes, sent.fault.as_ref().map(Fault::Ours));
                match sent.keep_alive {
                    true => Ok(()),
                    // A client that was not the one to ask for the end may be sending its next request; and much of a
                    // large response is still here, where a reset would take it away.
                    false if closes || asked.keep_alive || sent.body_bytes > LARGE => Err(Close::Linger),
                    false => Err(Close::Announced),
                }
            }
            Ok(Err(error)) => {
                self.report(wire.peer, asked, Some(status), 0, Some(Fault::TheClients(&error)));
                Err(Close::ClientGone)
            }
            Err(_) => {
                let error = io::Error::other("the response's body panicked when it was dropped");
                self.report(wire.peer, asked, Some(status), 0, Some(Fault::Ours(&error)));
                Err(Close::ClientGone)
            }
        }
    }

    fn report_takeover(&self, asked: &Asked, response: Response, peer: SocketAddr) {
        let status = response.status_code();
        let answered_too = || {
            io::Error::other(format!(
                "the handler took the connection over and then answered {status}, which nobody gets: return `no_result`"
            ))
        };
        let fault = match response.payload {
            Payload::TakenOver => response.cause,
            _ => Some(response.cause.unwrap_or_else(answered_too)),
        };
        self.report(peer, asked, None, 0, fault.as_ref().map(Fault::Ours));
    }

    /// Tells the hook, or standard error where there is none and something went wrong on our side.
    fn report(
        &self,
        peer: SocketAddr,
        asked: &Asked,
        status: Option<StatusCode>,
        bytes: u64,
        fault: Option<Fault<'_>>,
    ) {
        let error = fault.map(|(Fault::Ours(error) | Fault::TheClients(error))| error);
        let exchange = || Exchange {
            peer,
            method: asked.method,
            path: asked.path.as_deref(),
            status,
            bytes,
            duration: asked.started.elapsed(),
            error,
        };
        match &self.hook {
            // A hook that panics has said so on standard error; the response is on its way.
            Some(hook) => drop(catch_unwind(AssertUnwindSafe(|| hook(&exchange())))),
            None if matches!(fault, Some(Fault::Ours(_))) => log::line(format_args!("{}", exchange())),
            None => (),
        }
    }
}

/// No handler: 404, 405 with `Allow` (RFC 9110 15.5.6), or the answer to OPTIONS (9.3.7).
fn otherwise(method: Method, allowed: &[Method]) -> Response {
    if allowed.is_empty() {
        return Response::status(StatusCode::NOT_FOUND);
    }
    let status = match method {
        Method::Options => StatusCode::NO_CONTENT,
        _ => StatusCode::METHOD_NOT_ALLOWED,
    };
    Response::status(status).header("Allow", join(allowed))
}

fn join(methods: &[Method]) -> String {
    methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ")
}
