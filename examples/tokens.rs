//! A chat-completions endpoint that streams word by word, in the form that OpenAI-style clients read: `data: {json}` for each
//! piece, and `data: [DONE]` at the end.
//!
//! Run `cargo run --example tokens`, then
//! `curl -N -d '{"stream":true}' http://127.0.0.1:8080/v1/chat/completions`. Stop curl in the middle: the program says how
//! many words it made, for it stops the moment the client hangs up. That matters where each word costs something.

use brooklet::{sse, Context, Response, Server};
use std::{io, time::Duration};

const TEXT: &str = "A brooklet is a small stream. It says one word after another, to whoever listens, \
                    and it stops when nobody does.";

/// What one word costs the model that is not here.
const PACE: Duration = Duration::from_millis(100);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let server = Server::bind(&address)?.post("/v1/chat/completions", complete);
    println!("try: curl -N -d '{{\"stream\":true}}' http://{}/v1/chat/completions", server.local_addr());
    server.serve()
}

/// The body is the prompt, which this program has no use for; it is read all the same, so that it is out of the way.
fn complete(mut ctx: Context<'_>) -> Response {
    if let Err(error) = ctx.body_bytes() {
        return error.into();
    }
    sse::stream(ctx, generate)
}

fn generate(mut events: sse::Connection) -> io::Result<()> {
    for (made, word) in TEXT.split_inclusive(' ').enumerate() {
        // A model would work here. The wait ends at once, with an error, when the client is gone.
        if let Err(gone) = events.wait(PACE) {
            println!("{gone} after {made} words");
            return Err(gone);
        }
        events.send_message(chunk(word, "null"))?;
    }
    events.send_message(chunk("", "\"stop\""))?;
    events.send_message("[DONE]")
}

/// The words above need no escaping in JSON; what a model makes does.
fn chunk(content: &str, finish_reason: &str) -> String {
    format!(
        r#"{{"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":{finish_reason}}}]}}"#
    )
}
