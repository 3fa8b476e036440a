//! The `EventSource` of Chromium: the events that it receives, and when it reconnects.

use super::super::event_stream::{nasty_texts, parse, send_nasty};
use super::super::support::{serve, Running};
use super::{Page, Stage, PATIENCE};
use brooklet::sse::{self, Channel, ChannelConfig, Message};
use brooklet::{Method, Response, Server, StatusCode};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};

/// A page with two functions. `watch` records the events of these kinds as `kind|id|data`. `listen` also stops at
/// `close`.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script>
  const watch = (url, ...kinds) => {
    const source = Object.assign(new EventSource(url), { got: [], opened: 0, failed: 0 });
    source.keep = ({ type, lastEventId, data }) => source.got.push(`${type}|${lastEventId}|${data}`);
    for (const kind of ["message", "close", ...kinds]) source.addEventListener(kind, source.keep);
    source.onopen = () => source.opened++;
    source.onerror = () => source.failed++;
    return source;
  };
  const listen = (...wanted) => {
    const source = watch(...wanted);
    source.addEventListener("close", () => source.close());
    return source;
  };
  const pause = milliseconds => new Promise(go => setTimeout(go, milliseconds));
</script>"#;

/// The time that the page waits before it reconnects. It is shorter than the 3 s of Chromium, and shorter than the
/// pause during which the page must not reconnect.
const RETRY: Duration = Duration::from_millis(50);

fn stage(build: impl FnOnce(Server) -> Server) -> (Running, Stage) {
    let server = serve(|server| build(server).get("/", |_| Response::html(PAGE)));
    let stage = Stage::new(server.address());
    (server, stage)
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn events_of_all_forms_arrive_as_sent() {
    let long = "é世\u{1f600}".repeat(30_000); // a buffer may end in the middle of a character
    let sent = long.clone();
    let (_server, stage) = stage(move |server| {
        server.get("/events", move |ctx| {
            sse::stream(ctx, |mut events| {
                events.send_message("unnamed")?;
                events.send_message(Message::new().event("tick").id("a b").data("named"))?;
                events.send_comment("skipped\ndata: skipped")?;
                events.send_message("  several\nlines\r\nof\rtext \n\n")?;
                events.send_message(Message::new().event("tick").data(""))?;
                events.send_message(Message::new().id("größe-\u{1f600}"))?;
                events.send_message(Message::new().event("größe").data("世界 \u{1f600} \u{2028}\u{2029}\u{85}\0"))?;
                events.send_message(sent.as_str())?;
                events.send_message(Message::new().id("").data("forgotten"))?;
                events.close()
            })
        })
    });
    let mut page = Page::open(&stage);
    page.run("source = listen('/events', 'tick', 'größe')");
    page.until("source.readyState === EventSource.CLOSED");
    let expected = [
        "message||unnamed",
        "tick|a b|named",
        "message|a b|  several\nlines\nof\ntext \n\n",
        "tick|a b|",
        "größe|größe-\u{1f600}|世界 \u{1f600} \u{2028}\u{2029}\u{85}\0",
        &format!("message|größe-\u{1f600}|{long}"),
        "message||forgotten",
        "close||close",
    ];
    assert_eq!(page.list("source.got"), expected);
    assert_eq!(page.run("[source.opened, source.failed]"), "1,0");
}

/// The other tests read streams with the parser of this suite. It must agree with the browser.
#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn sequence_of_nasty_pieces_arrives_as_parsed_here() {
    let texts = nasty_texts(2);
    let (server, stage) = stage(move |server| {
        server.get("/events", move |ctx| {
            sse::stream(ctx, |mut events| {
                send_nasty(&mut events, &texts)?;
                events.close()
            })
        })
    });
    let expected = parse(server.get("/events").text().as_bytes());
    let expected: Vec<_> = expected.iter().map(|e| format!("{}|{}|{}", e.kind, e.last_event_id, e.data)).collect();
    let mut page = Page::open(&stage);
    // The data of each event is the name of the next event.
    page.run(
        "source = listen('/events'); \
         source.addEventListener('message', ({ data }) => source.addEventListener(data, source.keep))",
    );
    page.until("source.readyState === EventSource.CLOSED");
    assert_eq!(page.list("source.got"), expected);
}

/// Each stream ends with an incomplete event. The browser must ignore its data and its id. Every second stream also
/// ends in the middle of a chunk.
#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn event_source_after_cut_stream_waits_retry_and_resumes() {
    const CUTS: usize = 12; // with the 3 s of Chromium, the test would take longer than `PATIENCE`
    const LAST_RETRY: Duration = Duration::from_millis(700);
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    let (_server, stage) = stage(move |server| {
        server.get("/events", move |ctx| {
            noted.lock().unwrap().push(Instant::now());
            sse::stream(ctx, |mut events| {
                let last = events.last_event_id().map(|id| id.strip_prefix("café-").unwrap().parse().unwrap());
                let next = last.map_or(0, |last: usize| last + 1);
                if next == CUTS {
                    return events.close();
                }
                let retry = if next == CUTS - 1 { LAST_RETRY } else { RETRY };
                events.send_message(Message::new().retry(retry).id(format_args!("café-{next}")).data(next))?;
                let half = "data: half\nid: café-1000\n";
                let chunk = format!("{:x}\r\n{half}\r\n", half.len());
                if next % 2 == 0 {
                    return events.tcp_stream().write_all(chunk.as_bytes());
                }
                events.tcp_stream().write_all(&chunk.as_bytes()[..chunk.len() - 2])?;
                Err(ErrorKind::ConnectionAborted.into())
            })
        })
    });
    let mut page = Page::open(&stage);
    page.run("source = listen('/events')");
    page.until("source.readyState === EventSource.CLOSED");
    let mut expected: Vec<_> = (0..CUTS).map(|n| format!("message|café-{n}|{n}")).collect();
    expected.push(format!("close|café-{}|close", CUTS - 1));
    assert_eq!(page.list("source.got"), expected);
    assert_eq!(page.run("[source.opened, source.failed]"), format!("{},{CUTS}", CUTS + 1));
    let ids: Vec<_> = stage.requests("/events").into_iter().flatten().collect();
    assert_eq!(ids, (0..CUTS).map(|n| format!("café-{n}")).collect::<Vec<_>>());
    let waited: Vec<_> = times.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waited.iter().all(|waited| *waited >= RETRY) && waited[CUTS - 1] >= LAST_RETRY, "{waited:?}");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn subscriber_after_each_cut_receives_every_event_once() {
    const NUMBERS: usize = 2_000;
    const CUTS: usize = 5;
    let config = ChannelConfig { retry: Some(RETRY), max_events: 2 * NUMBERS, ..ChannelConfig::default() };
    let channel = Channel::with_config(config);
    let feed = channel.clone();
    let (_server, stage) = stage(move |server| server.get("/events", move |ctx| feed.subscribe(ctx)));
    let mut page = Page::open(&stage);
    page.run("source = listen('/events', 'gap')");
    page.until("source.readyState === EventSource.OPEN");
    let padding = "é".repeat(500);
    let publish = |numbers: Range<usize>| {
        numbers.for_each(|n| drop(channel.publish(format!("{n} {padding}")).unwrap()));
    };
    publish(0..1);
    page.until("source.got.length === 1"); // now the page has an id with which it can resume
    for cut in 1..=CUTS {
        publish(NUMBERS * (cut - 1) / CUTS + 1..NUMBERS * cut / CUTS - 100);
        stage.cut(); // while the events are being sent
        publish(NUMBERS * cut / CUTS - 100..NUMBERS * cut / CUTS + 1);
        page.until(&format!("source.got.length > {}", NUMBERS * cut / CUTS - 100));
    }
    channel.close();
    page.until("source.readyState === EventSource.CLOSED");
    let expected: Vec<_> = (0..=NUMBERS).map(|n| n.to_string()).chain(["close".to_owned()]).collect();
    assert_eq!(page.list("source.got.map(event => event.split('|')[2].split(' ')[0])"), expected);
    let ids = stage.requests("/events");
    assert!(ids.len() == CUTS + 1 && ids[1..].iter().all(Option::is_some), "{ids:?}");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn subscriber_after_evicted_events_receives_gap_event() {
    let channel = Channel::with_config(ChannelConfig { max_events: 2, ..ChannelConfig::default() });
    let feed = channel.clone();
    let [_, second, third] = ["evicted", "second", "third"].map(|text| channel.publish(text).unwrap());
    let (_server, stage) = stage(move |server| {
        server.get("/events", move |ctx| match ctx.headers().contains("last-event-id") {
            true => feed.subscribe(ctx),
            false => sse::stream(ctx, |mut events| {
                events.send_message(Message::new().retry(RETRY).id("long ago").data("before"))
            }),
        })
    });
    let mut page = Page::open(&stage);
    page.run("source = listen('/events', 'gap')");
    page.until("source.got.length === 4");
    let after = [format!("message|{second}|second"), format!("message|{third}|third")];
    let got = page.list("source.got");
    assert_eq!((got[0].as_str(), &got[2..]), ("message|long ago|before", &after[..]));
    assert!(got[1].starts_with("gap|") && got[1].ends_with(&format!("|long ago\n{second}")), "{}", got[1]);
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn event_source_after_close_event_or_204_does_not_reconnect() {
    let channel = Channel::with_config(ChannelConfig { retry: Some(RETRY), ..ChannelConfig::default() });
    let feed = channel.clone();
    let (_server, stage) = stage(move |server| {
        let ending = |mut events: sse::Connection| {
            events.send_message(Message::new().retry(RETRY))?;
            events.close()
        };
        server
            .get("/ending", move |ctx| sse::stream(ctx, ending))
            .get("/channel", move |ctx| feed.subscribe(ctx))
    });
    let mut page = Page::open(&stage);
    page.run("good = listen('/ending')");
    page.until("good.readyState === EventSource.CLOSED");
    // A page that does not call `close()` reconnects again and again. A closed channel ends this with a 204.
    page.run("deaf = watch('/ending')");
    page.until("deaf.opened > 2");
    page.run("deaf.close()");
    page.run("channel = watch('/channel')");
    page.until("channel.readyState === EventSource.OPEN");
    channel.close();
    page.until("channel.readyState === EventSource.CLOSED");
    let asked = stage.requests("/ending").len();
    page.run("pause(500)"); // ten times `RETRY`
    assert_eq!(stage.requests("/ending").len(), asked);
    assert_eq!(page.run("[good.opened, good.failed, good.got]"), "1,0,close||close");
    assert_eq!(stage.requests("/channel"), [None, None]);
    assert_eq!(page.run("[channel.opened, channel.failed, channel.got]"), "1,2,close||close", "the end and the 204");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn page_of_other_origin_is_refused_unless_allowed() {
    let (_server, stage) = stage(|server| server);
    let mut page = Page::open(&stage);
    let other = |build: &dyn Fn(Server) -> Server| {
        let (report, reports) = mpsc::channel();
        let report = Mutex::new(report);
        let changed = Arc::new(Mutex::new(0));
        let change = Arc::clone(&changed);
        let events = |mut events: sse::Connection| match events.last_event_id().map(str::to_owned) {
            None => events.send_message(Message::new().retry(RETRY).id(7).data("first")),
            Some(id) => events.send_message(Message::new().id(8).data(id)).and_then(|()| events.close()),
        };
        let server = serve(|server| {
            build(server)
                .get("/events", move |ctx| sse::stream(ctx, events))
                .post("/", move |_| {
                    *change.lock().unwrap() += 1;
                    "changed"
                })
                .on_response(move |exchange| {
                    let _ = report.lock().unwrap().send((exchange.method, exchange.status));
                })
        });
        (server, changed, reports)
    };
    // For the browser, `localhost` is also another site than 127.0.0.1, so its strictest rules apply.
    let url = |server: &Running, path: &str| format!("'http://localhost:{}{path}'", server.address().port());

    let (server, changed, reports) = other(&|server| server);
    page.run(&format!("foreign = listen({})", url(&server, "/events")));
    page.until("foreign.readyState === EventSource.CLOSED");
    assert_eq!(page.run("[foreign.opened, foreign.failed]"), "0,1");
    page.run(&format!("fetch({}, {{ method: 'POST', mode: 'no-cors', body: 'text' }})", url(&server, "/")));
    let received = [(); 2].map(|()| reports.recv_timeout(PATIENCE).unwrap());
    assert!(received.contains(&(Some(Method::Post), Some(StatusCode::FORBIDDEN))), "{received:?}");
    assert_eq!(*changed.lock().unwrap(), 0);

    let (server, changed, _reports) = other(&|server| server.allow_origin(&stage.origin()));
    page.run(&format!("named = listen({})", url(&server, "/events")));
    page.until("named.readyState === EventSource.CLOSED");
    assert_eq!(page.list("named.got"), ["message|7|first", "message|8|7", "close|8|close"]);
    // Because of this header field, the browser sends a preflight request first.
    let post = format!("fetch({}, {{ method: 'POST', headers: {{ 'X-Own': 'x' }} }})", url(&server, "/"));
    assert_eq!(page.run(&format!("{post}.then(answer => answer.text())")), "changed");
    assert_eq!(*changed.lock().unwrap(), 1);
}
