//! `sse::Channel`: an event is published once and reaches many subscribers.

use super::event_stream::{parse, Event, Parser};
use super::machine::Room;
use super::support::{serve, Client, Running, TIMEOUT};
use brooklet::sse::{Channel, ChannelConfig, Id, Lag, Message, Newcomers, Subscription};
use brooklet::Server;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub fn feeding(channel: &Channel) -> Running {
    feeding_after(channel, |server| server)
}

fn feeding_after(channel: &Channel, build: impl FnOnce(Server) -> Server) -> Running {
    let feed = channel.clone();
    let post = channel.clone();
    serve(|server| {
        build(server)
            .get("/", move |ctx| feed.subscribe(ctx))
            .post("/", move |ctx| post.subscribe(ctx))
    })
}

/// A client that subscribes to a channel and reads one event at a time.
pub struct Subscriber {
    pub client: Client,
    parser: Parser,
    taken: usize,
}

pub fn subscribe(server: &Running, target: &str, fields: &str) -> Subscriber {
    subscribe_on(server.connect(), target, fields)
}

pub fn subscribe_on(mut client: Client, target: &str, fields: &str) -> Subscriber {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    client.stream_head();
    Subscriber { client, parser: Parser::default(), taken: 0 }
}

impl Subscriber {
    #[track_caller]
    pub fn next(&mut self) -> Event {
        while self.parser.events.len() == self.taken {
            let frame = self.client.until(b"\n\n");
            self.parser.feed(&frame);
        }
        self.taken += 1;
        self.parser.events[self.taken - 1].clone()
    }

    #[track_caller]
    pub fn data(&mut self) -> String {
        self.next().data
    }
}

/// Calls `what` until `what` returns `true`. Panics if `what` still returns `false` after twice [`TIMEOUT`].
#[track_caller]
pub fn eventually(mut what: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * TIMEOUT;
    while !what() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

fn await_subscribers(channel: &Channel, count: usize) {
    eventually(|| channel.subscribers() == count);
}

#[test]
fn publish_reaches_every_subscriber_in_order() {
    let room = Room::for_both_ends(50);
    let channel = Channel::new();
    let server = feeding(&channel);
    let mut subscribers: Vec<_> = (0..room.connections).map(|_| subscribe(&server, "/", "")).collect();
    await_subscribers(&channel, room.connections);
    let ids: Vec<_> = (0..100).map(|n| channel.publish(n.to_string()).unwrap().to_string()).collect();
    for subscriber in &mut subscribers {
        for (n, id) in ids.iter().enumerate() {
            let event = subscriber.next();
            assert_eq!((event.kind.as_str(), event.data, &event.last_event_id), ("message", n.to_string(), id));
        }
    }
}

#[test]
fn newcomer_receives_later_events_or_also_last_n() {
    let channel = Channel::new();
    let server = feeding(&channel);
    channel.publish("before").unwrap();
    let mut subscriber = subscribe(&server, "/", "");
    await_subscribers(&channel, 1);
    channel.publish("after").unwrap();
    assert_eq!(subscriber.data(), "after");

    let channel = Channel::with_config(ChannelConfig { newcomers: Newcomers::Last(2), ..ChannelConfig::default() });
    let server = feeding(&channel);
    ["a", "b", "c"].iter().for_each(|text| drop(channel.publish(*text).unwrap()));
    let mut subscriber = subscribe(&server, "/", "");
    assert_eq!([subscriber.data(), subscriber.data()], ["b", "c"]);
}

/// A client may cause an event as soon as it has read the response head, and must receive this event.
#[test]
fn subscriber_with_response_head_receives_next_event() {
    let channel = Channel::new();
    let server = feeding(&channel);
    for n in 0..1_000 {
        let mut subscriber = subscribe(&server, "/", "");
        channel.publish(n.to_string()).unwrap();
        assert_eq!(subscriber.data(), n.to_string());
    }
}

/// The broadcaster may be writing an event when the server shuts down. The broadcaster must still send the events that
/// were published before the shutdown, and then the `close` event.
#[test]
fn shutdown_sends_published_events_before_close_event() {
    for _ in 0..100 {
        let channel = Channel::new();
        let server = feeding(&channel);
        let mut subscriber = subscribe(&server, "/", "");
        for n in 0..5 {
            channel.publish(n.to_string()).unwrap();
        }
        server.handle().shutdown(TIMEOUT);
        assert_eq!([(); 5].map(|()| subscriber.data()), ["0", "1", "2", "3", "4"]);
        assert_eq!(subscriber.next().kind, "close");
    }
}

#[test]
fn resume_by_header_or_query_sends_missed_events() {
    let channel = Channel::new();
    let server = feeding(&channel);
    let first = channel.publish("a").unwrap();
    channel.publish(Message::new().id("own id").data("b")).unwrap();
    channel.publish("c").unwrap();
    let mut by_header = subscribe(&server, "/", &format!("Last-Event-ID: {first}\r\n"));
    assert_eq!([by_header.data(), by_header.data()], ["b", "c"]);
    let mut by_query = subscribe(&server, "/?lastEventId=own+id", "");
    assert_eq!(
        by_query.next(),
        Event { kind: "message".into(), data: "c".into(), ..by_header.parser.events[1].clone() }
    );
    let mut both = subscribe(&server, "/?lastEventId=nonsense", &format!("Last-Event-ID: {first}\r\n"));
    assert_eq!(both.data(), "b", "the header wins over the query");
}

#[test]
fn resume_with_evicted_or_unknown_id_sends_gap() {
    let channel = Channel::with_config(ChannelConfig { max_events: 2, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let ids: Vec<_> = (0..5).map(|n| channel.publish(n.to_string()).unwrap().to_string()).collect();
    let evicted = ids[0].clone();
    for last in [evicted.as_str(), "another-7", "nonsense", "1'\"<>"] {
        let mut subscriber = subscribe(&server, "/", &format!("Last-Event-ID: {last}\r\n"));
        let gap = subscriber.next();
        assert_eq!((gap.kind.as_str(), gap.data), ("gap", format!("{last}\n{}", ids[3])), "{last}");
        assert_eq!([subscriber.data(), subscriber.data()], ["3", "4"]);
    }
    let mut subscriber = subscribe(&server, "/", &format!("Last-Event-ID: {}\r\n", ids[2]));
    assert_eq!(subscriber.next().kind, "message", "the history still contains the next event");
}

#[test]
fn publish_of_invalid_or_too_large_message_fails_and_sends_nothing() {
    let channel = Channel::with_config(ChannelConfig { max_bytes: 1_000, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut subscriber = subscribe(&server, "/", "");
    await_subscribers(&channel, 1);
    for id in ["a\nb", "a\x01b", "\x7f", " 7", "7\t", &"x".repeat(1_025)] {
        let error = channel.publish(Message::new().id(id).data("x")).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().starts_with("id: "), "{error}");
    }
    let error = channel.publish("x".repeat(1_000)).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("max_bytes"), "{error}");
    channel.publish("good").unwrap();
    assert_eq!(subscriber.data(), "good");
}

#[test]
fn head_request_receives_fields_and_does_not_subscribe() {
    let channel = Channel::new();
    let server = feeding(&channel);
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().header("transfer-encoding"), Some("chunked"));
    client.assert_end();
    assert_eq!(channel.subscribers(), 0);
}

/// APIs of language models work like this: the client posts a question, and the response is an event stream.
#[test]
fn subscribe_by_post_sends_stream() {
    let channel = Channel::new();
    let post = channel.clone();
    let server = serve(|server| {
        server.post("/", move |mut ctx| match ctx.body_text() {
            Ok(_) => post.subscribe(ctx),
            Err(error) => error.into(),
        })
    });
    let mut client = server.connect();
    let question = "?".repeat(200_000);
    client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n{question}"));
    client.stream_head();
    channel.publish("answer").unwrap();
    assert_eq!(parse(&client.until(b"\n\n"))[0].data, "answer");
    channel.finish();
    client.assert_end();
}

#[test]
fn finish_ends_streams_without_close_event_and_resume_still_works() {
    let newcomers = Newcomers::Last(2);
    let channel = Channel::with_config(ChannelConfig { newcomers, max_events: 3, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut present = subscribe(&server, "/", "");
    let mut present_1_0 = subscribe_1_0(&server, "");
    await_subscribers(&channel, 2);
    let ids: Vec<_> = (0..5)
        .map(|n| {
            let id = channel.publish(n.to_string()).unwrap();
            // On a busy machine, the next events could evict this one before it is sent.
            assert_eq!([present.data(), present_1_0.data()], [n.to_string(), n.to_string()]);
            id
        })
        .collect();
    channel.clone().finish();
    channel.close(); // has no effect after `finish`
    present.client.assert_end();
    present_1_0.client.assert_end();
    assert_eq!(channel.publish("late").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut newcomer = subscribe(&server, "/", "");
    assert_eq!([newcomer.data(), newcomer.data()], ["3", "4"]);
    newcomer.client.assert_end();
    let mut returning = subscribe(&server, "/", &format!("Last-Event-ID: {}\r\n", ids[3]));
    assert_eq!(returning.data(), "4");
    returning.client.assert_end();
    let mut too_late = subscribe(&server, "/", "Last-Event-ID: nonsense\r\n");
    assert_eq!((too_late.next().kind, too_late.data()), ("gap".to_owned(), "2".to_owned()));
    assert_eq!([too_late.data(), too_late.data()], ["3", "4"]);
    too_late.client.assert_end();
    let up_to_date = format!("GET / HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {}\r\n\r\n", ids[4]);
    assert_eq!(server.ask(up_to_date).status, 204);
    await_subscribers(&channel, 0);
    server.handle().shutdown(TIMEOUT);
    server.join().unwrap();
}

#[test]
fn first_message_of_finished_channel_precedes_last_chunk() {
    let channel = Channel::new();
    let last = channel.publish("last").unwrap();
    let firsts = [Message::from("state"), Message::from("state").id(&last)];
    for first in firsts {
        let finishes = channel.clone();
        let server = serve(|server| {
            server.get("/", move |ctx| {
                let first = || {
                    finishes.finish(); // ends the channel while `first` runs
                    first.clone()
                };
                finishes.subscribe_with(ctx, Subscription::new().first(first))
            })
        });
        for _ in 0..2 {
            let mut newcomer = subscribe(&server, "/", "");
            assert_eq!(newcomer.data(), "state");
            newcomer.client.assert_end();
        }
    }
}

/// Both a newcomer and a client with an unknown id receive 204.
#[test]
fn finished_channel_without_events_answers_204() {
    let channel = Channel::with_config(ChannelConfig { newcomers: Newcomers::Last(9), ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut present = subscribe(&server, "/", "");
    await_subscribers(&channel, 1);
    channel.finish();
    present.client.assert_end();
    assert_eq!(server.get("/").status, 204);
    assert_eq!(server.get("/?lastEventId=nonsense").status, 204);
}

#[test]
fn close_sends_close_event_last_and_then_answers_204() {
    let room = Room::for_both_ends(20);
    let channel = Channel::new();
    let server = feeding(&channel);
    let mut subscribers: Vec<_> = (0..room.connections).map(|_| subscribe(&server, "/", "")).collect();
    await_subscribers(&channel, room.connections);
    channel.publish("last").unwrap();
    channel.clone().close();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.data(), "last");
        assert_eq!((subscriber.next().kind, subscriber.client.rest()), ("close".to_owned(), Vec::new()));
    }
    let late = channel.publish("late").unwrap_err();
    assert!(late.kind() == ErrorKind::BrokenPipe && late.to_string().contains("closed"), "{late}");
    assert_eq!(server.get("/").status, 204);
    await_subscribers(&channel, 0);
}

#[test]
fn drop_of_last_channel_ends_streams_without_close_event() {
    let channel = Channel::new();
    let other = channel.clone();
    let slot = std::sync::Arc::new(Mutex::new(Some(channel)));
    let feed = std::sync::Arc::clone(&slot);
    let server = serve(|server| server.get("/", move |ctx| feed.lock().unwrap().as_ref().unwrap().subscribe(ctx)));
    let mut subscriber = subscribe(&server, "/", "");
    await_subscribers(&other, 1);
    drop(other);
    slot.lock().unwrap().as_ref().unwrap().publish("still open").unwrap();
    assert_eq!(subscriber.data(), "still open");
    drop(slot.lock().unwrap().take());
    subscriber.client.assert_end();
}

#[test]
fn shutdown_sends_jittered_retry_and_close_event() {
    let room = Room::for_both_ends(50);
    let channel = Channel::new();
    let server = feeding(&channel);
    let mut subscribers: Vec<_> = (0..room.connections).map(|_| subscribe(&server, "/", "")).collect();
    await_subscribers(&channel, room.connections);
    channel.publish("last").unwrap();
    let asked = Instant::now();
    server.handle().shutdown(Duration::from_secs(60));
    server.join().unwrap();
    assert!(asked.elapsed() < TIMEOUT, "the shutdown does not wait for clients");
    let mut retries = Vec::new();
    for subscriber in &mut subscribers {
        assert_eq!((subscriber.data(), subscriber.next().kind), ("last".to_owned(), "close".to_owned()));
        assert_eq!(subscriber.client.rest(), b"");
        retries.extend(subscriber.parser.retry);
    }
    assert!(retries.len() == room.connections && retries.iter().all(|retry| (1_000..5_000).contains(retry)));
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > room.connections / 2, "most clients receive different retries");
    await_subscribers(&channel, 0);
    channel.publish("the channel still works").unwrap();
}

/// Creates a channel that sends keep-alives every 50 ms, and also checks every 50 ms whether subscribers have left.
fn watchful(max_events: usize) -> Channel {
    Channel::with_config(ChannelConfig {
        max_events,
        keep_alive: Duration::from_millis(50),
        ..ChannelConfig::default()
    })
}

#[test]
fn leave_without_publish_is_noticed() {
    let channel = watchful(100);
    let (left, leaving) = mpsc::channel();
    let left = Mutex::new(left);
    let (came, coming) = mpsc::channel();
    let came = Mutex::new(came);
    channel.on_join(move |_, count| came.lock().unwrap().send(count).unwrap());
    channel.on_leave(move |channel, count| left.lock().unwrap().send((channel.subscribers(), count)).unwrap());
    let server = feeding(&channel);
    let mut subscribers: Vec<_> = (0..3).map(|_| subscribe(&server, "/", "")).collect();
    let mut counts: Vec<_> = (0..3).map(|_| coming.recv_timeout(TIMEOUT).unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts.last(), Some(&3));
    drop(subscribers.pop()); // closes the connection with a FIN
    assert_eq!(leaving.recv_timeout(TIMEOUT).unwrap(), (2, 2));
    subscribers.last_mut().unwrap().client.send("stray bytes, which must not hide the end");
    drop(subscribers.pop());
    assert_eq!(leaving.recv_timeout(TIMEOUT).unwrap(), (1, 1));
    channel.publish("for those who stay").unwrap();
    assert_eq!(subscribers[0].data(), "for those who stay");
    subscribers.pop().unwrap().client.reset();
    assert_eq!(leaving.recv_timeout(TIMEOUT).unwrap(), (0, 0));
}

#[test]
fn hooks_may_publish_and_panic() {
    let channel = watchful(100);
    channel.on_join(|channel, count| drop(channel.publish(format!("{count} here")).unwrap()));
    channel.on_leave(|channel, count| {
        channel.publish(format!("{count} left")).unwrap();
        panic!("on purpose, in a hook");
    });
    let server = feeding(&channel);
    let mut first = subscribe(&server, "/", "");
    assert_eq!(first.data(), "1 here");
    let second = subscribe(&server, "/", "");
    assert_eq!(first.data(), "2 here");
    drop(second);
    assert_eq!(first.data(), "1 left");
    channel.publish("on").unwrap();
    assert_eq!(first.data(), "on");
}

#[test]
fn idle_stream_sends_retry_and_then_keep_alives() {
    let config = ChannelConfig {
        keep_alive: Duration::from_millis(20),
        retry: Some(Duration::from_millis(1_234)),
        ..ChannelConfig::default()
    };
    let channel = Channel::with_config(config);
    let server = feeding(&channel);
    let mut subscriber = subscribe(&server, "/", "");
    assert_eq!(subscriber.client.until(b":\n:\n"), b"retry: 1234\n:\n:\n");
}

/// The maximum time for which `publish` waits until the broadcaster has sent earlier events.
const PACE: Duration = Duration::from_millis(100);

/// Publishes 20,000 events without a pause to a channel whose history holds 100 events. Each client that reads must
/// receive all events.
#[test]
fn burst_larger_than_history_reaches_every_reader() {
    for attempt in 0..20 {
        let channel = Channel::with_config(ChannelConfig { max_events: 100, ..ChannelConfig::default() });
        let server = feeding(&channel);
        let mut subscribers: Vec<_> = (0..5).map(|_| subscribe(&server, "/", "")).collect();
        await_subscribers(&channel, 5);
        let publishes_in_time = |n: usize| {
            let started = Instant::now();
            channel.publish(n.to_string()).unwrap();
            started.elapsed() < PACE
        };
        if !(0..20_000).all(publishes_in_time) {
            println!("attempt {attempt} does not count: a call of `publish` took {PACE:?} or longer");
            continue;
        }
        for subscriber in &mut subscribers {
            (0..20_000).for_each(|n| assert_eq!(subscriber.data(), n.to_string()));
        }
        return;
    }
    panic!("no attempt counts: in each attempt, a call of `publish` took {PACE:?} or longer");
}

/// Returns the data of a large event. A few such events fill the buffers of a client that does not read.
fn large(n: usize) -> String {
    format!("{n} {}", "x".repeat(100_000))
}

#[test]
fn lag_disconnect_ends_stalled_stream_and_resume_sends_gap() {
    let channel = Channel::with_config(ChannelConfig { max_bytes: 1_000_000, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut stalled = subscribe(&server, "/", "");
    await_subscribers(&channel, 1);
    channel.publish(large(0)).unwrap();
    // On a busy machine, the channel could evict all events before it has sent one.
    let read = stalled.next();
    assert_eq!(read.data, large(0));
    let mut n = 1;
    while channel.subscribers() > 0 {
        channel.publish(large(n)).unwrap();
        n += 1;
        assert!(n < 10_000);
    }
    // The client has received whole events in order, and perhaps a part of the next event.
    let stream = stalled.client.rest_of_broken_stream();
    let events = [vec![read], parse(&stream)].concat();
    assert!(events.iter().enumerate().all(|(n, event)| event.data == large(n)));
    let last = &events.last().unwrap().last_event_id;
    let mut back = subscribe(&server, "/", &format!("Last-Event-ID: {last}\r\n"));
    let gap = back.next();
    assert_eq!(gap.kind, "gap");
    let first = back.next();
    assert_eq!(gap.data, format!("{last}\n{}", first.last_event_id));
}

#[test]
fn lag_skip_sends_gap_on_same_connection() {
    let channel =
        Channel::with_config(ChannelConfig { max_bytes: 1_000_000, lag: Lag::Skip, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut slow = subscribe(&server, "/", "");
    await_subscribers(&channel, 1);
    (0..300).for_each(|n| drop(channel.publish(large(n)).unwrap()));
    let gaps = read_with_gaps(&mut slow, 300);
    assert!(
        !gaps.is_empty() && gaps.iter().all(|(before, last_id)| before == last_id || before.is_empty()),
        "{gaps:?}"
    );
    assert_eq!(channel.subscribers(), 1);
}

/// Reads large events until the last of `events` events arrives. Asserts that the events arrive in order, and that a
/// `gap` event replaces missing events. Returns two ids for each gap: the id in the `gap` event, and the id of the last
/// event that was received before the gap.
fn read_with_gaps(slow: &mut Subscriber, events: usize) -> Vec<(String, String)> {
    let (mut expected, mut gaps, mut last_id) = (0, Vec::new(), String::new());
    while expected < events {
        let event = slow.next();
        if event.kind == "gap" {
            // The event after a gap may be evicted before the client receives it. Then another gap follows.
            let (mut gap, mut first) = (event, slow.next());
            while first.kind == "gap" {
                gap = first;
                first = slow.next();
            }
            let (before, after) = gap.data.split_once('\n').unwrap();
            assert_eq!(after, first.last_event_id);
            gaps.push((before.to_owned(), last_id));
            let n: usize = first.data.split(' ').next().unwrap().parse().unwrap();
            assert!(n > expected, "a gap replaces at least one event");
            (expected, last_id) = (n + 1, first.last_event_id);
        } else {
            assert_eq!(event.data, large(expected));
            (expected, last_id) = (expected + 1, event.last_event_id);
        }
    }
    gaps
}

#[test]
fn many_channels_with_one_subscriber_each_deliver() {
    let room = Room::for_both_ends(1_000);
    let channels: Vec<_> = (0..room.connections).map(|_| Channel::new()).collect();
    let channels = std::sync::Arc::new(channels);
    let feeds = std::sync::Arc::clone(&channels);
    let server =
        serve(|server| server.get("/{n}", move |ctx| feeds[ctx.param("n").parse::<usize>().unwrap()].subscribe(ctx)));
    let mut subscribers: Vec<_> = (0..room.connections).map(|n| subscribe(&server, &format!("/{n}"), "")).collect();
    channels.iter().for_each(|channel| await_subscribers(channel, 1));
    channels
        .iter()
        .enumerate()
        .for_each(|(n, channel)| drop(channel.publish(n.to_string()).unwrap()));
    subscribers
        .iter_mut()
        .enumerate()
        .for_each(|(n, subscriber)| assert_eq!(subscriber.data(), n.to_string()));
}

/// Four threads publish. Up to 200 clients connect, read some events, drop the connection at any point and resume. Each
/// publisher is also a subscriber, and publishes its next burst only after it has received the last event of its
/// previous burst.
#[test]
fn resume_many_times_delivers_each_event_once_in_order() {
    const EVENTS: usize = 4_000;
    const PUBLISHERS: usize = 4;
    // The server may notice a dropped connection late, so each client counts as two connections.
    let room = Room::for_both_ends(2 * (200 + PUBLISHERS));
    let clients = room.connections / 2 - PUBLISHERS;
    // A client may connect for the first time after the `end` event was published. Because of `Last(1)`, this client
    // still receives the `end` event.
    let newcomers = Newcomers::Last(1);
    let channel = Channel::with_config(ChannelConfig { max_events: 2 * EVENTS, newcomers, ..ChannelConfig::default() });
    let server = feeding(&channel);
    std::thread::scope(|scope| {
        let lives: Vec<_> = (0..clients as u64)
            .map(|number| {
                let server = &server;
                scope.spawn(move || {
                    let mut state = number + 1;
                    let mut random = move |below: u64| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (state >> 33) % below
                    };
                    let (mut next, mut last_id, mut connections) = (None, None::<String>, 0);
                    loop {
                        let field = last_id.iter().map(|id| format!("Last-Event-ID: {id}\r\n")).collect::<String>();
                        let mut subscriber = subscribe(server, "/", &field);
                        connections += 1;
                        // Drops the first 20 connections, each after a random number of events.
                        for _ in 0..if connections > 20 { u64::MAX } else { random(400) } {
                            let event = subscriber.next();
                            assert_eq!(event.kind, "message");
                            let sequence: usize = event.last_event_id.split_once('-').unwrap().1.parse().unwrap();
                            assert!(next.map_or(true, |next| next == sequence), "event {sequence}, not {next:?}");
                            if event.data == "end" {
                                return (sequence, connections);
                            }
                            (next, last_id) = (Some(sequence + 1), Some(event.last_event_id));
                        }
                    }
                })
            })
            .collect();
        eventually(|| channel.subscribers() > clients / 2);
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (channel, server) = (&channel, &server);
                scope.spawn(move || {
                    let mut own = subscribe(server, "/", "");
                    await_hearing(channel, &mut own, publisher);
                    for burst in 0..EVENTS / PUBLISHERS / 10 {
                        let data = |n: usize| format!("{publisher}: {burst} {n}");
                        (0..10).for_each(|n| drop(channel.publish(data(n)).unwrap()));
                        while own.data() != data(9) {}
                    }
                })
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        let end = channel.publish("end").unwrap();
        let published: usize = end.as_str().split_once('-').unwrap().1.parse().unwrap();
        let mut connections = 0;
        for life in lives {
            let (last, its_connections) = life.join().unwrap();
            assert_eq!(last, published);
            connections += its_connections;
        }
        assert!(connections > 2 * clients, "the clients made only {connections} connections");
    });
}

/// Publishes the same event repeatedly until the publisher's own subscription receives the event.
fn await_hearing(channel: &Channel, own: &mut Subscriber, publisher: usize) {
    let hello = format!("{publisher}: hello");
    own.client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    loop {
        channel.publish(hello.as_str()).unwrap();
        if own.heard(&hello) {
            return own.client.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        }
    }
}

impl Subscriber {
    /// Returns whether an event with this data arrives before a read times out.
    fn heard(&mut self, data: &str) -> bool {
        while let Some(frame) = self.client.try_until(b"\n\n") {
            self.parser.feed(&frame);
            if self.parser.events[self.taken..].iter().any(|event| event.data == data) {
                self.taken = self.parser.events.len();
                return true;
            }
        }
        false
    }
}

/// The history has room for only a few events of `on_leave`. A broadcaster notices all resets with one event, and then
/// calls `on_leave` once.
#[test]
fn many_leaves_at_once_disconnect_no_other_subscriber() {
    let room = Room::for_both_ends(220);
    let channel = Channel::with_config(ChannelConfig { max_events: 20, ..ChannelConfig::default() });
    channel.on_leave(|channel, count| drop(channel.publish(format!("{count} here"))));
    let server = feeding(&channel);
    let mut staying: Vec<_> = (0..room.connections / 10).map(|_| subscribe(&server, "/", "")).collect();
    let leaving: Vec<_> = (staying.len()..room.connections).map(|_| subscribe(&server, "/", "")).collect();
    await_subscribers(&channel, room.connections);
    channel.publish("unread").unwrap();
    for subscriber in leaving {
        subscriber.client.stream.peek(&mut [0]).unwrap(); // until the event has arrived, a close would be no reset
        subscriber.client.reset();
    }
    channel.publish("to those who stay").unwrap();
    await_subscribers(&channel, staying.len());
    channel.publish("end").unwrap();
    for subscriber in &mut staying {
        while subscriber.data() != "end" {}
    }
}

#[test]
fn leave_after_large_input_is_noticed() {
    let channel = Channel::with_config(ChannelConfig { keep_alive: Duration::MAX, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut subscriber = subscribe(&server, "/", "");
    await_subscribers(&channel, 1);
    subscriber.client.send("x".repeat(200_000));
    drop(subscriber);
    await_subscribers(&channel, 0);
}

#[test]
fn last_event_id_in_header_wins_over_query_and_empty_is_none() {
    let channel = Channel::with_config(ChannelConfig { newcomers: Newcomers::Last(1), ..ChannelConfig::default() });
    let server = feeding(&channel);
    for id in ["a", "\u{e9}", "c", "d"] {
        channel.publish(Message::new().id(id).data(id)).unwrap();
    }
    for (target, fields, first) in [
        ("/", &b""[..], "d"),
        ("/", b"Last-Event-ID: a\r\n", "\u{e9}"),
        ("/", b"Last-Event-ID: \xc3\xa9\r\n", "c"),
        ("/", b"Last-Event-ID: \xe9\r\n", "c"), // Node.js clients send `é` as this byte
        ("/?lastEventId=c", b"", "d"),
        ("/?lastEventId=%C3%A9", b"", "c"),
        ("/?lastEventId=c", b"Last-Event-ID: a\r\n", "\u{e9}"),
        ("/?lastEventId=c", b"Last-Event-ID:\r\n", "d"),
        ("/?lastEventId=", b"Last-Event-ID:\r\n", "d"),
        ("/?lastEventId=a%0Ab", b"", "d"), // no event can have one of these three ids
        ("/?lastEventId=a%0D", b"", "d"),
        ("/?lastEventId=%00", b"", "d"),
    ] {
        let mut client = server.connect();
        client.send([format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n").as_bytes(), fields, b"\r\n"].concat());
        client.stream_head();
        let event = parse(&client.until(b"\n\n")).remove(0);
        assert_eq!((event.kind.as_str(), event.data.as_str()), ("message", first), "{target}, {fields:?}");
    }
}

/// Subscribes with HTTP/1.0.
fn subscribe_1_0(server: &Running, fields: &str) -> Subscriber {
    let mut client = server.connect();
    client.send(format!("GET / HTTP/1.0\r\n{fields}\r\n"));
    assert_eq!(client.stream_head().header("transfer-encoding"), None);
    Subscriber { client, parser: Parser::default(), taken: 0 }
}

/// Compares every byte of the body on the wire.
#[test]
fn channel_stream_is_chunked_to_http_11_and_plain_to_http_10() {
    let retry = Some(Duration::from_millis(1_234));
    let channel = Channel::with_config(ChannelConfig { retry, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut clients = ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"].map(|request| {
        let mut client = server.connect();
        client.send(request);
        client
    });
    await_subscribers(&channel, 2);
    channel
        .publish(Message::new().id(7).retry(Duration::from_secs(1)).data("a\nb").event("e"))
        .unwrap();
    channel.close();
    let [chunked, plain] = clients.each_mut().map(|client| {
        let head = client.head();
        (head.header("transfer-encoding").map(str::to_owned), String::from_utf8(client.rest()).unwrap())
    });
    assert_eq!(
        (chunked.0.as_deref(), chunked.1.as_str()),
        (
            Some("chunked"),
            "2\r\n:\n\r\n\
             c\r\nretry: 1234\n\r\n\
             2c\r\nevent: e\ndata: a\ndata: b\nretry: 1000\nid: 7\n\n\r\n\
             1a\r\nevent: close\ndata: close\n\n\r\n\
             0\r\n\r\n"
        )
    );
    let frames = ":\nretry: 1234\nevent: e\ndata: a\ndata: b\nretry: 1000\nid: 7\n\nevent: close\ndata: close\n\n";
    assert_eq!((plain.0, plain.1.as_str()), (None, frames));
}

/// The events are together much larger than the buffers. An HTTP/1.0 client and an HTTP/1.1 client receive all events.
/// Then another HTTP/1.0 client resumes.
#[test]
fn http_10_subscriber_receives_each_event_once() {
    let channel = Channel::with_config(ChannelConfig { max_bytes: 100_000_000, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut subscribers = [subscribe_1_0(&server, ""), subscribe(&server, "/", "")];
    await_subscribers(&channel, 2);
    let ids: Vec<_> = (0..200).map(|n| channel.publish(large(n)).unwrap()).collect();
    for subscriber in &mut subscribers {
        for (n, id) in ids.iter().enumerate() {
            let event = subscriber.next();
            assert_eq!((event.data, event.last_event_id.as_str()), (large(n), id.as_str()));
        }
    }
    let mut resumed = subscribe_1_0(&server, &format!("Last-Event-ID: {}\r\n", ids[150]));
    (151..200).for_each(|n| assert_eq!(resumed.data(), large(n)));
    channel.close();
    for subscriber in subscribers.iter_mut().chain([&mut resumed]) {
        assert_eq!((subscriber.next().kind, subscriber.client.rest()), ("close".to_owned(), Vec::new()));
    }
}

#[test]
fn lag_skip_to_http_10_sends_whole_events_and_gaps() {
    let lag = Lag::Skip;
    let channel = Channel::with_config(ChannelConfig { max_bytes: 1_000_000, lag, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let mut slow = subscribe_1_0(&server, "");
    await_subscribers(&channel, 1);
    (0..300).for_each(|n| drop(channel.publish(large(n)).unwrap()));
    let gaps = read_with_gaps(&mut slow, 300);
    // On a busy machine, the last received event may already be evicted when the server writes the `gap` event. The id
    // in the `gap` event is then empty.
    let is_true = |(before, last_id): &(String, String)| before == last_id || before.is_empty();
    assert!(!gaps.is_empty() && gaps.iter().all(is_true), "{gaps:?}");
}

#[test]
fn http_10_subscriber_receives_keep_alives_and_close_event() {
    let channel = watchful(10);
    let server = feeding(&channel);
    let mut subscriber = subscribe_1_0(&server, "");
    assert_eq!(subscriber.client.exactly(4), b":\n:\n");
    server.handle().shutdown(TIMEOUT);
    assert_eq!(subscriber.next().kind, "close");
    subscriber.client.assert_end();
}

#[test]
fn keep_alive_of_zero_is_sent_every_10_ms() {
    let channel = Channel::with_config(ChannelConfig { keep_alive: Duration::ZERO, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let started = Instant::now();
    let mut subscriber = subscribe(&server, "/", "");
    (0..10).for_each(|_| assert_eq!(subscriber.client.exactly(2), b":\n"));
    assert!(started.elapsed() >= Duration::from_millis(90), "the keep-alives are 10 ms apart");
}

/// A program calls `publish_gap` if the source of its events has lost events.
#[test]
fn publish_gap_reaches_only_clients_from_before_it() {
    let channel = Channel::new();
    let server = feeding(&channel);
    let mut present = subscribe(&server, "/", "");
    await_subscribers(&channel, 1);
    let before = channel.publish(Message::new().id("7-0").data("before")).unwrap();
    channel.publish_gap().unwrap();
    let behind = channel.publish(Message::new().id("9-0").data("behind")).unwrap();
    let gap = Event { kind: "gap".to_owned(), data: "7-0\n".to_owned(), last_event_id: "7-0".to_owned() };
    assert_eq!((present.data(), present.next(), present.data()), ("before".into(), gap.clone(), "behind".into()));
    let mut returning = subscribe(&server, "/", &format!("Last-Event-ID: {before}\r\n"));
    let told = returning.next();
    assert_eq!((told.kind, told.data, returning.data()), (gap.kind, gap.data, "behind".to_owned()));
    let mut later = subscribe(&server, "/", &format!("Last-Event-ID: {behind}\r\n"));
    let mut newcomer = subscribe(&server, "/", "");
    await_subscribers(&channel, 4);
    channel.publish("now").unwrap();
    assert_eq!((later.data(), newcomer.data()), ("now".to_owned(), "now".to_owned()));
}

/// A channel that first sends the state to each client: the last published number, with the id of its event.
#[derive(Default)]
struct Counter {
    channel: Channel,
    state: Mutex<Option<(usize, Id)>>,
}

impl Counter {
    fn publish(&self, n: usize) {
        let mut state = self.state.lock().unwrap();
        *state = Some((n, self.channel.publish(n.to_string()).unwrap()));
    }

    fn first(&self) -> Message {
        match &*self.state.lock().unwrap() {
            Some((n, id)) => Message::new().event("state").data(n).id(id),
            None => Message::new(),
        }
    }

    fn serve(self: &Arc<Counter>) -> Running {
        let counter = Arc::clone(self);
        serve(|server| {
            server
                .get("/", move |ctx| counter.channel.subscribe_with(ctx, Subscription::new().first(|| counter.first())))
        })
    }
}

#[test]
fn first_message_is_sent_to_newcomer_and_after_gap_but_not_on_resume() {
    let counter = Arc::new(Counter::default());
    let server = counter.serve();
    let mut earliest = subscribe(&server, "/", "");
    await_subscribers(&counter.channel, 1);
    (0..3).for_each(|n| counter.publish(n));
    (0..3).for_each(|n| assert_eq!(earliest.data(), n.to_string()));
    let mut newcomer = subscribe(&server, "/", "");
    let state = newcomer.next();
    assert_eq!((state.kind.as_str(), state.data.as_str()), ("state", "2"));
    let mut resumed = subscribe(&server, "/", &format!("Last-Event-ID: {}\r\n", state.last_event_id));
    let mut lost = subscribe(&server, "/", "Last-Event-ID: nonsense\r\n");
    assert_eq!(lost.next().data, "nonsense\n");
    assert_eq!(lost.next(), state);
    await_subscribers(&counter.channel, 4);
    counter.publish(3);
    for subscriber in [&mut earliest, &mut newcomer, &mut resumed, &mut lost] {
        let event = subscriber.next();
        assert_eq!((event.kind.as_str(), event.data.as_str()), ("message", "3"));
    }
}

/// Each client connects while a burst of events is published.
#[test]
fn first_message_during_burst_is_followed_by_next_event() {
    let counter = Arc::new(Counter::default());
    let server = counter.serve();
    let (start, starts) = mpsc::channel();
    let publisher = Arc::clone(&counter);
    let burst = move |round: usize| (20 * round..20 * (round + 1)).for_each(|n| publisher.publish(n));
    let bursts = std::thread::spawn(move || starts.iter().enumerate().for_each(|(round, ())| burst(round)));
    start.send(()).unwrap();
    eventually(|| counter.state.lock().unwrap().is_some());
    for _ in 0..300 {
        start.send(()).unwrap();
        let mut client = subscribe(&server, "/", "");
        let state = client.next();
        assert_eq!(state.kind, "state");
        start.send(()).unwrap();
        let n: usize = state.data.parse().unwrap();
        (1..5).for_each(|after| assert_eq!(client.data(), (n + after).to_string()));
    }
    drop(start);
    bursts.join().unwrap();
}

/// An event that is published while `first` runs may or may not be part of the state.
#[test]
fn first_message_with_id_is_followed_by_event_after_it() {
    let channel = Channel::new();
    let [newer, older, none] = [(); 3].map(|()| channel.clone());
    let ids: Vec<_> = (0..3).map(|n| channel.publish(n.to_string()).unwrap()).collect();
    let server = serve(|server| {
        server
            .get("/newer", move |ctx| {
                let first = || Message::new().id(newer.publish("in the state").unwrap()).data("state");
                newer.subscribe_with(ctx, Subscription::new().first(first))
            })
            .get("/older", move |ctx| {
                let first = || Message::new().id(&ids[0]).data("state");
                older.subscribe_with(ctx, Subscription::new().first(first))
            })
            .get("/none", move |ctx| {
                let first = || {
                    none.publish("meanwhile").unwrap();
                    "state"
                };
                none.subscribe_with(ctx, Subscription::new().first(first))
            })
    });
    let mut newer = subscribe(&server, "/newer", "");
    let mut older = subscribe(&server, "/older", "");
    assert_eq!([older.data(), older.data(), older.data(), older.data()], ["state", "1", "2", "in the state"]);
    let mut none = subscribe(&server, "/none", "");
    assert_eq!([none.data(), none.data()], ["state", "meanwhile"]);
    assert_eq!([newer.data(), newer.data()], ["state", "meanwhile"]);
}

#[test]
fn first_message_that_is_invalid_or_panics_is_500() {
    let channel = Channel::new();
    let [invalid, panics] = [(); 2].map(|()| channel.clone());
    let server = serve(|server| {
        server
            .get("/invalid", move |ctx| {
                invalid.subscribe_with(ctx, Subscription::new().first(|| Message::new().event("\n")))
            })
            .get("/panics", move |ctx| {
                panics.subscribe_with(ctx, Subscription::new().first(|| -> Message { panic!("no state") }))
            })
    });
    assert_eq!((server.get("/invalid").status, server.get("/panics").status), (500, 500));
    assert_eq!(channel.subscribers(), 0);
}

#[test]
fn subscription_until_ends_stream_without_close_event_and_resume_works() {
    let times = [300, 3_000, 8_000].map(Duration::from_millis);
    let counts = times.into_iter().any(streams_end_after);
    assert!(counts, "no attempt counts: in each attempt, a stream ended before its first event");
}

/// A stream of `/` ends after `time`, a stream of `/past` ends at once, and a stream of `/always` has no end. On a busy
/// machine, a stream of `/` may end before it receives its first event. Then this function returns `false`.
fn streams_end_after(time: Duration) -> bool {
    let channel = Channel::new();
    let feed = channel.clone();
    let end = Instant::now() + time;
    let server = serve(|server| {
        server
            .get("/past", {
                let feed = channel.clone();
                move |ctx| feed.subscribe_with(ctx, Subscription::new().until(Instant::now()))
            })
            .get("/", move |ctx| feed.subscribe_with(ctx, Subscription::new().until(end)))
            .get("/always", {
                let feed = channel.clone();
                move |ctx| feed.subscribe(ctx)
            })
    });
    let mut ending = [(); 2].map(|()| subscribe(&server, "/", ""));
    let mut staying = subscribe(&server, "/always", "");
    eventually(|| channel.subscribers() == 3 || Instant::now() >= end);
    let before = channel.publish("before").unwrap();
    for subscriber in &mut ending {
        let Some(event) = subscriber.client.try_until(b"\n\n") else {
            assert!(Instant::now() >= end, "the stream ended early");
            println!("an attempt does not count: a stream ended after {time:?}, before its first event");
            return false;
        };
        assert_eq!(parse(&event)[0].data, "before");
    }
    eventually(|| Instant::now() >= end);
    channel.publish("after").unwrap();
    ending.iter_mut().for_each(|subscriber| subscriber.client.assert_end());
    assert_eq!([staying.data(), staying.data()], ["before", "after"]);
    let mut resumed = subscribe(&server, "/always", &format!("Last-Event-ID: {before}\r\n"));
    assert_eq!(resumed.data(), "after");
    subscribe(&server, "/past", "").client.assert_end();
    await_subscribers(&channel, 2);
    true
}

#[test]
fn max_age_ends_connection_of_idle_channel() {
    let max_age = Some(Duration::from_millis(100));
    let channel = Channel::with_config(ChannelConfig { max_age, ..ChannelConfig::default() });
    let server = feeding(&channel);
    let started = Instant::now();
    let mut subscriber = subscribe(&server, "/", "");
    subscriber.client.assert_end();
    assert!(started.elapsed() >= Duration::from_millis(90), "the connection ends at most 10 % before `max_age`");
    await_subscribers(&channel, 0);
}

#[test]
fn disconnect_ends_streams_of_selected_tags() {
    let channel = Channel::new();
    let feed = channel.clone();
    let server = serve(|server| {
        server.get("/", move |ctx| {
            let mut subscription = Subscription::new();
            if let Some(user) = ctx.query("user") {
                subscription = subscription.tag(user);
            }
            feed.subscribe_with(ctx, subscription)
        })
    });
    let mut banned = ["/?user=a", "/?user=a"].map(|target| subscribe(&server, target, ""));
    let mut staying = ["/?user=b", "/"].map(|target| subscribe(&server, target, ""));
    await_subscribers(&channel, 4);
    let id = channel.publish("before").unwrap();
    banned
        .iter_mut()
        .chain(&mut staying)
        .for_each(|subscriber| assert_eq!(subscriber.data(), "before"));
    let mut asked = Vec::new();
    let disconnected = channel.disconnect(|user| {
        asked.push(user.to_owned());
        user == "a"
    });
    asked.sort_unstable();
    assert_eq!((disconnected, asked), (2, ["a", "a", "b"].map(str::to_owned).to_vec()));
    channel.publish("after").unwrap();
    staying.iter_mut().for_each(|subscriber| assert_eq!(subscriber.data(), "after"));
    banned.iter_mut().for_each(|subscriber| subscriber.client.assert_end());
    await_subscribers(&channel, 2);
    assert_eq!(channel.disconnect(|user| user == "a"), 0, "no subscriber with this tag is left");
    let mut resumed = subscribe(&server, "/?user=a", &format!("Last-Event-ID: {id}\r\n"));
    assert_eq!(resumed.data(), "after");
}

/// The client may have received only a part of an event, so the server ends the stream without the last chunk.
#[test]
fn disconnect_ends_stream_of_stalled_client() {
    let channel = Channel::with_config(ChannelConfig { max_bytes: 100_000_000, ..ChannelConfig::default() });
    let feed = channel.clone();
    let server = serve(|server| server.get("/", move |ctx| feed.subscribe_with(ctx, Subscription::new().tag("slow"))));
    let _slow = subscribe(&server, "/", "");
    await_subscribers(&channel, 1);
    (0..300).for_each(|n| drop(channel.publish(large(n)).unwrap()));
    assert_eq!(channel.disconnect(|_| true), 1);
    await_subscribers(&channel, 0);
}

#[test]
fn id_returned_by_handler_becomes_response() {
    let channel = Channel::new();
    let server = serve(|server| server.post("/", move |mut ctx| channel.publish(ctx.body_text()?)));
    let id = server.ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
    assert!(id.status == 200 && id.text().ends_with("-0"), "{}", id.text());
}

// The documentation of `Channel` has these lines.
#[derive(Default)]
struct Topics(Mutex<HashMap<String, Arc<Channel>>>);

impl Topics {
    fn channel(&self, topic: &str) -> Arc<Channel> {
        let mut topics = self.0.lock().unwrap();
        if topics.len() == topics.capacity() {
            topics.retain(|_, channel| Arc::strong_count(channel) > 1 || channel.subscribers() > 0);
        }
        Arc::clone(topics.entry(topic.to_owned()).or_default())
    }
}
// The map ends here.

#[test]
fn channel_map_in_documentation_is_tested_code() {
    let this = include_str!("channel.rs");
    let map = this.split("has these lines.\n").nth(1).unwrap().split("// The map ends").next().unwrap();
    let documented: String = map.lines().map(|line| format!("/// {line}").trim_end().to_owned() + "\n").collect();
    let source = std::fs::read_to_string(super::tidy::root().join("src/sse/channel/mod.rs")).unwrap();
    assert!(source.contains(&documented), "{documented}");
}

/// Each page is the only subscriber of its topic, and reloads many times. Other topics are added and removed at the
/// same time. No page may receive a `close` event, and no page may subscribe to a channel that was removed from the
/// map.
#[test]
fn page_reload_finds_channel_of_its_topic_in_map() {
    const RELOADS: usize = 100;
    let room = Room::for_both_ends(60);
    let pages = room.connections / 6;
    let topics = Arc::new(Topics::default());
    let feed = Arc::clone(&topics);
    let server = serve(|server| server.get("/{topic}", move |ctx| feed.channel(ctx.param("topic")).subscribe(ctx)));
    std::thread::scope(|scope| {
        for page in 0..pages {
            let (server, topics) = (&server, &topics);
            scope.spawn(move || {
                for n in 0..RELOADS {
                    let mut reloaded = subscribe(server, &format!("/page-{page}"), "");
                    topics.channel(&format!("page-{page}")).publish(n.to_string()).unwrap();
                    let event = reloaded.next();
                    assert_eq!((event.kind.as_str(), event.data), ("message", n.to_string()));
                    let mut other = server.connect();
                    other.send(format!("HEAD /once-{page}-{n} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                    other.head();
                }
            });
        }
    });
    eventually(|| topics.0.lock().unwrap().values().all(|channel| channel.subscribers() == 0));
    let topics = topics.0.lock().unwrap().len();
    assert!(topics < pages * RELOADS / 2, "the map still has {topics} topics");
}
