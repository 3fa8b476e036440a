//! A connection that a handler takes over. A thread writes the whole HTTP response ten seconds later. Meanwhile, the
//! server serves other clients.
//!
//! Run `cargo run --example takeover`, then `curl http://127.0.0.1:8080/slow` in one terminal and
//! `curl http://127.0.0.1:8080/` in another. The second request is answered at once, and the first after ten seconds.

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

/// Writes the response byte for byte. On a connection that was taken over, the program writes the status line, the
/// header fields and the body itself. This response ends when the connection is closed.
fn answer(mut conn: Connection) -> io::Result<()> {
    thread::sleep(Duration::from_secs(10));
    conn.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nat last\n")
}
