//! What a handler gets: the request, the way to its body, and the way to take the connection over.

use super::body::{Body, BodyProgress};
use super::buffered_socket::BufferedSocket;
use super::connection::Connection;
use super::extensions::Extensions;
use super::host_and_origin::merge_vary;
use super::http::outgoing::{self, SendOptions};
use super::http::{response, Error, Form, Headers, Method, Request, Response, StatusCode};
use super::linger;
use super::problem::{self, ErrorForm};
use super::refusal::unavailable_response;
use super::router::Params;
use std::any::Any;
use std::fmt;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};

/// A request that wants an answer.
///
/// It goes to the handler by value, and [`takeover_conn`](Context::takeover_conn) consumes it: what cannot be done twice
/// does not compile twice.
///
/// ```compile_fail,E0382
/// fn twice(ctx: brooklet::Context<'_>) -> brooklet::Response {
///     let (conn, no_result) = ctx.takeover_conn();
///     let (again, _) = ctx.takeover_conn();
///     no_result
/// }
/// ```
pub struct Context<'a> {
    /// The serve loop's. It is empty afterwards if the handler took the connection over. As long as this context lives it
    /// is `Some`: only `takeover_conn` empties it, and that consumes the context.
    slot: &'a mut Option<BufferedSocket>,
    request: &'a Request,
    body: &'a mut BodyProgress,
    params: Params<'a>,
    response_headers: &'a mut Headers,
    extensions: Extensions,
    form: Option<&'a ErrorForm>,
    max_taken_over: usize,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        slot: &'a mut Option<BufferedSocket>,
        request: &'a Request,
        body: &'a mut BodyProgress,
        response_headers: &'a mut Headers,
        form: Option<&'a ErrorForm>,
        max_taken_over: usize,
    ) -> Context<'a> {
        let (params, extensions) = (Params::default(), Extensions::default());
        Context { slot, request, body, params, response_headers, extensions, form, max_taken_over }
    }

    pub(super) fn set_params(&mut self, params: Params<'a>) {
        self.params = params;
    }

    fn conn(&self) -> &BufferedSocket {
        self.slot.as_ref().expect("only takeover_conn empties the slot")
    }

    pub(super) fn is_on_loopback(&self) -> bool {
        self.conn().on_loopback
    }

    /// Returns the request's head.
    pub fn request(&self) -> &Request {
        self.request
    }

    /// Returns the method.
    pub fn method(&self) -> Method {
        self.request.method()
    }

    /// Returns the path, normalised: it has one spelling, whatever the client escaped. See [`Request::path`].
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// Returns the request's header fields.
    pub fn headers(&self) -> &Headers {
        self.request.headers()
    }

    /// Returns the value of the first cookie named `name`, as the cookie was set. See [`Request::cookie`].
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.request.cookie(name)
    }

    /// Returns the id of the last event that a reconnecting client received. See [`Request::last_event_id`].
    pub fn last_event_id(&self) -> Option<String> {
        self.request.last_event_id()
    }

    /// Hands a value to later guards and the handler, which [`get`](Context::get) it by its type: the user that a guard found,
    /// for example. Returns the value of the same type that it replaces.
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) -> Option<T> {
        self.extensions.insert(value)
    }

    /// Returns the value of this type that a guard [inserted](Context::insert).
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.extensions.get()
    }

    /// Takes the value of this type that a guard [inserted](Context::insert), into the thread of a stream for example.
    pub fn remove<T: Any>(&mut self) -> Option<T> {
        self.extensions.remove()
    }

    /// Returns a path parameter, percent-decoded: the text that stood for `{name}` or `{*name}` in the route's pattern.
    ///
    /// Joined to the path of a directory, it names something in that directory. A `{name}` is not empty. A segment, which is
    /// a `{name}` or a part of a `{*name}`, is not `.` or `..`, and does not hold `/`, `\`, NUL or, on Windows, `:`. No segment
    /// of a `{*name}` is empty except the last. A request with another value is answered with 400, and no handler sees it.
    ///
    /// To read a number, convert the error of `parse` into an [`Error`] with the status 400. With `?` alone, in a handler that
    /// returns a box, the response would be a 500:
    ///
    /// ```
    /// # use brooklet::{Context, Error, StatusCode};
    /// fn double(ctx: Context<'_>) -> Result<String, Error> {
    ///     let bad = |_| Error::new(StatusCode::BAD_REQUEST, "the id is not a number");
    ///     let id: u32 = ctx.param("id").parse().map_err(bad)?;
    ///     Ok(format!("{}\n", 2 * u64::from(id)))
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// If the route's pattern has no parameter of that name, and in a guard, which runs before there is a route. That is
    /// a mistake in the program, which no client can cause; it is answered with 500.
    #[track_caller]
    pub fn param(&self, name: &str) -> &str {
        // Not in a closure, whose panic would not be tracked to the caller.
        if let Some(value) = self.params.get(name) {
            return value;
        }
        match self.params.pattern() {
            Some(pattern) => panic!("the pattern `{pattern}` has no parameter `{name}`"),
            None => panic!("there are no path parameters before routing: asked for `{name}`"),
        }
    }

    /// Returns the first field of that name in the query, decoded (WHATWG URL 5.1).
    pub fn query(&self, name: &str) -> Option<String> {
        self.query_form().get(name)
    }

    /// Returns all fields of the query.
    pub fn query_form(&self) -> Form {
        Form::parse(self.request.query().unwrap_or(""))
    }

    /// Limits this request's body to `bytes`, instead of [`Config::max_body_bytes`](super::Config::max_body_bytes): for the one
    /// route that takes uploads. Holds for all reads from here on, and may be called in a guard.
    ///
    /// ```
    /// # use brooklet::Context;
    /// fn upload(mut ctx: Context<'_>) -> std::io::Result<String> {
    ///     ctx.limit_body(400 * 1024 * 1024);
    ///     let bytes = std::io::copy(&mut ctx.body(), &mut std::fs::File::create("upload")?)?;
    ///     Ok(format!("{bytes} bytes\n"))
    /// }
    /// ```
    pub fn limit_body(&mut self, bytes: u64) {
        self.body.max = bytes;
    }

    /// Returns the body, to read from. A client that waits for `100 Continue` is told to go on when the first read waits.
    pub fn body(&mut self) -> Body<'_> {
        let conn = self.slot.as_mut().expect("only takeover_conn empties the slot");
        Body::new(self.body, conn)
    }

    /// Reads the whole body; blocks until it is there.
    ///
    /// # Errors
    ///
    /// Those of [`Body`]. They carry the status to answer with, so hand them on with `?`.
    pub fn body_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the whole body as text.
    ///
    /// # Errors
    ///
    /// Those of [`body_bytes`](Context::body_bytes), and 400 for text that is not UTF-8.
    pub fn body_text(&mut self) -> io::Result<String> {
        String::from_utf8(self.body_bytes()?).map_err(|_| Error::bad("the body is not UTF-8").into())
    }

    /// Reads the whole body as the fields of a form.
    ///
    /// # Errors
    ///
    /// Those of [`body_text`](Context::body_text), and 415 if the body does not say that it is
    /// `application/x-www-form-urlencoded`.
    pub fn form(&mut self) -> io::Result<Form> {
        let content_type = self.headers().get("content-type").unwrap_or("");
        let media_type = content_type.split(';').next().unwrap_or("").trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let message = "this takes application/x-www-form-urlencoded";
            return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into());
        }
        Ok(Form::parse(self.body_text()?))
    }

    /// Returns the client's address, which is the proxy's if there is a proxy in front. An IPv4 client has an IPv4 address
    /// here, also if the server listens on `[::]`.
    pub fn peer_addr(&self) -> SocketAddr {
        self.conn().peer
    }

    /// Returns whether the client has left, without waiting: a slow handler asks this now and then, to stop work whose result
    /// nobody receives. The input of the client is kept: a body, or the next request.
    ///
    /// A client that has ended only its sending half counts as one that has left, although it would still receive the response.
    /// A client that vanished without closing its connection does not count. Nor does one that left after it had sent 64 KiB
    /// that were not read, so read the body first.
    pub fn client_left(&mut self) -> bool {
        self.slot.as_mut().expect("only takeover_conn empties the slot").poll_end()
    }

    /// Sets a header field of the later response, also if a handler takes the connection over for a stream. Replaces all fields
    /// of the same name that were set or appended here. `Vary: Origin` stays if [`allow_origin`](super::Server::allow_origin)
    /// was called.
    ///
    /// The field is a default: [`Response::header`] of the same name replaces it. But a `Content-Type` that is set here
    /// replaces the type that [`Response::text`] and the like give a body.
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` for a field that [`Response::header`] refuses. Nothing is changed then.
    pub fn set_response_header(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.change_response_headers(|headers| response::set(headers, name, value))
    }

    /// Adds a header field to the later response. Other fields of the same name stay, and no response replaces it. Meant for
    /// `Set-Cookie`, `Link`, `Vary` and other fields that come several times.
    ///
    /// # Errors
    ///
    /// Those of [`set_response_header`](Context::set_response_header).
    pub fn append_response_header(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.change_response_headers(|headers| response::append(headers, name, value))
    }

    /// Removes the header fields that were set or appended here under this name, by guards for example.
    pub fn remove_response_header(&mut self, name: &str) {
        let removed = self.change_response_headers(|headers| {
            headers.remove(name);
            Ok(())
        });
        removed.expect("nothing is refused");
    }

    /// Changes the fields, and lists `Origin` once in `Vary` if it was listed before.
    fn change_response_headers(&mut self, change: impl FnOnce(&mut Headers) -> io::Result<()>) -> io::Result<()> {
        let varies = self.response_headers.has_token("vary", "origin");
        change(self.response_headers)?;
        if varies && !self.response_headers.has_token("vary", "origin") {
            self.response_headers.append("Vary", "Origin")?;
        }
        merge_vary(self.response_headers, &Headers::new());
        Ok(())
    }

    /// Takes the connection over: from here on it is yours, and the server neither answers nor closes it.
    ///
    /// The second part says "somebody else answers"; return it from the handler: another answer is dropped, and told to
    /// [`on_response`](super::super::Server::on_response) as a fault. The connection can go to any thread.
    ///
    /// Beyond [`max_taken_over`](super::super::Config::max_taken_over) the client is sent a 503 with `Retry-After`, and what
    /// you get is a connection on which reading finds the end and writing fails.
    #[doc(alias = "hijack")]
    #[doc(alias = "upgrade")]
    pub fn takeover_conn(self) -> (Connection, Response) {
        let mut conn = self.slot.take().expect("a context is taken over once");
        let mut no_result = Response::taken_over();
        if !conn.socket.take_over(self.max_taken_over) {
            let head_only = self.request.method() == Method::Head;
            let headers = &mut *self.response_headers;
            let response = problem::complete(self.form, unavailable_response(), Some(self.request), headers);
            let options = SendOptions { version: self.request.version(), head_only, keep_alive: false, headers };
            // A client that leaves meanwhile needs no 503.
            let sent = outgoing::send(response, &options, &mut Vec::new(), &mut conn.socket);
            no_result = Response::refused(sent.map_or(0, |sent| sent.body_bytes));
            linger::close(&conn.socket);
            // Bytes after the 503 would be taken for a part of it. Reading from the connection finds the end.
            let _ = conn.socket.shutdown(Shutdown::Both);
        }
        let _ = conn.socket.set_read_timeout(None).and_then(|()| conn.socket.set_write_timeout(None));
        let headers = std::mem::take(self.response_headers);
        // A clone, because the hook receives the request too.
        let request = self.request.clone();
        let connection = Connection::new(conn.socket, conn.peer, conn.input.into_vec(), request, headers);
        (connection, no_result)
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("peer", &self.peer_addr())
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
