//! An error that becomes a response with a given status.

use super::StatusCode;
use std::borrow::Cow;
use std::sync::Arc;
use std::{fmt, io};

/// An error that becomes a response. An `Error` has a status and a message. The client receives the message as a line
/// of text.
///
/// If reading a request's body fails, the returned [`io::Error`] contains an `Error`. If a handler returns this
/// `io::Error` with `?`, the response has the status and the message of the `Error`. An `Error` that this crate
/// creates has a fixed message, which never contains input from the client.
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
/// The `?` operator also converts an `Error` into an [`io::Error`] or a `Box<dyn std::error::Error>`. The response
/// still has the status of the `Error`. So a handler that reads a body and creates errors of its own can return
/// [`io::Result`]:
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
/// An `Error` can have a source, for example the `io::Error` of a file. The source is never sent to the client. The
/// server reports the `Error` and its source as the cause of the response: see
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
    /// The type is `Arc`, because each later read of a failed body returns a clone of the `Error`.
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error. `message` should be one line of text. The server adds a line break when it sends the message.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Error {
        Error { status, message: message.into(), source: None }
    }

    /// Creates an error of this crate. `message` is fixed, so the error can be a constant.
    pub(in super::super) const fn fixed(status: StatusCode, message: &'static str) -> Error {
        Error { status, message: Cow::Borrowed(message), source: None }
    }

    /// Creates an error of this crate with the status 400.
    pub(in super::super) const fn bad(message: &'static str) -> Error {
        Error::fixed(StatusCode::BAD_REQUEST, message)
    }

    /// Sets the source of this error. The source is never sent to the client.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into().into());
        self
    }

    /// Returns the status of the response.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the message that the client receives.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the `Error` inside an [`io::Error`]. Returns `None` if the `io::Error` contains another error or no
    /// error. Does not search the sources of the inner error.
    pub fn of(error: &io::Error) -> Option<&Error> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns the first `Error` in the chain of `error` and its sources. An `Error` inside an `io::Error` counts too.
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

/// Compares the statuses and the messages of two errors. Ignores their sources.
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
    fn error_is_send_and_sync() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }

    #[test]
    fn error_inside_io_error_keeps_status_and_message() {
        let error = Error::new(StatusCode::CONTENT_TOO_LARGE, "too much");
        assert_eq!(Error::of(&io::Error::from(error.clone())), Some(&error));
        assert_eq!(Error::of(&io::ErrorKind::InvalidData.into()), None);
    }
}
