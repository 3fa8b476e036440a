//! The forms of a request, and the parts of a request that a handler reads.

use super::support::{serve, Client, Running, TIMEOUT};
use brooklet::{Server, Version};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{mpsc, Mutex};
use std::time::Duration;

fn mirror() -> Running {
    serve(|server| {
        server
            .get("/query", |ctx| format!("{:?} {:?}", ctx.query("q"), ctx.query("r")))
            .get("/head", |ctx| {
                let request = ctx.request();
                let minor = if request.version() == Version::Http10 { 0 } else { 1 };
                let accept: Vec<_> = ctx.headers().get_all("accept").map(String::from_utf8_lossy).collect();
                format!("{} {} 1.{minor} {:?} {accept:?}", request.method(), request.target(), request.host())
            })
            .get("/peer", |ctx| ctx.peer_addr().to_string())
            .post("/form", |mut ctx| {
                let form = ctx.form()?;
                std::io::Result::Ok(format!("{:?} {:?}", form.get("a"), form.get_all("b").collect::<Vec<_>>()))
            })
    })
}

#[test]
fn query_field_is_found_by_name() {
    let server = mirror();
    assert_eq!(server.get("/query?q=tea+time%21&x=y").text(), r#"Some("tea time!") None"#);
    assert_eq!(
        server.get("/query?q=%zz&r=%ff").text(),
        "Some(\"%zz\") Some(\"\u{fffd}\")",
        "decoded as by the WHATWG parser"
    );
    assert_eq!(server.get("/query?q").text(), r#"Some("") None"#);
    assert_eq!(server.get("/query").text(), "None None");
}

#[test]
fn form_field_is_found_by_name() {
    let server = mirror();
    let post = |content_type: &str, body: &str| {
        let length = body.len();
        server.ask(format!(
            "POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };
    let answer = post("application/x-www-form-urlencoded; charset=utf-8", "a=1%262&b=x&b=y");
    assert_eq!(answer.text(), r#"Some("1&2") ["x", "y"]"#);
    assert_eq!(post("application/json", "{}").status, 415);
    assert_eq!(post("application/x-www-form-urlencoded", "a=\u{80}").status, 200);
}

#[test]
fn head_is_passed_to_the_handler_unchanged() {
    let server = mirror();
    let ask = |request: &str| server.ask(request).text().to_owned();
    assert_eq!(
        ask("GET /head?x HTTP/1.1\r\nhost:localhost:80\r\nACCEPT: a\r\naccept:\t b ,c \r\n\r\n"),
        r#"GET /head?x 1.1 Some("localhost:80") ["a", "b ,c"]"#
    );
    assert_eq!(ask("GET /head HTTP/1.0\r\n\r\n"), "GET /head 1.0 None []");
    assert_eq!(ask("GET /%68ead?%61 HTTP/1.0\r\n\r\n"), "GET /%68ead?%61 1.0 None []", "the target is not normalized");
    assert_eq!(
        ask("GET http://127.0.0.1:1/head HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        r#"GET http://127.0.0.1:1/head 1.1 Some("127.0.0.1:1") []"#,
        "an absolute target replaces Host"
    );
    assert_eq!(ask("\r\n\r\nGET /head HTTP/1.7\r\nHost: localhost\r\n\r\n"), r#"GET /head 1.1 Some("localhost") []"#);
}

#[test]
fn peer_addr_is_the_address_of_the_client() {
    let server = mirror();
    let mut client = server.connect();
    let own = client.stream.local_addr().unwrap().to_string();
    assert_eq!(client.get("/peer").text(), own);
}

/// The handler, the taken-over connection and the hook all report the IPv4 address.
#[test]
fn peer_of_an_ipv4_client_on_an_ipv6_listener_is_ipv4() {
    let Ok(server) = Server::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
        return eprintln!("skipped: this machine has no IPv6");
    };
    let (peer, peers) = mpsc::channel();
    let (of_takeover, of_hook) = (Mutex::new(peer.clone()), Mutex::new(peer));
    let server = server
        .get("/", |ctx| ctx.peer_addr().to_string())
        .get("/taken", move |ctx| {
            let (conn, no_result) = ctx.takeover_conn();
            of_takeover.lock().unwrap().send(conn.peer_addr()).unwrap();
            no_result
        })
        .on_response(move |exchange| of_hook.lock().unwrap().send(exchange.peer).unwrap());
    let (port, handle) = (server.local_addr().port(), server.handle());
    let thread = std::thread::spawn(move || server.serve());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if std::net::TcpStream::connect_timeout(&address, TIMEOUT).is_ok() {
        let mut client = Client::connect(address);
        let own = client.stream.local_addr().unwrap();
        assert_eq!(client.get("/").text(), own.to_string());
        client.send("GET /taken HTTP/1.1\r\nHost: localhost\r\n\r\n");
        for _ in ["the answer", "the takeover", "the hook"] {
            assert_eq!(peers.recv_timeout(TIMEOUT).unwrap(), own);
        }
    } else {
        eprintln!("skipped: on this machine `[::]` accepts no IPv4 clients");
    }
    handle.shutdown(Duration::ZERO);
    thread.join().unwrap().unwrap();
}

#[test]
fn bind_with_several_addresses_uses_the_first_that_works() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let server = Server::bind(&[taken.local_addr().unwrap(), free, unspecified][..]).unwrap();
    assert_eq!(server.local_addr().ip(), Ipv4Addr::LOCALHOST);
    assert_ne!(server.local_addr().port(), taken.local_addr().unwrap().port());
}

#[test]
fn malformed_request_is_400_and_ends_its_connection() {
    let server = mirror();
    for bad in
        ["GET /\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}hello", "GET / HTTP/1.1\nHost: localhost\n\n"]
    {
        let mut client = server.connect();
        client.send(bad);
        let answer = client.answer();
        assert_eq!(answer.status, 400, "{bad:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.text().lines().count(), 1);
        assert!(!answer.text().contains("hello"), "the response does not repeat the request");
        client.finish();
        client.assert_end();
    }
    assert_eq!(server.get("/query").status, 200);
}

#[test]
fn head_sent_byte_by_byte_is_served() {
    let server = mirror();
    let mut client = server.connect();
    for byte in b"GET /query?q=1 HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), r#"Some("1") None"#);
}
