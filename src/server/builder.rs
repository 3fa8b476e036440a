//! The type with which a program builds a server. The program adds routes, guards and settings, and then calls `serve`.

use super::accept::Acceptor;
use super::config::Config;
use super::context::Context;
use super::exchange::Exchange;
use super::handle::Handle;
use super::http::{Method, Response};
use super::problem::Problem;
use super::running::Running;
use super::serve::Service;
use super::verdict::Verdict;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::Location;
use std::{fmt, io};

/// An HTTP server: a listener with its routes, guards and settings.
///
/// [`bind`](Server::bind) opens the listener. [`get`](Server::get), [`post`](Server::post) and similar methods add
/// routes. [`serve`](Server::serve) answers requests, and serves each connection in a separate thread.
///
/// ```no_run
/// use brooklet::{Server, StatusCode};
/// use std::io;
///
/// # fn main() -> io::Result<()> {
/// Server::bind("127.0.0.1:8080")?
///     .before(|ctx| ctx.path().starts_with("/private").then(|| StatusCode::FORBIDDEN.into()))
///     .get("/", |_| "hello\n")
///     .get("/hello/{name}", |ctx| format!("hello {}\n", ctx.param("name")))
///     .post("/shout", |mut ctx| -> io::Result<_> { Ok(ctx.body_text()?.to_uppercase()) }) // `?` needs a return type
///     .on_response(|exchange| println!("{exchange}"))
///     .serve()
/// # }
/// ```
///
/// # Requests from web pages
///
/// Other machines cannot reach a server on 127.0.0.1. But a web page in a browser on the same machine can send requests
/// to the server. Two checks reject such requests. Both checks are on by default:
///
/// - **Host.** A request that arrives on a loopback address must have a `Host` that means loopback: `localhost`, a name
///   that ends with `.localhost`, or a loopback address. An HTTP/1.0 request may have no `Host`. Other requests receive
///   a 421. The owner of a page can make the name of the page resolve to 127.0.0.1 (DNS rebinding), and this check
///   rejects the requests of that page. [`allow_host`](Server::allow_host) allows another name.
/// - **Origin.** A request from a page of another origin receives a 403, unless the method is GET, HEAD, OPTIONS or
///   TRACE. Browsers mark such requests with the field `Sec-Fetch-Site`. If this field is missing, the server checks
///   the field `Origin`. Programs such as curl do not send these fields, and their requests pass.
///   [`allow_origin`](Server::allow_origin) allows an origin.
///
/// The fields [`Config::check_host`] and [`Config::check_origin`] can disable the checks:
///
/// ```
/// # use brooklet::{Config, Server};
/// # fn main() -> std::io::Result<()> {
/// let open = Config { check_host: false, check_origin: false, ..Config::default() };
/// # drop(Server::bind("127.0.0.1:0")?.config(open));
/// # Ok(())
/// # }
/// ```
///
/// # Behind a proxy
///
/// A proxy such as nginx adds TLS and HTTP/2. `examples/fleet/README.md` contains a tested configuration for nginx and
/// notes about other proxies.
///
/// - If the proxy forwards the public name as `Host`, allow that name with [`allow_host`](Server::allow_host).
/// - [`Context::peer_addr`] returns the address of the proxy. If the proxy sets the field `X-Forwarded-For`, this field
///   contains the client's address. Trust the field only if all requests come through the proxy.
/// - The proxy must close idle connections before [`Config::idle_timeout`] is over.
/// - The response of an event stream has the fields `X-Accel-Buffering: no` and `Cache-Control: no-transform`. With
///   these fields, a proxy should not buffer or change the stream. By default, a silent stream sends a keep-alive
///   comment every 15 s, so that proxies do not close the connection.
///
/// # Failures
///
/// The section [What happens when](super::super#what-happens-when) lists the effects of failures. Examples are a client
/// that leaves, a panic, and a lack of file descriptors.
#[must_use = "call `serve` or `spawn` to answer requests"]
pub struct Server {
    listener: TcpListener,
    /// `true` if `bind` created the listener. If the program created the listener, another process may also hold the
    /// listener.
    owns_listener: bool,
    handle: Handle,
    service: Service,
    /// The error of the first route, host or origin that is not valid.
    refused: Option<io::Error>,
}

impl Server {
    /// Listens on an address, such as `"127.0.0.1:8080"` or `("::1", 8080)`. With port 0, the system chooses a free
    /// port, and [`local_addr`](Server::local_addr) returns this port. Clients can connect after this call. The
    /// requests of these clients wait until the program calls [`serve`](Server::serve).
    ///
    /// A server listens on one address. If a name resolves to several addresses, the server listens on the first
    /// address that works. `localhost` often resolves to `127.0.0.1` and `::1`. Clients can then connect to only one of
    /// these two addresses. So pass an address instead of a name. To listen on all addresses of the machine, pass
    /// `[::]:8080`. On Linux and macOS, such a server also accepts IPv4 clients.
    ///
    /// To set socket options that `std` does not offer, create the listener in the program and convert the listener
    /// with [`Server::from`](#impl-From<TcpListener>-for-Server).
    ///
    /// # Errors
    ///
    /// - Returns the error of [`TcpListener::bind`], with the address added to the message. For common errors, the
    ///   message also contains advice, for example if the port is in use.
    /// - Returns the system's error if the address of the new listener is not available.
    pub fn bind(address: impl ToSocketAddrs + fmt::Debug) -> io::Result<Server> {
        let listener = TcpListener::bind(&address).map_err(|error| explain_bind_error(&address, error))?;
        let handle = Handle::new(listener.local_addr()?);
        Ok(Server { listener, owns_listener: true, handle, service: Service::default(), refused: None })
    }

    /// Adds a route. `handler` answers each request that has this method and a path that matches the pattern.
    ///
    /// A pattern is a path with three kinds of segments:
    ///
    /// - Text matches the same text.
    /// - `{name}` matches one segment that is not empty.
    /// - `{*name}` matches the rest of the path, and must be the last segment. The rest may be empty. For example,
    ///   `/{*path}` matches `/`.
    ///
    /// If several patterns with a route for the method match, the server compares the patterns segment by segment. The
    /// server prefers text to `{name}`, and `{name}` to `{*name}`. The order in which routes are added does not matter.
    /// `/a/` and `/a` are different paths. Patterns are normalized in the same way as paths ([`Context::path`]). For
    /// example, the pattern `/%7Ea` is the same as `/~a`.
    ///
    /// The server also answers requests that have no route for their method:
    ///
    /// - If no pattern matches the path, the response is a 404.
    /// - If a pattern for GET matches, the handler of GET also answers HEAD.
    /// - If any pattern matches, the response to OPTIONS is a 204 with `Allow`.
    /// - If only patterns for other methods match, the response is a 405 with `Allow`.
    ///
    /// It is safe to join the values of `{name}` and `{*name}` to the path of a directory. See [`Context::param`].
    ///
    /// Several threads may call a handler at the same time. Share state in an `Arc`, and move a clone of the `Arc` into
    /// each closure:
    ///
    /// ```
    /// # use brooklet::Server;
    /// # fn main() -> std::io::Result<()> {
    /// use std::sync::{Arc, Mutex};
    ///
    /// let notes = Arc::new(Mutex::new(Vec::new()));
    /// let all = Arc::clone(&notes);
    /// # let server =
    /// Server::bind("127.0.0.1:0")?
    ///     .get("/notes", move |_| all.lock().unwrap().join("\n"))
    ///     .post("/notes", move |mut ctx| -> std::io::Result<()> {
    ///         let note = ctx.body_text()?; // reads before locking, because a slow client must not hold the lock
    ///         notes.lock().unwrap().push(note);
    ///         Ok(())
    ///     })
    /// # ;
    /// # server.spawn().map(drop)
    /// # }
    /// ```
    ///
    /// If a pattern is malformed or already has a route with this method, [`serve`](Server::serve) returns an error.
    /// The message contains the pattern, and the file and line of the call that added the route.
    #[track_caller]
    pub fn route<H, R>(mut self, method: Method, pattern: &str, handler: H) -> Server
    where
        H: Fn(Context<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        let handler = Box::new(move |context: Context<'_>| handler(context).into());
        let added = self.service.dispatcher.router.add(method, pattern, Location::caller(), handler);
        self.keep_error(added)
    }

    /// Adds a route for GET. The handler also answers HEAD if the pattern has no route for HEAD. See
    /// [`route`](Server::route).
    #[track_caller]
    pub fn get<H, R>(self, pattern: &str, handler: H) -> Server
    where
        H: Fn(Context<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        self.route(Method::Get, pattern, handler)
    }

    /// Adds a route for POST. See [`route`](Server::route).
    #[track_caller]
    pub fn post<H, R>(self, pattern: &str, handler: H) -> Server
    where
        H: Fn(Context<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        self.route(Method::Post, pattern, handler)
    }

    /// Adds a route for PUT. See [`route`](Server::route).
    #[track_caller]
    pub fn put<H, R>(self, pattern: &str, handler: H) -> Server
    where
        H: Fn(Context<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        self.route(Method::Put, pattern, handler)
    }

    /// Adds a route for PATCH. See [`route`](Server::route).
    #[track_caller]
    pub fn patch<H, R>(self, pattern: &str, handler: H) -> Server
    where
        H: Fn(Context<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        self.route(Method::Patch, pattern, handler)
    }

    /// Adds a route for DELETE. See [`route`](Server::route).
    #[track_caller]
    pub fn delete<H, R>(self, pattern: &str, handler: H) -> Server
    where
        H: Fn(Context<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        self.route(Method::Delete, pattern, handler)
    }

    /// Allows requests with this `Host` on a loopback address. See [`check_host`](Config::check_host).
    ///
    /// `host` is a name or an address without a port. Examples are the public name of a proxy in front of the server,
    /// and a name in `/etc/hosts`. The comparison ignores case.
    ///
    /// [`serve`](Server::serve) returns an error if `host` is malformed.
    ///
    /// ```no_run
    /// # use brooklet::Server;
    /// # fn main() -> std::io::Result<()> {
    /// Server::bind("127.0.0.1:8080")?.allow_host("live.example").get("/", |_| "hello\n").serve()
    /// # }
    /// ```
    pub fn allow_host(mut self, host: &str) -> Server {
        let allowed = self.service.dispatcher.allowed.allow_host(host);
        self.keep_error(allowed)
    }

    /// Allows requests from pages of this origin, for example `https://app.example` or `http://localhost:3000`.
    ///
    /// These pages may send requests with any method ([`check_origin`](Config::check_origin)). These pages may also
    /// read the responses, including event streams (CORS). The server answers the preflights of these pages, and calls
    /// no guard for a preflight. [`allow_credentials`](Server::allow_credentials) also allows credentials in the
    /// requests.
    ///
    /// If the program allows an origin, every response to a request has `Vary: Origin`. With this field, a cache does
    /// not give the response for one origin to a page of another origin. If `origin` is malformed,
    /// [`serve`](Server::serve) returns an error.
    ///
    /// ```no_run
    /// # use brooklet::Server;
    /// # fn main() -> std::io::Result<()> {
    /// Server::bind("127.0.0.1:8080")?.allow_origin("https://app.example").get("/", |_| "hello\n").serve()
    /// # }
    /// ```
    #[doc(alias = "cors")]
    pub fn allow_origin(mut self, origin: &str) -> Server {
        let allowed = self.service.dispatcher.allowed.allow_origin(origin);
        self.keep_error(allowed)
    }

    /// Allows pages of the [allowed origins](Server::allow_origin) to send credentials. Credentials are cookies, client
    /// certificates, and an `Authorization` field that the browser adds. A page sends credentials with
    /// `fetch(url, { credentials: "include" })` or `new EventSource(url, { withCredentials: true })`.
    ///
    /// After this call, responses to requests from the allowed origins have `Access-Control-Allow-Credentials: true`.
    /// Responses to preflights also have this field (WHATWG Fetch, "CORS protocol and credentials"). A preflight
    /// contains no credentials, so the server does not call guards for a preflight.
    pub fn allow_credentials(mut self) -> Server {
        self.service.dispatcher.allowed.allows_credentials = true;
        self
    }

    /// Adds a guard. A guard is a function that runs before routing, and either lets a request pass or answers the
    /// request. [`Verdict`] lists the values that a guard may return.
    ///
    /// The server runs guards in the order in which they were added. If a guard answers the request, later guards and
    /// the handler do not run. Guards run for every valid request that passes the
    /// [checks](Server#requests-from-web-pages) of `Host` and `Origin`, except for preflights of
    /// [allowed origins](Server::allow_origin).
    ///
    /// A guard sees the same normalized [path](Context::path) as the router and the handler. So this guard protects all
    /// paths that start with `/private`, even if a client escapes characters of the path:
    ///
    /// ```no_run
    /// # use brooklet::{Server, StatusCode};
    /// # fn main() -> std::io::Result<()> {
    /// # Server::bind("127.0.0.1:8080")?
    /// .before(|ctx| ctx.path().starts_with("/private").then(|| StatusCode::FORBIDDEN.into()))
    /// # .serve()
    /// # }
    /// ```
    ///
    /// A guard can set fields of the later response with [`Context::set_response_header`]. If the response of the
    /// handler [sets](Response::header) a field of the same name, the field of the response is sent instead.
    ///
    /// A page cannot set the field `Authorization` for an `EventSource`, but the browser sends cookies. So a guard for
    /// event streams can check a cookie or a field of the query:
    ///
    /// ```no_run
    /// # use brooklet::{Server, StatusCode};
    /// # fn main() -> std::io::Result<()> {
    /// # Server::bind("127.0.0.1:8080")?
    /// .before(|ctx| match ctx.query("token").as_deref() {
    ///     Some("secret") => None,
    ///     _ => Some(StatusCode::UNAUTHORIZED.into()),
    /// })
    /// # .serve()
    /// # }
    /// ```
    ///
    /// A guard can return a `Result`, so that `?` works. A guard can pass a value to the handler with
    /// [`Context::insert`]:
    ///
    /// ```no_run
    /// # use brooklet::{Error, Response, Server, StatusCode};
    /// # struct User { name: String }
    /// # fn find_user(session: &str) -> std::io::Result<User> { Ok(User { name: session.to_owned() }) }
    /// # fn main() -> std::io::Result<()> {
    /// # Server::bind("127.0.0.1:8080")?
    /// .before(|ctx| -> Result<(), Response> {
    ///     let session = ctx.cookie("session").ok_or(StatusCode::UNAUTHORIZED)?;
    ///     let user = find_user(session)?;
    ///     ctx.insert(user);
    ///     Ok(())
    /// })
    /// .get("/me", |ctx| ctx.get::<User>().map(|user| user.name.clone()))
    /// # .serve()
    /// # }
    /// ```
    pub fn before<G, V>(mut self, guard: G) -> Server
    where
        G: Fn(&mut Context<'_>) -> V + Send + Sync + 'static,
        V: Into<Verdict>,
    {
        self.service.dispatcher.guards.push(Box::new(move |context| guard(context).into()));
        self
    }

    /// Sets the function that creates the body of error responses. A later call replaces the function of an earlier
    /// call.
    ///
    /// The server calls `form` for its own error responses, such as 404, 405, 413, and the 500 after a panic. The
    /// server also calls `form` if a handler returns `None`, or if a handler or guard returns an error or a
    /// [`StatusCode`](super::http::StatusCode) of at least 400. Without `form`, the body of these responses is a line
    /// of text.
    ///
    /// ```
    /// # use brooklet::{Response, Server};
    /// # use std::{io::{self, Read, Write}, net::TcpStream};
    /// # fn main() -> io::Result<()> {
    /// # let server = Server::bind("127.0.0.1:0")?
    /// .error_response(|problem| {
    ///     let status = problem.status.as_u16();
    ///     // `{:?}` writes valid JSON if the text is printable ASCII, as in all messages of this crate. For other
    ///     // text, use `serde_json`.
    ///     Response::json(format!(r#"{{"status":{status},"error":{:?}}}"#, problem.message))
    /// })
    /// .get("/things/{id}", |ctx| (ctx.param("id") == "7").then(|| Response::json(r#"{"id":7}"#)))
    /// .post("/things", |mut ctx| -> io::Result<_> { Ok(Response::json(ctx.body_text()?)) })
    /// # ;
    /// # let server = server.spawn()?;
    /// # let ask = |request: &[u8]| -> io::Result<String> {
    /// #     let mut client = TcpStream::connect(server.local_addr())?;
    /// #     client.write_all(request)?;
    /// #     let mut answer = String::new();
    /// #     client.read_to_string(&mut answer).map(|_| answer)
    /// # };
    /// # assert!(ask(b"GET /things/7 HTTP/1.0\r\n\r\n")?.ends_with("\r\n\r\n{\"id\":7}"));
    /// # assert!(ask(b"GET /things/8 HTTP/1.0\r\n\r\n")?.ends_with("\r\n\r\n{\"status\":404,\"error\":\"Not Found\"}"));
    /// # assert!(ask(b"nonsense\r\n\r\n")?.contains("\r\nContent-Type: application/json\r\n"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The response keeps its status and its header fields, such as `Allow`, `Retry-After` and the CORS fields. `form`
    /// can add other fields.
    ///
    /// If `form` panics or returns a status of at least 400 without a body, the line of text is sent. If `form` returns
    /// an [`io::Error`] that contains no [`Error`](super::http::Error), or a response with a field that cannot be sent,
    /// the response is a 500. If `form` returns a stream that fails before the first byte was sent, the response is
    /// also a 500. The error of `form` is reported to [`on_response`](Server::on_response), unless the response already
    /// has a cause.
    ///
    /// The server does not call `form` for a response whose body comes from the program, such as
    /// `Response::text("no").with_status(..)`. The server also does not call `form` for the 503 of a client beyond
    /// [`max_connections`](Config::max_connections), because the server does not parse the request of that client.
    pub fn error_response<F, R>(mut self, form: F) -> Server
    where
        F: Fn(&Problem<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        self.service.form = Some(Box::new(move |problem| form(problem).into()));
        self
    }

    /// Sets the hook that is called after each response, in the thread that sent the response. A later call replaces
    /// the hook of an earlier call.
    ///
    /// The server also calls the hook in these cases:
    ///
    /// - The response could not be sent, for example because the client has left.
    /// - The server has answered a malformed request.
    /// - A handler that called [`takeover_conn`](Context::takeover_conn) or [`sse::stream`] has returned.
    ///
    /// If the program sets no hook, the server prints errors of the program to standard error.
    ///
    /// The hook is also called for clients beyond [`max_connections`](Config::max_connections). The server calls the
    /// hook for at most 128 such clients at the same time. If the hook blocks, further such clients receive a 503
    /// without a call of the hook.
    ///
    /// The [`Display`](Exchange#impl-Display-for-Exchange<'_>) of an [`Exchange`] is a line for an access log, without
    /// the date:
    ///
    /// ```no_run
    /// # use brooklet::Server;
    /// # fn main() -> std::io::Result<()> {
    /// # Server::bind("127.0.0.1:8080")?
    /// .on_response(|exchange| println!("{exchange}"))
    /// # .serve()
    /// # }
    /// ```
    ///
    /// [`sse::stream`]: super::super::sse::stream
    #[doc(alias = "on_request")]
    pub fn on_response<H>(mut self, hook: H) -> Server
    where
        H: Fn(&Exchange<'_>) + Send + Sync + 'static,
    {
        self.service.hook = Some(Box::new(hook));
        self
    }

    /// Stores the error, unless an earlier error is stored. `serve` returns the stored error.
    fn keep_error(mut self, result: io::Result<()>) -> Server {
        self.refused = self.refused.or(result.err());
        self
    }

    /// Sets the limits, timeouts and checks. A later call replaces the settings of an earlier call.
    pub fn config(mut self, config: Config) -> Server {
        self.service.config = config;
        self
    }

    /// Returns the address that the server listens on. If the program passed port 0, the address has the port that the
    /// system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// Returns a handle that can stop the server from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers requests, and blocks until the server has stopped. [`Handle::shutdown`] stops it.
    ///
    /// Errors of clients and errors of `accept` do not end the server. The calling thread does not serve connections.
    /// So this method can return even if a handler is still running after the grace of the shutdown.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` if a route, host or origin is malformed.
    /// - Returns `InvalidInput` if a pattern has two routes with the same method.
    /// - Returns `InvalidInput` if a timeout is zero.
    /// - Returns the system's error if the first thread cannot be started.
    /// - Returns the system's error if the listener of [`Server::from`](#impl-From<TcpListener>-for-Server) cannot be
    ///   made blocking, or has no address.
    pub fn serve(mut self) -> io::Result<()> {
        self.check()?;
        let registry = self.handle.registry();
        let address = Some(self.local_addr().ip()).filter(|ip| !ip.is_unspecified());
        let service = Service { address, ..self.service };
        let acceptor = Acceptor::new(self.listener, self.owns_listener, service, registry.clone());
        acceptor.start()?;
        registry.wait_for_stop();
        let closing = acceptor.close();
        registry.wait_until_empty();
        closing.finish();
        Ok(())
    }

    /// Answers requests until the returned [`Running`] is dropped or the server is shut down. Does not block: a new
    /// thread calls [`serve`](Server::serve).
    ///
    /// Use this method in tests of handlers, or if the main thread of a program does other work. A test that ends or
    /// panics drops the `Running`, and this stops the server:
    ///
    /// ```
    /// # use brooklet::{Context, Server};
    /// # use std::io::{self, Read, Write};
    /// # use std::net::TcpStream;
    /// # fn hello(ctx: Context<'_>) -> String { format!("hello, {}\n", ctx.param("name")) }
    /// # fn main() -> io::Result<()> {
    /// let server = Server::bind("127.0.0.1:0")?.get("/hello/{name}", hello).spawn()?;
    /// let mut client = TcpStream::connect(server.local_addr())?;
    /// client.write_all(b"GET /hello/Ada HTTP/1.0\r\n\r\n")?;
    /// let mut response = String::new();
    /// client.read_to_string(&mut response)?;
    /// assert!(response.starts_with("HTTP/1.1 200 OK\r\n"));
    /// assert!(response.ends_with("\r\n\r\nhello, Ada\n"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` for the same reasons as [`serve`](Server::serve), for example if a route is malformed.
    /// - Returns the system's error if the new thread cannot be started.
    pub fn spawn(mut self) -> io::Result<Running> {
        self.check()?;
        Running::spawn(self.handle(), || self.serve())
    }

    /// Returns the error of the first call that added a route, host or origin that is not valid. If there is no such
    /// call, returns the error of the first timeout that is zero.
    fn check(&mut self) -> io::Result<()> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        self.service.config.check()
    }
}

/// Creates a server from a listener of the program. For example, the listener may come from systemd (socket
/// activation), may share a port with other listeners (`SO_REUSEPORT`), or may serve both IPv4 and IPv6. The listener
/// may also have socket options that accepted connections inherit.
///
/// ```no_run
/// use brooklet::Server;
/// use std::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:8080")?;
/// Server::from(listener).get("/", |_| "hello\n").serve()?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The conversion makes the listener blocking and stores its address. If one of these steps fails,
/// [`serve`](Server::serve) returns the error. If the address is not available, [`local_addr`](Server::local_addr)
/// returns `0.0.0.0:0`.
///
/// Another process may hold the same listener. So [`Handle::shutdown`] does not shut the listener down. Instead, the
/// server connects to the address of the listener, to wake the threads that wait for connections. These connections can
/// fail, for example because a firewall drops the packets. Then the port stays in use, and the server prints a line to
/// standard error.
///
/// # Clients that vanish
///
/// A client that loses its network does not close the connection. The kernel of the server ends such a connection after
/// 925 to 1,040 s (measured on Linux). Until then, an event stream to this client counts against
/// [`Config::max_taken_over`]. A stream of [`sse::stream`](super::super::sse::stream) also holds a thread. If 11
/// clients vanish in each second, the dead connections reach the default limit of 10,000. Keep-alive comments do not
/// help. `SO_KEEPALIVE` does not help either, because the kernel sends no probes while unacknowledged data waits.
///
/// A channel disconnects a client that does not read. The kernel keeps the unsent data of this connection, at most
/// 1.8 MiB, until the client closes the connection or TCP gives up.
///
/// On Linux, set `TCP_USER_TIMEOUT` on the listener. Accepted connections inherit this option. With a timeout of 30 s,
/// connections to vanished clients ended after 31 to 48 s. The option also ends a connection if the client does not
/// read and data waits for 30 s. The kernel then frees the data. `std` cannot set the option, but the `socket2` crate
/// can:
///
/// ```text
/// let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
/// socket.set_reuse_address(cfg!(unix))?; // as std does
/// socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
/// socket.bind(&address.into())?;
/// socket.listen(4096)?;
/// let server = Server::from(TcpListener::from(socket));
/// ```
///
/// `examples/listener` contains the whole program. This program listens with a queue of 4,096 connections. The long
/// queue helps if many clients reconnect at the same time, for example after a restart. The listener of
/// [`Server::bind`] has a queue of 128 connections. If a queue is full, further clients try again after a second.
impl From<TcpListener> for Server {
    fn from(listener: TcpListener) -> Server {
        let address = listener.local_addr();
        let refused = listener.set_nonblocking(false).err();
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let handle = Handle::new(*address.as_ref().unwrap_or(&unknown));
        let server = Server { listener, owns_listener: false, handle, service: Service::default(), refused };
        server.keep_error(address.map(drop))
    }
}

/// Adds the address to the message of an error of `bind`. Also adds advice if the error is common.
fn explain_bind_error(address: &impl fmt::Debug, error: io::Error) -> io::Error {
    let hint = bind_hint(&error);
    // If `main` returns the error, Rust prints the message with `{:?}`, which escapes quotes. So the quotes around the
    // address are removed.
    let address = format!("{address:?}");
    let message = format!("cannot listen on {}: {error}{hint}", address.trim_matches('"'));
    io::Error::new(error.kind(), message)
}

fn bind_hint(error: &io::Error) -> &'static str {
    if error.raw_os_error().is_none() {
        // The text is not an address, or the name in the address was not found.
        return "; an address is a host and a port, as in 127.0.0.1:8080";
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop the program that uses the port, or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: choose a higher port",
        io::ErrorKind::AddrNotAvailable => "; choose an address of this machine, or 0.0.0.0 for all of its addresses",
        _ => "",
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr())
            .field("config", &self.service.config)
            .finish_non_exhaustive()
    }
}
