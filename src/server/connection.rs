//! A connection that a handler took over.

use super::http::{Headers, Request};
use super::registry::Socket;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A TCP connection that a handler took over with [`Context::takeover_conn`](super::Context::takeover_conn). The server
/// neither answers its request nor closes it.
///
/// The program writes the whole response itself, or starts an event stream with
/// [`sse::start_connection`](super::super::sse::start_connection). Dropping the connection closes it.
///
/// The server may have read bytes past the request's head, for example a part of the body. Reads return these bytes
/// first, and then the bytes of the socket. Writes go to the socket at once. The socket has no timeouts, and
/// `TCP_NODELAY` is set.
///
/// [`Handle::shutdown`](super::Handle::shutdown) includes this connection. It ends the input, so a blocked read returns
/// `Ok(0)`. Writes still succeed until the grace is over. Then the server disconnects the client.
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

    /// Returns the header fields of the response: the fields that guards and the handler set or appended on the
    /// [`Context`](super::Context::set_response_header), and the CORS fields of
    /// [`allow_origin`](super::Server::allow_origin). A program that writes the response itself should send them. The
    /// `sse` module sends them.
    pub fn response_headers(&self) -> &Headers {
        &self.response_headers
    }

    /// Returns the client's address. If a proxy is in front of the server, this is the address of the proxy.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the socket, for example to set timeouts. Reads from it skip the bytes that the server has read past the
    /// request's head.
    ///
    /// If a write times out after the kernel took a part of the data, the write succeeds with the length of the part.
    /// So `write_all` to a client that stopped reading can take several timeouts.
    pub fn tcp_stream(&self) -> &TcpStream {
        &self.socket
    }

    pub(in super::super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Returns whether the server is shutting down. Then the program should end the connection, with
    /// a last message if the protocol has one.
    pub fn is_stopping(&self) -> bool {
        self.socket.observe_stop()
    }

    /// Returns the socket, and the bytes past the request's head that the server has read ahead and the program has not
    /// read. The server no longer tracks the socket: a shutdown neither ends its input, nor waits for it, nor closes
    /// it. It does not count against [`Config::max_taken_over`](super::Config::max_taken_over) either.
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
