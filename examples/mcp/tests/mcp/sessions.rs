//! The beginning and the end of a session, and requests that belong to none.

use super::client::{ask, initialize, Client};
use super::example::Example;
use super::mcp::MAX_SESSIONS;
use super::tools::{start, Steps};
use serde_json::json;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
const PING: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[test]
fn revision_that_is_not_known_is_answered_with_the_newest() {
    let server = start();
    for (asked, offered) in [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("", "2025-11-25"),
    ] {
        let answer = ask(server.local_addr(), "POST", "", initialize(asked).as_bytes());
        let result = &answer.json()["result"];
        assert_eq!(result["protocolVersion"], offered, "{asked}");
        assert_eq!(result["capabilities"], json!({"tools": {}}));
        assert_eq!(result["serverInfo"]["name"], "mcp");
    }
}

#[test]
fn sessions_have_different_ids_of_visible_ascii() {
    let server = start();
    let [one, two] = [(); 2].map(|()| Client::connect(server.local_addr()).fields);
    assert_ne!(one, two);
    let id = one.strip_prefix("Mcp-Session-Id: ").unwrap().split("\r\n").next().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
}

#[test]
fn request_without_a_session_is_refused_with_400_and_with_a_wrong_one_with_404() {
    let server = start();
    let address = server.local_addr();
    for method in ["POST", "GET", "DELETE"] {
        let body = if method == "POST" { PING } else { b"" };
        assert_eq!(ask(address, method, "", body).refusal(), (400, -32000), "{method}");
        assert_eq!(ask(address, method, "Mcp-Session-Id: x\r\n", body).refusal(), (404, -32001), "{method}");
    }
}

#[test]
fn deleted_session_is_gone_and_its_streams_end() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let other = Client::connect(server.local_addr());
    let steps = Steps::new();
    let mut call = client.call(1, "steps", steps.arguments.clone());
    let mut listener = client.listen();
    assert_eq!(ask(client.address, "DELETE", &client.fields, b"").status, 204);
    assert_eq!(call.next().unwrap().1, "", "only the event that it began with");
    assert_eq!(call.next(), None);
    steps.step();
    steps.stopped.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(listener.next(), None);
    for method in ["POST", "GET", "DELETE"] {
        let body = if method == "POST" { PING } else { b"" };
        assert_eq!(ask(client.address, method, &client.fields, body).refusal(), (404, -32001), "{method}");
    }
    other.request("ping", json!({}));
}

#[test]
fn protocol_version_that_is_not_supported_is_refused() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let session = client.fields.split("\r\n").next().unwrap();
    let ping = |version: &str| ask(client.address, "POST", &format!("{session}\r\n{version}"), PING);
    for version in ["2024-11-05", "2026-07-28", "", "x"] {
        assert_eq!(ping(&format!("MCP-Protocol-Version: {version}\r\n")).refusal(), (400, -32000), "{version:?}");
    }
    for version in ["2025-11-25", "2025-06-18", "2025-03-26"] {
        assert_eq!(ping(&format!("MCP-Protocol-Version: {version}\r\n")).status, 200, "{version}");
    }
    assert_eq!(ping("").status, 200, "the field may be missing");
}

#[test]
fn page_of_another_origin_is_refused() {
    let server = start();
    let client = Client::connect(server.local_addr());
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        for method in ["POST", "GET", "DELETE"] {
            let fields = format!("{}Origin: {origin}\r\n", client.fields);
            let body = if method == "POST" { PING } else { b"" };
            assert_eq!(ask(client.address, method, &fields, body).refusal(), (403, -32000), "{method} {origin}");
        }
    }
    let own = format!("{}Origin: http://{}\r\n", client.fields, client.address);
    assert_eq!(ask(client.address, "POST", &own, PING).status, 200);
    let rebound = format!("{}Host: evil.example\r\n", client.fields);
    assert_eq!(ask(client.address, "GET", &rebound, b"").refusal(), (421, -32000));
}

#[test]
fn oldest_of_too_many_sessions_is_forgotten() {
    let example = Example::start();
    let oldest = Client::connect(example.address);
    let second = Client::connect(example.address);
    let mut listener = oldest.listen();
    for _ in 1..MAX_SESSIONS {
        Client::connect(example.address);
    }
    assert_eq!(oldest.post(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).refusal(), (404, -32001));
    assert_eq!(listener.next(), None);
    second.request("ping", json!({}));
}
