//! The limits and timeouts, each with the reason for its default, and with what a client sees beyond it.

use std::io;
use std::time::Duration;

/// The limits, timeouts and checks of a server.
///
/// [`Server::config`](super::Server::config) sets them. The documentation of each field gives its default, the reason
/// for the default, and what a client sees beyond the limit.
///
/// New fields are added without a new major version. Take the fields that you do not set from [`Config::default`], so
/// that your program still compiles after an update:
///
/// ```
/// use brooklet::{Config, Server};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let config = Config { max_connections: 50, idle_timeout: Duration::from_secs(300), ..Config::default() };
/// let server = Server::bind("127.0.0.1:0")?.config(config);
/// # drop(server);
/// # Ok(())
/// # }
/// ```
///
/// # All settings
///
/// | setting | default | a client beyond it sees |
/// |---|---|---|
/// | `read_header_timeout` | 10 s for the whole head | 408 |
/// | `read_timeout` | 30 s for the body, and 1 s more for each 1,000 bytes | 408 |
/// | `write_timeout` | 30 s for 16 KiB, and 1 s more for each 1,000 bytes of a response | the connection is closed |
/// | `idle_timeout` | 75 s between two requests | the connection is closed |
/// | `max_header_bytes` | 16384 | 431 or 414 |
/// | `max_headers` | 100 | 431 |
/// | `max_body_bytes` | 262144 | 413 |
/// | `max_connections` | 1024 | 503 with `Retry-After` |
/// | `max_taken_over` | 10000 | 503 with `Retry-After` |
/// | `check_host` | true | 421 |
/// | `check_origin` | true | 403 |
/// | `stack_size` | 2097152 | the process ends |
///
/// [`Duration::MAX`] stands for no timeout. A timeout of zero is an error of [`Server::serve`](super::Server::serve).
///
/// # Memory
///
/// A handler that reads a whole body holds the body in memory. Clients can therefore make the server hold
/// `max_connections` × (`max_body_bytes` + 0.1 MiB). With the defaults that is 350 MiB (measured); with bodies of 1 MiB
/// it is 1.1 GiB. A handler that reads a body in pieces, with [`Context::body`](super::Context::body), does not hold
/// the whole body. If all 1,024 connections are idle, they take 40 MB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The maximum time for a request's head, from its first byte to its end. It is also the maximum time that a new
    /// connection may send nothing. Further bytes do not extend it, except that empty lines before the head begin it once
    /// more.
    ///
    /// Default: 10 s. A slow network needs far less for a head of 1 KB. After this time, the client receives a `408`
    /// and the connection is closed. If the client has sent nothing, the connection is closed without a response.
    pub read_header_timeout: Duration,

    /// The maximum time for a request's body, from the first read that waits for the client. Each 1,000 bytes that
    /// arrive extend it by one second. So a large upload on a slow line succeeds, and a client that sends single bytes
    /// fails.
    ///
    /// Default: 30 s. After this time, the handler's read returns an error of kind `TimedOut`, and the response to that
    /// error is a `408`.
    ///
    /// Go's `ReadTimeout` is another limit: it bounds head and body together.
    pub read_timeout: Duration,

    #[doc(alias = "deadline")]
    /// The maximum time that a client may take to receive 16 KiB of a response. All writes of one response together may
    /// wait for this time, and for one second more for each 1,000 bytes that were sent. The time in which a program
    /// produces the response does not count: a stream may last forever.
    ///
    /// Default: 30 s, ten times as long as a lossy mobile network needs to recover. After this time, the connection is
    /// closed.
    ///
    /// Go's `WriteTimeout` is another limit: it bounds the whole response, even if the client reads fast.
    pub write_timeout: Duration,

    #[doc(alias = "keep-alive")]
    /// The maximum time that a connection may stay open between two requests.
    ///
    /// Default: 75 s. An idle connection holds a thread, which takes about 40 KB, memory of the kernel included. After
    /// this time, the connection is closed. HTTP/1.1 clients expect that at any time.
    ///
    /// A proxy in front of the server must close idle connections earlier. Otherwise the proxy sometimes sends a
    /// request while the server closes the connection. That request fails, and the proxy answers it with a 502 or 503.
    /// The default is longer than the 60 s of nginx and of most cloud load balancers. Caddy keeps idle connections for
    /// 2 minutes, and Envoy keeps them for an hour: set Caddy's `keepalive` or Envoy's `idle_timeout` to 60 s, or set a
    /// longer time here.
    pub idle_timeout: Duration,

    /// The maximum size of a request's head, request line included, in bytes.
    ///
    /// Default: 16 KiB, as in Node. RFC 9112 3 recommends at least 8,000 bytes for the request line. Beyond the limit,
    /// the client receives a `431`, or a `414` if the request line alone is too long. The connection is closed.
    pub max_header_bytes: usize,

    /// The maximum number of header fields in a request.
    ///
    /// Default: 100, as in Apache. Browsers send 10 to 20. Beyond the limit, the client receives a `431` and the
    /// connection is closed.
    pub max_headers: usize,

    /// The maximum size of a request's body, in bytes. [`Context::limit_body`](super::Context::limit_body) changes it
    /// for one request. See [Memory](Config#memory) for the memory that bodies take.
    ///
    /// Default: 256 KiB, as in actix-web. Forms and JSON are smaller; uploads are larger. Beyond the limit, the
    /// handler's read returns an error, and the response to that error is a `413`. If `Content-Length` announces a
    /// larger body, the first read returns the error.
    pub max_body_bytes: u64,

    /// The maximum number of connections that the server serves at once. Connections that were taken over do not count.
    ///
    /// Default: 1,024, which take about 40 MB if all of them are idle. See [Memory](Config#memory) for the maximum.
    /// Beyond the limit, a new client receives a `503` with `Retry-After`, and its connection is closed.
    pub max_connections: usize,

    /// The maximum number of connections that are taken over at once. Each takes a file descriptor, and a thread if the
    /// program uses one for it.
    ///
    /// Default: 10,000. Beyond the limit, the client receives a `503` with `Retry-After`. The handler receives a
    /// connection on which reads return `Ok(0)` and writes fail.
    pub max_taken_over: usize,

    /// If `true`, the server checks the `Host` of each request that arrives on a loopback address. The `Host` must be
    /// a loopback name or a loopback address, or a host that [`Server::allow_host`](super::Server::allow_host) allows.
    ///
    /// Default: yes. The check keeps web pages from reading from servers on their visitor's machine (DNS rebinding).
    /// Other requests receive a `421`, and its body says how to allow the host.
    pub check_host: bool,

    /// If `true`, the server rejects requests that come from pages of another origin and may change data.
    /// [`Server::allow_origin`](super::Server::allow_origin) allows an origin. Requests with GET, HEAD, OPTIONS or
    /// TRACE always pass.
    ///
    /// Default: yes. Otherwise any page can send a POST with its visitor's cookies (CSRF). Programs such as curl
    /// send no origin, and their requests pass. Other requests receive a `403`.
    pub check_origin: bool,

    /// The size of the stack of each thread that serves connections, in bytes.
    ///
    /// Default: 2 MiB, as for [`std::thread::spawn`], so that code that works in a thread of the program also works in
    /// a handler. A stack takes address space, and memory only for its used part. If a handler needs more than the
    /// stack, Rust aborts the process.
    pub stack_size: usize,
}

impl Config {
    /// # Errors
    ///
    /// - Returns `InvalidInput` for a timeout of zero, which a socket does not accept.
    pub(super) fn check(&self) -> io::Result<()> {
        let timeouts = [
            ("read_header_timeout", self.read_header_timeout),
            ("read_timeout", self.read_timeout),
            ("write_timeout", self.write_timeout),
            ("idle_timeout", self.idle_timeout),
        ];
        for (name, timeout) in timeouts {
            if timeout.is_zero() {
                let message = format!("Config::{name} is zero; use Duration::MAX for no limit");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            read_header_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            max_header_bytes: 16 * 1024,
            max_headers: 100,
            max_body_bytes: 256 * 1024,
            max_connections: 1_024,
            max_taken_over: 10_000,
            check_host: true,
            check_origin: true,
            stack_size: 2 * 1024 * 1024,
        }
    }
}
