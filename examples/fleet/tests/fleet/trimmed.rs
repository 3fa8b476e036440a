//! Events that Redis has trimmed, and entries in the Redis stream that no node has written.

use super::processes::Fleet;

#[test]
fn resume_with_a_trimmed_id_sends_gap_and_the_events_that_are_left() {
    let mut fleet = Fleet::start();
    let [one, two, _] = &mut fleet.nodes;
    let first = one.publish("first");
    fleet.redis.fill(0..2_500);
    let ids: Vec<(String, Vec<String>)> = fleet.redis.command("XRANGE fleet - +");
    assert!((1_000..1_200).contains(&ids.len()));
    two.restart();
    let events = two.events(&first).next(ids.len() + 1);
    assert_eq!(events[0], format!("gap: {first} {}", ids[0].0));
    assert_eq!(events[1..], ids.iter().map(|(_, fields)| fields[1].clone()).collect::<Vec<_>>());
    // The node `one` was not restarted, so this node still has the first event, and a gap after this event.
    let events = one.events(&first).next(ids.len() + 1);
    assert!(events[0].starts_with("gap: "), "{}", events[0]);
    let numbers: Vec<usize> = events[1..].iter().map(|number| number.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn node_stopped_while_redis_trims_sends_gap_in_place_of_the_lost_events() {
    let fleet = Fleet::start();
    let [one, two, _] = &fleet.nodes;
    let mut source = one.events("");
    let first = two.publish("first");
    assert_eq!(source.next(1), ["first"]);
    one.process.signal("STOP");
    let mut awake = two.events(&first);
    two.publish("missed");
    two.publish("kept");
    assert_eq!(awake.next(2), ["missed", "kept"]);
    fleet.redis.command::<String>("XADD fleet MAXLEN 2 * data next");
    one.process.signal("CONT");
    assert_eq!(source.next(3), [&format!("gap: {first} "), "kept", "next"]);

    // The node `one` sends its gap to each client whose last event is the event before this gap. The node `two` has no
    // such gap.
    assert_eq!(one.events(&first).next(2), [&format!("gap: {first} "), "kept"]);
    assert_eq!(two.events(&first).next(3), ["missed", "kept", "next"]);
}

/// One entry is larger than the whole history of a node, and clients receive a `gap` for this entry. Another entry has
/// no `data` field, and clients receive an event without data for this entry.
#[test]
fn foreign_entries_in_the_redis_stream_do_not_stop_a_node() {
    let fleet = Fleet::start();
    let [one, two, _] = &fleet.nodes;
    let mut source = one.events("");
    let first = two.publish("first");
    fleet.redis.command::<String>(&format!("XADD fleet * data {}", "x".repeat(40_000_000)));
    fleet.redis.command::<String>("XADD fleet * other field");
    two.publish("last");
    assert_eq!(source.next(4), ["first", &format!("gap: {first} "), "", "last"]);
}
