//! The limits and timeouts of a server. Each limit has a default, and an effect on a client that exceeds the limit.

use std::io;
use std::time::Duration;

/// The limits, timeouts and checks of a server.
///
/// [`Server::config`](super::Server::config) sets them. The documentation of each field gives its default and the
/// effect on a client that exceeds the limit.
///
/// A minor version may add fields. Take the fields that you do not set from [`Config::default`], so that your program
/// still compiles after an update:
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
/// | setting | default | effect on a client that exceeds the limit |
/// |---|---|---|
/// | `read_header_timeout` | 10 s for the whole head | a 408 response |
/// | `read_timeout` | 30 s for the body, and 1 s more for each 1,000 bytes | a 408 response |
/// | `write_timeout` | 30 s for 16 KiB, and 1 s more for each 1,000 bytes of a response | the connection is closed |
/// | `idle_timeout` | 75 s between two requests | the connection is closed |
/// | `max_header_bytes` | 16384 bytes | a 431 or 414 response |
/// | `max_headers` | 100 fields | a 431 response |
/// | `max_body_bytes` | 262144 bytes | a 413 response |
/// | `max_connections` | 1024 | a 503 response with `Retry-After` |
/// | `max_taken_over` | 10000 | a 503 response with `Retry-After` |
/// | `check_host` | true | a 421 response |
/// | `check_origin` | true | a 403 response |
/// | `stack_size` | 2097152 bytes | the process aborts |
///
/// [`Duration::MAX`] stands for no timeout. If a timeout is zero, [`Server::serve`](super::Server::serve) returns an
/// error.
///
/// # Memory
///
/// A handler that reads a whole body holds the body in memory. Clients can therefore make the server hold
/// `max_connections` × (`max_body_bytes` + 0.1 MiB) of memory: 350 MiB with the defaults (measured), and 1.1 GiB with
/// bodies of 1 MiB. A handler that reads a body in pieces with [`Context::body`](super::Context::body) does not hold
/// the whole body. 1,024 idle connections take about 40 MB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The maximum time for a request's head, from the first byte of the head to the end of the head. Bytes that arrive
    /// do not extend the time. The first request of a connection must also begin within this time. If the client sends
    /// an empty line before the first request, the time starts again.
    ///
    /// Default: 10 s. Even a slow network sends a head of 1 KB in much less time. After this time, the client receives
    /// a `408` and the connection is closed. If no byte of a head has arrived, the connection is closed without a
    /// response.
    pub read_header_timeout: Duration,

    /// The maximum time for a request's body, from the first read that waits for the client. Each 1,000 bytes of the
    /// body that arrive extend the time by one second. So a client that sends at least 1,000 bytes per second never
    /// exceeds the time.
    ///
    /// Default: 30 s. After this time, the handler's read returns an error of kind `TimedOut`. If the handler returns
    /// that error, the client receives a `408`.
    ///
    /// Go's `ReadTimeout` is a different limit: `ReadTimeout` bounds head and body together.
    pub read_timeout: Duration,

    #[doc(alias = "deadline")]
    /// The maximum time that a client may take to receive 16 KiB of a response. All writes of one response together may
    /// wait for this time, and for one second more for each 1,000 bytes that were sent. The time that the program needs
    /// to produce the response does not count. So a stream may last forever.
    ///
    /// Default: 30 s, ten times as long as a lossy mobile network needs to recover. After this time, the connection is
    /// closed.
    ///
    /// Go's `WriteTimeout` is a different limit: `WriteTimeout` bounds the whole response, even if the client reads
    /// fast.
    pub write_timeout: Duration,

    #[doc(alias = "keep-alive")]
    /// The maximum time that the server waits for the next request on an open connection.
    ///
    /// Default: 75 s. An idle connection holds a thread, which takes about 40 KB including memory of the kernel. After
    /// this time, the connection is closed. HTTP/1.1 clients expect that a server may close an idle connection at any
    /// time.
    ///
    /// A proxy in front of the server must close idle connections earlier. Otherwise the proxy sometimes sends a
    /// request while the server closes the connection. That request fails, and the client of the proxy receives a 502
    /// or 503. The default idle timeout of nginx and of most cloud load balancers is 60 s, which is short enough. The
    /// default idle timeout of Caddy is 2 minutes, and the default idle timeout of Envoy is an hour. Set Caddy's
    /// `keepalive` or Envoy's `idle_timeout` to 60 s, or set a longer time here.
    pub idle_timeout: Duration,

    /// The maximum size of a request's head in bytes, including the request line.
    ///
    /// Default: 16 KiB, as in Node. RFC 9112 3 recommends at least 8,000 bytes for the request line. If the head is
    /// larger, the client receives a `431`, or a `414` if the request line alone is too long. The connection is closed.
    pub max_header_bytes: usize,

    /// The maximum number of header fields in a request.
    ///
    /// Default: 100, as in Apache. Browsers send 10 to 20 fields. If a request has more fields, the client receives a
    /// `431` and the connection is closed.
    pub max_headers: usize,

    /// The maximum size of a request's body in bytes. [`Context::limit_body`](super::Context::limit_body) changes this
    /// limit for one request. See [Memory](Config#memory) for the memory that bodies take.
    ///
    /// Default: 256 KiB, as in actix-web. Most forms and JSON documents are smaller, and many uploads are larger. If
    /// the body is larger, the handler's read returns an error. If the handler returns that error, the client receives
    /// a `413`. If `Content-Length` announces a larger body, the first read returns the error.
    pub max_body_bytes: u64,

    /// The maximum number of connections that the server serves at the same time. Connections that were taken over do
    /// not count.
    ///
    /// Default: 1,024. In total, 1,024 idle connections take about 40 MB. See [Memory](Config#memory) for connections
    /// with large bodies. Beyond the limit, a new client receives a `503` with `Retry-After`, and the server closes the
    /// connection.
    pub max_connections: usize,

    /// The maximum number of connections that are taken over at the same time. Each of these connections takes a file
    /// descriptor. A connection that the program serves in a thread also takes that thread.
    ///
    /// Default: 10,000. Beyond the limit, the client receives a `503` with `Retry-After`. The handler receives a
    /// closed connection. Reads return the bytes that the server has read ahead, and then `Ok(0)`. Writes fail.
    pub max_taken_over: usize,

    /// If `true`, the server checks the `Host` of each request that arrives on a loopback address. The `Host` must be
    /// a loopback name, a loopback address, or a host that [`Server::allow_host`](super::Server::allow_host) allows. An
    /// HTTP/1.0 request may have no `Host`.
    ///
    /// Default: yes. The check keeps a web page from reading from a server on the machine of the page's visitor (DNS
    /// rebinding). A request that fails the check receives a `421`, with a message that names `Server::allow_host`.
    pub check_host: bool,

    /// If `true`, the server rejects a request that comes from a page of another origin and may change data.
    /// [`Server::allow_origin`](super::Server::allow_origin) allows an origin. Requests with GET, HEAD, OPTIONS or
    /// TRACE always pass.
    ///
    /// Default: yes. Without this check, any page can send a POST with the visitor's cookies (CSRF). Requests from
    /// programs such as curl have no origin, and pass. A rejected request receives a `403`.
    pub check_origin: bool,

    /// The size in bytes of the stack of each thread that serves connections.
    ///
    /// Default: 2 MiB, as for [`std::thread::spawn`]. So code that works in a thread of the program also works in a
    /// handler. The whole stack takes address space, but only the used part takes memory. If a handler needs more
    /// stack, Rust aborts the process.
    pub stack_size: usize,
}

impl Config {
    /// Checks that no timeout is zero.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` if a timeout is zero, because sockets do not accept such a timeout.
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
