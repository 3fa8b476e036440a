//! Calls of slow tools: progress, cancellation, and clients that leave, come back, or do neither.

use super::client::{ask, Client, Events};
use super::example::Example;
use super::mcp::{MAX_CALLS, PATIENCE};
use super::tools::{start, Steps};
use serde_json::{json, Value};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(60);

fn progress(n: u64) -> Value {
    let params = json!({"progressToken": "token", "progress": n, "total": 10});
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
}

/// Reads the first event, which is only an id to resume after. Returns the number of the call.
fn number(call: &mut Events) -> String {
    let (id, data) = call.next().unwrap();
    assert_eq!(data, "");
    id.strip_suffix("-0").unwrap().to_owned()
}

#[test]
fn progress_comes_before_the_result_and_the_stream_then_ends() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let steps = Steps::new();
    let mut call = client.call("a", "steps", steps.arguments.clone());
    let number = number(&mut call);
    for n in 1..=2 {
        steps.step();
        let (id, data) = call.next().unwrap();
        assert_eq!((id, serde_json::from_str::<Value>(&data).unwrap()), (format!("{number}-{n}"), progress(n)));
    }
    drop(steps);
    let result = json!({"content": [{"type": "text", "text": "2 steps"}], "isError": false});
    assert_eq!(call.message(), json!({"jsonrpc": "2.0", "id": "a", "result": result}));
    assert_eq!(call.next(), None);
}

#[test]
fn progress_is_sent_only_to_a_client_that_asked_for_it() {
    let server = start();
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
    let server = start();
    let client = Client::with_revision(server.local_addr(), "2025-06-18");
    let steps = Steps::new();
    let mut call = client.call(1, "steps", steps.arguments.clone());
    steps.step();
    assert_eq!(call.message(), progress(1));
}

#[test]
fn canceled_call_stops_without_a_result() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let (steps, other) = (Steps::new(), Steps::new());
    let mut call = client.call(7, "steps", steps.arguments.clone());
    let mut goes_on = client.call("7", "steps", other.arguments.clone());
    client.notify("notifications/cancelled", json!({}));
    Client::connect(server.local_addr()).notify("notifications/cancelled", json!({"requestId": 7}));
    steps.step();
    call.next();
    assert_eq!(call.message(), progress(1), "a client cancels only its own calls");
    client.notify("notifications/cancelled", json!({"requestId": 7, "reason": "no longer needed"}));
    assert_eq!(call.next(), None);
    steps.step();
    steps.stopped.recv_timeout(TIMEOUT).unwrap();
    drop(other);
    assert_eq!(goes_on.result(), "0 steps");
}

#[test]
fn oldest_of_too_many_calls_is_canceled() {
    let example = Example::start();
    let client = Client::connect(example.address);
    let mut oldest = client.call(1, "count", json!({"to": 1_000_000}));
    let mut second = client.call(2, "count", json!({"to": 1_000_000}));
    for n in 2..MAX_CALLS {
        client.call(n, "count", json!({"to": 0})).result();
    }
    let event = number(&mut oldest) + "-0";
    let mut resumed = client.resume(&event);
    resumed.message();
    client.call("last", "count", json!({"to": 0})).result();
    assert!((0..100).any(|_| resumed.next().is_none()), "it goes on");
    assert_eq!(ask(client.address, "GET", &format!("{}Last-Event-ID: {event}\r\n", client.fields), b"").status, 410);
    number(&mut second);
    assert_eq!(second.message()["params"]["progress"], 1);
}

#[test]
fn client_that_lost_its_connection_resumes_where_it_was() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let steps = Steps::new();
    let mut call = client.call(1, "steps", steps.arguments.clone());
    for _ in 0..3 {
        steps.step();
    }
    let number = number(&mut call);
    assert_eq!(call.message(), progress(1));
    drop(call);
    let mut resumed = client.resume(&format!("{number}-1"));
    assert_eq!((resumed.message(), resumed.message()), (progress(2), progress(3)));
    steps.step();
    assert_eq!(resumed.message(), progress(4));
    drop(resumed);
    let mut from_the_start = client.resume(&format!("{number}-0"));
    for n in 1..=4 {
        assert_eq!(from_the_start.message(), progress(n));
    }
    drop(steps);
    assert_eq!(from_the_start.result(), "4 steps");
}

#[test]
fn client_that_resumes_replaces_its_earlier_connection() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let steps = Steps::new();
    let mut earlier = client.call(1, "steps", steps.arguments.clone());
    let mut later = client.resume(&format!("{}-0", number(&mut earlier)));
    steps.step();
    assert_eq!(later.message(), progress(1));
    drop(steps);
    assert_eq!(later.result(), "1 steps");
    assert_eq!(earlier.next(), None, "a message is sent on one stream only");
}

#[test]
fn call_that_has_ended_can_be_resumed() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let mut call = client.call(1, "steps", Steps::new().arguments);
    let number = number(&mut call);
    assert_eq!(call.result(), "0 steps");
    assert_eq!(client.resume(&format!("{number}-0")).result(), "0 steps");
    let resume = |id: &str| ask(client.address, "GET", &format!("{}Last-Event-ID: {id}\r\n", client.fields), b"");
    assert_eq!(resume(&format!("{number}-result")).status, 204, "all is received");
    for id in ["0-0", "x", &number, "-", "99999999999999999999-0"] {
        assert_eq!(resume(id).refusal(), (410, -32000), "{id}");
    }
}

#[test]
fn stream_of_one_session_is_not_that_of_another() {
    let server = start();
    let [one, two] = [(); 2].map(|()| Client::connect(server.local_addr()));
    let number = number(&mut one.call(1, "steps", Steps::new().arguments));
    let answer = ask(two.address, "GET", &format!("{}Last-Event-ID: {number}-0\r\n", two.fields), b"");
    assert_eq!(answer.refusal(), (410, -32000));
}

#[test]
#[ignore = "takes as long as a call waits for its client"]
fn call_whose_client_has_left_stops_and_ended_call_is_forgotten() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let (steps, other) = (Steps::new(), Steps::new());
    let mut ended = client.call(1, "steps", Steps::new().arguments);
    let ended_event = number(&mut ended) + "-0";
    ended.result();
    let mut goes_on = client.call(2, "steps", other.arguments.clone());
    drop(client.call(3, "steps", steps.arguments.clone()));
    let left = Instant::now();
    let why = loop {
        steps.step();
        match steps.stopped.recv_timeout(Duration::from_millis(100)) {
            Ok(why) => break why,
            Err(_) => assert!(left.elapsed() < TIMEOUT),
        }
    };
    assert!(why.contains("its client has left") && left.elapsed() >= PATIENCE, "{why} {:?}", left.elapsed());
    drop(other);
    assert_eq!(goes_on.result(), "0 steps");
    assert!(client.call(4, "panic", json!({})).result().contains("panicked"), "a new call forgets the others");
    let answer = ask(client.address, "GET", &format!("{}Last-Event-ID: {ended_event}\r\n", client.fields), b"");
    assert_eq!(answer.refusal(), (410, -32000));
}

#[test]
fn get_stream_stays_open_beside_a_call() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let mut listener = client.listen();
    client.call(1, "panic", json!({})).result();
    assert_eq!(ask(client.address, "DELETE", &client.fields, b"").status, 204);
    assert_eq!(listener.next(), None, "no message of the call is sent on it");
}

#[test]
fn tool_that_panics_is_an_error_and_the_server_goes_on() {
    let server = start();
    let client = Client::connect(server.local_addr());
    assert_eq!(client.call(1, "panic", json!({})).result(), "the tool has panicked");
    client.request("ping", json!({}));
}

#[test]
fn result_that_is_too_large_is_an_error() {
    let server = start();
    let client = Client::connect(server.local_addr());
    let mut call = client.call(1, "large", json!({}));
    call.next();
    assert_eq!(call.message()["error"]["code"], -32603);
    assert_eq!(call.next(), None);
}
