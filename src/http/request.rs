//! The head of a request: method, target, version, fields.

use super::target::Target;
use super::{ascii, Form, Headers, Method};
use std::fmt;

/// A request without its body.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) version: Version,
    pub(super) headers: Headers,
}

/// What a client's `HTTP/1.x` means for us: 1.0, or 1.1 and every later minor version (RFC 9110 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// HTTP/1.0: no chunked coding, closes unless `keep-alive` was asked for.
    Http10,
    /// HTTP/1.1: stays open unless `close` was asked for.
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

    /// Returns the target as it stood in the request line, for example `/search?q=tea`. Visible ASCII. To decide by the
    /// path, use [`path`](Request::path): this text has many spellings of the same one.
    pub fn target(&self) -> &str {
        self.target.as_str()
    }

    /// Returns the path, normalised: a character that may stand in a path is not escaped, and the digits of every other
    /// escape are upper case, so that a path has one spelling (RFC 3986 6.2.2). `/%70rivate/caf%c3%a9` is
    /// `/private/caf%C3%A9`, and `%2F` stays `%2F`. A path with a segment `.` or `..`, escaped or not, is a 400 that no
    /// guard or handler sees. `*` for `OPTIONS *`.
    ///
    /// Guards, routes and handlers see this one path; [`target`](Request::target) has it as it came.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// Returns what follows the first `?` of the target, as it came.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// Returns the version, to which the response's form is tied.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the value of the first cookie named `name` (RFC 6265 5.4). The value is not decoded, and keeps its quotes.
    /// Returns `None` also for a value that is not UTF-8.
    ///
    /// ```
    /// # fn user(request: &brooklet::Request) -> Option<&str> {
    /// request.cookie("session")
    /// # }
    /// ```
    pub fn cookie(&self, name: &str) -> Option<&str> {
        // A proxy that speaks HTTP/2 may split the field (RFC 9113 8.2.3).
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

    /// Returns the id of the last event that a reconnecting client received: the field `Last-Event-ID` (WHATWG HTML 9.2.4), or
    /// else `lastEventId` in the query, for a client that cannot set header fields. `None` for an empty id, which means a new
    /// client, and for a line break or NUL in the query, which no id can have (9.2.6). A field that is not UTF-8 is read as
    /// Latin-1, because clients on Node send that.
    pub fn last_event_id(&self) -> Option<String> {
        let field = self.headers.get_all("last-event-id").next().filter(|value| !value.is_empty());
        if let Some(value) = field {
            let latin_1 = || value.iter().map(|&byte| char::from(byte)).collect();
            return Some(std::str::from_utf8(value).map_or_else(|_| latin_1(), str::to_owned));
        }
        let id = Form::parse(self.query()?).get("lastEventId")?;
        (!id.is_empty() && !id.contains(['\r', '\n', '\0'])).then_some(id)
    }

    /// Returns the host that the client asked for, with its port where it gave one: that of an absolute-form target,
    /// else `Host` (RFC 9112 3.2.2). `None` only for HTTP/1.0.
    pub fn host(&self) -> Option<&str> {
        self.target.authority().or_else(|| self.headers.get("host"))
    }

    /// Whether the client wants the connection to stay open after the response (RFC 9112 9.3).
    pub(in super::super) fn wants_keep_alive(&self) -> bool {
        !self.headers.has_token("connection", "close")
            && (self.version == Version::Http11 || self.headers.has_token("connection", "keep-alive"))
    }
}
