//! What a client did wrong, and the status that tells it so.

use super::StatusCode;
use std::{fmt, io};

/// A fault of the request or of whoever sent it: a status, and the rule that was broken.
///
/// It travels inside the [`io::Error`]s that reading a body returns, and comes back out: a handler that hands such an
/// error on with `?` answers with the right status. The message is fixed text, it never repeats what the client sent.
///
/// ```
/// use brooklet::{Error, StatusCode};
/// use std::io;
///
/// let refused: io::Error = Error::new(StatusCode::BAD_REQUEST, "the amount is not a number").into();
/// assert_eq!(Error::of(&refused).unwrap().status(), StatusCode::BAD_REQUEST);
/// assert!(Error::of(&io::Error::other("disk on fire")).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    status: StatusCode,
    message: &'static str,
}

impl Error {
    /// Makes an error that a handler may return; `message` is sent to the client as the line that is the body.
    pub const fn new(status: StatusCode, message: &'static str) -> Error {
        Error { status, message }
    }

    /// `400 Bad Request`, by far the commonest.
    pub(in super::super) const fn bad(message: &'static str) -> Error {
        Error::new(StatusCode::BAD_REQUEST, message)
    }

    /// Returns the status to answer with.
    pub const fn status(self) -> StatusCode {
        self.status
    }

    /// Returns the fixed text that says what was wrong.
    pub const fn message(self) -> &'static str {
        self.message
    }

    /// Finds the `Error` that travelled inside an [`io::Error`], if one did.
    pub fn of(error: &io::Error) -> Option<Error> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.message)
    }
}

impl std::error::Error for Error {}

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
        assert_eq!(Error::of(&io::Error::from(error)), Some(error));
        assert_eq!(Error::of(&io::ErrorKind::InvalidData.into()), None);
    }
}
