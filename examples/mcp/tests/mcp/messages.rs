//! The messages that a POST may hold, and the refusals of all others.

use super::client::{ask, Client};
use super::tools::start;
use serde_json::json;

#[test]
fn body_that_is_not_json_is_a_parse_error() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let deep = "[".repeat(100_000);
    for body in ["", "{", "{\"jsonrpc\":\"2.0\",", "nonsense", "{} {}", &deep] {
        assert_eq!(client.post(body).refusal(), (400, -32700), "{}", &body[..body.len().min(20)]);
    }
    let not_utf8 = ask(client.address, "POST", &client.fields, b"\"\xff\"");
    assert_eq!(not_utf8.refusal(), (400, -32700));
    client.request("ping", json!({}));
}

#[test]
fn body_that_is_not_one_message_is_an_invalid_request() {
    let server = start();
    let client = Client::connect(server.local_addr());
    for body in [
        "[]",
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
        "7",
        "null",
        "{}",
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
    ] {
        let answer = client.post(body);
        assert_eq!(answer.refusal(), (400, -32600), "{body}");
        assert!(answer.json()["id"].is_null(), "{body}");
    }
}

#[test]
fn request_is_answered_with_its_own_id() {
    let server = start();
    let client = Client::connect(server.local_addr());
    for id in [json!(7), json!("seven"), json!(-1), json!("")] {
        let answer = client.post(json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
        assert_eq!(answer.json(), json!({"jsonrpc": "2.0", "id": id, "result": {}}));
    }
}

#[test]
fn unknown_method_or_tool_is_an_error_of_that_request() {
    let server = start();
    let client = Client::connect(server.local_addr());
    for (method, params, code) in [
        ("resources/list", json!({}), -32601),
        ("tools/call", json!({"name": "absent"}), -32602),
        ("tools/call", json!({}), -32602),
        ("tools/call", json!([]), -32602),
        ("logging/setLevel", json!({"level": "info"}), -32601),
    ] {
        assert_eq!(client.request(method, params)["error"]["code"], code, "{method}");
    }
}

#[test]
fn error_of_a_tool_is_a_result_for_the_model() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let failed = client.request("tools/call", json!({"name": "fail"}));
    assert_eq!(failed["result"], json!({"content": [{"type": "text", "text": "this fails"}], "isError": true}));
    let echoed = client.request("tools/call", json!({"name": "echo", "arguments": {"text": "ä\n"}}));
    assert_eq!(echoed["result"], json!({"content": [{"type": "text", "text": "ä\n"}], "isError": false}));
}

#[test]
fn notification_or_response_is_accepted_without_a_body() {
    let server = start();
    let client = Client::connect(server.local_addr());
    client.notify("notifications/initialized", json!({}));
    client.notify("notifications/cancelled", json!({"requestId": 99}));
    client.notify("notifications/unknown", json!({}));
    for body in [
        json!({"jsonrpc": "2.0", "id": 1, "result": {}}),
        json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}),
    ] {
        let answer = client.post(&body);
        assert_eq!((answer.status, answer.body.as_str()), (202, ""), "{body}");
    }
}

#[test]
fn refusals_of_the_server_itself_have_the_form_of_json_rpc() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let large = client.post("x".repeat(300_000));
    assert_eq!(large.refusal(), (413, -32000));
    let put = ask(client.address, "PUT", &client.fields, b"{}");
    assert_eq!(put.refusal(), (405, -32000));
    assert!(put.head.contains("\r\nAllow: "), "{}", put.head);
}
