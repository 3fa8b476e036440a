//! The head of a request: method, target, version, fields.

use super::target::Target;
use super::{Headers, Method};

/// A request without its body.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) version: Version,
    pub(super) headers: Headers,
}

/// What a client's `HTTP/1.x` means for us: 1.0, or 1.1 and every later minor version (RFC 9110 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Version {
    /// HTTP/1.0: no chunked coding, closes unless `keep-alive` was asked for.
    Http10,
    /// HTTP/1.1: stays open unless `close` was asked for.
    Http11,
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
