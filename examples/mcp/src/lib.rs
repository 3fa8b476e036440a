//! The Model Context Protocol over Streamable HTTP, as far as a server with tools needs it.
//!
//! Each event stream is a channel. Stream 0 of a session is for messages that belong to no call, and answers GET. Each call of a
//! slow tool has a stream of its own. The id of an event begins with the number of its stream, as in `3-7`: by that number,
//! GET finds the stream that a client resumes.

mod session;
mod stream;

use brooklet::{Context, Response, Server, StatusCode};
use serde_json::{json, Value};
use session::Session;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::Duration;
pub use stream::Stream;

/// A client that asks for another revision is offered the first one.
const REVISIONS: [&str; 2] = ["2025-11-25", "2025-06-18"];

/// May stand in `MCP-Protocol-Version`, where it is the default. It is not offered, because its clients may send batches.
const FIRST_REVISION: &str = "2025-03-26";

/// Beyond it the oldest session is forgotten. Its client gets a 404, and begins a new session.
const MAX_SESSIONS: usize = 1_000;

/// The content of a tool's result, or an error for the model to read.
pub type Outcome = Result<Value, String>;

pub enum Tool {
    /// Answered with JSON.
    Quick(fn(&Value) -> Outcome),
    /// Answered with an event stream.
    Slow(fn(&Value, &Stream) -> Outcome),
}

pub struct Mcp {
    /// Each with its entry in the list of tools.
    tools: Vec<(Value, Tool)>,
    sessions: Mutex<Vec<Arc<Session>>>,
    /// How long a call goes on without its client, and how long it can be resumed after its end. Default: 30 s.
    pub patience: Duration,
}

impl Mcp {
    pub fn new(tools: Vec<(Value, Tool)>) -> Mcp {
        Mcp { tools, sessions: Mutex::default(), patience: Duration::from_secs(30) }
    }

    /// Adds the endpoint, and makes JSON-RPC errors of the server's own error responses.
    pub fn add_to(self, server: Server) -> Server {
        let post = Arc::new(self);
        let (get, delete) = (post.clone(), post.clone());
        server
            .post("/mcp", move |ctx| post.post(ctx))
            .get("/mcp", move |ctx| get.get(ctx))
            .delete("/mcp", move |ctx| delete.delete(ctx))
            .error_response(|problem| refuse(problem.status, -32000, problem.message))
    }

    fn post(&self, mut ctx: Context<'_>) -> Result<Response, Response> {
        let message: Value = serde_json::from_slice(&ctx.body_bytes()?)
            .map_err(|error| refuse(StatusCode::BAD_REQUEST, -32700, &error.to_string()))?;
        let (method, id, params) = (message["method"].as_str(), message.get("id"), &message["params"]);
        let is_response = message.get("result").or(message.get("error")).is_some();
        let has_valid_id = id.is_none_or(|id| id.is_string() || id.is_number());
        if message["jsonrpc"] != "2.0" || !(method.is_some() || is_response) || !has_valid_id {
            return Err(refuse(StatusCode::BAD_REQUEST, -32600, "the body must be one message of JSON-RPC 2.0"));
        }
        if let (Some("initialize"), Some(id)) = (method, id) {
            return self.initialize(id, params);
        }
        let session = self.session(&ctx)?;
        let (Some(method), Some(id)) = (method, id) else {
            if method == Some("notifications/cancelled") {
                session.cancel(&params["requestId"]);
            }
            return Ok(StatusCode::ACCEPTED.into()); // another notification, or a response to nothing that this has asked
        };
        let list: Vec<_> = self.tools.iter().map(|(entry, _)| entry).collect();
        match method {
            "tools/call" => Ok(self.call(ctx, &session, id, params)),
            "tools/list" => Ok(reply(id, Ok(json!({"tools": list})))),
            "logging/setLevel" => Ok(reply(id, session.set_level(&params["level"]))),
            "ping" => Ok(reply(id, Ok(json!({})))),
            _ => Ok(reply(id, Err((-32601, format!("there is no method {method}"))))),
        }
    }

    fn initialize(&self, id: &Value, params: &Value) -> Result<Response, Response> {
        let revision = REVISIONS
            .into_iter()
            .find(|known| params["protocolVersion"] == *known)
            .unwrap_or(REVISIONS[0]);
        let session = Session::new(revision == REVISIONS[0])?;
        let info = json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")});
        let capabilities = json!({"tools": {}, "logging": {}});
        let result = json!({"protocolVersion": revision, "capabilities": capabilities, "serverInfo": info});
        let response = reply(id, Ok(result)).header("Mcp-Session-Id", &session.id);
        let mut sessions = self.sessions.lock().unwrap();
        if sessions.len() == MAX_SESSIONS {
            sessions.remove(0).end();
        }
        sessions.push(Arc::new(session));
        Ok(response)
    }

    fn call(&self, ctx: Context<'_>, session: &Session, id: &Value, params: &Value) -> Response {
        let (name, arguments) = (&params["name"], &params["arguments"]);
        let run = match self.tools.iter().find(|(entry, _)| entry["name"] == *name) {
            None => return reply(id, Err((-32602, format!("there is no tool {name}")))),
            Some((_, Tool::Quick(run))) => return reply(id, Ok(result(run(arguments)))),
            Some((_, Tool::Slow(run))) => run,
        };
        let stream = session.open(id, &params["_meta"]["progressToken"], self.patience);
        let response = stream.connect(ctx, session.primes);
        if response.status_code() == StatusCode::OK {
            // In the thread of this connection, also while the client resumes on another one.
            let outcome = catch_unwind(AssertUnwindSafe(|| run(arguments, &stream)));
            let outcome = outcome.unwrap_or(Err("the tool has panicked".to_owned()));
            let too_large = Err((-32603, "the result is too large".to_owned()));
            if !stream.send(&answer(id, Ok(result(outcome)))) && !stream.send(&answer(id, too_large)) {
                session.log("info", &format!("the call of {name} was canceled"));
            }
        }
        stream.end();
        response
    }

    fn get(&self, ctx: Context<'_>) -> Result<Response, Response> {
        let origin = ctx.headers().get("origin").map(|origin| origin.split_once("://").map(|(_, host)| host));
        if origin.is_some_and(|host| host != ctx.headers().get("host")) {
            // POST and DELETE are refused by the server itself.
            return Err(refuse(StatusCode::FORBIDDEN, -32000, "this request comes from a page of another origin"));
        }
        let session = self.session(&ctx)?;
        let stream = session.find(ctx.last_event_id().as_deref().unwrap_or("0-0"));
        let stream = stream.ok_or_else(|| refuse(StatusCode::GONE, -32000, "this stream is forgotten"))?;
        Ok(stream.connect(ctx, session.primes))
    }

    fn delete(&self, ctx: Context<'_>) -> Result<StatusCode, Response> {
        let session = self.session(&ctx)?;
        self.sessions.lock().unwrap().retain(|other| other.id != session.id);
        session.end();
        Ok(StatusCode::NO_CONTENT)
    }

    fn session(&self, ctx: &Context<'_>) -> Result<Arc<Session>, Response> {
        let revision = ctx.headers().get("mcp-protocol-version");
        if revision.is_some_and(|named| named != FIRST_REVISION && !REVISIONS.contains(&named)) {
            return Err(refuse(StatusCode::BAD_REQUEST, -32000, "this MCP-Protocol-Version is not supported"));
        }
        let missing = || refuse(StatusCode::BAD_REQUEST, -32000, "Mcp-Session-Id is missing");
        let id = ctx.headers().get("mcp-session-id").ok_or_else(missing)?;
        let session = self.sessions.lock().unwrap().iter().find(|session| session.id == id).cloned();
        session.ok_or_else(|| refuse(StatusCode::NOT_FOUND, -32001, "no such session"))
    }
}

fn answer(id: &Value, outcome: Result<Value, (i64, String)>) -> Value {
    match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
    }
}

fn reply(id: &Value, outcome: Result<Value, (i64, String)>) -> Response {
    Response::json(answer(id, outcome).to_string())
}

fn refuse(status: StatusCode, code: i64, message: &str) -> Response {
    reply(&Value::Null, Err((code, message.to_owned()))).with_status(status)
}

/// A tool's own error is a result, so that the model reads it.
fn result(outcome: Outcome) -> Value {
    match outcome {
        Ok(content) => json!({"content": content}),
        Err(error) => json!({"content": [{"type": "text", "text": error}], "isError": true}),
    }
}
