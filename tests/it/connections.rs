//! Connections: keep-alive, pipelining, HTTP/1.0, and the end of a connection.

use super::machine::Room;
use super::support::{serve, Running};
use brooklet::{Response, Server};
use std::io::ErrorKind;
use std::sync::mpsc;
use std::sync::Mutex;

fn hello() -> Running {
    serve(|server| {
        server
            .get("/", |_| "hello")
            .get("/n/{n}", |ctx| ctx.param("n").to_owned())
            .get("/bye", |_| Response::text("bye").close())
            .post("/echo", |mut ctx| ctx.body_text())
    })
}

#[test]
fn connection_serves_many_requests() {
    let server = hello();
    let mut client = server.connect();
    for n in 0..100 {
        let answer = client.get(&format!("/n/{n}"));
        assert_eq!((answer.text(), answer.header("connection")), (&*n.to_string(), None));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = hello();
    let mut client = server.connect();
    let requests: String = (0..1_000).map(|n| format!("GET /n/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    client.send(requests + "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi");
    for n in 0..1_000 {
        assert_eq!(client.answer().text(), n.to_string());
    }
    assert_eq!(client.answer().text(), "hi");
}

#[test]
fn valid_request_before_malformed_one_is_answered() {
    let server = hello();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost localhost\r\n\r\n");
    assert_eq!(client.answer().text(), "hello");
    assert_eq!(client.answer().status, 400);
    client.finish();
    client.assert_end();
}

#[test]
fn response_does_not_wait_for_incomplete_next_request() {
    let server = hello();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /n/2 HT");
    assert_eq!(client.answer().text(), "hello");
    client
        .send("TP/1.1\r\nHost: localhost\r\n\r\nPOST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nh");
    assert_eq!(client.answer().text(), "2", "the response does not wait for the body of the next request");
    client.send("i");
    assert_eq!(client.answer().text(), "hi");
}

#[test]
fn pipelined_response_does_not_wait_for_next_handler() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let server = serve(|server| {
        server.get("/", |_| "first").get("/held", move |_| {
            gate.lock().unwrap().recv().unwrap();
            "second"
        })
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().text(), "first");
    go.send(()).unwrap();
    assert_eq!(client.answer().text(), "second");
}

#[test]
fn connection_close_in_request_ends_connection() {
    let server = hello();
    for connection in ["close", "Keep-Alive, Close"] {
        let mut client = server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
        client.assert_end();
    }
}

#[test]
fn close_of_response_ends_connection() {
    let server = hello();
    let mut client = server.connect();
    let answer = client.get("/bye");
    assert_eq!((answer.text(), answer.header("connection")), ("bye", Some("close")));
    client.finish();
    client.assert_end();
}

#[test]
fn http_10_without_keep_alive_ends_connection() {
    let server = hello();
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
    client.assert_end();
}

#[test]
fn half_closed_client_receives_response() {
    let server = hello();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.finish();
    assert_eq!(client.answer().text(), "hello");
    client.assert_end();
}

#[test]
fn many_connections_are_served_concurrently() {
    let room = Room::for_both_ends(100);
    let (arrived, arrivals) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let (arrived, wait) = (Mutex::new(arrived), Mutex::new(wait));
    let server = serve(|server| {
        server.get("/", move |_| {
            arrived.lock().unwrap().send(()).unwrap();
            wait.lock().unwrap().recv().unwrap();
            "done"
        })
    });
    let mut clients: Vec<_> = (0..room.connections).map(|_| server.connect()).collect();
    clients
        .iter_mut()
        .for_each(|client| client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    clients.iter().for_each(|_| arrivals.recv_timeout(super::support::TIMEOUT).unwrap());
    clients.iter().for_each(|_| go.send(()).unwrap());
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().text(), "done"));
}

#[test]
fn bind_to_used_port_fails_with_address() {
    let first = Server::bind("127.0.0.1:0").unwrap();
    let address = first.local_addr().to_string();
    let error = Server::bind(&address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address), "{error}");
}

#[test]
fn bind_to_invalid_address_fails_with_advice() {
    let no_port = "a host and a port, as in 127.0.0.1:8080";
    for (address, advice) in [
        ("no such address", no_port),
        ("127.0.0.1", no_port),
        ("127.0.0.1:65536", no_port),
        (":8080", no_port),
        ("192.0.2.1:0", "0.0.0.0 for all of its addresses"), // an address that no machine has (RFC 5737)
    ] {
        let message = Server::bind(address).unwrap_err().to_string();
        let named = message.starts_with(&format!("cannot listen on {address}: "));
        assert!(named && message.ends_with(advice), "{message}");
    }
}

/// The client sends more bytes after its last request than the server reads together with the request. If the server
/// closed the socket at once, the kernel would send a reset, and the client would lose the rest of the response.
#[test]
fn large_response_survives_unread_input() {
    let server = serve(|server| server.get("/", |_| "x".repeat(3_000_000)));
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"] {
        let mut client = server.connect();
        client.send(format!("{request}{}", "stray".repeat(2_000)));
        let head = client.head();
        assert_eq!(client.rest().len().to_string(), head.header("content-length").unwrap());
    }
}
