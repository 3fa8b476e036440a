//! A mark for errors of a client's socket.
//!
//! An error of the client's socket means that the client is gone. The error can have many kinds, for example a reset, a
//! broken pipe, "host unreachable" from a router, or a timeout of TCP. A handler can also write to the pipe of a child
//! process. That pipe can return an error of the same kind, which does not mean that the client is gone. The kind does
//! not distinguish the two errors. So the
//! socket marks its errors when they occur.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

/// The mark, which contains the error of the operating system. The [`io::Error`] that contains the mark has the same
/// kind and message.
#[derive(Debug)]
struct ClientError(io::Error);

/// Marks an error of a client's socket. Does not mark `WouldBlock` and `Interrupted`, because the client may still be
/// connected after these errors.
pub fn mark(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, ClientError(error)),
    }
}

/// Returns whether an error is marked. A marked error comes from a client's socket, and is not an error of the program.
pub fn is_client_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<ClientError>())
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_error_of_any_kind_is_a_client_error() {
        for code in 1..200 {
            let error = io::Error::from_raw_os_error(code);
            let (kind, message) = (error.kind(), error.to_string());
            let marked = mark(error);
            assert_eq!((marked.kind(), marked.to_string()), (kind, message));
            let may_be_there = matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted);
            assert_eq!(is_client_error(&marked), !may_be_there, "{marked}");
        }
        assert!(!is_client_error(&ErrorKind::BrokenPipe.into()), "the error of a pipe of the program is not marked");
    }
}
