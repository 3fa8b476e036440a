//! The limits and timeouts, all of them, each with the reason for its default and what a client sees beyond it.

use std::io;
use std::time::Duration;

/// Limits and timeouts.
///
/// New fields are added without a new major version. Take the fields that you do not set from [`Config::default`], so that
/// your program still compiles then:
///
/// ```
/// use brooklet::Config;
/// use std::time::Duration;
///
/// let patient = Config { idle_timeout: Duration::from_secs(300), ..Config::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a client may take for a whole request head, from its first byte on; and how long a new connection may
    /// say nothing at all. A deadline, not a time between two bytes: one byte now and then does not move it. Default:
    /// 10 s, far more than a slow network needs for 1 KB. Beyond it: `408` and the end, without a word where not one
    /// byte came.
    pub read_header_timeout: Duration,

    /// How long a body may take, from the handler's first read on: this long, and a second more for every 1,000 bytes that
    /// came, so that a large upload on a slow line succeeds and a trickle does not. Default: 30 s. Beyond it: the
    /// handler's read returns an error of kind `TimedOut` that answers `408`.
    ///
    /// Go's `ReadTimeout` is another limit: it bounds head and body together.
    pub read_timeout: Duration,

    /// How long a client may take for 16 KiB of a response, and how long all writes of a response may have waited, with a
    /// second more for every 1,000 bytes that were sent. Not for a whole response: a stream that is produced slowly may
    /// take forever. Default: 30 s, ten times what a lossy mobile network takes to recover. Beyond it: the connection is
    /// closed.
    ///
    /// Go's `WriteTimeout` is another limit: it bounds the whole response, however fast the client reads.
    #[doc(alias = "deadline")]
    pub write_timeout: Duration,

    /// How long a connection may stay open between two requests. Default: 75 s. An idle connection holds a thread, about
    /// 40 KB with the kernel's share. Beyond it: it is closed, which HTTP/1.1 clients expect at any time.
    ///
    /// A proxy in front should close idle connections first. Otherwise a request that it sends while this server closes the
    /// connection fails, and the proxy answers with a 502 or 503. The default is longer than the 60 s of nginx and of the
    /// usual cloud load balancers. Caddy keeps idle connections for 2 minutes and Envoy for an hour: set Caddy's `keepalive` or
    /// Envoy's `idle_timeout` to 60 s, or set a longer time here.
    #[doc(alias = "keep-alive")]
    pub idle_timeout: Duration,

    /// How many bytes a request head may have, request line included. Default: 16 KiB, as in Node; RFC 9112 3 asks for
    /// 8,000 at least for the request line. Beyond it: `431`, or `414` if not even the request line fits.
    pub max_header_bytes: usize,

    /// How many header fields a request may have. Default: 100, as in Apache; browsers send 10 to 20. Beyond it: `431`.
    pub max_headers: usize,

    /// How many bytes of body a request may have. Default: 256 KiB, as in actix-web: forms and JSON fit, uploads do not.
    /// Beyond it: the handler's read returns an error that answers `413`; the first read, if `Content-Length` announces more.
    /// [`Context::limit_body`](super::Context::limit_body) changes the limit for one request.
    ///
    /// A handler that reads a whole body holds it in memory. So the product with `max_connections` is what clients can make
    /// the server hold. With the defaults that is 350 MiB, 0.1 MiB for each connection included; with bodies of 1 MiB it is
    /// 1.15 GiB. A handler that reads from [`Context::body`](super::Context::body) piece by piece does not hold the body.
    pub max_body_bytes: u64,

    /// How many connections may be served at once, those that were taken over not counted. Default: 1,024, about 40 MB
    /// of threads if all are idle. See [`max_body_bytes`](Config::max_body_bytes) for the most memory that they can take.
    /// Beyond it: `503` with `Retry-After`, and the end.
    pub max_connections: usize,

    /// How many connections may be taken over at once. They cost a descriptor each, and a thread only if yours holds
    /// them. Default: 10,000. Beyond it: `503` with `Retry-After`, and the taken connection's writes fail.
    pub max_taken_over: usize,

    /// Whether connections on a loopback address are answered only if their `Host` is one that means loopback, or one
    /// named with [`Server::allow_host`](super::Server::allow_host). Default: yes, for it keeps web pages from talking to
    /// servers on their visitor's machine (DNS rebinding). Refused: `421`, with a body that says how to allow it.
    pub check_host: bool,

    /// Whether requests with a method that changes things are refused when a page of another origin sends them, unless
    /// it is one named with [`Server::allow_origin`](super::Server::allow_origin). Default: yes, for pages can post with
    /// their visitor's cookies (CSRF). Programs such as curl send no origin and pass. Refused: `403`.
    pub check_origin: bool,

    /// The stack of each thread that serves connections, in bytes. Default: 2 MiB, as for [`std::thread::spawn`]: a handler
    /// that works in a thread of the program works here too. A stack costs address space, and memory only where it was used.
    /// A handler that needs more than the stack ends the whole process: Rust aborts, and no panic is caught.
    pub stack_size: usize,
}

impl Config {
    /// # Errors
    ///
    /// `InvalidInput` for a timeout of zero, which a socket cannot have: for none, [`Duration::MAX`].
    pub(super) fn check(&self) -> io::Result<()> {
        let timeouts = [
            ("read_header_timeout", self.read_header_timeout),
            ("read_timeout", self.read_timeout),
            ("write_timeout", self.write_timeout),
            ("idle_timeout", self.idle_timeout),
        ];
        for (name, timeout) in timeouts {
            if timeout.is_zero() {
                let message = format!("Config::{name} is zero, which lets nobody in; for no limit, Duration::MAX");
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
