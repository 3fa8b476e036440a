//! Lines that a newcomer types in the first hour: they compile, and do what they look like.

use brooklet::Server;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn spawned_server_stops_when_dropped_and_its_port_is_free() {
    let running = Server::bind("127.0.0.1:0").unwrap().get("/", |_| "hello").spawn().unwrap();
    let address = running.local_addr();
    assert_eq!(super::support::Client::connect(address).get("/").text(), "hello");
    let mut idle = super::support::Client::connect(address);
    assert_eq!(idle.get("/").text(), "hello");
    drop(running);
    idle.assert_end();
    let listener = TcpListener::bind(address).expect("the port is free");
    let running = Server::from_listener(listener).unwrap().get("/", |_| "again").spawn().unwrap();
    assert_eq!(super::support::Client::connect(address).get("/").text(), "again");
    running.shutdown(Duration::from_secs(5)).unwrap();
    let running = Server::bind("127.0.0.1:0").unwrap().get("/", |_| "hello").spawn().unwrap();
    running.handle().shutdown(Duration::ZERO);
    running.join().unwrap();
}

#[test]
fn spawn_returns_what_serve_refuses() {
    let error = Server::bind("127.0.0.1:0").unwrap().get("no-slash", |_| "hello").spawn().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no-slash") && error.to_string().contains(file!()), "{error}");
}
