//! A client that reconnects to another node.

use super::client::Source;
use super::processes::{listens, post, publish, until, Fleet, Nginx, Node, ON_DISK};
use super::relay::Relay;
use std::thread;

#[test]
fn resume_at_another_node_sends_the_events_after_the_last_id() {
    let mut fleet = Fleet::start();
    let [one, two, three] = &mut fleet.nodes;
    let mut source = one.events("");
    let [_, second, ..] = ["1", "2", "3", "4"].map(|text| two.publish(text));
    assert_eq!(source.next(2), ["1", "2"]);
    assert_eq!(source.last_event_id, second);
    one.process.kill();
    for node in [two, three] {
        assert_eq!(node.events(&second).next(2), ["3", "4"]);
    }
    assert_eq!(Source::connect(fleet.nginx.port, &second).next(2), ["3", "4"]);
}

#[test]
fn nginx_uses_the_nodes_that_run_and_sends_no_502_to_an_event_source() {
    let mut fleet = Fleet::start();
    let port = fleet.nginx.port;
    let mut sources = [(); 6].map(|()| Source::connect(port, ""));
    let node = |source: &Source| source.head.split("node=").nth(1).unwrap().split(';').next().unwrap().to_owned();
    for name in ["one", "two", "three"] {
        assert!(sources.iter().any(|source| node(source) == name), "each node serves some of the streams");
    }
    fleet.nodes[0].process.kill();
    fleet.nodes[1].process.kill();
    let id = publish(port, "heard by all");
    for source in &mut sources {
        if node(source) != "three" {
            while source.read().is_ok_and(|event| event.is_some()) {}
            *source = Source::connect(port, "0-0");
            assert_eq!(source.next(1), ["gap: 0-0 ".to_owned() + &id]);
        }
        assert_eq!(source.next(1), ["heard by all"]);
    }
    fleet.nodes[2].process.kill();
    assert!(Source::try_connect(port, "").is_err(), "a 502 would end an EventSource");
    assert_eq!(post(port, "/publish", "nobody").status, 502);
    fleet.nodes.iter_mut().for_each(Node::restart);
    until("nginx serves again", || Source::try_connect(port, &id).is_ok());
}

/// nginx does not know whether Redis has received the event, so nginx must not send the request to another node.
#[test]
fn publish_at_a_node_that_dies_is_not_repeated() {
    let mut fleet = Fleet::start();
    let relay = Relay::to(fleet.redis.port);
    fleet.nodes = ["one", "two", "three"].map(|name| Node::start(name, relay.port));
    fleet.nginx = Nginx::in_front_of(&fleet.nodes);
    let port = fleet.nginx.port;
    let mut source = fleet.nodes[1].events("");
    relay.acknowledging.hold();
    let publisher = thread::spawn(move || post(port, "/publish", "in doubt"));
    relay.acknowledging.await_held();
    fleet.nodes[0].process.kill(); // nginx tries the first node first
    relay.acknowledging.release();
    assert_eq!(publisher.join().unwrap().status, 502);
    publish(port, "after");
    assert_eq!(source.next(2), ["in doubt", "after"]);
}

#[test]
fn resume_at_a_node_that_lags_sends_no_gap_and_no_event_twice() {
    let fleet = Fleet::start();
    let ahead = &fleet.nodes[0];
    let relay = Relay::to(fleet.redis.port);
    let behind = Node::start("behind", relay.port);
    let first = ahead.publish("1");
    assert_eq!(behind.events("0-0").next(2)[1], "1", "the node does not lag");

    // The node lags for longer than it lets a client wait, so the client must reconnect.
    relay.reading.hold();
    let second = ahead.publish("2");
    assert_eq!(ahead.events(&first).next(1), ["2"]);
    let mut too_early = behind.events(&second);
    too_early.assert_end();
    assert_eq!((too_early.retry, &too_early.last_event_id), (Some(1_000), &second));
    // The result is the same if the node cannot ask Redis for the event. The node serves a client as always if the node
    // has the client's last event.
    fleet.redis.process.signal("STOP");
    behind.events(&second).assert_end();
    let mut in_step = behind.events(&first);
    fleet.redis.process.signal("CONT");

    // The node lags only for a moment, so the client waits.
    let mut waiting = Source::request(behind.port, &second).unwrap();
    relay.reading.release();
    waiting.read_head().unwrap();
    let third = behind.publish("3");
    assert_eq!(waiting.next(1), ["3"]);
    assert_eq!(in_step.next(2), ["2", "3"]);
    // Ids are compared as numbers and not as text: 10 comes after 9.
    let (milliseconds, number) = third.split_once('-').unwrap();
    let later = format!("{}-{number}", milliseconds.parse::<u64>().unwrap() + 1);
    fleet.redis.command::<String>(&format!("XADD fleet {milliseconds}-9 data nine"));
    fleet.redis.command::<String>(&format!("XADD fleet {milliseconds}-10 data ten"));
    assert_eq!(waiting.next(2), ["nine", "ten"]);
    assert_eq!(behind.events(&format!("{milliseconds}-9")).next(1), ["ten"]);
    // An id that no node has ever had results in a `gap`.
    assert_eq!(behind.events(&later).next(2), [&format!("gap: {later} {first}"), "1"]);
}

#[test]
fn node_that_starts_late_has_the_history() {
    let fleet = Fleet::start();
    fleet.redis.fill(0..1_100);
    let ids: Vec<(String, Vec<String>)> = fleet.redis.command("XRANGE fleet - +");
    let late = Node::start("late", fleet.redis.port);
    let rest = late.events(&ids[0].0).next(ids.len() - 1);
    assert_eq!(rest, ids[1..].iter().map(|(_, fields)| fields[1].clone()).collect::<Vec<_>>(), "all of the stream");
    assert_eq!(late.events("").next(20).last().unwrap(), "1099", "a new client receives the last events");
}

#[test]
fn node_without_the_history_does_not_listen() {
    let mut fleet = Fleet::start_with(ON_DISK);
    let [one, two, _] = &mut fleet.nodes;
    let mut awake = two.events("");
    let id = one.publish("1");
    one.publish("2");
    assert_eq!(awake.next(2), ["1", "2"]);
    fleet.redis.process.kill();
    assert_eq!(two.events("").next(2), ["1", "2"], "a node that has the history still serves clients");
    fleet.redis.restart();

    let relay = Relay::to(fleet.redis.port);
    relay.reading.hold();
    let mut late = Node::run_at("late", relay.port);
    relay.reading.await_held();
    assert!(!listens(late.port));
    relay.reading.release();
    late.serves();
    assert_eq!(late.events(&id).next(1), ["2"]);
}

#[test]
fn publish_of_an_empty_or_large_event_is_refused() {
    let fleet = Fleet::start();
    let post = |body: &str| post(fleet.nginx.port, "/publish", body);
    let mut source = Source::connect(fleet.nginx.port, "");
    assert_eq!(post("").status, 400);
    assert_eq!(post(&"x".repeat(4_097)).status, 413);
    let lines = "\n".repeat(4_096);
    assert_eq!((post(&lines).status, post("two\nlines").status), (200, 200));
    assert_eq!(source.next(2), [" ".repeat(4_096), "two lines".to_owned()]);
}
