//! What [`Server::on_response`](super::Server::on_response) is called with.

use super::http::{Method, Request, StatusCode};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

pub type Hook = Box<dyn for<'e> Fn(&Exchange<'e>) + Send + Sync>;

/// A request and its response, after the fact. Its `Display` is a line for an access log:
///
/// ```text
/// 127.0.0.1:52044 GET /clock.html 200 1824 B 0.210 ms
/// 127.0.0.1:52046 GET /sse taken over 0.031 ms
/// 127.0.0.1:52048 POST /upload 500 26 B 3.402 ms: No space left on device (os error 28)
/// 127.0.0.1:52050 - - 400 52 B 0.025 ms
/// 127.0.0.1:52052 - - 503 24 B 0.092 ms: Config::max_connections is 1024, and so many connections are served
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Exchange<'a> {
    /// The client's address.
    pub peer: SocketAddr,
    /// The request: its query, its `User-Agent`, the `X-Forwarded-For` of a proxy. `None` if the request was not valid, or
    /// if the client was refused before its request was read.
    pub request: Option<&'a Request>,
    /// The method of the request.
    pub method: Option<Method>,
    /// The [path](super::http::Request::path) of the request, normalised, in visible ASCII.
    pub path: Option<&'a str>,
    /// The response's status; `None` if the handler took the connection over.
    pub status: Option<StatusCode>,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// From the end of the request's head until the kernel had the whole response, or until the handler that took the
    /// connection over returned.
    pub duration: Duration,
    /// Why the response is a 500, was cut short, did not reach a client that had left, or is the 503 of a
    /// [`Config`](super::Config) limit; or the cause that a handler gave another response
    /// ([`with_cause`](super::http::Response::with_cause)).
    pub error: Option<&'a io::Error>,
}

impl fmt::Display for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = self.method.map_or("-", Method::as_str);
        write!(f, "{} {method} {} ", self.peer, self.path.unwrap_or("-"))?;
        match self.status {
            Some(status) => write!(f, "{} {} B ", status.as_u16(), self.bytes)?,
            None => f.write_str("taken over ")?,
        }
        // In whole numbers: what formats floating-point ones would be a twentieth of a small program.
        let microseconds = self.duration.as_micros();
        write!(f, "{}.{:03} ms", microseconds / 1_000, microseconds % 1_000)?;
        self.error.map_or(Ok(()), |error| write_with_sources(f, error))
    }
}

/// Writes an error and its sources, except those whose text is a part of the text before: many errors print their source.
fn write_with_sources(f: &mut fmt::Formatter<'_>, error: &(dyn Error + 'static)) -> fmt::Result {
    let mut next = Some(error);
    let mut written = String::new();
    while let Some(error) = next {
        let text = error.to_string();
        if !written.contains(&text) || written.is_empty() {
            write!(f, ": {text}")?;
            written = text;
        }
        next = error.source();
    }
    Ok(())
}
