//! A server that models can call, over the Model Context Protocol, with a quick tool and a slow one.
//!
//! Run `cargo run --manifest-path examples/mcp/Cargo.toml`, and try it with the protocol's inspector, which needs Node 22.19:
//!
//! ```text
//! npx @modelcontextprotocol/inspector --cli http://127.0.0.1:8080/mcp --method tools/list
//! npx @modelcontextprotocol/inspector --cli http://127.0.0.1:8080/mcp --method tools/call --tool-name count --tool-arg to=5
//! ```
//!
//! `claude mcp add --transport http brooklet http://127.0.0.1:8080/mcp` adds it to a client. So does this in a client's
//! configuration: `{"mcpServers": {"brooklet": {"type": "http", "url": "http://127.0.0.1:8080/mcp"}}}`.

use brooklet::Server;
use mcp::{Mcp, Outcome, Stream, Tool};
use serde_json::{json, Value};
use std::{env, io, time::Duration};

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let (number, positive) = (json!({"type": "number"}), json!({"type": "integer", "minimum": 1}));
    let numbers = json!({"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]});
    let limit = json!({"type": "object", "properties": {"to": positive}, "required": ["to"]});
    let tools = vec![
        (json!({"name": "add", "description": "Adds two numbers", "inputSchema": numbers}), Tool::Quick(add)),
        (
            json!({"name": "count", "description": "Counts, five numbers a second", "inputSchema": limit}),
            Tool::Slow(count),
        ),
    ];
    let server = Mcp::new(tools).add_to(Server::bind(&address)?);
    println!("try: claude mcp add --transport http brooklet http://{}/mcp", server.local_addr());
    server.serve()
}

fn add(arguments: &Value) -> Outcome {
    match (arguments["a"].as_f64(), arguments["b"].as_f64()) {
        (Some(a), Some(b)) => Ok(json!([{"type": "text", "text": (a + b).to_string()}])),
        _ => Err("a and b must be numbers".to_owned()),
    }
}

fn count(arguments: &Value, stream: &Stream) -> Outcome {
    let to = arguments["to"].as_u64().filter(|to| *to > 0).ok_or("to must be a positive integer")?;
    for n in 1..=to {
        stream.wait(Duration::from_millis(200))?; // in place of work
        stream.progress(n, to);
    }
    Ok(json!([{"type": "text", "text": format!("counted to {to}")}]))
}
