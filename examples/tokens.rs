//! An endpoint for chat completions that works with OpenAI's clients. With `"stream": true` it sends the answer word by
//! word, and otherwise as one object.
//!
//! Run `cargo run --example tokens` and open http://127.0.0.1:8080/, or run
//! `curl -N -d '{"stream":true}' http://127.0.0.1:8080/v1/chat/completions`. An OpenAI client needs the base URL
//! http://127.0.0.1:8080/v1 and any API key.
//!
//! A client that lost its connection sends its request again, with the id of the last event that it received as
//! `Last-Event-ID`, and receives the rest of the same answer. An answer that does not end with `[DONE]` is incomplete.
//! Each word of a real model costs money, so this server stops an answer a few seconds after its last client has left.

use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers};
use brooklet::{Context, Response, Server, StatusCode};
use std::collections::hash_map::{HashMap, RandomState};
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

const TEXT: &str = "A brooklet is a small stream. It sends one word after another. If the connection is lost in the \
    middle, the words wait. A client that reconnects sends the id of its last word, and receives the next word. The \
    answer is complete when the mark at the end arrives. Without clients, the stream does not continue for long.";
const PACE: Duration = Duration::from_millis(100); // the time for one word, as a model would take it
const GRACE: Duration = Duration::from_secs(3); // how long an answer continues without a client
const KEPT: Duration = Duration::from_secs(60); // how long an answer can be resumed
const MAX_ANSWERS: usize = 500; // each answer that is not complete has a thread

type Answers = Mutex<HashMap<String, (Channel, Instant)>>; // by the id of the answer: its channel and its first moment

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
        return Ok(answer.map_or(StatusCode::NOT_FOUND.into(), |(answer, _)| answer.subscribe(ctx)));
    }
    // The id is random, because any client that sends the id can read the answer.
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
    let (channel, answers) = (answer.clone(), answers.clone());
    let mut kept = answers.lock().unwrap();
    kept.retain(|_, (_, begun)| begun.elapsed() < KEPT);
    if kept.len() == MAX_ANSWERS {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into());
    }
    kept.insert(id.clone(), (answer.clone(), Instant::now()));
    drop(kept);
    thread::Builder::new().spawn(move || {
        if let Err(error) = generate(&channel, &id, &head) {
            answers.lock().unwrap().remove(&id);
            println!("{error}");
        }
    })?;
    Ok(answer.subscribe(ctx))
}

/// Publishes the chunks of an answer. The id of each event begins with the id of the answer, so that a client that
/// reconnects gets the channel of its answer.
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
            return Err(io::Error::other(format!("no client is left: stopped after {made} chunks")));
        }
        answer.publish(Message::new().data(data).id(format_args!("{id}/{made}")))?;
    }
    answer.finish(); // not `close`, because a client would read the `close` event as a chunk
    Ok(())
}

/// Returns the words of the answer, each after a pause. These words need no escaping in JSON. The words of a model do.
fn words() -> impl Iterator<Item = &'static str> {
    TEXT.split_inclusive(' ').inspect(|_| thread::sleep(PACE))
}

/// Returns whether a JSON object has `"stream": true`. This text inside a string does not match, because a JSON string
/// escapes its quotation marks. A member of an inner object does match. A real program parses the request, for example
/// with `serde_json`.
fn wants_stream(request: &str) -> bool {
    let mut values = request.split("\"stream\"").skip(1).filter_map(|rest| rest.trim_start().strip_prefix(':'));
    values.any(|value| value.trim_start().starts_with("true"))
}
