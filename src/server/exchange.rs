//! The argument of the hook of [`Server::on_response`](super::Server::on_response).

use super::http::{Method, Request, StatusCode};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

pub type Hook = Box<dyn for<'e> Fn(&Exchange<'e>) + Send + Sync>;

/// A request and its response. The hook of [`Server::on_response`](super::Server::on_response) receives an `Exchange`
/// after each response, even if the response could not be sent.
///
/// The `Display` of an `Exchange` is a line for an access log, without the date:
///
/// ```text
/// 127.0.0.1:52044 GET /clock.html 200 1824 B 0.210 ms
/// 127.0.0.1:52046 GET /sse taken over 0.031 ms
/// 127.0.0.1:52048 POST /upload 500 26 B 3.402 ms: No space left on device (os error 28)
/// 127.0.0.1:52050 - - 400 52 B 0.025 ms
/// 127.0.0.1:52052 - - 503 24 B 0.092 ms: Config::max_connections is 1024, and this limit is reached
/// ```
///
/// To write another format, use the fields:
///
/// ```no_run
/// # use brooklet::Server;
/// # fn main() -> std::io::Result<()> {
/// # Server::bind("127.0.0.1:8080")?
/// .on_response(|exchange| {
///     let agent = exchange.request.and_then(|request| request.headers().get("user-agent"));
///     println!("{} {:?} {agent:?}", exchange.peer, exchange.status);
/// })
/// # .serve()
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Exchange<'a> {
    /// The client's address, or the address of a proxy in front of the server.
    pub peer: SocketAddr,
    /// The request, with its query and its header fields. `None` if the head of the request was malformed, too large or
    /// too slow. Also `None` if the client was refused because of
    /// [`max_connections`](super::Config::max_connections).
    pub request: Option<&'a Request>,
    /// The method of the request. `None` if `request` is `None`.
    pub method: Option<Method>,
    /// The normalized [path](super::http::Request::path) of the request, in visible ASCII. `None` if `request` is
    /// `None`.
    pub path: Option<&'a str>,
    /// The status of the response. `None` if the handler took the connection over.
    pub status: Option<StatusCode>,
    /// The number of bytes of the response's body that were sent, without the framing of chunks. The number is 0 if a
    /// write to the client failed, or if the handler took the connection over.
    pub bytes: u64,
    /// The time from the parsing of the request's head until the kernel accepted the whole response. For a connection
    /// that was taken over, the time until the handler returned. If `request` is `None`, the time that the server
    /// needed to refuse the request.
    pub duration: Duration,
    /// The error that belongs to the response, if there is such an error:
    ///
    /// - The cause of a 500.
    /// - The cause that a handler gave to another response with [`with_cause`](super::http::Response::with_cause).
    /// - The error that ended the response early, for example because the client had left.
    /// - A limit of [`Config`](super::Config) that was reached, if the server sent a 503.
    ///
    /// If there are several errors, only one error is reported. An error of the program has priority over an error of
    /// the client.
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
        // The time is formatted with integers. Code that formats floating-point numbers would make a small program 5 %
        // larger.
        let microseconds = self.duration.as_micros();
        write!(f, "{}.{:03} ms", microseconds / 1_000, microseconds % 1_000)?;
        self.error.map_or(Ok(()), |error| write_with_sources(f, error))
    }
}

/// Writes the messages of an error and its sources. The message of an error often contains the message of the source.
/// So the message of a source is not written if the last written message contains it.
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
