//! A live poll with htmx. The server sends HTML, and the page contains no JavaScript of its own. All browsers show a
//! vote at once.
//!
//! `npm install --prefix target/npm htmx.org@4.0.1` fetches htmx with its extension `hx-sse`. Then run
//! `cargo run --example htmx`, and open http://127.0.0.1:8080/ in two windows.

use brooklet::sse::{Channel, ChannelConfig, Newcomers};
use brooklet::{Files, Response, Server, StatusCode};
use std::{io, sync::Mutex};

const DRINKS: [&str; 3] = ["coffee", "tea", "water"];

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let scripts = Files::new(std::env::args().nth(2).unwrap_or("target/npm/node_modules/htmx.org/dist".to_owned()))?;
    // Each event contains all votes, so a newcomer needs only the last event.
    let poll = Channel::with_config(ChannelConfig { newcomers: Newcomers::Last(1), ..ChannelConfig::default() });
    poll.publish(render(&[0; 3]))?;
    let feed = poll.clone();
    let votes = Mutex::new([0; 3]);
    let server = Server::bind(&address)?
        .get("/", |_| Response::html(include_str!("htmx.html")))
        .get("/htmx/{*path}", move |ctx| scripts.respond(&ctx, ctx.param("path")))
        .get("/poll", move |ctx| feed.subscribe(ctx))
        .post("/vote/{drink}", move |ctx| vote(ctx.param("drink"), &votes, &poll));
    println!("open http://{}/", server.local_addr());
    server.serve()
}

fn vote(drink: &str, votes: &Mutex<[u32; 3]>, poll: &Channel) -> io::Result<StatusCode> {
    let Some(index) = DRINKS.iter().position(|name| *name == drink) else { return Ok(StatusCode::NOT_FOUND) };
    let mut votes = votes.lock().unwrap();
    votes[index] += 1;
    poll.publish(render(&votes))?; // publish under the lock, so that the last event has the newest votes
    Ok(StatusCode::NO_CONTENT)
}

fn render(votes: &[u32; 3]) -> String {
    let most = votes.iter().fold(1, |most, votes| most.max(*votes));
    let row = |(drink, n): (_, _)| {
        format!(r#"<button hx-post="/vote/{drink}">{drink}</button><meter max={most} value={n}></meter><b>{n}</b>"#)
    };
    DRINKS.iter().zip(votes).map(row).collect()
}
