//! A raw connection: the handler takes it over, and a thread writes the whole HTTP response ten seconds later. The server
//! goes on with everybody else meanwhile.
//!
//! Run `cargo run --example takeover`, then `curl http://127.0.0.1:8080/slow` in one terminal and
//! `curl http://127.0.0.1:8080/` in another: the second is answered at once, the first after ten seconds.

use brooklet::{Connection, Context, Response, Server};
use std::io::{self, Write};
use std::{thread, time::Duration};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let server = Server::bind(&address)?.get("/", |_| "at once\n").get("/slow", slow);
    println!("try: curl http://{0}/slow & curl http://{0}/", server.local_addr());
    server.serve()
}

fn slow(ctx: Context<'_>) -> Response {
    let (conn, no_result) = ctx.takeover_conn();
    thread::spawn(move || answer(conn));
    no_result
}

/// Writes bytes as they go over the wire. Whoever takes a connection over and does not use the `sse` module speaks HTTP
/// by hand, the end of the response included: here it is the end of the connection.
fn answer(mut conn: Connection) -> io::Result<()> {
    thread::sleep(Duration::from_secs(10));
    conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nat last\n")
}
