//! Connections that handlers take over, and `client_left` in handlers that do not take over their connection.

use super::channel::eventually;
use super::machine::Room;
use super::support::{serve, Client, Running, TIMEOUT};
use brooklet::{Connection, Context, Response};
use std::io::{self, Read, Write};
use std::sync::mpsc::{self, Receiver};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// Starts a server whose handler of `/take` takes over the connection. The receiver yields this connection.
pub fn taking() -> (Running, Receiver<Connection>) {
    let (give, taken) = mpsc::channel();
    let give = Mutex::new(give);
    let server = serve(|server| {
        let take = move |ctx: Context<'_>| {
            let (conn, no_result) = ctx.takeover_conn();
            give.lock().unwrap().send(conn).unwrap();
            no_result
        };
        server.get("/", |_| "hello").route(brooklet::Method::Post, "/take", take)
    });
    (server, taken)
}

/// Connects a client, whose connection is then taken over. `rest` follows the `Host` field of the request. Returns both
/// ends of the connection.
pub fn take(server: &Running, taken: &Receiver<Connection>, rest: &str) -> (Client, Connection) {
    let mut client = server.connect();
    client.send(format!("POST /take HTTP/1.1\r\nHost: localhost\r\n{rest}"));
    (client, taken.recv_timeout(TIMEOUT).unwrap())
}

#[test]
fn takeover_leaves_the_connection_open_and_the_server_serves_others() {
    let room = Room::for_both_ends(50);
    let (server, taken) = taking();
    let mut streams: Vec<_> = (0..room.connections).map(|_| take(&server, &taken, "\r\n")).collect();
    for _ in 0..10 {
        assert_eq!(server.get("/").text(), "hello");
    }
    for (client, conn) in &mut streams {
        conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert_eq!(client.answer().text(), "hi");
    }
}

#[test]
fn connection_moves_to_another_thread() {
    fn check<T: Send + 'static>() {}
    check::<Connection>();
    let (server, taken) = taking();
    let (mut client, mut conn) = take(&server, &taken, "\r\n");
    thread::spawn(move || conn.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfrom there"))
        .join()
        .unwrap()
        .unwrap();
    assert_eq!(client.answer().text(), "from there");
}

#[test]
fn takeover_reads_bytes_after_the_request_first_and_keeps_the_request() {
    let (server, taken) = taking();
    let (mut client, mut conn) = take(&server, &taken, "X: y\r\nContent-Length: 5\r\n\r\nearly");
    client.send(" late");
    let mut got = [0; 10];
    conn.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"early late");
    assert_eq!((conn.request().path(), conn.request().headers().get("x")), ("/take", Some("y")));
    assert_eq!(conn.peer_addr(), client.stream.local_addr().unwrap());
    client.finish();
    assert_eq!(conn.read(&mut got).unwrap(), 0);
}

#[test]
fn takeover_connection_has_nodelay_and_no_timeouts() {
    let (server, taken) = taking();
    let (_client, conn) = take(&server, &taken, "\r\n");
    assert_eq!((conn.tcp_stream().read_timeout().unwrap(), conn.tcp_stream().write_timeout().unwrap()), (None, None));
    assert!(conn.tcp_stream().nodelay().unwrap());
}

#[test]
fn into_parts_returns_the_socket_and_the_unread_bytes() {
    let (server, taken) = taking();
    let (mut client, mut conn) = take(&server, &taken, "Content-Length: 5\r\n\r\nearly");
    conn.read_exact(&mut [0; 2]).unwrap();
    let (mut stream, unread) = conn.into_parts();
    assert_eq!(unread, b"rly");
    stream.write_all(b"raw").unwrap();
    drop(server); // the connection no longer belongs to it
    stream.write_all(b"!").unwrap();
    drop(stream);
    assert_eq!(client.rest(), b"raw!");
}

#[test]
fn connection_dropped_is_closed() {
    let (server, taken) = taking();
    let (mut client, conn) = take(&server, &taken, "\r\n");
    drop(conn);
    client.assert_end();
}

#[test]
fn takeover_after_a_pipelined_request_sends_the_earlier_response_first() {
    let (server, taken) = taking();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /take HTTP/1.1\r\nHost: localhost\r\n\r\nnot http");
    assert_eq!(client.answer().text(), "hello");
    let mut conn = taken.recv_timeout(TIMEOUT).unwrap();
    let mut got = [0; 8];
    conn.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"not http");
}

#[test]
fn takeover_with_another_response_is_reported_and_a_foreign_placeholder_is_500() {
    let (told, tellings) = mpsc::channel();
    let (told, kept) = (Mutex::new(told), Mutex::new(Vec::<Response>::new()));
    let server = serve(|server| {
        server
            .get("/both", |ctx| {
                let (mut conn, _no_result) = ctx.takeover_conn();
                conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw").unwrap();
                "answered too"
            })
            .get("/failed", |ctx| -> io::Result<Response> {
                let (_conn, _no_result) = ctx.takeover_conn();
                Err(io::Error::other("disk on fire"))
            })
            .get("/swap", move |ctx| {
                if let Some(stolen) = kept.lock().unwrap().pop() {
                    return stolen;
                }
                let (conn, no_result) = ctx.takeover_conn();
                kept.lock().unwrap().push(no_result);
                drop(conn);
                "".into()
            })
            .on_response(move |exchange| {
                told.lock()
                    .unwrap()
                    .send(exchange.error.map(|error| error.to_string()).unwrap_or_default())
                    .unwrap();
            })
    });
    let mut client = server.connect();
    assert_eq!(client.get("/both").text(), "raw");
    client.assert_end();
    assert!(tellings.recv_timeout(TIMEOUT).unwrap().contains("return `no_result`"));
    let mut client = server.connect();
    client.send("GET /failed HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.assert_end();
    assert_eq!(tellings.recv_timeout(TIMEOUT).unwrap(), "disk on fire", "the error that the handler returned");
    server.connect().send("GET /swap HTTP/1.1\r\nHost: localhost\r\n\r\n");
    tellings.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(server.get("/swap").status, 500);
    assert!(tellings.recv_timeout(TIMEOUT).unwrap().contains("another connection"));
}

#[test]
fn takeover_keeps_the_response_headers_that_were_set_before() {
    let server = serve(|server| {
        server.get("/", |mut ctx| {
            ctx.set_response_header("X", "y").unwrap();
            let (mut conn, no_result) = ctx.takeover_conn();
            let field = conn.response_headers().get("x").unwrap().to_owned();
            write!(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{field}").unwrap();
            no_result
        })
    });
    assert_eq!(server.get("/").text(), "y");
}

#[test]
fn shutdown_ends_the_input_of_a_connection_and_closes_it_after_the_grace() {
    let (server, taken) = taking();
    let (mut client, mut conn) = take(&server, &taken, "\r\n");
    server.handle().shutdown(Duration::from_secs(60));
    assert_eq!(conn.read(&mut [0; 1]).unwrap(), 0, "the shutdown ends the input");
    assert!(conn.is_stopping());
    conn.write_all(b"goodbye").unwrap();
    server.handle().shutdown(Duration::ZERO); // the shorter of the two graces applies
    server.join().unwrap();
    assert_eq!(client.rest(), b"goodbye", "the server closes the connection");
}

/// Starts a server whose handler of `/ask` waits for a value, and then calls `has_left`. The response contains the
/// result and the request's body.
fn asking(has_left: fn(&mut Context<'_>) -> bool) -> (Running, Receiver<()>, mpsc::Sender<()>, Receiver<bool>) {
    let (begun, begin) = mpsc::channel();
    let (go, going) = mpsc::channel();
    let (left, leaving) = mpsc::channel();
    let (begun, going, left) = (Mutex::new(begun), Mutex::new(going), Mutex::new(left));
    let server = serve(|server| {
        server.get("/", |_| "hello").post("/ask", move |mut ctx| -> io::Result<String> {
            begun.lock().unwrap().send(()).unwrap();
            going.lock().unwrap().recv_timeout(TIMEOUT).map_err(io::Error::other)?;
            let has_left = has_left(&mut ctx);
            left.lock().unwrap().send(has_left).unwrap();
            Ok(format!("{has_left} {}", ctx.body_text()?))
        })
    });
    (server, begin, go, leaving)
}

#[test]
fn client_left_with_a_connected_client_is_false_and_keeps_its_input() {
    let (server, begin, go, _leaving) = asking(|ctx| ctx.client_left());
    let mut client = server.connect();
    client.send("POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n");
    begin.recv_timeout(TIMEOUT).unwrap();
    client.send("x".repeat(20_000));
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    go.send(()).unwrap();
    assert_eq!(client.answer().text(), format!("false {}", "x".repeat(20_000)));
    assert_eq!(client.answer().text(), "hello");
    assert_eq!(client.get("/").text(), "hello", "reads of the socket block again");
}

#[test]
fn client_left_after_a_close_a_reset_or_the_end_of_input_is_true() {
    type Leave = fn(&mut Option<Client>);
    let leave: [Leave; 3] = [
        |client| drop(client.take()),
        |client| client.take().unwrap().reset(),
        |client| client.as_mut().unwrap().finish(),
    ];
    // A process that another test starts shares the socket for a moment, and delays the close.
    let has_left = |ctx: &mut Context<'_>| {
        eventually(|| ctx.client_left());
        true
    };
    for (index, leave) in leave.into_iter().enumerate() {
        let (server, begin, go, leaving) = asking(has_left);
        let mut client = Some(server.connect());
        let sender = client.as_mut().unwrap();
        sender.send("POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n");
        begin.recv_timeout(TIMEOUT).unwrap();
        sender.send("helloGET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        leave(&mut client);
        go.send(()).unwrap();
        assert!(leaving.recv_timeout(2 * TIMEOUT).unwrap(), "{index}");
        if let Some(mut client) = client {
            assert_eq!(client.answer().text(), "true hello", "a client that only ended its input is answered");
            assert_eq!(client.answer().text(), "hello");
        }
    }
}

#[test]
fn client_left_during_a_large_body_is_false_and_keeps_the_body() {
    let (server, begin, go, leaving) = asking(|ctx| ctx.client_left());
    let mut client = server.connect();
    client.send("POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n");
    begin.recv_timeout(TIMEOUT).unwrap();
    let mut sender = client.stream.try_clone().unwrap();
    let body = thread::spawn(move || sender.write_all("x".repeat(200_000).as_bytes()));
    go.send(()).unwrap();
    assert!(!leaving.recv_timeout(TIMEOUT).unwrap());
    assert_eq!(client.answer().body.len(), "false ".len() + 200_000);
    body.join().unwrap().unwrap();
}
