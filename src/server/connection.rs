//! A connection that a handler took over.

use super::http::{Headers, Request};
use super::registry::Socket;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A TCP connection that a handler took over with [`Context::takeover_conn`](super::Context::takeover_conn).
///
/// The server does not answer the request. The program writes the whole response itself, or starts an event stream with
/// [`sse::start_connection`](super::super::sse::start_connection). Dropping a `Connection` closes the TCP connection.
///
/// The server may have read bytes past the request's head, for example a part of the body. Reads return these bytes
/// first, and then the bytes of the socket. Writes go to the socket at once. The socket has no timeouts, and
/// `TCP_NODELAY` is set.
///
/// [`Handle::shutdown`](super::Handle::shutdown) ends the input of the connection, so a blocked read returns `Ok(0)`.
/// The program can still write until the grace period is over. The server then disconnects the client.
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

    /// Returns the request that the handler received with this connection. The body is not included.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the header fields for the response. These are the fields that guards and the handler set or appended on
    /// the [`Context`](super::Context::set_response_header), and the CORS fields of
    /// [`allow_origin`](super::Server::allow_origin).
    ///
    /// The `sse` module sends these fields. A program that writes the response itself should also send these fields.
    pub fn response_headers(&self) -> &Headers {
        &self.response_headers
    }

    /// Returns the client's address. If a proxy is in front of the server, returns the address of the proxy.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the socket, for example to set timeouts. A read from this socket does not return the bytes that the
    /// server has read past the request's head. Read these bytes from the `Connection`.
    ///
    /// If a write times out after the kernel accepted a part of the data, the write returns the length of this part and
    /// no error. So `write_all` to a client that stopped reading can wait for several timeouts.
    pub fn tcp_stream(&self) -> &TcpStream {
        &self.socket
    }

    pub(in super::super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Returns whether the server is shutting down. If so, the program should end the connection, and first send a last
    /// message if the protocol has such a message.
    ///
    /// If this method returns `true`, the program counts as having noticed the shutdown. See
    /// [`Handle::shutdown`](super::Handle::shutdown).
    pub fn is_stopping(&self) -> bool {
        self.socket.observe_stop()
    }

    /// Returns the socket, and the bytes that the server has read past the request's head and the program has not read.
    ///
    /// After this call, the server no longer tracks the socket. A shutdown of the server has no effect on the socket.
    /// [`Server::serve`](super::Server::serve) can return while the socket is open. The socket does not count against
    /// [`Config::max_taken_over`](super::Config::max_taken_over).
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
        Ok(()) // nothing is buffered
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
