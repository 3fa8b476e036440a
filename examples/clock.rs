//! A stream of three events, one per second, which then ends with a `close` event.
//!
//! Run `cargo run --example clock`, then `curl -N http://127.0.0.1:8080/sse`, or open http://127.0.0.1:8080/ in a
//! browser. Both show each tick when it happens, and stop after the third one.

use brooklet::{sse, Connection, Context, Response, Server};
use std::{io, thread, time::Duration};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let server = Server::bind(&address)?
        .get("/", |_| Response::html(include_str!("clock.html")))
        .get("/sse", clock);
    println!("open http://{0}/ or try: curl -N http://{0}/sse", server.local_addr());
    server.serve()
}

/// Takes over the connection and passes it to a new thread, which sends the response.
fn clock(ctx: Context<'_>) -> Response {
    let (conn, no_result) = ctx.takeover_conn();
    thread::spawn(move || ticks(conn));
    no_result
}

fn ticks(conn: Connection) -> io::Result<()> {
    let mut events = sse::start_connection(conn)?;
    for n in 0..3 {
        events.wait(Duration::from_secs(1))?; // sleeps, but returns an error as soon as the client leaves
        events.send_message(sse::Message::new().event("tick").id(n).data("ping"))?;
    }
    events.close()
}
