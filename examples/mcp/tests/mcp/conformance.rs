//! The protocol's own conformance suite. It needs Node and npm:
//!
//! ```text
//! npm install --prefix target/conformance @modelcontextprotocol/conformance@0.1.13
//! cargo test --manifest-path examples/mcp/Cargo.toml -- --ignored --show-output conformance
//! ```
//!
//! Most of its scenarios call tools of the suite's own names. They are here, on the same server.

use super::example::Example;
use super::mcp::{add_endpoint, Call, Outcome, Tool};
use brooklet::{Running, Server};
use serde_json::{json, Value};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Those that need no tool of the suite's.
pub const OF_ANY_SERVER: [&str; 5] =
    ["server-initialize", "ping", "tools-list", "server-sse-multiple-streams", "dns-rebinding-protection"];

pub const OF_TOOLS: [&str; 8] = [
    "tools-call-simple-text", "tools-call-image", "tools-call-audio", "tools-call-embedded-resource",
    "tools-call-mixed-content", "tools-call-error", "tools-call-with-progress", "json-schema-2020-12",
];

/// Runs all scenarios, and returns the names of the scenarios that pass. The suite gives each of its requests a timeout.
fn passing(address: SocketAddr) -> Vec<String> {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/conformance/node_modules/@modelcontextprotocol/conformance/dist/index.js");
    assert!(suite.exists(), "the suite is not installed: the first lines of this file say how");
    let url = format!("http://{address}/mcp");
    let output = Command::new("timeout")
        .args(["--kill-after=1", "120", "node"])
        .arg(suite)
        .args(["server", "--url", &url, "--suite", "all"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = output.split("=== SUMMARY ===").nth(1).unwrap_or_else(|| panic!("no summary: {output}"));
    println!("{}", summary.trim());
    let scenarios = summary.lines().filter_map(|line| line.strip_prefix("✓ ")?.split_once(": "));
    scenarios
        .filter(|(_, checks)| !checks.starts_with("0 passed"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn sorted(names: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    let mut names: Vec<_> = names.into_iter().map(|name| name.to_string()).collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs Node, and the suite from npm"]
fn conformance_of_the_example() {
    let example = Example::start();
    assert_eq!(sorted(passing(example.address)), sorted(OF_ANY_SERVER));
}

#[test]
#[ignore = "needs Node, and the suite from npm"]
fn conformance_with_the_tools_of_the_suite() {
    let server = start();
    let expected = OF_ANY_SERVER.into_iter().chain(OF_TOOLS);
    assert_eq!(sorted(passing(server.local_addr())), sorted(expected));
}

const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";

fn text() -> Value {
    json!({"type": "text", "text": "a text"})
}

fn image() -> Value {
    json!({"type": "image", "mimeType": "image/png", "data": PNG})
}

fn resource() -> Value {
    let resource = json!({"uri": "test://resource", "mimeType": "text/plain", "text": "a resource"});
    json!({"type": "resource", "resource": resource})
}

fn steps(_: &Value, call: &Call) -> Outcome {
    for done in [0, 50, 100] {
        call.progress(done, 100)?;
        thread::sleep(Duration::from_millis(50)); // the suite expects it
    }
    Ok(json!([text()]))
}

fn start() -> Running {
    let plain = json!({"type": "object"});
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
        "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
        "additionalProperties": false,
    });
    let tools = [
        ("test_simple_text", &plain, Tool::Quick(|_| Ok(json!([text()])))),
        ("test_image_content", &plain, Tool::Quick(|_| Ok(json!([image()])))),
        (
            "test_audio_content",
            &plain,
            Tool::Quick(|_| Ok(json!([{"type": "audio", "mimeType": "audio/wav", "data": WAV}]))),
        ),
        ("test_embedded_resource", &plain, Tool::Quick(|_| Ok(json!([resource()])))),
        ("test_multiple_content_types", &plain, Tool::Quick(|_| Ok(json!([text(), image(), resource()])))),
        ("test_error_handling", &plain, Tool::Quick(|_| Err("on purpose".to_owned()))),
        ("test_tool_with_progress", &plain, Tool::Slow(steps)),
        ("json_schema_2020_12_tool", &schema, Tool::Quick(|_| Ok(json!([text()])))),
    ];
    let entry = |name: &str, schema: &Value| json!({"name": name, "description": name, "inputSchema": schema});
    let tools = tools.into_iter().map(|(name, schema, tool)| (entry(name, schema), tool)).collect();
    add_endpoint(Server::bind("127.0.0.1:0").unwrap(), tools).spawn().unwrap()
}
