//! Shows the output of a program to browsers: each line of standard input is an event.
//!
//! Run `ping 127.0.0.1 | cargo run --example tail`, then open http://127.0.0.1:8080/ in several browsers, or run
//! `curl -N http://127.0.0.1:8080/lines`. A client that connects late first receives the last hundred lines. When the
//! input ends, each client receives an `end` event, and the program ends. The page removes terminal colours, and curl
//! shows them.

use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers};
use brooklet::{Handle, Response, Server};
use std::{io, thread, time::Duration};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let lines = Channel::with_config(ChannelConfig { newcomers: Newcomers::Last(100), ..ChannelConfig::default() });
    let feed = lines.clone();
    let server = Server::bind(&address)?
        .get("/", |_| Response::html(include_str!("tail.html")))
        .get("/lines", move |ctx| feed.subscribe(ctx));
    println!("open http://{0}/ or try: curl -N http://{0}/lines", server.local_addr());
    let handle = server.handle();
    thread::spawn(move || follow(io::stdin().lock(), lines, handle));
    server.serve()
}

/// Publishes each line when it arrives. Bytes that are not UTF-8 become U+FFFD.
fn follow(mut input: impl io::BufRead, lines: Channel, server: Handle) -> io::Result<()> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if let Err(error) = lines.publish(text.trim_end_matches(['\r', '\n'])) {
            eprintln!("this line was not published: {error}"); // the line is larger than the history
        }
        line.clear();
    }
    lines.publish(Message::new().event("end").data("the input has ended"))?;
    lines.close();
    server.shutdown(Duration::from_secs(5));
    Ok(())
}
