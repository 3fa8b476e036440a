//! An error that carries the status to answer with.

use super::StatusCode;
use std::borrow::Cow;
use std::sync::Arc;
use std::{fmt, io};

/// An answer of an error: a status, and a message that is sent to the client as a line of text.
///
/// It travels inside the [`io::Error`]s that reading a body returns, and comes back out: a handler that hands such an
/// error on with `?` answers with the right status. The messages of this crate are fixed text and never repeat what the
/// client sent.
///
/// ```
/// use brooklet::{Context, Error, Response, StatusCode};
///
/// fn thing(ctx: Context<'_>) -> Result<Response, Error> {
///     let id = ctx.param("id");
///     let id: u32 = id.parse().map_err(|_| Error::new(StatusCode::BAD_REQUEST, format!("{id:?} is not a number")))?;
///     Ok(Response::text(format!("thing {id}\n")))
/// }
/// ```
///
/// `?` also converts an `Error` into an `io::Error` or a box, and the response keeps its status. So a handler that reads a body and has
/// errors of its own returns [`io::Result`]:
///
/// ```
/// use brooklet::{Context, Error, StatusCode};
///
/// fn double(mut ctx: Context<'_>) -> std::io::Result<String> {
///     let text = ctx.body_text()?; // 413 if the body is too large
///     let bad = |_| Error::new(StatusCode::BAD_REQUEST, "the body is not a number");
///     let number: u32 = text.trim().parse().map_err(bad)?;
///     Ok(format!("{}\n", 2 * u64::from(number)))
/// }
/// ```
///
/// A source is the reason for the operator: it is never sent to the client. That of a 5xx is reported with the response; see
/// [`Response::with_cause`](super::Response::with_cause).
///
/// ```
/// use brooklet::{Error, StatusCode};
/// use std::io;
///
/// let full = io::Error::other("no space left on device");
/// let refused: io::Error = Error::new(StatusCode::INSUFFICIENT_STORAGE, "try again later").with_source(full).into();
/// assert_eq!(Error::of(&refused).unwrap().status(), StatusCode::INSUFFICIENT_STORAGE);
/// assert!(Error::of(&io::Error::other("disk on fire")).is_none());
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    status: StatusCode,
    message: Cow<'static, str>,
    /// Shared, because a body returns its error again when it is read again.
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error that a handler may return. `message` is text: the server adds the line's end.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Error {
        Error { status, message: message.into(), source: None }
    }

    /// An error of this crate, which can be a constant.
    pub(in super::super) const fn fixed(status: StatusCode, message: &'static str) -> Error {
        Error { status, message: Cow::Borrowed(message), source: None }
    }

    /// `400 Bad Request`, by far the commonest.
    pub(in super::super) const fn bad(message: &'static str) -> Error {
        Error::fixed(StatusCode::BAD_REQUEST, message)
    }

    /// The same error with the reason for it, which the client is not sent.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into().into());
        self
    }

    /// Returns the status to answer with.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the text that says what was wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Finds the `Error` that travelled inside an [`io::Error`], if one did.
    pub fn of(error: &io::Error) -> Option<&Error> {
        error.get_ref()?.downcast_ref()
    }

    /// Finds the outermost `Error` in an error and its sources.
    pub(super) fn find<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Error> {
        let mut next = Some(error);
        while let Some(error) = next {
            let found = error.downcast_ref().or_else(|| Error::of(error.downcast_ref::<io::Error>()?));
            if found.is_some() {
                return found;
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_deref()?)
    }
}

/// Compares status and message.
impl PartialEq for Error {
    fn eq(&self, other: &Error) -> bool {
        self.status == other.status && self.message == other.message
    }
}

impl Eq for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.status {
            StatusCode::REQUEST_TIMEOUT => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }

    #[test]
    fn the_status_survives_an_io_error() {
        let error = Error::new(StatusCode::CONTENT_TOO_LARGE, "too much");
        assert_eq!(Error::of(&io::Error::from(error.clone())), Some(&error));
        assert_eq!(Error::of(&io::ErrorKind::InvalidData.into()), None);
    }
}
