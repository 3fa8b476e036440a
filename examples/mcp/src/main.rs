//! A server that models can call over the Model Context Protocol (Streamable HTTP), with a quick tool and a slow one.
//!
//! Run `cargo run --manifest-path examples/mcp/Cargo.toml`, and try it with the inspector, which needs Node 22.19:
//! `npx @modelcontextprotocol/inspector --cli http://127.0.0.1:8080/mcp --method tools/list`.
//! `claude mcp add --transport http brooklet http://127.0.0.1:8080/mcp` adds it to a client. So does this in a client's
//! configuration: `{"mcpServers": {"brooklet": {"type": "http", "url": "http://127.0.0.1:8080/mcp"}}}`.

use brooklet::sse::{Channel, Message, Subscription};
use brooklet::{Context, Response, Server, StatusCode};
use serde_json::{json, Value};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fmt::Display, fs::File, io, io::Read, panic, thread};

const REVISIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"]; // the last one has batches, and is not offered
pub const MAX_SESSIONS: usize = 1_000; // beyond it, the oldest session ends, and its client must begin another one
pub const MAX_CALLS: usize = 250; // beyond it, the oldest call is canceled; each keeps at most 4 MiB of events
pub const PATIENCE: Duration = Duration::from_secs(30); // how long a call waits for its client, or is kept when it ends

static SESSIONS: Mutex<Vec<(String, Channel)>> = Mutex::new(Vec::new()); // the id, and the channel that answers GET
static CALLS: Mutex<Vec<Arc<Call>>> = Mutex::new(Vec::new()); // of slow tools, the newest first

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let (number, positive) = (json!({"type": "number"}), json!({"type": "integer", "minimum": 1}));
    let numbers = json!({"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]});
    let limit = json!({"type": "object", "properties": {"to": positive}, "required": ["to"]});
    let quick = json!({"name": "add", "description": "Adds two numbers", "inputSchema": numbers});
    let slow = json!({"name": "count", "description": "Counts, five numbers a second", "inputSchema": limit});
    let server = add_endpoint(Server::bind(&address)?, vec![(quick, Tool::Quick(add)), (slow, Tool::Slow(count))]);
    println!("try: claude mcp add --transport http brooklet http://{}/mcp", server.local_addr());
    server.serve()
}

fn add(arguments: &Value) -> Outcome {
    let number = |name| arguments[name].as_f64().ok_or("a and b must be numbers");
    Ok(json!([{"type": "text", "text": (number("a")? + number("b")?).to_string()}]))
}

fn count(arguments: &Value, call: &Call) -> Outcome {
    let to = arguments["to"].as_u64().filter(|to| *to > 0).ok_or("to must be a positive integer")?;
    for n in 1..=to {
        thread::sleep(Duration::from_millis(200)); // in place of work
        call.progress(n, to)?;
    }
    Ok(json!([{"type": "text", "text": format!("counted to {to}")}]))
}

pub type Outcome = Result<Value, String>; // the content of a result, or an error for the model to read
pub enum Tool {
    Quick(fn(&Value) -> Outcome),       // answered with JSON
    Slow(fn(&Value, &Call) -> Outcome), // answered with an event stream
}

/// Adds these tools, each with its entry in the list, and makes JSON-RPC errors of the server's own error responses.
pub fn add_endpoint(server: Server, tools: Vec<(Value, Tool)>) -> Server {
    let server = server.post("/mcp", move |ctx| post(ctx, &tools)).get("/mcp", get).delete("/mcp", delete);
    server.error_response(|problem| refuse(problem.status, -32000, problem.message))
}

fn post(mut ctx: Context<'_>, tools: &[(Value, Tool)]) -> Result<Response, Response> {
    let parsed = serde_json::from_slice(&ctx.body_bytes()?);
    let message: Value = parsed.map_err(|error| refuse(StatusCode::BAD_REQUEST, -32700, &error.to_string()))?;
    let (method, id, params) = (message["method"].as_str(), message.get("id"), &message["params"]);
    let is_response = message.get("result").or(message.get("error")).is_some();
    let has_valid_id = id.is_none_or(|id| id.is_string() || id.is_number());
    if message["jsonrpc"] != "2.0" || !(method.is_some() || is_response) || !has_valid_id {
        return Err(refuse(StatusCode::BAD_REQUEST, -32600, "the body must be one message of JSON-RPC 2.0"));
    }
    if let (Some("initialize"), Some(id)) = (method, id) {
        return initialize(id, &params["protocolVersion"]);
    }
    let (session, _) = find_session(&ctx)?;
    let (Some(method), Some(id)) = (method, id) else {
        if method == Some("notifications/cancelled") {
            cancel(|call| call.session == session && call.message["id"] == params["requestId"]);
        }
        return Ok(StatusCode::ACCEPTED.into()); // also for other notifications, and for responses
    };
    let (name, arguments) = (&params["name"], &params["arguments"]);
    let (field, value) = match (method, tools.iter().find(|(entry, _)| entry["name"] == *name)) {
        ("ping", _) => ("result", json!({})),
        ("tools/list", _) => ("result", json!({"tools": tools.iter().map(|(entry, _)| entry).collect::<Vec<_>>()})),
        ("tools/call", Some((_, Tool::Quick(run)))) => ("result", tool_result(run(arguments))),
        ("tools/call", Some((_, Tool::Slow(run)))) => return Ok(Call::run(ctx, session, message, *run)),
        ("tools/call", None) => ("error", json!({"code": -32602, "message": format!("there is no tool {name}")})),
        _ => ("error", json!({"code": -32601, "message": format!("there is no method {method}")})),
    };
    Ok(Response::json(answer(id, field, value)))
}

fn initialize(id: &Value, asked: &Value) -> Result<Response, Response> {
    let revision = REVISIONS[..2].iter().find(|offered| asked == **offered).unwrap_or(&REVISIONS[0]);
    let mut secret = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut secret)?; // on Windows, use the crate `getrandom`
    let session = format!("{:032x}", u128::from_ne_bytes(secret));
    let info = json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")});
    let result = json!({"protocolVersion": revision, "capabilities": {"tools": {}}, "serverInfo": info});
    let mut sessions = SESSIONS.lock().unwrap();
    sessions.insert(0, (session.clone(), Channel::new()));
    sessions.truncate(MAX_SESSIONS);
    Ok(Response::json(answer(id, "result", result)).header("Mcp-Session-Id", session))
}

fn get(ctx: Context<'_>) -> Result<Response, Response> {
    let (origin, host) = (ctx.headers().get("origin"), ctx.headers().get("host"));
    if origin.is_some_and(|origin| origin.split("://").nth(1) != host) {
        return Err(refuse(StatusCode::FORBIDDEN, -32000, "this request comes from a page of another origin"));
    }
    let (session, idle) = find_session(&ctx)?;
    let Some(event) = ctx.last_event_id() else { return Ok(idle.subscribe(ctx)) };
    let is_resumed = |call: &&Arc<Call>| call.session == session && event.starts_with(&format!("{}-", call.number));
    let call = CALLS.lock().unwrap().iter().find(is_resumed).cloned();
    let call = call.ok_or_else(|| refuse(StatusCode::GONE, -32000, "this stream is forgotten"))?;
    call.channel.disconnect(|_| true); // from its earlier connection, which may have broken off
    Ok(call.channel.subscribe_with(ctx, Subscription::new().tag("client")))
}

fn delete(ctx: Context<'_>) -> Result<StatusCode, Response> {
    let (session, _) = find_session(&ctx)?;
    SESSIONS.lock().unwrap().retain(|(other, _)| *other != session);
    cancel(|call| call.session == session);
    Ok(StatusCode::NO_CONTENT)
}

fn find_session(ctx: &Context<'_>) -> Result<(String, Channel), Response> {
    let field = |name| ctx.headers().get(name);
    if field("mcp-protocol-version").is_some_and(|revision| !REVISIONS.contains(&revision)) {
        return Err(refuse(StatusCode::BAD_REQUEST, -32000, "this MCP-Protocol-Version is not supported"));
    }
    let missing = || refuse(StatusCode::BAD_REQUEST, -32000, "Mcp-Session-Id is missing");
    let id = field("mcp-session-id").ok_or_else(missing)?;
    let session = SESSIONS.lock().unwrap().iter().find(|(known, _)| known == id).cloned();
    session.ok_or_else(|| refuse(StatusCode::NOT_FOUND, -32001, "there is no such session"))
}

fn cancel(select: impl Fn(&&Arc<Call>) -> bool) {
    CALLS.lock().unwrap().iter().filter(select).for_each(|call| call.end());
}

/// A call of a slow tool. Its event stream is a channel. The id of an event begins with the call's number, as in `3-7`.
#[derive(Default)]
pub struct Call {
    session: String,
    message: Value,
    number: u64,
    channel: Channel,
    left: Mutex<Option<Instant>>, // when the client was found to be missing
    ended: OnceLock<Instant>,
}

impl Call {
    /// Runs the tool in the thread of this connection, also while the client resumes the call on another connection.
    fn run(ctx: Context<'_>, session: String, message: Value, tool: fn(&Value, &Call) -> Outcome) -> Response {
        let mut calls = CALLS.lock().unwrap();
        let number = calls.first().map_or(1, |newest| newest.number + 1);
        calls.retain(|call| call.ended.get().is_none_or(|ended| ended.elapsed() < PATIENCE));
        let call = Arc::new(Call { session, message, number, ..Call::default() });
        calls.insert(0, call.clone());
        calls.iter().skip(MAX_CALLS).for_each(|oldest| oldest.end());
        calls.truncate(MAX_CALLS);
        drop(calls);
        let primes = ctx.headers().get("mcp-protocol-version") == Some(REVISIONS[0]);
        let response = call.channel.subscribe_with(ctx, Subscription::new().tag("client"));
        if response.status_code() == StatusCode::OK {
            if primes {
                call.send(0, ""); // an id to resume after, which clients of earlier revisions do not expect
            }
            let (id, arguments) = (&call.message["id"], &call.message["params"]["arguments"]);
            let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| tool(arguments, &call)));
            let result = tool_result(outcome.unwrap_or(Err("the tool has panicked".to_owned())));
            if !call.send("result", answer(id, "result", result)) {
                let problem = json!({"code": -32603, "message": "the result is too large"}); // or the call was canceled
                call.send("result", answer(id, "error", problem));
            }
        }
        call.end();
        response
    }

    /// Reports progress to a client that asked for it. Returns an error if the tool should stop.
    pub fn progress(&self, progress: u64, total: u64) -> Result<(), String> {
        let mut left = self.left.lock().unwrap();
        *left = if self.channel.subscribers() > 0 { None } else { left.or(Some(Instant::now())) };
        if self.ended.get().is_some() || left.is_some_and(|left| left.elapsed() > PATIENCE) {
            return Err("the call was canceled, or its client has left".to_owned());
        }
        if let Some(token) = self.message["params"]["_meta"].get("progressToken") {
            let params = json!({"progressToken": token, "progress": progress, "total": total});
            self.send(progress, json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
        }
        Ok(())
    }

    fn send(&self, id: impl Display, message: impl Display) -> bool {
        let message = Message::new().id(format_args!("{}-{id}", self.number)).data(message);
        self.channel.publish(message).is_ok()
    }

    fn end(&self) {
        self.ended.get_or_init(Instant::now);
        self.channel.finish();
    }
}

/// Also converts the error of a tool into a result, so that the model reads it.
fn tool_result(outcome: Outcome) -> Value {
    let is_error = outcome.is_err();
    let content = outcome.unwrap_or_else(|error| json!([{"type": "text", "text": error}]));
    json!({"content": content, "isError": is_error})
}

fn answer(id: &Value, field: &str, value: Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, field: value}).to_string()
}

fn refuse(status: StatusCode, code: i64, message: &str) -> Response {
    let error = json!({"code": code, "message": message});
    Response::json(answer(&Value::Null, "error", error)).with_status(status)
}
