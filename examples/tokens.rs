//! A chat-completions endpoint that OpenAI's clients read untouched: word by word with `"stream": true`, else as one object.
//!
//! Run `cargo run --example tokens` and open http://127.0.0.1:8080/, or `curl -N -d '{"stream":true}'
//! http://127.0.0.1:8080/v1/chat/completions`. An OpenAI client has http://127.0.0.1:8080/v1 as its base URL, and any API key.
//!
//! A client that lost its connection sends its request again, with the id of the last event that it received as
//! `Last-Event-ID`, and receives the rest of the same answer. An answer without `[DONE]` is not whole: the page shows both.
//! A model costs something for each word, so it stops a few seconds after the last client has left.

use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers};
use brooklet::{Context, Response, Server, StatusCode};
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

const TEXT: &str = "A brooklet is a small stream. It says one word after another, to whoever listens. If the connection is lost in \
    the middle, the words wait: a client that comes back says which word came last, and goes on with the next one. It has \
    heard everything when the mark at the end has come. When nobody comes back, the stream does not talk for long.";
const PACE: Duration = Duration::from_millis(100); // what one word costs the model that is not here
const GRACE: Duration = Duration::from_secs(3); // how long the model goes on while nobody listens
const KEPT: Duration = Duration::from_secs(60); // how long an answer can be fetched after its last word was made

type Answers = Mutex<HashMap<String, Channel>>; // by their ids

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let answers = Arc::new(Answers::default());
    let server = Server::bind(&address)?
        .get("/", |_| Response::html(include_str!("tokens.html")))
        .post("/v1/chat/completions", move |ctx| complete(&answers, ctx));
    println!("open http://{0}/ or give an OpenAI client the base URL http://{0}/v1", server.local_addr());
    server.serve()
}

fn complete(answers: &Arc<Answers>, mut ctx: Context<'_>) -> io::Result<Response> {
    let request = ctx.body_text()?;
    if let Some(last) = ctx.last_event_id() {
        let answer = answers.lock().unwrap().get(last.split('/').next().unwrap_or_default()).cloned();
        return Ok(answer.map_or(StatusCode::NOT_FOUND.into(), |answer| answer.subscribe(ctx)));
    }
    // Random, because everybody who knows the id can read the answer.
    let id = format!("chatcmpl-{:016x}", RandomState::new().build_hasher().finish());
    let created = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let head = format!(r#""id":"{id}","created":{created},"model":"brook""#);
    if !wants_stream(&request) {
        let content: String = words().take_while(|_| !ctx.client_left()).collect();
        let message = format!(r#"{{"role":"assistant","content":"{content}"}}"#);
        let choice = format!(r#"{{"index":0,"message":{message},"finish_reason":"stop"}}"#);
        return Ok(Response::json(format!(r#"{{{head},"object":"chat.completion","choices":[{choice}]}}"#)));
    }
    let config = ChannelConfig { newcomers: Newcomers::Last(usize::MAX), ..ChannelConfig::default() };
    let answer = Channel::with_config(config);
    let answers = answers.clone();
    answers.lock().unwrap().insert(id.clone(), answer.clone());
    let response = answer.subscribe(ctx);
    thread::spawn(move || {
        let generated = generate(&answer, &id, &head).map(|()| thread::sleep(KEPT));
        answers.lock().unwrap().remove(&id);
        generated.unwrap_or_else(|error| println!("{error}"));
    });
    Ok(response)
}

/// Publishes the chunks of an answer. The ids of the events begin with the answer's, so that its channel is found by them.
fn generate(answer: &Channel, id: &str, head: &str) -> io::Result<()> {
    let chunk = |delta: &str, finish_reason: &str| {
        let choice = format!(r#"{{"index":0,"delta":{delta},"finish_reason":{finish_reason}}}"#);
        format!(r#"{{{head},"object":"chat.completion.chunk","choices":[{choice}]}}"#)
    };
    let first = [chunk(r#"{"role":"assistant","content":""}"#, "null")];
    let content = words().map(|word| chunk(&format!(r#"{{"content":"{word}"}}"#), "null"));
    let last = [chunk("{}", r#""stop""#), "[DONE]".to_owned()];
    let mut last_heard = Instant::now();
    for (made, data) in first.into_iter().chain(content).chain(last).enumerate() {
        if answer.subscribers() > 0 {
            last_heard = Instant::now();
        } else if last_heard.elapsed() > GRACE {
            return Err(io::Error::other(format!("nobody listens: stopped after {made} chunks")));
        }
        answer.publish(Message::new().data(data).id(format_args!("{id}/{made}")))?;
    }
    answer.finish(); // not `close`: a client would take the `close` event for one more chunk
    Ok(())
}

/// The words as they are made. These words need no escaping in JSON, but the words of a model do.
fn words() -> impl Iterator<Item = &'static str> {
    TEXT.split_inclusive(' ').inspect(|_| thread::sleep(PACE))
}

/// Whether a JSON object has `"stream": true`. In a string the quotation marks would be escaped, but an object inside of this
/// one is not told apart: a real program parses the request, with `serde_json` for example.
fn wants_stream(request: &str) -> bool {
    let mut values = request.split("\"stream\"").skip(1).filter_map(|rest| rest.trim_start().strip_prefix(':'));
    values.any(|value| value.trim_start().starts_with("true"))
}
