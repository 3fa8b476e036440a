//! The argument of the hook of [`Server::on_response`](super::Server::on_response).

use super::http::{Method, Request, StatusCode};
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

pub type Hook = Box<dyn for<'e> Fn(&Exchange<'e>) + Send + Sync>;

/// A request and its response, as the hook of [`Server::on_response`](super::Server::on_response) receives them. The
/// response has been sent when the hook is called.
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
    /// The request. It has the query, and fields such as `User-Agent` and the `X-Forwarded-For` of a proxy. `None` if
    /// the head of the request was malformed, too large or too slow, or if the client was refused before its request
    /// was read.
    pub request: Option<&'a Request>,
    /// The method of the request. `None` if `request` is `None`.
    pub method: Option<Method>,
    /// The [path](super::http::Request::path) of the request, normalized, in visible ASCII. `None` if `request` is
    /// `None`.
    pub path: Option<&'a str>,
    /// The status of the response. `None` if the handler took the connection over.
    pub status: Option<StatusCode>,
    /// The number of bytes in the body of the response.
    pub bytes: u64,
    /// The time from the end of the request's head until the kernel had the whole response. For a connection that was
    /// taken over, the time until the handler returned.
    pub duration: Duration,
    /// The error that belongs to the response, if there is one:
    ///
    /// - The cause of a 500.
    /// - The cause that a handler gave to another response with [`with_cause`](super::http::Response::with_cause).
    /// - The error that ended the response early, for example because the client had left.
    /// - A limit of [`Config`](super::Config) that was reached, for a 503 of the server.
    ///
    /// If several apply, the first error of the program is reported.
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
        // Integers, because code that formats floating-point numbers would be a twentieth of a small program.
        let microseconds = self.duration.as_micros();
        write!(f, "{}.{:03} ms", microseconds / 1_000, microseconds % 1_000)?;
        self.error.map_or(Ok(()), |error| write_with_sources(f, error))
    }
}

/// Writes an error and its sources. Many errors print their source, so a source is left out if the previous text
/// contains it.
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
