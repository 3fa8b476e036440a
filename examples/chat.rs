//! A chat room: a page, and one channel that sends each message to everybody in the room.
//!
//! Run `cargo run --example chat` and open http://127.0.0.1:8080/ in two windows. In a terminal,
//! `curl -N http://127.0.0.1:8080/room` prints the messages, and `curl -d 'hello' http://127.0.0.1:8080/say` sends one.
//!
//! `cargo run --example chat 127.0.0.1:8080 room.sse` keeps the messages in a file. If the program ends and is started
//! again, no message is lost. `cat room.sse` prints the messages.

use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers};
use brooklet::{Context, Response, Server, StatusCode};
use std::io;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    // A newcomer receives the last hundred events, so a page that is reloaded shows the earlier messages again.
    let config = ChannelConfig { newcomers: Newcomers::Last(100), ..ChannelConfig::default() };
    let room = match std::env::args().nth(2) {
        Some(file) => Channel::open(file, config)?,
        None => Channel::with_config(config),
    };
    room.on_join(present);
    room.on_leave(present);
    let listen = room.clone();
    let server = Server::bind(&address)?
        .get("/", |_| Response::html(include_str!("chat.html")))
        .get("/room", move |ctx| listen.subscribe(ctx))
        .post("/say", move |ctx| say(&room, ctx));
    println!("open http://{0}/ or try: curl -N http://{0}/room & curl -d hello http://{0}/say", server.local_addr());
    server.serve()
}

/// Publishes how many clients are in the room.
fn present(room: &Channel, count: usize) {
    // An error means that the room is closed. A closed room has no clients, so the error is ignored.
    let _ = room.publish(Message::new().event("present").data(count));
}

fn say(room: &Channel, mut ctx: Context<'_>) -> io::Result<Response> {
    let text = ctx.body_text()?;
    if text.trim().is_empty() || text.len() > 2_000 {
        return Ok(StatusCode::UNPROCESSABLE_CONTENT.into());
    }
    room.publish(text)?;
    Ok(StatusCode::NO_CONTENT.into())
}
