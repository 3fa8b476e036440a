//! Two checks that reject requests from web pages of other sites.
//!
//! **Host.** The owner of a web page can make the page's name resolve to 127.0.0.1 (DNS rebinding). For the browser, a
//! server on the visitor's machine then has the same origin as the page. So the page can read the responses of this
//! server. But the `Host` of the requests is still the name of the page. So on a loopback address, the server answers
//! only requests for a loopback name, a loopback address, or a host that the program allows.
//!
//! **Origin.** A page can send a form or a simple POST to any server, with the visitor's cookies. The page cannot read
//! the response, but the request can change data. Browsers mark requests to other origins with the field
//! `Sec-Fetch-Site`. Older browsers send only `Origin`. So the server rejects a request that can change data and comes
//! from another origin. Programs such as curl do not send these fields, and their requests pass.
//!
//! The server does not check the origin of a request with a safe method, because such a request changes no data. The
//! browser does not let a page of another origin read a response without CORS fields.

use super::config::Config;
use super::http::{authority, Error, Headers, Method, Request, Response, StatusCode};
use std::io;
use std::net::IpAddr;

/// The hosts and origins that the program allows. Loopback hosts, and the server's own origin, are always allowed.
#[derive(Debug, Default)]
pub struct HostAndOrigin {
    hosts: Vec<String>,
    origins: Vec<String>,
    /// `true` if pages of these origins may send credentials, such as cookies.
    pub allows_credentials: bool,
}

const MISDIRECTED: Error = Error::fixed(
    StatusCode::MISDIRECTED_REQUEST,
    "on a loopback address, this server answers requests for localhost only; Server::allow_host allows another host",
);

const CROSS_ORIGIN: Error = Error::fixed(
    StatusCode::FORBIDDEN,
    "this request comes from a page of another origin; to allow that origin, call Server::allow_origin",
);

impl HostAndOrigin {
    /// Allows requests with this host on a loopback address.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` if `host` is not a name or an address, or if `host` has a port.
    pub fn allow_host(&mut self, host: &str) -> io::Result<()> {
        if authority::check(host.as_bytes()).is_err() || authority::split(host) != Some((host, None)) {
            return Err(refused("allow_host", host, "a host is a name or an address, without scheme and port"));
        }
        self.hosts.push(host.to_owned());
        Ok(())
    }

    /// Allows requests from pages of this origin.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` if `origin` is not a scheme, `://`, and a host with an optional port.
    pub fn allow_origin(&mut self, origin: &str) -> io::Result<()> {
        let is_origin = origin
            .split_once("://")
            .is_some_and(|(scheme, host)| !scheme.is_empty() && authority::check(host.as_bytes()).is_ok());
        if !is_origin {
            return Err(refused(
                "allow_origin",
                origin,
                "an origin is `https://name` or `http://name:port`, without a path",
            ));
        }
        self.origins.push(origin.to_owned());
        Ok(())
    }

    /// Checks the host and the origin of a request.
    ///
    /// # Errors
    ///
    /// - Returns an error with the status 421 if the host is not allowed.
    /// - Returns an error with the status 403 if the origin is not allowed.
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
    /// If the program allows at least one origin, every response has `Vary: Origin`. Without `Vary`, a cache could
    /// send a page of an allowed origin a response that has no CORS fields (WHATWG Fetch, "CORS protocol and
    /// HTTP caches").
    pub fn set_cors_fields(&self, origin: Option<&str>, headers: &mut Headers) {
        if self.origins.is_empty() {
            return;
        }
        headers.append("Vary", "Origin").expect("the field is well-formed");
        // These fields are set and not appended, so that the program can replace them. A browser rejects a response
        // with duplicates of these fields.
        let mut set = |name, value| headers.set(name, value).expect("an allowed origin is a valid value");
        let Some(origin) = origin.filter(|origin| self.knows_origin(origin)) else { return };
        set("Access-Control-Allow-Origin", origin);
        if self.allows_credentials {
            set("Access-Control-Allow-Credentials", "true");
        }
    }

    /// Returns the response to a preflight from an allowed origin, or `None` for any other request. A preflight is a
    /// request with which a browser asks whether a page may send another request (WHATWG Fetch, "CORS-preflight
    /// fetch").
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

    /// Returns the request's origin if the program allows it.
    fn allowed_origin<'r>(&self, request: &'r Request) -> Option<&'r str> {
        request.headers().get("origin").filter(|origin| self.knows_origin(origin))
    }

    /// Returns whether the request's host is allowed. An HTTP/1.0 request without a host is allowed, because browsers
    /// do not send such requests.
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

/// Removes the server's own `Vary: Origin` from `context` if another `Vary` field of the context or the response also
/// contains `Origin`.
pub fn merge_vary(context: &mut Headers, response: &Headers) {
    if context.count_token("vary", "origin") + response.count_token("vary", "origin") > 1 {
        context.remove_value("Vary", "Origin");
    }
}

/// Returns whether a browser sent this request for a page of another origin. The function uses `Sec-Fetch-Site` (Fetch
/// Metadata) if the request has this field, or else `Origin` (RFC 6454 7).
fn is_cross_origin(request: &Request) -> bool {
    let headers = request.headers();
    match headers.get("sec-fetch-site") {
        Some(site) => !site.eq_ignore_ascii_case("same-origin") && !site.eq_ignore_ascii_case("none"),
        None => headers.contains("origin") && !is_own_origin(request),
    }
}

/// Returns whether the host and port in `Origin` are the host and port of the request. Returns `false` for the value
/// `null`, which has no host.
fn is_own_origin(request: &Request) -> bool {
    let Some(host) = request.host() else { return false };
    match request.headers().get("origin").and_then(|origin| origin.split_once("://")) {
        Some((_, origin)) => origin.eq_ignore_ascii_case(host),
        None => false,
    }
}

/// Returns whether `address` is in 127.0.0.0/8, is `::1`, or is an IPv4-mapped IPv6 address for 127.0.0.0/8, such as
/// `::ffff:127.0.0.1`.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn refused(setting: &str, value: &str, rule: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{setting}({value:?}): {rule}"))
}
