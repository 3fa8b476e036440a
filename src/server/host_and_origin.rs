//! Who may talk to us: two checks against web pages that reach for servers they have no business with.
//!
//! **Host.** A page can point its own name at 127.0.0.1 (DNS rebinding) and then talk to a server on its visitor's
//! machine as if that were its own. What gives it away is `Host`, which still says the page's name. So on a loopback
//! address only loopback names are answered.
//!
//! **Origin.** A page can send a form or a simple POST anywhere, with the visitor's cookies; it only cannot read the
//! answer. Browsers say where a request comes from, in `Sec-Fetch-Site` or, older ones, in `Origin`. So methods that
//! change things are refused when they come from another origin. Programs send neither field, and pass.
//!
//! Left out: a check of `Origin` for safe methods. The browser does it, for without CORS fields the page cannot read.

use super::config::Config;
use super::http::{authority, Error, Headers, Method, Request, Response, StatusCode};
use std::io;
use std::net::IpAddr;

/// The hosts and origins that were named, beyond the ones that are always right.
#[derive(Debug, Default)]
pub struct HostAndOrigin {
    hosts: Vec<String>,
    origins: Vec<String>,
    /// Whether pages of those origins may send cookies and the like.
    pub allows_credentials: bool,
}

const MISDIRECTED: Error = Error::fixed(
    StatusCode::MISDIRECTED_REQUEST,
    "this server listens on a loopback address and answers to localhost; for another name, start it with allow_host",
);

const CROSS_ORIGIN: Error = Error::fixed(
    StatusCode::FORBIDDEN,
    "this request comes from a page of another origin; to let that in, start the server with allow_origin",
);

impl HostAndOrigin {
    /// # Errors
    ///
    /// `InvalidInput` if this is no host name or address, or has a port.
    pub fn allow_host(&mut self, host: &str) -> io::Result<()> {
        if authority::check(host.as_bytes()).is_err() || authority::split(host) != Some((host, None)) {
            return Err(refused("allow_host", host, "a host is a name or an address, without scheme and port"));
        }
        self.hosts.push(host.to_owned());
        Ok(())
    }

    /// # Errors
    ///
    /// `InvalidInput` if this is not what a browser sends as `Origin`.
    pub fn allow_origin(&mut self, origin: &str) -> io::Result<()> {
        let is_origin = origin
            .split_once("://")
            .is_some_and(|(scheme, host)| !scheme.is_empty() && authority::check(host.as_bytes()).is_ok());
        if !is_origin {
            return Err(refused(
                "allow_origin",
                origin,
                "an origin is `https://name` or `http://name:port`, and no path",
            ));
        }
        self.origins.push(origin.to_owned());
        Ok(())
    }

    /// Refuses a request of a page that this server was not named for, or that may not change anything here.
    pub fn check(&self, request: &Request, config: &Config, on_loopback: bool) -> Result<(), Error> {
        if config.check_host && on_loopback && !self.knows_host(request) {
            return Err(MISDIRECTED);
        }
        let may_change = request.method().is_safe() || self.allowed_origin(request).is_some();
        if config.check_origin && !may_change && is_cross_origin(request) {
            return Err(CROSS_ORIGIN);
        }
        Ok(())
    }

    /// Sets the CORS fields (WHATWG Fetch, "HTTP responses") of the response to a request with this `Origin`.
    ///
    /// Once an origin was named, every response varies with `Origin`, also the response to a request without the field
    /// or from another origin. Otherwise a cache could hand a response without CORS fields to a page that may read it
    /// (WHATWG Fetch, "CORS protocol and HTTP caches").
    pub fn set_cors_fields(&self, origin: Option<&str>, headers: &mut Headers) {
        if self.origins.is_empty() {
            return;
        }
        headers.append("Vary", "Origin").expect("it is well-formed");
        // Set, so that a program that sends these fields itself replaces them: a browser refuses them twice.
        let mut set = |name, value| headers.set(name, value).expect("the value is an origin that was named");
        let Some(origin) = origin.filter(|origin| self.knows_origin(origin)) else { return };
        set("Access-Control-Allow-Origin", origin);
        if self.allows_credentials {
            set("Access-Control-Allow-Credentials", "true");
        }
    }

    /// Answers a preflight, the question whether a page may send what it wants to send (WHATWG Fetch, "CORS-preflight fetch"),
    /// if an origin that was named asks it.
    pub fn preflight(&self, request: &Request, methods: impl FnOnce(&str) -> String) -> Option<Response> {
        let headers = request.headers();
        if request.method() != Method::Options || !headers.contains("access-control-request-method") {
            return None;
        }
        self.allowed_origin(request)?;
        let mut answer =
            Response::status(StatusCode::NO_CONTENT).header("Access-Control-Allow-Methods", methods(request.path()));
        if let Some(wanted) = headers.get("access-control-request-headers") {
            answer = answer.header("Access-Control-Allow-Headers", wanted);
        }
        Some(answer)
    }

    /// Returns the request's origin, if it is one that was named.
    fn allowed_origin<'r>(&self, request: &'r Request) -> Option<&'r str> {
        request.headers().get("origin").filter(|origin| self.knows_origin(origin))
    }

    /// A request without a host (HTTP/1.0) is none of a browser's.
    fn knows_host(&self, request: &Request) -> bool {
        let Some((host, _)) = request.host().and_then(authority::split) else { return true };
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_localhost = host.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"));
        is_localhost
            || authority::ip(host).is_some_and(is_loopback)
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
    }

    fn knows_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
    }
}

/// Removes our `Vary: Origin` if the program lists `Origin` too: among the fields of the context or of its response.
pub fn merge_vary(context: &mut Headers, response: &Headers) {
    if context.count_token("vary", "origin") + response.count_token("vary", "origin") > 1 {
        context.remove_value("Vary", "Origin");
    }
}

/// What the browser says of where a request comes from (Fetch Metadata; without it RFC 6454 7).
fn is_cross_origin(request: &Request) -> bool {
    let headers = request.headers();
    match headers.get("sec-fetch-site") {
        Some(site) => !site.eq_ignore_ascii_case("same-origin") && !site.eq_ignore_ascii_case("none"),
        None => headers.contains("origin") && !is_own_origin(request),
    }
}

/// Whether `Origin` names the host that was asked. `null` names none.
fn is_own_origin(request: &Request) -> bool {
    let Some(host) = request.host() else { return false };
    match request.headers().get("origin").and_then(|origin| origin.split_once("://")) {
        Some((_, origin)) => origin.eq_ignore_ascii_case(host),
        None => false,
    }
}

/// 127.0.0.0/8 and ::1, and the former as IPv6 writes it.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn refused(setting: &str, value: &str, rule: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{setting}({value:?}): {rule}"))
}
