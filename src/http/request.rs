//! The head of a request: method, target, version and header fields.

use super::target::Target;
use super::{ascii, Form, Headers, Method};
use std::fmt;

/// The head of a request: method, target, version and header fields. The body is not included.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) version: Version,
    pub(super) headers: Headers,
}

/// The HTTP version of a request. A request with HTTP/1.2 to HTTP/1.9 has the version `Http11` (RFC 9110 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// HTTP/1.0, which has no chunked coding. The server closes the connection after the response, unless the request
    /// asks for a persistent connection with `Connection: keep-alive`.
    Http10,
    /// HTTP/1.1. The server keeps the connection open after the response, unless the request or the response has
    /// `Connection: close`.
    Http11,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        })
    }
}

impl Request {
    /// Returns the method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Returns the target as the client sent it, for example `/search?q=tea`. The target consists of visible ASCII
    /// characters.
    ///
    /// Use [`path`](Request::path) to compare paths, because several targets can have the same path in different
    /// spellings.
    pub fn target(&self) -> &str {
        self.target.as_str()
    }

    /// Returns the normalized path, or `*` for `OPTIONS *`.
    ///
    /// All spellings of a path have the same normalized path (RFC 3986 6.2.2). An escape is decoded if a path may also
    /// contain the escaped character without an escape. Every other escape is kept, with hexadecimal digits in upper
    /// case.
    /// For example, `/%70rivate/caf%c3%a9` becomes `/private/caf%C3%A9`, and `%2F` stays `%2F`.
    ///
    /// Guards, routes and handlers see the same normalized path. If the path has a segment `.` or `..`, escaped or not,
    /// the server sends a 400, and calls no guard and no handler. [`target`](Request::target) returns the original
    /// text.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// Returns the text after the first `?` of the target, as the client sent it. Returns `None` if there is no `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// Returns the HTTP version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the value of the first cookie named `name` (RFC 6265 5.4). Names are case-sensitive.
    ///
    /// The value is not decoded. If the value has quotes, the returned text contains them. Returns `None` if there is
    /// no such cookie, or if the value of the first such cookie is not UTF-8.
    ///
    /// ```
    /// # fn user(request: &brooklet::Request) -> Option<&str> {
    /// request.cookie("session")
    /// # }
    /// ```
    pub fn cookie(&self, name: &str) -> Option<&str> {
        // A request may have several `Cookie` fields: an HTTP/2 client may split this field, and a proxy may forward
        // each part as a field of its own (RFC 9113 8.2.3).
        for field in self.headers.get_all("cookie") {
            for pair in field.split(|&b| b == b';').map(ascii::trim_ows) {
                let value = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
                if value.is_some() {
                    return std::str::from_utf8(value?).ok();
                }
            }
        }
        None
    }

    /// Returns the id of the last event that the client received before it reconnected.
    ///
    /// The id is the value of the field `Last-Event-ID` (WHATWG HTML 9.2.4). A value that is not UTF-8 is decoded as
    /// Latin-1, because clients on Node send Latin-1. A client that cannot set header fields can instead send the id in
    /// the query, as `lastEventId`.
    ///
    /// Returns `None` if the client sends no id or an empty id, for example on its first connection. Also returns
    /// `None` if the id in the query contains a line break or NUL, because an event id never contains these characters
    /// (WHATWG HTML 9.2.6).
    pub fn last_event_id(&self) -> Option<String> {
        let field = self.headers.get_all("last-event-id").next().filter(|value| !value.is_empty());
        if let Some(value) = field {
            let latin_1 = || value.iter().map(|&byte| char::from(byte)).collect();
            return Some(std::str::from_utf8(value).map_or_else(|_| latin_1(), str::to_owned));
        }
        let id = Form::parse(self.query()?).get("lastEventId")?;
        (!id.is_empty() && !id.contains(['\r', '\n', '\0'])).then_some(id)
    }

    /// Returns the host that the client requested, with the port if the client sent a port.
    ///
    /// The host is the authority of an absolute-form target, or else the value of the `Host` field (RFC 9112 3.2.2).
    /// Returns `None` only for an HTTP/1.0 request without a host.
    pub fn host(&self) -> Option<&str> {
        self.target.authority().or_else(|| self.headers.get("host"))
    }

    /// Returns whether the client wants the connection to stay open after the response (RFC 9112 9.3).
    pub(in super::super) fn wants_keep_alive(&self) -> bool {
        !self.headers.has_token("connection", "close")
            && (self.version == Version::Http11 || self.headers.has_token("connection", "keep-alive"))
    }
}
