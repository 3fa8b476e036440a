//! Two checks that reject requests from web pages of other sites.
//!
//! **Host.** The owner of a page can let the page's name resolve to 127.0.0.1 (DNS rebinding). The page can then use a
//! server on its visitor's machine as if it were its own. The `Host` of its requests is still the name of the page. So
//! on a loopback address, the server answers only requests for loopback names.
//!
//! **Origin.** A page can send a form or a simple POST to any server, with the visitor's cookies. It only cannot read
//! the response. Browsers mark requests to other origins with `Sec-Fetch-Site`; older browsers send `Origin`. So if a
//! request can change data and comes from another origin, the server rejects the request. Programs send neither field,
//! and their requests pass.
//!
//! `Origin` is not checked for safe methods, because the browser does not let the page read a response without CORS
//! fields.

use super::config::Config;
use super::http::{authority, Error, Headers, Method, Request, Response, StatusCode};
use std::io;
use std::net::IpAddr;

/// The hosts and origins that the program allows, in addition to those that are always allowed.
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
    /// # Errors
    ///
    /// - Returns `InvalidInput` if `host` is not a name or an address, or has a port.
    pub fn allow_host(&mut self, host: &str) -> io::Result<()> {
        if authority::check(host.as_bytes()).is_err() || authority::split(host) != Some((host, None)) {
            return Err(refused("allow_host", host, "a host is a name or an address, without scheme and port"));
        }
        self.hosts.push(host.to_owned());
        Ok(())
    }

    /// # Errors
    ///
    /// - Returns `InvalidInput` if `origin` does not have the form of an `Origin` field.
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

    /// Returns the error for a request that fails one of the two checks.
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
    /// If the program allows any origin, every response has `Vary: Origin`. Otherwise a cache could return a response
    /// without CORS fields to a page that may read it (WHATWG Fetch, "CORS protocol and HTTP caches").
    pub fn set_cors_fields(&self, origin: Option<&str>, headers: &mut Headers) {
        if self.origins.is_empty() {
            return;
        }
        headers.append("Vary", "Origin").expect("the field is well-formed");
        // These fields are set and not appended, so that the program can replace them. A browser rejects duplicates.
        let mut set = |name, value| headers.set(name, value).expect("an allowed origin is a valid value");
        let Some(origin) = origin.filter(|origin| self.knows_origin(origin)) else { return };
        set("Access-Control-Allow-Origin", origin);
        if self.allows_credentials {
            set("Access-Control-Allow-Credentials", "true");
        }
    }

    /// Returns the response to a preflight (WHATWG Fetch, "CORS-preflight fetch"): a browser sends it to ask whether a
    /// page may send a request. Returns `None` for all other requests, and for an origin that is not allowed.
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

    /// Returns whether the request's host is allowed. A request without a host (HTTP/1.0) does not come from a browser,
    /// and is allowed.
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

/// Removes the `Vary: Origin` of the server if the program lists `Origin` too, in the fields of the context or of its
/// response.
pub fn merge_vary(context: &mut Headers, response: &Headers) {
    if context.count_token("vary", "origin") + response.count_token("vary", "origin") > 1 {
        context.remove_value("Vary", "Origin");
    }
}

/// Returns whether the browser sends this request for a page of another origin (Fetch Metadata, or else RFC 6454 7).
fn is_cross_origin(request: &Request) -> bool {
    let headers = request.headers();
    match headers.get("sec-fetch-site") {
        Some(site) => !site.eq_ignore_ascii_case("same-origin") && !site.eq_ignore_ascii_case("none"),
        None => headers.contains("origin") && !is_own_origin(request),
    }
}

/// Returns whether `Origin` has the host of the request. The value `null` has no host.
fn is_own_origin(request: &Request) -> bool {
    let Some(host) = request.host() else { return false };
    match request.headers().get("origin").and_then(|origin| origin.split_once("://")) {
        Some((_, origin)) => origin.eq_ignore_ascii_case(host),
        None => false,
    }
}

/// Returns whether an address is in 127.0.0.0/8, is `::1`, or is an IPv4-mapped address of 127.0.0.0/8.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn refused(setting: &str, value: &str, rule: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{setting}({value:?}): {rule}"))
}
