//! Frameworks that put HTML from the server into a page. The tests use their unchanged packages: htmx with the example
//! `htmx`, Turbo and Datastar with the events in the documentation of `sse`.

use super::super::examples::{program, Example};
use super::super::machine::installed;
use super::super::support::{serve, Running};
use super::{Page, Stage};
use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers, Subscription};
use brooklet::{Files, Response};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const HTMX: &str = "npm/node_modules/htmx.org/dist";
const TURBO: &str = "npm/node_modules/@hotwired/turbo/dist/turbo.es2017-umd.js";
/// Datastar 1.0.1. npm does not have this version, but the Python package `starhtml` 0.7.0 contains the file.
const DATASTAR: &str = "datastar.js";

fn turbo(text: &str) -> Message {
    Message::new().data(format!(
        r#"<turbo-stream action="append" target="log"><template><li>{text}</li></template></turbo-stream>"#
    ))
}

fn datastar(text: &str) -> Message {
    let elements = format!("elements <li>{text}</li>");
    Message::new()
        .event("datastar-patch-elements")
        .data("selector #log")
        .data("mode append")
        .data(elements)
}

#[test]
fn event_of_turbo_or_datastar_is_as_documented() {
    let stream =
        "data: <turbo-stream action=\"append\" target=\"log\"><template><li>new</li></template></turbo-stream>\n\n";
    assert_eq!(turbo("new").to_string(), stream);
    let patch =
        "event: datastar-patch-elements\ndata: selector #log\ndata: mode append\ndata: elements <li>new</li>\n\n";
    assert_eq!(datastar("new").to_string(), patch);
    let documentation = include_str!("../../../src/sse/mod.rs");
    for line in stream.lines().chain(patch.lines()).filter(|line| !line.is_empty()) {
        let value = line.split_once(": ").unwrap().1;
        assert!(documentation.contains(value), "{value}");
    }
}

/// Serves a page with this head and body, the script of a framework at `/script.js`, and a channel at `/events`.
fn serve_page(script: &str, head: &str, body: &str) -> (Running, Channel) {
    let script = installed(script);
    let name = script.file_name().unwrap().to_str().unwrap().to_owned();
    let scripts = Files::new(script.parent().unwrap()).unwrap();
    let page = format!("<!doctype html><meta charset=utf-8>{head}{body}<ul id=log></ul>");
    let config = ChannelConfig {
        newcomers: Newcomers::Last(usize::MAX),
        retry: Some(Duration::from_millis(50)),
        ..ChannelConfig::default()
    };
    let channel = Channel::with_config(config);
    let feed = channel.clone();
    let server = serve(|server| {
        server
            .get("/", move |_| Response::html(page.clone()))
            .get("/script.js", move |ctx| scripts.respond(&ctx, &name))
            .get("/events", move |ctx| feed.subscribe_with(ctx, Subscription::new().tag("page")))
    });
    (server, channel)
}

/// Publishes events before the page subscribes, while it is connected, after its connection was lost, and after its
/// stream ended regularly. The page must show each event once and in order.
fn assert_shows_each_event_once(server: &Running, channel: &Channel, event: fn(&str) -> Message) {
    let stage = Stage::new(server.address());
    let publish = |text: &str| drop(channel.publish(event(text)).unwrap());
    publish("before");
    let mut page = Page::open(&stage);
    page.until("log.children.length === 1");
    publish("größer 世界 &amp; \u{1f600}");
    page.until("log.children.length === 2");
    stage.cut();
    publish("after a lost connection");
    page.until("log.children.length === 3");
    assert!(channel.disconnect(|tag| tag == "page") > 0);
    publish("after a stream ended");
    page.until("log.children.length === 4");
    publish("last");
    page.until("log.children.length === 5");
    let expected = ["before", "größer 世界 & \u{1f600}", "after a lost connection", "after a stream ended", "last"];
    assert_eq!(page.list("[...log.children].map(line => line.textContent)"), expected);
    let ids = stage.requests("/events");
    assert!(ids.len() >= 3 && ids[0].is_none() && ids[1..].iter().all(Option::is_some), "{ids:?}");
}

#[test]
#[ignore = "needs Chromium and npm's @hotwired/turbo: cargo test -- --ignored browser"]
fn turbo_after_lost_connection_shows_each_event_once() {
    let source = "<turbo-stream-source src=/events></turbo-stream-source>";
    let (server, channel) = serve_page(TURBO, "<script src=/script.js></script>", source);
    assert_shows_each_event_once(&server, &channel, turbo);
}

#[test]
#[ignore = "needs Chromium, and Datastar as target/datastar.js: cargo test -- --ignored datastar"]
fn datastar_after_lost_connection_shows_each_event_once() {
    let source = "<div data-init=\"@get('/events', {retry: 'always'})\"></div>";
    let (server, channel) = serve_page(DATASTAR, "<script type=module src=/script.js></script>", source);
    assert_shows_each_event_once(&server, &channel, datastar);
}

#[test]
#[ignore = "needs Chromium, and Datastar as target/datastar.js: cargo test -- --ignored datastar"]
fn datastar_without_retry_reconnects_only_after_lost_connection() {
    let source = "<div data-init=\"@get('/events')\"></div>";
    let notes = "<script>ended = 0; addEventListener('datastar-fetch', event => ended += event.detail.type === 'finished', true)</script>";
    let head = format!("{notes}<script type=module src=/script.js></script>");
    let (server, channel) = serve_page(DATASTAR, &head, source);
    let stage = Stage::new(server.address());
    channel.publish(datastar("first")).unwrap();
    let mut page = Page::open(&stage);
    page.until("log.children.length === 1");
    stage.cut();
    channel.publish(datastar("second")).unwrap();
    page.until("log.children.length === 2");
    assert_eq!(page.run("ended"), "0");
    channel.disconnect(|tag| tag == "page");
    page.until("ended === 1");
    assert_eq!(stage.requests("/events").len(), 2);
}

fn htmx_at(address: SocketAddr, scripts: &Path) -> Example {
    let mut command = Command::new(program("htmx"));
    command.arg(address.to_string()).arg(scripts);
    Example::run(command)
}

#[test]
#[ignore = "needs Chromium and npm's htmx.org: cargo test -- --ignored browser"]
fn htmx_page_after_restart_shows_all_votes() {
    let scripts = installed(HTMX);
    let poll = htmx_at(SocketAddr::from(([127, 0, 0, 1], 0)), &scripts);
    let address = poll.address;
    let stage = Stage::new(address);
    let (mut ada, mut grace) = (Page::open(&stage), Page::open(&stage));
    let shows = |page: &mut Page<'_>, votes: &str| {
        page.until(&format!("[...document.querySelectorAll('#poll b')].map(vote => vote.textContent) == '{votes}'"));
    };
    shows(&mut ada, "0,0,0");
    ada.run("document.querySelectorAll('button')[1].focus(), document.activeElement.click()");
    for page in [&mut ada, &mut grace] {
        shows(page, "0,1,0");
    }
    assert_eq!(ada.run("document.activeElement.textContent"), "tea", "the button must keep the focus");
    assert_eq!(poll.post("/vote/gin", ""), 404);
    stage.cut();
    assert_eq!(poll.post("/vote/water", ""), 204);
    for page in [&mut ada, &mut grace] {
        shows(page, "0,1,1");
    }
    drop(poll);
    let poll = htmx_at(address, &scripts);
    for page in [&mut ada, &mut grace] {
        shows(page, "0,0,0");
    }
    assert_eq!(poll.post("/vote/coffee", ""), 204);
    for page in [&mut ada, &mut grace] {
        shows(page, "1,0,0");
    }
}
