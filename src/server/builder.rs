//! The server as a program builds it: routes, guards and settings, then `serve`.

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
/// [`bind`](Server::bind) opens the listener, [`get`](Server::get) and its siblings add routes, and
/// [`serve`](Server::serve) answers requests, each connection in a thread of its own.
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
/// Other machines cannot reach a server on 127.0.0.1. Web pages that are open in a browser on the same machine can
/// reach it. Two checks reject requests from such pages. Both are on by default:
///
/// - **Host.** The `Host` of a request that arrives on a loopback address must mean loopback: `localhost`, a name that
///   ends with `.localhost`, or a loopback address. An HTTP/1.0 request may have no `Host`. Other requests receive a 421 that says what to do. A page can
///   let its own name resolve to 127.0.0.1 (DNS rebinding); this check rejects its requests.
///   [`allow_host`](Server::allow_host) allows another name.
/// - **Origin.** A request with a method other than GET, HEAD, OPTIONS and TRACE receives a 403 if a page of another
///   origin sends it. Browsers mark such requests with `Sec-Fetch-Site`; the server uses `Origin` if that field is
///   missing. Programs such as curl send neither field, and their requests pass. [`allow_origin`](Server::allow_origin)
///   allows an origin.
///
/// [`Config::check_host`] and [`Config::check_origin`] switch the checks off:
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
/// A proxy such as nginx adds TLS and HTTP/2. `examples/fleet/README.md` has a tested configuration for nginx, and
/// notes about other proxies.
///
/// - If the proxy forwards the public name as `Host`, allow that name with [`allow_host`](Server::allow_host).
/// - [`Context::peer_addr`] returns the address of the proxy. The client's address is in the field `X-Forwarded-For`,
///   if the proxy sets it. Trust the field only if all requests come through the proxy.
/// - The proxy must close idle connections before [`Config::idle_timeout`] is over.
/// - Event streams ask proxies not to buffer them (`X-Accel-Buffering: no`, `Cache-Control: no-transform`). A silent
///   stream sends a keep-alive comment every 15 s, so that proxies do not close it.
///
/// # Failures
///
/// [What happens when](super::super#what-happens-when) lists the effects of clients that leave, panics, a lack of file
/// descriptors, and other events.
#[must_use = "call `serve` or `spawn` to answer requests"]
pub struct Server {
    listener: TcpListener,
    /// `true` for the listener of `bind`. Another process may hold a listener that the program made.
    owns_listener: bool,
    handle: Handle,
    service: Service,
    /// The error of the first route, host or origin that is not valid.
    refused: Option<io::Error>,
}

impl Server {
    /// Listens on an address, such as `"127.0.0.1:8080"` or `("::1", 8080)`. With port 0, the system chooses a free
    /// port, and [`local_addr`](Server::local_addr) returns it. Clients can connect from now on. They wait until the
    /// program calls [`serve`](Server::serve).
    ///
    /// A server listens on one address. If a name stands for several addresses, the server listens on the first that
    /// works. `localhost` often stands for `127.0.0.1` and `::1`, and then clients cannot connect to the other address.
    /// Pass an address instead of a name. To listen on all addresses of the machine, bind `[::]:8080`. On Linux and
    /// macOS, that accepts IPv4 clients too.
    ///
    /// To set socket options that `std` does not offer, make the listener yourself, and pass it to
    /// [`Server::from`](#impl-From<TcpListener>-for-Server).
    ///
    /// # Errors
    ///
    /// - Returns the error of [`TcpListener::bind`]. The message contains the address, and advice if the port is in
    ///   use, the port needs privileges, or the machine does not have the address.
    pub fn bind(address: impl ToSocketAddrs + fmt::Debug) -> io::Result<Server> {
        let listener = TcpListener::bind(&address).map_err(|error| explain_bind_error(&address, error))?;
        let handle = Handle::new(listener.local_addr()?);
        Ok(Server { listener, owns_listener: true, handle, service: Service::default(), refused: None })
    }

    /// Adds a route: `handler` answers requests with this method whose path matches the pattern.
    ///
    /// A pattern is a path with three kinds of segments:
    ///
    /// - Text matches the same text.
    /// - `{name}` matches any one segment that is not empty.
    /// - `{*name}` matches the rest of the path. It must be the last segment. The rest may be empty: `/{*path}` matches
    ///   `/`.
    ///
    /// If several patterns of the method match, text is preferred to `{name}`, and `{name}` to `{*name}`. The order in which routes
    /// are added does not matter. `/a/` and `/a` are different paths. Patterns are normalized like paths
    /// ([`Context::path`]): `/%7Ea` is `/~a`.
    ///
    /// The server answers some requests that have no route:
    ///
    /// - The response is a 404 if no pattern matches the path.
    /// - The response is a 405 with `Allow` if the path has routes for other methods only.
    /// - The handler of GET answers HEAD.
    /// - The response to OPTIONS is a 204 with `Allow`.
    ///
    /// It is safe to join the values of `{name}` and `{*name}` to the path of a directory: see [`Context::param`].
    ///
    /// A handler runs in many threads at once. Share state in an `Arc`, and move a clone of the `Arc` into each
    /// closure:
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
    ///         let note = ctx.body_text()?; // before the lock: a slow client must not hold it
    ///         notes.lock().unwrap().push(note);
    ///         Ok(())
    ///     })
    /// # ;
    /// # server.spawn().map(drop)
    /// # }
    /// ```
    ///
    /// If a pattern is malformed, or already has a route with this method, [`serve`](Server::serve) returns an error.
    /// The error names the pattern and the line that added it.
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

    /// Adds a route for GET and HEAD. See [`route`](Server::route).
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

    /// Allows requests with this `Host` on a loopback address. `host` is a name or an address without a port, for
    /// example the public name of a proxy in front, or a name in `/etc/hosts`. See [`check_host`](Config::check_host).
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

    /// Allows requests from pages of this origin, for example `https://app.example` or `http://localhost:3000`. The
    /// pages may send requests with any method ([`check_origin`](Config::check_origin)), and may read the responses,
    /// event streams included (CORS). Their preflights are answered before guards run.
    /// [`allow_credentials`](Server::allow_credentials) also allows credentials in their requests.
    ///
    /// After the first call, every response to a request has `Vary: Origin`, so that a cache does not give the response for one page
    /// to another page. [`serve`](Server::serve) returns an error if `origin` is malformed.
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

    /// Allows pages of the [allowed origins](Server::allow_origin) to send credentials: cookies, client certificates,
    /// and the `Authorization` that a browser adds by itself. Pages send them with
    /// `fetch(url, { credentials: "include" })` or `new EventSource(url, { withCredentials: true })`.
    ///
    /// Responses to these origins have `Access-Control-Allow-Credentials: true`, responses to preflights too (WHATWG
    /// Fetch, "CORS protocol and credentials"). A preflight carries no credentials, so guards do not run for it.
    pub fn allow_credentials(mut self) -> Server {
        self.service.dispatcher.allowed.allows_credentials = true;
        self
    }

    /// Adds a guard: a function that runs before routing, and either lets a request pass or answers it. [`Verdict`]
    /// lists the values that a guard may return.
    ///
    /// Guards run in the order in which they are added, for every valid request except preflights of
    /// [allowed origins](Server::allow_origin). A guard sees the same normalized [path](Context::path) as the router
    /// and the handler. This guard protects all paths that start with `/private`, however a client escapes them:
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
    /// A guard can set fields of the later response with [`Context::set_response_header`]. If the handler sets a field
    /// of the same name in its response, that field is sent instead.
    ///
    /// A browser's `EventSource` sends cookies, and cannot send `Authorization`. A guard for event streams can check a
    /// cookie, or a field of the query:
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
    /// A guard can return a `Result`, so that `?` works, and can pass a value to the handler with [`Context::insert`]:
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

    /// Sets the form of error responses. It is used for the responses of the server itself, such as 404, 405, 413 and
    /// the 500 after a panic. It is also used if a handler or guard returns `None`, an error, or a bare
    /// [`StatusCode`](super::http::StatusCode) from 400 on. Without a form, the body of these responses is a line of
    /// text. The last call replaces earlier ones.
    ///
    /// ```
    /// # use brooklet::{Response, Server};
    /// # use std::{io::{self, Read, Write}, net::TcpStream};
    /// # fn main() -> io::Result<()> {
    /// # let server = Server::bind("127.0.0.1:0")?
    /// .error_response(|problem| {
    ///     let status = problem.status.as_u16();
    ///     // `{:?}` is right for printable ASCII, as in all messages of this crate. For other text, use serde_json.
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
    /// The response keeps its status, its fields `Allow`, `Retry-After` and `Connection`, and the CORS fields. If
    /// `form` panics or returns a bare status, the line of text is sent. If `form` returns an error, a response with a
    /// field that cannot be sent, or a stream that fails, the response is a 500 with that cause.
    ///
    /// `form` is not called for a response with a body of the program, such as `Response::text("no").with_status(..)`.
    /// Nor is it called for the 503 of a client beyond [`max_connections`](Config::max_connections), because the server
    /// does not parse that client's request.
    pub fn error_response<F, R>(mut self, form: F) -> Server
    where
        F: Fn(&Problem<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        self.service.form = Some(Box::new(move |problem| form(problem).into()));
        self
    }

    /// Sets the hook that is called after each response, in the thread that sent the response. The last call replaces
    /// earlier ones.
    ///
    /// The hook is also called after the response to a malformed request, when a stream of [`sse::stream`] has ended,
    /// and when a handler that called [`takeover_conn`](Context::takeover_conn) returns. Without a hook, errors of the
    /// program are printed to standard error.
    ///
    /// The hook is also called for clients beyond [`max_connections`](Config::max_connections). If the hook
    /// blocks for such clients, at most 128 threads wait for it. Further clients receive their 503 without a call.
    ///
    /// The [`Display`](Exchange#impl-Display-for-Exchange<'_>) of an [`Exchange`] is a line of an access log, without
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

    /// Keeps the first error for `serve` to return.
    fn keep_error(mut self, result: io::Result<()>) -> Server {
        self.refused = self.refused.or(result.err());
        self
    }

    /// Sets the limits, timeouts and checks. The last call replaces earlier ones.
    pub fn config(mut self, config: Config) -> Server {
        self.service.config = config;
        self
    }

    /// Returns the address that the server listens on. Its port is the one that the system chose if the program passed
    /// port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// Returns a handle that can stop the server from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers requests, and blocks until the server has stopped. [`Handle::shutdown`] stops it.
    ///
    /// No error of a client and no error of `accept` ends the server. The calling thread serves no connection itself,
    /// so that it can return as soon as the server has stopped.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` if a route, host or origin is malformed, if a pattern has two routes with the same
    ///   method, or if a timeout is zero. The error is the first of these.
    /// - Returns the system's error if no thread can be started.
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

    /// Answers requests in a new thread, until the returned [`Running`] is dropped.
    ///
    /// Use it to test handlers, or if the main thread of a program does other work. A test that ends or fails drops the
    /// `Running`, and so stops the server:
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
    /// - Returns `InvalidInput` for the same reasons as [`serve`](Server::serve), for example for a malformed route.
    /// - Returns the system's error if the thread cannot be started.
    pub fn spawn(mut self) -> io::Result<Running> {
        self.check()?;
        Running::spawn(self.handle(), || self.serve())
    }

    /// Returns the error of the first route, host, origin or timeout that is not valid.
    fn check(&mut self) -> io::Result<()> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        self.service.config.check()
    }
}

/// Creates a server from a listener that the program has opened. The listener may come from systemd (socket
/// activation), share its port with other listeners (`SO_REUSEPORT`), serve both IPv4 and IPv6, or have socket options
/// that accepted connections inherit.
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
/// The conversion makes the listener blocking and looks its address up. If one of the two fails,
/// [`serve`](Server::serve) returns the error. [`local_addr`](Server::local_addr) returns `0.0.0.0:0` if the address is
/// unknown.
///
/// Another process may hold the same listener, so a [shutdown](Handle::shutdown) does not shut the listener down. It
/// wakes the threads that wait for connections by connecting to the address. If these connections fail, for example
/// because a firewall drops them, the port stays in use and a line is printed to standard error.
///
/// # Clients that vanish
///
/// A client whose network is gone does not close its connection. The kernel of the server gives up after 925 to 1,040 s
/// (measured on Linux). Until then, an event stream to such a client counts against [`Config::max_taken_over`], and a
/// stream of [`sse::stream`](super::super::sse::stream) also holds a thread. If 11 clients vanish in each second, they
/// fill the default of 10,000 places. Keep-alive comments do not help. `SO_KEEPALIVE` does not help either, because the
/// kernel sends no probes while data waits for its acknowledgement.
///
/// A channel disconnects a client that does not read. The kernel still keeps the data that it has not sent to such a
/// client, at most 1.8 MiB each, until the client closes its end or TCP gives up.
///
/// On Linux, set `TCP_USER_TIMEOUT` on the listener. Accepted connections inherit it. With 30 s, connections to
/// vanished clients ended after 31 to 48 s. The option also ends a connection if data waits for 30 s because the client
/// does not read, and so frees the data that the kernel keeps. `std` cannot set the option; the `socket2` crate can:
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
/// `examples/listener` contains the whole program. The queue of 4,096 connections helps if many clients reconnect at
/// once, for example after a restart. The queue of [`Server::bind`] has 128 places. If it is full, further clients try
/// again after a second.
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

/// Adds the address to an error of `bind`, and advice if the error is a common one.
fn explain_bind_error(address: &impl fmt::Debug, error: io::Error) -> io::Error {
    let hint = bind_hint(&error);
    // `main` prints an error with `{:?}`, which would escape the quotes.
    let address = format!("{address:?}");
    let message = format!("cannot listen on {}: {error}{hint}", address.trim_matches('"'));
    io::Error::new(error.kind(), message)
}

fn bind_hint(error: &io::Error) -> &'static str {
    if error.raw_os_error().is_none() {
        // The text is not an address, or its name was not found.
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
