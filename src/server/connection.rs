//! A connection that a handler took over.

use super::http::{Headers, Request};
use super::registry::Socket;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A TCP connection that a handler took over: the server neither answers on it nor closes it.
///
/// Reading returns first the bytes that were read past the request's head, for example those of a body that the handler did not
/// read, and then those of the socket. Writing writes to the socket at once. There are no timeouts, and `TCP_NODELAY` is on.
/// Dropping the connection closes it.
///
/// A shutdown of the server includes this connection. [`Handle::shutdown`](super::Handle::shutdown) ends its input, so that a
/// blocked read returns `Ok(0)`; writing is still possible then, until the grace is over and the connection is disconnected.
///
/// ```no_run
/// use brooklet::{Context, Response};
/// use std::{io::Write, thread};
///
/// fn later(ctx: Context<'_>) -> Response {
///     let (mut conn, no_result) = ctx.takeover_conn();
///     thread::spawn(move || conn.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nat last\n"));
///     no_result
/// }
/// ```
pub struct Connection {
    socket: Socket,
    unread: io::Cursor<Vec<u8>>,
    peer: SocketAddr,
    request: Request,
    response_headers: Headers,
}

impl Connection {
    pub(super) fn new(
        socket: Socket,
        peer: SocketAddr,
        unread: Vec<u8>,
        request: Request,
        response_headers: Headers,
    ) -> Connection {
        Connection { socket, unread: io::Cursor::new(unread), peer, request, response_headers }
    }

    /// Returns the request whose handler took this connection over.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the header fields that guards and the handler set for the response
    /// ([`Context::set_response_header`](super::Context::set_response_header)). Send them with the response; the `sse`
    /// module does.
    pub fn response_headers(&self) -> &Headers {
        &self.response_headers
    }

    /// Returns the client's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the socket, for example to set timeouts. Reading from it skips the bytes that were read past the request's head.
    ///
    /// A write that times out after it moved a part of the data succeeds. So `write_all` to a client that stopped reading can
    /// take several timeouts.
    pub fn tcp_stream(&self) -> &TcpStream {
        &self.socket
    }

    pub(in super::super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Returns whether the server is shutting down. Then end the connection, with a last message if its protocol has one.
    pub fn is_stopping(&self) -> bool {
        self.socket.observe_stop()
    }

    /// Returns the bare socket, and those bytes past the request's head that were read ahead and not yet taken. The server
    /// does not know the socket any more: a shutdown neither ends its input, nor waits for it, nor disconnects it.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        let at = self.unread.position() as usize;
        (self.socket.into_stream(), self.unread.into_inner().split_off(at))
    }
}

impl Read for Connection {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.unread.read(out)? {
            0 => self.socket.read(out),
            unread => Ok(unread),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.socket.write(data)
    }

    fn write_vectored(&mut self, data: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.socket.write_vectored(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is held back
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
