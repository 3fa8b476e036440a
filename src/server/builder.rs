//! A server: routes, guards and settings, then `serve`.

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

/// An HTTP server that listens, and is being told what to answer.
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
///     .post("/shout", |mut ctx| -> io::Result<_> { Ok(ctx.body_text()?.to_uppercase()) }) // `?` wants the type
///     .on_response(|exchange| println!("{exchange}"))
///     .serve()
/// # }
/// ```
#[must_use = "a server answers when `serve` is called"]
pub struct Server {
    listener: TcpListener,
    /// Whether this made the listener. Another process may have one that the program made.
    owns_listener: bool,
    handle: Handle,
    service: Service,
    /// Why the first route, host or origin that is not valid was refused.
    refused: Option<io::Error>,
}

impl Server {
    /// Listens on an address: `"127.0.0.1:8080"`, `("::1", 8080)`; port 0 takes any free one, see
    /// [`local_addr`](Server::local_addr). Clients can connect from here on, and wait until [`serve`](Server::serve).
    ///
    /// A server listens on one address. Of several, it takes the first that works. A name such as `localhost` often
    /// stands for two, `127.0.0.1` and `::1`, and clients of the other address are refused: write the address itself. To
    /// listen on all addresses of the machine, bind `[::]:8080`, which on Linux and macOS takes IPv4 clients too.
    ///
    /// For options that `std` does not set, make the listener yourself: see
    /// [`Server::from`](#impl-From<TcpListener>-for-Server).
    ///
    /// # Errors
    ///
    /// Those of [`TcpListener::bind`], with the address in the message, and what to do about the common ones.
    pub fn bind(address: impl ToSocketAddrs + fmt::Debug) -> io::Result<Server> {
        let listener = TcpListener::bind(&address).map_err(|error| explain_bind_error(&address, error))?;
        let handle = Handle::new(listener.local_addr()?);
        Ok(Server { listener, owns_listener: true, handle, service: Service::default(), refused: None })
    }

    /// Adds a route: requests with this method, for paths of this pattern, go to the handler.
    ///
    /// A pattern is a path whose segments are text, or `{name}` for any one segment, or at its end `{*name}` for all that
    /// follows, which may be nothing: `/{*path}` includes `/`. Text wins over `{name}`, and that over `{*name}`, whatever the
    /// order of adding. HEAD is answered from GET's handler, and OPTIONS from what is there. Patterns are normalised like
    /// paths ([`Context::path`]): `/%7Ea` is `/~a`.
    ///
    /// The values of `{name}` and `{*name}` can be joined to a directory's path, and stay in that directory: see
    /// [`Context::param`]. A request with another value is a 400.
    ///
    /// A handler runs in many threads at once. Share state in an `Arc`, and move a clone of it into each closure:
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
    ///         let note = ctx.body_text()?; // before the lock, which a client that sends slowly would hold
    ///         notes.lock().unwrap().push(note);
    ///         Ok(())
    ///     })
    /// # ;
    /// # server.spawn().map(drop)
    /// # }
    /// ```
    ///
    /// A malformed pattern, or one that is taken, is refused here; the chain goes on, and [`serve`](Server::serve) returns
    /// the error, which names the pattern and the line that added it.
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

    /// Adds a route for GET, and HEAD. See [`route`](Server::route).
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

    /// Answers also to this host name or address, without a port, on a loopback address: for a proxy in front that hands its
    /// own name on, or a name in `/etc/hosts`. See [`check_host`](Config::check_host). One that is no host is an error of
    /// [`serve`](Server::serve).
    pub fn allow_host(mut self, host: &str) -> Server {
        let allowed = self.service.dispatcher.allowed.allow_host(host);
        self.keep_error(allowed)
    }

    /// Lets pages of this origin in, `https://app.example` or `http://localhost:3000`: they may send requests of any method
    /// ([`check_origin`](Config::check_origin)) and read the answers, event streams included (CORS), and their preflights
    /// are answered before guards run. Without credentials, see [`allow_credentials`](Server::allow_credentials). A text
    /// that is not an origin is an error of [`serve`](Server::serve).
    ///
    /// From the first call on, every response has `Vary: Origin`, so that no cache gives a page the response to another.
    #[doc(alias = "cors")]
    pub fn allow_origin(mut self, origin: &str) -> Server {
        let allowed = self.service.dispatcher.allowed.allow_origin(origin);
        self.keep_error(allowed)
    }

    /// Lets pages of the [allowed origins](Server::allow_origin) send credentials: cookies, client certificates, and the
    /// `Authorization` that a browser adds by itself. Pages ask for it with `fetch(url, { credentials: "include" })` or
    /// `new EventSource(url, { withCredentials: true })`.
    ///
    /// Sends `Access-Control-Allow-Credentials: true` to those origins, in the answers to preflights too (WHATWG Fetch, "CORS
    /// protocol and credentials"). A preflight carries no credentials itself, so guards do not run for it.
    pub fn allow_credentials(mut self) -> Server {
        self.service.dispatcher.allowed.allows_credentials = true;
        self
    }

    /// Adds a guard. Guards run before routing, in the order of adding, for every valid request except preflights of
    /// [allowed origins](Server::allow_origin). A guard either lets the request pass with `None` or answers it, and sees the
    /// same [path](Context::path) as the router and the handler. Fields that it sets with
    /// [`Context::set_response_header`] go with the later response, unless that sets them too.
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
    /// `?` works in a guard that says its type, and a guard can hand what it found to the handler:
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

    /// Gives one form to all error responses that the program did not write: the server's own, such as 404, 405, 413 and the
    /// 500 after a panic, and those that a handler or guard returns as a bare [`StatusCode`](super::http::StatusCode), `None`
    /// or error. Without this, they are a line of text. The last call wins.
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
    /// The response keeps its status, its `Allow`, `Retry-After` and `Connection`, and the CORS
    /// fields. If `form` panics or returns a bare status, the line of text is sent. If it returns an error, a response with
    /// a field that cannot be sent, or a stream that fails, the response is a 500 with that cause. A body that a program wrote
    /// itself, such as `Response::text("no").with_status(..)`, stays as it is. So does the 503 of a client beyond
    /// [`max_connections`](Config::max_connections), whose request nobody has read.
    pub fn error_response<F, R>(mut self, form: F) -> Server
    where
        F: Fn(&Problem<'_>) -> R + Send + Sync + 'static,
        R: Into<Response>,
    {
        self.service.form = Some(Box::new(move |problem| form(problem).into()));
        self
    }

    /// Calls `hook` after each response, refusals of malformed requests included, in the thread that sent it. Without a
    /// hook, errors of handlers are printed to standard error. The last hook wins.
    ///
    /// Clients beyond [`max_connections`](Config::max_connections) are reported too, except while 128 others are being
    /// refused: a hook that blocks does not hold more threads than that for them.
    #[doc(alias = "on_request")]
    pub fn on_response<H>(mut self, hook: H) -> Server
    where
        H: Fn(&Exchange<'_>) + Send + Sync + 'static,
    {
        self.service.hook = Some(Box::new(hook));
        self
    }

    /// Keeps the first error, which `serve` returns.
    fn keep_error(mut self, result: io::Result<()>) -> Server {
        self.refused = self.refused.or(result.err());
        self
    }

    /// Sets limits and timeouts.
    pub fn config(mut self, config: Config) -> Server {
        self.service.config = config;
        self
    }

    /// Returns the address that this listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// Returns a handle that can stop the server from anywhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves, and blocks until [`Handle::shutdown`].
    ///
    /// The calling thread starts the first of the threads that accept and serve, and then waits: it could not return in
    /// time if it were deep in a handler itself.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` for the first route, host or origin that was refused, and for a timeout of zero.
    /// - Returns the system's error if not even one thread can be started.
    /// - Returns the system's error if a listener that the program made is not one.
    ///
    /// No error of a client or of `accept` ends the server.
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

    /// Serves in a thread of its own, until the returned [`Running`] is dropped. For tests of handlers, and for programs whose
    /// main thread does something else.
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
    /// - Returns `InvalidInput` for what [`serve`](Server::serve) refuses: a malformed route, for example.
    /// - Returns the error of the system if the thread cannot be started.
    pub fn spawn(mut self) -> io::Result<Running> {
        self.check()?;
        Running::spawn(self.handle(), || self.serve())
    }

    /// Returns why a route, host, origin or timeout was refused.
    fn check(&mut self) -> io::Result<()> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        self.service.config.check()
    }
}

/// Serves the connections of a listener that the program made: inherited from systemd (socket activation), one of several on
/// the same port (`SO_REUSEPORT`), with a queue longer than the 128 connections of [`TcpListener::bind`], or with socket
/// options that accepted connections inherit. `examples/listener` sets some with the `socket2` crate.
///
/// One option is worth it on Linux: `TCP_USER_TIMEOUT`. Without it, a client that vanishes without closing its connection is
/// noticed after about 15 minutes, and counts against [`max_taken_over`](Config::max_taken_over) until then.
///
/// Makes the listener blocking, and looks its address up. If one of the two fails, [`serve`](Server::serve) returns the error,
/// and an unknown address is `0.0.0.0:0`.
///
/// Another process may hold the same listener. So a [shutdown](Handle::shutdown) does not shut it down: it wakes the threads
/// that wait for connections by connecting to the address. If those connections fail, the port stays in use, and a line is
/// printed to standard error.
///
/// ```no_run
/// use brooklet::Server;
/// use std::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:8080")?;
/// Server::from(listener).get("/", |_| "hello\n").serve()?;
/// # Ok::<(), std::io::Error>(())
/// ```
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

/// Adds the address to an error of `bind`, and what to do about the common ones.
fn explain_bind_error(address: &impl fmt::Debug, error: io::Error) -> io::Error {
    let hint = bind_hint(&error);
    // `main` shows an error with `{:?}`, which would escape the quotes.
    let address = format!("{address:?}");
    let message = format!("cannot listen on {}: {error}{hint}", address.trim_matches('"'));
    io::Error::new(error.kind(), message)
}

fn bind_hint(error: &io::Error) -> &'static str {
    if error.raw_os_error().is_none() {
        // The address was not understood, or its name was not found.
        return "; an address is a host and a port, as in 127.0.0.1:8080";
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop the program that has it, or take another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges: take a higher one",
        io::ErrorKind::AddrNotAvailable => "; it is none of this machine's: 0.0.0.0 takes all that it has",
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
