//! Tests in which Redis stops, hangs or loses events.

use super::client::Source;
use super::processes::{post, publish, Fleet, Node, ON_DISK};
use super::relay::Relay;
use std::time::{Duration, Instant};

/// Asserts that publishing fails within 5 s with a 503 that has `Retry-After`.
#[track_caller]
fn assert_unavailable(port: u16) {
    let asked = Instant::now();
    let answer = post(port, "/publish", "lost, or late");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.contains("\r\nRetry-After: 1"), "{}", answer.head);
    assert!(answer.body.contains("Redis"), "{}", answer.body);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn streams_stay_open_while_redis_is_stopped() {
    let mut fleet = Fleet::start_with(ON_DISK);
    let ports = fleet.nodes.each_ref().map(|node| node.port);
    let mut sources = ports.map(|port| Source::connect(port, ""));
    let first = ports.map(|port| publish(port, "before"))[0].clone();
    for source in &mut sources {
        assert_eq!(source.next(3), ["before"; 3]);
    }
    fleet.redis.process.kill();
    ports.into_iter().for_each(assert_unavailable);
    sources.iter_mut().for_each(Source::assert_silence);
    let mut newcomer = Source::connect(fleet.nginx.port, &first);
    assert_eq!(newcomer.next(2), ["before"; 2], "a node serves its history without Redis");

    fleet.redis.restart();
    // Each node still has connections to the old Redis. Publishing must not fail because of these connections.
    for port in ports {
        publish(port, "after");
    }
    for source in sources.iter_mut().chain([&mut newcomer]) {
        assert_eq!(source.next(3), ["after"; 3], "no unacknowledged event and no gap");
    }
}

#[test]
fn publish_after_a_restart_of_redis_is_acknowledged() {
    let mut fleet = Fleet::start_with(ON_DISK);
    publish(fleet.nodes[0].port, "before");
    fleet.redis.restart();
    publish(fleet.nodes[0].port, "after");
}

#[test]
fn publish_while_redis_hangs_is_503() {
    let fleet = Fleet::start();
    let mut source = fleet.nodes[0].events("");
    fleet.nodes[0].publish("before");
    assert_eq!(source.next(1), ["before"]);
    fleet.redis.process.signal("STOP");
    fleet.nodes.iter().for_each(|node| assert_unavailable(node.port));
    source.assert_silence();
    fleet.redis.process.signal("CONT");
    fleet.nodes[1].publish("after");
    let mut heard = Vec::new();
    while heard.last().map(String::as_str) != Some("after") {
        heard.extend(source.next(1));
    }
    assert!(heard.len() <= 4, "an event that was not acknowledged is sent at most once: {heard:?}");
    assert!(!heard.iter().any(|event| event.starts_with("gap")), "{heard:?}");
}

#[test]
fn event_that_redis_did_not_acknowledge_is_not_sent_again() {
    let fleet = Fleet::start();
    let relay = Relay::to(fleet.redis.port);
    let node = Node::start("doubtful", relay.port);
    let mut source = node.events("");
    relay.acknowledging.hold();
    assert_unavailable(node.port);
    relay.acknowledging.release();
    node.publish("after");
    assert_eq!(source.next(2), ["lost, or late", "after"]);
}

#[test]
fn redis_restarted_empty_is_a_gap() {
    let mut fleet = Fleet::start();
    let mut sources = fleet.nodes.each_ref().map(|node| node.events(""));
    let last = ["1", "2"].map(|text| fleet.nodes[0].publish(text))[1].clone();
    for source in &mut sources {
        assert_eq!(source.next(2), ["1", "2"]);
    }
    fleet.redis.restart();
    for source in &mut sources {
        assert_eq!(source.next(1), [format!("gap: {last} ")], "the gap is sent before a new event");
    }
    let third = fleet.nodes[1].publish("3");
    for source in &mut sources {
        assert_eq!(source.next(1), ["3"]);
    }
    // A client reconnects to a node that has noticed the gap, and to a node that was started after the gap.
    let [one, two, _] = &mut fleet.nodes;
    assert_eq!(one.events(&last).next(2), [format!("gap: {last} "), "3".to_owned()]);
    two.restart();
    assert_eq!(two.events(&last).next(2), [format!("gap: {last} {third}"), "3".to_owned()]);
    sources[0].assert_silence();
}

#[test]
fn redis_stream_that_is_deleted_is_a_gap() {
    let fleet = Fleet::start();
    let mut source = fleet.nodes[0].events("");
    let first = fleet.nodes[0].publish("1");
    assert_eq!(source.next(1), ["1"]);
    fleet.redis.command::<()>("DEL fleet");
    assert_eq!(source.next(1), [format!("gap: {first} ")]);
    let second = fleet.nodes[0].publish("2");
    assert_eq!(source.next(1), ["2"]);
    fleet.redis.command::<()>("DEL fleet");
    fleet.nodes[0].publish("3");
    assert_eq!(source.next(2), [format!("gap: {second} "), "3".to_owned()]);
}

/// Redis generates ids from its clock, so the ids of a machine with an earlier clock are lower.
#[test]
fn redis_restarted_empty_with_an_earlier_clock_is_a_gap_and_skips_nothing() {
    let mut fleet = Fleet::start();
    let mut source = fleet.nodes[0].events("");
    let last = fleet.nodes[0].publish("1");
    assert_eq!(source.next(1), ["1"]);
    fleet.redis.restart();
    assert_eq!(source.next(1), [format!("gap: {last} ")]);
    fleet.redis.command::<String>("XADD fleet 5-5 data 2");
    fleet.redis.command::<String>("XADD fleet 5-6 data 3");
    assert_eq!(source.next(2), ["2", "3"]);
    assert_eq!(fleet.nodes[0].events("5-5").next(1), ["3"]);
}

/// By default, Redis saves its data every few minutes. After a crash, Redis restores the last saved data.
#[test]
fn redis_restarted_with_an_older_copy_is_a_gap_and_repeats_nothing() {
    let mut fleet = Fleet::start();
    let mut source = fleet.nodes[0].events("");
    let publish = |texts: [&str; 2]| texts.map(|text| fleet.nodes[0].publish(text))[1].clone();
    publish(["1", "2"]);
    fleet.redis.command::<String>("SAVE");
    let last = publish(["3", "4"]);
    assert_eq!(source.next(4), ["1", "2", "3", "4"]);
    fleet.redis.restart();
    assert_eq!(source.next(1), [format!("gap: {last} ")]);
    let fifth = fleet.nodes[1].publish("5");
    assert_eq!(source.next(1), ["5"]);
    assert_eq!(source.last_event_id, fifth);
    fleet.nodes[2].publish("6");
    assert_eq!(source.next(1), ["6"]);
}
