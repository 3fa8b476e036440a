//! A chat room: one channel, a page, and as many people as come.
//!
//! Run `cargo run --example chat` and open http://127.0.0.1:8080/ in two windows; or stay in the terminal:
//! `curl -N http://127.0.0.1:8080/room` listens, `curl -d 'hello' http://127.0.0.1:8080/say` speaks.
//!
//! With a file, `cargo run --example chat 127.0.0.1:8080 room.sse`, the room survives the program: end it in whatever way,
//! start it again, and nobody has missed anything. `cat room.sse` shows what was said.

use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers};
use brooklet::{Context, Response, Server, StatusCode};
use std::io;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    // Whoever comes gets the last hundred events, so a page that is loaded again shows what was said before.
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

/// Says how many are here, to everybody.
fn present(room: &Channel, count: usize) {
    // It fails when the room is closed, and then nobody is left to tell.
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
