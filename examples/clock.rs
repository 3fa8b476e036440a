//! Live updates: an event a second, three times, and goodbye.
//!
//! Run `cargo run --example clock`, then `curl -N http://127.0.0.1:8080/sse`, or open http://127.0.0.1:8080/ in a
//! browser: both show three ticks as they happen, and end by themselves.

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

/// Takes the connection over; the thread below answers it from here on.
fn clock(ctx: Context<'_>) -> Response {
    let (conn, no_result) = ctx.takeover_conn();
    thread::spawn(move || ticks(conn));
    no_result
}

fn ticks(conn: Connection) -> io::Result<()> {
    let mut events = sse::start_connection(conn)?;
    for n in 0..3 {
        events.wait(Duration::from_secs(1))?; // a sleep that ends early when the client leaves
        events.send_message(sse::Message::new().event("tick").id(n).data("ping"))?;
    }
    events.close()
}
