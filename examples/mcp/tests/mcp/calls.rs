//! Calls of slow tools: progress, cancellation, and clients that leave, come back, or do neither.

use super::client::{ask, Client};
use super::tools::{start, Steps};
use serde_json::{json, Value};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn progress(n: u64) -> Value {
    let params = json!({"progressToken": "token", "progress": n, "total": 10});
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
}

#[test]
fn progress_comes_before_the_result_and_the_stream_then_ends() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    let steps = Steps::new();
    let mut call = client.call("a", "steps", steps.arguments.clone());
    assert_eq!(call.next().unwrap(), ("1-0".to_owned(), String::new()), "an id to resume after");
    for n in 1..=2 {
        steps.step();
        let (id, data) = call.next().unwrap();
        assert_eq!((id, serde_json::from_str::<Value>(&data).unwrap()), (format!("1-{n}"), progress(n)));
    }
    drop(steps);
    let result = json!({"content": [{"type": "text", "text": "2 steps"}]});
    assert_eq!(call.message(), json!({"jsonrpc": "2.0", "id": "a", "result": result}));
    assert_eq!(call.next(), None);
}

#[test]
fn progress_is_sent_only_to_a_client_that_asked_for_it() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    let steps = Steps::new();
    steps.step();
    let arguments = steps.arguments.clone();
    drop(steps);
    let params = json!({"name": "steps", "arguments": arguments});
    let answer = client.post(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
    assert!(answer.head.contains("text/event-stream") && answer.body.contains("1 steps"), "{}", answer.body);
    assert!(!answer.body.contains("notifications/progress"), "{}", answer.body);
}

#[test]
fn client_of_an_older_revision_gets_no_event_without_data() {
    let server = start(PATIENCE);
    let client = Client::with_revision(server.local_addr(), "2025-06-18");
    let steps = Steps::new();
    let mut call = client.call(1, "steps", steps.arguments.clone());
    steps.step();
    assert_eq!(call.message(), progress(1));
}

#[test]
fn canceled_call_stops_without_a_result_and_is_reported_to_the_listener() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    let (steps, other) = (Steps::new(), Steps::new());
    let mut listener = client.listen();
    assert_eq!(listener.next().unwrap(), ("0-0".to_owned(), String::new()));
    let mut call = client.call(7, "steps", steps.arguments.clone());
    let mut goes_on = client.call("7", "steps", other.arguments.clone());
    client.notify("notifications/cancelled", json!({}));
    client.notify("notifications/cancelled", json!({"requestId": 7, "reason": "no longer needed"}));
    assert_eq!(steps.stopped.recv_timeout(PATIENCE).unwrap(), "canceled");
    call.next();
    assert_eq!(call.next(), None);
    let (id, data) = listener.next().unwrap();
    let params = json!({"level": "info", "data": "the call of \"steps\" was canceled"});
    let message = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
    assert_eq!((id.as_str(), serde_json::from_str::<Value>(&data).unwrap()), ("0-1", message));
    drop(other);
    assert_eq!(goes_on.result(), "0 steps");
}

#[test]
fn listener_gets_only_messages_of_the_level_that_it_has_set() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    let mut listener = client.listen();
    listener.next();
    for (level, id) in [("warning", 1), ("info", 2)] {
        assert_eq!(client.request("logging/setLevel", json!({"level": level}))["result"], json!({}));
        let steps = Steps::new();
        let mut call = client.call(id, "steps", steps.arguments.clone());
        client.notify("notifications/cancelled", json!({"requestId": id}));
        while call.next().is_some() {}
    }
    assert_eq!(listener.next().unwrap().0, "0-1", "of the second call");
    drop(listener);
    assert_eq!(client.resume("0-0").next().unwrap().0, "0-1");
}

#[test]
fn client_that_lost_its_connection_resumes_where_it_was() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    let steps = Steps::new();
    let mut call = client.call(1, "steps", steps.arguments.clone());
    for _ in 0..3 {
        steps.step();
    }
    call.next();
    assert_eq!(call.message(), progress(1));
    drop(call);
    let mut resumed = client.resume("1-1");
    assert_eq!((resumed.message(), resumed.message()), (progress(2), progress(3)));
    steps.step();
    assert_eq!(resumed.message(), progress(4));
    drop(resumed);
    let mut from_the_start = client.resume("1-0");
    for n in 1..=4 {
        assert_eq!(from_the_start.message(), progress(n));
    }
    drop(steps);
    assert_eq!(from_the_start.result(), "4 steps");
}

#[test]
fn client_that_resumes_replaces_its_earlier_connection() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    let steps = Steps::new();
    let mut earlier = client.call(1, "steps", steps.arguments.clone());
    earlier.next();
    let mut later = client.resume("1-0");
    steps.step();
    assert_eq!(later.message(), progress(1));
    drop(steps);
    assert_eq!(later.result(), "1 steps");
    assert_eq!(earlier.next(), None, "a message is sent on one stream only");
}

#[test]
fn call_that_has_ended_can_be_resumed_and_is_then_forgotten() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    let arguments = Steps::new().arguments;
    client.call(1, "steps", arguments).result();
    assert_eq!(client.resume("1-0").result(), "0 steps");
    let all_received = ask(client.address, "GET", &format!("{}Last-Event-ID: 1-1\r\n", client.fields), b"");
    assert_eq!(all_received.status, 204);

    let server = start(Duration::ZERO);
    let client = Client::connect(server.local_addr());
    client.call(1, "panic", json!({})).result();
    for id in ["1-0", "2-0", "x", "1", "-", "99999999999999999999-0"] {
        let answer = ask(client.address, "GET", &format!("{}Last-Event-ID: {id}\r\n", client.fields), b"");
        assert_eq!(answer.refusal(), (410, -32000), "{id}");
    }
}

#[test]
fn stream_of_one_session_is_not_that_of_another() {
    let server = start(PATIENCE);
    let [one, two] = [(); 2].map(|()| Client::connect(server.local_addr()));
    let arguments = Steps::new().arguments;
    one.call(1, "steps", arguments).result();
    let answer = ask(two.address, "GET", &format!("{}Last-Event-ID: 1-0\r\n", two.fields), b"");
    assert_eq!(answer.refusal(), (410, -32000));
}

#[test]
fn call_whose_client_has_left_stops() {
    let server = start(Duration::from_millis(100));
    let client = Client::connect(server.local_addr());
    let (steps, other) = (Steps::new(), Steps::new());
    let mut call = client.call(1, "steps", steps.arguments.clone());
    let mut goes_on = client.call(2, "steps", other.arguments.clone());
    call.next();
    drop(call);
    assert_eq!(steps.stopped.recv_timeout(PATIENCE).unwrap(), "the client has left");
    drop(other);
    assert_eq!(goes_on.result(), "0 steps");
}

#[test]
fn tool_that_panics_is_an_error_and_the_server_goes_on() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    assert_eq!(client.call(1, "panic", json!({})).result(), "the tool has panicked");
    client.request("ping", json!({}));
}

#[test]
fn result_that_is_too_large_is_an_error() {
    let server = start(PATIENCE);
    let client = Client::connect(server.local_addr());
    let mut call = client.call(1, "large", json!({}));
    call.next();
    assert_eq!(call.message()["error"]["code"], -32603);
    assert_eq!(call.next(), None);
}
