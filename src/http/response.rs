//! The responses that handlers return. The module `outgoing` sends a response.

use super::{Error, Headers, StatusCode};
use std::borrow::Cow;
use std::error::Error as _;
use std::fmt;
use std::io::{self, Read, Write};

/// A response to a request: a status, header fields and a body.
///
/// ```
/// use brooklet::{Response, StatusCode};
///
/// let made = Response::json(r#"{"id":7}"#).with_status(StatusCode::CREATED).header("Location", "/things/7");
/// # assert_eq!(made.status_code(), StatusCode::CREATED);
/// ```
///
/// A handler may return any type that converts into a `Response`:
///
/// - a `Response`, a [`StatusCode`] or an [`Error`]
/// - text: a `&'static str`, a `String` or a `Cow<'static, str>`
/// - bytes: a `Vec<u8>`, sent as `application/octet-stream`
/// - `()`, sent as 204
/// - an `Option` of such a type, where `None` is sent as 404
/// - an [`io::Error`], a `Box<dyn std::error::Error + Send + Sync>` or a `Box<dyn std::error::Error>` (the `?` operator
///   converts most errors into a box)
/// - a `Result` of two such types, so that a handler can use `?`
///
/// An [`io::Error`] with an [`Error`] inside becomes a response with the status and the message of the `Error`. Any
/// other `io::Error` becomes a 500. This `io::Error` is reported to [`on_response`](super::super::Server::on_response)
/// and is never sent to the client. A boxed error is converted in the same way, and the `Error` may also be a source of
/// the boxed error.
///
/// An `anyhow::Error` does not convert into a `Response`. In a handler that returns a box, `?` converts an
/// `anyhow::Error` into a box. This box hides the outermost error. If the outermost error is an [`Error`], such as the
/// 413 for a body that is too large, the response is therefore a 500. To keep the status, write this instead of `?`
/// (checked with anyhow 1.0.105): `.map_err(anyhow::Error::reallocate_into_boxed_dyn_error_without_backtrace)?`
pub struct Response {
    status: StatusCode,
    headers: Headers,
    content_type: Option<Cow<'static, str>>,
    closes: bool,
    /// Whether the program set a field that is not allowed. The status of such a response stays 500.
    has_refused_field: bool,
    pub(in super::super) payload: Payload,
    /// The error that caused this response. The server reports this error to `on_response`.
    pub(in super::super) cause: Option<io::Error>,
}

/// The body of a response, or the reason why the server does not send a response.
pub enum Payload {
    Bytes(Cow<'static, [u8]>),
    /// The body of an error response: a line with this message, or with the status if there is no message. The
    /// program's `Server::error_response` may replace the line.
    Problem(Option<Box<str>>),
    /// A producer, and the length of its body in bytes if the length is known. The body is sent while the producer
    /// writes.
    // Without the box, a `Response` would have 128 bytes, and clippy warns about an `Err` of this size.
    Stream(Box<(Option<u64>, Producer)>),
    /// A handler has taken the connection over, and the server sends no response.
    TakenOver,
    /// A handler could not take the connection over, and the server has sent a 503. The number is the length of the
    /// body of this 503 in bytes.
    Refused(u64),
}

pub type Producer = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

impl Response {
    fn new(status: StatusCode, payload: Payload) -> Response {
        Response {
            status,
            headers: Headers::new(),
            content_type: None,
            closes: false,
            has_refused_field: false,
            payload,
            cause: None,
        }
    }

    /// Creates a 200 response. Returns a 500 if the content type is not a valid field value.
    fn of_type(content_type: Cow<'static, str>, payload: Payload) -> Response {
        match Headers::new().append("Content-Type", &content_type) {
            Ok(()) => Response { content_type: Some(content_type), ..Response::new(StatusCode::OK, payload) },
            Err(error) => Response::of_refused_field(error),
        }
    }

    fn of_refused_field(error: io::Error) -> Response {
        Response { has_refused_field: true, ..Response::from(error) }
    }

    fn of_problem(status: StatusCode, message: Option<Box<str>>) -> Response {
        let content_type = Some("text/plain; charset=utf-8".into());
        Response { content_type, ..Response::new(status, Payload::Problem(message)) }
    }

    fn of_text(content_type: &'static str, text: Cow<'static, str>) -> Response {
        let bytes = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Response { content_type: Some(content_type.into()), ..Response::new(StatusCode::OK, Payload::Bytes(bytes)) }
    }

    /// Creates a 200 response with plain text in UTF-8.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Response {
        Response::of_text("text/plain; charset=utf-8", text.into())
    }

    /// Creates a 200 response with an HTML page in UTF-8. The page is sent unchanged. If you insert text from users
    /// into the page, escape the text first.
    pub fn html(page: impl Into<Cow<'static, str>>) -> Response {
        Response::of_text("text/html; charset=utf-8", page.into())
    }

    /// Creates a 200 response with JSON. `text` must already be JSON, because this crate neither writes nor parses
    /// JSON. This example uses the crate `serde_json`:
    ///
    /// ```
    /// # mod serde_json {
    /// #     pub use std::io::Error;
    /// #     pub fn from_slice<T: Default>(_: &[u8]) -> Result<T, Error> { Ok(T::default()) }
    /// #     pub fn to_string<T>(_: &T) -> Result<String, Error> { Ok(String::new()) }
    /// # }
    /// # #[derive(Default)]
    /// # struct Note;
    /// use brooklet::{Context, Error, Response, StatusCode};
    ///
    /// fn echo(mut ctx: Context<'_>) -> std::io::Result<Response> {
    ///     let body = ctx.body_bytes()?;
    ///     let bad = |error: serde_json::Error| Error::new(StatusCode::BAD_REQUEST, error.to_string());
    ///     let note: Note = serde_json::from_slice(&body).map_err(bad)?;
    ///     Ok(Response::json(serde_json::to_string(&note)?))
    /// }
    /// ```
    pub fn json(text: impl Into<Cow<'static, str>>) -> Response {
        Response::of_text("application/json", text.into())
    }

    /// Creates a 200 response with this content type and these bytes, for example `Response::bytes("image/png", png)`.
    /// Creates a 500 response if the content type contains a control character other than a tab.
    pub fn bytes(content_type: impl Into<Cow<'static, str>>, bytes: impl Into<Cow<'static, [u8]>>) -> Response {
        Response::of_type(content_type.into(), Payload::Bytes(bytes.into()))
    }

    /// Creates a 200 response with the first `length` bytes of `body`, for example of a [`File`](std::fs::File). The
    /// server reads the bytes while it sends them, and does not keep the whole body in memory.
    ///
    /// The server sends the bytes in pieces of about 16 KiB. If `body` returns an error or has fewer than `length`
    /// bytes, the response fails. If no byte was sent, the client receives a 500. Otherwise the server closes the
    /// connection, and the client can detect that the body is incomplete.
    ///
    /// ```
    /// # use brooklet::{Context, Response};
    /// fn film(_: Context<'_>) -> std::io::Result<Response> {
    ///     let file = std::fs::File::open("film.mp4")?;
    ///     Ok(Response::reader("video/mp4", file.metadata()?.len(), file))
    /// }
    /// ```
    pub fn reader(
        content_type: impl Into<Cow<'static, str>>,
        length: u64,
        body: impl Read + Send + 'static,
    ) -> Response {
        let produce: Producer = Box::new(move |out| io::copy(&mut body.take(length), out).map(drop));
        Response::of_type(content_type.into(), Payload::Stream(Box::new((Some(length), produce))))
    }

    /// Creates a 200 response with a body that `produce` writes. The server sends the body while `produce` runs. For an
    /// HTTP/1.1 client, the body is chunked. For an HTTP/1.0 client, the body ends when the server closes the
    /// connection. The server does not call `produce` for a HEAD request.
    ///
    /// The server collects the written bytes, and sends them when it has at least 16 KiB. [`flush`](Write::flush) sends
    /// the collected bytes at once. A write or a flush returns an error if the bytes cannot be sent, for example
    /// because the client has disconnected.
    ///
    /// If `produce` panics or returns an error, the response fails. If no byte was sent, the client receives a 500.
    /// Otherwise the server closes the connection, and an HTTP/1.1 client can detect that the body is incomplete.
    ///
    /// ```
    /// # use brooklet::Response;
    /// # use std::io::Write;
    /// Response::stream("text/csv", |out| {
    ///     (0..1_000_000).try_for_each(|n| writeln!(out, "{n},{}", n * n))
    /// });
    /// ```
    pub fn stream(
        content_type: impl Into<Cow<'static, str>>,
        produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Response {
        Response::of_type(content_type.into(), Payload::Stream(Box::new((None, Box::new(produce)))))
    }

    /// Creates a response with a status.
    ///
    /// For a status from 400 to 599, the body is a line of text with the status, such as `404 Not Found`.
    /// [`Server::error_response`](super::super::Server::error_response) can replace this body. For other statuses, the
    /// body is empty.
    pub fn status(status: StatusCode) -> Response {
        match status.as_u16() {
            400.. => Response::of_problem(status, None),
            _ => Response::new(status, Payload::Bytes(Cow::Borrowed(b""))),
        }
    }

    /// Creates a `303 See Other` response. The client then requests `location` with GET, even if the method of its
    /// first request was another one (RFC 9110 15.4.4). To send another redirection, change the status with
    /// [`with_status`](Response::with_status).
    pub fn redirect(location: &str) -> Response {
        Response::status(StatusCode::SEE_OTHER).header("Location", location)
    }

    /// Sets the status. The server does not send the body of a response with the status 204 or 304, because these
    /// statuses allow no body.
    ///
    /// The status does not change if the response is a 500 because of a field or a content type that is not allowed.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Response {
        if !self.has_refused_field {
            self.status = status;
        }
        self
    }

    /// Sets a header field. Replaces all fields of the same name in this response. Also replaces the fields of the same
    /// name that a guard or a handler [set on the context](super::super::Context::set_response_header).
    ///
    /// Returns a 500 response if the field is not allowed, and the reason is reported to
    /// [`on_response`](super::super::Server::on_response). These fields are not allowed:
    ///
    /// - a field whose name is not a token (RFC 9110 5.6.2)
    /// - a field whose value contains a control character other than a tab, for example a line break
    /// - `Content-Length`, `Transfer-Encoding` and `Connection`, which the server sends itself
    #[doc(alias = "set_header")]
    #[doc(alias = "insert_header")]
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<str>) -> Response {
        self.change_headers(|headers| set(headers, name, value.as_ref()))
    }

    /// Adds a header field. Other fields of the same name stay, in this response and on the context. Use this method
    /// for fields that may occur several times, such as `Set-Cookie`, `Link` and `Vary`. Returns a 500 response if
    /// [`header`](Response::header) does not allow the field.
    ///
    /// This example sets a login cookie that scripts cannot read. The value of `id` must be secret and random. Create
    /// the value with the crate `getrandom` or from `/dev/urandom`, because `std` has no secure random numbers. Append
    /// `; Secure` to the cookie if the server is behind a proxy with TLS.
    ///
    /// ```
    /// # use brooklet::Response;
    /// # fn logged_in(id: &str) -> Response {
    /// Response::redirect("/").append_header("Set-Cookie", format!("session={id}; Path=/; HttpOnly; SameSite=Lax"))
    /// # }
    /// ```
    #[must_use]
    pub fn append_header(self, name: &str, value: impl AsRef<str>) -> Response {
        self.change_headers(|headers| append(headers, name, value.as_ref()))
    }

    /// Removes all header fields named `name` from this response, including the `Content-Type` that
    /// [`text`](Response::text) and similar functions set. Fields that were set on the context stay.
    #[must_use]
    pub fn remove_header(mut self, name: &str) -> Response {
        self.headers.remove(name);
        if name.eq_ignore_ascii_case("content-type") {
            self.content_type = None;
        }
        self
    }

    fn change_headers(mut self, change: impl FnOnce(&mut Headers) -> io::Result<()>) -> Response {
        match change(&mut self.headers) {
            Ok(()) => self,
            Err(error) => Response::of_refused_field(error),
        }
    }

    /// Sets the cause of this response: an error that is never sent to the client. If the response already has a cause,
    /// the response does not change.
    ///
    /// The server reports the cause to [`on_response`](super::super::Server::on_response). If there is no such hook,
    /// the server prints the cause and its sources to standard error. The cause of a 4xx response is not printed,
    /// because a 4xx is a fault of the client.
    ///
    /// This example converts an error type of the program into a response, so that handlers can use `?`. If reading a
    /// body fails, the response has the status of the [`io::Error`], such as 413 or 408.
    ///
    /// ```
    /// # use brooklet::{Response, StatusCode};
    /// # use std::{io, num::ParseIntError};
    /// enum ApiError {
    ///     NotANumber(ParseIntError),
    ///     Io(io::Error),
    /// }
    ///
    /// impl From<ApiError> for Response {
    ///     fn from(error: ApiError) -> Response {
    ///         match error {
    ///             ApiError::NotANumber(error) => Response::status(StatusCode::BAD_REQUEST).with_cause(error),
    ///             ApiError::Io(error) => error.into(),
    ///         }
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn with_cause(mut self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Response {
        self.cause = self.cause.or_else(|| Some(into_io(error.into())));
        self
    }

    /// Makes the server close the connection after this response. The response then has the field `Connection: close`.
    #[must_use]
    pub fn close(mut self) -> Response {
        self.closes = true;
        self
    }

    /// Returns the status of this response.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Returns the header fields that [`header`](Response::header) and [`append_header`](Response::append_header) added
    /// to this response. The `Content-Type` that [`text`](Response::text) and similar functions set is not included.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    pub(in super::super) fn taken_over() -> Response {
        Response::new(StatusCode::OK, Payload::TakenOver)
    }

    pub(in super::super) fn refused(body_bytes: u64) -> Response {
        Response::new(StatusCode::SERVICE_UNAVAILABLE, Payload::Refused(body_bytes))
    }

    /// Replaces the body and the content type of this response with the body and the content type of `form`. Adds each
    /// field of `form` whose name does not occur in this response. Keeps the status. Keeps the cause too, but uses the
    /// cause of `form` if this response has no cause.
    pub(in super::super) fn with_form(self, mut form: Response) -> Response {
        form.headers.set_all(&self.headers);
        Response {
            status: self.status,
            closes: self.closes || form.closes,
            has_refused_field: self.has_refused_field,
            cause: self.cause.or(form.cause.take()),
            ..form
        }
    }

    /// Replaces the payload `Problem` with the line of text that the client receives.
    pub(super) fn write_problem(&mut self) {
        if let Payload::Problem(message) = &self.payload {
            let line = match message {
                Some(message) => format!("{message}\n"),
                None => format!("{}\n", self.status),
            };
            self.payload = Payload::Bytes(line.into_bytes().into());
        }
    }

    pub(in super::super) fn closes(&self) -> bool {
        self.closes
    }

    pub(super) fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }
}

/// Adds a field to the fields of a response.
///
/// # Errors
///
/// - Returns `InvalidInput` for `Content-Length`, `Transfer-Encoding` and `Connection`, which only the server may send.
/// - Returns the errors of [`Headers::append`].
pub fn append(headers: &mut Headers, name: &str, value: &str) -> io::Result<()> {
    refuse_ours(name)?;
    headers.append(name, value)
}

/// Replaces all fields named `name` with one field.
///
/// # Errors
///
/// - Returns the errors of [`append`].
pub fn set(headers: &mut Headers, name: &str, value: &str) -> io::Result<()> {
    refuse_ours(name)?;
    headers.set(name, value)
}

fn refuse_ours(name: &str) -> io::Result<()> {
    const OURS: [&str; 3] = ["content-length", "transfer-encoding", "connection"];
    if OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
        let rule = format!("header {name:?}: only the server sends this field; use Response::reader, stream or close");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, rule));
    }
    Ok(())
}

impl From<&'static str> for Response {
    fn from(text: &'static str) -> Response {
        Response::text(text)
    }
}

impl From<String> for Response {
    fn from(text: String) -> Response {
        Response::text(text)
    }
}

impl From<Cow<'static, str>> for Response {
    fn from(text: Cow<'static, str>) -> Response {
        Response::text(text)
    }
}

/// Creates a 200 response with the content type `application/octet-stream`. To send another content type, use
/// [`Response::bytes`].
impl From<Vec<u8>> for Response {
    fn from(bytes: Vec<u8>) -> Response {
        Response::bytes("application/octet-stream", bytes)
    }
}

/// Creates a `204 No Content` response. A browser that receives this response to a form stays on the same page.
impl From<()> for Response {
    fn from((): ()) -> Response {
        Response::status(StatusCode::NO_CONTENT)
    }
}

/// Converts the value of a `Some` into a response, and `None` into a `404 Not Found` response.
impl<T: Into<Response>> From<Option<T>> for Response {
    fn from(found: Option<T>) -> Response {
        found.map_or_else(|| Response::status(StatusCode::NOT_FOUND), T::into)
    }
}

impl From<StatusCode> for Response {
    fn from(status: StatusCode) -> Response {
        Response::status(status)
    }
}

impl From<Error> for Response {
    fn from(error: Error) -> Response {
        let response = Response::of_problem(error.status(), Some(error.message().into()));
        let is_reported = error.status() == StatusCode::INTERNAL_SERVER_ERROR || error.source().is_some();
        Response { cause: is_reported.then(|| error.into()), ..response }
    }
}

impl From<io::Error> for Response {
    fn from(error: io::Error) -> Response {
        match Error::of(&error) {
            Some(error) => Response::from(error.clone()),
            None => Response { cause: Some(error), ..Response::status(StatusCode::INTERNAL_SERVER_ERROR) },
        }
    }
}

/// Converts a boxed error into a response. If the error or one of its sources is an [`Error`], such as the 413 for a
/// body that is too large, the response has the status and the message of this `Error`. Otherwise the response is a 500
/// with the boxed error as its cause.
impl From<Box<dyn std::error::Error + Send + Sync>> for Response {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Response {
        let Some(answer) = Error::find(&*error) else {
            return Response::status(StatusCode::INTERNAL_SERVER_ERROR).with_cause(error);
        };
        let mut response = Response::from(answer.clone());
        if response.cause.is_some() {
            response.cause = Some(into_io(error));
        }
        response
    }
}

/// Converts a boxed error into a response. The error may be of a type that cannot be sent to another thread. If the
/// error or one of its sources is an [`Error`], the response has the status and the message of this `Error`. Otherwise
/// the response is a 500. The cause of this 500 is a new error. Its text joins the messages of the boxed error and of
/// the sources.
impl From<Box<dyn std::error::Error>> for Response {
    fn from(error: Box<dyn std::error::Error>) -> Response {
        if let Some(answer) = Error::find(&*error) {
            return answer.clone().into();
        }
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            text = format!("{text}: {source}");
            next = source.source();
        }
        Response::status(StatusCode::INTERNAL_SERVER_ERROR).with_cause(text)
    }
}

/// Converts a boxed error into an [`io::Error`]. If the box contains an [`io::Error`], returns this error.
fn into_io(error: Box<dyn std::error::Error + Send + Sync>) -> io::Error {
    error.downcast().map_or_else(io::Error::other, |error| *error)
}

impl<T: Into<Response>, E: Into<Response>> From<Result<T, E>> for Response {
    fn from(result: Result<T, E>) -> Response {
        result.map_or_else(E::into, T::into)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = match &self.payload {
            Payload::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Payload::Problem(message) => format!("a line of text: {message:?}"),
            Payload::Stream(stream) => format!("a stream of length {:?}", stream.0),
            Payload::TakenOver => "the connection was taken over".to_owned(),
            Payload::Refused(_) => "the client was refused".to_owned(),
        };
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &body)
            .finish()
    }
}
