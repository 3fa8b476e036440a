//! Errors of a client's socket.
//!
//! An error that comes from the socket means that the client is gone, whatever its kind: a reset, a broken pipe, a router
//! that answers "host unreachable", a TCP that gave up. An error of the same kind that comes from elsewhere, from the pipe of
//! a child process for example, is a fault of the program. A list of kinds cannot tell the two apart, so the error is marked
//! where it arises.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

/// The error of the operating system. The [`io::Error`] around it has the same kind and message.
#[derive(Debug)]
struct ClientError(io::Error);

/// Marks an error of a client's socket. `WouldBlock` and `Interrupted` stay as they are, because the client may be well.
pub fn mark(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, ClientError(error)),
    }
}

/// Whether an error came from a client's socket: the client is gone, and nobody else is at fault.
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
    fn error_of_socket_is_the_clients_whatever_its_kind() {
        for code in 1..200 {
            let error = io::Error::from_raw_os_error(code);
            let (kind, message) = (error.kind(), error.to_string());
            let marked = mark(error);
            assert_eq!((marked.kind(), marked.to_string()), (kind, message));
            let may_be_well = matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted);
            assert_eq!(is_client_error(&marked), !may_be_well, "{marked}");
        }
        assert!(!is_client_error(&ErrorKind::BrokenPipe.into()), "a pipe of the program");
    }
}
