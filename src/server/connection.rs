//! A connection that a handler took over.

use super::http::{Headers, Request};
use super::registry::Socket;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A TCP connection that is yours: the server neither answers nor closes it.
///
/// Reading gives the bytes that had come past the request head first (those of a body that was not read, for example),
/// then those of the socket; writing writes to the socket at once. There are no timeouts, and `TCP_NODELAY` is on.
/// Dropping it closes the connection.
///
/// The server still knows it: [`Handle::shutdown`](super::Handle::shutdown) ends what can be read, so that a blocked
/// read returns `Ok(0)` and you can say goodbye, and cuts the connection when the grace is over.
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

    /// Returns the request that this connection came with.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the header fields that guards and the handler set for the response
    /// ([`Context::set_response_header`](super::Context::set_response_header)). Whoever answers should send them; the
    /// `sse` module does.
    pub fn response_headers(&self) -> &Headers {
        &self.response_headers
    }

    /// Returns the client's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the socket, to set timeouts on for example. Reading from it skips the bytes that were read already.
    pub fn tcp_stream(&self) -> &TcpStream {
        &self.socket
    }

    pub(in super::super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Whether the server is shutting down, so that it is time to say goodbye.
    pub fn is_stopping(&self) -> bool {
        self.socket.observe_stop()
    }

    /// Returns the bare socket, and the bytes that were read past the request head and not by you. The server does not
    /// know the socket any more: a shutdown neither tells nor waits nor cuts.
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
