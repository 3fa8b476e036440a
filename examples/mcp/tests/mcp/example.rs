//! The example as its first lines say: the program and its two tools.

use super::client::Client;
use super::conformance::{OF_ANY_SERVER, OF_TOOLS};
use super::mcp::{MAX_CALLS, MAX_SESSIONS, PATIENCE};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// Ends with this.
pub struct Example {
    child: Child,
    pub address: SocketAddr,
}

impl Example {
    pub fn start() -> Example {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp"));
        let mut child = command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.strip_prefix("try: claude mcp add --transport http brooklet http://").unwrap();
        let address = url.strip_suffix("/mcp\n").unwrap().parse().unwrap();
        Example { child, address }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tools_are_listed_with_schemas() {
    let example = Example::start();
    let client = Client::connect(example.address);
    let tools = client.request("tools/list", json!({}))["result"]["tools"].clone();
    let required: Vec<_> = tools.as_array().unwrap().iter().map(|tool| &tool["inputSchema"]["required"]).collect();
    assert_eq!((&tools[0]["name"], &tools[1]["name"]), (&json!("add"), &json!("count")));
    assert_eq!(required, [&json!(["a", "b"]), &json!(["to"])]);
}

#[test]
fn quick_tool_adds_and_refuses_what_is_not_a_number() {
    let example = Example::start();
    let client = Client::connect(example.address);
    let add = |arguments| client.request("tools/call", json!({"name": "add", "arguments": arguments}));
    assert_eq!(add(json!({"a": 1.5, "b": 2}))["result"]["content"][0]["text"], "3.5");
    for arguments in [json!({"a": 1}), json!({"a": 1, "b": "2"}), json!(null)] {
        assert_eq!(add(arguments)["result"]["isError"], true);
    }
}

#[test]
fn slow_tool_reports_each_number() {
    let example = Example::start();
    let client = Client::connect(example.address);
    let mut call = client.call(1, "count", json!({"to": 3}));
    call.next();
    for n in 1..=3 {
        assert_eq!(call.message()["params"], json!({"progressToken": "token", "progress": n, "total": 3}));
    }
    assert_eq!(call.result(), "counted to 3");
    for to in [json!(0), json!(-1), json!("3"), json!(null)] {
        assert_eq!(client.call(2, "count", json!({"to": to})).result(), "to must be a positive integer");
    }
}

/// The README names the limits, the lines and the scenarios as they are.
#[test]
fn readme_says_what_is_true() {
    let readme = include_str!("../../README.md");
    let lines = include_str!("../../src/main.rs").lines();
    let code = lines.clone().filter(|line| !line.is_empty() && !line.trim_start().starts_with("//"));
    assert!(lines.clone().count() <= 220);
    assert!(readme.contains(&format!("| {} |", code.count())), "lines of code");
    assert!(readme.contains(&format!("about {} s later", PATIENCE.as_secs())));
    assert!(readme.contains(&format!("{},000 sessions exist", MAX_SESSIONS / 1_000)));
    assert!(readme.contains(&format!("{MAX_CALLS} calls of slow tools")));
    for scenario in OF_ANY_SERVER.iter().chain(&OF_TOOLS) {
        let name = scenario.strip_prefix("tools-call").filter(|_| *scenario != "tools-call-simple-text");
        assert!(readme.contains(&format!("{}`", name.unwrap_or(scenario))), "{scenario}");
    }
    assert!(readme.contains(&format!("{} of 32 apply", OF_ANY_SERVER.len() + OF_TOOLS.len())));
}
