//! What a handler answers with. How it gets onto the wire is `outgoing`'s affair.

use super::{Error, Headers, StatusCode};
use std::borrow::Cow;
use std::error::Error as _;
use std::fmt;
use std::io::{self, Read, Write};

/// A response: a status, header fields and a body.
///
/// ```
/// use brooklet::{Response, StatusCode};
///
/// let made = Response::json(r#"{"id":7}"#).with_status(StatusCode::CREATED).header("Location", "/things/7");
/// # assert_eq!(made.status_code(), StatusCode::CREATED);
/// ```
///
/// Handlers return whatever turns into one: a `Response`, a `&'static str`, `String` or `Cow` (text), a `Vec<u8>`, a
/// [`StatusCode`], `()` (204), an `Option` of such (404 for `None`), or a `Result` of two such, so that `?` works in a handler.
/// An [`io::Error`] becomes the status of the [`Error`] inside it, or else 500; its message is reported to
/// [`on_response`](super::super::Server::on_response), and never sent to the client. The same holds for
/// `Box<dyn std::error::Error + Send + Sync>`, into which `?` turns any error.
///
/// An `anyhow::Error` is not a `Response`. A handler that returns the box can use `?` on it, but the box then hides the outermost
/// error: an [`Error`] there, such as the 413 of a large body, becomes a 500. It keeps its status with
/// `.map_err(anyhow::Error::reallocate_into_boxed_dyn_error_without_backtrace)` in place of `?` (checked with anyhow 1.0.105).
pub struct Response {
    status: StatusCode,
    headers: Headers,
    content_type: Option<Cow<'static, str>>,
    closes: bool,
    pub(in super::super) payload: Payload,
    /// The error that became a 500. It is reported to `on_response`.
    pub(in super::super) cause: Option<io::Error>,
}

/// The body, or who else sends it.
pub enum Payload {
    Bytes(Cow<'static, [u8]>),
    /// A line of text that says what was wrong; without one, the status. The program may give it another form.
    Problem(Option<Box<str>>),
    /// Written while it is produced; of so many bytes, if that is known.
    // In a box: a `Response` of 128 bytes would be too large for the `Err` of a `Result`, by clippy's measure.
    Stream(Box<(Option<u64>, Producer)>),
    /// Whoever took the connection over answers.
    TakenOver,
    /// The connection could not be taken over, and the client was sent a 503. Holds the length of its body.
    Refused(u64),
}

pub type Producer = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

impl Response {
    fn new(status: StatusCode, payload: Payload) -> Response {
        Response { status, headers: Headers::new(), content_type: None, closes: false, payload, cause: None }
    }

    /// A 200 whose content type came from the handler, and is checked like every other field.
    fn of_type(content_type: Cow<'static, str>, payload: Payload) -> Response {
        match Headers::new().append("Content-Type", &content_type) {
            Ok(()) => Response { content_type: Some(content_type), ..Response::new(StatusCode::OK, payload) },
            Err(error) => Response::from(error),
        }
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

    /// Answers 200 with plain text, UTF-8.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Response {
        Response::of_text("text/plain; charset=utf-8", text.into())
    }

    /// Answers 200 with an HTML page, UTF-8. Nothing is escaped: text of users has to be, before.
    pub fn html(page: impl Into<Cow<'static, str>>) -> Response {
        Response::of_text("text/html; charset=utf-8", page.into())
    }

    /// Answers 200 with JSON. The text is JSON already: this crate neither writes nor reads JSON. With `serde_json`:
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

    /// Answers 200 with any bytes, for example `Response::bytes("image/png", png)`.
    pub fn bytes(content_type: impl Into<Cow<'static, str>>, bytes: impl Into<Cow<'static, [u8]>>) -> Response {
        Response::of_type(content_type.into(), Payload::Bytes(bytes.into()))
    }

    /// Answers 200 with `length` bytes read from `body`, a [`File`](std::fs::File) for example, without holding them all.
    ///
    /// If the reader fails or ends early the connection is cut, so that the client does not take a part for the whole; or
    /// the client gets a 500, if nothing was sent yet.
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

    /// Answers 200 with what `produce` writes, while it writes it: chunked to HTTP/1.1, until the connection closes to
    /// HTTP/1.0.
    ///
    /// Writes are collected to 16 KiB; [`flush`](Write::flush) sends what is there at once. A write returns an error once the
    /// client is gone. If `produce` returns an error the connection is cut, so that the client can tell; or the client gets a
    /// 500, if nothing was sent yet.
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

    /// Answers with a status: an error with its name as a line of text, or in the form of
    /// [`Server::error_response`](super::super::Server::error_response); anything else with no body.
    pub fn status(status: StatusCode) -> Response {
        match status.as_u16() {
            400.. => Response::of_problem(status, None),
            _ => Response::new(status, Payload::Bytes(Cow::Borrowed(b""))),
        }
    }

    /// Answers `303 See Other`: the client gets `location` next, whatever the method was (RFC 9110 15.4.4). For another
    /// redirection, [`with_status`](Response::with_status).
    pub fn redirect(location: &str) -> Response {
        Response::status(StatusCode::SEE_OTHER).header("Location", location)
    }

    /// The same response with another status. With 204 and 304 the body is not sent: they have none.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Response {
        self.status = status;
        self
    }

    /// Sets a header field. Replaces all fields of the same name, and a field of the same name that a guard
    /// [set on the context](super::super::Context::set_response_header).
    ///
    /// A field that cannot be sent turns the response into a 500, and the reason goes to
    /// [`on_response`](super::super::Server::on_response): a wrong response is never sent, nor is one silently changed. These
    /// are a name that is not a token, a value with CR, LF, NUL or another control character, and `Content-Length`,
    /// `Transfer-Encoding` and `Connection`, which the server sends as they are true.
    #[doc(alias = "set_header")]
    #[doc(alias = "insert_header")]
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<str>) -> Response {
        self.change_headers(|headers| set(headers, name, value.as_ref()))
    }

    /// Adds a header field. Other fields of the same name stay, also fields of the context. Meant for `Set-Cookie`, `Link`,
    /// `Vary` and other fields that come several times. Refuses what [`header`](Response::header) refuses.
    ///
    /// This sets the cookie of a login, which scripts cannot read. `id` must be secret: make it with the `getrandom` crate or from
    /// `/dev/urandom`, because `std` has no random numbers for secrets. Behind a proxy with TLS, append `; Secure`:
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

    /// Removes all header fields named `name` from this response, also the `Content-Type` of [`text`](Response::text) and the
    /// like. Fields of the context stay.
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
            Err(error) => Response::from(error),
        }
    }

    /// Gives the response the error that is its cause. The client is not sent it.
    ///
    /// It is reported to [`on_response`](super::super::Server::on_response) with its sources. Without such a hook, the cause of
    /// a 4xx is dropped, because that is the client's fault, and any other is printed to standard error. A
    /// response that already has a cause keeps it.
    ///
    /// An error type of your own becomes a response like this, and then works with `?` in handlers. The [`io::Error`] of
    /// reading a body keeps its status (413, 408):
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

    /// Closes the connection after this response, and tells the client so.
    #[must_use]
    pub fn close(mut self) -> Response {
        self.closes = true;
        self
    }

    /// Returns the status.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Returns the header fields of this response so far, without `Content-Type` of [`text`](Response::text) and the like.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    pub(in super::super) fn taken_over() -> Response {
        Response::new(StatusCode::OK, Payload::TakenOver)
    }

    pub(in super::super) fn refused(body_bytes: u64) -> Response {
        Response::new(StatusCode::SERVICE_UNAVAILABLE, Payload::Refused(body_bytes))
    }

    /// Takes body and fields of `form`. Status, cause and fields of this response stay.
    pub(in super::super) fn with_form(self, mut form: Response) -> Response {
        form.headers.set_all(&self.headers);
        Response {
            status: self.status,
            closes: self.closes || form.closes,
            cause: self.cause.or(form.cause.take()),
            ..form
        }
    }

    /// Makes the text of a problem the body.
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

/// Adds a field to a response's, unless it is one that only the server can know to be true.
pub fn append(headers: &mut Headers, name: &str, value: &str) -> io::Result<()> {
    refuse_ours(name)?;
    headers.append(name, value)
}

/// Replaces all fields named `name`. Refuses what [`append`] refuses.
pub fn set(headers: &mut Headers, name: &str, value: &str) -> io::Result<()> {
    refuse_ours(name)?;
    headers.set(name, value)
}

fn refuse_ours(name: &str) -> io::Result<()> {
    const OURS: [&str; 3] = ["content-length", "transfer-encoding", "connection"];
    if OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
        let rule = format!("header {name:?}: the server sends it; see Response::reader, stream and close");
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

/// Bytes of no known type: `application/octet-stream`. See [`Response::bytes`] for another.
impl From<Vec<u8>> for Response {
    fn from(bytes: Vec<u8>) -> Response {
        Response::bytes("application/octet-stream", bytes)
    }
}

/// `204 No Content`: it is done, and there is nothing to show. A page that sends a form stays as it is.
impl From<()> for Response {
    fn from((): ()) -> Response {
        Response::status(StatusCode::NO_CONTENT)
    }
}

/// `404 Not Found` for `None`.
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

/// `?` turns any error into such a box. If the error or one of its sources is an [`Error`], such as the 413 of a large body,
/// the response has the status of that `Error`. Any other error is a 500 with this cause.
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

/// As the box of an error that can cross threads, except that the cause keeps only the texts of the error and its sources.
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

/// An [`io::Error`] keeps its kind.
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
            Payload::Problem(message) => format!("a line: {message:?}"),
            Payload::Stream(stream) => format!("a stream of length {:?}", stream.0),
            Payload::TakenOver => "somebody else answers".to_owned(),
            Payload::Refused(_) => "the client was refused".to_owned(),
        };
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &body)
            .finish()
    }
}
