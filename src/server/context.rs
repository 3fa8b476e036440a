//! The argument of a handler: a request with its body and its connection.

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

/// The context of a request that a handler answers.
///
/// A guard borrows the context, and the handler receives the context by value. The context gives access to the path
/// parameters, the query, the header fields and the body. The context can also set fields of the later response, and
/// pass values from a guard to the handler:
///
/// ```
/// # use brooklet::{Context, Error, StatusCode};
/// fn rename(mut ctx: Context<'_>) -> std::io::Result<String> {
///     let form = ctx.form()?; // a body of `name=Ada`
///     let name = form.get("name").ok_or(Error::new(StatusCode::BAD_REQUEST, "the name is missing"))?;
///     ctx.set_response_header("Cache-Control", "no-store")?;
///     Ok(format!("{} is now {name}\n", ctx.param("id")))
/// }
/// ```
///
/// [`takeover_conn`](Context::takeover_conn) consumes the context, so a second call does not compile:
///
/// ```compile_fail,E0382
/// fn twice(ctx: brooklet::Context<'_>) -> brooklet::Response {
///     let (conn, no_result) = ctx.takeover_conn();
///     let (again, _) = ctx.takeover_conn();
///     no_result
/// }
/// ```
pub struct Context<'a> {
    /// The connection. The loop in `serve.rs` owns this slot. The slot is `Some` as long as this context exists,
    /// because only `takeover_conn` empties the slot, and `takeover_conn` consumes the context.
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

    /// Returns the head of the request. The body is not included.
    pub fn request(&self) -> &Request {
        self.request
    }

    /// Returns the method of the request.
    pub fn method(&self) -> Method {
        self.request.method()
    }

    /// Returns the normalized path of the request. For example, the normalized path of `/%70rivate` is `/private`.
    /// Guards, routes and handlers see the same normalized path. See [`Request::path`].
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// Returns the request's header fields.
    pub fn headers(&self) -> &Headers {
        self.request.headers()
    }

    /// Returns the value of the first cookie with this name. The value is not decoded. See [`Request::cookie`].
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.request.cookie(name)
    }

    /// Returns the id of the last event that a reconnecting client received. See [`Request::last_event_id`].
    pub fn last_event_id(&self) -> Option<String> {
        self.request.last_event_id()
    }

    /// Stores a value for later guards and the handler, for example the user that a guard has found. Later guards and
    /// the handler [`get`](Context::get) the value by its type. Returns the earlier value of the same type, if there is
    /// one.
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) -> Option<T> {
        self.extensions.insert(value)
    }

    /// Returns the value of this type that was [inserted](Context::insert), or `None` if there is no such value.
    ///
    /// ```no_run
    /// # use brooklet::Server;
    /// # fn main() -> std::io::Result<()> {
    /// struct Theme(String);
    ///
    /// # Server::bind("127.0.0.1:8080")?
    /// .before(|ctx| {
    ///     let theme = ctx.cookie("theme").unwrap_or("light").to_owned();
    ///     ctx.insert(Theme(theme));
    /// })
    /// .get("/theme", |ctx| ctx.get::<Theme>().map(|theme| theme.0.clone()))
    /// # .serve()
    /// # }
    /// ```
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.extensions.get()
    }

    /// Removes and returns the value of this type that was [inserted](Context::insert), for example to move the value
    /// into another thread. Returns `None` if there is no such value.
    pub fn remove<T: Any>(&mut self) -> Option<T> {
        self.extensions.remove()
    }

    /// Returns the percent-decoded value of a path parameter. The value is the part of the path that `{name}` or
    /// `{*name}` matched.
    ///
    /// The value consists of segments. The value of a `{name}` is one segment that is not empty. The value of a
    /// `{*name}` has one or more segments, with `/` between two segments.
    ///
    /// It is safe to join the value to the path of a directory, because the result stays in that directory. If the
    /// value breaks one of these rules, the server answers the request with 400 and does not call the handler:
    ///
    /// - The value is UTF-8.
    /// - No segment is `.` or `..`.
    /// - No segment contains `/`, `\` or NUL. On Windows, no segment contains `:`.
    /// - Only the last segment of a `{*name}` may be empty.
    ///
    /// To read a number, convert the error of `parse` into an [`Error`] with the status 400. If a handler returns the
    /// error of `parse` in a box, the response is a 500.
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
    /// Panics if the route's pattern has no parameter with this name. Panics if a guard calls this method, because
    /// guards run before routing. After a panic, the response is a 500. Both panics are errors of the program that a
    /// client cannot cause.
    #[track_caller]
    pub fn param(&self, name: &str) -> &str {
        // `#[track_caller]` has no effect in a closure, so these panics are not in a closure.
        if let Some(value) = self.params.get(name) {
            return value;
        }
        match self.params.pattern() {
            Some(pattern) => panic!("the pattern `{pattern}` has no parameter `{name}`"),
            None => panic!("a guard has no path parameter `{name}`, because guards run before routing"),
        }
    }

    /// Returns the decoded value of the first field with this name in the query (WHATWG URL 5.1). Returns `None` if
    /// there is no such field.
    pub fn query(&self, name: &str) -> Option<String> {
        self.query_form().get(name)
    }

    /// Returns all fields of the query. If the request has no query, the form is empty.
    pub fn query_form(&self) -> Form {
        Form::parse(self.request.query().unwrap_or(""))
    }

    /// Limits the body of this request to `bytes` bytes. For this request, the new limit replaces
    /// [`Config::max_body_bytes`](super::Config::max_body_bytes). For example, a handler that accepts uploads can set a
    /// larger limit. A guard may also call this method.
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

    /// Returns a reader of the body. If the client waits for `100 Continue`, the server sends `100 Continue` in the
    /// first read that has to wait for the client.
    pub fn body(&mut self) -> Body<'_> {
        let conn = self.slot.as_mut().expect("only takeover_conn empties the slot");
        Body::new(self.body, conn)
    }

    /// Reads the whole body. Blocks until the body has arrived.
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`Body`]. Each error contains the status of the response, so return the error with `?`.
    pub fn body_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the whole body as text. Blocks until the body has arrived.
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`body_bytes`](Context::body_bytes).
    /// - Returns an error with the status 400 if the body is not UTF-8.
    pub fn body_text(&mut self) -> io::Result<String> {
        String::from_utf8(self.body_bytes()?).map_err(|_| Error::bad("the body is not UTF-8").into())
    }

    /// Reads the whole body as the fields of a form. Blocks until the body has arrived.
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`body_text`](Context::body_text).
    /// - Returns an error with the status 415 if the `Content-Type` is not `application/x-www-form-urlencoded`.
    pub fn form(&mut self) -> io::Result<Form> {
        let content_type = self.headers().get("content-type").unwrap_or("");
        let media_type = content_type.split(';').next().unwrap_or("").trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let message = "the body must be application/x-www-form-urlencoded";
            return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into());
        }
        Ok(Form::parse(self.body_text()?))
    }

    /// Returns the client's address. If a proxy is in front of the server, returns the address of the proxy. The
    /// address of an IPv4 client is always an IPv4 address, even if the server listens on `[::]`.
    pub fn peer_addr(&self) -> SocketAddr {
        self.conn().peer
    }

    /// Returns whether the client has left, without blocking. A slow handler can call this method repeatedly, and
    /// return early if the client has left. The method keeps input of the client, such as a body or the next request.
    ///
    /// ```
    /// # use brooklet::Context;
    /// # fn is_prime(n: u64) -> bool { n > 1 && (2..n).all(|d| n % d != 0) }
    /// fn primes(mut ctx: Context<'_>) -> String {
    ///     let mut found = 0;
    ///     for n in 0..1_000_000 {
    ///         if n % 1_000 == 0 && ctx.client_left() {
    ///             break;
    ///         }
    ///         found += u32::from(is_prime(n));
    ///     }
    ///     format!("{found} primes\n")
    /// }
    /// ```
    ///
    /// The result is wrong in three cases:
    ///
    /// - Returns `true` for a client that has ended only its sending half, although the client could still receive the
    ///   response.
    /// - Returns `false` for a client that vanished without closing the connection.
    /// - Returns `false` while more than 64 KiB of the client's input are unread, even if the client has left. So read
    ///   the body first.
    pub fn client_left(&mut self) -> bool {
        self.slot.as_mut().expect("only takeover_conn empties the slot").poll_end()
    }

    /// Sets a header field of the later response. Replaces all fields of the same name that a guard or the handler set
    /// or appended earlier. An event stream also sends the field. If the program called
    /// [`allow_origin`](super::Server::allow_origin), the response keeps `Vary: Origin`.
    ///
    /// The field is a default value. If the response sets a field of the same name with [`Response::header`], the field
    /// of the response is sent instead. A `Content-Type` that is set with this method replaces the type that
    /// constructors such as [`Response::text`] set.
    ///
    /// ```
    /// # use brooklet::{Context, Response};
    /// fn page(mut ctx: Context<'_>) -> std::io::Result<Response> {
    ///     ctx.set_response_header("Cache-Control", "no-store")?;
    ///     Ok(Response::html("<p>hello"))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns `InvalidInput` for a field that [`Response::header`] cannot send. After this error, all fields are
    ///   unchanged.
    pub fn set_response_header(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.change_response_headers(|headers| response::set(headers, name, value))
    }

    /// Adds a header field to the later response. Other fields of the same name stay, and [`Response::header`] does not
    /// replace the field. Use this method for fields that may occur several times, such as `Set-Cookie`, `Link` and
    /// `Vary`.
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`set_response_header`](Context::set_response_header).
    pub fn append_response_header(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.change_response_headers(|headers| response::append(headers, name, value))
    }

    /// Removes all header fields of this name that a guard or the handler set or appended. If the program called
    /// [`allow_origin`](super::Server::allow_origin), the response keeps `Vary: Origin`.
    pub fn remove_response_header(&mut self, name: &str) {
        let removed = self.change_response_headers(|headers| {
            headers.remove(name);
            Ok(())
        });
        removed.expect("removing a field does not fail");
    }

    /// Changes the fields of the later response. If `Vary` contained `Origin` before the change, `Vary` contains
    /// `Origin` once after the change.
    fn change_response_headers(&mut self, change: impl FnOnce(&mut Headers) -> io::Result<()>) -> io::Result<()> {
        let varies = self.response_headers.has_token("vary", "origin");
        change(self.response_headers)?;
        if varies && !self.response_headers.has_token("vary", "origin") {
            self.response_headers.append("Vary", "Origin")?;
        }
        merge_vary(self.response_headers, &Headers::new());
        Ok(())
    }

    /// Takes the connection over. The program then owns the connection. The server does not answer the request, and
    /// does not close the connection. The program can move the connection to any thread.
    ///
    /// Returns the connection and a placeholder for the response. Return the placeholder from the handler. If the
    /// handler returns another response, the server does not send that response, and reports an error to
    /// [`on_response`](super::Server::on_response).
    ///
    /// This method consumes the context. So copy the values that the program still needs first, for example
    /// `ctx.param("id").to_owned()`. [`Connection::request`] returns the request.
    ///
    /// ```
    /// # use brooklet::{Context, Response};
    /// # use std::{io::Write, thread};
    /// fn later(ctx: Context<'_>) -> Response {
    ///     let id = ctx.param("id").to_owned();
    ///     let (mut conn, no_result) = ctx.takeover_conn();
    ///     thread::spawn(move || write!(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{id} at last\n"));
    ///     no_result
    /// }
    /// ```
    ///
    /// If [`max_taken_over`](super::Config::max_taken_over) connections are already taken over, the client receives a
    /// 503 with `Retry-After`. The returned connection is then closed. Reads return the bytes that the server has read
    /// ahead, and then `Ok(0)`. Writes fail.
    #[doc(alias = "hijack")]
    #[doc(alias = "upgrade")]
    pub fn takeover_conn(self) -> (Connection, Response) {
        let mut conn = self.slot.take().expect("only takeover_conn empties the slot");
        let mut no_result = Response::taken_over();
        if !conn.socket.take_over(self.max_taken_over) {
            let head_only = self.request.method() == Method::Head;
            let headers = &mut *self.response_headers;
            let response = problem::complete(self.form, unavailable_response(), Some(self.request), headers);
            let options = SendOptions { version: self.request.version(), head_only, keep_alive: false, headers };
            // A write error is ignored, because the client has left.
            let sent = outgoing::send(response, &options, &mut Vec::new(), &mut conn.socket);
            no_result = Response::refused(sent.map_or(0, |sent| sent.body_bytes));
            linger::close(&conn.socket);
            // After the 503, writes of the handler must fail, because the client could treat the bytes as a part of the
            // 503. Reads from the socket return `Ok(0)`.
            let _ = conn.socket.shutdown(Shutdown::Both);
        }
        let _ = conn.socket.set_read_timeout(None).and_then(|()| conn.socket.set_write_timeout(None));
        let headers = std::mem::take(self.response_headers);
        // The request is cloned, because the hook also receives the request.
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
